"""`get_log()`: the log opened last, looked up at each use, and what stands in for it before there is one."""

import asyncio
import gc
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import run_python, user_lines

from amsha_async_log import events, get_log, open_log
from amsha_async_log._pipeline import Log

HELD_FROM_IMPORT_TIME = get_log()


def messages(path: Path) -> list[str]:
    return [line["message"] for line in user_lines(path)]


# -- before one is open ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "exception"])
def test_call_before_a_log_is_open_is_not_accepted(level: str) -> None:
    assert getattr(get_log(), level)("message %s", 1, a=math.nan, exc_info=ValueError()) is False


def test_emit_before_a_log_is_open_is_not_accepted() -> None:
    assert get_log().emit(events.FileOperation(operation="o", file_path="f", status="s"), a=1) is False
    assert get_log().emit("no struct") is False


def test_nothing_is_kept_before_a_log_is_open(log_path: Path) -> None:
    get_log().critical("before")
    get_log().child("crew").bind(a=1).critical("before")
    with open_log(log_path, console=False) as log:
        log.info("after")
        assert log.stats().offered == 1
    assert messages(log_path) == ["after"]


def test_calls_before_a_log_is_open_hold_no_memory() -> None:
    class Value:
        pass

    value = Value()
    before = sys.getrefcount(value)
    for _ in range(100):
        get_log().critical("before", value=value)
        get_log().bind(value=value).critical("before")
    gc.collect()
    assert sys.getrefcount(value) == before


def test_is_enabled_for_nothing_before_a_log_is_open() -> None:
    assert not get_log().is_enabled_for("CRITICAL")


def test_execution_before_a_log_is_open_runs_its_block() -> None:
    ran = []
    with get_log().execution("crew") as run, run.step("task", "t") as step:
        step.record_tokens(prompt_tokens=1)
        run.set_outputs("o")
        ran.append(1)
    assert ran == [1]


def test_flush_before_a_log_is_open_succeeds() -> None:
    assert get_log().flush(durable=True, timeout_s=0)
    assert asyncio.run(get_log().aflush())


@pytest.mark.parametrize(
    "use",
    [
        lambda log: log.stats().offered == 0,
        lambda log: log.close().ok,
        lambda log: asyncio.run(log.aclose()).ok,
        lambda log: asyncio.run(log.aready()) is False,
        lambda log: isinstance(log.level, str),
        lambda log: log.name == "amsha",
        lambda log: log.carry(len)([1]) == 1,
        lambda log: log.child("crew").name == "amsha.crew",
    ],
    ids=["stats", "close", "aclose", "aready", "level", "name", "carry", "child"],
)
def test_what_a_log_offers_works_before_one_is_open(use: Callable[[Log], bool]) -> None:
    assert use(get_log())


def test_every_public_method_of_a_log_is_there_before_one_is_open() -> None:
    for_hooks = {"open", "after_fork_in_child", "expects_sigterm", "config", "shared"}
    names = {name for name in dir(Log) if not name.startswith("_")} - for_hooks
    assert sorted(name for name in names if not hasattr(get_log(), name)) == []


def test_set_level_before_a_log_is_open_does_not_make_it_accept() -> None:
    program = "from amsha_async_log import get_log; get_log().set_level('DEBUG'); print(get_log().info('x'))"
    assert run_python(program).stdout == "False\n"


def test_repr_says_which_log_it_is(opened: Callable[..., Log], log_path: Path) -> None:
    assert "no log is open" in repr(get_log())
    opened()
    assert str(log_path) in repr(get_log())


# -- once one is open --------------------------------------------------------------------------------------------------


def test_proxy_held_from_import_time_reaches_the_log(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    assert HELD_FROM_IMPORT_TIME.info("message")
    log.close()
    assert messages(log_path) == ["message"]


def test_proxy_means_the_log_opened_last(opened: Callable[..., Log], tmp_path: Path) -> None:
    first, second = opened(tmp_path / "1.jsonl"), opened(tmp_path / "2.jsonl")
    get_log().info("to the second")
    second.close()
    get_log().info("to the first again")
    first.close()
    assert messages(tmp_path / "1.jsonl") == ["to the first again"]
    assert messages(tmp_path / "2.jsonl") == ["to the second"]


def test_closing_the_earlier_log_leaves_the_later_one(opened: Callable[..., Log], tmp_path: Path) -> None:
    first, second = opened(tmp_path / "1.jsonl"), opened(tmp_path / "2.jsonl")
    first.close()
    assert get_log().info("message")
    second.close()
    assert messages(tmp_path / "2.jsonl") == ["message"]


def test_after_the_last_log_is_closed_nothing_is_accepted(opened: Callable[..., Log]) -> None:
    opened().close()
    assert get_log().critical("after") is False


def test_proxy_reaches_the_log_from_a_running_loop(log_path: Path) -> None:
    async def main() -> bool:
        async with open_log(log_path, console=False):
            get_log().info("message")
            return bool(await get_log().aflush())

    assert asyncio.run(main())
    assert messages(log_path) == ["message"]


def test_execution_through_the_proxy_writes_to_the_log(opened: Callable[..., Log], log_path: Path) -> None:
    with opened(), get_log().execution("crew"):
        get_log().info("inside")
    assert [line["crew_name"] for line in user_lines(log_path)] == ["crew"] * 3
