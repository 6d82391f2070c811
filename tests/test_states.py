"""The state machine of executions and steps: which changes are possible, what they write, and what the rest becomes."""

import enum
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Lines, user_lines

from amsha_async_log import current_execution, reader
from amsha_async_log._context import CURRENT, ROOT
from amsha_async_log._pipeline import Log
from amsha_async_log._states import TRANSITIONS

ENDS = ("completed", "failed", "cancelled")
STATES = ("pending", "running", "paused", *ENDS)


def told(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["event"], line["level"], line.get("state_from"), line.get("state_to"), line.get("status")


def test_pause_and_going_on_are_told_with_both_states(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        assert run.set_state("paused")
        assert run.set_state("running")
    assert [told(line) for line in lines()] == [
        ("execution.started", "INFO", None, None, "running"),
        ("execution.state_changed", "INFO", "running", "paused", "paused"),
        ("execution.state_changed", "INFO", "paused", "running", "running"),
        ("execution.completed", "INFO", None, None, "completed"),
    ]


def test_step_tells_its_states_with_its_name(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run, run.step("task", "write") as step:
        step.set_state("paused", reason="waits for a human")
    changed = lines()[2]
    assert changed["event"] == "step.state_changed"
    assert (changed["step_kind"], changed["step_name"], changed["step_id"]) == ("task", "write", step.step_id)
    assert changed["reason"] == "waits for a human"


def test_run_that_is_only_made_is_pending_and_writes_nothing(log: Log, lines: Lines) -> None:
    assert log.execution("crew").state == "pending"
    assert lines() == []


def test_pending_is_told_once(log: Log, lines: Lines) -> None:
    run = log.execution("crew")
    assert run.set_state("pending")
    assert not run.set_state("pending")
    assert [told(line) for line in lines()] == [("execution.state_changed", "INFO", None, "pending", "pending")]


def test_run_told_by_callbacks_starts_and_ends_without_a_block(log: Log, lines: Lines) -> None:
    run = log.execution("crew", execution_id="e1", inputs={"topic": "x"})
    assert run.set_state("running")
    run.set_outputs({"n": 1})
    assert run.set_state("completed", note="by callback")
    started, completed = lines()
    assert (started["event"], started["inputs"], started["execution_id"]) == ("execution.started", {"topic": "x"}, "e1")
    assert (completed["event"], completed["outputs"], completed["note"]) == (
        "execution.completed",
        {"n": 1},
        "by callback",
    )


def test_run_told_by_callbacks_does_not_enter_the_context(log: Log) -> None:
    run = log.execution("crew")
    run.set_state("running")
    assert current_execution() is None
    run.set_state("completed")


def test_block_around_a_run_that_runs_already_starts_it_once(log: Log, lines: Lines) -> None:
    run = log.execution("crew")
    run.set_state("running")
    with run:
        log.info("inside")
    assert [line["event"] for line in lines()] == ["execution.started", "log", "execution.completed"]


@pytest.mark.parametrize("end", ENDS)
def test_end_told_inside_the_block_is_the_end(log: Log, lines: Lines, end: str) -> None:
    with log.execution("crew") as run:
        run.set_state(end)
        log.info("after the end")
    assert [line["event"] for line in lines()] == ["execution.started", f"execution.{end}", "log"]


def test_failure_told_while_an_exception_is_handled_has_its_stack(log: Log, lines: Lines) -> None:
    with pytest.raises(ValueError, match="why"), log.execution("crew") as run:
        try:
            raise ValueError("why")
        except ValueError:
            run.set_state("failed")
            raise
    started, failed = lines()
    assert (failed["event"], failed["error_type"], failed["error_message"]) == ("execution.failed", "ValueError", "why")
    assert failed["stacktrace"]["frames"][-1]["function"].startswith("test_failure_told")


def test_failure_told_with_an_exception_has_its_stack(log: Log, lines: Lines) -> None:
    run = log.execution("crew")
    run.set_state("running")
    run.set_state("failed", exc_info=KeyError("k"))
    assert lines()[1]["error_type"] == "KeyError"


def test_failure_told_without_an_exception_takes_type_and_message_as_fields(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        run.set_state("failed", error_type="GuardrailError", error_message="too long")
    failed = lines()[1]
    assert (failed["event"], failed["level"], failed["error_type"], failed["error_message"]) == (
        "execution.failed",
        "ERROR",
        "GuardrailError",
        "too long",
    )


def test_failure_told_of_the_last_attempt_is_critical(log: Log, lines: Lines) -> None:
    with log.execution("crew", attempt=3, max_retries=3) as run:
        run.set_state("failed")
    assert lines()[1]["level"] == "CRITICAL"


def test_impossible_change_is_a_warning_and_changes_nothing(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        pass
    assert not run.set_state("running")
    assert run.state == "completed"
    warning = lines()[-1]
    assert (warning["event"], warning["level"], warning["execution_id"]) == ("log", "WARNING", run.execution_id)
    assert warning["message"] == "execution cannot go from completed to running; it stays completed"
    assert (warning["state"], warning["requested_state"]) == ("completed", "running")


@pytest.mark.parametrize("state", ["done", "", None, 7, object(), ["running"]])
def test_state_there_is_not_is_a_warning(log: Log, lines: Lines, state: Any) -> None:
    with log.execution("crew") as run:
        assert not run.set_state(state)
        assert run.state == "running"
    assert [line["level"] for line in lines()] == ["INFO", "WARNING", "INFO"]


def test_state_whose_text_raises_is_a_warning(log: Log, lines: Lines) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    with log.execution("crew") as run:
        assert not run.set_state(Bad())
    assert lines()[1]["level"] == "WARNING"


class Mode(enum.Enum):
    PAUSED = "paused"
    RUNNING = 2


@pytest.mark.parametrize("state", ["PAUSED", "Paused", Mode.PAUSED])
def test_state_is_known_in_any_case_and_as_a_member_of_an_enumeration(log: Log, state: Any) -> None:
    with log.execution("crew") as run:
        assert run.set_state(state)
        assert run.state == "paused"
        assert run.set_state(Mode.RUNNING)


def test_exception_after_a_told_completion_is_a_warning_with_its_stack(log: Log, lines: Lines) -> None:
    with pytest.raises(ValueError), log.execution("crew") as run:
        run.set_state("completed")
        raise ValueError("late")
    warning = lines()[-1]
    assert (warning["level"], warning["error_type"], warning["error_message"]) == ("WARNING", "ValueError", "late")
    assert run.state == "completed"


def test_exception_after_a_told_failure_without_one_is_in_the_log(log: Log, lines: Lines) -> None:
    with pytest.raises(ValueError), log.execution("crew") as run:
        run.set_state("failed")
        raise ValueError("the reason")
    assert [(line["event"], line.get("error_message")) for line in lines()] == [
        ("execution.started", None),
        ("execution.failed", None),
        ("log", "the reason"),
    ]


def test_run_entered_after_its_end_is_a_warning_and_lines_inside_carry_it(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        pass
    with run:
        log.info("again")
    events = [(line["event"], line["level"], line["execution_id"]) for line in lines()]
    assert events[2:] == [("log", "WARNING", run.execution_id), ("log", "INFO", run.execution_id)]


def test_pending_run_can_be_cancelled_but_not_completed(log: Log, lines: Lines) -> None:
    first, second = log.execution("a"), log.execution("b")
    assert first.set_state("cancelled")
    assert not second.set_state("completed")
    assert [told(line)[:2] for line in lines()] == [("execution.cancelled", "INFO"), ("log", "WARNING")]


def test_paused_run_may_end(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        run.set_state("paused")
    assert lines()[-1]["event"] == "execution.completed"


def test_two_threads_that_end_a_run_write_one_end(log: Log, lines: Lines) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            run = log.execution("crew")
            run.set_state("running")
            barrier = threading.Barrier(2)

            def end(run: Any = run, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                run.set_state("completed")

            threads = [threading.Thread(target=end) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(line["event"] == "execution.completed" for line in lines()) == 100


def test_readers_give_the_state_of_a_run_without_an_end(log: Log, log_path: Path) -> None:
    with log.execution("crew") as run:
        run.set_state("paused")
        log.flush()
        (execution,) = reader.executions(log_path)
    assert execution.status == "paused"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from(STATES), max_size=12), step=st.booleans())
def test_any_sequence_of_changes_keeps_to_the_table(
    opened: Callable[..., Log], tmp_path: Path, moves: list[str], step: bool
) -> None:
    log = opened(tmp_path / "any.jsonl", level="DEBUG")
    execution = log.execution("crew")
    run: Any = execution.step("task", "t") if step else execution
    state = "created"
    expected: list[str] = []
    for move in moves:
        changes = move in TRANSITIONS[state]
        assert run.set_state(move) is changes
        if changes:
            state = move
            expected.append("INFO" if move != "failed" else "ERROR")
        elif move != state:
            expected.append("WARNING")
        assert run.state == ("pending" if state == "created" else state)
    assert log.close().ok
    seen = user_lines(tmp_path / "any.jsonl")
    (tmp_path / "any.jsonl").unlink()
    assert [line["level"] for line in seen] == expected
    assert CURRENT.get() is ROOT


def test_refused_change_is_no_state_to_readers(log: Log, log_path: Path) -> None:
    run = log.execution("crew", execution_id="e1")
    assert not run.set_state("completed")
    assert not run.set_state("nonsense")
    log.flush()
    (execution,) = reader.executions(log_path)
    assert execution.status == "running"


def exc_info() -> Any:
    try:
        raise ValueError("why")
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize("form", [1, 0])
def test_failure_takes_every_form_of_exc_info(log: Log, lines: Lines, form: int) -> None:
    info = exc_info()
    with log.execution("crew") as run:
        run.set_state("failed", exc_info=info if form else info[1])
    assert lines()[1]["error_message"] == "why"


def test_failure_told_twice_while_an_exception_is_handled_is_told_once(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        try:
            raise ValueError
        except ValueError:
            assert run.set_state("failed")
            assert not run.set_state("failed")
    assert [line["level"] for line in lines()] == ["INFO", "ERROR"]


def test_attempt_told_with_the_start_counts_as_a_retry(log: Log, log_path: Path) -> None:
    run = log.execution("crew")
    run.set_state("running", attempt=2)
    run.set_state("completed")
    log.flush()
    (execution,) = reader.executions(log_path)
    assert (execution.retries, run.summary().retries) == (1, 1)


# -- summary -----------------------------------------------------------------------------------------------------------


def test_summary_of_a_run_that_was_not_entered_knows_no_duration(log: Log) -> None:
    summary = log.execution("crew", execution_id="e1").summary()
    assert (summary.execution_id, summary.crew_name, summary.status) == ("e1", "crew", "pending")
    assert (summary.duration_seconds, summary.total_tokens, summary.cost_usd, summary.steps) == (None, None, None, 0)


def test_summary_says_the_duration_that_the_last_line_says(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        assert run.summary().status == "running"
    summary = run.summary()
    assert (summary.status, summary.duration_seconds) == ("completed", lines()[-1]["duration_seconds"])


def test_summary_adds_up_what_the_steps_recorded(log: Log) -> None:
    with log.execution("crew") as run:
        run.record_tokens(1, 2, 0.5)
        with run.step("task", "a") as step:
            step.record_tokens(10, 20)
            with step.step("llm", "b", attempt=2) as inner:
                inner.record_tokens(100, cost_usd=0.25)
    summary = run.summary()
    assert (summary.prompt_tokens, summary.completion_tokens, summary.total_tokens) == (111, 22, 133)
    assert (summary.cost_usd, summary.steps, summary.retries, summary.llm_calls) == (0.75, 2, 1, 0)


def test_summary_has_peak_memory(log: Log) -> None:
    with log.execution("crew") as run:
        pass
    peak = run.summary().peak_memory_mb
    assert peak is not None
    assert 1 < peak < 100_000


def usage_of(path: Path, run: Any) -> tuple[Any, ...]:
    """The same facts from the live summary and from the files."""
    (execution,) = reader.executions(path)
    names = (
        "status",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cost_usd",
        "steps",
        "llm_calls",
        "retries",
    )
    summary = run.summary()
    return tuple(getattr(summary, name) for name in names), tuple(getattr(execution, name) for name in names)


AMOUNT = st.integers(0, 10_000)
COST = st.none() | st.integers(0, 1000).map(lambda n: n / 8)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), AMOUNT, AMOUNT, COST),
        st.tuples(st.just("step"), st.none() | st.integers(1, 3), AMOUNT, COST),
        st.tuples(st.just("call"), AMOUNT, AMOUNT, COST),
        st.tuples(st.just("retried")),
        st.tuples(st.just("limited")),
        st.tuples(st.just("metrics"), AMOUNT, AMOUNT, COST),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_summary_agrees_with_what_readers_make_of_the_files(
    opened: Callable[..., Log], tmp_path: Path, actions: list[Any]
) -> None:
    from amsha_async_log import events

    path = tmp_path / "usage.jsonl"
    log = opened(path)
    with log.execution("crew") as run:
        for kind, *values in actions:
            if kind == "record":
                run.record_tokens(*values)
            elif kind == "step":
                attempt, prompt, cost = values
                fields = {} if attempt is None else {"attempt": attempt}
                with run.step("task", "t", **fields) as step:
                    step.record_tokens(prompt, cost_usd=cost)
            elif kind == "call":
                prompt, completion, cost = values
                log.emit(events.LlmCallCompleted(prompt_tokens=prompt, completion_tokens=completion, cost_usd=cost))
            elif kind == "retried":
                log.emit(events.LlmCallRetried(error_type="E"))
            elif kind == "limited":
                log.emit(events.LlmCallRateLimited())
            else:
                prompt, completion, cost = values
                log.emit(events.MetricsExecution(prompt_tokens=prompt, completion_tokens=completion, cost_usd=cost))
    assert log.close().ok
    live, read = usage_of(path, run)
    path.unlink()
    assert live == read


def test_calls_counted_are_those_of_every_form_of_emit(log: Log) -> None:
    from amsha_async_log import events

    event = events.LlmCallCompleted(prompt_tokens=1, completion_tokens=2)
    with log.execution("crew") as run:
        log.emit(event)
        log.emit(event)
        log.emit(event, note="field", prompt_tokens=1)
        log.emit(events.LlmCallCompleted(prompt_tokens=50), prompt_tokens=1, completion_tokens=2)
        log.emit(event, level="ERROR")
        log.bind(tenant="t").emit(event)
        with run.step("task", "t"):
            log.emit(event)
    assert (run.summary().llm_calls, run.summary().total_tokens) == (7, 21)


def test_tokens_recorded_by_many_threads_add_up(log: Log, lines: Lines) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with log.execution("crew") as run:
            threads = [
                threading.Thread(target=lambda: [run.record_tokens(1, 2, 0.5) for _ in range(2000)]) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    last = lines()[-1]
    assert (last["prompt_tokens"], last["completion_tokens"], last["total_tokens"]) == (8000, 16000, 24000)
    assert (last["cost_usd"], run.summary().total_tokens) == (4000.0, 24000)


def test_cached_and_reasoning_tokens_are_reported(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        run.record_tokens(100, 50, cached_tokens=80, reasoning_tokens=20)
        run.record_tokens(100, 50, cached_tokens=10)
    last = lines()[-1]
    assert (last["cached_tokens"], last["reasoning_tokens"], last["total_tokens"]) == (90, 20, 300)
