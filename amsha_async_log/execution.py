"""Executions and steps: what runs, from when to when, with which outcome; everything logged below carries their ids."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from . import events
from ._attribution import Account
from ._context import CURRENT, Scope, uuid7
from ._propagation import trace_id_of
from ._run import Emitter, Request, Run, total_tokens
from ._snapshot import describe, encode
from ._tally import Tally

__all__ = ["Execution", "Step", "Summary", "current_execution"]

_IDS: Final = frozenset({"execution_id", "crew_name", "step_id"})
"""What an inner execution must not inherit."""
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens", "cost_usd")
_MB: Final = 1 << 20
_CALLS_AGAIN: Final = frozenset({"llm.call.retried", "llm.call.rate_limited"})
_STEP_ONCE: Final = {"steps": 1}
_STEP_AGAIN: Final = {"steps": 1, "retries": 1}
_AGAIN: Final = {"retries": 1}
_MOST_DEPENDENCIES: Final = 10_000
_LONG_IDS: Final = 200
"""Bytes above which ids are checked against the limit of a record."""


class Summary(Struct, frozen=True, kw_only=True):
    """What is known in this process of an execution, so far or when it ended. None: unknown.

    Counts include its steps, not executions inside it. What other processes log of it is in the files only.
    """

    execution_id: str
    crew_name: str
    status: str
    """`pending running paused completed failed cancelled`."""
    duration_seconds: float | None
    """From its start to its end, or to now; None before it starts."""
    prompt_tokens: int | None
    """From `llm.call.*` events where there are any, else `record_tokens`, else `metrics.execution`, never from two."""
    completion_tokens: int | None
    total_tokens: int | None
    cost_usd: float | None
    """US dollars, from the first of these sources that knows it."""
    steps: int
    llm_calls: int
    """`llm.call.*` events: answered, failed, refused and retried calls alike."""
    retries: int
    """Model calls made again, and starts (its own or a step's) with `attempt` above 1."""
    peak_memory_mb: float | None
    """The most memory (MB of 2^20 bytes) that was resident while it ran, as in `resources`. While that is not known:
    the most this process ever had resident, up to this call (getrusage), an upper bound; None on systems without it."""
    resources: events.MetricsExecution | None
    """What it cost the machine. Known within 100 ms of its end where the log samples, else None."""


class Execution(Run):
    """One run of a crew. Made by `log.execution(...)`."""

    def __init__(
        self,
        emitter: Emitter,
        crew_name: str,
        *,
        execution_id: str | None,
        parent_execution_id: str | None,
        depends_on: Iterable[str],
        inputs: object,
        attempt: int,
        max_retries: int | None,
        fields: dict[str, object],
    ) -> None:
        self.trace_id: str = ""
        """W3C trace id, 32 hexadecimal digits: that of the execution around it or of the request it was joined from,
        else its own id's. Empty before it starts, if the id is the caller's own."""
        if execution_id is None or (type(execution_id) is str and not execution_id):
            execution_id = uuid7()
            self.trace_id = execution_id.replace("-", "")
        self.execution_id: str = execution_id
        """A UUID of version 7, or the caller's own id."""
        self.crew_name: str = crew_name
        self._parent_id = parent_execution_id
        self._attempt = attempt
        self._max_retries = max_retries
        self._account: Account | None = None
        """What it costs, where the log samples."""
        self._counts = Tally()
        self._calls = Tally()
        self._reported: Mapping[str, Any] = {}
        super().__init__(emitter, fields)
        told: dict[str, object] = {} if inputs is None else {"inputs": inputs}
        if type(depends_on) is not tuple or depends_on:
            told["depends_on"] = _names(depends_on)
        if told:
            self._inputs = emitter.encode_context(told)

    def step(self, kind: str, name: str, /, **fields: object) -> "Step":
        """A step of this execution (`kind`: task, agent, tool, ...), to be entered. Steps nest by being entered.

        `attempt`, `max_retries`, `depends_on`, `inputs`, `agent_name` are fields like any other, known to the reader.
        """
        return Step(self._emitter, self, None, kind, name, fields)

    def summary(self) -> Summary:
        """What is known of it so far. Any thread."""
        counts, calls = self._counts.sums(), self._calls.sums()
        sources = [_usage(amounts) for amounts in (calls, counts, self._reported)]
        resources: events.MetricsExecution | None = None if self._account is None else self._account.resources
        tokens = next((usage for usage in sources if usage.get("total_tokens") is not None), {})
        return Summary(
            execution_id=self.execution_id,
            crew_name=self.crew_name,
            status=self.state,
            duration_seconds=self._duration if self._duration is not None else self._elapsed(),
            prompt_tokens=tokens.get("prompt_tokens"),
            completion_tokens=tokens.get("completion_tokens"),
            total_tokens=tokens.get("total_tokens"),
            cost_usd=next((usage["cost_usd"] for usage in sources if usage.get("cost_usd") is not None), None),
            steps=counts.get("steps", 0),
            llm_calls=calls.get("llm_calls", 0),
            retries=counts.get("retries", 0) + calls.get("retries", 0),
            peak_memory_mb=_peak_memory_mb() if resources is None else resources.peak_memory_mb,
            resources=resources,
        )

    # -- told by its steps and its logger ----------------------------------------------------------------------------

    def note_recorded(self, amounts: Mapping[str, Any]) -> None:
        """Tokens were recorded for it or a step of it."""
        self._counts.add(amounts)

    def note_started(self, attempt: object, *, step: bool) -> None:
        """It, or a step of it, has started."""
        if (type(attempt) is int or type(attempt) is float) and attempt > 1:
            self._counts.add(_STEP_AGAIN if step else _AGAIN)
        elif step:
            self._counts.add(_STEP_ONCE)

    def note_usage(self, event: Struct, fields: Mapping[str, object]) -> None:
        """An `llm.call.*` or `metrics.execution` event was emitted inside it, with `fields` that win over its own."""
        tag = type(event).__struct_config__.tag  # a struct of the program's own may stand for ours
        usage = _usage({name: fields.get(name, getattr(event, name, None)) for name in _TOKENS})
        if tag == "metrics.execution":
            known = self._reported
            if not usage.get("total_tokens") and known.get("total_tokens"):  # zeros mean unknown in metrics
                usage |= {name: known[name] for name in _TOKENS[:3] if name in known}
            if not usage.get("cost_usd") and "cost_usd" in known:
                usage["cost_usd"] = known["cost_usd"]
            self._reported = usage
        else:
            self._calls.add({**usage, "llm_calls": 1, "retries": int(tag in _CALLS_AGAIN)})

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _execution(self) -> "Execution":
        return self

    def _name(self) -> str:
        return "execution"

    def _scope_under(self, outside: Scope) -> Scope:
        context = outside.without(_IDS)
        if type(self.execution_id) is str and type(self.crew_name) is str:
            with suppress(UnicodeEncodeError):
                own, crew = encode(self.execution_id), encode(self.crew_name)
                if len(own) + len(crew) < _LONG_IDS:
                    return context.with_execution(own, crew, self)
        values, reasons = self._emitter.encode_context({"execution_id": self.execution_id, "crew_name": self.crew_name})
        return context.child(values, self, reasons)

    def scope(self) -> Scope:
        """What every line inside carries, steps left aside."""
        if self._scope is None:
            self._scope = self._scope_under(CURRENT.get())
        return self._scope

    def _started(self, outside: Scope, fields: Mapping[str, object]) -> Struct:
        around = _execution_of(outside.run)
        if around is self:
            around = None
        if around is not None:
            self.trace_id = around.trace_id
        elif isinstance(outside.run, Request):
            self.trace_id = outside.run.trace_id
        elif not self.trace_id:
            self.trace_id = trace_id_of(_text_of(self.execution_id))
        self.note_started(fields.get("attempt", self._attempt), step=False)
        watch = self._emitter.watch
        if watch is not None:
            own = around is not None and around._emitter.watch is watch  # else it is another log's
            self._account = watch.started(self._scope, around._account if around is not None and own else None)
        parent_id = self._parent_id
        if parent_id is None and around is not None:
            parent_id = around.execution_id
        return events.ExecutionStarted(
            parent_execution_id=parent_id,
            attempt=self._attempt,
            max_retries=self._max_retries,
            trace_id=None if "trace_id" in outside.fields else self.trace_id,  # then it is on the line already
        )

    def _changed(self, before: str | None, after: str | None) -> Struct:
        return events.ExecutionStateChanged(state_from=before, state_to=after, status=after)

    def _ended(self, state: str, said: Mapping[str, Any]) -> Any:
        if self._account is not None and self._emitter.watch is not None:
            self._emitter.watch.ended(self._account)
        if state == "completed":
            return events.ExecutionCompleted(**said)
        if state == "failed":
            return events.ExecutionFailed(**said, attempt=self._attempt, max_retries=self._max_retries)
        return events.ExecutionCancelled(**said)


class Step(Run):
    """One step of an execution, made by `run.step(...)` or, inside it, by `step.step(...)`."""

    def __init__(
        self,
        emitter: Emitter,
        execution: Execution,
        parent: "Step | None",
        kind: str,
        name: str,
        fields: dict[str, object],
    ) -> None:
        self.step_id: str = uuid7()
        self.execution: Execution = execution
        self.kind: str = kind
        self.name: str = name
        self._parent = parent
        super().__init__(emitter, fields)

    def step(self, kind: str, name: str, /, **fields: object) -> "Step":
        """A step inside this one, wherever it is entered."""
        return Step(self._emitter, self.execution, self, kind, name, fields)

    @property
    def _execution(self) -> Execution:
        return self.execution

    def _name(self) -> str:
        return f"step {self.name}" if type(self.name) is str else "step"

    def _scope_under(self, outside: Scope) -> Scope:  # noqa: ARG002 - a step belongs to its execution wherever it runs
        context = self.execution._scope or self.execution.scope()
        return context.with_step(b'"%b"' % self.step_id.encode(), self)

    def _started(self, outside: Scope, fields: Mapping[str, object]) -> Struct:
        parent, around = self._parent, outside.run
        if parent is None and isinstance(around, Step) and around.execution is self.execution:
            parent = around
        self.execution.note_started(fields.get("attempt"), step=True)
        return events.StepStarted(
            step_kind=self.kind, step_name=self.name, parent_step_id=parent.step_id if parent else None
        )

    def _never_started(self) -> None:
        self.execution.note_started(None, step=True)

    def _changed(self, before: str | None, after: str | None) -> Struct:
        return events.StepStateChanged(
            step_kind=self.kind, step_name=self.name, state_from=before, state_to=after, status=after
        )

    def _ended(self, state: str, said: Mapping[str, Any]) -> Any:
        if state == "completed" and len(said) == 1:
            return events.StepCompleted(
                step_kind=self.kind, step_name=self.name, duration_seconds=said["duration_seconds"]
            )
        if state == "completed":
            return events.StepCompleted(step_kind=self.kind, step_name=self.name, **said)
        if state == "failed":
            return events.StepFailed(step_kind=self.kind, step_name=self.name, **said)
        return events.StepCancelled(step_kind=self.kind, step_name=self.name, **said)


def current_execution() -> Execution | None:
    """The execution that the calling code runs in, or None."""
    return _execution_of(CURRENT.get().run)


def _execution_of(run: object) -> Execution | None:
    if isinstance(run, Step):
        return run.execution
    return run if isinstance(run, Execution) else None


def _names(depends_on: Any) -> object:
    """Ids as a list, whatever they were iterated from; a single one may be given as it is."""
    if isinstance(depends_on, str):
        return [depends_on]
    if isinstance(depends_on, list | tuple | set | frozenset):
        return depends_on
    try:
        return list(islice(iter(depends_on), _MOST_DEPENDENCIES))
    except Exception:  # noqa: BLE001 - nothing that can be iterated: shown as it is
        return depends_on


def _text_of(execution_id: object) -> str:
    return execution_id if isinstance(execution_id, str) else describe(execution_id)


def _usage(amounts: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens and the cost among `amounts`, with their total; only what is a number."""
    usage = {name: amounts[name] for name in _TOKENS if issubclass(type(amounts.get(name)), int | float)}
    if "total_tokens" not in usage and ("prompt_tokens" in usage or "completion_tokens" in usage):
        usage["total_tokens"] = total_tokens(usage)
    return usage


def _peak_memory_mb() -> float | None:
    try:
        import resource  # not on Windows
    except ImportError:  # pragma: no cover - Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / _MB if sys.platform == "darwin" else peak / 1024, 3)
