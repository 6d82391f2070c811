"""What logging costs a real program: the crews of `amsha-log demo`, with the log and with one that does nothing.

The crews call a stub server over HTTP, write files, fail and retry; which of it happens is decided by a seed, so all
runs do the same work. Each runs in a fresh process that says its wall time and CPU time, from before the log is
opened until it is closed. Rounds of three: bare, logged and bare again, in all orders in turn. The two bare runs
against each other are the noise floor: an interval of the overhead that lies within theirs says nothing.

Wall time of such a program is mostly waiting for the model, here at most 40 ms a call, and the CPU time includes the
stub server, the HTTP client and the work on files: as in a program of this kind, and much more than the log.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from _harness import Report, bootstrap, empty_calls, main, temporary_folder

from amsha_async_log import open_log, reader
from amsha_async_log.cli._workload import NullLog, Tally, run_crews

SEED: Final = 7
WAYS: Final = ("bare", "logged", "bare again")


async def _bare(crews: int, directory: Path) -> Tally:
    return await run_crews(NullLog(), crews=crews, seed=SEED, directory=directory)


async def _logged(crews: int, directory: Path, path: Path) -> tuple[Tally, dict[str, Any]]:
    async with open_log(path, level="DEBUG", console=False) as log:
        tally = await run_crews(log, crews=crews, seed=SEED, directory=directory)
        closing = await log.aclose()
    stats = log.stats()
    lossless = closing.ok and not stats.refused and stats.written == stats.offered
    return tally, {"lossless": lossless, "records": stats.offered, "lends": stats.lends}


def _child(arguments: list[str]) -> None:
    """bare|logged CREWS FOLDER: run the crews once, then say what it took."""
    way, crews, folder = arguments[0], int(arguments[1]), Path(arguments[2])
    result: dict[str, Any] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "logged":
        tally, result = asyncio.run(_logged(crews, folder / "answers", folder / "log.jsonl"))
    else:
        tally = asyncio.run(_bare(crews, folder / "answers"))
    result |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "tally": asdict(tally)}
    print(json.dumps(result))


def _run(report: Report, way: str, crews: int) -> dict[str, Any]:
    """One process; the log, if there is one, is read back."""
    with temporary_folder() as folder:
        command = [sys.executable, __file__, "--child", "run", way.partition(" ")[0], str(crews), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report.check(f"{way}: the process ended well{done.stderr and ': '}{done.stderr[-300:]}", not done.returncode)
        said: dict[str, Any] = json.loads(done.stdout)
        if way == "logged":
            statuses = [execution.status for execution in reader.executions(folder / "log.jsonl")]
            counted = {name: statuses.count(name) for name in ("completed", "failed", "cancelled")}
            told = {name: said["tally"][name] for name in counted}
            report.check("logged: nothing refused or lost", said["lossless"])
            report.check(f"logged: {crews} executions in the file, ended as the crews say", counted == told)
            report.check("logged: the file verifies", reader.verify(folder / "log.jsonl").ok)
        return said


def _measure(report: Report) -> None:
    crews, rounds = (8, 2) if report.quick else (48, 12)
    report.floor(empty_calls())
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    orders = itertools.cycle(itertools.permutations(WAYS))
    for _ in range(rounds):
        for way in next(orders):
            results[way].append(_run(report, way, crews))
    tallies = {json.dumps(run["tally"], sort_keys=True) for runs in results.values() for run in runs}
    report.figures |= {"crews": crews, "runs": results, "tallies": len(tallies)}

    rows = []
    for measure in ("wall", "cpu"):
        series = {way: [run[measure] for run in runs] for way, runs in results.items()}
        both = [(a + b) / 2 for a, b in zip(series["bare"], series["bare again"], strict=True)]
        for name, above, below in (
            ("noise floor: bare again / bare", series["bare again"], series["bare"]),
            ("logged / bare (mean of both)", series["logged"], both),
        ):
            ratio = bootstrap(above, below)
            report.figures[f"{measure}: {name}"] = ratio
            interval = f"{100 * (ratio[1] - 1):+.1f} % to {100 * (ratio[2] - 1):+.1f} %"
            rows.append([f"{measure} time, {name}", f"{median(below):.3f} s", f"{median(above):.3f} s"])
            rows[-1] += [f"{100 * (ratio[0] - 1):+.1f} %", interval]
    logged = results["logged"]
    records = [run["records"] for run in logged]
    extra = [
        run["cpu"] - (a["cpu"] + b["cpu"]) / 2
        for run, a, b in zip(logged, results["bare"], results["bare again"], strict=True)
    ]
    report.table(
        f"{crews} crews, with and without the log",
        ["", "without", "with", "difference", "95 % interval"],
        rows,
        f"{rounds} rounds, medians. {median(records):.0f} records a run at level DEBUG, "
        f"{median(records) / median([run['wall'] for run in logged]):.0f} a second; "
        f"CPU with less without: {1e6 * median(extra) / median(records):.0f} us a record.",
    )


if __name__ == "__main__":
    main("overhead", _measure, __doc__ or "", {"run": _child})
