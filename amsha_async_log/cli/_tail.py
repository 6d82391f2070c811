"""`amsha-log tail`: the last lines of a log, and what is added to it."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from rich.console import Console

from ..reader import Follower
from ._render import complain, counted, new_console, quiet_pipe, record_text, write_json

__all__ = ["run_tail"]

POLL_S: Final = 0.2
"""Pause between two looks at the files: short enough to feel immediate, and about 1 % of a core for 100 files."""


def run_tail(
    paths: Iterable[str], *, lines: int, follow: bool, json: bool, pause: Callable[[float], None] = time.sleep
) -> int:
    """Print the last `lines` records and, with `follow`, those that are added until Ctrl-C. Returns the exit code."""
    follower = Follower(*paths)
    console = new_console()
    try:
        with quiet_pipe():
            _show(console, follower.start(lines), json=json)
            while follow:
                pause(POLL_S)
                _show(console, follower.poll(), json=json)
    except KeyboardInterrupt:
        pass  # how a user ends following: nothing is wrong
    if follower.unreadable and not json:
        skipped = counted(follower.unreadable, "unreadable line")
        complain(f"{skipped} passed over, see amsha-log verify")
    return 0


def _show(console: Console, records: Iterable[dict[str, Any]], *, json: bool) -> None:
    for record in records:
        if json:
            write_json(record)
        else:
            console.print(record_text(record), soft_wrap=True)
    sys.stdout.flush()
