"""Executions and steps: what runs, from when to when, with which outcome; everything logged below carries their ids."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct

from . import events
from ._context import CURRENT, Scope, uuid7
from ._snapshot import describe_type

__all__ = ["Execution", "Step", "current_execution"]

_STEP = frozenset({"step_id"})
"""What an inner execution must not inherit."""


EncodedContext = tuple[dict[str, bytes], dict[str, str]]
"""Fields as a scope keeps them, and why some had to be replaced."""


class _Emitter(Protocol):
    """The logger that an execution writes to."""

    def encode_context(self, fields: Mapping[str, object]) -> EncodedContext: ...

    def emit_lifecycle(
        self, event: Struct, fields: Mapping[str, object], scope: Scope, error: BaseException | None
    ) -> bool: ...


class _Run:
    """What executions and steps have in common. A run is entered once; `with` and `async with` do the same.

    Entering writes `*.started`, leaving `*.completed`, `*.failed` (an exception) or `*.cancelled` (a cancellation,
    KeyboardInterrupt, SystemExit). Leaving never raises and never swallows the exception. A run that is left in
    another context than it was entered in ends under its own id and leaves that context as it is.
    """

    def __init__(
        self,
        emitter: _Emitter,
        ends: tuple[type[Struct], type[Struct], type[Struct]],
        named: Mapping[str, Any],
        fields: Mapping[str, object],
    ) -> None:
        self.fields: dict[str, object] = dict(fields)
        """Fields of the run's own lines. Those added before it ends are on its last line."""
        self._emitter = emitter
        self._completed, self._failed, self._cancelled = ends
        self._named = named
        self._on_failure: dict[str, Any] = {}
        self._outputs: object = None
        self._tokens: dict[str, Any] = {}
        self._began = 0.0
        self._outside = self._scope = CURRENT.get()

    def record_tokens(self, prompt_tokens: int = 0, completion_tokens: int = 0, cost_usd: float | None = None) -> None:
        """Add to the run's totals, which its last line reports. Not needed where `llm.call.*` events are emitted."""
        self._add("prompt_tokens", prompt_tokens)
        self._add("completion_tokens", completion_tokens)
        self._add("total_tokens", prompt_tokens)
        self._add("total_tokens", completion_tokens)
        if cost_usd is not None:
            self._add("cost_usd", cost_usd)

    def _add(self, name: str, number: Any) -> None:
        try:
            self._tokens[name] = self._tokens.get(name, 0) + number
        except Exception:  # noqa: BLE001 - no number: it is shown as it is, instead of a sum
            self._tokens[name] = number

    def set_outputs(self, outputs: object) -> None:
        """What the run produced. Encoded when it ends: what is changed in between shows changed."""
        self._outputs = outputs

    def __enter__(self) -> Self:
        self._outside = outside = CURRENT.get()
        values, reasons = self._encoded_context()
        self._scope = outside.without(_STEP).child(values, self, reasons)
        CURRENT.set(self._scope)
        self._began = time.monotonic()
        self._emitter.emit_lifecycle(self._started(outside.run), self.fields, self._scope, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end = {"duration_seconds": round(time.monotonic() - self._began, 6), "outputs": self._outputs, **self._tokens}
        end |= self._named
        failure = error if error is not None and _is_failure(error) else None
        if error is None:
            event = self._completed(**end)
        elif failure is None:
            event = self._cancelled(**end, error_type=describe_type(error))
        else:
            event = self._failed(**end, **self._on_failure)
        self._emitter.emit_lifecycle(event, self.fields, self._scope, failure)
        if CURRENT.get() is self._scope:
            CURRENT.set(self._outside)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    @abstractmethod
    def _encoded_context(self) -> EncodedContext:
        """What every line inside carries."""

    @abstractmethod
    def _started(self, outer: object) -> Struct:
        """The event of entering, inside the run `outer`."""


class Execution(_Run):
    """One run of a crew. Made by `log.execution(...)`."""

    def __init__(
        self,
        emitter: _Emitter,
        crew_name: str,
        *,
        execution_id: str | None,
        parent_execution_id: str | None,
        depends_on: Iterable[str],
        inputs: object,
        attempt: int,
        max_retries: int | None,
        fields: Mapping[str, object],
    ) -> None:
        self.execution_id: str = execution_id or uuid7()
        """A UUID of version 7, or the caller's own id."""
        self.crew_name: str = crew_name
        self._parent_id = parent_execution_id
        self._depends_on = depends_on
        self._inputs = inputs
        self._encoded: EncodedContext | None = None
        super().__init__(
            emitter,
            (events.ExecutionCompleted, events.ExecutionFailed, events.ExecutionCancelled),
            {},
            fields,
        )
        self._on_failure = {"attempt": attempt, "max_retries": max_retries}

    def step(self, kind: str, name: str, /, **fields: object) -> "Step":
        """A step of this execution (`kind`: task, agent, tool, ...), to be entered. Steps nest by being entered."""
        return Step(self._emitter, self, None, kind, name, fields)

    def _encoded_context(self) -> EncodedContext:
        """Its id and its crew; encoded once, for all its steps."""
        if self._encoded is None:
            self._encoded = self._emitter.encode_context(
                {"execution_id": self.execution_id, "crew_name": self.crew_name}
            )
        return self._encoded

    def _started(self, outer: object) -> Struct:
        around = _execution_of(outer)
        return events.ExecutionStarted(
            parent_execution_id=self._parent_id or (around.execution_id if around else None),
            depends_on=self._depends_on,
            inputs=self._inputs,
            **self._on_failure,
        )


class Step(_Run):
    """One step of an execution, made by `run.step(...)` or, inside it, by `step.step(...)`."""

    def __init__(
        self,
        emitter: _Emitter,
        execution: Execution,
        parent: "Step | None",
        kind: str,
        name: str,
        fields: Mapping[str, object],
    ) -> None:
        self.step_id: str = uuid7()
        self.execution: Execution = execution
        self._parent = parent
        super().__init__(
            emitter,
            (events.StepCompleted, events.StepFailed, events.StepCancelled),
            {"step_kind": kind, "step_name": name},
            fields,
        )

    def step(self, kind: str, name: str, /, **fields: object) -> "Step":
        """A step inside this one, wherever it is entered."""
        return Step(self._emitter, self.execution, self, kind, name, fields)

    def _encoded_context(self) -> EncodedContext:
        """Those of the execution, and the step's id, which is plain ASCII."""
        values, reasons = self.execution._encoded_context()
        return {**values, "step_id": b'"%b"' % self.step_id.encode()}, reasons

    def _started(self, outer: object) -> Struct:
        parent = self._parent
        if parent is None and isinstance(outer, Step) and outer.execution is self.execution:
            parent = outer
        return events.StepStarted(**self._named, parent_step_id=parent.step_id if parent else None)


def _execution_of(run: object) -> Execution | None:
    if isinstance(run, Step):
        return run.execution
    return run if isinstance(run, Execution) else None


def current_execution() -> Execution | None:
    """The execution that the calling code runs in, or None."""
    return _execution_of(CURRENT.get().run)


def _is_failure(error: BaseException) -> bool:
    """Cancellations, interrupts and exits are not failures; a group is one if it holds any."""
    kind = type(error)  # not isinstance, which asks the exception
    if issubclass(kind, BaseExceptionGroup):
        members = BaseExceptionGroup.exceptions.__get__(error)
        return any(_is_failure(member) for member in members)
    return issubclass(kind, Exception)
