"""What executions and steps have in common: a state machine, and the context of what is logged inside."""

import sys
import time
from abc import abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Raw, Struct

from ._context import CURRENT, Scope
from ._snapshot import describe_type
from ._states import CREATED, ENDS, TRANSITIONS, state_name
from ._tally import Tally

__all__ = ["Emitter", "Request", "Run", "is_failure", "total_tokens"]

EncodedContext = tuple[dict[str, bytes], dict[str, str]]
"""Fields as a scope keeps them, and why some had to be replaced."""


class Emitter(Protocol):
    """The logger that an execution writes to."""

    def encode_context(self, fields: Mapping[str, object]) -> EncodedContext: ...

    def push_lifecycle(self, event: Struct, scope: Scope) -> bool: ...

    def emit_lifecycle(
        self,
        event: Struct,
        fields: Mapping[str, object],
        scope: Scope,
        error: BaseException | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> bool: ...

    def warn(
        self, message: str, fields: Mapping[str, object], scope: Scope, error: BaseException | None = None
    ) -> bool: ...


class Run:
    """What executions and steps have in common: a state, and a context for what is logged inside.

    Entering starts it (`*.started`), leaving ends it: `*.completed`, `*.failed` (an exception) or `*.cancelled` (a
    cancellation, KeyboardInterrupt, SystemExit); `with` and `async with` do the same. Leaving never raises and never
    swallows the exception. A run that is left in another context than it was entered in ends under its own id and
    leaves that context as it is. Any thread may call any method.
    """

    # As class attributes they cost a run nothing until they change.
    _state: str = CREATED
    _errors: bool = False
    """The exception it failed with is in the log."""
    _outputs: tuple[Raw, Mapping[str, str]] | None = None
    _inputs: tuple[object, Any] | None = None
    """Inputs and dependencies, where there are any: they may change, so they are encoded at once."""
    _tally: Tally | None = None
    _began: int | None = None
    _duration: float | None = None
    _scope: Scope | None = None
    _outside: Scope | None = None

    def __init__(self, emitter: Emitter, fields: dict[str, object]) -> None:
        self.fields: dict[str, object] = fields
        """Fields of the run's own lines. Those added before it ends are on its last line."""
        self._emitter = emitter
        self._open = [True]
        """Taken out by whoever ends the run: one step under the GIL, so that a run ends once."""

    @property
    def state(self) -> str:
        """`pending running paused completed failed cancelled`."""
        return "pending" if self._state is CREATED else self._state

    def record_tokens(
        self,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cost_usd: float | None = None,
        *,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
    ) -> None:
        """Add to the run's totals, which its last line reports. Not needed where `llm.call.*` events are emitted.

        `cached_tokens` are part of the prompt's, `reasoning_tokens` of the completion's. Costs are US dollars.
        """
        amounts = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cached_tokens": cached_tokens,
            "reasoning_tokens": reasoning_tokens,
            "cost_usd": cost_usd,
        }
        tally: Tally = vars(self).setdefault("_tally", Tally())  # in one step: two threads must not both make one
        tally.add(amounts)
        self._execution.note_recorded(amounts)

    def set_outputs(self, outputs: object) -> None:
        """What the run produced, as it is now: what is changed later does not show. Written when the run ends."""
        values, reasons = self._emitter.encode_context({"outputs": outputs})
        self._outputs = Raw(values["outputs"]), reasons

    def set_state(self, state: object, /, **fields: object) -> bool:
        """Go to another state: pending, running, paused, completed, failed, cancelled (any case, or an enum's member).

        For frameworks that tell starts and ends through callbacks: `running` starts a run that was not entered, an end
        state ends it at once, and leaving the block then adds nothing. `pending`, once and first, says that it
        waits. `fields` go on the line of the change; a failure takes `exc_info` or the exception being handled. Returns
        whether the state changed. The state it has already is left alone without a word; a change that is not possible
        (from completed to running, to a state there is not) is a WARNING record and changes nothing. Never raises.
        """
        target = state_name(state)
        error = fields.pop("exc_info", None)
        if target == "failed" and not isinstance(error, BaseException):
            error = sys.exc_info()[1]
        return self._go(target, error if isinstance(error, BaseException) else None, fields)

    def __enter__(self) -> Self:
        self._outside = outside = CURRENT.get()
        self._scope = scope = self._scope_under(outside)
        CURRENT.set(scope)
        self._go("running", None, {})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            if self._open:
                self._go("completed", None, {})
        elif is_failure(error):
            if self._open or not self._errors:
                self._go("failed", error, {})
        elif self._open:
            self._go("cancelled", error, {})
        if self._outside is not None and CURRENT.get() is self._scope:
            CURRENT.set(self._outside)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _go(self, target: str, error: BaseException | None, fields: Mapping[str, object]) -> bool:
        before = self._state
        if target == before and error is None:
            return False
        scope = self._scope
        if scope is None:
            scope = self._scope = self._scope_under(CURRENT.get())
        if target not in TRANSITIONS[before]:
            return self._refuse(target, scope, error)
        if target in ENDS:
            return self._end(target, scope, error, fields)
        self._state = target
        if target == "running" and self._began is None:
            self._began = time.monotonic_ns()
            event = self._started()
            if fields or self.fields or self._inputs is not None:
                self._emitter.emit_lifecycle(event, {**self.fields, **fields}, scope)
            else:
                self._emitter.push_lifecycle(event, scope)
        else:
            self._emitter.emit_lifecycle(self._changed(None if before is CREATED else before, target), fields, scope)
        return True

    def _refuse(self, target: str, scope: Scope, error: BaseException | None) -> bool:
        message = f"{self._name()} cannot go from {self.state} to {target}; it stays {self.state}"
        self._errors = self._errors or error is not None
        self._emitter.warn(message, {"state_from": self.state, "state_to": target}, scope, error)
        return False

    def _end(self, target: str, scope: Scope, error: BaseException | None, fields: Mapping[str, object]) -> bool:
        try:
            self._open.pop()
        except IndexError:  # another thread was quicker
            return self._refuse(target, scope, error)
        self._state = target
        self._duration = took = self._elapsed() or 0.0
        said: dict[str, Any] = {"duration_seconds": took}
        reasons: Mapping[str, str] = {}
        if self._tally is not None:
            said |= self._tally.sums()
            said["total_tokens"] = total_tokens(said)
        if self._outputs is not None:
            said["outputs"], reasons = self._outputs
        event = self._ended(target, said)
        if error is not None and target == "cancelled":
            event.error_type = describe_type(error)
            error = None
        self._errors = error is not None
        if fields or self.fields or error is not None or target == "failed" or self._outputs is not None:
            self._emitter.emit_lifecycle(event, {**self.fields, **fields}, scope, error, reasons)
        else:
            self._emitter.push_lifecycle(event, scope)
        return True

    def note_usage(self, event: Struct, fields: Mapping[str, object]) -> None:
        """Told by the logger of an `llm.call.*` or `metrics.execution` event that was emitted inside."""
        self._execution.note_usage(event, fields)

    def _elapsed(self) -> float | None:
        """Seconds since it began, to the microsecond; None before."""
        return None if self._began is None else (time.monotonic_ns() - self._began) // 1000 / 1_000_000

    @property
    @abstractmethod
    def _execution(self) -> Any:
        """The execution that this is or belongs to."""

    @abstractmethod
    def _name(self) -> str:
        """What a message calls it."""

    @abstractmethod
    def _scope_under(self, outside: Scope) -> Scope:
        """What every line inside carries."""

    @abstractmethod
    def _started(self) -> Struct:
        """The event of its start."""

    @abstractmethod
    def _changed(self, before: str | None, after: str) -> Struct:
        """The event of a change between states that are no end."""

    @abstractmethod
    def _ended(self, state: str, said: Mapping[str, Any]) -> Any:
        """The event of its end."""


class Request:
    """A trace that something outside began, without an execution of ours."""

    __slots__ = ("trace_id",)

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id


def is_failure(error: BaseException) -> bool:
    """Cancellations, interrupts and exits are not failures; a group is one if it holds any."""
    kind = type(error)  # not isinstance, which asks the exception
    if issubclass(kind, BaseExceptionGroup):
        members = BaseExceptionGroup.exceptions.__get__(error)
        return any(is_failure(member) for member in members)
    return issubclass(kind, Exception)


def total_tokens(amounts: Mapping[str, Any]) -> Any:
    """Prompt and completion together; where they do not add up, whichever is there."""
    prompt, completion = amounts.get("prompt_tokens"), amounts.get("completion_tokens")
    try:
        return (prompt or 0) + (completion or 0)
    except Exception:  # noqa: BLE001 - no numbers: shown as they are
        return completion if completion is not None else prompt
