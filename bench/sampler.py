"""What sampling costs: a sample, a process that samples, the driver, the loop beside it, and what it depends on.

A GPU's driver is the stand-in of `tests/nvml_stub` (needs a C compiler), whose calls take no time of their own: what
is measured is this log's part. Whole-process CPU is `getrusage` of children that run an idle event loop for a while,
in turns; what the same child takes without samples is subtracted. "Naive" is the loop that many programs have: a thread
that asks psutil and pynvml for the same values and writes one line of JSON, at the same rate.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from _harness import Report, Timing, empty_calls, main, sample_calls, temporary_folder, us

ROOT: Final = Path(__file__).parents[1]
DEVICES: Final = 2

CHILD: Final = """
import asyncio, json, os, resource, sys, threading, time
kind, interval, seconds, path = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

def naive():
    import psutil, pynvml
    pynvml.nvmlInit()
    process = psutil.Process()
    file = open(path + ".naive", "w")
    while True:
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            use, memory = pynvml.nvmlDeviceGetUtilizationRates(gpu), pynvml.nvmlDeviceGetMemoryInfo(gpu)
            gpus.append({"gpu": use.gpu, "memory": memory.used, "name": pynvml.nvmlDeviceGetName(gpu),
                         "uuid": pynvml.nvmlDeviceGetUUID(gpu), "power": pynvml.nvmlDeviceGetPowerUsage(gpu),
                         "energy": pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu),
                         "temperature": pynvml.nvmlDeviceGetTemperature(gpu, 0),
                         "clock": pynvml.nvmlDeviceGetClockInfo(gpu, 1),
                         "processes": len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))})
        memory, io = process.memory_info(), process.io_counters()
        file.write(json.dumps({
            "time": time.time(), "cpu": process.cpu_percent(), "rss": memory.rss, "threads": process.num_threads(),
            "files": process.num_fds(), "read": io.read_bytes, "written": io.write_bytes,
            "switches": process.num_ctx_switches().involuntary, "host": psutil.cpu_percent(),
            "memory": psutil.virtual_memory().used, "load": psutil.getloadavg()[0], "gpus": gpus}) + "\\n")
        file.flush()
        time.sleep(interval)

async def main():
    log = None
    if kind == "naive":
        threading.Thread(target=naive, daemon=True).start()
    elif kind != "bare":
        from amsha_async_log import open_log
        options = {"sample_interval_s": interval} if kind == "samples" else {}
        if kind == "samples without GPU":
            options = {"sample_interval_s": interval, "gpu_interval_s": 0}
        log = open_log(path, console=False, **options)
        log.watch_loop()
    await asyncio.sleep(1.0)  # imports, first samples
    before, began = cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    print(json.dumps([cpu() - before, time.monotonic() - began]), flush=True)
    os._exit(0)

asyncio.run(main())
"""

HANG: Final = """
import asyncio, ctypes, json, sys, time
from amsha_async_log import open_log
hang, path, seconds = sys.argv[1] == "hang", sys.argv[2], float(sys.argv[3])
driver = ctypes.CDLL("libnvidia-ml.so.1")

async def main():
    log = open_log(path, console=False, sample_interval_s=0.1, gpu_interval_s=1)
    async with log:
        await asyncio.sleep(0.5)
        if hang:
            driver.nvmlstub_configure(b"*:hang=1")
        lags = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - due)
        began = time.monotonic()
        await log.aclose()
        print(json.dumps([lags, time.monotonic() - began]), flush=True)

asyncio.run(main())
"""


@contextmanager
def _driver() -> Iterator[dict[str, str] | None]:
    """The environment in which the stand-in is found; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="nvml-stub-"))
    try:
        source = ROOT / "tests" / "nvml_stub" / "nvml_stub.c"
        subprocess.run(
            [compiler, "-O2", "-fPIC", "-shared", "-o", folder / "libnvidia-ml.so.1", source, "-lpthread"], check=True
        )
        yield {**os.environ, "LD_LIBRARY_PATH": str(folder), "NVMLSTUB": f"devices={DEVICES}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _child(program: str, environment: dict[str, str], *arguments: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# -- one sample --------------------------------------------------------------------------------------------------------


def _timed(call: Callable[[], object], number: int) -> Timing:
    from array import array

    samples = array("q")
    for _ in range(50):
        call()
    sample_calls(call, number, samples)
    return Timing.of(samples)


def _tick() -> tuple[Callable[[], object], list[Any]]:
    from amsha_async_log.collectors.cgroup import CgroupCollector
    from amsha_async_log.collectors.host import HostCollector
    from amsha_async_log.collectors.process import ProcessCollector

    collectors = [ProcessCollector(), HostCollector(), CgroupCollector()]

    def tick() -> None:
        for collector in collectors:
            collector.collect(slow=False)

    return tick, collectors


def _one_sample(report: Report) -> None:
    number = 300 if report.quick else 3_000
    tick, collectors = _tick()
    rows = []
    for collector in collectors:
        timing = _timed(lambda collector=collector: collector.collect(slow=False), number)  # type: ignore[misc]
        rows.append([collector.name, *timing.cells()])
    whole = _timed(tick, number)
    report.figures["tick_ns"] = whole.p50
    rows.append(["together", *whole.cells()])
    floor = report.floor(empty_calls())
    rows.append(["noise floor: an empty call", *floor.cells()])
    report.table(
        "One hot sample of the process, the host and its control group, pressure included",
        ["", "p50", "p99", "p99.9", "max"],
        rows,
        "In a tight loop, with all caches warm; a sample once a second costs four to five times as much. Aim: 60 us.",
    )


def _independence(report: Report) -> None:
    number = 300 if report.quick else 2_000
    tick, _ = _tick()
    rows = []

    def measure(name: str) -> float:
        timing = _timed(tick, number)
        rows.append([name, *timing.cells()[:2]])
        return timing.p50

    base = measure("as it is")
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(50 if report.quick else 400)]
    try:
        pids = measure(f"{len(children)} more processes on the host")
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
    held = bytearray((256 if report.quick else 2048) << 20)
    held[::4096] = b"x" * len(held[::4096])
    memory = measure(f"{len(held) >> 20} MB more resident")
    del held

    async def with_tasks() -> float:
        from amsha_async_log.collectors.loop import LoopProbe

        probe = LoopProbe(asyncio.get_running_loop(), "l", period_ns=10**8, stall_ns=0, on_lag=lambda _lag: None)
        alone = _timed(probe.sample, number).p50
        tasks = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(10_000 if report.quick else 100_000)]
        await asyncio.sleep(0)
        timing = _timed(probe.sample, number)
        rows.append([f"a loop's sample beside {len(tasks):,} tasks (alone: {us(alone)})", *timing.cells()[:2]])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return timing.p50 / alone

    ratio = asyncio.run(with_tasks())
    report.figures["independence"] = {"pids": pids / base, "rss": memory / base, "tasks": ratio}
    report.table("What a sample's cost does not depend on", ["", "p50", "p99"], rows)


GPU: Final = """
import json, statistics, sys, time
import ctypes
from amsha_async_log.collectors.nvml import NvmlSource
stub = ctypes.CDLL("libnvidia-ml.so.1")
stub.nvmlstub_calls.restype = ctypes.c_long
source = NvmlSource(medium_interval_s=1e9, slow_interval_s=1e9)
now = 1000.0
for _ in range(300):
    now += 1e-3
    source.read(now)
before, samples = stub.nvmlstub_calls(None, -1), []
for _ in range(int(sys.argv[1])):
    now += 1e-3
    began = time.perf_counter_ns()
    reading = source.read(now)
    samples.append(time.perf_counter_ns() - began)
calls = stub.nvmlstub_calls(None, -1) - before
print(json.dumps([statistics.median(samples) / len(reading.devices), calls / len(samples) / len(reading.devices)]))
"""


def _gpu(report: Report, environment: dict[str, str]) -> None:
    rows = []
    for devices in (1, 2, 8):
        took, calls = _child(GPU, {**environment, "NVMLSTUB": f"devices={devices}"}, 300 if report.quick else 3_000)
        rows.append([f"{devices}", us(took), f"{calls:.1f}"])
        report.figures[f"gpu_{devices}"] = {"ns_per_device": took, "calls_per_device": calls}
        report.check(f"{devices} GPUs: {calls:.1f} driver calls a device", calls <= 8)
    report.table("One fast look at the GPUs", ["devices", "p50 a device", "driver calls a device"], rows)


# -- a process that samples --------------------------------------------------------------------------------------------


def _whole_process(report: Report, folder: Path, environment: dict[str, str]) -> None:
    rounds, seconds = (1, 3) if report.quick else (3, 8)
    rows = []
    for interval in (1.0, 0.1):
        shares: dict[str, list[float]] = {}
        kinds = ("bare", "log without samples", "samples without GPU", "samples", "naive")
        for turn in range(rounds):
            for kind in kinds if turn % 2 == 0 else reversed(kinds):
                path = folder / f"{kind.replace(' ', '-')}-{interval}-{turn}.jsonl"
                used, took = _child(CHILD, environment, kind, interval, seconds, path)
                shares.setdefault(kind, []).append(100 * used / took)
        middle = {kind: statistics.median(found) for kind, found in shares.items()}
        base = middle["bare"]
        ours, naive = middle["samples"] - base, middle["naive"] - base
        report.figures[f"share_{interval}"] = shares
        report.figures[f"ratio_{interval}"] = naive / ours if ours > 0 else None
        for kind, found in shares.items():
            spread = f"{min(found):.3f} to {max(found):.3f}"
            rows.append([f"{1 / interval:g} Hz", kind, f"{middle[kind]:.3f} %", spread])
        rows.append([f"{1 / interval:g} Hz", f"naive over samples: {naive / ours:.1f}x" if ours > 0 else "-", "", ""])
    report.table(
        f"CPU of a whole process with an idle loop and {DEVICES} GPUs, of one core, {seconds} s each, {rounds} rounds",
        ["rate", "", "median", "lowest to highest"],
        rows,
    )


def _lateness(report: Report, folder: Path, environment: dict[str, str]) -> None:
    path = folder / "late.jsonl"
    _child(CHILD, environment, "samples", 0.1, 3 if report.quick else 30, path)
    late = sorted(
        line["late_seconds"]
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if line["event"] == "sample.process" and line["cause"] == "interval"
    )
    timing = Timing.of([round(value * 1e9) for value in late])
    report.figures["lateness_ns"] = timing.p99
    report.table(
        "How late samples are, 10 Hz, idle process",
        ["samples", "p50", "p99", "p99.9", "max"],
        [[len(late), *timing.cells()]],
    )


def _hang(report: Report, folder: Path, environment: dict[str, str]) -> None:
    rows = []
    for kind in ("healthy", "hang"):
        path = folder / f"{kind}.jsonl"
        lags, close = _child(HANG, environment, kind, path, 3 if report.quick else 15)
        timing = Timing.of([round(lag * 1e9) for lag in lags])
        samples = [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]
        report.figures[f"hang: {kind}"] = {"lag_p99_ns": timing.p99, "close_s": close}
        rows.append(
            [
                kind,
                samples.count("sample.process"),
                samples.count("sample.gpu"),
                us(timing.p50),
                us(timing.p99),
                f"{1000 * close:.0f} ms",
            ]
        )
    report.table(
        "Every call of the driver hangs",
        ["driver", "process samples", "GPU samples", "loop lag p50", "p99", "close"],
        rows,
    )


EXECUTIONS: Final = """
import json, statistics, sys, time
from amsha_async_log import open_log
logs = {name: open_log(sys.argv[1] + name, console=False, backup_count=1, **options) for name, options in {
    "off": {}, "on": {"sample_interval_s": 1}, "by task": {"sample_interval_s": 1, "cpu_by_task": True}}.items()}
found = {name: [] for name in logs}
for turn in range(int(sys.argv[2])):
    for name, log in logs.items():
        for _ in range(200):
            began = time.perf_counter_ns()
            with log.execution("crew"):
                pass
            found[name].append(time.perf_counter_ns() - began)
        log.flush()
print(json.dumps({name: statistics.median(samples) for name, samples in found.items()}))
"""


def _executions(report: Report, folder: Path, environment: dict[str, str]) -> None:
    found = _child(EXECUTIONS, environment, folder / "e", 10 if report.quick else 100)
    report.figures["execution_ns"] = found
    report.table(
        "An execution around nothing, p50 at the caller",
        ["samples", "p50"],
        [[name, us(value)] for name, value in found.items()],
    )


STEPS: Final = """
import asyncio, json, statistics, sys, time
from amsha_async_log import open_log
async def steps(number):
    began = time.perf_counter_ns()
    for _ in range(number):
        await asyncio.sleep(0)
    return (time.perf_counter_ns() - began) / number
async def main():
    found = {}
    for turn in range(int(sys.argv[2])):
        for name, by_task in (("off", False), ("on", True)):
            async with open_log(f"{sys.argv[1]}{name}{turn}", console=False, sample_interval_s=10, gpu_interval_s=0,
                                cpu_by_task=by_task) as log:
                async with log.execution("crew"):
                    found.setdefault(name, []).append(await steps(5000))
    print(json.dumps({name: statistics.median(values) for name, values in found.items()}))
asyncio.run(main())
"""


def _steps(report: Report, folder: Path, environment: dict[str, str]) -> None:
    found = _child(STEPS, environment, folder / "s", 3 if report.quick else 20)
    report.figures["task_step_ns"] = found
    report.table(
        "A step of a task (`await asyncio.sleep(0)`)",
        ["cpu_by_task", "time a step"],
        [[name, us(value)] for name, value in found.items()],
    )


def _measure(report: Report) -> None:
    _one_sample(report)
    _independence(report)
    with temporary_folder() as folder, _driver() as environment:
        if environment is None:
            report.check("a C compiler builds the stand-in for the GPU driver", ok=False)
            return
        _gpu(report, environment)
        _executions(report, folder, environment)
        _steps(report, folder, environment)
        _lateness(report, folder, environment)
        _hang(report, folder, environment)
        _whole_process(report, folder, environment)


if __name__ == "__main__":
    main("sampler", _measure, __doc__ or "")
