"""Samples of this process: as psutil, the system and real work say; reasons where nothing is known."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import run_python

from amsha_async_log.collectors import process
from amsha_async_log.collectors.process import ProcessCollector

MB = 1 << 20
SECOND = 1_000_000_000

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class Clock:
    def __init__(self) -> None:
        self.now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def collector():
    made = ProcessCollector()
    yield made
    made.close()


@pytest.fixture(params=["proc", "psutil"])
def either(request: pytest.FixtureRequest, tmp_path: Path):
    """A collector that reads /proc, and one that asks psutil."""
    if request.param == "proc" and sys.platform != "linux":
        pytest.skip("needs /proc")
    made = ProcessCollector(root="/" if request.param == "proc" else str(tmp_path))
    yield made
    made.close()


def test_values_are_those_of_psutil(either: ProcessCollector) -> None:
    truth = psutil.Process()
    before = truth.io_counters()[2:4] if hasattr(truth, "io_counters") else ()
    sample = either.collect(slow=True)
    after = truth.io_counters()[2:4] if before else ()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert sample.memory_mb == pytest.approx(truth.memory_info().rss / MB, abs=2)
    assert sample.threads == truth.num_threads()
    assert sample.open_files == pytest.approx(truth.num_fds(), abs=2)
    assert sample.major_faults == pytest.approx(usage.ru_majflt, abs=5)
    assert sample.involuntary_switches == pytest.approx(usage.ru_nivcsw, abs=5)
    times = truth.cpu_times()
    assert sample.cpu_seconds == pytest.approx(times.user + times.system, abs=0.1)
    counts = (sample.file_read_bytes, sample.file_write_bytes) if before else ()
    assert all(low <= count <= high for low, count, high in zip(before, counts, after, strict=True))


def test_raw_counters_are_those_of_the_sample(either: ProcessCollector) -> None:
    assert (either.cpu_ns, either.rss_bytes, either.peak_rss_bytes) == (0, None, None)
    before = time.process_time_ns()
    sample = either.collect(slow=False)
    assert before <= either.cpu_ns <= time.process_time_ns()
    assert sample.cpu_seconds == either.cpu_ns // 1000 / 1e6
    assert either.rss_bytes is not None
    assert sample.memory_mb == either.rss_bytes * 1000 // MB / 1000
    assert either.peak_rss_bytes is not None
    assert sample.peak_memory_mb == either.peak_rss_bytes * 1000 // MB / 1000
    assert (sample.file_read_bytes, sample.file_write_bytes) == (either.read_bytes, either.write_bytes)


def test_nothing_is_unknown_after_the_first_look(either: ProcessCollector) -> None:
    first = either.collect(slow=False)
    assert first.cpu_percent is None
    assert first.unknown == {"cpu_percent": "no_interval"}
    second = either.collect(slow=False)
    assert second.cpu_percent is not None
    assert second.unknown is None


def test_cpu_percent_is_cpu_time_over_the_time_of_the_clock() -> None:
    clock = Clock()
    collector = ProcessCollector(clock_ns=clock)
    collector.collect(slow=False)
    before = collector.cpu_ns
    while time.process_time_ns() < before + SECOND // 20:
        pass
    clock.now += SECOND // 10
    sample = collector.collect(slow=False)
    collector.close()
    assert sample.cpu_percent == pytest.approx((collector.cpu_ns - before) / (SECOND // 10) * 100, abs=0.01)
    assert sample.cpu_percent >= 50


def test_clock_that_stands_still_gives_no_percentage() -> None:
    collector = ProcessCollector(clock_ns=lambda: SECOND)
    samples = [collector.collect(slow=False) for _ in range(3)]
    collector.close()
    assert [sample.cpu_percent for sample in samples] == [None] * 3
    assert samples[2].unknown == {"cpu_percent": "no_interval"}


def test_cpu_time_of_other_threads_counts_whichever_thread_asks(collector: ProcessCollector) -> None:
    collector.collect(slow=False)
    found = []

    def ask() -> None:
        end = time.thread_time_ns() + SECOND // 50
        while time.thread_time_ns() < end:
            pass
        found.append(collector.collect(slow=False).cpu_percent)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found[0] > 0


def test_cpu_time_that_goes_back_is_a_reset(collector: ProcessCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    collector.collect(slow=False)
    monkeypatch.setattr(time, "process_time_ns", lambda: 5)
    sample = collector.collect(slow=False)
    assert sample.cpu_percent is None
    assert sample.unknown == {"cpu_percent": "counter_reset"}


def test_threads_are_counted_as_they_come_and_go(either: ProcessCollector) -> None:
    before = either.collect(slow=False).threads
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    during = either.collect(slow=False).threads
    stop.set()
    for thread in threads:
        thread.join()
    assert during == (before or 0) + 5


def test_open_files_are_counted_when_slow_and_then_kept(either: ProcessCollector, tmp_path: Path) -> None:
    first = either.collect(slow=False).open_files
    files = [(tmp_path / str(number)).open("w") for number in range(7)]
    try:
        kept, counted = either.collect(slow=False).open_files, either.collect(slow=True).open_files
    finally:
        for file in files:
            file.close()
    assert first is not None
    assert (kept, counted) == (first, first + 7)


@linux
def test_open_files_are_listed_where_the_folder_has_no_size(
    collector: ProcessCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sized = collector.collect(slow=True).open_files
    real = os.fstat
    monkeypatch.setattr(process.os, "fstat", lambda fd: os.stat_result([*real(fd)[:6], 0, *real(fd)[7:10]]))
    assert collector.collect(slow=True).open_files == sized


ALLOCATES = """
import json, os, sys
import msgspec
from amsha_async_log.collectors.process import ProcessCollector
collector = ProcessCollector()
samples = [collector.collect(slow=True)]
held = bytearray(b"x") * (100 << 20)
samples.append(collector.collect(slow=False))
del held
samples.append(collector.collect(slow=False))
print(json.dumps([msgspec.to_builtins(s) for s in samples]))
"""


@linux
def test_memory_that_is_taken_and_given_back_shows() -> None:
    before, held, after = json.loads(run_python(ALLOCATES).stdout)
    assert 95 < held["memory_mb"] - before["memory_mb"] < 105
    assert after["memory_mb"] < held["memory_mb"] - 90
    assert after["peak_memory_mb"] >= held["memory_mb"]
    assert after["peak_memory_mb"] < before["memory_mb"] + 300


@linux
def test_peak_is_the_programs_own_and_not_the_one_of_the_parent_that_started_it() -> None:
    ballast = bytearray(b"x") * (400 * MB)
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    before, held, after = json.loads(run_python(ALLOCATES).stdout)
    del ballast
    assert parent > 400
    assert before["peak_memory_mb"] == pytest.approx(before["memory_mb"], abs=10)
    assert held["peak_memory_mb"] < 300 > after["peak_memory_mb"]


WRITES = """
import json, os, sys
import psutil, msgspec
from amsha_async_log.collectors.process import ProcessCollector
collector, truth = ProcessCollector(), psutil.Process()
def look():
    low, sample, high = truth.io_counters(), collector.collect(slow=False), truth.io_counters()
    assert low.write_bytes <= sample.file_write_bytes <= high.write_bytes, (low, sample, high)
    return sample.file_write_bytes
before = look()
with open(sys.argv[1], "wb") as file:
    file.write(os.urandom(8 << 20))
    file.flush()
    os.fsync(file.fileno())
print(look() - before)
"""


@linux
def test_bytes_written_to_storage_are_counted(tmp_path: Path) -> None:
    written = int(run_python(WRITES, tmp_path / "file").stdout)
    if not written:
        pytest.skip("the folder for temporary files is not on storage")
    assert 8 * MB <= written < 9 * MB


BURNS = """
import resource, time
from amsha_async_log.collectors.process import ProcessCollector
collector = ProcessCollector()
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
start, began = used(), time.monotonic()
collector.collect(slow=False)
while time.process_time() < 0.4:
    pass
sample = collector.collect(slow=False)
spent, passed = used() - start, time.monotonic() - began
print(sample.cpu_percent, 100 * spent / passed, sample.cpu_seconds, used())
"""


def test_cpu_percent_of_a_busy_process_is_that_of_the_system() -> None:
    percent, truth, seconds, used = map(float, run_python(BURNS).stdout.split())
    assert percent == pytest.approx(truth, rel=0.15)
    assert seconds == pytest.approx(used, abs=0.05)


STRANGER = """
import os
from amsha_async_log.collectors.process import ProcessCollector
os.setresuid(65534, 65534, 65534)  # what the kernel then allows the process itself is less than before
collector = ProcessCollector()
sample = collector.collect(slow=True)
assert sample.memory_mb and sample.threads == 1, sample
assert sample.file_read_bytes is None is collector.read_bytes and collector.write_bytes is None
print(*sorted(sample.unknown.items()))
"""


@linux
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_what_the_system_forbids_is_said_to_be_so() -> None:
    said = run_python(STRANGER).stdout
    for name in ("file_read_bytes", "file_write_bytes"):
        assert f"('{name}', 'no_permission')" in said


@linux
def test_descriptors_do_not_reach_a_program_that_is_started(collector: ProcessCollector) -> None:
    fds = collector.fds()
    assert fds
    program = "import os, sys; print(*[fd for fd in map(int, sys.argv[1:]) if os.path.exists(f'/proc/self/fd/{fd}')])"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, fds)], capture_output=True, text=True, close_fds=False, check=True
    )
    assert done.stdout.split() == []


def test_psutil_that_fails_leaves_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: psutil.Process) -> None:
        raise psutil.AccessDenied

    def broken(self: psutil.Process) -> None:
        raise RuntimeError

    collector = ProcessCollector(root=str(tmp_path))
    monkeypatch.setattr(psutil.Process, "memory_info", denied)
    monkeypatch.setattr(psutil.Process, "num_threads", broken)
    monkeypatch.delattr(psutil.Process, "io_counters", raising=False)
    sample = collector.collect(slow=True)
    unknown = sample.unknown or {}
    assert (unknown["memory_mb"], unknown["threads"]) == ("no_permission", "unreadable")
    assert (unknown["file_read_bytes"], unknown["file_write_bytes"]) == ("not_supported", "not_supported")
    assert (collector.rss_bytes, collector.read_bytes, sample.threads) == (None, None, None)


FILES = ("statm", "io", "status")
garbage = st.one_of(
    st.binary(max_size=120),
    st.text("0123456789-_. kB\n", max_size=80).map(str.encode),
    st.just(b"rchar: 1\nread_bytes: -5\nwrite_bytes: 5\n"),
    st.just(b"rchar: 1\nread_bytes: 5\nwrite_bytes: " + b"9" * 60 + b"\n"),
    st.just(b"1 -2 3"),
    st.just(b"Name:\tx\nVmHWM:\t-5 kB\n"),
)


def make_proc(root: Path) -> Path:
    folder = root / "proc" / "self"
    for name in ("task/1", "fd"):
        (folder / name).mkdir(parents=True)
    (folder / "statm").write_text("500 200 100 1 0 90 0\n")
    (folder / "io").write_text("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled: 0\n")
    (folder / "status").write_text("Name:\tpython\nVmHWM:\t    8844 kB\nVmRSS:\t 5000 kB\n")
    return folder


def test_files_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    make_proc(tmp_path)
    collector = ProcessCollector(root=str(tmp_path))
    sample = collector.collect(slow=True)
    collector.close()
    assert collector.rss_bytes == 200 * os.sysconf("SC_PAGE_SIZE")
    assert (sample.file_read_bytes, sample.file_write_bytes) == (5, 6)
    assert collector.peak_rss_bytes == 8844 * 1024


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("statm", ["memory_mb"]),
        ("io", ["file_read_bytes", "file_write_bytes"]),
        ("status", ["peak_memory_mb"]),
        ("task", ["threads"]),
        ("fd", ["open_files"]),
    ],
)
def test_file_that_is_not_there_is_not_supported(tmp_path: Path, file: str, fields: list[str]) -> None:
    folder = make_proc(tmp_path)
    (folder / file).rename(tmp_path / file)
    collector = ProcessCollector(root=str(tmp_path))
    collector.collect(slow=True)
    sample = collector.collect(slow=True)
    collector.close()
    assert sample.unknown == dict.fromkeys(fields, "not_supported")
    assert [getattr(sample, field) for field in fields] == [None] * len(fields)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FILES), garbage, min_size=1))
def test_nothing_in_the_files_raises(contents: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = make_proc(Path(root))
        for early in (True, False):
            collector = ProcessCollector(root=root)
            if early:
                collector.collect(slow=True)
            for name, data in contents.items():
                (folder / name).write_bytes(data)
            for slow in (False, True):
                sample = collector.collect(slow=slow)
                assert msgspec.json.decode(msgspec.json.encode(sample))
                for raw in (collector.rss_bytes, collector.read_bytes, collector.write_bytes):
                    assert raw is None or raw >= 0
            collector.close()


@linux
def test_descriptors_do_not_grow_and_are_all_given_up() -> None:
    before = len(os.listdir("/proc/self/fd"))
    collector = ProcessCollector()
    held = len(os.listdir("/proc/self/fd"))
    assert held - before == len(set(collector.fds())) > 0
    for number in range(10_000):
        collector.collect(slow=number % 100 == 0)
    assert len(os.listdir("/proc/self/fd")) == held
    collector.close()
    collector.close()
    assert (len(os.listdir("/proc/self/fd")), collector.fds()) == (before, [])


def test_psutil_is_not_imported_where_there_is_proc() -> None:
    program = (
        "import sys\nfrom amsha_async_log.collectors.process import ProcessCollector\n"
        "from amsha_async_log.collectors.host import HostCollector\n"
        "ProcessCollector().collect(slow=True), HostCollector().collect(slow=True)\nprint('psutil' in sys.modules)"
    )
    assert run_python(program).stdout.strip() == str(sys.platform != "linux")
