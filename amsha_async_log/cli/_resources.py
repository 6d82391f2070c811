"""What an execution cost its machine, in words."""

from collections.abc import Callable
from typing import Final

from ..reader import Resources
from ._render import printable

__all__ = ["resource_lines"]

_Format = Callable[[float], str]


def _decimals(number: int) -> _Format:
    """So many decimals, unless that would make a small value look like none."""
    return lambda value: f"{value:.1g}" if 0 < abs(value) < 0.5 * 10**-number else f"{value:,.{number}f}"


_WORDS: Final[tuple[tuple[str, str, str, str | None, _Format], ...]] = (
    ("cpu", "cpu_seconds", "s", "cpu_error_seconds", _decimals(2)),
    ("memory, mean", "mean_memory_mb", "MB", None, _decimals(1)),
    ("memory, peak", "peak_memory_mb", "MB", None, _decimals(1)),
    ("gpu", "gpu_percent", "%", None, _decimals(1)),
    ("gpu memory, peak", "peak_gpu_memory_mb", "MB", None, _decimals(1)),
    ("energy", "energy_joules", "J", "energy_error_joules", _decimals(2)),
    ("read from storage", "file_read_bytes", "bytes", "file_read_error_bytes", _decimals(0)),
    ("written to storage", "file_write_bytes", "bytes", "file_write_error_bytes", _decimals(0)),
    ("event loop lag, longest", "loop_lag_max_seconds", "s", None, _decimals(3)),
)
"""Words, field, unit, the field of the error, and how numbers are written."""


def resource_lines(resources: Resources) -> list[str]:
    """One line for each thing that is known, or of which is known why it is not.

    Like `cpu 1.24 s (± 0.10, overlap)` and `energy: unknown (not_supported)`; shares name how they were found.
    """
    lines = []
    for words, field, unit, error_field, written in _WORDS:
        value = getattr(resources, field)
        reason = resources.unknown.get(field)
        if value is None:
            if reason is not None:
                lines.append(f"{words}: unknown ({printable(reason)})")
            continue
        notes = []
        if error_field is not None:
            error = getattr(resources, error_field)
            # Tasks are told apart by their CPU time only; all else is divided among what ran at the moment.
            way = "overlap" if resources.attribution == "task" and field != "cpu_seconds" else resources.attribution
            notes = ["± unknown" if error is None else f"± {written(error)}", printable(way)]
        at_least = ""
        if reason is not None:
            at_least = "at least "
            notes.append(f"a part is unknown: {printable(reason)}")
        said = f" ({', '.join(notes)})" if notes else ""
        lines.append(f"{words} {at_least}{written(value)} {unit}{said}")
    return lines
