"""The machine: CPU, memory, load, pressure.

Hot figures in microseconds, psutil's in brackets: /proc/stat 8 (29), /proc/meminfo 7 (42), a pressure file 2.5 (none),
`os.getloadavg` 0.8.
"""

import os
import time
from typing import Annotated, Any, Final, Protocol

import msgspec

from .. import events
from ._files import (
    COUNTER_RESET,
    NO_INTERVAL,
    NOT_SUPPORTED,
    Clock,
    KeptFiles,
    megabytes,
    reason,
)
from ._pressure import PRESSURE_FIELDS, Pressure

__all__ = ["HostCollector"]

_KB: Final = 1024


_TICKS: Final = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0)]])


class _Source(Protocol):
    files: KeptFiles

    def fill(self, sample: events.SampleHost, now_ns: int, unknown: dict[str, str]) -> None:
        """Read all but the load. Never raises."""
        ...


class HostCollector:
    """Samples of the machine that this process runs on; in a container, of the machine around it."""

    name = "host"

    def __init__(self, root: str = "/", *, clock_ns: Clock = time.monotonic_ns) -> None:
        """`root`: the folder that `proc` is in, where there is one. `clock_ns`: nanoseconds that never go back."""
        self._clock_ns = clock_ns
        folder = os.path.join(root, "proc")
        self._source: _Source = _ProcFiles(folder) if os.path.isdir(folder) else _Psutil()

    def collect(self, *, slow: bool) -> events.SampleHost:  # noqa: ARG002 - all of it changes fast
        """The machine now."""
        sample = events.SampleHost()
        unknown = dict(self._source.files.missing)
        try:
            sample.load_1m = int(os.getloadavg()[0] * 100 + 0.5) / 100  # as exact as the system keeps it
        except (OSError, AttributeError):  # Windows has none
            unknown["load_1m"] = NOT_SUPPORTED
        self._source.fill(sample, self._clock_ns(), unknown)
        if unknown:
            sample.unknown = unknown
        return sample

    def fds(self) -> list[int]:
        """Descriptors it keeps open."""
        return self._source.files.fds()

    def close(self) -> None:
        """Give up its descriptors. May be called again."""
        self._source.files.close()


class _Share:
    """Which part of the time all CPUs together were busy."""

    __slots__ = ("_busy", "_idle", "_waiting")

    def __init__(self) -> None:
        self._busy: float | None = None
        self._idle: float = 0
        self._waiting: float = 0

    def percent(self, busy: float, idle: float, waiting: float, unknown: dict[str, str]) -> float | None:
        """The busy part since the look before, from three counters of one unit. None, and why: noted in `unknown`."""
        last_busy, last_idle, last_waiting = self._busy, self._idle, self._waiting
        self._busy, self._idle, self._waiting = busy, idle, waiting
        if last_busy is None:
            unknown["cpu_percent"] = NO_INTERVAL
            return None
        grown = busy - last_busy
        if grown < 0 or idle < last_idle:
            unknown["cpu_percent"] = COUNTER_RESET
            return None
        whole = grown + idle - last_idle
        if waiting > last_waiting:  # the kernel says of this one that it may go back, which is no reset
            whole += waiting - last_waiting
        if not whole:
            unknown["cpu_percent"] = NO_INTERVAL
            return None
        return int(grown * 10_000 / whole + 0.5) / 100


class _ProcFiles:
    """Linux: files of /proc that stay open."""

    def __init__(self, folder: str) -> None:
        self.files = files = KeptFiles()
        self._stat = files.open(f"{folder}/stat", "cpu_percent")
        self._meminfo = files.open(f"{folder}/meminfo", "memory_mb", "memory_total_mb")
        self._share = _Share()
        self._pressure = Pressure(files, *(f"{folder}/pressure/{name}" for name in ("cpu", "memory", "io")))

    def fill(self, sample: events.SampleHost, now_ns: int, unknown: dict[str, str]) -> None:
        self._pressure.fill(sample, now_ns, unknown)  # first, as close to the clock as can be
        if self._stat is not None:
            try:
                busy, idle, waiting = _times(self._stat.read(256))
                sample.cpu_percent = self._share.percent(busy, idle, waiting, unknown)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                unknown["cpu_percent"] = reason(error)
        if self._meminfo is not None:
            try:
                total, available = _memory(self._meminfo.read(128))
                sample.memory_mb = megabytes((total - available) * _KB)
                sample.memory_total_mb = megabytes(total * _KB)
            except (OSError, ValueError) as error:
                unknown["memory_mb"] = unknown["memory_total_mb"] = reason(error)


def _memory(meminfo: bytes) -> tuple[int, int]:
    """Kilobytes there are, and available. Raises ValueError if the first three lines do not say that."""
    first, total, _, _, _, _, third, available, _ = meminfo.split(None, 8)
    if first != b"MemTotal:" or third != b"MemAvailable:":
        raise ValueError(meminfo)
    return int(total), int(available)


def _times(stat: bytes) -> tuple[int, int, int]:
    """Ticks of all CPUs: busy, idle, waiting for storage. Raises ValueError or MsgspecError if they are not there."""
    if not stat.startswith(b"cpu  "):
        raise ValueError(stat)
    # As a JSON list, the numbers are read in one go: a third faster than one by one.
    ticks = _TICKS.decode(b"[" + stat[5 : stat.index(b"\n")].replace(b" ", b",") + b"]")
    # Guests' time is part of the first two, so the numbers after the eighth are not wanted.
    user, nice, system, idle, waiting, irq, softirq, steal = ticks[:8]
    return user + nice + system + irq + softirq + steal, idle, waiting


class _Psutil:
    """Other systems: what psutil can tell of them."""

    def __init__(self) -> None:
        import psutil  # 20 ms, and of no use where there is /proc

        self.files = KeptFiles()
        self.files.missing.update(dict.fromkeys(PRESSURE_FIELDS, NOT_SUPPORTED))
        self._psutil: Any = psutil
        self._share = _Share()

    def fill(self, sample: events.SampleHost, now_ns: int, unknown: dict[str, str]) -> None:  # noqa: ARG002
        try:
            times = self._psutil.cpu_times()
            idle, waiting = times.idle, getattr(times, "iowait", 0.0)
            guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            sample.cpu_percent = self._share.percent(sum(times) - guests - idle - waiting, idle, waiting, unknown)
        except Exception as error:  # noqa: BLE001 - psutil lets errors of the system's own interfaces through
            unknown["cpu_percent"] = reason(error)
        try:
            memory = self._psutil.virtual_memory()
            sample.memory_total_mb = megabytes(memory.total)
            sample.memory_mb = megabytes(memory.total - memory.available)
        except Exception as error:  # noqa: BLE001 - as above
            unknown["memory_mb"] = unknown["memory_total_mb"] = reason(error)
