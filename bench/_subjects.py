"""What is compared: the same eight fields logged with this package, with the standard library and with structlog.

`Floor` is no logger but the least that any logger which writes such lines has to do.
"""

import json
import logging
import os
import queue
import time
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import orjson
import structlog
from msgspec import Struct

from amsha_async_log import Logger

__all__ = [
    "FIELDS",
    "CallLimit",
    "Floor",
    "StdlibQueue",
    "StructlogOrjson",
    "Subject",
    "TaskFinished",
    "extra_call",
    "file_lines",
    "json_dumps",
    "orjson_dumps",
    "plain_call",
    "typed_call",
]

MESSAGE: Final = "Task finished"
FIELDS: Final[dict[str, Any]] = {
    "agent_name": "researcher",
    "task_name": "summarise_findings",
    "attempt": 1,
    "status": "completed",
    "duration_seconds": 12.345678,
    "total_tokens": 2500,
    "cost_usd": 0.012,
    "file_path": "output/intermediate/summary_001.json",
}
SLICE: Final = 256
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TaskFinished(Struct, tag="task.finished", tag_field="event", kw_only=True, gc=False):
    """The eight fields as a typed event."""

    agent_name: str
    task_name: str
    attempt: int
    status: str
    duration_seconds: float
    total_tokens: int
    cost_usd: float
    file_path: str


class Subject(Protocol):
    """Something that logs."""

    def call(self) -> object:
        """Log one record."""

    def drain(self) -> object:
        """Wait until the backend has caught up."""

    def close(self) -> object:
        """Write everything and give the file up."""


_encode: Final = msgspec.json.Encoder().encode


class _Snapshot(Struct, gc=False):
    timestamp: float
    message: str | None
    body: object


class CallLimit:
    """No logger: the least of any call that takes keywords, keeps their values as they are now, and queues a struct.

    Nothing is bounded, counted or checked: not the level, nor names that clash with the envelope, nor NaN.
    """

    def __init__(self) -> None:
        self._queue: list[_Snapshot] = []

    def info(self, message: str, /, **fields: Any) -> bool:
        """One record of eight fields."""
        self._queue.append(_Snapshot(time.time(), message, _encode(fields)))
        return True

    def emit(self, event: Struct, /) -> bool:
        """One typed event."""
        self._queue.append(_Snapshot(time.time(), None, event))
        return True

    def forget(self) -> None:
        """Drop what is queued."""
        self._queue.clear()


def plain_call(log: Logger | CallLimit) -> Callable[[], bool]:
    """A plain call with eight fields."""

    def call() -> bool:
        return log.info(
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

    return call


def typed_call(log: Logger | CallLimit) -> Callable[[], bool]:
    """A typed event of eight fields, built at the call."""

    def call() -> bool:
        return log.emit(
            TaskFinished(
                agent_name="researcher",
                task_name="summarise_findings",
                attempt=1,
                status="completed",
                duration_seconds=12.345678,
                total_tokens=2500,
                cost_usd=0.012,
                file_path="output/intermediate/summary_001.json",
            )
        )

    return call


def extra_call(logger: logging.Logger) -> Callable[[], None]:
    """A call of the standard library's kind, with eight fields."""

    def call() -> None:
        logger.info(
            MESSAGE,
            extra={
                "agent_name": "researcher",
                "task_name": "summarise_findings",
                "attempt": 1,
                "status": "completed",
                "duration_seconds": 12.345678,
                "total_tokens": 2500,
                "cost_usd": 0.012,
                "file_path": "output/intermediate/summary_001.json",
            },
        )

    return call


class _FloorLine(Struct, tag="task.finished", tag_field="event", gc=False):
    timestamp: float
    level: str
    logger: str
    writer: str
    seq: int
    agent_name: str
    task_name: str
    attempt: int
    status: str
    duration_seconds: float
    total_tokens: int
    cost_usd: float
    file_path: str


class Floor:
    """Build one struct that is the whole line, collect 256, encode them in one call, write them in one call."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lines: list[_FloorLine] = []
        self._encode = msgspec.json.Encoder().encode_lines
        self._seq = 0

    def call(self) -> None:
        """One record."""
        self._seq = seq = self._seq + 1
        lines = self._lines
        lines.append(
            _FloorLine(
                timestamp=time.time(),
                level="INFO",
                logger="amsha",
                writer="k3f9a1c2",
                seq=seq,
                agent_name="researcher",
                task_name="summarise_findings",
                attempt=1,
                status="completed",
                duration_seconds=12.345678,
                total_tokens=2500,
                cost_usd=0.012,
                file_path="output/intermediate/summary_001.json",
            )
        )
        if len(lines) >= SLICE:
            self.drain()

    def drain(self) -> None:
        """Write what is collected."""
        os.write(self._fd, self._encode(self._lines))
        self._lines.clear()

    def close(self) -> None:
        """Write the rest."""
        self.drain()
        os.close(self._fd)


class _JsonFormatter(logging.Formatter):
    """A record and its `extra` as one line of JSON."""

    def __init__(self, dumps: Callable[[dict[str, Any]], str]) -> None:
        super().__init__()
        self._dumps = dumps

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        return self._dumps(line)


def orjson_dumps(line: dict[str, Any]) -> str:
    """The fastest encoder the standard library's loggers can be given; they want text."""
    return orjson.dumps(line).decode()


json_dumps: Final[Callable[[dict[str, Any]], str]] = json.dumps


class StdlibQueue:
    """`logging` with a QueueHandler at the call, and a QueueListener with a JSON formatter that writes to a file."""

    def __init__(
        self, path: Path, dumps: Callable[[dict[str, Any]], str] = orjson_dumps, *, listen: bool = True
    ) -> None:
        self._file = logging.FileHandler(path, encoding="utf-8")
        self._file.setFormatter(_JsonFormatter(dumps))
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(-1)
        self.logger = logging.Logger("bench", logging.INFO)  # noqa: LOG001 - as one from getLogger, and gone with it
        self.logger.addHandler(QueueHandler(self._queue))
        self.call = extra_call(self.logger)
        """One record with eight fields."""
        self._listener = QueueListener(self._queue, self._file)
        if listen:
            self._listener.start()

    def disabled(self) -> None:
        """A call below the level, without fields."""
        self.logger.debug(MESSAGE)

    def disabled_fields(self) -> None:
        """A call below the level, with eight fields."""
        self.logger.debug(
            MESSAGE,
            extra={
                "agent_name": "researcher",
                "task_name": "summarise_findings",
                "attempt": 1,
                "status": "completed",
                "duration_seconds": 12.345678,
                "total_tokens": 2500,
                "cost_usd": 0.012,
                "file_path": "output/intermediate/summary_001.json",
            },
        )

    def drain(self) -> None:
        """Wait until the listener has written everything."""
        self._queue.join()

    def forget(self) -> None:
        """Throw away what is queued, where nobody listens."""
        self._queue.queue.clear()

    def close(self) -> None:
        """Write everything and close the file."""
        self._listener.stop()
        self._file.close()


class StructlogOrjson:
    """structlog as its documentation sets it up for speed: orjson, bytes, written to the file at the call."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self.logger: Any = structlog.wrap_logger(
            structlog.BytesLogger(self._file),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        ).bind()

    def call(self) -> None:
        """One record with eight fields."""
        self.logger.info(
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

    def disabled(self) -> None:
        """A call below the level, without fields."""
        self.logger.debug(MESSAGE)

    def disabled_fields(self) -> None:
        """A call below the level, with eight fields."""
        self.logger.debug(
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

    def drain(self) -> None:
        """Nothing waits: each call has written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def file_lines(path: Path) -> int:
    """Parse every line of a file; how many there are. Raises on a line that is no JSON."""
    return len(msgspec.json.Decoder(dict[str, Any]).decode_lines(path.read_bytes()))
