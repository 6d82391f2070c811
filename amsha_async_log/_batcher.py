"""The one consumer of the queue: takes records, encodes them, has them written, keeps the ledger.

Runs as a task on the log's own loop. Blocking work goes through `run_io` to the log's I/O thread, one call at a
time. A failing file is tried again until it works or the log is closed; meanwhile records wait in the queue, and
the bound refuses what does not fit.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from msgspec import Struct

from ._console import Console
from ._encoder import LineEncoder
from ._queue import BATCH, ERROR, SLICE, Record, RecordQueue
from ._stacktrace import LateBody, load_code_lines
from ._stderr import tell
from ._writer import SegmentLostError, SegmentWriter
from .records import LogDropped, LogSinkFailed, LogSinkRecovered

__all__ = ["Batcher", "Ticket"]

MAX_BATCH: Final = 4 * BATCH
BACKLOG_SHARE: Final = 4
"""A batch is this part of the backlog, so that it grows further only when the batcher is behind."""
LOSS_QUIET_S: Final = 0.5
"""A loss has ended when nothing more was lost for this long."""
RETRY_FIRST_S: Final = 0.05
RETRY_LAST_S: Final = 1.0
PROBE_S: Final = 0.1

RunIO = Callable[..., Awaitable[Any]]


class Ticket:
    """A wish to know when everything accepted so far is written. `done` gets True, or False on loss.

    `rotate`: the segment is then to be closed, and the next one begun, if there is anything in it.
    """

    def __init__(self, lost: int, *, durable: bool, rotate: bool = False) -> None:
        self.lost = lost
        self.durable = durable
        self.rotate = rotate
        self.done: Future[bool] = Future()


class Batcher:
    """See the module. `stop` and `submit` may be called from any thread, the rest belongs to the loop."""

    def __init__(
        self,
        queue: RecordQueue,
        encoder: LineEncoder,
        writer: SegmentWriter,
        run_io: RunIO,
        *,
        flush_interval_s: float,
        durability: str,
        console: Console | None,
        wake: asyncio.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._ledger = queue.ledger
        self._encoder = encoder
        self._writer = writer
        self._run_io = run_io
        self._flush_interval_s = flush_interval_s
        self._durability = durability
        self._console = console
        self._wake = wake
        self._clock = clock
        self._tickets: list[Ticket] = []
        self._stop = False
        self._ended_well: bool | None = None
        """None until the batcher takes nothing more; then whether all it took was handled in order."""
        self._late_seen = 0
        self._declared: Counter[tuple[str, str]] = Counter()
        self._losing = False
        self._in_hand: list[Record] = []
        """Taken from the queue, not yet accounted for."""
        self._chunk = b""
        """The lines of the first of them that are being written."""
        self._happened: list[tuple[Struct, str, str]] = []
        """Lines of the log's own that wait for the file to work: (event, message, level)."""
        self._sync_failed = False
        self._retention_error: OSError | None = None
        self._just_worked = False
        self.batches = 0
        self.sink_ok = True
        self.sink_error: str | None = None

    # -- from other threads ------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket) -> None:
        """Have `ticket.done` set once what was accepted before this call is written."""
        self._tickets.append(ticket)
        if self._ended_well is not None:
            self._settle_late(well=self._ended_well)

    def stop(self) -> None:
        """Let `run` return once the queue is empty. The queue must be closed."""
        self._stop = True

    # -- the task ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Drain, rest, drain again, until stopped and empty. Declares all losses before it returns."""
        await self._insist(self._writer.open)
        while True:
            await self._drain()
            if self._stop and not self._queue.items and not self._tickets:
                break
            await self._rest()
        await self._write(self._queue.seal())
        await self._say_what_happened()
        await self._declare(final=True)
        self._settle_late(well=True)

    async def write_own(self, event: Struct, message: str, level: str = "INFO") -> None:
        """Write a line of the log's own."""
        while True:
            first = self._encoder.next_seq
            line = self._encoder.own_line(event, self._clock(), message, level)
            if await self._put(line, 1, 0, first, splittable=False):
                break
        self._ledger.own_lines += 1
        if self._console is not None:
            self._console.show(line, 1)

    def give_up(self, error: Exception | None = None) -> int:
        """Count everything not written as lost: to `error`, to the file's failure, or to the time-out.

        Returns how many records that are.
        """
        if error is not None:
            self.sink_ok, self.sink_error = False, _said(error)
        self._account(self._in_hand[: self._writer.whole_lines(self._chunk)])
        left = [record.source.level for record in self._in_hand]
        self._in_hand = []
        while records := self._queue.take(MAX_BATCH):
            left += [record.source.level for record in records]
        left += [record.source.level for record in self._queue.seal()]
        with self._queue.moving():
            if self.sink_ok:
                self._ledger.drop("shutdown", left)
            else:
                self._ledger.fail("sink_failed", left)
        self._settle_late(well=False)
        return len(left)

    def _settle_late(self, *, well: bool) -> None:
        """Answer who asked after the last drain, or asks from now on; whichever thread gets hold of a ticket does."""
        self._ended_well = well
        with contextlib.suppress(IndexError):
            while True:
                ticket = self._tickets.pop()
                _resolve(ticket, done=well and not ticket.durable and self.lost() <= ticket.lost)

    def fail_in_hand(self) -> None:
        """Count the records in hand as lost: what failed while they were handled may fail again."""
        self._queue.note_loss()
        with self._queue.moving():
            self._ledger.fail("unencodable", [record.source.level for record in self._in_hand])
        self._queue.release(sum([record.size for record in self._in_hand]))
        self._in_hand = []

    async def close_file(self) -> None:
        """Write the closing line of the segment and give the file up."""
        await self._insist(self._writer.close)

    async def _drain(self) -> None:
        queue = self._queue
        self._just_worked = bool(queue.items) and not queue.nudged
        queue.nudged = False
        while True:
            tickets, self._tickets = self._tickets, []
            target = len(queue.items)
            while target > 0:
                backlog = len(queue.items)
                records = queue.take(min(max(backlog // BACKLOG_SHARE, BATCH), MAX_BATCH))
                queue.expect(0.0)
                target -= len(records)
                await self._write(records)
            await self._say_what_happened()
            await self._settle(tickets)
            await self._declare()
            if not queue.items and not self._tickets:
                return

    async def _rest(self) -> None:
        """Wait for work: parked, or for at most the flush interval after there was some."""
        queue = self._queue
        timeout: float | None = None
        if queue.starving:  # a record after this one must not wait for a timer that may never get the GIL
            timeout = PROBE_S if self._just_worked else None
            queue.park()
        elif self._just_worked and self._flush_interval_s:
            timeout = self._flush_interval_s
            queue.expect(timeout, lingering=True)
        else:
            queue.park()
        if self._losing:
            timeout = min(timeout or LOSS_QUIET_S, LOSS_QUIET_S)
        if self._stop or self._tickets or (queue.items and queue.attention_at == 0.0):
            return
        lends = queue.lending.count
        due = None if timeout is None else time.monotonic() + timeout
        if not await self._waited(timeout) or due is None:
            return
        late = time.monotonic() - due
        if late > PROBE_S or lends == queue.lending.count:
            queue.found_reachable(late)

    async def _waited(self, timeout: float | None) -> bool:
        """Sleep until woken or for `timeout`. True if it was the time-out."""
        fired = False

        def fire() -> None:
            nonlocal fired
            fired = True
            self._wake.set()

        timer = None if timeout is None else asyncio.get_running_loop().call_later(timeout, fire)
        await self._wake.wait()
        self._wake.clear()
        if timer is not None:
            timer.cancel()
        return fired

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, records: list[Record]) -> None:
        self._in_hand = records
        if self._queue.late_bodies != self._late_seen:
            late = [record.body for record in records if isinstance(record.body, LateBody)]
            self._late_seen += len(late)
            if late:
                await self._run_io(load_code_lines, late)
        part = len(records)
        while self._in_hand:
            records = self._in_hand[:part]
            first = self._encoder.next_seq
            chunk = self._encode(records)
            if not await self._put(chunk, len(records), len(records), first, splittable=len(records) > 1):
                part = len(self._in_hand) if not self._writer.fresh else max(1, len(records) // 2)
                continue
            self._account(records)
            if self._console is not None:
                self._console.show(chunk, len(records))
            if self._durability == "fsync" or (
                self._durability == "fsync_errors" and any(record.source.levelno >= ERROR for record in records)
            ):
                await self._sync()

    def _encode(self, records: Sequence[Record]) -> bytes:
        if len(records) <= SLICE:
            return self._encoder.encode(records)
        slices = [records[i : i + SLICE] for i in range(0, len(records), SLICE)]
        return b"".join([self._encoder.encode(part) for part in slices])

    async def _put(self, chunk: bytes, lines: int, records: int, first: int, *, splittable: bool) -> bool:
        """Have `chunk`, whose first line has number `first`, written.

        False: it must be encoded again, since lines of the log's own now come before it, or since it is to be
        written in smaller parts. Lines of it that were written already are accounted for.
        """
        writer, encoder = self._writer, self._encoder
        overdue = records > 0 and writer.overdue  # closing lines alone are no reason to begin a segment
        if overdue or (not writer.fits(len(chunk)) and (splittable or not writer.fresh)):
            encoder.next_seq = first
            if not writer.fresh:
                await self._rotate()
            return False
        try:
            self._chunk = chunk if records else b""
            await self._insist(writer.append, chunk, lines, records, resume=writer.resume)
        except SegmentLostError as lost:
            if lost.lines_written < lines:  # else closing lines may have come after them
                encoder.next_seq = first + lost.lines_written
            if records:
                self._account(self._in_hand[: lost.lines_written])
            await self._insist(writer.open)
            return False
        return True

    async def _insist(
        self, operation: Callable[..., None], *args: Any, resume: Callable[..., None] | None = None
    ) -> None:
        """Run a file operation until it does not raise OSError, and say so in the file if it did."""
        try:
            await self._io(operation, *args)
        except OSError as error:
            await self._retry(error, resume or operation, args)

    async def _retry(self, error: OSError, operation: Callable[..., None], args: tuple[Any, ...]) -> None:
        since, attempts, delay = self._clock(), 1, RETRY_FIRST_S
        self._note_failure(error)
        while True:
            self._queue.expect(delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY_LAST_S)
            attempts += 1
            try:
                await self._io(operation, *args)
                break
            except OSError as again:
                error = again
                self.sink_error = _said(again)
            except SegmentLostError:
                self._note_recovery(error, since, attempts)
                raise
        self._note_recovery(error, since, attempts)

    def _note_failure(self, error: OSError) -> None:
        """Said once for each failure, however often it is tried."""
        self.sink_ok = False
        self.sink_error = _said(error)
        self._queue.lending.suspended = True
        where = self._writer.path or "the log"
        tell(f"cannot write {where}: {self.sink_error}; records wait in memory, then are refused")

    def _note_recovery(self, error: OSError, since: float, attempts: int) -> None:
        self.sink_ok = True
        self._queue.lending.suspended = False
        took = self._clock() - since
        tell(f"writing {self._writer.path or 'the log'} again after {took:.1f} s")
        failed = LogSinkFailed(error_type=type(error).__name__, error_message=_said(error), since=since)
        recovered = LogSinkRecovered(duration_seconds=took, attempts=attempts)
        self._happened += [(failed, "cannot write", "ERROR"), (recovered, "writing again", "WARNING")]

    async def _io(self, operation: Callable[..., None], *args: Any) -> None:
        lending = self._queue.lending
        lending.io_began()
        try:
            await self._run_io(operation, *args)
        finally:
            lending.io_ended()
        if self._writer.retention_error is not self._retention_error:
            self._retention_error = self._writer.retention_error
            if self._retention_error is not None:
                tell(f"cannot move or delete old segments: {self._retention_error}; they are kept")

    async def _sync(self) -> None:
        """fsync. After an error a new segment begins, and nothing is called durable any more."""
        try:
            await self._io(self._writer.sync)
        except OSError as error:
            self._sync_failed = True
            self.sink_error = _said(error)
            tell(f"fsync of {self._writer.path} failed: {self.sink_error}; what is on disk is unknown")
            await self._rotate()

    async def _rotate(self) -> None:
        try:
            await self._insist(self._writer.rotate)
        except SegmentLostError:
            await self._insist(self._writer.open)

    async def _settle(self, tickets: list[Ticket]) -> None:
        if any(ticket.durable for ticket in tickets):
            await self._sync()
        if any(ticket.rotate for ticket in tickets) and not self._writer.fresh:
            await self._rotate()
        for ticket in tickets:
            lost = self.lost() > ticket.lost or (ticket.durable and self._sync_failed)
            _resolve(ticket, done=not lost)

    # -- accounts ----------------------------------------------------------------------------------------------------

    def lost(self) -> int:
        """Accepted records that were lost so far."""
        return sum(
            levels.total() for counts in (self._ledger.dropped, self._ledger.failed) for levels in counts.values()
        )

    def _account(self, records: list[Record]) -> None:
        """`records`, the first of those in hand, are written."""
        self._chunk = b""
        with self._queue.moving():
            self._ledger.written.update([record.source.level for record in records])
            if self._encoder.degraded:
                self._ledger.degraded.update(self._encoder.degraded)
                self._encoder.degraded.clear()
        self._queue.release(sum([record.size for record in records]))
        self._in_hand = self._in_hand[len(records) :]
        self.batches += 1

    async def _say_what_happened(self) -> None:
        while self._happened:
            event, message, level = self._happened.pop(0)
            await self.write_own(event, message, level)

    async def _declare(self, *, final: bool = False) -> None:
        """Write `log.dropped` when loss is first known and again when it has ended; nothing in between."""
        queue = self._queue
        if queue.loss_first is None and not self._losing:
            return
        view = self._ledger.view(queue.waiting())
        losses = view.losses()
        new = losses - self._declared
        ended = final or self._clock() - queue.loss_last >= LOSS_QUIET_S
        if new and (ended or not self._losing):
            by_reason: Counter[str] = Counter()
            by_level: Counter[str] = Counter()
            for (reason, level), number in new.items():
                by_reason[reason] += number
                by_level[level] += number
            first, queue.loss_first = queue.loss_first, None
            self._declared = losses
            await self.write_own(
                LogDropped(
                    count=new.total(),
                    by_reason=dict(by_reason),
                    by_level=dict(by_level),
                    first_time=first or queue.loss_last,
                    last_time=queue.loss_last,
                    totals=view.totals(),
                ),
                f"{new.total()} records lost",
                "ERROR",
            )
        self._losing = bool(new) if not ended else False


def _resolve(ticket: Ticket, *, done: bool) -> None:
    if not ticket.done.done():
        ticket.done.set_result(done)


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{error.strerror or error} (errno {error.errno})"
    return str(error)
