"""Logs each call of a decorated function with its duration and outcome."""

import inspect
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from ._observe import End, Watch, observed
from ._run import is_failure
from ._snapshot import describe_type

__all__ = ["Operations", "operation_logger"]

F = TypeVar("F", bound=Callable[..., Any])


class Operations(Protocol):
    """The calls of a logger that an operation makes."""

    def debug(self, message: str, /, **fields: Any) -> bool: ...

    def info(self, message: str, /, **fields: Any) -> bool: ...

    def error(self, message: str, /, **fields: Any) -> bool: ...


def operation_logger(
    operation: str, arguments: bool | Iterable[str], target: Callable[[], Operations]
) -> Callable[[F], F]:
    """The decorator that `log_execution` is; `target` gives the logger, asked at each call."""

    def decorate(function: F) -> F:
        plain = function.__func__ if isinstance(function, staticmethod | classmethod) else function
        decorated: F = observed(function, _watch(operation, plain, arguments, target))
        return decorated

    return decorate


def _watch(
    operation: str, function: Callable[..., Any], arguments: bool | Iterable[str], target: Callable[[], Operations]
) -> Watch:
    name = getattr(function, "__qualname__", None) or describe_type(function)
    pick = _picker(operation, function, arguments)
    started, completed, failed, cancelled = (
        f"{operation} {outcome}" for outcome in ("started", "completed", "failed", "cancelled")
    )

    def watch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> End:
        log = target()
        picked = pick(args, kwargs)
        log.debug(started, operation=operation, function=name, **picked)
        began = time.monotonic()

        def end(error: BaseException | None) -> None:
            fields: dict[str, Any] = {
                "operation": operation,
                "function": name,
                "duration_seconds": round(time.monotonic() - began, 6),
                **picked,
            }
            if error is None:
                log.info(completed, **fields, status="success")
            elif is_failure(error):
                log.error(failed, **fields, status="failed", exc_info=error)
            else:
                log.info(cancelled, **fields, status="cancelled", error_type=describe_type(error))

        return end

    return watch


def _picker(
    operation: str, function: Callable[..., Any], wanted: bool | Iterable[str]
) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """What finds the arguments to record among those of a call, as `{"arguments": {name: value}}`."""
    if wanted is False:
        return lambda _args, _kwargs: {}
    signature = inspect.signature(function)
    names = list(signature.parameters)
    if wanted is True:
        chosen = [name for i, name in enumerate(names) if not (i == 0 and name in ("self", "cls"))]
    else:
        chosen = [wanted] if isinstance(wanted, str) else list(wanted)
        for name in chosen:
            if name not in names:
                raise ValueError(
                    f"log_execution({operation!r}): {function.__qualname__} has no argument {name!r}; "
                    f"it has {', '.join(names) or 'none'}"
                )

    def pick(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # the call itself will say so
            return {}
        return {"arguments": {name: given[name] for name in chosen if name in given}}

    return pick
