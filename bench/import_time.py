"""What importing the package costs a program, and what the first `open_log` of a process costs.

Each figure is the median over fresh interpreters, started in turns: bare Python (the noise floor), the package, and
what it stands on. The breakdown is that of `-X importtime`, which slows imports a little. The first `open_log`
imports the engine (asyncio, uvloop, anyio, aiofiles, psutil), starts two threads and waits until the file is open.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from _harness import Report, bootstrap, empty_calls, main, temporary_folder, us

TOP: Final = 5
_PROGRAMS: Final = {
    "bare Python (noise floor)": "pass",
    "import msgspec": "import msgspec",
    "import logging": "import logging",
    "import asyncio": "import asyncio",
    "import amsha_async_log": "import amsha_async_log",
    "import structlog": "import structlog",
}
_OPEN: Final = """
import json, sys, time
clock = time.perf_counter_ns
a = clock()
import amsha_async_log
b = clock()
open_log = amsha_async_log.open_log
c = clock()
first = open_log(sys.argv[1] + "/first.jsonl", console=False)
d = clock()
accepted = first.info("first", n=1)
e = clock()
second = open_log(sys.argv[1] + "/second.jsonl", console=False)
f = clock()
ok = first.close().ok
g = clock()
ok = second.close().ok and ok and accepted
print(json.dumps({"import the package": b - a, "import the engine": c - b, "first open_log": d - c, "first info": e - d,
                  "second open_log": f - e, "close": g - f, "ok": ok}))
"""
_OPEN_ON_A_LOOP: Final = """
import asyncio, json, sys, time
from amsha_async_log import open_log
pauses = []
async def beat():
    while True:
        began = time.perf_counter_ns()
        await asyncio.sleep(0.0005)
        pauses.append(time.perf_counter_ns() - began - 500_000)
async def main():
    beating = asyncio.create_task(beat())
    await asyncio.sleep(0.1)
    quiet = max(pauses)
    pauses.clear()
    began = time.perf_counter_ns()
    async with open_log(sys.argv[1] + "/first.jsonl", console=False) as log:
        took = time.perf_counter_ns() - began
        await asyncio.sleep(0.01)
        held = max(pauses)
        log.info("first", n=1)
    beating.cancel()
    print(json.dumps({"longest hold of the idle loop (noise floor)": quiet, "async with open_log, until open": took,
                      "longest hold of the loop meanwhile": held, "ok": log.stats().written == 1}))
asyncio.run(main())
"""
_CACHE: Final = tempfile.TemporaryDirectory(prefix="amsha-bench-")
"""Byte code of everything imported, whatever the environment says about writing it: compiling is not importing."""
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


def _run(code: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[int, subprocess.CompletedProcess[str]]:
    """Nanoseconds until the interpreter was gone; it runs where nothing is that could be imported instead."""
    command = [sys.executable, *options, "-c", code, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = _CACHE.name
    began = time.perf_counter_ns()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir(), env=environment
    )
    return time.perf_counter_ns() - began, done


def _imported(code: str) -> dict[str, tuple[int, int]]:
    """Module to microseconds (its own, with what it imports)."""
    _, done = _run(code, options=("-X", "importtime"))
    found = map(_LINE.match, done.stderr.splitlines())
    return {match[4]: (int(match[1]), int(match[2])) for match in found if match}


def _measure(report: Report) -> None:
    runs = 5 if report.quick else 15
    _run(_PROGRAMS["import structlog"])
    with temporary_folder() as folder:
        _run(_OPEN, str(folder))
        _run(_OPEN_ON_A_LOOP, str(folder))  # all that is imported below has its byte code now
    report.floor(empty_calls())
    _programs(report, runs)
    _breakdown(report, min(runs, 5))
    _first_open(report, runs)


def _programs(report: Report, runs: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    for name, code in _PROGRAMS.items():  # once for the file cache and the byte code
        report.check(f"{name}: ends well", _run(code)[1].returncode == 0)
    for turn in range(runs):
        names = list(_PROGRAMS)
        for name in names if turn % 2 == 0 else reversed(names):
            times[name].append(_run(_PROGRAMS[name])[0])
    bare = next(iter(times.values()))
    rows = []
    for name, values in times.items():
        ratio = bootstrap(values, bare)
        report.figures[name] = {"ns": values, "ratio_to_bare": ratio}
        over = "" if values is bare else us(median(values) - median(bare))
        interval = f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})"
        rows.append([name, us(median(values)), us(min(values)), us(max(values)), over, interval])
    report.table(
        "A fresh interpreter, from start to end",
        ["", "median", "min", "max", "over bare Python", "/ bare Python (95 %)"],
        rows,
        f"{runs} interpreters each, in turns.",
    )


def _breakdown(report: Report, runs: int) -> None:
    bare = set(_imported("pass"))
    seen: dict[str, list[int]] = {}
    total: dict[str, list[int]] = {}
    for _ in range(runs):
        for name, (own, both) in _imported("import amsha_async_log").items():
            if name not in bare:
                seen.setdefault(name, []).append(own)
                total.setdefault(name, []).append(both)
    top = sorted(seen, key=lambda name: median(seen[name]), reverse=True)[:TOP]
    whole = sum(median(values) for values in seen.values())
    report.figures["modules"] = {name: median(values) for name, values in seen.items()}
    report.table(
        f"`import amsha_async_log`: the {TOP} modules that take longest themselves",
        ["module", "itself", "with what it imports"],
        [[name, us(1e3 * median(seen[name])), us(1e3 * median(total[name]))] for name in top],
        f"{len(seen)} modules that bare Python does not load take {us(1e3 * whole)} in all. Medians of {runs}.",
    )


def _first_open(report: Report, runs: int) -> None:
    _steps(report, runs, _OPEN, "Opening, logging once and closing in a fresh process")
    _steps(report, runs, _OPEN_ON_A_LOOP, "Opening on an event loop in a fresh process, the engine imported before")


def _steps(report: Report, runs: int, code: str, title: str) -> None:
    """What `code` says that its steps took, over several interpreters; it logs one record."""
    steps: dict[str, list[int]] = {}
    for turn in range(runs):
        with temporary_folder() as folder:
            _, done = _run(code, str(folder))
            said = json.loads(done.stdout) if done.returncode == 0 else {"ok": False}
            lines = sum(path.read_bytes().count(b'"event":"log"') for path in Path(folder).glob("*.jsonl"))
        report.check(f"{title}, run {turn + 1}: its one record is in the file", said["ok"] and lines == 1)
        for name, value in said.items():
            if name != "ok":
                steps.setdefault(name, []).append(value)
    report.figures[title] = steps
    rows = [[name, us(median(values)), us(min(values)), us(max(values))] for name, values in steps.items()]
    report.table(title, ["", "median", "min", "max"], rows, f"{runs} fresh interpreters.")


if __name__ == "__main__":
    main("import_time", _measure, __doc__ or "")
