"""Standard `logging` into a log: a handler for loggers that exist, and a logger that makes their calls cheaper.

    logging.getLogger().addHandler(AsyncLogHandler(log))

    logging.setLoggerClass(StdlibLogger)  # optional, early: loggers made from then on need no LogRecord

Keys of `extra` become fields, exceptions stay structured, lines carry the running execution. Records go through the
levels and filters of loggers and handlers as always; then the level of the log itself applies (`INFO` unless it was
opened with another).
"""

import logging
from collections.abc import Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ._logger import Logger
from ._pipeline import Log, open_private_log
from ._registry import current_log

__all__ = ["AsyncLogHandler", "StdlibLogger"]

_OF_RECORDS: Final = tuple(vars(logging.makeLogRecord({})))
"""What every LogRecord has, in the order it is set: no fields of the user's."""
_REFUSED: Final = frozenset(_OF_RECORDS) | {"message", "asctime"}
"""Keys of `extra` that the standard library refuses."""
_NO_FIELDS: Final = _REFUSED | {"taskName"}  # not all versions have it, but records come from other processes too
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
    the message is that of the record; with one it is what the formatter makes of it, the exception left aside. A
    message whose arguments do not fit is written with a mark instead of an error on stderr.

    Needs no lock: `handle` calls `emit` at once, from any thread. What the log refuses is counted there. Raises
    `ConfigError` for wrong options, TypeError for a log and options together.
    """

    def __init__(
        self,
        log: Logger | None = None,
        *,
        level: int | str = logging.NOTSET,
        attributes: Iterable[str] = (),
        **options: Any,
    ) -> None:
        if log is not None and options:
            raise TypeError(f"AsyncLogHandler: a log and options ({', '.join(options)}) cannot both be given")
        super().__init__(level)
        self.attributes: tuple[str, ...] = tuple(attributes)
        self._own: Log | None = open_private_log(options) if options else None
        self._log = self._own if self._own is not None else log
        self._named: tuple[Logger | None, dict[str, Logger]] = (None, {})

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """None is needed: a call is one append."""
        self.lock = None

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
        """The log's own logger that writes lines of that name."""
        target = self._log if self._log is not None else current_log()
        known, named = self._named
        if known is not target or len(named) > _LOGGERS_KEPT:
            named = {}
            self._named = target, named
        logger = named.get(name)
        if logger is None:
            logger = named[name] = target.named(name)
        return logger

    def flush(self) -> None:
        """Wait until what was logged is written, for the log's `shutdown_timeout_s` at most."""
        target: Any = self._log if self._log is not None else current_log()
        if isinstance(target, Log):
            target.flush()

    def close(self) -> None:
        """Take the handler out of service; a log of its own is drained and closed."""
        if self._own is not None:
            self._own.close()
        super().close()

    def __repr__(self) -> str:
        where = repr(self._log) if self._log is not None else "get_log()"
        return f"<{type(self).__name__} {where} ({logging.getLevelName(self.level)})>"

    def _forward(self, record: logging.LogRecord) -> None:
        held = vars(record)
        names = list(held)
        if len(names) >= _NUMBER and names[_NUMBER - 1] == _OF_RECORDS[-1]:
            del names[:_NUMBER]
        fields = {name: held[name] for name in names if name not in _NO_FIELDS}
        if record.stack_info:
            fields["stack_info"] = record.stack_info
        if record.levelno not in _LEVELS:
            fields |= {"levelname": record.levelname, "levelno": record.levelno}
        for name in self.attributes:
            fields[name] = getattr(record, name, None)
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is None and record.exc_text:
            fields["exc_text"] = record.exc_text
        message: object
        args: tuple[object, ...] = ()
        if self.formatter is not None:
            bare = copy(record)  # a formatter leaves its marks on the record
            bare.exc_info = bare.exc_text = bare.stack_info = None
            message = self.formatter.format(bare)
        else:
            try:
                message = record.getMessage()
            except Exception:  # noqa: BLE001 - arguments that do not fit: the line is marked
                message, args = record.msg, record.args if isinstance(record.args, tuple) else (record.args,)
        self.logger_for(record.name).forward(
            record.levelno, message, args, fields, error=error, timestamp=record.created
        )


_NATIVE: Final[Mapping[int, Any]] = {
    logging.DEBUG: Logger.debug,
    logging.INFO: Logger.info,
    logging.WARNING: Logger.warning,
    logging.ERROR: Logger.error,
    logging.CRITICAL: Logger.critical,
}
_RECORD_MAKING: Final = ("_log", "callHandlers", "filter", "findCaller", "handle", "makeRecord")
_NONE: Final[Mapping[str, object]] = {}


def _call(level: int) -> Any:
    """The method for one level. Two calls less on the way than `Logger.info`, which asks and then passes on."""
    native = _NATIVE[level]

    def call(self: "StdlibLogger", msg: object, *args: object, **options: Any) -> None:
        if self.disabled or self.manager.disable >= level or (self.level or self.getEffectiveLevel()) > level:
            return
        extra = options.get("extra", _NONE)
        sink = self._only_sink(level) if extra is not None and len(options) <= 1 else None
        if sink is None or (options and extra is _NONE) or "extra" in extra:
            self._log(level, msg, args, **_deeper(options))
            return
        if not _REFUSED.isdisjoint(extra):
            _refuse(extra)
        try:
            native(sink.logger_for(self.name), msg, *args, **extra)
        except TypeError:  # keys that are no strings; nothing else raises there
            native(sink.logger_for(self.name), msg, *args, extra=extra)

    call.__name__ = logging.getLevelName(level).lower()
    call.__doc__ = f"""Log at level {logging.getLevelName(level)}, as `logging.Logger` does."""
    return call


class StdlibLogger(logging.Logger):
    """A `logging.Logger` that skips the LogRecord where nobody but one `AsyncLogHandler` would see it.

    As a class for all loggers: `logging.setLoggerClass(StdlibLogger)`. By itself: `StdlibLogger(log)`, of the log's
    name or `name`, writes to that log only. Everything else is as in the standard library: levels, filters, handlers,
    propagation, `extra` (with the same KeyError for keys of a LogRecord), `exc_info`, `stack_info`, `stacklevel`. A
    record is made as ever for whoever needs one: filters, a second handler, a formatter, a record factory.
    """

    def __init__(self, target: str | Logger, /, level: int | str = logging.NOTSET, *, name: str | None = None) -> None:
        if isinstance(target, str):
            super().__init__(target, level)
            return
        super().__init__(target.name if name is None else name, level)
        self.propagate = False
        self.addHandler(AsyncLogHandler(target))

    _needs_records: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        """A subclass that has its own idea of a record gets one."""
        super().__init_subclass__(**options)
        cls._needs_records = any(getattr(cls, name) is not getattr(StdlibLogger, name) for name in _RECORD_MAKING)

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
        sink = None if stack_info or level not in _NATIVE else self._only_sink(level)
        if sink is None or (extra is not None and "extra" in extra):
            super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)
            return
        if extra is not None and not _REFUSED.isdisjoint(extra):
            _refuse(extra)
        native = _NATIVE[level]
        native(sink.logger_for(self.name), msg, *args, exc_info=exc_info or None, extra=extra)

    def _only_sink(self, level: int) -> AsyncLogHandler | None:
        """The handler that alone would get a record of this logger, if it would write it as it is."""
        if self.filters or self._needs_records or logging.getLogRecordFactory() is not logging.LogRecord:
            return None
        only: logging.Handler | None = None
        place: logging.Logger | None = self
        while place is not None:
            if place.handlers:
                if only is not None or len(place.handlers) > 1:
                    return None
                only = place.handlers[0]
            place = place.parent if place.propagate else None
        if type(only) is not AsyncLogHandler or only.level > level:
            return None
        return None if only.filters or only.formatter is not None or only.attributes else only


def _deeper(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a call that is passed on by a method in this file, whose frame the caller's is below."""
    stacklevel = options.get("stacklevel", 1)
    return {**options, "stacklevel": stacklevel + 1 if isinstance(stacklevel, int) else stacklevel}


def _refuse(extra: Mapping[str, object]) -> NoReturn:
    taken = next(key for key in extra if key in _REFUSED)
    raise KeyError(f"Attempt to overwrite {taken!r} in LogRecord")
