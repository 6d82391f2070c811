"""Folders that look like a machine with control groups: `proc/self` and whatever is mounted."""

from collections.abc import Mapping
from pathlib import Path

UNLIMITED_V1 = "9223372036854771712"
PSI = "some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"

V1_MEMORY = {
    "memory.usage_in_bytes": "52428800\n",
    "memory.max_usage_in_bytes": "73400320\n",
    "memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "memory.stat": f"cache 1\ninactive_file 1\nhierarchical_memory_limit {UNLIMITED_V1}\ntotal_inactive_file 10485760\n",
}
V1_CPU = {
    "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n",
    "cpu.cfs_quota_us": "-1\n",
    "cpu.cfs_period_us": "100000\n",
}
V1_CPUACCT = {"cpuacct.usage": "7000000000\n"}
V1_PIDS = {"pids.current": "12\n", "pids.max": "max\n"}
V2 = {
    "cgroup.events": "populated 1\nfrozen 0\n",
    "memory.current": "52428800\n",
    "memory.peak": "73400320\n",
    "memory.max": "max\n",
    "memory.high": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 3\noom_kill 3\noom_group_kill 0\n",
    "memory.stat": "anon 1\nfile 20971520\ninactive_anon 5\ninactive_file 10485760\nactive_file 7\n",
    "cpu.stat": "usage_usec 7000000\nuser_usec 1\nsystem_usec 1\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n",
    "cpu.max": "max 100000\n",
    "pids.current": "12\n",
    "pids.max": "max\n",
    "cpu.pressure": PSI.format(total=1000),
    "memory.pressure": PSI.format(total=2000),
    "io.pressure": PSI.format(total=3000),
}


class Tree:
    """One such machine. `root` is what a collector is given."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.self_ = root / "proc" / "self"
        self.self_.mkdir(parents=True)
        self._mounts: list[str] = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]

    def membership(self, *lines: str) -> None:
        """What /proc/self/cgroup says."""
        (self.self_ / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mount(self, point: str, *, controllers: str | None = None, group: str = "/") -> Path:
        """Mount a hierarchy, or the part of it from `group` on. `controllers`: those of version 1; None: version 2."""
        end = "cgroup2 cgroup2 rw" if controllers is None else f"cgroup cgroup rw,{controllers}"
        self._mounts.append(f"{30 + len(self._mounts)} 22 0:26 {group} {point} rw,nosuid shared:9 - {end}")
        (self.self_ / "mountinfo").write_text("".join(f"{line}\n" for line in self._mounts))
        folder = self.root / point.encode().decode("unicode_escape").lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def fill(folder: Path, files: Mapping[str, str], **changed: str) -> Path:
    """Make a group of `files`; `changed`: file name, `_` for `.` at the first place, to other content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**files, **{name.replace("_", ".", 1): text for name, text in changed.items()}}.items():
        (folder / name).write_text(text)
    return folder


def v2(root: Path, path: str = "/app") -> tuple[Tree, Path]:
    """Version 2 only. The tree and the group's own folder."""
    tree = Tree(root)
    tree.membership(f"0::{path}")
    return tree, fill(tree.mount("/sys/fs/cgroup") / path.lstrip("/"), V2)


def v1(root: Path, path: str = "/app") -> tuple[Tree, dict[str, Path]]:
    """Version 1 only, cpu and cpuacct mounted together. The tree and the own folder of each controller."""
    tree = Tree(root)
    tree.membership(f"4:memory:{path}", f"3:cpu,cpuacct:{path}", f"2:pids:{path}", f"1:name=systemd:{path}")
    own = path.lstrip("/")
    cpu = fill(tree.mount("/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct") / own, V1_CPU | V1_CPUACCT)
    tree.mount("/sys/fs/cgroup/systemd", controllers="xattr,name=systemd")
    return tree, {
        "memory": fill(tree.mount("/sys/fs/cgroup/memory", controllers="memory") / own, V1_MEMORY),
        "cpu": cpu,
        "pids": fill(tree.mount("/sys/fs/cgroup/pids", controllers="pids") / own, V1_PIDS),
    }


def hybrid(root: Path, path: str = "/app") -> tuple[Tree, dict[str, Path]]:
    """Controllers in version 1, and version 2 without any. The tree and the own folders, `unified` among them."""
    tree, folders = v1(root, path)
    text = (tree.self_ / "cgroup").read_text()
    tree.membership(*text.splitlines(), f"0::{path}")
    files = {name: V2[name] for name in V2 if name.endswith((".pressure", "cgroup.events"))}
    files["cpu.stat"] = "usage_usec 1\nuser_usec 1\nsystem_usec 0\n"
    return tree, folders | {"unified": fill(tree.mount("/sys/fs/cgroup/unified") / path.lstrip("/"), files)}
