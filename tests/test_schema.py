"""docs/schema.json: current, valid, true of every line that is written, and false of others; what it is made of."""

import importlib.util
import inspect
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from event_samples import KINDS, declared, full, least, tag
from msgspec import Struct
from support import read_lines

from amsha_async_log import events, log_execution, records
from amsha_async_log._pipeline import Log

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

TAGS = """
execution.started execution.state_changed execution.completed execution.failed execution.cancelled
step.started step.state_changed step.completed step.failed step.cancelled
metrics.execution llm.configured llm.call.completed llm.call.failed llm.call.retried llm.call.rate_limited
tool.call.completed tool.call.failed file.operation error.raised error.recovered config.changed
sample.host sample.process sample.cgroup sample.gpu sample.loop sample.loop_stalled sample.source_changed
metrics.attribution
""".split()
SHARED = {
    "string": """execution_id parent_execution_id crew_name model_name provider endpoint api_version selection_reason
        agent_name task_name tool_name step_id parent_step_id step_kind step_name operation function status state_from
        state_to recovery_action file_path validation_status error_type error_message trace_id""".split(),
    "integer": """max_tokens attempt max_retries prompt_tokens completion_tokens total_tokens cached_tokens
        reasoning_tokens file_size_bytes""".split(),
    "number": """temperature top_p duration_seconds cost_usd cpu_percent memory_mb memory_change_mb peak_memory_mb
        gpu_percent gpu_memory_mb energy_joules""".split(),
    "boolean": ["stream"],
    "object": ["stacktrace"],
    "anything": ["depends_on", "inputs", "outputs"],
}
OWN = [
    kind for kind in map(vars(records).get, records.__all__) if isinstance(kind, type) and kind is not records.Totals
]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=tag)


@pytest.fixture(scope="module")
def build_schema() -> ModuleType:
    """The script that makes the schema."""
    spec = importlib.util.spec_from_file_location("build_schema", DOCS / "build_schema.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def errors(line: dict[str, Any]) -> list[str]:
    """What is wrong with a line."""
    return [f"{line['event']}: {error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(line)]


def line_of(**fields: Any) -> dict[str, Any]:
    """A line as a log would write it."""
    envelope = {"event": "log", "timestamp": 1.5, "level": "INFO", "logger": "amsha", "writer": "k3f9a1c2", "seq": 1}
    return {**envelope, **fields}


# -- the file ----------------------------------------------------------------------------------------------------------


def test_schema_is_current(build_schema: ModuleType) -> None:
    assert build_schema.main(["--check"]) == 0


def test_check_fails_when_the_schema_is_not_current(
    build_schema: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_schema, "TARGET", tmp_path / "schema.json")
    assert build_schema.main(["--check"]) == 1
    assert "python docs/build_schema.py" in capsys.readouterr().err
    assert build_schema.main([]) == 0
    assert build_schema.main(["--check"]) == 0


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_reference_leads_somewhere() -> None:
    named = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert named == SCHEMA["$defs"].keys()


# -- lines that are written --------------------------------------------------------------------------------------------


def program(log: Log) -> None:
    """Every kind of line there is."""
    for kind in KINDS:
        log.emit(least(kind))
        log.emit(full(kind))
        log.emit(full(kind), beside={"any": [1]}, level="WARNING")
    with log.execution("crew", inputs={"a": 1}, depends_on=["e0"], attempt=2, max_retries=3, mode="async") as run:
        run.set_state("paused")
        run.set_state("running")
        with run.step("task", "summarise", agent_name="writer", attempt=1) as step:
            step.record_tokens(prompt_tokens=1, completion_tokens=2, cost_usd=0.5, cached_tokens=1)
            log.info("inside", total_tokens=3)
            for kind in KINDS:
                log.bind(tenant="acme").emit(full(kind))
        run.set_outputs([None])
    for error in (ValueError("why"), KeyboardInterrupt()):
        try:
            with log.execution("crew") as run, run.step("task", "fails"):
                raise error
        except BaseException:
            pass


def raising(log: Log) -> None:
    """Every shape of a stack trace."""
    deep: Any = None

    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        raise ValueError("bottom")

    try:
        try:
            recurse(100)
        except ValueError as error:
            error.add_note("noted")
            raise ExceptionGroup("group", [TypeError("one"), error]) from error
    except ExceptionGroup as error:
        deep = error
    log.error("raised", exc_info=deep)
    for kind in KINDS:
        log.emit(least(kind), exc_info=deep)


def calling(log: Log) -> None:
    """Functions that are logged."""
    for outcome in (None, ValueError("why"), KeyboardInterrupt()):

        @log_execution("operate", log=log)
        def operate(outcome: BaseException | None = outcome) -> None:
            if outcome is not None:
                raise outcome

        try:
            operate()
        except BaseException:
            pass


def odd(log: Log) -> None:
    """What has to be marked."""
    log.info("plain", bad=math.nan, worse=object())
    log.info("\ud800", bad="\ud800")
    log.info("%d", "no number")
    log.bind(bad=object()).info("bound")
    for kind in KINDS:
        for name, hint in declared(kind).items():
            log.emit(full(kind, **{name: math.nan if hint in (int, float) else "\ud800"}))


@pytest.mark.parametrize("lines", [program, raising, calling, odd])
def test_every_line_that_is_written_is_valid(
    opened: Callable[..., Log], log_path: Path, lines: Callable[[Log], None]
) -> None:
    with opened(level="DEBUG") as log:
        lines(log)
    written = read_lines(log_path)
    assert len(written) > 5
    assert [error for line in written for error in errors(line)] == []


def test_lines_about_losses_and_rotation_are_valid(opened: Callable[..., Log], log_path: Path) -> None:
    log_path.write_bytes(b'{"event":"log","torn')
    with opened(max_queue_size=64, flush_interval_s=10, max_bytes=20_000) as log:
        for number in range(2_000):
            log.info("much", number=number)
    found = [line for path in log_path.parent.glob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    lines = [json.loads(line) for line in found if not line.endswith(b"torn")]
    assert {line["event"] for line in lines} >= {"log.dropped", "log.recovered", "log.segment_closed", "log.closed"}
    assert [error for line in lines for error in errors(line)] == []


@pytest.mark.parametrize("kind", [records.LogSinkFailed, records.LogSinkRecovered], ids=tag)
def test_lines_about_a_broken_file_are_valid(kind: type[Struct]) -> None:
    values = {
        "error_type": "OSError",
        "error_message": "no space",
        "since": 1.5,
        "duration_seconds": 0.5,
        "attempts": 2,
    }
    fields = {name: values[name] for name in kind.__struct_fields__}
    assert errors(line_of(event=tag(kind), message="cannot write", **fields)) == []


@pytest.mark.parametrize(
    "line",
    [
        line_of(message="plain"),
        line_of(message="plain", duration_seconds="soon", nested={"a": [1]}),
        line_of(event="mine", count=1),
        line_of(event="log.of_a_newer_version", message="new"),
        line_of(event="file.operation", operation="save", file_path="x", status="success", more=[1]),
        line_of(event="file.operation", operation="save", file_path="NaN", log_degraded={"file_path": "not finite"}),
    ],
    ids=["plain", "fields", "own event", "newer", "additional", "degraded"],
)
def test_line_is_valid(line: dict[str, Any]) -> None:
    assert errors(line) == []


@pytest.mark.parametrize(
    "line",
    [
        line_of(),
        line_of(message=5),
        line_of(message="m", level="LOUD"),
        line_of(message="m", seq=0),
        line_of(message="m", seq="1"),
        line_of(message="m", writer="short"),
        line_of(message="m", timestamp="2026-01-02"),
        line_of(message="m", execution_id=5),
        line_of(message="m", stacktrace="Traceback"),
        line_of(message="m", stacktrace={"frames": [{"file": "x.py"}]}),
        line_of(message="m", log_degraded=["field"]),
        line_of(event="file.operation", operation="save", file_path="x"),
        line_of(event="file.operation", operation="save", file_path="x", status="success", message="m"),
        line_of(event="llm.call.completed", prompt_tokens="many"),
        line_of(event="llm.call.completed", stream=1),
        line_of(event="execution.started"),
        line_of(event="execution.completed", status="completed", duration_seconds=None),
        line_of(event="log.closed", message="closed"),
    ],
    ids=str,
)
def test_wrong_line_is_not_valid(line: dict[str, Any]) -> None:
    assert errors(line) != []


@pytest.mark.parametrize("key", [name for name in line_of() if name != "event"])
def test_line_without_a_key_of_the_envelope_is_not_valid(key: str) -> None:
    line = line_of(message="m")
    del line[key]
    assert errors(line) != []


# -- what it is made of ------------------------------------------------------------------------------------------------


def test_events_are_those_of_the_format() -> None:
    assert sorted(map(tag, KINDS)) == sorted(TAGS)


@each_kind
def test_class_is_named_as_its_tag(kind: type[Struct]) -> None:
    assert kind.__name__ == "".join(word.capitalize() for word in re.split(r"[._]", tag(kind)))


@each_kind
def test_every_event_is_described_under_its_name(kind: type[Struct]) -> None:
    assert SCHEMA["$defs"][kind.__name__]["properties"]["event"] == {"const": tag(kind)}


@pytest.mark.parametrize("kind", OWN, ids=tag)
def test_every_line_of_the_log_itself_is_described(kind: type[Struct]) -> None:
    assert SCHEMA["$defs"][kind.__name__]["properties"]["event"] == {"const": tag(kind)}


def types_of(name: str) -> set[str]:
    """The types a property has, wherever it is one; null left aside."""
    places = [SCHEMA, *(SCHEMA["$defs"][kind.__name__] for kind in KINDS)]
    found: set[str] = set()
    for place in places:
        about = place["properties"].get(name)
        if about is not None:
            about = SCHEMA["$defs"][about["$ref"].rpartition("/")[2]] if "$ref" in about else about
            kinds = about.get("type", "anything")
            found |= {kinds} if isinstance(kinds, str) else set(kinds)
    return found - {"null"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SHARED.items() for name in names])
def test_shared_name_has_one_type_everywhere(kind: str, name: str) -> None:
    assert types_of(name) == {kind}


def test_no_name_has_two_types() -> None:
    names = {name for kind in KINDS for name in declared(kind)}
    assert {name: types_of(name) for name in names if len(types_of(name)) != 1} == {}


def test_everything_has_a_description() -> None:
    lacking = [name for name, about in SCHEMA["$defs"].items() if not about.get("description")]
    for name, about in [("", SCHEMA), *SCHEMA["$defs"].items()]:
        for key, value in about.get("properties", {}).items():
            described = isinstance(value, dict) and (value.get("description") or "$ref" in value)
            if not described and key != "event" and value is not False:
                lacking.append(f"{name}.{key}")
    assert lacking == []


@pytest.mark.parametrize("kind", [*KINDS, *OWN, records.Totals], ids=lambda kind: kind.__name__)
def test_every_field_has_a_docstring_of_a_sentence(build_schema: ModuleType, kind: type[Struct]) -> None:
    texts = build_schema.docstrings(kind)
    assert [name for name in kind.__struct_fields__ if not texts.get(name, "").endswith((".", "..."))] == []


@each_kind
def test_every_event_says_when_it_is_written(kind: type[Struct]) -> None:
    assert re.search(r"\b([Ee]mit (it|one)|Written by)\b", inspect.getdoc(kind) or "")


@each_kind
def test_only_events_of_scalars_are_hidden_from_the_garbage_collector(kind: type[Struct]) -> None:
    scalars = set(declared(kind).values()) <= {str, int, float, bool}
    assert kind.__struct_config__.gc or scalars


@each_kind
def test_fields_with_a_unit_in_their_name_say_it(kind: type[Struct]) -> None:
    properties = SCHEMA["$defs"][kind.__name__]["properties"]
    ends = ("_seconds", "_bytes", "_mb", "_usd", "_percent", "_joules", "_watts", "_celsius", "_tokens")
    assert [name for name in properties if name.endswith(ends) and not properties[name].get("unit")] == []


def test_events_of_the_package_are_all_described() -> None:
    assert {name for name in events.__all__ if name[0].isupper()} <= SCHEMA["$defs"].keys()
