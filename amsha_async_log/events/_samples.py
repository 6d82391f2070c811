"""Samples of the machine: what a log that samples writes at an interval, and programs may emit themselves."""

from typing import Any

from ._base import Event

__all__ = [
    "SampleCgroup",
    "SampleGpu",
    "SampleHost",
    "SampleLoop",
    "SampleLoopStalled",
    "SampleProcess",
    "SampleSourceChanged",
]


class Sample(Event, kw_only=True):
    """What all samples say of themselves."""

    source_state: str | None = None
    """`ok`, or the code of what is wrong with the source as a whole."""
    unknown: dict[str, str] | None = None
    """Field to the reason code of why it is absent: `not_supported no_permission mig lost stale ...`."""
    cause: str | None = None
    """Why it was taken: `interval execution start close`."""
    interval_seconds: float | None = None
    """Since the sample of this source before; absent on the first."""
    late_seconds: float | None = None
    """How long after it was due."""
    missed: int | None = None
    """Samples before this one that were due and could not be taken in time."""
    age_seconds: float | None = None
    """How old the values were when the line was written."""
    cost_seconds: float | None = None
    """What reading the source took: CPU time or, of a driver, the time until it had answered."""


class SampleHost(Sample, tag="sample.host", kw_only=True):
    """The machine at one moment. Emit it at an interval."""

    cpu_percent: float | None = None
    """Of all cores together, since the sample before: 0 to 100."""
    memory_mb: float | None = None
    """In use: what is neither free nor can be freed at once."""
    memory_total_mb: float | None = None
    """Memory it has."""
    load_1m: float | None = None
    """Tasks that run or wait, averaged over a minute."""
    cpu_pressure_percent: float | None = None
    """Share of the time since the sample before in which some task waited for a CPU: 0 to 100 (Linux PSI)."""
    memory_pressure_percent: float | None = None
    """The same for memory."""
    io_pressure_percent: float | None = None
    """The same for storage."""


class SampleProcess(Sample, tag="sample.process", kw_only=True):
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
    """Read from storage since the process began; what the page cache had is not counted."""
    file_write_bytes: int | None = None
    """Sent towards storage since the process began."""
    major_faults: int | None = None
    """Pages that had to be read from storage since the process began."""
    involuntary_switches: int | None = None
    """Times since it began that it was taken off a CPU although it wanted to go on."""
    gc_collections: int | None = None
    """Garbage collections since the sample before."""
    gc_pause_max_seconds: float | None = None
    """The longest of them."""
    gc_pause_total_seconds: float | None = None
    """All of them."""
    log_queued: int | None = None
    """Records that waited to be written."""
    log_lost: int | None = None
    """Records refused or lost since the log was opened."""
    running_executions: int | None = None
    """Executions of this process that had started and not ended."""


class SampleCgroup(Sample, tag="sample.cgroup", kw_only=True):
    """The container that this process runs in, at one moment. Emit it at an interval."""

    cgroup_version: str | None = None
    """`v1`, `v2` or `hybrid`."""
    cpu_percent: float | None = None
    """Since the sample before, 100 for each core."""
    cpu_limit_cores: float | None = None
    """Cores' worth of CPU time it may take, the groups around it considered. None: not limited."""
    throttled_seconds: float | None = None
    """How long it was kept from running, in all."""
    throttled_periods: int | None = None
    """How many scheduling periods it was kept from running in, in all."""
    memory_mb: float | None = None
    """In use, without page cache that can be dropped at once."""
    memory_limit_mb: float | None = None
    """The most it may use, the groups around it considered. None: not limited."""
    peak_memory_mb: float | None = None
    """The most that was ever in use, page cache included."""
    oom_kills: int | None = None
    """Processes killed for want of memory, in all."""
    processes: int | None = None
    """Processes and threads in it."""
    processes_limit: int | None = None
    """The most there may be. None: not limited."""
    cpu_pressure_percent: float | None = None
    """Share of the time since the sample before in which some task in it waited for a CPU: 0 to 100 (PSI)."""
    memory_pressure_percent: float | None = None
    """The same for memory."""
    io_pressure_percent: float | None = None
    """The same for storage."""


class SampleGpu(Sample, tag="sample.gpu", kw_only=True):
    """One GPU at one moment. Emit one for each GPU, at an interval."""

    gpu_index: int | None = None
    """Its number on this machine, from 0; not CUDA's, which a program can change."""
    gpu_uuid: str | None = None
    """The driver's id of it, which a restart does not change."""
    gpu_name: str | None = None
    """Its model."""
    gpu_pci_bus_id: str | None = None
    """Where it is plugged in."""
    mig_parent_uuid: str | None = None
    """Of a MIG instance: the GPU it is a part of."""
    gpu_percent: float | None = None
    """Share of the driver's last sampling period in which it worked: 0 to 100."""
    gpu_memory_percent: float | None = None
    """Share of that period in which its memory was read or written: 0 to 100."""
    gpu_memory_mb: float | None = None
    """In use."""
    gpu_memory_total_mb: float | None = None
    """Memory it has."""
    energy_joules: float | None = None
    """Since the driver was loaded."""
    power_watts: float | None = None
    """Drawn at this moment, or averaged over the last second, as the model does."""
    temperature_celsius: float | None = None
    """Of the chip."""
    sm_clock_mhz: int | None = None
    """Of the processors."""
    memory_clock_mhz: int | None = None
    """Of the memory."""
    throttle_reasons: list[str] | None = None
    """Why clocks are lower than they could be; empty: they are not."""
    ecc_errors: int | None = None
    """Memory errors that could not be corrected, since the driver was loaded."""
    gpu_processes: int | None = None
    """Processes that compute on it."""
    process_gpu_memory_mb: float | None = None
    """What this process holds of its memory."""
    process_gpu_percent: float | None = None
    """Share of the time since the last look in which this process computed on it: 0 to 100."""
    medium_age_seconds: float | None = None
    """Age of power, temperature, clocks and throttle reasons, which are read less often. Absent: read just now."""
    slow_age_seconds: float | None = None
    """The same for memory errors and processes, which are read still less often."""


class SampleLoop(Sample, tag="sample.loop", kw_only=True):
    """One event loop since the sample before. Emit it at an interval."""

    loop_name: str | None = None
    """Which one, where there are several."""
    lag_max_seconds: float | None = None
    """The longest a callback that was due had to wait."""
    lag_p99_seconds: float | None = None
    """What 99 of 100 callbacks waited no longer than."""
    lag_samples: int | None = None
    """How many waits that was found out from."""
    busy_percent: float | None = None
    """Share of the time in which its thread computed: 0 to 100."""
    tasks: int | None = None
    """Tasks that the process holds, of all loops; ended ones that something still refers to included."""
    stalls: int | None = None
    """Times it did not run for longer than the limit (option `loop_stall_s`) since the sample before."""


class SampleLoopStalled(Event, tag="sample.loop_stalled", kw_only=True):
    """An event loop does not run. Written by a log that samples, while it does not, once for each time."""

    loop_name: str | None = None
    """Which one."""
    stalled_seconds: float | None = None
    """For how long, when this was found out."""
    blocked_at: str | None = None
    """File, line and function of the innermost frame that is not the standard library's."""
    frames: Any = None
    """Frames of the loop's thread, outermost first: `file line function code`."""


class SampleSourceChanged(Event, tag="sample.source_changed", kw_only=True):
    """A source of samples, or one GPU, has changed its state. Written by a log that samples, once for each change."""

    source: str | None = None
    """`process host cgroup gpu`."""
    gpu_index: int | None = None
    """Which GPU; absent: the driver as a whole."""
    gpu_uuid: str | None = None
    """Which GPU; absent: the driver as a whole."""
    state_from: str | None = None
    """Before; absent: it was not known."""
    state_to: str | None = None
    """`ok`, or the code of what is wrong."""
    detail: str | None = None
    """What the system or driver said."""
