"""How much a group may use: the least that it and the groups around it allow."""

import os
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import Struct, field

from ._cgroup_groups import Group, Groups
from ._files import NOT_SUPPORTED, NOT_VISIBLE, megabytes, number, read_whole, reason, value_after

__all__ = ["Limits", "read_limits"]

_UNLIMITED: Final = 1 << 62
"""From here on a memory limit of version 1 is none: it says 2^63 cut to whole pages, whose size differs."""

_Amount = TypeVar("_Amount", int, float)


class Limits(Struct):
    """None: not limited, unless `unknown` says why it is not known."""

    memory_mb: float | None = None
    cores: float | None = None
    processes: int | None = None
    unknown: dict[str, str] = field(default_factory=dict)
    """Field of the sample to reason code."""


def read_limits(groups: Groups) -> Limits:
    """The limits in effect now. Never raises."""
    unknown: dict[str, str] = {}
    controllers = groups.controllers
    memory = _least(controllers.get("memory"), _memory, "memory_limit_mb", unknown)
    return Limits(
        memory_mb=None if memory is None else megabytes(memory),
        cores=_least(controllers.get("cpu"), _cores, "cpu_limit_cores", unknown),
        processes=_least(controllers.get("pids"), _processes, "processes_limit", unknown),
        unknown=unknown,
    )


def _least(
    group: Group | None, read: Callable[[str, int], list[_Amount]], name: str, unknown: dict[str, str]
) -> _Amount | None:
    """The least of what `read` finds in the folders of `group`. One that cannot be read might be the least."""
    if group is None:
        return None
    if not group.folders:
        unknown[name] = NOT_VISIBLE
        return None
    found: list[_Amount] = []
    for folder in group.folders:
        try:
            found += read(folder, group.version)
        except (OSError, ValueError) as error:
            unknown[name] = reason(error)
            return None
    return min(found, default=None)


def _memory(folder: str, version: int) -> list[int]:
    if version == 2:  # noqa: PLR2004
        texts = (_text(folder, name) for name in ("memory.max", "memory.high"))
        return [number(text) for text in texts if text not in (None, b"max")]
    limits = []
    if (text := _text(folder, "memory.limit_in_bytes")) is not None:
        limits.append(number(text))
    # What groups out of sight allow is considered here by the kernel.
    if (text := _text(folder, "memory.stat")) is not None and b"hierarchical_memory_limit " in text:
        limits.append(value_after(text + b"\n", b"hierarchical_memory_limit "))
    return [limit for limit in limits if limit < _UNLIMITED]


def _cores(folder: str, version: int) -> list[float]:
    text = _text(folder, "cpu.max" if version == 2 else "cpu.cfs_quota_us")  # noqa: PLR2004
    if text is None or text == b"-1":
        return []
    quota, period = text.split() if version == 2 else (text, _text(folder, "cpu.cfs_period_us") or b"")  # noqa: PLR2004
    if quota == b"max":
        return []
    per = number(period)
    if not per:
        raise ValueError("a period of 0")
    return [number(quota) / per]


def _processes(folder: str, version: int) -> list[int]:  # noqa: ARG001 - the same in both
    text = _text(folder, "pids.max")
    return [] if text is None or text == b"max" else [number(text)]


def _text(folder: str, name: str) -> bytes | None:
    """A file's content. None: there is no such file, as at the root of the machine. Raises OSError."""
    try:
        return read_whole(os.path.join(folder, name)).strip()
    except OSError as error:
        if reason(error) == NOT_SUPPORTED:
            return None
        raise
