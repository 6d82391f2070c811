"""What an execution used: tokens and cost, each from one source only, and memory and CPU."""

from math import isinf
from typing import NamedTuple

from ._writers import Line

__all__ = ["Tokens", "Usage"]


class Tokens(NamedTuple):
    """Token counts, None where unknown."""

    prompt: int | None = None
    completion: int | None = None
    total: int | None = None


class _Sums:
    """Sums of what lines say; None for as long as no line says anything."""

    __slots__ = ("completion", "cost", "prompt", "total")

    def __init__(self) -> None:
        self.prompt: float | None = None
        self.completion: float | None = None
        self.total: float | None = None
        self.cost: float | None = None

    def add(self, line: Line) -> None:
        total = line.total_tokens
        if total is None and (line.prompt_tokens is not None or line.completion_tokens is not None):
            total = (line.prompt_tokens or 0) + (line.completion_tokens or 0)
        self.prompt = _plus(self.prompt, line.prompt_tokens)
        self.completion = _plus(self.completion, line.completion_tokens)
        self.total = _plus(self.total, total)
        self.cost = _plus(self.cost, line.cost_usd)

    @property
    def has_tokens(self) -> bool:
        return self.total is not None

    def replace(self, line: Line) -> None:
        """Take over what the line says; zeros, which mean unknown in metrics, do not displace anything."""
        latest = _Sums()
        latest.add(line)
        if latest.total is not None and (latest.total or not self.total):
            self.prompt, self.completion, self.total = latest.prompt, latest.completion, latest.total
        if latest.cost is not None and (latest.cost or not self.cost):
            self.cost = latest.cost


class Usage:
    """Everything an execution's lines and its writers' samples say about what it used."""

    def __init__(self) -> None:
        self.calls = 0
        """Lines about model calls."""
        self._peak_memory_mb: float | None = None
        self._peak_gpu_memory_mb: float | None = None
        self._attributed_memory_mb: float | None = None
        self._attributed_gpu_memory_mb: float | None = None
        self._called = _Sums()
        self._recorded = _Sums()
        self._reported = _Sums()
        self._cpu_samples: list[float] = [0, 0.0]
        self._cpu_lines: list[float] = [0, 0.0]

    def add_call(self, line: Line) -> None:
        """A model call."""
        self.calls += 1
        self._called.add(line)

    def add_recorded(self, line: Line) -> None:
        """The end of the execution or of a step: each tells what `record_tokens` was given for itself alone."""
        self._recorded.add(line)

    def set_reported(self, line: Line) -> None:
        """A line with metrics of the whole execution; the latest one that has any counts."""
        if line.total_tokens is None and line.prompt_tokens is None and line.completion_tokens is None:
            if line.cost_usd is not None:
                self._reported.replace(line)
        else:
            self._reported.replace(line)

    def add_resources(self, line: Line) -> None:
        """Memory and CPU that a line of the execution tells."""
        self._add_memory(line)
        cpu = line.cpu_percent if line.cpu_percent is not None else line.cpu_usage_percent
        if cpu is not None:
            self._cpu_lines[0] += 1
            self._cpu_lines[1] += cpu

    def add_attributed(self, line: Line) -> None:
        """A sampler's own account of the execution, which knows better than samples taken now and then."""
        if line.peak_memory_mb is not None:
            self._attributed_memory_mb = _higher(self._attributed_memory_mb, line.peak_memory_mb)
        if line.peak_gpu_memory_mb is not None:
            self._attributed_gpu_memory_mb = _higher(self._attributed_gpu_memory_mb, line.peak_gpu_memory_mb)

    def add_sample(self, line: Line) -> None:
        """A sample that one of its writers took while it ran."""
        self._add_memory(line)
        if line.cpu_percent is not None:
            self._cpu_samples[0] += 1
            self._cpu_samples[1] += line.cpu_percent

    def add_gpu_sample(self, line: Line) -> None:
        """A sample of a GPU of its machine while it ran."""
        if line.gpu_memory_mb is not None:
            self._peak_gpu_memory_mb = _higher(self._peak_gpu_memory_mb, line.gpu_memory_mb)

    def _add_memory(self, line: Line) -> None:
        if line.memory_mb is not None:  # asked here, since nearly every line says nothing of it
            self._peak_memory_mb = _higher(self._peak_memory_mb, line.memory_mb)
        if line.peak_memory_mb is not None:
            self._peak_memory_mb = _higher(self._peak_memory_mb, line.peak_memory_mb)
        if line.gpu_memory_mb is not None:
            self._peak_gpu_memory_mb = _higher(self._peak_gpu_memory_mb, line.gpu_memory_mb)

    @property
    def peak_memory_mb(self) -> float | None:
        """From a sampler's account or, without any, from the samples and the execution's own lines."""
        return self._peak_memory_mb if self._attributed_memory_mb is None else self._attributed_memory_mb

    @property
    def peak_gpu_memory_mb(self) -> float | None:
        """Likewise."""
        return self._peak_gpu_memory_mb if self._attributed_gpu_memory_mb is None else self._attributed_gpu_memory_mb

    @property
    def mean_cpu_percent(self) -> float | None:
        """From the samples or, without any, from the execution's own lines."""
        for count, total in (self._cpu_samples, self._cpu_lines):
            if count:
                return round(total / count, 3)
        return None

    @property
    def tokens(self) -> Tokens:
        """From the best source that knows any: adding sources up would count the same call twice."""
        for sums in self._sources:
            if sums.has_tokens:
                return Tokens(_whole(sums.prompt), _whole(sums.completion), _whole(sums.total))
        return Tokens()

    @property
    def cost_usd(self) -> float | None:
        """From the best source that knows it."""
        cost = next((sums.cost for sums in self._sources if sums.cost is not None), None)
        return None if cost is None else round(cost, 9)

    @property
    def _sources(self) -> tuple[_Sums, _Sums, _Sums]:
        return self._called, self._recorded, self._reported


def _plus(sum_: float | None, value: float | None) -> float | None:
    return sum_ if value is None else (sum_ or 0) + value


def _higher(peak: float | None, value: float) -> float:
    return value if peak is None else max(peak, value)


def _whole(value: float | None) -> int | None:
    """None also for a sum that no float can hold."""
    return None if value is None or isinf(value) else round(value)
