"""What is known of each writer while its lines go by: what it lost, what is missing of it, and whether it lives."""

from math import inf
from typing import NamedTuple

from msgspec import Struct

from ..records import Totals
from ._lanes import Lane
from ._lock import is_this_machine
from ._sequence import SeqRanges

__all__ = ["Line", "Loss", "WriterTrack"]


class Line(Struct, gc=False):
    """What the reader needs of any line to rebuild executions. None: the line has no such field.

    Units as everywhere: times Unix seconds, durations seconds, memory MB of 2^20 bytes, costs US dollars.
    """

    event: str = "log"
    timestamp: float | None = None
    level: str = "INFO"
    message: str | None = None
    writer: str = ""
    seq: int = 0
    execution_id: str | int | None = None
    parent_execution_id: str | int | None = None
    depends_on: list[str | int] | None = None
    crew_name: str | None = None
    model_name: str | None = None
    operation: str | None = None
    file_path: str | None = None
    status: str | None = None
    state_from: str | None = None
    state_to: str | None = None
    attempt: float | None = None
    duration_seconds: float | None = None
    error_type: str | None = None
    step_id: str | int | None = None
    parent_step_id: str | int | None = None
    step_kind: str | None = None
    step_name: str | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    total_tokens: float | None = None
    cost_usd: float | None = None
    cpu_percent: float | None = None
    cpu_usage_percent: float | None = None
    memory_mb: float | None = None
    peak_memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None
    attribution: str | None = None
    host: str | None = None
    boot_id: str | None = None
    count: int | None = None
    first_time: float | None = None
    last_time: float | None = None
    totals: Totals | None = None


class Loss(NamedTuple):
    """Records that a writer declared lost or refused, and between which times."""

    first_time: float
    last_time: float
    number: int


class WriterTrack:
    """One writer, as far as its lines have gone by."""

    __slots__ = ("_accounted_at", "_declared", "_losses", "host", "lane", "on_this_machine", "seqs")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        """Where its latest line is."""
        self.seqs: SeqRanges[None] = SeqRanges()
        self.host: str | None = None
        self.on_this_machine = True
        self._losses: list[Loss] = []
        self._declared = 0
        self._accounted_at = -inf

    def add(self, lane: Lane, line: Line) -> None:
        """Take the next line of this writer."""
        self.lane = lane
        if line.seq > 0:
            self.seqs.add(line.seq, None)
        if line.event == "log.segment_opened":
            self.host = line.host
            self.on_this_machine = is_this_machine(line.host, line.boot_id)
            if self._accounted_at == -inf and line.seq == 1 and line.timestamp is not None:
                self._accounted_at = line.timestamp
        if line.totals is not None:
            self._account(line, line.totals)

    def _account(self, line: Line, totals: Totals) -> None:
        """A line with cumulative counts: what they rose by was lost since the last such line, or as the line says."""
        time = line.timestamp if line.timestamp is not None else inf
        lost = totals.refused + totals.dropped + totals.failed
        if line.event == "log.dropped" and line.count:
            first = line.first_time if line.first_time is not None else self._accounted_at
            last = line.last_time if line.last_time is not None else time
            self._losses.append(Loss(first, last, line.count))
        elif lost > self._declared:
            self._losses.append(Loss(self._accounted_at, time, lost - self._declared))
        self._declared = max(self._declared, lost)
        self._accounted_at = time

    def lost(self, first_time: float, last_time: float) -> int:
        """How many records it lost between two times: an upper bound, since a loss is declared for a span of time."""
        return sum(
            loss.number for loss in self._losses if loss.first_time <= last_time and loss.last_time >= first_time
        )
