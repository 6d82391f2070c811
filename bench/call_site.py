"""What one call costs the caller, against the standard library's QueueHandler and structlog with orjson.

Calls come in tight bursts of 2,000; after each the backend is waited for, outside the clock. So nothing is refused and
no queue grows, and the batcher's work is not in these figures (`cpu_per_record.py` has it). The call that wakes the
batcher is in them, once a burst. Paced calls, on cold caches, cost several times as much: see README.md.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from _harness import Case, Report, Timing, bootstrap, empty, interleave, main, read_back, temporary_folder, us
from _subjects import FIELDS, MESSAGE, StdlibQueue, StructlogOrjson, TaskFinished, file_lines, plain_call, typed_call

from amsha_async_log import Log, open_log

BURST: Final = 2_000
_COLUMNS: Final = (
    "call",
    "p50",
    "p99",
    "p99.9",
    "max",
    "p50 net",
    "vs QueueHandler, p50 (95 %)",
    "vs structlog, p50 (95 %)",
)


def _package_cases(log: Log) -> list[Case]:
    plain = plain_call(log)
    prebuilt = TaskFinished(**FIELDS)

    def disabled_fields() -> bool:
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

    return [
        Case("info, 8 fields", plain, log.flush),
        Case("emit, built before", lambda: log.emit(prebuilt), log.flush),
        Case("emit, built at the call", typed_call(log), log.flush),
        Case("disabled, no fields", lambda: log.debug(MESSAGE)),
        Case("disabled, 8 fields", disabled_fields),
    ]


def _run(report: Report, folder: Path) -> None:
    rounds = 5 if report.quick else 100
    log = open_log(folder / "log.jsonl", console=False, backup_count=0)
    stdlib, other = StdlibQueue(folder / "stdlib.log"), StructlogOrjson(folder / "structlog.log")
    floor = Case("empty call (noise floor)", empty)
    cases = _package_cases(log)
    queue_handler = [
        Case("QueueHandler: info, 8 fields", stdlib.call, stdlib.drain),
        Case("QueueHandler: disabled, no fields", stdlib.disabled),
        Case("QueueHandler: disabled, 8 fields", stdlib.disabled_fields),
    ]
    structlog = [
        Case("structlog: info, 8 fields", other.call),
        Case("structlog: disabled, no fields", other.disabled),
        Case("structlog: disabled, 8 fields", other.disabled_fields),
    ]
    inside = Case("info, 8 fields, in an execution's step", plain_call(log), log.flush)
    context = log.execution("research_crew"), log.execution("research_crew").step("task", "summarise")

    def enter() -> None:
        for run in context:
            run.__enter__()

    def leave() -> None:
        for run in reversed(context):
            run.__exit__(None, None, None)

    both = [floor, *cases[:1], inside, *cases[1:], *queue_handler, *structlog]
    _interleave_with_context(both, inside, enter, leave, rounds)
    log.close()
    stdlib.close()
    other.close()
    _tell(report, floor, cases, inside, queue_handler, structlog)

    stats = log.stats()
    calls = sum(len(case.samples) + 200 for case in (inside, *cases[:3])) + 4
    report.check_ledger("log", stats, calls)
    report.check("log: nothing refused or lost", stats.written == stats.offered)
    report.check_files("log", _order_free(folder), stats.written)
    for name, case in (("stdlib", queue_handler[0]), ("structlog", structlog[0])):
        expected = len(case.samples) + 200
        report.check(f"{name}: every record read back", file_lines(folder / f"{name}.log") == expected)


if __name__ == "__main__":
    main("call_site", lambda report: None, __doc__ or "")
