"""Names of segment files, and which of them may go.

Active: `<stem><suffix>` for the owner of the path, `<stem>.<writer><suffix>` for everybody else. Rotated: the active
name with `.<UTC time>-<n>` before the suffix, which sorts in write order even when the clock steps back.
"""

import os
import re
import time
from pathlib import Path
from typing import Final

__all__ = ["prune", "rotated_path", "sibling_path"]

_STAMP: Final = r"(\d{8}T\d{6}Z)-(\d{6})"
_HEADER_START: Final = b'{"event":"log.segment_opened"'


def sibling_path(path: Path, writer: str) -> Path:
    """Where a writer that does not own `path` writes."""
    return path.with_name(f"{path.stem}.{writer}{path.suffix}")


def rotated(path: Path) -> list[Path]:
    """The rotated segments of the active file `path`, oldest first. Raises OSError if the folder cannot be read."""
    pattern = re.compile(rf"{re.escape(path.stem)}\.{_STAMP}{re.escape(path.suffix)}")
    names = sorted(name for name in os.listdir(path.parent) if pattern.fullmatch(name))
    return [path.parent / name for name in names]


def rotated_path(path: Path, now: float) -> Path:
    """A new name for the active file `path`, after every name it has given away so far."""
    stamp, number = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)), 1
    for last in rotated(path)[-1:]:
        match = re.search(_STAMP, last.name.removeprefix(path.stem))
        if match and match[1] >= stamp:
            stamp, number = match[1], int(match[2]) + 1
    return path.with_name(f"{path.stem}.{stamp}-{number:06d}{path.suffix}")


def prune(path: Path, keep: int) -> None:
    """Delete the oldest rotated segments of `path` beyond `keep` (0: none). Only files that a log began.

    Raises OSError if one cannot be deleted.
    """
    if not keep:
        return
    for old in rotated(path)[:-keep]:
        with old.open("rb") as file:
            if file.read(len(_HEADER_START)) != _HEADER_START:
                continue
        old.unlink()
