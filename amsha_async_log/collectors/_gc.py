"""How long garbage collections stop the process."""

import gc
import time
from typing import NamedTuple

__all__ = ["GcPauses", "Pauses"]


class Pauses(NamedTuple):
    """Collections since the last look. Nanoseconds."""

    number: int
    longest_ns: int
    total_ns: int


class GcPauses:
    """Measures every collection of this process, on whichever thread it runs."""

    def __init__(self) -> None:
        self._since = 0
        self._number = self._longest = self._total = 0
        gc.callbacks.append(self._on_collection)

    def take(self) -> Pauses:
        """The pauses since the last call."""
        taken = Pauses(self._number, self._longest, self._total)
        self._number = self._longest = self._total = 0
        return taken

    def close(self) -> None:
        """Measure no more. May be called again."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _info: dict[str, int]) -> None:
        now = time.monotonic_ns()
        if phase == "start":
            self._since = now
        elif self._since:
            took, self._since = now - self._since, 0
            self._number += 1
            self._total += took
            self._longest = max(self._longest, took)
