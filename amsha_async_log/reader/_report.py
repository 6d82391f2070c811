"""What `verify` found."""

from typing import Final

from msgspec import Struct

__all__ = ["Finding", "Findings", "Report", "WriterReport"]

MAX_FINDINGS: Final = 1000
"""More are counted, not listed: a file of garbage must not fill the memory with sentences about it."""


class Finding(Struct, kw_only=True):
    """One thing that is not as a writer would leave it, in one sentence."""

    kind: str
    """What makes a log not ok: `missing missing_segment corrupt foreign damaged_file checksum duplicate out_of_order`.

    What does not: `torn healed truncated no_header no_footer unclosed foreign_file`. `more` stands for what is not
    listed.
    """
    file: str | None = None
    line: int | None = None
    """Counted from 1."""
    writer: str | None = None
    seq: int | None = None
    message: str

    def __str__(self) -> str:
        return self.message


class WriterReport(Struct, kw_only=True):
    """One writer. Counts are exact for what is in the files."""

    writer: str
    records: int
    """User records in the files, those whose event does not start with `log.`."""
    first_seq: int
    """Above 1 when retention has removed its first segments."""
    last_seq: int
    missing: int
    """Lines that are not there although later ones are."""
    dropped: int
    """Records accepted and then lost, as the writer declares; 0 when it declares none."""
    refused: int
    """Records turned away at the call, as the writer declares."""
    end: str
    """`closed` in order; `running`, by the lock it holds; or `unknown`: killed, and what it had queued is lost."""


class Report(Struct, kw_only=True):
    """Whether the files are as their writers wrote them."""

    ok: bool
    """Nothing missing, corrupt, changed, doubled or out of order. Declared loss, torn ends and kills are all right."""
    writers: list[WriterReport]
    torn_lines: int
    """Lines cut off by the end of their writer."""
    corrupt_lines: int
    """Lines that are no lines of the log."""
    duplicates: int
    segments: int
    checksum_failures: int
    """Segments whose bytes or counts are not those their last line tells."""
    secrets_found: int | None
    """None: not looked for."""
    out_of_order: int
    """Lines that stand before an earlier one of the same writer."""
    findings: list[Finding]


class _Stretch(Struct):
    """Bad lines that follow each other and become one finding."""

    kind: str
    what: str
    file: str
    first_line: int
    last_line: int
    writer: str | None
    first_seq: int | None
    last_seq: int | None


class Findings:
    """Collects findings, and joins lines that are wrong in the same way and follow each other."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._unlisted = 0
        self._stretch: _Stretch | None = None

    def add(self, finding: Finding) -> None:
        """Add one."""
        self._close()
        self._add(finding)

    def add_line(self, kind: str, what: str, file: str, line: int, writer: str | None, seq: int | None) -> None:
        """Add a bad line; `what` says what is wrong with it, as in "line 3 `what`"."""
        now = self._stretch
        if (
            now is not None
            and (now.kind, now.what, now.file, now.last_line + 1, now.writer) == (kind, what, file, line, writer)
            and (now.last_seq is None or now.last_seq + 1 == seq)
        ):
            now.last_line, now.last_seq = line, seq
            return
        self._close()
        self._stretch = _Stretch(kind, what, file, line, line, writer, seq, seq)

    def _close(self) -> None:
        stretch, self._stretch = self._stretch, None
        if stretch is None:
            return
        lines = span("line", stretch.first_line, stretch.last_line)
        whose = ""
        if stretch.writer is not None and stretch.first_seq is not None and stretch.last_seq is not None:
            whose = f" (writer {stretch.writer}, {span('seq', stretch.first_seq, stretch.last_seq, plural='seq')})"
        self._add(
            Finding(
                kind=stretch.kind,
                file=stretch.file,
                line=stretch.first_line,
                writer=stretch.writer,
                seq=stretch.first_seq,
                message=f"{stretch.file}, {lines}{whose}: {stretch.what}.",
            )
        )

    def _add(self, finding: Finding) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(finding)
        else:
            self._unlisted += 1

    def extend(self, other: "Findings") -> None:
        """Take over what another one collected."""
        for finding in other.listed:
            self.add(finding)
        self._unlisted += other._unlisted

    @property
    def listed(self) -> list[Finding]:
        """What is listed so far, in the order it was found."""
        self._close()
        return self._findings

    def all(self) -> list[Finding]:
        """What is listed and, if there is more, how much."""
        listed = self.listed
        if not self._unlisted:
            return listed
        return [*listed, Finding(kind="more", message=f"{self._unlisted:,} more findings are not listed.")]


def span(word: str, first: int, last: int, *, plural: str | None = None) -> str:
    """`line 3`, or `lines 3 to 5`."""
    return f"{word} {first}" if first == last else f"{plural or word + 's'} {first} to {last}"
