"""What is known of each type of event: its tag, its level, and whether it may go on the queue as it is."""

import types
import typing
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ._context import AMBIENT
from ._snapshot import encode
from .events import default_level
from .records import RESERVED

__all__ = ["Plan", "plan_of"]

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_LONG_NUMBER: Final = 20
"""Digits above which a number counts no attempts."""


class Plan:
    """What is known of one type of event."""

    __slots__ = (
        "counted",
        "cut",
        "event",
        "failure",
        "level",
        "lifecycle",
        "names",
        "plainly_named",
        "pushed",
        "tagged",
    )

    def __init__(self, kind: type[Struct]) -> None:
        config = kind.__struct_config__
        self.tagged = tagged = config.tag is not None and config.tag_field == "event"
        self.event = str(config.tag) if tagged else kind.__name__
        self.level = default_level(self.event)
        self.cut = len(b'{"event":') + len(encode(config.tag)) if tagged and not config.array_like else 0
        self.lifecycle = self.event.startswith(("execution.", "step."))
        self.failure = self.event.endswith((".failed", "error.raised"))
        self.counted = self.event.startswith("llm.call.") or self.event == "metrics.execution"
        """True: the execution it belongs to counts it in its summary."""
        self.plainly_named = kind.__struct_encode_fields__ == kind.__struct_fields__
        self.names = frozenset(kind.__struct_encode_fields__)
        if config.tag is not None and not tagged:
            self.names |= {str(config.tag_field)}
        self.pushed = (
            not config.array_like
            and not self.failure
            and self.names.isdisjoint(RESERVED | AMBIENT)
            and all(map(_is_scalar, _field_types(kind)))
        )
        """True: it goes on the queue as it is. Its fields cannot change later, nor does its level depend on them."""

    def exhausted(self, event: Struct, fields: Mapping[str, object], context: Mapping[str, bytes]) -> bool:
        """Was this failure the last attempt, by what its line will say?"""
        if not self.failure:
            return False
        attempt, most = (_number(name, event, fields, context) for name in ("attempt", "max_retries"))
        return 0 < most <= attempt


def _number(name: str, event: Struct, fields: Mapping[str, object], context: Mapping[str, bytes]) -> int:
    """A field's value, from whichever comes first on a line; 0 where it is no whole number."""
    value = fields[name] if name in fields else getattr(event, name, None)
    if value is None and name in context:
        digits = context[name]
        return int(digits) if digits.isdigit() and len(digits) < _LONG_NUMBER else 0
    # By its type, and as an int: a value must not be asked, since it may raise.
    return int.__add__(value, 0) if issubclass(type(value), int) else 0  # type: ignore[operator]


def _field_types(kind: type[Struct]) -> list[object]:
    try:
        return list(typing.get_type_hints(kind).values())
    except Exception:  # noqa: BLE001 - annotations that do not evaluate here: then nothing is known of them
        return [object]


def _is_scalar(kind: object) -> bool:
    origin = typing.get_origin(kind)
    if origin is typing.ClassVar or origin is typing.Literal:
        return True
    if origin is typing.Union or origin is types.UnionType:
        return all(map(_is_scalar, typing.get_args(kind)))
    return kind in _SCALARS


_plans: dict[type[Struct], Plan] = {}


def plan_of(kind: type[Struct]) -> Plan:
    """The plan of a type, made on first use."""
    plan = _plans.get(kind)
    if plan is None:
        plan = _plans[kind] = Plan(kind)
    return plan
