"""Ten thousand executions at once, nested at random, failing and cancelled: the files tell exactly what happened."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amsha_async_log import current_execution, events, reader
from amsha_async_log._pipeline import Log

NUMBER = 10_000


@dataclass
class Node:
    """What a run did, as the program knows it."""

    name: str
    status: str = "completed"
    parent: str | None = None
    tokens: int = 0
    notes: int = 0
    steps: list[tuple[str, str | None, str]] = field(default_factory=list)
    """(step id, parent step id, status)"""


class Expected(Exception):  # noqa: N818 - a failure that belongs to the test
    pass


class World:
    """Runs random trees of executions and steps in tasks and threads, and keeps account of them."""

    def __init__(self, log: Log, seed: int) -> None:
        self.log = log
        self.random = random.Random(seed)
        self.nodes: dict[str, Node] = {}
        self.threads = ThreadPoolExecutor(4)
        list(self.threads.map(threading.Barrier(4).wait, [10.0] * 4))  # all four exist: starting one would block a loop

    async def execution(self, name: str, depth: int) -> None:
        outcome = self.random.choices(["completed", "failed", "cancelled"], [7, 2, 1])[0]
        outer = current_execution()
        run = self.log.execution(name, inputs={"name": name})
        node = self.nodes[run.execution_id] = Node(name, outcome, outer.execution_id if outer else None)
        with contextlib.suppress(Expected, asyncio.CancelledError):
            async with run:
                for _ in range(self.random.randrange(3)):
                    await self.part(run, node, run, None, depth)
                if self.random.random() < 0.2:
                    run.set_state("paused")
                    await asyncio.sleep(0)
                    run.set_state("running")
                run.record_tokens(1)
                node.tokens += 1
                await self.end(outcome)

    async def end(self, outcome: str) -> None:
        if outcome == "failed":
            raise Expected
        if outcome == "cancelled":
            raise asyncio.CancelledError

    async def part(self, run: Any, node: Node, around: Any, parent: str | None, depth: int) -> None:
        kind = self.random.randrange(6)
        if kind == 0 and depth:
            await self.execution(f"{node.name}.inner", depth - 1)
            assert current_execution() is run
        elif kind == 1:
            self.log.info("note", of=run.execution_id)
            node.notes += 1
        elif kind == 2:
            work = self.log.carry(lambda: self.log.info("note", of=run.execution_id))
            await asyncio.get_running_loop().run_in_executor(self.threads, work)
            node.notes += 1
        elif kind == 3 and depth:
            parts = [self.part(run, node, around, parent, depth - 1) for _ in range(2)]
            await asyncio.gather(*parts)
        else:
            await self.step(run, node, around, parent, depth)

    async def step(self, run: Any, node: Node, around: Any, parent: str | None, depth: int) -> None:
        outcome = self.random.choices(["completed", "failed", "cancelled"], [8, 1, 1])[0]
        step = around.step("task", "t")
        node.steps.append((step.step_id, parent, outcome))
        with contextlib.suppress(Expected, asyncio.CancelledError):
            async with step:
                await asyncio.sleep(0)
                step.record_tokens(2)
                node.tokens += 2
                if depth and self.random.random() < 0.4:
                    await self.part(run, node, step, step.step_id, depth - 1)
                await self.end(outcome)

    async def run(self, number: int) -> None:
        async def contained(name: str) -> None:
            assert current_execution() is None
            await self.execution(name, 2)
            assert current_execution() is None

        await asyncio.gather(*(contained(f"crew{n % 7}") for n in range(number)))


def seen(path: Path) -> dict[str, Node]:
    """What the files say."""
    notes: dict[str, int] = {}
    steps: dict[str, dict[str, list[Any]]] = {}
    for line in reader.records(path):
        run = line.get("execution_id")
        if line.get("message") == "note":
            assert line["of"] == run, "a note carries the id of another execution"
            notes[run] = notes.get(run, 0) + 1
        elif line["event"].startswith("step."):
            step = steps.setdefault(run, {}).setdefault(line["step_id"], [None, None])
            if line["event"] == "step.started":
                step[0] = line.get("parent_step_id")
            else:
                step[1] = line["status"]
    return {
        found.execution_id: Node(
            found.crew_name or "",
            found.status,
            found.parent_execution_id,
            found.total_tokens or 0,
            notes.get(found.execution_id, 0),
            sorted((name, *step) for name, step in steps.get(found.execution_id, {}).items()),
        )
        for found in reader.executions(path)
    }


def shuffled(path: Path, seed: int) -> Path:
    """The same lines in another order, over two files."""
    lines = path.read_bytes().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    folder = path.parent / f"shuffled{seed}"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"".join(lines[::2]))
    (folder / "b.jsonl").write_bytes(b"".join(lines[1::2]))
    return folder


def expected(world: World) -> dict[str, Node]:
    for node in world.nodes.values():
        node.steps.sort(key=lambda step: step[0])
    return world.nodes


@pytest.mark.timeout(300)
def test_ten_thousand_executions_at_once_are_rebuilt_exactly(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_queue_size=0, max_queue_bytes=0)
    world = World(log, 1)
    asyncio.run(world.run(NUMBER))
    world.threads.shutdown()
    assert log.close().ok
    assert len(world.nodes) >= NUMBER
    assert seen(log_path) == expected(world)
    assert seen(shuffled(log_path, 1)) == world.nodes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), number=st.integers(1, 40))
def test_any_tree_is_rebuilt_whatever_the_order_of_the_lines(
    opened: Callable[..., Log], tmp_path_factory: pytest.TempPathFactory, seed: int, number: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "app.jsonl"
    log = opened(path)
    world = World(log, seed)
    asyncio.run(world.run(number))
    world.threads.shutdown()
    assert log.close().ok
    assert seen(path) == expected(world)
    folder = shuffled(path, seed)
    assert seen(folder) == world.nodes
    for execution_id in list(world.nodes)[:3]:
        straight, other = reader.detail(execution_id, path), reader.detail(execution_id, folder)
        assert straight is not None
        assert other is not None
        straight.records.clear()
        other.records.clear()
        assert straight == other


def test_summaries_of_concurrent_executions_are_their_own(opened: Callable[..., Log]) -> None:
    log = opened()

    async def one(number: int) -> int | None:
        async with log.execution("crew") as run:
            for _ in range(number % 5):
                async with run.step("llm", "call"):
                    await asyncio.sleep(0)
                    log.emit(events.LlmCallCompleted(prompt_tokens=number))
        return run.summary().total_tokens

    async def main() -> list[int | None]:
        return await asyncio.gather(*(one(number) for number in range(200)))

    assert asyncio.run(main()) == [number * (number % 5) if number % 5 else None for number in range(200)]
