"""Where a call comes from, told to child processes and over HTTP."""

import asyncio
import http.client
import http.server
import multiprocessing
import re
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spawned import log_a_step
from support import Lines

from amsha_async_log import current_execution, reader
from amsha_async_log._context import CURRENT, ROOT
from amsha_async_log._pipeline import Log
from amsha_async_log._propagation import Origin, read_origin, trace_id_of, write_origin

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


# -- the carrier -------------------------------------------------------------------------------------------------------


def test_nothing_is_written_outside_of_an_execution(log: Log) -> None:
    assert log.inject({}) == {}


def test_execution_and_step_are_written_with_a_valid_traceparent(log: Log) -> None:
    with log.execution("crew") as run, run.step("task", "t") as step:
        carrier = log.inject({"other": "kept"})
    parent = carrier.pop("traceparent")
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent)
    assert parent.split("-")[1] == uuid.UUID(run.execution_id).hex
    assert parent.split("-")[2] == step.step_id.replace("-", "")[-16:]
    assert carrier == {
        "other": "kept",
        "amsha-execution-id": run.execution_id,
        "amsha-step-id": step.step_id,
        "amsha-crew-name": "crew",
    }


def test_inject_gives_the_mapping_back(log: Log) -> None:
    headers: dict[str, str] = {}
    assert log.inject(headers) is headers


def test_inner_execution_has_the_trace_of_the_outer_one(log: Log, lines: Lines) -> None:
    with log.execution("outer") as outer, log.execution("inner") as inner:
        carrier = log.inject({})
    assert inner.trace_id == outer.trace_id == carrier["traceparent"].split("-")[1]
    assert [line["trace_id"] for line in lines() if line["event"] == "execution.started"] == [outer.trace_id] * 2


@pytest.mark.parametrize(
    "name",
    ["crew", "crew one", " crew ", "crêpe €", "a,b;c=d", "100%", "日本", "a\u00a0b", "👩\u200d💻", "\n", "a\udcffb"],
)
def test_carrier_is_ascii_and_read_back_as_it_was(name: str) -> None:
    carrier: dict[str, str] = {}
    write_origin(Origin(TRACE, "e " + name.strip(), "s", name), carrier)
    assert all(value.isascii() and value.isprintable() for value in carrier.values())
    read = read_origin(carrier)
    if name == "\n":  # control characters are not believed
        assert (read.trace_id, read.crew_name) == (TRACE, "")
    elif "\udcff" in name:
        assert read.crew_name == "a\\udcffb"
    else:
        assert (read.execution_id, read.crew_name) == ("e " + name.strip(), name)


@given(
    execution_id=st.text(min_size=1, max_size=40).filter(lambda t: not any(c < " " or "\x7f" <= c < "\xa0" for c in t)),
    step_id=st.text(max_size=40).filter(lambda t: not any(c < " " or "\x7f" <= c < "\xa0" for c in t)),
    crew=st.text(max_size=40).filter(lambda t: not any(c < " " or "\x7f" <= c < "\xa0" for c in t)),
)
def test_any_printable_ids_are_read_back_as_they_were(execution_id: str, step_id: str, crew: str) -> None:
    origin = Origin(trace_id_of(execution_id), execution_id, step_id, crew)
    carrier: dict[str, str] = {}
    write_origin(origin, carrier)
    assert read_origin(carrier) == origin


@pytest.mark.parametrize(
    "carrier",
    [
        {"TRACEPARENT": PARENT, "AMSHA_EXECUTION_ID": "e1", "AMSHA_CREW_NAME": "c"},
        {"Traceparent": PARENT, "Amsha-Execution-Id": "e1", "Amsha-Crew-Name": "c"},
        [("traceparent", PARENT), ("amsha-execution-id", "e1"), ("amsha-crew-name", "c")],
        [(b"traceparent", PARENT.encode()), (b"amsha-execution-id", b"e1"), (b"amsha-crew-name", b"c")],
    ],
    ids=["environment", "headers", "pairs", "bytes"],
)
def test_every_form_of_headers_is_read(carrier: Any) -> None:
    assert read_origin(carrier) == Origin(TRACE, "e1", "", "c")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT + "0",
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        PARENT + "-more",
        PARENT.replace("4bf9", "4bg9"),
    ],
)
def test_malformed_traceparent_counts_as_absent(parent: str) -> None:
    assert read_origin({"traceparent": parent}) == Origin()


@pytest.mark.parametrize("parent", [PARENT.upper(), f" {PARENT} ", f"01-{TRACE}-00f067aa0ba902b7-01-extra"])
def test_traceparent_of_another_case_or_a_later_version_is_read(parent: str) -> None:
    assert read_origin({"traceparent": parent}).trace_id == TRACE


@pytest.mark.parametrize("value", ["", "x" * 600, "a\nb", "\x1b[31m", "%0A", "%00"])
def test_id_that_is_too_long_or_not_printable_counts_as_absent(value: str) -> None:
    assert read_origin({"traceparent": PARENT, "amsha-execution-id": value}) == Origin(TRACE)


class Raises(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("carrier", [None, 5, "text", object(), Raises(), [1, 2], [("a",)], {1: 2, "traceparent": 3}])
def test_carrier_that_is_none_says_nothing(log: Log, carrier: Any) -> None:
    with log.extract(carrier) as run:
        assert run is None
    assert CURRENT.get() is ROOT


@pytest.mark.parametrize("execution_id", ["run-1", "0" * 32, "00000000-0000-0000-0000-000000000000", "é", "x" * 1000])
def test_trace_of_an_id_that_is_no_uuid_is_valid_and_stable(execution_id: str) -> None:
    trace = trace_id_of(execution_id)
    assert re.fullmatch(r"[0-9a-f]{32}", trace)
    assert trace.strip("0")
    assert trace == trace_id_of(execution_id)


# -- what holds inside -------------------------------------------------------------------------------------------------


def test_lines_inside_carry_the_ids_that_were_sent(log: Log, lines: Lines) -> None:
    with log.extract(
        {"traceparent": PARENT, "amsha-execution-id": "e1", "amsha-step-id": "s1", "amsha-crew-name": "c"}
    ):
        log.info("inside")
    log.info("outside")
    inside, outside = lines()
    assert (inside["execution_id"], inside["crew_name"], inside["step_id"], inside["trace_id"]) == (
        "e1",
        "c",
        "s1",
        TRACE,
    )
    assert "execution_id" not in outside


def test_trace_without_an_execution_is_carried_too(log: Log, lines: Lines) -> None:
    with log.extract({"traceparent": PARENT}) as run:
        assert run is None
        log.info("inside")
        assert log.inject({})["traceparent"].startswith(f"00-{TRACE}-")
        with log.execution("crew") as execution:
            log.info("deeper")
    assert {line.get("trace_id") for line in lines()} == {TRACE}
    assert execution.trace_id == TRACE


def test_execution_inside_is_a_child_of_the_sender(log: Log, lines: Lines) -> None:
    carrier = {"traceparent": PARENT, "amsha-execution-id": "e1"}
    with log.extract(carrier), log.execution("inner") as inner:
        pass
    started = lines()[0]
    assert (started["parent_execution_id"], started["trace_id"], inner.trace_id) == ("e1", TRACE, TRACE)


def test_step_inside_belongs_to_the_sender_and_to_its_step(log: Log, lines: Lines) -> None:
    carrier = {"traceparent": PARENT, "amsha-execution-id": "e1", "amsha-step-id": "s1", "amsha-crew-name": "c"}
    with log.extract(carrier) as joined:
        assert joined is not None
        with joined.step("task", "remote"):
            pass
    started = lines()[0]
    assert (started["event"], started["execution_id"], started["parent_step_id"]) == ("step.started", "e1", "s1")


def test_current_execution_inside_is_the_sender(log: Log) -> None:
    with log.extract({"amsha-execution-id": "e1", "amsha-crew-name": "c"}):
        run = current_execution()
        assert run is not None
        assert (run.execution_id, run.crew_name, run.state) == ("e1", "c", "running")


def test_joining_writes_no_start_and_no_end(log: Log, lines: Lines) -> None:
    with log.extract({"amsha-execution-id": "e1"}):
        pass
    assert lines() == []


def test_joining_inside_an_execution_replaces_its_ids(log: Log, lines: Lines) -> None:
    with log.execution("outer") as outer, outer.step("task", "t"):
        with log.extract({"amsha-execution-id": "e1"}):
            log.info("joined")
        log.info("back")
    joined, back = (line for line in lines() if line["event"] == "log")
    assert (joined["execution_id"], "step_id" in joined, "crew_name" in joined) == ("e1", False, False)
    assert (back["execution_id"], "step_id" in back) == (outer.execution_id, True)


def test_joining_works_with_async_with_and_stays_in_its_task(log: Log, lines: Lines) -> None:
    async def handle(number: int) -> None:
        async with log.extract({"amsha-execution-id": f"e{number}"}):
            await asyncio.sleep(0)
            log.info("inside", number=number)

    async def main() -> None:
        await asyncio.gather(*(handle(number) for number in range(20)))

    asyncio.run(main())
    assert all(line["execution_id"] == f"e{line['number']}" for line in lines())


def test_call_may_give_its_own_trace_id(log: Log, lines: Lines) -> None:
    with log.extract({"traceparent": PARENT}):
        log.info("mine", trace_id="own")
    assert lines()[0]["trace_id"] == "own"


# -- real processes and requests ---------------------------------------------------------------------------------------


def test_worker_process_is_part_of_the_tree(log: Log, log_path: Path) -> None:
    with log.execution("crew") as run, run.step("task", "outer") as outer:
        process = multiprocessing.get_context("spawn").Process(target=log_a_step, args=(str(log_path), log.inject({})))
        process.start()
        process.join(60)
    assert process.exitcode == 0
    assert log.close().ok
    detail = reader.detail(run.execution_id, log_path)
    assert detail is not None
    assert {(step.name, step.parent_step_id) for step in detail.steps} == {
        ("outer", None),
        ("in the worker", outer.step_id),
    }


CHILD = """
import os, sys
from amsha_async_log import open_log
with open_log(sys.argv[1], console=False) as log, log.extract(os.environ), log.execution("child"):
    log.info("in the child")
"""


def test_child_started_with_the_environment_is_part_of_the_tree(log: Log, log_path: Path) -> None:
    import os

    with log.execution("parent") as run:
        subprocess.run(
            [sys.executable, "-c", CHILD, str(log_path)], env={**os.environ, **log.inject({})}, check=True, timeout=60
        )
    assert log.close().ok
    executions = {execution.crew_name: execution for execution in reader.executions(log_path)}
    assert executions["child"].parent_execution_id == run.execution_id


def test_http_callee_is_part_of_the_tree(log: Log, lines: Lines) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with log.extract(self.headers), log.execution("callee"):
                self.send_response(204)
                self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with log.execution("caller") as run:
            connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
            connection.request("GET", "/", headers=log.inject({}))
            assert connection.getresponse().status == 204
            connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    callee = next(line for line in lines() if line["event"] == "execution.started" and line["crew_name"] == "callee")
    assert (callee["parent_execution_id"], callee["trace_id"]) == (run.execution_id, run.trace_id)


def test_context_joined_by_several_tasks_at_once_leaks_into_none(log: Log) -> None:
    joined = log.extract({"amsha-execution-id": "sent"})

    async def work(number: int, seconds: float) -> bool:
        async with log.execution("crew") as run:
            async with joined:
                await asyncio.sleep(seconds)
            return current_execution() is run

    async def main() -> list[bool]:
        return await asyncio.gather(work(1, 0.001), work(2, 0.01))

    assert asyncio.run(main()) == [True, True]


def test_context_joined_inside_itself_is_left_twice(log: Log) -> None:
    joined = log.extract({"amsha-execution-id": "sent"})
    with joined, joined:
        pass
    assert CURRENT.get() is ROOT


def test_tokens_recorded_by_who_only_joined_are_in_the_files(log: Log, log_path: Path) -> None:
    with log.execution("crew", execution_id="e1") as run, run.step("task", "t"):
        carrier = log.inject({})
    for _ in range(3):
        with log.extract(carrier) as joined:
            assert joined is not None
            joined.record_tokens(1000, 500, 0.5)
    assert log.close().ok
    (execution,) = reader.executions(log_path)
    assert (execution.total_tokens, execution.cost_usd, execution.steps, execution.status) == (
        4500,
        1.5,
        1,
        "completed",
    )
