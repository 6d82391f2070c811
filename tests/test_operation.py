"""`log_execution`: each call of a decorated function on lines of its own, whatever kind of function it is."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import Lines, user_lines

from amsha_async_log import current_execution, get_log, log_execution
from amsha_async_log._context import CURRENT, ROOT
from amsha_async_log._pipeline import Log


@pytest.fixture(autouse=True)
def _no_scope_left_behind() -> Iterator[None]:
    yield
    left = CURRENT.get()
    CURRENT.set(ROOT)
    assert left is ROOT, left.fields


def told(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(line["level"], line["message"], line.get("status")) for line in lines]


WELL = [("DEBUG", "op started", None), ("INFO", "op completed", "success")]
BADLY = [("DEBUG", "op started", None), ("ERROR", "op failed", "failed")]
CANCELLED = [("DEBUG", "op started", None), ("INFO", "op cancelled", "cancelled")]


# -- each kind of function ---------------------------------------------------------------------------------------------


def test_function_that_returns_is_told_with_its_duration(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, b=2) == 3
    seen = lines()
    assert told(seen) == WELL
    assert {line["operation"] for line in seen} == {"op"}
    assert seen[1]["function"].endswith("add")
    assert 0 <= seen[1]["duration_seconds"] < 60


def test_function_that_raises_is_told_with_the_exception(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def fail() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        fail()
    seen = lines()
    assert told(seen) == BADLY
    assert (seen[1]["error_type"], seen[1]["error_message"]) == ("ValueError", "why")
    assert seen[1]["stacktrace"]["frames"][-1]["function"].endswith("fail")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_interrupt_exit_and_cancellation_are_no_failures(log: Log, lines: Lines, raised: type[BaseException]) -> None:
    @log_execution("op")
    def stop() -> None:
        raise raised

    with pytest.raises(raised):
        stop()
    assert told(lines()) == CANCELLED


def test_coroutine_is_told_when_it_ends(log: Log, lines: Lines) -> None:
    @log_execution("op")
    async def work() -> str:
        await asyncio.sleep(0)
        log.info("inside")
        return "done"

    assert asyncio.run(work()) == "done"
    assert [line["message"] for line in lines()] == ["op started", "inside", "op completed"]


def test_cancelled_coroutine_is_told_as_cancelled(log: Log, lines: Lines) -> None:
    @log_execution("op")
    async def work() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told(lines()) == CANCELLED


def test_generator_is_told_when_it_is_exhausted(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def count() -> Iterator[int]:
        yield 1
        log.info("between")
        yield 2

    assert list(count()) == [1, 2]
    assert [line["message"] for line in lines()] == ["op started", "between", "op completed"]


def test_generator_that_is_never_asked_is_not_told(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def count() -> Iterator[int]:
        yield 1

    count().close()  # type: ignore[attr-defined]
    assert lines() == []


def test_generator_that_is_closed_early_is_cancelled(log: Log, lines: Lines) -> None:
    closed = []

    @log_execution("op")
    def count() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    for _ in count():
        break
    assert closed == [True]
    assert told(lines()) == CANCELLED


def test_generator_takes_what_is_sent_thrown_and_returns(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def echo() -> Any:
        got = yield "ready"
        try:
            yield got
        except KeyError:
            yield "caught"
        return "result"

    def collect() -> Any:
        seen.append((yield from echo()))

    seen: list[Any] = []
    outer = collect()
    assert next(outer) == "ready"
    assert outer.send("hello") == "hello"
    assert outer.throw(KeyError("k")) == "caught"
    assert list(outer) == []
    assert seen == ["result"]
    assert told(lines()) == WELL


def test_generator_that_raises_is_told_as_failed(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        list(fail())
    assert told(lines()) == BADLY


def test_async_generator_is_told_when_it_is_exhausted(log: Log, lines: Lines) -> None:
    @log_execution("op")
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    async def main() -> list[int]:
        return [number async for number in count()]

    assert asyncio.run(main()) == [0, 1, 2]
    assert told(lines()) == WELL


def test_async_generator_takes_what_is_sent_and_thrown(log: Log, lines: Lines) -> None:
    @log_execution("op")
    async def echo() -> Any:
        got = yield "ready"
        try:
            yield got
        except KeyError:
            await asyncio.sleep(0)
            yield "caught"

    async def main() -> None:
        generator = echo()
        assert await generator.asend(None) == "ready"
        assert await generator.asend("hello") == "hello"
        assert await generator.athrow(KeyError("k")) == "caught"
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    asyncio.run(main())
    assert told(lines()) == WELL


def test_async_generator_closed_early_runs_its_cleanup_and_is_cancelled(log: Log, lines: Lines) -> None:
    closed = []

    @log_execution("op")
    async def count() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        generator = count()
        async for _ in generator:
            break
        await generator.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())
    assert closed == [True]
    assert told(lines()) == CANCELLED


def test_async_generator_cancelled_while_it_waits_is_cancelled(log: Log, lines: Lines) -> None:
    @log_execution("op")
    async def wait() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async def main() -> None:
        task = asyncio.create_task(anext(wait()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told(lines()) == CANCELLED


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_generator_works_on_every_backend(log: Log, lines: Lines, backend: str) -> None:
    @log_execution("op")
    async def ticks() -> AsyncIterator[int]:
        for number in range(3):
            with anyio.move_on_after(10):
                await anyio.sleep(0)
            yield number

    async def main() -> list[int]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
            return [number async for number in ticks()]

    assert anyio.run(main, backend=backend) == [0, 1, 2]
    assert told(lines()) == WELL


class Crew:
    @log_execution("op", arguments=True)
    def method(self, n: int) -> int:
        return n

    @classmethod
    @log_execution("op", arguments=True)
    def inner(cls, n: int) -> int:
        return n

    @log_execution("op", arguments=True)
    @classmethod
    def outer(cls, n: int) -> int:
        return n

    @log_execution("op", arguments=True)
    @staticmethod
    def static(n: int) -> int:
        return n


@pytest.mark.parametrize("name", ["method", "inner", "outer", "static"])
def test_methods_of_all_kinds_are_told_without_self(log: Log, lines: Lines, name: str) -> None:
    assert getattr(Crew(), name)(7) == 7
    seen = lines()
    assert told(seen) == WELL
    assert [line["arguments"] for line in seen] == [{"n": 7}, {"n": 7}]


def test_partial_of_a_coroutine_is_awaited(log: Log, lines: Lines) -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        return n

    assert asyncio.run(log_execution("op")(functools.partial(work, 5))()) == 5
    assert told(lines()) == WELL


@pytest.mark.parametrize(
    ("kind", "is_kind"),
    [
        ("def f(): pass", inspect.isfunction),
        ("async def f(): pass", inspect.iscoroutinefunction),
        ("def f(): yield", inspect.isgeneratorfunction),
        ("async def f(): yield", inspect.isasyncgenfunction),
    ],
)
def test_decorated_function_is_of_the_same_kind_and_name(kind: str, is_kind: Callable[[Any], bool]) -> None:
    namespace: dict[str, Any] = {}
    exec(kind, namespace)
    decorated = log_execution("op")(namespace["f"])
    assert is_kind(decorated)
    assert (decorated.__name__, decorated.__wrapped__) == ("f", namespace["f"])


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_arguments_are_not_recorded_unless_asked_for(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def login(password: str) -> None:
        del password

    login("hunter2")
    assert all("arguments" not in line for line in lines())


def test_chosen_arguments_are_recorded(log: Log, lines: Lines) -> None:
    @log_execution("op", arguments=("crew_name", "n"))
    def build(crew_name: str, n: int = 1, *, secret: str = "") -> None:
        del crew_name, n, secret

    build("research", secret="x")
    build("research", 5)
    assert [line["arguments"] for line in lines()] == [
        {"crew_name": "research"},
        {"crew_name": "research"},
        {"crew_name": "research", "n": 5},
        {"crew_name": "research", "n": 5},
    ]


def test_argument_there_is_not_is_refused_at_decoration() -> None:
    with pytest.raises(ValueError, match=r"log_execution\('op'\): .*build has no argument 'm'; it has n"):

        @log_execution("op", arguments="m")
        def build(n: int) -> None:
            del n


def test_wrong_call_raises_what_it_would_have_raised(log: Log, lines: Lines) -> None:
    @log_execution("op", arguments=True)
    def build(n: int) -> None:
        del n

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        build()  # type: ignore[call-arg]
    assert told(lines()) == BADLY


def test_argument_that_does_not_encode_is_marked(log: Log, lines: Lines) -> None:
    @log_execution("op", arguments=True)
    def build(n: object) -> None:
        del n

    build(object())
    assert all("log_degraded" in line for line in lines())


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_lines_are_part_of_the_execution_the_call_is_made_in(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def work() -> None:
        assert current_execution() is run

    with log.execution("crew") as run:
        work()
    assert {line["execution_id"] for line in lines()} == {run.execution_id}


def test_operation_does_not_end_the_execution_it_is_part_of(log: Log, log_path: Path) -> None:
    from amsha_async_log import reader

    @log_execution("op")
    def work() -> None:
        log.flush()

    with log.execution("crew"):
        work()
        log.flush()
        (execution,) = reader.executions(log_path)
        assert execution.status == "running"


def test_log_can_be_given(opened: Callable[..., Log], tmp_path: Path) -> None:
    first, second = opened(level="DEBUG"), opened(tmp_path / "second.jsonl", level="DEBUG")

    @log_execution("op", log=first.child("forge"))
    def work() -> None:
        pass

    work()
    assert (first.close().written, second.close().written) == (2, 0)


def test_logger_decorates_by_itself(log: Log, lines: Lines) -> None:
    assert log.child("forge").log_execution("op", arguments="n")(lambda n: n)(5) == 5
    assert [(line["logger"], line["arguments"]) for line in lines()] == [("amsha.forge", {"n": 5})] * 2


def test_function_decorated_before_a_log_is_open_goes_to_the_one_opened_later(
    opened: Callable[..., Log], log_path: Path
) -> None:
    work = get_log().log_execution("op")(lambda: None)
    log = opened(level="DEBUG")
    work()
    log.close()
    assert told(user_lines(log_path)) == WELL


def test_decorated_function_works_without_any_log() -> None:
    assert log_execution("op")(lambda: 5)() == 5


# -- context of generators ---------------------------------------------------------------------------------------------

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def test_execution_entered_by_a_generator_is_not_entered_for_who_iterates(log: Log, lines: Lines) -> None:
    @log_execution("op")
    def crew() -> Iterator[int]:
        with log.execution("crew"):
            for number in range(3):
                log.info("inside", number=number)
                yield number

    for _ in crew():
        assert current_execution() is None
        log.info("outside")
    seen = lines()
    assert all(
        "execution_id" not in line for line in seen if line["message" if "message" in line else "event"] == "outside"
    )
    assert len({line["execution_id"] for line in seen if line.get("message") == "inside"}) == 1


def test_execution_entered_by_an_async_generator_is_not_entered_for_who_iterates(log: Log, lines: Lines) -> None:
    @log_execution("op")
    async def crew() -> AsyncIterator[int]:
        async with log.execution("crew") as run:
            for number in range(3):
                await asyncio.sleep(0)
                assert current_execution() is run
                log.info("inside")
                yield number

    async def main() -> None:
        async for _ in crew():
            assert current_execution() is None

    asyncio.run(main())
    assert len({line["execution_id"] for line in lines() if line.get("message") == "inside"}) == 1


def test_generators_that_take_turns_keep_their_own_context(log: Log) -> None:
    @log_execution("op")
    def crew(name: str) -> Iterator[str]:
        VARIABLE.set(name)
        while True:
            yield VARIABLE.get()

    first, second = crew("first"), crew("second")
    assert [next(first), next(second), next(first), next(second)] == ["first", "second"] * 2
    assert VARIABLE.get() == "outside"


def test_generator_asked_by_another_context_goes_on_in_its_own(log: Log) -> None:
    @log_execution("op")
    def crew() -> Iterator[str]:
        VARIABLE.set("inside")
        while True:
            yield VARIABLE.get()

    generator = crew()
    next(generator)
    assert contextvars.Context().run(next, generator) == "inside"


def test_task_made_inside_an_async_generator_inherits_its_context(log: Log) -> None:
    async def read() -> str:
        return VARIABLE.get()

    @log_execution("op")
    async def crew() -> AsyncIterator[str]:
        VARIABLE.set("inside")
        yield await asyncio.create_task(read())

    async def main() -> list[str]:
        return [value async for value in crew()]

    assert asyncio.run(main()) == ["inside"]


def test_time_out_around_an_async_generator_cancels_what_it_waits_for(log: Log) -> None:
    @log_execution("op")
    async def crew() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async def main() -> bool:
        try:
            async with asyncio.timeout(0.01):
                async for _ in crew():
                    pass
        except TimeoutError:
            return True
        return False

    assert asyncio.run(main())
