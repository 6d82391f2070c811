"""Is an event loop in time? Asked from outside: a callback is sent to it, and how long it takes to run is its lag.

All that runs in the loop is that callback (about 2 us), twice a second at most, and only if the loop works: one that
waits for work is seen to do so from its thread's innermost frame, is not woken, and has a lag of zero. While the
callback does not come back the loop hangs, and the same frames say what holds it up.
"""

import asyncio
import os
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
_SELECT: Final = ("select", "selectors.py")
_RUN_ONCE: Final = ("_run_once", "base_events.py")
_WAITING: Final = {_SELECT, ("run", "runners.py"), ("run_until_complete", "base_events.py")}
"""Function and file of the innermost frame of a loop that waits. uvloop's own code has none: its caller's is seen."""
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
        """Of each ping that came back: when it was sent and ran, and on which thread."""
        self._sent_ns: int | None = None
        self._stall_said = False
        self._thread_id = 0
        self._lags: list[int] = []
        self._stalls = 0
        self._clock_id: int | None = None
        self._cpu: tuple[int, int] | None = None
        """When the CPU time of its thread was last read, and what it was."""

    @property
    def closed(self) -> bool:
        """The loop will never run again."""
        return self.loop.is_closed()

    def ping(self) -> bool:
        """Take the answers in and, if none is outstanding and the loop works, send the next one.

        Returns whether it waits for work, or does not run: then there is no hurry to ask again.
        """
        self._take_answers()
        if not self.loop.is_running():
            self._sent_ns = None  # nobody runs it: neither late nor hanging
            return True
        if self._sent_ns is None and _waits_for_work(sys._current_frames().get(self._thread_id)):
            self._lags.append(0)
            self._on_lag(0)
            return True
        if self._sent_ns is None:
            self._sent_ns = sent = self._clock()
            try:
                self.loop.call_soon_threadsafe(self._answer, sent)
            except RuntimeError:  # closed in between
                self._sent_ns = None
        return False

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
        sample.busy_percent = self._busy_percent()
        if sample.busy_percent is None:
            sample.unknown = {**(sample.unknown or {}), "busy_percent": "no_interval"}
        if sample.tasks is None:
            sample.unknown = {**(sample.unknown or {}), "tasks": "not_supported"}
        self._lags = []
        self._stalls = 0
        return sample

    def runs_on(self, thread_id: int, native_id: int) -> None:
        """It is known to run on that thread, also before it has answered for the first time."""
        self._thread_id = thread_id
        self._clock_id = _clock_of(native_id)
        self._cpu = None

    def _busy_percent(self) -> float | None:
        """CPU time of the loop's thread since the last call."""
        before, self._cpu = self._cpu, None
        if self._clock_id is not None:
            try:
                self._cpu = (self._clock(), time.clock_gettime_ns(self._clock_id))
            except OSError:  # the thread has ended
                self._clock_id = None
        if before is None or self._cpu is None or self._cpu[0] <= before[0]:
            return None
        return round(min(max(100 * (self._cpu[1] - before[1]) / (self._cpu[0] - before[0]), 0.0), 100.0), 2)

    def _answer(self, sent: int) -> None:
        """On the loop's thread."""
        self._answers.append((sent, self._clock(), threading.get_ident(), threading.get_native_id()))

    def _take_answers(self) -> None:
        while self._answers:
            sent, ran, thread_id, native_id = self._answers.popleft()
            if sent == self._sent_ns:  # else nobody ran the loop meanwhile
                self._sent_ns = None
                self._stall_said = False
                lag = max(ran - sent, 0)
                self._on_lag(lag)
                self._lags += _as_often_as_due(lag, self._period_ns)
            if thread_id != self._thread_id:
                self.runs_on(thread_id, native_id)


def _clock_of(native_id: int) -> int | None:
    """The clock of a thread's CPU time, by the kernel's encoding (CPUCLOCK_SCHED and CPUCLOCK_PERTHREAD_MASK).

    `time.pthread_getcpuclockid` gives the same, but crashes for a thread that has ended.
    """
    return (~native_id << 3) | 6 if sys.platform == "linux" else None


def _waits_for_work(frame: FrameType | None) -> bool:
    """Is that the innermost frame of a loop that waits in its selector (asyncio), or runs no Python code (uvloop)?"""
    if frame is None or _place(frame) not in _WAITING:
        return False
    # Others select too (subprocess.run, for one), and hold the loop up while they do.
    return _place(frame) != _SELECT or (frame.f_back is not None and _place(frame.f_back) == _RUN_ONCE)


def _place(frame: FrameType) -> tuple[str, str]:
    return frame.f_code.co_name, os.path.basename(frame.f_code.co_filename)


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
