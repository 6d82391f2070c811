"""What the sampler hears of executions: when each starts and ends and, if asked for, whose CPU time it is.

The calls are made by whoever runs an execution and cost two clock readings and an append. They take no lock.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from ._attribution import Account, Edge

__all__ = ["ExecutionWatch", "Measured", "TaskClock"]

P = ParamSpec("P")
R = TypeVar("R")

monotonic: Final = time.monotonic_ns
process_time: Final = time.process_time_ns
thread_time: Final = time.thread_time_ns


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
        self.wake: Callable[[], None] | None = None
        """Told when there is something to see and nothing was before."""
        self.pending: bool = False
        """Something was told since the last `take`."""
        self.began_ns: int = monotonic()
        self.began_cpu_ns: int = process_time()
        self._edges: deque[Edge] = deque()

    def started(self, scope: Any, parent: Account | None) -> Account:
        """An execution starts now; `scope` is what its lines carry, `parent` the one it starts inside of."""
        cpu_ns, now = process_time(), monotonic()
        account = Account(scope, parent, now)
        if self.clock is not None:
            self.clock.switch(account)
        self._edges.append(Edge(now, cpu_ns, account, True, self.measured.total_ns))  # noqa: FBT003
        if not self.pending:
            self._tell()
        return account

    def ended(self, account: Account) -> None:
        """It ends now."""
        if self.clock is not None and self.clock.account is account:
            parent = account.parent
            self.clock.switch(None if parent is None or parent.ended_ns is not None else parent)
        account.ended_ns = now = monotonic()
        self._edges.append(Edge(now, process_time(), account, False, self.measured.total_ns))  # noqa: FBT003
        if not self.pending:
            self._tell()

    def take(self) -> list[Edge]:
        """What was told since the last call, in order of time. For the sampler alone."""
        self.pending = False
        edges: list[Edge] = []
        while self._edges:
            edges.append(self._edges.popleft())
        edges.sort(key=_time)  # stable: of two at the same moment, the one told first comes first
        return edges

    def _tell(self) -> None:
        self.pending = True
        wake = self.wake
        if wake is not None:
            wake()


def _time(edge: Edge) -> int:
    return edge.time_ns
