"""Helpers shared by the tests: strict reading of lines, waiting without guessing, programs in a process of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ENVELOPE", "Lines", "poll", "read_lines", "run_python", "strict_loads", "user_fields", "user_lines"]

Lines = Callable[[], list[dict[str, Any]]]
"""What the fixture `lines` is: closes the log of the test and gives the program's lines."""

ENVELOPE = ("event", "timestamp", "level", "logger", "message", "writer", "seq")


def strict_loads(line: bytes | str) -> Any:
    """Decode JSON by the letter: no NaN or Infinity, no lone surrogate, UTF-8 if it is bytes, no field twice."""
    text = line.decode("utf-8") if isinstance(line, bytes) else line
    value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every line of a log file, decoded strictly; the last one must be complete."""
    data = Path(path).read_bytes()
    assert data == b"" or data.endswith(b"\n"), f"{path} ends in a torn line: {data[-80:]!r}"
    lines = [strict_loads(line) for line in data.split(b"\n")[:-1]]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def user_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of the program: all but those that the log writes about itself."""
    return [line for line in read_lines(path) if not line["event"].startswith("log.")]


def user_fields(line: dict[str, Any]) -> dict[str, Any]:
    """A line without its envelope."""
    return {name: value for name, value in line.items() if name not in ENVELOPE}


def poll(condition: Callable[[], Any], timeout_s: float = 10.0, every_s: float = 0.002) -> Any:
    """Ask until the answer is true, and return it; fails when it is not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not true within {timeout_s} s: {condition}"
        time.sleep(every_s)
    return answer


def run_python(program: str, *arguments: object, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, warnings as errors. Its exit code must be 0."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) != len(pairs) and "seq" in decoded:  # a line; a value may have the keys 1 and "1"
        raise ValueError(f"a key occurs twice: {[name for name, _ in pairs]}")
    return decoded
