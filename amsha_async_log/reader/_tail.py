"""The end of a log, and what is added to it."""

import os
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from heapq import merge
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from ._files import StrPath, find_files, snapshot
from ._lanes import COMPRESSED, Lane, LogFile, lanes_of, open_file
from ._lines import MAX_LINE_BYTES, decode_record
from ._merge import time_of_record

__all__ = ["Follower"]

Record = dict[str, Any]

BLOCK_BYTES: Final = 64 * 1024  # first read from the end of a file; doubled until it holds the lines wanted
POLL_BYTES: Final = 8 * 1024 * 1024  # read per file and poll, so that a burst does not fill the memory
_HEAD_BYTES: Final = 256  # by these a file is known again: its number alone may be given to a new one
_SETTLE_TRIES: Final = 5
_POLLS_KEPT: Final = 4  # polls after which a file that is no longer there is forgotten


class FileId(NamedTuple):
    """A file, whatever its name is by now."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileId":
        return cls(status.st_dev, status.st_ino)


class Position:
    """How far a file has been read."""

    __slots__ = ("absent", "changed_at", "head", "offset")

    def __init__(self, offset: int, head: bytes, changed_at: int = 0) -> None:
        self.offset = offset
        self.head = head
        self.changed_at = changed_at
        """Nanoseconds of its last change when it was read: a new file with its number, even as large, has another."""
        self.absent = 0
        """Polls since it was last there."""


class Follower:
    """Gives the last lines of a log, and then those that are added, through rotations and for new writers too.

    Paths as for `reader.records`. Lines come as dicts, ordered by time within one call. Segments that appear compressed
    are not read again. Not thread-safe.
    """

    def __init__(self, *paths: StrPath) -> None:
        self._paths = paths
        self._positions: dict[FileId, Position] = {}
        self.unreadable: int = 0
        """Lines passed over because they are no JSON objects."""
        self.behind: bool = False
        """The last `poll` left something unread, since it reads only so much of a file at once."""

    def start(self, last: int = 10) -> list[Record]:
        """The last `last` lines (0: none), oldest first. Raises `ReadError` as `records` does."""
        with snapshot(self._paths) as lanes:
            ends = [self._end_of(lane, last) for lane in lanes]
        merged = merge(*ends, key=_time)
        return list(deque(merged, maxlen=last))

    def poll(self) -> list[Record]:
        """The complete lines added since the last call; empty when there are none. Does not wait.

        A call reads at most 8 MiB of each file; the rest comes with the next. Raises `ReadError` as `records` does.
        """
        self.behind = False
        for position in self._positions.values():
            position.absent += 1
        with ExitStack() as opened:
            added = [self._added(streams) for streams in self._open_changed(opened)]
        for file_id in [key for key, position in self._positions.items() if position.absent >= _POLLS_KEPT]:
            del self._positions[file_id]
        return list(merge(*added, key=_time))

    def _end_of(self, lane: Lane, wanted: int) -> list[Record]:
        """The last lines of a lane; notes for each file that it has been read."""
        found: list[list[Record]] = []
        for file in reversed(lane.files):
            lines = self._last_lines(file, wanted)
            wanted -= len(lines)
            found.append(lines)
        return [record for lines in reversed(found) for record in lines]

    def _last_lines(self, file: LogFile, wanted: int) -> list[Record]:
        if file.path.suffix in COMPRESSED:
            if wanted <= 0:
                return []
            return list(deque((r for line in file.lines() for r in self._decoded([line.data])), maxlen=wanted))
        try:
            stream = file.open()
        except FileNotFoundError:
            return []
        with stream as opened:
            status = os.fstat(opened.fileno())
            end = status.st_size if file.size is None else file.size
            lines, rest = _lines_before(opened, end, wanted)
            self._positions[FileId.of(status)] = Position(end - len(rest), _head(opened), status.st_ctime_ns)
        return self._decoded(lines)[-wanted:] if wanted > 0 else []

    def _open_changed(self, opened: ExitStack) -> list[list[BinaryIO]]:
        """The files with something new in them, by lane and in order; nothing was rotated while they were opened."""
        for _ in range(_SETTLE_TRIES):
            paths = find_files(self._paths)
            with ExitStack() as attempt:
                lanes = lanes_of(path for path in paths if path.suffix not in COMPRESSED)
                try:
                    streams = [
                        [attempt.enter_context(open_file(file.path)) for file in lane.files if self._changed(file.path)]
                        for lane in lanes
                    ]
                except FileNotFoundError:
                    continue
                if find_files(self._paths) == paths:
                    opened.push(attempt.pop_all())
                    return streams
        return []  # the next poll sees it

    def _changed(self, path: Path) -> bool:
        status = path.stat()
        position = self._positions.get(FileId.of(status))
        if position is None:
            return True
        position.absent = 0
        return (position.offset, position.changed_at) != (status.st_size, status.st_ctime_ns)

    def _added(self, streams: list[BinaryIO]) -> list[Record]:
        """The new lines of a lane, up to the first file that has more than one call reads."""
        records = []
        for stream in streams:
            lines, more = self._new_lines(stream)
            records += self._decoded(lines)
            if more:
                self.behind = True
                break
        return records

    def _new_lines(self, stream: BinaryIO) -> tuple[list[bytes], bool]:
        """Complete lines, and whether the file has more than was read."""
        status = os.fstat(stream.fileno())
        position = self._positions.get(FileId.of(status))
        head = _head(stream)
        if position is None or position.offset > status.st_size or not head.startswith(position.head):
            position = self._positions[FileId.of(status)] = Position(0, b"")
        position.head, position.changed_at = head, status.st_ctime_ns
        stream.seek(position.offset)
        data = _read(stream, POLL_BYTES)
        size = POLL_BYTES
        while b"\n" not in data and len(data) == size < MAX_LINE_BYTES:
            data += _read(stream, size)
            size *= 2
        more = len(data) == size
        complete, newline, _rest = data.rpartition(b"\n")
        if not newline and size < MAX_LINE_BYTES:
            return [], more  # the line is still being written
        position.offset += len(complete) + 1 if newline else len(data)
        return complete.split(b"\n") if newline else [data], more

    def _decoded(self, lines: Iterable[bytes]) -> list[Record]:
        records = []
        for line in lines:
            record = decode_record(line)
            if record is None:
                self.unreadable += 1
            else:
                records.append(record)
        return records


def _lines_before(stream: BinaryIO, end: int, wanted: int) -> tuple[list[bytes], bytes]:
    """The last complete lines before `end`, at least `wanted` if there are as many, and the bytes after the last."""
    start, block, newlines = end, BLOCK_BYTES, 0
    pieces: deque[bytes] = deque()
    while start > 0 and newlines <= max(0, wanted):
        size = min(block, start)
        start -= size
        stream.seek(start)
        piece = _read(stream, size)
        pieces.appendleft(piece)
        newlines += piece.count(b"\n")
        block *= 2
    complete, newline, rest = b"".join(pieces).rpartition(b"\n")
    lines = complete.split(b"\n") if newline else []
    if start > 0:
        lines = lines[1:]  # its beginning was not read
    return lines, rest


def _read(stream: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end of the file."""
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _head(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return _read(stream, _HEAD_BYTES)


def _time(record: Record) -> float:
    time = time_of_record(record)
    return -inf if time is None else time
