"""Records to lines: numbers them and composes each line from pieces that are encoded a slice at a time.

A line is `head timestamp mid [message] ,"writer":…,"seq": seq context body`. Head, mid and context are encoded once
and shared; timestamps, messages and numbers of a slice are encoded in one call, typed events in another. Building
and encoding one struct or dict a record instead costs a quarter to three quarters more (bench/README.md).
"""

import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from ._queue import Record, Source
from ._snapshot import LateBody, clean_text, degrade_event, encode, hides_not_finite_event, mark_body
from .records import LEVELS, OWN_LOGGER

__all__ = ["LineEncoder", "make_source"]

_PIECES: Final = 9
_lines = msgspec.json.Encoder().encode_lines


def make_source(event: str, level: str, logger: str, *, cut: int = 0, lifecycle: bool = False) -> Source:
    """The shared parts of the lines of one logger, level and event."""
    typed = event != "log"
    return Source(
        event,
        level,
        LEVELS[level],
        b'{"event":%b,"timestamp":' % encode(clean_text(event)),
        b',"level":%b,"logger":%b%b' % (encode(level), encode(clean_text(logger)), b"" if typed else b',"message":'),
        cut=cut,
        lifecycle=lifecycle,
    )


class _BrokenLineError(ValueError):
    """A body holds a newline."""


class _TooLargeError(ValueError):
    """An event is longer than a record may be."""


class LineEncoder:
    """Gives every line of one writer its number, from 1 and without gaps. Used by one thread at a time."""

    def __init__(self, writer: str, max_record_bytes: int) -> None:
        self.next_seq = 1
        self.degraded: list[str] = []
        """Levels of records degraded here since this was last emptied."""
        self._writer = b',"writer":%b,"seq":' % encode(writer)
        self._limit = max_record_bytes or sys.maxsize
        self._own_sources: dict[tuple[str, str], Source] = {}

    def encode(self, records: Sequence[Record]) -> bytes:
        """One line for each record, in order. Never raises because of a value: such a record is degraded in place."""
        first = self.next_seq
        try:
            return self._compose(records)
        except Exception:  # noqa: BLE001 - which record it was is found below, one at a time
            self.next_seq = first
        return b"".join([self._encode_one(record) for record in records])

    def own_line(self, event: Struct, timestamp: float, message: str, level: str = "INFO") -> bytes:
        """A line that the log writes about itself."""
        tag = str(event.__struct_config__.tag)
        source = self._own_sources.get((tag, level))
        if source is None:
            source = self._own_sources[tag, level] = make_source(tag, level, OWN_LOGGER)
            source.mid += b',"message":'
        body = b"{" + encode(event)[len(b'{"event":') + len(encode(tag)) + 1 :]
        return self._compose([Record(timestamp, source, b",", message, body, len(body))])

    def _encode_one(self, record: Record) -> bytes:
        first = self.next_seq
        try:
            return self._compose([record])
        except Exception:  # noqa: BLE001 - whatever it was, the record below is clean
            self.next_seq = first
            self._clean(record)
            return self._compose([record])

    def _compose(self, records: Sequence[Record]) -> bytes:
        number = len(records)
        sources = [record.source for record in records]
        texts = [record.message for record in records]
        scalars: list[object] = [None] * (3 * number)
        scalars[0::3] = [record.timestamp for record in records]
        scalars[1::3] = texts
        scalars[2::3] = range(self.next_seq, self.next_seq + number)
        encoded = _lines(scalars).split(b"\n")  # JSON text holds no raw newline, so this is exact
        encoded.pop()
        messages = encoded[1::3]
        bodies = [record.body for record in records]
        contexts = [record.context for record in records]
        events: list[int] = []
        if None in texts:  # typed events, encoded already or not
            events = [i for i, text in enumerate(texts) if text is None]
            self._encode_events(events, sources, messages, bodies, contexts)
        for i in [i for i, body in enumerate(bodies) if body.__class__ is LateBody]:
            bodies[i] = bodies[i].finish()  # type: ignore[attr-defined]
        pieces: list[bytes] = [b"\n"] * (_PIECES * number)
        pieces[0::_PIECES] = [source.head for source in sources]
        pieces[1::_PIECES] = encoded[0::3]
        pieces[2::_PIECES] = [source.mid for source in sources]
        pieces[3::_PIECES] = messages
        pieces[4::_PIECES] = [self._writer] * number
        pieces[5::_PIECES] = encoded[2::3]
        pieces[6::_PIECES] = contexts
        pieces[7::_PIECES] = [body[1:] for body in bodies]  # type: ignore[index]  # all are bytes by now
        text = b"".join(pieces)
        if text.count(b"\n") != number:  # raw JSON with newlines in it: would be read as lines of its own
            raise _BrokenLineError
        if events and text.rfind(b"null") >= 0 and self._degrade_not_finite([records[i] for i in events]):
            return self._compose(records)
        self.next_seq += number
        return text

    def _encode_events(
        self,
        events: list[int],
        sources: list[Source],
        messages: list[bytes],
        bodies: list[Any],
        contexts: list[bytes],
    ) -> None:
        for i in events:
            messages[i] = b""
            body = bodies[i]
            if body.__class__ is bytes or body.__class__ is LateBody:
                continue
            body = self._event_body(body, sources[i].cut)
            if len(body) > len(b"{}"):
                bodies[i] = body
            else:  # no field but the tag, hence no comma either
                bodies[i] = b"{}"
                contexts[i] = contexts[i][:-1]

    def _event_body(self, event: Any, cut: int) -> bytes:
        body = encode(event)
        if len(body) > self._limit:
            raise _TooLargeError
        return body[cut:]

    def _degrade_not_finite(self, records: list[Record]) -> bool:
        """Degrade those events whose NaN or infinity became a null. True if there were any."""
        found = False
        for record in records:
            if isinstance(record.body, Struct) and hides_not_finite_event(encode(record.body), record.body):
                self._degraded_event(record)
                found = True
        return found

    def _degraded_event(self, record: Record) -> bytes:
        """Degrade the event of a record, in the record: it may have to be encoded again, but is counted once."""
        self.degraded.append(record.source.level)
        record.body = body = degrade_event(record.body, self._limit)  # type: ignore[arg-type]
        return body

    def _clean(self, record: Record) -> None:
        """Make message and body certain to encode."""
        body = record.body
        if isinstance(body, LateBody):
            body = body.finish()
        elif not isinstance(body, bytes):
            try:
                body = self._event_body(body, record.source.cut)
                record.context = record.context if len(body) > len(b"{}") else record.context[:-1]
                body = body if len(body) > len(b"{}") else b"{}"
            except Exception:  # noqa: BLE001 - a value msgspec cannot encode
                body = self._degraded_event(record)
        first = False
        if b"\n" in body:
            body, first = mark_body(body, "", "")
        if record.message is not None and clean_text(record.message) != record.message:
            record.message = clean_text(record.message)
            if body == b"{}":
                record.context += b","
            body, first = mark_body(body, "message", "not UTF-8")
        record.body = body
        if first:
            self.degraded.append(record.source.level)
