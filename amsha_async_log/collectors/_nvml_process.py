"""Which of the processes on a GPU is this one."""

import os
from typing import Any, Final

__all__ = ["OwnProcess"]

_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC
"""Inode of the machine's own pid namespace: fixed in Linux (PROC_PID_INIT_INO)."""


class OwnProcess:
    """The numbers that the driver, which counts as the machine does, may know a process by."""

    def __init__(self, pid: int) -> None:
        self.pids = _numbers(pid)
        """Outermost namespace first."""
        self.is_namespaced = _is_namespaced(pid)
        """It lives in a namespace of its own, so that none of its numbers need be the machine's."""

    def of(self, entries: list[Any]) -> list[Any] | None:
        """Those entries (with a `pid`) that are of this process; None: cannot be told."""
        for pid in self.pids:
            if own := [entry for entry in entries if entry.pid == pid]:
                return own
        return None if entries and self.is_namespaced else []


def _numbers(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("NSpid:"):
                    return [int(number) for number in line.split()[1:]]
    except (OSError, ValueError):  # no /proc here, or the process has ended: its own number is all there is
        pass
    return [pid]


def _is_namespaced(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino != _INITIAL_PID_NAMESPACE
    except OSError:  # no namespaces here, or the process has ended
        return False
