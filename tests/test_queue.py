"""The bounded queue: refusals, the reserve, waking, lending, and the ledger around it."""

import asyncio
import sys
import threading
import time
from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amsha_async_log import _queue
from amsha_async_log._encoder import make_source
from amsha_async_log._queue import Record, RecordQueue, Source
from amsha_async_log._stats import Ledger

INFO = make_source("log", "INFO", "t")
ERROR = make_source("log", "ERROR", "t")
LIFECYCLE = make_source("execution.started", "INFO", "t", lifecycle=True)


class Clock:
    """Time that moves when told to, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.extra = 0.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds + self.extra


class Rig:
    """A queue, and `put`, which does what a call does."""

    def __init__(self, *, max_size: int = 1000, max_bytes: int = 10**9, block: bool = False) -> None:
        self.clock = Clock()
        self.wakes = 0
        self.ledger = Ledger()
        self.queue = RecordQueue(
            self.ledger,
            max_size=max_size,
            max_bytes=max_bytes,
            block=block,
            wake=self._wake,
            clock=self.clock,
            monotonic=self.clock,
            sleep=self.clock.sleep,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def put(self, source: Source = INFO, size: int = 10, *, looked: bool = False) -> bool:
        """`looked`: the call had found room before."""
        queue = self.queue
        if not looked and len(queue.items) > queue.mark and not queue.room_for(source):
            return False
        queue.bytes_in += size
        if queue.bytes_in > queue.bytes_mark and not queue.room_for_bytes(source, size):
            return False
        record = Record(self.clock.now, source, b",", "m", b"{}", size)
        queue.items.append(record)
        return queue.attend(record, self.clock.now) if self.clock.now > queue.attention_at else True

    def drain(self) -> int:
        taken = 0
        while records := self.queue.take(100):
            self.queue.release(sum(r.size for r in records))
            self.ledger.written.update(r.source.level for r in records)
            taken += len(records)
        return taken


def stay_busy(rig: "Rig") -> None:
    """Compute until this thread has had a CPU most of the time since the queue last asked, or for a second."""
    cpu, wall = rig.queue._used[threading.get_ident()]
    while (used := time.thread_time() - cpu) < 1.0 and (used < 0.05 or used < 0.6 * (time.monotonic() - wall)):
        pass


def busy_rig() -> Rig:
    """A rig whose thread computes without pause since it was met."""
    rig = Rig()
    rig.queue.meet_thread()
    stay_busy(rig)
    return rig


def test_the_first_record_of_a_parked_queue_wakes_the_batcher() -> None:
    rig = Rig()
    rig.put()
    assert rig.wakes == 1


def test_further_records_do_not_wake_again() -> None:
    rig = Rig()
    for _ in range(50):
        rig.put()
    assert rig.wakes == 1


def test_a_lingering_batcher_is_woken_once_the_linger_mark_is_passed() -> None:
    rig = Rig(max_size=100_000)
    rig.queue.expect(0.1, lingering=True)
    for _ in range(rig.queue.linger_mark + 1):
        rig.put()
    assert rig.wakes == 0
    rig.put()
    assert rig.wakes == 1


def test_a_full_queue_refuses_and_counts_by_reason_and_level() -> None:
    rig = Rig(max_size=100)
    accepted = sum(rig.put() for _ in range(150))
    assert accepted == 100
    assert rig.queue.view().by_reason() == {"queue_full": {"INFO": 50}}


def test_errors_go_into_the_reserve_of_a_full_queue() -> None:
    rig = Rig(max_size=100)
    for _ in range(100):
        rig.put()
    assert rig.put(INFO) is False
    assert rig.put(ERROR) is True


def test_lifecycle_events_go_into_the_reserve_of_a_full_queue() -> None:
    rig = Rig(max_size=100)
    for _ in range(100):
        rig.put()
    assert rig.put(LIFECYCLE) is True


def test_the_reserve_ends_too() -> None:
    rig = Rig(max_size=100)
    accepted = sum(rig.put(ERROR) for _ in range(1000))
    assert accepted == 100 + rig.queue.reserve


def test_the_byte_bound_refuses_and_gives_the_bytes_back() -> None:
    rig = Rig(max_bytes=100)
    accepted = sum(rig.put(size=30) for _ in range(10))
    assert accepted == 3
    assert rig.queue.bytes_in - rig.queue.bytes_out == 90
    assert rig.queue.view().by_reason() == {"queue_bytes": {"INFO": 7}}


def test_a_record_larger_than_the_byte_bound_is_too_large() -> None:
    rig = Rig(max_bytes=100)
    assert rig.put(size=101) is False
    assert rig.queue.view().by_reason() == {"too_large": {"INFO": 1}}


def test_there_is_room_for_bytes_again_once_some_are_released() -> None:
    rig = Rig(max_bytes=100)
    for _ in range(3):
        rig.put(size=30)
    rig.drain()
    assert rig.put(size=90) is True


def test_zero_bounds_are_no_bounds() -> None:
    rig = Rig(max_size=0, max_bytes=0)
    assert all(rig.put(size=10**9) for _ in range(100_000))


def test_a_closed_queue_refuses() -> None:
    rig = Rig()
    rig.queue.close()
    assert rig.put() is False
    assert rig.queue.view().by_reason() == {"closed": {"INFO": 1}}


def test_parking_does_not_reopen_a_closed_queue() -> None:
    rig = Rig()
    rig.queue.close()
    rig.queue.park()
    rig.queue.expect(0.0)
    assert rig.put() is False


def test_a_refusal_wakes_a_parked_batcher_to_declare_it() -> None:
    rig = Rig()
    rig.queue.refuse(INFO, "unencodable")
    assert rig.wakes == 1


def test_a_call_lends_when_the_batcher_is_overdue() -> None:
    rig = Rig()
    rig.queue.expect(0.0)
    rig.clock.now += 2 * _queue.OVERDUE_S
    rig.put()
    assert rig.queue.lending.count == 1


def test_a_call_does_not_lend_while_the_batcher_is_on_time() -> None:
    rig = Rig()
    rig.queue.expect(0.0)
    for _ in range(100):
        rig.put()
    assert rig.queue.lending.count == 0


def test_a_call_lends_above_the_high_mark() -> None:
    rig = Rig(max_size=4000)
    rig.queue.expect(0.0)
    for _ in range(rig.queue.high_mark + 2):
        rig.put()
    assert rig.queue.lending.count == 1


def test_the_thread_that_computes_all_the_time_lends_when_it_wakes_the_batcher() -> None:
    rig = busy_rig()
    rig.put()
    assert rig.queue.lending.count == 1
    assert rig.queue.starving is True


def test_a_thread_seen_for_the_first_time_does_not_lend() -> None:
    rig = Rig()
    rig.put()
    assert rig.queue.lending.count == 0


def test_no_waking_lend_once_the_batcher_was_seen_to_run_by_itself() -> None:
    rig = busy_rig()
    rig.put()
    rig.drain()
    rig.queue.found_reachable(0.001)
    rig.queue.park()
    stay_busy(rig)
    rig.put()
    assert rig.queue.lending.count == 1


def test_a_late_timer_means_starving() -> None:
    rig = Rig()
    rig.queue.found_reachable(0.5)
    assert rig.queue.starving is True


def test_lends_take_at_most_a_tenth_of_the_time_asked_for() -> None:
    rig = Rig()
    lending = rig.queue.lending
    began = rig.clock.now
    for _ in range(100_000):
        lending.lend(0.001)
        rig.clock.now += 0.0001
    burst = _queue.LEND_BURST * 0.001
    assert sum(rig.clock.sleeps) <= _queue.LEND_SHARE * (rig.clock.now - began) + burst


def test_after_a_long_lend_none_for_a_second() -> None:
    rig = Rig()
    rig.clock.extra = 0.1
    rig.queue.lending.lend(0.001)
    ended = rig.clock.now
    while rig.queue.lending.count == 1:
        rig.clock.now += 0.01
        rig.queue.lending.lend(0.001)
    assert rig.clock.sleeps[0] == 0.001
    assert rig.clock.now - ended >= _queue.SLOW_LEND_PAUSE_S


def test_a_slow_disk_is_lent_to_a_few_times_only() -> None:
    rig = Rig()
    rig.queue.lending.io_began()
    rig.clock.now += 2 * _queue.SLOW_IO_S
    for _ in range(100):
        rig.queue.lending.lend(0.001)
        rig.clock.now += 1.0
    assert rig.queue.lending.count == _queue.LENDS_INTO_SLOW_IO


def test_no_lend_while_the_file_cannot_be_written() -> None:
    rig = Rig()
    rig.queue.lending.suspended = True
    rig.queue.lending.lend(0.001)
    assert rig.clock.sleeps == []


def test_the_logs_own_threads_never_lend() -> None:
    rig = Rig(max_size=4000)
    rig.queue.own_threads.add(threading.get_ident())
    for _ in range(4000):
        rig.put()
    assert rig.clock.sleeps == []


def test_a_blocking_queue_waits_for_room() -> None:
    rig = Rig(max_size=100, block=True)
    for _ in range(100):
        rig.put()
    naps = 0

    def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 3:
            rig.drain()

    rig.queue._sleep = nap
    assert rig.put() is True
    assert naps == 3


def test_a_blocking_queue_gives_up_when_the_log_is_closed() -> None:
    rig = Rig(max_size=100, block=True)
    for _ in range(100):
        rig.put()
    rig.queue._sleep = lambda _: rig.queue.close()
    assert rig.put() is False
    assert rig.queue.view().by_reason() == {"closed": {"INFO": 1}}


def test_a_blocking_queue_never_waits_on_the_logs_own_threads() -> None:
    rig = Rig(max_size=100, block=True)
    rig.queue.own_threads.add(threading.get_ident())
    assert sum(rig.put() for _ in range(150)) == 100


async def _fill(rig: Rig) -> int:
    return sum(rig.put() for _ in range(150))


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_a_blocking_queue_never_waits_on_an_event_loop(library: str) -> None:
    rig = Rig(max_size=100, block=True)
    if library == "asyncio":
        assert asyncio.run(_fill(rig)) == 100
    else:
        trio = pytest.importorskip("trio", reason="trio is a test dependency only")
        assert trio.run(_fill, rig) == 100


def test_take_keeps_the_order() -> None:
    rig = Rig()
    for size in range(10):
        rig.put(size=size)
    assert [r.size for r in rig.queue.take(4) + rig.queue.take(100)] == list(range(10))


def test_a_reset_queue_is_empty_and_at_zero() -> None:
    rig = Rig(max_size=100)
    for _ in range(150):
        rig.put()
    rig.ledger.reset()
    rig.queue.reset()
    totals = rig.queue.view().totals()
    assert (totals.offered, totals.accepted, totals.refused, totals.queued) == (0, 0, 0, 0)
    assert rig.put() is True


def test_items_stay_the_same_object_over_a_reset() -> None:
    rig = Rig()
    items = rig.queue.items
    rig.queue.reset()
    assert rig.queue.items is items
    assert isinstance(items, deque)


def test_refusals_of_many_threads_are_all_counted() -> None:
    rig = Rig()
    rig.queue.close()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [rig.put() for _ in range(20_000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert rig.queue.view().totals().refused == 160_000


def test_a_record_that_comes_after_the_seal_is_refused_by_its_own_call() -> None:
    rig = Rig()
    rig.queue.close()
    assert rig.put(looked=True) is True
    assert len(rig.queue.seal()) == 1
    assert rig.put(looked=True) is False
    assert rig.queue.view().by_reason() == {"closed": {"INFO": 1}}
    assert not rig.queue.items


def test_calls_of_many_threads_during_the_seal_are_taken_or_refused() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            rig = Rig(max_size=10**6)
            outcomes: list[bool] = []
            threads = [
                threading.Thread(target=lambda r=rig: outcomes.extend([r.put(looked=True) for _ in range(500)]))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            while len(rig.queue.items) < 500:
                time.sleep(0)
            rig.queue.close()
            taken = len(rig.queue.seal())
            for thread in threads:
                thread.join()
            totals = rig.queue.view().totals()
            assert (sum(outcomes), len(outcomes) - sum(outcomes)) == (taken, totals.refused)
            assert (totals.offered, totals.accepted, len(rig.queue.items)) == (2000, taken, 0)
    finally:
        sys.setswitchinterval(interval)


class LedgerMachine(RuleBasedStateMachine):
    """Any order of puts, takes, losses and closing keeps the ledger's two identities, by level and in total."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(max_size=64, max_bytes=2000)
        self.offered: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.in_hand: list[Record] = []

    @rule(source=st.sampled_from([INFO, ERROR, LIFECYCLE]), size=st.integers(0, 300), times=st.integers(1, 40))
    def put(self, source: Source, size: int, times: int) -> None:
        for _ in range(times):
            self.offered[source.level] += 1
            self.accepted[source.level] += self.rig.put(source, size)

    @rule(size=st.integers(2001, 5000))
    def put_too_large(self, size: int) -> None:
        self.offered["INFO"] += 1
        assert self.rig.put(INFO, size) is False

    @rule(limit=st.integers(1, 50))
    @precondition(lambda self: not self.in_hand)
    def take(self, limit: int) -> None:
        self.in_hand = self.rig.queue.take(limit)

    @rule(outcome=st.sampled_from(["written", "dropped", "failed"]))
    @precondition(lambda self: bool(self.in_hand))
    def settle(self, outcome: str) -> None:
        levels = [record.source.level for record in self.in_hand]
        if outcome == "written":
            self.rig.ledger.written.update(levels)
        elif outcome == "dropped":
            self.rig.ledger.drop("shutdown", levels)
        else:
            self.rig.ledger.fail("sink_failed", levels)
        self.rig.queue.release(sum(record.size for record in self.in_hand))
        self.in_hand = []

    @rule(reason=st.sampled_from(["unencodable", "too_large"]))
    def refuse(self, reason: str) -> None:
        self.offered["INFO"] += 1
        self.rig.queue.refuse(INFO, reason)

    @rule(seconds=st.floats(0, 2))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.now += seconds

    @rule(lingering=st.booleans())
    def expect(self, lingering: bool) -> None:
        self.rig.queue.expect(0.1, lingering=lingering)

    @rule()
    def park(self) -> None:
        self.rig.queue.park()

    @rule()
    def close(self) -> None:
        self.rig.queue.close()

    @rule()
    @precondition(lambda self: self.rig.queue.closed and not self.in_hand)
    def seal(self) -> None:
        self.in_hand = self.rig.queue.seal()

    @rule(source=st.sampled_from([INFO, ERROR]), size=st.integers(0, 30))
    @precondition(lambda self: self.rig.queue.closed)
    def put_by_a_call_that_began_before_the_close(self, source: Source, size: int) -> None:
        self.offered[source.level] += 1
        self.accepted[source.level] += self.rig.put(source, size, looked=True)

    @invariant()
    def totals_hold(self) -> None:
        totals = self.rig.queue.view().totals()
        assert totals.offered == self.offered.total() == totals.accepted + totals.refused
        assert totals.accepted == self.accepted.total()
        assert totals.accepted == totals.written + totals.dropped + totals.failed + totals.queued
        assert totals.queued == len(self.rig.queue.items) + len(self.in_hand)

    @invariant()
    def levels_hold(self) -> None:
        for level, counts in self.rig.queue.view().by_level().items():
            assert counts["accepted"] + counts["refused"] == self.offered[level]
            gone = counts["written"] + counts["dropped"] + counts["failed"]
            assert counts["accepted"] == gone + counts["queued"]

    @invariant()
    def bytes_hold(self) -> None:
        queue = self.rig.queue
        waiting = sum(record.size for record in [*queue.items, *self.in_hand])
        assert queue.bytes_in - queue.bytes_out == waiting

    @invariant()
    def bounds_hold(self) -> None:
        queue = self.rig.queue
        assert queue.closed or len(queue.items) <= 64 + queue.reserve

    @invariant()
    def nothing_waits_on_a_sealed_queue(self) -> None:
        assert not (self.rig.queue.sealed and self.rig.queue.items)


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_ledger_machine = LedgerMachine.TestCase


def test_quiet_record_wakes_nobody_until_it_is_nudged() -> None:
    rig = Rig()
    assert rig.queue.put_quietly(Record(rig.clock.now, INFO, b",", "m", b"{}", 10))
    assert rig.wakes == 0
    rig.queue.nudge()
    assert rig.wakes == 1


def test_nudge_of_an_empty_queue_wakes_nobody() -> None:
    rig = Rig()
    rig.queue.nudge()
    assert rig.wakes == 0


def test_quiet_record_that_comes_after_the_end_is_counted_as_refused() -> None:
    rig = Rig()
    rig.queue.close()
    rig.queue.seal()
    assert not rig.queue.put_quietly(Record(rig.clock.now, INFO, b",", "m", b"{}", 10))
    assert rig.queue.ledger.refused["closed"]["INFO"] == 1


def test_record_that_takes_most_of_the_bytes_waits_for_the_others_and_not_for_itself() -> None:
    rig = Rig(max_bytes=600, block=True)
    drained: list[int] = []

    def sleep(_seconds: float) -> None:
        assert len(drained) < 10, "it waits for itself"
        drained.append(rig.drain())

    rig.queue._sleep = sleep
    assert rig.put(size=512)
    assert rig.put(size=512)
    assert drained == [1]
