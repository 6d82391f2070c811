"""What the commands print, and the exit codes they end with."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from handmade import START, Log, Writer, closed_log, rotated_log
from mutator import delete_line

from amsha_async_log import cli


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> Result:
        code = cli.run([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """One execution that failed in a step, one that was killed."""
    log = Log(tmp_path / "app.jsonl")
    log.start(inputs={"topic": "x"}, model_name="gpt-4o")
    log.put("step.started", step_id="s1", step_kind="task", step_name="outer", status="running")
    log.put("step.started", step_id="s2", step_kind="tool", step_name="inner", parent_step_id="s1", status="running")
    log.put(message="Looking it up", step_id="s2", query="a b")
    trace = {
        "type": "ValueError",
        "message": "no",
        "notes": ["a note"],
        "frames": [{"file": "crew.py", "line": 7, "function": "search", "code": "raise ValueError"}, {"omitted": 3}],
        "cause": {"type": "KeyError", "message": "'k'", "frames": []},
    }
    failed: dict[str, Any] = {"level": "ERROR", "status": "failed", "error_type": "ValueError", "error_message": "no"}
    log.put("step.failed", step_id="s2", duration_seconds=0.2, stacktrace=trace, **failed)
    log.put("step.failed", step_id="s1", duration_seconds=0.3, **failed)
    log.put("execution.failed", duration_seconds=0.5, **failed)
    log.start("e2-killed")
    return log


# -- tail --------------------------------------------------------------------------------------------------------------


def test_tail_prints_the_last_lines(run: Run, tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    result = run("tail", "-n", "4", tmp_path)
    lines = result.out.splitlines()
    assert (result.code, result.err, len(lines)) == (0, "", 4)
    assert lines[0].endswith("INFO     test record 8 number=8")


def test_tail_prints_local_time_with_milliseconds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    __import__("time").tzset()
    writer = Writer(tmp_path / "app.jsonl")
    writer.time = START + 0.25
    writer.write(message="now")
    assert run("tail", tmp_path).out == "09:50:00.251 INFO     test now\n"


def test_tail_as_json_prints_each_line_as_it_is_in_the_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    closed_log(path)
    assert run("tail", "-n", "3", "--json", path).out.splitlines() == path.read_text().splitlines()[-3:]


def test_tail_prints_every_typed_event_by_its_tag(run: Run, log: Log) -> None:
    lines = [line for line in run("tail", log.path).out.splitlines() if "step_name=inner" in line]
    assert " step.started execution_id=e1 " in lines[0]


def test_tail_names_unreadable_lines_on_stderr(run: Run, tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl").append(b"nonsense\n")
    result = run("tail", tmp_path)
    assert (result.code, result.err) == (0, "amsha-log: 1 unreadable line passed over, see amsha-log verify\n")


def test_tail_refuses_a_negative_number_of_lines(run: Run, tmp_path: Path) -> None:
    assert run("tail", "-n", "-1", tmp_path).code == 2


# -- ls ----------------------------------------------------------------------------------------------------------------


def test_ls_as_json_is_one_document(run: Run, log: Log) -> None:
    result = run("ls", "--json", log.path)
    first, second = result.document["executions"]
    assert (result.code, result.err) == (0, "")
    assert (first["execution_id"], first["status"], first["duration_seconds"]) == ("e1", "failed", 0.5)
    assert (second["status"], second["ended_at"]) == ("killed", None)


def test_ls_shows_every_execution_unshortened(run: Run, tmp_path: Path) -> None:
    log = Log(tmp_path / "app.jsonl")
    ids = [f"0198c0de-7a3b-7c11-9d2e-{number:012d}" for number in range(5)]
    for execution_id in ids:
        log.write("execution.started", execution_id=execution_id, crew_name="a crew with a rather long name " * 3)
    out = run("ls", tmp_path).out
    assert all(execution_id in out for execution_id in ids)
    assert len(out.splitlines()) == 5 + 2


def test_ls_takes_several_paths(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Log(tmp_path / f"{name}.jsonl", name * 8).start(name)
    result = run("ls", "--json", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [execution["execution_id"] for execution in result.document["executions"]] == ["a", "b"]


def test_ls_of_a_log_without_executions_says_so(run: Run, tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    assert run("ls", tmp_path) == (0, "no executions\n", "")
    assert run("ls", "--json", tmp_path).document == {"executions": []}


def test_ls_reads_the_default_log(run: Run, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSHA_LOG_PATH", str(log.path))
    assert len(run("ls", "--json").document["executions"]) == 2


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_as_json_is_one_document(run: Run, log: Log) -> None:
    result = run("show", "e1", log.path, "--json")
    document = result.document
    assert result.code == 0
    keys = "execution states steps records last_activity complete files retries configuration resources".split()
    assert list(document) == keys
    assert document["execution"]["inputs"] == {"topic": "x"}
    assert (
        list(document["steps"][0])
        == (
            "step_id parent_step_id kind name status started_at duration_seconds error_type "
            "state depends_on attempt max_retries agent_name inputs outputs"
        ).split()
    )
    assert (len(document["records"]), document["complete"]) == (7, True)


def test_show_prints_header_states_steps_records_and_errors(run: Run, log: Log) -> None:
    out = run("show", "e1", log.path).out
    lines = out.splitlines()
    assert lines[0] == "crew  e1  failed"
    assert "running -> failed" in out
    assert "└── task outer  failed  0.300 s  ValueError" in lines
    assert "    └── tool inner  failed  0.200 s  ValueError" in lines
    assert 'Looking it up step_id=s2 query="a b"' in out
    assert any(line.startswith("Last activity ") and line.endswith("execution.failed") for line in lines)


def test_show_prints_the_stack_trace_of_an_error(run: Run, log: Log) -> None:
    out = run("show", "e1", log.path).out
    assert "crew.py:7 in search    raise ValueError" in out
    for text in ("KeyError: 'k'", "which caused:", "... 3 frames omitted", "ValueError: no", "a note"):
        assert text in out


def test_show_says_why_an_execution_is_not_complete(run: Run, log: Log) -> None:
    assert "not complete: it has no end (killed)" in run("show", "e2-killed", log.path).out


def test_show_of_an_unknown_execution_names_near_ones(run: Run, log: Log) -> None:
    assert run("show", "e2", log.path) == (1, "", "amsha-log: no execution e2; did you mean e2-killed?\n")


def test_show_of_an_unknown_execution_says_when_none_is_near(run: Run, log: Log) -> None:
    assert run("show", "zzz", log.path) == (1, "", "amsha-log: no execution zzz, and none like it\n")


def test_show_survives_steps_that_are_their_own_ancestors(run: Run, tmp_path: Path) -> None:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    log.put("step.started", step_id="s1", step_name="one", parent_step_id="s2")
    log.put("step.started", step_id="s2", step_name="two", parent_step_id="s1")
    log.put("step.started", step_id="s3", step_name="three", parent_step_id="s3")
    out = run("show", "e1", tmp_path).out
    assert all(f"step {name}" in out for name in ("one", "two", "three"))


def test_show_limits_the_records_it_prints(run: Run, tmp_path: Path) -> None:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    for number in range(500):
        log.put(message=f"number {number}.")
    out = run("show", "e1", tmp_path).out
    assert "(301 earlier ones are not shown, see --json)" in out
    assert ("number 300." in out, "number 299." in out) == (True, False)


@pytest.fixture
def plain(tmp_path: Path) -> Writer:
    """An execution told by plain lines alone."""
    writer = Writer(tmp_path / "app.jsonl")
    ids = {"execution_id": "e1"}
    writer.write("log", "Crew execution initiated", crew_name="crew", inputs={"topic": "x"}, **ids)
    writer.write("log", "LLM configuration", model_name="gpt-4o", temperature=0.2, stream=False, **ids)
    error: dict[str, Any] = {"error_type": "ValueError", "error_message": "no"}
    writer.write("log", "Crew execution failed", level="ERROR", attempt=1, max_retries=3, **error, **ids)
    writer.write("log", "Crew execution initiated", attempt=2, max_retries=3, **ids)
    done: dict[str, Any] = {"status": "success", "file_size_bytes": 1234, "attempt": 2}
    writer.write("log", "File operation: save", operation="save", file_path="out.json", **done, **ids)
    checked = {"validation_status": "success", "cleaning_action": "fences removed"}
    writer.write("log", "JSON file validated", file_path="out.json", **checked, **ids)
    writer.write("log", "Fell back", recovery_action="smaller model", error_type="RateLimitError", **ids)
    writer.write("log", "Crew execution completed", duration_seconds=2.0, total_tokens=2500, **ids)
    return writer


def section(out: str, title: str) -> list[str]:
    """The lines of a section without the times they begin with."""
    lines = out.partition(f"\n{title}\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip().partition(" ")[2] for line in lines]


def test_show_prints_the_states_of_plain_lines(run: Run, plain: Writer) -> None:
    out = run("show", "e1", plain.path).out
    assert section(out, "States") == [
        "running",
        "running -> failed",
        "failed -> running",
        "running -> failed",
        "failed -> completed",
    ]


def test_show_prints_files_retries_and_configuration(run: Run, plain: Writer) -> None:
    out = run("show", "e1", plain.path).out
    assert section(out, "Files") == [
        "save out.json  success  1,234 bytes  attempt 2",
        "JSON file validated out.json  validation success  cleaned by fences removed",
    ]
    assert section(out, "Retries") == [
        "execution  attempt 2 of 3",
        "file out.json  attempt 2",
        "error  RateLimitError  recovered by smaller model",
    ]
    assert section(out, "Configuration") == ["LLM configuration model_name=gpt-4o temperature=0.2 stream=false"]


def test_show_leaves_out_sections_without_anything(run: Run, log: Log) -> None:
    out = run("show", "e1", log.path).out
    assert not {"Files", "Retries", "Configuration"}.intersection(out.splitlines())


def test_show_limits_the_files_it_prints(run: Run, tmp_path: Path) -> None:
    log = Log(tmp_path / "app.jsonl")
    for number in range(300):
        log.put("file.operation", operation="save", file_path=f"{number}.json", status="success")
    title = "Files (100 earlier ones are not shown, see --json)"
    assert len(section(run("show", "e1", tmp_path).out, title)) == 200


def test_show_as_json_has_files_retries_and_configuration(run: Run, plain: Writer) -> None:
    document = run("show", "e1", plain.path, "--json").document
    assert (
        list(document["files"][0])
        == (
            "file_path operation status validation_status file_size_bytes attempt error_type timestamp event message "
            "cleaning_action"
        ).split()
    )
    assert list(document["retries"][0]) == (
        "timestamp what name attempt max_retries error_type recovery_action".split()
    )
    assert list(document["configuration"][0]) == "timestamp event message values".split()
    assert document["configuration"][0]["values"] == {"model_name": "gpt-4o", "temperature": 0.2, "stream": False}


def test_show_prints_what_a_step_waited_for_and_its_attempt_and_last_state(run: Run, tmp_path: Path) -> None:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    log.put("step.started", step_id="s1", step_kind="task", step_name="read")
    log.put("step.completed", step_id="s1", status="completed", duration_seconds=1.0)
    again = {"attempt": 2, "max_retries": 3, "depends_on": ["s1", "other"]}
    log.put("step.started", step_id="s2", step_kind="task", step_name="write", **again)
    log.put("step.state_changed", step_id="s2", state_to="paused")
    out = run("show", "e1", tmp_path).out
    assert "└── task write  killed (was paused)  -  attempt 2 of 3  after read, other" in out.splitlines()


def test_show_survives_a_record_that_cannot_be_decoded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.jsonl").write_text('{"execution_id":"e1","number":' + "9" * 5000 + "}\n")
    result = run("show", "e1", tmp_path)
    assert (result.code, result.err, "Last activity" in result.out) == (0, "", True)


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_of_a_complete_log_ends_with_0(run: Run, tmp_path: Path) -> None:
    rotated_log(tmp_path / "app.jsonl")
    result = run("verify", tmp_path / "app.jsonl")
    lines = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    assert lines[0] == "complete: 40 records by 1 writer in 4 segments, nothing missing"
    assert lines[-1].split() == ["aaaaaaaa", "40", "1", "49", "0", "0", "0", "closed"]


def test_verify_of_a_damaged_log_ends_with_1_and_a_sentence_each(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    closed_log(path)
    delete_line(path, 4)
    result = run("verify", path)
    assert result.code == 1
    assert result.out.startswith("NOT complete: 1 line missing, 1 checksum failure; found 9 records by 1 writer")
    assert f"- 1 line is missing of writer aaaaaaaa (seq 5), between {path}, line 4 and {path}, line 5." in result.out


def test_verify_tells_declared_loss_and_unknown_ends(run: Run, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment()
    writer.lose(12)
    result = run("verify", tmp_path)
    assert result.code == 0
    assert "; 12 records declared as lost; the end of 1 writer is unknown" in result.out.splitlines()[0]


def test_verify_as_json_is_one_document(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    closed_log(path)
    document = run("verify", path, "--json").document
    assert (
        list(document)
        == (
            "ok writers torn_lines corrupt_lines duplicates segments checksum_failures secrets_found out_of_order findings"
        ).split()
    )
    assert list(document["writers"][0]) == "writer records first_seq last_seq missing dropped refused end".split()
    delete_line(path, 4)
    result = run("verify", path, "--json")
    assert (result.code, result.document["ok"]) == (1, False)


def test_verify_of_a_running_log_ends_with_0(run: Run, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment()
    with writer.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = run("verify", tmp_path, "--json")
    assert (result.code, result.document["writers"][0]["end"]) == (0, "running")


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["tail", "ls", "show", "verify", "demo"])
def test_help_of_every_command_has_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"Example: amsha-log {command}" in " ".join(result.out.split())


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert all(f"  {command}  " in result.out for command in ("tail", "ls", "show", "verify", "demo"))
    assert "Example: amsha-log" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ls", "--nonsense"],
        ["show"],
        ["tail", "-n", "many"],
        ["ls", "/does/not/exist.jsonl"],
        ["verify", "/does/not/*.jsonl"],
        ["show", "e1", "/does/not/exist"],
        ["tail", "-f", "/does/not/exist"],
    ],
)
def test_wrong_usage_and_unreadable_input_are_one_line_on_stderr_and_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("amsha-log: ")
    assert result.err.count("\n") == 1


def test_verify_of_a_directory_without_logs_ends_with_2(run: Run, tmp_path: Path) -> None:
    assert run("verify", tmp_path).code == 2


# -- hostile text ------------------------------------------------------------------------------------------------------

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b1m \r\n\x00 \u202egnp.exe [bold]markup[/bold] :smile: \u2028"
SHOWN = r"\x1b[31mred\x1b]0;title\x07 \x9b1m \r\n\x00 \u202egnp.exe [bold]markup[/bold] :smile: \u2028"


@pytest.fixture
def hostile(tmp_path: Path) -> Log:
    log = Log(tmp_path / "app.jsonl")
    fields: dict[str, Any] = {"crew_name": HOSTILE, "model_name": HOSTILE, HOSTILE: HOSTILE, "execution_id": "e1"}
    log.write("execution.started", inputs=HOSTILE, **fields)
    log.write("step.started", step_id="s1", step_kind=HOSTILE, step_name=HOSTILE, **fields)
    log.write("log", HOSTILE, level=HOSTILE, **fields)
    trace = {"type": HOSTILE, "message": HOSTILE, "frames": [{"file": HOSTILE, "code": HOSTILE}], "notes": [HOSTILE]}
    log.write("log", HOSTILE, level="ERROR", error_type=HOSTILE, stacktrace=trace, **fields)
    more: dict[str, Any] = {"error_type": HOSTILE, "attempt": 2, "recovery_action": HOSTILE, "tool_name": HOSTILE}
    log.write("step.started", step_id="s1", depends_on=[HOSTILE], **fields)
    log.write("step.state_changed", step_id="s1", state_to=HOSTILE, **fields)
    log.write("file.operation", operation=HOSTILE, file_path=HOSTILE, validation_status=HOSTILE, **more, **fields)
    log.write("tool.call.failed", **more, **fields)
    log.write("error.recovered", **{**more, "attempt": None}, **fields)
    log.write("config.changed", parameters_changed=[HOSTILE], **fields)
    log.write("execution.state_changed", state_from=HOSTILE, state_to=HOSTILE, **fields)
    log.write("execution.failed", status=HOSTILE, outputs=HOSTILE, **fields)
    return log


@pytest.mark.parametrize("command", [["tail"], ["ls"], ["show", "e1"], ["verify"]])
def test_controls_in_log_text_never_reach_the_terminal(run: Run, hostile: Log, command: list[str]) -> None:
    out = run(*command, hostile.path).out
    assert [character for character in out if not character.isprintable() and character != "\n"] == []


@pytest.mark.parametrize("command", [["tail"], ["ls"], ["show", "e1"]])
def test_log_text_is_shown_escaped_and_not_taken_as_markup(run: Run, hostile: Log, command: list[str]) -> None:
    assert SHOWN in run(*command, hostile.path).out


def test_controls_in_an_execution_id_given_never_reach_the_terminal(run: Run, hostile: Log) -> None:
    assert "\x1b" not in run("show", HOSTILE, hostile.path).err


def test_wide_and_accented_text_is_shown_as_it_is(run: Run, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.write(message="Crew «étude» 完了\u00a0🎉")
    assert run("tail", tmp_path).out.endswith("test Crew «étude» 完了\u00a0🎉\n")


def test_numbers_beyond_64_bits_are_printed(run: Run, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.write(number=10**30)
    assert json.loads(run("tail", "--json", tmp_path).out)["number"] == 10**30
    assert f"number={10**30}" in run("tail", tmp_path).out
