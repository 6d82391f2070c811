"""Typed events: any msgspec Struct as one line, at its level, unchanged, with what goes beside it."""

import copy
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import pytest
from msgspec import Struct, field
from support import user_fields, user_lines

from amsha_async_log import events
from amsha_async_log._pipeline import Log


class Tagged(Struct, tag="tool.used", tag_field="event"):
    name: str = "search"
    count: int = 1


class Untagged(Struct):
    name: str = "search"


class Inherited(Tagged, tag="tool.used.twice", tag_field="event"):
    more: float = 0.5


class Frozen(Struct, frozen=True):
    name: str = "search"


class OtherTagField(Struct, tag="search", tag_field="kind"):
    count: int = 1


class ReservedTagField(Struct, tag="search", tag_field="level"):
    count: int = 1


class AmbientTagField(Struct, tag="search", tag_field="crew_name"):
    count: int = 1


class NumberTag(Struct, tag=7, tag_field="event"):
    count: int = 1


class QuotedTag(Struct, tag='a"b\n', tag_field="event"):
    count: int = 1


class Renamed(Struct, tag="renamed", tag_field="event", rename="camel", omit_defaults=True):
    tool_name: str = "search"
    cost_usd: float | None = None
    max_tokens: int | None = None


class RenamedToReserved(Struct, rename={"seen": "timestamp"}):
    seen: int = 5


class ArrayLike(Struct, array_like=True):
    name: str = "search"
    count: int = 1


class TaggedArrayLike(Struct, array_like=True, tag="tool.used", tag_field="event"):
    name: str = "search"


class OnlyTag(Struct, tag="tool.idle", tag_field="event"):
    pass


class Nothing(Struct):
    pass


class OmitsAll(Struct, tag="tool.quiet", tag_field="event", omit_defaults=True):
    name: str | None = None


class Nested(Struct, tag="nested", tag_field="event"):
    inner: Tagged
    untagged: Untagged


class Containers(Struct, tag="containers", tag_field="event"):
    items: list[int] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


class Clashing(Struct, tag="clashing", tag_field="event"):
    level: str = "mine"
    message: str = "mine"
    execution_id: str = "mine"


class Scalars(Struct, tag="scalars", tag_field="event"):
    text: str = ""
    number: float | None = None
    flag: Literal["a", "b"] = "a"
    shared: ClassVar[int] = 3


class Forward(Struct, tag="forward", tag_field="event"):
    value: "NoSuchType" = None  # noqa: F821


class WeakAndDict(Struct, dict=True, weakref=True):
    name: str = "search"


class Forbidding(Struct, forbid_unknown_fields=True, eq=False, order=False, gc=False):
    name: str = "search"


Emit = Callable[..., dict[str, Any]]


@pytest.fixture
def emit(opened: Callable[..., Log], log_path: Path) -> Emit:
    """Emits the same struct twice, since the second call takes a shorter way, and returns the line of both."""

    def run(event: Struct, *, bound: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        with opened() as log:
            target = log.bind(**bound) if bound else log
            assert target.emit(event, **options)
            assert target.emit(event, **options)
        first, second = user_lines(log_path)
        for name in ("timestamp", "seq"):
            del first[name], second[name]
        assert first == second
        assert list(first) == list(second)
        return second

    return run


# -- shapes ------------------------------------------------------------------------------------------------------------


SHAPES: list[tuple[Struct, str, dict[str, Any]]] = [
    (Tagged(), "tool.used", {"name": "search", "count": 1}),
    (Untagged(), "Untagged", {"name": "search"}),
    (Inherited(), "tool.used.twice", {"name": "search", "count": 1, "more": 0.5}),
    (Frozen(), "Frozen", {"name": "search"}),
    (OtherTagField(), "OtherTagField", {"kind": "search", "count": 1}),
    (NumberTag(), "7", {"count": 1}),
    (QuotedTag(), 'a"b\n', {"count": 1}),
    (Renamed("x", 0.5), "renamed", {"toolName": "x", "costUsd": 0.5}),
    (RenamedToReserved(), "RenamedToReserved", {"timestamp_": 5}),
    (ArrayLike(), "ArrayLike", {"name": "search", "count": 1}),
    (TaggedArrayLike(), "tool.used", {"name": "search"}),
    (OnlyTag(), "tool.idle", {}),
    (Nothing(), "Nothing", {}),
    (OmitsAll(), "tool.quiet", {}),
    (
        Nested(Tagged(), Untagged()),
        "nested",
        {"inner": {"event": "tool.used", "name": "search", "count": 1}, "untagged": {"name": "search"}},
    ),
    (Containers([1], {"a": None}, (2,)), "containers", {"items": [1], "table": {"a": None}, "anything": [2]}),
    (Scalars("t", None, "b"), "scalars", {"text": "t", "number": None, "flag": "b"}),
    (Forward(1), "forward", {"value": 1}),
    (WeakAndDict(), "WeakAndDict", {"name": "search"}),
    (Forbidding(), "Forbidding", {"name": "search"}),
]


@pytest.mark.parametrize(("event", "name", "fields"), SHAPES, ids=[type(shape[0]).__name__ for shape in SHAPES])
@pytest.mark.parametrize("around", ["alone", "extra fields", "bound", "execution"])
def test_struct_becomes_a_line_with_its_fields(
    opened: Callable[..., Log], log_path: Path, event: Struct, name: str, fields: dict[str, Any], around: str
) -> None:
    more: dict[str, Any] = {}
    with opened() as log:
        if around == "extra fields":
            more = {"beside": [1]}
            assert log.emit(event, beside=[1])
            assert log.emit(event, beside=[1])
        elif around == "bound":
            more = {"tenant": "acme"}
            assert log.bind(tenant="acme").emit(event)
            assert log.bind(tenant="acme").emit(event)
        elif around == "execution":
            with log.execution("crew", execution_id="e1"):
                more = {"execution_id": "e1", "crew_name": "crew"}
                assert log.emit(event)
                assert log.emit(event)
        else:
            assert log.emit(event)
            assert log.emit(event)
    lines = [line for line in user_lines(log_path) if not line["event"].startswith("execution.")]
    assert [line["event"] for line in lines] == [name, name]
    assert [user_fields(line) for line in lines] == [{**more, **fields}] * 2
    assert log.stats().degraded == 0


def test_typed_line_has_no_message(emit: Emit) -> None:
    assert "message" not in emit(Tagged())


def test_tag_in_a_reserved_field_gets_an_underscore(emit: Emit) -> None:
    line = emit(ReservedTagField())
    assert (line["event"], line["level"], line["level_"]) == ("ReservedTagField", "INFO", "search")


def test_tag_in_a_field_of_the_context_is_on_the_line_once(opened: Callable[..., Log], log_path: Path) -> None:
    with opened() as log, log.execution("crew"):
        log.emit(AmbientTagField())
    assert user_lines(log_path)[1]["crew_name"] == "search"


def test_generic_struct_is_named_after_its_class(emit: Emit) -> None:
    made = msgspec.defstruct("Made", [("value", int)])
    assert emit(made(1))["event"] == "Made"


def test_two_classes_of_one_name_keep_their_fields(opened: Callable[..., Log], log_path: Path) -> None:
    first, second = (msgspec.defstruct("Same", [(name, int)]) for name in ("a", "b"))
    with opened() as log:
        for _ in range(2):
            log.emit(first(1))
            log.emit(second(2))
    assert [user_fields(line) for line in user_lines(log_path)] == [{"a": 1}, {"b": 2}] * 2


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (events.FileOperation(operation="save", file_path="x", status="success"), "INFO"),
        (events.LlmCallCompleted(), "INFO"),
        (events.LlmCallFailed(error_type="E"), "ERROR"),
        (events.LlmCallRetried(), "WARNING"),
        (events.LlmCallRateLimited(), "WARNING"),
        (events.ErrorRecovered(error_type="E", recovery_action="retry"), "WARNING"),
        (events.StepFailed(step_kind="task", step_name="t", duration_seconds=1.0), "ERROR"),
        (events.ExecutionCancelled(duration_seconds=1.0, error_type="CancelledError"), "INFO"),
        (msgspec.defstruct("X", [], tag="tool.call.failed", tag_field="event")(), "ERROR"),
        (msgspec.defstruct("X", [], tag="error.raised", tag_field="event")(), "ERROR"),
        (msgspec.defstruct("X", [], tag="failed", tag_field="event")(), "INFO"),
        (Untagged(), "INFO"),
    ],
    ids=lambda value: (type(value).__struct_config__.tag or "untagged") if isinstance(value, Struct) else value,
)
def test_level_is_that_of_the_event(emit: Emit, event: Struct, level: str) -> None:
    assert emit(event)["level"] == level


@pytest.mark.parametrize(("level", "name"), [("critical", "CRITICAL"), (40, "ERROR"), ("nonsense", "INFO")])
def test_level_given_wins(emit: Emit, level: str | int, name: str) -> None:
    assert emit(Tagged(), level=level)["level"] == name


def test_level_given_once_does_not_stick(opened: Callable[..., Log], log_path: Path) -> None:
    with opened() as log:
        log.emit(Tagged(), level="ERROR")
        log.emit(Tagged())
    assert [line["level"] for line in user_lines(log_path)] == ["ERROR", "INFO"]


def test_event_below_the_level_is_not_counted(opened: Callable[..., Log]) -> None:
    log = opened(level="ERROR")
    assert [log.emit(Tagged()), log.emit(Tagged()), log.emit(Tagged(), a=1)] == [False] * 3
    assert log.emit(Tagged(), level="CRITICAL")
    assert log.stats().offered == 1


def test_level_set_after_the_first_event_holds_for_the_next(opened: Callable[..., Log]) -> None:
    log = opened()
    log.emit(Tagged())
    log.set_level("ERROR")
    assert not log.emit(Tagged())


def test_child_emits_under_its_own_name(opened: Callable[..., Log], log_path: Path) -> None:
    with opened() as log:
        for target in (log, log.child("crew"), log, log.child("crew")):
            target.emit(Tagged())
    assert [line["logger"] for line in user_lines(log_path)] == ["amsha", "amsha.crew"] * 2


# -- beside the fields -------------------------------------------------------------------------------------------------


def test_extra_field_wins_over_one_of_the_struct(emit: Emit) -> None:
    line = emit(Tagged(), name="mine")
    assert (line["name"], line["count"]) == ("mine", 1)


def test_field_of_the_struct_wins_over_a_bound_one(emit: Emit) -> None:
    assert user_fields(emit(Tagged(), bound={"name": "bound", "other": 1})) == {
        "other": 1,
        "name": "search",
        "count": 1,
    }


def test_fields_that_clash_with_envelope_and_context_are_told_apart(opened: Callable[..., Log], log_path: Path) -> None:
    with opened() as log, log.execution("crew", execution_id="outer"):
        assert log.emit(Clashing())
    line = user_lines(log_path)[1]
    assert (line["event"], line["level"], line["level_"], line["message_"]) == ("clashing", "INFO", "mine", "mine")
    assert (line["execution_id"], line["crew_name"]) == ("mine", "crew")


def test_unset_field_is_not_written(emit: Emit) -> None:
    made = msgspec.defstruct("Made", [("a", Any), ("b", int)])
    assert user_fields(emit(made(msgspec.UNSET, 1))) == {"b": 1}


@pytest.mark.parametrize("more", [{}, {"beside": 1}])
@pytest.mark.parametrize("value", [None, "annulled", ["null"]])
def test_field_at_its_default_is_not_written_beside_a_null(emit: Emit, value: Any, more: dict[str, Any]) -> None:
    event = events.ExecutionCompleted(duration_seconds=1.0, outputs={"a": value})
    assert user_fields(emit(event, **more)) == {
        "duration_seconds": 1.0,
        "outputs": {"a": value},
        "status": "completed",
        **more,
    }


@pytest.mark.parametrize("more", [{}, {"beside": 1}])
@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Renamed("x", None, None), {"toolName": "x"}),
        (Renamed("annulled", 1.5), {"toolName": "annulled", "costUsd": 1.5}),
        (OtherTagField(None), {"kind": "search", "count": None}),
    ],
    ids=["omitted", "text", "tag"],
)
def test_names_are_the_encoded_ones_beside_a_null(
    emit: Emit, event: Struct, expected: dict[str, Any], more: dict[str, Any]
) -> None:
    assert user_fields(emit(event, **more)) == {**expected, **more}


# -- values ------------------------------------------------------------------------------------------------------------


def test_declared_containers_are_snapshotted(opened: Callable[..., Log], log_path: Path) -> None:
    event = Containers([1], {"a": [1]}, [1])
    with opened(flush_interval_s=10) as log:
        log.emit(event)
        log.emit(event, beside=1)
        event.items.append(2)
        event.table["a"].append(2)
        event.anything.append(2)
    for line in user_lines(log_path):
        assert (line["items"], line["table"], line["anything"]) == ([1], {"a": [1]}, [1])


@pytest.mark.parametrize("more", [{}, {"beside": 1}])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_number_is_marked_and_counted(
    opened: Callable[..., Log], log_path: Path, value: float, more: dict[str, Any]
) -> None:
    with opened() as log:
        log.emit(Scalars(number=value), **more)
        log.emit(Scalars(number=value), **more)
    for line in user_lines(log_path):
        assert line["number"] in ("NaN", "Infinity", "-Infinity")
        assert list(line["log_degraded"]) == ["number"]
    assert log.stats().degraded == 2


def test_not_finite_number_is_marked_where_as_many_nulls_are_left_out(emit: Emit) -> None:
    line = emit(Renamed("x", math.nan, 5))
    assert "NaN" in line.values()
    assert "log_degraded" in line


def test_marked_field_keeps_its_encoded_name(emit: Emit) -> None:
    line = emit(Renamed("x", math.nan))
    assert (line["toolName"], line["costUsd"]) == ("x", "NaN")
    assert {"tool_name", "cost_usd", "max_tokens", "maxTokens"}.isdisjoint(line)


def test_degraded_event_keeps_a_tag_that_is_no_event(emit: Emit) -> None:
    assert emit(OtherTagField(math.nan))["kind"] == "search"


@pytest.mark.parametrize(
    ("value", "shown", "marked"),
    [
        (5, 5, False),
        (["a", {"b": 1}], ["a", {"b": 1}], False),
        (None, None, False),
        (Tagged(), {"event": "tool.used", "name": "search", "count": 1}, False),
        ("\ud800", "\\ud800", True),
        ([math.nan], ["NaN"], True),
    ],
    ids=["number", "container", "none", "struct", "surrogate", "nan"],
)
def test_value_of_another_type_than_declared_is_kept_or_marked(
    emit: Emit, value: Any, shown: object, marked: bool
) -> None:
    line = emit(Scalars(text=value))
    assert line["text"] == shown
    assert ("log_degraded" in line) is marked


def test_large_event_is_cut_on_every_call(opened: Callable[..., Log], log_path: Path) -> None:
    event = events.FileOperation(operation="save", file_path="x" * 100_000, status="success")
    with opened(max_record_bytes=4096) as log:
        assert log.emit(event)
        assert log.emit(event)
        assert log.emit(event, beside=1)
    for line in user_lines(log_path):
        assert len(line["file_path"]) < 4096
        assert line["status"] == "success"
    assert log.stats().degraded == 3


def test_event_is_never_changed(opened: Callable[..., Log]) -> None:
    event = Containers([1], {"a": {"b": [1]}}, [math.nan, object()])
    before = copy.deepcopy((event.items, event.table)), event.anything, list(event.anything)
    with opened() as log:
        log.emit(event)
        log.emit(event, level="ERROR", beside=1)
        log.bind(items=1).emit(event)
    assert before == ((event.items, event.table), event.anything, list(event.anything))


def test_event_and_fields_are_released_once_written(opened: Callable[..., Log]) -> None:
    log = opened()
    event = WeakAndDict()
    gone = weakref.ref(event)
    log.emit(event)
    log.emit(event)
    log.emit(event)
    log.flush()
    del event
    log.emit(WeakAndDict())  # what the batcher last held goes with the next
    log.flush()
    assert gone() is None


# -- not a struct ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 5, "text", {"a": 1}, [Tagged()], Tagged, object(), Struct])
def test_what_is_no_struct_is_refused_and_counted(opened: Callable[..., Log], value: Any) -> None:
    log = opened()
    assert log.emit(value) is False
    assert log.emit(value, level="ERROR", beside=1) is False
    stats = log.stats()
    assert (stats.offered, stats.refused, stats.accepted) == (2, 2, 0)
    assert list(stats.by_reason) == ["unencodable"]
