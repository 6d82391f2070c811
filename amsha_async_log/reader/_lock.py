"""Whether a writer still lives, told from the lock it holds on its segment."""

import socket
from functools import cache
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["is_locked", "is_this_machine"]

BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")


def is_locked(descriptor: int) -> bool | None:
    """Whether another open file holds the lock; None where that cannot be known.

    The shared lock taken to find out is released at once, but for a few microseconds the file cannot be locked.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


@cache
def _machine() -> tuple[str, str | None]:
    try:
        boot_id = BOOT_ID_PATH.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        boot_id = None
    return socket.gethostname(), boot_id


def is_this_machine(host: str | None, boot_id: str | None) -> bool:
    """Whether a header's host and boot are this machine's. What the header leaves open does not speak against it."""
    this_host, this_boot = _machine()
    return host in (None, this_host) and (boot_id is None or this_boot is None or boot_id == this_boot)
