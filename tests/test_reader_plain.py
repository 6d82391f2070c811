"""Executions that are told by plain lines alone, as programs write them with the standard library's `logging`."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import START, Log

from amsha_async_log import reader


class Plain(Log):
    """The lines that a crew's program writes."""

    def say(self, message: str, *, level: str = "INFO", **fields: Any) -> float:
        """A plain line of the execution `e1`; returns its time."""
        self.write("log", message, level=level, execution_id="e1", **fields)
        return self.time

    def initiated(self, **fields: Any) -> float:
        return self.say("Crew execution initiated", crew_name="crew", inputs={"topic": "x"}, mode="async", **fields)

    def completed(self, **fields: Any) -> float:
        tokens = {"total_tokens": 2500, "prompt_tokens": 2000, "completion_tokens": 500}
        resources = {"cpu_percent": 12.5, "memory_mb": 45.2}
        return self.say("Crew execution completed", duration_seconds=5.0, **tokens, **resources, **fields)

    def failed(self, attempt: int | None = 1, **fields: Any) -> float:
        numbers = {} if attempt is None else {"attempt": attempt, "max_retries": 3}
        error = {"error_type": "ValueError", "error_message": "no", **numbers, **fields}
        return self.say("Crew execution failed", level="ERROR", crew_name="crew", **error)

    def metrics(self, **changed: Any) -> float:
        fields: dict[str, Any] = {
            "duration_seconds": 5.5,
            "total_tokens": 2500,
            "prompt_tokens": 2000,
            "completion_tokens": 500,
            "cpu_usage_percent": 40.0,
            "memory_change_mb": 3.0,
            "gpu_metrics": {"peak_gpu_memory_mb": 9000.0},
        }
        return self.say("Execution metrics captured", crew_name="crew", **{**fields, **changed})


@pytest.fixture
def log(tmp_path: Path) -> Plain:
    return Plain(tmp_path / "app.jsonl")


@pytest.fixture
def locked(log: Plain) -> Iterator[Plain]:
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield log


def detail(log: Log) -> reader.Detail:
    found = reader.detail("e1", log.path)
    assert found is not None
    return found


def states(log: Log) -> list[str | None]:
    return [state.state_to for state in detail(log).states]


def changes(log: Log) -> list[tuple[str | None, str | None]]:
    return [(state.state_from, state.state_to) for state in detail(log).states]


def status(log: Log) -> str:
    (execution,) = reader.executions(log.path)
    assert detail(log).execution.status == execution.status
    return execution.status


# -- states ------------------------------------------------------------------------------------------------------------


def test_first_line_is_running_and_the_duration_completes(log: Plain) -> None:
    began, ended = log.initiated(), log.completed()
    assert [(state.timestamp, state.event, state.state_to) for state in detail(log).states] == [
        (began, "log", "running"),
        (ended, "log", "completed"),
    ]
    assert status(log) == "completed"


def test_error_type_fails(log: Plain) -> None:
    log.initiated()
    log.failed()
    assert (changes(log), status(log)) == ([(None, "running"), ("running", "failed")], "failed")


def test_first_line_may_be_about_an_operation(log: Plain) -> None:
    began = log.say("build started", operation="build", function="f")
    log.say("build completed", operation="build", duration_seconds=0.1, status="success")
    assert [(state.timestamp, state.state_to) for state in detail(log).states] == [(began, "running")]


def test_first_line_that_tells_a_state_is_that_state(log: Plain) -> None:
    log.say("Queued", status="pending")
    assert states(log) == ["pending"]


def test_explicit_transitions_are_told_in_lower_case(log: Plain) -> None:
    log.say("State", state_from="PENDING", state_to="RUNNING")
    log.say("State", state_from="RUNNING", state_to="PAUSED")
    log.say("State", state_from="PAUSED", state_to="RUNNING")
    log.say("State", state_from="RUNNING", state_to="COMPLETED")
    assert changes(log) == [
        ("pending", "running"),
        ("running", "paused"),
        ("paused", "running"),
        ("running", "completed"),
    ]
    assert status(log) == "completed"


def test_explicit_state_goes_before_the_status(log: Plain) -> None:
    log.say("Checked", state_to="RUNNING", status="success")
    assert (states(log), status(log)) == (["running"], "killed")


def test_start_that_was_only_assumed_takes_the_state_it_came_from(log: Plain) -> None:
    log.initiated()
    log.say("State", state_from="PENDING", state_to="RUNNING")
    assert changes(log) == [("pending", "running")]


def test_state_that_comes_from_another_than_the_last_is_kept(log: Plain) -> None:
    log.say("State", state_from="PENDING", state_to="RUNNING")
    log.say("State", state_from="PAUSED", state_to="RUNNING")
    assert changes(log) == [("pending", "running"), ("paused", "running")]


def test_state_of_the_programs_own_is_shown_and_ends_nothing(log: Plain) -> None:
    log.initiated()
    log.completed()
    log.say("State", state_to="Reviewing")
    assert (states(log), status(log)) == (["running", "completed", "reviewing"], "killed")


@pytest.mark.parametrize("word", ["COMPLETED", "Failed", "CANCELLED", "SUCCESS", "Skipped"])
def test_status_in_any_case_is_understood(log: Plain, word: str) -> None:
    log.initiated()
    log.say("Over", status=word)
    assert (status(log), states(log)) == (word.lower(), ["running", word.lower()])


def test_status_of_something_else_is_no_state(log: Plain) -> None:
    log.initiated()
    log.say("Connected", status="200 OK")
    assert states(log) == ["running"]


def test_same_state_again_is_one(log: Plain) -> None:
    log.initiated(status="running")
    log.say("Working", status="RUNNING")
    log.failed()
    log.say("Given up", status="failed")
    assert states(log) == ["running", "failed"]


def test_lines_about_operations_files_and_steps_are_no_states(log: Plain) -> None:
    log.initiated()
    log.say("build failed", operation="build", status="failed", error_type="E", duration_seconds=1.0)
    log.say("JSON file invalid", file_path="out.json", validation_status="failed", error_type="E")
    log.say("Task failed", step_id="s1", status="failed", error_type="E")
    assert (states(log), status(log)) == (["running"], "killed")


def test_plain_lines_are_no_states_of_an_execution_with_lines_of_its_own(log: Plain) -> None:
    log.initiated()
    log.failed()
    log.start()
    log.failed()
    log.end()
    assert changes(log) == [(None, "running"), ("running", "completed")]


def test_last_plain_state_is_the_status_while_the_writer_lives(locked: Plain) -> None:
    locked.initiated()
    locked.say("Waiting for approval", state_to="PAUSED")
    assert status(locked) == "paused"


def test_pending_execution_of_a_living_writer_is_pending(locked: Plain) -> None:
    locked.say("Queued", status="PENDING")
    assert status(locked) == "pending"


def test_paused_execution_of_a_dead_writer_is_killed(log: Plain) -> None:
    log.initiated()
    log.say("Waiting for approval", state_to="paused")
    assert (status(log), states(log)) == ("killed", ["running", "paused"])


# -- attempts ----------------------------------------------------------------------------------------------------------


def test_completed_attempt_after_a_failed_one_is_the_end(log: Plain) -> None:
    log.initiated()
    log.failed()
    log.completed()
    assert (states(log), status(log)) == (["running", "failed", "completed"], "completed")


def test_attempt_that_begins_after_a_failed_one_is_open(log: Plain) -> None:
    log.initiated()
    log.failed(duration_seconds=2.0)
    log.initiated(attempt=2)
    (execution,) = reader.executions(log.path)
    assert (execution.status, execution.ended_at, execution.duration_seconds) == ("killed", None, None)
    assert states(log) == ["running", "failed", "running"]


def test_any_line_of_a_higher_attempt_after_a_failed_one_opens_it(log: Plain) -> None:
    log.initiated()
    log.failed()
    log.say("Trying a smaller model", attempt=2)
    assert (states(log), status(log)) == (["running", "failed", "running"], "killed")


def test_attempt_that_begins_with_the_same_words_is_open(log: Plain) -> None:
    log.initiated()
    log.failed(attempt=None)
    log.initiated()
    assert (states(log), status(log)) == (["running", "failed", "running"], "killed")


def test_other_lines_after_a_failure_leave_it_failed(log: Plain) -> None:
    log.initiated()
    log.failed(attempt=2)
    log.say("Cleaning up", attempt=2)
    assert status(log) == "failed"


def test_same_words_after_a_completed_execution_leave_it_completed(log: Plain) -> None:
    log.say("Thinking")
    log.completed()
    log.say("Thinking")
    assert status(log) == "completed"


def test_metrics_after_a_failure_leave_it_failed_and_tell_the_duration(log: Plain) -> None:
    log.initiated()
    ended = log.failed()
    log.metrics()
    (execution,) = reader.executions(log.path)
    assert (execution.status, execution.ended_at, execution.duration_seconds) == ("failed", ended, 5.5)


def test_metrics_alone_complete(log: Plain) -> None:
    log.metrics()
    assert status(log) == "completed"


def test_retries_are_the_attempts_above_one(log: Plain) -> None:
    for attempt in (1, 2, 3):
        log.initiated(attempt=attempt)
        log.say("Working", attempt=attempt)
        log.failed(attempt)
    assert detail(log).execution.retries == 2


def test_retry_that_typed_and_plain_lines_tell_is_one(log: Plain) -> None:
    log.initiated(attempt=2)
    log.start(attempt=2)
    log.failed(attempt=2)
    log.end("failed", attempt=2)
    assert detail(log).execution.retries == 1


def test_retry_that_only_the_end_tells_counts(log: Plain) -> None:
    log.end("failed", attempt=3)
    assert detail(log).execution.retries == 1


def test_attempts_of_operations_files_and_steps_are_not_those_of_the_execution(log: Plain) -> None:
    log.say("File operation: save", operation="save", file_path="out.json", status="success", attempt=2)
    log.say("JSON file validated", file_path="out.json", attempt=3)
    log.say("build started", operation="build", attempt=4)
    log.say("Task again", step_id="s1", attempt=5)
    log.put("file.operation", operation="save", file_path="out.json", status="success", attempt=6)
    assert detail(log).execution.retries == 0


# -- usage -------------------------------------------------------------------------------------------------------------


def test_everything_a_crew_told_is_in_the_list(log: Plain) -> None:
    began = log.initiated()
    log.say("LLM configuration", model_name="gpt-4o", model="azure/gpt-4o", temperature=0.2, top_p=1.0, stream=False)
    ended = log.completed()
    log.close()
    (execution,) = reader.executions(log.path)
    assert (execution.crew_name, execution.model_name, execution.status) == ("crew", "gpt-4o", "completed")
    assert (execution.started_at, execution.ended_at, execution.duration_seconds) == (began, ended, 5.0)
    assert (execution.prompt_tokens, execution.completion_tokens, execution.total_tokens) == (2000, 500, 2500)
    assert (execution.peak_memory_mb, execution.mean_cpu_percent) == (45.2, 12.5)
    assert detail(log).complete


def test_cpu_usage_counts_where_a_line_has_no_cpu_percent(log: Plain) -> None:
    log.completed(cpu_usage_percent=99.0)
    log.metrics(cpu_usage_percent=37.5)
    assert detail(log).execution.mean_cpu_percent == 25.0


def test_metrics_of_gpus_are_left_to_the_record(log: Plain) -> None:
    log.metrics()
    found = detail(log)
    assert found.execution.peak_gpu_memory_mb is None
    assert found.records[0]["gpu_metrics"] == {"peak_gpu_memory_mb": 9000.0}


def test_metrics_of_zeros_do_not_displace_what_is_known(log: Plain) -> None:
    log.completed(cost_usd=0.5)
    log.metrics(total_tokens=0, prompt_tokens=0, completion_tokens=0)
    found = detail(log).execution
    assert (found.total_tokens, found.prompt_tokens, found.cost_usd) == (2500, 2000, 0.5)


def test_tokens_without_a_total_are_added_up(log: Plain) -> None:
    log.say("Answered", completion_tokens=7)
    assert detail(log).execution.total_tokens == 7


def test_metrics_events_tell_the_tokens_and_end_nothing(log: Plain) -> None:
    log.initiated()
    log.put("metrics.execution", total_tokens=5, duration_seconds=1.0, status="completed", error_type="E")
    found = detail(log)
    assert (found.execution.status, found.execution.total_tokens) == ("killed", 5)
    assert [state.state_to for state in found.states] == ["running"]


# -- inputs and outputs ------------------------------------------------------------------------------------------------


def test_inputs_and_outputs_are_those_of_the_executions_lines(log: Plain) -> None:
    log.initiated()
    log.say("build started", operation="build", inputs="of an operation")
    log.put("tool.call.completed", tool_name="search", inputs="of a tool", outputs="of a tool")
    log.say("Task done", step_id="s1", outputs="of a step")
    log.completed(outputs={"title": "y"})
    log.metrics(inputs=None)
    found = detail(log).execution
    assert (found.inputs, found.outputs) == ({"topic": "x"}, {"title": "y"})


def test_inputs_of_its_own_kind_of_lines_go_before_those_of_plain_ones(log: Plain) -> None:
    log.start(inputs="typed")
    log.initiated()
    log.end()
    assert detail(log).execution.inputs == "typed"


# -- writers -----------------------------------------------------------------------------------------------------------


def test_execution_told_by_several_writers_is_one(log: Plain) -> None:
    log.initiated()
    other = Plain(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb", start=START + 5)
    other.failed()
    log.time = START + 10
    log.completed()
    (execution,) = reader.executions(log.path)
    assert (execution.status, states(log)) == ("completed", ["running", "failed", "completed"])
