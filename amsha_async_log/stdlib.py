"""Standard `logging` into a log: a handler for loggers that exist, and a logger that makes their calls cheaper.

    logging.getLogger().addHandler(AsyncLogHandler(log))

    logging.setLoggerClass(StdlibLogger)  # optional, early: loggers made from then on need no LogRecord

Keys of `extra` become fields, exceptions stay structured, lines carry the running execution. Records go through the
levels and filters of loggers and handlers as always; then the level of the log itself applies (`INFO` unless it was
opened with another; a handler's own log lets everything through).
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from math import isfinite
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from ._logger import Logger
from ._pipeline import Log, open_private_log
from ._registry import OPEN_LOGS, LogProxy, current_log
from .exceptions import ConfigError

__all__ = ["AsyncLogHandler", "StdlibLogger"]

_OF_RECORDS: Final = tuple(vars(logging.makeLogRecord({})))
"""What every LogRecord has, in the order it is set: no fields of the user's."""
_REFUSED: Final = frozenset(_OF_RECORDS) | {"message", "asctime"}
"""Keys of `extra` that the standard library refuses."""
_NUMBER: Final = len(_OF_RECORDS)
_LEVELS: Final = frozenset({logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL})
_LOGGERS_KEPT: Final = 1024


class AsyncLogHandler(logging.Handler):
    """A handler that writes records to a log. Never waits, never prints, never changes the record.

    `log`: where to; None: the log opened last in this process (`get_log()`), looked up for each record. `options`
    (those of `open_log`) open a log of this handler's own instead, closed with it; so `dictConfig` alone can set it up.
    `attributes`: attributes of a LogRecord to write as fields too, such as `funcName` and `lineno`.

    A line's `logger` is the record's name, its `timestamp` the record's `created`. Levels between two of the five
    count as the lower one; `levelname` and `levelno` then say what it was. `stack_info` is a field. Without a formatter
    the message is that of the record; with one (`logging.basicConfig` gives one to every handler that has none) it is
    what the formatter makes of it, the exception left aside. A message whose arguments do not fit is written with a
    mark instead of an error on stderr.

    Takes no lock: `handle` calls `emit` at once, from any thread. What the log refuses is counted there. Raises
    `ConfigError` for wrong options, TypeError for what is no log and for a log and options together.
    """

    _replaced: bool = False
    """Has somebody given this one handler another `emit`, say?"""

    def __init__(
        self,
        log: Logger | None = None,
        *,
        level: int | str = logging.NOTSET,
        attributes: Iterable[str] = (),
        **options: Any,
    ) -> None:
        if isinstance(log, LogProxy):  # it means another log at other times
            log = None
        if log is not None and not isinstance(log, Logger):
            raise TypeError(f"AsyncLogHandler: {log!r} is no log; a path is given as path=...")
        if log is not None and options:
            raise TypeError(f"AsyncLogHandler: a log and options ({', '.join(options)}) cannot both be given")
        if isinstance(attributes, str):
            raise ConfigError(f"option attributes={attributes!r}: allowed is a list of names")
        self.attributes: tuple[str, ...] = tuple(attributes)
        self._own: Log | None = None
        self._log: Logger | None = log
        self._named: tuple[Logger | None, dict[str, Logger]] = (None, {})
        super().__init__(level)
        if options:
            self._own = self._log = open_private_log({"level": logging.DEBUG, **options})

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _TAKING_RECORDS:
            super().__setattr__("_replaced", True)

    def handle(self, record: logging.LogRecord) -> Any:
        """Pass the record to `emit`, if the filters let it through."""
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record on the log's queue."""
        try:
            self._forward(record)
        except Exception:  # noqa: BLE001 - a record class or formatter that raises: reported as handlers do
            self.handleError(record)

    def logger_for(self, name: str) -> Logger:
        """The log's own logger that writes lines of that name, with the fields bound to the one given."""
        target = self._log if self._log is not None else current_log()
        known, named = self._named
        if known is not target or len(named) > _LOGGERS_KEPT:
            named = {}
            self._named = target, named
        logger = named.get(name)
        if logger is None:
            logger = named[name] = Logger(target._core, name, target._bound)
        return logger

    def flush(self) -> None:
        """Wait until what was logged is written, for the log's `shutdown_timeout_s` at most."""
        core = (self._log if self._log is not None else current_log())._core
        for log in list(OPEN_LOGS):
            if log._core is core:
                log.flush()

    def close(self) -> None:
        """Take the handler out of service; a log of its own is drained and closed."""
        if self._own is not None:
            self._own.close()
        super().close()

    def __repr__(self) -> str:
        where = repr(self._log) if self._log is not None else "get_log()"
        return f"<{type(self).__name__} {where} ({logging.getLevelName(self.level)})>"

    def _forward(self, record: logging.LogRecord) -> None:
        level: object = record.levelno
        number = level if isinstance(level, int) else logging.INFO
        logger = self.logger_for(record.name if type(record.name) is str else str(record.name))
        if logger._gate.level > max(number, logging.DEBUG):
            return  # before anything is formatted
        held = vars(record)
        names = list(held)
        if len(names) >= _NUMBER and names[_NUMBER - 1] == _OF_RECORDS[-1]:
            del names[:_NUMBER]
        fields = {name: held[name] for name in names if name not in _REFUSED}
        if record.stack_info:
            fields["stack_info"] = record.stack_info
        if type(level) is not int or level not in _LEVELS:
            fields |= {"levelname": record.levelname, "levelno": level}
        for name in self.attributes:
            fields[name] = getattr(record, name, None)
        error = _error_of(record.exc_info)
        if error is None and record.exc_text:
            fields["exc_text"] = record.exc_text
        message, args = self._message(record)
        logger.forward(number, message, args, fields, error=error, timestamp=_moment(record.created))

    def _message(self, record: logging.LogRecord) -> tuple[object, tuple[object, ...]]:
        """The text of a record; or its parts, where they do not fit."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - the line is marked
            return record.msg, record.args if isinstance(record.args, tuple) else (record.args,)
        if self.formatter is None:
            return text, ()
        bare = copy(record)  # a formatter leaves its marks on the record
        bare.exc_info = bare.exc_text = bare.stack_info = None
        try:
            return self.formatter.format(bare), ()
        except Exception:  # noqa: BLE001 - it is reported, and the record is written all the same
            self.handleError(record)
            return text, ()


_TAKING_RECORDS: Final = frozenset({"emit", "filter", "handle"})


def _error_of(exc_info: object) -> BaseException | None:
    """The exception of a record: in a tuple, as ever, or given by itself by whoever made the record."""
    if isinstance(exc_info, tuple):
        return next((part for part in exc_info if isinstance(part, BaseException)), None)
    return exc_info if isinstance(exc_info, BaseException) else None


def _moment(created: object) -> float | None:
    """The time of a record, None where it has none: records are made of what came from elsewhere, too."""
    if type(created) is float:
        return created if isfinite(created) else None
    try:
        return float(created) if isinstance(created, float | int) and isfinite(created) else None
    except OverflowError:
        return None


_NONE: Final[dict[str, object]] = {}
_BASE: Final = logging.Logger
_RECORD: Final = logging.LogRecord
_ASKING: Final = ("getEffectiveLevel", "isEnabledFor")
_RECORD_MAKING: Final = ("_log", "callHandlers", "filter", "findCaller", "handle", "makeRecord")


def _original(owner: type, name: str) -> Callable[..., Any] | None:
    """A function of the standard library, None if somebody has put another one in its place already."""
    function = vars(owner)[name]
    return function if type(function) is FunctionType and function.__globals__ is vars(logging) else None


# What tools that watch all records put functions of their own in place of.
_LOG: Final = _original(_BASE, "_log")
_MAKE_RECORD: Final = _original(_BASE, "makeRecord")
_HANDLE: Final = _original(_BASE, "handle")
_CALL_HANDLERS: Final = _original(_BASE, "callHandlers")
_INIT: Final = _original(_RECORD, "__init__")
_GET_MESSAGE: Final = _original(_RECORD, "getMessage")


def _call(level: int) -> Any:
    """The method for one level: nothing but the question whether it is enabled, and the way past the record."""

    def call(self: "StdlibLogger", msg: object, *args: object, **options: Any) -> None:
        own = self.level
        if self.disabled or self.manager.disable >= level or own > level:
            return
        if not own and self.parent is not None and self.getEffectiveLevel() > level:
            return
        extra = options.get("extra", _NONE)
        if (
            len(options) > 1
            or type(extra) is not dict
            or not _REFUSED.isdisjoint(extra)
            or (options and extra is _NONE)
            or (sink := self._only_sink(level)) is None
        ):
            self._log(level, msg, args, **_deeper(options))
            return
        native = self._native
        if native is None or native[0] is not sink or native[1].name is not self.name or sink._log is None:
            native = self._native = sink, sink.logger_for(self.name)
        native[1].forward(level, msg, args, extra)

    call.__name__ = logging.getLevelName(level).lower()
    call.__qualname__ = f"StdlibLogger.{call.__name__}"
    call.__doc__ = f"""Log at level {logging.getLevelName(level)}, as `logging.Logger` does."""
    return call


class StdlibLogger(logging.Logger):
    """A `logging.Logger` that skips the LogRecord where nobody but one `AsyncLogHandler` would see it.

    As a class for all loggers: `logging.setLoggerClass(StdlibLogger)`. By itself: `StdlibLogger(log)`, of the log's
    name or `name`, writes to that log only. Everything else is as in the standard library: levels, filters, handlers,
    propagation, `extra` (with the same KeyError for keys of a LogRecord), `exc_info`, `stack_info`, `stacklevel`. A
    record is made as ever for whoever needs one: filters, a second handler, a formatter, a record factory, a subclass
    or a tool that puts functions of its own in place of those that make and handle records.
    """

    def __init__(
        self, target: str | Logger | None = None, /, level: int | str = logging.NOTSET, *, name: str | None = None
    ) -> None:
        if target is None and name is None:
            raise TypeError("StdlibLogger: a name or a log must be given")
        if target is None or isinstance(target, str):
            super().__init__(name if target is None else target, level)  # type: ignore[arg-type]
            return
        super().__init__(target.name if name is None else name, level)
        self.propagate = False
        self.addHandler(AsyncLogHandler(target))

    _needs_records: bool = False
    _native: tuple[AsyncLogHandler, Logger] | None = None
    """The handler that was written to last, and the log's own logger of this one's name."""

    def __init_subclass__(cls, **options: Any) -> None:
        """A subclass that has its own idea of a record gets one; one that decides what is enabled is asked."""
        super().__init_subclass__(**options)
        if any(getattr(cls, name) is not getattr(StdlibLogger, name) for name in (*_ASKING, *_RECORD_MAKING)):
            cls._needs_records = True
            for name in _shortcuts(cls):
                setattr(cls, name, getattr(_BASE, name))

    def __setattr__(self, name: str, value: object) -> None:
        """The same for a method that is replaced in one logger."""
        super().__setattr__(name, value)
        if name in _ASKING or name in _RECORD_MAKING:
            super().__setattr__("_needs_records", True)
            for shortcut in _shortcuts(type(self)):
                vars(self).setdefault(shortcut, MethodType(getattr(_BASE, shortcut), self))

    if not TYPE_CHECKING:  # to type checkers they are what `logging.Logger` declares
        debug = _call(logging.DEBUG)
        info = _call(logging.INFO)
        warning = _call(logging.WARNING)
        error = _call(logging.ERROR)
        critical = _call(logging.CRITICAL)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        """As ever; not remembered, since a logger that is in no manager would not hear of changes."""
        return not self.disabled and self.manager.disable < level and level >= self.getEffectiveLevel()

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,  # noqa: FBT002 - as the method it stands for
        stacklevel: int = 1,
    ) -> None:
        plain = extra is None or (type(extra) is dict and _REFUSED.isdisjoint(extra))
        sink = self._only_sink(level) if plain and not stack_info and level in _LEVELS else None
        if sink is None:
            super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)
            return
        if exc_info and not isinstance(exc_info, BaseException | tuple):
            exc_info = sys.exc_info()
        error = _error_of(exc_info) if exc_info else None
        sink.logger_for(self.name).forward(level, msg, args, extra or _NONE, error=error)

    def _only_sink(self, level: int) -> AsyncLogHandler | None:
        """The handler that alone would get a record of this logger, if it would write it as it is."""
        if (
            self.filters
            or self._needs_records
            or logging.getLogRecordFactory() is not _RECORD
            or _BASE._log is not _LOG
            or _BASE.makeRecord is not _MAKE_RECORD
            or _BASE.handle is not _HANDLE
            or _BASE.callHandlers is not _CALL_HANDLERS
            or _RECORD.__init__ is not _INIT
            or _RECORD.getMessage is not _GET_MESSAGE
        ):
            return None
        only: logging.Handler | None = None
        place: logging.Logger | None = self
        while place is not None:
            if place.handlers:
                if only is not None or len(place.handlers) > 1:
                    return None
                only = place.handlers[0]
            place = place.parent if place.propagate else None
        if type(only) is not AsyncLogHandler or only.level > level or only._replaced:
            return None
        return None if only.filters or only.formatter is not None or only.attributes else only


_SHORTCUTS: Final = ("debug", "info", "warning", "error", "critical")


def _shortcuts(kind: type[StdlibLogger]) -> list[str]:
    """Those methods of a class that ask for nothing but the level."""
    return [name for name in _SHORTCUTS if getattr(kind, name) is getattr(StdlibLogger, name)]


def _deeper(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a call that is passed on by a method in this file, whose frame the caller's is below."""
    stacklevel = options.get("stacklevel", 1)
    return {**options, "stacklevel": stacklevel + 1 if isinstance(stacklevel, int) else stacklevel}
