"""The command line as a process: pipes, signals, closed streams, terminals, and what is not installed."""

import os
import pty
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from handmade import Log, Writer, closed_log, rotated_log
from rich.console import Console

from amsha_async_log import reader
from amsha_async_log.cli import _render, _tail

PYTHON = (sys.executable, "-m", "amsha_async_log")


def spawn(*arguments: str | Path, **options: object) -> "subprocess.Popen[bytes]":
    command = [*PYTHON, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload, no-any-return]


def test_module_runs_the_command_line(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    done = subprocess.run([*PYTHON, "verify", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("complete: ")


@pytest.mark.parametrize("command", [["tail", "-n", "100000"], ["tail", "--json", "-n", "100000"], ["ls"], ["verify"]])
def test_reader_of_the_output_may_leave_early(tmp_path: Path, command: list[str]) -> None:
    rotated_log(tmp_path / "app.jsonl", segments=20, records=200)
    process = spawn(*command, tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(60) == 0


def test_verdict_survives_a_reader_that_left_early(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    path.write_bytes(b"nonsense\n" * 1000)
    process = spawn("verify", path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(60) == 1


def test_closed_stdout_is_no_error(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    command = f"exec {sys.executable} -m amsha_async_log ls {tmp_path} >&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_output_that_the_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    Writer(tmp_path / "app.jsonl").write(message="完了")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*PYTHON, "tail", str(tmp_path)], capture_output=True, env=environment, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.split(b"test ")[1]) == (0, b"\\u5b8c\\u4e86\n")


def test_json_is_utf8_whatever_the_terminal_encodes(tmp_path: Path) -> None:
    Writer(tmp_path / "app.jsonl").write(message="完了")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*PYTHON, "tail", "--json", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    assert "完了".encode() in done.stdout


def test_following_ends_with_ctrl_c_and_0(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.write(message="first")
    process = spawn("tail", "-f", tmp_path)
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.readline().endswith(b"test first\n")
        writer.write(message="second")
        assert stdout.readline().endswith(b"test second\n")
        writer.rotate(1)
        writer.write(message="third")
        lines = [stdout.readline() for _ in range(3)]
        assert lines[-1].endswith(b"test third\n")
        process.send_signal(signal.SIGINT)
        assert stdout.read() == b""
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(60) == 0


def test_following_goes_on_until_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.write(message="0")
    pauses = []

    def pause(duration: float) -> None:
        pauses.append(duration)
        if len(pauses) == 4:
            raise KeyboardInterrupt
        writer.write(message=str(len(pauses)))

    assert _tail.run_tail([str(tmp_path)], lines=10, follow=True, json=False, pause=pause) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["0", "1", "2", "3"]
    assert pauses == [_tail.POLL_S] * 4


def test_colours_are_for_terminals_only(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.write(level="ERROR", message="\x1b[1mbold")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    subprocess.run([*PYTHON, "tail", str(tmp_path)], stdout=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert b"\x1b[31m" in shown
    assert rb"\x1b[1mbold" in shown
    assert b"\x1b[1mbold" not in shown


@pytest.mark.parametrize("width", [20, 80, 120, 240])
def test_table_of_executions_never_shortens_an_id(tmp_path: Path, width: int) -> None:
    log = Log(tmp_path / "app.jsonl")
    execution_id = "0198c0de-7a3b-7c11-9d2e-5f60718293a4"
    log.start(execution_id)
    out = StringIO()
    Console(file=out, width=width).print(_render.executions_table(reader.executions(tmp_path)))
    assert execution_id in out.getvalue() or width < len(execution_id)


def test_table_of_executions_leaves_out_columns_rather_than_text(tmp_path: Path) -> None:
    Log(tmp_path / "app.jsonl").start("0198c0de-7a3b-7c11-9d2e-5f60718293a4")
    out = StringIO()
    Console(file=out, width=80).print(_render.executions_table(reader.executions(tmp_path)))
    header, _rule, row = out.getvalue().splitlines()
    assert header.split() == ["EXECUTION", "STATUS", "CREW", "DURATION"]
    assert row.split() == ["0198c0de-7a3b-7c11-9d2e-5f60718293a4", "killed", "crew", "-"]


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_extra_is_one_line_that_names_it(missing: str) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; from amsha_async_log.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'amsha-log: needs {missing}: pip install "amsha_async_log[cli]"\n'


def test_missing_part_of_the_demo_is_one_line_that_names_it() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None; sys.argv[1:] = ['demo'];"
        "from amsha_async_log.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'amsha-log: the demo needs aiohttp: pip install "amsha_async_log[cli]"\n'


def test_command_line_does_not_load_what_only_the_demo_needs() -> None:
    code = "import sys, amsha_async_log.cli; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
