"""When the next sample is due: on a grid that does not drift, and less often where sampling costs too much."""

from typing import Final

__all__ = ["COST_SHARE", "Deadlines"]

COST_SHARE: Final = 0.01
"""Of the interval, what a sample may cost. Reading a GPU ten times a second was measured to take 2 % of a model
server's speed (NVIDIA/srt-slurm, 401); a hundredth at most is this log's own aim for all it does."""
_EASE_SHARE: Final = COST_SHARE / 3
"""Below this the interval is halved again: not at half, where it would go back and forth."""
_LONGEST_STRETCH: Final = 64
_WEIGHT: Final = 0.2
"""Of the latest cost in the running mean: one slow sample alone (a page fault, a preemption) changes nothing."""


class Deadlines:
    """Moments `start + n * interval`. Times are monotonic nanoseconds."""

    def __init__(self, start_ns: int, interval_s: float) -> None:
        self.interval_ns: int = max(round(interval_s * 1e9), 1)
        self.due_ns: int = start_ns
        """The next one. The first is at once."""
        self.stretch: int = 1
        """Every how many moments are used: 1 unless sampling costs too much."""
        self._cost_ns: float | None = None

    def take(self, now_ns: int) -> tuple[int, int]:
        """The sample that was due is taken. Returns how late it is, and how many others were due and are left out."""
        step = self.interval_ns * self.stretch
        late = max(now_ns - self.due_ns, 0)
        missed = late // step
        self.due_ns += (missed + 1) * step
        return late, missed

    def add_cost(self, cost_ns: int) -> None:
        """What a sample has cost."""
        mean = self._cost_ns
        self._cost_ns = mean = cost_ns if mean is None else mean + _WEIGHT * (cost_ns - mean)
        interval = self.interval_ns * self.stretch
        if mean > COST_SHARE * interval and self.stretch < _LONGEST_STRETCH:
            self.stretch *= 2
        elif self.stretch > 1 and mean < _EASE_SHARE * interval:
            self.stretch //= 2
