"""The typed events: their levels, what of them is on a line, and that no value in any field costs more than itself."""

import datetime as dt
import math
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import poison
import pytest
from event_samples import KINDS, OPEN_FIELDS, declared, full, least, own_fields, tag
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from poison import KEPT, LARGE, MARKED, NOT_EVEN_TO_BE_GENERATED
from support import ENVELOPE, strict_loads, user_fields

from amsha_async_log import events
from amsha_async_log._pipeline import Log

LEVELS = {
    "execution.started": "INFO",
    "execution.state_changed": "INFO",
    "execution.completed": "INFO",
    "execution.failed": "ERROR",
    "execution.cancelled": "INFO",
    "step.started": "INFO",
    "step.state_changed": "INFO",
    "step.completed": "INFO",
    "step.failed": "ERROR",
    "step.cancelled": "INFO",
    "metrics.execution": "INFO",
    "llm.configured": "INFO",
    "llm.call.completed": "INFO",
    "llm.call.failed": "ERROR",
    "llm.call.retried": "WARNING",
    "llm.call.rate_limited": "WARNING",
    "tool.call.completed": "INFO",
    "tool.call.failed": "ERROR",
    "file.operation": "INFO",
    "error.raised": "ERROR",
    "error.recovered": "WARNING",
    "config.changed": "INFO",
    "sample.host": "INFO",
    "sample.process": "INFO",
    "sample.cgroup": "INFO",
    "sample.gpu": "INFO",
    "sample.loop": "INFO",
    "sample.loop_stalled": "WARNING",
    "sample.source_changed": "INFO",
    "metrics.attribution": "INFO",
}
FAILURES = [kind for kind in KINDS if LEVELS[tag(kind)] == "ERROR"]
NO_FAILURES_WITH_ATTEMPTS = [kind for kind in KINDS if kind not in FAILURES and "attempt" in declared(kind)]
ALWAYS = {"status"}
"""Written at its default too."""

each_kind = pytest.mark.parametrize("kind", KINDS, ids=tag)
each_failure = pytest.mark.parametrize("kind", FAILURES, ids=tag)


class Channel:
    """A log, and what is new in its file."""

    def __init__(self, log: Log, path: pathlib.Path) -> None:
        self.log = log
        self._path = path
        self._read = 0
        self.new_lines()

    def new_lines(self) -> list[dict[str, Any]]:
        """The program's lines since the last look, JSON to the letter and no key twice."""
        assert self.log.flush()
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        lines = [strict_loads(line) for line in data.split(b"\n")[:-1]]
        return [line for line in lines if not line["event"].startswith("log.")]

    def emit(self, event: Struct, /, **options: Any) -> dict[str, Any]:
        """The line of an event."""
        assert self.log.emit(event, **options), self.log.stats().by_reason
        (line,) = self.new_lines()
        return line


@pytest.fixture
def channel(opened: Callable[..., Log], log_path: pathlib.Path) -> Channel:
    log = opened(flush_interval_s=0)
    log.flush()
    return Channel(log, log_path)


# -- levels ------------------------------------------------------------------------------------------------------------


def test_every_event_has_a_level() -> None:
    assert sorted(LEVELS) == sorted(map(tag, KINDS))


@each_kind
@pytest.mark.parametrize("sample", [least, full])
def test_level_is_that_of_its_category(channel: Channel, kind: type[Struct], sample: Callable[..., Struct]) -> None:
    assert channel.emit(sample(kind))["level"] == LEVELS[tag(kind)]


@each_failure
@pytest.mark.parametrize("attempt", [3, 4])
def test_failure_of_the_last_attempt_is_critical(channel: Channel, kind: type[Struct], attempt: int) -> None:
    assert channel.emit(full(kind, attempt=attempt, max_retries=3))["level"] == "CRITICAL"


@each_failure
@pytest.mark.parametrize(("attempt", "most"), [(2, 3), (3, 0), (3, None), (None, 3), (0, 0), (-1, -1)])
def test_failure_that_can_be_tried_again_is_an_error(
    channel: Channel, kind: type[Struct], attempt: int | None, most: int | None
) -> None:
    assert channel.emit(full(kind, attempt=attempt, max_retries=most))["level"] == "ERROR"


@pytest.mark.parametrize("kind", NO_FAILURES_WITH_ATTEMPTS, ids=tag)
def test_last_attempt_of_what_is_no_failure_does_not_change_the_level(channel: Channel, kind: type[Struct]) -> None:
    assert channel.emit(full(kind, attempt=3, max_retries=3))["level"] == LEVELS[tag(kind)]


@pytest.mark.parametrize(
    ("event", "fields", "bound", "level"),
    [
        (events.ErrorRaised(attempt=1, max_retries=3), {"attempt": 3}, {}, "CRITICAL"),
        (events.ErrorRaised(attempt=3, max_retries=3), {"attempt": 1}, {}, "ERROR"),
        (events.ErrorRaised(attempt=3, max_retries=3), {"max_retries": 0}, {}, "ERROR"),
        (events.ErrorRaised(), {"attempt": 3, "max_retries": 3}, {}, "CRITICAL"),
        (events.ErrorRaised(attempt=3), {}, {"max_retries": 3}, "CRITICAL"),
        (events.ErrorRaised(), {}, {"attempt": 3, "max_retries": 3}, "CRITICAL"),
        (events.ErrorRaised(attempt=1), {}, {"attempt": 3, "max_retries": 3}, "ERROR"),
        (events.ErrorRaised(attempt=3), {}, {"max_retries": "three"}, "ERROR"),
        (events.ErrorRaised(attempt=3), {}, {"max_retries": 10**400}, "ERROR"),
    ],
    ids=lambda part: None,
)
def test_whether_it_was_the_last_attempt_is_read_from_what_is_on_the_line(
    channel: Channel, event: Struct, fields: dict[str, Any], bound: dict[str, Any], level: str
) -> None:
    channel.log.bind(**bound).emit(event, **fields)
    (line,) = channel.new_lines()
    assert line["level"] == level


@each_failure
@pytest.mark.parametrize(
    "make",
    [poison.RaisingBool, poison.RaisingEq, poison.RaisingClass, poison.RaisingAttributes, lambda: poison.RudeInt(3)],
    ids=["bool", "eq", "class", "attributes", "int"],
)
def test_attempt_that_raises_when_asked_loses_nothing(
    channel: Channel, kind: type[Struct], make: Callable[[], Any]
) -> None:
    line = channel.emit(full(kind, attempt=make(), max_retries=3), beside=1)
    assert (line["max_retries"], line["beside"]) == (3, 1)
    assert line["attempt"] == 3 or list(line["log_degraded"]) == ["attempt"]


@each_kind
def test_level_given_wins(channel: Channel, kind: type[Struct]) -> None:
    assert channel.emit(full(kind), level="critical")["level"] == "CRITICAL"


@each_kind
def test_event_below_the_level_is_neither_accepted_nor_counted(opened: Callable[..., Log], kind: type[Struct]) -> None:
    log = opened(level="CRITICAL")
    assert not any(log.emit(sample(kind), **more) for sample in (least, full) for more in ({}, {"beside": 1}, {}))
    assert not log.bind(tenant="acme").emit(least(kind))
    assert log.stats().offered == 0


# -- what is on the line -----------------------------------------------------------------------------------------------


@each_kind
def test_tag_is_the_event_of_the_line(channel: Channel, kind: type[Struct]) -> None:
    assert channel.emit(least(kind))["event"] == tag(kind)


@each_kind
def test_fields_at_their_default_are_not_on_the_line(channel: Channel, kind: type[Struct]) -> None:
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    shown = user_fields(channel.emit(least(kind))).keys()
    assert shown - (ALWAYS & declared(kind).keys()) == required - ALWAYS


@each_kind
def test_every_field_is_on_the_line_as_it_was_given(channel: Channel, kind: type[Struct]) -> None:
    event = full(kind)
    assert user_fields(channel.emit(event)) == own_fields(event)


@each_kind
def test_second_event_of_a_type_makes_the_same_line(channel: Channel, kind: type[Struct]) -> None:
    first, second = channel.emit(full(kind)), channel.emit(full(kind))
    assert [list(first), user_fields(first)] == [list(second), user_fields(second)]


@each_kind
def test_envelope_comes_first_then_the_context(channel: Channel, kind: type[Struct]) -> None:
    with channel.log.execution("crew", execution_id="e1") as run, run.step("task", "t"):
        channel.new_lines()
        line = channel.emit(least(kind))
    envelope = [name for name in ENVELOPE if name != "message"]
    assert list(line)[: len(envelope) + 3] == [*envelope, "execution_id", "crew_name", "step_id"]
    assert (line["execution_id"], line["crew_name"]) == ("e1", "crew")


@each_kind
def test_exception_is_told_by_type_message_and_stack(channel: Channel, kind: type[Struct]) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        line = channel.emit(least(kind), exc_info=True)
    assert (line["error_type"], line["error_message"]) == ("ValueError", "why")
    assert line["stacktrace"]["frames"][-1]["function"] == "test_exception_is_told_by_type_message_and_stack"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "error_type" in declared(kind)], ids=tag)
def test_what_the_event_says_of_the_error_wins_over_the_exception(channel: Channel, kind: type[Struct]) -> None:
    line = channel.emit(full(kind, error_type="Mine"), exc_info=ValueError("why"))
    assert line["error_type"] == "Mine"
    assert line["stacktrace"]["type"] == "ValueError"


@each_kind
def test_field_given_as_a_keyword_wins_and_the_others_stay(channel: Channel, kind: type[Struct]) -> None:
    event = full(kind)
    for name in declared(kind):
        assert user_fields(channel.emit(event, **{name: "given"})) == {**own_fields(event), name: "given"}


@each_kind
def test_field_given_as_a_keyword_does_not_change_the_event(channel: Channel, kind: type[Struct]) -> None:
    event = full(kind)
    channel.emit(event, **dict.fromkeys(declared(kind), "given"))
    assert own_fields(event) == own_fields(full(kind))


@each_kind
def test_bound_field_is_on_the_line_and_yields_to_the_event(channel: Channel, kind: type[Struct]) -> None:
    event = full(kind)
    name = next(iter(declared(kind)))
    channel.log.bind(tenant="acme", **{name: "bound"}).emit(event)
    (line,) = channel.new_lines()
    assert user_fields(line) == {"tenant": "acme", **own_fields(event)}


@each_kind
def test_keywords_named_as_the_envelope_get_an_underscore(channel: Channel, kind: type[Struct]) -> None:
    taken = dict.fromkeys([name for name in ENVELOPE if name != "level"], "mine")
    line = channel.emit(full(kind), **taken)
    assert {name: line[f"{name}_"] for name in taken} == taken
    assert line["event"] == tag(kind)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), OPEN_FIELDS, ids=lambda part: part if isinstance(part, str) else tag(part))
@pytest.mark.parametrize("more", [{}, {"beside": 1}, {"exc_info": ValueError("why")}], ids=["alone", "field", "error"])
def test_container_is_written_as_it_was_at_the_call(
    opened: Callable[..., Log], log_path: pathlib.Path, kind: type[Struct], name: str, more: dict[str, Any]
) -> None:
    inner: list[Any] = [1]
    value: dict[str, Any] = {"inner": inner}
    event = full(kind, **{name: value})
    with opened(flush_interval_s=10) as log:
        for _ in range(2):
            assert log.emit(event, **more)
        inner.append(2)
        value["later"] = 3
    lines = [strict_loads(line) for line in log_path.read_bytes().splitlines()]
    assert [line[name] for line in lines if line["event"] == tag(kind)] == [{"inner": [1]}] * 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "outputs" in declared(kind)], ids=tag)
def test_keyword_container_is_written_as_it_was_at_the_call(
    opened: Callable[..., Log], log_path: pathlib.Path, kind: type[Struct]
) -> None:
    value = [1]
    with opened(flush_interval_s=10) as log:
        log.emit(least(kind), outputs=value)
        value.append(2)
    lines = [strict_loads(line) for line in log_path.read_bytes().splitlines()]
    assert [line["outputs"] for line in lines if line["event"] == tag(kind)] == [[1]]


class Interrupting:
    """Something whose description interrupts or exits."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __repr__(self) -> str:
        raise self._error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [1, {"a": value}]], ids=["bare", "nested"])
def test_value_that_interrupts_while_it_is_written_costs_itself_only(
    channel: Channel, error: type[BaseException], wrap: Callable[[Any], Any]
) -> None:
    channel.emit(least(events.FileOperation))
    line = channel.emit(full(events.FileOperation, operation=wrap(Interrupting(error))))
    rest = {name: value for name, value in user_fields(line).items() if name not in ("operation", "log_degraded")}
    expected = own_fields(full(events.FileOperation))
    del expected["operation"]
    assert rest == expected
    assert list(line["log_degraded"]) == ["operation"]
    assert channel.emit(least(events.FileOperation))["status"] == "text"


def test_value_that_was_only_copied_into_json_does_not_count_as_degraded(channel: Channel) -> None:
    line = channel.emit(full(events.FileOperation, duration_seconds=poison.RudeFloat(1.5)))
    assert line["duration_seconds"] == 1.5
    assert channel.log.stats().degraded == 0


class Checked(Struct, tag="checked", tag_field="event"):
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("negative")


def test_event_that_checks_its_fields_takes_any_keyword(channel: Channel) -> None:
    assert user_fields(channel.emit(Checked(), count=-1)) == {"count": -1}


class WritesNulls(Struct, tag="mine.failed", tag_field="event"):
    error_type: str | None = None


def test_exception_is_told_where_the_event_would_write_null(channel: Channel) -> None:
    assert channel.emit(WritesNulls(), exc_info=ValueError("why"))["error_type"] == "ValueError"


def test_usage_that_raises_when_asked_raises_nothing_in_the_summary(channel: Channel) -> None:
    with channel.log.execution("crew") as run:
        for value in (poison.RaisingClass(), poison.RaisingAttributes(), poison.RaisingBool()):
            channel.log.emit(events.MetricsExecution(prompt_tokens=value, cost_usd=value))
            channel.log.emit(events.LlmCallCompleted(prompt_tokens=value, cost_usd=value))
        assert run.summary().prompt_tokens is None
    assert len(channel.new_lines()) == 8


# -- any value in any field --------------------------------------------------------------------------------------------


def numpy_values() -> Iterator[Any]:
    """Scalars and arrays of numpy, where it is installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import numpy as np
    except ImportError:
        return
    yield from (np.float32(0.5), np.float64(math.nan), np.int64(3), np.bool_(True), np.str_("text"))
    yield from (np.array([1, 2]), np.array([[math.inf]]), np.array([object()]), np.datetime64("2026-01-02"))


NUMPY = list(numpy_values())
ODD: dict[str, Callable[[], Any]] = {
    **{name: make for name, make in MARKED.items() if name not in LARGE | NOT_EVEN_TO_BE_GENERATED},
    **{name: make for name, (make, _) in KEPT.items()},
    "zone": lambda: dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    "naive datetime": lambda: dt.datetime(2026, 1, 2),
    "duration": lambda: dt.timedelta(seconds=1.5),
    "windows path": lambda: pathlib.PureWindowsPath("C:\\x"),
    "dataclass in a dataclass": lambda: poison.Data(poison.SlotsData({"a": (1, {2})})),
    "raw": lambda: msgspec.Raw(b'{"a":1}'),
    "raw over two lines": lambda: msgspec.Raw(b"[1,\n2]"),
    "an event": lambda: full(events.FileOperation),
    "own class": lambda: events.FileOperation,
    **{f"numpy {number}": lambda value=value: value for number, value in enumerate(NUMPY)},
}
UNFIT_TO_GENERATE = {"str subclass", "int subclass", "float subclass"}
"""Those of `ODD` whose repr raises where hypothesis asks for it."""
SIMPLE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.datetimes()
)
VALUES = st.recursive(
    SIMPLE | st.sampled_from(sorted(ODD.keys() - UNFIT_TO_GENERATE)).map(lambda name: ODD[name]()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=5) | st.integers(), inner, max_size=3)
        | st.tuples(inner)
        | inner.map(poison.Data)
    ),
    max_leaves=8,
)
WITH_FIELDS = [(kind, name) for kind in KINDS for name in declared(kind)]
THOROUGH = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
HOW: list[dict[str, Any]] = [{}, {"beside": 1}, {"exc_info": ValueError("why")}, {"level": "WARNING"}]


def check_one_line(
    channel: Channel, kind: type[Struct], bad: dict[str, Any], how: dict[str, Any], *, run: bool
) -> None:
    """Emit a full event with `bad` in some fields: one line, every other field unchanged, every bad one accounted for."""
    event = full(kind, **bad)
    before = channel.log.stats()
    if run:
        with channel.log.execution("crew", execution_id="e1"):
            assert channel.log.emit(event, **how)
        line = channel.new_lines()[1]
    else:
        line = channel.emit(event, **how)
    after = channel.log.stats()
    shown = user_fields(line)
    assert line["event"] == tag(kind)
    assert {name: shown[name] for name in declared(kind) if name not in bad} == {
        name: value for name, value in own_fields(full(kind)).items() if name not in bad
    }
    assert shown.get("beside") == how.get("beside")
    marked = line.get("log_degraded", {}).keys()
    assert marked <= bad.keys()
    assert after.degraded - before.degraded == bool(marked)
    assert after.failed == after.dropped == after.refused == 0
    for name, value in bad.items():
        at_default = value is None or value is msgspec.UNSET or (type(value) in (tuple, int) and value in ((), 1))
        assert name in shown or at_default, name


@THOROUGH
@given(field=st.sampled_from(WITH_FIELDS), value=VALUES, how=st.sampled_from(HOW), run=st.booleans())
@example(field=(events.FileOperation, "file_path"), value="\ud800", how={}, run=False)
@example(field=(events.LlmCallCompleted, "cost_usd"), value=math.nan, how={}, run=True)
def test_any_value_in_any_field_makes_one_valid_line(
    channel: Channel, field: tuple[type[Struct], str], value: Any, how: dict[str, Any], run: bool
) -> None:
    kind, name = field
    check_one_line(channel, kind, {name: value}, how, run=run)


@THOROUGH
@given(data=st.data(), kind=st.sampled_from(KINDS), how=st.sampled_from(HOW), run=st.booleans())
def test_any_values_in_several_fields_make_one_valid_line(
    channel: Channel, data: st.DataObject, kind: type[Struct], how: dict[str, Any], run: bool
) -> None:
    bad = data.draw(st.dictionaries(st.sampled_from(sorted(declared(kind))), VALUES, max_size=4))
    check_one_line(channel, kind, bad, how, run=run)


@pytest.mark.parametrize("kind", [events.FileOperation, events.ToolCallFailed, events.MetricsExecution], ids=tag)
@pytest.mark.parametrize("name", ODD)
def test_odd_value_in_every_field_at_once_makes_one_valid_line(channel: Channel, kind: type[Struct], name: str) -> None:
    line = channel.emit(kind(**{field: ODD[name]() for field in declared(kind)}))
    assert line["event"] == tag(kind)
    assert line.get("log_degraded", {}).keys() <= declared(kind).keys()


@pytest.mark.parametrize("name", sorted(LARGE | NOT_EVEN_TO_BE_GENERATED))
def test_large_or_hostile_value_in_one_field_leaves_the_others(channel: Channel, name: str) -> None:
    check_one_line(channel, events.FileOperation, {"file_path": MARKED[name]()}, {}, run=False)


@each_kind
def test_events_among_bad_ones_are_not_touched(
    opened: Callable[..., Log], log_path: pathlib.Path, kind: type[Struct]
) -> None:
    name = next(iter(declared(kind)))
    with opened(flush_interval_s=10) as log:
        for value in (math.nan, "good", "\ud800", object(), "good"):
            log.emit(full(kind, **{name: value}))
    lines = [strict_loads(line) for line in log_path.read_bytes().splitlines()]
    lines = [line for line in lines if line["event"] == tag(kind)]
    assert [line.get(name) == "good" for line in lines] == [False, True, False, False, True]
    assert ["log_degraded" in line for line in lines] == [True, False, True, True, False]
