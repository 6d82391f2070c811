"""Names of segment files, and which of them may go.

Active: `<stem><suffix>` for the owner of the path, `<stem>.<writer><suffix>` for everybody else. Rotated: the active
name with `.<UTC time>-<n>` before the suffix, which sorts in write order even when the clock steps back.
"""

import os
import re
import time
from pathlib import Path
from typing import Final

__all__ = ["HEADER_START", "Layout", "prune", "rotated", "rotated_path", "sibling_path"]

_STAMP: Final = r"(\d{8}T\d{6}Z)-(\d{6})"
HEADER_START: Final = b'{"event":"log.segment_opened"'
"""How every file begins that a log has begun."""


def sibling_path(path: Path, writer: str) -> Path:
    """Where a writer that does not own `path` writes."""
    return path.with_name(f"{path.stem}.{writer}{path.suffix}")


def rotated(path: Path, folder: Path | None = None) -> list[Path]:
    """The rotated segments of the active file `path`, oldest first. Raises OSError if the folder cannot be read.

    `folder`: where they are; None: beside it.
    """
    folder = path.parent if folder is None else folder
    pattern = re.compile(rf"{re.escape(path.stem)}\.{_STAMP}{re.escape(path.suffix)}")
    names = sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))
    return [folder / name for name in names]


def rotated_path(path: Path, now: float, folder: Path | None = None) -> Path:
    """A new name for the active file `path`, in `folder` or beside it, after every name it has given away so far."""
    folder = path.parent if folder is None else folder
    stamp, number = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)), 1
    for last in rotated(path, folder)[-1:]:
        match = re.search(_STAMP, last.name.removeprefix(path.stem))
        if match and match[1] >= stamp:
            stamp, number = match[1], int(match[2]) + 1
    return folder / f"{path.stem}.{stamp}-{number:06d}{path.suffix}"


def prune(path: Path, keep: int) -> None:
    """Delete the oldest rotated segments of `path` beyond `keep` (0: none). Only files that a log began.

    Raises OSError if one cannot be deleted.
    """
    if not keep:
        return
    for old in rotated(path)[:-keep]:
        with old.open("rb") as file:
            if file.read(len(HEADER_START)) != HEADER_START:
                continue
        old.unlink()


class Layout:
    """Where the segments of a log are, and which of the finished ones are kept. Used on the log's I/O thread only."""

    def __init__(self, path: Path, backup_count: int) -> None:
        self._path = path
        self._backup_count = backup_count

    def active(self, now: float) -> Path:  # noqa: ARG002 - for layouts whose names tell the date
        """The file that a segment begun at `now` (Unix seconds) is written to by the path's owner."""
        return self._path

    def rotated(self, path: Path, now: float) -> Path:
        """Where the active file `path`, finished at `now`, goes. Raises OSError if that cannot be found out."""
        return rotated_path(path, now)

    def prune(self, path: Path) -> None:
        """Delete the finished segments of `path` that are not kept. Raises OSError if one cannot be deleted."""
        prune(path, self._backup_count)
