"""How the local collectors open files and read numbers, and what they call it when that fails."""

import contextlib
import errno
import math
import os
from collections.abc import Callable
from typing import Final

from ._base import MB, KeptFile

__all__ = [
    "COUNTER_RESET",
    "LOST",
    "NOT_SUPPORTED",
    "NOT_VISIBLE",
    "NO_INTERVAL",
    "NO_PERMISSION",
    "UNREADABLE",
    "Clock",
    "KeptFiles",
    "Rate",
    "megabytes",
    "number",
    "read_whole",
    "reason",
    "value_after",
]

Clock = Callable[[], int]
"""Nanoseconds that never go back, as `time.monotonic_ns`."""

NOT_SUPPORTED: Final = "not_supported"
"""This system has no such thing, or has it switched off."""
NOT_VISIBLE: Final = "not_visible"
"""There is a control group, but outside of what is mounted here."""
NO_PERMISSION: Final = "no_permission"
"""This process may not read it."""
LOST: Final = "lost"
"""It was there and is gone."""
UNREADABLE: Final = "unreadable"
"""It is there, but says nothing that can be understood."""
COUNTER_RESET: Final = "counter_reset"
"""The counter is lower than it was, so nothing is known of the time between."""
NO_INTERVAL: Final = "no_interval"
"""A share of a time needs two looks at different times, and this is the first, or the clock stands still."""

_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP, errno.ENOSYS}
"""How a kernel says that it has no such file. EOPNOTSUPP: of pressure files where PSI is switched off."""
_GONE: Final = {errno.ENODEV, errno.ESRCH}
"""What reading an open file says once the control group or process it speaks of is gone."""
_MOST: Final = (1 << 64) - 1
"""The largest number that a kernel counts to; anything above is no number of its, and no line could hold it."""
_CHUNK: Final = 1 << 16


def reason(error: Exception) -> str:
    """The reason code of an error met while reading a value."""
    if isinstance(error, OSError):
        if isinstance(error, PermissionError):
            return NO_PERMISSION
        if error.errno in _ABSENT:
            return NOT_SUPPORTED
        if error.errno in _GONE:
            return LOST
    return UNREADABLE


def megabytes(size: int) -> float:
    """`size` bytes in MB, cut to three digits. Raises ValueError if it is negative."""
    if size < 0:
        raise ValueError(f"not a size: {size}")
    return size * 1000 // MB / 1000


def number(text: bytes) -> int:
    """The whole number that `text` is. Raises ValueError if it is none, negative, or more than 64 bits."""
    value = int(text)
    if 0 <= value <= _MOST:
        return value
    raise ValueError(f"not a count: {value}")


def value_after(data: bytes, key: bytes, end: bytes = b"\n") -> int:
    """The number between the first `key` and the `end` after it. Raises ValueError if there is none."""
    start = data.index(key) + len(key)
    value = int(data[start : data.index(end, start)])
    if 0 <= value <= _MOST:
        return value
    raise ValueError(f"not a count: {value}")


def read_whole(path: str) -> bytes:
    """All of a file that is read seldom, so not kept open. Raises OSError."""
    file = KeptFile(path)
    try:
        data = b""
        # One read of /proc/self/mountinfo gives a page at most.
        while chunk := os.pread(file.fd, _CHUNK, len(data)):
            data += chunk
    finally:
        file.close()
    return data


class KeptFiles:
    """The files that a collector keeps open, and the fields that it cannot have for want of one."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        """Field to reason code."""
        self._open: list[KeptFile] = []

    def open(self, path: str, *fields: str) -> KeptFile | None:
        """Open the file that `fields` are read from; None if that fails, and then they are `missing`."""
        try:
            file = KeptFile(path)
        except OSError as error:
            self.missing.update(dict.fromkeys(fields, reason(error)))
            return None
        self._open.append(file)
        return file

    def fds(self) -> list[int]:
        """All descriptors held."""
        return [file.fd for file in self._open if file.fd >= 0]

    def close(self) -> None:
        """Give them up. May be called again."""
        for file in self._open:
            with contextlib.suppress(OSError):  # closed by somebody else: what was wanted
                file.close()


class Rate:
    """How fast a counter grows, as a percentage of the time that passes."""

    __slots__ = ("_at", "_count", "_field", "_most", "_scale")

    def __init__(self, field: str, *, unit_ns: int, most: float = math.inf) -> None:
        """A counter of `unit_ns` nanoseconds each, for `field`; `most`: what a reading above is cut to."""
        self._field = field
        self._scale = unit_ns * 10_000
        """Hundredths of a percent."""
        self._most = most * 100
        self._count: int | None = None
        self._at = 0

    def percent(self, count: int, now_ns: int, unknown: dict[str, str]) -> float | None:
        """The growth since the look before, in percent, cut to two digits. None, and why: noted in `unknown`."""
        last = self._count
        if last is None:
            self._count = count
            self._at = now_ns
            unknown[self._field] = NO_INTERVAL
            return None
        elapsed = now_ns - self._at
        if elapsed <= 0:
            unknown[self._field] = NO_INTERVAL
            return None
        self._count = count
        self._at = now_ns
        if count < last:
            unknown[self._field] = COUNTER_RESET
            return None
        percent = (count - last) * self._scale // elapsed
        return percent / 100 if percent < self._most else self._most / 100
