"""The executions of a log while it is followed: all that run, and the latest of those that have ended."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, Final

from ._lines import LineDecoder
from ._live_views import LiveExecution
from ._resources import EVENT, Share, Shares
from ._run import STEP_ENDS, Run
from ._writers import Line

__all__ = ["KEPT_ENDED", "KEPT_RUNNING", "LiveRuns"]

KEPT_ENDED: Final = 200
"""Ended executions kept: more than a terminal has lines, and about a megabyte."""
KEPT_RUNNING: Final = 5_000
"""Executions without an end that are kept; of more, the oldest are given up. About 20 MB."""
_KEPT_IDS: Final = 10_000  # of executions given up, so that what comes late of them does not look like a new one
_KEPT_STEPS: Final = 256  # open steps of an execution; only the latest is shown

_SHARES: Final = LineDecoder(Share)


class _LiveRun:
    """One execution while its lines go by."""

    __slots__ = ("run", "shares", "steps")

    def __init__(self, execution_id: str) -> None:
        self.run = Run(execution_id)
        self.shares = Shares()
        self.steps: dict[str | int, str] = {}
        """Open steps with what to call them, in the order they began."""

    def add(self, line: Line, record: dict[str, Any]) -> None:
        self.run.add(line)
        event = line.event
        if event == EVENT:
            share = _SHARES.convert(record)
            if share is not None:
                self.shares.add(share)
        elif event == "execution.started":
            self.steps.clear()
        elif line.step_id is not None:
            if event == "step.started":
                self.steps[line.step_id] = line.step_name or line.step_kind or str(line.step_id)
                if len(self.steps) > _KEPT_STEPS:
                    del self.steps[next(iter(self.steps))]
            elif event in STEP_ENDS:
                self.steps.pop(line.step_id, None)

    @property
    def writers(self) -> list[str]:
        """Those that decide whether it lives."""
        return [self.run.started_by] if self.run.started_by is not None else list(self.run.spans)

    def view(self, life: str, now: float) -> LiveExecution:
        """As it stands; `life` holds if it has not ended."""
        found = self.run.finish(life, 0)
        resources = self.shares.finish()
        age = found.duration_seconds
        if age is None and found.started_at is not None:
            last = self.run.last_time if life == "killed" or found.ended_at is not None else now
            age = None if last is None else max(0.0, round(last - found.started_at, 3))
        return LiveExecution(
            execution_id=found.execution_id,
            crew_name=found.crew_name,
            status=found.status,
            step=next(reversed(self.steps.values()), None) if self.run.end is None else None,
            started_at=found.started_at,
            ended_at=found.ended_at,
            age_seconds=age,
            total_tokens=found.total_tokens,
            cost_usd=found.cost_usd,
            llm_calls=found.llm_calls,
            retries=found.retries,
            errors=found.errors,
            cpu_seconds=resources.cpu_seconds if resources else None,
            cpu_error_seconds=resources.cpu_error_seconds if resources else None,
            energy_joules=resources.energy_joules if resources else None,
            attribution=resources.attribution if resources else None,
            unknown=resources.unknown if resources else {},
        )


class LiveRuns:
    """Takes the lines of executions, and forgets those that ended long ago."""

    def __init__(self) -> None:
        self._running: OrderedDict[str, _LiveRun] = OrderedDict()
        """Without an end, as far as is known of writers that live; the oldest first."""
        self._ended: OrderedDict[str, _LiveRun] = OrderedDict()
        """The latest last."""
        self._given_up: OrderedDict[str, None] = OrderedDict()

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._running)

    @property
    def ended(self) -> int:
        """How many of those that have ended are kept."""
        return len(self._ended)

    def add(self, line: Line, record: dict[str, Any]) -> None:
        """Take the next line that has an execution."""
        name = str(line.execution_id)
        found = self._running.get(name) or self._ended.get(name)
        if found is None:
            if line.event.startswith("metrics.") or (name in self._given_up and line.event != "execution.started"):
                return  # what comes after the end of an execution that is not shown any more
            found = self._running[name] = _LiveRun(name)
            if len(self._running) > KEPT_RUNNING:
                self._give_up(self._running)
        found.add(line, record)
        if found.run.end is None:
            if name in self._ended:
                self._running[name] = self._ended.pop(name)  # it began again
        elif name in self._running:
            self._end(name)

    def settle(self, life_of: Callable[[str], str]) -> None:
        """End those whose writers do not live any more. `life_of` a writer: `running`, `unknown` or `killed`."""
        for name, run in list(self._running.items()):
            if _life(run, life_of) == "killed":
                self._end(name)

    def views(self, life_of: Callable[[str], str], now: float, limit: int | None) -> list[LiveExecution]:
        """Those that run, the oldest first, then those that ended, the latest first; `limit` of them, None: all."""
        runs: Iterator[_LiveRun] = chain(self._running.values(), reversed(self._ended.values()))
        return [run.view(_life(run, life_of), now) for run in islice(runs, limit)]

    def _end(self, name: str) -> None:
        self._ended[name] = self._running.pop(name)
        if len(self._ended) > KEPT_ENDED:
            self._give_up(self._ended)

    def _give_up(self, runs: OrderedDict[str, _LiveRun]) -> None:
        oldest, _ = runs.popitem(last=False)
        self._given_up[oldest] = None
        if len(self._given_up) > _KEPT_IDS:
            self._given_up.popitem(last=False)


def _life(run: _LiveRun, life_of: Callable[[str], str]) -> str:
    lives = {life_of(name) for name in run.writers}
    return next((life for life in ("running", "unknown") if life in lives), "killed")
