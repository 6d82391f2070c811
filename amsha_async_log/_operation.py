"""`log_execution`: a decorator that logs each call of a function with its duration and outcome."""

import inspect
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ._logger import Logger
from ._observe import End, Watch, observed
from ._registry import get_log
from ._run import is_failure
from ._snapshot import describe_type

__all__ = ["log_execution"]

F = TypeVar("F", bound=Callable[..., Any])


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

    def decorate(function: F) -> F:
        plain = function.__func__ if isinstance(function, staticmethod | classmethod) else function
        decorated: F = observed(function, _watch(operation, plain, arguments, log))
        return decorated

    return decorate


def _watch(
    operation: str, function: Callable[..., Any], arguments: bool | Iterable[str], given: Logger | None
) -> Watch:
    name = getattr(function, "__qualname__", None) or describe_type(function)
    pick = _picker(operation, function, arguments)

    def watch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> End:
        target: Any = get_log() if given is None else given
        picked = pick(args, kwargs)
        target.debug(f"{operation} started", operation=operation, function=name, **picked)
        began = time.monotonic()

        def end(error: BaseException | None) -> None:
            fields: dict[str, Any] = {
                "operation": operation,
                "function": name,
                "duration_seconds": round(time.monotonic() - began, 6),
            }
            if error is None:
                target.info(f"{operation} completed", **fields, status="success", **picked)
            elif is_failure(error):
                target.error(f"{operation} failed", **fields, status="failed", **picked, exc_info=error)
            else:
                target.info(
                    f"{operation} cancelled", **fields, status="cancelled", error_type=describe_type(error), **picked
                )

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
