"""CPU time by task: each step of a task, and each call in a loop's executor, is charged to the execution it runs in.

Tasks of any loop hand their steps to `loop.call_soon`, and `asyncio.to_thread` its call to `loop.run_in_executor`. On a
loop that is measured both are wrapped, as attributes of that one loop, until the log is closed.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

from ._run import account_here
from ._watch import ExecutionWatch, TaskClock

__all__ = ["measure_loop"]


def measure_loop(loop: asyncio.AbstractEventLoop, watch: ExecutionWatch, clock: TaskClock) -> Callable[[], None]:
    """Measure what runs on that loop from now on. Returns what ends it."""
    call_soon, run_in_executor = loop.call_soon, loop.run_in_executor
    before = {name: vars(loop)[name] for name in ("call_soon", "run_in_executor") if name in vars(loop)}
    switch = clock.switch
    measuring = True

    def step(callback: Callable[..., object], *args: Any) -> None:
        switch(account_here(watch))
        try:
            callback(*args)
        finally:
            switch(None)

    def measured_call_soon(callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        if measuring:
            return call_soon(step, callback, *args, context=context)
        return call_soon(callback, *args, context=context)

    def measured_run_in_executor(executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        if measuring and (executor is None or isinstance(executor, ThreadPoolExecutor)):  # others pickle the function
            function = clock.charged(function, account_here(watch))
        return run_in_executor(executor, function, *args)

    def end() -> None:
        nonlocal measuring
        measuring = False  # somebody may have wrapped these again, and then goes on calling them
        watch.loops.discard(loop)
        for name, ours in (("call_soon", measured_call_soon), ("run_in_executor", measured_run_in_executor)):
            if vars(loop).get(name) is ours:
                if name in before:
                    setattr(loop, name, before[name])
                else:
                    delattr(loop, name)

    loop.call_soon = measured_call_soon  # type: ignore[method-assign, assignment]
    loop.run_in_executor = measured_run_in_executor  # type: ignore[method-assign, assignment]
    watch.loops.add(loop)
    return end
