"""Performance metrics: what an execution used in all, and samples of the machine."""

from typing import Any

from ._base import Event

__all__ = ["MetricsExecution", "SampleCgroup", "SampleGpu", "SampleHost", "SampleLoop", "SampleProcess"]


class MetricsExecution(Event, tag="metrics.execution", kw_only=True):
    """Totals of an execution, measured by the program itself; emit it once they are known.

    Readers take its tokens and cost only where no `llm.call.*` event and no `record_tokens` says any.
    """

    duration_seconds: float | None = None
    """From the execution's start to its end."""
    prompt_tokens: int | None = None
    """Cached ones included."""
    completion_tokens: int | None = None
    """Reasoning included."""
    total_tokens: int | None = None
    """Prompt and completion together."""
    cached_tokens: int | None = None
    """Of the prompt tokens, those the provider had cached."""
    reasoning_tokens: int | None = None
    """Of the completion tokens, those spent on reasoning."""
    cost_usd: float | None = None
    """Cost of all its model calls."""
    cpu_percent: float | None = None
    """Mean CPU use of the process, 100 for each core."""
    cpu_seconds: float | None = None
    """CPU time that the process took meanwhile, on all cores."""
    memory_mb: float | None = None
    """Resident memory of the process."""
    memory_change_mb: float | None = None
    """How much resident memory rose (or fell: negative) from start to end."""
    peak_memory_mb: float | None = None
    """The most that was resident."""
    gpu_percent: float | None = None
    """Mean share of the time in which the GPUs worked: 0 to 100."""
    gpu_memory_mb: float | None = None
    """GPU memory in use, of all GPUs together."""
    energy_joules: float | None = None
    """Energy that the GPUs took."""
    api_latency_seconds: float | None = None
    """Time spent waiting for model providers."""
    file_read_bytes: int | None = None
    """Read from files meanwhile."""
    file_write_bytes: int | None = None
    """Written to files meanwhile."""
    gpu_metrics: Any = None
    """Anything more that is known of the GPUs."""


class SampleHost(Event, tag="sample.host", gc=False, kw_only=True):
    """The machine at one moment. Emit it at an interval."""

    cpu_percent: float | None = None
    """Of all cores together: 0 to 100."""
    memory_mb: float | None = None
    """In use."""
    memory_total_mb: float | None = None
    """Memory it has."""
    load_1m: float | None = None
    """Tasks that run or wait, averaged over a minute."""


class SampleProcess(Event, tag="sample.process", gc=False, kw_only=True):
    """This process at one moment. Emit it at an interval."""

    cpu_percent: float | None = None
    """Since the sample before, 100 for each core."""
    cpu_seconds: float | None = None
    """CPU time since the process began, on all cores."""
    memory_mb: float | None = None
    """Resident."""
    peak_memory_mb: float | None = None
    """The most that was ever resident."""
    threads: int | None = None
    """Alive."""
    open_files: int | None = None
    """Descriptors, sockets included."""
    file_read_bytes: int | None = None
    """Since the process began."""
    file_write_bytes: int | None = None
    """Since the process began."""


class SampleCgroup(Event, tag="sample.cgroup", gc=False, kw_only=True):
    """The container that this process runs in, at one moment. Emit it at an interval."""

    cpu_percent: float | None = None
    """Since the sample before, 100 for each core."""
    cpu_limit_cores: float | None = None
    """Cores' worth of CPU time it may take. None: not limited."""
    throttled_seconds: float | None = None
    """How long it was kept from running, in all."""
    memory_mb: float | None = None
    """In use."""
    memory_limit_mb: float | None = None
    """The most it may use. None: not limited."""
    oom_kills: int | None = None
    """Processes killed for want of memory, in all."""


class SampleGpu(Event, tag="sample.gpu", gc=False, kw_only=True):
    """One GPU at one moment. Emit one for each GPU, at an interval."""

    gpu_index: int | None = None
    """Its number on this machine, from 0."""
    gpu_uuid: str | None = None
    """The driver's id of it, which a restart does not change."""
    gpu_name: str | None = None
    """Its model."""
    gpu_percent: float | None = None
    """Share of the time since the sample before in which it worked: 0 to 100."""
    gpu_memory_mb: float | None = None
    """In use."""
    gpu_memory_total_mb: float | None = None
    """Memory it has."""
    temperature_celsius: float | None = None
    """Of the chip."""
    power_watts: float | None = None
    """Drawn at this moment."""
    energy_joules: float | None = None
    """Since the driver was loaded."""


class SampleLoop(Event, tag="sample.loop", gc=False, kw_only=True):
    """One event loop since the sample before. Emit it at an interval."""

    loop_name: str | None = None
    """Which one, where there are several."""
    lag_max_seconds: float | None = None
    """The longest a callback that was due had to wait."""
    lag_p99_seconds: float | None = None
    """What 99 of 100 callbacks waited no longer than."""
    busy_percent: float | None = None
    """Share of the time in which it ran callbacks: 0 to 100."""
    tasks: int | None = None
    """Alive."""
