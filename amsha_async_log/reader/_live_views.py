"""What `top` shows of a log at one moment. None: unknown; `unknown` then has the reason, where one was told."""

from msgspec import Struct

__all__ = [
    "LiveCgroup",
    "LiveExecution",
    "LiveGpu",
    "LiveHost",
    "LiveLoop",
    "LiveProcess",
    "LiveView",
    "LiveWriter",
]


class LiveWriter(Struct, kw_only=True):
    """One writer."""

    writer: str
    program: str | None
    host: str | None
    pid: int | None
    status: str
    """`running closed killed`, or `unknown` for one of another machine, of before a reboot, or without locks."""
    started_at: float | None
    """Unix seconds, as all times here: its first line that was read."""
    last_seen_at: float | None
    """Its latest line."""
    lost_records: int
    """Refused, dropped or failed, as far as it has said so."""
    queued_records: int | None
    """Waiting to be written, by its latest sample."""
    sources: dict[str, str]
    """Sources of samples that are not `ok`, with their state."""


class LiveHost(Struct, kw_only=True):
    """The machine, by the latest sample of it. Fields as in `sample.host`."""

    host: str | None
    timestamp: float | None
    interval_seconds: float | None
    source_state: str | None
    cpu_percent: float | None
    memory_mb: float | None
    memory_total_mb: float | None
    load_1m: float | None
    cpu_pressure_percent: float | None
    memory_pressure_percent: float | None
    io_pressure_percent: float | None
    unknown: dict[str, str]


class LiveCgroup(Struct, kw_only=True):
    """A container, by the latest sample of it. Fields as in `sample.cgroup`."""

    cpu_percent: float | None
    cpu_limit_cores: float | None
    throttled_seconds: float | None
    memory_mb: float | None
    memory_limit_mb: float | None
    oom_kills: int | None
    unknown: dict[str, str]


class LiveProcess(Struct, kw_only=True):
    """The process of a writer, by its latest sample. Fields as in `sample.process`."""

    writer: str
    timestamp: float | None
    interval_seconds: float | None
    source_state: str | None
    cpu_percent: float | None
    cpu_seconds: float | None
    memory_mb: float | None
    peak_memory_mb: float | None
    threads: int | None
    open_files: int | None
    gc_pause_max_seconds: float | None
    gc_pause_total_seconds: float | None
    log_queued: int | None
    log_lost: int | None
    running_executions: int | None
    cgroup: LiveCgroup | None
    """The container it runs in."""
    unknown: dict[str, str]


class LiveGpu(Struct, kw_only=True):
    """A GPU, by the latest sample of it. Fields as in `sample.gpu`."""

    host: str | None
    timestamp: float | None
    interval_seconds: float | None
    source_state: str | None
    """By the latest sample or change of state."""
    gpu_index: int | None
    gpu_uuid: str | None
    gpu_name: str | None
    mig_parent_uuid: str | None
    gpu_percent: float | None
    gpu_memory_mb: float | None
    gpu_memory_total_mb: float | None
    power_watts: float | None
    energy_joules: float | None
    temperature_celsius: float | None
    throttle_reasons: list[str] | None
    unknown: dict[str, str]


class LiveLoop(Struct, kw_only=True):
    """An event loop, by the latest sample of it. Fields as in `sample.loop`."""

    writer: str
    loop_name: str | None
    timestamp: float | None
    interval_seconds: float | None
    lag_max_seconds: float | None
    lag_p99_seconds: float | None
    busy_percent: float | None
    tasks: int | None
    stalls: int
    """Those that were told since its writer began."""
    stalled_seconds: float | None
    """How long it has not run by now. None: it runs."""
    blocked_at: str | None
    """File, line and function that keep it from running. None: it runs, or that is not known."""
    unknown: dict[str, str]


class LiveExecution(Struct, kw_only=True):
    """One execution. Fields without words here are those of `Execution`."""

    execution_id: str
    crew_name: str | None
    status: str
    step: str | None
    """Name, kind or id of the step that began last and has not ended."""
    started_at: float | None
    ended_at: float | None
    age_seconds: float | None
    """From its start to its end, to now while it runs, to its last line if it was killed."""
    total_tokens: int | None
    cost_usd: float | None
    llm_calls: int
    retries: int
    errors: int
    cpu_seconds: float | None
    """Its share, as in `Resources`; samplers tell it when the execution has ended."""
    cpu_error_seconds: float | None
    energy_joules: float | None
    attribution: str | None
    unknown: dict[str, str]


class LiveView(Struct, kw_only=True):
    """A log at one moment."""

    timestamp: float
    """When that was."""
    writers: list[LiveWriter]
    """In the order they were first seen."""
    host: LiveHost | None
    """This machine where there is a sample of it, else the one with the latest sample."""
    processes: list[LiveProcess]
    """Of writers that have not ended, as all samples here."""
    gpus: list[LiveGpu]
    loops: list[LiveLoop]
    executions: list[LiveExecution]
    """Those that run, the oldest first, then the latest of those that ended, the latest first."""
    records_per_second: float
    """Records of the program and samples, over the last 5 seconds."""
    lost_records: int
    """Of all writers."""
