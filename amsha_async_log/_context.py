"""What a line says about where it was logged: the running execution and step, and bound fields, encoded once."""

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from .records import RESERVED

__all__ = ["AMBIENT", "CURRENT", "ROOT", "Scope", "enter", "leave", "uuid7"]

AMBIENT: Final = frozenset({"execution_id", "crew_name", "step_id", "trace_id"})
"""Keys that executions, steps and what is joined from elsewhere put on every line below them."""

_NOT_FOR_CALLS: Final = RESERVED | {"exc_info", "extra"}
_MERGES_KEPT: Final = 64
encode: Final = msgspec.json.encode
now: Final = time.time


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

    __slots__ = ("_keys_inside", "_merged", "ambient_only", "fields", "keys", "outer", "reasons", "run", "text")

    def __init__(self, fields: Mapping[str, bytes], run: Any = None, reasons: Mapping[str, str] | None = None) -> None:
        self.fields: dict[str, bytes] = dict(fields)
        self.run: Any = run
        self.reasons: dict[str, str] = {name: why for name, why in (reasons or {}).items() if name in self.fields}
        """Names whose values were replaced by a marker, and why: each line must say so."""
        self.text: bytes = b"".join(b",%b:%b" % (encode(name), value) for name, value in self.fields.items()) + b","
        keys = _NOT_FOR_CALLS.union(self.fields)
        self.keys: frozenset[str] = _Clashing(keys) if self.reasons else keys
        self.ambient_only: bool = self.fields.keys() <= AMBIENT and not self.reasons
        self._merged: dict[object, Scope] | None = None
        self.outer: Scope | None = None
        """While it is entered: what held before. Each entering has a scope of its own."""
        self._keys_inside: frozenset[str] | None = None

    def child(self, fields: Mapping[str, bytes], run: Any = None, reasons: Mapping[str, str] | None = None) -> "Scope":
        """This scope with more fields; a name present in both takes the new value."""
        kept = {name: why for name, why in self.reasons.items() if name not in fields}
        return Scope({**self.fields, **fields}, run, {**kept, **(reasons or {})})

    def with_execution(self, execution_id: bytes, crew_name: bytes, run: Any) -> "Scope":
        """This scope, which has no ids, with those of an execution. As `child`, at a third of its cost."""
        scope = self._copy(run)
        scope.fields = {**self.fields, "execution_id": execution_id, "crew_name": crew_name}
        scope.text = b'%b"execution_id":%b,"crew_name":%b,' % (self.text, execution_id, crew_name)
        keys = self._keys_inside
        scope.keys = self._widened({"execution_id", "crew_name"}) if keys is None else keys
        return scope

    def with_step(self, step_id: bytes, run: Any) -> "Scope":
        """This scope, of an execution, with the id of a step."""
        scope = self._copy(run)
        scope.fields = {**self.fields, "step_id": step_id}
        scope.text = b'%b"step_id":%b,' % (self.text, step_id)
        keys = self._keys_inside
        scope.keys = self._widened({"step_id"}) if keys is None else keys
        return scope

    def again(self) -> "Scope":
        """The same, to be entered once more."""
        scope = self._copy(self.run)
        scope.fields, scope.text, scope.keys = self.fields, self.text, self.keys
        return scope

    def _copy(self, run: Any) -> "Scope":
        scope = Scope.__new__(Scope)
        scope.run = run
        scope.reasons = self.reasons
        scope.ambient_only = self.ambient_only
        scope._merged = scope._keys_inside = scope.outer = None
        return scope

    def _widened(self, names: set[str]) -> frozenset[str]:
        """The keys of every scope that is made of this one with these names: always the same ones for one scope."""
        union = self.keys | names
        self._keys_inside = keys = _Clashing(union) if self.reasons else union
        return keys

    def under(self, bound: "Scope") -> "Scope":
        """This scope with the fields bound to a logger on top. Kept, since the same pair comes again."""
        merged = self._merged.get(bound) if self._merged else None
        return self._remember(bound, self.child(bound.fields, self.run, bound.reasons)) if merged is None else merged

    def without(self, names: frozenset[str]) -> "Scope":
        """This scope less the names that a call gives itself."""
        if names.isdisjoint(self.fields):
            return self
        merged = self._merged.get(names) if self._merged else None
        if merged is None:
            kept = {name: value for name, value in self.fields.items() if name not in names}
            merged = self._remember(names, Scope(kept, self.run, self.reasons))
        return merged

    def _remember(self, key: object, scope: "Scope") -> "Scope":
        if self._merged is None or len(self._merged) >= _MERGES_KEPT:  # a program that binds per item must not grow us
            self._merged = {}
        self._merged[key] = scope
        return scope


ROOT: Final = Scope({})

CURRENT: Final[ContextVar[Scope]] = ContextVar("amsha_async_log_scope", default=ROOT)
"""The scope of the code that is running; it follows tasks as any context variable does."""


def enter(scope: Scope) -> None:
    """Let `scope`, which is entered nowhere, hold for the calling code."""
    scope.outer = CURRENT.get()
    CURRENT.set(scope)


def leave(run: Any) -> None:
    """Let hold what held before the run was entered, also where what was entered inside was never left.

    A run that was entered in another context leaves this one as it is.
    """
    scope: Scope | None = CURRENT.get()
    while scope is not None and scope.run is not run:
        scope = scope.outer
    if scope is not None and scope.outer is not None:
        CURRENT.set(scope.outer)
        scope.outer = None  # tasks that were started inside keep the scope, and must not keep all that was around it


_POOL: Final = 64
_tails: list[str] = []
"""Random ends of ids. Asking the system for each one alone takes as long as everything else about an id."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tails.clear)  # else parent and child would hand out the same ones

_PER_SECOND: Final = 1000 * 4096.0
"""Units of the time in an id: milliseconds with 12 more bits, which a float still holds exactly."""
_SIXTY_BITS: Final = (1 << 60) - 1
_VARIANT: Final = bytes(byte & 0x3F | 0x80 for byte in range(256))


def uuid7() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 12 of their fraction, 62 random ones.

    The fraction is the "increased clock precision" of section 6.2, method 3: ids made one after another sort so.
    """
    try:
        tail = _tails.pop()
    except IndexError:  # also where another thread was quicker
        tail = _more_tails()
    digits = (int(now() * _PER_SECOND) & _SIXTY_BITS).to_bytes(8, "big").hex()
    return f"{digits[1:9]}-{digits[9:13]}-7{digits[13:]}-{tail}"


def _more_tails() -> str:
    random = bytearray(os.urandom(8 * _POOL))
    random[::8] = random[::8].translate(_VARIANT)
    _tails.extend([random[start : start + 8].hex("-", 6) for start in range(8, len(random), 8)])
    return random[:8].hex("-", 6)
