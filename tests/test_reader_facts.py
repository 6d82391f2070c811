"""States, steps, files, retries and settings of one execution."""

import fcntl
from pathlib import Path

import pytest
from handmade import Log

from amsha_async_log import reader


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.jsonl")


def detail(log: Log) -> reader.Detail:
    found = reader.detail("e1", log.path)
    assert found is not None
    return found


def while_running(log: Log) -> reader.Detail:
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return detail(log)


# -- states of executions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "running", "paused"])
def test_state_that_was_changed_to_is_the_status_while_the_writer_lives(log: Log, state: str) -> None:
    log.start()
    log.put("execution.state_changed", state_from="running", state_to=state.upper(), status=state)
    assert while_running(log).execution.status == state


def test_paused_execution_of_a_dead_writer_is_killed(log: Log) -> None:
    log.start()
    log.put("execution.state_changed", state_to="paused", status="paused")
    found = detail(log)
    assert (found.execution.status, found.states[-1].state_to) == ("killed", "paused")


def test_state_without_a_name_of_ours_is_shown_and_the_execution_runs(log: Log) -> None:
    log.start()
    log.put("execution.state_changed", state_to="reviewing")
    found = while_running(log)
    assert (found.execution.status, found.states[-1].state_to) == ("running", "reviewing")


def test_change_to_a_terminal_state_ends_an_execution_that_has_no_other_end(log: Log) -> None:
    log.put("execution.state_changed", state_from="PENDING", state_to="RUNNING")
    ended = log.put("execution.state_changed", state_from="RUNNING", state_to="COMPLETED")
    found = detail(log)
    assert (found.execution.status, found.execution.ended_at) == ("completed", ended)
    assert [(state.state_from, state.state_to) for state in found.states] == [
        ("pending", "running"),
        ("running", "completed"),
    ]


def test_change_of_state_after_the_end_is_no_state(log: Log) -> None:
    log.start()
    log.end()
    log.put("execution.state_changed", state_to="paused")
    found = detail(log)
    assert (found.execution.status, [state.state_to for state in found.states]) == (
        "completed",
        ["running", "completed"],
    )


def test_same_change_told_twice_is_one(log: Log) -> None:
    log.start()
    for _ in range(2):
        log.put("execution.state_changed", state_from="running", state_to="paused")
    log.end()
    assert [state.state_to for state in detail(log).states] == ["running", "paused", "completed"]


def test_status_of_typed_lines_is_understood_in_any_case(log: Log) -> None:
    log.start()
    log.put("execution.completed", status="SUCCESS", duration_seconds=1.0)
    assert detail(log).execution.status == "success"


# -- steps -------------------------------------------------------------------------------------------------------------


def test_step_without_an_end_has_its_last_state_while_the_writer_lives(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("step.started", step_id="s2")
    log.put("step.state_changed", step_id="s2", state_from="running", state_to="PAUSED")
    log.put("step.state_changed", step_id="s3", state_to="pending")
    assert [step.status for step in while_running(log).steps] == ["running", "paused", "pending"]


def test_step_without_an_end_of_a_dead_writer_is_killed_and_tells_its_last_state(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("step.state_changed", step_id="s1", status="paused")
    (step,) = detail(log).steps
    assert (step.status, step.state) == ("killed", "paused")


def test_step_that_is_running_in_a_paused_execution_is_running(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("execution.state_changed", state_to="paused")
    found = while_running(log)
    assert (found.execution.status, found.steps[0].status) == ("paused", "running")


def test_step_that_started_again_is_open_again(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("step.failed", step_id="s1", status="failed", error_type="E", duration_seconds=0.5)
    log.put("step.started", step_id="s1", attempt=2)
    (step,) = detail(log).steps
    assert (step.status, step.duration_seconds, step.error_type, step.attempt) == ("killed", None, None, 2)


def test_step_has_what_its_lines_say(log: Log) -> None:
    log.start()
    said = {"attempt": 2, "max_retries": 3, "agent_name": "writer"}
    log.put("step.started", step_id="s1", depends_on=["s0", 7], inputs={"topic": "x"}, **said)
    log.put("step.completed", step_id="s1", outputs="y")
    (step,) = detail(log).steps
    assert {name: getattr(step, name) for name in said} == said
    assert (step.depends_on, step.inputs, step.outputs) == (["s0", "7"], {"topic": "x"}, "y")


def test_change_of_a_steps_state_does_not_make_it_two(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("step.state_changed", step_id="s1", state_to="failed")
    log.put("step.completed", step_id="s1")
    log.end()
    found = detail(log)
    assert (found.execution.steps, len(found.steps), found.complete) == (1, 1, True)


def test_start_of_a_step_told_twice_does_not_make_it_two(log: Log) -> None:
    log.start()
    for _ in range(2):
        log.put("step.started", step_id="s1")
    found = detail(log)
    assert (found.execution.steps, len(found.steps)) == (1, 1)


# -- files -------------------------------------------------------------------------------------------------------------


def test_file_of_a_typed_line(log: Log) -> None:
    fields = {"operation": "save", "file_path": "out.json", "status": "success", "file_size_bytes": 12}
    at = log.put("file.operation", validation_status="passed", attempt=2, error_type="E", **fields)
    (use,) = detail(log).files
    assert {name: getattr(use, name) for name in fields} == fields
    assert (use.validation_status, use.attempt, use.error_type) == ("passed", 2, "E")
    assert (use.timestamp, use.event) == (at, "file.operation")


def test_files_of_plain_lines(log: Log) -> None:
    log.put(message="File operation: save", operation="save", file_path="out.json", status="success")
    log.put(message="JSON file validated", file_path="in.json", file_size_bytes=7, validation_status="success")
    log.put(message="Crew validation successful", output_file="result.json", file_size_bytes=9)
    found = [(use.file_path, use.operation, use.status, use.file_size_bytes, use.event) for use in detail(log).files]
    assert found == [
        ("out.json", "save", "success", None, "log"),
        ("in.json", None, None, 7, "log"),
        ("result.json", None, None, 9, "log"),
    ]


def test_path_on_a_line_about_something_else_is_no_file(log: Log) -> None:
    log.start(file_path="crew.yaml")
    log.put("tool.call.completed", tool_name="read", file_path="in.json")
    assert detail(log).files == []


# -- retries -----------------------------------------------------------------------------------------------------------


def retries(log: Log) -> list[tuple[str, str | None, int | None]]:
    return [(retry.what, retry.name, retry.attempt) for retry in detail(log).retries]


def test_retries_of_every_kind_are_listed(log: Log) -> None:
    log.start(attempt=2)
    log.put("step.started", step_id="s1", step_name="write", attempt=2)
    log.put("llm.call.retried", model_name="gpt", attempt=1)
    log.put("llm.call.rate_limited", model_name="gpt")
    log.put("tool.call.failed", tool_name="search", attempt=2)
    log.put("file.operation", operation="save", file_path="out.json", status="success", attempt=3)
    assert retries(log) == [
        ("execution", None, 2),
        ("step", "write", 2),
        ("llm call", "gpt", 1),
        ("llm call", "gpt", None),
        ("tool", "search", 2),
        ("file", "out.json", 3),
    ]


def test_retries_that_count_are_those_of_executions_steps_and_calls(log: Log) -> None:
    log.put(attempt=2)
    log.start(attempt=2)
    log.start(attempt=3)
    log.put(attempt=4)
    log.put("step.started", step_id="s1", attempt=2)
    log.put("llm.call.retried", attempt=1)
    log.put("tool.call.failed", attempt=2)
    log.put(file_path="out.json", attempt=2)
    log.put("error.recovered", error_type="E", recovery_action="retry", attempt=2)
    found = detail(log)
    counted = [retry for retry in found.retries if retry.what in ("execution", "step", "llm call")]
    assert (len(counted), found.execution.retries) == (5, 5)


def test_retry_tells_what_its_line_does(log: Log) -> None:
    at = log.put(attempt=2, max_retries=3, error_type="E", recovery_action="wait")
    (retry,) = detail(log).retries
    assert (retry.timestamp, retry.max_retries, retry.error_type, retry.recovery_action) == (at, 3, "E", "wait")


def test_recovered_error_is_listed(log: Log) -> None:
    log.put("error.recovered", error_type="E", recovery_action="used the cache")
    log.put(message="Fell back", recovery_action="smaller model")
    assert [(retry.what, retry.recovery_action) for retry in detail(log).retries] == [
        ("error", "used the cache"),
        ("error", "smaller model"),
    ]


# -- configuration -----------------------------------------------------------------------------------------------------


def test_settings_of_typed_and_plain_lines(log: Log) -> None:
    log.put("llm.configured", model_name="gpt", temperature=0.5)
    log.put("config.changed", parameters_changed=["top_p"])
    log.put(message="LLM configuration", model_name="gpt", model=None, temperature=0.2, max_tokens=9, stream=False)
    log.put(message="LLM configuration override applied", override_model="gpt-5", output_alias=None)
    found = [(setting.event, setting.message, setting.values) for setting in detail(log).configuration]
    assert found == [
        ("llm.configured", "llm.configured", {"model_name": "gpt", "temperature": 0.5}),
        ("config.changed", "config.changed", {"parameters_changed": ["top_p"]}),
        (
            "log",
            "LLM configuration",
            {"model_name": "gpt", "temperature": 0.2, "max_tokens": 9, "stream": False},
        ),
        ("log", "LLM configuration override applied", {"override_model": "gpt-5"}),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.2},
        {"temperature": 0.2, "max_tokens": 9, "duration_seconds": 1.0},
        {"temperature": 0.2, "max_tokens": 9, "total_tokens": 5},
    ],
)
def test_plain_line_about_a_call_is_no_setting(log: Log, fields: dict[str, float]) -> None:
    log.put(message="Asking the model", model_name="gpt", **fields)
    assert detail(log).configuration == []


@pytest.mark.parametrize(
    "event",
    ["metrics.execution", "tool.call.failed", "error.raised", "config.changed", "llm.configured", "sample.host"],
)
def test_event_about_a_part_neither_ends_nor_starts_an_execution(log: Log, event: str) -> None:
    log.put(event, status="failed", state_to="failed", duration_seconds=1.0, error_type="E")
    found = detail(log)
    assert (found.execution.status, [state.state_to for state in found.states]) == ("killed", ["running"])
