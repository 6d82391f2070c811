"""Wraps any kind of function so that its begin and end are told, and generators keep their context to themselves.

A generator's body runs in the context of whoever asks it for its next value: an execution that it enters would be
entered for the caller too, until the generator goes on. A wrapped one runs in a copy of the context it was first
asked in, whoever asks later.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context, copy_context
from typing import Any

__all__ = ["End", "Watch", "inside", "observed"]

End = Callable[[BaseException | None], None]
"""Called when a call has ended, with what it raised."""
Watch = Callable[[tuple[Any, ...], dict[str, Any]], End]
"""Called when a call begins, with its arguments."""


def observed(function: Any, watch: Watch) -> Any:
    """`function` with each of its calls told to `watch`: functions, coroutines, generators, async generators, methods.

    A generator's call begins when it is first asked for a value and ends when it is exhausted, raises or is closed.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(observed(function.__func__, watch))
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, watch)
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, watch)
    if inspect.isgeneratorfunction(function):
        return _generator(function, watch)
    return _function(function, watch)


def _function(function: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        end = watch(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            end(error)
            raise
        end(None)
        return result

    return call


def _coroutine(function: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        end = watch(args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            end(error)
            raise
        end(None)
        return result

    return call


def _generator(function: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        run = copy_context().run
        end = watch(args, kwargs)
        try:
            generator = run(function, *args, **kwargs)
            value = run(next, generator)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    run(generator.close)
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on, as whoever threw it meant
                    value = run(generator.throw, error)
                else:
                    value = run(generator.send, sent)
        except StopIteration as stop:
            result = stop.value
        except BaseException as error:
            end(error)
            raise
        end(None)
        return result

    return generate


def _async_generator(function: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @functools.wraps(function)
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        context = copy_context()
        end = watch(args, kwargs)
        try:
            generator = context.run(function, *args, **kwargs)
            value = await _Inside(context, generator.asend(None))
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    await _Inside(context, generator.aclose())
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on, as whoever threw it meant
                    value = await _Inside(context, generator.athrow(error))
                else:
                    value = await _Inside(context, generator.asend(sent))
        except StopAsyncIteration:
            pass
        except BaseException as error:
            end(error)
            raise
        end(None)

    return generate


def inside(context: Context, function: Any) -> Any:
    """A coroutine function whose calls run in copies of `context`."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _Inside(context.copy(), function(*args, **kwargs))

    return call


class _Inside:
    """An awaitable whose every step runs in a given context; what it waits for is waited for by the awaiting task."""

    def __init__(self, context: Context, awaitable: Awaitable[Any]) -> None:
        self._run = context.run
        self._steps = awaitable.__await__()

    def __await__(self) -> Generator[Any, Any, Any]:
        run, steps = self._run, self._steps
        step: Callable[[], Any] = functools.partial(next, steps)
        while True:
            try:
                waited_for = run(step)
            except StopIteration as stop:
                return stop.value
            try:
                sent = yield waited_for
            except BaseException as error:  # noqa: BLE001 - a cancellation, for one: it belongs inside
                step = functools.partial(steps.throw, error)
            else:
                step = functools.partial(steps.send, sent)
