"""Lines on stderr for a person: a thread of its own and a bounded buffer, so that a stuck terminal holds nobody up."""

import queue
import sys
import threading
import time
from typing import Any, Final, TextIO

import msgspec

from . import _stderr
from ._threads import start_daemon

__all__ = ["Console"]

MAX_CHUNKS: Final = 256
"""Batches that may wait for the terminal; further ones are not shown, only counted."""

_SHOWN_OWN: Final = frozenset({"log.dropped", "log.sink_failed", "log.sink_recovered"})
_HIDDEN: Final = frozenset({"event", "timestamp", "level", "logger", "message", "writer", "seq", "stacktrace"})
_CONTROL: Final = {n: f"\\x{n:02x}" for n in [*range(0x20), *range(0x7F, 0xA0)]} | {0x0A: "\\n", 0x09: "\\t"}


class Console:
    """Prints chunks of encoded lines in order. `show` is called on the log's thread and never waits."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._chunks: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self.dropped = 0
        """Lines not shown because the terminal was too slow or broken."""
        start_daemon(self._run)

    def show(self, chunk: bytes, lines: int) -> None:
        """Queue one batch for printing."""
        if self._chunks.qsize() >= MAX_CHUNKS:
            self.dropped += lines
        else:
            self._chunks.put((chunk, lines))

    def close(self, wait_s: float = 0.0) -> None:
        """Let the thread end after what is queued. Waits for that for at most `wait_s` seconds."""
        self._chunks.put(None)
        self._ended.wait(wait_s)

    def _run(self) -> None:
        while (item := self._chunks.get()) is not None:
            chunk, lines = item
            try:
                _stderr.write(self._stream or sys.stderr, "".join([format_line(line) for line in chunk.splitlines()]))
            except Exception:  # noqa: BLE001 - closed, full, absent or odd: the file has the lines
                self.dropped += lines
        self._ended.set()


def format_line(line: bytes) -> str:
    """One line of JSON as text: time, level, logger, message, fields. Control characters are shown, not sent."""
    record: dict[str, Any] = msgspec.json.decode(line)
    event = record["event"]
    if event.startswith("log.") and event not in _SHOWN_OWN:
        return ""
    clock = time.strftime("%H:%M:%S", time.localtime(record["timestamp"]))
    millis = int(record["timestamp"] % 1 * 1000)
    message = record.get("message") or event
    fields = "".join(f" {k}={_brief(v)}" for k, v in record.items() if k not in _HIDDEN)
    text = f"{clock}.{millis:03d} {record['level']:<8} {record['logger']}  {message}{fields}"
    return text.translate(_CONTROL) + "\n"


def _brief(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
