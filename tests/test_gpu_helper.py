"""The helper process, started and asked by hand."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import msgspec
import nvml
import pytest
from support import poll, run_python

from amsha_async_log.collectors import _gpu_helper
from amsha_async_log.collectors._base import GpuReading
from amsha_async_log.collectors._gpu_helper import Request, Setup, serve, wait_for_end

HELPER = ("-m", "amsha_async_log.collectors._gpu_helper")
WAIT_S = 20.0


class Helper:
    def __init__(self, *arguments: str, rules: str = "", parent: int | None = None) -> None:
        self.socket, its = socket.socketpair()
        self.socket.settimeout(WAIT_S)
        setup = msgspec.json.encode(Setup(parent=parent or os.getpid())).decode()
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", *(arguments or HELPER), setup],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=nvml.environment(rules),
            )

    def send(self, now: float = 1.0) -> None:
        self.socket.sendall(msgspec.json.encode(Request(now)) + b"\n")

    def ask(self, now: float = 1.0) -> GpuReading:
        self.send(now)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self.socket.recv(1 << 16)
            assert part, "it has ended"
            answer += part
        return msgspec.json.decode(answer, type=GpuReading)

    def end(self) -> tuple[int, bytes]:
        """Wait for it; its exit code and what it said."""
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said


@pytest.fixture
def start() -> Iterator[type[Helper]]:
    made: list[Helper] = []

    def make(*arguments: str, **options) -> Helper:
        made.append(Helper(*arguments, **options))
        return made[-1]

    yield make
    for helper in made:
        helper.socket.close()
        helper.process.kill()
        helper.process.communicate(timeout=WAIT_S)


def test_answers_each_request_with_one_line(start):
    helper = start(rules="devices=2;1.util=77")
    assert [gpu.gpu_percent for gpu in helper.ask(1.0).devices][1] == 77.0
    assert len(helper.ask(2.0).devices) == 2


def test_ends_when_the_other_end_is_closed(start):
    helper = start()
    helper.ask()
    helper.socket.close()
    assert helper.end() == (0, b"")


def test_ends_while_the_driver_hangs(start):
    helper = start(rules="nvmlInitWithFlags:hang=1")
    helper.send()
    helper.socket.close()
    assert helper.end() == (0, b"")


def test_ends_before_it_was_asked_anything(start):
    helper = start()
    helper.socket.close()
    assert helper.end()[0] == 0


def test_ends_if_its_parent_is_another_one(start):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert start(parent=sleeper.pid).end() == (0, b"")
    finally:
        sleeper.communicate(timeout=WAIT_S)


def test_ignores_interrupts(start):
    helper = start()
    helper.ask()
    os.kill(helper.process.pid, signal.SIGINT)
    assert helper.ask().state == "ok"


def test_leaves_no_core_file(start):
    helper = start()
    helper.ask()
    with open(f"/proc/{helper.process.pid}/limits", encoding="ascii") as limits:
        assert next(line for line in limits if line.startswith("Max core file size")).split()[4] == "0"


def test_driver_that_is_not_there_is_a_state(start):
    program = "import nvml\nfrom amsha_async_log.collectors._gpu_helper import main\nwith nvml.no_library(): main()"
    assert start("-c", program).ask().state == "library_absent"


def test_defect_of_the_source_is_an_answer(start):
    program = (
        "from amsha_async_log.collectors import _gpu_helper as h; h.NvmlSource.read = lambda self, now: 1 / 0; h.main()"
    )
    helper = start("-c", program)
    for _ in range(2):
        reading = helper.ask()
        assert (reading.state, reading.changes[0].detail) == ("error", "ZeroDivisionError: division by zero")


def test_what_is_printed_does_not_get_into_the_answers(start):
    program = "import os; from amsha_async_log.collectors import _gpu_helper as h; os.write(1, b'hello'); print('hello', flush=True); h.main()"
    assert start("-c", program).ask().state == "ok"


class Counting:
    """A source that tells when it was asked."""

    def read(self, now: float) -> GpuReading:
        return GpuReading(cost_seconds=now)

    def close(self) -> None:
        raise AssertionError("the system gives the driver up")


def test_requests_that_came_together_are_answered_in_turn():
    ours, its = socket.socketpair()
    with ours, its:
        ours.sendall(b'{"now":1}\n{"now":2}\n')
        ours.shutdown(socket.SHUT_WR)
        serve(Counting(), its.fileno())
        its.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: ours.recv(1 << 16), b"")).splitlines()
    assert [msgspec.json.decode(answer, type=GpuReading).cost_seconds for answer in answers] == [1.0, 2.0]


@pytest.fixture(params=["told", "asks"])
def _parent_watch(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a system that tells when a process ends."""
    if request.param == "asks":
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.setattr(_gpu_helper, "_PARENT_POLL_MS", 1)


@pytest.mark.usefixtures("_parent_watch")
def test_waits_until_the_other_end_is_closed():
    ours, its = socket.socketpair()
    with its:
        waiting = threading.Thread(target=wait_for_end, args=(os.getppid(), its.fileno()), daemon=True)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        ours.close()
        waiting.join(WAIT_S)
        assert not waiting.is_alive()


@pytest.mark.usefixtures("_parent_watch")
def test_does_not_wait_for_one_that_is_not_the_parent():
    ours, its = socket.socketpair()
    before = os.listdir("/proc/self/fd")
    with ours, its:
        wait_for_end(os.getpid(), its.fileno())
        assert os.listdir("/proc/self/fd") == before


ORPHAN = """
import msgspec, os, signal, socket, subprocess, sys
from amsha_async_log.collectors._gpu_helper import Request, Setup
ours, its = socket.socketpair()
setup = msgspec.json.encode(Setup(parent=os.getpid())).decode()
helper = subprocess.Popen([sys.executable, "-c", {program!r}, setup], stdin=its.fileno())
its.close()
ours.sendall(msgspec.json.encode(Request(1.0)) + b"\\n")
assert ours.recv(1 << 16)
if child := os.fork():
    print(helper.pid, child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
os.close(1), os.close(2)
signal.pause()  # holds the socket
"""


@pytest.mark.parametrize("pidfd", ["", "del os.pidfd_open;"], ids=["told", "asks"])
def test_ends_with_its_parent_although_a_forked_child_holds_the_socket(pidfd: str):
    program = f"import os; {pidfd} from amsha_async_log.collectors._gpu_helper import main; main()"
    done = nvml.run(ORPHAN.format(program=program))
    assert done.returncode == -signal.SIGKILL, done.stderr
    helper, child = map(int, done.stdout.split())
    try:
        poll(lambda: not is_alive(helper))
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_imports_neither_loop_nor_executor_nor_driver():
    names = {"asyncio", "uvloop", "concurrent.futures", "subprocess", "logging", "pynvml", "psutil"}
    program = f"import sys, amsha_async_log.collectors._gpu_helper; print({names} & {{*sys.modules}})"
    assert run_python(program).stdout == "set()\n"
