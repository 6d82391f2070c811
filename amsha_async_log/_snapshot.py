"""Values become JSON at the call, so that a line shows them as they were, and a bad one stays with its own record.

The good case is one `encode`, which runs no Python code: nothing can change a value while it is encoded. Anything
that `encode` refuses, or would write as something else without saying so (NaN becomes null), goes through `degrade`:
the same fields with the bad values replaced by markers, and a `log_degraded` field that names them. Values are judged
by their real type, never by what they say of themselves.

`msgspec.Raw` is written as it is: it must hold one valid JSON value.
"""

import contextlib
import math
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from .records import RESERVED

__all__ = [
    "DEGRADED",
    "PREVIEW",
    "clean_text",
    "degrade",
    "degrade_event",
    "describe",
    "describe_type",
    "encode",
    "encode_values",
    "event_fields",
    "hides_not_finite",
    "hides_not_finite_event",
    "mark_body",
    "needs_a_look",
    "shorten_text",
    "try_encode",
    "try_fields",
    "unique",
]

DEGRADED: Final = "log_degraded"
"""Field that maps the names of replaced values to the reasons."""

MAX_DEPTH: Final = 64
"""Depth to which a value is copied that has to be copied."""
DEEPEST: Final = 500
"""Brackets in a body above which it may be nested too deep for a reader's recursion limit."""
MAX_NODES: Final = 20_000
"""Values visited inside one field to find the bad one among them; about 20 ms. Past it the field is cut short."""
MAX_REASONS: Final = 32
MAX_NAME: Final = 256
PREVIEW: Final = 256

_ENCODER: Final = msgspec.json.Encoder()
encode: Final = _ENCODER.encode
"""Any object to JSON bytes. Raises whatever msgspec does; writes NaN and infinities as null."""

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_LISTS: Final = (list, tuple, set, frozenset, deque)
_KEPT: Final = (str, int, float, bool, type(None))


# -- judging what was encoded ------------------------------------------------------------------------------------------


def hides_not_finite(body: bytes, fields: Mapping[str, object]) -> bool:
    """Is one of the nulls in `body`, the encoded `fields`, a NaN or an infinity?"""
    if body.count(b"null") == sum([value is None for value in fields.values()]):
        return False
    return any(_has_not_finite(value, 0) for value in fields.values())


def needs_a_look(body: bytes, message: str | None, limit: int) -> bool:
    """Is a record of some size longer than `limit` bytes, or nested too deep for a reader?"""
    if len(body) + (0 if message is None else len(encode(message))) > limit:
        return True
    return len(body) > DEEPEST and body.count(b"[") + body.count(b"{") > DEEPEST and _depth(body) > DEEPEST


def _depth(encoded: bytes) -> int:
    """How deep brackets nest in JSON text, those inside strings not counted."""
    deepest = depth = 0
    for byte in _TEXT.sub(b"", encoded):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _has_not_finite(value: object, depth: int) -> bool:
    kind = type(value)
    if kind is float:
        return not math.isfinite(value)  # type: ignore[arg-type]
    if kind in _KEPT or depth > MAX_DEPTH:
        return depth > MAX_DEPTH
    if issubclass(kind, Enum):
        return _has_not_finite(value._value_, depth + 1)  # type: ignore[attr-defined]
    if issubclass(kind, dict):
        items: list[object] = list(dict.values(value))  # type: ignore[arg-type]
        return any(_has_not_finite(item, depth + 1) for item in items)
    if issubclass(kind, _LISTS):
        return any(_has_not_finite(item, depth + 1) for item in _members(value))
    parts = _parts(value)
    return parts is not None and any(_has_not_finite(item, depth + 1) for item in parts.values())


def try_fields(fields: Mapping[Any, object], limit: int) -> bytes:
    """The encoded fields where nothing is wrong with them, else nothing."""
    try:
        "".join(fields)  # names only: an enumeration's member is written as its value, which no check here has seen
        if RESERVED.isdisjoint(fields) and DEGRADED not in fields:
            body = encode(fields)
            if not needs_a_look(body, None, limit) and not (b"null" in body and hides_not_finite(body, fields)):
                return body
    except Exception:  # noqa: BLE001 - a value that does not encode, whatever it raised
        return b""
    return b""


def try_encode(value: object) -> bytes:
    """The encoded event or fields, or nothing if there is something in it that does not encode."""
    try:
        return encode(value)
    except Exception:  # noqa: BLE001 - a field that does not encode, whatever it raised
        return b""


# -- replacing bad values ----------------------------------------------------------------------------------------------


def degrade(
    fields: Mapping[Any, object], limit: int, reasons: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, str]]:
    """Encode `fields` whatever they hold. Returns the JSON object and, by name, why a value was replaced.

    A replaced value is a string that says what stood there; `reasons` are those known already. `limit` is the most
    bytes one value, and as far as shortening helps all values together, may take.
    """
    encoded, found = _encode_all(fields, limit)
    found = {**(reasons or {}), **found}
    if found:
        if DEGRADED in encoded:
            encoded[unique(DEGRADED + "_", encoded)] = encoded.pop(DEGRADED)
        encoded[DEGRADED] = encode(_few(found))
    return b"{" + b",".join(b"%b:%b" % (encode(name), value) for name, value in encoded.items()) + b"}", found


def encode_values(fields: Mapping[str, object], limit: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """Each value of `fields` encoded by itself, and why some were replaced. Names of the envelope are changed."""
    return _encode_all(fields, limit)


def _encode_all(fields: Mapping[Any, object], limit: int) -> tuple[dict[str, bytes], dict[str, str]]:
    encoded: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    given = {name for name in fields if type(name) is str}
    for key, value in fields.items():
        name, reason = _clean_key(key)
        if name in RESERVED:
            name = unique(name + "_", given)
        name = unique(name, encoded)
        encoded[name], why = _encode_value(value, limit)
        if reason or why:
            reasons[name] = reason or why
    _shorten_largest(encoded, reasons, limit)
    return encoded, reasons


def unique(name: str, taken: Iterable[str]) -> str:
    """`name`, with as many underscores behind it as it takes to differ from all `taken`."""
    while name in taken:
        name += "_"
    return name


def hides_not_finite_event(body: bytes, event: Struct) -> bool:
    """As `hides_not_finite`, for a typed event."""
    return hides_not_finite(body, _parts(event) or {})


def event_fields(event: Struct, *, tagged: bool) -> dict[str, object]:
    """The fields a line shows of a typed event, by their encoded names; `tagged`: the tag is the line's event."""
    parts = _parts(event) or {}
    with contextlib.suppress(Exception):  # a field that does not encode, whatever it raised; the parts say which
        body = encode(event)
        if b"null" not in body or not hides_not_finite(body, parts):
            parts = dict(msgspec.json.decode(body, type=dict[str, Raw]))
    if tagged:
        parts.pop("event", None)
    return parts


def degrade_event(event: Struct, limit: int) -> tuple[bytes, dict[str, str]]:
    """As `degrade`, for the fields of a typed event. For the log's own thread.

    No signal arrives there, so that whatever is raised, interrupts and exits included, is a value's own doing: it
    must not end that thread.
    """
    with contextlib.suppress(BaseException):
        return degrade(event_fields(event, tagged=True), limit)
    fields = _struct_parts(event, type(event))
    fields.pop("event", None)
    reasons: dict[str, str] = {}
    for name, value in fields.items():
        try:
            degrade({name: value}, limit)
        except BaseException as error:  # noqa: BLE001 - see above
            fields[name] = f"[{describe_type(value)}: repr raised {describe_type(error)}]"
            reasons[name] = f"not encodable: {describe_type(error)}"
    return degrade(fields, limit, reasons)


def mark_body(body: bytes, name: str, reason: str) -> tuple[bytes, bool]:
    """`body` on one line with one more mark, if there is a `name`, and whether that is its first.

    A body that is no JSON is replaced by a mark.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return degrade({}, 0, {"fields": "not JSON"})[0], True
    marks = fields.get(DEGRADED)
    known = marks if isinstance(marks, dict) else {}
    if known:
        del fields[DEGRADED]
    return degrade(fields, 0, {**known, **({name: reason} if name else {})})[0], bool(name) and not known


def _few(reasons: dict[str, str]) -> dict[str, str]:
    if len(reasons) <= MAX_REASONS:
        return reasons
    return {**dict(islice(reasons.items(), MAX_REASONS)), "…": f"{len(reasons) - MAX_REASONS} more"}


def _clean_key(key: object) -> tuple[str, str]:
    kind = type(key)
    if issubclass(kind, str):
        text = str.__str__(key)
        cleaned = clean_text(text)
        if len(cleaned) > MAX_NAME:
            return f"{cleaned[:MAX_NAME]}…", f"name too large: {len(cleaned)}"
        return cleaned, "" if cleaned == text else "name not UTF-8"
    if kind is int or kind is float:
        return describe(key), ""
    return describe(key), "name not a string"


def _encode_value(value: object, limit: int) -> tuple[bytes, str]:
    """One value as JSON, and the reason if something in it had to be replaced."""
    kind = type(value)
    if limit and kind in (str, bytes, bytearray) and len(value) > limit:  # type: ignore[arg-type]
        return _shortened(value), f"too large: {len(value)}"  # type: ignore[arg-type]
    reason = ""
    try:
        encoded = _valid(value)
    except Exception as error:  # noqa: BLE001 - a user's value can raise anything, and must not reach the caller
        walk = _Walk(f"not encodable: {describe_type(error)}")
        copy = walk.clean(value, 0)
        reason = walk.reason
        try:
            encoded = encode(copy)
        except Exception as again:  # noqa: BLE001 - as above
            encoded, reason = encode(describe(value)), f"not encodable: {type(again).__name__}"
    if limit and len(encoded) > limit:
        return _shortened(encoded), f"too large: {len(encoded)} bytes"
    return encoded, reason


class _NotExactError(ValueError):
    """The value encodes, but not as what it is."""


def _valid(value: object) -> bytes:
    """`encode`, less what would mislead a reader or be too much for it."""
    encoded = encode(value)
    if type(value) is Raw:  # whatever it holds was copied; this makes certain that it is JSON, on one line
        return encode(msgspec.json.decode(encoded))
    if b"null" in encoded and _has_not_finite(value, 0):
        raise _NotExactError
    if len(encoded) > DEEPEST and encoded.count(b"[") + encoded.count(b"{") > DEEPEST and _depth(encoded) > DEEPEST:
        raise _NotExactError
    return encoded


def _shortened(value: str | bytes | bytearray) -> bytes:
    """The beginning of a value, and its size."""
    size = len(value)
    if isinstance(value, bytes) and value[:1] == b'"':
        with contextlib.suppress(msgspec.MsgspecError):
            value = msgspec.json.decode(value, type=str)
    start = value[:PREVIEW]
    text = start if isinstance(start, str) else bytes(start).decode("ascii", "backslashreplace")
    return encode(f"{clean_text(text)}… [{size} in all]")


def shorten_text(text: str, most: int = PREVIEW) -> str:
    """The beginning of a text that is too long, and its size."""
    return text if len(text) <= most else f"{text[:most]}… [{len(text)} in all]"


def _shorten_largest(encoded: dict[str, bytes], reasons: dict[str, str], limit: int) -> None:
    """Shorten values, the largest first, until all take no more than `limit`, or nothing is gained by it."""
    total = sum(map(len, encoded.values())) + sum(map(len, encoded))
    if not limit or total <= limit:
        return
    for name in sorted(encoded, key=lambda name: len(encoded[name]), reverse=True):
        size = len(encoded[name])
        short = _shortened(encoded[name])
        if total <= limit or len(short) >= size:
            return
        encoded[name] = short
        reasons[name] = f"too large together: {size} bytes"
        total -= size - len(short)


class _Walk:
    """Copies a value into what JSON can hold, replacing what it cannot; bounded in depth and number.

    `reason` says why, if something was replaced; a value that only had to be copied has none.
    """

    def __init__(self, why: str) -> None:
        self._why = why
        self._nodes = 0
        self._path: set[int] = set()
        self.reason = ""

    def clean(self, value: object, depth: int) -> object:
        kind = type(value)
        self._nodes += 1
        if value is None or kind is bool:
            return value
        if self._nodes > MAX_NODES:
            return self._replaced(f"[cut: more than {MAX_NODES} values]", "too many values")
        if issubclass(kind, str) and not issubclass(kind, Enum):
            return self._text(str.__str__(value))
        if issubclass(kind, float) and not issubclass(kind, Enum):
            return self._number(float.__neg__(float.__neg__(value)))  # type: ignore[arg-type]
        if issubclass(kind, int) and not issubclass(kind, Enum):
            return self._leaf(int.__add__(value, 0))  # type: ignore[operator]
        if id(value) in self._path:
            return self._replaced("[cycle]", "cycle")
        if depth >= MAX_DEPTH:
            return self._replaced(f"[nested more than {MAX_DEPTH} deep]", "nested too deep")
        self._path.add(id(value))
        try:
            return self._clean_other(value, kind, depth)
        except Exception:  # noqa: BLE001 - whatever a user's object raises, its description stands in for it
            return self._replaced(describe(value), self._why)
        finally:
            self._path.discard(id(value))

    def _clean_other(self, value: object, kind: type, depth: int) -> object:
        if issubclass(kind, dict):
            return self._table(list(dict.items(value)), depth)  # type: ignore[arg-type]
        if issubclass(kind, _LISTS):
            return [self.clean(item, depth + 1) for item in self._some(_members(value))]
        if kind is range:
            return [self.clean(item, depth + 1) for item in self._some(value)]  # type: ignore[arg-type]
        if issubclass(kind, Enum):
            return self.clean(value._value_, depth + 1)  # type: ignore[attr-defined]
        if _is_path(kind):
            return self._text(str.__str__(str(value)))
        if issubclass(kind, BaseException):
            return self._error(value)
        parts = _parts(value)
        if parts is not None:
            return self._table(list(parts.items()), depth)
        if type.__getattribute__(kind, "__module__") == "numpy":
            return self.clean(value.tolist(), depth + 1)  # type: ignore[attr-defined]
        return self._leaf(value)

    def _leaf(self, value: object) -> object:
        """What msgspec encodes by itself, as it is; anything else described."""
        with contextlib.suppress(Exception):  # what does not encode is described
            if type(value) is not Raw and value is not msgspec.UNSET:
                encode(value)
                return value
        return self._replaced(describe(value), self._why)

    def _text(self, text: str) -> str:
        cleaned = clean_text(text)
        return cleaned if cleaned == text else self._replaced(cleaned, "not UTF-8")

    def _number(self, number: float) -> object:
        if math.isfinite(number):
            return number
        text = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        return self._replaced(text, "not finite")

    def _error(self, error: Any) -> str:
        text = str.__str__(str(error))
        return self._text(f"{describe_type(error)}: {text}")

    def _table(self, items: list[tuple[object, object]], depth: int) -> dict[str, object]:
        table: dict[str, object] = {}
        for key, item in self._some(items):
            name, reason = _clean_key(key)
            if reason:
                self.reason = self.reason or reason
            table[unique(name, table)] = self.clean(item, depth + 1)
        return table

    def _some(self, items: Iterable[Any]) -> Iterable[Any]:
        for number, item in enumerate(items):
            if number > MAX_NODES or self._nodes > MAX_NODES:
                self.reason = self.reason or "too many values"
                return
            yield item

    def _replaced(self, by: str, reason: str) -> str:
        self.reason = self.reason or reason
        return by


def _is_path(kind: type) -> bool:
    loaded = sys.modules.get("pathlib")  # a program without it has no paths; loading it takes 4 ms
    return loaded is not None and issubclass(kind, loaded.PurePath)


def _members(value: Any) -> list[Any]:
    """The members of a list, tuple, set or deque, by that type's own iteration: a copy in one step."""
    base = next(base for base in _LISTS if issubclass(type(value), base))
    return list(base.__iter__(value))


def _parts(value: Any) -> dict[str, Any] | None:
    """The fields of a Struct, dataclass or attrs instance, by their encoded names; None for anything else."""
    kind = type(value)
    if issubclass(kind, Struct):
        return _struct_parts(value, kind)
    fields = type.__getattribute__(kind, "__dict__").get("__dataclass_fields__")
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    fields = type.__getattribute__(kind, "__dict__").get("__attrs_attrs__")
    if fields is not None:
        return {field.name: getattr(value, field.name) for field in fields}
    return None


def _struct_parts(value: Struct, kind: type[Struct]) -> dict[str, Any]:
    """The tag and the fields of a Struct as msgspec writes them, without those omitted at their default."""
    config = kind.__struct_config__
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    default_of = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)) if config.omit_defaults else {}
    parts: dict[str, Any] = {} if config.tag is None else {str(config.tag_field): config.tag}
    for name, shown in zip(names, kind.__struct_encode_fields__, strict=True):
        item = getattr(value, name)
        if item is not msgspec.UNSET and not (name in default_of and _at_default(item, default_of[name])):
            parts[shown] = item
    return parts


def _at_default(item: object, default: object) -> bool:
    if type(item) in (list, dict, set):
        return not item and type(item) is getattr(default, "factory", None)
    return item is default or (type(item) is type(default) and type(item) in _KEPT and item == default)


def describe_type(value: object) -> str:
    """The name of a value's type, whatever its metaclass makes of the question."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def describe(value: object) -> str:
    """`repr`, shortened; where it raises, the type and what was raised."""
    try:
        text = str.__str__(repr(value))
    except Exception as error:  # noqa: BLE001 - see above
        return f"[{describe_type(value)}: repr raised {describe_type(error)}]"
    return clean_text(text if len(text) <= PREVIEW else text[:PREVIEW] + "…")


def clean_text(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, written as escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text
