"""Performance metrics: what an execution used in all, and how that was found out."""

from typing import Any

from ._base import Event

__all__ = ["MetricsAttribution", "MetricsExecution"]


class MetricsExecution(Event, tag="metrics.execution", kw_only=True):
    """Totals of an execution, measured by the program itself; emit it once they are known.

    Readers take its tokens and cost only where no `llm.call.*` event and no `record_tokens` says any. A log that
    samples writes one for each execution when it has ended, with what the execution cost the machine; each
    `*_error_*` says how far the truth may lie from the value beside it, either way.
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
    """CPU time on all cores: the execution's share as by `attribution`, exact to the nanosecond as a number."""
    cpu_error_seconds: float | None = None
    """How far the truth may lie from `cpu_seconds`."""
    memory_mb: float | None = None
    """Resident memory of the process."""
    memory_change_mb: float | None = None
    """How much resident memory rose (or fell: negative) from start to end."""
    peak_memory_mb: float | None = None
    """The most that was resident."""
    mean_memory_mb: float | None = None
    """Resident memory of the process, averaged over the time it ran."""
    gpu_percent: float | None = None
    """Mean share of the time in which the GPUs worked: 0 to 100."""
    gpu_memory_mb: float | None = None
    """GPU memory in use, of all GPUs together."""
    peak_gpu_memory_mb: float | None = None
    """The most GPU memory in use, of all GPUs together."""
    energy_joules: float | None = None
    """Energy that the GPUs took: the execution's share."""
    energy_error_joules: float | None = None
    """How far the truth may lie from `energy_joules`."""
    api_latency_seconds: float | None = None
    """Time spent waiting for model providers."""
    file_read_bytes: int | None = None
    """Read from storage: the execution's share."""
    file_read_error_bytes: int | None = None
    """How far the truth may lie from `file_read_bytes`."""
    file_write_bytes: int | None = None
    """Written to storage: the execution's share."""
    file_write_error_bytes: int | None = None
    """How far the truth may lie from `file_write_bytes`."""
    loop_lag_max_seconds: float | None = None
    """The longest that an event loop of this process kept a callback waiting meanwhile."""
    gpu_metrics: Any = None
    """Anything more that is known of the GPUs."""
    attribution: str | None = None
    """How shares were found. `exclusive`: nothing else ran. `overlap`: what was used at a moment is divided equally
    among the executions that ran then and had none running inside them. `task`: CPU is that of its own tasks and
    threads, all else as `overlap`."""
    samples: int | None = None
    """How many samples of the process were taken while it ran, those at its start and its end included."""
    unknown: dict[str, str] | None = None
    """Field to reason code, of what could not be found out."""


class MetricsAttribution(Event, tag="metrics.attribution", kw_only=True):
    """Where everything that was counted went. Written by a log that samples, when it is closed.

    Of each counter, `executions + idle + unattributed` is the total exactly, and `executions` is the sum over all
    `metrics.execution` lines of this writer.
    """

    counters: dict[str, dict[str, int]] | None = None
    """Counter to `total executions idle unattributed`, in whole units: `cpu_nanoseconds`, `file_read_bytes`,
    `file_write_bytes`, `energy_millijoules:<gpu_uuid>`."""
    sampler_cpu_seconds: float | None = None
    """CPU time that sampling itself took, part of the total."""
    ticks: int | None = None
    """Samples of the process taken."""
    missed: int | None = None
    """Samples that were due and could not be taken in time."""
    skipped: int | None = None
    """Executions that no account was kept of: more started and ended than the sampler could follow."""
