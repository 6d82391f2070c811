"""What did each crew cost the machine? Three unequal crews at the same time, each told apart.

Run: python examples/what_it_cost.py [LOG]       then: amsha-log top --once LOG

Each crew computes, holds memory and would use a GPU, more or less of each. The log samples the process, the host, its
container, the event loop and the GPUs, and writes for each execution what it cost, how far that may be from the truth,
and, of what nobody can know here, why. `cpu_by_task` measures each crew's own tasks; without it the CPU time of a
moment is divided equally among the crews that run in it.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import NamedTuple

from amsha_async_log import open_log, reader
from amsha_async_log.execution import Execution


class Crew(NamedTuple):
    """What a crew will do."""

    name: str
    starts_after_s: float
    turns: int
    """Times that it computes, and gives way to the others after."""
    rounds: int
    """Of a loop, each time."""
    megabytes: int
    watts: float
    """That its work on a GPU takes."""


CREWS = (
    Crew("research", 0.0, turns=240, rounds=110_000, megabytes=20, watts=400),
    Crew("writing", 0.6, turns=50, rounds=120_000, megabytes=60, watts=120),
    Crew("review", 0.9, turns=30, rounds=20_000, megabytes=5, watts=30),
)


def compute(rounds: int) -> None:
    """Work that takes CPU time in proportion to `rounds`."""
    for _ in range(rounds):
        pass


async def work(crew: Crew, use_gpu: Callable[[float], None]) -> None:
    """All that a crew does."""
    memory = bytearray(crew.megabytes << 20)
    memory[::4096] = b"x" * len(memory[::4096])  # only memory that is written to is resident
    use_gpu(crew.watts)
    for _ in range(crew.turns):
        compute(crew.rounds)
        await asyncio.sleep(0.005)
    use_gpu(-crew.watts)
    del memory


async def main(path: str = "logs/what_it_cost.jsonl", use_gpu: Callable[[float], None] = lambda _watts: None) -> None:
    """Run the crews, then say what each cost."""
    async with open_log(path, sample_interval_s=1, cpu_by_task=True, console=False) as log:

        async def run(crew: Crew) -> Execution:
            await asyncio.sleep(crew.starts_after_s)
            async with log.execution(crew.name) as execution:
                await work(crew, use_gpu)
            return execution

        executions = await asyncio.gather(*map(run, CREWS))
    for execution in executions:
        cost = execution.summary().resources
        assert cost is not None  # the log is closed: all is known
        print(
            f"{execution.crew_name:9} {cost.cpu_seconds:.3f} s of CPU (within {cost.cpu_error_seconds:.3f}),", end=" "
        )
        print(f"{cost.peak_memory_mb:.0f} MB at most in the process,", end=" ")
        if cost.energy_joules is None:
            print(f"energy unknown: {(cost.unknown or {}).get('energy_joules')}")
        else:
            print(f"{cost.energy_joules:.1f} J (within {cost.energy_error_joules:.1f})")
    lines = [record for record in reader.records(path) if record["event"] == "metrics.attribution"]
    cpu = lines[-1]["counters"]["cpu_nanoseconds"]
    print(f"of {cpu['total'] / 1e9:.3f} s of CPU, {cpu['idle'] / 1e9:.3f} were used while no crew ran", end=" ")
    print(f"and {cpu['unattributed'] / 1e9:.3f} by nobody's task")
    print(f"{len(executions)} executions in {path}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]) if len(sys.argv) > 1 else main())
