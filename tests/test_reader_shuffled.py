"""Executions told by plain lines come out the same whichever writers, files and segments their lines are spread over."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from handmade import START, Writer
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log import reader

IDS = ("e1", "e2", "e3")


@dataclass
class Said:
    """A line, and how it is written when the lines are spread: by which writer, with a new segment before it or not."""

    execution_id: str
    level: str
    message: str
    fields: dict[str, Any]
    writer: int
    rotate: bool


def one_of(**choices: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=choices)


STATES = st.sampled_from(
    ["pending", "RUNNING", "paused", "COMPLETED", "failed", "cancelled", "success", "skipped", "odd"]
)
ATTEMPTS = st.integers(1, 4)
LINES = st.one_of(
    st.tuples(st.just("Crew execution initiated"), one_of(inputs=st.integers(), attempt=ATTEMPTS, status=STATES)),
    st.tuples(
        st.just("Crew execution completed"),
        st.fixed_dictionaries({"duration_seconds": st.floats(0, 1e3), "total_tokens": st.integers(0, 9)}),
    ),
    st.tuples(
        st.just("Crew execution failed"),
        st.fixed_dictionaries({"error_type": st.just("E"), "attempt": ATTEMPTS, "max_retries": st.just(3)}),
    ),
    st.tuples(
        st.just("Execution metrics captured"),
        st.fixed_dictionaries({"duration_seconds": st.floats(0, 1e3), "cpu_usage_percent": st.integers(0, 99)}),
    ),
    st.tuples(st.just("State"), one_of(state_from=STATES, state_to=STATES)),
    st.tuples(
        st.just("File operation: save"),
        st.fixed_dictionaries(
            {"operation": st.just("save"), "file_path": st.just("out.json"), "status": STATES, "attempt": ATTEMPTS}
        ),
    ),
    st.tuples(
        st.just("LLM configuration"),
        st.fixed_dictionaries({"model_name": st.sampled_from("ab"), "temperature": st.just(0.2), "top_p": st.just(1)}),
    ),
    st.tuples(
        st.just("build completed"), st.just({"operation": "build", "status": "success", "duration_seconds": 1.0})
    ),
    st.tuples(st.just("Working"), one_of(outputs=st.integers(), memory_mb=st.integers(0, 99), crew_name=st.just("c"))),
)
SAID = st.builds(
    lambda execution_id, level, line, writer, rotate: Said(execution_id, level, *line, writer, rotate),
    st.sampled_from(IDS),
    st.sampled_from(["INFO", "ERROR"]),
    LINES,
    st.integers(0, 2),
    st.booleans(),
)


def write(folder: Path, said: list[Said], writers: int) -> None:
    """Write each line at its own time, all of them by one writer or each by its own."""
    logs = [Writer(folder / f"app.{name * 8}.jsonl", name * 8) for name in "abc"[:writers]]
    for log in logs:
        log.open_segment()
    for number, line in enumerate(said, 1):
        log = logs[line.writer % writers]
        if line.rotate and writers > 1:
            log.rotate(number)
        log.time = START + number
        log.write("log", line.message, level=line.level, execution_id=line.execution_id, **line.fields)
    for log in logs:
        log.close()


def read(folder: Path) -> tuple[object, object]:
    """What both commands tell, without who wrote it."""
    details = [msgspec.to_builtins(reader.detail(execution_id, folder)) for execution_id in IDS]
    for record in (record for found in details if found is not None for record in found["records"]):
        del record["writer"], record["seq"]
    return msgspec.to_builtins(reader.executions(folder)), details


@settings(max_examples=80, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=25))
def test_spreading_lines_over_writers_and_segments_changes_nothing(said: list[Said]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as many:
        write(Path(one), said, 1)
        write(Path(many), said, 3)
        assert read(Path(many)) == read(Path(one))


@settings(max_examples=80, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=25))
def test_states_that_show_tells_agree_with_the_status_that_ls_tells(said: list[Said]) -> None:
    with TemporaryDirectory() as name:
        write(Path(name), said, 1)
        for execution in reader.executions(name):
            found = reader.detail(execution.execution_id, name)
            assert found is not None
            last = found.states[-1].state_to
            assert execution.status == (last if execution.ended_at is not None else "killed")
            assert (last in {"completed", "failed", "cancelled", "success", "skipped"}) == (
                execution.ended_at is not None
            )
            assert all((a.state_from, a.state_to) != (b.state_from, b.state_to) for a, b in pairs(found.states))


def pairs(states: list[reader.State]) -> list[tuple[reader.State, reader.State]]:
    return list(zip(states, states[1:], strict=False))
