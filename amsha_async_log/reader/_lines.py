"""From bytes to lines, and from a line to a struct, whatever state the file is in."""

import json
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from math import isfinite
from typing import Annotated, Any, BinaryIO, Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..exceptions import ReadError
from ..records import Totals

__all__ = ["DamagedFileError", "Envelope", "LineDecoder", "OwnLine", "RawLine", "decode_record", "raw_lines"]

CHUNK_BYTES: Final = 128 * 1024  # one read; large enough that the loop around it does not show
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""A longer line is handed out in pieces: it is no line of a log, and must not fill the memory."""

S = TypeVar("S", bound=Struct)


class DamagedFileError(ReadError):
    """A compressed file can be opened, but not decompressed to its end."""


class RawLine(NamedTuple):
    """The bytes of one line, or of a piece of one."""

    number: int
    """Counted from 1 in its file."""
    data: bytes
    """Without the newline."""
    ended: bool
    """A newline follows."""
    first: bool = True
    """False for the second and later pieces of a line longer than `MAX_LINE_BYTES`."""
    last: bool = True
    """False for a piece that others follow."""

    @property
    def torn(self) -> bool:
        """The file ends in the middle of this line."""
        return self.last and not self.ended


def raw_lines(stream: BinaryIO, name: object, size: int | None = None) -> Iterator[RawLine]:
    """Split a file into its lines. Holds one chunk and one line at a time.

    `size` ends the reading after that many bytes; None reads to the end. Raises `ReadError`, naming `name`, when the
    file cannot be read, also when it is compressed and damaged.
    """
    number = 1
    held: list[bytes] = []
    held_bytes = 0
    first = True
    for chunk in _chunks(stream, name, size):
        *ended, rest = chunk.split(b"\n")
        for data in ended:
            if held:
                data = b"".join((*held, data))  # noqa: PLW2901
                held.clear()
                held_bytes = 0
            yield RawLine(number, data, ended=True, first=first)
            number += 1
            first = True
        if rest:
            held.append(rest)
            held_bytes += len(rest)
            if held_bytes > MAX_LINE_BYTES:
                yield RawLine(number, b"".join(held), ended=False, first=first, last=False)
                held.clear()
                held_bytes = 0
                first = False
    if held or not first:
        yield RawLine(number, b"".join(held), ended=False, first=first)


def _chunks(stream: BinaryIO, name: object, size: int | None) -> Iterator[bytes]:
    left = size
    try:
        while left is None or left > 0:
            chunk = stream.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk
    except (EOFError, BadGzipFile, zlib.error) as error:
        message = f"cannot read {name}: the compressed file is damaged ({error})"
        raise DamagedFileError(message) from error
    except OSError as error:
        message = f"cannot read {name}: {error.strerror or error}"
        raise ReadError(message) from error


class Envelope(Struct, gc=False):
    """What every line of the log has."""

    writer: str
    seq: Annotated[int, Meta(ge=1)]
    event: str = "log"
    timestamp: float | None = None


class OwnLine(Envelope, kw_only=True):
    """What the reader needs of the lines that the log writes about itself; one struct for all of them.

    The fields are those of the structs in `records`. None: the line has no such field.
    """

    previous_segment: str | None = None
    records: int | None = None
    lines: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    bytes: int | None = None
    crc32: int | None = None
    torn_bytes: int | None = None
    totals: Totals | None = None
    refused: int | None = None
    dropped: int | None = None
    failed: int | None = None


class LineDecoder(Generic[S]):
    """Decodes lines into one type of struct; a field of the wrong type takes its default and loses nothing else."""

    def __init__(self, shape: type[S]) -> None:
        self._shape = shape
        self._decoder = msgspec.json.Decoder(shape)
        self._fields = msgspec.structs.fields(shape)

    def decode(self, data: bytes) -> S | None:
        """The struct; None when the line is not JSON, not UTF-8, not an object, or lacks a field without default."""
        try:
            if not data.isascii():
                data.decode()  # msgspec skips over what it does not need without looking at its encoding
            return self._decoder.decode(data)
        except msgspec.ValidationError:
            return self._tolerant(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _tolerant(self, data: bytes) -> S | None:
        values = decode_record(data)
        return None if values is None else self._piecewise(values)

    def convert(self, values: dict[str, Any]) -> S | None:
        """The struct of a line that is decoded already; None when it lacks a field without default."""
        for value in values.values():
            if type(value) is float and not isfinite(value):
                return self._piecewise(values)
        try:
            return msgspec.convert(values, self._shape)
        except msgspec.ValidationError:
            return self._piecewise(values)

    def _piecewise(self, values: dict[str, Any]) -> S | None:
        kept = {}
        for field in self._fields:
            if field.encode_name in values:
                try:
                    value = msgspec.convert(values[field.encode_name], field.type)
                except msgspec.ValidationError:
                    continue  # the default stands for it
                if not isinstance(value, float) or isfinite(value):
                    kept[field.name] = value
        try:
            return self._shape(**kept)
        except TypeError:
            return None


def decode_record(data: bytes) -> dict[str, Any] | None:
    """The line as a dict; None when it is not a JSON object in UTF-8."""
    try:
        value = msgspec.json.decode(data)
    except msgspec.ValidationError:  # a number that no float can hold
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):  # and what comes after it is no JSON
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
