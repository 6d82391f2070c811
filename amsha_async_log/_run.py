"""What executions and steps have in common: a state machine, and the context of what is logged inside."""

import sys
import time
from abc import abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from msgspec import Raw, Struct

from ._arguments import exception_of
from ._attribution import Account
from ._context import CURRENT, Scope, enter, leave
from ._snapshot import describe_type
from ._states import CREATED, ENDS, TRANSITIONS, state_name
from ._tally import Tally
from ._watch import ExecutionWatch

__all__ = ["Emitter", "Request", "Run", "account_here", "is_failure", "total_tokens"]

EncodedContext = tuple[dict[str, bytes], dict[str, str]]
"""Fields as a scope keeps them, and why some had to be replaced."""


class Emitter(Protocol):
    """The logger that an execution writes to."""

    @property
    def watch(self) -> ExecutionWatch | None: ...

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


_OWN: Final = frozenset(
    {"status", "duration_seconds", "execution_id", "crew_name", "step_id", "step_kind", "step_name", "parent_step_id"}
)
"""What a run says of itself: a field of that name gets a trailing underscore."""


class Run:
    """What executions and steps have in common: a state, and a context for what is logged inside.

    Entering starts it (`*.started`), leaving ends it: `*.completed`, `*.failed` (an exception) or `*.cancelled` (a
    cancellation, KeyboardInterrupt, SystemExit); `with` and `async with` do the same. Leaving never raises and never
    swallows the exception. A run that is left in another context than it was entered in ends under its own id and
    leaves that context as it is. A run is for one block; entering it again shows its ids once more and starts nothing.
    Any thread may call any method.
    """

    # As class attributes they cost a run nothing until they change.
    _state: str = CREATED
    _errors: bool = False
    """The exception it failed with is in the log."""
    _outputs: EncodedContext | None = None
    _inputs: EncodedContext | None = None
    """Inputs and dependencies, where there are any, until they are written."""
    _elsewhere: bool = False
    """Its start and its end are somebody else's to write."""
    _tally: Tally | None = None
    _began: int | None = None
    _duration: float | None = None
    _scope: Scope | None = None
    """What its own lines carry."""

    def __init__(self, emitter: Emitter, fields: dict[str, object]) -> None:
        if fields and not _OWN.isdisjoint(fields):
            fields = {f"{name}_" if name in _OWN else name: value for name, value in fields.items()}
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
        if self._elsewhere or not self._open:
            self._say_late()

    def set_outputs(self, outputs: object) -> None:
        """What the run produced, as it is now: what is changed later does not show. Written when the run ends.

        What a run is told after its end, or by another process than the one that ends it, is written at once.
        """
        self._outputs = self._emitter.encode_context({"outputs": outputs})
        if self._elsewhere or not self._open:
            self._say_late()

    def set_state(self, state: object, /, **fields: object) -> bool:
        """Go to another state: pending, running, paused, completed, failed, cancelled (any case, or an enum's member).

        For frameworks that tell starts and ends through callbacks: `running` starts a run that was not entered, an end
        state ends it at once, and leaving the block then adds nothing. `pending`, once and first, says that it
        waits. `fields` go on the line of the change; a failure takes `exc_info` or the exception being handled. Returns
        whether the state changed. The state it has already is left alone without a word; a change that is not possible
        (from completed to running, to a state there is not) is a WARNING record and changes nothing. Never raises.
        """
        target = state_name(state)
        error = exception_of(fields.pop("exc_info", None))
        if target == "failed" and error is None and self._state != "failed":
            error = sys.exc_info()[1]
        return self._go(target, error, fields)

    def __enter__(self) -> Self:
        outside = CURRENT.get()
        self._scope = scope = self._scope_under(outside)
        enter(scope)
        try:
            self._go("running", None, {}, outside)
        except BaseException as error:  # an interrupt, or a full stack: then nobody will leave what was entered
            leave(self)
            _UNSAID.append((self, error))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, RecursionError):
                _need_room(_ROOM)
            if _UNSAID:
                _say_unsaid()
            self._left(error)
        except RecursionError:  # no room on the stack to say so: whoever is left next does it
            _UNSAID.append((self, error))
        finally:
            leave(self)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _left(self, error: BaseException | None) -> None:
        if error is None:
            if self._open:
                self._go("completed", None, {})
        elif is_failure(error):
            if self._open or not self._errors:
                self._go("failed", error, {})
        elif self._open:
            self._go("cancelled", error, {})

    def _go(
        self, target: str, error: BaseException | None, fields: Mapping[str, object], outside: Scope | None = None
    ) -> bool:
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
            self._start(scope, {**self.fields, **fields}, CURRENT.get() if outside is None else outside)
        else:
            event = self._changed(None if before is CREATED else before, target)
            self._emitter.emit_lifecycle(event, fields, scope)
        return True

    def _start(self, scope: Scope, fields: Mapping[str, object], outside: Scope) -> None:
        self._began = time.monotonic_ns()
        event = self._started(outside, fields)
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            for name, value in inputs[0].items():
                setattr(event, name, Raw(value))
            self._emitter.emit_lifecycle(event, fields, scope, None, inputs[1])
        elif fields:
            self._emitter.emit_lifecycle(event, fields, scope)
        else:
            self._emitter.push_lifecycle(event, scope)

    def _refuse(self, target: str, scope: Scope, error: BaseException | None) -> bool:
        message = f"{self._name()} cannot go from {self.state} to {target}; it stays {self.state}"
        self._errors = self._errors or error is not None
        self._emitter.warn(message, {"state": self.state, "requested_state": target}, scope, error)
        return False

    def _end(self, target: str, scope: Scope, error: BaseException | None, fields: Mapping[str, object]) -> bool:
        try:
            self._open.pop()
        except IndexError:  # another thread was quicker
            return self._refuse(target, scope, error)
        self._state = target
        self._duration = took = self._elapsed() or 0.0
        if self._began is None:
            self._never_started()
        said: dict[str, Any] = {"duration_seconds": took}
        reasons = self._add_what_it_was_told(said)
        event = self._ended(target, said)
        if error is not None and target == "cancelled":
            event.error_type = describe_type(error)
            error = None
        self._errors = error is not None
        if fields or self.fields or error is not None or target == "failed" or "outputs" in said:
            self._emitter.emit_lifecycle(event, {**self.fields, **fields}, scope, error, reasons)
        else:
            self._emitter.push_lifecycle(event, scope)
        return True

    def _add_what_it_was_told(self, said: dict[str, Any]) -> Mapping[str, str]:
        """Tokens and outputs that no line has said yet, and why some of it was replaced."""
        if self._tally is not None:
            amounts = self._tally.drain()
            if amounts:
                said |= amounts
                said["total_tokens"] = total_tokens(amounts)
        outputs, self._outputs = self._outputs, None
        if outputs is None:
            return {}
        said["outputs"] = Raw(outputs[0]["outputs"])
        return outputs[1]

    def _say_late(self) -> None:
        """A line of its own for what comes after the end, or beside whoever writes the end."""
        said: dict[str, Any] = {}
        reasons = self._add_what_it_was_told(said)
        if said:
            scope = self._scope if self._scope is not None else self._scope_under(CURRENT.get())
            self._emitter.emit_lifecycle(self._changed(None, None), said, scope, None, reasons)

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
    def _started(self, outside: Scope, fields: Mapping[str, object]) -> Struct:
        """The event of its start, in the context `outside`, with `fields` beside it."""

    def _never_started(self) -> None:
        """Told where it ends without a start."""

    @abstractmethod
    def _changed(self, before: str | None, after: str | None) -> Struct:
        """The event of a change between states that are no end."""

    @abstractmethod
    def _ended(self, state: str, said: Mapping[str, Any]) -> Any:
        """The event of its end."""


class Request:
    """A trace that something outside began, without an execution of ours."""

    __slots__ = ("trace_id",)

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id


_UNSAID: Final[list[tuple[Run, BaseException | None]]] = []
"""Runs that were left when the stack was full, and what they were left with."""


_ROOM: Final = 100
"""Frames that writing an end may need."""


def _need_room(frames: int) -> None:
    """Raises RecursionError unless that many more frames fit the stack."""
    if frames:
        _need_room(frames - 1)


def _say_unsaid() -> None:
    while True:
        try:
            run, error = _UNSAID.pop(0)
        except IndexError:
            return
        run._left(error)


def account_here(watch: ExecutionWatch) -> Account | None:
    """Of the execution that the calling code runs in; None: it runs in none, or in one of another log."""
    run = CURRENT.get().run
    if not isinstance(run, Run) or run._emitter.watch is not watch:
        return None
    account: Account | None = run._execution._account
    return None if account is None or account.ended_ns is not None else account


def is_failure(error: BaseException) -> bool:
    """Cancellations, interrupts and exits are not failures; a group is one if it holds any, however deep."""
    pending = [error]
    while pending:
        error = pending.pop()
        kind = type(error)  # not isinstance, which asks the exception
        if issubclass(kind, BaseExceptionGroup):
            pending += BaseExceptionGroup.exceptions.__get__(error)
        elif issubclass(kind, Exception):
            return True
    return False


def total_tokens(amounts: Mapping[str, Any]) -> Any:
    """Prompt and completion together; where they do not add up, whichever is there."""
    prompt, completion = amounts.get("prompt_tokens"), amounts.get("completion_tokens")
    try:
        return (prompt or 0) + (completion or 0)
    except Exception:  # noqa: BLE001 - no numbers: shown as they are
        return completion if completion is not None else prompt
