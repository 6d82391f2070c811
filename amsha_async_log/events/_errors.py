"""Error context: what was raised, on which attempt, and what was done about it."""

from ._base import Event

__all__ = ["ErrorRaised", "ErrorRecovered"]


class ErrorRaised(Event, tag="error.raised", gc=False, kw_only=True):
    """An error that the program handles, or is about to. Emit it with `exc_info=True` for type, message and stack.

    CRITICAL when `attempt` has reached `max_retries`. Executions and steps report the error they end with themselves.
    """

    error_type: str | None = None
    """Name of the exception's class. Left out: that of the exception given as `exc_info`."""
    error_message: str | None = None
    """What the exception says. Left out: that of `exc_info`."""
    operation: str | None = None
    """What was being done."""
    function: str | None = None
    """Name of the function that was doing it."""
    attempt: int | None = None
    """Which attempt it was raised on, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    recovery_action: str | None = None
    """What will be done about it: `retry`, `fallback`, `skip`, `abort`, ..."""


class ErrorRecovered(Event, tag="error.recovered", gc=False, kw_only=True):
    """An error was overcome; `recovery_action` says how. Emit it once that has worked."""

    error_type: str | None = None
    """Name of the exception's class. Left out: that of the exception given as `exc_info`."""
    recovery_action: str
    """What was done about it: `retry`, `fallback`, `skip`, ..."""
    error_message: str | None = None
    """What the exception says. Left out: that of `exc_info`."""
    operation: str | None = None
    """What was being done."""
    function: str | None = None
    """Name of the function that was doing it."""
    attempt: int | None = None
    """Which attempt it was raised on, from 1."""
    max_retries: int | None = None
    """Attempts there were in all. None or 0: not limited."""
