"""When to ask again what has failed."""

from typing import Final

__all__ = ["FIRST_S", "LAST_S", "Backoff"]

FIRST_S: Final = 5.0
"""Until the first try again. Looking for a driver that is not loaded takes some 3 ms: once in 5 s nobody notices."""
LAST_S: Final = 300.0
"""The longest between tries: a GPU that is back is seen within five minutes, however long it was away."""
_CALM_S: Final = 60.0
"""What has worked for a minute, and as long as the last wait, has recovered. The slower tiers are read several times in
a minute, so a fault that only they meet does not pass for a recovery."""


class Backoff:
    """Twice as long after each failure, until it has worked for a while.

    So what comes and goes is looked at less and less often, and as seldom told of.
    """

    __slots__ = ("_delay", "_worked_at", "due")

    def __init__(self) -> None:
        self.due = float("-inf")
        """When to try again, monotonic seconds."""
        self._delay = 0.0
        self._worked_at: float | None = None

    def worked(self, now: float) -> None:
        """It works at `now`. May be said again."""
        if self._worked_at is None:
            self._worked_at = now

    def failed(self, now: float, *, at_once: bool = False) -> None:
        """It does not work. `at_once`: if it did until now, the first try again need not wait."""
        if self._worked_at is not None and now - self._worked_at >= max(_CALM_S, self._delay):
            self._delay = 0.0
        self._worked_at = None
        at_once = at_once and not self._delay
        self._delay = max(FIRST_S, min(2 * self._delay, LAST_S))
        self.due = now if at_once else now + self._delay
