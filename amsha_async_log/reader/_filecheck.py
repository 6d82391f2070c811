"""Goes through one file line by line and tells lines, segments and damage apart."""

from typing import Final, NamedTuple

from ._lanes import LogFile
from ._lines import Envelope, LineDecoder, OwnLine, RawLine, decode_record
from ._report import Finding, Findings
from ._segments import FileChecksum, Place, Segment, WriterState, line_difference

__all__ = ["Counts", "FileCheck"]

ENVELOPES: Final = LineDecoder(Envelope)
OWN_LINES: Final = LineDecoder(OwnLine)

NOT_JSON: Final = "not a line of the log, and no JSON"
NOT_OURS: Final = "not a line of the log, it has no writer and seq"


class Counts:
    """What is counted over all files."""

    def __init__(self) -> None:
        self.torn = self.corrupt = self.duplicates = self.out_of_order = self.checksums = 0
        self.segments = 0
        self.writers: dict[str, WriterState] = {}


class Bad(NamedTuple):
    """A line that is none, until it is known whether it is a healed tear."""

    line: RawLine
    what: str


class FileCheck:
    """The state of going through one file. `feed` it all lines, then `finish`."""

    def __init__(self, file: LogFile, counts: Counts) -> None:
        self._file = file
        self._name = str(file.path)
        self._counts = counts
        self._checksum = FileChecksum()
        self._segment: Segment | None = None
        self._interrupted: Segment | None = None
        """A segment among whose lines stand those of another writer, which are held in `_strays` meanwhile."""
        self._strays: list[Segment] = []
        self._bad: Bad | None = None
        self.findings = Findings()
        self.bad_lines = 0
        """Lines that are no lines of the log."""
        self.last_writer: str | None = None

    def feed(self, line: RawLine) -> None:
        """Take the next line."""
        if line.first:
            self._take(line)
        self._checksum.add(line)

    def _take(self, line: RawLine) -> None:
        envelope = ENVELOPES.decode(line.data)
        if line.torn:
            if self._file.running:
                return  # still being written
            self._counts.torn += 1
            message = f"{self._name}, line {line.number}: the file ends in the middle of a line."
            self._find("torn", line.number, message)
            if envelope is None:
                return
        if envelope is None:
            self._settle_bad()
            self._bad = Bad(line, NOT_JSON if decode_record(line.data) is None else NOT_OURS)
            return
        self._take_line(line, envelope)

    def _take_line(self, line: RawLine, envelope: Envelope) -> None:
        counts = self._counts
        writer = counts.writers.get(envelope.writer)
        if writer is None:
            writer = counts.writers[envelope.writer] = WriterState(envelope.writer)
        self.last_writer = envelope.writer
        place = Place(self._name, line.number)
        if not writer.seqs.add(envelope.seq, place):
            self._settle_bad()
            counts.duplicates += 1
            what = "a line that is there already"
            self.findings.add_line("duplicate", what, self._name, line.number, envelope.writer, envelope.seq)
            return
        self._check_order(writer, envelope.seq, place)
        own = OWN_LINES.decode(line.data) if envelope.event.startswith("log.") else None
        if own is None:
            self._settle_bad()
            self._segment_of(writer, place).add(envelope.seq, own=False)
            writer.records += 1
        else:
            self._take_own(writer, own, place, line.data)

    def _check_order(self, writer: WriterState, seq: int, place: Place) -> None:
        if writer.latest is not None and seq < writer.latest[0]:
            self._counts.out_of_order += 1
            before = f"seq {writer.latest[0]} ({writer.latest[1]})"
            message = f"{place}: out of order, seq {seq} of writer {writer.writer} comes after {before}."
            self._find("out_of_order", place.line, message, writer.writer, seq)
        writer.latest = (seq, place)

    def _take_own(self, writer: WriterState, own: OwnLine, place: Place, data: bytes) -> None:
        if own.event == "log.segment_opened":
            segment = self._open_segment(writer, own, place)
        else:
            self._settle_bad()
            segment = self._segment_of(writer, place)
        writer.declare(own)
        if own.event == "log.segment_closed":
            self._close_segment(segment, own, place, data)
            return
        segment.add(own.seq, own=True)
        if own.event == "log.closed":
            writer.closed_at = own.seq
        elif own.event == "log.recovered":
            self._heal(segment, own)

    # -- segments -----------------------------------------------------------------------------------------------------

    def _open_segment(self, writer: WriterState, header: OwnLine, place: Place) -> Segment:
        current = self._segment
        if current is not None and current.writer == writer.writer and current.header is None:
            segment = current  # its header stands among its lines
            self._settle_bad()
        else:
            self._end_segment()
            segment = self._segment = self._register(Segment(writer.writer, place))
            if self._bad is not None and self._bad.what == NOT_JSON:
                segment.fragment, self._bad = self._bad.line, None
            self._settle_bad()
        segment.header = header
        return segment

    def _segment_of(self, writer: WriterState, place: Place) -> Segment:
        """The segment a line belongs to; a new one when its header is not there."""
        current = self._segment
        if current is not None and current.writer == writer.writer:
            return current
        if self._interrupted is not None and self._interrupted.writer == writer.writer:
            self._discard_strays()
            self._segment, self._interrupted = self._interrupted, None
            return self._segment
        stray = Segment(writer.writer, place)
        if current is None:
            self._register(stray)
        else:
            self._interrupted = self._interrupted or current
            self._strays.append(stray)
        self._segment = stray
        return stray

    def _discard_strays(self) -> None:
        """The interrupted segment goes on: what stood between are lines that somebody put there."""
        for stray in self._strays:
            lines = stray.lines + (stray.footer is not None)
            self._counts.corrupt += lines
            message = f"{stray.place}: a line of writer {stray.writer} inside a segment of another writer."
            self._find("foreign", stray.place.line, message, stray.writer, stray.first_seq)
        self._strays.clear()

    def _register(self, segment: Segment) -> Segment:
        self._counts.segments += 1
        self._counts.writers[segment.writer].segments.append(segment)
        return segment

    def _end_segment(self) -> None:
        """No more lines of the current segment come."""
        for stray in self._strays:
            self._register(stray)  # the segment they seemed to interrupt did not go on: they are one without a header
        self._strays.clear()
        self._interrupted = None
        if self._segment is not None and self._segment.fragment is not None:
            self._count_bad(Bad(self._segment.fragment, NOT_JSON))
        self._segment = None

    def _close_segment(self, segment: Segment, footer: OwnLine, place: Place, data: bytes) -> None:
        found = [self._checksum.difference(footer), line_difference(data), *segment.differences(footer)]
        differences = [difference for difference in found if difference]
        segment.footer = footer
        if differences:
            self._counts.checksums += 1
            what = "; ".join(differences)
            message = f"{place}: the segment that began at line {segment.place.line} is not as it was written: {what}."
            self._find("checksum", place.line, message, segment.writer, footer.seq)
        if self._interrupted is None:
            self._end_segment()

    # -- bad lines ----------------------------------------------------------------------------------------------------

    def _heal(self, segment: Segment, recovered: OwnLine) -> None:
        fragment = segment.fragment
        if fragment is not None and recovered.torn_bytes == len(fragment.data):
            segment.fragment = None
            self._counts.torn += 1
            message = f"{self._name}, line {fragment.number}: a line torn by the end of its writer, closed off later."
            self._find("healed", fragment.number, message)

    def _settle_bad(self) -> None:
        """The bad line before this one was no healed tear."""
        if self._bad is not None:
            bad, self._bad = self._bad, None
            self._count_bad(bad)

    def _count_bad(self, bad: Bad) -> None:
        self.bad_lines += 1
        kind = "corrupt" if bad.what == NOT_JSON else "foreign"
        self.findings.add_line(kind, bad.what, self._name, bad.line.number, None, None)

    def _find(self, kind: str, line: int, message: str, writer: str | None = None, seq: int | None = None) -> None:
        self.findings.add(Finding(kind=kind, file=self._name, line=line, writer=writer, seq=seq, message=message))

    def finish(self) -> None:
        """The file has no more lines."""
        if self._file.running:  # perhaps a tear that its writer is just closing off
            self._bad = None
            if self._segment is not None:
                self._segment.fragment = None
        self._settle_bad()
        self._end_segment()
