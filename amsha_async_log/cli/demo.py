"""`amsha-log demo`: real crews write a log, and the log is then read back and proved complete."""

import asyncio
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import reader
from .._pipeline import open_log
from .._stats import CloseReport, Stats
from ._render import executions_table
from ._workload import Tally, run_crews

__all__ = ["LOG_NAME", "run_demo"]

LOG_NAME: Final = "demo.jsonl"
_ANSWERS: Final = "answers"


def run_demo(directory: Path, crews: int, keep: bool, seed: int) -> int:  # noqa: FBT001
    """Run the crews, show what their log says, and return 0 when the log proves itself complete, else 1.

    The log stays in `directory`; the files that the crews wrote beside it stay when `keep` is true. A directory that
    holds the log of an earlier demo is appended to.
    """
    console = Console(highlight=False)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOG_NAME
    before = {execution.execution_id for execution in reader.executions(path)} if path.exists() else set()
    tally, stats, report = asyncio.run(_work(console, path, crews, seed))
    if not keep:
        shutil.rmtree(directory / _ANSWERS)

    executions = [execution for execution in reader.executions(path) if execution.execution_id not in before]
    verdict = reader.verify(path)
    console.print(executions_table(executions))
    statuses = Counter(execution.status for execution in executions)
    for line in (
        f"crews   completed {tally.completed}, failed {tally.failed}, cancelled {tally.cancelled}, "
        f"calls {tally.calls}, retries {tally.retries}, answers repaired {tally.cleaned}",
        f"file    completed {statuses['completed']}, failed {statuses['failed']}, cancelled {statuses['cancelled']}",
        _ledger_line(stats, report),
        f"verify  {'ok' if verdict.ok else 'NOT OK'}",
        *(f"        {finding}" for finding in verdict.findings),
        "",
        "Look closer:",
        *(f"  {command}" for command in _next_commands(executions, path)),
    ):
        console.print(line, markup=False, soft_wrap=True)
    return 0 if verdict.ok else 1


async def _work(console: Console, path: Path, crews: int, seed: int) -> tuple[Tally, Stats, CloseReport]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("crews", total=crews)
        async with open_log(path, level="DEBUG", console=False) as log:
            tally = await run_crews(
                log,
                crews=crews,
                seed=seed,
                directory=path.parent / _ANSWERS,
                progress=lambda _line: bar.advance(task),
            )
            report = await log.aclose()
    return tally, log.stats(), report


def _ledger_line(stats: Stats, report: CloseReport) -> str:
    return (
        f"ledger  offered {report.offered} = accepted {report.accepted} + refused {report.refused}; "
        f"written {report.written}, dropped {report.dropped}, failed {report.failed}, degraded {stats.degraded}"
    )


def _next_commands(executions: list[reader.Execution], path: Path) -> list[str]:
    """What to try now, with the execution that went worst as the example."""
    commands = [f"amsha-log ls {path}", f"amsha-log stats --by crew_name {path}", f"amsha-log verify {path}"]
    if executions:
        worst = max(executions, key=lambda execution: (execution.status == "failed", execution.retries))
        commands.insert(0, f"amsha-log show {worst.execution_id} {path}")
    return commands
