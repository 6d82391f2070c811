"""Exceptions as data: what was raised, where, and what had led to it. No local variables, which hold secrets.

The call takes what it must while the exception is at hand; the code lines, which are in files, are read later by the
log's I/O thread.
"""

import linecache
from collections import deque
from types import TracebackType
from typing import Any, Final

from ._snapshot import PREVIEW, clean_text, describe, describe_type, encode, shorten_text

__all__ = ["LateBody", "exception_fields", "load_code_lines"]

MAX_FRAMES: Final = 64
MAX_CHAIN: Final = 8
MAX_TEXT: Final = 8192
MAX_NOTES: Final = 16


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


def exception_fields(error: BaseException, limit: int) -> tuple[dict[str, str], dict[str, Any], bool]:
    """(`error_type` and `error_message`, the stack trace without its code lines, whether it had to be shortened).

    The trace is `{type, message, notes, frames: [{file, line, function}], cause | context, exceptions}`; frames
    from the outermost in, the middle left out beyond 64. Local variables are not recorded.
    """
    trace = _trace(error, set(), 0, MAX_TEXT)
    about = {"error_type": trace["type"], "error_message": trace["message"]}
    shortened = len(encode(trace)) > limit
    if shortened:
        trace = _trace(error, set(), MAX_CHAIN, PREVIEW)
        trace["frames"] = trace["frames"][-MAX_CHAIN:]
    return about, trace, shortened


_CAUSE, _CONTEXT, _SUPPRESS, _TRACEBACK, _ATTRIBUTES = (
    BaseException.__dict__[name].__get__
    for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__", "__dict__")
)
"""What an exception holds, whatever its class makes of the question."""


def _trace(error: BaseException, seen: set[int], depth: int, most: int) -> dict[str, Any]:
    seen.add(id(error))
    trace: dict[str, Any] = {"type": describe_type(error), "message": shorten_text(_message(error), most)}
    notes = _ATTRIBUTES(error).get("__notes__")
    if type(notes) is list and notes:
        texts = [clean_text(str.__str__(n)) if issubclass(type(n), str) else describe(n) for n in notes[:MAX_NOTES]]
        trace["notes"] = [shorten_text(text, most) for text in texts]
    trace["frames"] = _frames(_TRACEBACK(error))
    cause = _CAUSE(error)
    linked = _CONTEXT(error) if cause is None and not _SUPPRESS(error) else cause
    if linked is not None and id(linked) not in seen and depth < MAX_CHAIN:
        trace["context" if cause is None else "cause"] = _trace(linked, seen, depth + 1, most)
    if issubclass(type(error), BaseExceptionGroup) and depth < MAX_CHAIN:
        members = BaseExceptionGroup.exceptions.__get__(error)
        shown = [member for member in members[:MAX_FRAMES] if id(member) not in seen]
        trace["exceptions"] = [_trace(member, seen, depth + 1, most) for member in shown]
        if len(members) > len(shown):
            trace["exceptions"].append({"omitted": len(members) - len(shown), "frames": []})
    return trace


def _message(error: BaseException) -> str:
    try:
        return clean_text(str.__str__(str(error)))
    except Exception as raised:  # noqa: BLE001 - a user's __str__
        return f"[{describe_type(error)}: str raised {describe_type(raised)}]"


def _frames(traceback: TracebackType | None) -> list[dict[str, Any]]:
    """Both ends of the traceback, and how many frames were left out between them."""
    half = MAX_FRAMES // 2
    first: list[dict[str, Any]] = []
    last: deque[dict[str, Any]] = deque(maxlen=half)
    number = 0
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frame = {
            "file": clean_text(code.co_filename),
            "line": traceback.tb_lineno,
            "function": clean_text(code.co_qualname),
        }
        number += 1
        if len(first) < half:
            first.append(frame)
        else:
            last.append(frame)
        if number <= MAX_FRAMES or traceback.tb_next is None:
            _note_loader(code.co_filename, traceback.tb_frame.f_globals)
        traceback = traceback.tb_next
    left_out = number - len(first) - len(last)
    return [*first, *([{"omitted": left_out}] if left_out else []), *last]


def _note_loader(filename: str, module: dict[str, Any]) -> None:
    """Remember how to find the source of what is no file. Reads nothing."""
    try:
        linecache.lazycache(filename, module)
    except Exception:  # noqa: BLE001 - a module that lies about its loader costs its code lines
        linecache.cache.pop(filename, None)


def _code_line(frame: dict[str, Any]) -> str:
    try:
        return linecache.getline(frame["file"], frame["line"]).strip()
    except Exception:  # noqa: BLE001 - a loader that raises costs the code line only
        return ""


def load_code_lines(bodies: list[LateBody]) -> None:
    """Add the source line to each frame. Reads files: for the I/O thread."""
    for body in bodies:
        pending = [body.trace]
        while pending:
            trace = pending.pop()
            for frame in trace["frames"]:
                if "file" in frame:
                    code = _code_line(frame)
                    if code:
                        frame["code"] = clean_text(code[:PREVIEW])
            pending += [trace[name] for name in ("cause", "context") if name in trace]
            pending += trace.get("exceptions", [])
