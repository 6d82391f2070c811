"""A disk that hangs, and one that is full: what a call, the close and the end of the process take then.

Hung: the path is a FIFO that nobody reads, so the writer stops for ever in the middle of a write. Full: a tmpfs of 1
MiB where the system lets us mount one, else a limit on the size of files; the writer gets ENOSPC or EFBIG after part
of a write. Each runs in a process of its own that makes 200,000 calls, yielding every 64, then closes the log and
ends; the parent measures how long the process lived on after its last statement, and reads what did reach the file. A
healthy file in the same run is the baseline, empty calls between the others are the noise floor.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec
from _harness import Report, Timing, empty, main, temporary_folder, us
from _subjects import plain_call

from amsha_async_log import open_log

TIMEOUT_S: Final = 1.0
GRACE_S: Final = 0.5
"""How much longer than its time-out a close may take before the check fails: 0.25 s are the log's own allowance."""
END_S: Final = 1.0
YIELD_EVERY: Final = 64
DISK_BYTES: Final = 1 << 20
KINDS: Final = ("healthy", "hung", "full")


# -- the program -------------------------------------------------------------------------------------------------------


async def _calls(call: Callable[[], object], number: int, samples: "array[int]", floor: "array[int]") -> None:
    """Log `number` records; an empty call, timed the same way, between each two."""
    clock, add, add_floor = time.perf_counter_ns, samples.append, floor.append
    for n in range(number):
        began = clock()
        call()
        add(clock() - began)
        began = clock()
        empty()
        add_floor(clock() - began)
        if n % YIELD_EVERY == 0:
            await asyncio.sleep(0)


def _child(arguments: list[str]) -> None:
    """PATH CALLS LIMIT: log, close, say how it went, end. LIMIT: most bytes a file may have, 0 for any."""
    path, number, limit = arguments[0], int(arguments[1]), int(arguments[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    samples, floor = array("q"), array("q")
    log = open_log(path, console=False, max_bytes=0, shutdown_timeout_s=TIMEOUT_S)
    asyncio.run(_calls(plain_call(log), number, samples, floor))
    began = time.perf_counter()
    closing = log.close()
    closed = time.perf_counter() - began
    stats = msgspec.to_builtins(log.stats())
    result = {
        "call_ns": asdict(Timing.of(samples)),
        "noise_floor_ns": asdict(Timing.of(floor)),
        "close_seconds": closed,
        "report": msgspec.to_builtins(closing),
        "stats": stats,
        "ended": time.time(),
    }
    print(json.dumps(result), flush=True)


# -- the parent --------------------------------------------------------------------------------------------------------


@contextmanager
def _small_disk(folder: Path) -> Iterator[int]:
    """Mount a tmpfs at `folder` if that is possible; the limit on the size of files to use instead, else 0."""
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = (
            os.geteuid() == 0 and not subprocess.run(["mount", *options], capture_output=True, check=False).returncode
        )
    except OSError:
        mounted = False
    try:
        yield 0 if mounted else DISK_BYTES
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def _program(path: Path, number: int, limit: int) -> tuple[dict[str, Any], float, int, str]:
    """Run it: what it said, seconds it lived on after that, its exit status, and its stderr."""
    command = [sys.executable, __file__, "--child", "run", str(path), str(number), str(limit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=120)
        gone = time.time()
    said = json.loads(out)
    return said, gone - said["ended"], process.returncode, err


def _whole_lines(data: bytes) -> int:
    """User records among the lines; raises on one that is no JSON. A torn last line is left out."""
    lines = msgspec.json.Decoder(dict[str, Any]).decode_lines(data[: data.rfind(b"\n") + 1])
    return sum(not line["event"].startswith("log.") for line in lines)


def _one(kind: str, number: int, folder: Path) -> tuple[dict[str, Any], float, int, str, int]:
    """One process on one kind of disk; the last figure is how many records can be read from it afterwards."""
    path = folder / "log.jsonl"
    if kind == "hung":
        os.mkfifo(path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            result = _program(path, number, 0)
            data = b""
            while part := os.read(fd, 1 << 20):
                data += part
        finally:
            os.close(fd)
        return *result, _whole_lines(data)
    if kind == "healthy":
        return *_program(path, number, 0), _whole_lines(path.read_bytes())
    with _small_disk(folder) as limit:
        return *_program(path, number, limit), _whole_lines(path.read_bytes())


def _measure(report: Report) -> None:
    number = 50_000 if report.quick else 200_000
    rows = []
    baseline = 0.0
    for kind in KINDS:
        with temporary_folder() as folder:
            said, lived_on, status, err, readable = _one(kind, number, folder)
        stats, closing, call, zero = said["stats"], said["report"], said["call_ns"], said["noise_floor_ns"]
        baseline = baseline or call["p50"]
        report.figures[kind] = {**said, "lived_on_seconds": lived_on, "readable": readable, "stderr": err}
        if kind == "healthy":
            report.figures["noise_floor_ns"] = zero
        _check(report, kind, number, said, lived_on, status, readable)
        rows.append([f"{kind}: noise floor, an empty call", *_cells(zero), "", "", "", "", "", ""])
        rows.append(
            [
                f"{kind}: info, 8 fields",
                *_cells(call),
                f"{call['p50'] / baseline:.2f}",
                f"{stats['written']:,}, {stats['refused']:,}, {stats['dropped'] + stats['failed']:,}",
                f"{readable:,}",
                f"{stats['lends']}, {us(1e9 * stats['lend_longest_seconds'])}",
                f"{said['close_seconds']:.3f} s ({'ok' if closing['ok'] else 'not ok'})",
                f"{lived_on:.3f} s",
            ]
        )
    report.table(
        "A disk that hangs or is full",
        [
            "disk: call",
            "p50",
            "p99",
            "p99.9",
            "max",
            "p50 / healthy",
            "written, refused, lost",
            "whole lines in the file",
            "lends: n, longest",
            f"close (time-out {TIMEOUT_S:g} s)",
            "end of the process",
        ],
        rows,
        f"{number:,} calls each. End of the process: from the last statement until it was gone.",
    )


def _cells(timing: dict[str, float]) -> list[str]:
    return [us(timing[name]) for name in ("p50", "p99", "p99_9", "max")]


def _check(
    report: Report, kind: str, number: int, said: dict[str, Any], lived_on: float, status: int, readable: int
) -> None:
    stats, closing = said["stats"], said["report"]
    outcome = stats["written"] + stats["dropped"] + stats["failed"] + stats["queued"]
    report.check(f"{kind}: every call counted", stats["offered"] == number)
    report.check(f"{kind}: offered = accepted + refused", stats["offered"] == stats["accepted"] + stats["refused"])
    report.check(f"{kind}: accepted = written + dropped + failed + queued", stats["accepted"] == outcome)
    limit = TIMEOUT_S + GRACE_S
    report.check(f"{kind}: close took {said['close_seconds']:.3f} s, at most {limit} s", said["close_seconds"] <= limit)
    report.check(f"{kind}: the process ended by itself with status {status}", status == 0 and lived_on < END_S)
    report.check(f"{kind}: {readable} whole lines, {stats['written']} counted as written", readable >= stats["written"])
    if kind == "healthy":
        report.check("healthy: nothing refused or lost", closing["ok"] and stats["written"] == number == readable)
    else:
        report.check(f"{kind}: the close report says that records are lost", not closing["ok"])


if __name__ == "__main__":
    main("hung_disk", _measure, __doc__ or "", {"run": _child})
