"""GPUs are looked at by a process of its own, which may end or hang at any time and never outlives this one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nvml
import pytest
from support import poll

import amsha_async_log
from amsha_async_log.collectors._base import GpuReading
from amsha_async_log.collectors._gpu_process import LONGEST_PAUSE_S, HelperSource

UTILIZATION = "nvmlDeviceGetUtilizationRates"  # asked once for each device and look


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_known(pid: int) -> bool:
    """Also while it is a zombie."""
    return os.path.exists(f"/proc/{pid}")


def changes(reading: GpuReading) -> list[tuple[str | None, str | None, str | None]]:
    return [(change.state_from, change.state_to, change.detail) for change in reading.changes]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets helpers started from now on meet a driver with these rules."""

    def set_rules(text: str) -> None:
        for name, value in nvml.environment(text).items():
            monkeypatch.setenv(name, value)

    set_rules("")
    return set_rules


@pytest.fixture
def source(rules) -> Iterator[Callable[..., HelperSource]]:
    made: list[HelperSource] = []

    def make(**options) -> HelperSource:
        made.append(HelperSource(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def look(source: HelperSource) -> GpuReading:
    return source.read(time.monotonic())


def running(source: HelperSource) -> int:
    assert source.pid is not None
    return source.pid


def kill(source: HelperSource) -> int:
    """SIGKILL from outside, and wait until it is dead; not reaped."""
    pid = running(source)
    os.kill(pid, signal.SIGKILL)
    poll(lambda: not is_alive(pid))
    return pid


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_reads_what_the_driver_tells(source, rules):
    rules("devices=2;1.util=77;0.temperature=70")
    reading = look(source())
    assert (reading.state, [gpu.gpu_percent for gpu in reading.devices][1]) == ("ok", 77.0)
    assert reading.devices[0].temperature_celsius == 70
    assert reading.cost_seconds > 0


def test_share_is_that_of_the_process_that_asks(source):
    program = f"import sys, os; sys.path[:] = {sys.path!r}; import nvml; from amsha_async_log.collectors import _gpu_helper; nvml.loaded().processes(0, {{{os.getpid()}: 3 << 30}}); _gpu_helper.main()"
    told = source()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amsha_async_log.collectors._gpu_process._PROGRAM", program)
        assert look(told).devices[0].process_gpu_memory_mb == 3072


def test_helper_is_started_by_the_first_look(source):
    gpu = source()
    assert gpu.pid is None
    look(gpu)
    assert is_alive(running(gpu))


def test_options_reach_the_source(source):
    assert look(source()).devices[0].power_watts is not None
    assert look(source(fast_only=True)).devices[0].power_watts is None


def test_helper_stays_the_same(source):
    gpu = source()
    look(gpu)
    first = running(gpu)
    assert [look(gpu).state for _ in range(3)] == ["ok"] * 3
    assert gpu.pid == first


def test_crash_of_the_driver_costs_one_look(source, rules):
    rules(f"{UTILIZATION}:crash=1,after=2")
    gpu = source()
    readings = []
    for _ in range(4):
        readings.append(look(gpu))
        if len(readings) == 1:
            first = running(gpu)
    assert [reading.state for reading in readings] == ["ok", "ok", "helper_died", "ok"]
    assert [len(reading.devices) for reading in readings] == [1, 1, 0, 1]
    assert [changes(reading) for reading in readings] == [
        [],
        [],
        [("ok", "helper_died", "SIGSEGV")],
        [("helper_died", "ok", None)],
    ]
    assert not is_known(first), "it has been waited for"


def test_abort_of_the_driver_is_named(source, rules):
    rules("nvmlInitWithFlags:abort=1")
    assert changes(look(source())) == [(None, "helper_died", "SIGABRT")]


def test_helper_killed_between_looks_costs_one_look(source):
    gpu = source()
    look(gpu)
    pid = kill(gpu)
    assert changes(look(gpu)) == [("ok", "helper_died", "SIGKILL")]
    assert not is_known(pid)
    assert changes(look(gpu)) == [("helper_died", "ok", None)]


def test_lost_gpu_is_told_once_whoever_looks(source, rules):
    rules("devices=2;1.lost=1")
    gpu = source()
    told = [change.gpu_index for change in look(gpu).changes]
    assert told == [1]
    kill(gpu)
    assert [change.gpu_index for change in look(gpu).changes] == [None]
    reading = look(gpu)
    assert [change.gpu_index for change in reading.changes] == [None]
    assert [sample.source_state for sample in reading.devices] == ["ok", "lost"]


def test_hanging_driver_gets_its_helper_replaced(source, rules):
    rules(f"{UTILIZATION}:hang=1,after=1")
    gpu = source(timeout_s=0.3)
    assert look(gpu).state == "ok"
    first = running(gpu)
    hung = look(gpu)
    assert (hung.state, hung.devices) == ("hung", [])
    assert changes(hung) == [("ok", "hung", "no answer within 0.3 s, helper killed")]
    assert hung.cost_seconds >= 0.3
    assert not is_known(first)
    assert changes(look(gpu)) == [("hung", "ok", None)]


def test_first_look_may_take_longer(source, rules):
    rules("nvmlInitWithFlags:delay_us=200000")
    assert look(source(timeout_s=0.01, start_timeout_s=20.0)).state == "ok"


def test_first_look_may_not_take_for_ever(source, rules):
    rules("nvmlInitWithFlags:hang=1")
    assert changes(look(source(start_timeout_s=0.5))) == [(None, "hung", "no answer within 0.5 s, helper killed")]


def test_helper_that_cannot_be_killed_is_not_joined_by_another(source, monkeypatch):
    gpu = source(timeout_s=0.2)
    look(gpu)
    first = running(gpu)
    os.kill(first, signal.SIGSTOP)  # with the line below it stands for one that the driver holds in the kernel
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: None)
    assert look(gpu).state == "hung"
    assert (look(gpu).state, look(gpu).changes, gpu.pid) == ("hung", [], None)
    assert is_alive(first)
    os.kill(first, signal.SIGCONT)  # it ends by itself: its socket is closed
    poll(lambda: not is_alive(first))
    assert changes(look(gpu)) == [("hung", "ok", None)]
    assert not is_known(first)


def test_pauses_between_starts_double_up_to_a_minute(source, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", f"echo >> {tmp_path}/starts; exit 3"))
    clock = Clock()
    gpu = source(clock=clock)
    began = clock.now
    starts: list[float] = []
    states: set[str] = set()
    for second in range(200):
        clock.now = began + second
        states.add(look(gpu).state)
        new = len((tmp_path / "starts").read_bytes()) - len(starts)
        starts += [second] * new
    assert states == {"helper_died"}
    assert starts[-1] - starts[-2] == LONGEST_PAUSE_S
    assert [second for second in starts if second > 1] == [2, 4, 8, 16, 32, 64, 124, 184]


def test_exit_code_is_told(source, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "exit 3"))
    assert changes(look(source())) == [(None, "helper_died", "exit code 3")]


def test_pause_is_forgotten_once_a_helper_has_lived_for_long(source):
    clock = Clock()
    gpu = source(clock=clock)
    look(gpu)
    kill(gpu)
    look(gpu)
    assert gpu.pid is not None, "the first time at once"
    look(gpu)
    kill(gpu)
    look(gpu)
    assert gpu.pid is None, "the second time after a pause"
    clock.now += 1.0
    assert look(gpu).state == "ok"
    clock.now += LONGEST_PAUSE_S
    kill(gpu)
    look(gpu)
    assert gpu.pid is not None


def test_without_processes_it_is_unavailable_until_there_are_some(source, tmp_path, monkeypatch):
    clock = Clock()
    gpu = source(clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "nothing"))
        reading = look(gpu)
        assert (reading.state, reading.devices) == ("helper_unavailable", [])
        assert "No such file or directory" in (reading.changes[0].detail or "")
        assert look(gpu).changes == []
    clock.now += 1.0
    assert changes(look(gpu)) == [("helper_unavailable", "ok", None)]


@pytest.mark.parametrize("patched", [{"executable": ""}, {"executable": None}, {"frozen": True}])
def test_program_without_an_interpreter_is_not_run_again(source, monkeypatch, patched):
    for name, value in patched.items():
        monkeypatch.setattr(sys, name, value, raising=False)
    assert look(source()).state == "helper_unavailable"


def test_path_that_cannot_be_passed_on(source, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, "a\0b"])
    assert look(source()).state == "helper_unavailable"


def test_answer_that_is_none(source, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "read line; echo nonsense >&0; exec sleep 60"))
    reading = look(source())
    assert reading.state == "helper_died"
    assert (reading.changes[0].detail or "").startswith("answer not understood: ")


def test_answer_that_breaks_off(source, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", 'read line; printf "{" >&0; exit 4'))
    assert changes(look(source())) == [(None, "helper_died", "exit code 4")]


def test_helper_that_closes_its_socket_is_killed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys,
        "executable",
        script(tmp_path / "python", f"[ -e {tmp_path}/pid ] || echo $$ > {tmp_path}/pid; exec sleep 60 <&-"),
    )
    assert changes(look(source())) == [(None, "helper_died", "closed its socket without ending")]
    assert not is_known(int((tmp_path / "pid").read_text()))


def test_end_is_noticed_although_somebody_holds_the_socket(source, monkeypatch):
    pairs: list[tuple[socket.socket, socket.socket]] = []
    make = socket.socketpair

    def leaky() -> tuple[socket.socket, socket.socket]:
        ours, its = make()
        pairs.append((ours, its.dup()))  # as a child has it that was forked just then
        return ours, its

    monkeypatch.setattr(socket, "socketpair", leaky)
    gpu = source()
    look(gpu)
    kill(gpu)
    assert changes(look(gpu)) == [("ok", "helper_died", "SIGKILL")]
    for _, held in pairs:
        held.close()


def test_close_ends_the_helper(source):
    gpu = source()
    look(gpu)
    pid = running(gpu)
    gpu.close()
    assert gpu.pid is None
    poll(lambda: not is_known(pid))


def test_close_kills_a_helper_that_does_not_end(source):
    gpu = source()
    look(gpu)
    pid = running(gpu)
    os.kill(pid, signal.SIGSTOP)
    gpu.close()
    poll(lambda: not is_known(pid))
    assert gpu.pid is None


def test_close_before_the_first_look_and_again(source):
    gpu = source()
    gpu.close()
    gpu.close()
    assert gpu.pid is None


def test_somebody_else_may_wait_for_all_children(source):
    gpu = source()
    look(gpu)
    pid = kill(gpu)
    assert os.waitpid(-1, 0)[0] == pid
    assert changes(look(gpu)) == [("ok", "helper_died", "ended, it is not known how")]
    assert look(gpu).state == "ok"


def test_replaced_helpers_leave_no_descriptors(source):
    clock = Clock()
    gpu = source(clock=clock)
    look(gpu)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        kill(gpu)
        look(gpu)
        clock.now += LONGEST_PAUSE_S
        assert look(gpu).state == "ok"
    assert len(os.listdir("/proc/self/fd")) == before


START = """
import os, pathlib, signal, sys, time
from amsha_async_log.collectors._gpu_process import HelperSource
source = HelperSource(timeout_s=5.0)
assert source.read(1.0).state == "ok"
print(source.pid, flush=True)
"""


def helper_of(program: str, *, code: int = 0) -> int:
    """Run START and `program`; the id of the helper, which may not outlive it."""
    done = nvml.run(START + program)
    assert (done.returncode, done.stderr) == (code, "")
    return int(done.stdout.split()[0])


LOOKING = """
import asyncio, os, pathlib, signal
from amsha_async_log.collectors._gpu_process import HelperSource
from amsha_async_log.collectors._gpu_thread import GpuThread
made = []

def make():
    made.append(HelperSource())
    return made[0]

async def main():
    loop = asyncio.get_running_loop()
    delivered = asyncio.Queue()
    thread = GpuThread(make, lambda reading: loop.call_soon_threadsafe(delivered.put_nowait, reading), set())
    assert thread.request()

    async def hangs():
        while not (made and made[0].pid and "libnvidia-ml" in pathlib.Path(f"/proc/{{made[0].pid}}/maps").read_text()):
            await asyncio.sleep(0.001)
    {then}
    helper = made[0].pid
    print(helper, flush=True)
    {at_last}

asyncio.run(main())
"""
HANGS = "nvmlInitWithFlags:hang=1"


def helper_looking(then: str, at_last: str = "", *, rules: str = "", code: int = 0) -> int:
    """Run LOOKING, a log's thread that looks; the id of the helper, which may not outlive it.

    The time-out is less than a helper is waited for.
    """
    done = nvml.run(LOOKING.format(then=then, at_last=at_last), rules=rules, timeout_s=20.0)
    assert (done.returncode, done.stderr) == (code, "")
    return int(done.stdout)


def test_helper_ends_with_a_process_that_ends_without_close():
    helper = helper_looking("assert (await delivered.get()).state == 'ok'")
    assert poll(lambda: not is_alive(helper))


def test_helper_in_a_driver_that_hangs_ends_with_a_process_that_ends():
    helper = helper_looking("await hangs()", rules=HANGS)
    assert poll(lambda: not is_alive(helper))


def test_helper_in_a_driver_that_hangs_ends_with_a_process_that_is_killed():
    helper = helper_looking("await hangs()", "os.kill(os.getpid(), 9)", rules=HANGS, code=-signal.SIGKILL)
    assert poll(lambda: not is_alive(helper))


def test_stop_while_the_driver_hangs_lets_the_process_end():
    helper = helper_looking("await hangs(); thread.stop()", "assert thread.outstanding_since", rules=HANGS)
    assert poll(lambda: not is_alive(helper))


def test_stop_ends_the_helper():
    wait = "while pathlib.Path(f'/proc/{helper}').exists(): await asyncio.sleep(0.001)"
    helper = helper_looking("await delivered.get()", f"thread.stop()\n    {wait}")
    assert not is_alive(helper)


def test_helper_ends_with_a_process_that_leaves_at_once():
    helper = helper_of("os._exit(3)", code=3)
    assert poll(lambda: not is_alive(helper))


def test_helper_ends_with_a_process_that_is_killed():
    helper = helper_of("os.kill(os.getpid(), signal.SIGKILL)", code=-signal.SIGKILL)
    assert poll(lambda: not is_alive(helper))


def test_helper_ends_with_the_process_although_a_forked_child_lives_on():
    program = """
if child := os.fork():
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
os.close(1), os.close(2)
signal.pause()
"""
    done = nvml.run(START + program)
    helper, child = map(int, done.stdout.split())
    try:
        poll(lambda: not is_alive(helper))
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_forked_child_does_not_take_the_helper_along():
    program = """
if not (child := os.fork()):
    source.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
before = source.pid
assert source.read(2.0).state == "ok" and source.pid == before
source.close()
"""
    helper = helper_of(program)
    assert not is_alive(helper)


def test_interrupt_of_the_group_does_not_reach_the_helper():
    program = """
signal.signal(signal.SIGINT, signal.default_int_handler)
before = source.pid
try:
    os.killpg(0, signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    os.kill(source.pid, signal.SIGINT)  # nor does one meant for it end it
    assert source.read(2.0).state == "ok" and source.pid == before
    source.close()
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + program],
        env=nvml.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert (done.stdout.split()[1:], done.stderr, done.returncode) == (["interrupted"], "", 0)


def test_ignored_child_signal_changes_nothing():
    program = """
for end in (signal.SIGKILL, None):
    if end: os.kill(source.pid, end)
    print(source.read(2.0).state)
source.close()
"""
    done = nvml.run("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)" + START + program)
    assert (done.stdout.split()[1:], done.stderr, done.returncode) == (["helper_died", "ok"], "", 0)


def test_program_that_dies_of_broken_pipes_does_not():
    program = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.kill(source.pid, signal.SIGKILL)
while pathlib.Path(f"/proc/{source.pid}/stat").read_text().split()[2] != "Z": pass
print(source.read(2.0).state)
source.close()
"""
    done = nvml.run(START + program)
    assert (done.stdout.split()[1:], done.stderr, done.returncode) == (["helper_died"], "", 0)


def test_package_is_found_where_the_program_has_found_it(tmp_path: Path):
    shutil.copytree(Path(amsha_async_log.__file__).parent, tmp_path / "here" / "amsha_async_log")
    helper = tmp_path / "here" / "amsha_async_log" / "collectors" / "_gpu_helper.py"
    with helper.open("a", encoding="utf-8") as file:
        file.write(f"\nopen({str(tmp_path / 'used')!r}, 'w').close()\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'here')!r})" + START + "os.unlink(sys.argv[1])\n"
    program += "os.kill(source.pid, 9); source.read(2.0); assert source.read(3.0).state == 'ok'; source.close()"
    done = nvml.run(program, tmp_path / "used")
    assert (done.stderr, done.returncode) == ("", 0)
    assert (tmp_path / "used").exists()


def test_module_of_the_program_is_not_run_again(tmp_path: Path):
    main = tmp_path / "main.py"
    main.write_text(f"open({str(tmp_path / 'runs')!r}, 'a').write('.')\n" + START + "source.close()")
    done = subprocess.run([sys.executable, main], env=nvml.environment(), capture_output=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert (tmp_path / "runs").read_text() == "."
