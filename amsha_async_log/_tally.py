"""Exact sums of what any number of threads, tasks and signal handlers add at once, without a lock anybody waits for."""

import os
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Tally"]

_FOLD_ABOVE: Final = 64


class _Folding:
    """The lock around all folds, one for the process: it is held for microseconds."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal handler may come while its own thread folds

    def renew(self) -> None:
        """In a forked child the thread that held the lock may be gone."""
        self.lock = threading.RLock()


_FOLDING: Final = _Folding()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FOLDING.renew)


class Tally:
    """Sums by name. `add` never waits and never raises; a value that does not add up is kept as it is.

    What is added goes to a deque, one atomic step, and is folded into the sums by whoever gets the lock at once.
    """

    __slots__ = ("_entries", "_sums")

    def __init__(self) -> None:
        self._entries: deque[Mapping[str, Any]] = deque()
        self._sums: dict[str, Any] | None = None

    def add(self, amounts: Mapping[str, Any]) -> None:
        """Add each amount to the sum of its name; None counts as not given."""
        self._entries.append(amounts)
        if len(self._entries) > _FOLD_ABOVE:
            lock = _FOLDING.lock
            if lock.acquire(blocking=False):
                try:
                    self._fold()
                finally:
                    lock.release()

    def sums(self) -> dict[str, Any]:
        """The sums now, names that nothing was added to left out. Waits for a fold at most, some microseconds."""
        if not self._entries and self._sums is None:
            return {}
        with _FOLDING.lock:
            self._fold()
            return dict(self._sums or {})

    def drain(self) -> dict[str, Any]:
        """As `sums`, of what no `drain` gave before."""
        with _FOLDING.lock:
            self._fold()
            sums, self._sums = self._sums or {}, None
            return sums

    def _fold(self) -> None:
        sums = self._sums
        if sums is None:
            sums = self._sums = {}
        while self._entries:
            try:
                amounts = self._entries.popleft()
            except IndexError:  # a signal handler of this thread was here meanwhile
                return
            for name, amount in amounts.items():
                if amount is None:
                    continue
                try:
                    sums[name] = sums[name] + amount if name in sums else amount
                except Exception:  # noqa: BLE001 - no number: it is shown as it is, instead of a sum
                    sums[name] = amount
