"""The ledger: what was offered, accepted, written, refused and lost, exact at every moment."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from .records import LEVELS, Totals

__all__ = ["REASONS", "CloseReport", "Ledger", "LedgerView", "Stats", "make_report", "make_stats"]

REASONS: Final = (
    "queue_full",
    "queue_bytes",
    "closed",
    "too_large",
    "unencodable",
    "redaction_failed",
    "sink_failed",
    "shutdown",
)
"""Why a record is not in the file."""

Counts = dict[str, Counter[str]]


class CloseReport(Struct, frozen=True, kw_only=True):
    """What a close achieved. Counts are user records since the log was opened."""

    ok: bool
    """Everything accepted is in the file, and the file was closed in order."""
    offered: int
    accepted: int
    written: int
    refused: int
    dropped: int
    failed: int
    left_behind: int
    """Records still waiting when time ran out or the file could not be written; part of `dropped` or `failed`."""
    duration_seconds: float


class Stats(Struct, frozen=True, kw_only=True):
    """A snapshot of the ledger and the gauges, consistent in itself. Counts are user records.

    `offered = accepted + refused` and `accepted = written + dropped + failed + queued`, always.
    """

    offered: int
    accepted: int
    refused: int
    """Turned away at the call: the call returned False."""
    written: int
    dropped: int
    """Accepted, then given up by decision: time ran out at the close."""
    failed: int
    """Accepted, then lost to an error."""
    queued: int
    """Accepted and neither written nor lost yet, those in flight included."""
    degraded: int
    """Accepted with at least one value replaced by a marker; such a line carries `log_degraded`."""
    by_level: dict[str, dict[str, int]]
    """Level to `accepted`, `written`, `refused`, `dropped`, `failed`, `queued`."""
    by_reason: dict[str, dict[str, int]]
    """Reason to level to records refused or lost for it."""
    own_lines: int
    """Lines the log wrote about itself (`log.*`), not part of the counts above."""
    queued_bytes: int
    lends: int
    """Times a call gave the GIL away so that the batcher could run: the only wait a call can have."""
    lend_longest_seconds: float
    lend_total_seconds: float
    batches: int
    segments: int
    """Segment files this process has opened."""
    sink_ok: bool
    sink_error: str | None
    """The last error of the file, None if there was none."""
    console_dropped: int
    """Lines the console could not keep up with; they are in the file."""
    path: str | None
    """The active file; None before the first write of a forked child."""
    writer: str


def _plus(counts: Counts, reason: str, level: str, number: int) -> None:
    counts.setdefault(reason, Counter())[level] += number


class Ledger:
    """Counters by level and reason.

    `refused` and `degraded` are counted by the calling threads: an in-place add on a dict item holds the GIL from
    load to store on CPython 3.11-3.13, hence needs no lock; every item is there from the start, since a missing one
    would be made by Python code. Everything else belongs to the log's own thread.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at zero, as a forked child does."""
        self.taken: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.dropped: Counts = {}
        self.failed: Counts = {}
        self.refused: Counts = {reason: Counter(dict.fromkeys(LEVELS, 0)) for reason in REASONS}
        self.degraded: Counter[str] = Counter(dict.fromkeys(LEVELS, 0))
        self.own_lines = 0

    def drop(self, reason: str, levels: Iterable[str]) -> None:
        """Count accepted records that were given up by decision."""
        for level, number in Counter(levels).items():
            _plus(self.dropped, reason, level, number)

    def fail(self, reason: str, levels: Iterable[str]) -> None:
        """Count accepted records that were lost to an error."""
        for level, number in Counter(levels).items():
            _plus(self.failed, reason, level, number)

    def view(self, waiting: Mapping[str, int]) -> "LedgerView":
        """A copy to compute from, with the records by level that wait in the queue."""
        accepted = self.taken + Counter(waiting)
        return LedgerView(
            accepted,
            Counter(self.written),
            {reason: Counter(levels) for reason, levels in self.refused.items()},
            {reason: Counter(levels) for reason, levels in self.dropped.items()},
            {reason: Counter(levels) for reason, levels in self.failed.items()},
            self.degraded.total(),
        )


class LedgerView:
    """The ledger at one moment; every figure below comes from the same counts."""

    def __init__(
        self,
        accepted: Counter[str],
        written: Counter[str],
        refused: Counts,
        dropped: Counts,
        failed: Counts,
        degraded: int,
    ) -> None:
        self.accepted = accepted
        self.written = written
        self.refused = refused
        self.dropped = dropped
        self.failed = failed
        self.degraded = degraded

    def losses(self) -> Counter[tuple[str, str]]:
        """(reason, level) to records refused or lost."""
        total: Counter[tuple[str, str]] = Counter()
        for counts in (self.refused, self.dropped, self.failed):
            for reason, levels in counts.items():
                for level, number in levels.items():
                    total[reason, level] += number
        return total

    def totals(self) -> Totals:
        """The counts over all levels and reasons."""
        accepted, written = self.accepted.total(), self.written.total()
        refused, dropped, failed = (_total(c) for c in (self.refused, self.dropped, self.failed))
        return Totals(
            offered=accepted + refused,
            accepted=accepted,
            written=written,
            refused=refused,
            dropped=dropped,
            failed=failed,
            queued=accepted - written - dropped - failed,
            degraded=self.degraded,
        )

    def by_level(self) -> dict[str, dict[str, int]]:
        """The same counts for each level that occurred."""
        refused, dropped, failed = (_by_level(c) for c in (self.refused, self.dropped, self.failed))
        return {
            level: {
                "accepted": self.accepted[level],
                "written": self.written[level],
                "refused": refused[level],
                "dropped": dropped[level],
                "failed": failed[level],
                "queued": self.accepted[level] - self.written[level] - dropped[level] - failed[level],
            }
            for level in LEVELS
            if self.accepted[level] or refused[level]
        }

    def by_reason(self) -> dict[str, dict[str, int]]:
        """Reason to level to records refused or lost, without zeros."""
        table: dict[str, dict[str, int]] = {}
        for (reason, level), number in self.losses().items():
            if number:
                table.setdefault(reason, {})[level] = number
        return table


def make_stats(view: LedgerView, **gauges: Any) -> Stats:
    """A snapshot out of a view and the gauges that are not at rest."""
    totals = view.totals()
    at_rest: dict[str, Any] = {
        "own_lines": 0,
        "queued_bytes": 0,
        "lends": 0,
        "lend_longest_seconds": 0.0,
        "lend_total_seconds": 0.0,
        "batches": 0,
        "segments": 0,
        "sink_ok": True,
        "sink_error": None,
        "console_dropped": 0,
        "path": None,
        "writer": "",
    }
    return Stats(
        offered=totals.offered,
        accepted=totals.accepted,
        refused=totals.refused,
        written=totals.written,
        dropped=totals.dropped,
        failed=totals.failed,
        queued=totals.queued,
        degraded=totals.degraded,
        by_level=view.by_level(),
        by_reason=view.by_reason(),
        **{**at_rest, **gauges},
    )


def make_report(view: LedgerView, *, ok: bool, left_behind: int, duration_seconds: float) -> CloseReport:
    """A close report; records that still wait count as dropped."""
    totals = view.totals()
    return CloseReport(
        ok=ok and not left_behind and not totals.queued and not totals.dropped and not totals.failed,
        offered=totals.offered,
        accepted=totals.accepted,
        written=totals.written,
        refused=totals.refused,
        dropped=totals.dropped + totals.queued,
        failed=totals.failed,
        left_behind=left_behind + totals.queued,
        duration_seconds=duration_seconds,
    )


def _total(counts: Counts) -> int:
    return sum(levels.total() for levels in counts.values())


def _by_level(counts: Counts) -> Counter[str]:
    return sum((Counter(levels) for levels in counts.values()), Counter[str]())
