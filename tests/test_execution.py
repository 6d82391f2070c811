"""Executions and steps: their lines, their ids, and that what is logged inside carries them and nothing else does."""

import asyncio
import contextvars
import gc
import re
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Lines, user_fields, user_lines

from amsha_async_log import current_execution, reader
from amsha_async_log._context import CURRENT, ROOT, uuid7
from amsha_async_log._pipeline import Log

LIFECYCLE = ("execution.", "step.")


@pytest.fixture(autouse=True)
def _no_scope_left_behind() -> Iterator[None]:
    """A test begins and ends outside of any execution."""
    token = CURRENT.set(ROOT)
    yield
    left = CURRENT.get()
    CURRENT.reset(token)
    assert left is ROOT, left.fields


def fail() -> NoReturn:
    raise ValueError("why")


# -- the lines of an execution -----------------------------------------------------------------------------------------


def test_execution_that_ends_well_writes_started_and_completed(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        pass
    started, completed = lines()
    assert (started["event"], started["level"]) == ("execution.started", "INFO")
    assert user_fields(started) == {
        "execution_id": run.execution_id,
        "crew_name": "crew",
        "status": "running",
        "trace_id": run.trace_id,
    }
    assert (completed["event"], completed["level"]) == ("execution.completed", "INFO")
    duration = completed.pop("duration_seconds")
    assert 0 <= duration < 60
    assert user_fields(completed) == {"execution_id": run.execution_id, "crew_name": "crew", "status": "completed"}


def test_execution_line_has_what_was_given(log: Log, lines: Lines) -> None:
    with log.execution(
        "crew",
        execution_id="e1",
        parent_execution_id="e0",
        depends_on=["a", "b"],
        inputs={"topic": "x"},
        attempt=2,
        max_retries=3,
        model_name="m",
        temperature=0.5,
    ) as run:
        pass
    started, completed = lines()
    assert user_fields(started) == {
        "execution_id": "e1",
        "crew_name": "crew",
        "parent_execution_id": "e0",
        "depends_on": ["a", "b"],
        "inputs": {"topic": "x"},
        "attempt": 2,
        "max_retries": 3,
        "model_name": "m",
        "temperature": 0.5,
        "status": "running",
        "trace_id": run.trace_id,
    }
    assert (completed["model_name"], completed["temperature"]) == ("m", 0.5)


def test_failed_execution_has_the_exception_and_its_frames(log: Log, lines: Lines) -> None:
    with pytest.raises(ValueError, match="why"), log.execution("crew"):
        fail()
    failed = lines()[1]
    assert (failed["event"], failed["level"], failed["status"]) == ("execution.failed", "ERROR", "failed")
    assert (failed["error_type"], failed["error_message"]) == ("ValueError", "why")
    assert failed["stacktrace"]["frames"][-1]["code"] == 'raise ValueError("why")'
    assert failed["duration_seconds"] >= 0


@pytest.mark.parametrize(
    ("attempt", "max_retries", "level"),
    [(1, None, "ERROR"), (1, 0, "ERROR"), (1, 3, "ERROR"), (2, 3, "ERROR"), (3, 3, "CRITICAL"), (4, 3, "CRITICAL")],
)
def test_failure_is_critical_once_the_attempts_are_exhausted(
    log: Log, lines: Lines, attempt: int, max_retries: int | None, level: str
) -> None:
    with pytest.raises(ValueError, match="why"), log.execution("crew", attempt=attempt, max_retries=max_retries):
        fail()
    failed = lines()[1]
    assert failed["level"] == level
    assert (failed.get("attempt", 1), failed.get("max_retries")) == (attempt, max_retries)


def test_step_failure_is_critical_once_its_attempts_are_exhausted(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        for attempt in (1, 2):
            with pytest.raises(ValueError, match="why"), run.step("task", "t", attempt=attempt, max_retries=2):
                fail()
    assert [line["level"] for line in lines() if line["event"] == "step.failed"] == ["ERROR", "CRITICAL"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_cancellation_interrupt_and_exit_are_no_failures(log: Log, lines: Lines, error: type[BaseException]) -> None:
    with pytest.raises(error), log.execution("crew") as run, run.step("task", "t"):
        raise error
    step, execution = lines()[2:]
    assert [line["event"] for line in (step, execution)] == ["step.cancelled", "execution.cancelled"]
    for line in (step, execution):
        assert (line["level"], line["status"], line["error_type"]) == ("INFO", "cancelled", error.__name__)
        assert line["duration_seconds"] >= 0
        assert "stacktrace" not in line


@pytest.mark.parametrize(
    ("group", "status"),
    [
        (ExceptionGroup("g", [ValueError("v")]), "failed"),
        (BaseExceptionGroup("g", [asyncio.CancelledError(), ValueError("v")]), "failed"),
        (BaseExceptionGroup("g", [BaseExceptionGroup("i", [SystemExit(), ValueError()])]), "failed"),
        (BaseExceptionGroup("g", [asyncio.CancelledError(), KeyboardInterrupt()]), "cancelled"),
    ],
    ids=["failure", "mixed", "nested", "cancellations"],
)
def test_group_is_a_failure_if_it_holds_one(
    log: Log, lines: Lines, group: BaseExceptionGroup[Any], status: str
) -> None:
    with pytest.raises(BaseExceptionGroup), log.execution("crew"):
        raise group
    assert lines()[1]["status"] == status


def test_task_group_failure_is_shown_with_what_failed_inside(log: Log, lines: Lines) -> None:
    async def crew() -> None:
        async with log.execution("crew"), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(agent())

    async def agent() -> None:
        fail()

    with pytest.raises(ExceptionGroup):
        asyncio.run(crew())
    failed = lines()[1]
    assert failed["error_type"] == "ExceptionGroup"
    assert failed["stacktrace"]["exceptions"][0]["message"] == "why"


def test_async_execution_writes_the_same_lines(log: Log, lines: Lines) -> None:
    async def crew() -> None:
        async with log.execution("crew") as run, run.step("task", "t"):
            await asyncio.sleep(0)
            log.info("inside")

    asyncio.run(crew())
    assert [line["event"] for line in lines()] == [
        "execution.started",
        "step.started",
        "log",
        "step.completed",
        "execution.completed",
    ]


def test_duration_spans_the_block(log: Log, lines: Lines) -> None:
    before = time.monotonic()
    with log.execution("crew"):
        while time.monotonic() < before + 0.02:
            pass
    spent = time.monotonic() - before
    assert 0.015 < lines()[1]["duration_seconds"] <= spent


def test_execution_below_the_level_writes_nothing_but_its_failure(opened: Callable[..., Log], log_path: Path) -> None:
    with opened(level="ERROR") as log, pytest.raises(ValueError, match="why"), log.execution("crew"):
        fail()
    assert [line["event"] for line in user_lines(log_path)] == ["execution.failed"]


# -- steps -------------------------------------------------------------------------------------------------------------


def test_step_has_kind_name_and_ids(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run, run.step("task", "summarise", agent_name="writer") as step:
        pass
    started, completed = lines()[1:3]
    expected = {
        "execution_id": run.execution_id,
        "crew_name": "crew",
        "step_id": step.step_id,
        "step_kind": "task",
        "step_name": "summarise",
        "agent_name": "writer",
    }
    assert user_fields(started) == {**expected, "status": "running"}
    completed.pop("duration_seconds")
    assert user_fields(completed) == {**expected, "status": "completed"}


def test_failed_step_has_the_exception(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        with pytest.raises(ValueError, match="why"), run.step("task", "t"):
            fail()
        log.info("the execution goes on")
    failed = lines()[2]
    assert (failed["event"], failed["level"], failed["error_type"]) == ("step.failed", "ERROR", "ValueError")
    assert failed["stacktrace"]["message"] == "why"


def test_steps_nest_by_being_entered(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run, run.step("task", "outer") as outer, run.step("agent", "inner") as inner:
        with inner.step("tool", "innermost"):
            pass
    parents = {line["step_name"]: line.get("parent_step_id") for line in lines() if line["event"] == "step.started"}
    assert parents == {"outer": None, "inner": outer.step_id, "innermost": inner.step_id}


def test_step_made_before_the_outer_one_is_entered_nests_all_the_same(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        inner = run.step("agent", "inner")
        with run.step("task", "outer") as outer, inner:
            pass
    parents = {line["step_name"]: line.get("parent_step_id") for line in lines() if line["event"] == "step.started"}
    assert parents == {"outer": None, "inner": outer.step_id}


def test_step_made_by_a_step_is_inside_it_on_another_thread_too(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run, run.step("task", "outer") as outer:

        def work() -> None:
            with outer.step("tool", "inner"):
                log.info("inside")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    by_name = {line.get("step_name"): line for line in lines() if line["event"] in ("step.started", "log")}
    assert by_name["inner"]["parent_step_id"] == outer.step_id
    assert by_name[None]["execution_id"] == run.execution_id


def test_step_of_another_execution_has_no_parent_step_of_this_one(log: Log, lines: Lines) -> None:
    with log.execution("first") as first, first.step("task", "t"):
        with log.execution("second") as second, second.step("task", "other"):
            pass
    started = {line["step_name"]: line for line in lines() if line["event"] == "step.started"}
    assert "parent_step_id" not in started["other"]
    assert started["other"]["execution_id"] == second.execution_id


def test_execution_inside_a_step_carries_no_step_of_the_outer_one(log: Log, lines: Lines) -> None:
    with log.execution("outer") as outer, outer.step("task", "t"), log.execution("inner") as inner:
        log.info("inside")
    (line,) = [line for line in lines() if line["event"] == "log"]
    assert (line["execution_id"], line["crew_name"]) == (inner.execution_id, "inner")
    assert "step_id" not in line


# -- what the lines inside carry ---------------------------------------------------------------------------------------


def test_line_inside_carries_execution_crew_and_step(log: Log, lines: Lines) -> None:
    log.info("before")
    with log.execution("crew") as run:
        log.info("in the execution", own=1)
        with run.step("task", "t") as step:
            log.child("far.away").bind(b=2).info("in the step")
        log.info("in the execution again")
    log.info("after")
    execution = {"execution_id": run.execution_id, "crew_name": "crew"}
    assert [user_fields(line) for line in lines() if line["event"] == "log"] == [
        {},
        {**execution, "own": 1},
        {**execution, "step_id": step.step_id, "b": 2},
        execution,
        {},
    ]


def test_field_of_a_call_wins_over_the_context(log: Log, lines: Lines) -> None:
    with log.execution("crew", execution_id="e1"):
        log.info("inside", crew_name="mine")
    assert user_fields(lines()[1]) == {"execution_id": "e1", "crew_name": "mine"}


def test_nested_execution_names_its_parent(log: Log, lines: Lines) -> None:
    with log.execution("outer") as outer, outer.step("task", "t"), log.execution("inner") as inner:
        pass
    started = {line["crew_name"]: line for line in lines() if line["event"] == "execution.started"}
    assert started["inner"]["parent_execution_id"] == outer.execution_id
    assert "parent_execution_id" not in started["outer"]
    assert inner.execution_id != outer.execution_id


def test_parent_is_the_execution_it_is_entered_in(log: Log, lines: Lines) -> None:
    made_outside = log.execution("inner")
    with log.execution("outer") as outer, made_outside:
        pass
    started = {line["crew_name"]: line for line in lines() if line["event"] == "execution.started"}
    assert started["inner"].get("parent_execution_id") == outer.execution_id


def test_current_execution_reaches_the_running_one_from_below(log: Log) -> None:
    assert current_execution() is None
    with log.execution("crew") as run:
        assert current_execution() is run
        with run.step("task", "t") as step, step.step("tool", "u"):
            assert current_execution() is run
        with log.execution("inner") as inner:
            assert current_execution() is inner
        assert current_execution() is run
    assert current_execution() is None


def test_execution_of_one_log_is_on_lines_of_another(opened: Callable[..., Log], tmp_path: Path) -> None:
    with opened() as first, opened(tmp_path / "other.jsonl") as second, first.execution("crew") as run:
        second.info("inside")
    assert user_lines(tmp_path / "other.jsonl")[0]["execution_id"] == run.execution_id


# -- outputs, tokens, fields -------------------------------------------------------------------------------------------


def test_outputs_are_on_the_last_line_as_they_were_when_they_were_set(log: Log, lines: Lines) -> None:
    outputs = {"text": "draft"}
    with log.execution("crew") as run, run.step("task", "t") as step:
        run.set_outputs(outputs)
        step.set_outputs(["one"])
        outputs["text"] = "final"
    step_line, execution_line = lines()[2:]
    assert (step_line["outputs"], execution_line["outputs"]) == (["one"], {"text": "draft"})


def test_tokens_add_up(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        run.record_tokens(prompt_tokens=10, completion_tokens=5, cost_usd=0.5)
        run.record_tokens(prompt_tokens=1)
        run.record_tokens(completion_tokens=2, cost_usd=0.25)
    completed = lines()[1]
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")
    assert [completed[name] for name in names] == [11, 7, 18, 0.75]


def test_tokens_of_a_failed_run_are_reported_too(log: Log, lines: Lines) -> None:
    with pytest.raises(ValueError, match="why"), log.execution("crew") as run:
        run.record_tokens(prompt_tokens=10)
        fail()
    assert lines()[1]["total_tokens"] == 10


def test_run_without_tokens_reports_none(log: Log, lines: Lines) -> None:
    with log.execution("crew"):
        pass
    assert {"prompt_tokens", "total_tokens", "cost_usd", "outputs"}.isdisjoint(lines()[1])


@pytest.mark.parametrize("tokens", [{"prompt_tokens": None}, {"completion_tokens": "7"}, {"cost_usd": "free"}])
def test_tokens_of_another_type_raise_nothing(log: Log, lines: Lines, tokens: dict[str, Any]) -> None:
    with log.execution("crew") as run:
        run.record_tokens(prompt_tokens=3, cost_usd=0.5)
        run.record_tokens(**tokens)
    assert lines()[1]["event"] == "execution.completed"


def test_fields_added_before_the_end_are_on_the_last_line(log: Log, lines: Lines) -> None:
    with log.execution("crew", model_name="m") as run, run.step("task", "t") as step:
        run.fields["validation_status"] = "passed"
        step.fields["tool_name"] = "search"
    started, _, step_completed, completed = lines()
    assert "validation_status" not in started
    assert (completed["validation_status"], completed["model_name"]) == ("passed", "m")
    assert step_completed["tool_name"] == "search"


def test_field_with_a_reserved_name_gets_an_underscore(log: Log, lines: Lines) -> None:
    with log.execution("crew", level="mine", message="mine"):
        pass
    assert [(line["level_"], line["message_"]) for line in lines()] == [("mine", "mine")] * 2


# -- leaving never raises ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"execution_id": 5},
        {"execution_id": object()},
        {"parent_execution_id": object()},
        {"depends_on": 5},
        {"depends_on": None},
        {"depends_on": [object()]},
        {"attempt": "second", "max_retries": 3},
        {"attempt": None, "max_retries": 3},
        {"attempt": 1, "max_retries": "three"},
        {"attempt": float("nan"), "max_retries": float("inf")},
        {"inputs": object()},
        {"inputs": {"nested": [float("nan"), {1, 2}]}},
    ],
    ids=str,
)
def test_options_of_another_type_raise_nothing_and_keep_both_lines(
    log: Log, lines: Lines, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="why"), log.execution("crew", **options):
        fail()
    assert [line["event"] for line in lines()] == ["execution.started", "execution.failed"]


@pytest.mark.parametrize("name", [5, None, object(), "\ud800", 'quo"te\n', ""])
def test_crew_name_of_any_kind_raises_nothing(log: Log, lines: Lines, name: Any) -> None:
    with log.execution(name) as run, run.step(name, name):
        log.info("inside")
    assert len(lines()) == 5


@pytest.mark.parametrize("outputs", [object(), float("nan"), {"a": None}, {(1, 2): 3}, "\ud800", lambda: None])
def test_outputs_of_any_kind_keep_the_last_line(log: Log, lines: Lines, outputs: Any) -> None:
    with log.execution("crew") as run:
        run.set_outputs(outputs)
    assert lines()[1]["event"] == "execution.completed"


@pytest.mark.parametrize("fields", [{}, {1: 2}, {"\ud800": object()}, {"duration_seconds": "mine"}])
def test_fields_of_any_kind_keep_the_last_line(log: Log, lines: Lines, fields: Any) -> None:
    with log.execution("crew") as run:
        run.fields = fields
    assert lines()[1]["event"] == "execution.completed"


def test_exception_that_cannot_be_shown_passes_through_unchanged(log: Log, lines: Lines) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("in str")

    error = Mute()
    with pytest.raises(Mute) as caught, log.execution("crew") as run, run.step("task", "t"):
        raise error
    assert caught.value is error
    assert error.__context__ is None
    assert [line["event"] for line in lines()][2:] == ["step.failed", "execution.failed"]


def test_no_exception_is_ever_swallowed(log: Log) -> None:
    run = log.execution("crew")
    run.__enter__()
    assert not run.__exit__(ValueError, ValueError("why"), None)


def test_leaving_twice_raises_nothing(log: Log, lines: Lines) -> None:
    run = log.execution("crew")
    run.__enter__()
    run.__exit__(None, None, None)
    run.__exit__(None, None, None)
    lines()
    assert current_execution() is None


def test_leaving_what_was_never_entered_raises_nothing(log: Log, lines: Lines) -> None:
    log.execution("crew").__exit__(None, None, None)
    lines()
    assert current_execution() is None


def test_log_closed_inside_the_block_raises_nothing(log: Log, log_path: Path) -> None:
    with log.execution("crew"):
        log.close()
    assert [line["event"] for line in user_lines(log_path)] == ["execution.started"]
    assert log.stats().by_reason == {"closed": {"INFO": 1}}


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_context_follows_tasks_and_does_not_leak_between_them(log: Log, lines: Lines) -> None:
    async def crew(number: int) -> str:
        async with log.execution(f"crew {number}") as run:
            async with asyncio.TaskGroup() as group:
                for agent in range(3):
                    group.create_task(act(run, number, agent))
            await asyncio.sleep(0)
            log.info("crew", number=number)
        return run.execution_id

    async def act(run: Any, number: int, agent: int) -> None:
        async with run.step("agent", f"{number}.{agent}"):
            await asyncio.sleep(0)
            log.info("agent", number=number, agent=agent)
            await asyncio.sleep(0)

    async def main() -> list[str]:
        return await asyncio.gather(*[crew(number) for number in range(20)])

    ids = asyncio.run(main())
    written = lines()
    step_ids = {line["step_name"]: line["step_id"] for line in written if line["event"] == "step.started"}
    plain = [line for line in written if line["event"] == "log"]
    assert len(plain) == 80
    for line in plain:
        assert line["execution_id"] == ids[line["number"]]
        assert line["crew_name"] == f"crew {line['number']}"
        if line["message"] == "agent":
            assert line["step_id"] == step_ids[f"{line['number']}.{line['agent']}"]
        else:
            assert "step_id" not in line
    assert not any("parent_step_id" in line for line in written)


def test_sibling_tasks_do_not_see_a_step_that_one_of_them_entered(log: Log, lines: Lines) -> None:
    async def in_step(run: Any, entered: asyncio.Event, leave: asyncio.Event) -> None:
        with run.step("task", "t"):
            entered.set()
            await leave.wait()

    async def main() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()
        with log.execution("crew") as run:
            task = asyncio.create_task(in_step(run, entered, leave))
            await entered.wait()
            log.info("beside")
            leave.set()
            await task

    asyncio.run(main())
    (line,) = [line for line in lines() if line["event"] == "log"]
    assert "step_id" not in line


def test_task_cancelled_by_its_owner_ends_as_cancelled(log: Log, lines: Lines) -> None:
    async def crew(entered: asyncio.Event) -> None:
        async with log.execution("crew") as run, run.step("task", "t"):
            entered.set()
            await asyncio.sleep(60)

    async def main() -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(crew(entered))
        await entered.wait()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert [line["event"] for line in lines()][2:] == ["step.cancelled", "execution.cancelled"]


def test_time_out_inside_is_a_failure_and_around_it_a_cancellation(log: Log, lines: Lines) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with log.execution("inside"), asyncio.timeout(0):
                await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), log.execution("around"):
                await asyncio.sleep(60)

    asyncio.run(main())
    ends = {line["crew_name"]: line["event"] for line in lines() if "duration_seconds" in line}
    assert ends == {"inside": "execution.failed", "around": "execution.cancelled"}


def test_context_follows_trio_tasks(log: Log, lines: Lines) -> None:
    async def crew(number: int) -> None:
        async with log.execution(f"crew {number}"):
            await anyio.sleep(0)
            log.info("inside", number=number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(crew, number)

    anyio.run(main, backend="trio")
    plain = [line for line in lines() if line["event"] == "log"]
    assert [line["crew_name"] for line in plain] == [f"crew {line['number']}" for line in plain]
    assert len(plain) == 5


def test_cancelled_trio_scope_ends_as_cancelled(log: Log, lines: Lines) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with log.execution("crew"):
                scope.cancel()
                await anyio.sleep(60)

    anyio.run(main, backend="trio")
    assert lines()[1]["event"] == "execution.cancelled"


# -- threads and generators --------------------------------------------------------------------------------------------


def test_thread_does_not_inherit_the_context_and_carry_gives_it(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run, run.step("task", "t") as step:
        targets = [lambda: log.info("bare"), log.carry(lambda: log.info("carried"))]
        threads = [threading.Thread(target=target) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_message = {line["message"]: line for line in lines() if line["event"] == "log"}
    assert user_fields(by_message["bare"]) == {}
    assert (by_message["carried"]["execution_id"], by_message["carried"]["step_id"]) == (run.execution_id, step.step_id)


def test_carried_function_can_run_many_times_at_once(log: Log, lines: Lines) -> None:
    def work(number: int, *, text: str) -> tuple[int, str]:
        with run.step("task", str(number)):
            log.info("inside", number=number)
        return number, text

    with log.execution("crew") as run, ThreadPoolExecutor(4) as pool:
        carried = log.carry(work)
        results = [future.result() for future in [pool.submit(carried, n, text="t") for n in range(40)]]
    assert results == [(number, "t") for number in range(40)]
    written = lines()
    step_ids = {line["step_name"]: line["step_id"] for line in written if line["event"] == "step.started"}
    plain = [line for line in written if line["event"] == "log"]
    assert [line["step_id"] for line in plain] == [step_ids[str(line["number"])] for line in plain]
    assert not any("parent_step_id" in line for line in written)


def test_carried_function_keeps_its_name_and_raises_what_it_raises(log: Log) -> None:
    carried = log.carry(fail)
    assert carried.__name__ == "fail"
    with pytest.raises(ValueError, match="why"):
        carried()


def test_carry_leaves_the_context_of_the_thread_that_runs_it_alone(log: Log) -> None:
    with log.execution("crew"):
        carried = log.carry(lambda: log.execution("left open").__enter__())
    carried()
    assert current_execution() is None


def test_to_thread_inherits_the_context(log: Log, lines: Lines) -> None:
    async def main() -> str:
        async with log.execution("crew") as run:
            await asyncio.to_thread(log.info, "in a thread")
        return run.execution_id

    execution_id = asyncio.run(main())
    assert [line["execution_id"] for line in lines()] == [execution_id] * 3


def test_run_left_in_another_context_ends_under_its_own_id(log: Log, lines: Lines) -> None:
    run = log.execution("crew", execution_id="e1")
    contextvars.copy_context().run(run.__enter__)
    with log.execution("other", execution_id="e2"):
        run.__exit__(None, None, None)
    ends = {line["crew_name"]: line["execution_id"] for line in lines() if "duration_seconds" in line}
    assert ends == {"crew": "e1", "other": "e2"}


def test_run_left_in_another_context_does_not_change_that_one(log: Log, lines: Lines) -> None:
    run = log.execution("crew", execution_id="e1")
    contextvars.copy_context().run(run.__enter__)
    with log.execution("other", execution_id="e2") as other:
        run.__exit__(None, None, None)
        assert current_execution() is other
        log.info("inside")
    (line,) = [line for line in lines() if line["event"] == "log"]
    assert line["execution_id"] == "e2"


def test_async_generator_finished_by_another_task_ends_under_its_own_id(log: Log, lines: Lines) -> None:
    async def produce() -> AsyncIterator[int]:
        async with log.execution("producer", execution_id="e1"):
            yield 1
            yield 2

    async def main() -> None:
        generator = produce()

        async def first() -> None:
            await anext(generator)

        await asyncio.create_task(first())
        async with log.execution("consumer", execution_id="e2"):
            await generator.aclose()
            log.info("inside")

    asyncio.run(main())
    written = [line for line in lines() if line["event"] != "execution.started"]
    assert {(line.get("crew_name"), line.get("execution_id")) for line in written} == {
        ("producer", "e1"),
        ("consumer", "e2"),
    }


def test_overlapping_runs_of_one_context_end_under_their_own_ids(log: Log, lines: Lines) -> None:
    first, second = log.execution("first", execution_id="e1"), log.execution("second", execution_id="e2")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    CURRENT.set(ROOT)
    ends = {line["crew_name"]: line["execution_id"] for line in lines() if "duration_seconds" in line}
    assert ends == {"first": "e1", "second": "e2"}


def test_generator_closed_while_it_is_in_an_execution_writes_its_end(log: Log, lines: Lines) -> None:
    def produce() -> Iterator[int]:
        with log.execution("crew"):
            yield 1

    generator = produce()
    next(generator)
    generator.close()
    end = lines()[1]
    assert (end["event"], end["error_type"]) == ("execution.cancelled", "GeneratorExit")


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_ids_are_uuids_of_version_7() -> None:
    for _ in range(1_000):
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid7())


def test_ids_begin_with_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = int(uuid7().replace("-", "")[:12], 16)
    assert before <= milliseconds <= time.time_ns() // 1_000_000


def test_ids_are_in_order_of_time() -> None:
    earlier = uuid7()
    start = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= start:
        pass
    assert earlier < uuid7()


def test_ids_are_unique_over_threads() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([uuid7() for _ in range(2_000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) == 8_000


def test_execution_makes_its_own_id_unless_given(log: Log) -> None:
    assert log.execution("crew", execution_id="mine").execution_id == "mine"
    first, second = log.execution("crew").execution_id, log.execution("crew").execution_id
    assert first != second


# -- trees -------------------------------------------------------------------------------------------------------------

Tree = tuple[str, bool, list[Any]]
"""A step: its name, whether its children run at the same time, and its children."""
NAMES = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(
    st.tuples(NAMES, st.booleans(), st.just([])),
    lambda inner: st.tuples(NAMES, st.booleans(), st.lists(inner, max_size=3)),
    max_leaves=8,
)
CREWS = st.lists(st.lists(TREES, max_size=3), min_size=1, max_size=3)


def shape(tree: Tree) -> tuple[str, list[Any]]:
    """A tree without the order in which children ran."""
    return tree[0], sorted([shape(child) for child in tree[2]])


def rebuilt(lines: list[dict[str, Any]], execution_id: str) -> list[Any]:
    """The trees of an execution, from its lines alone."""
    steps = [line for line in lines if line["event"] == "step.started" and line["execution_id"] == execution_id]

    def children(parent: str | None) -> list[Any]:
        return sorted(
            (line["step_name"], children(line["step_id"])) for line in steps if line.get("parent_step_id") == parent
        )

    return children(None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crews=CREWS)
def test_tree_of_steps_is_rebuilt_from_the_lines(opened: Callable[..., Log], tmp_path: Path, crews: list[Any]) -> None:
    path = tmp_path / f"{time.monotonic_ns()}.jsonl"
    ids: dict[int, str] = {}

    async def walk(log: Log, parent: Any, tree: Tree) -> None:
        name, at_once, below = tree
        async with parent.step("task", name) as step:
            await asyncio.sleep(0)
            log.info("inside", step_seen=step.step_id)
            if at_once:
                await asyncio.gather(*[walk(log, step, child) for child in below])
            else:
                for child in below:
                    await walk(log, step, child)

    async def crew(log: Log, number: int, trees: list[Tree]) -> None:
        async with log.execution(f"crew {number}") as run:
            ids[number] = run.execution_id
            await asyncio.gather(*[walk(log, run, tree) for tree in trees])

    async def main() -> None:
        async with opened(path, max_queue_size=0) as log:
            await asyncio.gather(*[crew(log, number, trees) for number, trees in enumerate(crews)])

    asyncio.run(main())
    lines = user_lines(path)
    for number, trees in enumerate(crews):
        assert rebuilt(lines, ids[number]) == sorted([shape(tree) for tree in trees])
    for line in lines:
        assert line["event"] != "log" or line["step_id"] == line["step_seen"]
    started = [line["step_id"] for line in lines if line["event"] == "step.started"]
    assert sorted(started) == sorted(line["step_id"] for line in lines if line["event"] == "step.completed")


# -- what goes wrong while a run is entered or left --------------------------------------------------------------------


def recurse(run: Any, depth: int = 0) -> None:
    with run.step("agent", f"a{depth}"):
        recurse(run, depth + 1)


def test_stack_overflow_inside_leaves_no_context_behind(log: Log) -> None:
    with pytest.raises(RecursionError), log.execution("crew") as run:
        recurse(run)
    assert CURRENT.get() is ROOT


def test_steps_that_had_no_room_to_end_are_ended_afterwards(log: Log, log_path: Path) -> None:
    with pytest.raises(RecursionError), log.execution("crew", execution_id="e1") as run:
        recurse(run)
    assert log.close().ok
    detail = reader.detail("e1", log_path)
    assert detail is not None
    assert detail.complete
    assert {step.status for step in detail.steps} <= {"failed", "completed"}


def test_group_nested_deeply_passes_through_unchanged(log: Log, lines: Lines) -> None:
    group: Exception = ValueError("inner")
    for _ in range(3000):
        group = ExceptionGroup("g", [group])
    with pytest.raises(ExceptionGroup) as raised, log.execution("crew"):
        raise group
    assert raised.value is group
    assert lines()[-1]["event"] == "execution.failed"


def test_inner_run_that_was_never_left_does_not_outlive_the_outer_one(log: Log, lines: Lines) -> None:
    with log.execution("outer"):
        log.execution("inner").__enter__()
    assert CURRENT.get() is ROOT
    log.info("outside")
    assert "execution_id" not in lines()[-1]


def test_generator_that_outlives_the_block_around_it_leaves_no_context(log: Log) -> None:
    def produce() -> Iterator[int]:
        with log.execution("inner"):
            yield 1

    generator = produce()
    with log.execution("outer"):
        next(generator)
    assert CURRENT.get() is ROOT
    generator.close()  # type: ignore[attr-defined]
    assert CURRENT.get() is ROOT


def test_run_entered_twice_leaves_no_context(log: Log, lines: Lines) -> None:
    with log.execution("crew") as run:
        with run:
            log.info("inside")
        assert current_execution() is run
    assert CURRENT.get() is ROOT
    assert [line["event"] for line in lines()] == ["execution.started", "log", "execution.completed"]


def test_execution_entered_by_two_tasks_leaves_no_context_in_either(log: Log) -> None:
    async def work(run: Any, seconds: float) -> bool:
        async with run:
            await asyncio.sleep(seconds)
        return current_execution() is None

    async def main() -> list[bool]:
        run = log.execution("crew")
        return await asyncio.gather(work(run, 0.001), work(run, 0.01))

    assert asyncio.run(main()) == [True, True]


def test_interrupt_while_entering_leaves_no_context(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> bool:
        raise KeyboardInterrupt

    run = log.execution("crew")
    monkeypatch.setattr(run, "_go", interrupt)
    with pytest.raises(KeyboardInterrupt), run:
        pass
    assert CURRENT.get() is ROOT


def test_task_started_inside_does_not_keep_what_was_around(log: Log) -> None:
    kept: list[weakref.ref[Any]] = []

    async def linger(stop: asyncio.Event) -> None:
        await stop.wait()

    async def main() -> bool:
        stop = asyncio.Event()
        with log.execution("outer") as outer:
            kept.append(weakref.ref(outer))
            with log.execution("inner"):
                task = asyncio.create_task(linger(stop))
        del outer
        deadline = time.monotonic() + 10
        while kept[0]() is not None and time.monotonic() < deadline:
            gc.collect()  # does nothing while another thread collects
            await asyncio.sleep(0)
        gone = kept[0]() is None
        stop.set()
        await task
        return gone

    assert asyncio.run(main())


class Weak(dict[str, Any]):
    """A dict that can be referred to weakly."""


def test_finished_execution_keeps_neither_inputs_nor_outputs(log: Log) -> None:
    inputs, outputs = Weak(n=1), Weak(n=2)
    references = [weakref.ref(inputs), weakref.ref(outputs)]
    with log.execution("crew", inputs=inputs) as run:
        run.set_outputs(outputs)
    del inputs, outputs
    assert [reference() for reference in references] == [None, None]
    assert run.state == "completed"


def test_inputs_are_as_they_were_when_they_were_given(log: Log, lines: Lines) -> None:
    inputs = {"topic": "given"}
    run = log.execution("crew", inputs=inputs)
    inputs["topic"] = "changed"
    with run:
        pass
    assert lines()[0]["inputs"] == {"topic": "given"}


class NoTruth:
    """As an array or a missing value: neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize(
    "option", ["execution_id", "parent_execution_id", "depends_on", "inputs", "attempt", "max_retries"]
)
def test_value_that_is_neither_true_nor_false_raises_nothing(log: Log, lines: Lines, option: str) -> None:
    with log.execution("crew", **{option: NoTruth()}):
        pass
    assert [line["event"] for line in lines()] == ["execution.started", "execution.completed"]


@pytest.mark.parametrize(
    ("depends_on", "written"),
    [
        (["a", "b"], ["a", "b"]),
        (iter(["a", "b"]), ["a", "b"]),
        ({"a": 1, "b": 2}.keys(), ["a", "b"]),
        (map(str, [1, 2]), ["1", "2"]),
        ("a", ["a"]),
    ],
    ids=["list", "iterator", "keys", "map", "text"],
)
def test_dependencies_may_be_any_iterable(log: Log, lines: Lines, depends_on: Any, written: list[str]) -> None:
    with log.execution("crew", depends_on=depends_on):
        pass
    assert lines()[0]["depends_on"] == written


def test_field_named_as_what_a_run_says_of_itself_gets_an_underscore(log: Log, lines: Lines) -> None:
    with log.execution("crew", status="mine", duration_seconds=99) as run, run.step("task", "t", step_name="x"):
        pass
    seen = lines()
    assert (seen[-1]["status"], seen[-1]["status_"], seen[-1]["duration_seconds_"]) == ("completed", "mine", 99)
    assert (seen[1]["step_name"], seen[1]["step_name_"]) == ("t", "x")


# -- what comes late ---------------------------------------------------------------------------------------------------


def test_tokens_and_outputs_told_after_the_end_are_in_the_files(log: Log, log_path: Path) -> None:
    with log.execution("crew", execution_id="e1") as run:
        with run.step("llm", "call") as step:
            step.record_tokens(1)
        step.record_tokens(10, 5, 0.5)
        step.set_outputs("late")
    run.record_tokens(100)
    run.set_outputs({"n": 1})
    assert log.close().ok
    detail = reader.detail("e1", log_path)
    assert detail is not None
    assert (detail.execution.total_tokens, detail.execution.cost_usd, detail.execution.status) == (
        116,
        0.5,
        "completed",
    )
    assert (detail.execution.outputs, detail.steps[0].outputs) == ({"n": 1}, "late")
    assert [state.state_to for state in detail.states] == ["running", "completed"]
    assert run.summary().total_tokens == 116


def test_tokens_recorded_while_a_run_ends_are_told_once(log: Log, log_path: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(50):
            run = log.execution("crew", execution_id=f"e{number}")
            run.set_state("running")
            threads = [
                threading.Thread(target=lambda run=run: [run.record_tokens(1) for _ in range(100)]) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            run.set_state("completed")
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert log.close().ok
    assert {execution.total_tokens for execution in reader.executions(log_path)} == {200}


def test_step_cancelled_before_it_started_is_one_step(log: Log, log_path: Path) -> None:
    with log.execution("crew") as run:
        run.step("task", "t").set_state("cancelled")
    assert log.close().ok
    (execution,) = reader.executions(log_path)
    assert (execution.steps, run.summary().steps) == (1, 1)


def test_carried_coroutine_runs_in_the_context_it_was_made_in(log: Log) -> None:
    async def which() -> Any:
        await asyncio.sleep(0)
        return current_execution()

    with log.execution("crew") as run:
        carried = log.carry(which)
    assert asyncio.run(carried()) is run
