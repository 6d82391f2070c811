"""What `exc_info` puts on a line: type, message and a structured stack trace, without reading a file in the call."""

import asyncio
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support import run_python, user_fields, user_lines

from amsha_async_log._pipeline import Log

LOCAL_SECRET = "local-variable-that-nobody-logged"


def fail(message: str = "why") -> NoReturn:
    raise ValueError(message)


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture
def lines_of(opened: Callable[..., Log], log_path: Path) -> Callable[[Callable[[Log], object]], list[dict[str, Any]]]:
    """Opens a log, lets a function write to it, and returns the lines."""

    def run(write: Callable[[Log], object]) -> list[dict[str, Any]]:
        with opened() as log:
            assert write(log)
        return user_lines(log_path)

    return run


@pytest.fixture
def line_of(
    lines_of: Callable[[Callable[[Log], object]], list[dict[str, Any]]],
) -> Callable[[Any], dict[str, Any]]:
    """The one line that an exception given as `exc_info` makes."""

    def run(exc_info: Any, **fields: Any) -> dict[str, Any]:
        (line,) = lines_of(lambda log: log.error("failed", exc_info=exc_info, **fields))
        return line

    return run


LineOf = Callable[..., dict[str, Any]]
LinesOf = Callable[[Callable[[Log], object]], list[dict[str, Any]]]


# -- ways to give one --------------------------------------------------------------------------------------------------


def test_true_takes_the_exception_being_handled(lines_of: LinesOf) -> None:
    def write(log: Log) -> bool:
        try:
            fail()
        except ValueError:
            return log.error("failed", exc_info=True)  # noqa: G201

    (line,) = lines_of(write)
    assert (line["error_type"], line["error_message"]) == ("ValueError", "why")


def test_exception_method_takes_the_exception_being_handled_at_level_error(lines_of: LinesOf) -> None:
    def write(log: Log) -> bool:
        try:
            fail()
        except ValueError:
            return log.exception("failed", more=1)

    (line,) = lines_of(write)
    assert (line["level"], line["error_type"], line["more"]) == ("ERROR", "ValueError", 1)


def test_exception_method_takes_the_exception_given(lines_of: LinesOf) -> None:
    (line,) = lines_of(lambda log: log.exception("failed", exc_info=KeyError("k")))  # noqa: LOG004
    assert line["error_type"] == "KeyError"


def test_exception_may_be_given_itself(line_of: LineOf) -> None:
    line = line_of(caught(fail))
    assert (line["error_type"], line["error_message"]) == ("ValueError", "why")


def test_tuple_of_sys_exc_info_may_be_given(line_of: LineOf) -> None:
    error = caught(fail)
    line = line_of((type(error), error, error.__traceback__))
    assert (line["error_type"], line["error_message"]) == ("ValueError", "why")


@pytest.mark.parametrize("nothing", [None, False, (None, None, None), True, ()])
def test_without_an_exception_the_line_has_no_error_fields(line_of: LineOf, nothing: Any) -> None:
    assert user_fields(line_of(nothing, more=1)) == {"more": 1}


@pytest.mark.parametrize("wrong", ["text", 5, ["x"], object(), ValueError])
def test_what_is_no_exception_raises_nothing_and_keeps_the_line(line_of: LineOf, wrong: Any) -> None:
    assert line_of(wrong, more=1)["more"] == 1


def test_log_method_passes_exception_and_extra_on(lines_of: LinesOf) -> None:
    (line,) = lines_of(lambda log: log.log("warning", "w", exc_info=caught(fail), extra={"a": 1}))
    assert (line["level"], line["error_type"], line["a"]) == ("WARNING", "ValueError", 1)


def test_exception_that_was_never_raised_has_no_frames(line_of: LineOf) -> None:
    assert line_of(ValueError("why"))["stacktrace"] == {"type": "ValueError", "message": "why", "frames": []}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError("stop")])
def test_exception_that_is_no_exception_subclass_is_shown_too(line_of: LineOf, error: BaseException) -> None:
    assert line_of(error)["error_type"] == type(error).__name__


# -- shape -------------------------------------------------------------------------------------------------------------


def test_frames_go_from_the_outermost_in_with_file_line_function_and_code(line_of: LineOf) -> None:
    outer, inner = line_of(caught(fail))["stacktrace"]["frames"]
    assert outer["function"] == "caught"
    assert outer["code"] == "function()"
    assert inner == {
        "file": __file__,
        "line": fail.__code__.co_firstlineno + 1,
        "function": "fail",
        "code": "raise ValueError(message)",
    }


def test_frame_of_a_method_has_its_qualified_name(line_of: LineOf) -> None:
    class Agent:
        def act(self) -> NoReturn:
            fail()

    functions = [frame["function"] for frame in line_of(caught(Agent().act))["stacktrace"]["frames"]]
    assert functions[1].endswith("Agent.act")


def test_frame_without_source_has_no_code_line(line_of: LineOf) -> None:
    compiled = compile("1 / 0", "<generated>", "exec")
    frame = line_of(caught(lambda: exec(compiled, {})))["stacktrace"]["frames"][-1]
    assert frame == {"file": "<generated>", "line": 1, "function": "<module>"}


def test_code_of_a_file_that_is_gone_is_left_out(line_of: LineOf, tmp_path: Path) -> None:
    source = tmp_path / "gone.py"
    source.write_text("raise RuntimeError('x')\n")
    compiled = compile(source.read_text(), str(source), "exec")
    error = caught(lambda: exec(compiled, {}))
    source.unlink()
    assert line_of(error)["stacktrace"]["frames"][-1] == {"file": str(source), "line": 1, "function": "<module>"}


def test_code_that_is_not_utf8_raises_nothing(line_of: LineOf, tmp_path: Path) -> None:
    source = tmp_path / "latin.py"
    source.write_bytes(b"# coding: latin-1\nraise RuntimeError('\xe9')\n")
    compiled = compile(source.read_bytes(), str(source), "exec")
    source.write_bytes(b"# \xff\xfe\nraise RuntimeError('\xe9')\n")
    error = caught(lambda: exec(compiled, {}))
    assert line_of(error)["error_type"] == "RuntimeError"


def test_file_name_with_a_lone_surrogate_makes_a_valid_line(line_of: LineOf) -> None:
    compiled = compile("1 / 0", "caf\udce9.py", "exec")
    frame = line_of(caught(lambda: exec(compiled, {})))["stacktrace"]["frames"][-1]
    assert frame["file"] == "caf\\udce9.py"


def test_notes_are_kept(line_of: LineOf) -> None:
    error = caught(fail)
    error.add_note("while asking the model")
    error.add_note("second")
    assert line_of(error)["stacktrace"]["notes"] == ["while asking the model", "second"]


@pytest.mark.parametrize("notes", [None, 5, ["text", 5, None, "\ud800"], "text", []])
def test_odd_notes_raise_nothing(line_of: LineOf, notes: Any) -> None:
    error = caught(fail)
    error.__notes__ = notes
    assert line_of(error)["error_type"] == "ValueError"


def test_fields_of_the_call_stand_beside_those_of_the_exception(line_of: LineOf) -> None:
    assert line_of(caught(fail), attempt=2)["attempt"] == 2


def test_error_type_and_message_of_the_caller_win(line_of: LineOf) -> None:
    line = line_of(caught(fail), error_type="Mine", error_message="mine")
    assert (line["error_type"], line["error_message"]) == ("Mine", "mine")


def test_stacktrace_of_the_caller_is_on_the_line_once(line_of: LineOf) -> None:
    line = line_of(caught(fail), stacktrace="mine")  # a key that occurred twice would not have been read
    assert "mine" in line.values()


def test_bound_stacktrace_is_on_the_line_once(lines_of: LinesOf) -> None:
    (line,) = lines_of(lambda log: log.bind(stacktrace="mine").error("failed", exc_info=caught(fail)))
    assert line["error_type"] == "ValueError"


# -- chains and groups -------------------------------------------------------------------------------------------------


def raise_from_cause() -> None:
    try:
        fail("first")
    except ValueError as error:
        raise RuntimeError("second") from error


def raise_in_context() -> None:
    try:
        fail("first")
    except ValueError:
        raise RuntimeError("second")


def raise_from_none() -> None:
    try:
        fail("first")
    except ValueError:
        raise RuntimeError("second") from None


def test_cause_is_kept_with_its_frames(line_of: LineOf) -> None:
    trace = line_of(caught(raise_from_cause))["stacktrace"]
    assert (trace["type"], trace["cause"]["type"], trace["cause"]["message"]) == ("RuntimeError", "ValueError", "first")
    assert trace["cause"]["frames"][-1]["code"] == "raise ValueError(message)"
    assert "context" not in trace


def test_context_is_kept(line_of: LineOf) -> None:
    trace = line_of(caught(raise_in_context))["stacktrace"]
    assert (trace["context"]["message"], "cause" in trace) == ("first", False)


def test_context_suppressed_with_from_none_is_left_out(line_of: LineOf) -> None:
    trace = line_of(caught(raise_from_none))["stacktrace"]
    assert {"cause", "context"}.isdisjoint(trace)


def test_cause_whose_truth_value_raises_is_kept(line_of: LineOf) -> None:
    class Unsure(Exception):
        def __bool__(self) -> bool:
            raise RuntimeError("no truth value")

    error = RuntimeError("second")
    error.__cause__ = Unsure("first")
    assert line_of(error)["stacktrace"]["cause"]["type"] == "Unsure"


def test_cause_that_counts_as_false_is_kept(line_of: LineOf) -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    error = RuntimeError("second")
    error.__cause__ = Empty("first")
    assert line_of(error)["stacktrace"]["cause"]["type"] == "Empty"


def test_circular_chain_ends(line_of: LineOf) -> None:
    first, second = ValueError("first"), RuntimeError("second")
    first.__context__, second.__context__ = second, first
    trace = line_of(first)["stacktrace"]
    assert trace["context"]["type"] == "RuntimeError"
    assert "context" not in trace["context"]


def test_long_chain_is_bounded(line_of: LineOf) -> None:
    error = ValueError("0")
    for number in range(1, 5_000):
        later = ValueError(str(number))
        later.__cause__ = error
        error = later
    line = line_of(error)
    assert line["error_message"] == "4999"
    assert len(str(line)) < 10_000


def test_group_has_its_exceptions_nested(line_of: LineOf) -> None:
    inner = ExceptionGroup("inner", [caught(fail), TypeError("t")])
    trace = line_of(ExceptionGroup("outer", [inner, KeyError("k")]))["stacktrace"]
    assert trace["type"] == "ExceptionGroup"
    assert [each["type"] for each in trace["exceptions"]] == ["ExceptionGroup", "KeyError"]
    assert [each["type"] for each in trace["exceptions"][0]["exceptions"]] == ["ValueError", "TypeError"]
    assert trace["exceptions"][0]["exceptions"][0]["frames"][-1]["code"] == "raise ValueError(message)"


def test_group_of_a_task_group_is_shown_with_what_failed(line_of: LineOf) -> None:
    async def crew() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(agent("a"))
            group.create_task(agent("b"))

    async def agent(name: str) -> None:
        fail(name)

    trace = line_of(caught(lambda: asyncio.run(crew())))["stacktrace"]
    assert [each["message"] for each in trace["exceptions"]] == ["a", "b"]


def test_group_deep_in_itself_is_bounded(line_of: LineOf) -> None:
    group: Exception = ValueError("core")
    for _ in range(100):
        group = ExceptionGroup("g", [group])
    assert len(str(line_of(group))) < 10_000


def test_wide_group_is_bounded_and_says_how_much_is_left_out(line_of: LineOf) -> None:
    trace = line_of(ExceptionGroup("wide", [ValueError(str(number)) for number in range(1_000)]))["stacktrace"]
    assert len(trace["exceptions"]) <= 65
    assert "936" in str(trace)


def test_same_exception_twice_in_a_group_is_shown_once_in_full(line_of: LineOf) -> None:
    error = caught(fail)
    trace = line_of(ExceptionGroup("twice", [error, error]))["stacktrace"]
    assert [each["type"] for each in trace["exceptions"]][:1] == ["ValueError"]


# -- hostile ones ------------------------------------------------------------------------------------------------------


def test_endless_recursion_is_bounded_and_says_how_many_frames_are_left_out(line_of: LineOf) -> None:
    def endless() -> None:
        endless()

    frames = line_of(caught(endless))["stacktrace"]["frames"]
    assert len(frames) <= 65
    omitted = [frame["omitted"] for frame in frames if "omitted" in frame]
    assert len(omitted) == 1
    assert omitted[0] + len(frames) - 1 > 500
    assert frames[0]["function"] == "caught"
    assert frames[-1]["function"].endswith("endless")


def test_number_of_omitted_frames_is_exact(line_of: LineOf) -> None:
    def descend(depth: int) -> None:
        if depth:
            descend(depth - 1)
        fail()

    frames = line_of(caught(lambda: descend(300)))["stacktrace"]["frames"]
    kept = [frame for frame in frames if "omitted" not in frame]
    (omitted,) = [frame["omitted"] for frame in frames if "omitted" in frame]
    assert len(kept) + omitted == 304  # caught, the lambda, 301 times descend, fail


def test_trace_of_64_frames_is_whole(line_of: LineOf) -> None:
    def descend(depth: int) -> None:
        if depth:
            descend(depth - 1)
        fail()

    frames = line_of(caught(lambda: descend(60)))["stacktrace"]["frames"]
    assert len(frames) == 64
    assert all("file" in frame for frame in frames)


class RaisingStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("in str")


class StrIsNoStr(Exception):
    def __str__(self) -> str:
        return 5  # noqa: PLE0307


class RaisingNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("in notes")


class RaisingCause(Exception):
    @property
    def __cause__(self) -> None:
        raise RuntimeError("in cause")


class RaisingTraceback(Exception):
    @property
    def __traceback__(self) -> None:
        raise RuntimeError("in traceback")


class RaisingAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class SubclassedStr(str):
    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError("in encode")


class StrSubclass(Exception):
    def __str__(self) -> str:
        return SubclassedStr("text")


@pytest.mark.parametrize(
    "kind",
    [RaisingStr, StrIsNoStr, RaisingNotes, RaisingCause, RaisingTraceback, RaisingAttributes, StrSubclass],
)
def test_hostile_exception_still_gives_its_type_and_the_line(line_of: LineOf, kind: type[Exception]) -> None:
    line = line_of(kind(), more=1)
    assert (line["message"], line["error_type"], line["more"]) == ("failed", kind.__name__, 1)


def test_message_with_a_lone_surrogate_makes_a_valid_line(line_of: LineOf) -> None:
    assert line_of(ValueError("caf\udce9"))["error_message"] == "caf\\udce9"


def test_message_of_megabytes_is_cut_everywhere_on_the_line(line_of: LineOf) -> None:
    line = line_of(ValueError("x" * 5_000_000))
    assert len(str(line)) < 2 * 2**20


def test_no_local_variable_is_on_the_line(lines_of: LinesOf, log_path: Path) -> None:
    def crash(prompt: str) -> NoReturn:
        secret = LOCAL_SECRET + prompt
        _ = {"api_key": secret}
        fail()

    lines_of(lambda log: log.error("failed", exc_info=caught(lambda: crash("with-a-prompt"))))
    data = log_path.read_text()
    assert LOCAL_SECRET not in data
    assert "with-a-prompt" not in data.replace('crash(\\"with-a-prompt\\")', "")  # as written in the code of the caller


def test_logging_an_exception_does_not_keep_it_alive(opened: Callable[..., Log]) -> None:
    class Own(Exception):
        """Unlike the built-in ones it can be referred to weakly."""

    log = opened()
    error = Own("why")
    gone = weakref.ref(error)
    log.error("failed", exc_info=error)
    log.flush()
    del error
    assert gone() is None


# -- nothing is read in the call ---------------------------------------------------------------------------------------

NO_OPEN = """
import linecache, sys, threading
from amsha_async_log import open_log

opened_here, watched = [], threading.Event()
main = threading.get_ident()

def audit(event, args):
    if event == "open" and watched.is_set() and threading.get_ident() == main:
        opened_here.append(args)

def fail():
    raise ValueError("why")

import json.decoder
with open_log(sys.argv[1], console=False) as log:
    sys.addaudithook(audit)
    try:
        json.loads("")
    except ValueError as error:
        linecache.clearcache()
        watched.set()
        for _ in range(3):
            log.exception("failed")
            log.error("failed", exc_info=error)
            with_group = ExceptionGroup("g", [error])
            log.error("failed", exc_info=with_group)
        with_execution = log.execution("crew").__enter__()
        with_execution.__exit__(type(error), error, error.__traceback__)
        watched.clear()
assert not opened_here, opened_here
"""


def test_call_opens_no_file_and_the_code_lines_are_there_all_the_same(log_path: Path) -> None:
    run_python(NO_OPEN, log_path)
    lines = [line for line in user_lines(log_path) if "stacktrace" in line]
    assert len(lines) == 10
    for line in lines:
        trace = line["stacktrace"].get("exceptions", [line["stacktrace"]])[0]
        assert "raise JSONDecodeError" in trace["frames"][-1]["code"]


def test_code_line_comes_from_the_module_loader_where_there_is_no_file(line_of: LineOf) -> None:
    source = "def crash():\n    return missing_name\n"
    namespace: dict[str, Any] = {"__name__": "made", "__loader__": Loader(source)}
    exec(compile(source, "/nowhere/made.py", "exec"), namespace)
    assert line_of(caught(namespace["crash"]))["stacktrace"]["frames"][-1]["code"] == "return missing_name"


class Loader:
    """The least that `linecache` asks of a module's loader."""

    def __init__(self, source: str) -> None:
        self._source = source

    def get_source(self, name: str) -> str:
        return self._source


class RaisingLoader:
    def get_source(self, name: str) -> str:
        raise RuntimeError("in the loader")


def test_loader_that_raises_costs_the_code_line_only(opened: Callable[..., Log], log_path: Path) -> None:
    source = "def crash():\n    return missing_name\n"
    namespace: dict[str, Any] = {"__name__": "made", "__loader__": RaisingLoader()}
    exec(compile(source, "/nowhere/raising.py", "exec"), namespace)
    log = opened()
    log.info("before")
    log.error("failed", exc_info=caught(namespace["crash"]))
    log.info("after")
    report = log.close()
    assert (report.ok, report.failed) == (True, 0)
    assert [line["message"] for line in user_lines(log_path)] == ["before", "failed", "after"]


def test_sys_exc_info_is_unchanged_by_logging(lines_of: LinesOf) -> None:
    def write(log: Log) -> bool:
        try:
            fail()
        except ValueError as error:
            log.exception("failed", value=object())
            return sys.exc_info()[1] is error

    lines_of(write)
