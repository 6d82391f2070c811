"""Values become JSON at the call, so that a line shows them as they were, and a bad one stays with its own record.

The good case is one `encode`. Anything that `encode` refuses, or would write as something else without saying so
(NaN becomes null), goes through `degrade`: the same fields with the bad values replaced by markers, and a
`log_degraded` field that names them.
"""

import linecache
import math
import pathlib
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final

import msgspec
from msgspec import Struct

from .records import RESERVED

__all__ = [
    "LateBody",
    "clean_text",
    "degrade",
    "degrade_event",
    "encode",
    "encode_values",
    "exception_fields",
    "hides_not_finite",
    "load_code_lines",
]

MAX_DEPTH: Final = 32
MAX_NODES: Final = 20_000
"""Values visited inside one field to find the bad one among them; about 10 ms. Past it the field is cut short."""
PREVIEW: Final = 256
MAX_FRAMES: Final = 64
MAX_CHAIN: Final = 8

_DEGRADED: Final = "log_degraded"


def _hook(value: object) -> object:
    """What msgspec does not encode by itself but has an obvious JSON form. Raises TypeError for the rest."""
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, range | deque):
        return list(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_hook)
encode: Final = _ENCODER.encode
"""Any object to JSON bytes. Raises whatever msgspec does; writes NaN and infinities as null."""


# -- finding and replacing bad values ----------------------------------------------------------------------------------


def hides_not_finite(body: bytes, fields: Mapping[str, object]) -> bool:
    """Is one of the nulls in `body`, the encoded `fields`, a NaN or an infinity?"""
    if body.count(b"null") == sum([value is None for value in fields.values()]):
        return False
    return any(_has_not_finite(value, 0) for value in fields.values())


def _has_not_finite(value: object, depth: int) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if value is None or isinstance(value, str | bytes | int):
        return False
    if depth > MAX_DEPTH:
        return True
    if isinstance(value, Mapping):
        return any(_has_not_finite(item, depth + 1) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return any(_has_not_finite(item, depth + 1) for item in value)
    builtin = _as_builtin(value)
    return builtin is not value and _has_not_finite(builtin, depth + 1)


def _as_builtin(value: object) -> object:
    """Structs, dataclasses, attrs and what `_hook` knows, one level down; anything else as it is."""
    if isinstance(value, Struct):
        return msgspec.structs.asdict(value)
    fields = getattr(type(value), "__dataclass_fields__", None) or getattr(type(value), "__attrs_attrs__", None)
    if fields is not None:
        names = fields if isinstance(fields, dict) else [field.name for field in fields]
        return {name: getattr(value, name, None) for name in names}
    try:
        return _hook(value)
    except TypeError:
        return value


def degrade(fields: Mapping[Any, object], limit: int) -> tuple[bytes, int]:
    """Encode `fields` whatever they hold. Returns the JSON object and the number of values replaced.

    A replaced value is a string that says what stood there; `log_degraded` maps the field's name to the reason.
    `limit` is the most bytes one value, and all values together, may take; 0 is no limit.
    """
    encoded: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    for key, value in fields.items():
        name, reason = _clean_key(key)
        while name in encoded:
            name += "_"
        encoded[name], why = _encode_value(value, limit)
        if reason or why:
            reasons[name] = reason or why
    if limit:
        _shorten_largest(encoded, reasons, limit)
    if reasons:
        encoded[_DEGRADED] = encode(reasons)
    return b"{" + b",".join(b"%b:%b" % (encode(name), value) for name, value in encoded.items()) + b"}", len(reasons)


def encode_values(fields: Mapping[str, object], limit: int) -> dict[str, bytes]:
    """Each value of `fields` encoded by itself, bad ones replaced, names that are the envelope's changed."""
    return {
        name + "_" if name in RESERVED else name: _encode_value(value, limit)[0]
        for name, value in ((_clean_key(key)[0], value) for key, value in fields.items())
    }


def degrade_event(event: Struct, limit: int) -> bytes:
    """As `degrade`, for the fields of a typed event."""
    return degrade(msgspec.structs.asdict(event), limit)[0]


def _clean_key(key: object) -> tuple[str, str]:
    if type(key) is str:
        cleaned = clean_text(key)
        return cleaned, "" if cleaned == key else "name not UTF-8"
    return (str.__str__(key) if isinstance(key, str) else _describe(key)), "name not a string"


def _encode_value(value: object, limit: int) -> tuple[bytes, str]:
    """One value as JSON, and the reason if something in it had to be replaced."""
    if limit and isinstance(value, str | bytes | bytearray) and len(value) > limit:
        return _shortened(value, len(value)), f"too large: {len(value)}"
    reason = ""
    try:
        encoded = encode(value)
        if b"null" not in encoded or not _has_not_finite(value, 0):
            if limit and len(encoded) > limit:
                return _shortened(encoded.decode(), len(encoded)), f"too large: {len(encoded)} bytes"
            return encoded, ""
        reason = "not finite"
    except Exception as error:  # noqa: BLE001 - a user's value can raise anything, and must not reach the caller
        reason = f"not encodable: {type(error).__name__}"
    walk = _Walk()
    encoded = encode(walk.clean(value, 0))
    if limit and len(encoded) > limit:
        return _shortened(encoded.decode(), len(encoded)), f"too large: {len(encoded)} bytes"
    return encoded, reason


def _shortened(value: str | bytes | bytearray, size: int) -> bytes:
    start = value[:PREVIEW]
    text = start if isinstance(start, str) else bytes(start).decode("ascii", "backslashreplace")
    return encode(f"{clean_text(text)}… [{size} in all]")


def _shorten_largest(encoded: dict[str, bytes], reasons: dict[str, str], limit: int) -> None:
    total = sum(map(len, encoded.values()))
    for name in sorted(encoded, key=lambda name: len(encoded[name]), reverse=True):
        if total <= limit:
            return
        size = len(encoded[name])
        encoded[name] = _shortened(encoded[name].decode(), size)
        reasons[name] = f"too large together: {size} bytes"
        total -= size - len(encoded[name])


class _Walk:
    """Copies a value into what JSON can hold, replacing what it cannot; bounded in depth and number."""

    def __init__(self) -> None:
        self._nodes = 0
        self._path: list[int] = []

    def clean(self, value: object, depth: int) -> object:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return f"[cut: more than {MAX_NODES} values]"
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return clean_text(str.__str__(value))
        if isinstance(value, float):
            return float.__float__(value) if math.isfinite(value) else _not_finite(value)
        if id(value) in self._path:
            return "[cycle]"
        if depth >= MAX_DEPTH:
            return f"[nested more than {MAX_DEPTH} deep]"
        self._path.append(id(value))
        try:
            return self._clean_container(value, depth)
        finally:
            self._path.pop()

    def _clean_container(self, value: object, depth: int) -> object:
        if isinstance(value, Mapping):
            return dict(self._items(value, depth))
        if isinstance(value, list | tuple | set | frozenset | deque | range):
            return [self.clean(item, depth + 1) for item in _some(value)]
        try:
            builtin = _as_builtin(value)
            if builtin is not value:
                return self.clean(builtin, depth + 1)
            encode(value)
        except Exception:  # noqa: BLE001 - whatever a user's object raises, its description stands in for it
            return _describe(value)
        return value

    def _items(self, value: Mapping[object, object], depth: int) -> Iterator[tuple[str, object]]:
        taken: set[str] = set()
        for key, item in _some(value.items()):
            name = _clean_key(key)[0] if not isinstance(key, int | float) or isinstance(key, bool) else str(key)
            while name in taken:
                name += "_"
            taken.add(name)
            yield name, self.clean(item, depth + 1)


def _some(items: Any) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number > MAX_NODES:
            return
        yield item


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _describe(value: object) -> str:
    """`repr`, shortened; where it raises, the type and what was raised."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - see above
        return f"[{type(value).__name__}: repr raised {type(error).__name__}]"
    text = str.__str__(text)
    return clean_text(text if len(text) <= PREVIEW else text[:PREVIEW] + "…")


def clean_text(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, written as escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


# -- exceptions --------------------------------------------------------------------------------------------------------


class LateBody:
    """Fields with a stack trace whose code lines are still to be read: by the log's I/O thread, not by the call."""

    __slots__ = ("head", "trace")

    def __init__(self, head: bytes, trace: dict[str, Any]) -> None:
        self.head = head
        self.trace = trace

    def finish(self) -> bytes:
        """The body as JSON, with the code lines there are."""
        separator = b"," if len(self.head) > len(b"{}") else b""
        return b'%b%b"stacktrace":%b}' % (self.head[:-1], separator, encode(self.trace))


def exception_fields(error: BaseException) -> tuple[dict[str, str], dict[str, Any]]:
    """(`error_type` and `error_message`, the stack trace without its code lines).

    The trace is `{type, message, notes, frames: [{file, line, function}], cause | context, exceptions}`; frames
    from the outermost in, the middle left out beyond 64. Local variables are not recorded.
    """
    trace = _trace(error, set(), 0)
    return {"error_type": trace["type"], "error_message": trace["message"]}, trace


def _trace(error: BaseException, seen: set[int], depth: int) -> dict[str, Any]:
    seen.add(id(error))
    trace: dict[str, Any] = {"type": type(error).__name__, "message": _message(error)}
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list) and notes:
        trace["notes"] = [clean_text(note) if isinstance(note, str) else _describe(note) for note in notes]
    trace["frames"] = _frames(error.__traceback__)
    cause = error.__cause__
    name, linked = ("cause", cause) if cause or error.__suppress_context__ else ("context", error.__context__)
    if linked is not None and id(linked) not in seen and depth < MAX_CHAIN:
        trace[name] = _trace(linked, seen, depth + 1)
    if isinstance(error, BaseExceptionGroup) and depth < MAX_CHAIN:
        trace["exceptions"] = [_trace(e, seen, depth + 1) for e in error.exceptions[:MAX_FRAMES] if id(e) not in seen]
    return trace


def _message(error: BaseException) -> str:
    try:
        return clean_text(str.__str__(str(error)))
    except Exception as raised:  # noqa: BLE001 - a user's __str__
        return f"[{type(error).__name__}: str raised {type(raised).__name__}]"


def _frames(traceback: TracebackType | None) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        linecache.lazycache(code.co_filename, traceback.tb_frame.f_globals)  # how to find it later; reads nothing
        frames.append(
            {
                "file": clean_text(code.co_filename),
                "line": traceback.tb_lineno,
                "function": getattr(code, "co_qualname", code.co_name),
            }
        )
        if len(frames) > 2 * MAX_FRAMES:  # endless recursion: keep both ends
            del frames[MAX_FRAMES // 2]
        traceback = traceback.tb_next
    if len(frames) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        frames[half:-half] = [{"omitted": len(frames) - 2 * half}]
    return frames


def load_code_lines(bodies: list[LateBody]) -> None:
    """Add the source line to each frame. Reads files: for the I/O thread."""
    for body in bodies:
        pending = [body.trace]
        while pending:
            trace = pending.pop()
            for frame in trace["frames"]:
                if "file" in frame:
                    code = linecache.getline(frame["file"], frame["line"]).strip()
                    if code:
                        frame["code"] = clean_text(code)
            pending += [trace[name] for name in ("cause", "context") if name in trace]
            pending += trace.get("exceptions", [])
