"""Lines for a person: what they look like, and that a terminal can neither hold the log up nor be harmed by it."""

import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import poll, user_lines

from amsha_async_log._console import MAX_CHUNKS, Console, format_line
from amsha_async_log._pipeline import Log


def line_of(message: str | None = "hello", event: str = "log", **fields: Any) -> bytes:
    envelope = {"event": event, "timestamp": 1763805000.1234, "level": "INFO", "logger": "amsha.crew"}
    if message is not None:
        envelope["message"] = message
    return json.dumps({**envelope, "writer": "w", "seq": 1, **fields}).encode()


# -- what a line looks like --------------------------------------------------------------------------------------------


def test_line_shows_time_level_logger_message_and_fields() -> None:
    text = format_line(line_of(count=3, name="writer", nested={"a": [1]}))
    assert text[2] == text[5] == ":"
    assert text[8:].startswith(".123 INFO     amsha.crew  hello count=3 name=writer nested=")
    assert text.endswith('{"a":[1]}\n')


def test_typed_event_shows_its_name_in_place_of_the_message() -> None:
    assert "file.operation operation=save" in format_line(line_of(None, "file.operation", operation="save"))


def test_envelope_and_stack_trace_are_not_repeated_as_fields() -> None:
    text = format_line(line_of(stacktrace={"frames": []}, error_type="E"))
    assert "stacktrace" not in text
    assert "seq=" not in text
    assert "error_type=E" in text


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\x07", "\r", "\x00", "\x7f", "\x08", "\x85", "\x90"])
@pytest.mark.parametrize("where", ["message", "value", "name", "nested", "logger"])
def test_control_characters_are_shown_not_sent(character: str, where: str) -> None:
    hostile = f"a{character}[31mb"
    line = {
        "message": lambda: line_of(hostile),
        "value": lambda: line_of(field=hostile),
        "name": lambda: line_of(**{hostile: 1}),
        "nested": lambda: line_of(field=[{hostile: hostile}]),
        "logger": lambda: line_of(logger=hostile),
    }[where]()
    text = format_line(line)
    assert character not in text[:-1]
    assert text.count("\n") == 1


def test_line_breaks_in_a_message_stay_on_one_line() -> None:
    assert "one\\ntwo\\tthree" in format_line(line_of("one\ntwo\tthree"))


@given(st.text(), st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_any_line_prints_as_one_line_without_control_characters(message: str, fields: dict[str, Any]) -> None:
    reserved = {"event", "timestamp", "level", "logger", "writer", "seq", "message"}
    text = format_line(line_of(message, **{name: value for name, value in fields.items() if name not in reserved}))
    assert text.endswith("\n")
    assert not [c for c in text[:-1] if ord(c) < 32 or 127 <= ord(c) < 160]


@pytest.mark.parametrize(
    "event", ["log.segment_opened", "log.opened", "log.closed", "log.segment_closed", "log.recovered"]
)
def test_own_events_are_hidden(event: str) -> None:
    assert format_line(line_of("own", event)) == ""


@pytest.mark.parametrize("event", ["log.dropped", "log.sink_failed", "log.sink_recovered"])
def test_own_events_that_tell_of_trouble_are_shown(event: str) -> None:
    assert "own" in format_line(line_of("own", event))


def test_program_event_that_only_begins_like_an_own_one_is_shown() -> None:
    assert "logged" in format_line(line_of("logged", "logger.started"))


# -- streams that misbehave --------------------------------------------------------------------------------------------


class Stream(io.StringIO):
    """A stream that fails, or that stands still until it is let go."""

    def __init__(self, error: BaseException | None = None, *, stuck: bool = False) -> None:
        super().__init__()
        self.error = error
        self.go_on = threading.Event()
        self.reached = threading.Event()
        if not stuck:
            self.go_on.set()

    def write(self, text: str) -> int:
        self.reached.set()
        self.go_on.wait(60)
        if self.error is not None:
            raise self.error
        return super().write(text)


def test_lines_are_printed_in_order() -> None:
    stream = Stream()
    console = Console(stream)
    for number in range(100):
        console.show(line_of(str(number)) + b"\n", 1)
    poll(lambda: stream.getvalue().count("\n") == 100)
    console.close()
    assert [line.split()[3] for line in stream.getvalue().splitlines()] == [str(number) for number in range(100)]
    assert console.dropped == 0


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(), BlockingIOError(), ValueError("closed"), UnicodeEncodeError("ascii", "é", 0, 1, "no")],
    ids=lambda error: type(error).__name__,
)
def test_lines_a_stream_does_not_take_are_counted(error: Exception) -> None:
    console = Console(Stream(error))
    console.show(b"\n".join([line_of("a"), line_of("b")]) + b"\n", 2)
    poll(lambda: console.dropped == 2)
    console.close()


@pytest.mark.parametrize("error", [RuntimeError("odd"), TypeError("odd"), LookupError("codec")], ids=repr)
def test_stream_that_raises_anything_does_not_end_the_console(error: Exception) -> None:
    stream = Stream(error)
    console = Console(stream)
    console.show(line_of("lost") + b"\n", 1)
    poll(lambda: console.dropped == 1, timeout_s=3)
    stream.error = None
    console.show(line_of("shown") + b"\n", 1)
    poll(lambda: "shown" in stream.getvalue(), timeout_s=3)
    console.close()


def test_closed_stream_is_counted() -> None:
    stream = io.StringIO()
    stream.close()
    console = Console(stream)
    console.show(line_of() + b"\n", 1)
    poll(lambda: console.dropped == 1)
    console.close()


def test_stuck_stream_holds_nobody_up_and_what_it_misses_is_counted() -> None:
    stream = Stream(stuck=True)
    console = Console(stream)
    console.show(line_of("first") + b"\n", 1)
    assert stream.reached.wait(10)
    for _ in range(MAX_CHUNKS + 50):
        console.show(line_of("more") * 3, 3)
    assert console.dropped == 50 * 3
    stream.go_on.set()
    poll(lambda: stream.getvalue().count("\n") >= 1)
    console.close()


def test_absent_stderr_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    console = Console()
    console.show(line_of() + b"\n", 1)
    poll(lambda: console.dropped == 1)
    console.close()


# -- with a log --------------------------------------------------------------------------------------------------------


def test_console_prints_what_the_file_has(
    opened: Callable[..., Log], log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    log = opened(console=True)
    log.info("to both", a=1)
    log.debug("to none")
    log.flush()
    poll(lambda: "to both a=1" in stream.getvalue())
    log.close()
    assert "to none" not in stream.getvalue()
    assert "log opened" not in stream.getvalue()
    assert len(user_lines(log_path)) == 1


def test_stuck_stderr_delays_neither_call_nor_flush_nor_close(
    opened: Callable[..., Log], log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(stuck=True)
    monkeypatch.setattr(sys, "stderr", stream)
    log = opened(console=True)
    try:
        for number in range(MAX_CHUNKS + 20):
            log.info("message", number=number)
            assert log.flush(timeout_s=30)
        assert log.close().ok
        assert log.stats().console_dropped > 0
    finally:
        stream.go_on.set()
    assert len(user_lines(log_path)) == MAX_CHUNKS + 20


def test_stderr_that_fails_is_counted_in_the_stats(
    opened: Callable[..., Log], log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(BrokenPipeError()))
    log = opened(console=True)
    log.info("message")
    log.flush()
    poll(lambda: log.stats().console_dropped == 1)
    log.close()
    assert len(user_lines(log_path)) == 1


# -- on a terminal -----------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from amsha_async_log import open_log
console = {"auto": "auto", "True": True, "False": False}[sys.argv[2]]
with open_log(sys.argv[1], console=console) as log:
    log.info("hello from the program", color="\\x1b[31mred", number=5)
    log.flush()
    if sys.argv[3] == "wait":
        sys.stdin.readline()
"""


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """(our end, the program's end) of a pseudo-terminal."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read_until(descriptor: int, text: bytes) -> bytes:
    """Read from a terminal until `text` was seen."""
    os.set_blocking(descriptor, False)
    seen = b""

    def look() -> bool:
        nonlocal seen
        try:
            seen += os.read(descriptor, 65536)
        except BlockingIOError:
            pass
        return text in seen

    poll(look, timeout_s=20)
    return seen


def start(log_path: Path, console: str, stderr: Any, then: str = "wait") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(log_path), console, then]
    return subprocess.Popen(command, stderr=stderr, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("console", ["auto", "True"])
def test_lines_are_printed_on_a_terminal(log_path: Path, console: str) -> None:
    with terminal() as (ours, theirs):
        with start(log_path, console, theirs) as program:
            seen = read_until(ours, b"number=5")
            program.communicate(b"\n", timeout=20)
    assert b"hello from the program" in seen
    assert b"\x1b" not in seen
    assert program.returncode == 0
    assert len(user_lines(log_path)) == 1


def test_nothing_is_printed_on_a_terminal_when_the_console_is_off(log_path: Path) -> None:
    with terminal() as (ours, theirs):
        with start(log_path, "False", theirs) as program:
            program.communicate(b"\n", timeout=20)
        os.write(theirs, b"end")
        assert read_until(ours, b"end") == b"end"


@pytest.mark.parametrize(("console", "printed"), [("auto", False), ("True", True), ("False", False)])
def test_stderr_that_is_a_file_gets_lines_only_when_asked_for(
    log_path: Path, tmp_path: Path, console: str, printed: bool
) -> None:
    captured = tmp_path / "stderr.txt"
    with captured.open("wb") as file, start(log_path, console, file) as program:
        if printed:
            poll(lambda: "hello from the program" in captured.read_text(), timeout_s=20)
        program.communicate(b"\n", timeout=20)
    assert ("hello from the program" in captured.read_text()) is printed
    assert len(user_lines(log_path)) == 1


def test_last_lines_of_a_program_that_ends_at_once_are_printed(log_path: Path) -> None:
    with terminal() as (ours, theirs):
        with start(log_path, "auto", theirs, "end") as program:
            program.communicate(b"", timeout=20)
        os.write(theirs, b"end")
        assert b"hello from the program" in read_until(ours, b"end")


def test_terminal_that_nobody_reads_does_not_hold_the_exit_up(log_path: Path) -> None:
    flood = PROGRAM.replace(
        "    log.flush()", "    for n in range(3000): log.info('x' * 200, number=n)\n    log.flush()"
    )
    with terminal() as (_, theirs):
        command = [sys.executable, "-c", flood, str(log_path), "auto", "end"]
        done = subprocess.run(command, stderr=theirs, stdin=subprocess.DEVNULL, timeout=40, check=False)
    assert done.returncode == 0
    assert len(user_lines(log_path)) == 3001
