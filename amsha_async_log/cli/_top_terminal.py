"""The terminal while all of it is in use: keys one by one, its size, and everything as it was at the end."""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

__all__ = ["Keys", "ending_in_order", "keys", "terminal_size"]

_LOOK_S: Final = 0.25
"""Between two looks at the terminal's size while waiting: a resize shows at once, and a look costs microseconds."""


class Keys:
    """Keys pressed, as they come. Without a terminal on stdin there are none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, timeout_s: float, size: tuple[int, int] | None) -> bytes | None:
        """What was typed, as soon as there is something; None when the time is over or the size is not `size`.

        Empty when the terminal is gone.
        """
        end = time.monotonic() + timeout_s
        while True:
            left = max(0.0, end - time.monotonic())
            slice_s = min(left, _LOOK_S)
            if self._descriptor is None:
                time.sleep(slice_s)
            elif select.select([self._descriptor], [], [], slice_s)[0]:
                try:
                    return os.read(self._descriptor, 1024)
                except OSError:  # the terminal was closed
                    return b""
            if left <= _LOOK_S or terminal_size() != size:
                return None


@contextmanager
def keys() -> Iterator[Keys]:
    """Take keys without Enter and without echo; Ctrl-C stays what it is, Ctrl-Z does nothing."""
    descriptor = _terminal_input()
    if descriptor is None or termios is None:
        yield Keys(None)
        return
    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
    changed[6][termios.VSUSP] = os.fpathconf(descriptor, "PC_VDISABLE").to_bytes(1, "big")
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _terminal_input() -> int | None:
    try:
        return sys.stdin.fileno() if sys.stdin.isatty() else None
    except (AttributeError, ValueError, OSError):  # there is none, it is closed, or not a file
        return None


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program through all `finally`, so that the terminal is put back."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminal_size() -> tuple[int, int] | None:
    """Columns and lines of the terminal on stdout; None where that is none, or does not know."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (AttributeError, ValueError, OSError):
        return None
    return (size.columns, size.lines) if size.columns > 0 and size.lines > 0 else None
