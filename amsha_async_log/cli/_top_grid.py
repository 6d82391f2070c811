"""Rows of columns that fit a terminal: narrow ones first keep their place, the last ones give way."""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.text import Text

__all__ = ["Column", "grid"]

T = TypeVar("T")
GAP = "  "
"""Between two columns."""


class Column(NamedTuple, Generic[T]):
    """One column: its header, what it shows of a thing, and how."""

    header: str
    cell: Callable[[T], str]
    """Text without controls."""
    most: int = 40
    """Cells it may have; longer text is cut."""
    right: bool = True
    style: Callable[[T], str] | None = None


def grid(things: Sequence[T], columns: Sequence[Column[T]], width: int) -> list[Text]:
    """A header and a row for each thing, with as many columns as fit; the most important come first.

    Cheaper than a table of rich by far, which matters where it is drawn every second.
    """
    chosen: list[tuple[Column[T], list[str], int]] = []
    room = width
    for column in columns:
        cells = [column.cell(thing) for thing in things]
        size = min(max(map(cell_len, [column.header, *cells])), column.most)
        if chosen and size > room:
            break
        size = min(size, room)
        chosen.append((column, cells, size))
        room -= size + len(GAP)
    lines = [Text(GAP.join(_fit(c.header, size, right=c.right) for c, _, size in chosen), style="bold", no_wrap=True)]
    for index, thing in enumerate(things):
        line = Text(no_wrap=True)
        for place, (column, cells, size) in enumerate(chosen):
            if place:
                line.append(GAP)
            style = column.style(thing) if column.style is not None else ""
            line.append(_fit(cells[index], size, right=column.right), style or None)
        lines.append(line)
    return lines


def _fit(text: str, size: int, *, right: bool) -> str:
    length = cell_len(text)
    if length > size:
        return set_cell_size(text, max(0, size - 1)) + "…" if size else ""
    return " " * (size - length) + text if right else text + " " * (size - length)
