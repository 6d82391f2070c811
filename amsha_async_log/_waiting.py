"""Waiting for the log's thread on whatever event loop the caller runs, without holding it up."""

import asyncio
import time
from concurrent.futures import Future
from typing import Any, Final

__all__ = ["sleep", "wait_for"]

_POLL_FIRST_S: Final = 0.0005
_POLL_LAST_S: Final = 0.01


async def sleep(seconds: float) -> None:
    """As `anyio.sleep`, which is loaded only where the loop is not asyncio's: it takes tens of milliseconds."""
    if _on_asyncio():
        await asyncio.sleep(seconds)
    else:
        import anyio

        await anyio.sleep(seconds)


async def wait_for(future: Future[Any], timeout_s: float, *, shielded: bool = False) -> bool:
    """Wait until another thread has set `future`. False on time-out. `shielded`: a cancellation takes effect after it.

    The result is the caller's to take.
    """
    if future.done():
        return True
    if _on_asyncio():
        return await _wait_on_asyncio(future, timeout_s, shielded=shielded)
    import anyio

    with anyio.CancelScope(shield=shielded):
        deadline, delay = time.monotonic() + timeout_s, _POLL_FIRST_S
        while not future.done():
            if time.monotonic() >= deadline:
                return False
            await anyio.sleep(delay)
            delay = min(2 * delay, _POLL_LAST_S)
    return True


async def _wait_on_asyncio(future: Future[Any], timeout_s: float, *, shielded: bool) -> bool:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_: Future[Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(tell)
    deadline = loop.time() + timeout_s
    cancelled: asyncio.CancelledError | None = None
    while not future.done() and loop.time() < deadline:
        try:
            async with asyncio.timeout(None if timeout_s == float("inf") else deadline - loop.time()):
                await done.wait()
        except TimeoutError:
            break
        except asyncio.CancelledError as error:
            if not shielded:
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return future.done()


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
