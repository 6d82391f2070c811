"""The one thread in which GPUs are looked at: a driver may take seconds to answer, or never do."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from .._threads import start_daemon
from ._base import GpuReading, GpuSource
from ._gpu_states import GpuStates, describe, failure, look

__all__ = ["MAKE_AGAIN_S", "GpuThread"]

MAKE_AGAIN_S: Final = 60.0
"""Seconds until a source that could not be made is made again. A module that fails to be imported fails after up to a
tenth of a second of computing, which is too much for every look; what it lacked (descriptors, memory) may come back."""


class GpuThread:
    """Looks when asked to, one look at a time, on a daemon thread of its own that the first request starts.

    Nothing here waits for the driver, and a call that never returns keeps neither the log from closing nor the process
    from ending. Not for use in a forked child, which does not have the thread.
    """

    __slots__ = (
        "_clock",
        "_deliver",
        "_is_stopped",
        "_make_at",
        "_make_source",
        "_own_threads",
        "_requests",
        "_source",
        "_started",
        "_states",
        "outstanding_since",
    )

    def __init__(
        self,
        make_source: Callable[[], GpuSource],
        deliver: Callable[[GpuReading], None],
        own_threads: set[int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make_source` and `deliver` are called on the thread, whose id is in `own_threads` while it runs.

        `deliver` must hand the reading on without waiting. It may raise RuntimeError: the loop it is for is closed.
        """
        self.outstanding_since: float | None = None
        """When the look that has not come back was asked for (monotonic seconds); None: there is none. Stays after
        `stop` until the driver answers."""
        self._make_source = make_source
        self._deliver = deliver
        self._own_threads = own_threads
        self._clock = clock
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._started = False
        self._is_stopped = False
        self._source: GpuSource | None = None
        self._make_at = float("-inf")
        self._states = GpuStates()

    def request(self) -> bool:
        """Ask for a look, from the log's loop. False, and nothing done: the one before is out, or it is stopped.

        Where the system starts no more threads a reading with state `error` is delivered at once, from here; the next
        request tries again.
        """
        if self._is_stopped or self.outstanding_since is not None:
            return False
        self.outstanding_since = self._clock()
        self._requests.put(None)
        if not self._started:
            try:
                start_daemon(self._run)
            except RuntimeError as error:
                self._requests.get()
                self._hand_on(failure("error", describe(error)))
                return True
            self._started = True
        return True

    def stop(self) -> None:
        """Let the thread give up the source and end, as soon as the driver has answered. Never waits.

        No look begins and nothing is delivered from now on, except for a delivery that is under way on the thread.
        """
        self._is_stopped = True
        self._requests.put(None)

    def _run(self) -> None:
        self._own_threads.add(threading.get_ident())
        try:
            while self._is_asked():
                self._hand_on(self._look())
        finally:
            if self._source is not None:
                with contextlib.suppress(Exception):  # a defect of a source that nobody uses any more
                    self._source.close()
            self._own_threads.discard(threading.get_ident())

    def _is_asked(self) -> bool:
        self._requests.get()
        return not self._is_stopped

    def _look(self) -> GpuReading:
        now = self._clock()
        if self._source is None and now >= self._make_at:
            self._make_at = now + MAKE_AGAIN_S
            try:
                self._source = self._make_source()
            except BaseException as error:  # noqa: BLE001 - as in `look`
                return failure("error", describe(error))
        if self._source is None:
            return GpuReading(state=self._states.driver)
        return look(self._source, now)

    def _hand_on(self, reading: GpuReading) -> None:
        settled = self._states.settle(reading)
        self.outstanding_since = None  # before it is delivered: whoever gets it may ask for the next
        if not self._is_stopped:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to read it
                self._deliver(settled)
