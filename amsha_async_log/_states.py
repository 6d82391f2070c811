"""The states of an execution or step, and which may follow which."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

__all__ = ["CREATED", "ENDS", "TRANSITIONS", "state_name"]

CREATED: Final = "created"
"""Before a run says anything of itself. Nobody sees it: to others such a run is pending."""

ENDS: Final = frozenset({"completed", "failed", "cancelled"})

TRANSITIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        CREATED: frozenset({"pending", "running", "failed", "cancelled"}),
        "pending": frozenset({"running", "failed", "cancelled"}),
        "running": ENDS | {"paused"},
        "paused": ENDS | {"running"},
        "completed": frozenset(),
        "failed": frozenset(),
        "cancelled": frozenset(),
    }
)
"""State to the states that may follow it."""


def state_name(state: object) -> str:
    """A state given by its name in any case, or by an enumeration's member; unknown ones as text."""
    if isinstance(state, Enum):
        state = state.value if isinstance(state.value, str) else state.name
    return state.lower() if type(state) is str else _text(state)


def _text(state: object) -> str:
    try:
        return str.__str__(str(state)).lower()
    except Exception:  # noqa: BLE001 - a user's __str__
        return "[not a state]"
