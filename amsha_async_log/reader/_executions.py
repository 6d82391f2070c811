"""From lines to executions."""

from math import inf
from typing import Final

from ._files import StrPath, snapshot
from ._gather import gather
from ._lanes import Lane
from ._lines import LineDecoder
from ._run import Execution, Run
from ._writers import Line, WriterTrack

__all__ = ["LINES", "Collector", "executions"]

LINES: Final = LineDecoder(Line)


def executions(*paths: StrPath) -> list[Execution]:
    """Every execution in the log, in the order of their first lines.

    Paths as for `records`. Memory grows with the number of executions, not of lines (with both, if somebody has put
    the lines out of order). Executions that never ended are among them. Raises `ReadError` when a path stands for
    nothing or a file cannot be read.
    """
    with snapshot(paths) as lanes:
        collector = gather(lanes, LINES.decode, lambda line: line, Collector, Collector.add)
    return [collector.finish(run) for run in collector.runs.values()]


class Collector:
    """Sorts lines into executions and writers. `only` names the one execution wanted, None means all."""

    def __init__(self, only: str | None = None) -> None:
        self.runs: dict[str, Run] = {}
        """By id, in the order of their first lines."""
        self._only = only
        self._writers: dict[str, WriterTrack] = {}
        self._running: dict[str, dict[str, Run]] = {}
        """Executions that have not ended, by writer and id: those a sample of the writer counts for."""
        self._last_writers: dict[int, str] = {}
        """Who wrote last in each lane: whoever holds the lock there."""

    def add(self, lane: Lane, line: Line) -> None:
        """Take the next line of the merged log."""
        writer = self._writers.get(line.writer)
        if writer is None:
            writer = self._writers[line.writer] = WriterTrack(lane)
        writer.add(lane, line)
        self._last_writers[id(lane)] = line.writer
        if line.execution_id is not None:
            self._add_to_run(str(line.execution_id), line)
        elif line.event.startswith("sample."):
            self._add_sample(writer, line)

    def _add_to_run(self, execution_id: str, line: Line) -> None:
        if self._only not in (None, execution_id):
            return
        run = self.runs.get(execution_id)
        if run is None:
            run = self.runs[execution_id] = Run(execution_id)
        run.add(line)
        if run.end is None:
            self._running.setdefault(line.writer, {})[execution_id] = run
        else:
            for name in run.spans:
                self._running.get(name, {}).pop(execution_id, None)

    def _add_sample(self, writer: WriterTrack, line: Line) -> None:
        if line.event == "sample.process":
            for run in self._running.get(line.writer, {}).values():
                run.usage.add_sample(line)
        elif line.event == "sample.gpu":
            for name, runs in self._running.items():
                if self._writers[name].host == writer.host:
                    for run in runs.values():
                        run.usage.add_gpu_sample(line)

    def finish(self, run: Run) -> Execution:
        """The execution as it stands after the last line."""
        begin = run.first_time if run.first_time is not None else -inf
        end = run.end.time if run.end is not None and run.end.time is not None else inf
        lost = 0
        for name, (first_seq, last_seq) in run.spans.items():
            writer = self._writers[name]
            until = last_seq if run.end is not None else (writer.seqs.last or last_seq)
            lost += writer.lost(begin, end) + writer.seqs.missing(first_seq, until)
        return run.finish(self._life(run), lost)

    def _life(self, run: Run) -> str:
        """`running`, `killed` or `unknown`: what an execution without an end is, by the writer that started it."""
        names = [run.started_by] if run.started_by is not None else list(run.spans)
        lives = {self._life_of(name) for name in names}
        return next(life for life in ("running", "unknown", "killed") if life in lives)

    def _life_of(self, name: str) -> str:
        writer = self._writers[name]
        lane = writer.lane
        if lane.running and self._last_writers[id(lane)] == name:
            return "running"
        if lane.running is None or not writer.on_this_machine:
            return "unknown"
        return "killed"
