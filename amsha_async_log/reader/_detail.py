"""Everything about one execution: what `show` shows."""

from typing import Any, Final

from msgspec import Struct, structs

from ._executions import LINES, Collector
from ._facts import Facts, FileUse, Particulars, Retry, Setting
from ._files import StrPath, snapshot
from ._gather import gather
from ._lanes import Lane
from ._lines import LineDecoder, decode_record
from ._resources import EVENT, Resources, Share, Shares
from ._run import PARTS, STEP_ENDS, Execution, Run
from ._states import OPEN, Course, about_execution
from ._writers import Line

__all__ = ["Detail", "ExecutionDetail", "State", "Step", "detail"]

PARTICULARS: Final = LineDecoder(Particulars)
SHARES: Final = LineDecoder(Share)


class ExecutionDetail(Execution, kw_only=True):
    """An execution with what went in and what came out. None: nothing was said."""

    inputs: Any
    outputs: Any


class State(Struct, kw_only=True):
    """A change of an execution's state."""

    timestamp: float | None
    """Unix seconds."""
    event: str
    """`log` for a plain line."""
    state_from: str | None
    """The state before where the line does not tell it; both in lower case."""
    state_to: str | None


class Step(Struct, kw_only=True):
    """A step of an execution. None: unknown."""

    step_id: str
    parent_step_id: str | None
    kind: str | None
    name: str | None
    status: str
    """How it ended: `completed failed cancelled`. Without an end: its last state while the execution runs, that of the
    execution where this was killed or is unknown, and `unknown` where it has ended.
    """
    started_at: float | None
    """Unix seconds."""
    duration_seconds: float | None
    error_type: str | None
    state: str | None
    """The last one that its lines tell, whatever became of its execution."""
    depends_on: list[str]
    """Names or ids of other steps, as the program gave them."""
    attempt: int | None
    max_retries: int | None
    agent_name: str | None
    inputs: Any
    outputs: Any


class Detail(Struct, kw_only=True):
    """One execution with all of its lines, and what they tell."""

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
    files: list[FileUse]
    retries: list[Retry]
    """More than its number of retries where tools or files were tried again or errors were recovered from."""
    configuration: list[Setting]
    resources: Resources | None
    """What it cost its machine. None: no sampler gave an account of it."""


def detail(execution_id: str, *paths: StrPath) -> Detail | None:
    """One execution with its steps, states and lines; None when the log has no line of it.

    Paths as for `records`. Memory grows with the lines of this execution. Raises `ReadError` when a path stands for
    nothing or a file cannot be read.
    """

    def decode(data: bytes) -> tuple[Line, _Found | None] | None:
        line = LINES.decode(data)
        if line is None:
            return None
        if line.execution_id is None or str(line.execution_id) != execution_id:
            return line, None
        record, more = decode_record(data), PARTICULARS.decode(data)
        share = SHARES.decode(data) if line.event == EVENT else None
        return line, None if record is None or more is None else (record, more, share)

    def take(told: tuple[Collector, _Story], lane: Lane, item: tuple[Line, _Found | None]) -> None:
        line, found = item
        told[0].add(lane, line)
        if found is not None:
            told[1].add(line, *found)

    with snapshot(paths) as lanes:
        collector, story = gather(
            lanes, decode, lambda item: item[0], lambda: (Collector(only=execution_id), _Story()), take
        )
    run = collector.runs.get(execution_id)
    return None if run is None else story.finish(run, collector.finish(run))


_Found = tuple[dict[str, Any], Particulars, Share | None]
"""A line of the execution that is asked for, decoded."""


class _Story:
    """The lines of one execution while they go by."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._states: list[State] = []
        self._course = Course()
        self._lifecycle = False
        self._steps: dict[str, _StepStory] = {}
        self._facts = Facts()
        self._shares = Shares()
        self._said: dict[str, Any] = {}
        """`inputs` and `outputs` from the execution's own lines."""
        self._said_plainly: dict[str, Any] = {}
        """The same from plain lines, for when the execution's own lines say nothing."""

    def add(self, line: Line, record: dict[str, Any], more: Particulars, share: Share | None) -> None:
        self._records.append(record)
        self._facts.add(line, more, record)
        if share is not None:
            self._shares.add(share)
        if line.event.startswith("execution."):
            _take_payload(self._said, record)
            if line.event != "execution.state_changed" or line.state_to is not None or line.status is not None:
                self._add_lifecycle(line)
        elif line.event.startswith("step."):
            self._begin(line)
            if line.step_id is not None:
                self._add_step(str(line.step_id), line, record, more)
        elif line.event.startswith(PARTS) or not about_execution(line):
            self._begin(line)  # what a step or a tool takes and gives is not the execution's
        else:
            _take_payload(self._said_plainly, record)
            if not self._lifecycle and (self._course.plain(line) or self._course.begin()):
                self._add_state(line)

    def _begin(self, line: Line) -> None:
        if not self._lifecycle and self._course.begin():
            self._add_state(line)

    def _add_lifecycle(self, line: Line) -> None:
        if not self._lifecycle:
            self._lifecycle = True
            self._course = Course()
            self._states.clear()
        if self._course.lifecycle(line):
            self._add_state(line)

    def _add_state(self, line: Line) -> None:
        """The state that the line led to; told again, it is no new one."""
        came_from = line.state_from.lower() if line.state_from else None
        last = self._states[-1] if self._states else None
        state = self._course.state
        if last is not None and last.state_to == state:
            if came_from in (None, state, last.state_from):
                return
            if last.state_from is None:
                last.state_from = came_from
                return
        before = last.state_to if last is not None else None
        self._states.append(
            State(timestamp=line.timestamp, event=line.event, state_from=came_from or before, state_to=state)
        )

    def _add_step(self, step_id: str, line: Line, record: dict[str, Any], more: Particulars) -> None:
        step = self._steps.get(step_id)
        if step is None:
            step = self._steps[step_id] = _StepStory(step_id)
        step.add(line, record, more)

    def finish(self, run: Run, execution: Execution) -> Detail:
        said = {"inputs": None, "outputs": None, **self._said_plainly, **self._said}
        return Detail(
            execution=ExecutionDetail(**structs.asdict(execution), **said),
            states=self._states,
            steps=[step.finish(run, execution) for step in self._steps.values()],
            records=self._records,
            last_activity=run.last_time,
            complete=run.complete and execution.lost_records == 0,
            files=self._facts.files,
            retries=self._facts.retries,
            configuration=self._facts.settings,
            resources=self._shares.finish(),
        )


class _StepStory:
    """The lines of one step while they go by."""

    def __init__(self, step_id: str) -> None:
        self._course = Course()
        self._said: dict[str, Any] = {}
        self._step = Step(
            step_id=step_id,
            parent_step_id=None,
            kind=None,
            name=None,
            status="",
            started_at=None,
            duration_seconds=None,
            error_type=None,
            state=None,
            depends_on=[],
            attempt=None,
            max_retries=None,
            agent_name=None,
            inputs=None,
            outputs=None,
        )

    def add(self, line: Line, record: dict[str, Any], more: Particulars) -> None:
        step = self._step
        step.kind = line.step_kind or step.kind
        step.name = line.step_name or step.name
        step.agent_name = more.agent_name or step.agent_name
        step.depends_on = list(map(str, line.depends_on)) if line.depends_on else step.depends_on
        step.attempt = more.attempt if more.attempt is not None else step.attempt
        step.max_retries = more.max_retries if more.max_retries is not None else step.max_retries
        if line.parent_step_id is not None:
            step.parent_step_id = str(line.parent_step_id)
        _take_payload(self._said, record)
        self._course.lifecycle(line)
        if line.event == "step.started":
            step.started_at = line.timestamp
            step.error_type = None
        elif line.event in STEP_ENDS:
            step.error_type = line.error_type
            if step.started_at is None and line.timestamp is not None and line.duration_seconds is not None:
                step.started_at = round(line.timestamp - line.duration_seconds, 6)

    def finish(self, run: Run, execution: Execution) -> Step:
        step, course = self._step, self._course
        step.state = course.state
        step.duration_seconds = course.duration
        step.inputs, step.outputs = self._said.get("inputs"), self._said.get("outputs")
        if course.end is not None:
            step.status = course.end.status
        elif run.end is not None:
            step.status = "unknown"
        elif execution.status in OPEN and course.state in OPEN:
            step.status = course.state
        else:
            step.status = execution.status
        return step


def _take_payload(said: dict[str, Any], record: dict[str, Any]) -> None:
    """Take over what a record says of inputs and outputs."""
    for name in ("inputs", "outputs"):
        if record.get(name) is not None:
            said[name] = record[name]
