"""A log that samples, from outside: what is in its file, and that nobody is hurt by what the machine does."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nvml
import pytest
from support import poll, read_lines, run_python, strict_loads, user_lines

from amsha_async_log import ConfigError, events, open_log, reader
from amsha_async_log._pipeline import Log

Opened = Callable[..., Log]
FAR = 1000.0
"""An interval that no test lives to see the end of."""


def of(path: Path, event: str) -> list[dict[str, Any]]:
    """Lines of that event, also while the file is being written to."""
    complete = path.read_bytes().rpartition(b"\n")[0].split(b"\n") if path.exists() else []
    return [line for line in map(strict_loads, filter(None, complete)) if line["event"] == event]


def metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Crew name to the line with what its execution cost."""
    return {line["crew_name"]: line for line in of(path, "metrics.execution")}


def burn(seconds: float) -> None:
    """Compute for that much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def written(path: Path, event: str, number: int = 1) -> Any:
    return poll(lambda: len(found := of(path, event)) >= number and found)


# -- what is written, and when -----------------------------------------------------------------------------------------


def test_log_that_does_not_sample_writes_no_samples_and_starts_no_sampler(opened: Opened, log_path: Path) -> None:
    with opened() as log, log.execution("a") as run:
        pass
    assert [line["event"] for line in user_lines(log_path)] == ["execution.started", "execution.completed"]
    assert run.summary().resources is None


def test_log_that_does_not_sample_watches_no_loop(opened: Opened) -> None:
    async def main(log: Log) -> bool:
        return log.watch_loop()

    with opened() as log:
        assert asyncio.run(main(log)) is False


def test_first_sample_is_taken_at_once(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        poll(lambda: log.flush() and of(log_path, "sample.process"))
    kinds = {line["event"] for line in user_lines(log_path)}
    assert {"sample.process", "sample.host"} <= kinds


def test_samples_say_why_when_and_at_what_cost_they_were_taken(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log:
        poll(lambda: log.flush() and len(of(log_path, "sample.process")) >= 4)
    first, *more = of(log_path, "sample.process")
    assert first["cause"] == "interval"
    assert "interval_seconds" not in first
    for line in more:
        assert line["logger"] == "amsha_async_log.sampler"
        assert line["level"] == "INFO"
        assert line["source_state"] == "ok"
        assert line["interval_seconds"] > 0
        assert line["late_seconds"] >= 0
        assert line["cost_seconds"] > 0
    assert more[-1]["cause"] == "close"


def test_every_start_and_end_of_an_execution_has_a_sample(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        written(log_path, "sample.process")
        with log.execution("a"):
            written(log_path, "sample.process", 2)
        written(log_path, "sample.process", 3)
    causes = [line["cause"] for line in of(log_path, "sample.process")]
    assert causes == ["interval", "execution", "execution", "close"]
    assert metrics(log_path)["a"]["samples"] == 2


def test_starts_and_ends_at_the_same_time_share_one_sample(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        written(log_path, "sample.process")
        for _ in range(200):
            with log.execution("many"):
                pass
        poll(lambda: log.flush() and len(of(log_path, "metrics.execution")) == 200)
    assert len(of(log_path, "sample.process")) < 20


def test_execution_that_ends_right_before_the_log_is_closed_is_told_of(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log, log.execution("a"):
        burn(0.05)
    assert metrics(log_path)["a"]["cpu_seconds"] >= 0.05


def test_execution_that_still_runs_when_the_log_is_closed_is_told_of(opened: Opened, log_path: Path) -> None:
    log = opened(sample_interval_s=FAR, gpu_interval_s=0)
    with log.execution("a"):
        burn(0.05)
        log.close()
    assert metrics(log_path)["a"]["cpu_seconds"] >= 0.05
    assert "duration_seconds" not in metrics(log_path)["a"]


def test_last_words_of_the_sampler_are_in_the_ledger_and_the_file_proves_itself(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log, log.execution("a"):
        pass
    report = log.close()
    assert report.ok
    assert report.refused == 0
    assert report.written == len(user_lines(log_path))
    assert reader.verify(log_path).ok


def test_summary_knows_what_the_execution_cost_soon_after_it_ended(opened: Opened) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        with log.execution("a") as run:
            burn(0.05)
        poll(lambda: run.summary().resources)
        summary = run.summary()
    assert isinstance(summary.resources, events.MetricsExecution)
    assert summary.resources.cpu_seconds is not None
    assert summary.resources.cpu_seconds >= 0.05
    assert summary.peak_memory_mb == summary.resources.peak_memory_mb


def test_level_above_info_silences_samples_as_it_does_all_that_is_info(opened: Opened, log_path: Path) -> None:
    with opened(level="WARNING", sample_interval_s=0.02, gpu_interval_s=0) as log:
        log.warning("kept")
    assert [line["message"] for line in user_lines(log_path)] == ["kept"]


def test_samples_can_be_silenced_alone(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        log._core.gates.set_level("amsha_async_log.sampler", 40)
        written_before = len(of(log_path, "sample.process"))
        with log.execution("a"):
            pass
    assert len(of(log_path, "sample.process")) <= max(written_before, 1)


def test_samples_carry_no_execution(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=0.02, gpu_interval_s=0) as log, log.execution("a"):
        written(log_path, "sample.process", 3)
    assert all("execution_id" not in line for line in of(log_path, "sample.process"))


def test_metrics_carry_what_the_lines_of_their_execution_carry(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log, log.execution("a", execution_id="mine"):
        pass
    assert metrics(log_path)["a"]["execution_id"] == "mine"
    (execution,) = reader.executions(log_path)
    assert execution.status == "completed"
    assert execution.total_tokens is None


@pytest.mark.parametrize("interval", [0.001, -1, True])
def test_interval_too_short_to_be_kept_is_refused(tmp_path: Path, interval: float) -> None:
    with pytest.raises(ConfigError, match=r"sample_interval_s"):
        open_log(tmp_path / "a.jsonl", sample_interval_s=interval)


# -- who used what -----------------------------------------------------------------------------------------------------


def counters(path: Path) -> dict[str, dict[str, int]]:
    (line,) = of(path, "metrics.attribution")
    found: dict[str, dict[str, int]] = line["counters"]
    return found


def test_executions_idle_and_unattributed_are_the_counters_exactly_in_the_file(opened: Opened, log_path: Path) -> None:
    def crew(log: Log, name: str, seconds: float) -> None:
        with log.execution(name):
            burn(seconds)

    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log:
        threads = [threading.Thread(target=crew, args=(log, f"t{i}", 0.02 * i)) for i in range(6)]
        for thread in threads:
            thread.start()
        with log.execution("outer"):
            crew(log, "inner", 0.1)
            with contextlib.suppress(ValueError), log.execution("failing"):
                raise ValueError
        for thread in threads:
            thread.join()
        burn(0.05)
    lines = of(log_path, "metrics.execution")
    assert len(lines) == 9
    for name, field, unit in (
        ("cpu_nanoseconds", "cpu_seconds", 1e9),
        ("file_read_bytes", "file_read_bytes", 1),
        ("file_write_bytes", "file_write_bytes", 1),
    ):
        counter = counters(log_path).get(name)
        if counter is not None:
            assert sum(round(line[field] * unit) for line in lines) == counter["executions"], name
            assert counter["executions"] + counter["idle"] + counter["unattributed"] == counter["total"], name


def test_cpu_time_outside_of_executions_is_idle(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        burn(0.1)
        with log.execution("a"):
            pass
    assert counters(log_path)["cpu_nanoseconds"]["idle"] >= 100_000_000
    assert metrics(log_path)["a"]["cpu_seconds"] < 0.05


def test_one_alone_is_exclusive_and_two_at_once_overlap(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        with log.execution("alone"):
            burn(0.05)
        with log.execution("outer"), log.execution("inner"):
            burn(0.05)
    told = metrics(log_path)
    assert told["alone"]["attribution"] == "exclusive"
    assert told["alone"]["cpu_error_seconds"] == 0
    assert told["outer"]["attribution"] == told["inner"]["attribution"] == "overlap"
    assert told["inner"]["cpu_seconds"] >= 0.05
    assert told["outer"]["cpu_error_seconds"] >= 0.05


PEAKS = """
import sys
from amsha_async_log import open_log
from support import poll

def told(execution):
    return poll(lambda: execution.summary().resources)

with open_log(sys.argv[1], sample_interval_s=1000, gpu_interval_s=0, console=False) as log:
    with log.execution("small") as small:
        pass
    told(small)
    with log.execution("large") as large:
        held = bytearray(200 << 20)
        held[::4096] = b"x" * len(held[::4096])
        del held
    told(large)
    with log.execution("after") as after:
        pass
    told(after)
"""


def test_peak_memory_is_that_of_the_execution_that_took_it(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: this one may have held more before, and then the high-water mark tells nothing."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    run_python(PEAKS, log_path)
    told = metrics(log_path)
    assert told["large"]["peak_memory_mb"] - told["small"]["peak_memory_mb"] > 150
    assert told["large"]["peak_memory_mb"] - told["after"]["peak_memory_mb"] > 150


def test_bytes_written_to_storage_are_those_of_the_execution_that_wrote(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        with log.execution("writer"):
            with (log_path.parent / "out").open("wb") as file:
                file.write(b"x" * (8 << 20))
                file.flush()
                os.fsync(file.fileno())
        written(log_path, "metrics.execution")
    line = metrics(log_path)["writer"]
    if "file_write_bytes" in line.get("unknown", {}):
        pytest.skip(f"this system does not say what a process writes: {line['unknown']}")
    assert abs(line["file_write_bytes"] - (8 << 20)) <= line["file_write_error_bytes"] + (1 << 20)


def test_what_is_not_known_has_a_reason_and_no_zero(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log, log.execution("a"):
        pass
    line = metrics(log_path)["a"]
    for field in ("energy_joules", "gpu_percent", "peak_gpu_memory_mb"):
        assert field not in line
        assert line["unknown"][field] == "off"
    assert line["unknown"]["loop_lag_max_seconds"] == "no_loop"


# -- measured by task --------------------------------------------------------------------------------------------------


def spin(rounds: int) -> None:
    for _ in range(rounds):
        pass


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
def test_cpu_by_task_tells_interleaved_tasks_apart(log_path: Path, runner: str) -> None:
    """Three parts of the work to one: sharing by overlap would say one to one."""
    truth: dict[str, float] = {}

    async def crew(log: Log, name: str, rounds: int) -> None:
        used = 0.0
        async with log.execution(name):
            for _ in range(60):
                before = time.thread_time()
                spin(rounds)
                used += time.thread_time() - before
                await asyncio.sleep(0)
        truth[name] = used

    async def main() -> None:
        async with open_log(log_path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False) as log:
            await asyncio.gather(crew(log, "big", 90_000), crew(log, "small", 30_000))
            with log.execution("other"):
                pass

    if runner == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
            running.run(main())
    else:
        asyncio.run(main())
    for name in ("big", "small"):
        line = metrics(log_path)[name]
        assert line["attribution"] == "task"
        assert abs(line["cpu_seconds"] - truth[name]) <= 0.05 * truth[name] + 0.002, (name, line, truth)
    assert truth["big"] > 2 * truth["small"]


def test_cpu_by_task_follows_threads_of_the_loops_executor_and_carried_functions(log_path: Path) -> None:
    async def main() -> None:
        async with open_log(log_path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False) as log:
            async with log.execution("to_thread"):
                await asyncio.to_thread(burn, 0.05)
            with log.execution("carried"):
                thread = threading.Thread(target=log.carry(burn), args=(0.05,))
                thread.start()
                while thread.is_alive():
                    await asyncio.sleep(0.005)

    asyncio.run(main())
    told = metrics(log_path)
    assert told["to_thread"]["cpu_seconds"] >= 0.05
    assert told["carried"]["cpu_seconds"] >= 0.05


def test_cpu_by_task_without_a_loop_measures_the_thread(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True) as log:
        with log.execution("outer"):
            burn(0.03)
            with log.execution("inner"):
                burn(0.06)
    told = metrics(log_path)
    assert told["inner"]["cpu_seconds"] >= 0.06
    assert 0.03 <= told["outer"]["cpu_seconds"] < 0.06


def test_loop_is_as_it_was_once_the_log_is_closed(log_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with open_log(log_path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False):
            assert "call_soon" in vars(loop)
        assert "call_soon" not in vars(loop)
        assert "run_in_executor" not in vars(loop)
        await asyncio.sleep(0)

    asyncio.run(main())


# -- event loops -------------------------------------------------------------------------------------------------------


def test_loop_that_hangs_is_named_with_the_frame_while_it_hangs(log_path: Path) -> None:
    released = threading.Event()

    def hold_the_loop_up() -> None:
        released.wait(30)

    async def main() -> None:
        async with open_log(log_path, sample_interval_s=0.1, gpu_interval_s=0, loop_stall_s=0.2, console=False):
            watcher = threading.Thread(target=lambda: (written(log_path, "sample.loop_stalled"), released.set()))
            await asyncio.sleep(0.3)
            watcher.start()
            hold_the_loop_up()
            watcher.join()
            await asyncio.sleep(0.3)

    with asyncio.Runner() as runner:
        runner._lazy_init()
        runner.get_loop().run_until_complete(main())  # this loop may be held up, unlike those of other tests
    assert released.is_set()
    (line,) = of(log_path, "sample.loop_stalled")
    assert "hold_the_loop_up" in line["blocked_at"]
    assert line["stalled_seconds"] >= 0.2
    assert line["level"] == "WARNING"
    assert max(sample.get("lag_max_seconds", 0) for sample in of(log_path, "sample.loop")) >= 0.2
    assert sum(sample["stalls"] for sample in of(log_path, "sample.loop")) == 1


def test_loop_of_another_thread_can_be_watched(opened: Opened, log_path: Path) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with opened(sample_interval_s=0.1, gpu_interval_s=0) as log:
            assert log.watch_loop(loop)
            assert log.watch_loop(loop)
            poll(lambda: any("lag_max_seconds" in line for line in of(log_path, "sample.loop")))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert {line["loop_name"] for line in of(log_path, "sample.loop")} == {"asyncio-1"}


def test_watching_no_loop_where_none_runs_is_an_error(opened: Opened) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log, pytest.raises(RuntimeError):
        log.watch_loop()


def test_lag_that_an_execution_suffered_is_told(log_path: Path) -> None:
    async def main() -> None:
        async with open_log(log_path, sample_interval_s=0.1, gpu_interval_s=0, console=False) as log:
            async with log.execution("held up"):
                await asyncio.sleep(0.2)
                for _ in range(3):
                    burn(0.15)
                    await asyncio.sleep(0)
                await asyncio.sleep(0.3)

    asyncio.run(main())
    assert metrics(log_path)["held up"]["loop_lag_max_seconds"] >= 0.03


def test_garbage_collections_are_told(opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0) as log:
        written(log_path, "sample.process")
        gc.collect()
        with log.execution("a"):
            written(log_path, "sample.process", 2)
    assert sum(line["gc_collections"] for line in of(log_path, "sample.process")) >= 1
    assert all(
        line["gc_pause_total_seconds"] >= line["gc_pause_max_seconds"] for line in of(log_path, "sample.process")
    )


def test_nothing_of_the_sampler_is_left_once_the_log_is_closed(opened: Opened) -> None:
    for _ in range(2):
        with opened(sample_interval_s=0.05, gpu_interval_s=0):
            pass
        poll(lambda: threading.active_count() == 1)
        callbacks, descriptors = len(gc.callbacks), poll(lambda: len(os.listdir("/proc/self/fd")))
    with opened(sample_interval_s=0.05, gpu_interval_s=0):
        pass
    assert len(gc.callbacks) == callbacks
    poll(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


# -- processes ---------------------------------------------------------------------------------------------------------


def _child(log: Log) -> None:
    with log.execution("in the child"):
        burn(0.05)
    log.close()


def test_forked_child_samples_itself_and_leaves_the_machine_to_its_parent(opened: Opened, log_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log:
        with log.execution("in the parent"):
            written(log_path, "sample.host")
            child = context.Process(target=_child, args=(log,))
            child.start()
            child.join(30)
            assert child.exitcode == 0
    (beside,) = [path for path in log_path.parent.glob("app.*.jsonl")]
    events_of_child = {line["event"] for line in user_lines(beside)}
    assert "sample.process" in events_of_child
    assert not events_of_child & {"sample.host", "sample.cgroup", "sample.gpu"}
    told = metrics(beside)["in the child"]
    assert told["cpu_seconds"] >= 0.05
    assert told["unknown"]["energy_joules"] in ("not_owner", "off")
    pids = {line["pid"] for line in read_lines(beside) if line["event"] == "log.segment_opened"}
    assert pids == {child.pid}
    assert counters(beside)["cpu_nanoseconds"]["total"] < 10_000_000_000


def test_second_process_leaves_the_machine_to_the_first(opened: Opened, log_path: Path) -> None:
    program = (
        "import sys; from amsha_async_log import open_log\n"
        "with open_log(sys.argv[1], sample_interval_s=1000, console=False) as log: log.info('x')"
    )
    with opened(sample_interval_s=FAR, gpu_interval_s=0):
        subprocess.run([sys.executable, "-c", program, str(log_path)], check=True, timeout=60)
    (beside,) = log_path.parent.glob("app.*.jsonl")
    kinds = {line["event"] for line in user_lines(beside)}
    assert "sample.process" in kinds
    assert "sample.host" not in kinds


# -- GPUs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def driver() -> Iterator[nvml.Driver]:
    with nvml.driver("devices=2") as loaded:
        yield loaded


def gpus(path: Path) -> list[dict[str, Any]]:
    return of(path, "sample.gpu")


def test_every_gpu_has_samples_and_executions_their_energy(driver: nvml.Driver, opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=FAR) as log:
        poll(lambda: len(gpus(log_path)) >= 2)
        with log.execution("a"):
            poll(lambda: len(gpus(log_path)) >= 4)
        poll(lambda: of(log_path, "metrics.execution"))
    line = metrics(log_path)["a"]
    assert line["energy_joules"] > 0
    assert line["gpu_percent"] > 0
    assert line["peak_gpu_memory_mb"] > 0
    for name, counter in counters(log_path).items():
        assert counter["executions"] + counter["idle"] + counter["unattributed"] == counter["total"], name
    energies = [counter for name, counter in counters(log_path).items() if name.startswith("energy_millijoules:")]
    assert len(energies) == 2
    assert sum(counter["executions"] for counter in energies) == round(line["energy_joules"] * 1000)


def test_off_switch_never_calls_the_driver(driver: nvml.Driver, opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log, log.execution("a"):
        written(log_path, "sample.process", 3)
    assert driver.calls("nvmlInitWithFlags") == 0
    assert driver.calls("nvmlDeviceGetUtilizationRates") == 0
    assert gpus(log_path) == []


def test_interval_below_a_second_is_warned_of_on_stderr(
    driver: nvml.Driver, opened: Opened, log_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened(sample_interval_s=0.2):
        poll(lambda: len(gpus(log_path)) >= 4)
    text = capfd.readouterr().err
    assert text.count("gpu_interval_s") == 1
    assert "below 1 s" in text


def test_driver_that_hangs_costs_gpu_samples_only(driver: nvml.Driver, opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=0.05, gpu_interval_s=FAR) as log:
        poll(lambda: len(gpus(log_path)) >= 2)
        driver.configure("*:hang=1")
        with log.execution("a"):
            count = len(of(log_path, "sample.process"))
            written(log_path, "sample.process", count + 5)
        poll(lambda: log.flush() and of(log_path, "metrics.execution"))
        began = time.monotonic()
        report = log.close()
        took = time.monotonic() - began
    driver.clear()
    assert report.ok
    assert took < 2.0  # far from the time-out of 5 s
    line = metrics(log_path)["a"]
    assert "energy_joules" not in line
    assert line["unknown"]["energy_joules"] in ("stale", "hung", "no_sample")
    assert line["cpu_seconds"] > 0


def test_gpu_that_is_lost_and_comes_back_is_said_once_each(driver: nvml.Driver, opened: Opened, log_path: Path) -> None:
    with opened(sample_interval_s=1.0, gpu_interval_s=0.05) as log:
        poll(lambda: len(gpus(log_path)) >= 4)
        driver.lose(1)
        poll(lambda: log.flush() and len(of(log_path, "sample.source_changed")) >= 1)
        count = len(gpus(log_path))
        poll(lambda: len(gpus(log_path)) >= count + 6)
        driver.give_back(1)
        poll(lambda: log.flush() and len(of(log_path, "sample.source_changed")) >= 2, timeout_s=30)
    changes = [(c["gpu_index"], c.get("state_from"), c["state_to"]) for c in of(log_path, "sample.source_changed")]
    assert changes == [(1, "ok", "lost"), (1, "lost", "ok")]
    healthy = [line for line in gpus(log_path) if line["gpu_index"] == 0]
    assert all("gpu_percent" in line for line in healthy)


def test_no_library_is_said_once_and_hurts_nobody(opened: Opened, log_path: Path) -> None:
    with nvml.no_library(), opened(sample_interval_s=0.05, gpu_interval_s=0.05) as log, log.execution("a"):
        written(log_path, "sample.process", 5)
    (change,) = of(log_path, "sample.source_changed")
    assert change["state_to"] == "library_absent"
    assert metrics(log_path)["a"]["unknown"]["energy_joules"] == "library_absent"


def test_driver_that_crashes_takes_the_helper_along_and_not_the_program(
    opened: Opened, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = "devices=2;nvmlDeviceGetUtilizationRates:crash=1,after=12"
    for name, value in nvml.environment(rules).items():
        monkeypatch.setenv(name, value)
    with opened(sample_interval_s=0.1, gpu_interval_s=0.1, gpu_process=True) as log:
        with log.execution("a"):
            poll(lambda: log.flush() and len(of(log_path, "sample.source_changed")) >= 2, timeout_s=60)
        count = len(gpus(log_path))
        poll(lambda: log.flush() and len(gpus(log_path)) >= count + 2, timeout_s=60)
    first, second = of(log_path, "sample.source_changed")[:2]
    assert (first["state_to"], second["state_from"], second["state_to"]) == ("helper_died", "helper_died", "ok")
    assert "SIGSEGV" in first["detail"]
    assert log.close().ok


# -- what was found to go wrong ----------------------------------------------------------------------------------------


def test_process_pools_work_while_cpu_is_measured_by_task(log_path: Path) -> None:
    async def main() -> int:
        async with open_log(log_path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False) as log:
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                async with log.execution("a"):
                    return await asyncio.get_running_loop().run_in_executor(pool, pow, 2, 3)

    with asyncio.Runner() as runner:
        runner._lazy_init()
        assert runner.get_loop().run_until_complete(main()) == 8  # making a pool blocks, which is the test's own affair


def test_wrapper_of_the_program_around_call_soon_outlives_the_log(log_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        original = loop.call_soon

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

        loop.call_soon = wrapper  # type: ignore[method-assign]
        async with open_log(log_path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False):
            assert vars(loop)["call_soon"] is not wrapper
        assert vars(loop)["call_soon"] is wrapper
        del loop.call_soon

    asyncio.run(main())


@pytest.mark.parametrize("first", [0, 1])
def test_two_logs_on_one_loop_count_their_own_executions_only(tmp_path: Path, first: int) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]

    async def main() -> None:
        logs = [
            open_log(path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False) for path in paths
        ]

        async def crew(log: Log, name: str, seconds: float) -> None:
            async with log.execution(name):
                for _ in range(10):
                    burn(seconds / 10)
                    await asyncio.sleep(0)

        await asyncio.gather(crew(logs[0], "a", 0.2), crew(logs[1], "b", 0.1))
        await logs[first].aclose()
        async with logs[1 - first].execution("later"):
            await crew(logs[1 - first], "inner", 0.1)
        await logs[1 - first].aclose()
        assert "call_soon" not in vars(asyncio.get_running_loop()) or first == 0

    asyncio.run(main())
    for path in paths:
        cpu = counters(path)["cpu_nanoseconds"]
        told = metrics(path)
        assert sum(round(line["cpu_seconds"] * 1e9) for line in told.values()) == cpu["executions"]
        assert cpu["unattributed"] >= -20_000_000
    assert metrics(paths[0])["a"]["cpu_seconds"] < 0.29
    assert metrics(paths[1 - first])["inner"]["cpu_seconds"] >= 0.1


def test_what_a_task_does_after_its_execution_has_ended_is_not_the_executions(log_path: Path) -> None:
    async def main() -> None:
        async with open_log(log_path, sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True, console=False) as log:

            async def goes_on() -> None:
                for _ in range(10):
                    burn(0.03)
                    await asyncio.sleep(0)

            async with log.execution("short"):
                task = asyncio.ensure_future(goes_on())
                await asyncio.sleep(0)
            await task

    asyncio.run(main())
    assert metrics(log_path)["short"]["cpu_seconds"] < 0.15
    assert counters(log_path)["cpu_nanoseconds"]["unattributed"] > -50_000_000


def test_loop_that_nobody_said_is_measured_from_its_first_execution_on(opened: Opened, log_path: Path) -> None:
    async def crew(log: Log, name: str, seconds: float) -> None:
        async with log.execution(name):
            for _ in range(10):
                await asyncio.sleep(0)
                burn(seconds / 10)

    async def main(log: Log) -> None:
        await asyncio.gather(crew(log, "busy", 0.3), crew(log, "idle", 0.0))

    with opened(sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True) as log:
        asyncio.run(main(log))
    assert metrics(log_path)["busy"]["cpu_seconds"] >= 0.29
    assert metrics(log_path)["idle"]["cpu_seconds"] < 0.05


def test_under_trio_cpu_by_task_is_unknown_and_not_wrong(opened: Opened, log_path: Path) -> None:
    import trio

    async def main(log: Log) -> None:
        async with log.execution("a"):
            burn(0.05)
            await trio.sleep(0)

    with opened(sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True) as log:
        trio.run(main, log)
    line = metrics(log_path)["a"]
    assert "cpu_seconds" not in line
    assert line["unknown"]["cpu_seconds"] == "not_supported"


def test_thread_that_ran_an_inner_execution_works_for_nobody_afterwards(opened: Opened, log_path: Path) -> None:
    def inner(log: Log) -> None:
        with log.execution("inner"):
            burn(0.05)

    with opened(sample_interval_s=FAR, gpu_interval_s=0, cpu_by_task=True) as log:
        with log.execution("outer"), concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, inner, log).result()
            pool.submit(burn, 0.3).result()
    told = metrics(log_path)
    assert told["inner"]["cpu_seconds"] >= 0.05
    assert told["outer"]["cpu_seconds"] < 0.2


def test_executions_that_follow_one_another_do_not_keep_each_other(opened: Opened) -> None:
    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log:
        outer = log.execution("outer")
        with outer, log.execution("inner") as inner:
            pass
        poll(lambda: inner.summary().resources)
        assert inner._account is not None
        assert inner._account.parent is None
        assert inner._account.scope is None


@pytest.mark.parametrize("size", [3, 100])
def test_small_queue_delays_lines_of_executions_and_loses_none(opened: Opened, log_path: Path, size: int) -> None:
    with opened(sample_interval_s=FAR, gpu_interval_s=0, max_queue_size=size, when_full="block") as log:
        for _ in range(300):
            with log.execution("many"):
                pass
    report = log.close()
    assert report.ok
    lines = of(log_path, "metrics.execution")
    cpu = counters(log_path)["cpu_nanoseconds"]
    assert sum(round(line["cpu_seconds"] * 1e9) for line in lines) == cpu["executions"]
    assert len(lines) >= 250


def test_closing_with_many_open_executions_is_bounded(opened: Opened, log_path: Path) -> None:
    log = opened(sample_interval_s=FAR, gpu_interval_s=0)
    runs = [log.execution("open") for _ in range(5000)]
    for run in runs:
        run.set_state("running")
    assert log.close(timeout_s=5.0).ok
    assert counters(log_path)["cpu_nanoseconds"]["total"] > 0


def test_cpu_time_is_never_more_than_there_was(opened: Opened, log_path: Path) -> None:
    def crews(log: Log) -> None:
        for _ in range(300):
            with log.execution("short"):
                pass

    with opened(sample_interval_s=0.05, gpu_interval_s=0) as log:
        threads = [threading.Thread(target=crews, args=(log,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    cores = os.cpu_count() or 1
    for line in of(log_path, "metrics.execution"):
        assert line["cpu_seconds"] <= line["duration_seconds"] * cores + line["cpu_error_seconds"] + 0.002


def test_busy_share_of_gpus_is_unknown_while_they_do_not_answer(
    driver: nvml.Driver, opened: Opened, log_path: Path
) -> None:
    with opened(sample_interval_s=0.05, gpu_interval_s=0.05) as log:
        poll(lambda: len(gpus(log_path)) >= 4)
        for gpu in (0, 1):
            driver.lose(gpu)
        poll(lambda: log.flush() and len(of(log_path, "sample.source_changed")) >= 2)
        count = len(gpus(log_path))
        with log.execution("a"):
            poll(lambda: log.flush() and len(gpus(log_path)) >= count + 4)
    line = metrics(log_path)["a"]
    assert "gpu_percent" not in line
    assert line["unknown"]["gpu_percent"] == "lost"
