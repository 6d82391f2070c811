"""The event loops that a log watches: when each is looked at, and what is found."""

import asyncio
from collections.abc import Callable
from typing import Final

from . import events
from .collectors.loop import LoopProbe

__all__ = ["WatchedLoops"]

_WORKING_S: Final = 0.1
"""Between two looks at a loop that worked at the last one."""
_CALM_S: Final = 1.0
"""Between two looks at loops that all waited for work at the last one. Ten looks a second at an idle process would cost
0.3 % of a core, since each wakes the log's thread with its caches cold."""


class WatchedLoops:
    """Used by the sampler's thread alone. Times are monotonic nanoseconds."""

    def __init__(
        self, now_ns: int, *, interval_s: float, stall_s: float, on_lag: Callable[[int], None], clock: Callable[[], int]
    ) -> None:
        """`stall_s`: as the option `loop_stall_s`. `on_lag` is told every lag."""
        self.due_ns: int = now_ns
        """When they are to be looked at next, if there are any."""
        self._working_ns = round(_WORKING_S * 1e9)
        self._calm_ns = round(min(max(interval_s, _WORKING_S), _CALM_S) * 1e9)
        self._stall_ns = round(stall_s * 1e9)
        self._on_lag = on_lag
        self._clock = clock
        self._probes: list[LoopProbe] = []
        self._named = 0

    def __len__(self) -> int:
        return len(self._probes)

    def add(self, loop: asyncio.AbstractEventLoop, thread: tuple[int, int] | None) -> None:
        """Watch that loop too, which runs on a thread with these ids (Python's and the system's), if that is known.

        Loops that are closed are forgotten by themselves.
        """
        if any(probe.loop is loop for probe in self._probes):
            return
        self._named += 1
        name = f"{type(loop).__module__.partition('.')[0]}-{self._named}"
        probe = LoopProbe(
            loop, name, period_ns=self._working_ns, stall_ns=self._stall_ns, on_lag=self._on_lag, clock=self._clock
        )
        if thread is not None:
            probe.runs_on(*thread)
        self._probes.append(probe)

    def look(self, now_ns: int) -> list[events.SampleLoopStalled]:
        """Look at all of them. Returns those that hang, each once."""
        self._probes = [probe for probe in self._probes if not probe.closed]
        working = [probe for probe in self._probes if not probe.ping()]
        period = self._working_ns if working else self._calm_ns
        self.due_ns += ((now_ns - self.due_ns) // period + 1) * period  # on the grid of the ticks: one wake for both
        stalls = [probe.stalled() for probe in self._probes]
        return [stalled for stalled in stalls if stalled is not None]

    def samples(self) -> list[tuple[str, events.SampleLoop]]:
        """What was found out of each since the last call, by name."""
        return [(probe.name, probe.sample()) for probe in self._probes if not probe.closed]
