"""The calls. None of them waits for a disk, takes a lock or raises because of what it is given.

A plain call costs about one `encode` of its fields plus the keyword arguments Python builds for any call: the
fields are encoded here and now, which is the snapshot. What is rare (arguments, exceptions, names that clash, values
that do not encode) is in `_put_rare`, off the path that every call takes.
"""

import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from msgspec import Raw, Struct, structs

from ._arguments import exception_of, extra_fields, format_message, level_name
from ._config import level_number
from ._context import CURRENT, ROOT, Scope
from ._encoder import make_source
from ._joined import Joined, current_origin
from ._levels import Gates
from ._observe import inside
from ._operation import operation_logger
from ._plans import Plan, plan_of
from ._propagation import read_origin, write_origin
from ._queue import Record, RecordQueue, Source
from ._run import Run, account_here
from ._snapshot import (
    clean_text,
    degrade,
    encode,
    encode_values,
    event_fields,
    hides_not_finite,
    needs_a_look,
    shorten_text,
    try_encode,
    try_fields,
    unique,
)
from ._stacktrace import LateBody, exception_fields
from ._watch import ExecutionWatch
from .events import ExecutionStarted
from .execution import Execution
from .records import LEVEL_NAMES, LEVELS

__all__ = ["Logger"]

TYPED_SIZE: Final = 512
"""Bytes that a typed event counts as on the queue: its size is not known before it is encoded."""

LOOK_SIZE: Final = 1000
"""Bytes below which a record is neither too long nor nested too deep."""

_INDEX: Final = {number: index for index, number in enumerate(LEVELS.values())}

current: Final = CURRENT.get
now: Final = time.time

ExcInfo = (
    bool | BaseException | tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, ...] | None
)
Extra = Mapping[str, object] | None
Fields = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=MutableMapping[str, str])


class Core:
    """What all loggers of one log share."""

    def __init__(self, queue: RecordQueue, level: int, max_record_bytes: int, root_name: str) -> None:
        self.queue = queue
        self.limit: int = max_record_bytes or sys.maxsize
        self.watch: ExecutionWatch | None = None
        """Set while the log samples: it hears of starts and ends."""
        self.gates: Gates = Gates(root_name, level)


def _plain_call(level: str) -> Callable[..., bool]:
    """The method for one level.

    `exc_info` and `extra` are looked for among the fields: naming them in the signature makes every call that has
    keywords 0.2 us slower.
    """
    levelno = LEVELS[level]
    index = list(LEVELS).index(level)

    def call(self: "Logger", message: str, /, *args: object, **fields: Any) -> bool:
        if self._gate.level > levelno:
            return False
        queue = self._queue
        source = self._sources[index]
        if len(queue.items) > queue.mark and not queue.room_for(source):
            return False
        scope = current()
        if self._bound is not None:
            scope = scope.under(self._bound)
        if args or type(message) is not str:
            return self._put_rare(source, scope, message, args, fields)
        if fields:
            try:
                if not scope.keys.isdisjoint(fields):
                    return self._put_rare(source, scope, message, args, fields)
                body = encode(fields)
                if body.rfind(b"null") >= 0 and hides_not_finite(body, fields):
                    return self._put_rare(source, scope, message, args, fields)
            except Exception:  # noqa: BLE001 - a value that does not encode, whatever it raised
                return self._put_rare(source, scope, message, args, fields)
        elif scope.reasons:
            return self._put_rare(source, scope, message, args, fields)
        else:
            body = b"{}"
        size = len(body) + len(message)
        if size > LOOK_SIZE and needs_a_look(body, message, self._limit):
            return self._put_rare(source, scope, message, args, fields)
        queue.bytes_in = waiting = queue.bytes_in + size
        if waiting > queue.bytes_mark and not queue.room_for_bytes(source, size):
            return False
        timestamp = now()
        record = Record(timestamp, source, scope.text, message, body, size)
        self._append(record)
        return queue.attend(record, timestamp) if timestamp > queue.attention_at else True

    call.__name__ = level.lower()
    call.__qualname__ = f"Logger.{level.lower()}"
    call.__doc__ = f"""Log at level {level}. See `Logger`."""
    return call


class Logger:
    """A named source of records. Made by `open_log`, `child` and `bind`; all share one queue.

    `debug`, `info`, `warning`, `error`, `critical`, `exception` and `log` take a message, arguments to %-format it
    with (none: the message is taken as it is), `exc_info` (True, an exception or a `sys.exc_info()` tuple), `extra`
    (a mapping, merged into the fields) and any other keyword as a field. They return True if the record was accepted,
    False if it was refused (counted in `Stats`) or is below the level (not counted). They never raise because of a
    value, a full queue, a closed log or a broken disk. Only what is no `Exception` (KeyboardInterrupt, SystemExit)
    passes through, whether a signal raised it meanwhile or a value's own `__str__` did.

    Any thread, any number of event loops, signal handlers and finalizers may call. Fields are encoded before the
    call returns: what is changed later does not show.
    """

    __slots__ = (
        "_append",
        "_bound",
        "_core",
        "_counted",
        "_gate",
        "_lifecycle",
        "_limit",
        "_queue",
        "_rare",
        "_sources",
        "_typed",
        "name",
    )

    def __init__(self, core: Core, name: str, bound: Scope | None = None, kin: "Logger | None" = None) -> None:
        self._core = core
        self.name: str = name
        """Value of `logger` on its lines."""
        self._bound = bound
        self._gate = core.gates.gate(name)
        self._queue = core.queue
        self._append = core.queue.items.append
        self._limit = core.limit
        self._sources: tuple[Source, ...] = (
            kin._sources if kin else tuple(make_source("log", level, name) for level in LEVELS)
        )
        self._typed: dict[type[Struct], Source] = kin._typed if kin else {}
        """Of events that go on the queue as they are, at their own level."""
        self._counted: dict[type[Struct], Source] = kin._counted if kin else {}
        """The same for those that the execution they belong to must hear of."""
        self._lifecycle: dict[type[Struct], Source] = kin._lifecycle if kin else {}
        """Of lifecycle events as executions and steps write them, failures left aside."""
        self._rare: dict[tuple[type[Struct], str], Source] = kin._rare if kin else {}
        """Of all events, at any level."""

    if TYPE_CHECKING:

        def debug(
            self, message: str, /, *args: object, exc_info: ExcInfo = None, extra: Extra = None, **fields: Any
        ) -> bool: ...

        def info(
            self, message: str, /, *args: object, exc_info: ExcInfo = None, extra: Extra = None, **fields: Any
        ) -> bool: ...

        def warning(
            self, message: str, /, *args: object, exc_info: ExcInfo = None, extra: Extra = None, **fields: Any
        ) -> bool: ...

        def error(
            self, message: str, /, *args: object, exc_info: ExcInfo = None, extra: Extra = None, **fields: Any
        ) -> bool: ...

        def critical(
            self, message: str, /, *args: object, exc_info: ExcInfo = None, extra: Extra = None, **fields: Any
        ) -> bool: ...

    else:
        debug = _plain_call("DEBUG")
        info = _plain_call("INFO")
        warning = _plain_call("WARNING")
        error = _plain_call("ERROR")
        critical = _plain_call("CRITICAL")

    def exception(
        self, message: str, /, *args: object, exc_info: ExcInfo = True, extra: Extra = None, **fields: Any
    ) -> bool:
        """`error` with the exception being handled."""
        return self.error(message, *args, exc_info=exc_info, extra=extra, **fields)

    def log(
        self,
        level: str | int,
        message: str,
        /,
        *args: object,
        exc_info: ExcInfo = None,
        extra: Extra = None,
        **fields: Any,
    ) -> bool:
        """Log at a level given by name or number. A number between two levels counts as the lower one."""
        call = getattr(self, level_name(level).lower())
        if exc_info is None and extra is None:
            return bool(call(message, *args, **fields))
        return bool(call(message, *args, exc_info=exc_info, extra=extra, **fields))

    def emit(self, event: Struct, /, *, level: str | int | None = None, **fields: Any) -> bool:
        """Log a typed event: any msgspec Struct. Returns as the other calls do.

        The line's `event` is the struct's tag, or its class name if it has none. The level is the event's own (see
        `events`) unless given. A struct whose fields are declared as scalars is put on the queue as it is, so do not
        change it afterwards; any other is encoded here and now. `fields` are added to the line and win over the
        event's own; `exc_info` is taken as in any call. Fields of another type than declared raise nothing.
        """
        source = self._typed.get(type(event))
        if source is None or fields or level is not None:
            return self._emit_other(event, level, fields)
        if self._gate.level > source.levelno:
            return False
        queue = self._queue
        if len(queue.items) > queue.mark and not queue.room_for(source):
            return False
        scope = current()
        if self._bound is not None or not scope.ambient_only:
            return self._emit_rare(event, level, fields, scope)
        queue.bytes_in = waiting = queue.bytes_in + TYPED_SIZE
        if waiting > queue.bytes_mark and not queue.room_for_bytes(source, TYPED_SIZE):
            return False
        timestamp = now()
        record = Record(timestamp, source, scope.text, None, event, TYPED_SIZE)
        self._append(record)
        return queue.attend(record, timestamp) if timestamp > queue.attention_at else True

    # -- derived loggers ---------------------------------------------------------------------------------------------

    def child(self, name: str) -> "Logger":
        """A logger named `<this name>.<name>` with the same bound fields; its level can be set apart."""
        return Logger(self._core, f"{self.name}.{name}", self._bound)

    def bind(self, /, **fields: object) -> "Logger":
        """A logger that puts `fields` on every line; those of a call win over them."""
        values, reasons = encode_values(fields, self._limit)
        return Logger(self._core, self.name, (self._bound or ROOT).child(values, None, reasons), self)

    @property
    def level(self) -> str:
        """The level below which calls return at once."""
        return LEVEL_NAMES[self._gate.level]

    def set_level(self, level: str | int) -> None:
        """Change the level of this name and of the names below it that have none of their own.

        Takes effect on the next call of any thread. Raises `ConfigError` if there is no such level.
        """
        self._core.gates.set_level(self.name, level_number(level))

    def is_enabled_for(self, level: str | int) -> bool:
        """Would a record of that level be offered to the queue?"""
        return LEVELS[level_name(level)] >= self._gate.level

    # -- executions --------------------------------------------------------------------------------------------------

    def execution(
        self,
        crew_name: str,
        /,
        *,
        execution_id: str | None = None,
        parent_execution_id: str | None = None,
        depends_on: Iterable[str] = (),
        inputs: object = None,
        attempt: int = 1,
        max_retries: int | None = None,
        **fields: object,
    ) -> Execution:
        """An execution, to be entered with `with` or `async with`; what is logged inside carries its id.

        `execution_id`: a UUID of version 7 unless given. `parent_execution_id`: the execution this call is made in
        unless given. A failure of attempt `max_retries` or later is CRITICAL. `fields` go on its own lines.
        """
        return Execution(
            self,
            crew_name,
            execution_id=execution_id,
            parent_execution_id=parent_execution_id,
            depends_on=depends_on,
            inputs=inputs,
            attempt=attempt,
            max_retries=max_retries,
            fields=fields,
        )

    def log_execution(self, operation: str, *, arguments: bool | Iterable[str] = False) -> Callable[[F], F]:
        """As the function `log_execution` of the package, to this logger."""
        return operation_logger(operation, arguments, lambda: self)

    def carry(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function` bound to the calling code's context, for threads and executors, which do not inherit it.

        A coroutine function runs in it too, wherever it is awaited.
        """
        context = copy_context()
        if inspect.iscoroutinefunction(function):
            carried_coroutine: Callable[P, R] = inside(context, function)
            return carried_coroutine

        watch = self._core.watch
        call = function
        if watch is not None and watch.clock is not None:
            call = watch.clock.charged(function, account_here(watch))

        @functools.wraps(function)
        def carried(*args: P.args, **kwargs: P.kwargs) -> R:
            return context.copy().run(call, *args, **kwargs)

        return carried

    def inject(self, carrier: C, /) -> C:
        """Put where the calling code is into a mapping, for a child process or a request, and return the mapping.

        Keys: `traceparent` (W3C Trace Context), `amsha-execution-id`, `amsha-crew-name`, `amsha-step-id`. Nothing is
        written outside of any execution. The other side uses `extract`.
        """
        write_origin(current_origin(), carrier)
        return carrier

    def extract(self, carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]], /) -> Joined:
        """The context that `inject` wrote elsewhere, to be entered: `with log.extract(headers) as run:`.

        `carrier`: a mapping or pairs (headers, `os.environ`, a dict); case does not matter, `_` counts as `-`, keys
        and values may be bytes. What is malformed counts as absent. See `Joined` for what holds inside. Whoever can
        send these headers can choose ids: strip them where requests come from strangers.
        """
        return Joined(self, read_origin(carrier))

    # -- for executions, and for bridges from other logging libraries ------------------------------------------------

    def forward(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        fields: Mapping[Any, object],
        *,
        error: BaseException | None = None,
        timestamp: float | None = None,
    ) -> bool:
        """A record made elsewhere, its time (Unix seconds) and its level (a number) known.

        Returns and raises as the calls do.
        """
        index = _INDEX.get(level)
        source = self._sources[min(max(level // 10, 1), 5) - 1 if index is None else index]
        if self._gate.level > source.levelno:
            return False
        if len(self._queue.items) > self._queue.mark and not self._queue.room_for(source):
            return False
        scope = current()
        if self._bound is not None:
            scope = scope.under(self._bound)
        try:
            if not args and error is None and type(message) is str and scope.keys.isdisjoint(fields):
                try:
                    "".join(fields)  # as in `try_fields`
                    body = encode(fields)
                except Exception:  # noqa: BLE001 - a value that does not encode, whatever it raised
                    body = b""
                size = len(body) + len(message)
                if body and size <= LOOK_SIZE and body.rfind(b"null") < 0:
                    return self._put(source, scope, message, body, size, timestamp)
            text, reason = format_message(message, args)
            return self._put_text(source, scope, text, reason, fields, error, timestamp)
        except Exception:  # noqa: BLE001 - never into the host: it is counted instead
            return self._queue.refuse(source, "unencodable")

    def encode_context(self, fields: Mapping[str, object]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Fields as a scope keeps them, and why some had to be replaced."""
        return encode_values(fields, self._limit)

    def push_lifecycle(self, event: Struct, scope: Scope) -> bool:
        """An event of an execution or step in its own scope, that holds nothing which can change."""
        source = self._lifecycle.get(type(event))
        if source is None or self._bound is not None or not scope.ambient_only:
            return self._emit_rare(event, None, {}, scope)
        if self._gate.level > source.levelno:
            return False
        queue = self._queue
        if len(queue.items) > queue.mark and not queue.room_for(source):
            return False
        queue.bytes_in = waiting = queue.bytes_in + TYPED_SIZE
        if waiting > queue.bytes_mark and not queue.room_for_bytes(source, TYPED_SIZE):
            return False
        timestamp = now()
        record = Record(timestamp, source, scope.text, None, event, TYPED_SIZE)
        self._append(record)
        return queue.attend(record, timestamp) if timestamp > queue.attention_at else True

    def emit_lifecycle(
        self,
        event: Struct,
        fields: Mapping[str, object],
        scope: Scope,
        error: BaseException | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> bool:
        """An event of an execution or step, in its own scope, with its exception if it failed."""
        return self._emit_rare(event, None, fields, scope, error, reasons)

    def emit_in(self, event: Struct, scope: Scope | None, level: str | None, force: bool = False) -> bool:  # noqa: FBT002
        """An event of the log's own, in a given scope (None: in none), at a given level (None: its own).

        It goes on the queue as it is: nobody may change it afterwards, nor have put in what could change. It wakes
        nobody; the queue's `nudge` does. `force`: also where the queue is full.
        """
        plan = plan_of(type(event))
        source = self._event_source(plan, type(event), plan.level if level is None else level)
        if self._gate.level > source.levelno:
            return False
        if not force and len(self._queue.items) > self._queue.mark and not self._queue.room_for(source):
            return False
        scope = ROOT if scope is None else scope
        if not scope.keys.isdisjoint(plan.names):
            scope = scope.without(plan.names & scope.fields.keys())
        return self._queue.put_quietly(Record(now(), source, scope.text, None, event, TYPED_SIZE))

    @property
    def watch(self) -> ExecutionWatch | None:
        """Who is to hear of executions that start and end."""
        return self._core.watch

    def warn(
        self, message: str, fields: Mapping[str, object], scope: Scope, error: BaseException | None = None
    ) -> bool:
        """A warning in a given scope."""
        source = self._sources[LEVELS["WARNING"] // 10 - 1]
        if self._gate.level > source.levelno:
            return False
        return self._put_rare(source, scope, message, (), {**fields, "exc_info": error})

    # -- what is rare ------------------------------------------------------------------------------------------------

    def _put_rare(
        self, source: Source, scope: Scope, message: object, args: tuple[object, ...], fields: Fields
    ) -> bool:
        """A plain call with arguments, an exception, clashing names, or values that do not simply encode."""
        try:
            text, reason = format_message(message, args)
            error = exception_of(fields.pop("exc_info", None))
            extra = fields.pop("extra", None)
            if extra is not None:
                fields = {**extra_fields(extra), **fields}
            return self._put_text(source, scope, text, reason, fields, error)
        except Exception:  # noqa: BLE001 - never into the host: it is counted instead
            return self._queue.refuse(source, "unencodable")

    def _put_text(
        self,
        source: Source,
        scope: Scope,
        text: str,
        reason: str,
        fields: Mapping[Any, object],
        error: BaseException | None,
        timestamp: float | None = None,
    ) -> bool:
        if len(encode(clean_text(text))) > self._limit:
            text, reason = shorten_text(text), f"too large: {len(text)}"
        return self._put_fields(source, scope, text, fields, error, {"message": reason} if reason else {}, timestamp)

    def _emit_other(self, event: Struct, level: str | int | None, fields: Fields) -> bool:
        """An event with fields or a level, or of a type that is new or that its execution counts."""
        scope = current()
        source = self._counted.get(type(event))
        if source is None or fields or level is not None or self._bound is not None or not scope.ambient_only:
            return self._emit_rare(event, level, fields, scope, exception_of(fields.pop("exc_info", None)))
        if isinstance(scope.run, Run):
            scope.run.note_usage(event, fields)
        if self._gate.level > source.levelno:
            return False
        if len(self._queue.items) > self._queue.mark and not self._queue.room_for(source):
            return False
        return self._put(source, scope, None, event, TYPED_SIZE)

    def _emit_rare(
        self,
        event: Struct,
        level: str | int | None,
        fields: Mapping[str, object],
        scope: Scope,
        error: BaseException | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> bool:
        """An event that cannot go on the queue as it is."""
        source = self._sources[LEVELS["INFO"] // 10 - 1]
        try:
            plan = plan_of(type(event))
            if plan.counted and isinstance(scope.run, Run):
                scope.run.note_usage(event, fields)
            if self._bound is not None:
                scope = scope.under(self._bound)
            if level is None and plan.exhausted(event, fields, scope.fields):
                level = "CRITICAL"
            source = self._event_source(plan, type(event), plan.level if level is None else level_name(level))
            if self._gate.level > source.levelno:
                return False
            if len(self._queue.items) > self._queue.mark and not self._queue.room_for(source):
                return False
            if error is None and not reasons and scope.keys.isdisjoint(plan.names):
                body = self._try_event(event, plan, fields if scope.keys.isdisjoint(fields) else None)
                if body:
                    return self._put(source, scope, None, body, len(body))
            fields = {**event_fields(event, tagged=plan.tagged), **fields}
            return self._put_fields(source, scope, None, fields, error, reasons or {})
        except Exception:  # noqa: BLE001 - as above; not a Struct, for one
            return self._queue.refuse(source, "unencodable")

    def _try_event(self, event: Struct, plan: Plan, fields: Mapping[str, object] | None) -> bytes:
        """The event and `fields` as one object where nothing is wrong with them, else nothing."""
        if fields is None:
            return b""
        if fields and not plan.names.isdisjoint(fields):  # they win
            if not plan.plainly_named:
                return b""
            own = {name: value for name, value in fields.items() if name in plan.names}
            try:
                event = structs.replace(event, **own)
            except Exception:  # noqa: BLE001 - a user's __post_init__
                return b""
            fields = {name: value for name, value in fields.items() if name not in plan.names}
        body = try_encode(event)
        if body[:1] != b"{" or body.rfind(b"null") >= 0 or needs_a_look(body, None, self._limit):
            return b""
        body = b"{" + (body[plan.cut + 1 :] or b"}")
        if not fields:
            return body
        more = try_fields(fields, self._limit - len(body))
        return more if not more or body == b"{}" else b"%b,%b" % (body[:-1], more[1:])

    def _event_source(self, plan: Plan, kind: type[Struct], level: str) -> Source:
        source = self._rare.get((kind, level))
        if source is None:
            source = make_source(plan.event, level, self.name, cut=plan.cut, lifecycle=plan.lifecycle)
            self._rare[kind, level] = source
            if plan.pushed and level == plan.level:
                (self._counted if plan.counted else self._typed)[kind] = source
            elif plan.lifecycle and not plan.failure and kind.__module__ == ExecutionStarted.__module__:
                self._lifecycle[kind] = source
        return source

    def _put_fields(
        self,
        source: Source,
        scope: Scope,
        message: str | None,
        fields: Mapping[Any, object],
        error: BaseException | None,
        reasons: Mapping[str, str],
        timestamp: float | None = None,
    ) -> bool:
        trace = None
        if error is not None:
            about, trace, shortened = exception_fields(error, self._limit)
            fields = {**fields, **{name: value for name, value in about.items() if _is_absent(fields.get(name))}}
            if shortened:
                reasons = {**reasons, "stacktrace": "too large"}
            if "stacktrace" in fields:
                fields = {**fields, unique("stacktrace_", fields): fields["stacktrace"]}
                del fields["stacktrace"]
        taken = scope.fields.keys() & {*fields, *(() if trace is None else ("stacktrace",))}
        if taken:
            scope = scope.without(frozenset(taken))
        reasons = {**scope.reasons, **reasons}
        body = b"" if reasons else try_fields(fields, self._limit)
        if not body:
            body, replaced = degrade(fields, self._limit, reasons)
            if replaced:
                self._queue.ledger.degraded[source.level] += 1
        size = len(body) + len(message or "")
        if trace is None:
            return self._put(source, scope, message, body, size, timestamp)
        self._queue.late_bodies += 1
        accepted = self._put(source, scope, message, LateBody(body, trace), size + TYPED_SIZE, timestamp)
        if not accepted:
            self._queue.late_bodies -= 1
        return accepted

    def _put(
        self,
        source: Source,
        scope: Scope,
        message: str | None,
        body: object,
        size: int,
        timestamp: float | None = None,
    ) -> bool:
        queue = self._queue
        queue.bytes_in = waiting = queue.bytes_in + size
        if waiting > queue.bytes_mark and not queue.room_for_bytes(source, size):
            return False
        present = now()
        record = Record(present if timestamp is None else timestamp, source, scope.text, message, body, size)
        self._append(record)
        return queue.attend(record, present) if present > queue.attention_at else True


def _is_absent(value: object) -> bool:
    """Does a field say nothing: is it None, encoded or not?"""
    return value is None or (type(value) is Raw and bytes(value) == b"null")
