"""The sampler: one coroutine on the log's own loop that reads the machine and says what executions cost it.

Data flows one way: edges (`_watch`) and readings (`collectors`) go into `_resources`, events come out and are pushed
like any record. Whatever a source does costs its own values only: they are absent, with the reason.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from itertools import chain, islice
from typing import Any, Final

from msgspec import Struct

from . import events
from ._attribution import Account
from ._deadlines import Deadlines
from ._gpus import GpuLooks
from ._loops import WatchedLoops
from ._resources import ProcessReading, Resources
from ._watch import ExecutionWatch
from .collectors._base import Collector, GpuReading
from .collectors._gc import GcPauses
from .collectors.process import ProcessCollector

__all__ = ["FORCED_S", "Gauges", "MetricsSampler", "Push"]

FORCED_S: Final = 0.1
"""Starts and ends of executions within this time share one sample."""
SLOW_S: Final = 5.0
"""How often what changes slowly, or costs more to read, is read again."""
TOGETHER_S: Final = 1.0
"""How long samples wait for others, so that one batch is written for all: a batch costs 0.5 to 1 ms, caches cold."""
_MACHINE_NS: Final = 900_000_000
"""The host and the container are read once a second at most (a tenth less, for ticks that come late): the kernel counts
their CPU time in hundredths of a second, and reading them takes twice as long as reading the process."""
_CONTENDED_NS: Final = 3_000_000
"""A sample of all sources takes a tenth of this, unless other threads keep the GIL."""
_GPU_PATIENCE_NS: Final = 500_000_000
"""How often it is looked whether what waits for a GPU has waited long enough."""
_SLICES_MOST: Final = 100
"""Slices of starts and ends that one sample takes: more than may be waiting."""
_TOLD_AT_ONCE: Final = 256
_ROOM_NS: Final = 5_000_000
"""How often it is looked whether the queue has room again."""
_LAST_WORDS_S: Final = 1.0
_LONGEST_SLEEP_NS: Final = 3_600_000_000_000

Push = Callable[..., bool]
Gauges = Callable[[], tuple[int, int]]
"""Records waiting in the queue, and records refused or lost so far."""


class MetricsSampler:
    """Samples until `finish`. Everything but `add_loop` and `wake` belongs to the log's own loop.

    Samples are taken at `start + n * interval`, the first at once, and within 100 ms of the start and the end of each
    execution. Ticks that could not be taken in time are counted (`missed`), not made up for. Where samples cost more
    than a hundredth of the interval they come less often: half as often, a quarter, down to a 64th.
    """

    def __init__(
        self,
        push: Push,
        nudge: Callable[[], None],
        is_calm: Callable[[], bool],
        watch: ExecutionWatch,
        *,
        interval_s: float,
        collectors: Iterable[Collector],
        gpus: GpuLooks | None,
        gpu_unknown: str | None,
        loop_stall_s: float,
        gauges: Gauges,
        by_task: bool,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`push(event, scope, level)` takes what is to be written; `nudge()` has it written; `is_calm()`: has it room?

        `gpu_unknown`: why there are no `gpus`.
        """
        self._push = push
        self._nudge = nudge
        self._is_calm = is_calm
        self._nudged_ns = 0
        self._watch = watch
        self._clock = clock
        now = clock()
        self._ticks = Deadlines(now, interval_s)
        self._process = ProcessCollector()
        self._collectors: list[Collector] = [self._process, *collectors]
        self._gpus = gpus
        self._resources = Resources(
            ProcessReading(watch.began_ns, watch.began_cpu_ns), by_task=by_task, gpu_unknown=gpu_unknown
        )
        self._loops = WatchedLoops(now, interval_s=interval_s, stall_s=loop_stall_s, on_lag=self._on_lag, clock=clock)
        self.ready: Future[None] = Future()
        """Set once every source was looked at for the first time: what starts from now on is measured in full."""
        self._gauges = gauges
        self._gc = GcPauses()
        self._states: dict[str, str] = {}
        self._read_ns: dict[str, int] = {}
        self._slow_due = self._machine_due = now
        self._forced_due = now
        self._missed = 0
        self._samples = 0
        self._cpu_ns = 0
        self._finished = False
        self._wake = asyncio.Event()

    # -- from any thread ---------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """In a forked child: the parent goes on sampling, and what is open here still speaks of the parent."""
        self._gc.close()
        for collector in self._collectors:
            collector.close()

    # -- on the log's own loop ---------------------------------------------------------------------------------------

    def add_loop(self, loop: asyncio.AbstractEventLoop, thread: tuple[int, int] | None) -> None:
        """As `WatchedLoops.add`."""
        self._loops.add(loop, thread)
        self._resources.loops = True
        self._wake.set()

    def wake(self) -> None:
        """An execution has started or ended."""
        self._wake.set()

    async def run(self) -> None:
        """Sample for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._step()
            due = min(self._next_due(), self._clock() + _LONGEST_SLEEP_NS)
            timer = loop.call_later(max(due - self._clock(), 0) / 1e9, self._wake.set)
            await self._wake.wait()
            self._wake.clear()
            timer.cancel()

    async def finish(self, deadline_s: float) -> None:
        """The last samples and accounts. Waits 50 ms at most for the GPUs, and for the queue to have room.

        Takes a quarter of the time until `deadline_s` (monotonic) at most, and a second: what executions used that are
        not told of by then is unattributed.
        """
        now = self._clock() / 1e9
        try:
            await self._say_last_words(now + min(max((deadline_s - now) / 4, 0.0), _LAST_WORDS_S))
        finally:
            self._finished = True
            self.close()

    async def _say_last_words(self, deadline_s: float) -> None:
        wanted = self._watch.pending or self._resources.waiting > 0 or self._resources.running > 0
        while self._watch.pending and self._clock() / 1e9 < deadline_s:
            await self._take_edges()
            if not self._is_calm():
                self._nudge()
                await asyncio.sleep(_ROOM_NS / 1e9)
        await self._tick(self._clock(), "close")
        if self._gpus is not None and wanted:
            await self._gpus.last_look(self._clock())
        now = self._clock()
        unmeasured = time.process_time_ns() - self._watch.measured.total_ns
        accounts = chain(self._resources.finished(now, at_once=True), self._resources.unfinished(now, unmeasured))
        for account, said in accounts:
            self._tell(account, said)
            while not self._is_calm() and self._clock() / 1e9 < deadline_s:
                self._nudge()
                await asyncio.sleep(_ROOM_NS / 1e9)
            if self._clock() / 1e9 >= deadline_s:
                break
        self._push(
            events.MetricsAttribution(
                counters=self._resources.totals(),
                sampler_cpu_seconds=round(self._cpu_ns / 1e9, 6),
                ticks=self._samples,
                missed=self._missed,
                skipped=self._watch.skipped or None,
            ),
            None,
            None,
            True,  # noqa: FBT003 - the queue may be full: this line says what became of all others
        )

    def close(self) -> None:
        """Stop measuring. Never waits."""
        if self._gpus is not None:
            self._gpus.stop()
        self.abandon()

    def on_gpus(self, reading: GpuReading) -> None:
        """The GPU thread has an answer."""
        gpus = self._gpus
        if self._finished or gpus is None:
            return
        now = self._clock()
        for change in gpus.answered(reading, now):
            self._say(change)
        if self._watch.pending:  # more than a slice of them waits for the next sample, and is placed by time then
            self._resources.add_edges(self._watch.take())
        if reading.state == "ok":
            self._resources.read_gpus(now, reading.devices)
        else:
            self._resources.lose_gpus(now, reading.state)
        for device in reading.devices:
            self._push(device, None, None)
        self._be_ready()
        self._tell_finished()
        self._let_write(now)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _take_edges(self) -> None:
        """All there are now, the log's other work coming in between."""
        for _ in range(_SLICES_MOST):
            if not self._watch.pending or not self._is_calm():  # the program's records come first
                return
            self._resources.add_edges(self._watch.take())
            await asyncio.sleep(0)

    def _next_due(self) -> int:
        due = self._ticks.due_ns
        if self._gpus is not None:
            due = min(due, self._gpus.due_ns)
        if self._loops:
            due = min(due, self._loops.due_ns)
        if self._watch.pending:
            due = min(due, self._forced_due)
        if self._resources.waiting:  # for a GPU, which may not answer, for room in the queue, or for its turn
            patient = self._resources.waiting < _TOLD_AT_ONCE and self._is_calm()
            due = min(due, self._clock() + (_GPU_PATIENCE_NS if patient else _ROOM_NS))
        return due

    async def _step(self) -> None:
        """Do all that is due."""
        now = self._clock()
        forced = self._watch.pending and now >= self._forced_due
        due = now >= self._ticks.due_ns
        if due or forced:
            late, missed = self._ticks.take(now) if due else (0, 0)
            cost = await self._tick(now, "interval" if due else "execution", late, missed)
            self._ticks.add_cost(cost)
            self._cpu_ns += cost
        began = time.thread_time_ns()
        if self._gpus is not None:
            self._look_at_gpus(self._gpus, now, forced=forced)
        if self._loops and now >= self._loops.due_ns:
            for stalled in self._loops.look(now):
                self._push(stalled, None, None)
        if self._resources.waiting:
            self._tell_finished()
        self._let_write(now, at_once=forced)
        self._cpu_ns += time.thread_time_ns() - began

    def _look_at_gpus(self, gpus: GpuLooks, now: int, *, forced: bool) -> None:
        change = gpus.look(now, forced=forced)
        if change is not None:
            self._say(change)
            self._be_ready()
        if gpus.hangs:
            self._resources.lose_gpus(now, "hung")

    def _let_write(self, now: int, *, at_once: bool = False) -> None:
        """Have the samples written, unless more are about to come: those of the GPUs, or of a second."""
        if self._gpus is not None and self._gpus.answers_soon(now):
            return
        if at_once or now - self._nudged_ns >= TOGETHER_S * 1e9:
            self._nudged_ns = now
            self._nudge()

    async def _tick(self, now: int, cause: str, late: int = 0, missed: int = 0) -> int:
        """One sample of everything but the GPUs. Returns the CPU time it took.

        Each read gives the GIL away and, beside threads that compute, gets it back 5 ms later: then the log's other
        work gets its turn between two sources.
        """
        cost = 0
        self._missed += missed
        self._samples += 1
        if self._watch.pending:
            self._forced_due = now + round(FORCED_S * 1e9)
            await self._take_edges()
        slow = now >= self._slow_due
        if slow:
            self._slow_due = now + round(SLOW_S * 1e9)
        samples: list[Struct] = []
        began = time.thread_time_ns()
        whole = cause == "close" or (cause == "interval" and now >= self._machine_due)
        if whole:
            self._machine_due = now + _MACHINE_NS
        for collector in self._collectors if whole else [self._process]:
            sample = self._collect(collector, slow=slow)
            took = time.thread_time_ns() - began
            began += took
            cost += took
            if sample is not None:
                sample.cost_seconds = took / 1e9
                samples.append(self._complete(sample, collector.name, now, cause, late, missed))
            if self._clock() - now > _CONTENDED_NS:
                await asyncio.sleep(0)
                began = time.thread_time_ns()
        samples += [self._complete(sample, name, now, cause, late, missed) for name, sample in self._loops.samples()]
        for sample in samples:  # all at once: one batch to write
            self._push(sample, None, None)
        self._tell_finished()
        if self._gpus is None:
            self._be_ready()
        return cost + time.thread_time_ns() - began

    def _collect(self, collector: Collector, *, slow: bool) -> Any:
        """Its sample, or None."""
        try:
            sample: Any = collector.collect(slow=slow)
        except OSError as error:
            self._change_state(collector.name, "unreadable", error.strerror or str(error))
            return None
        except Exception as error:  # noqa: BLE001 - a defect of one source, which must not cost the others
            self._change_state(collector.name, "error", f"{type(error).__name__}: {error}")
            return None
        self._change_state(collector.name, "ok", None)
        if collector is self._process:
            self._complete_process(sample, self._clock())
        return sample

    def _complete_process(self, sample: events.SampleProcess, now: int) -> None:
        process = self._process
        self._resources.read_process(
            ProcessReading(
                now,
                process.cpu_ns,
                rss_bytes=process.rss_bytes,
                peak_rss_bytes=process.peak_rss_bytes,
                read_bytes=process.read_bytes,
                write_bytes=process.write_bytes,
            )
        )
        pauses = self._gc.take()
        sample.gc_collections = pauses.number
        sample.gc_pause_max_seconds = pauses.longest_ns / 1e9
        sample.gc_pause_total_seconds = pauses.total_ns / 1e9
        sample.log_queued, sample.log_lost = self._gauges()
        sample.running_executions = self._resources.running

    def _complete(self, sample: Any, source: str, now: int, cause: str, late: int, missed: int) -> Struct:
        sample.source_state = "ok"
        sample.cause = cause
        before = self._read_ns.get(source)
        if before is not None:
            sample.interval_seconds = (now - before) // 1000 / 1e6
        self._read_ns[source] = now
        sample.late_seconds = late // 1000 / 1e6
        sample.missed = missed or None
        complete: Struct = sample
        return complete

    def _on_lag(self, lag_ns: int) -> None:
        self._resources.lag.read(self._clock(), lag_ns)

    def _tell_finished(self) -> None:
        for account, said in islice(self._resources.finished(self._clock()), _TOLD_AT_ONCE):
            self._tell(account, said)
            if not self._is_calm():
                self._nudge()
                return  # the rest waits until there is room

    def _tell(self, account: Account, said: events.MetricsExecution) -> None:
        self._push(said, account.scope, None, True)  # noqa: FBT003 - it counts as told of, so it must not be refused
        account.scope = None  # an execution may be kept for long, and must not keep all around it

    def _be_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _change_state(self, source: str, state: str, detail: str | None) -> None:
        before = self._states.get(source, "ok")
        if before != state:
            self._states[source] = state
            self._say(events.SampleSourceChanged(source=source, state_from=before, state_to=state, detail=detail))

    def _say(self, change: events.SampleSourceChanged) -> None:
        self._push(change, None, None if change.state_to == "ok" else "WARNING")
