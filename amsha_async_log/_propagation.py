"""Where a call comes from, told across processes and over HTTP: W3C Trace Context, and this library's own ids.

Carried keys: `traceparent` (https://www.w3.org/TR/trace-context/, version 00), `amsha-execution-id`, `amsha-step-id`,
`amsha-crew-name`. The ids are percent-encoded (RFC 3986), since header values are ASCII. Reading folds case and takes
`_` for `-`, so that the same names work as environment variables.
"""

import os
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

__all__ = ["Origin", "read_origin", "trace_id_of", "write_origin"]

EXECUTION: Final = "amsha-execution-id"
STEP: Final = "amsha-step-id"
CREW: Final = "amsha-crew-name"
PARENT: Final = "traceparent"
_OURS: Final = frozenset({EXECUTION, STEP, CREW, PARENT})

LONGEST: Final = 512
"""Characters that a carried id may have; a longer one is not believed."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Origin(NamedTuple):
    """What a carrier says. Empty: nothing."""

    trace_id: str = ""
    execution_id: str = ""
    step_id: str = ""
    crew_name: str = ""


def trace_id_of(execution_id: str) -> str:
    """32 hexadecimal digits for an execution: those of its UUID, else of a hash of its id; never all zero."""
    if _UUID.fullmatch(execution_id) and execution_id.strip("0-"):
        return execution_id.replace("-", "")
    return _hash(execution_id, 16)


def _span_id_of(run_id: str) -> str:
    """16 hexadecimal digits for an execution or step."""
    last = run_id.replace("-", "")[-16:]
    return last if _UUID.fullmatch(run_id) and last.strip("0") else _hash(run_id, 8)


def _hash(text: str, size: int) -> str:
    from hashlib import blake2b  # only ids that are no UUIDs need it, and it loads OpenSSL

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def write_origin(origin: Origin, carrier: Any) -> None:
    """Put what there is of `origin` into a mapping. A value that is empty is not written."""
    if not origin.trace_id:
        return
    run_id = origin.step_id or origin.execution_id
    span_id = _span_id_of(run_id) if run_id else os.urandom(8).hex()
    carrier[PARENT] = f"00-{origin.trace_id}-{span_id}-01"
    for key, value in ((EXECUTION, origin.execution_id), (STEP, origin.step_id), (CREW, origin.crew_name)):
        if value:
            carrier[key] = _quoted(value)


def _quoted(value: str) -> str:
    if value.isascii() and value.replace("-", "").replace("_", "").isalnum():
        return value
    from urllib.parse import quote  # rarely needed

    return quote(value, safe="", errors="backslashreplace")


def read_origin(carrier: Any) -> Origin:
    """What a mapping, or an iterable of pairs as servers give headers, says. What is malformed counts as absent.

    Keys and values may be bytes. Never raises.
    """
    try:
        found = _found(carrier)
    except Exception:  # noqa: BLE001 - a foreign mapping can raise anything; it then says nothing
        return Origin()
    trace_id = _trace_id(found.get(PARENT, ""))
    execution_id = _unquoted(found.get(EXECUTION, ""))
    if not execution_id:
        return Origin(trace_id)
    return Origin(
        trace_id or trace_id_of(execution_id),
        execution_id,
        _unquoted(found.get(STEP, "")),
        _unquoted(found.get(CREW, "")),
    )


def _trace_id(parent: str) -> str:
    """The trace id of a `traceparent`, empty where the specification says to ignore it."""
    match = _PARENT.fullmatch(parent.strip().lower())
    if match is None:
        return ""
    version, trace_id, span_id, _, more = match.groups()
    valid = version != "ff" and not (version == "00" and more) and trace_id.strip("0") and span_id.strip("0")
    return trace_id if valid else ""


def _found(carrier: Any) -> dict[str, str]:
    pairs: Iterable[tuple[object, object]] = carrier.items() if hasattr(carrier, "items") else carrier
    found: dict[str, str] = {}
    for key, value in list(pairs):
        name = _text(key).lower().replace("_", "-")
        if name in _OURS:
            found.setdefault(name, _text(value))
    return found


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("latin-1")
    return value if isinstance(value, str) else ""


def _unquoted(value: str) -> str:
    """The id, empty where it is too long or holds control characters."""
    value = value.strip()
    if "%" in value and len(value) <= 12 * LONGEST:  # a character takes up to 12 when it is quoted
        from urllib.parse import unquote  # rarely needed

        value = unquote(value)
    return value if len(value) <= LONGEST and not _CONTROL.search(value) else ""
