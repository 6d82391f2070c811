"""Reading a log while another process writes, rotates and deletes: what is read is always whole."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amsha_async_log import reader

SEGMENTS = 30
PROGRAM = """
import sys, threading
from amsha_async_log import open_log
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
with open_log(sys.argv[1], max_bytes=8_000, backup_count=200, console=False) as log:
    with log.execution("crew") as run:
        log.flush()
        print(run.execution_id, flush=True)
        while not stop.wait(0.0005):
            log.info("hello", text="x" * 100)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.jsonl"


@pytest.fixture
def execution_id(path: Path) -> Iterator[str]:
    """The execution of a process that logs until the test is over."""
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_running_log_always_verifies(path: Path, execution_id: str) -> None:
    segments = 0
    while segments < SEGMENTS:
        report = reader.verify(path)
        assert report.ok, report.findings
        assert [writer.end for writer in report.writers] == ["running"]
        segments = report.segments


def test_running_execution_is_never_taken_for_killed(path: Path, execution_id: str) -> None:
    while len(list(path.parent.iterdir())) < SEGMENTS:
        (execution,) = reader.executions(path)
        assert (execution.execution_id, execution.status, execution.lost_records) == (execution_id, "running", 0)


@pytest.mark.usefixtures("execution_id")
def test_every_line_is_followed_once_and_in_order(path: Path) -> None:
    follower = reader.Follower(path)
    follower.start(0)
    seqs: list[int] = []
    while len(seqs) < 500:
        seqs += [record["seq"] for record in follower.poll()]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
