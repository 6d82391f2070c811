"""Error context: what was raised, on which attempt, and what was done about it."""

from ._base import Event

__all__ = ["ErrorRaised", "ErrorRecovered"]


class ErrorRaised(Event, tag="error.raised", gc=False, kw_only=True):
    """An error that the program handles, or is about to. Emit it with `exc_info=True` for type, message and stack.

    CRITICAL when `attempt` has reached `max_retries`. Executions and steps report the error they end with themselves.
    """

    error_type: str | None = None
    error_message: str | None = None
    operation: str | None = None
    """What was being done."""
    attempt: int | None = None
    max_retries: int | None = None
    recovery_action: str | None = None
    """What will be done about it: `retry`, `fallback`, `skip`, `abort`, ..."""


class ErrorRecovered(Event, tag="error.recovered", gc=False, kw_only=True):
    """An error was overcome; `recovery_action` says how."""

    error_type: str
    recovery_action: str
    error_message: str | None = None
    operation: str | None = None
    attempt: int | None = None
    max_retries: int | None = None
