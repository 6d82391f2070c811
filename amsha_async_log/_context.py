"""What a line says about where it was logged: the running execution and step, and bound fields, encoded once."""

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from .records import RESERVED

__all__ = ["AMBIENT", "CURRENT", "ROOT", "Scope", "uuid7"]

AMBIENT: Final = frozenset({"execution_id", "crew_name", "step_id"})
"""Keys that executions and steps put on every line below them."""

_NOT_FOR_CALLS: Final = RESERVED | {"exc_info", "extra"}
_MERGES_KEPT: Final = 64
encode: Final = msgspec.json.encode


class _Clashing(frozenset[str]):
    """Names that say they clash with any call, so that each call takes the path where marks are written."""

    def isdisjoint(self, other: Any, /) -> bool:  # noqa: ARG002
        return False


class Scope:
    """An immutable set of fields that go on every line, kept as encoded JSON so that a call pays nothing for them.

    `fields` maps each name to its encoded value. `text` is all of them as they stand between a line's envelope and its
    own fields, with a comma at both ends. `keys` are the names that a call must not use as they
    are: the envelope's, the call's options, and this scope's. `run` is the execution or step that made the scope.
    """

    __slots__ = ("_merged", "ambient_only", "fields", "keys", "reasons", "run", "text")

    def __init__(self, fields: Mapping[str, bytes], run: Any = None, reasons: Mapping[str, str] | None = None) -> None:
        self.fields: dict[str, bytes] = dict(fields)
        self.run: Any = run
        self.reasons: dict[str, str] = {name: why for name, why in (reasons or {}).items() if name in self.fields}
        """Names whose values were replaced by a marker, and why: each line must say so."""
        self.text: bytes = b"".join(b",%b:%b" % (encode(name), value) for name, value in self.fields.items()) + b","
        keys = _NOT_FOR_CALLS.union(self.fields)
        self.keys: frozenset[str] = _Clashing(keys) if self.reasons else keys
        self.ambient_only: bool = self.fields.keys() <= AMBIENT and not self.reasons
        self._merged: dict[object, Scope] = {}

    def child(self, fields: Mapping[str, bytes], run: Any = None, reasons: Mapping[str, str] | None = None) -> "Scope":
        """This scope with more fields; a name present in both takes the new value."""
        kept = {name: why for name, why in self.reasons.items() if name not in fields}
        return Scope({**self.fields, **fields}, run, {**kept, **(reasons or {})})

    def under(self, bound: "Scope") -> "Scope":
        """This scope with the fields bound to a logger on top. Kept, since the same pair comes again."""
        merged = self._merged.get(bound)
        if merged is None:
            merged = self._remember(bound, self.child(bound.fields, self.run, bound.reasons))
        return merged

    def without(self, names: frozenset[str]) -> "Scope":
        """This scope less the names that a call gives itself."""
        if names.isdisjoint(self.fields):
            return self
        merged = self._merged.get(names)
        if merged is None:
            kept = {name: value for name, value in self.fields.items() if name not in names}
            merged = self._remember(names, Scope(kept, self.run, self.reasons))
        return merged

    def _remember(self, key: object, scope: "Scope") -> "Scope":
        if len(self._merged) >= _MERGES_KEPT:  # a program that binds per item must not grow us
            self._merged.clear()
        self._merged[key] = scope
        return scope


ROOT: Final = Scope({})

CURRENT: Final[ContextVar[Scope]] = ContextVar("amsha_async_log_scope", default=ROOT)
"""The scope of the code that is running; it follows tasks as any context variable does."""


def uuid7() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
