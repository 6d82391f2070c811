"""The state of a log that is followed: what is known of writers, executions and the machine at one moment."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from handmade import BOOT_ID, HOST, Log, Writer
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log import ReadError, reader
from amsha_async_log.reader import _live, _live_runs, _tail
from amsha_async_log.reader._live import LiveLog, LiveState
from amsha_async_log.reader._live_views import LiveView

NOW = 1_763_805_100.0


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.jsonl")


@pytest.fixture
def locked(log: Log) -> Iterator[Log]:
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield log


@pytest.fixture
def _no_pause_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_live, "LOOK_S", 0.0)


def state_of(*lines: dict[str, Any], now: float = NOW) -> LiveState:
    state = LiveState(clock=lambda: now)
    for number, line in enumerate(lines, 1):
        state.add({"writer": "aaaaaaaa", "seq": number, "level": "INFO", "timestamp": NOW - 10 + number, **line})
    return state


def view_of(*lines: dict[str, Any], now: float = NOW) -> LiveView:
    return state_of(*lines, now=now).view()


def caught_up(log: Writer) -> LiveView:
    live = LiveLog(log.path)
    live.catch_up()
    return live.state.view()


def opened(**changed: Any) -> dict[str, Any]:
    return {"event": "log.segment_opened", "host": HOST, "boot_id": BOOT_ID, "pid": 7, "program": "app.py", **changed}


# -- shape -------------------------------------------------------------------------------------------------------------


def test_view_encodes_to_the_documented_keys() -> None:
    assert list(msgspec.to_builtins(view_of())) == (
        "timestamp writers host processes gpus loops executions records_per_second lost_records".split()
    )


def test_nothing_is_known_of_a_log_without_lines() -> None:
    view = view_of()
    assert (view.writers, view.host, view.executions, view.records_per_second) == ([], None, [], 0.0)


# -- writers -----------------------------------------------------------------------------------------------------------


def test_writer_is_running_while_it_holds_its_lock(locked: Log) -> None:
    locked.start()
    view = caught_up(locked)
    assert [(writer.status, writer.program, writer.pid) for writer in view.writers] == [("running", "test", 1)]
    assert [run.status for run in view.executions] == ["running"]


def test_writer_without_its_lock_is_killed_and_so_are_its_executions(log: Log) -> None:
    log.start()
    view = caught_up(log)
    assert [writer.status for writer in view.writers] == ["killed"]
    assert [run.status for run in view.executions] == ["killed"]


def test_writer_that_ended_in_order_is_closed(log: Log) -> None:
    log.close()
    assert [writer.status for writer in caught_up(log).writers] == ["closed"]


def test_writer_of_another_machine_is_unknown(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment(host="elsewhere")
    writer.write("execution.started", execution_id="e1")
    view = caught_up(writer)
    assert (view.writers[0].status, view.executions[0].status) == ("unknown", "unknown")


def test_earlier_writer_of_a_file_is_killed_although_a_later_one_holds_its_lock(locked: Log) -> None:
    later = Log(locked.path, "bbbbbbbb")
    later.start("e2")
    assert [writer.status for writer in caught_up(later).writers] == ["killed", "running"]


@pytest.mark.usefixtures("_no_pause_between_looks")
def test_kill_is_seen_while_following(log: Log) -> None:
    live = LiveLog(log.path)
    with log.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        log.start()
        live.catch_up()
        before = live.state.view()
    live.update()
    after = live.state.view()
    assert [(view.writers[0].status, view.executions[0].status) for view in (before, after)] == [
        ("running", "running"),
        ("killed", "killed"),
    ]


@pytest.mark.usefixtures("_no_pause_between_looks")
def test_writer_that_turns_up_and_one_that_rotates_are_followed(locked: Log) -> None:
    live = LiveLog(locked.path)
    live.catch_up()
    locked.start("e1")
    locked.rotate(1)
    locked.end(execution_id="e1")
    other = Log(locked.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb")
    other.start("e2")
    with other.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        live.update()
        live.update()
    view = live.state.view()
    assert {run.execution_id: run.status for run in view.executions} == {"e1": "completed", "e2": "running"}
    assert [writer.writer for writer in view.writers] == ["aaaaaaaa", "bbbbbbbb"]


def test_killed_writer_is_not_told_before_all_it_wrote_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tail, "POLL_BYTES", 2_000)
    log.start()
    for _ in range(100):
        log.put(message="x" * 100)
    log.end()
    log.close()
    live = LiveLog(log.path)
    statuses = set()
    while not statuses or live.behind:
        live.update()
        statuses |= {writer.status for writer in live.state.view().writers}
    assert statuses == {"running", "closed"}


def test_unlocked_file_with_a_last_line_that_is_torn_still_names_its_writer(locked: Log) -> None:
    locked.start()
    locked.append(b'{"event":"log","writer":"zzzzzzzz","se')
    assert [writer.status for writer in caught_up(locked).writers] == ["running"]


def test_last_line_longer_than_a_block_still_names_its_writer(locked: Log) -> None:
    locked.put(message="x" * 300_000)
    assert [writer.status for writer in caught_up(locked).writers] == ["running"]


def test_losses_are_what_writers_declare_or_sample(log: Log) -> None:
    log.lose(5)
    log.write("sample.process", log_lost=3)
    other = Log(log.path.with_name("app.bbbbbbbb.jsonl"), "bbbbbbbb")
    other.write("sample.process", log_lost=4)
    view = caught_up(log)
    assert {writer.writer: writer.lost_records for writer in view.writers} == {"aaaaaaaa": 5, "bbbbbbbb": 4}
    assert view.lost_records == 9


def test_writers_that_ended_long_ago_are_forgotten_but_not_what_they_lost() -> None:
    state = LiveState(clock=lambda: NOW)
    for number in range(_live.KEPT_WRITERS + 50):
        state.add({"event": "log.closed", "writer": f"w{number}", "refused": 1})
    state.settle({}, set())
    view = state.view()
    assert (len(view.writers), view.lost_records) == (_live.KEPT_WRITERS, _live.KEPT_WRITERS + 50)


def test_source_that_is_not_ok_is_told_until_it_is() -> None:
    wrong = {"event": "sample.source_changed", "source": "gpu", "state_to": "hung"}
    assert view_of(wrong).writers[0].sources == {"gpu": "hung"}
    assert view_of(wrong, {**wrong, "state_to": "ok"}).writers[0].sources == {}


def test_rate_is_that_of_the_last_seconds() -> None:
    lines = [{"message": "x", "timestamp": NOW - 3 + number / 100} for number in range(100)]
    assert view_of(*lines, {"event": "log.dropped", "timestamp": NOW - 2}).records_per_second == 100 / _live.RATE_S


def test_path_that_stands_for_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        LiveLog(tmp_path / "none.jsonl").catch_up()


# -- executions --------------------------------------------------------------------------------------------------------


def put(event: str, execution_id: str = "e1", **fields: Any) -> dict[str, Any]:
    return {"event": event, "execution_id": execution_id, "crew_name": "crew", **fields}


def test_running_execution_tells_its_age_step_and_usage() -> None:
    (run,) = view_of(
        put("execution.started", timestamp=NOW - 30),
        put("step.started", step_id="s1", step_name="outer"),
        put("step.started", step_id="s2", step_kind="tool"),
        put("llm.call.completed", total_tokens=7, cost_usd=0.5),
        put("llm.call.retried"),
        put("log", level="ERROR"),
    ).executions
    assert (run.status, run.age_seconds, run.step) == ("running", 30.0, "tool")
    assert (run.total_tokens, run.cost_usd, run.llm_calls, run.retries, run.errors) == (7, 0.5, 2, 1, 1)
    assert (run.cpu_seconds, run.energy_joules, run.attribution) == (None, None, None)


def test_step_that_ended_gives_way_to_the_one_around_it() -> None:
    (run,) = view_of(
        put("execution.started"),
        put("step.started", step_id="s1", step_name="outer"),
        put("step.started", step_id="s2", step_name="inner"),
        put("step.completed", step_id="s2"),
    ).executions
    assert run.step == "outer"


def test_share_is_told_once_a_sampler_has_told_it() -> None:
    (run,) = view_of(
        put("execution.started"),
        put("execution.completed", duration_seconds=2.0),
        put("metrics.execution", cpu_seconds=1.5, attribution="overlap", unknown={"energy_joules": "not_supported"}),
    ).executions
    assert (run.status, run.age_seconds, run.cpu_seconds) == ("completed", 2.0, 1.5)
    assert run.unknown == {"energy_joules": "not_supported"}


def test_those_that_run_come_first_then_the_latest_that_ended() -> None:
    lines = [put("execution.started", name) for name in "abcd"]
    view = view_of(*lines, put("execution.failed", "a"), put("execution.completed", "c"))
    assert [run.execution_id for run in view.executions] == ["b", "d", "c", "a"]


def test_execution_that_begins_again_runs() -> None:
    view = view_of(put("execution.started"), put("execution.failed"), put("execution.started", attempt=2))
    assert [(run.status, run.retries) for run in view.executions] == [("running", 1)]


def test_executions_that_ended_long_ago_are_forgotten_and_do_not_come_back() -> None:
    many = _live_runs.KEPT_ENDED + 100
    lines = [put(event, f"e{n}") for n in range(many) for event in ("execution.started", "execution.completed")]
    state = state_of(*lines, put("metrics.execution", "e0", attribution="exclusive"), put("log", "e1"))
    assert (state.running, state.ended) == (0, _live_runs.KEPT_ENDED)


def test_account_of_an_execution_nobody_saw_is_none() -> None:
    assert view_of(put("metrics.execution", attribution="exclusive")).executions == []


def test_executions_without_an_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_live_runs, "KEPT_RUNNING", 10)
    state = state_of(*(put("execution.started", f"e{n}") for n in range(25)))
    assert [run.execution_id for run in state.view().executions] == [f"e{n}" for n in range(15, 25)]


def test_live_executions_are_those_of_ls(tmp_path: Path) -> None:
    log = Log(tmp_path / "app.jsonl")
    for number, how in enumerate(("completed", "failed", "cancelled")):
        log.start(f"e{number}", attempt=number)
        log.put("llm.call.completed", f"e{number}", total_tokens=5, cost_usd=0.25)
        log.end(how, f"e{number}")
    log.start("e9")
    fields = "execution_id crew_name status started_at ended_at total_tokens cost_usd llm_calls retries errors".split()
    listed = {run.execution_id: [getattr(run, field) for field in fields] for run in reader.executions(log.path)}
    live = {run.execution_id: [getattr(run, field) for field in fields] for run in caught_up(log).executions}
    assert live == listed


# -- the machine -------------------------------------------------------------------------------------------------------


def test_host_and_process_are_the_latest_samples() -> None:
    view = view_of(
        opened(),
        {"event": "sample.host", "cpu_percent": 10.0},
        {"event": "sample.host", "cpu_percent": 20.0, "unknown": {"load_1m": "no_permission"}},
        {"event": "sample.process", "cpu_percent": 50.0, "log_queued": 3},
        {"event": "sample.cgroup", "memory_limit_mb": 512.0},
    )
    assert view.host is not None
    assert (view.host.host, view.host.cpu_percent, view.host.load_1m) == (HOST, 20.0, None)
    assert view.host.unknown == {"load_1m": "no_permission"}
    (process,) = view.processes
    assert (process.writer, process.cpu_percent, view.writers[0].queued_records) == ("aaaaaaaa", 50.0, 3)
    assert process.cgroup is not None
    assert process.cgroup.memory_limit_mb == 512.0


def test_this_machine_goes_before_another_whose_sample_is_newer() -> None:
    view = view_of(
        opened(),
        {"event": "sample.host", "cpu_percent": 1.0},
        opened(writer="b", host="elsewhere"),
        {"event": "sample.host", "writer": "b", "cpu_percent": 2.0},
    )
    assert view.host is not None
    assert view.host.cpu_percent == 1.0


def test_samples_go_with_the_writer_they_are_of() -> None:
    state = state_of(
        opened(),
        {"event": "sample.host", "cpu_percent": 1.0},
        {"event": "sample.process", "cpu_percent": 1.0},
        {"event": "sample.gpu", "gpu_index": 0},
        {"event": "sample.loop", "loop_name": "l"},
    )
    before = state.view()
    state.settle({}, {"aaaaaaaa"})
    after = state.view()
    assert before.host is not None
    assert (len(before.processes), len(before.gpus), len(before.loops)) == (1, 1, 1)
    assert (after.host, after.processes, after.gpus, after.loops) == (None, [], [], [])


GPU = {"event": "sample.gpu", "gpu_index": 0, "gpu_uuid": "GPU-a", "gpu_name": "H100", "source_state": "ok"}


def test_gpus_are_told_by_number_and_name() -> None:
    view = view_of(
        {**GPU, "gpu_index": 1, "gpu_uuid": "GPU-b"}, {**GPU, "gpu_percent": 3.0}, {**GPU, "gpu_percent": 4.0}
    )
    assert [(gpu.gpu_index, gpu.gpu_uuid, gpu.gpu_percent) for gpu in view.gpus] == [
        (0, "GPU-a", 4.0),
        (1, "GPU-b", None),
    ]


def test_lost_gpu_keeps_its_name_and_not_its_values() -> None:
    lost = {"event": "sample.gpu", "gpu_index": 0, "source_state": "lost", "unknown": {"gpu_percent": "lost"}}
    (gpu,) = view_of({**GPU, "gpu_percent": 3.0}, lost).gpus
    assert (gpu.gpu_name, gpu.gpu_uuid, gpu.source_state) == ("H100", "GPU-a", "lost")
    assert (gpu.gpu_percent, gpu.unknown) == (None, {"gpu_percent": "lost"})


def test_change_of_one_gpu_is_its_state() -> None:
    change = {
        "event": "sample.source_changed",
        "source": "gpu",
        "gpu_uuid": "GPU-a",
        "gpu_index": 0,
        "state_to": "lost",
    }
    view = view_of(GPU, change)
    assert ([gpu.source_state for gpu in view.gpus], view.writers[0].sources) == (["lost"], {})


STALL = {
    "event": "sample.loop_stalled",
    "loop_name": "main",
    "stalled_seconds": 1.0,
    "blocked_at": "app.py:7 in work",
    "timestamp": NOW - 5,
}


def loop(lag: float | None, time: float, **fields: Any) -> dict[str, Any]:
    return {"event": "sample.loop", "loop_name": "main", "lag_max_seconds": lag, "timestamp": time, **fields}


def test_stall_is_in_progress_while_the_lag_reaches_back_to_its_beginning() -> None:
    (found,) = view_of(loop(0.001, NOW - 6.5), STALL, loop(2.0, NOW - 4, stalls=1), loop(3.0, NOW - 3)).loops
    assert (found.stalled_seconds, found.blocked_at, found.stalls) == (6.0, "app.py:7 in work", 1)


@pytest.mark.parametrize("lag", [2.5, 0.001, None])
def test_stall_is_over_when_the_loop_has_answered(lag: float | None) -> None:
    (found,) = view_of(STALL, loop(lag, NOW - 3, stalls=1)).loops
    assert (found.stalled_seconds, found.blocked_at, found.stalls) == (None, None, 1)


def test_stall_of_a_loop_without_a_sample_is_told() -> None:
    (found,) = view_of(STALL).loops
    assert (found.loop_name, found.stalled_seconds, found.lag_max_seconds) == ("main", 6.0, None)


# -- whatever is in the lines ------------------------------------------------------------------------------------------

EVENTS = [
    *("log", "execution.started", "execution.completed", "execution.state_changed", "step.started", "step.completed"),
    *("llm.call.completed", "metrics.execution", "metrics.attribution", "sample.host", "sample.process"),
    *("sample.cgroup", "sample.gpu", "sample.loop", "sample.loop_stalled", "sample.source_changed"),
    *("log.segment_opened", "log.segment_closed", "log.closed", "log.dropped", "new.event"),
]
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
FIELDS = (
    "timestamp writer seq level message execution_id crew_name step_id step_name status state_to attempt error_type "
    "duration_seconds total_tokens cost_usd cpu_seconds cpu_error_seconds file_read_bytes attribution unknown totals "
    "refused host boot_id pid program source gpu_index gpu_uuid loop_name lag_max_seconds stalls stalled_seconds "
    "blocked_at log_lost log_queued cpu_percent memory_mb depends_on interval_seconds throttle_reasons"
).split()
plausible = {
    "timestamp": st.floats(NOW - 100, NOW + 100),
    "writer": st.sampled_from(["a", "b"]),
    "execution_id": st.sampled_from(["e1", "e2", 3]),
    "step_id": st.sampled_from(["s1", "s2"]),
    "gpu_uuid": st.sampled_from(["GPU-a", "GPU-b"]),
    "gpu_index": st.sampled_from([0, 1]),
}
likely = st.fixed_dictionaries({"event": st.sampled_from(EVENTS)}, optional=plausible)
odd = st.dictionaries(st.sampled_from(["event", *FIELDS]), junk, max_size=4)
lines = st.builds(lambda line, fields: {**line, **fields}, likely, odd)


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=12), st.sampled_from([True, False, None]))
def test_no_line_whatever_is_in_it_and_no_order_raises(records: list[dict[str, Any]], lives: bool | None) -> None:
    state = LiveState(clock=lambda: NOW)
    for record in records:
        state.add(record)
    state.view()
    state.settle({"a": lives}, state.open_writers)
    view = state.view(5)
    assert len(view.executions) <= 5
    assert {writer.status for writer in view.writers} <= {"running", "closed", "killed", "unknown"}


def test_lines_that_are_no_json_are_counted(log: Log) -> None:
    log.append(b"nonsense\n" + os.urandom(5).hex().encode() + b"}\n")
    live = LiveLog(log.path)
    live.catch_up()
    assert live.unreadable == 2
