"""The example `what_it_cost.py` against the truth, which comes from other processes and from a GPU told what to draw.

The crews overlap and are unequal. Dividing everything equally among them must not pass for right.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nvml
import pytest
from support import user_lines

import amsha_async_log

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDERS = os.pathsep.join(map(str, [Path(amsha_async_log.__file__).parents[1], EXAMPLES, Path(__file__).parent]))
SAME_WORK_AGAIN = 0.25
"""By how much the CPU time of the same work differs between two runs on a machine that others use too."""

TOGETHER = """
import asyncio, json, sys, time
import nvml, what_it_cost

driver, watts, history = nvml.loaded(), 0.0, []
driver.set(0, power_mw=0)

def use_gpu(more):
    global watts
    watts += more
    driver.set(0, power_mw=round(watts * 1000))
    history.append((time.monotonic(), more))

print(time.monotonic(), flush=True)
asyncio.run(what_it_cost.main(sys.argv[1], use_gpu))
print(json.dumps(history))
"""

ALONE = """
import asyncio, sys, time, what_it_cost
(crew,) = [crew for crew in what_it_cost.CREWS if crew.name == sys.argv[1]]
async def alone():
    before = time.process_time()
    await what_it_cost.work(crew, lambda watts: None)
    print(time.process_time() - before)
asyncio.run(alone())
"""

OBSERVER = """
import sys, time
pid, page = int(sys.argv[1]), 4096
try:
    while True:
        with open(f"/proc/{pid}/statm") as file:
            resident = int(file.read().split()[1]) * page
        if not resident:  # it has ended, and nobody has asked for its exit code yet
            break
        print(time.time(), resident)
        time.sleep(0.002)
except (FileNotFoundError, ProcessLookupError, IndexError):
    pass
"""


class Truth:
    """What the crews really did."""

    def __init__(self, path: Path) -> None:
        environment = {**nvml.environment("devices=1"), "PYTHONPATH": FOLDERS}
        command = [sys.executable, "-c", TOGETHER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as together:
            assert together.stdout is not None
            together.stdout.readline()
            observer = subprocess.run(
                [sys.executable, "-c", OBSERVER, str(together.pid)], capture_output=True, text=True, check=True
            )
            output = together.stdout.read()
        assert together.returncode == 0
        self.memory = [(float(at), int(rss)) for at, rss in map(str.split, observer.stdout.splitlines())]
        history = json.loads(output.splitlines()[-1])
        begun: dict[float, float] = {}
        self.joules: dict[float, float] = {}
        """Watts, which no two crews have in common, to joules."""
        for at, watts in history:
            if watts > 0:
                begun[watts] = at
            else:
                self.joules[-watts] = -watts * (at - begun[-watts])
        lines = user_lines(path)
        self.cost = {line["crew_name"]: line for line in lines if line["event"] == "metrics.execution"}
        self.spans = {
            name: (
                next(
                    line["timestamp"]
                    for line in lines
                    if line["event"] == "execution.started" and line["crew_name"] == name
                ),
                next(
                    line["timestamp"]
                    for line in lines
                    if line["event"] == "execution.completed" and line["crew_name"] == name
                ),
            )
            for name in self.cost
        }


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the truth about memory is read from /proc, which this system does not have")
    return Truth(tmp_path_factory.mktemp("cost") / "run.jsonl")


def crews() -> list[Any]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import what_it_cost
    finally:
        sys.path.remove(str(EXAMPLES))
    return list(what_it_cost.CREWS)


def test_cpu_time_is_what_the_same_work_takes_in_a_process_of_its_own(truth: Truth) -> None:
    alone: dict[str, float] = {}
    for crew in crews():
        done = subprocess.run(
            [sys.executable, "-c", ALONE, crew.name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": FOLDERS},
        )
        alone[crew.name] = float(done.stdout)
    total = sum(line["cpu_seconds"] for line in truth.cost.values())
    slower = total / sum(alone.values())  # a busy machine makes the same work take longer, for all crews alike
    far_off = []
    for name, seconds in alone.items():
        line, expected = truth.cost[name], slower * seconds
        allowed = line["cpu_error_seconds"] + SAME_WORK_AGAIN * expected
        assert abs(line["cpu_seconds"] - expected) <= allowed, (name, line["cpu_seconds"], expected, allowed)
        if abs(total / len(alone) - expected) > allowed:
            far_off.append(name)
    assert far_off, "dividing equally would have passed too"


def test_energy_is_within_its_bound_of_what_each_crew_had_the_gpu_draw(truth: Truth) -> None:
    by_crew = {crew.name: truth.joules[crew.watts] for crew in crews()}
    assert all("energy_joules" in line for line in truth.cost.values()), truth.cost
    total = sum(line["energy_joules"] for line in truth.cost.values())
    for name, joules in by_crew.items():
        line = truth.cost[name]
        assert "energy_joules" in line, line
        assert abs(line["energy_joules"] - joules) <= line["energy_error_joules"], (name, line, joules)
    equally = total / len(by_crew)
    far_off = [
        name for name, joules in by_crew.items() if abs(equally - joules) > truth.cost[name]["energy_error_joules"]
    ]
    assert far_off, "dividing equally would have passed too"


def test_peak_memory_is_what_another_process_saw_while_the_crew_ran(truth: Truth) -> None:
    for name, (start, end) in truth.spans.items():
        seen = max(rss for at, rss in truth.memory if start <= at <= end + 0.15) / 2**20
        assert abs(truth.cost[name]["peak_memory_mb"] - seen) <= 0.1 * seen, (name, truth.cost[name], seen)


def test_crews_are_unequal_enough_for_this_to_mean_something(truth: Truth) -> None:
    peaks = [truth.cost[crew.name]["cpu_seconds"] for crew in crews()]
    assert max(peaks) > 5 * min(peaks)
