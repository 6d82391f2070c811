"""`amsha-log top`: frames and JSON from lines made by hand, and a real log watched on a real terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import BOOT_ID, HOST, Log, rotated_log

from amsha_async_log import cli
from amsha_async_log.cli._top_frame import frame
from amsha_async_log.cli._top_grid import Column, grid
from amsha_async_log.reader import _live_views
from amsha_async_log.reader._live import LiveState

NOW = 1_763_805_100.0
PYTHON = (sys.executable, "-m", "amsha_async_log")
PROGRAM = """
import sys
from amsha_async_log import open_log
with open_log(sys.argv[1], console=False, sample_interval_s=0.1, gpu_interval_s=0) as log:
    with log.execution("research crew") as run:
        with run.step("task", "collect sources"):
            log.info("Looking it up")
            log.flush()
            print(run.execution_id, flush=True)
            sys.stdin.readline()
    log.flush()
    print("ended", flush=True)
    sys.stdin.readline()
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Program:
    """A process that logs one execution, which ends when it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = [sys.executable, "-c", PROGRAM, str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.execution_id = self.said()

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path / "app.jsonl")
    yield program
    program.close()


class Screen:
    """`top` on a terminal of its own."""

    def __init__(self, *arguments: str | Path, columns: int = 120, lines: int = 30, **environment: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(columns, lines)
        self.settings = termios.tcgetattr(self.theirs)
        self.seen = ""
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [*PYTHON, "top", *map(str, arguments)],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**variables, "TERM": "xterm", **environment},
            start_new_session=True,
        )

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def take(self) -> None:
        if select.select([self.ours], [], [], 0.1)[0]:
            self.seen += os.read(self.ours, 65_536).decode(errors="replace")

    def frames(self) -> list[str]:
        return [ESCAPE.sub("", frame).replace("\r", "") for frame in self.seen.split("\x1b[H")]

    def until(self, *words: str) -> str:
        """The first new frame that has all these words."""
        start = len(self.frames())
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.take()
            for shown in self.frames()[max(0, start - 2) :]:
                if all(word in shown for word in words):
                    return shown
        raise AssertionError(f"{words} not shown: {self.frames()[-1]}")

    def end(self) -> int:
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            self.take()
        self.take()
        return self.process.wait(5)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        screen.close()


# -- frames ------------------------------------------------------------------------------------------------------------


def lines_of(*records: dict[str, Any], width: int = 200, height: int | None = None, now: float = NOW) -> list[str]:
    state = LiveState(clock=lambda: now)
    for record in records:
        state.add({"writer": "aaaaaaaa", "timestamp": NOW - 1, **record})
    shown = frame(state.view(), "logs", state.running, state.ended, width, height)
    return [line.plain for line in shown]


def text_of(*records: dict[str, Any], **options: Any) -> str:
    return "\n".join(lines_of(*records, **options))


def started(number: int) -> dict[str, Any]:
    return {"event": "execution.started", "execution_id": f"e{number}", "crew_name": f"crew-{number}"}


OPENED = {"event": "log.segment_opened", "host": HOST, "boot_id": BOOT_ID, "pid": 77, "program": "app.py"}


def test_what_is_unknown_is_a_dash_or_its_reason_and_never_0() -> None:
    lines = lines_of(
        {**OPENED, "pid": None},
        {"event": "sample.host", "unknown": {"load_1m": "no_permission"}},
        {"event": "sample.gpu", "gpu_index": 7, "unknown": {"power_watts": "not_supported"}},
        {"event": "sample.loop", "loop_name": "main"},
        {"event": "sample.process"},
    )
    assert f"host {HOST}  cpu - %  memory -/- MB  load no_permission" in "\n".join(lines)
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["7"] == ["7", "-", "-", "-/-", "not_supported", "-", "-", "-", "-", HOST]
    assert rows["main"] == ["main", "-", "-", "-", "0", "-", "aaaaaaaa"]  # stalls are counted, and there was none
    assert rows["app.py"] == ["app.py", "-", "-", "-", "-", "-", "-", "aaaaaaaa", "-", "-"]


def test_frame_tells_writers_totals_gpus_loops_processes_and_executions() -> None:
    text = text_of(
        OPENED,
        {"event": "sample.host", "cpu_percent": 12.3, "memory_mb": 1000.0, "memory_total_mb": 2000.0, "load_1m": 0.5},
        {
            "event": "sample.gpu",
            "gpu_index": 0,
            "gpu_name": "H100",
            "gpu_percent": 34.0,
            "energy_joules": 1200.0,
            "source_state": "ok",
        },
        {"event": "sample.loop", "loop_name": "main", "lag_max_seconds": 0.0125, "busy_percent": 7.5},
        {
            "event": "sample.process",
            "cpu_percent": 55.5,
            "memory_mb": 128.0,
            "threads": 4,
            "log_queued": 9,
            "log_lost": 2,
        },
        started(1),
        {"event": "step.started", "execution_id": "e1", "step_id": "s", "step_name": "read papers"},
    )
    assert "writers: 1 running" in text
    assert "2 lost  queued 9" in text
    assert "cpu 12.3 %  memory 1,000/2,000 MB  load 0.50" in text
    assert re.search(r"0  H100 +34 .* ok +1\.2", text)
    assert re.search(r"main +12\.5 +- +7\.5", text)
    assert re.search(r"app\.py +77 +55\.5 +128 +4", text)
    assert re.search(r"crew-1  running  1\.0 s  read papers", text)
    assert "1 running, 0 ended executions" in text


def test_stall_in_progress_is_told_with_its_frame() -> None:
    stall = {"event": "sample.loop_stalled", "loop_name": "main", "stalled_seconds": 2.0, "blocked_at": "a.py:7 in f"}
    assert "main does not run for 3.0 s at a.py:7 in f" in lines_of(OPENED, stall)


def test_old_sample_tells_its_age() -> None:
    text = text_of(OPENED, {"event": "sample.process", "interval_seconds": 1.0}, now=NOW + 60)
    assert "aaaaaaaa (01:01 old)" in text


def test_source_that_is_not_ok_is_told() -> None:
    change = {"event": "sample.source_changed", "source": "gpu", "state_to": "library_absent"}
    assert "gpu: library_absent" in lines_of(OPENED, change)


@pytest.mark.parametrize("height", [1, 5, 10, 24, 60])
def test_frame_has_no_more_lines_than_the_terminal(height: int) -> None:
    gpus = [{"event": "sample.gpu", "gpu_index": number} for number in range(16)]
    shown = lines_of(OPENED, *gpus, {"event": "sample.process"}, *map(started, range(100)), height=height)
    assert len(shown) <= height
    assert height < 6 or len(shown) == height


def test_executions_have_half_of_the_terminal_whatever_the_machine_has() -> None:
    gpus = [{"event": "sample.gpu", "gpu_index": number} for number in range(50)]
    shown = lines_of(OPENED, *gpus, *map(started, range(100)), height=40)
    assert sum("crew-" in line for line in shown) >= 15
    assert any(re.fullmatch(r"\+ \d+ more", line) for line in shown)


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
def test_columns_that_do_not_fit_are_left_out(width: int) -> None:
    columns = [Column("NAME", str, right=False), Column("LENGTH", lambda word: str(len(word))), Column("AGAIN", str)]
    for line in grid(["abc", "完了完了", "x" * 100], columns, width):
        assert line.cell_len <= width


def test_text_from_the_log_cannot_control_the_terminal() -> None:
    evil = "\x1b[2J\x07\u202eevil"
    text = text_of(
        {**OPENED, "program": evil, "host": evil},
        {"event": "sample.host", "source_state": evil, "unknown": {"load_1m": evil}},
        {
            "event": "sample.gpu",
            "gpu_name": evil,
            "source_state": evil,
            "throttle_reasons": [evil],
            "unknown": {"gpu_percent": evil},
        },
        {"event": "sample.loop_stalled", "loop_name": evil, "blocked_at": evil},
        {"event": "sample.process", "unknown": {"threads": evil}},
        {"event": "sample.source_changed", "source": evil, "state_to": evil},
        {"event": "execution.started", "execution_id": evil, "crew_name": evil},
        {"event": "execution.state_changed", "execution_id": evil, "state_to": evil},
        {"event": "step.started", "execution_id": evil, "step_id": evil, "step_name": evil},
    )
    assert "evil" in text
    assert not any(not (c.isprintable() or c == "\n") for c in text)


# -- the documentation -------------------------------------------------------------------------------------------------

DOCUMENTED = {
    "writers": _live_views.LiveWriter,
    "host": _live_views.LiveHost,
    "processes": _live_views.LiveProcess,
    "gpus": _live_views.LiveGpu,
    "loops": _live_views.LiveLoop,
    "executions": _live_views.LiveExecution,
}


@pytest.mark.parametrize("key", DOCUMENTED)
def test_keys_of_the_json_are_documented(key: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"`{' '.join(DOCUMENTED[key].__struct_fields__)}`" in page


# -- the command -------------------------------------------------------------------------------------------------------


def test_log_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["top", str(tmp_path / "none.jsonl")]) == 2
    assert "no such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_interval_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], interval: str) -> None:
    Log(tmp_path / "app.jsonl")
    assert cli.run(["top", str(tmp_path), "--once", "--interval", interval]) == 2
    assert "--interval" in capsys.readouterr().err


def test_without_a_terminal_one_frame_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    log.end()
    assert cli.run(["top", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "0 running, 1 ended executions" in out
    assert re.search(r"crew +completed", out)
    assert "\x1b" not in out


def test_segments_rotated_before_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rotated_log(tmp_path / "app.jsonl", segments=4)
    assert cli.run(["top", str(tmp_path), "--once", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert [writer["status"] for writer in json.loads(line)["writers"]] == ["closed"]


def test_once_as_json_is_one_line_about_what_runs(program: Program) -> None:
    done = subprocess.run(
        [*PYTHON, "top", "--once", "--json", program.path], capture_output=True, check=True, timeout=60
    )
    (line,) = done.stdout.splitlines()
    view = json.loads(line)
    assert list(view) == (
        "timestamp writers host processes gpus loops executions records_per_second lost_records".split()
    )
    assert [writer["status"] for writer in view["writers"]] == ["running"]
    (run,) = view["executions"]
    assert (run["execution_id"], run["crew_name"]) == (program.execution_id, "research crew")
    assert (run["status"], run["step"]) == ("running", "collect sources")
    assert view["processes"][0]["memory_mb"] > 0
    assert view["host"]["memory_total_mb"] > 0


def test_json_goes_on_until_interrupted(program: Program) -> None:
    command = [*PYTHON, "top", "--json", "--interval", "0.1", str(program.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        program.go_on()
        assert program.said() == "ended"
        while json.loads(process.stdout.readline())["executions"][0]["status"] != "completed":
            pass
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert first["executions"][0]["status"] == "running"


# -- on a terminal -----------------------------------------------------------------------------------------------------


def test_watching_shows_the_end_and_q_puts_the_terminal_back(program: Program, screens: list[Screen]) -> None:
    screen = Screen(program.path, "--interval", "0.1")
    screens.append(screen)
    screen.until("research crew", "running", "collect sources")
    program.go_on()
    assert program.said() == "ended"
    screen.until("research crew", "completed", "0 running, 1 ended")
    screen.press(b"q")
    assert screen.end() == 0
    assert "\x1b[?1049h" in screen.seen
    assert screen.seen.rindex("\x1b[?1049l") > screen.seen.rindex("\x1b[?1049h")
    assert screen.seen.rindex("\x1b[?25h") > screen.seen.rindex("\x1b[?25l")
    assert termios.tcgetattr(screen.theirs) == screen.settings


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_signal_puts_the_terminal_back(program: Program, screens: list[Screen], number: int, code: int) -> None:
    screen = Screen(program.path)
    screens.append(screen)
    screen.until("research crew")
    screen.process.send_signal(number)
    assert screen.end() == code
    assert "Traceback" not in screen.seen
    assert screen.seen.rindex("\x1b[?1049l") > screen.seen.rindex("\x1b[?1049h")
    assert termios.tcgetattr(screen.theirs) == screen.settings


def test_frame_follows_the_size_of_the_terminal(program: Program, screens: list[Screen]) -> None:
    screen = Screen(program.path, "--interval", "60", columns=60, lines=12, COLUMNS="60", LINES="12")
    screens.append(screen)
    small = screen.until("research crew")
    screen.resize(150, 40)
    large = screen.until("research crew", program.execution_id)
    assert max(map(len, small.splitlines())) <= 60
    assert program.execution_id not in small
    assert len(large.splitlines()) > 12


def test_size_comes_from_the_environment_where_the_terminal_has_none(program: Program, screens: list[Screen]) -> None:
    screen = Screen(program.path, columns=0, lines=0, COLUMNS="150", LINES="20")
    screens.append(screen)
    shown = screen.until("research crew", program.execution_id)
    assert len(shown.splitlines()) <= 20


def test_other_keys_change_nothing(program: Program, screens: list[Screen]) -> None:
    screen = Screen(program.path, "--interval", "0.1")
    screens.append(screen)
    screen.until("research crew")
    screen.press(b"x\x1a\x1b[A\n ")
    screen.until("running")
    assert screen.process.poll() is None
    screen.press(b"Q")
    assert screen.end() == 0


def test_rotation_and_a_kill_are_followed_on_the_screen(tmp_path: Path, screens: list[Screen]) -> None:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    log.start("e2")
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        screen = Screen(tmp_path, "--interval", "0.1")
        screens.append(screen)
        screen.until("1 running", "2 running, 0 ended")
        log.rotate(1)
        with log.path.open("rb") as rotated:
            fcntl.flock(rotated, fcntl.LOCK_EX)
            log.end()
            screen.until("writers: 1 running", "1 running, 1 ended", "completed")
    screen.until("writers: 1 killed", "0 running, 2 ended", "killed")


def test_log_that_is_taken_away_ends_it_with_an_error(tmp_path: Path, screens: list[Screen]) -> None:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    screen = Screen(log.path, "--interval", "0.1")
    screens.append(screen)
    screen.until("crew")
    log.path.unlink()
    assert screen.end() == 2
    assert "cannot read" in screen.seen[screen.seen.rindex("\x1b[?1049l") :]


def test_history_larger_than_one_poll_does_not_keep_keys_waiting(tmp_path: Path, screens: list[Screen]) -> None:
    log = Log(tmp_path / "app.jsonl")
    line = log.line(message="x" * 200, execution_id="e1", crew_name="crew")
    log.append(line * 100_000)
    screen = Screen(tmp_path, "--interval", "0.1")
    screens.append(screen)
    screen.until("reading what the log holds so far")
    screen.press(b"q")
    assert screen.end() == 0
