"""How long a record takes to reach the file while the program that logs it computes without pause.

Python runs one thread at a time. A program that never rests can keep the log's thread from running at all, and its
records from the file until it ends. Here a process logs one record every half second under several kinds of load, and
another process reads the file as it grows, every millisecond: latency is from the record's own timestamp to the
moment it was seen. The noise floor is the same program, load and watcher with the line written by the calling thread
itself (`os.write`, no logger): what is left are the watcher's millisecond and the scheduler.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
from _harness import Report, Timing, empty_calls, main, temporary_folder, us

from amsha_async_log import open_log

EVERY_S: Final = 0.5
FIRST_S: Final = 0.2
WATCH_S: Final = 0.001
MODES: Final = {
    "polling": "a loop that yields without pause",
    "polling-1ms": "a loop that yields and sleeps each ms",
    "computing": "a loop that computes and never yields",
    "beside-threads": "an idle loop beside 3 threads that compute",
    "polling-beside-threads": "the loop that yields without pause, and 3 threads",
}


# -- the program -------------------------------------------------------------------------------------------------------


class _Program:
    """Sends a record when one is due, and notes how long that took."""

    def __init__(self, send: Callable[[int], object], seconds: float) -> None:
        self._send = send
        self._due = time.monotonic() + FIRST_S
        self.end = time.monotonic() + seconds
        self.calls_ns: list[int] = []
        self.over = False

    def tick(self) -> bool:
        """To be called often. False: the time is up."""
        now = time.monotonic()
        if now >= self._due:
            self._due += EVERY_S
            began = time.perf_counter_ns()
            self._send(len(self.calls_ns))
            self.calls_ns.append(time.perf_counter_ns() - began)
        self.over = now >= self.end
        return not self.over

    def spin(self) -> None:
        """What a computing thread does until the time is up."""
        while not self.over:
            sum(range(1000))


async def _run(mode: str, program: _Program) -> None:
    if mode.endswith("beside-threads"):
        for _ in range(3):
            threading.Thread(target=program.spin, daemon=True).start()
    if mode.startswith("polling"):
        while program.tick():
            if mode == "polling-1ms":
                until = time.perf_counter() + 0.001
                while time.perf_counter() < until:
                    sum(range(100))
                await asyncio.sleep(0.0001)
            else:
                await asyncio.sleep(0)
    elif mode == "computing":
        while program.tick():
            sum(range(1000))
    else:
        while program.tick():  # noqa: ASYNC110 - it looks idle on purpose
            await asyncio.sleep(0.01)


def _child(arguments: list[str]) -> None:
    """MODE SECONDS PATH log|write: run the program, then print how long its calls took."""
    mode, seconds, path, how = arguments
    if how == "log":
        with open_log(path, console=False) as log:
            program = _Program(lambda n: log.info("tick", n=n), float(seconds))
            asyncio.run(_run(mode, program))
            ended = time.time()
            before = log.stats()
        after = log.stats()
        result: dict[str, Any] = {
            "calls_ns": program.calls_ns,
            "ended": ended,
            "lends": before.lends,
            "lend_longest_seconds": before.lend_longest_seconds,
            "written_before_the_end": before.written,
            "lossless": after.written == after.offered == len(program.calls_ns),
        }
    else:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        encode = msgspec.json.encode

        def write(n: int) -> None:
            os.write(fd, encode({"event": "log", "timestamp": time.time(), "n": n}) + b"\n")

        program = _Program(write, float(seconds))
        asyncio.run(_run(mode, program))
        result = {"calls_ns": program.calls_ns, "ended": time.time(), "lossless": True}
    print(json.dumps(result))


# -- the watcher -------------------------------------------------------------------------------------------------------


class _Seen(msgspec.Struct):
    event: str
    timestamp: float
    n: int = -1


def _watch(mode: str, seconds: float, how: str, folder: Path) -> tuple[dict[int, float], dict[str, Any]]:
    """Run the program; number of each record to its seconds from timestamp to being seen, and what the program said."""
    path = folder / f"{mode}.{how}.jsonl"
    command = [sys.executable, __file__, "--child", "run", mode, str(seconds), str(path), how]
    decode = msgspec.json.Decoder(_Seen).decode
    latencies: dict[int, float] = {}
    rest = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while not path.exists() and process.poll() is None:
            time.sleep(WATCH_S)
        with path.open("rb", buffering=0) as file:
            running = True
            while running:
                running = process.poll() is None
                if data := file.read():
                    now = time.time()
                    *lines, rest = (rest + data).split(b"\n")
                    for seen in map(decode, lines):
                        if seen.event == "log":
                            latencies[seen.n] = now - seen.timestamp
                time.sleep(WATCH_S)
        assert process.stdout is not None
        said: dict[str, Any] = json.loads(process.stdout.read())
    return latencies, said


def _measure(report: Report) -> None:
    seconds = 2.5 if report.quick else 12.0
    report.floor(empty_calls())
    rows = []
    with temporary_folder() as folder:
        for mode, description in MODES.items():
            for how, name in (("write", "noise floor"), ("log", "log.info")):
                latencies, said = _watch(mode, seconds, how, folder)
                calls = said["calls_ns"]
                complete = said["lossless"] and sorted(latencies) == list(range(len(calls)))
                report.check(f"{mode}, {how}: all {len(calls)} records seen, none lost", complete)
                values = sorted(latencies.values())
                report.figures[f"{mode}, {how}"] = {
                    **said,
                    "latency_seconds": values,
                    "call_ns": asdict(Timing.of(calls)),
                }
                rows.append(
                    [
                        description if how == "write" else "",
                        name,
                        str(len(calls)),
                        us(1e9 * median(values)),
                        us(1e9 * values[-1]),
                        us(median(calls)),
                        us(max(calls)),
                        f"{said['written_before_the_end']}, {said['lends']}" if how == "log" else "",
                    ]
                )
    report.table(
        "From the call to the file under a program that does not rest",
        [
            "load",
            "way",
            "records",
            "latency, median",
            "latency, max",
            "call, median",
            "call, max",
            "written before the end, lends",
        ],
        rows,
        f"One record every {EVERY_S} s for {seconds:g} s. What was not written before the end waited for the close.",
    )


if __name__ == "__main__":
    main("starvation", _measure, __doc__ or "", {"run": _child})
