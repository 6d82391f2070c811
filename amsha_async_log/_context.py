"""What a line says about where it was logged: the running execution and step, and bound fields, encoded once."""

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from .records import RESERVED

__all__ = ["AMBIENT", "CURRENT", "ROOT", "Scope", "uuid7"]

AMBIENT: Final = frozenset({"execution_id", "crew_name", "step_id"})
"""Keys that executions and steps put on every line below them."""

_CALL_OPTIONS: Final = frozenset({"exc_info", "extra"})
_MERGES_KEPT: Final = 64


class Scope:
    """An immutable set of fields that go on every line, kept as encoded JSON so that a call pays nothing for them.

    `fields` maps each name to its encoded value. `open` and `closed` are what stands between envelope and fields of
    a line that has fields of its own and of one that has not. `keys` are the names that a call must not use as they
    are: the envelope's, the call's options, and this scope's. `run` is the execution or step that made the scope.
    """

    __slots__ = ("_merged", "ambient_only", "closed", "fields", "keys", "open", "run")

    def __init__(self, fields: Mapping[str, bytes], run: Any = None) -> None:
        self.fields = dict(fields)
        self.run = run
        self.closed = b"".join(b',"%b":%b' % (name.encode(), value) for name, value in self.fields.items())
        self.open = self.closed + b","
        self.keys = RESERVED | _CALL_OPTIONS | self.fields.keys()
        self.ambient_only = self.fields.keys() <= AMBIENT
        self._merged: dict[object, Scope] = {}

    def child(self, fields: Mapping[str, bytes], run: Any = None) -> "Scope":
        """This scope with more fields; a name present in both takes the new value."""
        return Scope({**self.fields, **fields}, run)

    def under(self, bound: "Scope") -> "Scope":
        """This scope with the fields bound to a logger on top. Kept, since the same pair comes again."""
        merged = self._merged.get(bound)
        if merged is None:
            merged = self._remember(bound, self.child(bound.fields, self.run))
        return merged

    def without(self, names: frozenset[str]) -> "Scope":
        """This scope less the names that a call gives itself."""
        merged = self._merged.get(names)
        if merged is None:
            kept = {name: value for name, value in self.fields.items() if name not in names}
            merged = self._remember(names, Scope(kept, self.run))
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
