"""The standard library's loggers into a log: through AsyncLogHandler, and by StdlibLogger without a LogRecord."""

# ruff: noqa: G101, LOG001, LOG014 - what users had better not do is tested too, on loggers of a test's own

import gc
import io
import logging
import logging.config
import logging.handlers
import math
import pickle
import queue
import sys
import threading
import time
import types
import warnings
import weakref
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poison import Plain, RaisingRepr, RaisingStr
from programs import check_complete, records, run
from support import ENVELOPE, poll, read_lines, user_fields, user_lines

from amsha_async_log import ConfigError, get_log
from amsha_async_log._pipeline import Log
from amsha_async_log._registry import OPEN_LOGS
from amsha_async_log.stdlib import AsyncLogHandler, StdlibLogger

METHODS = ("debug", "info", "warning", "error", "critical")
KINDS = (logging.Logger, StdlibLogger)


def hierarchy(kind: type[logging.Logger]) -> logging.Manager:
    """A tree of loggers apart from the process's own, with everything enabled."""
    root = logging.RootLogger(logging.DEBUG)
    manager = logging.Manager(root)
    root.manager = manager
    manager.setLoggerClass(kind)
    return manager


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__module__)
def kind(request: pytest.FixtureRequest) -> type[logging.Logger]:
    """Both ways into a log: what holds for one holds for the other."""
    return request.param


@pytest.fixture
def log(opened: Callable[..., Log]) -> Log:
    """A log that lets every level through."""
    return opened(level="DEBUG")


@pytest.fixture
def handler(log: Log) -> Iterator[AsyncLogHandler]:
    """A handler on that log."""
    handler = AsyncLogHandler(log)
    yield handler
    handler.close()


@pytest.fixture
def logger(kind: type[logging.Logger], handler: AsyncLogHandler) -> logging.Logger:
    """A logger whose only handler it is."""
    logger = hierarchy(kind).getLogger("app")
    logger.addHandler(handler)
    return logger


@pytest.fixture
def lines(log: Log, log_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """What was written, once the log is closed."""

    def close_and_read() -> list[dict[str, Any]]:
        assert log.close().ok
        return user_lines(log_path)

    return close_and_read


@pytest.fixture
def line(lines: Callable[[], list[dict[str, Any]]]) -> Callable[[], dict[str, Any]]:
    """The only line that was written."""

    def close_and_read() -> dict[str, Any]:
        (only,) = lines()
        return only

    return close_and_read


@pytest.fixture
def process_logging() -> Iterator[None]:
    """For tests that change the process's own loggers: they are as new, and put back afterwards."""
    root = logging.getLogger()
    manager = root.manager
    states = (
        (logging._handlers, dict(logging._handlers)),
        (manager.loggerDict, dict(manager.loggerDict)),
        (logging._levelToName, dict(logging._levelToName)),
        (logging._nameToLevel, dict(logging._nameToLevel)),
    )
    known, handlers, level, disabled = logging._handlerList[:], root.handlers[:], root.level, manager.disable
    kind, factory, raising = logging.getLoggerClass(), logging.getLogRecordFactory(), logging.raiseExceptions
    logging._handlers.clear()
    manager.loggerDict.clear()
    logging._handlerList.clear()
    root.handlers.clear()
    yield
    logging.captureWarnings(False)
    logging.shutdown()
    for kept, state in states:
        kept.clear()
        kept.update(state)
    logging._handlerList[:], root.handlers[:] = known, handlers
    root.setLevel(level)
    manager.disable = disabled
    logging.setLoggerClass(kind)
    logging.setLogRecordFactory(factory)
    logging.raiseExceptions = raising


@contextmanager
def counting_records() -> Iterator[Callable[[], int]]:
    """How many LogRecords are made inside."""
    made = 0
    code = logging.LogRecord.__init__.__code__

    def watch(frame: types.FrameType, event: str, argument: object) -> None:
        nonlocal made
        made += event == "call" and frame.f_code is code

    sys.setprofile(watch)
    try:
        yield lambda: made
    finally:
        sys.setprofile(None)


def handed(logger: logging.Logger) -> list[logging.LogRecord]:
    """The records that a second handler of the logger gets."""
    seen: list[logging.LogRecord] = []
    second = logging.Handler()
    second.emit = seen.append
    logger.addHandler(second)
    return seen


# -- a line ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_method_writes_a_line_of_its_level(logger: logging.Logger, line: Any, method: str) -> None:
    getattr(logger, method)("Order %d of %s", 7, "acme")
    written = line()
    assert (written["level"], written["message"]) == (method.upper(), "Order 7 of acme")


def test_line_has_the_name_of_the_logger(logger: logging.Logger, line: Any) -> None:
    logger.getChild("billing").info("message")
    assert line()["logger"] == "app.billing"


def test_line_of_the_root_logger_is_named_root(kind: type[logging.Logger], handler: AsyncLogHandler, line: Any) -> None:
    manager = hierarchy(kind)
    manager.root.addHandler(handler)
    manager.root.info("message")
    assert line()["logger"] == "root"


def test_line_is_a_plain_one_without_fields(logger: logging.Logger, line: Any) -> None:
    logger.info("message")
    written = line()
    assert (written["event"], user_fields(written)) == ("log", {})


def test_message_may_be_given_by_name(logger: logging.Logger, line: Any) -> None:
    logger.info(msg="message")
    assert line()["message"] == "message"


def test_arguments_in_a_mapping_are_named(logger: logging.Logger, line: Any) -> None:
    logger.info("Order %(id)d", {"id": 7})
    assert line()["message"] == "Order 7"


@pytest.mark.parametrize("message", [5, None, ("a", 1), Path("x"), ValueError("no")], ids=repr)
def test_message_that_is_no_text_is_made_one(logger: logging.Logger, line: Any, message: object) -> None:
    logger.info(message)
    assert line()["message"] == str(message)


def test_message_without_arguments_is_not_formatted(logger: logging.Logger, line: Any) -> None:
    logger.info("100 %s %d")
    assert line()["message"] == "100 %s %d"


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3)])
def test_arguments_that_do_not_fit_leave_a_marked_line(
    logger: logging.Logger, line: Any, capfd: pytest.CaptureFixture[str], arguments: tuple[Any, ...]
) -> None:
    logger.info("%d of %d", *(arguments or ("x",)))
    written = line()
    assert written["message"].startswith("%d of %d")
    assert "arguments do not fit" in written["log_degraded"]["message"]
    assert capfd.readouterr().err == ""


def test_message_whose_str_raises_leaves_a_marked_line(
    logger: logging.Logger, line: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    logger.info(RaisingStr())
    assert list(line()["log_degraded"]) == ["message"]
    assert capfd.readouterr().err == ""


def test_message_that_is_not_utf_8_leaves_a_marked_line(logger: logging.Logger, line: Any) -> None:
    logger.info("a\ud800b")
    assert list(line()["log_degraded"]) == ["message"]


def test_call_returns_nothing(logger: logging.Logger) -> None:
    assert logger.info("message") is None
    assert logger.log(20, "message") is None


def test_timestamp_is_that_of_the_record(handler: AsyncLogHandler, line: Any) -> None:
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 20, "msg": "message", "created": 1_000_000.25}))
    assert line()["timestamp"] == 1_000_000.25


def test_timestamp_of_a_native_call_is_now(log: Log, line: Any) -> None:
    before = time.time()
    StdlibLogger(log).info("message")
    after = time.time()
    assert before <= line()["timestamp"] <= after


# -- extra -------------------------------------------------------------------------------------------------------------


def test_extra_becomes_fields(logger: logging.Logger, line: Any) -> None:
    logger.info("message", extra={"a": 1, "b": {"c": [True, None]}})
    assert user_fields(line()) == {"a": 1, "b": {"c": [True, None]}}


@pytest.mark.parametrize("method", ["log", "exception"])
def test_extra_becomes_fields_of_every_other_call(logger: logging.Logger, line: Any, method: str) -> None:
    level = (20,) if method == "log" else ()
    getattr(logger, method)(*level, "message", extra={"a": 1})
    assert line()["a"] == 1


@pytest.mark.parametrize("extra", [None, {}], ids=repr)
def test_no_extra_is_no_fields(logger: logging.Logger, line: Any, extra: Any) -> None:
    logger.info("message", extra=extra)
    assert user_fields(line()) == {}


@pytest.mark.parametrize("make", [types.MappingProxyType, ChainMap, lambda d: type("D", (dict,), {})(d)])
def test_extra_may_be_any_mapping(logger: logging.Logger, line: Any, make: Callable[[dict[str, int]], Any]) -> None:
    logger.info("message", extra=make({"a": 1, "b": 2}))
    assert user_fields(line()) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Plain(), "not encodable"),
        ({"deep": [Plain()]}, "not encodable"),
        (RaisingRepr(), "not encodable"),
        (float("nan"), "not finite"),
        ({"deep": (1.5, float("inf"))}, "not finite"),
        ("\ud800", "not UTF-8"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_does_not_encode_is_marked(
    logger: logging.Logger, line: Any, capfd: pytest.CaptureFixture[str], value: object, reason: str
) -> None:
    logger.info("message", extra={"bad": value, "good": 1})
    written = line()
    assert written["good"] == 1
    assert reason in written["log_degraded"]["bad"]
    assert capfd.readouterr().err == ""


def test_value_is_taken_as_it_is_at_the_call(logger: logging.Logger, line: Any) -> None:
    value = [1]
    logger.info("message", extra={"value": value})
    value.append(2)
    assert line()["value"] == [1]


@pytest.mark.parametrize("name", ["timestamp", "level", "event", "logger", "writer", "seq"])
def test_key_of_the_envelope_gets_an_underscore(logger: logging.Logger, line: Any, name: str) -> None:
    logger.info("message", extra={name: "mine"})
    written = line()
    assert user_fields(written) == {f"{name}_": "mine"}
    assert written[name] != "mine"


@pytest.mark.parametrize("key", [1, 2.5, (1, 2), None, b"k"], ids=repr)
def test_key_that_is_no_text_is_made_one(logger: logging.Logger, line: Any, key: Any) -> None:
    logger.info("message", extra={key: "value", "good": 1})
    fields = user_fields(line())
    fields.pop("log_degraded", None)
    assert sorted(map(str, fields.values())) == ["1", "value"]


def test_key_that_is_no_text_is_the_same_either_way(opened: Callable[..., Log], tmp_path: Path) -> None:
    written = []
    for kind in KINDS:
        log = opened(tmp_path / f"{kind.__module__}.jsonl")
        logger = kind("app")
        logger.addHandler(AsyncLogHandler(log))
        logger.info("message", extra={1: 2, (3,): 4, None: 5})
        log.close()
        written += map(user_fields, user_lines(log.config.path))
    assert written[0] == written[1] != {}


def test_key_extra_is_a_field(logger: logging.Logger, line: Any) -> None:
    logger.info("message", extra={"extra": {"a": 1}, "b": 2})
    assert user_fields(line()) == {"extra": {"a": 1}, "b": 2}


@pytest.mark.parametrize("name", ["self", "msg_", "args_", "stacklevel", "queue", "fields", "taskname"])
def test_key_that_is_an_argument_somewhere_is_a_field(logger: logging.Logger, line: Any, name: str) -> None:
    logger.info("message", extra={name: 1})
    assert user_fields(line()) == {name: 1}


@pytest.mark.parametrize("method", ["info", "exception"])
@pytest.mark.parametrize("key", [*vars(logging.makeLogRecord({})), "message", "asctime"])
def test_key_of_a_record_is_refused_as_the_standard_library_does(
    logger: logging.Logger, lines: Any, method: str, key: str
) -> None:
    plain = logging.Logger("plain")
    with pytest.raises(KeyError) as expected:
        getattr(plain, method)("message", extra={"a": 1, key: 2})
    with pytest.raises(KeyError) as refused:
        getattr(logger, method)("message", extra={"a": 1, key: 2})
    assert refused.value.args == expected.value.args
    assert lines() == []


def test_first_of_several_refused_keys_is_named(logger: logging.Logger) -> None:
    with pytest.raises(KeyError, match="Attempt to overwrite 'name' in LogRecord"):
        logger.log(20, "message", extra={"a": 1, "name": 2, "args": 3})


def test_no_key_is_refused_below_the_level(logger: logging.Logger) -> None:
    logger.setLevel(logging.WARNING)
    logger.info("message", extra={"args": 1})


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="refused where the standard library has a taskName itself")
def test_task_name_in_extra_is_a_field(logger: logging.Logger, line: Any) -> None:
    logger.info("message", extra={"taskName": "mine"})
    assert line()["taskName"] == "mine"


@pytest.mark.parametrize("extra", [5, ["a"], "ab"], ids=repr)
def test_extra_that_is_no_mapping_raises_what_the_standard_library_raises(logger: logging.Logger, extra: Any) -> None:
    with pytest.raises(TypeError) as expected:
        logging.Logger("plain").info("message", extra=extra)
    with pytest.raises(TypeError) as raised:
        logger.info("message", extra=extra)
    assert raised.value.args == expected.value.args


def test_unknown_option_raises_a_type_error(logger: logging.Logger) -> None:
    with pytest.raises(TypeError, match="colour"):
        logger.info("message", colour="red")


# -- exceptions and stacks ---------------------------------------------------------------------------------------------


def fail() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("given", ["true", "one", "exception", "tuple"])
def test_exception_is_structured(logger: logging.Logger, line: Any, given: str) -> None:
    try:
        fail()
    except ValueError as error:
        exc_info = {"true": True, "one": 1, "exception": error, "tuple": sys.exc_info()}[given]
        logger.error("failed", exc_info=exc_info, extra={"a": 1})
    written = line()
    assert (written["error_type"], written["error_message"], written["a"]) == ("ValueError", "no", 1)
    assert written["stacktrace"]["frames"][-1]["function"] == "fail"


def test_exception_logs_an_error_with_the_exception_being_handled(logger: logging.Logger, line: Any) -> None:
    try:
        fail()
    except ValueError:
        logger.exception("failed %d", 1)
    written = line()
    assert (written["level"], written["message"], written["error_type"]) == ("ERROR", "failed 1", "ValueError")


@pytest.mark.parametrize("exc_info", [False, None, 0, (), (None, None, None)], ids=repr)
def test_no_exception_is_no_fields(
    logger: logging.Logger, line: Any, capfd: pytest.CaptureFixture[str], exc_info: Any
) -> None:
    try:
        fail()
    except ValueError:
        logger.error("message", exc_info=exc_info)
    assert user_fields(line()) == {}
    assert capfd.readouterr().err == ""


def test_exc_info_without_an_active_exception_is_no_fields(logger: logging.Logger, line: Any) -> None:
    logger.info("message", exc_info=True)
    assert user_fields(line()) == {}


def test_exception_text_of_a_record_without_exception_is_a_field(handler: AsyncLogHandler, line: Any) -> None:
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 40, "msg": "m", "exc_text": "Traceback ..."}))
    assert line()["exc_text"] == "Traceback ..."


def test_exception_by_itself_on_a_record_is_structured(handler: AsyncLogHandler, line: Any) -> None:
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 40, "msg": "m", "exc_info": ValueError("no")}))
    assert line()["error_type"] == "ValueError"


def test_exception_text_that_another_handler_left_is_no_field(logger: logging.Logger, line: Any) -> None:
    first = logging.StreamHandler(io.StringIO())
    logger.handlers.insert(0, first)
    logger.error("failed", exc_info=ValueError("no"))
    written = line()
    assert "ValueError" in first.stream.getvalue()
    assert "exc_text" not in written
    assert written["error_type"] == "ValueError"


@pytest.mark.parametrize("method", [*METHODS, "exception", "log"])
def test_stack_ends_at_the_caller(logger: logging.Logger, line: Any, method: str) -> None:
    level = (30,) if method == "log" else ()
    getattr(logger, method)(*level, "message", stack_info=True)
    stack = line()["stack_info"].splitlines()
    assert stack[0] == "Stack (most recent call last):"
    assert stack[-2].endswith("in test_stack_ends_at_the_caller")


def caller_of(call: Callable[[], object]) -> str:
    call()
    return "caller_of"


@pytest.fixture
def places(
    kind: type[logging.Logger], log: Log, lines: Any
) -> Iterator[tuple[logging.Logger, Callable[[], list[Any]]]]:
    """A logger whose lines say from where, and these places."""
    handler = AsyncLogHandler(log, attributes=("funcName", "lineno", "pathname"))
    logger = hierarchy(kind).getLogger("app")
    logger.addHandler(handler)
    yield logger, lambda: [(line["funcName"], line["lineno"], line["pathname"]) for line in lines()]
    handler.close()


def here() -> int:
    return sys._getframe(1).f_lineno


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"extra": {"a": 1}}, {"exc_info": True}, {"stacklevel": 1}], ids=repr)
@pytest.mark.parametrize("method", [*METHODS, "exception", "log", "fatal", "warn"])
def test_caller_is_whoever_called_the_method(places: Any, method: str, options: dict[str, Any]) -> None:
    logger, found = places
    level = (30,) if method == "log" else ()
    getattr(logger, method)(*level, "message", **options); at = here()  # fmt: skip  # noqa: E702
    assert found() == [("test_caller_is_whoever_called_the_method", at, __file__)]


@pytest.mark.parametrize("method", [*METHODS, "exception", "log"])
def test_caller_is_whoever_called_an_adapter(places: Any, method: str) -> None:
    logger, found = places
    level = (30,) if method == "log" else ()
    getattr(logging.LoggerAdapter(logger, {"a": 1}), method)(*level, "message"); at = here()  # fmt: skip  # noqa: E702
    assert found() == [("test_caller_is_whoever_called_an_adapter", at, __file__)]


def test_extra_of_an_adapter_becomes_fields(logger: logging.Logger, line: Any) -> None:
    logging.LoggerAdapter(logger, {"tenant": "acme"}).info("message %d", 1)
    assert user_fields(line()) == {"tenant": "acme"}


@pytest.mark.parametrize("method", [*METHODS, "exception", "log"])
def test_stacklevel_reaches_further_up(places: Any, method: str) -> None:
    logger, found = places
    level = (30,) if method == "log" else ()
    caller_of(lambda: getattr(logger, method)(*level, "message", stacklevel=2))
    assert [place[0] for place in found()] == ["caller_of"]


def test_stacklevel_beyond_the_stack_is_the_outermost_frame(places: Any) -> None:
    logger, found = places
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    logger.info("message", stacklevel=10_000)
    assert [place[0] for place in found()] == [frame.f_code.co_name]


def test_attribute_that_a_record_lacks_is_null(log: Log, line: Any) -> None:
    AsyncLogHandler(log, attributes=["threadName", "nothing"]).handle(
        logging.makeLogRecord({"name": "app", "levelno": 20, "threadName": "T"})
    )
    assert user_fields(line()) == {"threadName": "T", "nothing": None}


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", [1, 10, 15, 20, 30, 40, 50, 60])
def test_level_of_the_logger_applies(logger: logging.Logger, lines: Any, level: int, method: str) -> None:
    logger.setLevel(level)
    getattr(logger, method)("message")
    assert len(lines()) == (getattr(logging, method.upper()) >= level)


def test_level_of_the_logger_above_applies(logger: logging.Logger, lines: Any) -> None:
    logger.setLevel(logging.ERROR)
    logger.getChild("a.b").warning("no")
    logger.getChild("a.b").error("yes")
    assert [line["message"] for line in lines()] == ["yes"]


def test_level_of_the_handler_applies(logger: logging.Logger, handler: AsyncLogHandler, lines: Any) -> None:
    handler.setLevel("ERROR")
    logger.warning("no")
    logger.error("yes")
    assert [line["message"] for line in lines()] == ["yes"]


def test_level_can_be_given_to_the_handler_when_made(log: Log) -> None:
    assert AsyncLogHandler(log, level="WARNING").level == logging.WARNING


def test_level_of_the_log_applies_last(kind: type[logging.Logger], opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(level="WARNING")
    logger = kind("app")
    logger.addHandler(AsyncLogHandler(log))
    logger.info("no")
    logger.warning("yes")
    stats = log.stats()
    log.close()
    assert [line["message"] for line in user_lines(log_path)] == ["yes"]
    assert stats.offered == 1


def test_message_below_the_level_of_the_log_is_not_even_formatted(
    kind: type[logging.Logger], opened: Callable[..., Log]
) -> None:
    class Value:
        shown = 0

        def __str__(self) -> str:
            Value.shown += 1
            return "value"

    logger = kind("app")
    logger.addHandler(AsyncLogHandler(opened(level="WARNING")))
    logger.info("%s", Value())
    logger.log(25, Value())
    assert Value.shown == 0


def test_logging_disable_applies(logger: logging.Logger, lines: Any) -> None:
    def disable(level: int) -> None:  # as logging.disable, in the logger's own tree
        logger.manager.disable = level
        logger.manager._clear_cache()

    disable(logging.ERROR)
    logger.error("no")
    logger.critical("yes")
    disable(logging.NOTSET)
    logger.error("again")
    assert [line["message"] for line in lines()] == ["yes", "again"]


def test_disabled_logger_is_silent(logger: logging.Logger, lines: Any) -> None:
    logger.disabled = True
    for method in METHODS:
        getattr(logger, method)("no")
    logger.log(50, "no")
    assert not logger.isEnabledFor(50)
    assert lines() == []


@pytest.mark.parametrize(("level", "written"), [(5, "DEBUG"), (25, "INFO"), (39, "WARNING"), (60, "CRITICAL")])
def test_level_between_counts_as_the_lower_one_and_is_told(
    logger: logging.Logger, line: Any, level: int, written: str
) -> None:
    logger.setLevel(1)
    logger.log(level, "message")
    found = line()
    assert found["level"] == written
    assert user_fields(found) == {"levelname": f"Level {level}", "levelno": level}


@pytest.mark.usefixtures("process_logging")
def test_name_of_a_level_of_one_s_own_is_told(logger: logging.Logger, line: Any) -> None:
    logging.addLevelName(25, "NOTICE")
    logger.log(25, "message")
    assert user_fields(line()) == {"levelname": "NOTICE", "levelno": 25}


def test_log_refuses_a_level_that_is_no_number(logger: logging.Logger) -> None:
    with pytest.raises(TypeError, match="level must be an integer"):
        logger.log("INFO", "message")


@pytest.mark.parametrize("level", [0, 5, 10, 20, 25, 50])
def test_is_enabled_for_answers_as_the_standard_library_does(level: int) -> None:
    for own, above, disable in [(0, 0, 0), (0, 20, 0), (25, 50, 0), (10, 0, 20), (0, 0, 50)]:
        answers = []
        for kind in KINDS:
            manager = hierarchy(kind)
            manager.root.setLevel(above)
            manager.disable = disable
            manager.getLogger("app").setLevel(own)
            answers.append(manager.getLogger("app").isEnabledFor(level))
        assert answers[0] == answers[1]


def test_level_of_a_logger_in_no_manager_can_be_changed(log: Log, lines: Any) -> None:
    logger = StdlibLogger(log)
    assert logger.isEnabledFor(10)
    logger.setLevel(logging.ERROR)
    logger.info("no")
    assert not logger.isEnabledFor(20)
    logger.setLevel(logging.INFO)
    logger.info("yes")
    assert [line["message"] for line in lines()] == ["yes"]


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["logger", "handler"])
def test_filter_holds_records_back(logger: logging.Logger, handler: AsyncLogHandler, lines: Any, place: str) -> None:
    {"logger": logger, "handler": handler}[place].addFilter(lambda record: "secret" not in record.getMessage())
    logger.info("a secret")
    logger.log(20, "a %s", "secret")
    logger.info("a word")
    assert [line["message"] for line in lines()] == ["a word"]


@pytest.mark.parametrize("place", ["logger", "handler"])
def test_filter_may_add_fields(logger: logging.Logger, handler: AsyncLogHandler, line: Any, place: str) -> None:
    def add(record: logging.LogRecord) -> bool:
        record.tenant = "acme"
        return True

    {"logger": logger, "handler": handler}[place].addFilter(add)
    logger.info("message", extra={"a": 1})
    assert user_fields(line()) == {"a": 1, "tenant": "acme"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters return records from 3.12 on")
@pytest.mark.parametrize("place", ["logger", "handler"])
def test_filter_may_put_another_record_in_its_place(
    logger: logging.Logger, handler: AsyncLogHandler, line: Any, place: str
) -> None:
    other = logging.makeLogRecord({"name": "other", "levelno": 40, "msg": "replaced", "b": 2})
    {"logger": logger, "handler": handler}[place].addFilter(lambda record: other)
    logger.info("message", extra={"a": 1})
    written = line()
    assert (written["logger"], written["level"], written["message"]) == ("other", "ERROR", "replaced")
    assert user_fields(written) == {"b": 2}


def test_handle_says_whether_the_record_passed(handler: AsyncLogHandler) -> None:
    record = logging.makeLogRecord({"name": "app", "levelno": 20})
    assert handler.handle(record)
    handler.addFilter(lambda record: False)
    assert not handler.handle(record)


def test_filter_that_is_taken_away_no_longer_applies(logger: logging.Logger, lines: Any) -> None:
    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    logger.info("no")
    logger.removeFilter(nothing)
    logger.info("yes")
    assert [line["message"] for line in lines()] == ["yes"]


# -- handlers side by side ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1], ids=["before", "after"])
@pytest.mark.parametrize("formatted", [False, True])
def test_record_comes_to_the_others_as_it_was(
    logger: logging.Logger, lines: Any, position: int, formatted: bool
) -> None:
    """Compared with what the record is before our handler, and then after it."""
    ours = logger.handlers[0]
    if formatted:
        ours.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    seen: list[dict[str, Any]] = []
    watching = [logging.Handler(), logging.Handler()]
    for watcher in watching:
        watcher.emit = lambda record: seen.append(dict(vars(record)))
    stream = logging.StreamHandler(io.StringIO())
    stream.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.handlers[:] = [watching[0], ours, watching[1]]
    logger.handlers.insert(position * 3, stream)
    logger.error("Order %d", 7, exc_info=ValueError("no"), stack_info=True, extra={"a": [1]})
    before, after = seen
    assert before == after
    assert list(before) == list(after)
    assert "Order 7" in stream.stream.getvalue()
    assert [line["a"] for line in lines()] == [[1]]


@pytest.mark.parametrize("position", [0, 1], ids=["before", "after"])
def test_what_another_formatter_leaves_on_the_record_is_no_field(
    logger: logging.Logger, line: Any, position: int
) -> None:
    stream = logging.StreamHandler(io.StringIO())
    stream.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.handlers.insert(position, stream)
    logger.info("message")
    assert user_fields(line()) == {}


def test_handlers_on_the_way_up_all_get_the_record(logger: logging.Logger, lines: Any) -> None:
    child = logger.getChild("child")
    seen = handed(child)
    child.info("message", extra={"a": 1})
    assert [record.a for record in seen] == [1]
    assert [line["a"] for line in lines()] == [1]


def test_handler_reached_twice_writes_twice(logger: logging.Logger, handler: AsyncLogHandler, lines: Any) -> None:
    child = logger.getChild("child")
    child.addHandler(handler)
    child.info("message")
    assert len(lines()) == 2


def test_logger_that_does_not_propagate_keeps_its_records(logger: logging.Logger, lines: Any) -> None:
    child = logger.getChild("child")
    child.propagate = False
    seen = handed(child)
    child.info("message")
    assert (len(seen), lines()) == (1, [])


def test_two_logs_both_get_the_record(
    logger: logging.Logger, opened: Callable[..., Log], tmp_path: Path, lines: Any
) -> None:
    other = opened(tmp_path / "other.jsonl")
    logger.addHandler(AsyncLogHandler(other))
    logger.info("message")
    other.close()
    assert len(user_lines(tmp_path / "other.jsonl")) == len(lines()) == 1


def test_handler_that_comes_later_gets_the_next_record(logger: logging.Logger, lines: Any) -> None:
    logger.info("first")
    seen = handed(logger)
    logger.info("second")
    assert [record.msg for record in seen] == ["second"]
    assert len(lines()) == 2


def test_assert_logs_of_unittest_sees_the_records(logger: logging.Logger) -> None:
    import unittest

    with unittest.TestCase().assertLogs(logger, "INFO") as seen:
        logger.info("message")
    assert seen.output == ["INFO:app:message"]


@pytest.mark.usefixtures("process_logging")
def test_without_a_handler_the_last_resort_speaks(
    kind: type[logging.Logger], capfd: pytest.CaptureFixture[str]
) -> None:
    hierarchy(kind).getLogger("app").warning("message")
    assert capfd.readouterr().err == "message\n"


# -- formatters --------------------------------------------------------------------------------------------------------


def test_formatter_makes_the_message(logger: logging.Logger, handler: AsyncLogHandler, line: Any) -> None:
    handler.setFormatter(logging.Formatter("%(name)s says %(message)s"))
    logger.info("hello %s", "you", extra={"a": 1})
    written = line()
    assert (written["message"], written["a"]) == ("app says hello you", 1)


def test_formatter_leaves_exception_and_stack_aside(
    logger: logging.Logger, handler: AsyncLogHandler, line: Any
) -> None:
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.error("failed", exc_info=ValueError("no"), stack_info=True)
    written = line()
    assert (written["message"], written["error_type"]) == ("failed", "ValueError")
    assert "stack_info" in written


def test_formatter_does_not_stand_in_the_way_of_arguments_that_do_not_fit(
    logger: logging.Logger, handler: AsyncLogHandler, line: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    handler.setFormatter(logging.Formatter("%(name)s says %(message)s"))
    logger.info("%d", "x")
    assert list(line()["log_degraded"]) == ["message"]
    assert capfd.readouterr().err == ""


def test_formatter_that_raises_is_reported_and_the_record_written(
    logger: logging.Logger, handler: AsyncLogHandler, line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handler.setFormatter(logging.Formatter("%(nothing)s %(message)s"))
    logger.info("hello %s", "you")
    assert line()["message"] == "hello you"
    assert "nothing" in capsys.readouterr().err


def test_formatter_that_returns_no_text_is_no_error(
    logger: logging.Logger, handler: AsyncLogHandler, line: Any
) -> None:
    formatter = logging.Formatter()
    formatter.format = lambda record: {"not": "a text"}
    handler.setFormatter(formatter)
    logger.info("message")
    assert line()["message"] == "{'not': 'a text'}"


# -- records from elsewhere --------------------------------------------------------------------------------------------


def test_pickled_record_is_written_as_it_was(logger: logging.Logger, line: Any) -> None:
    far = logging.Logger("far")
    seen = handed(far)
    far.warning("%d", 7, extra={"a": 1})
    logger.handle(pickle.loads(pickle.dumps(seen[0])))
    written = line()
    assert (written["logger"], written["level"], written["message"]) == ("far", "WARNING", "7")
    assert user_fields(written) == {"a": 1}


def test_record_made_of_nothing_is_written(
    handler: AsyncLogHandler, line: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    handler.handle(logging.makeLogRecord({}))
    written = line()
    assert (written["logger"], written["level"], written["message"]) == ("None", "INFO", "")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "attributes",
    [
        {"levelno": None},
        {"levelno": "INFO"},
        {"levelno": 25.0},
        {"levelno": []},
        {"levelno": 10**400},
        {"levelno": -(10**400)},
        {"levelno": True},
        {"name": None},
        {"name": ["app"]},
        {"name": "\ud800"},
        {"created": None},
        {"created": "yesterday"},
        {"created": math.nan},
        {"created": math.inf},
        {"created": 10**400},
        {"created": [1]},
        {"exc_info": True},
        {"exc_info": "x"},
        {"exc_info": (1, 2, 3)},
        {"exc_info": (ValueError, None, None)},
        {"exc_text": 5},
        {"stack_info": Plain()},
        {"args": None},
        {"args": ["x"]},
        {"args": {"a": 1}},
        {"msg": None},
        {"msg": "%d", "args": ["x"]},
        {"msg": "%(b)d", "args": {"a": 1}},
        {"message": "old"},
        {"taskName": 5},
    ],
    ids=repr,
)
def test_record_with_odd_attributes_is_written(
    handler: AsyncLogHandler, line: Any, capfd: pytest.CaptureFixture[str], attributes: dict[str, Any]
) -> None:
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 20, "levelname": "INFO", "msg": "m", **attributes}))
    written = line()
    assert isinstance(written["timestamp"], float)
    assert capfd.readouterr().err == ""


def test_time_that_is_a_whole_number_is_kept(handler: AsyncLogHandler, line: Any) -> None:
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 20, "created": 1_700_000_000}))
    assert line()["timestamp"] == 1_700_000_000.0


def test_record_class_with_a_message_of_its_own_is_asked(handler: AsyncLogHandler, line: Any) -> None:
    class Braces(logging.LogRecord):
        def getMessage(self) -> str:
            return self.msg.format(*self.args)

    handler.handle(Braces("app", 20, "", 0, "{} of {}", (1, 2), None))
    assert line()["message"] == "1 of 2"


def test_attribute_that_a_record_class_sets_first_is_a_field(handler: AsyncLogHandler, line: Any) -> None:
    class Early(logging.LogRecord):
        def __init__(self, *args: Any) -> None:
            self.early = 1
            super().__init__(*args)
            self.late = 2

    handler.handle(Early("app", 20, "", 0, "message", (), None))
    assert user_fields(line()) == {"early": 1, "late": 2}


def test_record_whose_attributes_raise_is_reported_as_handlers_do(
    handler: AsyncLogHandler, lines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.LogRecord):
        stack_info = property(lambda self: 1 / 0, lambda self, value: None)

    handler.handle(Broken("app", 20, "", 0, "message", (), None))
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert lines() == []


@pytest.mark.usefixtures("process_logging")
def test_record_factory_is_asked_for_every_record(logger: logging.Logger, lines: Any) -> None:
    logger.info("before")

    def factory(*args: Any, **options: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **options)
        record.tenant = "acme"
        return record

    logging.setLogRecordFactory(factory)
    logger.info("message", extra={"a": 1})
    logging.setLogRecordFactory(logging.LogRecord)
    logger.info("after")
    assert [user_fields(line) for line in lines()] == [{}, {"a": 1, "tenant": "acme"}, {}]


def test_records_through_a_queue_arrive(handler: AsyncLogHandler, lines: Any, kind: type[logging.Logger]) -> None:
    waiting: queue.Queue[Any] = queue.Queue()
    logger = kind("app")
    logger.addHandler(logging.handlers.QueueHandler(waiting))
    listener = logging.handlers.QueueListener(waiting, handler)
    listener.start()
    for number in range(100):
        logger.warning("Order %d", number, extra={"number": number})
    listener.stop()
    found = lines()
    assert [(line["message"], line["number"]) for line in found] == [(f"Order {n}", n) for n in range(100)]


def test_exception_through_a_queue_is_kept_as_text(handler: AsyncLogHandler, line: Any) -> None:
    waiting: queue.Queue[Any] = queue.Queue()
    logger = logging.Logger("app")
    logger.addHandler(logging.handlers.QueueHandler(waiting))
    logger.error("failed", exc_info=ValueError("no"))
    handler.handle(waiting.get())
    assert "ValueError: no" in str(line())


def test_records_through_a_memory_handler_keep_their_time(handler: AsyncLogHandler, lines: Any) -> None:
    logger = logging.Logger("app")
    buffer = logging.handlers.MemoryHandler(100, target=handler)
    logger.addHandler(buffer)
    before = time.time()
    logger.info("message")
    after = time.time()
    assert buffer.buffer
    buffer.close()
    assert before <= lines()[0]["timestamp"] <= after


# -- records that somebody else wants to see ---------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [None, {"a": 1}], ids=["no extra", "extra"])
@pytest.mark.parametrize("method", METHODS)
def test_no_record_is_made_where_one_handler_alone_would_see_it(
    log: Log, line: Any, method: str, extra: Mapping[str, object] | None
) -> None:
    logger = StdlibLogger(log)
    with counting_records() as made:
        getattr(logger, method)("message %d", 1, **({} if extra is None else {"extra": extra}))
    assert made() == 0
    assert line()["message"] == "message 1"


def test_no_record_is_made_for_an_exception(log: Log, line: Any) -> None:
    logger = StdlibLogger(log)
    with counting_records() as made:
        logger.error("failed", exc_info=ValueError("no"), extra={"a": 1})
    assert made() == 0
    assert line()["error_type"] == "ValueError"


@pytest.mark.parametrize("name", ["makeRecord", "handle", "callHandlers", "_log"])
def test_what_a_tool_puts_into_the_logger_class_sees_every_record(
    monkeypatch: pytest.MonkeyPatch, log: Log, line: Any, name: str
) -> None:
    calls: list[str] = []
    original = getattr(logging.Logger, name)

    def watched(self: logging.Logger, *args: Any, **options: Any) -> Any:
        calls.append(name)
        return original(self, *args, **options)

    logger = StdlibLogger(log)
    monkeypatch.setattr(logging.Logger, name, watched)
    logger.info("message", extra={"a": 1})
    assert calls == [name]
    assert line()["a"] == 1


@pytest.mark.parametrize("name", ["__init__", "getMessage"])
def test_what_a_tool_puts_into_the_record_class_is_called(
    monkeypatch: pytest.MonkeyPatch, log: Log, line: Any, name: str
) -> None:
    calls: list[str] = []
    original = getattr(logging.LogRecord, name)

    def watched(self: logging.LogRecord, *args: Any, **options: Any) -> Any:
        calls.append(name)
        return original(self, *args, **options)

    monkeypatch.setattr(logging.LogRecord, name, watched)
    StdlibLogger(log).info("message")
    assert calls == [name]
    assert line()["message"] == "message"


def test_tool_that_was_there_before_us_sees_every_record(tmp_path: Path) -> None:
    done = run(
        """
        import logging, sys
        original, seen = logging.Logger.callHandlers, []
        def watched(self, record):
            seen.append(record.msg)
            original(self, record)
        logging.Logger.callHandlers = watched
        from amsha_async_log import open_log
        from amsha_async_log.stdlib import StdlibLogger
        log = open_log(sys.argv[1], console=False)
        StdlibLogger(log).info("message")
        print(seen)
        """,
        tmp_path / "app.jsonl",
    )
    assert done.stdout == "['message']\n", done.stderr


@pytest.mark.parametrize("name", ["makeRecord", "handle", "callHandlers", "_log", "filter", "findCaller"])
def test_method_replaced_in_one_logger_is_called(log: Log, line: Any, name: str) -> None:
    calls: list[str] = []
    logger = StdlibLogger(log)
    original = getattr(logger, name)

    def watched(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return original(*args, **options)

    setattr(logger, name, watched)
    logger.info("message")
    assert calls == [name]
    assert line()["message"] == "message"


@pytest.mark.parametrize("name", ["emit", "handle", "filter"])
def test_method_replaced_in_one_handler_is_called(log: Log, name: str) -> None:
    calls: list[str] = []
    logger = StdlibLogger(log)
    setattr(logger.handlers[0], name, lambda record: calls.append(name))
    logger.info("message")
    assert calls == [name]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["isEnabledFor", "getEffectiveLevel"])
def test_logger_that_decides_itself_what_is_enabled_is_asked(log: Log, lines: Any, method: str, name: str) -> None:
    logger = StdlibLogger(log, logging.ERROR if name == "isEnabledFor" else logging.NOTSET)
    setattr(logger, name, {"isEnabledFor": lambda level: True, "getEffectiveLevel": lambda: 60}[name])
    getattr(logger, method)("message")
    assert len(lines()) == (name == "isEnabledFor")


def test_subclass_that_decides_itself_what_is_enabled_is_asked(log: Log, lines: Any) -> None:
    class Odd(StdlibLogger):
        def isEnabledFor(self, level: int) -> bool:
            return bool(level % 20)

    logger = Odd(log)
    for method in METHODS:
        getattr(logger, method)(method)
    assert [line["message"] for line in lines()] == ["debug", "warning", "critical"]


def test_subclass_may_make_records_of_its_own(log: Log, line: Any) -> None:
    class Tagged(StdlibLogger):
        def makeRecord(self, *args: Any, **options: Any) -> logging.LogRecord:
            record = super().makeRecord(*args, **options)
            record.tag = 7
            return record

    Tagged(log).info("message", extra={"a": 1})
    assert user_fields(line()) == {"a": 1, "tag": 7}


def test_subclass_may_have_methods_of_its_own(log: Log, lines: Any) -> None:
    class Loud(StdlibLogger):
        def info(self, msg: object, *args: object, **options: Any) -> None:
            super().info(str(msg).upper(), *args, **options)

        def makeRecord(self, *args: Any, **options: Any) -> logging.LogRecord:
            return super().makeRecord(*args, **options)

    Loud(log).info("message")
    Loud(log).error("message")
    assert [line["message"] for line in lines()] == ["MESSAGE", "message"]


def test_subclass_that_makes_no_records_of_its_own_needs_none(log: Log, line: Any) -> None:
    class Named(StdlibLogger):
        def notice(self, msg: object) -> None:
            self.info(msg)

    logger = Named(log)
    with counting_records() as made:
        logger.notice("message")
    assert made() == 0
    assert line()["message"] == "message"


def test_subclass_with_a_log_method_without_newer_options_works(log: Log, line: Any) -> None:
    class Old(StdlibLogger):
        def _log(self, level: int, msg: object, args: Any, exc_info: Any = None, extra: Any = None) -> None:
            super()._log(level, f"old {msg}", args, exc_info, extra)

    Old(log).info("message")
    assert line()["message"] == "old message"


def test_subclass_of_the_handler_gets_every_record(log: Log, line: Any) -> None:
    class Marking(AsyncLogHandler):
        def emit(self, record: logging.LogRecord) -> None:
            record = logging.makeLogRecord({**vars(record), "mark": 1})
            super().emit(record)

    logger = StdlibLogger("app")
    logger.addHandler(Marking(log))
    logger.info("message")
    assert line()["mark"] == 1


# -- which log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made_with", [lambda: None, get_log], ids=["none", "get_log"])
def test_handler_without_a_log_follows_the_one_opened_last(
    kind: type[logging.Logger], opened: Callable[..., Log], tmp_path: Path, made_with: Callable[[], Any]
) -> None:
    logger = kind("app")
    logger.addHandler(AsyncLogHandler(made_with()))
    logger.warning("nowhere")
    first = opened(tmp_path / "first.jsonl")
    logger.warning("1")
    second = opened(tmp_path / "second.jsonl")
    logger.warning("2")
    second.close()
    logger.warning("3")
    first.close()
    logger.warning("nowhere")
    found = [[line["message"] for line in user_lines(log.config.path)] for log in (first, second)]
    assert found == [["1", "3"], ["2"]]


def test_logger_made_with_get_log_follows_the_log_opened_last(opened: Callable[..., Log], tmp_path: Path) -> None:
    logger = StdlibLogger(get_log(), name="app")
    for number in range(2):
        log = opened(tmp_path / f"{number}.jsonl")
        logger.info("message")
        log.close()
        assert len(user_lines(log.config.path)) == 1


def test_logger_has_the_name_of_its_log(log: Log, line: Any) -> None:
    logger = StdlibLogger(log.child("billing"))
    logger.info("message")
    assert line()["logger"] == logger.name == f"{log.name}.billing"


def test_logger_may_have_another_name_than_its_log(log: Log, line: Any) -> None:
    StdlibLogger(log, name="other").info("message")
    assert line()["logger"] == "other"


def test_logger_of_a_log_propagates_nowhere(log: Log) -> None:
    assert StdlibLogger(log).propagate is False


@pytest.mark.parametrize("make", [lambda: StdlibLogger("app", 30), lambda: StdlibLogger(name="app", level=30)])
def test_logger_is_made_as_any_logger_is(make: Callable[[], StdlibLogger]) -> None:
    logger = make()
    assert (logger.name, logger.level, logger.handlers, logger.propagate) == ("app", 30, [], True)


def test_logger_of_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="a name or a log"):
        StdlibLogger()


def test_fields_bound_to_the_log_are_on_every_line(log: Log, lines: Any) -> None:
    for kind in KINDS:
        logger = kind("app")
        logger.addHandler(AsyncLogHandler(log.bind(tenant="acme")))
        logger.info("message", extra={"a": 1})
        logger.info("message", extra={"tenant": "mine"})
    assert [user_fields(line) for line in lines()] == [{"tenant": "acme", "a": 1}, {"tenant": "mine"}] * 2


def test_handler_of_a_log_and_options_is_refused(log: Log, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="path, console"):
        AsyncLogHandler(log, path=tmp_path / "other.jsonl", console=False)


@pytest.mark.parametrize("wrong", ["app.jsonl", Path("app.jsonl"), 5, logging.getLogger("x")], ids=repr)
def test_handler_of_what_is_no_log_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="is no log"):
        AsyncLogHandler(wrong)


def test_attributes_in_one_text_are_refused(log: Log) -> None:
    with pytest.raises(ConfigError, match="attributes='funcName'"):
        AsyncLogHandler(log, attributes="funcName")


@pytest.mark.parametrize("options", [{"max_bytes": -1}, {"colour": "red"}], ids=repr)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        AsyncLogHandler(path=tmp_path / "app.jsonl", **options)
    assert not list(tmp_path.iterdir())


def test_unknown_level_of_a_handler_opens_no_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        AsyncLogHandler(path=tmp_path / "app.jsonl", level="LOUD")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("process_logging")
def test_handler_whose_options_were_wrong_does_not_disturb_the_shutdown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as kept:  # and with it the half-made handler
        AsyncLogHandler(path=tmp_path / "app.jsonl", max_bytes=-1)
    logging.shutdown()
    assert kept.value is not None


def test_own_log_is_never_what_get_log_means(opened: Callable[..., Log], tmp_path: Path, log_path: Path) -> None:
    log = opened()
    handler = AsyncLogHandler(path=tmp_path / "own.jsonl", console=False)
    get_log().info("shared")
    logger = StdlibLogger("app")
    logger.addHandler(handler)
    logger.info("own")
    handler.close()
    log.close()
    assert [line["message"] for line in user_lines(log_path)] == ["shared"]
    assert [line["message"] for line in user_lines(tmp_path / "own.jsonl")] == ["own"]


def test_own_log_lets_through_what_the_handler_does(kind: type[logging.Logger], tmp_path: Path) -> None:
    handler = AsyncLogHandler(path=tmp_path / "own.jsonl", console=False, level="DEBUG")
    logger = kind("app")
    logger.addHandler(handler)
    logger.debug("message")
    handler.close()
    assert [line["level"] for line in user_lines(tmp_path / "own.jsonl")] == ["DEBUG"]


def test_closing_the_handler_closes_its_own_log(tmp_path: Path) -> None:
    handler = AsyncLogHandler(path=tmp_path / "own.jsonl", console=False)
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 20, "msg": "message"}))
    handler.close()
    assert not OPEN_LOGS
    assert len(user_lines(tmp_path / "own.jsonl")) == 1


def test_closing_the_handler_again_is_no_error(tmp_path: Path) -> None:
    handler = AsyncLogHandler(path=tmp_path / "own.jsonl", console=False)
    handler.close()
    handler.close()


def test_closing_the_handler_leaves_a_log_it_was_given_open(log: Log, line: Any) -> None:
    AsyncLogHandler(log).close()
    assert log.info("still open")
    assert line()["message"] == "still open"


def test_record_for_a_closed_log_is_counted_and_raises_nothing(
    logger: logging.Logger, log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    log.close()
    logger.info("message", extra={"a": 1})
    logger.error("message", exc_info=ValueError("no"))
    assert sum(log.stats().by_reason["closed"].values()) == 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("derive", [lambda log: log, lambda log: log.child("a"), lambda log: log.bind(a=1)])
def test_flush_waits_until_everything_is_written(log: Log, log_path: Path, derive: Callable[[Log], Any]) -> None:
    logger = StdlibLogger(derive(log))
    for _ in range(1000):
        logger.info("message")
    logger.handlers[0].flush()
    assert len(user_lines(log_path)) == 1000


def test_flush_is_that_of_its_own_log_only(
    monkeypatch: pytest.MonkeyPatch, log: Log, opened: Callable[..., Log], tmp_path: Path
) -> None:
    opened(tmp_path / "other.jsonl")
    flushed: list[Log] = []
    handler = AsyncLogHandler(log)
    with monkeypatch.context() as patch:
        patch.setattr(Log, "flush", lambda log: flushed.append(log))
        handler.flush()
    assert flushed == [log]


def test_flush_of_a_handler_without_a_log_reaches_the_one_opened_last(
    opened: Callable[..., Log], log_path: Path
) -> None:
    opened()
    handler = AsyncLogHandler()
    handler.handle(logging.makeLogRecord({"name": "app", "levelno": 20}))
    handler.flush()
    assert len(user_lines(log_path)) == 1


def test_flush_without_any_log_is_no_error() -> None:
    AsyncLogHandler().flush()


def test_names_without_end_do_not_pile_up_in_the_handler(handler: AsyncLogHandler) -> None:
    for number in range(5000):
        handler.logger_for(str(number))
    assert len(handler._named[1]) <= 1025


def test_handler_that_nobody_holds_goes_away(log: Log) -> None:
    handler = weakref.ref(AsyncLogHandler(log))
    gc.collect()
    assert handler() is None


def test_handler_tells_where_it_writes_to(log: Log) -> None:
    assert repr(AsyncLogHandler(log, level="INFO")) == f"<AsyncLogHandler {log!r} (INFO)>"
    assert repr(AsyncLogHandler()) == "<AsyncLogHandler get_log() (NOTSET)>"


# -- configuration -----------------------------------------------------------------------------------------------------


def configuration(handler: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "handlers": {"amsha": handler}, "root": {"handlers": ["amsha"], "level": "DEBUG"}, **more}


CLASS = {"class": "amsha_async_log.stdlib.AsyncLogHandler", "console": False}


@pytest.mark.usefixtures("process_logging")
@pytest.mark.parametrize("named", [CLASS, {"()": "amsha_async_log.stdlib.AsyncLogHandler", "console": False}])
def test_dict_config_opens_a_log(log_path: Path, named: dict[str, Any]) -> None:
    logging.config.dictConfig(
        configuration({**named, "path": str(log_path), "level": "INFO", "attributes": ["lineno"]})
    )
    logging.getLogger("app").info("message", extra={"a": 1}); at = here()  # fmt: skip  # noqa: E702
    logging.getLogger("app").debug("below the handler's level")
    logging.shutdown()
    (line,) = user_lines(log_path)
    assert (line["logger"], line["message"], user_fields(line)) == ("app", "message", {"a": 1, "lineno": at})


@pytest.mark.usefixtures("process_logging")
def test_dict_config_without_options_follows_the_log_opened_last(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    logging.config.dictConfig(configuration({"class": "amsha_async_log.stdlib.AsyncLogHandler"}))
    logging.getLogger("app").info("message")
    log.close()
    assert len(user_lines(log_path)) == 1


@pytest.mark.usefixtures("process_logging")
def test_dict_config_takes_a_log_from_elsewhere(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    logging.config.dictConfig(configuration({"()": AsyncLogHandler, "log": log}))
    logging.getLogger("app").info("message")
    log.close()
    assert len(user_lines(log_path)) == 1


@pytest.mark.usefixtures("process_logging")
@pytest.mark.parametrize("wrong", [{"max_bytes": -1}, {"colour": "red"}, {"attributes": "lineno"}], ids=repr)
def test_dict_config_with_wrong_options_raises_what_it_raises_for_any_handler(
    log_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="Unable to configure handler 'amsha'") as raised:
        logging.config.dictConfig(configuration({**CLASS, "path": str(log_path), **wrong}))
    assert isinstance(raised.value.__cause__, ConfigError)
    logging.config.dictConfig({"version": 1})
    assert not OPEN_LOGS


@pytest.mark.usefixtures("process_logging")
def test_configuring_again_closes_the_log_before(tmp_path: Path) -> None:
    for number in range(2):
        logging.config.dictConfig(configuration({**CLASS, "path": str(tmp_path / f"{number}.jsonl")}))
        logging.getLogger().info("message")
    assert [Path(log.config.path).name for log in OPEN_LOGS] == ["1.jsonl"]
    assert [line["event"] for line in read_lines(tmp_path / "0.jsonl")[-2:]] == ["log.closed", "log.segment_closed"]
    logging.shutdown()
    assert len(user_lines(tmp_path / "1.jsonl")) == 1


@pytest.mark.usefixtures("process_logging")
def test_configuring_the_same_path_again_goes_on_in_the_same_file(log_path: Path) -> None:
    for number in range(3):
        logging.config.dictConfig(configuration({**CLASS, "path": str(log_path)}))
        logging.getLogger().info("message", extra={"number": number})
    logging.shutdown()
    assert [line["number"] for line in user_lines(log_path)] == [0, 1, 2]


@pytest.mark.usefixtures("process_logging")
def test_dict_config_with_formatter_and_filter(log_path: Path) -> None:
    logging.config.dictConfig(
        configuration(
            {**CLASS, "path": str(log_path), "formatter": "short", "filters": ["only"]},
            formatters={"short": {"format": "%(levelname)s %(message)s"}},
            filters={"only": {"name": "app"}},
        )
    )
    logging.getLogger("app.a").info("yes")
    logging.getLogger("other").info("no")
    logging.shutdown()
    assert [line["message"] for line in user_lines(log_path)] == ["INFO yes"]


@pytest.mark.usefixtures("process_logging")
def test_file_config_opens_a_log(tmp_path: Path, log_path: Path) -> None:
    config = tmp_path / "logging.ini"
    config.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=amsha\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=DEBUG\nhandlers=amsha\n"
        "[handler_amsha]\nclass=amsha_async_log.stdlib.AsyncLogHandler\nlevel=INFO\n"
        f"kwargs={{'path': {str(log_path)!r}, 'console': False}}\n"
    )
    logging.config.fileConfig(config)
    logging.getLogger("app").info("message %d", 1)
    logging.getLogger("app").debug("no")
    logging.shutdown()
    assert [line["message"] for line in user_lines(log_path)] == ["message 1"]


@pytest.mark.usefixtures("process_logging")
def test_basic_config_gives_its_format(handler: AsyncLogHandler, line: Any) -> None:
    logging.getLogger().handlers.clear()  # pytest's own
    logging.basicConfig(handlers=[handler], level="DEBUG")
    logging.getLogger("app").info("message")
    assert line()["message"] == "INFO:app:message"


@pytest.mark.usefixtures("process_logging")
def test_shutdown_of_logging_writes_and_closes(log_path: Path) -> None:
    logging.getLogger().addHandler(AsyncLogHandler(path=log_path, console=False))
    logging.getLogger().error("message")
    logging.shutdown()
    assert not OPEN_LOGS
    assert len(user_lines(log_path)) == 1


@pytest.mark.usefixtures("process_logging")
def test_warnings_are_captured(handler: AsyncLogHandler, line: Any) -> None:
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", UserWarning, stacklevel=1)
    written = line()
    assert (written["logger"], written["level"]) == ("py.warnings", "WARNING")
    assert "UserWarning: careful" in written["message"]


@pytest.mark.usefixtures("process_logging")
def test_class_for_all_loggers_keeps_their_hierarchy(handler: AsyncLogHandler, lines: Any) -> None:
    logging.setLoggerClass(StdlibLogger)
    root, parent, child = (logging.getLogger(name) for name in ("", "app", "app.child"))
    assert (type(parent), type(child), child.parent, parent.parent) == (StdlibLogger, StdlibLogger, parent, root)
    root.handlers[:] = [handler]  # without pytest's own
    parent.setLevel(logging.INFO)
    child.debug("no")
    with counting_records() as made:
        child.info("yes", extra={"a": 1})
    assert made() == 0
    assert [(line["logger"], line["a"]) for line in lines()] == [("app.child", 1)]


@pytest.mark.usefixtures("process_logging")
def test_logger_of_that_class_can_be_pickled() -> None:
    logging.setLoggerClass(StdlibLogger)
    logger = logging.getLogger("app")
    assert pickle.loads(pickle.dumps(logger)) is logger


# -- where it is logged ------------------------------------------------------------------------------------------------


def test_line_carries_the_running_execution(logger: logging.Logger, log: Log, lines: Any) -> None:
    with log.execution("crew") as run, run.step("task", "sum") as step:
        logger.info("inside")
        logger.error("inside", exc_info=ValueError("no"))
        logger.log(25, "inside")
    logger.info("outside")
    found = [line for line in lines() if line["event"] == "log"]
    assert [line.get("execution_id") for line in found] == [run.execution_id] * 3 + [None]
    assert {line.get("step_id") for line in found[:3]} == {step.step_id}


def test_field_named_as_one_of_the_execution_wins(logger: logging.Logger, log: Log, lines: Any) -> None:
    with log.execution("crew"):
        logger.info("message", extra={"crew_name": "mine"})
    assert [line["crew_name"] for line in lines() if line["event"] == "log"] == ["mine"]


def test_line_from_another_context_carries_that_one_s_execution(logger: logging.Logger, log: Log, lines: Any) -> None:
    outside = copy_context()
    with log.execution("crew"):
        outside.run(logger.info, "message")
    assert ["execution_id" in line for line in lines() if line["event"] == "log"] == [False]


def test_threads_lose_nothing(kind: type[logging.Logger], opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_queue_size=0, max_queue_bytes=0)
    manager = hierarchy(kind)
    manager.root.addHandler(AsyncLogHandler(log))
    together = threading.Barrier(8)

    def work(thread: int) -> None:
        logger = manager.getLogger(f"app.{thread % 3}")
        together.wait()
        for number in range(500):
            logger.info("Order %d", number, extra={"worker": thread, "number": number})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.close().ok
    found: dict[int, list[int]] = {}
    for line in user_lines(log_path):
        found.setdefault(line["worker"], []).append(line["number"])
    assert found == {thread: list(range(500)) for thread in range(8)}


def test_handlers_may_come_and_go_while_others_log(
    kind: type[logging.Logger], opened: Callable[..., Log], log_path: Path
) -> None:
    log = opened(max_queue_size=0, max_queue_bytes=0)
    logger = hierarchy(kind).getLogger("app")
    logger.addHandler(AsyncLogHandler(log))
    done = threading.Event()
    errors: list[BaseException] = []

    def change() -> None:
        other = logging.NullHandler()
        while not done.is_set():
            logger.addHandler(other)
            logger.removeHandler(other)

    def work() -> None:
        try:
            for number in range(2000):
                logger.info("message", extra={"number": number})
        except BaseException as error:
            errors.append(error)

    changing, working = threading.Thread(target=change), threading.Thread(target=work)
    changing.start()
    working.start()
    working.join()
    done.set()
    changing.join()
    assert log.close().ok
    assert errors == []
    assert [line["number"] for line in user_lines(log_path)] == list(range(2000))


def test_lock_of_another_handler_does_not_hold_ours_up(logger: logging.Logger, lines: Any) -> None:
    """Some thread hangs in another handler; ours takes records all the same."""
    hanging, going_on = threading.Event(), threading.Event()
    second = logging.Handler()
    second.emit = lambda record: (hanging.set(), going_on.wait())
    logger.getChild("hangs").addHandler(second)
    thread = threading.Thread(target=logger.getChild("hangs").info, args=("hangs",))
    thread.start()
    poll(hanging.is_set)
    logger.info("message")
    going_on.set()
    thread.join()
    assert Counter(line["message"] for line in lines()) == {"hangs": 1, "message": 1}


FORKING = """
    import logging, os, sys, threading
    from amsha_async_log import open_log
    from amsha_async_log.stdlib import AsyncLogHandler, StdlibLogger
    folder, kind = sys.argv[1], {"stdlib": StdlibLogger, "logging": logging.Logger}[sys.argv[2]]
    logging.setLoggerClass(kind)
    logger = logging.getLogger("app")
    logger.setLevel(logging.INFO)
"""


@pytest.mark.parametrize("kind", ["stdlib", "logging"])
@pytest.mark.parametrize("own", [False, True], ids=["log", "own log"])
def test_forked_child_logs_at_once(tmp_path: Path, kind: str, own: bool) -> None:
    path = "folder + '/app.jsonl', console=False"
    handler = f"AsyncLogHandler(path={path})" if own else f"AsyncLogHandler(open_log({path}))"
    done = run(
        FORKING + f"    logger.addHandler({handler})\n"
        "    logger.info('parent')\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        logger.info('child', extra={'a': 1})\n"
        "        sys.exit(0)\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n",
        tmp_path,
        kind,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Counter(line["message"] for line in records(tmp_path)) == {"parent": 1, "child": 1}
    assert len({line["writer"] for line in records(tmp_path)}) == 2
    check_complete(tmp_path)


@pytest.mark.parametrize("kind", ["stdlib", "logging"])
def test_child_forked_while_other_threads_log_does_not_hang(tmp_path: Path, kind: str) -> None:
    done = run(
        FORKING + "    logger.addHandler(AsyncLogHandler(open_log(folder + '/app.jsonl', console=False)))\n"
        "    stop = threading.Event()\n"
        "    def work():\n"
        "        while not stop.is_set(): logger.info('parent')\n"
        "    threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "    for thread in threads: thread.start()\n"
        "    codes = []\n"
        "    for _ in range(5):\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            logger.info('child')\n"
        "            logging.shutdown()\n"
        "            logger.handlers[0]._log.close()\n"
        "            os._exit(0)\n"
        "        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    stop.set()\n"
        "    for thread in threads: thread.join()\n"
        "    print(codes)\n",
        tmp_path,
        kind,
    )
    assert done.stdout == "[0, 0, 0, 0, 0]\n", done.stderr
    assert Counter(line["message"] for line in records(tmp_path))["child"] == 5


# -- both ways are one -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["", "a", "a.b", "a.b.c", "d"])
LEVELS = st.sampled_from([0, 1, 5, 10, 15, 20, 25, 30, 40, 50, 60])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.text(max_size=3) | st.sampled_from(
    [
        "level",
        "event",
        "extra",
        "exc_info",
        "name",
        "args",
        "message",
        "taskName",
        "crew_name",
        "log_degraded",
        "self",
        1,
    ]
)
CONFIGURATION = st.one_of(
    st.tuples(st.just("level"), NAMES, LEVELS),
    st.tuples(st.just("handler level"), LEVELS),
    st.tuples(st.just("disable"), LEVELS),
    st.tuples(st.just("disabled"), NAMES.filter(bool), st.booleans()),
    st.tuples(st.just("propagate"), NAMES, st.booleans()),
    st.tuples(st.just("handler"), NAMES),
    st.tuples(st.just("other handler"), NAMES),
    st.tuples(st.just("no other handler"), NAMES),
    st.tuples(st.just("filter"), NAMES, st.sampled_from(["odd", "add"])),
    st.tuples(st.just("handler filter"), st.sampled_from(["odd", "add"])),
    st.tuples(st.just("no filters"), NAMES),
)
CALL = st.fixed_dictionaries(
    {
        "name": NAMES,
        "method": st.sampled_from([*METHODS, "exception", "log"]),
        "level": LEVELS,
        "message": st.sampled_from(["message", "%s", "%d of %d", "100 %", "%(a)s", 5, None]) | st.text(max_size=3),
        "arguments": st.lists(st.integers() | st.text(max_size=2) | st.just({"a": 1}), max_size=2),
        "options": st.fixed_dictionaries(
            {},
            optional={
                "extra": st.none() | st.dictionaries(KEYS, VALUES, max_size=4),
                "exc_info": st.sampled_from([True, False, None, 1, (), "error", "tuple"]),
                "stack_info": st.booleans(),
                "stacklevel": st.sampled_from([1, 2]),
            },
        ),
        "inside": st.booleans(),
        "handling": st.booleans(),
    }
)


def odd(record: logging.LogRecord) -> bool:
    return len(str(record.msg)) % 2 == 1


def add(record: logging.LogRecord) -> bool:
    record.added = 1
    return True


FILTERS = {"odd": odd, "add": add}


class Program:
    """A sequence of calls and settings, done with one class of loggers."""

    def __init__(self, kind: type[logging.Logger], log: Log) -> None:
        self.manager = hierarchy(kind)
        self.handler = AsyncLogHandler(log)
        self.manager.root.addHandler(self.handler)
        self.log = log
        self.other = logging.NullHandler()
        self.raised: list[str] = []

    def get(self, name: str) -> logging.Logger:
        return self.manager.getLogger(name) if name else self.manager.root

    def configure(self, what: str, *about: Any) -> None:
        match what, *about:
            case "level", name, level:
                self.get(name).setLevel(level)
            case "handler level", level:
                self.handler.setLevel(level)
            case "disable", level:
                self.manager.disable = level
                self.manager._clear_cache()
            case "disabled", name, value:
                self.get(name).disabled = value
            case "propagate", name, value:
                self.get(name).propagate = value
            case "handler", name:
                logger = self.get(name)
                (logger.removeHandler if self.handler in logger.handlers else logger.addHandler)(self.handler)
            case "other handler", name:
                self.get(name).addHandler(self.other)
            case "no other handler", name:
                self.get(name).removeHandler(self.other)
            case "filter", name, which:
                self.get(name).addFilter(FILTERS[which])
            case "handler filter", which:
                self.handler.addFilter(FILTERS[which])
            case "no filters", name:
                self.get(name).filters.clear()
                self.handler.filters.clear()

    def call(self, call: dict[str, Any]) -> None:
        options = dict(call["options"])
        if "exc_info" in options:
            error = ValueError("no")
            given = {"error": error, "tuple": (ValueError, error, None)}
            options["exc_info"] = given.get(options["exc_info"], options["exc_info"])
        level = (call["level"],) if call["method"] == "log" else ()

        def make() -> None:
            method = getattr(self.get(call["name"]), call["method"])
            try:
                method(*level, call["message"], *call["arguments"], **options)
            except KeyError as refused:
                self.raised.append(str(refused))

        def handling() -> None:
            try:
                raise KeyError("handled")
            except KeyError:
                make()

        context = copy_context()
        if call["inside"]:
            context.run(self.log.execution("crew", execution_id="1").__enter__)
        context.run(handling if call["handling"] else make)

    def lines(self) -> list[dict[str, Any]]:
        assert self.log.close().ok
        return [
            {
                name: value
                for name, value in line.items()
                if name not in {"timestamp", "seq", "writer", "duration_seconds"}
            }
            for line in user_lines(self.log.config.path)
        ]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(CONFIGURATION | CALL | CALL, min_size=1, max_size=12),
    log_level=st.sampled_from(["DEBUG", "WARNING"]),
)
def test_logger_that_skips_records_writes_what_a_handler_of_records_writes(
    opened: Callable[..., Log], tmp_path_factory: pytest.TempPathFactory, steps: list[Any], log_level: str
) -> None:
    folder = tmp_path_factory.mktemp("both")
    last_resort, logging.lastResort = logging.lastResort, None
    raising, logging.raiseExceptions = logging.raiseExceptions, False  # else it tells once that there is no handler
    outcomes = []
    try:
        for kind in KINDS:
            program = Program(kind, opened(folder / f"{kind.__module__}.jsonl", level=log_level))
            for step in steps:
                program.call(step) if isinstance(step, dict) else program.configure(*step)
            outcomes.append((program.lines(), program.raised))
    finally:
        logging.lastResort, logging.raiseExceptions = last_resort, raising
    assert outcomes[0] == outcomes[1]
    assert all(name in line for line in outcomes[0][0] for name in ENVELOPE if name in {"event", "level", "logger"})
