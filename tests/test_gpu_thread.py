"""Looks at GPUs happen on one thread of their own, which holds up neither the log nor the process."""

import asyncio
import queue
import threading
from collections.abc import Callable

import nvml
import pytest
from support import poll, run_python

from amsha_async_log import events
from amsha_async_log.collectors import _gpu_thread
from amsha_async_log.collectors._base import GpuReading, GpuSource
from amsha_async_log.collectors._gpu_thread import MAKE_AGAIN_S, GpuThread

WAIT_S = 10.0


class Source:
    """A source whose looks the test lets through one by one, or answers with an exception."""

    def __init__(self, *answers: GpuReading | BaseException) -> None:
        self.answers = iter(answers)
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.threads: set[int] = set()
        self.times: list[float] = []
        self.closed = threading.Event()

    def read(self, now: float) -> GpuReading:
        self.threads.add(threading.get_ident())
        self.times.append(now)
        self.begun.release()
        assert self.gate.acquire(timeout=WAIT_S)
        answer = next(self.answers, None) or GpuReading()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        self.closed.set()


class Set:
    """A thread over a source, and what it delivers."""

    def __init__(self, make: Callable[[], GpuSource], clock: Callable[[], float] = lambda: 5.0) -> None:
        self.own_threads: set[int] = set()
        self.delivered: queue.SimpleQueue[GpuReading] = queue.SimpleQueue()
        self.thread = GpuThread(make, self.delivered.put, self.own_threads, clock=clock)

    def look(self, source: Source) -> GpuReading:
        assert self.thread.request()
        source.gate.release()
        return self.delivered.get(timeout=WAIT_S)

    def changes(self, source: Source) -> list[tuple[str | None, str | None]]:
        return [(change.state_from, change.state_to) for change in self.look(source).changes]


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def gpu(source: Source):
    made = Set(lambda: source)
    yield made
    made.thread.stop()
    source.gate.release()
    poll(lambda: not made.own_threads)


def test_no_thread_before_the_first_request(gpu: Set):
    before = threading.active_count()
    assert (gpu.own_threads, threading.active_count()) == (set(), before)


def test_request_delivers_what_the_source_read():
    source = Source(GpuReading(devices=[events.SampleGpu(gpu_index=0, gpu_percent=40.0)]))
    gpu = Set(lambda: source)
    assert gpu.look(source).devices[0].gpu_percent == 40.0
    gpu.thread.stop()


def test_all_looks_are_on_one_thread_that_is_not_the_callers(gpu: Set, source: Source):
    for _ in range(3):
        gpu.look(source)
    assert len(source.threads) == 1
    assert threading.get_ident() not in source.threads


def test_source_is_made_on_the_thread_and_once(source: Source):
    made: list[int] = []

    def make():
        made.append(threading.get_ident())
        return source

    gpu = Set(make)
    gpu.look(source)
    gpu.look(source)
    assert made == list(source.threads)
    gpu.thread.stop()


def test_thread_is_one_of_the_logs_own_until_it_ends(gpu: Set, source: Source):
    gpu.look(source)
    assert gpu.own_threads == source.threads
    gpu.thread.stop()
    poll(lambda: not gpu.own_threads)
    assert source.closed.is_set()


def test_request_is_refused_while_a_look_is_out(gpu: Set, source: Source):
    assert gpu.thread.request()
    assert source.begun.acquire(timeout=WAIT_S)
    assert not gpu.thread.request()
    source.gate.release()
    gpu.delivered.get(timeout=WAIT_S)
    assert len(source.times) == 1


def test_whoever_is_delivered_to_may_ask_again_at_once(source: Source):
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    thread = GpuThread(lambda: source, lambda _: answers.put(thread.request()), set())
    assert thread.request()
    source.gate.release()
    assert answers.get(timeout=WAIT_S)
    source.gate.release()
    assert answers.get(timeout=WAIT_S)
    thread.stop()
    source.gate.release()


def test_outstanding_since_tells_when_the_look_was_asked_for(source: Source):
    times = iter([100.0, 100.5])
    gpu = Set(lambda: source, clock=lambda: next(times))
    assert gpu.thread.outstanding_since is None
    gpu.thread.request()
    assert gpu.thread.outstanding_since == 100.0
    source.gate.release()
    gpu.delivered.get(timeout=WAIT_S)
    assert (gpu.thread.outstanding_since, source.times) == (None, [100.5])
    gpu.thread.stop()


@pytest.mark.parametrize("error", [ValueError("a defect"), SystemExit("an exit"), KeyboardInterrupt()])
def test_exception_of_the_source_is_a_state(error: BaseException):
    source = Source(error)
    gpu = Set(lambda: source)
    reading = gpu.look(source)
    assert (reading.state, reading.devices) == ("error", [])
    assert [change.detail for change in reading.changes] == [f"{type(error).__name__}: {error}"]
    gpu.thread.stop()


def test_defect_is_told_once_and_its_end_too():
    source = Source(GpuReading(), ValueError(), ValueError(), GpuReading(), ValueError())
    gpu = Set(lambda: source)
    assert [gpu.changes(source) for _ in range(5)] == [
        [],
        [("ok", "error")],
        [],
        [("error", "ok")],
        [("ok", "error")],
    ]
    gpu.thread.stop()


def test_exception_without_text_to_be_had_is_named():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("asked of the driver")

    source = Source(Mute())
    gpu = Set(lambda: source)
    assert gpu.look(source).changes[0].detail == "Mute"
    gpu.thread.stop()


def test_source_that_cannot_be_made_is_made_again_after_a_while(source: Source):
    now = [0.0]
    made: list[float] = []

    def make():
        made.append(now[0])
        if len(made) == 1:
            raise ImportError("no descriptors left")
        return source

    gpu = Set(make, clock=lambda: now[0])
    states = []
    for now[0] in (0.0, 1.0, MAKE_AGAIN_S, MAKE_AGAIN_S + 1):
        reading = gpu.look(source)
        states.append((reading.state, [change.detail for change in reading.changes]))
    assert states == [("error", ["ImportError: no descriptors left"]), ("error", []), ("ok", [None]), ("ok", [])]
    assert made == [0.0, MAKE_AGAIN_S]
    gpu.thread.stop()


def test_nothing_is_delivered_after_stop(gpu: Set, source: Source):
    gpu.thread.request()
    assert source.begun.acquire(timeout=WAIT_S)
    gpu.thread.stop()
    source.gate.release()
    poll(lambda: not gpu.own_threads)
    assert gpu.delivered.empty()
    assert source.closed.is_set()


def test_stop_does_not_wait_for_a_call_that_hangs(gpu: Set, source: Source):
    gpu.thread.request()
    assert source.begun.acquire(timeout=WAIT_S)
    gpu.thread.stop()
    assert gpu.own_threads, "the look is still out"
    assert gpu.thread.outstanding_since == 5.0
    assert not source.closed.is_set()


def test_request_after_stop_is_refused(gpu: Set, source: Source):
    gpu.look(source)
    gpu.thread.stop()
    assert not gpu.thread.request()
    poll(lambda: not gpu.own_threads)
    assert len(source.times) == 1


def test_stop_without_a_request_starts_nothing(gpu: Set, source: Source):
    gpu.thread.stop()
    gpu.thread.stop()
    assert not gpu.thread.request()
    assert (gpu.own_threads, source.threads) == (set(), set())


def test_closed_loop_is_tolerated(source: Source):
    loop = asyncio.new_event_loop()
    loop.close()
    tried = threading.Semaphore(0)

    def deliver(reading: GpuReading) -> None:
        tried.release()
        loop.call_soon_threadsafe(print, reading)

    own_threads: set[int] = set()
    thread = GpuThread(lambda: source, deliver, own_threads)
    for _ in range(2):
        assert thread.request()
        source.gate.release()
        assert tried.acquire(timeout=WAIT_S)
        poll(lambda: thread.outstanding_since is None)
    thread.stop()
    poll(lambda: not own_threads)
    assert source.closed.is_set()


def test_source_that_cannot_be_closed_lets_the_thread_end(source: Source):
    def fail() -> None:
        raise ValueError("a defect")

    source.close = fail
    gpu = Set(lambda: source)
    gpu.look(source)
    gpu.thread.stop()
    assert poll(lambda: not gpu.own_threads)


def test_system_without_threads_is_a_state_until_there_are_some(
    gpu: Set, source: Source, monkeypatch: pytest.MonkeyPatch
):
    def refuse(target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_gpu_thread, "start_daemon", refuse)
        assert gpu.thread.request()
    reading = gpu.delivered.get_nowait()
    assert (reading.state, reading.changes[0].detail) == ("error", "RuntimeError: can't start new thread")
    assert gpu.changes(source) == [("error", "ok")]
    assert len(source.times) == 1


HANGING = """
import asyncio, sys
import pynvml
from amsha_async_log.collectors._base import GpuReading
from amsha_async_log.collectors._gpu_thread import GpuThread

class Source:
    def read(self, now):
        print("looking", flush=True)
        pynvml.nvmlInit()
        print("answered", flush=True)
    def close(self):
        print("closed", flush=True)

async def main():
    thread = GpuThread(Source, print, set())
    thread.request()
    await asyncio.sleep(0)
    while pynvml.nvmlLib is None:
        await asyncio.sleep(0.001)
    if sys.argv[1] == "stop":
        thread.stop()
    assert not thread.request()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_driver_that_never_answers_does_not_keep_the_process(how: str):
    done = nvml.run(HANGING, how, rules="nvmlInitWithFlags:hang=1")
    assert (done.stdout, done.stderr, done.returncode) == ("looking\n", "", 0)


def test_importing_it_loads_no_driver_and_no_loop():
    loaded = run_python(
        "import sys, amsha_async_log.collectors._gpu_thread; print({'pynvml', 'asyncio'} & {*sys.modules})"
    )
    assert loaded.stdout == "set()\n"
