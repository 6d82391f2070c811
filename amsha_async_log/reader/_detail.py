"""Everything about one execution: what `show` shows."""

from typing import Any

from msgspec import Struct, structs

from ._executions import LINES, Collector
from ._files import StrPath, snapshot
from ._lines import decode_record
from ._merge import merged
from ._run import Execution, Run
from ._writers import Line

__all__ = ["Detail", "ExecutionDetail", "State", "Step", "detail"]


class ExecutionDetail(Execution, kw_only=True):
    """An execution with what went in and what came out. None: nothing was said."""

    inputs: Any
    outputs: Any


class State(Struct, kw_only=True):
    """A change of an execution's state."""

    timestamp: float | None
    """Unix seconds."""
    event: str
    state_from: str | None
    state_to: str | None


class Step(Struct, kw_only=True):
    """A step of an execution. None: unknown."""

    step_id: str
    parent_step_id: str | None
    kind: str | None
    name: str | None
    status: str
    """`completed failed cancelled`; without an end that of the execution, and `unknown` where that has ended."""
    started_at: float | None
    """Unix seconds."""
    duration_seconds: float | None
    error_type: str | None


class Detail(Struct, kw_only=True):
    """One execution with all of its lines."""

    execution: ExecutionDetail
    states: list[State]
    steps: list[Step]
    """In the order they started; the tree is in `parent_step_id`."""
    records: list[dict[str, Any]]
    """Its lines, decoded."""
    last_activity: float | None
    """Unix seconds of its last line."""
    complete: bool
    """Its start, its end and everything between are in the files."""


def detail(execution_id: str, *paths: StrPath) -> Detail | None:
    """One execution with its steps, states and lines; None when the log has no line of it.

    Paths as for `records`. Memory grows with the lines of this execution. Raises `ReadError` when a path stands for
    nothing or a file cannot be read.
    """
    collector = Collector(only=execution_id)
    story = _Story()

    def decode(data: bytes) -> tuple[Line, dict[str, Any] | None] | None:
        line = LINES.decode(data)
        if line is None:
            return None
        wanted = line.execution_id is not None and str(line.execution_id) == execution_id
        return line, decode_record(data) if wanted else None

    with snapshot(paths) as lanes:
        for lane, (line, record) in merged(lanes, decode, lambda item: item[0].timestamp):
            collector.add(lane, line)
            if record is not None:
                story.add(line, record)
    run = collector.runs.get(execution_id)
    return None if run is None else story.finish(run, collector.finish(run))


class _Story:
    """The lines of one execution while they go by."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._states: list[State] = []
        self._steps: dict[str, Step] = {}
        self._inputs: Any = None
        self._outputs: Any = None

    def add(self, line: Line, record: dict[str, Any]) -> None:
        self._records.append(record)
        lifecycle = line.event.startswith("execution.")
        if lifecycle or line.step_id is None:  # what a step takes and gives is not the execution's
            self._inputs = record.get("inputs", self._inputs)
            self._outputs = record.get("outputs", self._outputs)
        if lifecycle:
            self._add_state(line)
        elif line.event.startswith("step.") and line.step_id is not None:
            self._add_step(str(line.step_id), line)

    def _add_state(self, line: Line) -> None:
        before = self._states[-1].state_to if self._states else None
        after = line.state_to or line.status or line.event.partition(".")[2]
        self._states.append(
            State(timestamp=line.timestamp, event=line.event, state_from=line.state_from or before, state_to=after)
        )

    def _add_step(self, step_id: str, line: Line) -> None:
        step = self._steps.get(step_id)
        if step is None:
            step = self._steps[step_id] = Step(
                step_id=step_id,
                parent_step_id=None,
                kind=None,
                name=None,
                status="",
                started_at=None,
                duration_seconds=None,
                error_type=None,
            )
        step.kind = line.step_kind or step.kind
        step.name = line.step_name or step.name
        if line.parent_step_id is not None:
            step.parent_step_id = str(line.parent_step_id)
        if line.event == "step.started":
            step.started_at = line.timestamp
        elif line.event != "step.state_changed":
            step.status = line.status or line.event.partition(".")[2]
            step.duration_seconds = line.duration_seconds
            step.error_type = line.error_type
            if step.started_at is None and line.timestamp is not None and line.duration_seconds is not None:
                step.started_at = round(line.timestamp - line.duration_seconds, 6)

    def finish(self, run: Run, execution: Execution) -> Detail:
        for step in self._steps.values():
            step.status = step.status or (execution.status if run.end is None else "unknown")
        return Detail(
            execution=ExecutionDetail(**structs.asdict(execution), inputs=self._inputs, outputs=self._outputs),
            states=self._states,
            steps=list(self._steps.values()),
            records=self._records,
            last_activity=run.last_time,
            complete=run.complete and execution.lost_records == 0,
        )
