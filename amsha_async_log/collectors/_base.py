"""What collectors have in common."""

import os
from typing import Final, Protocol

from msgspec import Struct

from .. import events

__all__ = ["MB", "Collector", "GpuReading", "GpuSource", "KeptFile"]

MB: Final = 1 << 20
"""Bytes in a megabyte as all sizes on lines count them."""


class Collector(Protocol):
    """Reads one source on the log's own thread. Everything it reads answers at once: no disk, no driver."""

    name: str
    """As in `sample.source_changed`."""

    def collect(self, *, slow: bool) -> Struct:
        """A sample with the source's own fields. `slow`: also what is only worth reading every few seconds.

        Values it cannot read are absent, with the reason under `unknown`. Raises OSError only if there is nothing to
        be had at all.
        """
        ...

    def fds(self) -> list[int]:
        """Descriptors it keeps open, which a forked child must close: they still speak of the parent."""
        ...

    def close(self) -> None:
        """Give up its descriptors."""
        ...


class GpuReading(Struct, kw_only=True):
    """What one look at all GPUs gave."""

    devices: list[events.SampleGpu] = []
    """One for each GPU and MIG instance, lost ones too."""
    changes: list[events.SampleSourceChanged] = []
    """States that have changed since the look before."""
    state: str = "ok"
    """Of the driver as a whole: `ok`, or the code of what is wrong."""
    cost_seconds: float = 0.0
    """How long the driver took to answer."""


class GpuSource(Protocol):
    """Reads all GPUs. Used by one thread of its own, since a driver may take seconds or never answer."""

    def read(self, now: float) -> GpuReading:
        """One look, at `now` (monotonic seconds). Never raises; what is wrong is a state."""
        ...

    def close(self) -> None:
        """Give the driver up. Never raises."""
        ...


class KeptFile:
    """A file of /proc or /sys that stays open: reading it again costs a sixth of opening it again."""

    __slots__ = ("_path", "fd")

    def __init__(self, path: str) -> None:
        """Raises OSError if it cannot be opened."""
        self._path = path
        self.fd: int = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, size: int = 4096) -> bytes:
        """The content as it is now, `size` bytes at most. Raises OSError, as after `close`."""
        return os.pread(self.fd, size, 0)

    def close(self) -> None:
        """Give the descriptor up. May be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
