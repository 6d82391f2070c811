"""What executions and steps cost: entering and leaving one around nothing, and what their context costs a call.

Timed as calls are in `call_site.py`: bursts, the backend waited for in between, everything in turns. One *call* here
is a whole `with` block, two lines of the log. "CPU in all" is the processor time of all threads from the first block
until the log is closed, by the number of blocks: what the log's own thread does for them is in it.
"""

import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from typing import Final

from _harness import WARM_UP, Case, Report, Timing, bootstrap, empty, interleave, main, read_back, temporary_folder, us
from _subjects import plain_call

from amsha_async_log import Log, log_execution, open_log

BURST: Final = 500
LINES: Final = 2
"""Lines of a block."""


def _execution(log: Log) -> Callable[[], None]:
    def block() -> None:
        with log.execution("research_crew"):
            pass

    return block


def _full_execution(log: Log) -> Callable[[], None]:
    inputs, outputs = {"topic": "llamas", "depth": 3}, {"title": "On llamas", "score": 0.9}

    def block() -> None:
        with log.execution("research_crew", inputs=inputs, model_name="gpt-4o") as run:
            run.record_tokens(prompt_tokens=1000, completion_tokens=1500, cost_usd=0.012)
            run.set_outputs(outputs)

    return block


def _step(log: Log) -> Callable[[], None]:
    run = log.execution("research_crew")
    run.__enter__()
    outer = run.step("agent", "writer")
    outer.__enter__()

    def block() -> None:
        with run.step("task", "summarise"):
            pass

    return block


def _full_step(log: Log) -> Callable[[], None]:
    run = log.execution("research_crew")
    run.__enter__()

    def block() -> None:
        with run.step("task", "summarise", agent_name="writer", attempt=1, max_retries=3):
            pass

    return block


def _decorated(log: Log) -> Callable[[], None]:
    @log_execution("build_crew", log=log)
    def build() -> None:
        pass

    return build


def _measure(report: Report) -> None:
    with temporary_folder() as folder:
        _blocks(report, folder, rounds=4 if report.quick else 100)
    with temporary_folder() as folder:
        _cpu(report, folder, number=500 if report.quick else 20_000)


def _blocks(report: Report, folder: Path, rounds: int) -> None:
    log = open_log(folder / "log.jsonl", console=False, backup_count=0)
    floor = Case("noise floor: an empty call", empty)
    inside = [copy_context() for _ in range(3)]
    plain = Case("info, 8 fields", plain_call(log), log.flush)
    within = Case("info, 8 fields, in an execution's step", plain_call(log), log.flush, inside[2])
    run = log.execution("research_crew")
    inside[2].run(run.__enter__)
    step = run.step("task", "summarise")
    inside[2].run(step.__enter__)
    cases = [
        Case("execution", _execution(log), log.flush),
        Case("execution with inputs, tokens, outputs, a field", _full_execution(log), log.flush),
        Case("nested step", inside[0].run(_step, log), log.flush, inside[0]),
        Case("step with 3 fields", inside[1].run(_full_step, log), log.flush, inside[1]),
        Case("call of a function under @log_execution", _decorated(log), log.flush),
    ]
    interleave([floor, plain, within, *cases], rounds, BURST)
    log.close()

    zero = report.floor(floor.samples)
    rows = [[floor.name, *zero.cells(), "", ""]]
    for case in (plain, within, *cases):
        timing = Timing.of(case.samples)
        ratio, low, high = bootstrap(plain.bursts, case.bursts)
        report.figures[case.name] = asdict(timing) | {"p50_net": timing.p50 - zero.p50}
        rows.append(
            [case.name, *timing.cells(), us(timing.p50 - zero.p50), f"{1 / ratio:.2f} ({1 / high:.2f}-{1 / low:.2f})"]
        )
    report.table(
        "Executions and steps",
        ("block or call", "p50", "p99", "p99.9", "max", "p50 net", "this / info"),
        rows,
        f"{len(floor.samples):,} each, in bursts of {BURST:,}. Net: less the p50 of the empty call. Last column: p50 "
        "of this by that of a plain call with 8 fields outside of any execution, with the 95 % interval over bursts.",
    )
    stats, calls = log.stats(), rounds * BURST + WARM_UP
    expected = 2 * calls + (len(cases) - 1) * LINES * calls + calls + 5
    report.check_ledger("log", stats, expected)
    report.check("log: nothing refused or lost", stats.written == stats.offered)
    report.check_files("log", read_back(folder), stats.written)


def _cpu(report: Report, folder: Path, number: int) -> None:
    rows = []
    for name, make in (("execution", _execution), ("nested step", _step)):
        log = open_log(folder / f"{name.replace(' ', '_')}.jsonl", console=False, max_queue_size=0, max_queue_bytes=0)
        block = copy_context().run(make, log)
        block()
        log.flush()
        began = time.process_time()
        for _ in range(number):
            block()
        caller = time.process_time() - began
        log.close()
        total = time.process_time() - began
        report.figures[f"{name}: CPU"] = {"caller_us": caller / number * 1e6, "total_us": total / number * 1e6}
        rows.append([name, f"{total / number * 1e6:.2f} us"])
    report.table("CPU in all", ("block", "all threads"), rows, f"{number:,} blocks each, until closed.")


if __name__ == "__main__":
    main("executions", _measure, __doc__ or "")
