"""`amsha-log demo`: real crews write a log, and the log is then read back and proved complete."""

import asyncio
import shlex
import shutil
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from .. import reader
from .._pipeline import open_log
from .._stats import CloseReport, Stats
from ..exceptions import ConfigError
from ._render import executions_table, new_console, printable, quiet_pipe
from ._verify import verdict
from ._workload import Tally, run_crews

__all__ = ["LOG_NAME", "run_demo"]

LOG_NAME: Final = "demo.jsonl"


def run_demo(directory: Path, crews: int, keep: bool, seed: int) -> int:
    """Run the crews, show what their log says, and return 0 when the log proves itself complete, else 1.

    The log stays in `directory`; the files that the crews wrote beside it stay only when `keep` is true. A directory
    that holds the log of an earlier demo is appended to.
    """
    console = new_console()
    path = directory / LOG_NAME
    answers = _new_folder(directory)
    try:
        before = {execution.execution_id for execution in reader.executions(path)} if path.exists() else set()
        tally, stats, report = asyncio.run(_work(console, path, answers, crews, seed))
    finally:
        if not keep:
            shutil.rmtree(answers)
    executions = [execution for execution in reader.executions(path) if execution.execution_id not in before]
    checked = reader.verify(path)
    with quiet_pipe():
        console.print()
        console.print(executions_table(executions))
        console.print()
        for line in _summary(tally, executions, stats, report):
            console.print(line, soft_wrap=True)
        console.print(Text(f"verify  {verdict(checked)}", style="green" if checked.ok else "red"), soft_wrap=True)
        for finding in checked.findings:
            console.print(f"        {printable(finding.message)}", soft_wrap=True)
        console.print()
        for command in _next_commands(executions, path):
            console.print(command, soft_wrap=True)
    return 0 if checked.ok else 1


def _new_folder(directory: Path) -> Path:
    """Make a folder for one run's files, of a name that nothing has: what is removed later is this run's alone."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(prefix="answers-", dir=directory))
    except OSError as error:
        message = f"the demo cannot write to {directory}: {error.strerror or error}"
        raise ConfigError(message) from error


async def _work(console: Console, path: Path, answers: Path, crews: int, seed: int) -> tuple[Tally, Stats, CloseReport]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("crews", total=crews)
        async with open_log(path, level="DEBUG", sample_interval_s=1, console=False) as log:
            tally = await run_crews(
                log, crews=crews, seed=seed, directory=answers, progress=lambda _line: bar.advance(task)
            )
            report = await log.aclose()
    return tally, log.stats(), report


def _summary(tally: Tally, executions: list[reader.Execution], stats: Stats, report: CloseReport) -> list[str]:
    """Two accounts of the same run, one kept by the crews and one read back from the file, and the log's own."""
    statuses = Counter(execution.status for execution in executions)
    calls = sum(execution.llm_calls for execution in executions)
    retries = sum(execution.retries for execution in executions)
    ours = f"{tally.completed} completed, {tally.failed} failed, {tally.cancelled} cancelled"
    theirs = f"{statuses['completed']} completed, {statuses['failed']} failed, {statuses['cancelled']} cancelled"
    offered = f"{report.offered} offered = {report.accepted} accepted + {report.refused} refused"
    fate = f"{report.written} written, {report.dropped} dropped, {report.failed} failed, {stats.degraded} degraded"
    return [
        f"crews   {ours}; {tally.calls} calls, {tally.retries} retries",
        f"file    {theirs}; {calls} calls, {retries} retries",
        f"ledger  {offered}; {fate}",
    ]


def _next_commands(executions: list[reader.Execution], path: Path) -> list[str]:
    """Say what to try now, with the execution that went worst as the example."""
    log = shlex.quote(str(path))
    commands = [f"amsha-log ls {log}", f"amsha-log verify {log}"]
    if executions:
        worst = max(executions, key=lambda execution: (execution.status == "failed", execution.retries))
        commands.insert(0, f"amsha-log show {worst.execution_id} {log}")
    return commands
