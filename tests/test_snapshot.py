"""What values become on a line: exact where JSON can hold them, marked and contained where it cannot."""

import collections
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poison import KEPT, LARGE, MARKED, NAN, NOT_EVEN_TO_BE_GENERATED, Attrs, Data, Record
from support import ENVELOPE, run_python, strict_loads, user_fields, user_lines

from amsha_async_log._pipeline import Log

GOOD = 255
ENOUGH = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Channel:
    """A log and what is new in its file."""

    def __init__(self, log: Log, path: Path) -> None:
        self.log = log
        self._path = path
        self._read = 0
        self.new_lines()

    def new_lines(self) -> list[dict[str, Any]]:
        """The program's lines since the last look; each is JSON to the letter, and to the reader's decoder."""
        assert self.log.flush()
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        lines = [strict_loads(line) for line in data.split(b"\n")[:-1]]
        for line in data.split(b"\n")[:-1]:
            msgspec.json.decode(line)
        return [line for line in lines if not line["event"].startswith("log.")]


@pytest.fixture
def channel(opened: Callable[..., Log], log_path: Path) -> Channel:
    log = opened(flush_interval_s=0)
    log.flush()
    return Channel(log, log_path)


# -- one bad value among many good records -----------------------------------------------------------------------------


def good_line(log: Log, number: int) -> bool:
    return log.info("good", number=number, text="plain", nothing=None)


def masked(line: bytes) -> bytes:
    """A line without what differs between two runs."""
    return re.sub(rb'"(timestamp|writer|seq)":[^,}]+', rb'"\1":*', line)


def expected_line(number: int) -> bytes:
    return (
        b'{"event":"log","timestamp":*,"level":"INFO","logger":"amsha","message":"good","writer":*,"seq":*,'
        b'"number":%d,"text":"plain","nothing":null}' % number
    )


def log_among_good(opened: Callable[..., Log], path: Path, poison: Callable[[Log], bool]) -> tuple[dict[str, Any], int]:
    """One call in a batch of 256: checks the others, and returns its line and the number of degraded records."""
    log = opened(flush_interval_s=10)
    for number in range(GOOD // 2):
        good_line(log, number)
    accepted = poison(log)
    for number in range(GOOD // 2, GOOD):
        good_line(log, number)
    assert accepted, f"refused: {log.stats().by_reason}"
    assert log.close().ok
    raw = [line for line in path.read_bytes().split(b"\n")[:-1] if not line.startswith(b'{"event":"log.')]
    line = raw.pop(GOOD // 2)
    assert [masked(line) for line in raw] == [expected_line(number) for number in range(GOOD)]
    msgspec.json.decode(line)
    return strict_loads(line), log.stats().degraded


@pytest.mark.parametrize("name", MARKED)
def test_poison_is_marked_in_place_and_leaves_the_other_lines_alone(
    opened: Callable[..., Log], log_path: Path, name: str
) -> None:
    line, degraded = log_among_good(opened, log_path, lambda log: log.info("poison", bad=MARKED[name](), after=1))
    assert (line["message"], line["after"]) == ("poison", 1)
    assert list(line["log_degraded"]) == ["bad"]
    assert degraded == 1


@pytest.mark.parametrize("name", MARKED)
def test_poison_among_extra_is_marked(channel: Channel, name: str) -> None:
    assert channel.log.info("poison", extra={"bad": MARKED[name](), "after": 1})
    (line,) = channel.new_lines()
    assert (line["after"], list(line["log_degraded"])) == (1, ["bad"])


@pytest.mark.parametrize("name", MARKED)
def test_poison_in_bound_fields_raises_nothing_and_makes_a_valid_line(channel: Channel, name: str) -> None:
    assert channel.log.bind(bad=MARKED[name](), after=1).info("poison", own=2)
    (line,) = channel.new_lines()
    assert (line["after"], line["own"]) == (1, 2)


def test_line_with_a_bound_value_that_was_replaced_is_marked_and_counted(channel: Channel) -> None:
    log = channel.log.bind(bad=NAN)
    log.info("poison")
    log.info("poison", own=1)
    assert [list(line["log_degraded"]) for line in channel.new_lines()] == [["bad"], ["bad"]]
    assert channel.log.stats().degraded == 2


@pytest.mark.parametrize("name", [name for name in MARKED if name != "unset"])  # an UNSET field is not there at all
def test_poison_in_a_typed_event_is_marked(channel: Channel, name: str) -> None:
    assert channel.log.emit(Record(MARKED[name]()))
    (line,) = channel.new_lines()
    assert list(line["log_degraded"]) == ["value"]
    assert channel.log.stats().degraded == 1


@pytest.mark.parametrize("name", MARKED)
def test_poison_as_inputs_and_outputs_keeps_both_lines_of_an_execution(channel: Channel, name: str) -> None:
    with channel.log.execution("crew", inputs=MARKED[name]()) as run:
        run.set_outputs(MARKED[name]())
    assert [line["event"] for line in channel.new_lines()] == ["execution.started", "execution.completed"]


@pytest.mark.parametrize("name", MARKED)
def test_poison_as_argument_of_the_message_raises_nothing(channel: Channel, name: str) -> None:
    assert channel.log.info("poison %s", MARKED[name](), after=1)
    (line,) = channel.new_lines()
    assert line["message"].startswith("poison ")
    assert line["after"] == 1


@pytest.mark.parametrize("name", MARKED)
def test_poison_as_message_raises_nothing(channel: Channel, name: str) -> None:
    assert channel.log.info(MARKED[name](), after=1)
    (line,) = channel.new_lines()
    assert isinstance(line["message"], str)
    assert line["after"] == 1


@pytest.mark.parametrize("name", KEPT)
def test_value_with_an_obvious_form_is_written_unmarked(opened: Callable[..., Log], log_path: Path, name: str) -> None:
    make, expected = KEPT[name]
    line, degraded = log_among_good(opened, log_path, lambda log: log.info("poison", value=make()))
    assert user_fields(line) == {"value": expected}
    assert degraded == 0


@pytest.mark.parametrize(
    "message", ['{"a":1} %s {0}', "100 %", "%(x)s", "{}", '"\\', "line\nbreak", "\x00\x1b[0m", "", "null", "NaN"]
)
def test_message_without_arguments_is_written_as_it_is(
    opened: Callable[..., Log], log_path: Path, message: str
) -> None:
    line, degraded = log_among_good(opened, log_path, lambda log: log.info(message))
    assert (line["message"], degraded) == (message, 0)


def test_message_with_a_lone_surrogate_is_marked_in_place(opened: Callable[..., Log], log_path: Path) -> None:
    line, degraded = log_among_good(opened, log_path, lambda log: log.info("caf\udce9", a=1))
    assert (line["message"], line["a"], degraded) == ("caf\\udce9", 1, 1)
    assert list(line["log_degraded"]) == ["message"]


def test_typed_event_with_a_bad_value_leaves_other_events_of_its_batch_alone(
    opened: Callable[..., Log], log_path: Path
) -> None:
    log = opened(flush_interval_s=10)
    for number in range(100):
        log.emit(Record("\ud800" if number == 50 else number))
    log.close()
    values = [line["value"] for line in user_lines(log_path)]
    assert values == [*range(50), "\\ud800", *range(51, 100)]


def test_record_degraded_in_several_places_counts_once(channel: Channel) -> None:
    channel.log.info("caf\udce9 %d", "no number", a=NAN, b=object(), **{"\ud800": 1})
    channel.log.info("caf\udce9", a=NAN)
    channel.new_lines()
    assert channel.log.stats().degraded == 2


def test_generator_is_not_consumed(channel: Channel) -> None:
    generator = (number for number in range(3))
    channel.log.info("x", value=generator)
    assert list(generator) == [0, 1, 2]


def test_raw_json_keeps_its_content(channel: Channel) -> None:
    assert channel.log.info("x", value=msgspec.Raw(b'{"a": [1, null]}'))
    assert user_fields(channel.new_lines()[0]) == {"value": {"a": [1, None]}}


@pytest.mark.parametrize("how", ["call", "error", "event", "declared as a scalar"])
def test_raw_json_with_line_breaks_becomes_one_line(channel: Channel, how: str) -> None:
    class Free(msgspec.Struct, tag="free", tag_field="event"):
        value: Any

    class Declared(msgspec.Struct, tag="declared", tag_field="event"):
        value: str

    raw = msgspec.Raw(b'{"a":\n[1,\n2]}')
    log = channel.log
    {
        "call": lambda: log.info("x", value=raw),
        "error": lambda: log.error("x", exc_info=ValueError("y"), value=raw),
        "event": lambda: log.emit(Free(raw)),
        "declared as a scalar": lambda: log.emit(Declared(raw)),  # type: ignore[arg-type]
    }[how]()
    log.emit(Declared("after"))
    line, after = channel.new_lines()
    assert (line["value"], after["value"]) == ({"a": [1, 2]}, "after")
    assert log.stats().degraded == 0


@pytest.mark.parametrize("depth", [10, 31, 32, 33, 100, 300])
def test_nesting_that_every_reader_can_decode_is_kept_or_marked(channel: Channel, depth: int) -> None:
    value: Any = "core"
    for _ in range(depth):
        value = [value]
    channel.log.info("x", value=value)
    (line,) = channel.new_lines()
    if "log_degraded" not in line:
        assert line["value"] == value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [700, 1_400, 5_000, 9_000])
def test_nesting_never_exceeds_what_any_supported_python_can_decode(channel: Channel, depth: int, kind: type) -> None:
    value: Any = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    channel.log.info("x", value=value)
    (line,) = channel.new_lines()
    assert depth_of(line["value"]) < 950  # CPython 3.11 decodes some 990 levels, less what its caller stands on


def depth_of(value: Any) -> int:
    depth = 0
    while isinstance(value, list | dict) and value:
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
        depth += 1
    return depth


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ['quo"te', "back\\slash", "new\nline", "\x00", "", "\u2028", "é", "\ud800", "a.b", "__class__", "self"]
)
@pytest.mark.parametrize("how", ["call", "extra", "bind", "execution", "step", "emit", "run.fields"])
def test_any_field_name_makes_a_valid_line(channel: Channel, name: str, how: str) -> None:
    fields, log = {name: "here"}, channel.log
    if how == "call":
        log.info("x", **fields)
    elif how == "extra":
        log.info("x", extra=fields)
    elif how == "bind":
        log.bind(**fields).info("x", own=1)
    elif how == "emit":
        log.emit(Record(1), **fields)
    else:
        with log.execution("crew", **(fields if how == "execution" else {})) as run:
            if how == "run.fields":
                run.fields.update(fields)
            with run.step("task", "t", **(fields if how == "step" else {})):
                pass
    lines = channel.new_lines()
    assert any("here" in line.values() for line in lines)


@pytest.mark.parametrize("how", ["call", "extra", "bind", "emit"])
def test_field_is_not_lost_to_one_that_gets_the_same_name(channel: Channel, how: str) -> None:
    fields: dict[str, Any] = {"message": "first", "message_": "second"}
    log = channel.log
    if how == "call":
        log.info("x", **fields)
    elif how == "extra":
        log.info("x", extra=fields)
    elif how == "bind":
        log.bind(**fields).info("x")
    else:
        log.emit(Record(1), **fields)
    (line,) = channel.new_lines()
    assert {"first", "second"} <= {value for value in line.values() if isinstance(value, str)}


def test_own_field_named_log_degraded_is_not_lost(channel: Channel) -> None:
    channel.log.info("x", log_degraded="mine", bad=NAN)
    (line,) = channel.new_lines()
    assert "mine" in line.values()
    assert {"bad": "not finite"} in line.values()


def test_names_that_become_the_same_text_are_all_kept(channel: Channel) -> None:
    channel.log.info("x", **{"\ud800": "a", "\\ud800": "b"})
    (line,) = channel.new_lines()
    assert {"a", "b"} <= {value for value in line.values() if isinstance(value, str)}


# -- size --------------------------------------------------------------------------------------------------------------

LIMIT = 4096
ROOM = 4096
"""What a line may take beyond the limit: envelope, marks and previews of what was cut."""
LONG = "x" * 100_000


def long_error() -> ValueError:
    error = ValueError(LONG)
    error.add_note(LONG)
    return error


OVERSIZE: dict[str, Callable[[Log], object]] = {
    "value": lambda log: log.info("m", value=LONG),
    "nested value": lambda log: log.info("m", value={"a": [LONG]}),
    "bytes": lambda log: log.info("m", value=LONG.encode()),
    "all values together": lambda log: log.info("m", **{f"f{number}": "x" * 1000 for number in range(20)}),
    "message": lambda log: log.info(LONG),
    "formatted message": lambda log: log.info("%s", LONG),
    "message and value, each within it": lambda log: log.info("x" * 4000, value="y" * 4000, more="z" * 1000),
    "message of wide characters": lambda log: log.info("\N{SNOWMAN}" * 3000),
    "name": lambda log: log.info("m", **{LONG: 1}),
    "name of a key": lambda log: log.info("m", value={LONG: 1}),
    "error message and notes": lambda log: log.info("m", exc_info=long_error()),
    "exception group": lambda log: log.info("m", exc_info=ExceptionGroup("g", [ValueError(LONG)] * 100)),
    "bound value": lambda log: log.bind(value=LONG).info("m"),
    "bound values together": lambda log: log.bind(**{f"f{number}": "x" * 1000 for number in range(20)}).info("m"),
    "typed event": lambda log: log.emit(Record(LONG)),
    "degraded value": lambda log: log.info("m", value=[LONG, NAN]),
}


@pytest.mark.parametrize("name", OVERSIZE)
def test_line_larger_than_the_limit_is_cut_marked_and_counted(
    opened: Callable[..., Log], log_path: Path, name: str
) -> None:
    log = opened(max_record_bytes=LIMIT)
    OVERSIZE[name](log)
    log.close()
    (line,) = user_lines(log_path)
    assert len(json.dumps(line, ensure_ascii=False).encode()) <= LIMIT + ROOM
    assert line["log_degraded"]
    assert log.stats().degraded == 1


def test_cut_value_says_its_size_and_shows_its_beginning(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_record_bytes=LIMIT)
    log.info("m", value="begin" + LONG)
    log.close()
    (line,) = user_lines(log_path)
    assert line["value"].startswith("beginxxx")
    assert "100005" in line["value"]
    assert "too large" in line["log_degraded"]["value"]


def test_strings_cut_because_they_are_too_large_together_begin_as_they_did(
    opened: Callable[..., Log], log_path: Path
) -> None:
    log = opened(max_record_bytes=LIMIT)
    log.info("m", one="begin" + "x" * 3000, two="begin" + "y" * 3000)
    log.close()
    (line,) = user_lines(log_path)
    assert (line["one"][:6], line["two"][:6]) == ("beginx", "beginy")


def test_cutting_never_makes_a_line_longer(opened: Callable[..., Log], log_path: Path) -> None:
    fields = {f"f{number}": number for number in range(3000)}
    log = opened(max_record_bytes=LIMIT)
    log.info("m", **fields)
    log.close()
    (line,) = user_lines(log_path)
    assert len(json.dumps(line)) < len(json.dumps(fields)) + ROOM


def test_small_fields_survive_beside_a_large_one(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_record_bytes=LIMIT)
    log.info("m", before=1, value=LONG, after="two")
    log.close()
    (line,) = user_lines(log_path)
    assert (line["before"], line["after"]) == (1, "two")


def test_record_of_exactly_the_limit_is_not_cut(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_record_bytes=LIMIT)
    log.info("m", v="x" * (LIMIT - len('{"v":""}') - len("m")))
    log.close()
    assert "log_degraded" not in user_lines(log_path)[0]


# -- the moment of the call --------------------------------------------------------------------------------------------


def test_change_after_the_call_does_not_show(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(flush_interval_s=10)
    numbers, table, data, record = [1], {"a": {"b": 1}}, Data([1]), Record([1])
    log.info("m", numbers=numbers, table=table, data=data, record=record)
    numbers.append(2)
    table["a"]["b"] = 2
    data.value.append(2)
    record.value.append(2)
    log.close()
    assert user_fields(user_lines(log_path)[0]) == {
        "numbers": [1],
        "table": {"a": {"b": 1}},
        "data": {"value": [1]},
        "record": {"value": [1]},
    }


def test_change_after_bind_does_not_show(channel: Channel) -> None:
    numbers = [1]
    log = channel.log.bind(numbers=numbers)
    numbers.append(2)
    log.info("m")
    assert channel.new_lines()[0]["numbers"] == [1]


CHANGED_WHILE_ENCODED = """
import gc, sys
from amsha_async_log import open_log

class Changing(Exception):
    def __init__(self, change):
        self.change = change
    def __str__(self):
        self.change()
        gc.collect()
        self.junk = ["FOREIGN" * 10 for _ in range(2000)]
        return "changed"

def of_list(change="clear"):
    value = []
    value += [Changing(value.clear)] + [f"item {n}" for n in range(2000)]
    return value

def of_set():
    value = set()
    value |= {Changing(value.clear)} | {f"item {n}" for n in range(2000)}
    return value

def of_dict():
    value = {}
    value["first"] = Changing(value.clear)
    value.update({f"key {n}": f"item {n}" for n in range(2000)})
    return value

def growing_dict():
    value = {}
    value["first"] = Changing(lambda: value.update({f"new {n}": n for n in range(2000)}))
    value["last"] = 1
    return value

def growing_list():
    value = [1]
    value.append(Changing(lambda: value.append(value[1])))
    return value

def inner_list():
    outer = []
    outer.append([Changing(outer.clear)] + [f"item {n}" for n in range(2000)])
    return outer

make = globals()[sys.argv[2]]
with open_log(sys.argv[1], console=False) as log:
    for _ in range(20):
        log.info("m", value=make())
    assert log.stats().offered == 20
"""


@pytest.mark.parametrize("kind", ["of_list", "of_set", "of_dict", "growing_dict", "growing_list", "inner_list"])
def test_container_that_changes_while_it_is_encoded_shows_no_foreign_memory(log_path: Path, kind: str) -> None:
    run_python(CHANGED_WHILE_ENCODED, log_path, kind)
    user_lines(log_path)
    assert b"FOREIGN" not in log_path.read_bytes()


CHANGED_BY_ANOTHER_THREAD = """
import sys, threading
from pathlib import PurePosixPath
from amsha_async_log import open_log

sys.setswitchinterval(1e-6)
shared_list, shared_dict, done = [], {}, threading.Event()

def change():
    while not done.is_set():
        shared_list.extend([PurePosixPath(f"/a/{n}") for n in range(50)])
        shared_dict.update({f"{n}": PurePosixPath(f"/a/{n}") for n in range(50)})
        shared_list.clear()
        shared_dict.clear()

with open_log(sys.argv[1], console=False) as log:
    other = threading.Thread(target=change)
    other.start()
    for _ in range(3000):
        log.info("m", files=shared_list, table=shared_dict)
    done.set()
    other.join()
    stats = log.stats()
    assert stats.offered == stats.accepted == 3000, stats
"""


def test_container_that_another_thread_changes_makes_valid_lines(log_path: Path) -> None:
    run_python(CHANGED_BY_ANOTHER_THREAD, log_path)
    assert len(user_lines(log_path)) == 3000


NAMELESS = """
import sys
from amsha_async_log import open_log

class NoName(type):
    @property
    def __name__(cls):
        raise ValueError("name")
    def __repr__(cls):
        raise ValueError("repr")

class Nameless(metaclass=NoName):
    def __repr__(self):
        raise ValueError("repr")

with open_log(sys.argv[1], console=False) as log:
    assert log.info("m", value=Nameless(), after=1)
    assert log.info(Nameless(), after=1)
    assert log.info("%s", Nameless(), after=1)
"""


def test_object_whose_class_has_no_name_is_marked(log_path: Path) -> None:
    run_python(NAMELESS, log_path)  # in a process of its own, since such an object breaks the test runner's report
    assert [line["after"] for line in user_lines(log_path)] == [1, 1, 1]


def test_degraded_counts_once_where_a_batch_is_encoded_again_for_a_new_segment(
    opened: Callable[..., Log], log_path: Path
) -> None:
    class Small(msgspec.Struct):
        value: float

    log = opened(max_bytes=8192, backup_count=0, flush_interval_s=10)
    log.emit(Small(1.0))
    for _ in range(300):
        assert log.emit(Small(NAN))
    assert log.close().ok
    assert log.stats().degraded == 300
    assert len(list(log_path.parent.glob("*.jsonl"))) > 1


# -- anything at all ---------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
ANY_TEXT = st.text(st.characters(), max_size=10)
OWN_NAMES = ANY_TEXT.filter(lambda name: name.rstrip("_") not in {*ENVELOPE, "log_degraded"})
PLAIN_NAMES = TEXT.filter(lambda name: name not in {*ENVELOPE, "log_degraded"})
ODD_KEYS = st.none() | st.booleans() | st.integers(0, 3) | st.floats() | ANY_TEXT | st.binary(max_size=3)
POISON = st.sampled_from([make for name, make in MARKED.items() if name not in LARGE | NOT_EVEN_TO_BE_GENERATED]).map(
    lambda make: make()
)
ODD = st.sampled_from([make for make, _ in KEPT.values()]).map(lambda make: make())
ANY_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        ANY_TEXT,
        st.binary(max_size=10),
        st.datetimes(),
        st.timedeltas(),
        st.uuids(),
        ODD,
        POISON,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(ODD_KEYS, inner, max_size=4),
        inner.map(Data),
        inner.map(Record),
        inner.map(Attrs),
        inner.map(lambda value: collections.deque([value])),
    ),
    max_leaves=12,
)


@ENOUGH
@given(value=ANY_VALUES)
def test_any_value_makes_exactly_one_valid_line(channel: Channel, value: Any) -> None:
    assert channel.log.info("m", value=value, after=1)
    (line,) = channel.new_lines()
    assert line["after"] == 1


@ENOUGH
@given(fields=st.dictionaries(OWN_NAMES, ANY_VALUES, max_size=5))
def test_any_fields_make_exactly_one_valid_line(channel: Channel, fields: dict[str, Any]) -> None:
    assert channel.log.info("m", extra=fields)
    (line,) = channel.new_lines()
    assert len(user_fields(line)) - ("log_degraded" in line) == len(fields)


@ENOUGH
@given(value=ANY_VALUES)
def test_any_value_in_a_typed_event_makes_exactly_one_valid_line(channel: Channel, value: Any) -> None:
    assert channel.log.emit(Record(value))
    assert len(channel.new_lines()) == 1


@ENOUGH
@given(message=st.text(st.characters()), fields=st.dictionaries(ANY_TEXT, JSON_VALUES, max_size=3))
def test_any_bound_fields_make_exactly_one_valid_line(channel: Channel, message: str, fields: dict[str, Any]) -> None:
    assert channel.log.bind(**fields).info(message)
    assert len(channel.new_lines()) == 1


@ENOUGH
@given(value=JSON_VALUES)
def test_json_value_comes_back_exactly(channel: Channel, value: Any) -> None:
    assert channel.log.info("m", value=value)
    (line,) = channel.new_lines()
    assert repr(line["value"]) == repr(value)
    assert "log_degraded" not in line


@ENOUGH
@given(message=TEXT, fields=st.dictionaries(PLAIN_NAMES, JSON_VALUES, max_size=5))
def test_message_and_fields_come_back_exactly(channel: Channel, message: str, fields: dict[str, Any]) -> None:
    assert channel.log.info(message, extra=fields)
    (line,) = channel.new_lines()
    assert line["message"] == message
    assert user_fields(line) == fields


@ENOUGH
@given(value=ANY_VALUES)
def test_line_with_a_mark_names_its_field_and_is_counted(channel: Channel, value: Any) -> None:
    before = channel.log.stats().degraded
    channel.log.info("m", value=value)
    (line,) = channel.new_lines()
    assert line.get("log_degraded", {}).keys() <= {"value"}
    assert channel.log.stats().degraded - before == ("log_degraded" in line)


@ENOUGH
@given(value=ANY_VALUES, data=st.data())
def test_no_value_is_changed_by_logging_it(channel: Channel, value: Any, data: st.DataObject) -> None:
    kept = [value, {"inner": value}]
    channel.log.info("m", value=kept)
    assert kept[0] is value
    assert kept[1]["inner"] is value


def test_negative_zero_and_the_smallest_float_come_back_exactly(channel: Channel) -> None:
    channel.log.info("m", values=[-0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
    (line,) = channel.new_lines()
    assert [value.hex() for value in line["values"]] == [
        value.hex() for value in (-0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2)
    ]
    assert math.copysign(1, line["values"][0]) == -1
