"""Run small programs in a process of their own and look at the files they leave."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 60
"""A program that takes longer than this hangs."""


def program(code: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """Start `code` as a script, with warnings as errors and the arguments in `sys.argv`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AMSHA_LOG_")}
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            textwrap.dedent(code),
        ]
        + [str(arg) for arg in args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        **options,
    )


def run(code: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `code` to its end."""
    with program(code, *args, **options) as process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"the program hangs; so far it said: {out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every line of every file in `folder`, by writer and number. Each must be whole and valid."""
    found = [json.loads(line) for file in folder.iterdir() for line in file.read_bytes().splitlines()]
    return sorted(found, key=lambda line: (line["writer"], line["seq"]))


def records(folder: Path) -> list[dict[str, Any]]:
    """The user records among them."""
    return [line for line in lines(folder) if not line["event"].startswith("log.")]


def check_complete(folder: Path, *, closed: bool = True) -> None:
    """Each writer's numbers run from 1 without a gap or a double and, if `closed`, it said that it closed."""
    by_writer: dict[str, list[dict[str, Any]]] = {}
    for line in lines(folder):
        by_writer.setdefault(line["writer"], []).append(line)
    for writer, own in by_writer.items():
        assert [line["seq"] for line in own] == list(range(1, len(own) + 1)), writer
        if closed:
            assert [line["event"] for line in own[-2:]] == ["log.closed", "log.segment_closed"], writer


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Poll `condition` until it is true, and return what it returned."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError(f"never happened: {what}")
