"""Text on stderr: whole where somebody reads, left out where saying it would have to wait."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from amsha_async_log import _stderr


@contextlib.contextmanager
def stderr_into_a_pipe() -> Iterator[tuple[int, TextIO]]:
    """The reading end of a pipe, and the process's own stderr, which leads into it. Not a fixture: capture undoes those."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "__stderr__", stream)
        yield reading, stream
    os.close(reading)


def test_line_is_told() -> None:
    with stderr_into_a_pipe() as (reading, _):
        _stderr.tell("the disk is full")
        assert os.read(reading, 1000) == b"amsha_async_log: the disk is full\n"


def test_line_is_left_out_where_the_pipe_is_full() -> None:
    with stderr_into_a_pipe() as (reading, stream):
        os.set_blocking(stream.fileno(), False)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(stream.fileno(), bytes(4096))
        os.set_blocking(stream.fileno(), True)
        _stderr.tell("nobody reads this")
        os.set_blocking(reading, False)
        assert len(os.read(reading, filled + 1000)) == filled


def test_what_the_encoding_lacks_is_escaped() -> None:
    with stderr_into_a_pipe() as (reading, stream):
        _stderr.write(stream, "caf\udce9\n")
        assert os.read(reading, 1000) == b"caf\\udce9\n"


def test_stream_in_place_of_stderr_is_written_as_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    _stderr.tell("here")
    assert stream.getvalue() == "amsha_async_log: here\n"


@pytest.mark.parametrize("kind", ["absent", "closed"])
def test_without_a_stderr_nobody_is_told_and_nothing_raised(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", None if kind == "absent" else stream)
    assert _stderr.tell("x") is None
