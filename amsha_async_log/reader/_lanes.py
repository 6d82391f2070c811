"""Files in the order they were written.

A *lane* is one active file and what was rotated out of it: the files of one place in the order they were written.
"""

import gzip
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePath
from typing import BinaryIO, Final, NamedTuple, cast

from ..exceptions import ReadError
from ._lines import RawLine, raw_lines

__all__ = ["COMPRESSED", "Lane", "LogFile", "Name", "lanes_of", "open_file", "plain_name"]

COMPRESSED: Final = (".gz", ".zst")
_ROTATED: Final = re.compile(r"(?P<stem>.+)\.(?P<stamp>\d{8}T\d{6}Z)-(?P<number>\d+)")


class Name(NamedTuple):
    """What a file's name says: its lane, and its place in it."""

    stem: str
    """Of the lane's active file, the writer's id included for a file beside the owner's."""
    suffix: str
    stamp: str
    """UTC time of the rotation, empty for the active file."""
    number: int

    @classmethod
    def parse(cls, name: str) -> "Name":
        """Take a file name apart; every name is legal, if only as the active file of a lane of its own."""
        plain = PurePath(plain_name(name))
        stem, suffix = plain.stem, plain.suffix
        rotated = _ROTATED.fullmatch(stem)
        if rotated is None:
            return cls(stem, suffix, "", 0)
        return cls(rotated["stem"], suffix, rotated["stamp"], int(rotated["number"]))

    @property
    def order(self) -> tuple[bool, str, int]:
        """Sorts the files of a lane in the order they were written."""
        return (not self.stamp, self.stamp, self.number)


def plain_name(name: str) -> str:
    """The name without the ending that compression gave it."""
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name


class LogFile:
    """One file of a lane. `handle` and `size` are set while it is held open; `size` is then where reading ends."""

    __slots__ = ("gone", "handle", "name", "path", "running", "size")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = Name.parse(path.name)
        self.running: bool | None = False
        """A writer holds the lock on it; None where that cannot be known."""
        self.handle: BinaryIO | None = None
        self.size: int | None = None
        self.gone = False
        """It was not there any more when it was to be read."""

    def lines(self) -> Iterator[RawLine]:
        """The file's lines; none when retention took it away meanwhile. Raises `ReadError` when it cannot be read."""
        try:
            stream = self.open()
        except FileNotFoundError:
            compressed = self.path.with_name(self.path.name + ".gz")
            if not compressed.exists():
                self.gone = True
                return
            stream = open_file(compressed)
        with stream as opened:
            yield from raw_lines(opened, self.path, self.size)

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file at its beginning. Raises `FileNotFoundError` when it is gone, else as `open_file`."""
        if self.handle is not None:
            self.handle.seek(0)
            return nullcontext(self.handle)
        return open_file(self.path)

    def hold(self) -> None:
        """Keep the file open from now on, and read it up to its present size only."""
        if self.handle is None and self.path.suffix not in COMPRESSED:
            self.handle = open_file(self.path)
            self.size = os.fstat(self.handle.fileno()).st_size

    def release(self) -> None:
        """Close the file; it can still be read by its path."""
        if self.handle is not None:
            self.handle.close()
            self.handle = None


class Lane:
    """The files of one place in the order they were written, the active one last."""

    __slots__ = ("files",)

    def __init__(self, files: list[LogFile]) -> None:
        self.files = sorted(files, key=lambda file: file.name.order)

    @property
    def running(self) -> bool | None:
        """A writer holds the lock on the last file; None where that cannot be known."""
        return self.files[-1].running

    def lines(self) -> Iterator[RawLine]:
        """All lines, file after file. Raises `ReadError` when a file cannot be read."""
        for file in self.files:
            yield from file.lines()


def open_file(path: Path) -> BinaryIO:
    """Raises `FileNotFoundError` when the file is gone, `ReadError` for everything else."""
    if path.suffix == ".zst":
        message = f"cannot read {path}: zstd is not supported, decompress it first"
        raise ReadError(message)
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path))
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise ReadError(message) from error


def lanes_of(files: Iterable[Path]) -> list[Lane]:
    """Group files into lanes."""
    groups: dict[tuple[Path, str, str], list[LogFile]] = {}
    for path in files:
        file = LogFile(path)
        groups.setdefault((path.parent, file.name.stem, file.name.suffix), []).append(file)
    return [Lane(group) for group in groups.values()]
