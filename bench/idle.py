"""What an open log costs when nothing is logged, and whether memory stays flat however much is.

Idle: context switches of the log's own threads over ten seconds, from `/proc/self/task/*/status`, a while after the
last record. A parked batcher has none. Beside them a control thread that blocks on a lock (the noise floor) and the
standard library's QueueListener.

Memory: ten million records; after every 100,000 the log is flushed and the resident set is read. The slope is that of
a straight line through the second half of the samples, against the same loop with an empty call. Retained blocks are
`sys.getallocatedblocks()` after a flush and a collection, at the middle of the run against its end.
"""

import gc
import os
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from _harness import Report, empty, empty_calls, main, read_back, temporary_folder
from _subjects import StdlibQueue, plain_call

from amsha_async_log import open_log

SETTLE_S: Final = 2.0
STEP: Final = 100_000
BURST: Final = 2_000
MOST_BLOCKS_RETAINED: Final = 100
MOST_GROWTH_BYTES: Final = 4 << 20

T = TypeVar("T")


# -- idle --------------------------------------------------------------------------------------------------------------


def _threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def _started_by(start: Callable[[], T]) -> tuple[T, set[int]]:
    """What `start` returns, and the threads that it starts."""
    before = _threads()
    started = start()
    time.sleep(0.1)
    return started, _threads() - before


def _switches(thread: int) -> int:
    """Voluntary and involuntary context switches of one thread since it began."""
    lines = Path(f"/proc/self/task/{thread}/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.rpartition("\t")[2]) for line in lines if "ctxt_switches" in line)


def _idle(report: Report, folder: Path) -> None:
    seconds = 3.0 if report.quick else 10.0
    held = threading.Lock()
    held.acquire()
    control = threading.Thread(target=held.acquire, daemon=True)
    _, blocked = _started_by(control.start)
    log, ours = _started_by(lambda: open_log(folder / "idle.jsonl", console=False))
    stdlib, theirs = _started_by(lambda: StdlibQueue(folder / "idle.log"))
    groups = {"noise floor: a thread blocked on a lock": blocked, "the log's threads": ours, "QueueListener": theirs}
    for _ in range(1_000):
        log.info("before the silence")
        stdlib.call()
    time.sleep(SETTLE_S)
    before = {name: [_switches(thread) for thread in sorted(threads)] for name, threads in groups.items()}
    cpu = time.process_time()
    time.sleep(seconds)
    cpu = time.process_time() - cpu
    rows = []
    for name, threads in groups.items():
        switches = [_switches(thread) - was for thread, was in zip(sorted(threads), before[name], strict=True)]
        report.figures[f"switches: {name}"] = switches
        rows.append([name, str(len(threads)), str(sum(switches))])
        if name == "the log's threads":
            report.check(
                f"idle: {sum(switches)} context switches of the log's {len(threads)} threads", not sum(switches)
            )
            report.check("idle: the log has threads", len(threads) > 0)
    report.figures["idle_cpu_seconds"] = cpu
    report.table(
        f"Idle for {seconds:g} s, {SETTLE_S:g} s after the last record",
        ["", "threads", "context switches"],
        rows,
        f"CPU of the whole process in that time, the waking of the main thread included: {1e3 * cpu:.2f} ms.",
    )
    held.release()
    log.close()
    stdlib.close()


# -- memory ------------------------------------------------------------------------------------------------------------


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _slope(values: list[int]) -> float:
    """Of the straight line through `values`, a step apart (least squares)."""
    number = len(values)
    middle, mean = (number - 1) / 2, sum(values) / number
    above = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return above / sum((i - middle) ** 2 for i in range(number))


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def _long_run(number: int, call: Callable[[], object], flush: Callable[[], object]) -> tuple[list[int], int]:
    """Resident bytes after each step, and the blocks that the second half of the run retained."""
    resident = array("q", bytes(8 * (number // STEP)))  # keeps no objects of its own
    retained = 0
    for step in range(len(resident)):
        if step == len(resident) // 2:
            retained = _blocks()
        for _ in range(STEP // BURST):
            for _ in range(BURST):
                call()
            flush()
        resident[step] = _resident()
    retained = _blocks() - retained
    return resident.tolist(), retained


def _memory(report: Report, folder: Path) -> None:
    number = 1_000_000 if report.quick else 10_000_000
    rows = []
    with open_log(folder / "long.jsonl", console=False) as log:
        runs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            ("noise floor: an empty call", empty, empty),
            ("info, 8 fields", plain_call(log), log.flush),
        ]
        for name, call, flush in runs:
            resident, retained = _long_run(number, call, flush)
            half = resident[len(resident) // 2 :]
            slope = _slope(half) * 1_000_000 / STEP
            growth = half[-1] - half[0]
            report.figures[f"memory: {name}"] = {
                "resident_bytes": resident,
                "slope_bytes_per_million": slope,
                "retained_blocks": retained,
            }
            mebibytes = [f"{value / 2**20:.1f}" for value in (resident[0], min(half), max(half))]
            rows.append([name, *mebibytes, f"{slope / 1024:+.1f} KiB", f"{growth / 1024:+.0f} KiB", f"{retained:+}"])
            report.check(f"{name}: {retained} blocks retained", retained <= MOST_BLOCKS_RETAINED)
            report.check(f"{name}: resident set grew by {growth} bytes", growth <= MOST_GROWTH_BYTES)
    stats = log.stats()
    report.check_ledger("memory", stats, number)
    report.check("memory: nothing refused or lost", stats.written == number)
    found = read_back(folder, "long*.jsonl")
    report.check("memory: what retention left is read back without gaps", found.records > 0 and found.gaps == 0)
    report.table(
        f"Resident memory over {number:,} records",
        ["", "first, MiB", "lowest, MiB", "highest, MiB", "slope per 10^6", "first to last", "retained blocks"],
        rows,
        f"Read after every {STEP:,} records and a flush; lowest to retained blocks: second half of the run. The "
        f"files rotate with the defaults, hence only the last {found.records:,} records are there to be read back.",
    )


def _measure(report: Report) -> None:
    report.floor(empty_calls())
    with temporary_folder() as folder:
        _idle(report, folder)
        _memory(report, folder)


if __name__ == "__main__":
    main("idle", _measure, __doc__ or "")
