"""CPU time by task: each step of a task, and each call in a loop's executor, is charged to the execution it runs in.

Tasks of any loop hand their steps to `loop.call_soon`, and `asyncio.to_thread` its call to `loop.run_in_executor`. On a
loop that is measured both are wrapped, as attributes of that one loop, until the log is closed.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ._run import account_here
from ._watch import TaskClock

__all__ = ["measure_loop"]


def measure_loop(loop: asyncio.AbstractEventLoop, clock: TaskClock) -> Callable[[], None]:
    """Measure what runs on that loop from now on. Returns what ends it."""
    call_soon, run_in_executor = loop.call_soon, loop.run_in_executor
    switch = clock.switch

    def step(callback: Callable[..., object], *args: Any) -> None:
        switch(account_here())
        try:
            callback(*args)
        finally:
            switch(None)

    def measured_call_soon(callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return call_soon(step, callback, *args, context=context)

    def measured_run_in_executor(executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        return run_in_executor(executor, clock.charged(function, account_here()), *args)

    loop.call_soon = measured_call_soon  # type: ignore[method-assign, assignment]
    loop.run_in_executor = measured_run_in_executor  # type: ignore[method-assign, assignment]

    def end() -> None:
        if vars(loop).get("call_soon") is measured_call_soon:  # else somebody has wrapped it again
            del loop.call_soon
        if vars(loop).get("run_in_executor") is measured_run_in_executor:
            del loop.run_in_executor

    return end
