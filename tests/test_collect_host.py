"""Samples of the host: as psutil and the files say, deltas right, nothing raises."""

import os
import sys
import tempfile
from pathlib import Path

import msgspec
import psutil
import pytest
from cgroup_trees import PSI
from hypothesis import given, settings
from hypothesis import strategies as st
from support import poll

from amsha_async_log.collectors.host import HostCollector
from amsha_async_log.events import SampleHost

MB = 1 << 20
SECOND = 1_000_000_000

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

STAT = "cpu  {user} 0 100 {idle} {waiting} 0 0 {steal} 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5 0\n"
MEMINFO = "MemTotal:       2048000 kB\nMemFree:         100 kB\nMemAvailable:    1024000 kB\nBuffers:  1 kB\n"


class Clock:
    def __init__(self) -> None:
        self.now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


class Machine:
    """A fixture `proc`, a clock, and a collector of them."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        (self.proc / "pressure").mkdir(parents=True)
        self.clock = Clock()
        self.ticks()
        self.pressure(0, 0, 0)
        (self.proc / "meminfo").write_text(MEMINFO)
        self.collector = HostCollector(str(root), clock_ns=self.clock)

    def ticks(self, *, user: int = 1000, idle: int = 5000, waiting: int = 50, steal: int = 0) -> None:
        (self.proc / "stat").write_text(STAT.format(user=user, idle=idle, waiting=waiting, steal=steal))

    def pressure(self, *totals: int) -> None:
        for name, total in zip(("cpu", "memory", "io"), totals, strict=True):
            (self.proc / "pressure" / name).write_text(PSI.format(total=total))

    def collect(self) -> SampleHost:
        return self.collector.collect(slow=False)


@pytest.fixture
def machine(tmp_path: Path):
    made = Machine(tmp_path)
    yield made
    made.collector.close()


def test_memory_is_what_is_not_available(machine: Machine) -> None:
    sample = machine.collect()
    assert (sample.memory_total_mb, sample.memory_mb) == (2000.0, 1000.0)


def test_cpu_percent_counts_waiting_for_storage_as_idle_and_theft_as_busy(machine: Machine) -> None:
    machine.collect()
    machine.ticks(user=1010, idle=5060, waiting=70, steal=10)
    assert machine.collect().cpu_percent == 20.0


def test_first_look_has_no_share_and_says_why(machine: Machine) -> None:
    sample = machine.collect()
    assert sample.cpu_percent is None
    names = ("cpu_percent", "cpu_pressure_percent", "memory_pressure_percent", "io_pressure_percent")
    assert sample.unknown == dict.fromkeys(names, "no_interval")


def test_no_tick_since_then_has_no_share(machine: Machine) -> None:
    machine.collect()
    sample = machine.collect()
    assert sample.cpu_percent is None
    assert (sample.unknown or {})["cpu_percent"] == "no_interval"


def test_waiting_time_that_goes_back_is_no_reset(machine: Machine) -> None:
    machine.collect()
    machine.ticks(user=1050, idle=5050, waiting=40)
    assert machine.collect().cpu_percent == 50.0


@pytest.mark.parametrize("change", [{"user": 10}, {"idle": 10}])
def test_counters_that_went_back_are_a_reset_and_the_next_is_right(machine: Machine, change: dict[str, int]) -> None:
    machine.collect()
    machine.ticks(**change)
    reset = machine.collect()
    machine.ticks(**{"user": 1000, "idle": 5000} | change | {"waiting": 60})
    assert (reset.cpu_percent, (reset.unknown or {})["cpu_percent"]) == (None, "counter_reset")
    assert machine.collect().cpu_percent == 0.0


def test_pressure_is_the_growth_over_time(machine: Machine) -> None:
    machine.collect()
    machine.pressure(100_000, 250_000, 0)
    machine.clock.now += SECOND // 2
    sample = machine.collect()
    pressures = (sample.cpu_pressure_percent, sample.memory_pressure_percent, sample.io_pressure_percent)
    assert pressures == (20.0, 50.0, 0.0)


def test_pressure_that_went_back_is_a_reset(machine: Machine) -> None:
    machine.pressure(100, 100, 100)
    machine.collect()
    machine.pressure(100, 50, 100)
    machine.clock.now += SECOND
    sample = machine.collect()
    assert sample.unknown == {"cpu_percent": "no_interval", "memory_pressure_percent": "counter_reset"}


def test_machine_without_pressure_does_not_support_it(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "stat").write_text(STAT.format(user=1, idle=1, waiting=1, steal=1))
    (proc / "meminfo").write_text(MEMINFO)
    collector = HostCollector(str(tmp_path))
    unknown = collector.collect(slow=False).unknown or {}
    collector.close()
    assert {unknown[name] for name in unknown if name != "cpu_percent"} == {"not_supported"}
    assert len(unknown) == 4


@linux
def test_values_are_those_of_psutil() -> None:
    collector = HostCollector()
    sample = collector.collect(slow=True)
    collector.close()
    memory = psutil.virtual_memory()
    assert sample.memory_total_mb == memory.total * 1000 // MB / 1000
    assert sample.memory_mb == pytest.approx((memory.total - memory.available) / MB, abs=memory.total / MB / 10)
    assert sample.load_1m == pytest.approx(os.getloadavg()[0], abs=0.5)


@linux
def test_cpu_percent_is_that_of_the_ticks_psutil_reads() -> None:
    collector = HostCollector()
    before = psutil.cpu_times()
    collector.collect(slow=False)

    def ticked() -> bool:
        after = psutil.cpu_times()
        return sum(after) - sum(before) > 2.0

    poll(ticked)
    sample = collector.collect(slow=False)
    after = psutil.cpu_times()
    collector.close()
    grown = [b - a for a, b in zip(before, after, strict=True)]
    idle = after.idle + after.iowait - before.idle - before.iowait
    guests = after.guest + after.guest_nice - before.guest - before.guest_nice
    whole = sum(grown) - guests
    assert sample.cpu_percent == pytest.approx(100 * (1 - idle / whole), abs=8)


@linux
def test_pressure_of_this_machine_is_known_or_not_supported() -> None:
    collector = HostCollector()
    first = collector.collect(slow=False).unknown or {}
    second = collector.collect(slow=False)
    collector.close()
    expected = "no_interval" if os.path.exists("/proc/pressure/io") else "not_supported"
    assert first["io_pressure_percent"] == expected
    assert (second.io_pressure_percent is not None) == (expected == "no_interval")


def test_without_proc_psutil_speaks(tmp_path: Path) -> None:
    collector = HostCollector(str(tmp_path))
    sample = collector.collect(slow=False)
    memory = psutil.virtual_memory()
    assert sample.memory_total_mb == memory.total * 1000 // MB / 1000
    assert sample.memory_mb == pytest.approx((memory.total - memory.available) / MB, abs=memory.total / MB / 10)
    poll(lambda: collector.collect(slow=False).cpu_percent is not None)
    assert (collector.collect(slow=False).unknown or {})["io_pressure_percent"] == "not_supported"
    assert collector.fds() == []
    collector.close()


garbage = st.one_of(
    st.binary(max_size=150),
    st.text("0123456789-_. cpu\n", max_size=100).map(str.encode),
    st.just(b"cpu  " + b"9" * 400),
    st.just(STAT.format(user="9" * 150, idle=1, waiting=1, steal=1).encode()),
    st.just(MEMINFO.replace("MemAvailable", "Other").encode()),
    st.just(MEMINFO.replace("1024000", "-1").encode()),
    st.just(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=-3\n"),
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(["stat", "meminfo", "pressure/cpu", "pressure/io"]), garbage, min_size=1))
def test_nothing_in_the_files_raises(contents: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        machine.collect()
        for name, data in [*contents.items(), *contents.items()]:
            (machine.proc / name).write_bytes(data)
            machine.clock.now += SECOND
            sample = machine.collect()
            assert msgspec.json.decode(msgspec.json.encode(sample))
        machine.collector.close()


@pytest.mark.parametrize(
    ("file", "field"),
    [("stat", "cpu_percent"), ("meminfo", "memory_mb"), ("meminfo", "memory_total_mb"), ("pressure/io", "io_pressure_percent")],
)  # fmt: skip
@pytest.mark.parametrize("text", ["", "x", "cpu  1 2 3\n", "-1\n"])
def test_what_cannot_be_understood_is_unreadable(machine: Machine, file: str, field: str, text: str) -> None:
    machine.collect()
    (machine.proc / file).write_text(text)
    machine.clock.now += SECOND
    sample = machine.collect()
    assert getattr(sample, field) is None
    assert (sample.unknown or {})[field] == "unreadable"


@linux
def test_descriptors_do_not_grow_and_are_all_given_up() -> None:
    before = len(os.listdir("/proc/self/fd"))
    collector = HostCollector()
    held = len(os.listdir("/proc/self/fd"))
    assert held - before == len(set(collector.fds())) > 0
    for _ in range(10_000):
        collector.collect(slow=False)
    assert len(os.listdir("/proc/self/fd")) == held
    collector.close()
    collector.close()
    assert (len(os.listdir("/proc/self/fd")), collector.fds()) == (before, [])
