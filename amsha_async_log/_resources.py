"""What each execution cost the machine: readings and edges go in, a `metrics.execution` for each that ended comes out.

CPU time is read at the very moment an execution starts or ends; bytes and energy are read by samples, and what rises
between two of them is placed by time. Used by the sampler's thread alone.
"""

from collections.abc import Container, Iterable, Iterator
from typing import Final

from . import events
from ._attribution import Account, Edge, Gauge, Share, SharedCounter
from .collectors._base import MB

__all__ = ["ProcessReading", "Resources"]

_LATE_NS: Final = 1_000_000_000
"""How long the end of an execution waits for the GPUs to answer, before what they would have said is unknown."""


class ProcessReading:
    """What one sample of the process says, as whole numbers. None: not known here."""

    __slots__ = ("cpu_ns", "peak_rss_bytes", "read_bytes", "rss_bytes", "time_ns", "write_bytes")

    def __init__(
        self,
        time_ns: int,
        cpu_ns: int,
        *,
        rss_bytes: int | None = None,
        peak_rss_bytes: int | None = None,
        read_bytes: int | None = None,
        write_bytes: int | None = None,
    ) -> None:
        self.time_ns = time_ns
        self.cpu_ns = cpu_ns
        self.rss_bytes = rss_bytes
        self.peak_rss_bytes = peak_rss_bytes
        self.read_bytes = read_bytes
        self.write_bytes = write_bytes


class _Counter:
    """A counter with the edges that came since it was last read, and the shares that are complete."""

    def __init__(self, expected: Container[Account], edges: Iterable[Edge] = (), *, busy_only: bool = False) -> None:
        self.shared: SharedCounter | None = None
        self.done: dict[Account, Share] = {}
        self.told: int = 0
        """The sum of the shares that were told of. What accounts got and could not be told of is unattributed."""
        self._busy_only = busy_only
        self._expected = expected
        """Accounts that are still to be told of."""
        self._edges: list[Edge] = list(edges)

    def add(self, edges: list[Edge]) -> None:
        self._edges += edges

    def read(self, time_ns: int, value: int) -> None:
        if self.shared is None:
            self.shared = SharedCounter(time_ns, value, busy_only=self._busy_only)
            self._keep(self.shared.miss(self._take(), "late_start"))
        self._keep(self.shared.read(time_ns, value, self._take()))

    def lose(self, time_ns: int) -> None:
        """Nothing is known of it for now: whoever waits for it waits no longer."""
        if self.shared is None:
            self._edges.clear()
        else:
            self._keep(self.shared.lose(time_ns, self._take()))

    def knows(self, account: Account) -> bool:
        """Is its share complete, or will it never be?"""
        return account in self.done or self.shared is None or not (self._edges or account in self.shared.running)

    def take(self, account: Account) -> tuple[Share | None, str]:
        """Its share, or None and the code of why not all of it is known."""
        share = self.done.pop(account, None)
        if share is None:
            return None, "not_supported" if self.shared is None else "stale"
        return (None, share.unknown) if share.unknown else (share, "")

    def totals(self) -> dict[str, int] | None:
        """Where everything went; None if it was never read."""
        shared = self.shared
        return None if shared is None else _totals(shared.total, self.told, shared.idle)

    def _keep(self, ended: list[tuple[Account, Share]]) -> None:
        self.done.update((account, share) for account, share in ended if account in self._expected)

    def _take(self) -> list[Edge]:
        edges, self._edges = self._edges, []
        return edges


class _Marks:
    """How the gauges stood when an account started and ended."""

    __slots__ = ("ended_ns", "ends", "peak_rss", "rss_peak", "samples", "starts", "unmeasured_ns")

    def __init__(self, starts: list[tuple[float, int]], peak_rss: int | None, samples: int, unmeasured_ns: int) -> None:
        self.starts = starts
        self.peak_rss = peak_rss
        self.samples = samples
        self.ends: list[tuple[float, int]] = []
        self.ended_ns = 0
        self.rss_peak: float | None = None
        self.unmeasured_ns = unmeasured_ns
        """CPU time of the process that no task was seen to take: up to its start, then while it ran."""


class Resources:
    """Accounts, counters and gauges of one process. Times are monotonic nanoseconds and must not go back."""

    def __init__(self, start: ProcessReading, *, by_task: bool = False, gpu_unknown: str | None = None) -> None:
        """`gpu_unknown`: the code of why GPUs are not looked at; None: they are."""
        self._by_task = by_task
        self._gpu_unknown: str | None = gpu_unknown
        self._gpu_reasons: dict[str, str] = {}
        """Field to reason, of what no GPU tells."""
        self._cpu = SharedCounter(start.time_ns, start.cpu_ns)
        self._cpu_told = 0
        self._energies: dict[str, _Counter] = {}
        self._rss, self._gpu_busy, self._gpu_memory = gauges = (Gauge(), Gauge(), Gauge())
        self._gauges = gauges
        self.lag: Gauge = Gauge()
        """Lags of all event loops, in nanoseconds."""
        self.loops: bool = False
        """Is any event loop watched?"""
        self._peak_rss: int | None = start.peak_rss_bytes
        self._samples = 0
        self._marks: dict[Account, _Marks] = {}
        """Of every execution that is still to be told of."""
        self._files = {name: _Counter(self._marks, busy_only=True) for name in ("file_read_bytes", "file_write_bytes")}
        self._ending: dict[Account, Share] = {}

    @property
    def running(self) -> int:
        """Executions that have started and not ended."""
        return len(self._cpu.running)

    @property
    def waiting(self) -> int:
        """Executions that ended and were not told of yet."""
        return len(self._ending)

    def add_edges(self, edges: list[Edge]) -> None:
        """Executions started and ended. To be called before every reading, with what came since the last call."""
        if not edges:
            return
        for edge in edges:
            for account, share in self._cpu.read_at_edge(edge, edge.cpu_ns):
                self._ending[account] = share
            marks = [gauge.integral(edge.time_ns) for gauge in self._gauges]
            if edge.starts:
                self._marks[edge.account] = _Marks(marks, self._peak_rss, self._samples, edge.cpu_ns - edge.measured_ns)
            elif edge.account in self._marks:
                own = self._marks[edge.account]
                own.ends = marks
                own.unmeasured_ns = max(edge.cpu_ns - edge.measured_ns - own.unmeasured_ns, 0)
        for counter in self._counters:
            counter.add(edges)

    def read_process(self, reading: ProcessReading) -> None:
        """A sample of the process."""
        self._cpu.read(reading.time_ns, reading.cpu_ns)
        for field, value in (("file_read_bytes", reading.read_bytes), ("file_write_bytes", reading.write_bytes)):
            if value is None:
                self._files[field].lose(reading.time_ns)
            else:
                self._files[field].read(reading.time_ns, value)
        self._samples += 1
        if reading.rss_bytes is not None:
            self._rss.read(reading.time_ns, reading.rss_bytes)
        self._peak_rss = reading.peak_rss_bytes
        for account in self._ending:
            marks = self._marks[account]
            if not marks.ended_ns:  # the first sample after its end: what comes later is no longer its own
                marks.ended_ns = reading.time_ns
                self._note_samples(account, marks)

    def read_gpus(self, time_ns: int, devices: Iterable[events.SampleGpu]) -> None:
        """What all GPUs said at that moment."""
        busy: list[float] = []
        memory: list[float] = []
        seen = set()
        reasons: dict[str, str] = {}
        for device in devices:
            for name, reason in (device.unknown or {}).items():
                reasons.setdefault(name, reason)
            if device.gpu_percent is not None:
                busy.append(device.gpu_percent)
            if device.gpu_memory_mb is not None and device.mig_parent_uuid is None:
                memory.append(device.gpu_memory_mb)
            uuid = device.gpu_uuid
            if device.energy_joules is not None and uuid is not None:
                seen.add(uuid)
                counter = self._energies.get(uuid)
                if counter is None:
                    already = [
                        Edge(time_ns, 0, account, starts=True, parent=account.parent) for account in self._cpu.running
                    ]
                    counter = self._energies[uuid] = _Counter(self._marks, already)
                counter.read(time_ns, round(device.energy_joules * 1000))
        for uuid, counter in self._energies.items():
            if uuid not in seen:
                counter.lose(time_ns)
        # A mean or a sum with something missing would be wrong.
        if busy and "gpu_percent" not in reasons:
            self._gpu_busy.read(time_ns, sum(busy) / len(busy))
        else:
            self._gpu_busy.lose(time_ns)
        if memory and "gpu_memory_mb" not in reasons:
            self._gpu_memory.read(time_ns, sum(memory))
        else:
            self._gpu_memory.lose(time_ns)
        self._gpu_reasons = reasons

    def lose_gpus(self, time_ns: int, reason: str) -> None:
        """The driver does not answer."""
        self._gpu_reasons = dict.fromkeys(("gpu_percent", "gpu_memory_mb", "energy_joules"), reason)
        self._gpu_busy.lose(time_ns)
        self._gpu_memory.lose(time_ns)
        for counter in self._energies.values():
            counter.lose(time_ns)

    def finished(self, now_ns: int, *, at_once: bool = False) -> Iterator[tuple[Account, events.MetricsExecution]]:
        """Executions that ended and of which all is known now, or (`at_once`, or later than a second) will be.

        One that is taken counts as told of; those that are not taken come again.
        """
        for account, share in list(self._ending.items()):
            marks = self._marks[account]
            if not marks.ended_ns:
                if not at_once:
                    continue
                self._note_samples(account, marks)
            late = at_once or now_ns - marks.ended_ns > _LATE_NS
            if late or all(counter.knows(account) for counter in self._energies.values()):
                said = self._describe(account, share, marks)
                del self._ending[account], self._marks[account]
                yield account, said

    def unfinished(self, now_ns: int, unmeasured_ns: int) -> Iterator[tuple[Account, events.MetricsExecution]]:
        """Executions that still run, with what they have cost so far: for the last lines of a log. As `finished`.

        `unmeasured_ns`: CPU time of the process up to now that no task was seen to take.
        """
        for account in list(self._cpu.running):
            share, marks = self._cpu.settle(account), self._marks[account]
            assert share is not None
            marks.ends = [gauge.integral(now_ns) for gauge in self._gauges]
            marks.unmeasured_ns = max(unmeasured_ns - marks.unmeasured_ns, 0)
            self._note_samples(account, marks)
            for counter in self._counters:
                so_far = None if counter.shared is None else counter.shared.settle(account)
                if so_far is not None:
                    counter.done[account] = so_far
            yield account, self._describe(account, share, marks)

    def totals(self) -> dict[str, dict[str, int]]:
        """Of each counter: `total executions idle unattributed`, as in `metrics.attribution`."""
        totals = {"cpu_nanoseconds": _totals(self._cpu.total, self._cpu_told, self._cpu.idle)}
        for field, counter in self._files.items():
            counted = counter.totals()
            if counted is not None:
                totals[field] = counted
        for uuid, counter in self._energies.items():
            counted = counter.totals()
            if counted is not None:
                totals[f"energy_millijoules:{uuid}"] = counted
        return totals

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _counters(self) -> list[_Counter]:
        return [*self._files.values(), *self._energies.values()]

    def _note_samples(self, account: Account, marks: _Marks) -> None:
        """How often the process was sampled while it ran, and the most memory that was seen."""
        peak = self._peak_rss
        marks.samples = self._samples - marks.samples
        marks.rss_peak = self._rss.peak_since(account.started_ns)
        if peak is not None and marks.peak_rss is not None and peak > marks.peak_rss:
            marks.rss_peak = float(peak)  # the high-water mark rose while it ran: exact

    def _describe(self, account: Account, cpu: Share, marks: _Marks) -> events.MetricsExecution:
        unknown: dict[str, str] = {}
        said = events.MetricsExecution(samples=marks.samples)
        if account.ended_ns is not None:
            said.duration_seconds = (account.ended_ns - account.started_ns) // 1000 / 1e6
        said.attribution = "overlap" if cpu.overlaps else "exclusive"
        amount, error = cpu.amount, cpu.error
        if self._by_task:
            said.attribution = "task"
            amount = account.task_ns if account.ended_task_ns is None else account.ended_task_ns
            error = marks.unmeasured_ns
        if account.measurable:
            self._cpu_told += amount
            said.cpu_seconds, said.cpu_error_seconds = amount / 1e9, error / 1e9
        else:
            unknown["cpu_seconds"] = "not_supported"
        self._describe_gauges(said, account, marks, unknown)
        for field, counter in self._files.items():
            share, why = counter.take(account)
            if share is None:
                unknown[field] = why
            else:
                counter.told += share.amount
                setattr(said, field, share.amount)
                setattr(said, field.replace("_bytes", "_error_bytes"), share.error)
        self._describe_energy(said, account, unknown)
        said.unknown = unknown or None
        account.resources = said
        return said

    def _describe_gauges(
        self, said: events.MetricsExecution, account: Account, marks: _Marks, unknown: dict[str, str]
    ) -> None:
        means = [
            (end[0] - start[0]) / (end[1] - start[1]) if end[1] > start[1] else None
            for start, end in zip(marks.starts, marks.ends, strict=True)
        ]
        if marks.rss_peak is None:
            unknown["peak_memory_mb"] = "not_supported" if self._rss.peak_since(0) is None else "no_sample"
        else:
            said.peak_memory_mb = round(marks.rss_peak / MB, 3)
            mean = means[0]
            said.mean_memory_mb = said.peak_memory_mb if mean is None else min(round(mean / MB, 3), said.peak_memory_mb)
        lag = self.lag.peak_since(account.started_ns)
        if lag is not None:
            said.loop_lag_max_seconds = round(lag / 1e9, 6)
        else:
            unknown["loop_lag_max_seconds"] = "no_sample" if self.loops else "no_loop"
        if means[1] is not None:
            said.gpu_percent = round(means[1], 2)
        else:
            unknown["gpu_percent"] = self._why_no("gpu_percent")
        peak = self._gpu_memory.peak_since(account.started_ns)
        if peak is not None:
            said.peak_gpu_memory_mb = round(peak, 3)
        else:
            unknown["peak_gpu_memory_mb"] = self._why_no("gpu_memory_mb")

    def _describe_energy(self, said: events.MetricsExecution, account: Account, unknown: dict[str, str]) -> None:
        taken = [(counter, *counter.take(account)) for counter in self._energies.values()]
        known = [(counter, share) for counter, share, _ in taken if share is not None]
        if taken and len(known) == len(taken):
            for counter, share in known:
                counter.told += share.amount
            said.energy_joules = sum(share.amount for _, share in known) / 1000
            said.energy_error_joules = sum(share.error for _, share in known) / 1000
            return  # a sum with something missing would be wrong
        reasons = [why for _, _, why in taken if why]
        unknown["energy_joules"] = self._why_no("energy_joules", reasons[0] if reasons else "no_sample")

    def _why_no(self, field: str, otherwise: str = "no_sample") -> str:
        return self._gpu_unknown or self._gpu_reasons.get(field, otherwise)


def _totals(total: int, executions: int, idle: int) -> dict[str, int]:
    return {"total": total, "executions": executions, "idle": idle, "unattributed": total - executions - idle}
