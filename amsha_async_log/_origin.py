"""Who writes: what the header of a segment says of the machine, the process and the software."""

import os
import platform
import time
from pathlib import Path

import msgspec

from ._version import VERSION

__all__ = ["boot_id", "process_start", "versions"]


def boot_id() -> str | None:
    """The id that Linux gives each boot; None elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def process_start() -> float | None:
    """When the operating system started this process, in Unix seconds; None if it does not say.

    Read from /proc where it is there: importing psutil takes most of what opening a log does.
    """
    try:
        ticks = int(
            Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + ticks / os.sysconf("SC_CLK_TCK")  # the 22nd field of proc_pid_stat(5)
    except (OSError, AttributeError, ValueError, IndexError):
        import psutil  # where there is no /proc

        try:
            return float(psutil.Process().create_time())
        except psutil.Error:
            return None


def versions() -> dict[str, str]:
    """Package to version, of what decides how a line looks."""
    return {
        "amsha_async_log": VERSION,
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
    }
