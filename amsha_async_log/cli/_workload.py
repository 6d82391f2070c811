"""The work behind `amsha-log demo` and the overhead benchmark: crews that call a model over HTTP and write files.

The work is real: sockets, retries with back-off, files written, read back and repaired, crews that fail and one that is
cancelled. How often each of these happens is decided by the seed alone, so two runs differ in their timing only.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Final

import aiohttp
import anyio
from msgspec import DecodeError, Struct, json

from .. import events
from .._logger import Logger
from ..execution import Step
from ._client import MODELS, ModelClient, ProviderError
from ._null_log import NullLog
from ._stub import DOWN_MODEL, stub_server

__all__ = ["AnswerError", "NullLog", "ProviderError", "Tally", "run_crews"]

MAX_DRAFTS: Final = 3
"""Answers asked for before a step is given up because none of them was valid."""

_CREWS: Final = ("research_crew", "pricing_crew", "support_crew", "legal_crew", "release_crew", "hiring_crew")
_STEPS: Final = (("research", "researcher"), ("outline", "planner"), ("draft", "writer"), ("review", "editor"))
_CONNECTIONS: Final = 64
_CANCELS_FROM: Final = 10


class AnswerError(Exception):
    """The provider answered, but never with the JSON that was asked for."""


@dataclass(slots=True)
class Tally:
    """What happened, counted by the crews themselves: the log file has to say the same."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    calls: int = 0
    """HTTP calls that were answered, whatever the answer."""
    retries: int = 0
    """Of these, the ones refused or failed and made again."""
    redrafts: int = 0
    """Answers asked for again because the one before was not valid."""
    cleaned: int = 0
    """Answer files repaired in place."""
    total_tokens: int = 0


class _Answer(Struct):
    """What every step asks the model for."""

    title: str
    points: list[str]
    score: int


def _unfenced(text: str) -> str:
    """Take off the Markdown fence that models like to put around JSON."""
    return text.strip().removeprefix("```json").removesuffix("```").strip()


class _Crew:
    """One crew: its steps in order, each an answer of the model turned into a valid file."""

    def __init__(self, log: Logger | NullLog, client: ModelClient, directory: Path, *, number: int, seed: int) -> None:
        rng = Random(f"{seed}/{number}")
        self.name = _CREWS[number % len(_CREWS)]
        self.doomed = False
        """Its last step asks a model that is down."""
        self.started = asyncio.Event()
        """Set when the first step is under way."""
        self._log = log
        self._client = client
        self._directory = anyio.Path(directory / f"{number:03d}_{self.name}")
        self._number = number
        self._model = rng.choice(MODELS)
        self._steps = _STEPS[: rng.choice((3, 4))]

    async def run(self, tally: Tally, progress: Callable[[str], None] | None) -> None:
        """Run to the end, count how it ended, and let nothing but a cancellation out."""
        outcome = "cancelled"
        try:
            await self._execute(tally)
        except asyncio.CancelledError:
            tally.cancelled += 1
            raise
        except (ProviderError, AnswerError, aiohttp.ClientError, OSError):
            # The execution block has logged it with its traceback; the other crews go on.
            outcome = "failed"
            tally.failed += 1
        else:
            outcome = "completed"
            tally.completed += 1
        finally:
            if progress is not None:
                progress(f"{self.name} {self._number:03d} {outcome}")

    async def _execute(self, tally: Tally) -> None:
        inputs = {"topic": self.name.removesuffix("_crew"), "steps": [name for name, _agent in self._steps]}
        async with self._log.execution(self.name, inputs=inputs, model_name=self._model) as run:
            await self._directory.mkdir(parents=True, exist_ok=True)
            self._log.info("Crew kickoff", crew_number=self._number, mode="async")
            answers: list[_Answer] = []
            for index, (name, agent) in enumerate(self._steps):
                model = DOWN_MODEL if self.doomed and index == len(self._steps) - 1 else self._model
                async with run.step("task", name, agent_name=agent) as step:
                    self._log.debug("Agent %s takes over", agent, answers_so_far=len(answers))
                    self.started.set()
                    answers.append(await self._answer(step, name, model, answers, tally))
            best = max(answers, key=lambda answer: answer.score)
            run.set_outputs({"title": best.title, "score": best.score, "files": len(answers)})
            self._log.info("Crew execution completed", score=best.score)

    async def _answer(
        self, step: Step | NullLog, name: str, model: str, before: list[_Answer], tally: Tally
    ) -> _Answer:
        """Ask until an answer can be saved as a valid file."""
        path = self._directory / f"{name}.json"
        prompt = f"Do the {name} for the {self.name}. Known so far: {'; '.join(answer.title for answer in before)}"
        for draft in range(1, MAX_DRAFTS + 1):
            completion = await self._client.ask(model, prompt, f"{self._number}/{name}/{draft}")
            step.record_tokens(
                prompt_tokens=completion.usage.prompt_tokens,
                completion_tokens=completion.usage.completion_tokens,
                cost_usd=completion.cost_usd,
            )
            try:
                answer = await self._store(path, completion.text, tally)
            except DecodeError as error:
                if draft == MAX_DRAFTS:
                    message = f"no valid answer for {name!r} in {MAX_DRAFTS} drafts"
                    raise AnswerError(message) from error
                self._ask_again(error, draft)
                tally.redrafts += 1
            else:
                self._log.info("Answer accepted", title=answer.title, points=len(answer.points), score=answer.score)
                return answer
        raise AssertionError  # the last draft returns or raises

    def _ask_again(self, error: DecodeError, draft: int) -> None:
        self._log.warning("Answer is not usable, asking again: %s", error, draft=draft)
        self._log.emit(
            events.ErrorRecovered(
                error_type=type(error).__name__, error_message=str(error), recovery_action="ask_again", attempt=draft
            )
        )

    async def _store(self, path: anyio.Path, text: str, tally: Tally) -> _Answer:
        """Save the answer, read it back, and repair the file when it is not valid; raises when that is no help."""
        await self._write(path, text, "save")
        try:
            return await self._validate(path)
        except DecodeError:
            cleaned = _unfenced(text)
            if cleaned == text:
                raise
        await self._write(path, cleaned, "clean")
        tally.cleaned += 1
        return await self._validate(path)

    async def _write(self, path: anyio.Path, text: str, operation: str) -> None:
        started = perf_counter()
        size = await path.write_bytes(text.encode())
        self._log.emit(
            events.FileOperation(
                operation=operation,
                file_path=str(path),
                status="success",
                file_size_bytes=size,
                duration_seconds=perf_counter() - started,
            )
        )

    async def _validate(self, path: anyio.Path) -> _Answer:
        data = await path.read_bytes()
        try:
            answer = json.decode(data, type=_Answer)
        except DecodeError as error:
            invalid = events.FileOperation(
                operation="validate",
                file_path=str(path),
                status="failed",
                validation_status="invalid",
                error_type=type(error).__name__,
                error_message=str(error),
            )
            self._log.emit(invalid, level="WARNING")
            raise
        self._log.emit(
            events.FileOperation(operation="validate", file_path=str(path), status="success", validation_status="valid")
        )
        return answer


async def run_crews(
    log: Logger | NullLog, *, crews: int, seed: int, directory: Path, progress: Callable[[str], None] | None = None
) -> Tally:
    """Run `crews` crews at once against a stub server of their own; their files go to `directory`.

    About one crew in eight fails, at least one of two or more. Of ten and more, one is cancelled. `progress` is called
    with a line at the end of each crew.
    """
    order = Random(f"{seed}/roles").sample(range(crews), crews)
    doomed = order[: crews // 8 + 1] if crews > 1 else []
    tally = Tally()
    async with (
        stub_server(seed) as url,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS), timeout=aiohttp.ClientTimeout(total=30)
        ) as session,
    ):
        client = ModelClient(log, session, url)
        members = [_Crew(log, client, directory, number=number, seed=seed) for number in range(crews)]
        for number in doomed:
            members[number].doomed = True
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(member.run(tally, progress)) for member in members]
            if crews >= _CANCELS_FROM:
                # Its first call is still on its way when the event wakes this task: it always ends in the same place.
                await members[order[-1]].started.wait()
                tasks[order[-1]].cancel()
    tally.calls, tally.retries, tally.total_tokens = client.calls, client.retries, client.total_tokens
    return tally
