"""Is an event loop in time? Asked from outside: a callback is sent to it, and how long it takes to run is its lag.

All that runs in the loop is that callback (about 2 us), a few times a second. While it does not come back the loop
hangs, and the frame that holds it up can be read from its thread.
"""

import asyncio
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from .. import events

__all__ = ["LoopProbe", "describe_frames"]

_LAGS_KEPT: Final = 4096
_MAX_FRAMES: Final = 64
_STANDARD_LIBRARY: Final = sysconfig.get_paths()["stdlib"]
_SITE: Final = sysconfig.get_paths()["purelib"]


class LoopProbe:
    """Measures one loop. `ping`, `stalled` and `sample` belong to one thread, which is not the loop's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        *,
        period_ns: int,
        stall_ns: int,
        on_lag: Callable[[int], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`period_ns`: between two pings. `stall_ns`: how long it may not run before it is said to hang (0: never).

        `on_lag` is told each lag in nanoseconds, on the thread that calls `ping`.
        """
        self.loop = loop
        self.name = name
        self._period_ns = period_ns
        self._stall_ns = stall_ns
        self._on_lag = on_lag
        self._clock = clock
        self._answers: deque[tuple[int, int, int, int]] = deque(maxlen=_LAGS_KEPT)
        """Of each ping that came back: when it was sent and ran, the loop's CPU time then, and its thread."""
        self._sent_ns: int | None = None
        self._stall_said = False
        self._thread_id = 0
        self._lags: list[int] = []
        self._stalls = 0
        self._first: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None

    @property
    def closed(self) -> bool:
        """The loop will never run again."""
        return self.loop.is_closed()

    def ping(self) -> None:
        """Take the answers in and, if none is outstanding, send the next one."""
        self._take_answers()
        if not self.loop.is_running():
            self._sent_ns = None  # nobody runs it: neither late nor hanging
            return
        if self._sent_ns is None:
            self._sent_ns = sent = self._clock()
            try:
                self.loop.call_soon_threadsafe(self._answer, sent)
            except RuntimeError:  # closed in between
                self._sent_ns = None

    def stalled(self) -> events.SampleLoopStalled | None:
        """What holds the loop up, once for each time it hangs."""
        sent = self._sent_ns
        if sent is None or self._stall_said or not self._stall_ns or self._answers:
            return None
        waited = self._clock() - sent
        if waited < self._stall_ns or not self.loop.is_running():
            return None
        self._stall_said = True
        self._stalls += 1
        frame = sys._current_frames().get(self._thread_id)
        frames = describe_frames(frame)
        return events.SampleLoopStalled(
            loop_name=self.name,
            stalled_seconds=round(waited / 1e9, 3),
            blocked_at=_culprit(frames),
            frames=frames,
        )

    def sample(self) -> events.SampleLoop:
        """What was found out since the last call. A ping that is outstanding counts with what it has waited so far."""
        self._take_answers()
        lags = self._lags
        sent = self._sent_ns
        if sent is not None and self.loop.is_running():
            waited = self._clock() - sent
            if waited > self._period_ns:
                lags = [*lags, *_as_often_as_due(waited, self._period_ns)]
                self._on_lag(waited)
        sample = events.SampleLoop(
            loop_name=self.name,
            lag_samples=len(lags),
            tasks=count_tasks(),
            stalls=self._stalls,
        )
        if lags:
            lags = sorted(lags)
            sample.lag_max_seconds = round(lags[-1] / 1e9, 6)
            sample.lag_p99_seconds = round(lags[-1 - len(lags) // 100] / 1e9, 6)
        else:
            reason = "no_sample" if self.loop.is_running() else "not_running"
            sample.unknown = {"lag_max_seconds": reason, "lag_p99_seconds": reason}
        if self._first is not None and self._last is not None and self._last[0] > self._first[0]:
            wall, cpu = self._last[0] - self._first[0], self._last[1] - self._first[1]
            sample.busy_percent = round(min(100 * cpu / wall, 100.0), 2)
        else:
            sample.unknown = {**(sample.unknown or {}), "busy_percent": "no_sample"}
        if sample.tasks is None:
            sample.unknown = {**(sample.unknown or {}), "tasks": "not_supported"}
        self._lags = []
        self._stalls = 0
        self._first = self._last
        return sample

    def _answer(self, sent: int) -> None:
        """On the loop's thread."""
        self._answers.append((sent, self._clock(), time.thread_time_ns(), threading.get_ident()))

    def _take_answers(self) -> None:
        while self._answers:
            sent, ran, cpu, thread_id = self._answers.popleft()
            if sent == self._sent_ns:  # else nobody ran the loop meanwhile
                self._sent_ns = None
                self._stall_said = False
                lag = max(ran - sent, 0)
                self._on_lag(lag)
                self._lags += _as_often_as_due(lag, self._period_ns)
            if thread_id != self._thread_id:  # its CPU time is another clock's
                self._thread_id = thread_id
                self._first = (ran, cpu)
            self._last = (ran, cpu)

    def runs_on(self, thread_id: int) -> None:
        """It is known to run on that thread, also before it has answered for the first time."""
        self._thread_id = self._thread_id or thread_id


def _as_often_as_due(lag: int, period: int) -> list[int]:
    """A lag, and those of the pings that would have been sent and have waited meanwhile.

    Without them one pause of a second counts as much as one wait of a millisecond (coordinated omission, Gil Tene).
    """
    return list(range(lag, 0, -period))[:_LAGS_KEPT] if lag > period else [lag]


def describe_frames(frame: FrameType | None) -> list[dict[str, Any]]:
    """Where a thread is, outermost first; the middle of a deep stack is left out. No local variables, no code lines."""
    frames: list[dict[str, Any]] = []
    while frame is not None:
        code = frame.f_code
        frames.append({"file": code.co_filename, "line": frame.f_lineno, "function": code.co_qualname})
        frame = frame.f_back
    frames.reverse()
    left_out = len(frames) - _MAX_FRAMES
    if left_out > 0:
        half = _MAX_FRAMES // 2
        frames = [*frames[:half], {"omitted": left_out}, *frames[-half:]]
    return frames


def _culprit(frames: list[dict[str, Any]]) -> str | None:
    """The innermost frame that is not the standard library's; else the innermost of all."""
    known = [frame for frame in frames if "file" in frame]
    own = [frame for frame in known if not _is_standard(frame["file"])]
    if not known:
        return None
    innermost = (own or known)[-1]
    return f"{innermost['file']}:{innermost['line']} in {innermost['function']}"


def _is_standard(file: str) -> bool:
    return file.startswith("<frozen") or (file.startswith(_STANDARD_LIBRARY) and not file.startswith(_SITE))


def count_tasks() -> int | None:
    """Tasks that the process holds. None where asyncio does not keep them in a set.

    `asyncio.all_tasks` copies them: 56 ms for 100,000. The set's length is all that is asked for here.
    """
    held = getattr(asyncio.tasks, "_scheduled_tasks", None)  # 3.12 and 3.13
    if held is None:
        held = getattr(asyncio.tasks, "_all_tasks", None)  # 3.11
    if held is None:
        return None
    eager = getattr(asyncio.tasks, "_eager_tasks", ())
    return len(held) + len(eager)
