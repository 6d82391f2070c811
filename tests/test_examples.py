"""Every script in `examples/` runs as its docstring says and leaves a log that proves itself complete."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

import amsha_async_log
from amsha_async_log import reader

EXAMPLES_DIR = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(path for path in EXAMPLES_DIR.glob("*.py") if path.stem != "amsha_crew")  # see test_amsha_crew.py

PACKAGE_FOLDER = str(Path(amsha_async_log.__file__).parents[1])
"""A subprocess has to find the package that is tested."""

EXPECTED: Mapping[str, Mapping[tuple[str, str], int]] = MappingProxyType(
    {
        "benchmark_script": {("compression_bench", "completed"): 1},
        "parallel_crews": {("report_crew", "completed"): 8},
        "process_pool": {("sweep", "completed"): 1, ("simulation", "completed"): 500},
        "standard_logging": {("billing_run", "completed"): 1},
        "sync_script": {("billing_run", "completed"): 1},
        "what_it_cost": {("research", "completed"): 1, ("writing", "completed"): 1, ("review", "completed"): 1},
        "uvicorn_server": {("client", "completed"): 1, ("request", "completed"): 2, ("request", "failed"): 1},
    }
)
"""Example to (crew name, status) to executions."""


@dataclass(frozen=True)
class Run:
    """One example, run once."""

    name: str
    path: Path
    exit_code: int
    output: str
    errors: str


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda script: script.stem)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the example on a log of its own."""
    script: Path = request.param
    path = tmp_path_factory.mktemp(script.stem) / "run.jsonl"
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": PACKAGE_FOLDER},
    )
    return Run(script.stem, path, done.returncode, done.stdout, done.stderr)


def test_example_exits_with_0(run: Run) -> None:
    assert run.exit_code == 0, run.errors


def test_example_writes_nothing_to_stderr(run: Run) -> None:
    assert run.errors == ""


def test_log_of_the_example_verifies(run: Run) -> None:
    verdict = reader.verify(run.path)
    assert verdict.ok, verdict.findings


def test_every_writer_of_the_example_ended_in_order(run: Run) -> None:
    assert {writer.end for writer in reader.verify(run.path).writers} == {"closed"}


def test_example_prints_how_many_executions_the_files_hold(run: Run) -> None:
    printed = re.search(r"^(\d+) executions in ", run.output, re.MULTILINE)
    assert printed is not None, run.output
    assert int(printed[1]) == sum(1 for _ in reader.executions(run.path)) > 0


def test_executions_of_the_example_end_as_expected(run: Run) -> None:
    ends = Counter((execution.crew_name, execution.status) for execution in reader.executions(run.path))
    assert ends == EXPECTED.get(run.name)


def test_example_shows_how_to_run_it(run: Run) -> None:
    source = (EXAMPLES_DIR / f"{run.name}.py").read_text(encoding="utf-8")
    assert f"Run: python examples/{run.name}.py [LOG]" in source


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "process_pool.py"], indirect=True)
def test_process_pool_has_one_writer_for_each_process(run: Run) -> None:
    assert len(reader.verify(run.path).writers) == 1 + 2


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "process_pool.py"], indirect=True)
def test_runs_in_the_process_pool_name_the_sweep_as_their_parent(run: Run) -> None:
    executions = list(reader.executions(run.path))
    (sweep,) = (execution for execution in executions if execution.crew_name == "sweep")
    parents = Counter(execution.parent_execution_id for execution in executions if execution is not sweep)
    assert parents == {sweep.execution_id: 500}


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "sync_script.py"], indirect=True)
def test_sync_script_logs_an_error_for_each_bad_order(run: Run) -> None:
    (execution,) = reader.executions(run.path)
    assert execution.errors == 2


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "standard_logging.py"], indirect=True)
def test_standard_logging_brings_lines_of_all_loggers_into_the_execution(run: Run) -> None:
    lines = [record for record in reader.records(run.path) if record["event"] == "log"]
    assert {line["crew_name"] for line in lines} == {"billing_run"}
    levels = Counter((line["logger"], line["level"]) for line in lines)
    assert levels == {
        ("billing", "INFO"): 4,
        ("billing", "ERROR"): 1,
        ("http_client.connection", "WARNING"): 1,
        ("py.warnings", "WARNING"): 1,
    }


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "uvicorn_server.py"], indirect=True)
def test_requests_of_the_server_are_children_of_the_client(run: Run) -> None:
    client, *requests = sorted(reader.executions(run.path), key=lambda execution: execution.crew_name)
    assert {request.parent_execution_id for request in requests} == {client.execution_id}


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "uvicorn_server.py"], indirect=True)
def test_requests_of_the_server_are_in_the_trace_of_the_client(run: Run) -> None:
    lines = [record for record in reader.records(run.path) if record.get("crew_name") == "request"]
    (started,) = (
        record
        for record in reader.records(run.path)
        if record["event"] == "execution.started" and record["crew_name"] == "client"
    )
    assert {line["trace_id"] for line in lines} == {started["trace_id"]}


@pytest.mark.parametrize("run", [EXAMPLES_DIR / "uvicorn_server.py"], indirect=True)
def test_lines_of_the_server_s_loggers_are_in_the_execution_of_their_request(run: Run) -> None:
    lines = [record for record in reader.records(run.path) if record["event"] == "log"]
    inside = Counter(line["logger"] for line in lines if line.get("crew_name") == "request")
    assert inside == {"uvicorn.access": 3, "shop": 2, "py.warnings": 1}
    assert "uvicorn.error" in {line["logger"] for line in lines}
