"""The bounded queue between calls and batcher, and the two things a call does for the batcher: wake it, lend the GIL.

Why lend: a daemon thread needs the GIL to encode. An event loop that is busy and polls often drops and retakes the
GIL at every poll; a waiting thread is signalled each time, wakes too late, and the 5 ms time-out that alone forces a
switch starts again. Such a loop starves the batcher for as long as it stays busy. So a call sleeps for a moment when
that is needed, within a budget: see `_Lending`.
"""

import contextlib
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from ._stats import Ledger, LedgerView

__all__ = ["BATCH", "SLICE", "Record", "RecordQueue", "Source"]

SLICE: Final = 256
"""Records encoded in one go; about 200 us of CPU."""

BATCH: Final = 4 * SLICE
"""Records written in one go where as many wait; as many wake a batcher that rests for the flush interval.

A wake-up, and a write, cost two thread switches each, about as much as 100 records.
"""

OVERDUE_S: Final = 0.1
"""A batcher that is this much later than it meant to be is taken for starved."""

WAKING_LEND_S: Final = 0.001
"""Long enough for the batcher to wake, encode and have one batch written."""
PRESSURE_LEND_S: Final = 0.0003
"""Long enough for the batcher to get the GIL, which it then keeps for a switch interval (5 ms) of work."""
LEND_SHARE: Final = 0.1
LEND_BURST: Final = 5
SLOW_LEND_S: Final = 0.02
SLOW_LEND_PAUSE_S: Final = 1.0
SLOW_IO_S: Final = 0.05
LENDS_INTO_SLOW_IO: Final = 3
BUSY_SHARE: Final = 0.5
BLOCKED_POLL_S: Final = 0.002
THREADS_REMEMBERED: Final = 64
VIEW_RETRY_S: Final = 0.0002
ERROR: Final = 40
_ALWAYS: Final = -1.0
"""A time that every record's is past."""


class Source:
    """What all lines of one logger, level and event have in common."""

    __slots__ = ("cut", "event", "head", "level", "levelno", "lifecycle", "mid", "names", "plain")

    def __init__(
        self, event: str, level: str, levelno: int, head: bytes, mid: bytes, *, cut: int = 0, lifecycle: bool = False
    ) -> None:
        self.event: str = event
        self.level: str = level
        self.levelno: int = levelno
        self.head: bytes = head
        """The line up to the timestamp."""
        self.mid: bytes = mid
        """From behind the timestamp to the message, or to the writer where there is none."""
        self.cut: int = cut
        """Bytes of an encoded event to leave out: its tag, which `head` has."""
        self.lifecycle: bool = lifecycle
        """True: part of the reserve is for it."""


class Record(Struct, gc=False, eq=False):
    """One record on the queue. No cycle can form: nothing it holds refers to a record."""

    timestamp: float
    source: Source
    context: bytes
    message: str | None
    """None: a typed event, which has no message."""
    body: object
    """The encoded fields (bytes), or a typed event (Struct), or a `LateBody` of `_snapshot`."""
    size: int
    """Bytes it counts as on the queue."""


class _Lending:
    """When a call may give the GIL away, and the account of it.

    A lend is a request to sleep for 1 ms at most, in total `LEND_SHARE` of wall time (a token bucket that holds
    `LEND_BURST` of them). Regaining the GIL is not ours to bound: after a lend of more than `SLOW_LEND_S`, none for
    `SLOW_LEND_PAUSE_S`. While the writer is in one I/O operation for more than `SLOW_IO_S`, at most
    `LENDS_INTO_SLOW_IO` more, since a writer that only waits for the GIL looks the same as a slow disk.
    """

    def __init__(self, monotonic: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self.io_since: float | None = None
        self.suspended: bool = False
        """True while the file cannot be written: then the batcher waits for the disk, not for the GIL."""
        self._lends_into_io = 0
        self._next = 0.0
        self.count: int = 0
        self.longest_s: float = 0.0
        self.total_s: float = 0.0

    def io_began(self) -> None:
        self._lends_into_io = 0
        self.io_since = self._monotonic()

    def io_ended(self) -> None:
        self.io_since = None

    def lend(self, seconds: float) -> None:
        """Sleep for `seconds` if the budget allows it."""
        if self.suspended:
            return
        now = self._monotonic()
        interval = seconds / LEND_SHARE
        if now < self._next - (LEND_BURST - 1) * interval:
            return
        io_since = self.io_since
        if io_since is not None and now - io_since > SLOW_IO_S:
            if self._lends_into_io >= LENDS_INTO_SLOW_IO:
                return
            self._lends_into_io += 1
        self._next = max(self._next, now) + interval
        self._sleep(seconds)
        took = self._monotonic() - now
        self.count += 1
        self.total_s += took
        self.longest_s = max(self.longest_s, took)
        if took > SLOW_LEND_S:
            self._next = now + took + SLOW_LEND_PAUSE_S + LEND_BURST * interval


class RecordQueue:
    """Bounded by records and by bytes. Any thread puts; one batcher takes. Putting takes no lock.

    A call (see `_logger`) does, in this order: `room_for` where `len(items) > mark`, `bytes_in +=`, `items.append`,
    `attend` where the time is past `attention_at`. Several threads at once may pass the bound by one record
    each. `closed`, `parked`, `lingering` and `sealed` are kept as values of `mark` and `attention_at` too, so that the
    call compares twice whatever the state.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_size: int,
        max_bytes: int,
        block: bool,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.ledger = ledger
        self.items: deque[Record] = deque()
        self.max_size: int = max_size or 2**62
        self.max_bytes: int = max_bytes or 2**62
        self.reserve: int = max(64, max_size // 16) if max_size else 0
        self.high_mark: int = min(max(SLICE, self.max_size // 4), self.max_size - 1)
        self.linger_mark: int = min(BATCH, self.max_size // 4)
        self.block = block
        self.wake = wake
        self.own_threads: set[int] = set()
        self.mark: int = 0
        self.attention_at: float = 0.0
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self.reset()

    def reset(self) -> None:
        """Empty, at zero and parked, as a new log's or a forked child's queue is."""
        self.items.clear()
        self.lending: _Lending = _Lending(self._monotonic, self._sleep)
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.bytes_mark: int = self.max_bytes
        self.closed: bool = False
        self.sealed: bool = False
        """True once the batcher takes nothing more, ever."""
        self.generation: int = 0
        self.loss_first: float | None = None
        self.loss_last: float = 0.0
        self.nudged: bool = False
        """The batcher was woken for what the log says of itself."""
        self.late_bodies: int = 0
        """Records with a `LateBody` put in so far."""
        self._reachable = False
        self.starving: bool = False
        """The thread that last woke the batcher never pauses, and the batcher was not seen to run by itself."""
        self._used: dict[int, tuple[float, float]] = {}
        self.park()

    # -- the call's side ---------------------------------------------------------------------------------------------

    def room_for(self, source: Source) -> bool:
        """Called above the mark: may this record go in? Counts the refusal if not."""
        waiting = len(self.items)
        if self.closed and (self.sealed or threading.get_ident() not in self.own_threads):  # these have last words
            return self.refuse(source, "closed")
        if waiting <= self.high_mark:
            self._wake_now()
            return True
        if waiting >= self.max_size and not self._reserved(source, waiting) and not self._wait_for_room():
            return self.refuse(source, self._why_full())
        self._lend(PRESSURE_LEND_S)
        return True

    def room_for_bytes(self, source: Source, size: int) -> bool:
        """Called when the bytes waiting, this record included, pass the bound; takes `size` back if refused."""
        if size > self.max_bytes:
            self.bytes_in -= size
            return self.refuse(source, "too_large")
        reserve = self.max_bytes // 16 if source.levelno >= ERROR or source.lifecycle else 0
        if self.bytes_in - self.bytes_out > self.max_bytes + reserve:
            self.bytes_in -= size  # it must not wait for itself
            if not self._wait_for_room():
                return self.refuse(source, "queue_bytes")
            self.bytes_in += size
        return True

    def refuse(self, source: Source, reason: str) -> bool:
        """Count a record that is turned away. Returns False, for the call to return."""
        self.ledger.refused[reason][source.level] += 1
        self.note_loss()
        if self.attention_at == 0.0 and not self.closed:  # parked: the batcher has a loss to declare
            self._wake_now()
        return False

    def note_loss(self) -> None:
        """Something was refused or lost now, and is to be declared."""
        self.loss_last = now = self._clock()
        if self.loss_first is None:
            self.loss_first = now

    def attend(self, record: Record, present: float) -> bool:
        """Called with a record put in at the time `present`, when the batcher is parked, late or gone: wake it, lend.

        Returns False if the record came too late to be written: the log was closed while the call was under way.
        """
        if self.sealed:
            return self._take_back(record)
        if self.attention_at == 0.0:
            self.attention_at = present + OVERDUE_S
            self._wake_now()
            self.starving = self._caller_is_busy() and not self._reachable
            if self.starving:
                self._lend(WAKING_LEND_S)
        else:
            self._lend(WAKING_LEND_S)
        return True

    def put_quietly(self, record: Record) -> bool:
        """Put in a record of the log's own that may wait for company; `nudge` has it written. Returns as `attend`.

        Asks no bound: what the log says of itself is little, and bounded by how often it says it.
        """
        self.bytes_in += record.size
        self.items.append(record)
        return self._take_back(record) if self.sealed else True

    def is_calm(self) -> bool:
        """Would a record of the log's own leave room for the program's? It may take the reserve of a small queue."""
        return len(self.items) <= max(self.max_size // 8, self.reserve)

    def nudge(self) -> None:
        """Have what waits written, without lingering for more afterwards."""
        if self.items and self.attention_at == 0.0:
            self.nudged = True
            self._wake_now()

    def _take_back(self, record: Record) -> bool:
        """Refuse a record that is on the queue already, unless the batcher took it after all.

        Whoever gets it off the queue has it: both do so in one step under the GIL, since records compare by identity.
        """
        try:
            self.items.remove(record)
        except ValueError:
            return True
        self.bytes_in -= record.size
        return self.refuse(record.source, "closed")

    def has_room(self) -> bool:
        """Is a quarter of each bound free? Less would be no room for several that wait for it."""
        waiting_bytes = self.bytes_in - self.bytes_out
        return not self.closed and 4 * len(self.items) <= 3 * self.max_size and 4 * waiting_bytes <= 3 * self.max_bytes

    def _reserved(self, source: Source, waiting: int) -> bool:
        return (source.levelno >= ERROR or source.lifecycle) and waiting < self.max_size + self.reserve

    def _wait_for_room(self) -> bool:
        """`when_full="block"`: wait on a thread that runs no loop, until there is room or the log is closed."""
        if not self.block or threading.get_ident() in self.own_threads or _runs_a_loop():
            self._lend(PRESSURE_LEND_S)
            return False
        while not self.closed:
            self._sleep(BLOCKED_POLL_S)
            if self.has_room():
                return True
        return False

    def _lend(self, seconds: float) -> None:
        if threading.get_ident() not in self.own_threads:
            self.lending.lend(seconds)

    def _why_full(self) -> str:
        return "closed" if self.closed else "queue_full"  # it may have been closed while this call waited

    def _wake_now(self) -> None:
        if not self.closed:
            self.mark = self.high_mark
        if self.attention_at == 0.0:
            self.attention_at = self._clock() + OVERDUE_S
        self.wake()

    def _caller_is_busy(self) -> bool:
        """Has this thread computed most of the time since it last woke the batcher? Then it may be starving it.

        Nothing is known of a thread seen for the first time. Asked only by waking calls, which are rare.
        """
        ident = threading.get_ident()
        cpu, wall = time.thread_time(), time.monotonic()
        last = self._used.get(ident)
        if last is None and len(self._used) >= THREADS_REMEMBERED:
            self._used.clear()
        self._used[ident] = (cpu, wall)
        busy = last is not None and cpu - last[0] > BUSY_SHARE * (wall - last[1])
        if not busy:
            self._reachable = False  # what was found out holds for one busy phase
        return busy

    def meet_thread(self) -> None:
        """Begin to observe whether the calling thread computes without pause."""
        self._used[threading.get_ident()] = (time.thread_time(), time.monotonic())

    # -- the batcher's side ------------------------------------------------------------------------------------------

    def park(self) -> None:
        """The batcher will sleep until the next record wakes it. It must look at the queue once more after this."""
        if self.sealed:
            return
        self.mark = -1 if self.closed else self.high_mark
        self.attention_at = 0.0

    def expect(self, within_s: float, *, lingering: bool = False) -> None:
        """The batcher means to be back within `within_s`; a call later than that lends."""
        if self.sealed:
            return
        if not self.closed:
            self.mark = self.linger_mark if lingering else self.high_mark
        self.attention_at = self._clock() + within_s + OVERDUE_S

    def found_reachable(self, late_s: float) -> None:
        """The batcher's timer fired `late_s` after it was due: can it get the GIL without a lend?"""
        self._reachable = late_s < SLOW_LEND_S
        self.starving = not self._reachable

    def take(self, limit: int) -> list[Record]:
        """Take up to `limit` records, oldest first, and count them as taken."""
        with self.moving():
            pop = self.items.popleft
            records = [pop() for _ in range(min(limit, len(self.items)))]
            self.ledger.taken.update([record.source.level for record in records])
        return records

    def release(self, size: int) -> None:
        """`size` bytes of what was put in are written or gone."""
        self.bytes_out += size
        self.bytes_mark = self.bytes_out + self.max_bytes

    def close(self) -> None:
        """From now on every call is refused with reason `closed`."""
        self.closed = True
        self.mark = -1

    def seal(self) -> list[Record]:
        """After `close`: take nothing more after what this returns, which calls under way have just put in."""
        self.sealed = True
        self.attention_at = _ALWAYS
        records: list[Record] = []
        with self.moving(), contextlib.suppress(IndexError):  # a call may take its own record back between two steps
            while True:
                records.append(self.items.popleft())
                self.ledger.taken[records[-1].source.level] += 1
        return records

    def waiting(self) -> Counter[str]:
        """Level to records in the queue."""
        return Counter([record.source.level for record in list(self.items)])

    def view(self) -> LedgerView:
        """The ledger with what waits, from any thread: no record is missing or counted twice."""
        while True:
            generation = self.generation
            if generation % 2 == 0:
                view = self.ledger.view(self.waiting())
                if generation == self.generation:
                    return view
            self._sleep(VIEW_RETRY_S)  # the batcher is moving records; let it

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Around every change that takes more than one step in the ledger; on the log's own thread only."""
        self.generation += 1
        try:
            yield
        finally:
            self.generation += 1


def _runs_a_loop() -> bool:
    """Does this thread run an asyncio or trio loop? Asks only modules that are loaded."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:  # the cheap form, which does not raise
        return True
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()
