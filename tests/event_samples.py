"""Every typed event, with nothing but what it must have, and with everything it can have."""

import types
import typing
from typing import Any

import msgspec
from msgspec import Struct

from amsha_async_log import events

__all__ = ["KINDS", "OPEN_FIELDS", "any_fields", "declared", "full", "least", "own_fields", "tag"]

KINDS: list[type[Struct]] = [getattr(events, name) for name in events.__all__ if name != "default_level"]

_SAMPLES: dict[object, Any] = {
    str: "text",
    int: 1,
    float: 0.5,
    bool: True,
    Any: {"a": [1, {"b": None}]},
    list[str]: ["text"],
    dict[str, str]: {"name": "text"},
    dict[str, dict[str, int]]: {"name": {"total": 1}},
}
_OTHER = {"max_retries": 3}
"""Above `attempt`, which is 1."""


def tag(kind: type[Struct]) -> str:
    """Value of `event` on its lines."""
    return str(kind.__struct_config__.tag)


def declared(kind: type[Struct]) -> dict[str, Any]:
    """Field name to declared type, None left aside."""
    return {name: _bare(hint) for name, hint in typing.get_type_hints(kind).items()}


def any_fields(kind: type[Struct]) -> list[str]:
    """The fields that may hold anything, containers too."""
    return [name for name, hint in declared(kind).items() if hint is Any]


def least(kind: type[Struct]) -> Any:
    """An instance with required fields only."""
    required = [field.name for field in msgspec.structs.fields(kind) if field.required]
    return kind(**{name: value for name, value in _values(kind).items() if name in required})


def full(kind: type[Struct], **instead: Any) -> Any:
    """An instance with a value in every field, none at its default."""
    return kind(**{**_values(kind), **instead})


def own_fields(event: Struct) -> dict[str, Any]:
    """All fields of an instance, as they are."""
    return msgspec.structs.asdict(event)


def _values(kind: type[Struct]) -> dict[str, Any]:
    known = {field.name: field.default for field in msgspec.structs.fields(kind)}
    values = {name: _OTHER.get(name, _SAMPLES[hint]) for name, hint in declared(kind).items()}
    return {name: 2 if value == known[name] else value for name, value in values.items()}


def _bare(hint: Any) -> Any:
    if typing.get_origin(hint) is not types.UnionType:
        return hint
    (bare,) = [each for each in typing.get_args(hint) if each is not type(None)]
    return bare


OPEN_FIELDS = [(kind, name) for kind in KINDS for name in any_fields(kind)]
