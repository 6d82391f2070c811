"""Fixtures for all tests."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blockbuster
import pytest
import support

from amsha_async_log import open_log
from amsha_async_log._pipeline import Log
from amsha_async_log._registry import OPEN_LOGS

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and whatever the tests start would inherit it and be deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option comes from the environment of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("AMSHA_LOG_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_log_left_open() -> Iterator[None]:
    """A test closes what it opens."""
    yield
    left = list(OPEN_LOGS)
    for log in left:
        log.close(timeout_s=1.0)
    assert not left, f"left open: {left}"


@pytest.fixture(autouse=True)
def _nothing_blocks_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the test's own thread runs an event loop, a blocking call on any thread that runs one is an error.

    That includes the log's own loop. Where no loop runs on the test's thread nothing is checked, nor slowed down.
    Covers what goes through `asyncio.Runner`: `asyncio.run`, `uvloop.run` and `anyio.run`.
    """
    run = asyncio.Runner.run
    test_thread = threading.get_ident()

    def checked_run(runner: asyncio.Runner, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != test_thread:
            return run(runner, *args, **kwargs)
        with blockbuster.blockbuster_ctx() as checks:
            for check in checks.functions.values():  # options are read once, before there is a thread that could do it
                check.can_block_in("_config_file.py", {"_of_project", "_read"})
                check.can_block_in("_pipeline.py", {"_absolute", "__init__"})
                # /proc and /sys answer from memory, and the log's own thread reads them, not the program's loop.
                check.can_block_in("_sampler.py", {"__init__", "_collect", "close"})
                check.can_block_in("_sampling.py", {"make_sampler"})
            checks.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
            checks.functions["os.fsync"] = blockbuster.BlockBusterFunction(os, "fsync").activate()
            return run(runner, *args, **kwargs)

    monkeypatch.setattr(asyncio.Runner, "run", checked_run)


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """Where the log of a test goes."""
    return tmp_path / "app.jsonl"


@pytest.fixture
def opened(log_path: Path) -> Iterator[Callable[..., Log]]:
    """Opens logs, by default at `log_path` and without console, and closes them when the test ends."""
    logs: list[Log] = []

    def open_one(path: str | os.PathLike[str] = log_path, **options: Any) -> Log:
        log = open_log(path, **{"console": False, **options})
        logs.append(log)
        return log

    yield open_one
    for log in reversed(logs):
        log.close()


@pytest.fixture
def log(opened: Callable[..., Log]) -> Log:
    """A log at level DEBUG."""
    return opened(level="DEBUG")


@pytest.fixture
def lines(log: Log, log_path: Path) -> support.Lines:
    """Closes the log and gives the program's lines."""

    def read() -> list[dict[str, Any]]:
        assert log.close().ok
        return support.user_lines(log_path)

    return read


@pytest.fixture
def read_lines() -> Callable[[str | os.PathLike[str]], list[dict[str, Any]]]:
    """Reads every line of a file strictly; see `support.read_lines`."""
    return support.read_lines
