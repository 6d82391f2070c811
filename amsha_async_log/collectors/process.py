"""This process: CPU time, memory, storage traffic.

Where /proc says it at least four times cheaper than psutil, it is read there; elsewhere psutil speaks. Hot figures in
microseconds, psutil's in brackets: statm 1.6 (17), task folder 2.0 (33), io 1.8 (17), `getrusage` 1.2 (38 for the
switches alone), `process_time_ns` 0.8 (25).
"""

import os
import sys
import time
from typing import Any, Final, Protocol

from .. import events
from ._base import KeptFile
from ._files import (
    NO_PERMISSION,
    NOT_SUPPORTED,
    Clock,
    KeptFiles,
    Rate,
    megabytes,
    read_whole,
    reason,
    value_after,
)

try:
    import resource
except ImportError:  # pragma: no cover - Windows: psutil says what it can
    resource = None  # type: ignore[assignment]

__all__ = ["ProcessCollector"]

_KB: Final = 1024
_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else _KB
"""Bytes in one unit of `ru_maxrss`."""


class _Source(Protocol):
    """Where all but CPU time comes from. The raw numbers are those of the last `fill`."""

    files: KeptFiles
    rss_bytes: int | None
    peak_rss_bytes: int | None
    read_bytes: int | None
    write_bytes: int | None

    def fill(self, sample: events.SampleProcess, unknown: dict[str, str], *, slow: bool) -> None:
        """Read everything. Never raises."""
        ...


class ProcessCollector:
    """Samples of this process. After each `collect` its raw counters stand in attributes, for attribution.

    Until the first `collect` they are 0 and None. None later: not known, and `unknown` of the sample says why.
    """

    name = "process"

    def __init__(self, *, clock_ns: Clock = time.monotonic_ns, root: str = "/") -> None:
        """`clock_ns`: nanoseconds that never go back. `root`: the folder that `proc` is in, where there is one."""
        self.cpu_ns: int = 0
        """CPU time of all threads since the process began, in nanoseconds."""
        self.rss_bytes: int | None = None
        """Resident memory."""
        self.peak_rss_bytes: int | None = None
        """The most that was ever resident."""
        self.read_bytes: int | None = None
        """Read from storage since the process began."""
        self.write_bytes: int | None = None
        """Sent towards storage since the process began."""
        self._clock_ns = clock_ns
        self._rate = Rate("cpu_percent", unit_ns=1)
        folder = os.path.join(root, "proc", "self")
        self._source: _Source = _ProcFiles(folder) if os.path.isdir(folder) else _Psutil()

    def collect(self, *, slow: bool) -> events.SampleProcess:
        """The process now. `slow`: counts open files; otherwise they are as counted last."""
        source = self._source
        sample = events.SampleProcess()
        unknown = dict(source.files.missing)
        now_ns = self._clock_ns()
        # psutil keeps the baseline of its percentage for each thread: one that asks for the first time reads 0.
        self.cpu_ns = cpu_ns = time.process_time_ns()
        sample.cpu_seconds = cpu_ns // 1000 / 1_000_000
        sample.cpu_percent = self._rate.percent(cpu_ns, now_ns, unknown)
        source.fill(sample, unknown, slow=slow)
        self.rss_bytes = source.rss_bytes
        self.peak_rss_bytes = source.peak_rss_bytes
        self.read_bytes = source.read_bytes
        self.write_bytes = source.write_bytes
        if unknown:
            sample.unknown = unknown
        return sample

    def fds(self) -> list[int]:
        """Descriptors it keeps open."""
        return self._source.files.fds()

    def close(self) -> None:
        """Give up its descriptors. May be called again."""
        self._source.files.close()


class _ProcFiles:
    """Linux: files of /proc that stay open."""

    def __init__(self, folder: str) -> None:
        self.files = files = KeptFiles()
        self.rss_bytes: int | None = None
        self.peak_rss_bytes: int | None = None
        self.read_bytes: int | None = None
        self.write_bytes: int | None = None
        self._folder = folder
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._statm = files.open(f"{folder}/statm", "memory_mb")
        self._io = files.open(f"{folder}/io", "file_read_bytes", "file_write_bytes")
        self._tasks = files.open(f"{folder}/task", "threads")
        self._descriptors = files.open(f"{folder}/fd", "open_files")
        self._io_data = b""
        """What the io file said last, and the two numbers in it."""
        self._io_counts = (0, 0)
        self._open_files: int | str | None = None
        """As counted last, or why that failed. None: not yet counted."""
        self._high_water: int | str | None = None
        """The peak as the status file told last, in bytes, or why it did not. None: not yet asked."""
        self._highest = 0
        """The most that was seen."""
        self._inherited = -1
        """`ru_maxrss` that another program left, in bytes: one that called exec, or the parent, whose memory a child
        borrows until then. -1: it is this program's own."""

    def fill(self, sample: events.SampleProcess, unknown: dict[str, str], *, slow: bool) -> None:
        self.rss_bytes = self.read_bytes = self.write_bytes = None
        if self._statm is not None:
            try:
                rss = int(self._statm.read(96).split(b" ", 2)[1]) * self._page
                sample.memory_mb = megabytes(rss)
                self.rss_bytes = rss
            except (OSError, ValueError, IndexError) as error:
                unknown["memory_mb"] = reason(error)
        if self._io is not None:
            try:
                data = self._io.read(512)
                data = data[data.index(b"\nread_bytes: ") :]  # before it are counts that each look at /proc adds to
                if data != self._io_data:
                    self._io_counts = value_after(data, b"\nread_bytes: "), value_after(data, b"\nwrite_bytes: ")
                    self._io_data = data
                self.read_bytes, self.write_bytes = self._io_counts
                sample.file_read_bytes = self.read_bytes
                sample.file_write_bytes = self.write_bytes
            except (OSError, ValueError) as error:
                unknown["file_read_bytes"] = unknown["file_write_bytes"] = reason(error)
        if self._tasks is not None:
            try:
                # The folder has a link for each thread, besides its own two: half of what /proc/self/stat takes.
                sample.threads = _positive(os.fstat(self._tasks.fd).st_nlink - 2)
            except (OSError, ValueError) as error:
                unknown["threads"] = reason(error)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        sample.major_faults = usage.ru_majflt
        sample.involuntary_switches = usage.ru_nivcsw
        self._fill_peak(sample, unknown, usage.ru_maxrss * _KB)
        if self._descriptors is not None:
            if slow or self._open_files is None:
                self._open_files = self._count_descriptors(self._descriptors)
            if isinstance(self._open_files, int):
                sample.open_files = self._open_files
            else:
                unknown["open_files"] = self._open_files

    def _fill_peak(self, sample: events.SampleProcess, unknown: dict[str, str], maxrss: int) -> None:
        peak: int | str = maxrss
        if maxrss <= self._inherited or self._high_water is None:
            peak = self._ask_high_water(maxrss)  # each time: what an execution took and gave back is seen by it alone
        if isinstance(peak, str):
            self.peak_rss_bytes = None
            unknown["peak_memory_mb"] = peak
            return
        # The kernel's peak is kept less exactly than what is resident, and can be a little lower.
        self._highest = peak = max(peak, self._highest, self.rss_bytes or 0)
        self.peak_rss_bytes = peak
        sample.peak_memory_mb = megabytes(peak)

    def _ask_high_water(self, maxrss: int) -> int | str:
        """The peak of this program itself, 12 us; asked for while `ru_maxrss` may speak of another."""
        first = self._high_water is None
        try:
            self._high_water = value_after(read_whole(f"{self._folder}/status"), b"\nVmHWM:", b" kB\n") * _KB
        except (OSError, ValueError) as error:
            self._high_water = reason(error)
        if first and (isinstance(self._high_water, str) or self._high_water < maxrss):
            self._inherited = maxrss
        return self._high_water

    @staticmethod
    def _count_descriptors(folder: KeptFile) -> int | str:
        try:
            # Since Linux 6.2 the folder's size is their number: 2 us, and 18 us or more to list them, one of which is
            # then the listing's own.
            return os.fstat(folder.fd).st_size or len(os.listdir(folder.fd)) - 1
        except OSError as error:
            return reason(error)


class _Psutil:
    """Other systems: what psutil can tell of them."""

    def __init__(self) -> None:
        import psutil  # 20 ms, and of no use where there is /proc

        self.files = KeptFiles()
        self.rss_bytes: int | None = None
        self.peak_rss_bytes: int | None = None
        self.read_bytes: int | None = None
        self.write_bytes: int | None = None
        self._denied: tuple[type[Exception], ...] = (psutil.AccessDenied,)
        self._process = psutil.Process()
        self._open_files: Any = None

    def fill(self, sample: events.SampleProcess, unknown: dict[str, str], *, slow: bool) -> None:
        memory = self._asked(unknown, ("memory_mb",), "memory_info")
        self.rss_bytes = None if memory is None else memory.rss
        if memory is not None:
            sample.memory_mb = megabytes(memory.rss)
        io = self._asked(unknown, ("file_read_bytes", "file_write_bytes"), "io_counters")
        self.read_bytes = sample.file_read_bytes = None if io is None else io.read_bytes
        self.write_bytes = sample.file_write_bytes = None if io is None else io.write_bytes
        sample.threads = self._asked(unknown, ("threads",), "num_threads")
        if slow or self._open_files is None:
            self._open_files = self._asked(unknown, ("open_files",), "num_fds")
        sample.open_files = self._open_files
        if resource is not None:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            sample.major_faults = usage.ru_majflt
            sample.involuntary_switches = usage.ru_nivcsw
            self.peak_rss_bytes = usage.ru_maxrss * _MAXRSS_UNIT
        else:  # pragma: no cover - Windows
            # psutil's switches there are all voluntary, and its page faults mostly touch no storage.
            unknown["major_faults"] = unknown["involuntary_switches"] = NOT_SUPPORTED
            self.peak_rss_bytes = getattr(memory, "peak_wset", None)
        if self.peak_rss_bytes is None:  # pragma: no cover - Windows
            unknown["peak_memory_mb"] = unknown.get("memory_mb", NOT_SUPPORTED)
        else:
            sample.peak_memory_mb = megabytes(self.peak_rss_bytes)

    def _asked(self, unknown: dict[str, str], fields: tuple[str, ...], method: str) -> Any:
        """What psutil answers; None, and the reason for all `fields`, if it does not."""
        try:
            return getattr(self._process, method)()
        except (AttributeError, NotImplementedError):  # it has no such method on this system
            code = NOT_SUPPORTED
        except self._denied:
            code = NO_PERMISSION
        except Exception as error:  # noqa: BLE001 - psutil lets errors of the system's own interfaces through
            code = reason(error)
        unknown.update(dict.fromkeys(fields, code))
        return None


def _positive(value: int) -> int:
    if value > 0:
        return value
    raise ValueError(f"not a number of threads: {value}")
