"""The proof of completeness: whether the files are as their writers wrote them, and what is not there."""

from itertools import pairwise
from pathlib import Path

from ..exceptions import ReadError
from ._filecheck import Counts, FileCheck
from ._files import Paths, StrPath, snapshot
from ._lanes import Lane, plain_name
from ._lines import DamagedFileError
from ._report import Finding, Findings, Report, WriterReport, span
from ._segments import Place, Segment, WriterState
from ._sequence import Hole

__all__ = ["verify"]


def verify(*paths: StrPath) -> Report:
    """Check every line, segment and writer of the log, from the files alone.

    Paths as for `records`. Finds lines that are gone, doubled, moved, edited, cut or foreign, segments that are cut or
    gone, and files whose bytes are not those their footers tell. Cannot find: what was changed after the last footer of
    a file (a running or killed writer has none), lines cut off the end of a writer that did not close, and whole
    writers that are gone. Memory grows with segments, writers and damage, not with lines. Raises `ReadError` when there
    is no log file, or one cannot be read.
    """
    return _Verification().run(paths)


class _Verification:
    def __init__(self) -> None:
        self._counts = Counts()
        self._findings = Findings()
        self._running: set[str] = set()
        """Writers that hold the lock on the file they write."""
        self._there: set[Path] = set()
        """The files that are there, without the ending that compression gave them."""
        self._not_ours: list[tuple[Lane, FileCheck, str]] = []
        """Files without a single line of the log."""

    def run(self, paths: Paths) -> Report:
        with snapshot(paths) as lanes:
            files = [file for lane in lanes for file in lane.files]
            if not files:
                where = ", ".join(str(path) for path in paths) or "the default log directory"
                message = f"no log file in {where}"
                raise ReadError(message)
            ours = {id(lane) for lane in lanes if self._check_lane(lane)}
            self._there = {_plain(file.path) for file in files if not file.gone}
        for lane, check, name in self._not_ours:
            if id(lane) in ours or not ours:
                self._count_bad(check)
            else:
                message = f"{name}: set aside, it has no line of the log."
                self._findings.add(Finding(kind="foreign_file", file=name, message=message))
        writers = [self._conclude(state) for state in self._counts.writers.values()]
        return self._report(writers)

    def _check_lane(self, lane: Lane) -> bool:
        """Go through the files of a lane; True when a line of the log is among theirs."""
        for writer in self._counts.writers.values():
            writer.latest = None  # a writer whose path was taken for a while has segments in two lanes
        last_writer = None
        for file in lane.files:
            check = FileCheck(file, self._counts)
            try:
                for line in file.lines():
                    check.feed(line)
            except DamagedFileError as error:
                self._counts.corrupt += 1
                message = f"{file.path}: {error}."
                self._findings.add(Finding(kind="damaged_file", file=str(file.path), message=message))
            check.finish()
            if check.last_writer is None and check.bad_lines:
                self._not_ours.append((lane, check, str(file.path)))
            else:
                self._count_bad(check)
            last_writer = check.last_writer or last_writer
        if lane.running and last_writer is not None:
            self._running.add(last_writer)
        return last_writer is not None

    def _count_bad(self, check: FileCheck) -> None:
        self._counts.corrupt += check.bad_lines
        self._findings.extend(check.findings)

    # -- writers ------------------------------------------------------------------------------------------------------

    def _conclude(self, writer: WriterState) -> WriterReport:
        first, last = writer.seqs.first or 0, writer.seqs.last or 0
        missing = 0
        by_place = {segment.place: segment for segment in writer.segments}
        for hole in writer.seqs.holes():
            missing += hole.last - hole.first + 1
            self._explain(writer, hole, by_place.get(hole.after))
        missing += self._check_beginning(writer, first)
        self._check_ends(writer)
        return WriterReport(
            writer=writer.writer,
            records=writer.records,
            first_seq=first,
            last_seq=last,
            missing=missing,
            dropped=writer.dropped,
            refused=writer.refused,
            end=self._end_of(writer),
        )

    def _end_of(self, writer: WriterState) -> str:
        running = writer.writer in self._running
        last = max(writer.segments, key=lambda segment: segment.last_seq, default=None)
        file = last.place.file if last is not None else None
        if not writer.closed:
            if running:
                return "running"
            self._find("unclosed", writer, file, _unclosed(last, writer))
            return "unknown"
        if not running and last is not None and last.footer is None:
            message = f"{file}: writer {writer.writer} closed its log, but the line with its checksum is not there."
            self._find("no_footer", writer, file, message)
        return "closed"

    def _explain(self, writer: WriterState, hole: Hole[Place], following: Segment | None) -> None:
        """Name what is missing; `following` is the segment that begins right after it, if one does."""
        number = hole.last - hole.first + 1
        gone = f"{number:,} {'line is' if number == 1 else 'lines are'} missing of writer {writer.writer}"
        which = f"{gone} ({span('seq', hole.first, hole.last, plural='seq')})"
        line: int | None = hole.after.line
        kind, file = "missing", hole.after.file
        where = f", between {hole.before} and {hole.after}"
        if following is not None and following.header is not None and following.header.previous_segment is not None:
            before = Path(hole.after.file).with_name(following.header.previous_segment)
            if _plain(before) not in self._there:
                kind, file, line = "missing_segment", str(before), None
                where = f": the segment {before} is not there"
            elif str(before) not in (hole.before.file, hole.after.file):
                file, line = str(before), None
                where = f": the segment {before} is there without them"
        self._findings.add(
            Finding(kind=kind, file=file, line=line, writer=writer.writer, seq=hole.first, message=f"{which}{where}.")
        )

    def _check_beginning(self, writer: WriterState, first: int) -> int:
        """Lines missing before the first one, as far as can be told.

        Retention removes whole segments: the first line has to be a header, and the segment before it has to be gone.
        """
        segment = next((s for s in writer.segments if s.first_seq == first), None)
        if segment is None:
            return 0
        begins = f"{segment.place}: writer {writer.writer} begins with seq {first}"
        if segment.header is None:
            if first == 1:
                self._find("no_header", writer, segment.place.file, f"{begins} and without a segment header.")
                return 0
            message = f"{begins} and without a segment header: at least 1 line before it is missing."
            self._find("missing", writer, segment.place.file, message)
            return 1
        here, previous = Path(segment.place.file), segment.header.previous_segment
        if previous is None or _plain(here.with_name(previous)) not in self._there - {_plain(here)}:
            return 0
        message = f"{begins}, but the segment before it, {previous}, is there without its lines."
        self._find("missing", writer, segment.place.file, message)
        return 1

    def _check_ends(self, writer: WriterState) -> None:
        """Only the last segment of a writer may be without a footer."""
        segments = sorted(writer.segments, key=lambda segment: segment.first_seq)
        for segment, following in pairwise(segments):
            if segment.footer is None and segment.last_seq < following.first_seq:
                message = (
                    f"{segment.place.file}: a segment of writer {writer.writer} ends at seq {segment.last_seq} without"
                    f" its last line, though the writer went on in {following.place.file}."
                )
                self._find("truncated", writer, segment.place.file, message, segment.last_seq)

    def _find(self, kind: str, writer: WriterState, file: str | None, message: str, seq: int | None = None) -> None:
        self._findings.add(Finding(kind=kind, file=file, writer=writer.writer, seq=seq, message=message))

    # -- verdict ------------------------------------------------------------------------------------------------------

    def _report(self, writers: list[WriterReport]) -> Report:
        counts = self._counts
        bad = (counts.corrupt, counts.checksums, counts.duplicates, counts.out_of_order)
        return Report(
            ok=not any(bad) and not any(writer.missing for writer in writers),
            writers=writers,
            torn_lines=counts.torn,
            corrupt_lines=counts.corrupt,
            duplicates=counts.duplicates,
            segments=counts.segments,
            checksum_failures=counts.checksums,
            secrets_found=None,
            out_of_order=counts.out_of_order,
            findings=self._findings.all(),
        )


def _plain(path: Path) -> Path:
    return path.with_name(plain_name(path.name))


def _unclosed(last: Segment | None, writer: WriterState) -> str:
    if last is not None and last.footer is not None:
        return (
            f"Writer {writer.writer} ended its segment in {last.place.file} and went on, but the next segment is not"
            " there: it was killed right then, or the file is gone."
        )
    return (
        f"Writer {writer.writer} did not close its log: it was killed, or the end of its file was cut off; what it had"
        " in its queue is unknown."
    )
