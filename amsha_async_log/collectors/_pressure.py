"""Pressure stall information (PSI) of Linux: how long tasks waited for a CPU, for memory, for storage."""

from typing import Final

from .. import events
from ._base import KeptFile
from ._files import KeptFiles, Rate, reason, value_after

__all__ = ["PRESSURE_FIELDS", "Pressure"]

PRESSURE_FIELDS: Final = ("cpu_pressure_percent", "memory_pressure_percent", "io_pressure_percent")
"""The fields that it fills, in the order in which the files are given."""
_SIZE: Final = 96
"""Enough for the `some` line: 52 bytes before the number and 20 digits at most."""


class Pressure:
    """Three pressure files. The averages in them lag; `total` counts microseconds, so its growth is exact."""

    def __init__(self, files: KeptFiles, cpu: str, memory: str, io: str) -> None:
        """The paths of the files of one group or of the machine."""
        # The kernel counts up to the moment of reading, which is after the clock was read: so at most 100.
        self._parts = [
            _Part(field, file, Rate(field, unit_ns=1000, most=100.0))
            for field, path in zip(PRESSURE_FIELDS, (cpu, memory, io), strict=True)
            if (file := files.open(path, field))
        ]

    def fill(self, sample: events.SampleHost | events.SampleCgroup, now_ns: int, unknown: dict[str, str]) -> None:
        """Read the files at `now_ns`. Never raises."""
        for part in self._parts:
            try:
                data = part.file.read(_SIZE)
                if data != part.data:
                    part.total = value_after(data, b" total=")
                    part.data = data
                setattr(sample, part.field, part.rate.percent(part.total, now_ns, unknown))
            except (OSError, ValueError) as error:
                unknown[part.field] = reason(error)


class _Part:
    """One file, and what it said: mostly it says the same again."""

    __slots__ = ("data", "field", "file", "rate", "total")

    def __init__(self, field: str, file: KeptFile, rate: Rate) -> None:
        self.field = field
        self.file = file
        self.rate = rate
        self.data: bytes | None = None
        self.total = 0
