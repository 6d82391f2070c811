"""What the sampler hears of executions: when each starts and ends and, if asked for, whose CPU time it is.

The calls are made by whoever runs an execution and cost two clock readings and an append. They take no lock.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from ._attribution import Account, Edge

__all__ = ["EDGES_MOST", "ExecutionWatch", "Measured", "TaskClock"]

P = ParamSpec("P")
R = TypeVar("R")

monotonic: Final = time.monotonic_ns
process_time: Final = time.process_time_ns
thread_time: Final = time.thread_time_ns


EDGES_MOST: Final = 20_000
"""Starts and ends that may wait for the sampler, which takes some 20,000 a second beside a busy program."""
_SLICE: Final = 256


class Measured:
    """CPU nanoseconds that were charged to any account."""

    __slots__ = ("total_ns",)

    def __init__(self) -> None:
        self.total_ns: int = 0


class TaskClock(threading.local):
    """Charges the CPU time of each thread to the account that it works for at the moment."""

    account: Account | None = None
    since_ns: int = 0

    def __init__(self, measured: Measured) -> None:
        """Runs once in each thread."""
        self.measured: Measured = measured

    def switch(self, account: Account | None) -> Account | None:
        """From now on this thread works for `account`. Returns whom it worked for until now."""
        now = thread_time()
        before = self.account
        if before is not None:
            # Between load and store no other thread can come in (CPython 3.11 to 3.13), so that no time is lost.
            took = now - self.since_ns
            before.task_ns += took
            self.measured.total_ns += took
        self.account = account
        self.since_ns = now
        return before

    def charged(self, function: Callable[P, R], account: Account | None) -> Callable[P, R]:
        """`function`, with the CPU time of its calls charged to `account`, on whichever thread."""

        def charge(*args: P.args, **kwargs: P.kwargs) -> R:
            before = self.switch(account)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch(before)

        return charge


class ExecutionWatch:
    """Starts and ends of executions, in the order they were told. Any thread may tell."""

    def __init__(self, *, by_task: bool = False) -> None:
        self.measured: Measured = Measured()
        self.clock: TaskClock | None = TaskClock(self.measured) if by_task else None
        """Set: CPU time is measured by task and thread."""
        self.loops: WeakSet[Any] = WeakSet()
        """Those whose steps are measured."""
        self.meet_loop: Callable[[], object] | None = None
        """Called on a loop whose steps are not measured yet, before an execution starts in it."""
        self.wake: Callable[[], None] | None = None
        """Told when there is something to see and nothing was before."""
        self.pending: bool = False
        """Something was told since the last `take`."""
        self.began_ns: int = monotonic()
        self.began_cpu_ns: int = process_time()
        self.skipped: int = 0
        """Executions that nobody is told of."""
        self._edges: deque[Edge] = deque()

    def started(self, scope: Any, parent: Account | None) -> Account | None:
        """An execution starts now; `scope` is what its lines carry, `parent` the one it starts inside of.

        None, and nobody is told of it, where the sampler is so far behind that it could not be told of in time.
        """
        if len(self._edges) > EDGES_MOST:
            self.skipped += 1
            return None
        now = monotonic()
        cpu_ns = process_time()  # after the clock here and before it in `ended`: never more CPU than there was time
        account = Account(scope, parent, now)
        if self.clock is not None:
            self._charge(account, self.clock)
        self._edges.append(Edge(now, cpu_ns, account, True, parent, self.measured.total_ns))  # noqa: FBT003
        if not self.pending:
            self._tell()
        return account

    def ended(self, account: Account) -> None:
        """It ends now."""
        if self.clock is not None and self.clock.account is account:
            before = account.before
            self.clock.switch(None if before is None or before.ended_ns is not None else before)
        parent, account.parent, account.before = account.parent, None, None  # one may follow another for ever
        account.ended_task_ns = account.task_ns
        cpu_ns = process_time()
        account.ended_ns = now = monotonic()
        self._edges.append(Edge(now, cpu_ns, account, False, parent, self.measured.total_ns))  # noqa: FBT003
        if not self.pending:
            self._tell()

    def take(self) -> list[Edge]:
        """What was told since the last call, in order of time, and not too much at once. For the sampler alone."""
        self.pending = False
        edges = [self._edges.popleft() for _ in range(min(len(self._edges), _SLICE))]
        edges.sort(key=_time)  # stable: of two at the same moment, the one told first comes first
        if self._edges:  # only ever set here: a thread may just be setting it for what it has told
            self.pending = True
        return edges

    def _charge(self, account: Account, clock: TaskClock) -> None:
        """Charge this thread to `account`, where somebody will notice when it works for another one."""
        asyncio = sys.modules.get("asyncio")  # not imported here: importing the package stays cheap
        loop = None if asyncio is None else asyncio._get_running_loop()  # the cheap form, which does not raise
        if loop is not None and loop not in self.loops and self.meet_loop is not None:
            self.meet_loop()
        trio = sys.modules.get("trio") if loop is None else None
        if trio is not None and trio.lowlevel.in_trio_run():
            account.measurable = False
        else:
            account.before = clock.switch(account)

    def _tell(self) -> None:
        self.pending = True
        wake = self.wake
        if wake is not None:
            wake()


def _time(edge: Edge) -> int:
    return edge.time_ns
