"""The sampler: one coroutine on the log's own loop that reads the machine and says what executions cost it.

Data flows one way: edges (`_watch`) and readings (`collectors`) go into `_resources`, events come out and are pushed
like any record. Whatever a source does costs its own values only: they are absent, with the reason.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final

from msgspec import Struct

from . import events
from ._deadlines import Deadlines
from ._resources import ProcessReading, Resources
from ._stderr import tell
from ._watch import ExecutionWatch
from .collectors._base import Collector, GpuReading
from .collectors._gc import GcPauses
from .collectors._gpu_thread import GpuThread
from .collectors.loop import LoopProbe
from .collectors.process import ProcessCollector

__all__ = ["FORCED_S", "GPU_ADVISED_S", "Gauges", "MetricsSampler", "Push"]

FORCED_S: Final = 0.1
"""Starts and ends of executions within this time share one sample."""
GPU_ADVISED_S: Final = 1.0
"""Below it, asking a GPU was measured to slow the program down that uses it."""
SLOW_S: Final = 5.0
"""How often what changes slowly, or costs more to read, is read again."""
HUNG_S: Final = 5.0
"""A driver that has not answered for so long, or for two intervals, is said to hang."""
WORKING_PING_S: Final = 0.1
"""Between two looks at a loop that worked at the last one."""
CALM_PING_S: Final = 1.0
"""Between two looks at loops that all waited for work at the last one. Ten looks a second at an idle process would cost
0.3 % of a core, since each wakes the log's thread with its caches cold."""
_CONTENDED_NS: Final = 3_000_000
"""A sample of all sources takes a tenth of this, unless other threads keep the GIL."""
_MACHINE_NS: Final = 900_000_000
"""The host and the container are read once a second at most (a tenth less, for ticks that come late): the kernel counts
their CPU time in hundredths of a second, and reading them takes twice as long as reading the process."""
TOGETHER_S: Final = 1.0
"""How long samples wait for others, so that one batch is written for all: a batch costs 1 ms with caches cold."""
_GPU_SOON_S: Final = 0.05
"""What the GPUs say is waited for so long before the samples of the same moment are written."""
_LAST_LOOK_S: Final = 0.05
"""How long a log that is being closed waits for the GPUs to answer once more."""

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
        watch: ExecutionWatch,
        *,
        interval_s: float,
        collectors: Iterable[Collector],
        gpu: GpuThread | None,
        gpu_interval_s: float,
        gpu_unknown: str | None,
        hung_s: float = HUNG_S,
        loop_stall_s: float,
        gauges: Gauges,
        by_task: bool,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`push(event, scope, level)` takes what is to be written, `nudge()` has it written.

        `gpu_unknown`: why there is no `gpu`.
        """
        self._push = push
        self._nudge = nudge
        self._nudged_ns = 0
        self._watch = watch
        self._clock = clock
        now = clock()
        self._ticks = Deadlines(now, interval_s)
        self._gpu_ticks = Deadlines(now, gpu_interval_s)
        self._process = ProcessCollector()
        self._collectors: list[Collector] = [self._process, *collectors]
        self._gpu = gpu
        self._hung_ns = round(max(hung_s, 2 * gpu_interval_s) * 1e9)
        self._gpu_too_often = gpu_interval_s < GPU_ADVISED_S
        self._gpu_hangs = False
        self._gpu_read_ns: int | None = None
        self._gpu_missed = 0
        self._gpu_seen = asyncio.Event()
        self.ready: Future[None] = Future()
        """Set once every source was looked at for the first time: what starts from now on is measured in full."""
        self._stall_ns = round(loop_stall_s * 1e9)
        self._calm_ns = round(min(max(interval_s, WORKING_PING_S), CALM_PING_S) * 1e9)
        self._ping_due = now
        self._probes: list[LoopProbe] = []
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
        self._resources = Resources(
            ProcessReading(watch.began_ns, watch.began_cpu_ns), by_task=by_task, gpu_unknown=gpu_unknown
        )

    # -- from any thread ---------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """In a forked child: the parent goes on sampling, and what is open here still speaks of the parent."""
        self._gc.close()
        for collector in self._collectors:
            collector.close()

    # -- on the log's own loop ---------------------------------------------------------------------------------------

    def add_loop(self, loop: asyncio.AbstractEventLoop, thread: tuple[int, int] | None) -> None:
        """Watch that loop too, which runs on a thread with these ids (Python's and the system's), if that is known.

        Loops that are closed are forgotten by themselves.
        """
        self._probes = [probe for probe in self._probes if not probe.closed]
        if any(probe.loop is loop for probe in self._probes):
            return
        name = f"{type(loop).__module__.partition('.')[0]}-{len(self._probes) + 1}"
        probe = LoopProbe(
            loop,
            name,
            period_ns=round(WORKING_PING_S * 1e9),
            stall_ns=self._stall_ns,
            on_lag=self._on_lag,
            clock=self._clock,
        )
        if thread is not None:
            probe.runs_on(*thread)
        self._probes.append(probe)
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
            due = min(self._next_due(), self._clock() + 3_600_000_000_000)
            timer = loop.call_later(max(due - self._clock(), 0) / 1e9, self._wake.set)
            await self._wake.wait()
            self._wake.clear()
            timer.cancel()

    async def finish(self) -> None:
        """The last samples and accounts. Waits 50 ms at most for the GPUs, and for nothing else."""
        try:
            await self._say_last_words()
        finally:
            self._finished = True
            self.close()

    async def _say_last_words(self) -> None:
        wanted = self._watch.pending or self._resources.waiting or self._resources.running > 0
        self._gpu_seen.clear()
        await self._tick(self._clock(), "close")
        if self._gpu is not None and wanted:
            self._gpu.request()  # unless a look is out already
            since = self._gpu.outstanding_since
            if since is not None and self._clock() / 1e9 - since < _LAST_LOOK_S:  # else it hangs
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gpu_seen.wait(), _LAST_LOOK_S)
        self._tell_finished(at_once=True)
        now = self._clock()
        unmeasured = time.process_time_ns() - self._watch.measured.total_ns
        for account, said in self._resources.unfinished(now, unmeasured):
            self._push(said, account.scope, None)
        self._push(
            events.MetricsAttribution(
                counters=self._resources.totals(),
                sampler_cpu_seconds=round(self._cpu_ns / 1e9, 6),
                ticks=self._samples,
                missed=self._missed,
            ),
            None,
            None,
        )

    def close(self) -> None:
        """Stop measuring. Never waits."""
        if self._gpu is not None:
            self._gpu.stop()
        self._gc.close()
        for collector in self._collectors:
            collector.close()

    def on_gpus(self, reading: GpuReading) -> None:
        """The GPU thread has an answer."""
        if self._finished:
            return
        now = self._clock()
        self._gpu_seen.set()
        for change in reading.changes:
            self._push(change, None, None if change.state_to == "ok" else "WARNING")
        if self._gpu_hangs:
            self._gpu_hangs = False
            self._say_changed("gpu", "hung", reading.state, "the driver answers again")
        if reading.devices and self._gpu_too_often:
            self._gpu_too_often = False
            tell(
                f"GPUs are asked every {self._gpu_ticks.interval_ns / 1e9:g} s: below {GPU_ADVISED_S:g} s that can "
                "slow down what runs on them; set gpu_interval_s to 1 or more, or to 0 to leave them alone"
            )
        self._resources.add_edges(self._watch.take())
        if reading.state == "ok":
            self._resources.read_gpus(now, reading.devices)
        else:
            self._resources.lose_gpus(now, reading.state)
        interval = None if self._gpu_read_ns is None else round((now - self._gpu_read_ns) / 1e9, 6)
        self._gpu_read_ns = now
        for device in reading.devices:
            device.interval_seconds = interval
            device.missed = self._gpu_missed or None
            self._push(device, None, None)
        self._gpu_missed = 0
        self._be_ready()
        self._gpu_ticks.add_cost(round(reading.cost_seconds * 1e9))
        self._tell_finished()
        self._let_write(now)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _next_due(self) -> int:
        due = self._ticks.due_ns
        if self._gpu is not None:
            due = min(due, self._gpu_ticks.due_ns)
        if self._probes:
            due = min(due, self._ping_due)
        if self._watch.pending:
            due = min(due, self._forced_due)
        if self._resources.waiting:  # a GPU that does not answer must not keep what is known back
            due = min(due, self._clock() + 500_000_000)
        return due

    async def _step(self) -> None:
        """Do all that is due."""
        now = self._clock()
        began = time.thread_time_ns()
        forced = self._watch.pending and now >= self._forced_due
        due = now >= self._ticks.due_ns
        if due or forced:
            late, missed = self._ticks.take(now) if due else (0, 0)
            cost = await self._tick(now, "interval" if due else "execution", late, missed)
            self._ticks.add_cost(cost)
            self._cpu_ns += cost
            began = time.thread_time_ns()
        if self._gpu is not None:
            self._look_at_gpus(now, forced=forced)
        if self._probes and now >= self._ping_due:
            self._ping(now)
        if self._resources.waiting:
            self._tell_finished()
        self._let_write(now, at_once=forced)
        self._cpu_ns += time.thread_time_ns() - began

    def _let_write(self, now: int, *, at_once: bool = False) -> None:
        """Have the samples written, unless more are about to come: those of the GPUs, or of a second."""
        since = None if self._gpu is None else self._gpu.outstanding_since
        if since is not None and now / 1e9 - since < _GPU_SOON_S:
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
            self._resources.add_edges(self._watch.take())
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
        samples += [
            self._complete(probe.sample(), probe.name, now, cause, late, missed)
            for probe in self._probes
            if not probe.closed
        ]
        for sample in samples:  # all at once: one batch to write
            self._push(sample, None, None)
        self._tell_finished()
        if self._gpu is None:
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

    def _look_at_gpus(self, now: int, *, forced: bool) -> None:
        gpu = self._gpu
        assert gpu is not None
        if now >= self._gpu_ticks.due_ns:
            _, missed = self._gpu_ticks.take(now)
            self._gpu_missed += missed + (0 if gpu.request() else 1)
        elif forced:
            gpu.request()
        since = gpu.outstanding_since
        if since is not None and not self._gpu_hangs and now - since * 1e9 > self._hung_ns:
            self._gpu_hangs = True
            self._resources.lose_gpus(now, "hung")
            waited = now / 1e9 - since
            self._say_changed("gpu", "ok", "hung", f"the driver has not answered for {waited:.1f} s")
        elif self._gpu_hangs:
            self._resources.lose_gpus(now, "hung")

    def _ping(self, now: int) -> None:
        calm = True
        for probe in self._probes:
            calm = probe.ping() and calm
            stalled = probe.stalled()
            if stalled is not None:
                self._push(stalled, None, None)
        period = self._calm_ns if calm else round(WORKING_PING_S * 1e9)
        self._ping_due += ((now - self._ping_due) // period + 1) * period  # on the grid of the ticks: one wake for both
        if any(probe.closed for probe in self._probes):
            self._probes = [probe for probe in self._probes if not probe.closed]

    def _on_lag(self, lag_ns: int) -> None:
        self._resources.lag.read(self._clock(), lag_ns)

    def _tell_finished(self, *, at_once: bool = False) -> None:
        for account, said in self._resources.finished(self._clock(), at_once=at_once):
            self._push(said, account.scope, None)

    def _be_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _change_state(self, source: str, state: str, detail: str | None) -> None:
        before = self._states.get(source, "ok")
        if before != state:
            self._states[source] = state
            self._say_changed(source, before, state, detail)

    def _say_changed(self, source: str, before: str, after: str, detail: str | None) -> None:
        change: Struct = events.SampleSourceChanged(source=source, state_from=before, state_to=after, detail=detail)
        self._push(change, None, None if after == "ok" else "WARNING")
