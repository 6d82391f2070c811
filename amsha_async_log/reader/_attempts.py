"""Which attempts of an execution its lines tell of, each counted once however many lines carry its number."""

__all__ = ["Attempts"]


class Attempts:
    """Numbers above 1. Starts are counted where they are seen; what only other lines tell of is `untold`."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        self._started: dict[float, bool] | None = None
        """Number to whether a start had it; None instead of an empty one, which most executions would have."""

    def add(self, attempt: float | None, *, start: bool = False) -> bool:
        """Take the number a line carries; true when it is a retry that no line told of before."""
        if attempt is None or attempt <= 1:
            return False
        if self._started is None:
            self._started = {}
        new = attempt not in self._started
        self._started[attempt] = start or self._started.get(attempt, False)
        return new

    @property
    def untold(self) -> set[float]:
        """The attempts of which no start is in the log."""
        return {attempt for attempt, started in (self._started or {}).items() if not started}
