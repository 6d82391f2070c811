"""The log as a whole: flush, loss declared in the file, durability, levels of detail of `stats`, healing on open."""

import asyncio
import enum
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from programs import check_complete, eventually, lines, records, run
from support import user_lines

from amsha_async_log import ConfigError, events, open_log, reader
from amsha_async_log._encoder import LineEncoder
from amsha_async_log._pipeline import Log
from amsha_async_log._writer import SegmentWriter


def own(folder: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder) if line["event"] == event]


def test_header_says_which_process_writes(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False):
        pass
    (header,) = own(tmp_path, "log.segment_opened")
    assert (header["pid"], header["owner"], header["previous_segment"]) == (os.getpid(), True, None)
    assert header["process_start"] == pytest.approx(psutil.Process().create_time(), abs=2)  # psutil's is whole seconds
    assert header["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_names_that_are_not_utf_8_do_not_keep_the_log_from_working(tmp_path: Path) -> None:
    script = tmp_path / os.fsdecode(b"pr\xffgram.py")
    script.write_text(
        "import os, sys\n"
        "from amsha_async_log import open_log, reader\n"
        "path = os.path.join(sys.argv[1], os.fsdecode(b'l\\xffg.jsonl'))\n"
        "with open_log(path, console=False, max_bytes=2000) as log:\n"
        "    for i in range(20): log.info('x' * 200, i=i)\n"
        "report = reader.verify(path)\n"
        "print(report.ok, report.segments > 1, report.writers[0].records)\n"
    )
    command = [sys.executable, script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True True 20\n", "")


def test_a_defect_while_opening_is_an_error_of_open_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_writer: SegmentWriter) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(SegmentWriter, "open", fail)
    with pytest.raises(ConfigError, match="RuntimeError: a defect"):
        open_log(tmp_path / "app.jsonl", console=False)


def test_flush_makes_what_was_accepted_visible_in_the_file(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False, flush_interval_s=60) as log:
        for i in range(100):
            log.info("x", i=i)
        assert log.flush() is True
        assert [r["i"] for r in records(tmp_path)] == list(range(100))


def test_a_record_is_written_without_a_flush_within_the_interval(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False) as log:
        log.info("a")
        eventually(lambda: len(records(tmp_path)) == 1, "the first record is written")
        log.info("b")
        eventually(lambda: len(records(tmp_path)) == 2, "the second record is written")


def test_aflush_and_aclose_work_on_asyncio_and_trio(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_log(tmp_path / backend / "app.jsonl", console=False) as log:
            log.info("x")
            assert await log.aflush(durable=True)
        assert (await log.aclose()).written == 1

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)
        check_complete(tmp_path / backend)


def test_flush_that_races_a_close_is_answered(tmp_path: Path) -> None:
    for number in range(50):
        log = open_log(tmp_path / f"{number}.jsonl", console=False)
        log.info("x")
        closed = threading.Event()
        answers: list[bool] = []

        def flush(log: Any = log, closed: threading.Event = closed, answers: list[bool] = answers) -> None:
            while not closed.is_set():
                answers.append(log.flush(timeout_s=60))

        thread = threading.Thread(target=flush)
        thread.start()
        log.close()
        closed.set()
        thread.join(30)
        assert not thread.is_alive()
        assert all(answers)


def test_flush_of_a_closed_log_says_whether_it_closed_in_order(tmp_path: Path) -> None:
    log = open_log(tmp_path / "app.jsonl", console=False)
    log.close()
    assert log.flush() is True


def test_refused_records_are_declared_in_the_file_by_reason_and_level(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    os.mkfifo(path)
    log = open_log(path, console=False, max_queue_size=500, shutdown_timeout_s=30)
    for i in range(3000):
        log.info("x", text="y" * 200)
        log.debug("not offered")
        if i % 10 == 0:
            log.error("e", text="y" * 200)
    refused = log.stats().by_reason["queue_full"]
    with (tmp_path / "copy.jsonl").open("wb") as copy:
        process = subprocess.Popen(["cat", str(path)], stdout=copy)
        report = log.close()
        process.wait(30)
    path.unlink()
    declared = own(tmp_path, "log.dropped")
    assert sum(line["count"] for line in declared) == report.refused
    assert sum(line["by_reason"]["queue_full"] for line in declared) == report.refused
    assert {level: sum(line["by_level"].get(level, 0) for line in declared) for level in refused} == refused
    assert all(line["first_time"] <= line["last_time"] for line in declared)


def test_a_loss_that_goes_on_is_declared_when_known_and_when_it_has_ended(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False, max_queue_bytes=5000) as log:
        for _ in range(50):
            log.info("x", text="y" * 6000)  # larger than the queue: refused each time
            log.flush()
        assert len(own(tmp_path, "log.dropped")) == 1
        eventually(lambda: len(own(tmp_path, "log.dropped")) == 2, "the end of the loss is declared")
    assert sum(line["count"] for line in own(tmp_path, "log.dropped")) == 50
    assert own(tmp_path, "log.closed")[0]["refused"] == 50


def test_a_loss_is_declared_though_nothing_is_accepted_any_more(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False, max_queue_bytes=5000) as log:
        log.info("x", text="y" * 6000)
        eventually(lambda: own(tmp_path, "log.dropped"), "the loss is declared")


def test_totals_on_closing_lines_agree_with_the_report(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False) as log:
        for _ in range(10):
            log.info("x")
    report = log.close()
    closed, footer = own(tmp_path, "log.closed")[0], own(tmp_path, "log.segment_closed")[0]
    for name in ("offered", "accepted", "written", "refused", "dropped", "failed"):
        assert closed[name] == footer["totals"][name] == getattr(report, name)
    assert footer["records"] == 10


def test_stats_count_by_level_and_own_lines_apart(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False) as log:
        log.info("a")
        log.error("b")
        log.flush()
        stats = log.stats()
    assert {level: counts["written"] for level, counts in stats.by_level.items()} == {"INFO": 1, "ERROR": 1}
    assert stats.written == 2
    assert stats.own_lines == len([line for line in lines(tmp_path) if line["event"].startswith("log.")]) - 2


def test_stats_hold_at_every_moment_under_load(tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            log.info("x", i=1)

    with open_log(tmp_path / "app.jsonl", console=False, max_queue_size=2000) as log:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(300):
            stats = log.stats()
            assert stats.offered == stats.accepted + stats.refused
            assert stats.accepted == stats.written + stats.dropped + stats.failed + stats.queued
            assert stats.queued >= 0
        stop.set()
        for thread in threads:
            thread.join()


def test_durability_fsync_syncs_each_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd))[1])
    with open_log(tmp_path / "app.jsonl", console=False, durability="fsync") as log:
        log.info("a")
        assert log.flush()
        assert synced


def test_durability_fsync_errors_syncs_only_batches_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd))[1])
    with open_log(tmp_path / "app.jsonl", console=False, durability="fsync_errors") as log:
        log.info("a")
        assert log.flush()
        assert not synced
        log.error("b")
        assert log.flush()
        assert synced


def test_a_torn_line_of_a_killed_run_is_healed_on_open_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    path.write_bytes(b'{"event":"log","timestamp":1.0,"level":"INFO","logger":"a","message":"ol')
    with open_log(path, console=False) as log:
        log.info("new")
    found = path.read_bytes().splitlines()
    assert json.loads(found[1])["event"] == "log.segment_opened"
    assert json.loads(found[2])["torn_bytes"] == len(found[0])
    assert json.loads(found[4])["message"] == "new"


def test_an_unwritable_path_is_a_config_error_at_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"option path=.*file/app.jsonl.*cannot be written: Not a directory"):
        open_log(tmp_path / "file" / "app.jsonl", console=False)


def test_an_unwritable_path_is_a_config_error_of_async_with(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        async with open_log(tmp_path / "file" / "app.jsonl", console=False):
            raise AssertionError("never entered")

    with pytest.raises(ConfigError, match="cannot be written"):
        asyncio.run(main())


def test_aready_waits_while_the_queue_is_full(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    os.mkfifo(path)
    order: list[str] = []

    async def main() -> None:
        log = open_log(path, console=False, max_queue_size=100, shutdown_timeout_s=30)
        assert await log.aready()
        refused = 0
        while refused < 20:  # until the batcher is stuck in the pipe and takes no more
            refused = 0 if log.info("x" * 1000) else refused + 1
            await anyio.sleep(0.005)

        async def read() -> None:
            order.append("read")
            await anyio.to_thread.run_sync(drain)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            assert await log.aready()
            order.append("ready")
            await log.aclose()

    def drain() -> None:
        with path.open("rb") as pipe:
            while pipe.read(65536):
                pass

    asyncio.run(main())
    assert order == ["read", "ready"]


def test_aready_of_a_closed_log_is_false(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path / "app.jsonl", console=False)
        await log.aclose()
        assert await log.aready() is False

    asyncio.run(main())


def test_a_defect_in_the_batcher_costs_the_records_in_hand_not_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [True]
    real = LineEncoder.encode

    def encode(self: LineEncoder, batch: Any) -> bytes:
        if broken.pop() if broken else False:
            raise RuntimeError("defect")
        return real(self, batch)

    monkeypatch.setattr(LineEncoder, "encode", encode)
    with open_log(tmp_path / "app.jsonl", console=False) as log:
        log.info("lost")
        eventually(lambda: log.stats().failed == 1, "the loss is counted")
        log.info("kept")
    assert [r["message"] for r in records(tmp_path)] == ["kept"]
    assert own(tmp_path, "log.dropped")[0]["by_reason"] == {"unencodable": 1}
    assert log.close().ok is False
    assert "RuntimeError: defect" in capsys.readouterr().err
    check_complete(tmp_path)


def test_the_log_s_loop_is_never_held_up_by_a_file(tmp_path: Path) -> None:
    """All file calls come from the I/O thread: none from a thread that runs an event loop, the user's or the log's.

    Options are looked for in `pyproject.toml` when a log is opened, by whoever opens it.
    """
    done = run(
        """
        import asyncio, sys, threading
        from amsha_async_log import open_log
        offenders = set()
        def hook(event, args):
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.truncate"):
                try:
                    asyncio.get_running_loop()
                except RuntimeError:
                    return
                if "site-packages" not in str(args[0]) and "lib/python" not in str(args[0]):
                    offenders.add((event, str(args[0])))
        async def main():
            log = open_log(sys.argv[1] + "/app.jsonl", console=False, max_bytes=20_000, backup_count=2)
            await log.aclose()
            sys.addaudithook(hook)
            async with open_log(sys.argv[1] + "/app.jsonl", console=False, max_bytes=20_000, backup_count=2) as log:
                for i in range(3000):
                    log.info("x", i=i)
                    if i == 1500: await log.aflush(durable=True)
                try: 1 / 0
                except ZeroDivisionError: log.exception("oops")
        asyncio.run(main())
        print(sorted(offenders))
        """,
        tmp_path,
    )
    assert done.stdout == "[('open', 'pyproject.toml')]\n", done.stderr


def test_signal_handlers_may_log_while_the_same_thread_logs(tmp_path: Path) -> None:
    handled = [0]
    offered = 0

    def on_alarm(number: int, frame: object) -> None:
        handled[0] += 1
        log.info("from the handler")

    with open_log(tmp_path / "app.jsonl", console=False) as log:
        previous = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            while handled[0] < 200:
                offered += 1
                log.info("from the loop", i=offered)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
    report = log.close()
    assert report.offered == offered + handled[0]
    assert len(records(tmp_path)) == report.written


def test_two_logs_in_one_process_do_not_mix(tmp_path: Path) -> None:
    with (
        open_log(tmp_path / "a" / "a.jsonl", console=False) as a,
        open_log(tmp_path / "b" / "b.jsonl", console=False) as b,
    ):
        a.info("a")
        b.info("b")
    assert [r["message"] for r in records(tmp_path / "a")] == ["a"]
    assert [r["message"] for r in records(tmp_path / "b")] == ["b"]


def test_a_typed_event_and_a_plain_line_keep_their_order(tmp_path: Path) -> None:
    with open_log(tmp_path / "app.jsonl", console=False) as log:
        for i in range(500):
            log.info("x", i=2 * i)
            log.emit(events.FileOperation(operation="save", file_path=str(2 * i + 1), status="success"))
    found = [int(r.get("i", r.get("file_path"))) for r in records(tmp_path)]
    assert found == list(range(1000))


# -- rotation on demand ------------------------------------------------------------------------------------------------


def test_rotate_closes_the_segment_with_everything_logged_before(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    for number in range(1000):
        log.info("before", n=number)
    assert log.rotate()
    log.info("after")
    log.close()
    (rotated,) = log_path.parent.glob("app.2*.jsonl")
    assert [line["n"] for line in user_lines(rotated)] == list(range(1000))
    assert [line["message"] for line in user_lines(log_path)] == ["after"]
    assert reader.verify(log_path).ok


def test_rotate_without_records_moves_nothing(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    assert log.rotate()
    log.close()
    assert list(log_path.parent.iterdir()) == [log_path]


def test_rotate_of_a_closed_log_is_answered(opened: Callable[..., Log]) -> None:
    log = opened()
    log.close()
    assert log.rotate()


def test_segment_older_than_the_interval_is_rotated_with_the_next_record(
    opened: Callable[..., Log], log_path: Path
) -> None:
    log = opened(rotate_interval_s=1e-6)
    log.info("first")
    assert log.flush()
    assert log.rotation_due()
    log.info("second")
    log.close()
    (rotated,) = log_path.parent.glob("app.2*.jsonl")
    assert [line["message"] for line in user_lines(rotated)] == ["first"]
    assert [line["message"] for line in user_lines(log_path)] == ["second"]
    assert reader.verify(log_path).ok


def test_rotation_is_not_due_of_a_young_and_small_log(opened: Callable[..., Log]) -> None:
    log = opened(rotate_interval_s=3600)
    log.info("first")
    log.flush()
    assert not log.rotation_due()


# -- where the file is -------------------------------------------------------------------------------------------------


def test_log_opened_with_a_relative_path_stays_where_it_was(
    opened: Callable[..., Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    log = opened("logs/app.jsonl")
    for folder in ("work", "..", "work"):
        os.chdir(folder)
        log.info("here", folder=folder)
        assert log.flush()
    os.rmdir(tmp_path / "work")
    log.info("gone")
    assert log.close().ok
    assert len(user_lines(tmp_path / "logs" / "app.jsonl")) == 4
    assert reader.verify(tmp_path / "logs").ok


def test_path_that_can_never_be_written_is_said_at_once_on_a_loop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run(
        """
        import asyncio, sys
        from amsha_async_log import open_log
        async def main():
            log = open_log(sys.argv[1] + "/file/app.jsonl", console=False)
            while log.stats().sink_ok:
                await asyncio.sleep(0.001)
            print(log.stats().sink_error)
        asyncio.run(main())
        """,
        tmp_path,
    )
    assert "Not a directory" in done.stdout
    assert "cannot write" in done.stderr


def test_disk_that_is_full_during_a_rotation_leaves_a_file_that_verifies(
    opened: Callable[..., Log], log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened()
    log.info("first")
    assert log.flush()
    real, failed = os.write, []

    def write(fd: int, data: Any) -> int:
        if bytes(data[:40]).startswith(b'{"event":"log.segment_opened"') and not failed:
            failed.append(True)
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data)

    monkeypatch.setattr("amsha_async_log._writer.os.write", write)
    assert log.rotate()
    log.info("second")
    assert log.close().ok
    assert failed == [True]
    verdict = reader.verify(log_path)
    assert verdict.ok, verdict.findings
    assert len(list(log_path.parent.iterdir())) == 2


def test_loggers_without_end_do_not_pile_up(opened: Callable[..., Log]) -> None:
    log = opened()
    for number in range(5000):
        log.child(f"request-{number}").debug("not kept")
    assert len(log._core.gates._inheriting) < 10
    kept = log.child("kept")
    log.set_level("DEBUG")
    assert kept.level == "DEBUG"


@pytest.mark.parametrize("name", ["seq", "level", "execution_id", "other"])
def test_member_of_an_enumeration_as_a_name_doubles_no_key(
    opened: Callable[..., Log], log_path: Path, name: str
) -> None:
    member = enum.Enum("Name", {"MEMBER": name}).MEMBER  # type: ignore[attr-defined]
    log = opened()
    with log.execution("crew"):
        log.info("x", extra={member: 99, "good": 1})
        log.forward(20, "x", (), {member: 99, "good": 1})
    assert log.close().ok
    assert [line["good"] for line in user_lines(log_path) if line["event"] == "log"] == [1, 1]
    assert reader.verify(log_path).ok
