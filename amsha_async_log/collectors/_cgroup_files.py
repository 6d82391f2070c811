"""The files of a process's groups that are read at each sample."""

import os
from typing import Final

from .. import events
from ._base import MB, KeptFile
from ._cgroup_groups import Group, Groups
from ._files import NOT_SUPPORTED, NOT_VISIBLE, KeptFiles, Rate, megabytes, number, reason, value_after
from ._pressure import PRESSURE_FIELDS, Pressure

__all__ = ["HOST_WIDE", "GroupFiles"]

HOST_WIDE: Final = "host_wide"
"""The group is the machine's root, so that the pressure in it is the machine's, which `sample.host` has."""
_NUMBER: Final = 32
"""Bytes to read of a file that holds one number."""
_TABLE: Final = 512
"""Bytes to read of a file with a few named numbers."""
_CACHE_STEP: Final = MB
"""memory.stat takes longer than all else together (9.5 us), so it is read again once usage has moved by this much."""


class GroupFiles:
    """The files that there are; of the others, the fields are in `files.missing`."""

    def __init__(self, groups: Groups) -> None:
        """Open them. Never raises."""
        self.files = files = KeptFiles()
        of = groups.controllers.get
        self._memory = _Memory(files, of("memory"))
        self._cpu = _Cpu(files, of("cpuacct"), of("cpu"))
        self._processes = _Processes(files, of("pids"))
        self._pressure = _pressure(files, groups.unified)

    def fill(self, sample: events.SampleCgroup, now_ns: int, unknown: dict[str, str], *, slow: bool) -> None:
        """Read everything. Never raises."""
        if self._pressure is not None:  # first, as close to the clock as can be
            self._pressure.fill(sample, now_ns, unknown)
        self._cpu.fill(sample, now_ns, unknown)
        self._memory.fill(sample, unknown, slow=slow)
        self._processes.fill(sample, unknown)


class _Memory:
    """What is in use, the peak, processes killed."""

    def __init__(self, files: KeptFiles, group: Group | None) -> None:
        v1 = group is not None and group.version == 1
        self._current = _open(files, group, "memory.usage_in_bytes" if v1 else "memory.current", "memory_mb")
        self._stat = _open(files, group, "memory.stat", "memory_mb")
        self._peak = _open(files, group, "memory.max_usage_in_bytes" if v1 else "memory.peak", "peak_memory_mb")
        self._events = _open(files, group, "memory.oom_control" if v1 else "memory.events", "oom_kills")
        self._cache_key = b"\ntotal_inactive_file " if v1 else b"\ninactive_file "
        self._cache = 0
        """Page cache that can be dropped at once, as read last."""
        self._usage_then: int | None = None
        """Usage when it was read. None: it is to be read."""
        self._peak_data: bytes | None = None
        self._events_data: bytes | None = None
        """What these files said last: mostly they say the same again."""
        self._peak_mb = 0.0
        self._kills: int | None = None

    def fill(self, sample: events.SampleCgroup, unknown: dict[str, str], *, slow: bool) -> None:
        if self._current is not None and self._stat is not None:
            try:
                usage, then = number(self._current.read(_NUMBER)), self._usage_then
                if slow or then is None or not -_CACHE_STEP < usage - then < _CACHE_STEP:
                    self._usage_then = None
                    self._cache = value_after(self._stat.read(), self._cache_key)
                    self._usage_then = usage
                sample.memory_mb = megabytes(max(0, usage - self._cache))
            except (OSError, ValueError) as error:
                unknown["memory_mb"] = reason(error)
        if self._peak is not None:
            try:
                data = self._peak.read(_NUMBER)
                if data != self._peak_data:
                    self._peak_mb = megabytes(number(data))
                    self._peak_data = data
                sample.peak_memory_mb = self._peak_mb
            except (OSError, ValueError) as error:
                unknown["peak_memory_mb"] = reason(error)
        if self._events is not None:
            try:
                data = self._events.read(_TABLE)
                if data != self._events_data:
                    # Linux before 4.13 does not count them in version 1.
                    counts = b"\noom_kill " in data or not data.startswith(b"oom_kill_disable ")
                    self._kills = value_after(data, b"\noom_kill ") if counts else None
                    self._events_data = data
                if self._kills is None:
                    unknown["oom_kills"] = NOT_SUPPORTED
                sample.oom_kills = self._kills
            except (OSError, ValueError) as error:
                unknown["oom_kills"] = reason(error)


class _Cpu:
    """CPU time, and how often and for how long the group had to wait for more."""

    def __init__(self, files: KeptFiles, used: Group | None, throttled: Group | None) -> None:
        """`used`: the group whose CPU time is counted, `throttled`: the one whose limit holds. Mostly the same."""
        self._used_v1 = used is not None and used.version == 1
        name = "cpuacct.usage" if self._used_v1 else "cpu.stat"
        self._used = _open(files, used, name, "cpu_percent")
        self._rate = Rate("cpu_percent", unit_ns=1 if self._used_v1 else 1000)
        self._one_file = used is throttled and not self._used_v1
        """CPU time and throttling stand in the same file."""
        fields = ("throttled_periods", "throttled_seconds")
        self._stat = self._used if self._one_file else _open(files, throttled, "cpu.stat", *fields)
        if self._stat is None and self._one_file:
            files.missing.update(dict.fromkeys(fields, files.missing["cpu_percent"]))
        v1 = throttled is not None and throttled.version == 1
        self._key, self._per_second = (b"\nthrottled_time ", 1_000_000_000) if v1 else (b"\nthrottled_usec ", 1_000_000)
        self._stat_data: bytes | None = None
        """What cpu.stat said last: in version 1, mostly it says the same again."""
        self._throttled: tuple[int, float] | tuple[None, None] = (None, None)

    def fill(self, sample: events.SampleCgroup, now_ns: int, unknown: dict[str, str]) -> None:
        data = b""
        if self._used is not None:
            try:
                data = self._used.read(_TABLE)
                count = number(data) if self._used_v1 else value_after(data, b"usage_usec ")
                sample.cpu_percent = self._rate.percent(count, now_ns, unknown)
            except (OSError, ValueError) as error:
                unknown["cpu_percent"] = reason(error)
        if self._stat is not None:
            try:
                data = data if self._one_file and data else self._stat.read(_TABLE)
                if data != self._stat_data:
                    # No such numbers: the controller is off for this group, which then is not throttled by itself.
                    throttles = b"nr_throttled " in data or b"usage_usec " not in data
                    self._throttled = self._throttling(data) if throttles else (None, None)
                    self._stat_data = data
                sample.throttled_periods, sample.throttled_seconds = self._throttled
                if self._throttled[0] is None:
                    unknown["throttled_periods"] = unknown["throttled_seconds"] = NOT_SUPPORTED
            except (OSError, ValueError) as error:
                unknown["throttled_periods"] = unknown["throttled_seconds"] = reason(error)

    def _throttling(self, stat: bytes) -> tuple[int, float]:
        return value_after(stat, b"nr_throttled "), value_after(stat, self._key) * 1000 // self._per_second / 1000


class _Processes:
    """How many there are."""

    def __init__(self, files: KeptFiles, group: Group | None) -> None:
        self._file = _open(files, group, "pids.current", "processes")

    def fill(self, sample: events.SampleCgroup, unknown: dict[str, str]) -> None:
        if self._file is not None:
            try:
                sample.processes = number(self._file.read(_NUMBER))
            except (OSError, ValueError) as error:
                unknown["processes"] = reason(error)


def _pressure(files: KeptFiles, group: Group | None) -> Pressure | None:
    code = NOT_SUPPORTED
    if group is not None:
        folder = group.folders[0]
        if os.path.exists(os.path.join(folder, "cgroup.events")):  # which only the machine's root has not
            return Pressure(files, *(os.path.join(folder, f"{name}.pressure") for name in ("cpu", "memory", "io")))
        code = HOST_WIDE
    files.missing.update(dict.fromkeys(PRESSURE_FIELDS, code))
    return None


def _open(files: KeptFiles, group: Group | None, name: str, *fields: str) -> KeptFile | None:
    """The file of the group that `fields` are read from. None if there is none; why: in `files.missing`."""
    if group is not None and group.folders:
        return files.open(os.path.join(group.folders[0], name), *fields)
    files.missing.update(dict.fromkeys(fields, NOT_SUPPORTED if group is None else NOT_VISIBLE))
    return None
