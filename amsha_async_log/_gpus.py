"""When GPUs are looked at, what becomes of the answers, and what is said if none come."""

import asyncio
import contextlib
from typing import Final

from . import events
from ._deadlines import Deadlines
from ._stderr import tell
from .collectors._base import GpuReading
from .collectors._gpu_thread import GpuThread

__all__ = ["HUNG_S", "GpuLooks"]

ADVISED_S: Final = 1.0
"""Below it, asking a GPU was measured to slow the program down that uses it."""
HUNG_S: Final = 5.0
"""A driver that has not answered for so long, or for two intervals, is said to hang."""
_SOON_S: Final = 0.05
"""An answer that comes within this time is worth waiting for: healthy drivers take a hundredth of it."""


class GpuLooks:
    """Used by the sampler's thread alone; the driver is asked on the thread of `GpuThread`. Times: monotonic ns."""

    def __init__(self, thread: GpuThread, now_ns: int, *, interval_s: float, hung_s: float = HUNG_S) -> None:
        self.hangs: bool = False
        """It has not answered for too long, and that was said."""
        self._thread = thread
        self._ticks = Deadlines(now_ns, interval_s)
        self._hung_ns = round(max(hung_s, 2 * interval_s) * 1e9)
        self._warn = interval_s < ADVISED_S
        self._read_ns: int | None = None
        self._missed = 0
        self._answered = asyncio.Event()

    @property
    def due_ns(self) -> int:
        """When they are to be looked at next."""
        return self._ticks.due_ns

    def look(self, now_ns: int, *, forced: bool) -> events.SampleSourceChanged | None:
        """Ask if it is time to, or `forced`. Returns what is to be said if the driver has begun to hang."""
        if now_ns >= self._ticks.due_ns:
            _, missed = self._ticks.take(now_ns)
            self._missed += missed + (0 if self._thread.request() else 1)
        elif forced:
            self._thread.request()
        since = self._thread.outstanding_since
        if since is None or self.hangs or now_ns - since * 1e9 <= self._hung_ns:
            return None
        self.hangs = True
        waited = f"the driver has not answered for {now_ns / 1e9 - since:.1f} s"
        return events.SampleSourceChanged(source="gpu", state_from="ok", state_to="hung", detail=waited)

    def answered(self, reading: GpuReading, now_ns: int) -> list[events.SampleSourceChanged]:
        """Complete the samples of an answer. Returns the changes that it tells of."""
        self._answered.set()
        changes = list(reading.changes)
        if self.hangs:
            self.hangs = False
            changes.append(
                events.SampleSourceChanged(
                    source="gpu", state_from="hung", state_to=reading.state, detail="the driver answers again"
                )
            )
        interval = None if self._read_ns is None else round((now_ns - self._read_ns) / 1e9, 6)
        self._read_ns = now_ns
        for device in reading.devices:
            device.interval_seconds = interval
            device.missed = self._missed or None
        self._missed = 0
        self._ticks.add_cost(round(reading.cost_seconds * 1e9))
        if reading.devices and self._warn:
            self._warn = False
            tell(
                f"GPUs are asked every {self._ticks.interval_ns / 1e9:g} s: below {ADVISED_S:g} s that can slow down "
                "what runs on them; set gpu_interval_s to 1 or more, or to 0 to leave them alone"
            )
        return changes

    def answers_soon(self, now_ns: int) -> bool:
        """Was it asked a moment ago, and has not answered yet?"""
        since = self._thread.outstanding_since
        return since is not None and now_ns / 1e9 - since < _SOON_S

    async def last_look(self, now_ns: int) -> None:
        """Ask once more and wait for the answer, 50 ms at most; not at all if the driver hangs."""
        self._answered.clear()
        self._thread.request()  # unless a look is out already
        if self.answers_soon(now_ns):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), _SOON_S)

    def stop(self) -> None:
        """Ask no more. Never waits."""
        self._thread.stop()
