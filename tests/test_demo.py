"""The demo: its stub of a model server, the outcome of its crews, and what its log says of them."""

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

import amsha_async_log
from amsha_async_log import reader
from amsha_async_log.cli._null_log import NullLog
from amsha_async_log.cli._stub import DOWN_MODEL, answer_text, stub_server
from amsha_async_log.cli._workload import Tally, run_crews

PACKAGE_FOLDER = str(Path(amsha_async_log.__file__).parents[1])
"""A subprocess has to find the package that is tested."""

CREWS = 12
SEED = 7
# What seed 7 brings for 12 crews, on every machine.
OUTCOME = Tally(completed=8, failed=3, cancelled=1, calls=61, retries=16, redrafts=9, cleaned=2, total_tokens=11508)


# -- stub server -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One answer of the stub."""

    status: int
    headers: dict[str, str]
    body: Any


def ask_stub(*requests: dict[str, Any], seed: int = SEED) -> list[Reply]:
    """Send the requests to a fresh stub, all at once."""

    async def ask() -> list[Reply]:
        async with stub_server(seed) as url, aiohttp.ClientSession() as session:

            async def one(request: dict[str, Any]) -> Reply:
                async with session.post(url, json=request) as response:
                    return Reply(response.status, dict(response.headers), await response.json())

            return list(await asyncio.gather(*map(one, requests)))

    return asyncio.run(ask())


def chat(user: str, model: str = "stub-small") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "How many?"}], "user": user}


@pytest.fixture(scope="module")
def replies() -> dict[int, Reply]:
    """One reply of the stub for every status it gives to well-formed requests."""
    return {reply.status: reply for reply in ask_stub(*(chat(f"probe/{number}") for number in range(60)))}


def test_stub_answers_refuses_and_errs(replies: dict[int, Reply]) -> None:
    assert set(replies) == {200, 429, 500}


def test_stub_answer_has_the_shape_of_a_chat_completion(replies: dict[int, Reply]) -> None:
    body = replies[200].body
    assert (body["object"], body["model"]) == ("chat.completion", "stub-small")
    assert body["choices"][0]["message"]["role"] == "assistant"


def test_stub_answer_says_how_many_tokens_it_took(replies: dict[int, Reply]) -> None:
    usage = replies[200].body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > usage["prompt_tokens"] > 0


def test_stub_says_when_to_come_back_with_a_429(replies: dict[int, Reply]) -> None:
    headers = replies[429].headers
    assert headers["Retry-After"] == "1"
    assert 10 <= int(headers["retry-after-ms"]) <= 80


@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limit_error"), (500, "server_error")])
def test_stub_error_has_the_shape_of_an_api_error(replies: dict[int, Reply], status: int, kind: str) -> None:
    error = replies[status].body["error"]
    assert error["type"] == kind
    assert error["message"]


def test_stub_always_errs_for_the_model_that_is_down() -> None:
    replies = ask_stub(*(chat(f"probe/{number}", DOWN_MODEL) for number in range(20)))
    assert {reply.status for reply in replies} == {500}


def test_stub_refuses_a_request_without_messages() -> None:
    (reply,) = ask_stub({"model": "stub-small", "user": "probe"})
    assert (reply.status, reply.body["error"]["type"]) == (400, "invalid_request_error")


def test_stub_gives_the_same_replies_for_the_same_seed_in_any_order() -> None:
    requests = [chat(f"probe/{number}") for number in range(20)]
    forwards, backwards = ask_stub(*requests), ask_stub(*reversed(requests))
    assert [(r.status, r.body) for r in forwards] == [(r.status, r.body) for r in reversed(backwards)]


def test_stub_gives_other_replies_for_another_seed() -> None:
    requests = [chat(f"probe/{number}") for number in range(20)]
    assert [r.body for r in ask_stub(*requests, seed=1)] != [r.body for r in ask_stub(*requests, seed=2)]


@pytest.mark.parametrize(
    "is_it",
    [
        pytest.param(lambda text: text.startswith("{") and text.endswith("}") and '"points"' in text, id="complete"),
        pytest.param(lambda text: text.startswith("```json\n") and text.endswith("\n```"), id="fenced"),
        pytest.param(lambda text: text.startswith("{") and not text.endswith("}"), id="cut short"),
        pytest.param(lambda text: text.endswith("}") and '"points"' not in text, id="without a field"),
    ],
)
def test_answer_texts_include_one_that_is(is_it: Callable[[str], bool]) -> None:
    assert any(is_it(answer_text(Random(number))) for number in range(100))


# -- crews -------------------------------------------------------------------------------------------------------------


def run_bare(directory: Path, crews: int, seed: int = SEED) -> tuple[Tally, list[str]]:
    """Run crews without a log; gives their tally and the lines of their progress."""
    lines: list[str] = []
    tally = asyncio.run(run_crews(NullLog(), crews=crews, seed=seed, directory=directory, progress=lines.append))
    return tally, lines


def test_outcome_of_the_crews_depends_on_the_seed_only(tmp_path: Path) -> None:
    assert run_bare(tmp_path, CREWS)[0] == OUTCOME


def test_progress_says_how_each_crew_ended(tmp_path: Path) -> None:
    _tally, lines = run_bare(tmp_path, CREWS)
    assert Counter(line.split()[-1] for line in lines) == {"completed": 8, "failed": 3, "cancelled": 1}


def test_one_crew_alone_completes(tmp_path: Path) -> None:
    tally, _lines = run_bare(tmp_path, 1)
    assert (tally.completed, tally.failed, tally.cancelled) == (1, 0, 0)


# -- demo --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demo:
    """One run of `amsha-log demo`."""

    directory: Path
    done: subprocess.CompletedProcess[str]

    @property
    def path(self) -> Path:
        """The log it wrote."""
        return self.directory / "demo.jsonl"


def run_demo(directory: Path, *options: str) -> Demo:
    command = [sys.executable, "-m", "amsha_async_log", "demo", "--dir", str(directory), "--seed", str(SEED), *options]
    environment = {**os.environ, "PYTHONPATH": PACKAGE_FOLDER}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    return Demo(directory, done)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo"), "--crews", str(CREWS))


def test_demo_exits_with_0(demo: Demo) -> None:
    assert demo.done.returncode == 0, demo.done.stdout + demo.done.stderr


def test_demo_writes_nothing_to_stderr(demo: Demo) -> None:
    assert demo.done.stderr == ""


def test_demo_says_that_its_log_verifies(demo: Demo) -> None:
    assert "verify  complete: " in demo.done.stdout


def test_log_of_the_demo_verifies(demo: Demo) -> None:
    verdict = reader.verify(demo.path)
    assert verdict.ok, verdict.findings


def test_executions_in_the_file_end_as_the_crews_did(demo: Demo) -> None:
    ends = Counter(execution.status for execution in reader.executions(demo.path))
    assert ends == {"completed": OUTCOME.completed, "failed": OUTCOME.failed, "cancelled": OUTCOME.cancelled}


def test_file_counts_the_model_calls_that_were_made(demo: Demo) -> None:
    assert sum(execution.llm_calls for execution in reader.executions(demo.path)) == OUTCOME.calls


def test_file_counts_the_retries_that_were_made(demo: Demo) -> None:
    assert sum(execution.retries for execution in reader.executions(demo.path)) == OUTCOME.retries


def test_file_counts_the_tokens_that_were_used(demo: Demo) -> None:
    assert sum(execution.total_tokens or 0 for execution in reader.executions(demo.path)) == OUTCOME.total_tokens


def test_demo_shows_every_execution(demo: Demo) -> None:
    missing = [e.execution_id for e in reader.executions(demo.path) if e.execution_id not in demo.done.stdout]
    assert missing == []


def test_demo_gives_the_same_counts_for_the_crews_and_for_the_file(demo: Demo) -> None:
    accounts = dict(re.findall(r"^(crews|file) +(\d+ completed.*)$", demo.done.stdout, re.MULTILINE))
    assert accounts["crews"] == accounts["file"]


def test_demo_ledger_is_that_of_the_file(demo: Demo) -> None:
    records = sum(writer.records for writer in reader.verify(demo.path).writers)
    assert f"ledger  {records} offered = {records} accepted + 0 refused; {records} written" in demo.done.stdout


def test_demo_names_the_next_commands(demo: Demo) -> None:
    assert f"amsha-log verify {demo.path}" in demo.done.stdout


def test_demo_leaves_the_log_only(demo: Demo) -> None:
    assert [file.name for file in demo.directory.iterdir()] == ["demo.jsonl"]


def test_demo_keeps_the_files_of_the_crews_when_asked_to(tmp_path: Path) -> None:
    run_demo(tmp_path, "--crews", "1", "--keep")
    assert sorted(file.name for file in tmp_path.rglob("*.json")) == ["draft.json", "outline.json", "research.json"]


def test_demo_in_a_directory_that_cannot_be_made_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    demo = run_demo(tmp_path / "file" / "inside", "--crews", "1")
    assert demo.done.returncode == 2
    assert demo.done.stderr.startswith("amsha-log: the demo cannot write to ")


def test_second_demo_in_a_directory_shows_its_own_executions_only(tmp_path: Path) -> None:
    first = run_demo(tmp_path, "--crews", "2")
    known = {execution.execution_id for execution in reader.executions(first.path)}
    second = run_demo(tmp_path, "--crews", "2")
    assert not [execution_id for execution_id in known if execution_id in second.done.stdout]
