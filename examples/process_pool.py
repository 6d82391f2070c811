"""500 runs in a pool of processes: each worker logs into a file of its own beside the parent's, one reader sees all.

Run: python examples/process_pool.py [LOG]       then: amsha-log verify LOG
"""

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from amsha_async_log import get_log, open_log, reader

RUNS = 500
WORKERS = 2


def start_worker(path: str) -> None:
    """Open the parent's path in a worker: the parent holds it, so the worker's lines go to a sibling file."""
    open_log(path, sample_interval_s=1, console=False)


def simulate(parent_execution_id: str, number: int) -> int:
    """One run in a worker; it is closed with the worker, no call needed."""
    with get_log().execution("simulation", parent_execution_id=parent_execution_id, inputs={"number": number}) as run:
        total = sum(n * n for n in range(number))
        get_log().info("Simulated", number=number, total=total)
        run.set_outputs(total)
    return total


def main(path: str) -> None:
    # Workers are spawned, not forked: a process with threads is better not forked, and this works everywhere.
    with (
        open_log(path, sample_interval_s=1, console=False) as log,
        log.execution("sweep", inputs={"runs": RUNS}) as sweep,
        ProcessPoolExecutor(WORKERS, get_context("spawn"), start_worker, (path,)) as pool,
    ):
        totals = list(pool.map(partial(simulate, sweep.execution_id), range(RUNS), chunksize=10))
        sweep.set_outputs({"runs": len(totals)})

    executions = list(reader.executions(path))
    children = Counter(execution.status for execution in executions if execution.crew_name == "simulation")
    print(f"{children['completed']} of {RUNS} runs completed, as read back from the files:")
    for file in sorted(Path(path).parent.glob(f"{Path(path).stem}*.jsonl")):
        print(f"  {file.name}  {file.stat().st_size:,} bytes")
    print(f"{len(executions)} executions in {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "logs/process_pool.jsonl")
