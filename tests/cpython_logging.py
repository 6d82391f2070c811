"""Run CPython's own tests of `logging` against AsyncLogHandler and StdlibLogger, and print how each case ended.

    python tests/cpython_logging.py (records | native) CLASS...

In place of `logging.StreamHandler` stands a handler whose records go into a log; what is read back from the log's file is
written to the stream, where the cases look for it. The loggers are StdlibLoggers.

`records`: formatters are the handler's, so a line's message is what the stream gets. `native`: formatters are applied
to what is read back, its logger and level among it; the package does not see them, so loggers make no LogRecord.
"""

import io
import json
import logging
import logging.config
import sys
import tempfile
import unittest
import weakref
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import test.test_logging as cases

from amsha_async_log import stdlib
from amsha_async_log._pipeline import Log, open_private_log
from amsha_async_log.stdlib import AsyncLogHandler, StdlibLogger

MODE = sys.argv[1] if len(sys.argv) > 1 else "records"
ORIGINAL = logging.StreamHandler


class FileReader:
    """The log of all handlers, and how far its file has been read."""

    def __init__(self, path: Path) -> None:
        self.log: Log = open_private_log({"path": path, "level": "DEBUG", "console": False, "max_queue_size": 0})
        self.position = 0
        self.handlers: weakref.WeakValueDictionary[int, ReadBackHandler] = weakref.WeakValueDictionary()
        self.made = 0

    def pump(self) -> None:
        """Give every line that is new in the file to the handler it came from."""
        assert self.log.flush()
        with open(self.log.config.path, "rb") as file:
            file.seek(self.position)
            data = file.read()
        self.position += len(data)
        for line in map(json.loads, data.splitlines()):
            handler = self.handlers.get(line.get("handler"))
            if handler is not None:
                handler.show(line)


class ReadBackHandler(AsyncLogHandler):
    """To be used as a StreamHandler."""

    terminator = "\n"

    def __init__(self, stream: TextIO | None = None) -> None:
        if not isinstance(self, ReadBackHandler):  # a FileHandler, which calls its base class by name
            ORIGINAL.__init__(self, stream)
            return
        self.given_formatter: logging.Formatter | None = None
        READER.made += 1
        super().__init__(READER.log.bind(handler=READER.made))
        READER.handlers[READER.made] = self
        self.stream = sys.stderr if stream is None else stream

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(self, ReadBackHandler):
            super().emit(record)
        else:
            ORIGINAL.emit(self, record)

    def close(self) -> None:
        if isinstance(self, ReadBackHandler):
            super().close()
        else:
            ORIGINAL.close(self)

    @property
    def formatter(self) -> logging.Formatter | None:
        """What was set. `native` hides it from the package."""
        hidden = MODE == "native" and sys._getframe(1).f_globals is vars(stdlib)
        return None if hidden else self.given_formatter

    @formatter.setter
    def formatter(self, formatter: logging.Formatter | None) -> None:
        self.given_formatter = formatter

    def show(self, line: dict[str, Any]) -> None:
        """Write what was read back."""
        text = line["message"]
        if MODE == "native" and self.given_formatter is not None:
            level = line.get("levelname", line["level"])
            text = self.given_formatter.format(
                logging.makeLogRecord({"name": line["logger"], "levelname": level, "msg": text})
            )
        if not getattr(self.stream, "closed", False):
            self.stream.write(text + self.terminator)

    def flush(self) -> None:
        READER.pump()


class Stream(io.StringIO):
    """Text that is there once it is asked for."""

    def getvalue(self) -> str:
        if any(handler.stream is self for handler in READER.handlers.values()):
            READER.pump()
        return super().getvalue()


class Outcomes(unittest.TestResult):
    """How each case ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        logging.setLoggerClass(StdlibLogger)  # the case before may have left another
        self.ended.setdefault(name_of(test), "")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, error: Any) -> None:
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.ended[name_of(test)] += self._exc_info_to_string(error, test)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        told = [text for failed, text in [*self.failures, *self.errors] if failed is test]
        self.ended[name_of(test)] += "".join(told)


def name_of(test: unittest.TestCase) -> str:
    return f"{type(test).__name__}.{test._testMethodName}"


def set_up_with_our_class(original: Any) -> Any:
    """A `setUp` that makes its logger by `logging.Logger(...)`."""

    def set_up(self: unittest.TestCase) -> None:
        with mock.patch.object(logging, "Logger", StdlibLogger):
            original(self)

    return set_up


def main(names: list[str]) -> dict[str, Any]:
    """Each case and what was wrong with it, and how many calls were logged without a LogRecord."""
    direct = 0
    only_sink = StdlibLogger._only_sink

    def counted(logger: StdlibLogger, level: int) -> AsyncLogHandler | None:
        nonlocal direct
        sink = only_sink(logger, level)
        direct += sink is not None
        return sink

    StdlibLogger._only_sink = counted
    io.StringIO = Stream  # type: ignore[misc]
    logging.StreamHandler = ReadBackHandler  # type: ignore[misc]
    logging.setLoggerClass(StdlibLogger)
    if MODE == "native":
        stdlib.AsyncLogHandler = ReadBackHandler  # type: ignore[misc]
    cases.LoggerTest.setUp = set_up_with_our_class(cases.LoggerTest.setUp)
    outcomes = Outcomes()
    loader = unittest.TestLoader()
    for name in names:
        loader.loadTestsFromTestCase(getattr(cases, name)).run(outcomes)
    return {"cases": outcomes.ended, "direct": direct}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        READER = FileReader(Path(folder) / "log.jsonl")
        found = main(sys.argv[2:])
        READER.log.close()
    print("\n" + json.dumps(found))
