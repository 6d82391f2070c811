"""Which writers of a log hold the lock on their file at this moment."""

import os
from typing import Final

from ._files import Paths, snapshot
from ._lanes import COMPRESSED, LogFile
from ._lines import Envelope, LineDecoder

__all__ = ["writers_alive"]

_BLOCK_BYTES: Final = 64 * 1024  # first read from the end of a file
_MOST_BYTES: Final = 16 * 1024 * 1024  # and the most; a last line as long as this tells nothing

_ENVELOPES: Final = LineDecoder(Envelope)


def writers_alive(paths: Paths) -> dict[str, bool | None]:
    """The writer of the last line of each active file, and whether the file is locked. None: that cannot be known.

    Writers that are not in it have no active file: they have ended. Raises `ReadError` as `records` does.
    """
    found: dict[str, bool | None] = {}
    with snapshot(paths) as lanes:
        for lane in lanes:
            name = _last_writer(lane.files[-1])
            if name is not None and found.get(name) is not True:
                found[name] = lane.running
    return found


def _last_writer(file: LogFile) -> str | None:
    if file.path.suffix in COMPRESSED:
        return None  # no writer is at work in it
    try:
        with file.open() as stream:
            end = os.fstat(stream.fileno()).st_size if file.size is None else file.size
            size = min(_BLOCK_BYTES, end)
            while True:
                stream.seek(end - size)
                lines = stream.read(size).split(b"\n")
                for line in reversed(lines if size == end else lines[1:]):
                    envelope = _ENVELOPES.decode(line)
                    if envelope is not None:
                        return envelope.writer
                if size == end or size >= _MOST_BYTES:
                    return None
                size = min(8 * size, end)
    except FileNotFoundError:  # rotated away and deleted: whoever wrote it goes on elsewhere, or has ended
        return None
