"""Disks that fill, hang, vanish or fail under a running log: the host goes on, the account stays true."""

import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import check_complete, eventually, lines, records, run

from amsha_async_log import open_log

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
NEEDS_STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this system allows no mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@NEEDS_ROOT
def test_a_full_disk_holds_records_then_refuses_then_recovers_by_itself(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    log = open_log(small_disk / "app.jsonl", console=False, max_queue_size=2000, shutdown_timeout_s=30)
    try:
        ballast.write_bytes(b"x" * 200_000)
        accepted = sum(log.info("x", i=i, text="y" * 80) for i in range(5000))
        eventually(lambda: not log.stats().sink_ok, "the disk is seen to be full")
        assert log.stats().refused == 5000 - accepted > 0
        ballast.unlink()
        small = os.statvfs(small_disk)
        assert small.f_bavail > 0
        eventually(lambda: log.stats().written > 0, "writing goes on")
    finally:
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        report = log.close()
    assert (report.ok, report.written) == (True, accepted)
    shutil.copytree(small_disk, tmp_path / "copy")
    check_complete(tmp_path / "copy")
    told = [line["event"] for line in lines(tmp_path / "copy")]
    assert told.count("log.sink_failed") == told.count("log.sink_recovered") >= 1
    declared = sum(line["count"] for line in lines(tmp_path / "copy") if line["event"] == "log.dropped")
    assert declared == report.refused == 5000 - accepted


@NEEDS_ROOT
def test_a_disk_that_stays_full_ends_the_close_in_time_with_a_true_account(small_disk: Path) -> None:
    log = open_log(small_disk / "app.jsonl", console=False, max_queue_size=2000, shutdown_timeout_s=0.5)
    accepted = sum(log.info("x", i=i, text="y" * 80) for i in range(5000))
    report = log.close()
    assert report.ok is False
    assert report.accepted == accepted == report.written + report.failed
    assert report.left_behind == report.failed > 0
    whole = [line for line in (small_disk / "app.jsonl").read_bytes().split(b"\n")[:-1] if b'"event":"log"' in line]
    assert len(whole) >= report.written


def test_a_device_that_is_full_from_the_start_does_not_stop_the_program(tmp_path: Path) -> None:
    done = run(
        """
        from amsha_async_log import open_log
        with open_log("/dev/full", console=False, shutdown_timeout_s=0.2) as log:
            print(log.info("x"))
        """,
    )
    assert (done.returncode, done.stdout) == (0, "True\n")
    assert done.stderr.count("No space left") == 1


def test_a_hung_disk_refuses_at_the_bound_and_counts_exactly(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    os.mkfifo(path)
    log = open_log(path, console=False, max_queue_size=1000, shutdown_timeout_s=0.2)
    accepted = sum(log.info("x", i=i, text="y" * 200) for i in range(20_000))
    stats = log.stats()
    assert stats.offered == 20_000 == accepted + stats.refused
    assert stats.by_reason == {"queue_full": {"INFO": stats.refused}}
    report = log.close()
    assert report.accepted == report.written + report.dropped
    assert report.left_behind == report.dropped > 0


def test_a_hung_disk_that_comes_back_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    os.mkfifo(path)
    log = open_log(path, console=False, shutdown_timeout_s=30)
    accepted = sum(log.info("x", i=i, text="y" * 200) for i in range(5000))
    with (tmp_path / "copy").open("wb") as copy, subprocess.Popen(["cat", str(path)], stdout=copy):
        report = log.close()
    assert (report.ok, report.written) == (True, accepted)
    copied = (tmp_path / "copy").read_bytes().splitlines()
    assert sum(json.loads(line)["event"] == "log" for line in copied) == accepted


def test_a_flush_on_a_hung_disk_returns_false_in_time(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    os.mkfifo(path)
    log = open_log(path, console=False, shutdown_timeout_s=0.2)
    for _ in range(1000):
        log.info("x" * 200)
    assert log.flush(timeout_s=0.1) is False
    log.close()


def test_a_file_deleted_beneath_the_log_is_made_anew_and_logging_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    with open_log(path, console=False) as log:
        log.info("gone")
        assert log.flush()
        path.unlink()
        for i in range(100):
            log.info("kept", i=i)
    kept = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert kept[0]["event"] == "log.segment_opened"
    assert [line["i"] for line in kept if line["event"] == "log"] == list(range(100))


def test_a_deleted_folder_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "app.jsonl"
    with open_log(path, console=False) as log:
        log.info("gone")
        assert log.flush()
        shutil.rmtree(path.parent)
        log.info("kept")
    assert [r["message"] for r in records(path.parent)] == ["kept"]


def test_logrotate_by_rename_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    with open_log(path, console=False) as log:
        for i in range(3000):
            log.info("x", i=i)
            if i % 1000 == 500:
                assert log.flush()
                path.rename(tmp_path / f"app.jsonl.{i}")
    assert [r["i"] for r in records(tmp_path)] == list(range(3000))
    check_complete(tmp_path)


def test_logrotate_by_copy_and_truncate_leaves_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    with open_log(path, console=False) as log:
        for i in range(100):
            log.info("x", i=i)
        assert log.flush()
        shutil.copy(path, tmp_path / "copy.jsonl")
        os.truncate(path, 0)
        for i in range(100, 200):
            log.info("x", i=i)
    assert b"\0" not in path.read_bytes()
    assert [r["i"] for r in records(tmp_path)] == list(range(200))


def test_a_file_that_others_append_to_keeps_every_record_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    with open_log(path, console=False) as log:
        for i in range(50):
            log.info("x", i=i)
            if i % 10 == 5:
                assert log.flush()
                with path.open("ab") as file:
                    file.write(b"no newline")
    found = [line for line in path.read_bytes().splitlines() if line != b"no newline"]
    assert [r["i"] for r in map(json.loads, found) if r["event"] == "log"] == list(range(50))


def test_a_file_size_limit_is_survived(tmp_path: Path) -> None:
    done = run(
        """
        import resource, signal, sys
        from amsha_async_log import open_log
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, resource.RLIM_INFINITY))
        log = open_log(sys.argv[1] + "/app.jsonl", console=False, shutdown_timeout_s=30)
        accepted = sum(log.info("x", i=i) for i in range(1000))
        while log.stats().sink_ok: pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        report = log.close()
        print(report.ok, report.written == accepted == 1000)
        """,
        tmp_path,
    )
    assert done.stdout == "True True\n", done.stderr
    assert [r["i"] for r in records(tmp_path)] == list(range(1000))
    check_complete(tmp_path)


PROGRAM = """
import sys
from amsha_async_log import open_log
log = open_log(sys.argv[1] + "/app.jsonl", console=False, shutdown_timeout_s=20, max_bytes=20_000, backup_count=0)
for i in range(600):
    log.info("x", i=i)
    if i % 50 == 0: log.flush()
print(log.flush(durable=True))
print(log.close().ok)
"""


@NEEDS_STRACE
@pytest.mark.parametrize(
    "fault",
    [
        "pwrite64,write:error=ENOSPC:when=4+7",
        "pwrite64,write:error=EIO:when=9",
        "rename,renameat,renameat2:error=EACCES:when=1",
        "rename,renameat,renameat2:error=EIO:when=2+2",
    ],
)
def test_faults_injected_by_the_kernel_lose_and_double_nothing(tmp_path: Path, fault: str) -> None:
    """Only system calls on the log's folder fail."""
    import sys

    logs = tmp_path / "logs"
    logs.mkdir()
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(logs / "app.jsonl"), "-e", f"inject={fault}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(logs)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "True\nTrue\n", done.stderr
    assert [r["i"] for r in records(logs)] == list(range(600))
    check_complete(logs)


@NEEDS_STRACE
def test_after_a_failed_fsync_no_flush_is_called_durable(tmp_path: Path) -> None:
    import sys

    code = (
        "import sys\nfrom amsha_async_log import open_log\n"
        "log = open_log(sys.argv[1] + '/app.jsonl', console=False)\n"
        "for _ in range(3): log.info('x'); print(log.flush(durable=True))\n"
        "log.info('y'); print(log.flush(), log.close().ok)\n"
    )
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=3"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "True\nFalse\nFalse\nTrue True\n", done.stderr
    check_complete(tmp_path)


def test_every_rotated_file_carries_the_checksum_of_its_bytes(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False, max_bytes=10_000, backup_count=0) as log:
        for i in range(2000):
            log.info("x", i=i)
    files = list(tmp_path.iterdir())
    assert len(files) > 10
    for file in files:
        data = file.read_bytes()
        footer = json.loads(data.splitlines()[-1])
        assert footer["crc32"] == zlib.crc32(data[: footer["bytes"]])
        assert len(data) <= 10_000


def test_backup_count_bounds_the_files_of_a_running_log(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False, max_bytes=10_000, backup_count=3) as log:
        for i in range(3000):
            log.info("x", i=i)
    assert len(list(tmp_path.iterdir())) == 4
    assert [r["i"] for r in records(tmp_path)][-1] == 2999
