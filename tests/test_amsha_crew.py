"""The example crew that knows only Amsha's logger module: from its file alone every execution can be told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import amsha_async_log
from amsha_async_log import reader

SCRIPT = Path(__file__).parents[1] / "examples" / "amsha_crew.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(amsha_async_log.__file__).parents[1])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example ran."""
    folder = tmp_path_factory.mktemp("crew")
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "3 executions in .Nibandha" in done.stdout
    return folder


def show(folder: Path, crew_name: str, *options: str) -> Any:
    (execution,) = (e for e in reader.executions(folder / ".Nibandha") if e.crew_name == crew_name)
    done = subprocess.run(
        [sys.executable, "-m", "amsha_async_log", "show", execution.execution_id, ".Nibandha", *options],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if options else done.stdout


def test_example_uses_nothing_but_the_drop_in_to_log() -> None:
    imports = [line for line in SCRIPT.read_text().splitlines() if "amsha_async_log" in line and "import" in line]
    assert imports == [
        "from amsha_async_log import reader",
        "from amsha_async_log.amsha import MetricsLogger, get_logger, log_execution, reset_logger",
    ]


def test_file_is_where_amsha_has_it_and_is_complete(folder: Path) -> None:
    assert (folder / ".Nibandha" / "Amsha" / "logs" / "Amsha.log").is_file()
    verdict = reader.verify(folder / ".Nibandha")
    assert verdict.ok, verdict.findings


def test_states_are_told(folder: Path) -> None:
    states = [state["state_to"] for state in show(folder, "repair_crew", "--json")["states"]]
    assert states == ["pending", "running", "failed", "running", "completed"]


def test_inputs_and_outputs_are_told(folder: Path) -> None:
    execution = show(folder, "repair_crew", "--json")["execution"]
    assert execution["inputs"] == {"topic": "llamas", "crew": "repair_crew"}
    assert execution["outputs"] == {"title": "repair_crew", "score": 0.9}


def test_tokens_retries_errors_and_duration_are_told(folder: Path) -> None:
    execution = show(folder, "timeout_crew", "--json")["execution"]
    assert (execution["status"], execution["total_tokens"], execution["prompt_tokens"]) == ("failed", 1400, 1200)
    assert (execution["retries"], execution["errors"]) == (1, 2)
    assert execution["duration_seconds"] > 0.02


def test_files_are_told_with_their_validation(folder: Path) -> None:
    files = show(folder, "repair_crew", "--json")["files"]
    assert [(file["operation"], file["validation_status"], file["attempt"]) for file in files] == [
        ("save", None, 1),
        ("validate", "failed", 1),
        ("save", None, 2),
        ("validate", "success", 2),
    ]


def test_error_is_told_with_its_stack(folder: Path) -> None:
    text = show(folder, "timeout_crew")
    assert "ModelTimeoutError: no answer within 30 s" in text
    assert 'raise ModelTimeoutError("no answer within 30 s")' in text


def test_operations_are_in_the_file(folder: Path) -> None:
    lines = [line for line in reader.records(folder / ".Nibandha") if line.get("operation") == "build_crew"]
    assert [line["message"] for line in lines].count("build_crew completed") == 3
