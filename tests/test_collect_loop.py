"""The lag of event loops, seen from outside: loops that work, wait, hang, stop, and run elsewhere."""

import asyncio
import gc
import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from support import poll

from amsha_async_log.collectors._gc import GcPauses
from amsha_async_log.collectors.loop import LoopProbe, count_tasks, describe_frames

MS = 1_000_000


class Elsewhere:
    """A loop that runs on a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lags: list[int] = []
        self.probe = LoopProbe(loop, "loop", period_ns=10 * MS, stall_ns=50 * MS, on_lag=self.lags.append)
        self._thread = threading.Thread(target=loop.run_forever)

    def start(self) -> None:
        self._thread.start()
        poll(self.loop.is_running)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def hold(self) -> threading.Event:
        """Keep the loop from running until the event is set."""
        free, held = threading.Event(), threading.Event()

        def block_the_loop() -> None:
            held.set()
            free.wait(30)

        self.loop.call_soon_threadsafe(block_the_loop)
        held.wait(30)
        return free


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    loop = request.param()
    found = Elsewhere(loop)
    found.start()
    yield found
    if loop.is_running():
        found.stop()
    loop.close()


def asked(elsewhere: Elsewhere, enough: Callable[[], bool]) -> None:
    """Ping until it is enough."""

    def again() -> bool:
        elsewhere.probe.ping()
        return enough()

    poll(again)


def test_loop_answers_and_its_lag_is_told(elsewhere: Elsewhere) -> None:
    asked(elsewhere, lambda: len(elsewhere.lags) >= 3)
    sample = elsewhere.probe.sample()
    assert sample.lag_samples is not None
    assert sample.lag_samples >= 3
    assert sample.lag_max_seconds is not None
    assert sample.lag_p99_seconds is not None
    assert 0 <= sample.lag_p99_seconds <= sample.lag_max_seconds


def test_asyncio_loop_that_waits_for_work_is_not_woken() -> None:
    elsewhere = Elsewhere(asyncio.new_event_loop())
    elsewhere.start()
    try:
        asked(elsewhere, lambda: len(elsewhere.lags) >= 1)  # now its thread is known
        poll(elsewhere.probe.ping)
        calls = 0
        call = elsewhere.loop.call_soon_threadsafe

        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            return call(*args, **kwargs)

        elsewhere.loop.call_soon_threadsafe = counted
        assert all(elsewhere.probe.ping() for _ in range(10))
        assert calls == 0
        assert elsewhere.lags[-10:] == [0] * 10
    finally:
        del elsewhere.loop.call_soon_threadsafe
        elsewhere.stop()
        elsewhere.loop.close()


def test_loop_that_is_held_up_by_a_select_of_the_programs_own_does_not_count_as_waiting() -> None:
    elsewhere = Elsewhere(asyncio.new_event_loop())
    elsewhere.start()
    reading, writing = os.pipe()
    try:
        asked(elsewhere, lambda: len(elsewhere.lags) >= 1)
        elsewhere.probe.sample()

        def wait_for_a_pipe() -> None:
            with selectors.DefaultSelector() as selector:
                selector.register(reading, selectors.EVENT_READ)
                selector.select(30)

        elsewhere.loop.call_soon_threadsafe(wait_for_a_pipe)
        stalled = poll(lambda: (elsewhere.probe.ping(), elsewhere.probe.stalled())[1])
        assert "wait_for_a_pipe" in stalled.blocked_at
    finally:
        os.write(writing, b"x")
        elsewhere.stop()
        elsewhere.loop.close()
        os.close(reading)
        os.close(writing)


def test_loop_that_hangs_is_named_once_with_its_frame(elsewhere: Elsewhere) -> None:
    asked(elsewhere, lambda: len(elsewhere.lags) >= 1)
    free = elsewhere.hold()

    def found() -> object:
        elsewhere.probe.ping()
        return elsewhere.probe.stalled()

    stalled = poll(found)
    assert "block_the_loop" in stalled.blocked_at
    assert stalled.stalled_seconds >= 0.05
    assert any(frame.get("function", "").endswith("block_the_loop") for frame in stalled.frames)
    assert elsewhere.probe.stalled() is None
    free.set()
    asked(elsewhere, lambda: max(elsewhere.lags) >= 50 * MS)
    sample = elsewhere.probe.sample()
    assert sample.stalls == 1
    assert sample.lag_max_seconds >= 0.05


def test_wait_that_is_not_over_counts_with_what_it_has_waited(elsewhere: Elsewhere) -> None:
    asked(elsewhere, lambda: len(elsewhere.lags) >= 1)
    elsewhere.probe.sample()
    free = elsewhere.hold()
    elsewhere.probe.ping()
    poll(lambda: (elsewhere.probe.sample().lag_max_seconds or 0) >= 0.03)
    free.set()


def test_second_stall_is_told_again(elsewhere: Elsewhere) -> None:
    asked(elsewhere, lambda: len(elsewhere.lags) >= 1)
    for _ in range(2):
        free = elsewhere.hold()
        poll(lambda: (elsewhere.probe.ping(), elsewhere.probe.stalled())[1])
        free.set()
        count = len(elsewhere.lags)
        asked(elsewhere, lambda count=count: len(elsewhere.lags) > count)
    assert elsewhere.probe.sample().stalls == 2


def test_loop_that_does_not_run_neither_lags_nor_hangs() -> None:
    elsewhere = Elsewhere(asyncio.new_event_loop())
    elsewhere.start()
    asked(elsewhere, lambda: len(elsewhere.lags) >= 1)
    elsewhere.probe.sample()
    elsewhere.stop()
    assert elsewhere.probe.ping()
    assert elsewhere.probe.stalled() is None
    sample = elsewhere.probe.sample()
    assert sample.lag_samples == 0
    assert (sample.unknown or {})["lag_max_seconds"] == "not_running"
    elsewhere.loop.close()
    assert elsewhere.probe.ping()
    assert elsewhere.probe.closed


def test_busy_share_is_that_of_the_loops_thread(elsewhere: Elsewhere) -> None:
    asked(elsewhere, lambda: len(elsewhere.lags) >= 1)
    elsewhere.probe.sample()
    worked = threading.Event()

    def compute() -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        worked.set()

    began = time.monotonic()
    elsewhere.loop.call_soon_threadsafe(compute)
    worked.wait(30)
    sample = elsewhere.probe.sample()
    wall = time.monotonic() - began
    assert sample.busy_percent is not None
    assert sample.busy_percent >= 100 * 0.1 / (wall + 0.05) * 0.9


def test_tasks_are_counted_without_being_copied() -> None:
    async def main() -> tuple[int | None, int | None]:
        before = count_tasks()
        tasks = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(50)]
        after = count_tasks()
        await asyncio.gather(*tasks)
        return before, after

    before, after = asyncio.run(main())
    if before is None or after is None:
        pytest.skip("this Python does not keep its tasks in a set")
    assert after - before == 50


@given(st.integers(1, 300))
def test_deep_stacks_are_told_from_both_ends(depth: int) -> None:
    import sys

    def deeper(left: int) -> list[dict[str, object]]:
        return describe_frames(sys._getframe()) if left == 0 else deeper(left - 1)

    frames = deeper(depth)
    assert len(frames) <= 65
    assert frames[-1]["function"].endswith("deeper")


def test_pauses_of_collections_are_measured_until_closed() -> None:
    pauses = GcPauses()
    try:
        pauses.take()
        gc.collect()
        number, longest, total = pauses.take()
        assert number >= 1
        assert 0 < longest <= total
        assert pauses.take() == (0, 0, 0)
    finally:
        pauses.close()
    gc.collect()
    assert pauses.take() == (0, 0, 0)
    pauses.close()
