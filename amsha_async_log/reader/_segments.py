"""Segments and their writers, as verification knows them."""

import zlib
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from ._lines import OwnLine, RawLine
from ._sequence import SeqRanges

__all__ = ["FileChecksum", "Place", "Segment", "WriterState", "line_difference"]


class Place(NamedTuple):
    """Where a line stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


def line_difference(footer: bytes) -> str | None:
    """What is wrong with a closing line by its own checksum, which covers all that stands before it on the line."""
    covered, key, told = footer.rstrip(b"\r\n").rpartition(b',"line_crc32":')
    if not key or told == b"%d}" % zlib.crc32(covered):
        return None
    return "its closing line was changed"


class Segment:
    """The lines of one writer from its header to its footer, or to where they end."""

    __slots__ = (
        "first_line",
        "first_seq",
        "footer",
        "fragment",
        "header",
        "last_seq",
        "lines",
        "place",
        "records",
        "writer",
    )

    def __init__(self, writer: str, place: Place) -> None:
        self.writer = writer
        self.place = place
        """Of its first line."""
        self.header: OwnLine | None = None
        self.footer: OwnLine | None = None
        self.fragment: RawLine | None = None
        """A line before the header that is no line; all right if the writer declares that it healed a tear there."""
        self.lines = self.records = 0
        self.first_seq = self.last_seq = 0

    def add(self, seq: int, *, own: bool) -> None:
        """Take a line that is not the footer."""
        self.first_seq = seq if not self.lines else min(self.first_seq, seq)
        self.last_seq = max(self.last_seq, seq)
        self.lines += 1
        self.records += not own

    def differences(self, footer: OwnLine) -> list[str]:
        """Counts that are not those of its footer."""
        found = {"lines": self.lines, "records": self.records, "first_seq": self.first_seq, "last_seq": self.last_seq}
        told = {name: getattr(footer, name) for name in found}
        differences = [
            f"{found[name]} instead of {told[name]} as {name}" for name in found if found[name] != told[name]
        ]
        totals = footer.totals
        if totals is None:
            return [*differences, "no totals"]
        ended = totals.written + totals.dropped + totals.failed + totals.queued
        if totals.offered != totals.accepted + totals.refused or totals.accepted != ended:
            differences.append("totals that do not add up")
        return differences


class WriterState:
    """What was seen of one writer."""

    __slots__ = ("_declared_at", "closed_at", "dropped", "latest", "records", "refused", "segments", "seqs", "writer")

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self.seqs: SeqRanges[Place] = SeqRanges()
        self.segments: list[Segment] = []
        """In the order they stand in the files."""
        self.records = 0
        self.latest: tuple[int, Place] | None = None
        """The last line read in this lane, by which the next one is in order or not."""
        self.closed_at: int | None = None
        """`seq` of its `log.closed`."""
        self.dropped = self.refused = 0
        self._declared_at = 0

    def declare(self, line: OwnLine) -> None:
        """Take the cumulative counts of a line that has them; the latest line tells them all."""
        if line.seq < self._declared_at:
            return
        if line.totals is not None:
            self._declared_at = line.seq
            self.refused = line.totals.refused
            self.dropped = line.totals.dropped + line.totals.failed
        elif line.event == "log.closed":
            self._declared_at = line.seq
            self.refused = line.refused or 0
            self.dropped = (line.dropped or 0) + (line.failed or 0)

    @property
    def closed(self) -> bool:
        """Its last line is `log.closed`, the footer after it aside."""
        return self.closed_at is not None and (self.seqs.last or 0) <= self.closed_at + 1


class FileChecksum:
    """Size and CRC-32 of a file up to a line, compared with what the footers in it tell.

    A footer covers the file from its beginning. So that damage in one segment does not make all later ones fail, the
    comparison goes on from what a failed footer told as well.
    """

    __slots__ = ("_crc", "_size", "_told_crc", "_told_size")

    def __init__(self) -> None:
        self._crc = self._size = 0
        self._told_crc: int | UnsetType = UNSET
        self._told_size = 0

    def add(self, line: RawLine) -> None:
        """Take the next bytes of the file."""
        data = line.data + b"\n" if line.ended else line.data
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        if self._told_crc is not UNSET:
            self._told_crc = zlib.crc32(data, self._told_crc)
            self._told_size += len(data)

    def difference(self, footer: OwnLine) -> str | None:
        """What the bytes before the footer are that it says they are not; None when they are as told."""
        told = (footer.crc32, footer.bytes)
        if told == (self._crc, self._size):
            self._told_crc = UNSET
            return None
        if self._told_crc is not UNSET and told == (self._told_crc, self._told_size):
            return None
        size = self._told_size if self._told_crc is not UNSET else self._size
        if footer.crc32 is None or footer.bytes is None:
            return "the footer has no checksum"
        self._told_crc, self._told_size = footer.crc32, footer.bytes
        if footer.bytes != size:
            return f"{abs(footer.bytes - size):,} bytes {'are gone' if footer.bytes > size else 'were added'}"
        return "bytes were changed"
