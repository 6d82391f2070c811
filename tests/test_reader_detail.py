"""Everything about one execution, from lines made by hand."""

from pathlib import Path

import pytest
from handmade import START, Log

from amsha_async_log import reader


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.jsonl")


def detail(log: Log, execution_id: str = "e1") -> reader.Detail:
    found = reader.detail(execution_id, log.path)
    assert found is not None
    return found


def test_unknown_execution_is_none(log: Log) -> None:
    log.start()
    assert reader.detail("e2", log.path) is None


def test_execution_is_as_in_the_list_with_inputs_and_outputs(log: Log) -> None:
    log.start(inputs={"topic": "x"})
    log.put(outputs="of a step", step_id="s1")
    log.end(outputs=[1, 2])
    found = detail(log).execution
    (listed,) = reader.executions(log.path)
    assert {name: getattr(found, name) for name in listed.__struct_fields__} == {
        name: getattr(listed, name) for name in listed.__struct_fields__
    }
    assert (found.inputs, found.outputs) == ({"topic": "x"}, [1, 2])


def test_records_are_all_lines_of_the_execution_in_order(log: Log) -> None:
    log.start()
    log.start("other")
    for number in range(5):
        log.put(number=number)
    log.end(execution_id="other")
    log.end()
    found = detail(log)
    assert [record.get("number") for record in found.records] == [None, 0, 1, 2, 3, 4, None]
    assert found.last_activity == log.time


def test_states_follow_the_lifecycle(log: Log) -> None:
    log.start()
    log.put("execution.state_changed", state_from="running", state_to="paused", status="paused")
    log.put("execution.state_changed", state_to="running", status="running")
    log.end("failed")
    changes = [(state.state_from, state.state_to) for state in detail(log).states]
    assert changes == [(None, "running"), ("running", "paused"), ("paused", "running"), ("running", "failed")]


def test_steps_come_with_their_parents_and_ends(log: Log) -> None:
    log.start()
    began = log.put("step.started", step_id="s1", step_kind="task", step_name="write")
    log.put("step.started", step_id="s2", step_kind="tool", step_name="search", parent_step_id="s1")
    log.put("step.failed", step_id="s2", status="failed", duration_seconds=0.2, error_type="ValueError")
    log.put("step.completed", step_id="s1", status="completed", duration_seconds=0.3)
    log.end()
    first, second = detail(log).steps
    assert (first.step_id, first.parent_step_id, first.kind, first.name) == ("s1", None, "task", "write")
    assert (first.status, first.started_at, first.duration_seconds, first.error_type) == ("completed", began, 0.3, None)
    assert (second.parent_step_id, second.status, second.error_type) == ("s1", "failed", "ValueError")


def test_step_without_an_end_is_killed_with_its_execution(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    assert [step.status for step in detail(log).steps] == ["killed"]


def test_step_without_a_start_is_placed_by_its_duration(log: Log) -> None:
    log.start()
    ended = log.put("step.completed", step_id="s1", status="completed", duration_seconds=0.25)
    assert detail(log).steps[0].started_at == pytest.approx(ended - 0.25)


def test_execution_with_start_end_and_everything_between_is_complete(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.put("step.completed", step_id="s1")
    log.end()
    assert detail(log).complete


def test_plain_execution_with_an_end_is_complete(log: Log) -> None:
    log.put()
    log.put(status="success")
    assert detail(log).complete


def test_execution_without_an_end_is_not_complete(log: Log) -> None:
    log.start()
    assert not detail(log).complete


def test_execution_without_its_start_is_not_complete(log: Log) -> None:
    log.end()
    assert not detail(log).complete


def test_execution_with_losses_is_not_complete(log: Log) -> None:
    log.start()
    log.lose(1)
    log.end()
    assert not detail(log).complete


def test_execution_with_a_gap_is_not_complete(log: Log) -> None:
    log.start()
    log.line()
    log.end()
    assert not detail(log).complete


def test_execution_with_a_step_that_never_ended_is_not_complete(log: Log) -> None:
    log.start()
    log.put("step.started", step_id="s1")
    log.end()
    found = detail(log)
    assert (found.complete, found.steps[0].status) == (False, "unknown")


def test_execution_over_several_writers_is_one(log: Log) -> None:
    log.start()
    other = Log(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb", start=START + 5)
    other.put(message="from another process")
    log.time = START + 10
    log.end()
    found = detail(log)
    assert [record["writer"][0] for record in found.records] == ["a", "b", "a"]
    assert found.complete
