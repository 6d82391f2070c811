"""From records and executions to what a terminal shows. Nothing from a log reaches the terminal as a control."""

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from ..reader import Execution
from ..records import RESERVED

__all__ = [
    "STATUS_STYLES",
    "ExecutionsTable",
    "clock_time",
    "complain",
    "counted",
    "executions_table",
    "new_console",
    "pairs",
    "printable",
    "quiet_pipe",
    "record_text",
    "seconds",
    "whole_time",
    "write_json",
]

WIDE: Final = 400
"""Columns where the output is no terminal: wide enough that no table has to shorten anything."""

LEVEL_STYLES: Final = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
STATUS_STYLES: Final = {
    "completed": "green",
    "success": "green",
    "running": "cyan",
    "pending": "cyan",
    "paused": "yellow",
    "failed": "red",
    "killed": "red",
    "cancelled": "yellow",
    "unknown": "yellow",
}
_KEPT_SPACES: Final = "Zs"  # the Unicode category of spaces, which are no danger


# -- output -----------------------------------------------------------------------------------------------------------


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `quiet_pipe` see it, instead of ending the process."""
        raise  # noqa: PLE0704 - called while the BrokenPipeError is handled


def new_console() -> Console:
    """A console on stdout that takes text as it is: no markup, no emoji codes, no highlighting."""
    width = None if sys.stdout.isatty() else WIDE
    return _Console(markup=False, emoji=False, highlight=False, width=width)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """Around all printing: a reader of our output that has seen enough is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has nowhere to go; without this the interpreter would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_json(value: object) -> None:
    """One JSON document on a line of its own, in UTF-8 whatever the terminal's encoding is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(_json(value) + b"\n")
    sys.stdout.buffer.flush()


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except OverflowError:  # an integer of more than 64 bits, which JSON allows
        return json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode()


def complain(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"amsha-log: {printable(message)}\n")


# -- text -------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    r"""The text with everything that could move the cursor, hide or reorder text shown as an escape like `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == _KEPT_SPACES else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _value_text(value: object) -> str:
    """A field's value: strings bare where that is not ambiguous, everything else as JSON."""
    if isinstance(value, str) and value and not any(c in ' "=' for c in value):
        return printable(value)
    return printable(_json(value).decode())


def pairs(record: Mapping[str, Any], hidden: Iterable[str] = ()) -> str:
    """The fields of a record as `key=value key=value`; a stack trace is left out, its error is among the fields."""
    left_out = RESERVED.union(hidden, ("stacktrace",))
    return " ".join(f"{printable(key)}={_value_text(value)}" for key, value in record.items() if key not in left_out)


def clock_time(timestamp: object) -> str:
    """Local time of day, `HH:MM:SS.mmm`; dashes where there is none."""
    moment = _moment(timestamp)
    return "--:--:--.---" if moment is None else moment.isoformat(sep=" ", timespec="milliseconds")[11:23]


def whole_time(timestamp: object) -> str:
    """Local date and time, `YYYY-MM-DD HH:MM:SS`; a dash where there is none."""
    moment = _moment(timestamp)
    return "-" if moment is None else moment.isoformat(sep=" ", timespec="seconds")[:19]


def _moment(timestamp: object) -> datetime | None:
    if not isinstance(timestamp, int | float):
        return None
    try:
        return datetime.fromtimestamp(timestamp).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def seconds(duration: float | None) -> str:
    """A duration with three decimals, a dash where it is unknown."""
    return "-" if duration is None else f"{duration:,.3f} s"


def counted(number: int, name: str, plural: str | None = None) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{number:,} {name if number == 1 else plural or name + 's'}"


def record_text(record: Mapping[str, Any], hidden: Iterable[str] = ()) -> Text:
    """A record on one line: `HH:MM:SS.mmm LEVEL logger message key=value`. A typed event shows its tag as message."""
    level = printable(str(record.get("level", "-")))
    message = record.get("message") or record.get("event") or ""
    text = Text(f"{clock_time(record.get('timestamp'))} ", style="default")
    text.append(f"{level:8} ", style=LEVEL_STYLES.get(level, ""))
    text.append(f"{printable(str(record.get('logger', '-')))} ", style="cyan")
    text.append(printable(str(message)), style=LEVEL_STYLES.get(level, ""))
    fields = pairs(record, hidden)
    if fields:
        text.append(f" {fields}", style="dim")
    return text


# -- executions -------------------------------------------------------------------------------------------------------


class _Column:
    """A column of the table of executions."""

    def __init__(self, header: str, cells: Sequence[str], *, right: bool = True) -> None:
        self.header = header
        self.cells = cells
        self.justify: JustifyMethod = "right" if right else "left"
        self.width = max(map(cell_len, [header, *cells]))


class ExecutionsTable:
    """A table of executions with as many of its columns as there is room for; ids are never shortened."""

    def __init__(self, executions: Iterable[Execution]) -> None:
        self._executions = list(executions)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the columns that fit and draw them."""
        columns = self._columns()
        room = options.max_width - sum(column.width + 2 for column in columns[:3])
        chosen = columns[:3]
        for column in columns[3:]:
            room -= column.width + 2
            if room < 0:
                break
            chosen.append(column)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for column in chosen:
            table.add_column(column.header, justify=column.justify, no_wrap=column is chosen[0], overflow="fold")
        table.columns[0].min_width = columns[0].width
        for index, execution in enumerate(self._executions):
            cells = [Text(column.cells[index]) for column in chosen]
            cells[1].stylize(STATUS_STYLES.get(execution.status, ""))
            table.add_row(*cells)
        yield table

    def _columns(self) -> list[_Column]:
        """All columns, the most important first."""
        runs = self._executions
        return [
            _Column("EXECUTION", [printable(run.execution_id) for run in runs], right=False),
            _Column("STATUS", [printable(run.status) for run in runs], right=False),
            _Column("CREW", [printable(run.crew_name or "-") for run in runs], right=False),
            _Column("DURATION", [seconds(run.duration_seconds) for run in runs]),
            _Column("STARTED", [whole_time(run.started_at) for run in runs], right=False),
            _Column("ERRORS", [str(run.errors) for run in runs]),
            _Column("LOST", [str(run.lost_records) for run in runs]),
            _Column("STEPS", [str(run.steps) for run in runs]),
            _Column("CALLS", [str(run.llm_calls) for run in runs]),
            _Column("RETRIES", [str(run.retries) for run in runs]),
            _Column("TOKENS", [_number(run.total_tokens) for run in runs]),
            _Column("COST", ["-" if run.cost_usd is None else f"${run.cost_usd:,.4f}" for run in runs]),
            _Column("MODEL", [printable(run.model_name or "-") for run in runs], right=False),
            _Column("PEAK MB", [_number(run.peak_memory_mb) for run in runs]),
            _Column("GPU MB", [_number(run.peak_gpu_memory_mb) for run in runs]),
            _Column("CPU %", [_number(run.mean_cpu_percent) for run in runs]),
            _Column("PARENT", [printable(run.parent_execution_id or "-") for run in runs], right=False),
        ]


def executions_table(executions: Iterable[Execution]) -> ExecutionsTable:
    """The executions as a table for a rich console."""
    return ExecutionsTable(executions)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
