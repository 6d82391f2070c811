"""What the lines of an execution or a step say of its state, and which of them is the last word."""

from typing import Final

from msgspec import Struct

from ._writers import Line

__all__ = ["OPEN", "TERMINAL", "Course", "End", "about_execution"]

ENDS: Final = frozenset({"completed", "failed", "cancelled"})
"""The last words of the events that end an execution or a step."""
TERMINAL: Final = ENDS | {"success", "skipped"}
OPEN: Final = frozenset({"pending", "running", "paused"})
_STATES: Final = TERMINAL | OPEN
METRICS: Final = "Execution metrics captured"
"""The line of `MetricsLogger`: it tells how long an execution took, not how it went."""


class End(Struct, gc=False):
    """How and when something ended; `time` is in Unix seconds, None: unknown."""

    status: str
    time: float | None


def about_execution(line: Line) -> bool:
    """Tell a plain line about the execution itself from one about an operation, a file or a step of it."""
    return line.operation is None and line.file_path is None and line.step_id is None


class Course:
    """The states of one execution or step while its lines go by.

    `lifecycle` takes typed lines, `plain` the others. Both return whether the line told a state, which is then `state`.
    """

    __slots__ = ("_attempt", "_ended", "_opening", "duration", "end", "state")

    def __init__(self) -> None:
        self.state: str | None = None
        """The latest, in lower case; None before any line."""
        self.end: End | None = None
        """None while `state` is none that ends."""
        self.duration: float | None = None
        """Seconds, as the line of the end tells."""
        self._ended = False
        """A typed end came, which only a new start undoes."""
        self._opening: str | None = None
        """Message of the first plain line that tells no state."""
        self._attempt = 1.0
        """The highest attempt that a plain line told of."""

    def lifecycle(self, line: Line) -> bool:
        """Take a line of the kind `execution.*` or `step.*`."""
        word = line.event.partition(".")[2]
        if word == "started":
            self._ended = False
            self._enter("running", line)
        elif word in ENDS:
            status = _folded(line.status)
            self._ended = True
            self._enter(status if status in TERMINAL else word, line)
        else:
            # Of events that a newer writer may know, only what they say outright counts.
            state = _folded(line.state_to) or (_folded(line.status) if word == "state_changed" else None)
            if state is None or self._ended:
                return False
            self._enter(state, line)
        return True

    def plain(self, line: Line) -> bool:
        """Take a plain line about the execution itself."""
        state = line.state_to or line.status
        if state is not None and state not in _STATES:
            state = state.lower()
            if state not in _STATES and not line.state_to:
                state = None  # a status of something else
        if not state:
            state = self._implied(line)
        if line.attempt is not None and line.attempt > self._attempt:
            self._attempt = line.attempt
        if state is None:
            return False
        self._enter(state, line)
        return True

    def begin(self) -> bool:
        """Take a line that says nothing of the state: whatever has a line runs, until one says otherwise."""
        if self.state is not None:
            return False
        self.state = "running"
        return True

    def _implied(self, line: Line) -> str | None:
        """What a line without a state implies, None for nothing new."""
        if line.error_type is not None:
            return "failed"
        if line.duration_seconds is not None:
            if self.end is None or line.message != METRICS:
                return "completed"
            self.duration = line.duration_seconds
            return None
        again = self._again(line)
        return "running" if self.state is None or again else None

    def _again(self, line: Line) -> bool:
        """After a failure: the next attempt has a higher number, or begins with the words the first one began with."""
        if self._opening is None:
            self._opening = line.message or None
            repeated = False
        else:
            repeated = line.message == self._opening
        if self.end is None or self.end.status != "failed":
            return False
        return repeated or (line.attempt is not None and line.attempt > self._attempt)

    def _enter(self, state: str, line: Line) -> None:
        self.state = state
        if state in TERMINAL:
            self.end = End(state, line.timestamp)
            self.duration = line.duration_seconds if line.duration_seconds is not None else self.duration
        elif self.end is not None:
            self.end = self.duration = None


def _folded(word: str | None) -> str | None:
    return word if word is None or word in _STATES else word.lower() or None
