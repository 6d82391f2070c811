"""The active segment file of one writer. Plain blocking calls, all made on the log's own I/O thread.

Every operation can be repeated after an OSError: what was written stays counted, and the next call goes on at the
byte where the last one stopped. Between two writes the file may be renamed, deleted or cut by others; that is
noticed before anything more is written to it (`SegmentLostError`), and a new segment begins.
"""

import contextlib
import errno
import os
import stat
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from ._retention import Layout, rotated_path, sibling_path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: no advisory locks, so one process for each path
    fcntl = None  # type: ignore[assignment]

__all__ = ["SegmentLostError", "SegmentWriter"]

FOOTER_ROOM: Final = 768
"""Bytes kept free below `max_bytes` for the closing lines."""
_CHUNK: Final = 1 << 20
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.002
_OPEN_TRIES: Final = 5
"""The file may be rotated away by its owner between opening and locking; then the path leads to another one."""
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class SegmentLostError(Exception):
    """The file at the path is no longer the one we write; `lines_written` of the chunk in hand had reached it."""

    def __init__(self, lines_written: int) -> None:
        super().__init__(lines_written)
        self.lines_written = lines_written


class _Footer(msgspec.Struct, tag="log.segment_closed", tag_field="event"):
    """What is needed of a closing line to go on after it."""

    bytes: int
    crc32: int


class _Begun(msgspec.Struct):
    """What is needed of the first line of a file: when it was begun."""

    timestamp: float


class _Segment:
    """One open, locked file: how far it is written, its checksum, and the bytes still to go."""

    def __init__(self, path: Path, fd: int, now: float, *, owner: bool) -> None:
        self.path = path
        self.fd = fd
        self.owner = owner
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.regular = stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.regular else 0
        self.crc = 0
        self.pending = memoryview(b"")
        self.start = self.size
        self.began = now
        """Unix seconds at which the file was begun, as its first line says."""
        self.torn_bytes = 0
        self.opened = False
        """Its opening lines are written."""
        self.sealed = False
        self.folder_synced = False
        self.lines = 0
        self.records = 0
        self.first_seq = 0
        self.last_seq = 0

    def lost(self) -> bool:
        """True if the path leads elsewhere now, or the file was cut or added to by others."""
        if not self.regular:
            return False
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self.identity or status.st_size != self.size

    def moved(self) -> bool:
        """True if the file is whole but has another name now."""
        status = os.fstat(self.fd)
        return status.st_nlink > 0 and status.st_size == self.size and not _same(self.path, self.identity)

    def put_later(self, data: bytes) -> None:
        """Add `data` to what is pending."""
        self.pending = memoryview(bytes(self.pending) + data) if self.pending else memoryview(data)

    def put(self, data: bytes) -> None:
        """Write all of `data`, behind what is pending."""
        self.put_later(data)
        self.flush()

    def flush(self) -> None:
        """Write what is pending; a short write goes on at the next byte. Raises OSError, keeping the rest."""
        while self.pending:
            written = os.write(self.fd, self.pending)
            self.crc = zlib.crc32(self.pending[:written], self.crc)
            self.size += written
            self.pending = self.pending[written:]

    def adopt(self) -> None:
        """Read what an earlier writer left in the file: its checksum so far, and whether its last line is torn.

        A file that ends in a closing line says its own checksum; any other is read whole.
        """
        if not self.regular or not self.size:
            return
        with contextlib.suppress(msgspec.MsgspecError):
            self.began = msgspec.json.decode(os.pread(self.fd, 8192, 0).partition(b"\n")[0], type=_Begun).timestamp
        tail = os.pread(self.fd, 8192, max(0, self.size - 8192))
        last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        if last.endswith(b"\n"):
            with contextlib.suppress(msgspec.MsgspecError):
                footer = msgspec.json.decode(last, type=_Footer)
                if footer.bytes == self.size - len(last):
                    self.crc = zlib.crc32(last, footer.crc32)
                    return
        offset = line_start = 0
        while data := os.pread(self.fd, _CHUNK, offset):
            self.crc = zlib.crc32(data, self.crc)
            newline = data.rfind(b"\n")
            if newline >= 0:
                line_start = offset + newline + 1
            offset += len(data)
        self.size = offset
        self.torn_bytes = offset - line_start

    def note(self, lines: int, records: int, last_seq: int) -> None:
        """Count lines that were written."""
        if not self.first_seq:
            self.first_seq = last_seq - lines + 1
        self.lines += lines
        self.records += records
        self.last_seq = last_seq


Opening = Callable[["SegmentWriter"], tuple[bytes, int]]
"""The first lines of a segment: (bytes, how many). Asked for once the file is open."""
Closing = Callable[["SegmentWriter"], bytes]
"""The closing line of the present segment."""


class SegmentWriter:
    """One writer's segments, one after another."""

    def __init__(
        self,
        path: Path,
        writer: str,
        *,
        max_bytes: int,
        backup_count: int,
        file_mode: int,
        opening: Opening,
        closing: Closing,
        next_seq: Callable[[], int],
        rotate_interval_s: float = 0,
        layout: Layout | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = Layout(path, backup_count) if layout is None else layout
        self._writer = writer
        self._max_bytes = max_bytes
        self._rotate_interval_s = rotate_interval_s
        self._mode = file_mode
        self._opening = opening
        self._closing = closing
        self._next_seq = next_seq
        self._clock = clock
        self._segment: _Segment | None = None
        self.previous_name: str | None = None
        self._beside = False
        """True once the path was held by another writer: one that writes beside it keeps its own name."""
        self._outgoing: list[int] = []
        """Descriptors of finished segments, held until the next one is locked: the lock is the sign of life."""
        self.segments = 0
        self.retention_error: OSError | None = None
        self._move_error: OSError | None = None

    # -- what the batcher asks ---------------------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The active file."""
        return self._segment.path if self._segment else None

    @property
    def fds(self) -> list[int]:
        """All descriptors held, for a forked child to close."""
        return [*self._outgoing, *([self._segment.fd] if self._segment else [])]

    @property
    def owner(self) -> bool:
        """Does this writer own the log's path, or will it, as far as is known?"""
        return self._segment is None or self._segment.owner

    @property
    def segment(self) -> _Segment:
        """The open segment, for the lines that describe it."""
        assert self._segment is not None
        return self._segment

    @property
    def fresh(self) -> bool:
        """The open file holds nothing but the opening lines: another one would have no more room."""
        return self._segment is not None and not self._segment.records and not self._segment.start

    def fits(self, size: int) -> bool:
        """Is there an open segment with room for `size` more bytes and its closing line?"""
        segment = self._segment
        if segment is None:
            return False
        return not self._max_bytes or not segment.regular or segment.size + size + FOOTER_ROOM <= self._max_bytes

    @property
    def overdue(self) -> bool:
        """Is the open segment older than the rotation interval? One without records waits for the first."""
        segment = self._segment
        if segment is None or not self._rotate_interval_s or not segment.regular or self.fresh:
            return False
        return self._clock() - segment.began >= self._rotate_interval_s

    @property
    def due(self) -> bool:
        """Is it overdue, or as large as it may be?"""
        segment = self._segment
        if segment is None or self.fresh or not segment.regular:
            return False
        return self.overdue or 0 < self._max_bytes <= segment.size

    def whole_lines(self, chunk: bytes) -> int:
        """How many lines of `chunk`, which is being written, are in the file whole. While a call hangs, at least."""
        segment = self._segment
        if segment is None or not chunk or len(segment.pending) > len(chunk):
            return 0
        return chunk.count(b"\n", 0, len(chunk) - len(segment.pending))

    # -- operations, each to be repeated until it does not raise OSError --------------------------------------------

    def open(self) -> None:
        """Begin a segment, if none is open: lock the file, close off a torn line, write the opening lines."""
        if self._segment is None:
            self._open_file()
        self._let_go()
        self.segment.flush()
        self.segment.opened = True

    def append(self, chunk: bytes, lines: int, records: int) -> None:
        """Write `chunk`, `lines` whole lines of which `records` are user records, and count it.

        After an OSError, `resume` with the same arguments goes on. Raises `SegmentLostError` if the file is not ours
        any more.
        """
        self.segment.put_later(chunk)
        self.resume(chunk, lines, records)

    def resume(self, chunk: bytes, lines: int, records: int) -> None:
        """Go on with an `append` that raised OSError."""
        segment = self.segment
        self._checked(segment, chunk, records)
        segment.flush()
        segment.note(lines, records, self._next_seq() - 1)

    def rotate(self) -> None:
        """Close the segment, rename it, begin the next, delete what retention does not keep."""
        segment = self._segment
        if (
            segment is not None and segment.opened
        ):  # else it is the next one, whose opening lines are to be gone on with
            if not segment.sealed:
                self._checked(segment)
            self._seal(segment)
            if _same(segment.path, segment.identity):  # else it was taken away meanwhile: nothing of ours to rename
                self.previous_name = self._move_away(segment.path)
            self._release()
        self.open()
        try:
            self._layout.prune(self.segment.path)
            self.retention_error = self._move_error
        except OSError as error:  # keeping too much is no reason to stop writing
            self.retention_error = error

    def sync(self) -> None:
        """fsync the file, and its folder once after it was created. Raises OSError; a later success proves nothing."""
        segment = self.segment
        if not segment.regular:
            return
        os.fsync(segment.fd)
        if not segment.folder_synced:
            _sync_folder(segment.path.parent)
            segment.folder_synced = True

    def close(self) -> None:
        """Write the closing line and give the file up."""
        if self._segment is not None:
            self._seal(self._segment)
            self._release()
        self._let_go()

    def abandon(self) -> None:
        """Give the file up as it is. The lock goes with the descriptor."""
        self._release()
        self._let_go()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _checked(self, segment: _Segment, chunk: bytes = b"", records: int = 0) -> None:
        """Raises `SegmentLostError` if the file is not ours any more; `chunk` is what is half written, if any.

        A file that was only renamed is finished under its new name: the rest of the chunk and a closing line.
        """
        if not segment.lost():
            return
        if segment.moved():
            segment.flush()
            if chunk and not segment.sealed:
                segment.note(chunk.count(b"\n"), records, self._next_seq() - 1)
            self._seal(segment)
        written = chunk.count(b"\n", 0, len(chunk) - len(segment.pending))
        self.previous_name = segment.path.name
        self._release()
        if _same(segment.path, segment.identity):  # cut or added to: the same file is to be locked anew
            self._let_go()
        raise SegmentLostError(written)

    def _move_away(self, path: Path) -> str:
        """Rename a finished file to where the layout wants it or, where that fails, beside it. Returns its new name."""
        now = self._clock()
        try:
            target = self._layout.rotated(path, now)
            os.rename(path, target)
            self._move_error = None
        except OSError as error:
            target = rotated_path(path, now)
            os.rename(path, target)
            self._move_error = error
        return target.name

    def _seal(self, segment: _Segment) -> None:
        """Write the closing line, once however often it is tried."""
        if not segment.sealed:
            segment.sealed = True
            segment.put(self._closing(self))
        segment.flush()

    def _release(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self._outgoing.append(segment.fd)

    def _let_go(self) -> None:
        while self._outgoing:
            _give_back(self._outgoing.pop())

    def _open_file(self) -> None:
        segment = self._lock_first_free()
        try:
            full = 0 < self._max_bytes <= segment.size + FOOTER_ROOM and segment.size > 0
            if full:
                self._move_away(segment.path)
            else:
                segment.adopt()
        except OSError:
            _give_back(segment.fd)
            raise
        if full:
            _give_back(segment.fd)
            segment = self._lock_first_free()
        self._segment = segment
        self.segments += 1
        segment.put_later(b"\n" if segment.torn_bytes else b"")
        opening, lines = self._opening(self)
        segment.put_later(opening)
        segment.note(lines, 0, self._next_seq() - 1)

    def _lock_first_free(self) -> _Segment:
        """Open and lock the log's path, or a file beside it if another writer holds that."""
        base = self._layout.active(self._clock())
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(base.parent)) from None
        beside = (sibling_path(base, self._writer), False)
        for path, owner in [beside] if self._beside else [(base, True), beside]:
            for _ in range(_OPEN_TRIES):
                fd = os.open(path, _FLAGS, self._mode)
                try:
                    segment = _Segment(path, fd, self._clock(), owner=owner)
                    if not segment.regular or ((locked := _lock(fd)) and _same(path, segment.identity)):
                        return segment
                except OSError:
                    os.close(fd)
                    raise
                os.close(fd)
                if not locked:
                    break
            self._beside = True
        raise BlockingIOError(f"{base} and {beside[0]} are held by other writers")


def _same(path: Path, identity: tuple[int, int]) -> bool:
    """Does `path` lead to that file?"""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == identity


def _lock(fd: int) -> bool:
    if fcntl is None:  # pragma: no cover - Windows
        return True
    for remaining in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if remaining:  # a reader that only looks whether the writer lives holds it for some microseconds
                time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def _give_back(fd: int) -> None:
    """Unlock and close. A child forked a moment ago may still have the descriptor, and would keep the lock with it."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # then the lock goes with the last descriptor
            fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
