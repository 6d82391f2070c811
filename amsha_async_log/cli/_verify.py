"""`amsha-log verify`: whether anything is missing."""

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from .. import reader
from ._render import counted, new_console, printable, quiet_pipe, write_json

__all__ = ["run_verify", "verdict"]


def run_verify(paths: Iterable[str], *, json: bool) -> int:
    """Print the verdict. Returns the exit code, 1 when the log is not as its writers wrote it."""
    report = reader.verify(*paths)
    with quiet_pipe():
        if json:
            write_json(report)
        else:
            _print(report)
    return 0 if report.ok else 1


def _print(report: reader.Report) -> None:
    console = new_console()
    console.print(Text(verdict(report), style="bold green" if report.ok else "bold red"), soft_wrap=True)
    if report.writers:
        console.print()
        console.print(_writers_table(report.writers))
    if report.findings:
        console.print()
    for finding in report.findings:
        console.print(Text(f"- {printable(finding.message)}"), soft_wrap=True)


def verdict(report: reader.Report) -> str:
    """The outcome in one line."""
    lost = sum(writer.dropped + writer.refused for writer in report.writers)
    records = sum(writer.records for writer in report.writers)
    writers, segments = counted(len(report.writers), "writer"), counted(report.segments, "segment")
    what = f"{counted(records, 'record')} by {writers} in {segments}"
    if report.ok:
        unknown = sum(writer.end == "unknown" for writer in report.writers)
        also = [f"{counted(lost, 'record')} declared as lost"] if lost else []
        also += [f"the end of {counted(unknown, 'writer')} is unknown"] if unknown else []
        also += [counted(report.torn_lines, "torn line")] if report.torn_lines else []
        return f"complete: {what}, nothing missing" + "".join(f"; {text}" for text in also)
    missing = sum(writer.missing for writer in report.writers)
    wrong = [
        f"{counted(number, name)} {state}".rstrip()
        for number, name, state in (
            (missing, "line", "missing"),
            (report.corrupt_lines, "corrupt line", ""),
            (report.checksum_failures, "checksum failure", ""),
            (report.duplicates, "duplicate", ""),
            (report.out_of_order, "line", "out of order"),
        )
        if number
    ]
    return f"NOT complete: {', '.join(wrong)}; found {what}"


def _writers_table(writers: Iterable[reader.WriterReport]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("WRITER", no_wrap=True)
    for header in ("RECORDS", "FIRST SEQ", "LAST SEQ", "MISSING", "DROPPED", "REFUSED"):
        table.add_column(header, justify="right")
    table.add_column("END")
    for writer in writers:
        counts = (
            writer.records,
            writer.first_seq,
            writer.last_seq,
            writer.missing,
            writer.dropped,
            writer.refused,
        )
        table.add_row(Text(printable(writer.writer)), *(f"{count:,}" for count in counts), writer.end)
    return table
