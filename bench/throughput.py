"""Records a second with producers that never rest, close included; every line is then read back.

One event loop logs flat out and yields every 64 calls; 8 threads with `when_full="block"`, which wait when the queue
is full; 4 event loops in threads, which `await log.aready()` every 64 calls. Nothing may be refused or lost in any of
them. The clock runs from the first call to the return of `close()`; reading back is outside it.

Two baselines run before and after each: `Floor` (struct, encode_lines, write: what any logger has to do, on one
thread), and the standard library's QueueHandler with a QueueListener. The latter's queue is unbounded: it hides its
backlog as memory.
"""

import asyncio
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from _harness import Report, Timing, empty_calls, main, read_back, temporary_folder, us
from _subjects import Floor, StdlibQueue, TaskFinished, file_lines

from amsha_async_log import Log, Stats, open_log

YIELD_EVERY: Final = 64
BASELINE_SHARE: Final = 10
"""The baselines run with this part of the records."""

Send = Callable[[Log, str, int], bool]


def _plain(log: Log, producer: str, number: int) -> bool:
    return log.info(
        "Task finished",
        agent_name=producer,
        task_name="summarise_findings",
        attempt=number,
        status="completed",
        duration_seconds=12.345678,
        total_tokens=2500,
        cost_usd=0.012,
        file_path="output/intermediate/summary_001.json",
    )


def _typed(log: Log, producer: str, number: int) -> bool:
    return log.emit(
        TaskFinished(
            agent_name=producer,
            task_name="summarise_findings",
            attempt=number,
            status="completed",
            duration_seconds=12.345678,
            total_tokens=2500,
            cost_usd=0.012,
            file_path="output/intermediate/summary_001.json",
        )
    )


async def _flat_out(log: Log, send: Send, producer: str, number: int, samples: "array[int]", *, ready: bool) -> None:
    """Log `number` records, yielding every 64; `ready`: waiting for room then."""
    clock, add = time.perf_counter_ns, samples.append
    for n in range(number):
        began = clock()
        send(log, producer, n)
        add(clock() - began)
        if n % YIELD_EVERY == 0:
            if ready:
                await log.aready()
            await asyncio.sleep(0)


def _in_thread(log: Log, send: Send, producer: str, number: int, samples: "array[int]") -> None:
    clock, add = time.perf_counter_ns, samples.append
    for n in range(number):
        began = clock()
        send(log, producer, n)
        add(clock() - began)


def _together(targets: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _one_loop(log: Log, send: Send, number: int) -> list["array[int]"]:
    samples = array("q")
    asyncio.run(_flat_out(log, send, "loop-0", number, samples, ready=False))
    return [samples]


def _threads(log: Log, send: Send, number: int) -> list["array[int]"]:
    samples = [array("q") for _ in range(8)]
    _together([partial(_in_thread, log, send, f"thread-{i}", number // 8, samples[i]) for i in range(8)])
    return samples


def _loops(log: Log, send: Send, number: int) -> list["array[int]"]:
    samples = [array("q") for _ in range(4)]

    def run(i: int) -> None:
        asyncio.run(_flat_out(log, send, f"loop-{i}", number // 4, samples[i], ready=True))

    _together([partial(run, i) for i in range(4)])
    return samples


def _logged(
    report: Report,
    name: str,
    run: Callable[[Log, Send, int], list["array[int]"]],
    send: Send,
    number: int,
    **options: Any,
) -> tuple[float, Timing, Stats]:
    """Records a second, the calls, and what the log counted."""
    with temporary_folder() as folder:
        log = open_log(folder / "log.jsonl", console=False, backup_count=0, **options)
        began = time.perf_counter()
        samples = run(log, send, number)
        produced = time.perf_counter() - began
        closing = log.close()
        took = time.perf_counter() - began
        stats = log.stats()
        report.check_ledger(name, stats, number)
        report.check(f"{name}: closed in order", closing.ok)
        report.check(f"{name}: refused {stats.refused}, must be 0", stats.refused == 0)
        report.check(f"{name}: lost {stats.dropped + stats.failed}, must be 0", stats.dropped + stats.failed == 0)
        found = read_back(folder, numbered=True)
        report.check_files(name, found, stats.written)
        each = number // len(samples)
        complete = len(found.producers) == len(samples) and set(found.producers.values()) == {each}
        report.check(f"{name}: {len(samples)} producers, {each} records of each", complete)
    timing = Timing.of(sample for part in samples for sample in part)
    report.figures[name] = {
        "records": number,
        "records_per_second": number / took,
        "produced_per_second": number / produced,
        "close_seconds": took - produced,
        "call_ns": asdict(timing),
        "lends": stats.lends,
        "lend_longest_seconds": stats.lend_longest_seconds,
        "lend_total_seconds": stats.lend_total_seconds,
        "refused": stats.refused,
        "batches": stats.batches,
        "segments": stats.segments,
        "bytes": found.bytes,
    }
    return number / took, timing, stats


def _baseline(report: Report, make: Callable[[Path], Floor | StdlibQueue], number: int) -> float:
    """Records a second, close included, on one event loop that yields as the others do."""

    async def produce(call: Callable[[], object]) -> None:
        for n in range(number):
            call()
            if n % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    with temporary_folder() as folder:
        subject = make(folder / "lines.log")
        began = time.perf_counter()
        asyncio.run(produce(subject.call))
        subject.close()
        took = time.perf_counter() - began
        report.check(f"{make.__name__}: every record read back", file_lines(folder / "lines.log") == number)
    return number / took


def _measure(report: Report) -> None:
    million = 100_000 if report.quick else 1_000_000
    runs: list[tuple[str, Callable[[Log, Send, int], list[array[int]]], Send, int, dict[str, Any]]] = [
        ("one loop, info", _one_loop, _plain, million, {}),
        ("one loop, emit", _one_loop, _typed, million, {}),
        ("8 threads, info, block", _threads, _plain, 100_000 if report.quick else 400_000, {"when_full": "block"}),
        ("4 loops in threads, info, aready", _loops, _plain, 100_000 if report.quick else 200_000, {}),
    ]
    floors: list[float] = []
    stdlib: list[float] = []
    zero = report.floor(empty_calls())
    results = []
    for name, run, send, number, options in runs:
        floors.append(_baseline(report, Floor, million // BASELINE_SHARE))
        stdlib.append(_baseline(report, StdlibQueue, million // BASELINE_SHARE))
        results.append((name, number, *_logged(report, name, run, send, number, **options)))
    floors.append(_baseline(report, Floor, million // BASELINE_SHARE))
    stdlib.append(_baseline(report, StdlibQueue, million // BASELINE_SHARE))
    report.figures |= {"floor_per_second": floors, "queue_handler_per_second": stdlib}

    rows = [["noise floor: an empty call", "", "", "", "", *zero.cells(), ""]]
    for title, rates in (("floor: struct, encode_lines, write", floors), ("QueueHandler, orjson formatter", stdlib)):
        rate = median(rates)
        rows.append([title, f"{million // BASELINE_SHARE:,}", f"{rate:,.0f}", f"{rate / median(floors):.2f}"])
        rows[-1] += [f"{rate / median(stdlib):.1f}", "", "", "", "", ""]
    for (name, number, rate, timing, stats), before in zip(results, range(len(results)), strict=True):
        floor, other = (median(values[before : before + 2]) for values in (floors, stdlib))
        lends = f"{stats.lends}, {us(1e9 * stats.lend_longest_seconds)}, {us(1e9 * stats.lend_total_seconds)}"
        rows.append(
            [name, f"{number:,}", f"{rate:,.0f}", f"{rate / floor:.2f}", f"{rate / other:.1f}", *timing.cells(), lends]
        )
    report.table(
        "Saturated producers, close included",
        [
            "",
            "records",
            "records/s",
            "/ floor",
            "/ QueueHandler",
            "call p50",
            "p99",
            "p99.9",
            "max",
            "lends: n, longest, sum",
        ],
        rows,
        "Refused and lost: 0 in every row, or the checks fail. Ratios are to the baselines run right before and after. "
        "The logged runs time each call, which costs them about two timer readings a record. "
        "A call of the 8 threads may wait for room, and any call beside other threads for the GIL.",
    )


if __name__ == "__main__":
    main("throughput", _measure, __doc__ or "")
