"""The logs that are open in this process, and the one that `get_log()` means."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from ._config import level_number
from ._logger import Core, Logger
from ._operation import operation_logger
from ._queue import RecordQueue
from ._stats import CloseReport, Ledger, Stats, make_report, make_stats

__all__ = ["OPEN_LOGS", "LogProxy", "OpenLog", "current_log", "get_log", "log_execution"]


F = TypeVar("F", bound=Callable[..., Any])


class OpenLog(Protocol):
    """What the process-wide hooks need of a log."""

    def close(self, *, timeout_s: float | None = None, reason: str = ...) -> CloseReport: ...

    def flush(self, *, durable: bool = False, timeout_s: float | None = None) -> bool: ...

    def after_fork_in_child(self) -> None: ...

    def expects_sigterm(self) -> bool: ...


OPEN_LOGS: list[Any] = []
"""In the order they were opened. Kept alive until closed, so that a log nobody refers to is drained all the same."""


class _NoLog(Logger):
    """Keeps nothing, accepts nothing, needs no closing. What `get_log()` means before a log is open."""

    __slots__ = ()

    def __init__(self) -> None:
        queue = RecordQueue(Ledger(), max_size=1, max_bytes=1, block=False, wake=lambda: None)
        queue.close()
        super().__init__(Core(queue, _ABOVE_ALL, 0, "amsha"), "amsha")

    @property
    def level(self) -> str:
        """No level is enabled."""
        return "OFF"

    def rotation_due(self) -> bool:
        """False: there is no segment."""
        return False

    def set_level(self, level: str | int) -> None:
        """Raises `ConfigError` as any log would; changes nothing."""
        level_number(level)

    def flush(self, *, durable: bool = False, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        """True: nothing was accepted, so all of it is written."""
        return True

    def rotate(self, *, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        """True: there is nothing to move."""
        return True

    async def aflush(self, *, durable: bool = False, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        """As `flush`."""
        return True

    async def aready(self) -> bool:
        """False, as of a closed log."""
        return False

    def watch_loop(self, loop: object = None) -> bool:  # noqa: ARG002
        """False, as of a log that takes no samples."""
        return False

    def stats(self) -> Stats:
        """All zero."""
        return make_stats(Ledger().view({}))

    def close(self, *, timeout_s: float | None = None, reason: str = "") -> CloseReport:  # noqa: ARG002
        """Nothing to close."""
        return make_report(Ledger().view({}), ok=True, left_behind=0, duration_seconds=0.0)

    async def aclose(self, *, timeout_s: float | None = None) -> CloseReport:  # noqa: ARG002
        """As `close`."""
        return self.close()


_ABOVE_ALL = 100
_NO_LOG = _NoLog()


def current_log() -> Logger:
    """What `get_log()` stands for at this moment. A log that belongs to one library only is never meant."""
    for log in reversed(OPEN_LOGS):
        if log.shared:
            meant: Logger = log
            return meant
    return _NO_LOG


class LogProxy:
    """Stands for the log opened last in this process, looked up at each use; see `get_log`."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(current_log(), name)

    def log_execution(self, operation: str, *, arguments: bool | Iterable[str] = False) -> Callable[[F], F]:
        """As the function of that name: a decorator is applied once, but the log is looked up at each call."""
        return operation_logger(operation, arguments, current_log)

    def __repr__(self) -> str:
        log = current_log()
        return "<get_log(): no log is open>" if log is _NO_LOG else f"<get_log(): {log!r}>"


def get_log() -> Any:
    """The log opened last in this process and still open or, without one, a log that keeps nothing.

    Resolved at each use, so that a module may hold it from import time on.
    """
    return _PROXY


def log_execution(
    operation: str, *, arguments: bool | Iterable[str] = False, log: Logger | None = None
) -> Callable[[F], F]:
    """Log each call of the decorated function: DEBUG when it starts, INFO when it ends, ERROR when it raises.

    For functions, coroutines, generators, async generators, methods, `classmethod` and `staticmethod`. The lines say
    `operation`, `function`, `status` (`success`, `failed`, `cancelled`), `duration_seconds` and, of a failure,
    `error_type`, `error_message` and `stacktrace`; they are part of the execution the call is made in. What was raised
    passes through. A generator runs in a context of its own, so that an execution it enters is not entered for
    whoever iterates over it; one that is not exhausted is `cancelled`.

    `arguments`: True records all arguments of a call but `self` and `cls`, names only those; False none. `log`: where
    to (None: `get_log()`, resolved at each call). Raises ValueError at decoration if there is no such argument.
    """
    return operation_logger(operation, arguments, current_log if log is None else lambda: log)


_PROXY = LogProxy()
