"""The calls: levels, arguments, fields, derived loggers, and that they can be made from anywhere and never raise."""

import gc
import logging
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poison import LARGE, MARKED, NOT_EVEN_TO_BE_GENERATED, Record
from support import poll, run_python, user_fields, user_lines

from amsha_async_log import ConfigError
from amsha_async_log._context import CURRENT
from amsha_async_log._pipeline import Log

LEVELS = ("debug", "info", "warning", "error", "critical")


@contextmanager
def switching_all_the_time() -> Iterator[None]:
    """Threads change hands as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def only_line(log: Log, path: Path) -> dict[str, Any]:
    assert log.close().ok
    (line,) = user_lines(path)
    return line


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_method_logs_at_its_level(opened: Callable[..., Log], log_path: Path, level: str) -> None:
    log = opened(level="DEBUG")
    assert getattr(log, level)("message", a=1) is True
    line = only_line(log, log_path)
    assert (line["level"], line["message"], line["a"]) == (level.upper(), "message", 1)


@pytest.mark.parametrize("threshold", LEVELS)
@pytest.mark.parametrize("level", LEVELS)
def test_call_below_the_level_returns_false_and_is_not_counted(
    opened: Callable[..., Log], threshold: str, level: str
) -> None:
    log = opened(level=threshold)
    passes = LEVELS.index(level) >= LEVELS.index(threshold)
    assert getattr(log, level)("message") is passes
    assert log.stats().offered == passes


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("debug", "DEBUG"),
        ("Info", "INFO"),
        ("WARNING", "WARNING"),
        (logging.ERROR, "ERROR"),
        (50, "CRITICAL"),
        (25, "INFO"),
        (39, "WARNING"),
        (0, "DEBUG"),
        (-5, "DEBUG"),
        (5, "DEBUG"),
        (1000, "CRITICAL"),
        (True, "DEBUG"),
    ],
)
def test_log_takes_a_level_by_name_or_number(
    opened: Callable[..., Log], log_path: Path, level: str | int, name: str
) -> None:
    log = opened(level="DEBUG")
    assert log.log(level, "message %d", 1, a=1)
    line = only_line(log, log_path)
    assert (line["level"], line["message"], line["a"]) == (name, "message 1", 1)


@pytest.mark.parametrize("level", ["loud", "", None, [], 20.0, object(), "\ud800"])
def test_unknown_level_counts_as_info(opened: Callable[..., Log], log_path: Path, level: Any) -> None:
    log = opened()
    assert log.log(level, "message")
    assert only_line(log, log_path)["level"] == "INFO"


def test_set_level_takes_effect_on_the_next_call(opened: Callable[..., Log]) -> None:
    log = opened()
    assert not log.debug("message")
    log.set_level("debug")
    assert log.debug("message")
    log.set_level(logging.CRITICAL)
    assert not log.error("message")
    assert log.level == "CRITICAL"


@pytest.mark.parametrize("level", ["loud", 25, None, 20.0])
def test_set_level_refuses_what_is_no_level(opened: Callable[..., Log], level: Any) -> None:
    log = opened()
    with pytest.raises(ConfigError, match="option level="):
        log.set_level(level)
    assert log.level == "INFO"


def test_level_is_inherited_by_dotted_name(opened: Callable[..., Log]) -> None:
    log = opened(level="WARNING")
    crew = log.child("crew")
    agent = crew.child("agent")
    crew.set_level("DEBUG")
    assert (log.level, crew.level, agent.level, agent.child("tool").level) == ("WARNING", "DEBUG", "DEBUG", "DEBUG")


def test_level_of_its_own_is_kept_when_one_above_changes(opened: Callable[..., Log]) -> None:
    log = opened()
    crew = log.child("crew")
    crew.child("agent").set_level("ERROR")
    crew.set_level("DEBUG")
    log.set_level("CRITICAL")
    assert [name.level for name in (log, crew, crew.child("agent"))] == ["CRITICAL", "DEBUG", "ERROR"]


def test_level_reaches_grandchildren_over_names_never_made(opened: Callable[..., Log]) -> None:
    log = opened()
    far = log.child("a.b.c")
    log.child("a").set_level("DEBUG")
    assert (far.level, log.child("ab").level) == ("DEBUG", "INFO")


def test_level_is_that_of_the_name_however_the_logger_was_made(opened: Callable[..., Log]) -> None:
    log = opened()
    first, second = log.child("crew"), log.child("crew").bind(a=1)
    first.set_level("DEBUG")
    assert second.debug("message")


@pytest.mark.parametrize("level", [*LEVELS, 10, 25, 50, "loud"])
def test_is_enabled_for_says_what_a_call_would_do(opened: Callable[..., Log], level: str | int) -> None:
    log = opened(level="WARNING")
    assert log.is_enabled_for(level) is log.log(level, "message")


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        ("%d of %s", (1, "two"), "1 of two"),
        ("%(a)s", ({"a": 1},), "1"),
        ("%(a)s", (MappingProxyType({"a": 1}),), "1"),
        ("%s", ({"a": 1},), "{'a': 1}"),
        ("%s", ({},), "{}"),
        ("%s", ((1, 2),), "(1, 2)"),
        ("%s", (None,), "None"),
        ("100 %% of %s", ("it",), "100 % of it"),
        ("{} {0} %s", ("x",), "{} {0} x"),
    ],
)
def test_arguments_are_percent_formatted(
    opened: Callable[..., Log], log_path: Path, message: str, arguments: tuple[Any, ...], text: str
) -> None:
    log = opened()
    assert log.info(message, *arguments)
    line = only_line(log, log_path)
    assert line["message"] == text
    assert "log_degraded" not in line


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%d", ("x",)),
        ("%s", (1, 2)),
        ("%s %s", (1,)),
        ("%(a)s", (1,)),
        ("%(b)s", ({"a": 1},)),
        ("%", (1,)),
        ("no", (1,)),
    ],
)
def test_wrong_arguments_keep_the_message_and_mark_the_line(
    opened: Callable[..., Log], log_path: Path, message: str, arguments: tuple[Any, ...]
) -> None:
    log = opened()
    assert log.info(message, *arguments, a=1)
    line = only_line(log, log_path)
    assert line["message"].startswith(message)
    assert (line["a"], list(line["log_degraded"])) == (1, ["message"])
    assert log.stats().degraded == 1


@pytest.mark.parametrize(("message", "text"), [(5, "5"), (None, "None"), (b"x", "b'x'"), (ValueError("v"), "v")])
def test_message_that_is_no_str_is_shown_as_one(
    opened: Callable[..., Log], log_path: Path, message: Any, text: str
) -> None:
    log = opened()
    assert log.info(message, a=1)
    assert only_line(log, log_path)["message"] == text


# -- fields ------------------------------------------------------------------------------------------------------------


def test_extra_is_merged_into_the_fields_and_the_keyword_wins(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.info("message", extra={"a": 1, "b": 1}, b=2, c=3)
    assert user_fields(only_line(log, log_path)) == {"a": 1, "b": 2, "c": 3}


def test_extra_may_be_any_mapping(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.info("message", extra=MappingProxyType({"a": 1}))
    assert user_fields(only_line(log, log_path)) == {"a": 1}


def test_extra_is_not_changed(opened: Callable[..., Log]) -> None:
    extra = {"level": 1, "bad": object()}
    before = dict(extra)
    opened().info("message", extra=extra, more=1)
    assert extra == before


def test_extra_that_is_no_mapping_is_not_lost_silently(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    assert log.info("message", extra=["said"], a=1)
    line = only_line(log, log_path)
    assert "said" in str(line) or "extra" in line["log_degraded"]
    assert line["a"] == 1


RESERVED = ("timestamp", "level", "event", "logger", "message", "writer", "seq")


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("how", ["call", "extra", "bind", "emit", "struct"])
def test_reserved_name_gets_an_underscore(opened: Callable[..., Log], log_path: Path, name: str, how: str) -> None:
    log = opened()
    if how == "call":
        log.info("message", **{name: "mine"})
    elif how == "extra":
        log.info("message", extra={name: "mine"})
    elif how == "bind":
        log.bind(**{name: "mine"}).info("message")
    elif how == "emit" and name != "level":  # there it is the option
        log.emit(Record(1), **{name: "mine"})
    else:
        log.emit(msgspec.defstruct("Made", [(name, str)])("mine"))
    line = only_line(log, log_path)
    assert line[f"{name}_"] == "mine"
    assert line.get(name) != "mine"


def test_line_has_the_envelope_first_and_the_fields_in_order(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(z=1).info("message", y=2, a=3)
    line = only_line(log, log_path)
    assert list(line) == ["event", "timestamp", "level", "logger", "message", "writer", "seq", "z", "y", "a"]
    assert (line["event"], line["logger"], line["writer"]) == ("log", "amsha", log.stats().writer)


def test_timestamp_is_the_time_of_the_call_in_microseconds(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(flush_interval_s=10)
    before = time.time()
    log.info("message")
    after = time.time()
    assert before <= only_line(log, log_path)["timestamp"] <= after


# -- derived loggers ---------------------------------------------------------------------------------------------------


def test_child_has_a_dotted_name(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.child("crew").child("agent").info("message")
    assert only_line(log, log_path)["logger"] == "amsha.crew.agent"


@pytest.mark.parametrize("name", ['quo"te', "line\nbreak", "\ud800", "", "."])
def test_any_child_name_makes_a_valid_line(opened: Callable[..., Log], log_path: Path, name: str) -> None:
    log = opened()
    assert log.child(name).info("message")
    assert only_line(log, log_path)["logger"].startswith("amsha.")


def test_child_keeps_bound_fields(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(tenant="acme").child("crew").info("message")
    assert user_fields(only_line(log, log_path)) == {"tenant": "acme"}


def test_bind_adds_up_and_the_later_wins(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(a=1, b=1).bind(b=2, c=2).info("message")
    assert user_fields(only_line(log, log_path)) == {"a": 1, "b": 2, "c": 2}


def test_field_of_a_call_wins_over_a_bound_one(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(a=1, b=1).info("message", a=2)
    assert user_fields(only_line(log, log_path)) == {"a": 2, "b": 1}


def test_field_in_extra_wins_over_a_bound_one(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(a=1).info("message", extra={"a": 2})
    assert user_fields(only_line(log, log_path)) == {"a": 2}


def test_bind_leaves_the_logger_it_was_called_on_alone(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(a=1)
    log.info("message")
    assert user_fields(only_line(log, log_path)) == {}


def test_bound_fields_named_like_options_are_fields(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    log.bind(exc_info="text", extra=1).info("message")
    assert user_fields(only_line(log, log_path)) == {"exc_info": "text", "extra": 1}


def test_binding_per_item_does_not_grow_the_process(opened: Callable[..., Log]) -> None:
    log = opened(level="CRITICAL")
    with log.execution("crew"):
        for number in range(5_000):
            log.bind(item=number).critical("message")
        assert len(CURRENT.get()._merged) <= 64


def test_loggers_are_usable_from_the_moment_of_opening(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened()
    assert log.bind(a=1).child("x").info("message")
    assert only_line(log, log_path)["a"] == 1


# -- closed ------------------------------------------------------------------------------------------------------------


def test_closed_log_returns_false_and_counts_the_call_as_closed(opened: Callable[..., Log]) -> None:
    log = opened()
    log.info("before")
    log.close()
    assert log.info("after") is False
    assert log.error("after", exc_info=ValueError()) is False
    assert log.bind(a=1).child("x").warning("%s", "after") is False
    assert log.emit(Record(1)) is False
    assert log.stats().by_reason == {"closed": {"INFO": 2, "ERROR": 1, "WARNING": 1}}
    assert (log.stats().offered, log.stats().accepted) == (5, 1)


def test_call_below_the_level_of_a_closed_log_is_not_counted(opened: Callable[..., Log]) -> None:
    log = opened()
    log.close()
    assert log.debug("after") is False
    assert log.stats().offered == 0


@pytest.mark.parametrize("how", ["field", "argument", "message", "error", "bound", "event"])
def test_call_during_which_the_log_is_closed_is_refused_or_written(
    opened: Callable[..., Log], log_path: Path, how: str
) -> None:
    class Closing(Exception):
        """As if another thread closed the log in the middle of the call."""

        def __str__(self) -> str:
            log.close()
            return "closed it"

        __repr__ = __str__

    log = opened()
    calls: dict[str, Callable[[], bool]] = {
        "field": lambda: log.info("message", value=Closing()),
        "argument": lambda: log.info("%s", Closing()),
        "message": lambda: log.info(Closing()),
        "error": lambda: log.error("message", exc_info=Closing()),
        "bound": lambda: log.bind(value=Closing()).info("message"),
        "event": lambda: log.emit(Record(Closing())),
    }
    accepted = calls[how]()
    assert accepted is (len(user_lines(log_path)) == 1)
    stats = log.stats()
    assert (stats.offered, stats.accepted, stats.written, stats.queued) == (1, accepted, accepted, 0)
    assert log.close().accepted == accepted


def test_execution_on_a_closed_log_runs_its_block(opened: Callable[..., Log]) -> None:
    log = opened()
    log.close()
    ran = []
    with log.execution("crew") as run, run.step("task", "t"):
        ran.append(1)
    assert ran == [1]


# -- never raises ------------------------------------------------------------------------------------------------------

CALM = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=10),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.sampled_from([make for name, make in MARKED.items() if name not in LARGE | NOT_EVEN_TO_BE_GENERATED]).map(
        lambda make: make()
    ),
)
NAMES = st.text(st.characters(), max_size=8) | st.sampled_from([*RESERVED, "exc_info", "extra", "log_degraded", "self"])


@pytest.fixture
def log(opened: Callable[..., Log]) -> Log:
    """One log for all examples of a test."""
    return opened(level="DEBUG", flush_interval_s=10)


@CALM
@given(
    method=st.sampled_from([*LEVELS, "exception"]),
    message=ANYTHING,
    arguments=st.lists(ANYTHING, max_size=3),
    fields=st.dictionaries(NAMES, ANYTHING, max_size=4),
)
def test_no_call_raises_or_loses_its_record(
    log: Log, method: str, message: Any, arguments: list[Any], fields: dict[str, Any]
) -> None:
    assert getattr(log, method)(message, *arguments, **fields) is True
    assert log.flush()
    assert log.stats().written == log.stats().offered


@CALM
@given(level=ANYTHING, message=ANYTHING, fields=st.dictionaries(NAMES, ANYTHING, max_size=3))
def test_log_never_raises(log: Log, level: Any, message: Any, fields: dict[str, Any]) -> None:
    assert log.log(level, message, **fields) is True


@CALM
@given(
    event=ANYTHING.filter(lambda event: not isinstance(event, msgspec.Struct)),
    level=ANYTHING,
    fields=st.dictionaries(NAMES, ANYTHING, max_size=3),
)
def test_emit_never_raises(log: Log, event: Any, level: Any, fields: dict[str, Any]) -> None:
    fields.pop("level", None)
    refused = log.stats().refused
    assert log.emit(event, level=level, **fields) is False
    assert log.stats().refused == refused + 1
    assert log.emit(Record(event), level=level, **fields) is True
    assert log.flush()


@CALM
@given(fields=st.dictionaries(NAMES, ANYTHING, max_size=4))
def test_bind_never_raises(log: Log, fields: dict[str, Any]) -> None:
    assert log.bind(**fields).info("message", a=1)


def test_field_names_whose_comparison_raises_do_not_reach_the_caller(
    opened: Callable[..., Log], log_path: Path
) -> None:
    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            raise ValueError("eq")

    log = opened()
    log.info("message", **{Name("level"): 1})
    log.info("message", extra={Name("level"): 1})
    log.close()
    assert log.stats().offered == 2


# -- from anywhere -----------------------------------------------------------------------------------------------------


def test_calls_from_a_signal_handler_are_all_counted_and_written(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_queue_size=0)
    answers: Counter[tuple[str, bool]] = Counter()

    def on_alarm(number: int, frame: object) -> None:
        answers["signal", log.info("in the handler", where="signal", bad=float("nan"))] += 1
        answers["signal", log.emit(Record(1), where="signal")] += 1

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        deadline = time.monotonic() + 20
        while answers["signal", True] < 400 and time.monotonic() < deadline:
            answers["loop", log.info("in the loop", where="loop", text="x" * 50)] += 1
            answers["loop", log.bind(a=1).error("%s", "in the loop", where="loop")] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert log.close().ok
    counted = Counter(line["where"] for line in user_lines(log_path))
    assert counted == Counter({where: number for (where, _), number in answers.items()})
    assert {answer for _, answer in answers} == {True}
    assert log.stats().offered == sum(answers.values())
    assert log.stats().queued_bytes == 0


def test_refusals_from_a_signal_handler_are_counted_exactly(opened: Callable[..., Log]) -> None:
    log = opened(max_queue_size=1, level="DEBUG")
    log.close()
    calls = Counter[str]()

    def on_alarm(number: int, frame: object) -> None:
        calls["signal"] += 1
        log.info("in the handler")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        deadline = time.monotonic() + 20
        while calls["signal"] < 500 and time.monotonic() < deadline:
            calls["loop"] += 1
            log.info("in the loop")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert log.stats().refused == calls.total()


def test_call_from_del(opened: Callable[..., Log], log_path: Path) -> None:
    class Resource:
        def __del__(self) -> None:
            log.info("released")

    log = opened()
    resource = Resource()
    del resource
    gc.collect()
    assert only_line(log, log_path)["message"] == "released"


def test_call_from_a_gc_callback(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_queue_size=0)
    calls = []

    def on_gc(phase: str, info: dict[str, int]) -> None:
        calls.append(log.info("gc", phase=phase, info=info))

    gc.callbacks.append(on_gc)
    try:
        for number in range(200):
            log.info("between", data=[{"n": number}], bad={(number,): object()})
            gc.collect(0)
    finally:
        gc.callbacks.remove(on_gc)
    log.close()
    assert all(calls)
    assert len(user_lines(log_path)) == len(calls) + 200


def test_call_from_the_repr_of_a_logged_value(opened: Callable[..., Log], log_path: Path) -> None:
    class Talkative:
        def __repr__(self) -> str:
            log.info("inner", value=object())
            return "talkative"

    log = opened()
    assert log.info("outer", value=Talkative())
    log.close()
    lines = user_lines(log_path)
    assert [line["message"] for line in lines][-1] == "outer"
    assert {line["message"] for line in lines} == {"inner", "outer"}
    assert lines[-1]["value"] == "talkative"


def test_value_whose_repr_logs_itself_ends(opened: Callable[..., Log], log_path: Path) -> None:
    class Endless:
        def __repr__(self) -> str:
            log.info("again", value=self)
            return "endless"

    log = opened()
    log.info("outer", value=Endless())
    log.info("after")
    log.close()
    assert user_lines(log_path)[-1]["message"] == "after"


def test_call_from_the_str_of_an_exception(opened: Callable[..., Log], log_path: Path) -> None:
    class Talkative(Exception):
        def __str__(self) -> str:
            log.info("inner")
            return "talkative"

    log = opened()
    log.error("outer", exc_info=Talkative())
    log.close()
    assert user_lines(log_path)[-1]["error_message"] == "talkative"


def test_call_from_a_trace_function(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_queue_size=0)
    counted = []

    def trace(frame: object, event: str, argument: object) -> Any:
        sys.settrace(None)
        counted.append(log.debug("traced", event_seen=event))
        sys.settrace(trace)
        return None

    log.set_level("DEBUG")
    before = sys.gettrace()  # coverage's
    sys.settrace(trace)
    try:
        for number in range(50):
            log.info("%d", number, bad={1, 2})
    finally:
        sys.settrace(before)
    log.close()
    assert len(user_lines(log_path)) == 50 + len(counted)


# -- many threads ------------------------------------------------------------------------------------------------------

THREADS = 8


def in_threads(work: Callable[[int], None], number: int = THREADS) -> None:
    """Run `work(0)`, `work(1)`, ... at once, and wait for all."""
    barrier = threading.Barrier(number)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    with switching_all_the_time():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors, errors


@pytest.mark.parametrize("size", [0, 50])
def test_ledger_is_exact_with_eight_threads(opened: Callable[..., Log], log_path: Path, size: int) -> None:
    log = opened(max_queue_size=size)
    accepted: list[Counter[bool]] = [Counter() for _ in range(THREADS)]

    def work(index: int) -> None:
        for number in range(400):
            accepted[index][log.info("plain", thread=index, number=number)] += 1
            accepted[index][log.emit(Record(number), thread=index, number=number)] += 1
            accepted[index][log.error("%d", number, thread=index, number=number, bad=float("nan"))] += 1

    in_threads(work)
    assert log.close().ok
    total = sum(accepted, Counter[bool]())
    stats = log.stats()
    lines = user_lines(log_path)
    assert (stats.accepted, stats.refused) == (total[True], total[False])
    assert (stats.offered, stats.queued, stats.queued_bytes) == (THREADS * 1200, 0, 0)
    assert stats.written == len(lines) == total[True]
    assert stats.degraded == sum("log_degraded" in line for line in lines)
    for index in range(THREADS):
        numbers = [line["number"] for line in lines if line["thread"] == index]
        assert numbers == sorted(numbers)


def test_sum_of_refusals_is_exact_from_the_first_on(opened: Callable[..., Log]) -> None:
    for _ in range(30):
        log = opened()
        log.close()

        def work(index: int, log: Log = log) -> None:
            for level in LEVELS[1:]:
                getattr(log, level)("refused")

        in_threads(work)
        assert log.stats().refused == THREADS * 4


def test_sum_of_degraded_is_exact_from_the_first_on(opened: Callable[..., Log]) -> None:
    for _ in range(30):
        log = opened(flush_interval_s=10)

        def work(index: int, log: Log = log) -> None:
            for level in LEVELS[1:]:
                getattr(log, level)("bad", value=object())

        in_threads(work)
        log.close()
        assert log.stats().degraded == THREADS * 4


def test_stats_are_consistent_at_every_moment_while_threads_log(opened: Callable[..., Log]) -> None:
    log = opened(max_queue_size=200)
    done = threading.Event()
    seen = []

    def look() -> None:
        while not done.is_set():
            seen.append(log.stats())

    looker = threading.Thread(target=look)
    looker.start()
    try:
        in_threads(lambda index: [log.info("plain", number=number) for number in range(500)] and None, 4)
    finally:
        done.set()
        looker.join()
    log.close()
    for stats in seen:
        assert stats.offered == stats.accepted + stats.refused
        assert stats.accepted == stats.written + stats.dropped + stats.failed + stats.queued
        assert min(stats.queued, stats.written, stats.refused) >= 0
    offered = [stats.offered for stats in seen]
    assert offered == sorted(offered)


def test_levels_change_while_threads_log(opened: Callable[..., Log]) -> None:
    log = opened()

    def work(index: int) -> None:
        for number in range(200):
            if index == 0:
                log.child(f"crew{number}").set_level(LEVELS[number % 5])
                log.set_level(LEVELS[number % 5])
            else:
                log.child(f"crew{number}").child("agent").error("message")

    in_threads(work)
    log.set_level("INFO")
    assert log.child("new").level == "INFO"


def test_log_closed_while_threads_log_loses_nothing_it_accepted(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_queue_size=0)
    accepted = [0] * THREADS
    closed = threading.Event()

    def work(index: int) -> None:
        if index == 0:
            poll(lambda: log.stats().accepted > 500)
            log.close()
            closed.set()
            return
        while log.info("message", thread=index):
            accepted[index] += 1

    in_threads(work)
    assert closed.is_set()
    stats = log.stats()
    assert stats.accepted == sum(accepted)
    assert stats.written == len(user_lines(log_path))
    assert stats.accepted == stats.written + stats.dropped + stats.failed


INTERPRETER_EXIT = """
import sys
from amsha_async_log import open_log

class Resource:
    def __init__(self, log):
        self.log = log
    def __del__(self):
        self.log.info("released at exit", bad=object())
        self.log.exception("released at exit")

log = open_log(sys.argv[1], console=False)
log.info("alive")
resource = Resource(log)
sys.modules["keeps it to the very end"] = resource
"""


def test_call_while_the_interpreter_ends_raises_nothing(log_path: Path) -> None:
    done = run_python(INTERPRETER_EXIT, log_path)
    assert done.stderr == ""
    assert user_lines(log_path)[0]["message"] == "alive"
