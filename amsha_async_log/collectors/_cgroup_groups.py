"""Which control groups this process is in, and in which folders of this machine they can be read."""

import os
import re
from dataclasses import dataclass
from typing import Final

from ._files import read_whole

__all__ = ["CONTROLLERS", "Group", "Groups", "find_groups"]

CONTROLLERS: Final = ("memory", "cpu", "cpuacct", "pids")
"""Of version 1, those that samples speak of. In version 2, `cpuacct` is a part of `cpu`."""
_UP: Final = b".."
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
"""How mountinfo writes blanks, tabs, newlines and backslashes in paths."""


@dataclass(frozen=True)
class Group:
    """A group of this process in one hierarchy."""

    version: int
    """1 or 2."""
    folders: tuple[str, ...]
    """Its own, then those of the groups around it as far as they can be seen. Empty: it cannot be seen at all."""


@dataclass(frozen=True)
class Groups:
    """All groups of this process."""

    version: str | None
    """`v1`, `v2` or `hybrid`. None: no group can be seen."""
    controllers: dict[str, Group]
    """Of `CONTROLLERS`, those that any hierarchy has."""
    unified: Group | None
    """The one of version 2, if that is mounted and the group can be seen."""


@dataclass(frozen=True)
class _Mount:
    root: list[bytes]
    """Path of the group that is mounted, in parts; `..`: above what this process sees as the root."""
    point: bytes
    controllers: frozenset[bytes] | None
    """None: version 2."""


def find_groups(root: str, membership: bytes) -> Groups:
    """The groups told by `membership`, the content of /proc/self/cgroup. `root`: the folder that holds `proc`.

    Raises OSError if the mounts of this process cannot be read.
    """
    mounts = _mounts(read_whole(os.path.join(root, "proc", "self", "mountinfo")))
    base = os.fsencode(root)
    controllers: dict[str, Group] = {}
    unified: Group | None = None
    for line in membership.splitlines():
        _, first, rest = line.partition(b":")
        names, second, path = rest.partition(b":")
        if not first or not second:
            continue
        if not names:
            unified = Group(2, _folders(base, path, [mount for mount in mounts if mount.controllers is None]))
            continue
        for name in names.split(b","):
            controller = name.decode("ascii", "replace")
            if controller in CONTROLLERS:
                of_it = [mount for mount in mounts if mount.controllers and name in mount.controllers]
                controllers[controller] = Group(1, _folders(base, path, of_it))
    has_v1 = any(group.folders for group in controllers.values())
    has_v2 = unified is not None and bool(unified.folders)
    if unified is not None:
        for controller in CONTROLLERS:
            controllers.setdefault(controller, unified)
    version = "hybrid" if has_v1 and has_v2 else "v1" if has_v1 else "v2" if has_v2 else None
    return Groups(version, controllers, unified if has_v2 else None)


def _mounts(mountinfo: bytes) -> list[_Mount]:
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(b" - ")
        fields, source = left.split(b" "), right.split(b" ")
        if len(fields) < 5 or source[0] not in (b"cgroup", b"cgroup2"):  # noqa: PLR2004 - root and mount point
            continue
        controllers = None if source[0] == b"cgroup2" else frozenset(source[-1].split(b","))
        found.append(_Mount(_parts(_unescaped(fields[3])), _unescaped(fields[4]), controllers))
    return found


def _folders(base: bytes, path: bytes, mounts: list[_Mount]) -> tuple[str, ...]:
    """The folder of group `path` and those around it. Of several mounts, through the one that shows the most."""
    parts = _parts(path)
    for mount in sorted(mounts, key=lambda mount: len(mount.root)):
        below = parts[len(mount.root) :]
        # A path above the mounted group, or beside it, leads to nothing that could be read here.
        if parts[: len(mount.root)] != mount.root or _UP in below:
            continue
        top = os.path.join(base, mount.point.lstrip(b"/"))
        folders = [os.path.join(top, *below[:count]) for count in range(len(below), -1, -1)]
        if os.path.isdir(folders[0]):
            return tuple(os.fsdecode(folder) for folder in folders)
    return ()


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part]


def _unescaped(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text)
