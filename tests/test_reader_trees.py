"""Random trees of executions and steps, written by several writers into several files, are rebuilt exactly."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from handmade import START, Writer
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log import reader

Line = tuple[str, dict[str, object]]


@dataclass
class StepNode:
    """A step to be logged."""

    name: str
    how: str | None
    duration: float
    notes: int
    steps: list["StepNode"] = field(default_factory=list)
    step_id: str = ""

    def lines(self, parent: str | None) -> Iterator[Line]:
        ids: dict[str, object] = {"step_id": self.step_id}
        under = {} if parent is None else {"parent_step_id": parent}
        yield "step.started", {**ids, **under, "step_kind": "task", "step_name": self.name, "status": "running"}
        for number in range(self.notes):
            yield "log", {**ids, "note": number}
        for step in self.steps:
            yield from step.lines(self.step_id)
        if self.how is not None:
            end = {"step_kind": "task", "step_name": self.name, "duration_seconds": self.duration, "status": self.how}
            yield f"step.{self.how}", {**ids, **end}

    def flat(self, parent: str | None = None) -> Iterator[tuple[object, ...]]:
        status = self.how
        yield self.step_id, parent, self.name, status, self.duration if status is not None else None
        for step in self.steps:
            yield from step.flat(self.step_id)


@dataclass
class RunNode:
    """An execution to be logged."""

    crew: str
    how: str | None
    duration: float
    steps: list[StepNode]
    runs: list["RunNode"] = field(default_factory=list)
    execution_id: str = ""

    def flat(self, parent: str | None = None) -> Iterator[tuple["RunNode", str | None]]:
        yield self, parent
        for run in self.runs:
            yield from run.flat(self.execution_id)

    def lines(self, parent: str | None) -> Iterator[Line]:
        base: dict[str, object] = {"execution_id": self.execution_id, "crew_name": self.crew}
        under = {} if parent is None else {"parent_execution_id": parent}
        yield "execution.started", {**base, **under, "status": "running"}
        for step in self.steps:
            for event, fields in step.lines(None):
                yield event, {**base, **fields}
        if self.how is not None:
            yield f"execution.{self.how}", {**base, "status": self.how, "duration_seconds": self.duration}


NAMES = st.text(min_size=1, max_size=8)
ENDS = st.sampled_from(["completed", "failed", "cancelled", None])
DURATIONS = st.floats(0, 1e6, allow_nan=False)
STEPS = st.recursive(
    st.builds(StepNode, NAMES, ENDS, DURATIONS, st.integers(0, 3)),
    lambda children: st.builds(
        StepNode, NAMES, ENDS, DURATIONS, st.integers(0, 3), st.lists(children, min_size=1, max_size=3)
    ),
    max_leaves=6,
)
RUNS = st.recursive(
    st.builds(RunNode, NAMES, ENDS, DURATIONS, st.lists(STEPS, max_size=3)),
    lambda children: st.builds(
        RunNode, NAMES, ENDS, DURATIONS, st.lists(STEPS, max_size=2), st.lists(children, min_size=1, max_size=3)
    ),
    max_leaves=5,
)


def number(run: RunNode) -> None:
    """Give every execution and step an id of its own."""
    for position, (node, _parent) in enumerate(run.flat()):
        node.execution_id = f"e{position}"
        pending, count = list(node.steps), 0
        while pending:
            step = pending.pop()
            step.step_id = f"e{position}-s{count}"
            count += 1
            pending += step.steps


def write(folder: Path, run: RunNode, chance: random.Random) -> None:
    """Write all executions at once: each by one of three writers, their lines interleaved, with rotations between."""
    writers = [Writer(folder / f"app.{name * 8}.jsonl", name * 8) for name in "abc"]
    for writer in writers:
        writer.open_segment()
    streams = [(chance.choice(writers), node.lines(parent)) for node, parent in run.flat()]
    clock, rotations = START + 1, 0
    while streams:
        index = chance.randrange(len(streams))
        writer, lines = streams[index]
        line = next(lines, None)
        if line is None:
            streams.pop(index)
            continue
        clock += 0.01
        writer.time = clock
        writer.write(line[0], **line[1])  # type: ignore[arg-type]
        if chance.random() < 0.1:
            rotations += 1
            writer.rotate(rotations)
    for writer in writers:
        writer.close()


@settings(max_examples=60, deadline=None)
@given(RUNS, st.randoms(use_true_random=False))
def test_random_trees_are_rebuilt_exactly(run: RunNode, chance: random.Random) -> None:
    number(run)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, run, chance)
        assert reader.verify(folder).ok
        found = {execution.execution_id: execution for execution in reader.executions(folder)}
        expected = dict((node.execution_id, (node, parent)) for node, parent in run.flat())
        assert found.keys() == expected.keys()
        for execution_id, (node, parent) in expected.items():
            execution = found[execution_id]
            assert (execution.crew_name, execution.parent_execution_id) == (node.crew, parent)
            assert execution.status == (node.how or "killed")
            assert execution.duration_seconds == (node.duration if node.how else None)
            detail = reader.detail(execution_id, folder)
            assert detail is not None
            assert_steps(detail, node)


def assert_steps(detail: reader.Detail, node: RunNode) -> None:
    open_status = "unknown" if node.how else "killed"
    expected = {
        (step_id, parent, name, status or open_status, duration)
        for step in node.steps
        for step_id, parent, name, status, duration in step.flat()
    }
    found = {(s.step_id, s.parent_step_id, s.name, s.status, s.duration_seconds) for s in detail.steps}
    assert found == expected
    assert detail.execution.steps == len(expected)
    assert [record["event"] for record in detail.records] == [event for event, _fields in node.lines(None)]
