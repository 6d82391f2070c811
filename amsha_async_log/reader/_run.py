"""One execution: what `ls` says of it, and how that is gathered while its lines go by."""

from typing import Final

from msgspec import Struct

from ._attempts import Attempts
from ._resources import EVENT
from ._states import OPEN, Course, End, about_execution
from ._usage import Usage
from ._writers import Line

__all__ = ["PARTS", "REPEATED_CALLS", "STEP_ENDS", "Execution", "Run"]

ENDS: Final = frozenset({"execution.completed", "execution.failed", "execution.cancelled"})
STEP_ENDS: Final = frozenset({"step.completed", "step.failed", "step.cancelled"})
REPEATED_CALLS: Final = frozenset({"llm.call.retried", "llm.call.rate_limited"})
PARTS: Final = ("llm.", "tool.", "file.", "error.", "sample.", "config.", "metrics.", "log.")
"""Events about a part of an execution: their `status` or `duration_seconds` is not the execution's."""
_SEVERE: Final = frozenset({"ERROR", "CRITICAL"})


class Execution(Struct, kw_only=True):
    """One execution, rebuilt from its lines. None: unknown."""

    execution_id: str
    parent_execution_id: str | None
    depends_on: list[str]
    crew_name: str | None
    model_name: str | None
    status: str
    """How it ended: `completed failed cancelled`, or for plain lines what they say (`success skipped` too).

    Without an end: `running`, or the last state it was said to be in (`pending paused`), while its writer holds the
    lock on its file, `killed` when it does not, `unknown` when the writer ran on another machine or before a reboot.
    """
    started_at: float | None
    """Unix seconds, as `ended_at`; the first line's where no line says that it started."""
    ended_at: float | None
    duration_seconds: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cost_usd: float | None
    """US dollars."""
    steps: int
    llm_calls: int
    """Answered, failed, refused and retried calls alike."""
    errors: int
    """Lines of level ERROR and CRITICAL."""
    retries: int
    """Model calls that were made again, starts of the execution or a step with `attempt` above 1, and each further
    attempt that only other lines about the execution tell of."""
    peak_memory_mb: float | None
    """MB of 2^20 bytes, as `peak_gpu_memory_mb`; from the accounts that samplers gave of it or, without any, from the
    samples of its writers and its own lines while it ran."""
    peak_gpu_memory_mb: float | None
    mean_cpu_percent: float | None
    lost_records: int
    """Records its writers lost or refused while it ran, and lines of theirs that are missing: an upper bound."""


class Run:
    """An execution while its lines go by."""

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        self.parent_execution_id: str | None = None
        self.depends_on: list[str] = []
        self.crew_name: str | None = None
        self.model_name: str | None = None
        self.first_time: float | None = None
        self.last_time: float | None = None
        self.started_at: float | None = None
        self.started_by: str | None = None
        """The writer of its start."""
        self.lifecycle = False
        """It has lines of its own kind, so that plain ones do not end it."""
        self.course = Course()
        """Its states, from lines of its own kind where there are any."""
        self.usage = Usage()
        self.errors = 0
        self.spans: dict[str, list[int]] = {}
        """Writer to its first and last `seq` in this execution."""
        self._retries = 0
        self._attempts = Attempts()
        self._steps = 0
        self._open_steps: set[str | int] = set()

    @property
    def end(self) -> End | None:
        """How it ended, None while it has not."""
        return self.course.end

    @property
    def complete(self) -> bool:
        """Its start and its end are there, and so are those of all its steps."""
        started = self.started_by is not None or not self.lifecycle
        return started and self.end is not None and not self._open_steps

    def add(self, line: Line) -> None:
        """Take the next line of this execution."""
        if line.timestamp is not None:
            self.first_time = line.timestamp if self.first_time is None else self.first_time
            self.last_time = line.timestamp
        self.crew_name = self.crew_name or line.crew_name
        self.model_name = self.model_name or line.model_name
        if line.parent_execution_id is not None:
            self.parent_execution_id = str(line.parent_execution_id)
        span = self.spans.setdefault(line.writer, [line.seq, line.seq])
        attributed = line.event == EVENT and line.attribution is not None
        if not attributed or self.end is None:  # an account comes later than the end, and what is lost between is not
            span[1] = line.seq  # the execution's
        self.errors += line.level in _SEVERE
        event = line.event
        if event == "log":
            self._add_plain(line)
        elif event.startswith("execution."):
            self._add_lifecycle(line)
        elif event.startswith("step."):
            self._add_step(line)
        elif event.startswith("llm.call."):
            self.usage.add_call(line)
            self._retries += event in REPEATED_CALLS
        elif event.startswith("metrics."):
            self.usage.set_reported(line)
        elif not event.startswith(PARTS):
            self._add_plain(line)
        self.usage.add_resources(line)
        if attributed:
            self.usage.add_attributed(line)

    def _add_lifecycle(self, line: Line) -> None:
        if line.event == "execution.state_changed":
            self.usage.add_recorded(line)
            if line.state_to is None and line.status is None:
                return  # what it was told after its end, or by a process that only joined it
        if not self.lifecycle:
            self.lifecycle = True
            self.course = Course()  # what plain lines said before does not count any more
        self.course.lifecycle(line)
        start = line.event == "execution.started"
        self._attempts.add(line.attempt, start=start)
        if start:
            self.started_at = line.timestamp
            self.started_by = line.writer
            self.depends_on = list(map(str, line.depends_on or self.depends_on))
            self.crew_name = line.crew_name or self.crew_name
            self.model_name = line.model_name or self.model_name
            self._retries += line.attempt is not None and line.attempt > 1
        elif line.event in ENDS:
            self.usage.add_recorded(line)

    def _add_step(self, line: Line) -> None:
        step_id = line.step_id
        if step_id is None:
            return
        if line.event == "step.state_changed":
            self.usage.add_recorded(line)
        elif line.event == "step.started":
            self._steps += step_id not in self._open_steps
            self._open_steps.add(step_id)
            self._retries += line.attempt is not None and line.attempt > 1
        elif line.event in STEP_ENDS:
            if step_id in self._open_steps:
                self._open_steps.remove(step_id)
            else:
                self._steps += 1  # its start is not in the file
            self.usage.add_recorded(line)

    def _add_plain(self, line: Line) -> None:
        if line.operation is not None:
            return
        self.usage.set_reported(line)
        if about_execution(line):
            if not self.lifecycle:
                self.course.plain(line)
            if line.attempt is not None:
                self._attempts.add(line.attempt)

    def finish(self, status: str, lost_records: int) -> Execution:
        """The execution; `status` is whether its writer lives, and holds if it has not ended."""
        end, course = self.end, self.course
        if status == "running" and course.state in OPEN:
            status = course.state
        started_at = self.started_at if self.started_at is not None else self.first_time
        ended_at = end.time if end else None
        duration = course.duration if end else None
        if duration is None and ended_at is not None and started_at is not None:
            duration = max(0.0, round(ended_at - started_at, 6))
        tokens = self.usage.tokens
        return Execution(
            execution_id=self.execution_id,
            parent_execution_id=self.parent_execution_id,
            depends_on=self.depends_on,
            crew_name=self.crew_name,
            model_name=self.model_name,
            status=end.status if end else status,
            started_at=started_at,
            ended_at=ended_at,
            duration_seconds=duration,
            prompt_tokens=tokens.prompt,
            completion_tokens=tokens.completion,
            total_tokens=tokens.total,
            cost_usd=self.usage.cost_usd,
            steps=self._steps,
            llm_calls=self.usage.calls,
            errors=self.errors,
            retries=self._retries + len(self._attempts.untold),
            peak_memory_mb=self.usage.peak_memory_mb,
            peak_gpu_memory_mb=self.usage.peak_gpu_memory_mb,
            mean_cpu_percent=self.usage.mean_cpu_percent,
            lost_records=lost_records,
        )
