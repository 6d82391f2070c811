"""What samplers attribute to an execution: in `show`, and that the rest of what is said of it stays as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from handmade import Log, Writer
from hypothesis import given
from hypothesis import strategies as st

from amsha_async_log import events, reader
from amsha_async_log.cli import run
from amsha_async_log.cli._resources import resource_lines
from amsha_async_log.reader._resources import Share, Shares

SHARE: dict[str, Any] = {
    "status": "completed",
    "duration_seconds": 2.0,
    "cpu_seconds": 1.24,
    "cpu_error_seconds": 0.1,
    "mean_memory_mb": 100.0,
    "peak_memory_mb": 120.0,
    "file_write_bytes": 4096,
    "file_write_error_bytes": 0,
    "loop_lag_max_seconds": 0.012,
    "attribution": "overlap",
    "unknown": {"energy_joules": "not_supported"},
}


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "app.jsonl")
    log.start()
    return log


def account(log: Log, **changed: Any) -> None:
    log.put("metrics.execution", **{**SHARE, **changed})


def resources(log: Log) -> reader.Resources:
    detail = reader.detail("e1", log.path)
    assert detail is not None
    assert detail.resources is not None
    return detail.resources


def test_without_an_account_resources_are_null(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.end()
    assert run(["show", "e1", str(log.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resources"] is None


def test_metrics_that_the_program_measured_are_no_account(log: Log) -> None:
    log.put("metrics.execution", cpu_seconds=3.0, total_tokens=10)
    detail = reader.detail("e1", log.path)
    assert detail is not None
    assert detail.resources is None
    assert detail.execution.total_tokens == 10


def test_account_after_the_end_is_the_executions(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.end()
    account(log)
    assert run(["show", "e1", str(log.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resources"] == {
        "cpu_seconds": 1.24,
        "cpu_error_seconds": 0.1,
        "mean_memory_mb": 100.0,
        "peak_memory_mb": 120.0,
        "gpu_percent": None,
        "peak_gpu_memory_mb": None,
        "energy_joules": None,
        "energy_error_joules": None,
        "file_read_bytes": None,
        "file_read_error_bytes": None,
        "file_write_bytes": 4096,
        "file_write_error_bytes": 0,
        "loop_lag_max_seconds": 0.012,
        "attribution": "overlap",
        "unknown": {"energy_joules": "not_supported"},
    }


def test_amounts_of_several_processes_add_up_and_peaks_are_the_highest(log: Log) -> None:
    log.end()
    account(log)
    other = Log(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb")
    account(other, status="running", duration_seconds=6.0, peak_memory_mb=90.0, mean_memory_mb=60.0, cpu_seconds=2.0)
    found = resources(log)
    assert (found.cpu_seconds, found.cpu_error_seconds, found.file_write_bytes) == (3.24, 0.2, 8192)
    assert (found.peak_memory_mb, found.mean_memory_mb, found.attribution) == (120.0, 70.0, "overlap")


def test_ways_that_differ_are_mixed(log: Log) -> None:
    account(log)
    account(log, attribution="exclusive")
    assert resources(log).attribution == "mixed"


def test_amount_that_one_process_does_not_know_is_a_least_one(log: Log) -> None:
    account(log, unknown=None, energy_joules=5.0, energy_error_joules=1.0)
    account(log)
    found = resources(log)
    assert (found.energy_joules, found.unknown) == (5.0, {"energy_joules": "not_supported"})
    expected = "energy at least 5.00 J (± 1.00, overlap, a part is unknown: not_supported)"
    assert expected in resource_lines(found)


def test_error_that_is_not_told_of_every_amount_is_unknown(log: Log) -> None:
    account(log)
    account(log, cpu_error_seconds=None)
    assert resources(log).cpu_error_seconds is None


def test_text_tells_the_error_the_way_and_the_reason(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    log.end()
    account(log)
    assert run(["show", "e1", str(log.path)]) == 0
    out = capsys.readouterr().out
    assert "\nResources\n" in out
    assert "  cpu 1.24 s (± 0.10, overlap)\n" in out
    assert "  energy: unknown (not_supported)\n" in out
    assert "  written to storage 4,096 bytes (± 0, overlap)\n" in out
    assert "  memory, peak 120.0 MB\n" in out


def test_only_cpu_time_is_told_by_task(log: Log) -> None:
    account(log, attribution="task")
    lines = resource_lines(resources(log))
    assert "cpu 1.24 s (± 0.10, task)" in lines
    assert "written to storage 4,096 bytes (± 0, overlap)" in lines


def test_small_error_does_not_look_like_none(log: Log) -> None:
    account(log, cpu_seconds=0.0004, cpu_error_seconds=0.000021)
    assert "cpu 0.0004 s (± 2e-05, overlap)" in resource_lines(resources(log))


def test_reason_cannot_control_the_terminal(log: Log) -> None:
    account(log, unknown={"energy_joules": "\x1b[2J"}, attribution="\x1b[31m")
    assert not any("\x1b" in line for line in resource_lines(resources(log)))


def test_peak_is_that_of_the_account_not_of_samples(log: Log) -> None:
    log.write("sample.process", memory_mb=900.0, cpu_percent=50.0)
    log.write("sample.gpu", gpu_memory_mb=700.0)
    log.end()
    account(log, peak_gpu_memory_mb=300.0)
    (execution,) = reader.executions(log.path)
    assert (execution.peak_memory_mb, execution.peak_gpu_memory_mb) == (120.0, 300.0)
    assert execution.mean_cpu_percent == 50.0


def test_peak_that_the_account_does_not_know_is_that_of_samples(log: Log) -> None:
    log.write("sample.process", memory_mb=900.0)
    log.end()
    account(log, peak_memory_mb=None)
    (execution,) = reader.executions(log.path)
    assert execution.peak_memory_mb == 900.0


def test_account_changes_neither_the_course_nor_the_totals(log: Log) -> None:
    log.put("llm.call.completed", total_tokens=7, prompt_tokens=5, completion_tokens=2, cost_usd=0.5)
    ended = log.end(duration_seconds=1.5)
    (before,) = reader.executions(log.path)
    account(log, status="running", peak_memory_mb=None)
    (after,) = reader.executions(log.path)
    assert after == before
    assert after.ended_at == ended


def test_tokens_that_the_program_told_survive_an_account(log: Log) -> None:
    log.put("metrics.execution", total_tokens=10, prompt_tokens=6, completion_tokens=4, cost_usd=0.25)
    log.end()
    account(log)
    (execution,) = reader.executions(log.path)
    assert (execution.total_tokens, execution.cost_usd) == (10, 0.25)


def test_execution_that_was_running_at_the_close_stays_without_an_end(log: Log) -> None:
    account(log, status="running")
    (execution,) = reader.executions(log.path)
    assert (execution.status, execution.ended_at) == ("killed", None)


def test_lines_lost_between_the_end_and_the_account_are_not_the_executions(log: Log) -> None:
    log.end()
    log.line()
    account(log)
    (execution,) = reader.executions(log.path)
    assert execution.lost_records == 0


def test_fields_of_a_share_are_those_of_the_event() -> None:
    assert set(Share.__struct_fields__) <= set(events.MetricsExecution.__struct_fields__)


def test_fields_of_resources_are_those_of_a_share() -> None:
    assert set(reader.Resources.__struct_fields__) <= set(Share.__struct_fields__)


numbers = st.none() | st.floats(0, 1e6)


@given(st.lists(st.builds(Share, cpu_seconds=numbers, peak_memory_mb=numbers, attribution=st.just("overlap"))))
def test_nothing_is_invented(shares: list[Share]) -> None:
    total = Shares()
    for share in shares:
        total.add(share)
    found = total.finish()
    assert (found is None) == (not shares)
    if found is not None:
        amounts = [share.cpu_seconds for share in shares if share.cpu_seconds is not None]
        assert found.cpu_seconds == (pytest.approx(sum(amounts), abs=1e-9) if amounts else None)
        assert found.peak_memory_mb == max(
            (s.peak_memory_mb for s in shares if s.peak_memory_mb is not None), default=None
        )


@pytest.mark.parametrize("junk", ["many", True, [], {"a": 1}, -1, 1e300])
def test_junk_in_an_account_costs_the_field_only(tmp_path: Path, junk: Any) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    for _ in range(2):
        writer.write("metrics.execution", execution_id="e1", **{**SHARE, "cpu_seconds": junk, "unknown": junk})
    detail = reader.detail("e1", tmp_path)
    assert detail is not None
    assert detail.resources is not None
    assert detail.resources.file_write_bytes == 8192
    assert resource_lines(detail.resources)
