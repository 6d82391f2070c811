"""Lines of newer and older writers, and of programs with other ideas about types, are read as far as they go."""

import fcntl
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from handmade import START, Log
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log import cli, reader


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.jsonl")


def detail(log: Log) -> reader.Detail:
    found = reader.detail("e1", log.path)
    assert found is not None
    return found


# -- a newer writer ----------------------------------------------------------------------------------------------------


def test_newer_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    header = {"event": "log.segment_opened", "writer": "w", "seq": 1, "timestamp": START, "schema_version": 2}
    lines = [
        {**header, "host": ["a", "b"], "sealed_by": {"key": 1}},
        {
            "event": "execution.started",
            "writer": "w",
            "seq": 2,
            "timestamp": START + 1,
            "execution_id": "e1",
            "lanes": 3,
        },
        {"event": "execution.completed", "writer": "w", "seq": 3, "timestamp": START + 2, "execution_id": "e1"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (execution,) = reader.executions(path)
    assert (execution.status, execution.duration_seconds) == ("completed", 1.0)


def test_unknown_events_of_executions_and_steps_say_only_what_they_say_outright(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("execution.checkpointed", status="success", duration_seconds=0.1)
    log.put("step.checkpointed", step_id="s1", status="success", duration_seconds=0.1)
    log.put("execution.suspended", state_to="paused")
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = detail(log)
    assert (found.execution.status, found.execution.steps) == ("paused", 1)
    assert [state.state_to for state in found.states] == ["running", "paused"]
    assert [(step.status, step.duration_seconds) for step in found.steps] == [("running", None)]


def test_unknown_event_of_a_step_does_not_end_it(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("step.checkpointed", step_id="s1", total_tokens=5)
    log.put("step.completed", step_id="s1", total_tokens=7)
    log.end()
    execution = detail(log).execution
    assert (execution.steps, execution.total_tokens) == (1, 7)


def test_execution_of_unknown_events_alone_has_no_states(log: Log) -> None:
    log.put("execution.checkpointed")
    found = detail(log)
    assert (found.execution.status, found.states) == ("killed", [])


def test_unknown_family_of_events_is_read_as_plain_lines_are(log: Log) -> None:
    log.put("foo.bar", status="success", file_path="out.json")
    log.put("foo.bar", status="success")
    found = detail(log)
    assert (found.execution.status, len(found.files)) == ("success", 1)


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"total_tokens": "12"}, "total_tokens", None),
        ({"attempt": True}, "retries", 0),
        ({"depends_on": "x"}, "depends_on", []),
        ({"depends_on": ["x", 3]}, "depends_on", ["x", "3"]),
        ({"parent_execution_id": 12}, "parent_execution_id", "12"),
        ({"parent_execution_id": {"id": 12}}, "parent_execution_id", None),
        ({"crew_name": ["a"]}, "crew_name", None),
        ({"memory_mb": "lots"}, "peak_memory_mb", None),
        ({"cpu_percent": [1, 2]}, "mean_cpu_percent", None),
        ({"message": {"text": "x"}, "model_name": "gpt"}, "model_name", "gpt"),
    ],
)
def test_known_key_of_another_type_costs_itself_alone(
    log: Log, fields: dict[str, Any], name: str, value: object
) -> None:
    log.append(json.dumps({"event": "execution.started", "execution_id": "e1", **fields}).encode() + b"\n")
    log.write("execution.completed", execution_id="e1", total_tokens=None)
    execution = detail(log).execution
    assert (execution.status, getattr(execution, name)) == ("completed", value)


def test_execution_id_that_is_a_number_is_found_by_its_digits(log: Log) -> None:
    log.put(execution_id=12, status="success")  # type: ignore[arg-type]
    found = reader.detail("12", log.path)
    assert found is not None
    assert found.execution.status == "success"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 5000])
def test_number_that_no_float_holds_costs_itself_alone(log: Log, number: str) -> None:
    log.start()
    line = f'{{"event":"execution.completed","execution_id":"e1","cost_usd":{number},"total_tokens":{number}}}\n'
    log.append(line.encode())
    execution = detail(log).execution
    assert (execution.cost_usd, execution.total_tokens) == (None, None)


def test_sum_that_no_float_holds_is_unknown(log: Log) -> None:
    for _ in range(2):
        log.put("llm.call.completed", prompt_tokens=1e308, total_tokens=1e308)
    assert detail(log).execution.total_tokens is None


# -- an older writer ---------------------------------------------------------------------------------------------------


def test_lines_without_most_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    events = [
        "execution.started",
        "step.started",
        "step.failed",
        "file.operation",
        "llm.call.retried",
        "config.changed",
    ]
    lines = [
        {"event": event, "execution_id": "e1"} for event in [*events, "execution.state_changed", "execution.failed"]
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = reader.detail("e1", path)
    assert found is not None
    assert (found.execution.status, found.execution.retries, len(found.files)) == ("failed", 1, 1)
    assert [state.state_to for state in found.states] == ["running", "failed"]


def test_start_without_a_status_is_running(log: Log) -> None:
    log.put("execution.started")
    log.put("step.started", step_id="s1")
    assert [state.state_to for state in detail(log).states] == ["running"]


def test_step_of_an_older_writer_has_no_new_things(log: Log) -> None:
    log.start()
    log.put("step.completed", step_id="s1")
    (step,) = detail(log).steps
    assert (step.status, step.depends_on, step.attempt, step.inputs) == ("completed", [], None, None)


# -- anything ----------------------------------------------------------------------------------------------------------

EVENTS = st.sampled_from(
    "log execution.started execution.state_changed execution.completed execution.failed execution.odd step.started "
    "step.state_changed step.failed step.odd llm.call.completed llm.call.retried llm.configured tool.call.failed "
    "file.operation error.recovered config.changed metrics.execution sample.process sample.gpu log.dropped "
    "log.segment_opened foo.bar Own".split()
)
NAMES = st.sampled_from(
    "timestamp level logger message writer seq crew_name parent_execution_id depends_on operation status state_from "
    "state_to attempt max_retries duration_seconds error_type step_id parent_step_id step_kind step_name prompt_tokens "
    "total_tokens cost_usd cpu_percent cpu_usage_percent memory_mb gpu_memory_mb file_path file_size_bytes output_file "
    "validation_status recovery_action agent_name tool_name inputs outputs temperature max_tokens parameters_changed "
    "stacktrace count totals first_time host boot_id error_message model_name other".split()
)
WORDS = st.sampled_from(["running", "PAUSED", "COMPLETED", "failed", "pending", "", "odd"])
NUMBERS = st.integers() | st.integers(-3, 4) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
LINES = st.builds(
    lambda event, fields, execution_id: {"event": event, **fields, "execution_id": execution_id},
    EVENTS | VALUES,
    st.dictionaries(NAMES, VALUES | WORDS, max_size=8),
    st.just("e1") | VALUES,
)


def strict_json(value: object) -> bytes:
    """NaN and infinities as the numbers without bounds that JSON has in their place."""
    return json.dumps(value).replace("NaN", "1e999").replace("Infinity", "1e999").encode()


@settings(max_examples=120, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=8))
def test_no_line_whatsoever_fails_a_command(lines: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "app.jsonl"
        path.write_bytes(b"".join(strict_json(line) + b"\n" for line in [*lines, {"execution_id": "e1"}]))
        executions = {execution.execution_id: execution for execution in reader.executions(path)}
        found = reader.detail("e1", path)
        assert found is not None
        assert {key: getattr(found.execution, key) for key in executions["e1"].__struct_fields__} == {
            key: getattr(executions["e1"], key) for key in executions["e1"].__struct_fields__
        }
        counted = [retry for retry in found.retries if retry.what in ("execution", "step", "llm call")]
        assert len(counted) == found.execution.retries
        for arguments in (["ls"], ["ls", "--json"], ["show", "e1"], ["show", "e1", "--json"]):
            assert cli.run([*arguments, str(path)]) == 0
