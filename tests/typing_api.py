"""The public API as a type checker sees it. Not run: `mypy --strict` and pyright check it."""

import logging
import os
from pathlib import Path
from typing import Any, assert_type

from msgspec import Struct

from amsha_async_log import (
    AmshaLogError,
    CloseReport,
    ConfigError,
    Execution,
    Log,
    LogConfig,
    Logger,
    MissingExtraError,
    ReadError,
    Stats,
    Step,
    Summary,
    amsha,
    current_execution,
    events,
    get_log,
    log_execution,
    open_log,
    reader,
)
from amsha_async_log.stdlib import AsyncLogHandler, StdlibLogger


class ToolUsed(Struct, tag="tool.used", tag_field="event"):
    name: str


def opening(path: Path) -> None:
    with open_log("logs/app.jsonl", level="DEBUG", max_bytes=50_000_000) as log:
        assert_type(log, Log)
    assert_type(open_log(path, when_full="block"), Log)
    assert_type(open_log(), Log)


async def opening_in_a_loop() -> None:
    async with open_log("logs/app.jsonl") as log:
        assert_type(log, Log)
        assert_type(await log.aflush(durable=True, timeout_s=1.0), bool)
        assert_type(await log.aready(), bool)
    assert_type(await log.aclose(timeout_s=1.0), CloseReport)


def calls(log: Log) -> None:
    assert_type(log.debug("message"), bool)
    assert_type(log.info("message %s", 1, exc_info=True, extra={"a": 1}, field=object()), bool)  # noqa: LOG014
    assert_type(log.warning("message", exc_info=ValueError()), bool)
    assert_type(log.error("message", exc_info=(ValueError, ValueError(), None)), bool)
    assert_type(log.critical("message", exc_info=(None, None, None)), bool)
    assert_type(log.exception("message"), bool)  # noqa: LOG004
    assert_type(log.log("INFO", "message %d", 5, a=1), bool)
    assert_type(log.log(20, "message"), bool)
    assert_type(log.emit(events.FileOperation(operation="save", file_path="x", status="success")), bool)
    assert_type(log.emit(ToolUsed("search"), level="ERROR", beside=1), bool)
    log.info(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    log.info()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    log.emit({"event": "x"})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def loggers(log: Log) -> None:
    assert_type(log.child("crew"), Logger)
    assert_type(log.bind(tenant="acme"), Logger)
    assert_type(log.child("crew").bind(a=1).name, str)
    assert_type(log.level, str)
    assert_type(log.set_level("DEBUG"), None)
    assert_type(log.is_enabled_for(10), bool)


def state(log: Log) -> None:
    assert_type(log.stats(), Stats)
    assert_type(log.stats().by_reason, dict[str, dict[str, int]])
    assert_type(log.flush(durable=True), bool)
    assert_type(log.close(timeout_s=1.0), CloseReport)
    assert_type(log.close().ok, bool)
    assert_type(log.config, LogConfig)
    log.config.level = "DEBUG"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def executions(log: Logger, inputs: dict[str, Any]) -> None:
    with log.execution("crew", inputs=inputs, depends_on=["a"], attempt=1, max_retries=3, model_name="m") as run:
        assert_type(run, Execution)
        assert_type(run.execution_id, str)
        with run.step("task", "t", agent_name="writer") as step:
            assert_type(step, Step)
            assert_type(step.record_tokens(prompt_tokens=1, completion_tokens=2, cost_usd=0.1), None)
            with step.step("tool", "search") as inner:
                assert_type(inner, Step)
        assert_type(run.set_outputs(object()), None)
        assert_type(run.fields, dict[str, object])
    assert_type(current_execution(), Execution | None)


async def executions_in_a_loop(log: Logger) -> None:
    async with log.execution("crew") as run, run.step("task", "t") as step:
        assert_type((run, step), tuple[Execution, Step])


def carrying(log: Logger) -> None:
    def work(number: int, *, text: str) -> list[str]:
        return [text] * number

    carried = log.carry(work)
    assert_type(carried(1, text="x"), list[str])
    carried("1", text="x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def blocks_do_not_swallow(log: Log) -> int:
    with log, log.execution("crew"):
        return 1


def errors() -> list[type[AmshaLogError]]:
    return [ConfigError, MissingExtraError, ReadError]


def last_opened() -> None:
    get_log().info("message", field=1)


def reading(path: Path) -> None:
    for execution in reader.executions("logs/", path):
        assert_type(execution, reader.Execution)
        assert_type(execution.execution_id, str)
    for line in reader.records("logs/"):
        assert_type(line, dict[str, Any])
    assert_type(reader.verify("logs/"), reader.Report)
    assert_type(reader.verify(path).ok, bool)


async def decorating(log: Logger) -> None:
    @log_execution("op", arguments=("n",))
    def work(n: int) -> list[int]:
        return [n]

    @log.log_execution("op", arguments=True)
    async def work_later(n: int) -> str:
        return str(n)

    assert_type(work(1), list[int])
    assert_type(await work_later(1), str)


def across_processes(log: Logger) -> None:
    carrier: dict[str, str] = {}
    assert_type(log.inject(carrier), dict[str, str])
    with log.extract(carrier) as joined:
        assert_type(joined, Execution | Step | None)
    log.extract([(b"traceparent", b"x")])
    log.extract(os.environ)


def states(log: Logger) -> None:
    run = log.execution("crew")
    assert_type(run.set_state("running", reason="x"), bool)
    assert_type(run.state, str)
    summary = run.summary()
    assert_type(summary, Summary)
    assert_type(summary.peak_memory_mb, float | None)


def standard_logging(log: Log) -> None:
    logging.getLogger().addHandler(AsyncLogHandler(log, attributes=("funcName",)))
    AsyncLogHandler(path="logs/a.jsonl", level="DEBUG")
    logger: logging.Logger = StdlibLogger(log, name="x")
    logger.info("message", extra={"field": 1})
    logging.setLoggerClass(StdlibLogger)


def drop_in() -> None:
    logger = amsha.get_logger("forge", "DEBUG")
    assert_type(logger, logging.Logger)

    @amsha.log_execution(logger, "op")
    def work(n: int) -> int:
        return n

    assert_type(work(1), int)
    assert_type(amsha.cleanup_old_archives(), int)
    assert_type(amsha.get_rotation_config().max_size_mb, float)
    amsha.MetricsLogger(logger).log_file_operation("save", "x", "success", file_size_bytes=1)
