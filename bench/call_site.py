"""What one call costs the caller, against the standard library's QueueHandler and structlog with orjson.

Calls come in tight bursts of 2,000; after each the backend is waited for, outside the clock. So nothing is refused
and no queue grows, and the batcher's work is not in these figures (`cpu_per_record.py` has it). The call that wakes
the batcher is in them, once a burst. With QueueHandler every call wakes its listener if that waits, and the two
compete for the GIL; the row "nobody listening" is the call alone. The *limits* are no loggers but the least of any call
that snapshots its fields, or queues an event; what a call takes above them buys the level, the bounds, the ledger,
and the checks for clashing names and NaN. StdlibLogger and AsyncLogHandler are called as the standard library is, with
the fields in `extra`; with the handler a LogRecord is made, as with QueueHandler. Paced calls, on cold caches, cost
several times as much.
"""

import logging
from contextvars import copy_context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from _harness import (
    WARM_UP,
    Case,
    Report,
    Timing,
    bootstrap,
    empty,
    interleave,
    main,
    read_back,
    temporary_folder,
    us,
)
from _subjects import (
    FIELDS,
    MESSAGE,
    CallLimit,
    StdlibQueue,
    StructlogOrjson,
    TaskFinished,
    extra_call,
    file_lines,
    plain_call,
    typed_call,
)

from amsha_async_log import Log, open_log
from amsha_async_log.stdlib import AsyncLogHandler, StdlibLogger

BURST: Final = 2_000
_COLUMNS: Final = (
    "call",
    "p50",
    "p99",
    "p99.9",
    "max",
    "p50 net",
    "QueueHandler / this",
    "structlog / this",
)


@dataclass(slots=True)
class _Row:
    """A case, and the calls of the two others that do the same."""

    case: Case
    stdlib: Case
    structlog: Case


def _disabled_fields(log: Log) -> bool:
    return log.debug(
        MESSAGE,
        agent_name="researcher",
        task_name="summarise_findings",
        attempt=1,
        status="completed",
        duration_seconds=12.345678,
        total_tokens=2500,
        cost_usd=0.012,
        file_path="output/intermediate/summary_001.json",
    )


def _measure(report: Report) -> None:
    with temporary_folder() as folder:
        _run(report, folder, rounds=5 if report.quick else 100)


def _run(report: Report, folder: Path, rounds: int) -> None:
    log = open_log(folder / "log.jsonl", console=False, backup_count=0)
    stdlib, other = StdlibQueue(folder / "stdlib.log"), StructlogOrjson(folder / "structlog.log")
    floor = Case("noise floor: an empty call", empty)
    stdlib_cases = [
        Case("QueueHandler: info, 8 fields", stdlib.call, stdlib.drain),
        Case("QueueHandler: disabled, no fields", stdlib.disabled),
        Case("QueueHandler: disabled, 8 fields", stdlib.disabled_fields),
    ]
    deaf = StdlibQueue(folder / "nothing.log", listen=False)
    alone = Case("QueueHandler, nobody listening: info, 8 fields", deaf.call, deaf.forget)
    structlog_cases = [
        Case("structlog: info, 8 fields", other.call),
        Case("structlog: disabled, no fields", other.disabled),
        Case("structlog: disabled, 8 fields", other.disabled_fields),
    ]
    prebuilt, inside = TaskFinished(**FIELDS), copy_context()
    execution = log.execution("research_crew")
    inside.run(execution.__enter__)
    step = inside.run(execution.step, "task", "summarise")
    inside.run(step.__enter__)
    limit = CallLimit()
    limits = [
        Case("limit: keywords, time, encode, struct, append", plain_call(limit), limit.forget),
        Case("limit: time, struct, append", lambda: limit.emit(prebuilt), limit.forget),
    ]
    accepted = [
        Case("info, 8 fields", plain_call(log), log.flush),
        Case("info, 8 fields, in an execution's step", plain_call(log), log.flush, inside),
        Case("emit, built before", lambda: log.emit(prebuilt), log.flush),
        Case("emit, built before, in an execution's step", lambda: log.emit(prebuilt), log.flush, inside),
        Case("emit, built at the call", typed_call(log), log.flush),
    ]
    drop_in = StdlibLogger(log, logging.INFO, name="bench")
    handled = logging.Logger("bench", logging.INFO)  # noqa: LOG001 - as StdlibQueue's
    handled.addHandler(AsyncLogHandler(log))
    accepted += [
        Case("StdlibLogger: info, 8 fields", extra_call(drop_in), log.flush),
        Case("StdlibLogger: info, 8 fields, in an execution's step", extra_call(drop_in), log.flush, inside),
        Case("AsyncLogHandler: info, 8 fields", extra_call(handled), log.flush),
    ]
    disabled = [
        Case("disabled, no fields", lambda: log.debug(MESSAGE)),
        Case("disabled, 8 fields", lambda: _disabled_fields(log)),
        Case("StdlibLogger: disabled, no fields", lambda: drop_in.debug(MESSAGE)),
    ]
    interleave([floor, *limits, *accepted, *disabled, *stdlib_cases, alone, *structlog_cases], rounds, BURST)
    inside.run(step.__exit__, None, None, None)
    inside.run(execution.__exit__, None, None, None)
    log.close()
    stdlib.close()
    other.close()

    rows = [_Row(case, stdlib_cases[0], structlog_cases[0]) for case in [*limits, *accepted]]
    rows += [
        _Row(case, stdlib_cases[i], structlog_cases[i]) for case, i in zip(disabled, (1, 2, 1), strict=True)
    ]  # the one without fields by the others' without, that with fields by theirs
    rows += [_Row(a, a, b) for a, b in zip(stdlib_cases, structlog_cases, strict=True)]
    rows.append(_Row(alone, stdlib_cases[0], structlog_cases[0]))
    rows += [_Row(b, a, b) for a, b in zip(stdlib_cases, structlog_cases, strict=True)]
    _tell(report, floor, rows)

    stats, calls = log.stats(), rounds * BURST + WARM_UP
    report.check_ledger("log", stats, len(accepted) * calls + 4)
    report.check("log: nothing refused or lost", stats.written == stats.offered)
    report.check_files("log", read_back(folder), stats.written)
    report.check("QueueHandler: every record read back", file_lines(folder / "stdlib.log") == calls)
    report.check("structlog: every record read back", file_lines(folder / "structlog.log") == calls)


def _tell(report: Report, floor: Case, rows: list[_Row]) -> None:
    zero = report.floor(floor.samples)
    cells = [[floor.name, *zero.cells(), "", "", ""]]
    for row in rows:
        timing = Timing.of(row.case.samples)
        against = [bootstrap(base.bursts, row.case.bursts) for base in (row.stdlib, row.structlog)]
        report.figures[row.case.name] = asdict(timing) | {
            "p50_net": timing.p50 - zero.p50,
            "queue_handler_to_this": against[0],
            "structlog_to_this": against[1],
        }
        ratios = [f"{ratio:.1f} ({low:.1f}-{high:.1f})" for ratio, low, high in against]
        cells.append([row.case.name, *timing.cells(), us(timing.p50 - zero.p50), *ratios])
    report.table(
        "Cost of one call",
        _COLUMNS,
        cells,
        f"{len(floor.samples):,} calls each, in bursts of {BURST:,} with the backend waited for in between. Net: less "
        "the p50 of the empty call. Last two columns: p50 of the other's call of the same kind by p50 of this one, "
        "both as measured, with the 95 % interval over bursts; above 1, this one is faster.",
    )


if __name__ == "__main__":
    main("call_site", _measure, __doc__ or "")
