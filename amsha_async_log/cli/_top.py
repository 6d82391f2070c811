"""`amsha-log top`: what runs in a log and what the machine does meanwhile, while it is written."""

import sys
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from ..reader._live import LiveLog
from ._render import counted, new_console, quiet_pipe, write_json
from ._top_frame import frame
from ._top_terminal import Keys, ending_in_order, keys, terminal_size

__all__ = ["LEAST_INTERVAL_S", "run_top"]

LEAST_INTERVAL_S: Final = 0.1
"""Faster than eyes follow; below it drawing would cost more than anybody wants to watch."""
_QUIT: Final = frozenset(b"qQ")


def run_top(paths: Sequence[str], *, interval_s: float, once: bool, json: bool) -> int:
    """Show the log until `q` or Ctrl-C; one frame with `once`, or where stdout is no terminal.

    `json`: a document a line for each refresh instead, until Ctrl-C or `once`. Returns the exit code.
    Raises `ReadError` when a path stands for nothing, also later on.
    """
    log = LiveLog(*paths)
    title = " ".join(paths) or "default log"
    try:
        with quiet_pipe():
            if json:
                _write_views(log, interval_s, once=once)
            elif once or not sys.stdout.isatty():
                log.catch_up()
                console = new_console()
                _size(console)
                for line in _lines(log, title, console.width, None):
                    console.print(line, overflow="crop", no_wrap=True, crop=True)
            else:
                _show(log, title, interval_s)
    except KeyboardInterrupt:
        pass  # how a user ends looking: nothing is wrong
    return 0


def _write_views(log: LiveLog, interval_s: float, *, once: bool) -> None:
    log.catch_up()
    while True:
        write_json(log.state.view())
        if once:
            return
        due = time.monotonic() + interval_s
        while log.behind or time.monotonic() < due:
            time.sleep(0 if log.behind else max(0.0, due - time.monotonic()))
            log.update()


def _show(log: LiveLog, title: str, interval_s: float) -> None:
    """On all of the terminal, until a key says that it is enough."""
    console = new_console()
    with ending_in_order(), keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            due = time.monotonic() + interval_s
            log.update()
            while log.behind and time.monotonic() < due:
                log.update()
            # What is still to be read does not wait; a look at the keys comes between all the same.
            if not _shown_until(time.monotonic() if log.behind else due, pressed, screen, console, log, title):
                return


def _shown_until(due: float, pressed: Keys, screen: Live, console: Console, log: LiveLog, title: str) -> bool:
    """Draw, and draw again when the terminal's size changes, until the time has come. False: it is enough."""
    while True:
        size = _size(console)
        lines = _lines(log, title, console.width, console.height)
        screen.update(Text("\n", end="").join(lines), refresh=True)
        while (typed := pressed.wait(max(0.0, due - time.monotonic()), size)) is not None:
            if not typed or not _QUIT.isdisjoint(typed):
                return False
        if time.monotonic() >= due:
            return True


def _size(console: Console) -> tuple[int, int] | None:
    """Follow the terminal: rich asks COLUMNS and LINES first, which nobody changes when a window is resized."""
    size = terminal_size()
    if size is not None:
        console.size = ConsoleDimensions(*size)
    return size


def _lines(log: LiveLog, title: str, width: int, height: int | None) -> list[Text]:
    state = log.state
    view = state.view(height)
    lines = frame(view, title, state.running, state.ended, width, height)
    said = "reading what the log holds so far" if log.behind else ""
    if log.unreadable:
        said += f"{', ' if said else ''}{counted(log.unreadable, 'unreadable line')} passed over"
    if said:
        lines.insert(2, Text(said, style="yellow"))
    lines = lines if height is None else lines[:height]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines
