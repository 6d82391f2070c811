"""CPU time of the whole process for one record, from the first call until the log is closed.

Call, batcher and I/O thread are in it: `time.process_time()` counts all threads. A producer on an event loop logs in
bursts of 512 and sleeps 2 ms after each, so that the backend keeps up and nothing is refused. The noise floor is the
same producer with an empty call: its loop, its sleeps and its timers. The limit to compare with is `Floor`: build one
struct that is the whole line, encode 256 in one call, write them in one call; nothing that writes such lines costs
less.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from _harness import Report, bootstrap, empty, empty_calls, main, read_back, temporary_folder
from _subjects import Floor, StdlibQueue, StructlogOrjson, file_lines, json_dumps, plain_call, typed_call

from amsha_async_log import Log, open_log

BURST: Final = 512
PAUSE_S: Final = 0.002

Start = Callable[[Path], tuple[Callable[[], object], Callable[[], object]]]
"""Open at a path: the call, and what closes it."""


@dataclass(slots=True)
class _Candidate:
    name: str
    key: str
    start: Start
    ns: list[float] = field(default_factory=list)
    """CPU nanoseconds per record of each round."""


async def _produce(call: Callable[[], object], number: int) -> None:
    for first in range(0, number, BURST):
        for _ in range(min(BURST, number - first)):
            call()
        await asyncio.sleep(PAUSE_S)


def _measure(report: Report) -> None:
    number, rounds = (20_000, 3) if report.quick else (200_000, 9)

    def ours(make: Callable[[Log], Callable[[], object]]) -> Start:
        def start(path: Path) -> tuple[Callable[[], object], Callable[[], object]]:
            path.mkdir()
            log = open_log(path / "log.jsonl", console=False, backup_count=0)

            def close() -> None:
                log.close()
                stats = log.stats()
                lossless = stats.written == number and stats.refused == 0
                after.append(lambda: report.check(f"{path.name}: {number} written, none refused", lossless))
                after.append(lambda: report.check_files(path.name, read_back(path), number))

            return make(log), close

        return start

    def others(make: Callable[[Path], Floor | StdlibQueue | StructlogOrjson]) -> Start:
        def start(path: Path) -> tuple[Callable[[], object], Callable[[], object]]:
            subject = make(path)
            after.append(lambda: report.check(f"{path.name}: {number} read back", file_lines(path) == number))
            return subject.call, subject.close

        return start

    candidates = [
        _Candidate("noise floor: an empty call", "empty", lambda _: (empty, empty)),
        _Candidate("limit: struct, encode_lines, write", "limit", others(Floor)),
        _Candidate("emit, built at the call", "typed", ours(typed_call)),
        _Candidate("info, 8 fields", "plain", ours(plain_call)),
        _Candidate("structlog, orjson", "structlog", others(StructlogOrjson)),
        _Candidate("QueueHandler, orjson formatter", "queue_handler_orjson", others(StdlibQueue)),
        _Candidate("QueueHandler, json formatter", "queue_handler_json", others(lambda p: StdlibQueue(p, json_dumps))),
    ]
    after: list[Callable[[], object]] = []
    for turn in range(rounds):
        for candidate in candidates if turn % 2 == 0 else reversed(candidates):
            after.clear()
            with temporary_folder() as folder:
                call, close = candidate.start(folder / f"{candidate.key}-{turn}")
                began = time.process_time_ns()
                asyncio.run(_produce(call, number))
                close()
                candidate.ns.append((time.process_time_ns() - began) / number)
                for check in after:
                    check()
    _tell(report, candidates, number)


def _tell(report: Report, candidates: list[_Candidate], number: int) -> None:
    zero, limit = candidates[0], candidates[1]
    timer = report.floor(empty_calls())
    rows = []
    for candidate in candidates:
        net = [max(a - b, 1.0) for a, b in zip(candidate.ns, zero.ns, strict=True)]
        below = [max(a - b, 1.0) for a, b in zip(limit.ns, zero.ns, strict=True)]
        ratio = bootstrap(net, below)
        report.figures[candidate.key] = {"ns": candidate.ns, "net_ns": median(net), "net_to_limit": ratio}
        rows.append(
            [
                candidate.name,
                f"{median(candidate.ns) / 1000:.2f} us",
                f"{min(candidate.ns) / 1000:.2f}-{max(candidate.ns) / 1000:.2f}",
                "" if candidate is zero else f"{median(net) / 1000:.2f} us",
                "" if candidate is zero else f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})",
            ]
        )
    report.table(
        "Process CPU per record, close included",
        ["way", "CPU", "range", "net of the empty call", "net / limit (95 %)"],
        rows,
        f"{number:,} records a round, {len(zero.ns)} rounds in turns; medians. A timed empty call in the same run: p50 "
        f"{timer.p50:.0f} ns, p99 {timer.p99:.0f} ns, max {timer.max / 1000:.0f} us.",
    )


if __name__ == "__main__":
    main("cpu_per_record", _measure, __doc__ or "")
