"""Waiting for another thread on any event loop: what is returned, and what a time-out and a cancellation do."""

import asyncio
from concurrent.futures import Future
from typing import Any

import anyio
import pytest

from amsha_async_log._waiting import sleep, wait_for

BACKENDS = ["asyncio", "trio"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_sleep_returns_on_any_loop(backend: str) -> None:
    assert anyio.run(sleep, 0.001, backend=backend) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_wait_is_over_at_once_where_the_future_is_set(backend: str) -> None:
    future: Future[None] = Future()
    future.set_result(None)
    assert anyio.run(wait_for, future, 60.0, backend=backend) is True


@pytest.mark.parametrize("backend", BACKENDS)
def test_wait_ends_when_another_thread_sets_the_future(backend: str) -> None:
    future: Future[None] = Future()

    async def main() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, future.set_result, None)
            return await wait_for(future, 60.0)

    assert anyio.run(main, backend=backend) is True


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_wait_gives_up_after_its_time(backend: str, seconds: float) -> None:
    assert anyio.run(wait_for, Future[Any](), seconds, backend=backend) is False


def test_cancellation_ends_a_wait() -> None:
    async def main() -> bool:
        task = asyncio.create_task(wait_for(Future(), 60.0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(main()) is True


def test_cancellation_of_a_shielded_wait_takes_effect_after_it() -> None:
    future: Future[None] = Future()

    async def main() -> tuple[bool, bool]:
        task = asyncio.create_task(wait_for(future, 60.0, shielded=True))
        await asyncio.sleep(0)
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        waiting = not task.done()
        future.set_result(None)
        await asyncio.wait({task})
        return waiting, task.cancelled()

    assert asyncio.run(main()) == (True, True)


def test_future_set_after_the_loop_is_gone_disturbs_nobody() -> None:
    future: Future[None] = Future()
    assert asyncio.run(wait_for(future, 0.0)) is False
    future.set_result(None)
    assert future.done()
