"""What all typed events share."""

from typing import Any

from msgspec import Struct, field

__all__ = ["Event", "always", "default_level"]


def always(value: str) -> Any:
    """A default that is written all the same, since readers look for it on the line."""
    return field(default_factory=lambda: value)


class Event(Struct, tag_field="event", kw_only=True, omit_defaults=True):
    """Base of the typed events."""


_LEVEL_BY_ENDING = {
    ".failed": "ERROR",
    ".retried": "WARNING",
    ".rate_limited": "WARNING",
    ".recovered": "WARNING",
    ".raised": "ERROR",
    ".loop_stalled": "WARNING",
}


def default_level(event: str) -> str:
    """The level of an event emitted without one: by the last word of its tag, else INFO.

    A failure or raised error whose `attempt` has reached a `max_retries` above 0 is CRITICAL.
    """
    return _LEVEL_BY_ENDING.get(event[event.rfind(".") :], "INFO")
