"""What is on a line: the envelope, the levels, and the events the log writes about itself.

This module is the contract between the writing side and the reader; `docs/format.md` explains it.
"""

import zlib
from types import MappingProxyType
from typing import Any, Final

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
    """Calls at or above the level."""
    accepted: int = 0
    """Of those, calls that returned True."""
    written: int = 0
    """Of the accepted, those in the file."""
    refused: int = 0
    """Turned away at the call, which returned False."""
    dropped: int = 0
    """Of the accepted, those given up because time ran out at the close."""
    failed: int = 0
    """Of the accepted, those lost to an error."""
    queued: int = 0
    """Of the accepted, those neither written nor lost yet."""
    degraded: int = 0
    """Lines with a value replaced by a marker, and `log_degraded`."""


class SegmentOpened(Struct, tag="log.segment_opened", tag_field="event", kw_only=True):
    """First line of a segment: who writes it. A file holds one segment per run that appended to it."""

    schema_version: int
    """Version of the format."""
    fingerprint: str
    """Checksum over names and fields of the log's own lines."""
    host: str
    """Name of the machine."""
    boot_id: str | None
    """The kernel's id of the time since it booted; None where there is none."""
    pid: int
    """Process id."""
    process_start: float | None
    """Unix seconds at which the operating system started the process."""
    program: str
    """Name of the program: that of its script unless configured."""
    versions: dict[str, str]
    """Versions of Python and of the packages that write, by name."""
    redaction: bool
    """Whether secrets are removed."""
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
    """Number of the first line of this segment, its header."""
    last_seq: int
    """Number of the last line before this one."""
    bytes: int
    """Size of the file before this line."""
    crc32: int
    """CRC-32 (zlib) of those `bytes` bytes: everything in the file before this line."""
    totals: Totals
    """Of the writer, when this line was written."""


class LogOpened(Struct, tag="log.opened", tag_field="event", kw_only=True):
    """Second line of a writer: the configuration it runs with."""

    config: dict[str, Any]
    """Option to value."""


class LogClosed(Struct, tag="log.closed", tag_field="event", kw_only=True):
    """The close report, as `CloseReport`; `reason` is what closed the log."""

    reason: str
    """What closed the log."""
    ok: bool
    """Whether everything accepted is in the file, and the file was closed in order."""
    offered: int
    """As in `totals`."""
    accepted: int
    """As in `totals`."""
    written: int
    """As in `totals`."""
    refused: int
    """As in `totals`."""
    dropped: int
    """As in `totals`."""
    failed: int
    """As in `totals`."""
    left_behind: int
    """Records still waiting when time ran out or the file could not be written; part of `dropped` or `failed`."""
    duration_seconds: float
    """How long closing took."""


class LogDropped(Struct, tag="log.dropped", tag_field="event", kw_only=True):
    """User records lost or refused since the last such line of this writer."""

    count: int
    """How many records."""
    by_reason: dict[str, int]
    """The same by why they were lost."""
    by_level: dict[str, int]
    """The same by level."""
    first_time: float
    """When the first of them was lost, in Unix seconds."""
    last_time: float
    """When the last of them was lost, in Unix seconds."""
    totals: Totals
    """Of the writer, when this line was written."""


class LogSinkFailed(Struct, tag="log.sink_failed", tag_field="event", kw_only=True):
    """The file could not be written from `since` on; said in the file once it can be written again."""

    error_type: str
    """Name of the exception's class."""
    error_message: str
    """What the system said."""
    since: float
    """Unix seconds."""


class LogSinkRecovered(Struct, tag="log.sink_recovered", tag_field="event", kw_only=True):
    """The file takes writes again."""

    duration_seconds: float
    """How long it did not."""
    attempts: int
    """How often writing was tried."""


class LogRecovered(Struct, tag="log.recovered", tag_field="event", kw_only=True):
    """A torn last line of an earlier writer was closed off with a newline before this segment began."""

    torn_bytes: int
    """Length of that fragment."""


def _fingerprint(*types: type[Struct]) -> str:
    """CRC-32 over names and fields: changes when a line's shape does, whatever the version says."""
    described = ";".join(f"{t.__struct_config__.tag}:{','.join(t.__struct_encode_fields__)}" for t in types)
    return f"{zlib.crc32(f'{SCHEMA_VERSION};{sorted(RESERVED)};{described}'.encode()):08x}"


SCHEMA_FINGERPRINT: Final = _fingerprint(
    SegmentOpened, SegmentClosed, LogOpened, LogClosed, LogDropped, LogSinkFailed, LogSinkRecovered, LogRecovered
)
