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
from ._snapshot import clean_text, degrade_event, encode, hides_not_finite_event, mark_body
from ._stacktrace import LateBody
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


def _split(lines: bytes, number: int) -> list[bytes]:
    """The `number` values of an encoded sequence. JSON text holds no raw newline, unless somebody put it there."""
    values = lines.split(b"\n")
    values.pop()
    if len(values) != number:
        raise _BrokenLineError
    return values


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
        except BaseException:  # noqa: BLE001 - which record it was is found below, one at a time
            self.next_seq = first
        return b"".join([self._encode_one(record) for record in records])

    def own_line(self, event: Struct, timestamp: float, message: str, level: str = "INFO") -> bytes:
        """A line that the log writes about itself."""
        tag = str(event.__struct_config__.tag)
        source = self._own_sources.get((tag, level))
        if source is None:
            source = self._own_sources[tag, level] = make_source(tag, level, OWN_LOGGER)
            source.mid += b',"message":'
        try:
            body = b"{" + encode(event)[len(b'{"event":') + len(encode(tag)) + 1 :]
        except UnicodeEncodeError:  # a path that is not UTF-8
            body, _ = degrade_event(event, self._limit)
        return self._compose([Record(timestamp, source, b",", message, body, len(body))])

    def _encode_one(self, record: Record) -> bytes:
        first = self.next_seq
        try:
            return self._compose([record])
        except BaseException:  # noqa: BLE001 - whatever it was, the record below is clean
            self.next_seq = first
            self._clean(record)
            return self._compose([record])

    def _compose(self, records: Sequence[Record]) -> bytes:
        number = len(records)
        sources = [record.source for record in records]
        texts = [record.message for record in records]
        untexted = texts.count(None)  # typed events, encoded already or not
        width = 2 if untexted == number else 3
        scalars: list[object] = [None] * (width * number)
        scalars[0::width] = [record.timestamp for record in records]
        scalars[1::width] = range(self.next_seq, self.next_seq + number)
        if width > 2:  # noqa: PLR2004
            scalars[2::width] = texts
        encoded = _split(_lines(scalars), width * number)
        messages = [b""] * number if untexted == number else encoded[2::width]
        if 0 < untexted < number:
            messages = [b"" if text is None else message for text, message in zip(texts, messages, strict=True)]
        contexts = [record.context for record in records]
        bodies: list[Any] = [record.body for record in records]
        late = [i for i, body in enumerate(bodies) if body.__class__ is not bytes]
        tails = self._late_tails(late, bodies, sources) if late else [body[1:] for body in bodies]
        if b"}" in tails:  # no fields, hence no comma before them either
            contexts = [
                context if len(tail) > 1 else context.rstrip(b",")
                for context, tail in zip(contexts, tails, strict=True)
            ]
        pieces: list[bytes] = [b"\n"] * (_PIECES * number)
        pieces[0::_PIECES] = [source.head for source in sources]
        pieces[1::_PIECES] = encoded[0::width]
        pieces[2::_PIECES] = [source.mid for source in sources]
        pieces[3::_PIECES] = messages
        pieces[4::_PIECES] = [self._writer] * number
        pieces[5::_PIECES] = encoded[1::width]
        pieces[6::_PIECES] = contexts
        pieces[7::_PIECES] = tails
        text = b"".join(pieces)
        # Raw JSON with newlines in it would be read as lines of its own. In typed events `_split` has looked for it.
        if len(late) < number and text.count(b"\n") != number:
            raise _BrokenLineError
        if late and text.rfind(b"null") >= 0 and self._degrade_not_finite([records[i] for i in late]):
            return self._compose(records)
        self.next_seq += number
        return text

    def _late_tails(self, late: list[int], bodies: list[Any], sources: list[Source]) -> list[bytes]:
        """Each body without its opening brace; those of `late` are encoded first, the typed events in one call."""
        events = [i for i in late if bodies[i].__class__ is not LateBody]
        encoded = _split(_lines([bodies[i] for i in events]), len(events))
        if events and len(max(encoded, key=len)) > self._limit:
            raise _TooLargeError
        if len(events) == len(bodies):
            return [body[source.cut + 1 :] or b"}" for body, source in zip(encoded, sources, strict=True)]
        tails = [b"" if body.__class__ is not bytes else body[1:] for body in bodies]
        for i, body in zip(events, encoded, strict=True):
            tails[i] = body[sources[i].cut + 1 :] or b"}"
        for i in set(late).difference(events):
            tails[i] = bodies[i].finish()[1:]
            if b"\n" in tails[i]:
                raise _BrokenLineError
        return tails

    def _degrade_not_finite(self, records: list[Record]) -> bool:
        """Degrade those events whose NaN or infinity became a null. True if there were any."""
        found = False
        for record in records:
            if isinstance(record.body, Struct) and hides_not_finite_event(encode(record.body), record.body):
                self._degraded_event(record)
                found = True
        return found

    def _event_body(self, event: Any, cut: int) -> bytes:
        body = encode(event)
        if len(body) > self._limit:
            raise _TooLargeError
        return b"{" + (body[cut + 1 :] or b"}")

    def _degraded_event(self, record: Record) -> bytes:
        """Degrade the event of a record, in the record: it may have to be encoded again, but is counted once."""
        record.body, replaced = degrade_event(record.body, self._limit)  # type: ignore[arg-type]
        if replaced:
            self.degraded.append(record.source.level)
        return record.body

    def _clean(self, record: Record) -> None:
        """Make message and body certain to encode."""
        body = record.body
        if isinstance(body, LateBody):
            body = body.finish()
        elif not isinstance(body, bytes):
            try:
                body = self._event_body(body, record.source.cut)
            except BaseException:  # noqa: BLE001 - a value msgspec cannot encode; see `degrade_event`
                body = self._degraded_event(record)
        first = False
        if b"\n" in body:
            body, first = mark_body(body, "", "")
        if record.message is not None and clean_text(record.message) != record.message:
            record.message = clean_text(record.message)
            body, first = mark_body(body, "message", "not UTF-8")
        record.body = body
        if first:
            self.degraded.append(record.source.level)
