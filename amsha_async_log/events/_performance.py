"""Performance metrics: what an execution used in all, and samples of the machine."""

from typing import Any

from ._base import Event

__all__ = ["MetricsExecution", "SampleCgroup", "SampleGpu", "SampleHost", "SampleLoop", "SampleProcess"]


class MetricsExecution(Event, tag="metrics.execution", kw_only=True):
    """Totals of an execution, measured by the program itself; emit it once they are known.

    Readers take its tokens and cost only where no `llm.call.*` event and no `record_tokens` says any.
    """

    duration_seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    cpu_percent: float | None = None
    """Mean CPU use of the process, 100 for each core."""
    memory_mb: float | None = None
    """Resident memory of the process."""
    memory_change_mb: float | None = None
    """How much resident memory rose (or fell: negative) from start to end."""
    peak_memory_mb: float | None = None
    gpu_percent: float | None = None
    gpu_memory_mb: float | None = None
    energy_joules: float | None = None
    api_latency_seconds: float | None = None
    """Time spent waiting for model providers."""
    file_read_bytes: int | None = None
    file_write_bytes: int | None = None
    gpu_metrics: Any = None
    """Anything more that is known of the GPUs."""


class SampleHost(Event, tag="sample.host", gc=False, kw_only=True):
    """The machine at one moment."""

    cpu_percent: float | None = None
    """Of all cores together: 0 to 100."""
    memory_mb: float | None = None
    """In use."""
    memory_total_mb: float | None = None
    load_1m: float | None = None
    """Tasks that run or wait, averaged over a minute."""


class SampleProcess(Event, tag="sample.process", gc=False, kw_only=True):
    """This process at one moment."""

    cpu_percent: float | None = None
    """Since the sample before, 100 for each core."""
    memory_mb: float | None = None
    """Resident."""
    peak_memory_mb: float | None = None
    """The most that was ever resident."""
    threads: int | None = None
    open_files: int | None = None
    file_read_bytes: int | None = None
    """Since the process began."""
    file_write_bytes: int | None = None
    """Since the process began."""


class SampleCgroup(Event, tag="sample.cgroup", gc=False, kw_only=True):
    """The container that this process runs in."""

    cpu_percent: float | None = None
    """Since the sample before, 100 for each core."""
    cpu_limit_cores: float | None = None
    throttled_seconds: float | None = None
    """How long it was kept from running, in all."""
    memory_mb: float | None = None
    memory_limit_mb: float | None = None
    oom_kills: int | None = None
    """Processes killed for want of memory, in all."""


class SampleGpu(Event, tag="sample.gpu", gc=False, kw_only=True):
    """One GPU at one moment."""

    gpu_index: int | None = None
    gpu_uuid: str | None = None
    gpu_name: str | None = None
    gpu_percent: float | None = None
    """Share of the time since the sample before in which it worked: 0 to 100."""
    gpu_memory_mb: float | None = None
    gpu_memory_total_mb: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    """Since the driver was loaded."""


class SampleLoop(Event, tag="sample.loop", gc=False, kw_only=True):
    """One event loop since the sample before."""

    loop_name: str | None = None
    lag_max_seconds: float | None = None
    """The longest a callback that was due had to wait."""
    lag_p99_seconds: float | None = None
    busy_percent: float | None = None
    """Share of the time in which it ran callbacks: 0 to 100."""
    tasks: int | None = None
    """Alive."""
