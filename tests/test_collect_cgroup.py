"""Samples of control groups: found in any layout, limits in effect, values as the files say, nothing raises."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cgroup_trees import PSI, UNLIMITED_V1, V1_CPU, V1_CPUACCT, V1_MEMORY, V2, Tree, fill, hybrid, v1, v2
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log.collectors.cgroup import CgroupCollector
from amsha_async_log.events import SampleCgroup

MB = 1 << 20
SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def look(tree: Tree) -> SampleCgroup:
    """One sample of a collector that is closed again."""
    collector = CgroupCollector(str(tree.root))
    try:
        return collector.collect(slow=True)
    finally:
        collector.close()


def fds_of_process() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


# -- values ----------------------------------------------------------------------------------------------------------


def check_values(sample: SampleCgroup) -> None:
    assert sample.memory_mb == 40.0
    assert sample.peak_memory_mb == 70.0
    assert sample.oom_kills == 3
    assert (sample.throttled_periods, sample.throttled_seconds) == (4, 2.5)
    assert sample.processes == 12
    assert (sample.memory_limit_mb, sample.cpu_limit_cores, sample.processes_limit) == (None, None, None)


def test_values_of_version_2(tmp_path: Path) -> None:
    sample = look(v2(tmp_path)[0])
    assert sample.cgroup_version == "v2"
    check_values(sample)


def test_values_of_version_1(tmp_path: Path) -> None:
    sample = look(v1(tmp_path)[0])
    assert sample.cgroup_version == "v1"
    check_values(sample)


def test_values_of_a_hybrid(tmp_path: Path) -> None:
    sample = look(hybrid(tmp_path)[0])
    assert sample.cgroup_version == "hybrid"
    check_values(sample)


def test_cpu_percent_of_version_2_is_the_growth_over_time(tmp_path: Path, clock: Clock) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    first = collector.collect(slow=False)
    fill(own, {"cpu.stat": V2["cpu.stat"].replace("7000000", "7750000")})
    clock.now += SECOND // 2
    second = collector.collect(slow=False)
    collector.close()
    assert (first.cpu_percent, second.cpu_percent) == (None, 150.0)
    assert (first.unknown or {})["cpu_percent"] == "no_interval"


def test_cpu_percent_of_version_1_is_the_growth_over_time(tmp_path: Path, clock: Clock) -> None:
    tree, own = v1(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    collector.collect(slow=False)
    fill(own["cpu"], {"cpuacct.usage": "7250000000\n"})
    clock.now += SECOND
    sample = collector.collect(slow=False)
    collector.close()
    assert sample.cpu_percent == 25.0


def test_counter_that_went_back_is_a_reset(tmp_path: Path, clock: Clock) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    collector.collect(slow=False)
    fill(own, {"cpu.stat": "usage_usec 5\n", "io.pressure": PSI.format(total=5)})
    clock.now += SECOND
    sample = collector.collect(slow=False)
    collector.close()
    assert (sample.cpu_percent, sample.io_pressure_percent) == (None, None)
    assert sample.unknown is not None
    assert sample.unknown["cpu_percent"] == sample.unknown["io_pressure_percent"] == "counter_reset"


def test_clock_that_stands_still_gives_no_share_and_the_next_spans_it(tmp_path: Path, clock: Clock) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    collector.collect(slow=False)
    fill(own, {"cpu.stat": "usage_usec 7500000\n"})
    still = collector.collect(slow=False)
    clock.now += SECOND
    sample = collector.collect(slow=False)
    collector.close()
    assert still.cpu_percent is None
    assert sample.cpu_percent == 50.0


def test_pressure_is_that_of_the_group(tmp_path: Path, clock: Clock) -> None:
    tree, own = hybrid(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    collector.collect(slow=False)
    fill(
        own["unified"],
        {"cpu.pressure": PSI.format(total=101_000), "memory.pressure": PSI.format(total=502_000)},
    )
    clock.now += SECOND
    sample = collector.collect(slow=False)
    collector.close()
    pressures = (sample.cpu_pressure_percent, sample.memory_pressure_percent, sample.io_pressure_percent)
    assert pressures == (10.0, 50.0, 0.0)


def test_pressure_is_never_above_a_hundred(tmp_path: Path, clock: Clock) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    collector.collect(slow=False)
    fill(own, {"io.pressure": PSI.format(total=9_000_000)})
    clock.now += SECOND
    sample = collector.collect(slow=False)
    collector.close()
    assert sample.io_pressure_percent == 100.0


def test_pressure_of_the_machines_root_is_left_to_the_host(tmp_path: Path) -> None:
    tree, own = v2(tmp_path, "/")
    (own / "cgroup.events").unlink()
    assert (look(tree).unknown or {})["io_pressure_percent"] == "host_wide"


def test_cache_that_grows_fast_is_not_taken_for_memory_in_use(tmp_path: Path) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root))
    collector.collect(slow=True)
    fill(own, V2, memory_current=f"{1050 * MB}", memory_stat=f"anon 1\ninactive_file {1010 * MB}\n")
    sample = collector.collect(slow=False)
    collector.close()
    assert sample.memory_mb == 40.0


def test_cache_is_read_again_when_slow(tmp_path: Path) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root))
    collector.collect(slow=True)
    fill(own, V2, memory_stat=f"anon 1\ninactive_file {20 * MB}\n")
    fast, slow = collector.collect(slow=False), collector.collect(slow=True)
    collector.close()
    assert (fast.memory_mb, slow.memory_mb) == (40.0, 30.0)


# -- what is not there -----------------------------------------------------------------------------------------------


def test_files_that_the_machines_root_has_not_are_not_supported(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.membership("0::/")
    fill(tree.mount("/sys/fs/cgroup"), {"cpu.stat": "usage_usec 5\nuser_usec 5\nsystem_usec 0\n"})
    sample = look(tree)
    unknown = sample.unknown or {}
    assert {unknown[name] for name in ("memory_mb", "peak_memory_mb", "oom_kills", "processes")} == {"not_supported"}
    assert (unknown["throttled_periods"], unknown["throttled_seconds"]) == ("not_supported", "not_supported")
    assert not unknown.keys() & {"memory_limit_mb", "cpu_limit_cores", "processes_limit"}


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("memory.current", "memory_mb"),
        ("memory.stat", "memory_mb"),
        ("memory.peak", "peak_memory_mb"),
        ("memory.events", "oom_kills"),
        ("cpu.stat", "cpu_percent"),
        ("cpu.stat", "throttled_seconds"),
        ("pids.current", "processes"),
        ("memory.pressure", "memory_pressure_percent"),
    ],
)
def test_missing_file_is_not_supported_and_an_unreadable_one_says_so(tmp_path: Path, file: str, field: str) -> None:
    tree, own = v2(tmp_path)
    for text, code in (("", "unreadable"), ("-5\n", "unreadable"), ("x y\n", "unreadable"), (None, "not_supported")):
        (own / file).unlink()
        if text is not None:
            (own / file).write_text(text)
        sample = look(tree)
        assert getattr(sample, field) is None
        assert (sample.unknown or {})[field] == code, text


def test_version_1_of_an_old_kernel_does_not_count_kills(tmp_path: Path) -> None:
    tree, own = v1(tmp_path)
    fill(own["memory"], {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"})
    sample = look(tree)
    assert sample.oom_kills is None
    assert (sample.unknown or {})["oom_kills"] == "not_supported"


def test_no_control_groups_at_all_is_an_error(tmp_path: Path) -> None:
    collector = CgroupCollector(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="control groups of this process cannot be read"):
        collector.collect(slow=False)
    assert collector.fds() == []


def test_mount_that_is_hidden_is_an_error_until_it_can_be_seen(tmp_path: Path) -> None:
    tree, own = v2(tmp_path)
    away = tmp_path / "away"
    own.rename(away)
    collector = CgroupCollector(str(tmp_path))
    with pytest.raises(OSError, match="no control group of this process can be seen"):
        collector.collect(slow=True)
    away.rename(own)
    with pytest.raises(OSError, match="no control group of this process can be seen"):
        collector.collect(slow=False)
    assert collector.collect(slow=True).oom_kills == 3
    collector.close()


# -- limits ----------------------------------------------------------------------------------------------------------


def test_least_limit_of_all_groups_around_wins_in_version_2(tmp_path: Path) -> None:
    tree, own = v2(tmp_path, "/outer/middle/own")
    fill(own, V2, memory_max=f"{300 * MB}", cpu_max="200000 100000\n", pids_max="500\n")
    fill(own.parent, V2, memory_high=f"{200 * MB}", pids_max="90\n")
    fill(own.parent.parent, V2, memory_max=f"{250 * MB}", cpu_max="50000 100000\n")
    sample = look(tree)
    assert (sample.memory_limit_mb, sample.cpu_limit_cores, sample.processes_limit) == (200.0, 0.5, 90)


def test_least_limit_of_all_groups_around_wins_in_version_1(tmp_path: Path) -> None:
    tree, own = v1(tmp_path, "/outer/own")
    fill(own["memory"].parent, V1_MEMORY | {"memory.limit_in_bytes": f"{200 * MB}\n"})
    fill(own["cpu"].parent, V1_CPU | {"cpu.cfs_quota_us": "150000\n"})
    fill(own["pids"], {"pids.max": "77\n"})
    sample = look(tree)
    assert (sample.memory_limit_mb, sample.cpu_limit_cores, sample.processes_limit) == (200.0, 1.5, 77)


def test_limit_of_groups_out_of_sight_is_told_by_version_1(tmp_path: Path) -> None:
    tree, own = v1(tmp_path)
    text = V1_MEMORY["memory.stat"].replace(UNLIMITED_V1, str(100 * MB))
    fill(own["memory"], {"memory.stat": text})
    assert look(tree).memory_limit_mb == 100.0


@pytest.mark.parametrize("text", [UNLIMITED_V1, "9223372036854710272", "9223372036854775807", "18446744073709551615"])
def test_largest_number_of_version_1_is_no_limit(tmp_path: Path, text: str) -> None:
    tree, own = v1(tmp_path)
    fill(own["memory"], {"memory.limit_in_bytes": f"{text}\n"})
    sample = look(tree)
    assert sample.memory_limit_mb is None
    assert "memory_limit_mb" not in (sample.unknown or {})


def test_limit_that_cannot_be_understood_is_unknown_even_if_another_can(tmp_path: Path) -> None:
    tree, own = v2(tmp_path, "/outer/own")
    fill(own, V2, memory_max="100\n", cpu_max="5 0\n", pids_max="5\n")
    fill(own.parent, V2, memory_max="lots\n")
    sample = look(tree)
    assert (sample.memory_limit_mb, sample.cpu_limit_cores, sample.processes_limit) == (None, None, 5)
    unknown = sample.unknown or {}
    assert (unknown["memory_limit_mb"], unknown["cpu_limit_cores"]) == ("unreadable", "unreadable")


def test_limits_are_read_again_only_when_slow(tmp_path: Path) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root))
    collector.collect(slow=True)
    fill(own, {"memory.max": f"{64 * MB}\n"})
    limits = [collector.collect(slow=slow).memory_limit_mb for slow in (False, True, False)]
    collector.close()
    assert limits == [None, 64.0, 64.0]


# -- where the group is ----------------------------------------------------------------------------------------------


def test_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    tree, _ = v2(tmp_path, "/")
    check_values(look(tree))


def test_mount_of_a_part_as_in_a_container_without_its_own_namespace(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.membership("3:cpu,cpuacct:/docker/abc", "2:memory:/docker/abc/inner")
    fill(tree.mount("/sys/fs/cgroup/cpu", controllers="cpu,cpuacct", group="/docker/abc"), V1_CPU | V1_CPUACCT)
    top = tree.mount("/sys/fs/cgroup/memory", controllers="memory", group="/docker/abc")
    fill(top, V1_MEMORY | {"memory.limit_in_bytes": f"{128 * MB}\n"})
    fill(top / "inner", V1_MEMORY)
    sample = look(tree)
    assert (sample.memory_mb, sample.memory_limit_mb, sample.throttled_periods) == (40.0, 128.0, 4)


def test_group_beside_the_root_of_its_namespace_is_found_through_a_mount_from_above(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.membership("0::/../../beside/own")
    fill(tree.mount("/sys/fs/cgroup", group="/../..") / "beside" / "own", V2)
    check_values(look(tree))


@pytest.mark.parametrize(("path", "group"), [("/../..", "/"), ("/", "/../.."), ("/app", "/other"), ("/apple", "/app")])
def test_group_outside_of_the_mount_cannot_be_seen(tmp_path: Path, path: str, group: str) -> None:
    tree = Tree(tmp_path)
    tree.membership(f"0::{path}")
    fill(tree.mount("/sys/fs/cgroup", group=group), V2)
    with pytest.raises(OSError, match="no control group of this process can be seen"):
        look(tree)


def test_one_controller_that_cannot_be_seen_leaves_the_others(tmp_path: Path) -> None:
    tree, own = v1(tmp_path)
    shutil.rmtree(own["memory"])
    sample = look(tree)
    unknown = sample.unknown or {}
    assert (sample.processes, sample.throttled_periods) == (12, 4)
    assert (unknown["memory_mb"], unknown["memory_limit_mb"]) == ("not_visible", "not_visible")


def test_mount_that_shows_more_groups_is_preferred(tmp_path: Path) -> None:
    tree, own = v2(tmp_path, "/outer/own")
    fill(own.parent, V2, pids_max="9\n")
    fill(tree.mount("/mnt/part", group="/outer/own"), V2)
    assert look(tree).processes_limit == 9


def test_blanks_and_backslashes_in_paths_are_read_right(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.membership("0::/my app\\x:y/own")
    fill(tree.mount(r"/sys/fs/c\040group", group=r"/my\040app\134x:y") / "own", V2)
    check_values(look(tree))


def test_names_that_are_not_utf_8_are_read_right(tmp_path: Path) -> None:
    tree, own = v2(tmp_path)
    odd = Path(os.fsdecode(os.fsencode(own.parent) + b"/\xff\xfe"))
    own.rename(odd)
    (tree.self_ / "cgroup").write_bytes(b"0::/\xff\xfe\n")
    check_values(look(tree))


def test_version_2_has_the_controllers_that_version_1_has_not(tmp_path: Path) -> None:
    tree, own = v2(tmp_path)
    tree.membership("1:memory:/app", "0::/app")
    fill(tree.mount("/sys/fs/cgroup1", controllers="memory") / "app", V1_MEMORY | {"memory.usage_in_bytes": "10485760"})
    sample = look(tree)
    assert (sample.cgroup_version, sample.memory_mb, sample.processes) == ("hybrid", 0.0, 12)


# -- another group ---------------------------------------------------------------------------------------------------


def test_move_to_another_group_is_noticed_when_slow(tmp_path: Path, clock: Clock) -> None:
    tree, own = v2(tmp_path)
    collector = CgroupCollector(str(tree.root), clock_ns=clock)
    collector.collect(slow=True)
    before = collector.fds()
    fill(own.parent / "other", V2, pids_current="3\n", cpu_stat="usage_usec 1\n")
    tree.membership("0::/other")
    shutil.rmtree(own)
    clock.now += SECOND
    sample = collector.collect(slow=True)
    assert sample.processes == 3
    assert (sample.cpu_percent, (sample.unknown or {})["cpu_percent"]) == (None, "no_interval")
    assert len(collector.fds()) == len(before)
    collector.close()


MEMORY_V1 = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def real_groups() -> Iterator[tuple[Path, Path]]:
    """Two real groups of version 1 below this process's own."""
    own = next(
        (line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line),
        None,
    ) if MEMORY_V1.is_dir() else None  # fmt: skip
    if own is None:
        pytest.skip("no memory controller of version 1 here")
    made: list[Path] = []
    try:
        for name in ("a", "b"):
            folder = MEMORY_V1 / own.lstrip("/") / f"test-{os.getpid()}-{name}"
            folder.mkdir()
            made.append(folder)
    except OSError as error:
        for folder in made:
            folder.rmdir()
        pytest.skip(f"may not make a control group here: {error}")
    yield made[0], made[1]
    for folder in made:
        if folder.exists():
            folder.rmdir()


MEMBER = """
import json, os, pathlib, sys
import msgspec
from amsha_async_log.collectors.cgroup import CgroupCollector
first, second = map(pathlib.Path, sys.argv[1:])
(first / "cgroup.procs").write_text(str(os.getpid()))
collector = CgroupCollector()
before = collector.collect(slow=True)
held = bytearray(b"x") * (64 << 20)
grown = collector.collect(slow=False)
usage = int((first / "memory.usage_in_bytes").read_text())
peak = int((first / "memory.max_usage_in_bytes").read_text())
(second / "cgroup.procs").write_text(str(os.getpid()))
(first / "memory.force_empty").write_text("0")
first.rmdir()
gone = collector.collect(slow=False)
again = collector.collect(slow=True)
print(json.dumps([[msgspec.to_builtins(s) for s in (before, grown, gone, again)], usage, peak]))
"""


def test_real_group_is_read_right_and_its_end_noticed(real_groups: tuple[Path, Path]) -> None:
    first, second = real_groups
    (first / "memory.limit_in_bytes").write_text(str(512 * MB))
    (second / "memory.limit_in_bytes").write_text(str(256 * MB))
    done = subprocess.run([sys.executable, "-c", MEMBER, first, second], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (before, grown, gone, again), usage, peak = json.loads(done.stdout)
    assert before["memory_limit_mb"] == grown["memory_limit_mb"] == 512.0
    assert 60 < grown["memory_mb"] - before.get("memory_mb", 0) < 70
    assert abs(grown["memory_mb"] - usage / MB) < 5
    assert abs(grown["peak_memory_mb"] - peak / MB) < 5
    assert grown["oom_kills"] == 0
    assert {gone["unknown"][name] for name in ("memory_mb", "peak_memory_mb", "oom_kills")} == {"lost"}
    assert not gone.keys() & {"memory_mb", "peak_memory_mb", "oom_kills"}
    assert again["memory_limit_mb"] == 256.0
    assert "memory_mb" in again


KILLED = """
import os, pathlib, sys
(pathlib.Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
held = [bytearray(b"x") * (8 << 20) for _ in range(20)]
"""
WITNESS = """
import os, pathlib, subprocess, sys
from amsha_async_log.collectors.cgroup import CgroupCollector
(pathlib.Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
collector = CgroupCollector()
before = collector.collect(slow=True).oom_kills
done = subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]])
print(done.returncode, collector.collect(slow=False).oom_kills - before)
"""


def test_process_killed_for_want_of_memory_is_counted(real_groups: tuple[Path, Path]) -> None:
    first, _ = real_groups
    (first / "memory.limit_in_bytes").write_text(str(96 * MB))
    command = [sys.executable, "-c", WITNESS, first, KILLED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["-9", "1"], done.stderr


# -- anything in the files -------------------------------------------------------------------------------------------

V1_NAMES = [("memory", name) for name in V1_MEMORY] + [("cpu", name) for name in V1_CPU | V1_CPUACCT]
PROC_NAMES = ["cgroup", "mountinfo"]
garbage = st.one_of(
    st.binary(max_size=80),
    st.text("0123456789-_. max\n", max_size=60).map(str.encode),
    st.integers(-(10**30), 10**30).map(lambda number: b"%d\n" % number),
    st.just(b"9" * 5000),
)


def check_garbage(root: Path, paths: dict[Path, bytes]) -> None:
    """Fresh, and again with an open collector: no exception but OSError for a machine without groups."""
    collector = CgroupCollector(str(root))
    for path, data in [*paths.items(), *paths.items()]:
        path.write_bytes(data)
        try:
            for slow in (False, True):
                assert msgspec.json.decode(msgspec.json.encode(collector.collect(slow=slow)))
        except OSError as error:
            assert "control group" in str(error)
    fresh = CgroupCollector(str(root))
    try:
        fresh.collect(slow=True)
    except OSError as error:
        assert "control group" in str(error)
    for each in (collector, fresh):
        each.close()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(V2)), garbage, max_size=6))
def test_nothing_in_files_of_version_2_raises(contents: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree, own = v2(Path(folder))
        check_garbage(tree.root, {own / name: data for name, data in contents.items()})


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(V1_NAMES), garbage, max_size=6))
def test_nothing_in_files_of_version_1_raises(contents: dict[tuple[str, str], bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree, own = v1(Path(folder))
        check_garbage(tree.root, {own[where] / name: data for (where, name), data in contents.items()})


lines = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"0::/app", b"0::/app (deleted)", b"4:memory:/", b"::::", b"3:cpu,memory:/../x", b"0::/a\x00b"]),
        st.sampled_from([b"1 2 3 / /x - cgroup2", b"1 2 3 / /\x00 rw - cgroup2 a b", b" - cgroup", b"1 2 0:1 /\\777 /\\9 x - cgroup c memory"]),
    ),
    max_size=6,
).map(b"\n".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(PROC_NAMES), lines, min_size=1))
def test_nothing_in_the_lists_of_groups_and_mounts_raises(contents: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree, _ = hybrid(Path(folder))
        check_garbage(tree.root, {tree.self_ / name: data for name, data in contents.items()})


# -- descriptors -----------------------------------------------------------------------------------------------------


@needs_proc
def test_descriptors_do_not_grow_and_are_all_given_up(tmp_path: Path) -> None:
    tree, _ = hybrid(tmp_path)
    before = fds_of_process()
    collector = CgroupCollector(str(tree.root))
    collector.collect(slow=True)
    held = fds_of_process()
    assert held - before == len(set(collector.fds()))
    for number in range(2000):
        collector.collect(slow=number % 100 == 0)
    assert fds_of_process() == held
    collector.close()
    collector.close()
    assert (fds_of_process(), collector.fds()) == (before, [])


@needs_proc
def test_this_machines_own_groups_are_found_or_there_are_none() -> None:
    collector = CgroupCollector()
    try:
        sample = collector.collect(slow=True)
    except OSError as error:
        assert "control group" in str(error)
    else:
        assert sample.cgroup_version in {"v1", "v2", "hybrid"}
    finally:
        collector.close()
