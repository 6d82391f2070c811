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
        "sync_script": {("billing_run", "completed"): 1},
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
