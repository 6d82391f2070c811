"""Builds log files by hand, from the documented format alone: nothing here comes from the writing side."""

import json
import socket
import zlib
from pathlib import Path
from typing import Any

BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
HOST = socket.gethostname()
BOOT_ID = BOOT_ID_PATH.read_text().strip() if BOOT_ID_PATH.exists() else None
START = 1_763_805_000.0  # Unix seconds at which every hand-made log begins


class Writer:
    """One writer, appending to files as the format says; `seq` and the clock go on from file to file."""

    def __init__(self, path: Path, name: str = "aaaaaaaa", *, start: float = START, step: float = 0.001) -> None:
        self.path = path
        self.name = name
        self.seq = 0
        self.time = start
        self.step = step
        self.previous: str | None = None
        self.records = self.lines = 0
        self.first_seq = 1
        self.totals = dict.fromkeys(
            ("offered", "accepted", "written", "refused", "dropped", "failed", "queued", "degraded"), 0
        )

    def line(self, event: str = "log", message: str = "", *, level: str = "INFO", **fields: Any) -> bytes:
        """The next line, not written anywhere."""
        self.seq += 1
        self.time = round(self.time + self.step, 6)
        logger = "amsha_async_log" if event.startswith("log.") else "test"
        envelope = {
            "event": event,
            "timestamp": self.time,
            "level": level,
            "logger": logger,
            "message": message or event,
            "writer": self.name,
            "seq": self.seq,
        }
        self.lines += 1
        if not event.startswith("log."):
            self.records += 1
            for count in ("offered", "accepted", "written"):
                self.totals[count] += 1
        return json.dumps({**envelope, **fields}, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    def write(self, event: str = "log", message: str = "", *, level: str = "INFO", **fields: Any) -> int:
        """Append a line; returns its `seq`."""
        self.append(self.line(event, message, level=level, **fields))
        return self.seq

    def append(self, data: bytes) -> None:
        """Append bytes as they are."""
        with self.path.open("ab") as file:
            file.write(data)

    def open_segment(self, *, host: str = HOST, boot_id: str | None = BOOT_ID, owner: bool = True) -> None:
        """Begin a segment at the end of the file, healing a torn last line as the writing side does."""
        existing = self.path.read_bytes() if self.path.exists() else b""
        torn = len(existing) - existing.rfind(b"\n") - 1
        if torn:
            self.append(b"\n")
        self.records = self.lines = 0
        self.first_seq = self.seq + 1
        self.write(
            "log.segment_opened",
            schema_version=1,
            fingerprint="00000000",
            host=host,
            boot_id=boot_id,
            pid=1,
            process_start=None,
            program="test",
            versions={},
            redaction=False,
            owner=owner,
            previous_segment=self.previous,
        )
        if torn:
            self.write("log.recovered", torn_bytes=torn)

    def close_segment(self, **changed: Any) -> None:
        """End the segment in order; `changed` overrides fields of its last line."""
        data = self.path.read_bytes()
        fields = {
            "records": self.records,
            "lines": self.lines,
            "first_seq": self.first_seq,
            "last_seq": self.seq,
            "bytes": len(data),
            "crc32": zlib.crc32(data),
            "totals": dict(self.totals),
        }
        self.write("log.segment_closed", **{**fields, **changed})

    def close(self) -> None:
        """End the writer in order."""
        self.write("log.closed", reason="close", ok=True, left_behind=0, duration_seconds=0.0, **self.totals)
        self.close_segment()

    def lose(self, count: int, *, first_time: float | None = None, last_time: float | None = None) -> None:
        """Declare records refused because the queue was full."""
        self.totals["offered"] += count
        self.totals["refused"] += count
        self.write(
            "log.dropped",
            level="ERROR",
            count=count,
            by_reason={"queue_full": count},
            by_level={"INFO": count},
            first_time=self.time if first_time is None else first_time,
            last_time=self.time if last_time is None else last_time,
            totals=dict(self.totals),
        )

    def rotate(self, number: int) -> Path:
        """End the segment, move it aside, and begin the next one; returns the rotated file."""
        self.close_segment()
        rotated = self.path.with_name(f"{self.path.stem}.20251122T100000Z-{number:04d}{self.path.suffix}")
        self.path.rename(rotated)
        self.previous = rotated.name
        self.open_segment()
        return rotated


class Log(Writer):
    """A writer with a segment begun, and shorthands for the lines of one execution."""

    def __init__(self, path: Path, name: str = "aaaaaaaa", **options: Any) -> None:
        super().__init__(path, name, **options)
        self.open_segment()

    def put(self, event: str = "log", execution_id: str = "e1", **fields: Any) -> float:
        """A line of an execution; returns its time."""
        self.write(event, execution_id=execution_id, crew_name="crew", **fields)
        return self.time

    def start(self, execution_id: str = "e1", **fields: Any) -> float:
        return self.put("execution.started", execution_id, status="running", **fields)

    def end(self, how: str = "completed", execution_id: str = "e1", **fields: Any) -> float:
        fields.setdefault("duration_seconds", 0.5)
        level = "ERROR" if how == "failed" else "INFO"
        return self.put(f"execution.{how}", execution_id, level=level, status=how, **fields)


def closed_log(path: Path, records: int = 10, name: str = "aaaaaaaa", *, start: float = START) -> Writer:
    """A log of one segment that ended in order."""
    writer = Writer(path, name, start=start)
    writer.open_segment()
    for number in range(records):
        writer.write(message=f"record {number}", number=number)
    writer.close()
    return writer


def rotated_log(path: Path, segments: int = 4, records: int = 10, name: str = "aaaaaaaa") -> list[Path]:
    """A log that ended in order after several segments; returns its files in the order they were written."""
    writer = Writer(path, name)
    writer.open_segment()
    files = []
    for segment in range(segments):
        for number in range(records):
            writer.write(message=f"record {number} of segment {segment}", number=number)
        if segment < segments - 1:
            files.append(writer.rotate(segment + 1))
    writer.close()
    return [*files, path]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file as the standard library reads them."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
