"""Executions rebuilt from lines made by hand."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from handmade import BOOT_ID, START, Log, Writer

from amsha_async_log import events, reader
from amsha_async_log.reader import _lock, _run

KEYS = (
    "execution_id parent_execution_id depends_on crew_name model_name status started_at ended_at duration_seconds "
    "prompt_tokens completion_tokens total_tokens cost_usd steps llm_calls errors retries peak_memory_mb "
    "peak_gpu_memory_mb mean_cpu_percent lost_records"
).split()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.jsonl")


def only(log: Writer) -> reader.Execution:
    (execution,) = reader.executions(log.path)
    return execution


@pytest.fixture
def locked(log: Log) -> Iterator[Log]:
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield log


# -- shape -------------------------------------------------------------------------------------------------------------


def test_execution_encodes_to_the_documented_keys_in_order(log: Log) -> None:
    log.start()
    assert list(msgspec.to_builtins(only(log))) == KEYS


def test_completed_execution(log: Log) -> None:
    started = log.start(model_name="gpt", parent_execution_id="e0", depends_on=["x", "y"])
    ended = log.end(duration_seconds=1.25)
    execution = only(log)
    assert (execution.execution_id, execution.crew_name, execution.model_name) == ("e1", "crew", "gpt")
    assert (execution.parent_execution_id, execution.depends_on) == ("e0", ["x", "y"])
    assert (execution.status, execution.started_at, execution.ended_at) == ("completed", started, ended)
    assert (execution.duration_seconds, execution.lost_records) == (1.25, 0)


def test_what_nobody_says_is_null(log: Log) -> None:
    log.start()
    log.end()
    execution = only(log)
    unknown = [name for name in KEYS if getattr(execution, name) is None]
    assert (
        unknown
        == (
            "parent_execution_id model_name prompt_tokens completion_tokens total_tokens cost_usd peak_memory_mb "
            "peak_gpu_memory_mb mean_cpu_percent"
        ).split()
    )


def test_executions_come_in_the_order_they_began(log: Log) -> None:
    for execution_id in ("c", "a", "b"):
        log.start(execution_id)
    log.end(execution_id="a")
    assert [execution.execution_id for execution in reader.executions(log.path)] == ["c", "a", "b"]


def test_execution_id_may_be_a_number(log: Log) -> None:
    log.write(execution_id=42)
    assert only(log).execution_id == "42"


def test_wrong_types_cost_the_field_not_the_line(log: Log) -> None:
    log.start(depends_on="x", attempt="second", model_name=7)
    log.end(total_tokens="many", cost_usd=0.5, duration_seconds=True)
    execution = only(log)
    assert (execution.status, execution.total_tokens, execution.cost_usd) == ("completed", None, 0.5)
    assert (execution.depends_on, execution.model_name) == ([], None)


def test_names_of_the_lifecycle_are_those_of_the_events() -> None:
    ends = (events.ExecutionCompleted, events.ExecutionFailed, events.ExecutionCancelled)
    assert {end.__struct_config__.tag for end in ends} == _run.ENDS


# -- status ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_status_is_how_the_execution_ended(log: Log, how: str) -> None:
    log.start()
    log.end(how)
    assert only(log).status == how


def test_execution_without_an_end_is_running_while_its_writer_holds_the_lock(locked: Log) -> None:
    locked.start()
    execution = only(locked)
    assert (execution.status, execution.ended_at, execution.duration_seconds) == ("running", None, None)


def test_execution_without_an_end_is_killed_when_nobody_holds_the_lock(log: Log) -> None:
    log.start()
    assert only(log).status == "killed"


def test_execution_of_an_earlier_run_is_killed_although_a_later_run_holds_the_lock(log: Log) -> None:
    log.start()
    Log(log.path, "bbbbbbbb").start("e2")
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        statuses = {execution.execution_id: execution.status for execution in reader.executions(log.path)}
    assert statuses == {"e1": "killed", "e2": "running"}


def test_writer_lives_through_a_rotation(log: Log) -> None:
    log.start()
    log.rotate(1)
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert only(log).status == "running"


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"boot_id": "another boot"}])
def test_execution_of_another_machine_or_boot_is_unknown(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    if "boot_id" in elsewhere and BOOT_ID is None:
        pytest.skip("this system has no boot id")
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment(**elsewhere)  # type: ignore[arg-type]
    writer.write("execution.started", execution_id="e1", status="running")
    assert only(writer).status == "unknown"


def test_end_in_another_writers_file_ends_the_execution(log: Log) -> None:
    log.start()
    other = Log(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb", start=START + 10)
    other.end("failed")
    assert only(log).status == "failed"


def test_execution_that_starts_again_is_open_again(log: Log) -> None:
    log.start()
    log.end("failed")
    log.start(attempt=2)
    execution = only(log)
    assert (execution.status, execution.ended_at, execution.retries) == ("killed", None, 1)


def test_plain_lines_do_not_end_an_execution_that_has_a_lifecycle(log: Log) -> None:
    log.start()
    log.put(status="failed", duration_seconds=9.0, error_type="E")
    ended = log.end()
    log.put(status="failed")
    execution = only(log)
    assert (execution.status, execution.ended_at, execution.duration_seconds) == ("completed", ended, 0.5)


# -- plain lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "success", "skipped"])
def test_terminal_status_ends_plain_lines(log: Log, status: str) -> None:
    started = log.put(message="kickoff")
    ended = log.put(status=status)
    execution = only(log)
    assert (execution.status, execution.started_at, execution.ended_at) == (status, started, ended)
    assert execution.duration_seconds == pytest.approx(ended - started, abs=1e-6)


def test_duration_ends_plain_lines(log: Log) -> None:
    log.put(message="kickoff")
    log.put(message="Crew execution completed", duration_seconds=12.5)
    execution = only(log)
    assert (execution.status, execution.duration_seconds) == ("completed", 12.5)


def test_error_type_ends_plain_lines(log: Log) -> None:
    log.put(error_type="ValueError", duration_seconds=2.0)
    execution = only(log)
    assert (execution.status, execution.duration_seconds) == ("failed", 2.0)


def test_line_of_an_operation_ends_nothing(log: Log) -> None:
    log.put(operation="save", status="success", duration_seconds=1.0, error_type="E")
    assert only(log).status == "killed"


@pytest.mark.parametrize(
    "event", ["llm.call.failed", "tool.call.failed", "file.operation", "step.failed", "error.raised"]
)
def test_event_about_a_part_ends_nothing(log: Log, event: str) -> None:
    log.put(event, status="failed", duration_seconds=1.0, error_type="E", step_id="s1")
    assert only(log).status == "killed"


def test_latest_plain_end_wins(log: Log) -> None:
    log.put(status="failed", duration_seconds=1.0)
    ended = log.put(status="success")
    execution = only(log)
    assert (execution.status, execution.ended_at, execution.duration_seconds) == ("success", ended, 1.0)


def test_plain_status_running_opens_the_execution_again(log: Log) -> None:
    log.put(status="failed")
    log.put(status="running")
    assert only(log).status == "killed"


def test_other_events_of_the_program_end_it_too(log: Log) -> None:
    log.put("CrewFinished", status="completed")
    assert only(log).status == "completed"


def test_lines_of_other_programs_make_executions_too(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text('{"execution_id":"e1","level":"INFO","status":"success","timestamp":5.0,"duration_seconds":2}\n')
    (execution,) = reader.executions(path)
    assert (execution.status, execution.ended_at, execution.duration_seconds) == ("success", 5.0, 2.0)


# -- tokens and cost ---------------------------------------------------------------------------------------------------


def call(log: Log, outcome: str = "completed", **fields: Any) -> None:
    log.put(f"llm.call.{outcome}", **fields)


def tokens(log: Log) -> tuple[int | None, int | None, int | None, float | None]:
    execution = only(log)
    return execution.prompt_tokens, execution.completion_tokens, execution.total_tokens, execution.cost_usd


def test_tokens_are_those_of_the_calls(log: Log) -> None:
    log.start()
    call(log, prompt_tokens=10, completion_tokens=5, total_tokens=15, cost_usd=0.1)
    call(log, prompt_tokens=20, completion_tokens=7, cost_usd=0.2)
    log.put("metrics.execution", total_tokens=999, cost_usd=9.0)
    log.end(prompt_tokens=30, completion_tokens=12, total_tokens=42, cost_usd=0.3)
    assert tokens(log) == (30, 12, 42, 0.3)


def test_without_calls_tokens_are_those_recorded(log: Log) -> None:
    log.start()
    call(log, "failed")
    log.put("step.completed", step_id="s1", prompt_tokens=3, completion_tokens=4, total_tokens=7, cost_usd=0.5)
    log.put("metrics.execution", prompt_tokens=999, total_tokens=999)
    log.end(prompt_tokens=30, completion_tokens=12, total_tokens=42)
    assert tokens(log) == (33, 16, 49, 0.5)


def test_tokens_recorded_by_steps_survive_a_kill(log: Log) -> None:
    log.start()
    log.put("step.completed", step_id="s1", prompt_tokens=3, completion_tokens=4, total_tokens=7)
    assert tokens(log) == (3, 4, 7, None)


def test_without_records_tokens_are_those_of_the_metrics(log: Log) -> None:
    log.start()
    log.put("metrics.execution", prompt_tokens=1, completion_tokens=2, total_tokens=3)
    log.put("metrics.execution", prompt_tokens=10, completion_tokens=20, total_tokens=30, cost_usd=1.0)
    log.end()
    assert tokens(log) == (10, 20, 30, 1.0)


def test_plain_line_can_tell_the_tokens(log: Log) -> None:
    log.put(total_tokens=2500, duration_seconds=1.0)
    assert tokens(log) == (None, None, 2500, None)


def test_calls_of_every_outcome_are_counted(log: Log) -> None:
    for outcome in ("completed", "failed", "retried", "rate_limited", "completed"):
        call(log, outcome)
    assert only(log).llm_calls == 5


# -- steps, errors, retries --------------------------------------------------------------------------------------------


def test_steps_are_counted_once_each(log: Log) -> None:
    log.start()
    for step in ("s1", "s2"):
        log.put("step.started", step_id=step)
    log.put(step_id="s1")
    log.put("step.completed", step_id="s1")
    log.put("step.failed", step_id="s3")
    assert only(log).steps == 3


def test_errors_are_the_lines_of_level_error_and_critical(log: Log) -> None:
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        log.put(level=level)
    assert only(log).errors == 2


def test_retries_are_repeated_calls_and_starts(log: Log) -> None:
    log.start(attempt=3)
    call(log, "retried")
    call(log, "rate_limited")
    call(log, "failed")
    log.put("step.started", step_id="s1", attempt=1)
    log.put("step.started", step_id="s2", attempt=2)
    assert only(log).retries == 4


# -- resources ---------------------------------------------------------------------------------------------------------


def test_resources_are_those_sampled_while_it_ran(log: Log) -> None:
    log.write("sample.process", memory_mb=900.0, cpu_percent=90.0)
    log.start()
    log.write("sample.process", memory_mb=100.0, cpu_percent=10.0)
    log.write("sample.process", memory_mb=300.0, cpu_percent=30.0)
    log.write("sample.gpu", gpu_memory_mb=2000.0)
    log.end()
    log.write("sample.process", memory_mb=900.0, cpu_percent=90.0)
    log.write("sample.gpu", gpu_memory_mb=9000.0)
    execution = only(log)
    assert (execution.peak_memory_mb, execution.mean_cpu_percent, execution.peak_gpu_memory_mb) == (300.0, 20.0, 2000.0)


def test_samples_of_other_processes_do_not_count_but_those_of_the_gpu_do(log: Log) -> None:
    log.start()
    other = Log(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb", start=START + 1)
    other.write("sample.process", memory_mb=900.0, cpu_percent=90.0)
    other.write("sample.gpu", gpu_memory_mb=2000.0)
    log.time = START + 2
    log.end()
    execution = only(log)
    assert (execution.peak_memory_mb, execution.peak_gpu_memory_mb) == (None, 2000.0)


def test_resources_told_by_its_own_lines_count(log: Log) -> None:
    log.start()
    log.put("metrics.execution", peak_memory_mb=512.0, cpu_percent=40.0)
    log.put(memory_mb=100, cpu_percent=20)
    log.end()
    execution = only(log)
    assert (execution.peak_memory_mb, execution.mean_cpu_percent) == (512.0, 30.0)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_losses_while_it_ran_are_its_own(log: Log) -> None:
    log.lose(100)
    log.time += 1
    log.start()
    log.lose(3)
    log.lose(4)
    log.end()
    log.time += 1
    log.lose(100)
    assert only(log).lost_records == 7


def test_loss_declared_after_the_end_counts_when_it_began_before(log: Log) -> None:
    began = log.start()
    log.end()
    log.lose(5, first_time=began, last_time=began + 50)
    assert only(log).lost_records == 5


def test_loss_that_only_the_footer_tells_counts(log: Log) -> None:
    log.start()
    log.end()
    log.totals.update(offered=12, refused=10)
    log.close()
    assert only(log).lost_records == 10


def test_losses_of_other_writers_do_not_count(log: Log) -> None:
    log.start()
    Log(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb").lose(5)
    log.end()
    assert only(log).lost_records == 0


def test_lines_missing_while_it_ran_count_as_lost(log: Log) -> None:
    log.line()
    log.start()
    log.line()
    log.line()
    log.end()
    log.line()
    log.write()
    assert only(log).lost_records == 2


def test_life_is_unknown_where_there_are_no_locks(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.start()
    monkeypatch.setattr(_lock, "fcntl", None)
    assert only(log).status == "unknown"


def test_boot_is_not_compared_where_there_is_no_boot_id(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.start()
    monkeypatch.setattr(_lock, "BOOT_ID_PATH", log.path.with_name("none"))
    _lock._machine.cache_clear()
    assert only(log).status == "killed"
    _lock._machine.cache_clear()


def test_links_and_copies_of_a_log_tell_nothing_twice(tmp_path: Path) -> None:
    import os
    import shutil

    from amsha_async_log import open_log

    path = tmp_path / "app.jsonl"
    with open_log(path, console=False) as log, log.execution("crew") as run, run.step("task", "t", attempt=2) as step:
        step.record_tokens(10, 5)
        log.error("once")
    (alone,) = reader.executions(path)
    os.symlink("app.jsonl", tmp_path / "latest.jsonl")
    os.link(path, tmp_path / "hard.jsonl")
    (tmp_path / "copies").mkdir()
    shutil.copy(path, tmp_path / "copies" / "app.jsonl")
    assert reader.executions(tmp_path) == [alone]
    detail = reader.detail(alone.execution_id, tmp_path)
    assert detail is not None
    assert len(detail.records) == 5
