"""Process-wide hooks: whatever ends or forks this process, every open log hears of it in time."""

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

from ._registry import OPEN_LOGS

__all__ = ["install", "install_in_child", "release_sigterm"]

_FINALIZE_PRIORITY: Final = -100
"""`multiprocessing.util.Finalize` runs higher numbers first; ours comes after a user's."""

_installed: set[str] = set()


def install(*, handle_sigterm: bool) -> None:
    """Hook exit, fork and, where nothing else handles it, SIGTERM. Does so once for each process."""
    if "exit" not in _installed:
        _installed.add("exit")
        atexit.register(_close_all, "atexit")
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork_in_child)
    install_in_child()
    in_main = threading.current_thread() is threading.main_thread()
    if handle_sigterm and in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def install_in_child() -> None:
    """In a process that multiprocessing started, exit skips atexit (before 3.13 and for forkservers)."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None or "finalize" in _installed:
        return
    from multiprocessing.util import Finalize  # loaded already: this process was started by it

    _installed.add("finalize")
    Finalize(None, _close_all, args=("exit of a worker process",), exitpriority=_FINALIZE_PRIORITY)


def release_sigterm() -> None:
    """Give SIGTERM its default action back once no open log wants it."""
    if any(log.expects_sigterm() for log in OPEN_LOGS):
        return
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _close_all(reason: str) -> None:
    for log in reversed(OPEN_LOGS.copy()):
        log.close(reason=reason)


def _on_sigterm(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Drain, then let the signal do what it would have done. Process 1 has no default action and goes on."""
    if os.getpid() == 1:
        for log in OPEN_LOGS.copy():
            log.flush()
        return
    _close_all("SIGTERM")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _after_fork_in_child() -> None:
    _installed.discard("finalize")
    for log in OPEN_LOGS:
        log.after_fork_in_child()
