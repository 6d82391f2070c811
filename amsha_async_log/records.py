"""What is on a line: the envelope, the levels, and the events the log writes about itself.

This module is the contract between the writing side and the reader; `docs/format.md` explains it.
"""

import zlib
from types import MappingProxyType
from typing import Final

from msgspec import Struct

__all__ = [
    "LEVELS",
    "LEVEL_NAMES",
    "OWN_LOGGER",
    "RESERVED",
    "SCHEMA_FINGERPRINT",
    "SCHEMA_VERSION",
    "LogClosed",
    "LogDropped",
    "LogOpened",
    "LogRecovered",
    "LogSinkFailed",
    "LogSinkRecovered",
    "SegmentClosed",
    "SegmentOpened",
    "Totals",
]

SCHEMA_VERSION: Final = 1

LEVELS: Final = MappingProxyType({"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50})
"""Level name to number; the numbers are those of the standard library's `logging`."""

LEVEL_NAMES: Final = MappingProxyType({number: name for name, number in LEVELS.items()})

RESERVED: Final = frozenset({"timestamp", "level", "event", "logger", "message", "writer", "seq"})
"""Envelope keys. A user field with one of these names gets a trailing underscore."""

OWN_LOGGER: Final = "amsha_async_log"
"""Value of `logger` on the lines that the log writes about itself (`event` starts with `log.`)."""


class Totals(Struct, frozen=True):
    """Cumulative counts of user records since the writer began.

    `offered = accepted + refused`, and `accepted = written + dropped + failed + queued`.
    """

    offered: int = 0
    accepted: int = 0
    written: int = 0
    refused: int = 0
    dropped: int = 0
    failed: int = 0
    queued: int = 0
    degraded: int = 0


class SegmentOpened(Struct, tag="log.segment_opened", tag_field="event", kw_only=True):
    """First line of a segment: who writes it. A file holds one segment per run that appended to it."""

    schema_version: int
    fingerprint: str
    host: str
    boot_id: str | None
    pid: int
    process_start: float | None
    """Unix seconds at which the operating system started the process."""
    program: str
    versions: dict[str, str]
    redaction: bool
    owner: bool
    """True: this writer owns the log's path. False: it writes beside the owner."""
    previous_segment: str | None
    """File name of this writer's segment before this one, None for its first."""


class SegmentClosed(Struct, tag="log.segment_closed", tag_field="event", kw_only=True):
    """Last line of a segment that ended in order. Its own last key, `line_crc32`, is the CRC-32 of what precedes it."""

    records: int
    """User records in this segment: its lines less those whose event starts with `log.`."""
    lines: int
    """All lines of this segment before this one, the header included."""
    first_seq: int
    last_seq: int
    bytes: int
    """Size of the file before this line."""
    crc32: int
    """CRC-32 (zlib) of those `bytes` bytes: everything in the file before this line."""
    totals: Totals


class LogOpened(Struct, tag="log.opened", tag_field="event", kw_only=True):
    """Second line of a writer: the configuration it runs with."""

    config: dict[str, object]


class LogClosed(Struct, tag="log.closed", tag_field="event", kw_only=True):
    """The close report, as `CloseReport`; `reason` is what closed the log."""

    reason: str
    ok: bool
    offered: int
    accepted: int
    written: int
    refused: int
    dropped: int
    failed: int
    left_behind: int
    duration_seconds: float


class LogDropped(Struct, tag="log.dropped", tag_field="event", kw_only=True):
    """User records lost or refused since the last such line of this writer."""

    count: int
    by_reason: dict[str, int]
    by_level: dict[str, int]
    first_time: float
    last_time: float
    totals: Totals


class LogSinkFailed(Struct, tag="log.sink_failed", tag_field="event", kw_only=True):
    """The file could not be written from `since` on; said in the file once it can be written again."""

    error_type: str
    error_message: str
    since: float


class LogSinkRecovered(Struct, tag="log.sink_recovered", tag_field="event", kw_only=True):
    """The file takes writes again."""

    duration_seconds: float
    attempts: int


class LogRecovered(Struct, tag="log.recovered", tag_field="event", kw_only=True):
    """A torn last line of an earlier writer was closed off with a newline before this segment began."""

    torn_bytes: int


def _fingerprint(*types: type[Struct]) -> str:
    """CRC-32 over names and fields: changes when a line's shape does, whatever the version says."""
    described = ";".join(f"{t.__struct_config__.tag}:{','.join(t.__struct_encode_fields__)}" for t in types)
    return f"{zlib.crc32(f'{SCHEMA_VERSION};{sorted(RESERVED)};{described}'.encode()):08x}"


SCHEMA_FINGERPRINT: Final = _fingerprint(
    SegmentOpened, SegmentClosed, LogOpened, LogClosed, LogDropped, LogSinkFailed, LogSinkRecovered, LogRecovered
)
