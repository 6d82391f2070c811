"""Text on stderr that holds no lock of Python's while the other end does not read.

A thread that waits inside `sys.stderr.write` keeps the stream's lock, and the interpreter waits for that lock when it
ends. So what goes to the process's own stderr goes to its descriptor. A stream that a program put in its place
(a capture, a progress bar, a notebook) is written as that stream wants to be.
"""

import contextlib
import os
import select
import sys
from typing import TextIO

__all__ = ["tell", "write"]


def tell(text: str) -> None:
    """Say one line, the only place left when the file does not work. Not said where saying it would have to wait."""
    stream = sys.stderr
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr, or a closed one: nobody to tell
        descriptor = _descriptor(stream)
        if descriptor is None or select.select([], [descriptor], [], 0)[1]:
            write(stream, f"amsha_async_log: {text}\n")


def write(stream: TextIO, text: str) -> None:
    """Write all of `text`, waiting as long as it takes. Raises what the stream raises."""
    descriptor = _descriptor(stream)
    if descriptor is None:
        stream.write(text)
        stream.flush()
        return
    rest = memoryview(text.encode(stream.encoding, "backslashreplace"))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _descriptor(stream: TextIO) -> int | None:
    """The descriptor to write to if `stream` is the process's own stderr, else None."""
    if stream is not sys.__stderr__ or sys.platform == "win32":  # a Windows console is no plain descriptor
        return None
    return stream.fileno()
