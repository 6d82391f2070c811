"""Who used how much of a counter: whole units, so that the shares of all add up to the counter exactly.

An `Account` is one execution. A `SharedCounter` is one number that only rises (CPU nanoseconds, bytes, millijoules).
What it rises by between two moments is divided equally among the accounts that were running and had no other running
inside them: one that waits for an inner one leaves its share to it. Nobody running: idle. The cost of a step does not
depend on how many run: what each of them has got is one running sum, and an account's share the difference of that sum
between its start and its end (the virtual time of processor sharing).

How far a share may lie from the truth is kept the same way, for the worst case: all that was used while others ran too
may have been this account's, or nothing of it. Where a start or an end lies between two readings, the whole rise
between these may be.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

__all__ = ["Account", "Edge", "Gauge", "Share", "SharedCounter"]

_PEAKS_KEPT: Final = 4096
"""Falling values in a row that a gauge remembers one by one; beyond it, neighbours are merged (upwards)."""


class Account(Struct, eq=False):
    """One execution, as far as what it used is concerned. Made at its start."""

    scope: Any
    """What its lines carry."""
    parent: "Account | None"
    """The execution it was started inside of, in this process."""
    started_ns: int
    before: "Account | None" = None
    """Whom the thread that started it worked for until then."""
    ended_ns: int | None = None
    task_ns: int = 0
    """CPU time of its own tasks and threads, where that is measured."""
    ended_task_ns: int | None = None
    """The same when it ended. None: it has not, or nobody could measure it."""
    measurable: bool = True
    """False: it runs in a loop whose steps cannot be told apart (trio)."""
    resources: Any = None
    """What it cost, once that is known: a `metrics.execution` event."""


class Edge(Struct, eq=False):
    """An account starts or ends. Times are monotonic nanoseconds."""

    time_ns: int
    cpu_ns: int
    """CPU time of the process at that moment."""
    account: Account
    starts: bool
    parent: Account | None = None
    """The account's parent, which an account that has ended no longer has."""
    measured_ns: int = 0
    """Of the CPU time, what was measured task by task."""


class Share:
    """What one account got of one counter."""

    __slots__ = ("_errors", "_overlaps", "_parts", "amount", "children", "error", "overlaps", "unknown")

    def __init__(self) -> None:
        self.amount: int = 0
        self.error: int = 0
        """How far the truth may lie from `amount`, either way."""
        self.children: int = 0
        """Accounts running that were started inside it."""
        self.overlaps: int = 0
        """Stretches of time in which others ran too."""
        self.unknown: str = ""
        """Reason code, where `amount` is not all: the counter began anew (`counter_reset`), could not be read for a
        while (`stale`), or was first read when the account ran already (`late_start`)."""
        self._parts = self._errors = self._overlaps = 0


class SharedCounter:
    """One counter and its division. Used by one thread; times must not go back.

    `total = sum of all amounts + idle + unattributed`, at every moment. `unattributed` is what does not divide (less
    than a unit for each account that runs) and what was used while no account could be told from another.
    """

    def __init__(self, time_ns: int, value: int, *, busy_only: bool = False) -> None:
        """`busy_only`: what rises between two readings is used by whoever ran meanwhile, if anybody did.

        So it is with what a program does (bytes). What is used all the time (energy) is spread over all the time.
        """
        self.total: int = 0
        """What the counter has risen by since it was first read."""
        self.idle: int = 0
        """Of it, what was used while no account ran."""
        self.attributed: int = 0
        """Of it, what accounts got."""
        self.running: dict[Account, Share] = {}
        self._busy_only = busy_only
        self._time_ns = time_ns
        self._value = value
        self._active = 0
        """Accounts running without another inside them."""
        self._part = self._error_active = self._error_waiting = self._overlap = 0
        """What an account that ran all the time would have got, and how wrong that might be."""
        self._carry = 0
        """What did not divide, to be divided with the next amount."""
        self._gap = False
        """It could not be read since."""

    @property
    def unattributed(self) -> int:
        """What nobody got although somebody ran."""
        return self.total - self.idle - self.attributed

    def read(self, time_ns: int, value: int, edges: Iterable[Edge] = ()) -> list[tuple[Account, Share]]:
        """The counter stands at `value` now; `edges`, in order of time, came since it was last read.

        What it rose by is spread over the time between in proportion. Returns the accounts that ended, and their
        shares. A value below the last one is a counter that began anew: nothing is known of the time between.
        """
        edges = list(edges)
        rise = value - self._value
        unknown = "stale" if self._gap else "counter_reset" if rise < 0 else ""
        if unknown:
            self.total += max(rise, 0)
            rise, self._gap = 0, False
            for share in self.running.values():
                share.unknown = unknown
        ended: list[tuple[Account, Share]] = []
        if not edges:
            self._spend(rise, uncertain=False)
            self._time_ns, self._value = time_ns, value
            return ended
        passed, span = self._passed(edges, time_ns)
        spent = 0
        for edge, by_then in zip(edges, passed, strict=True):
            until = rise * by_then // span if span > 0 else 0
            self._spend(max(until - spent, 0), uncertain=True)
            spent = max(until, spent)
            changed = self._apply(edge, ended)
            if changed is not None:  # what came before its start, or after its end, may be its own as well
                changed.error += spent if edge.starts else rise - spent
                changed.unknown = changed.unknown or unknown
        self._spend(rise - spent, uncertain=True)
        self._time_ns, self._value = time_ns, value
        return ended

    def read_at_edge(self, edge: Edge, value: int) -> list[tuple[Account, Share]]:
        """As `read`, with an account that starts or ends at this very moment."""
        ended: list[tuple[Account, Share]] = []
        value = max(value, self._value)  # threads that read it at the same time may report out of order
        self._spend(value - self._value, uncertain=False)
        self._time_ns, self._value = max(edge.time_ns, self._time_ns), value
        self._apply(edge, ended)
        return ended

    def lose(self, time_ns: int, edges: Iterable[Edge] = ()) -> list[tuple[Account, Share]]:
        """The counter cannot be read. What it will turn out to have risen by meanwhile is nobody's. As `read`."""
        self._gap = True
        for share in self.running.values():
            share.unknown = "stale"
        self._time_ns = max(time_ns, self._time_ns)
        return self.miss(edges, "stale")

    def miss(self, edges: Iterable[Edge], unknown: str) -> list[tuple[Account, Share]]:
        """`edges` came while the counter was not read, so that what these accounts got is unknown. As `read`."""
        ended: list[tuple[Account, Share]] = []
        for edge in edges:
            changed = self._apply(edge, ended)
            if changed is not None:
                changed.unknown = unknown
        return ended

    def settle(self, account: Account) -> Share | None:
        """The share of an account that runs, up to the last reading."""
        share = self.running.get(account)
        if share is not None:
            self._settle(share)
        return share

    # -- inside ------------------------------------------------------------------------------------------------------

    def _passed(self, edges: list[Edge], time_ns: int) -> tuple[list[int], int]:
        """How much of the time that counts had passed at each edge, and in all, since the last reading."""
        everything = [min(max(edge.time_ns, self._time_ns), time_ns) - self._time_ns for edge in edges]
        span = max(time_ns - self._time_ns, 0)
        if not self._busy_only:
            return everything, span
        running = set(self.running)
        busy: list[int] = []
        last = total = 0
        for edge, at in zip(edges, everything, strict=True):
            total += max(at - last, 0) if running else 0
            last = max(at, last)
            busy.append(total)
            (running.add if edge.starts else running.discard)(edge.account)
        total += span - last if running else 0
        return (busy, total) if total else (everything, span)

    def _spend(self, amount: int, *, uncertain: bool) -> None:
        """Divide an amount among those that run now."""
        if not amount:
            return
        self.total += amount
        if not self.running:
            self.idle += amount
            return
        alone = len(self.running) == 1
        self._overlap += not alone
        if self._active:
            part, self._carry = divmod(amount + self._carry, self._active)
            self._part += part
            self.attributed += part * self._active
        if uncertain:
            self._error_active += amount
        elif not alone:
            self._error_active += max(part, amount - part) if self._active else 0
        self._error_waiting += amount

    def _apply(self, edge: Edge, ended: list[tuple[Account, Share]]) -> Share | None:
        account = edge.account
        if edge.starts:
            share = self.running[account] = Share()
            self._active += 1
            self._mark(share)
            self._change_children(edge.parent, 1)
            return share
        ending = self.running.pop(account, None)
        if ending is None:  # it started before the counter was first read
            return None
        self._settle(ending)
        self._active -= ending.children == 0
        self._change_children(edge.parent, -1)
        ended.append((account, ending))
        return ending

    def _change_children(self, parent: Account | None, by: int) -> None:
        share = None if parent is None else self.running.get(parent)
        if share is None or (by < 0 and not share.children):
            return  # it has ended already, or it began to be seen after this inner one
        self._settle(share)
        self._active -= share.children == 0
        share.children += by
        self._active += share.children == 0
        self._mark(share)

    def _settle(self, share: Share) -> None:
        if share.children:
            share.error += self._error_waiting - share._errors
        else:
            share.amount += self._part - share._parts
            share.error += self._error_active - share._errors
        share.overlaps += self._overlap - share._overlaps
        self._mark(share)

    def _mark(self, share: Share) -> None:
        share._parts = self._part
        share._errors = self._error_waiting if share.children else self._error_active
        share._overlaps = self._overlap


class Gauge:
    """A value that goes up and down, read now and then: its mean and its peak since any moment.

    The mean is weighted by time, each value holding until the next reading. The peak is over all readings from that
    moment on: a lower bound of what was between them.
    """

    def __init__(self) -> None:
        self._time_ns: int | None = None
        """Up to when it was added up; None while no value holds."""
        self._value = 0.0
        self._integral = 0.0
        self._known_ns = 0
        self._times: list[int] = []
        self._peaks: list[float] = []
        """Readings that no later one exceeds: falling values, so that the first at or after a moment is the peak."""

    def read(self, time_ns: int, value: float) -> None:
        """The value now."""
        self._advance(time_ns)
        if self._time_ns is None:
            self._time_ns = time_ns
        self._value = value
        while self._peaks and self._peaks[-1] <= value:
            self._peaks.pop()
            self._times.pop()
        self._peaks.append(value)
        self._times.append(time_ns)
        if len(self._peaks) > _PEAKS_KEPT:  # every second one goes; what asks for its time gets the one before
            del self._peaks[1::2]
            del self._times[0:-1:2]

    def lose(self, time_ns: int) -> None:
        """It cannot be read: the last value holds until now, and no longer."""
        self._advance(time_ns)
        self._time_ns = None

    def integral(self, time_ns: int) -> tuple[float, int]:
        """Value times nanoseconds, and nanoseconds, since the first reading.

        What the first rises by between two moments over what the second does is the mean.
        """
        self._advance(time_ns)
        return self._integral, self._known_ns

    def peak_since(self, time_ns: int) -> float | None:
        """The highest reading at or after that moment; None if there was none."""
        index = bisect_left(self._times, time_ns)
        return self._peaks[index] if index < len(self._peaks) else None

    def _advance(self, time_ns: int) -> None:
        if self._time_ns is not None and time_ns > self._time_ns:
            self._integral += self._value * (time_ns - self._time_ns)
            self._known_ns += time_ns - self._time_ns
            self._time_ns = time_ns
