"""Threads of the log's own, which never keep a process from ending."""

import _thread
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["DaemonExecutor", "start_daemon"]


def start_daemon(target: Callable[[], None]) -> None:
    """Run `target` on a new daemon thread. Takes no lock of `threading`, so it is legal in a signal handler.

    Raises RuntimeError when the interpreter is shutting down and starts no more threads.
    """
    _thread.start_new_thread(_traced, (target,))


def _traced(target: Callable[[], None]) -> None:
    """Let debuggers, profilers and coverage see the thread, as `threading.Thread` does."""
    if threading.gettrace() is not None:
        sys.settrace(threading.gettrace())
    if threading.getprofile() is not None:
        sys.setprofile(threading.getprofile())
    target()


class DaemonExecutor(Executor):
    """An executor with one daemon thread that is not joined at exit: a hung disk holds it, not the process.

    `concurrent.futures.ThreadPoolExecutor` is joined at interpreter exit and refuses work from then on.
    """

    def __init__(self, own_threads: set[int]) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._own_threads = own_threads
        start_daemon(self._run)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one call. Any thread."""
        future: Future[Any] = Future()
        self._jobs.put((future, lambda: function(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT002
        """Let the thread end once it has done what was submitted. Never waits for it."""
        self._jobs.put(None)

    def _run(self) -> None:
        self._own_threads.add(threading.get_ident())
        try:
            while (job := self._jobs.get()) is not None:
                future, call = job
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(call())
                    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                        future.set_exception(error)
                del future, call, job
        finally:
            self._own_threads.discard(threading.get_ident())
