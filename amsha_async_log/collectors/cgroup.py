"""The control group (cgroup) of this process: of the container or service that it runs in.

Hot figures in microseconds: a file of one number 1.2, cpu.stat 1.6, memory.stat 9.5, a pressure file 2.5.
"""

import errno
import os
import time
from typing import Final

from .. import events
from ._base import KeptFile
from ._cgroup_files import GroupFiles
from ._cgroup_groups import Groups, find_groups
from ._cgroup_limits import Limits, read_limits
from ._files import LOST, Clock

__all__ = ["CgroupCollector"]

_MEMBERSHIP_SIZE: Final = 1 << 16
"""Of /proc/self/cgroup: a line for each hierarchy, of 4 KiB at most."""


class CgroupCollector:
    """Samples of the group that this process is in, of version 1, 2, or both.

    Limits are those in effect: the groups around it are considered as far as they can be seen. They are read only
    when slow, and only then is it noticed that the process is in another group.
    """

    name = "cgroup"

    def __init__(self, root: str = "/", *, clock_ns: Clock = time.monotonic_ns) -> None:
        """`root`: the folder that `proc` and the mounts are in. `clock_ns`: nanoseconds that never go back."""
        self._root = root
        self._clock_ns = clock_ns
        self._groups = Groups(None, {}, None)
        self._membership_file: KeptFile | None = None
        self._membership = b""
        self._files: GroupFiles | None = None
        """None: not looked for yet, or none can be seen."""
        self._why = (0, "")
        """Why none can be seen, as arguments of OSError. 0: not looked for yet."""
        self._limits = Limits()
        self._missing: dict[str, str] = {}
        """Field to reason code, of what is not there to be read."""
        self._lost = False
        """A file of the group is gone, so it is to be looked for again."""

    def collect(self, *, slow: bool) -> events.SampleCgroup:
        """The group now. `slow`: also whether it is another one, and its limits.

        Raises OSError if no group can be seen, as where there are none; when slow, they are looked for again.
        """
        if slow or not (self._files or self._why[0]):
            self._look()
        files = self._files
        if files is None:
            raise OSError(*self._why)
        limits = self._limits
        unknown = dict(self._missing)
        sample = events.SampleCgroup(cgroup_version=self._groups.version)
        files.fill(sample, self._clock_ns(), unknown, slow=slow)
        sample.memory_limit_mb = limits.memory_mb
        sample.cpu_limit_cores = limits.cores
        sample.processes_limit = limits.processes
        if unknown:
            self._lost = LOST in unknown.values()
            sample.unknown = unknown
        return sample

    def fds(self) -> list[int]:
        """Descriptors it keeps open."""
        own = [] if self._membership_file is None else [self._membership_file.fd]
        return own if self._files is None else own + self._files.files.fds()

    def close(self) -> None:
        """Give up its descriptors. May be called again."""
        self._let_go()
        if self._membership_file is not None:
            self._membership_file.close()
            self._membership_file = None

    def _look(self) -> None:
        """Find the groups, unless they are those found before, and read their limits."""
        try:
            if self._membership_file is None:
                self._membership_file = KeptFile(os.path.join(self._root, "proc", "self", "cgroup"))
            membership = self._membership_file.read(_MEMBERSHIP_SIZE)
            if self._files is None or self._lost or membership != self._membership:
                self._let_go()
                self._groups = groups = find_groups(self._root, membership)
                if groups.version is None:
                    self._why = errno.ENOENT, "no control group of this process can be seen"
                    return
                self._membership, self._lost = membership, False
                self._files = GroupFiles(groups)
            self._limits = read_limits(self._groups)
            self._missing = self._files.files.missing | self._limits.unknown
        except OSError as error:
            self._let_go()
            self._why = error.errno or errno.EIO, f"the control groups of this process cannot be read: {error.strerror}"

    def _let_go(self) -> None:
        files, self._files = self._files, None
        if files is not None:
            files.files.close()
