"""A benchmark that logs the metrics of every iteration, and what these calls cost it.

Run: python examples/benchmark_script.py [LOG]       then: amsha-log ls LOG
"""

import sys
import zlib
from random import Random
from statistics import quantiles
from time import perf_counter_ns

from amsha_async_log import open_log, reader

ITERATIONS = 1000
DATA = " ".join(map(str, Random(7).choices(range(1000), k=5000))).encode()


def main(path: str) -> None:
    call_costs: list[int] = []
    with (
        open_log(path, sample_interval_s=1, console=False) as log,
        log.execution("compression_bench", inputs={"bytes": len(DATA)}) as run,
    ):
        for level in (1, 6):
            with run.step("benchmark", f"zlib_{level}", iterations=ITERATIONS):
                for iteration in range(ITERATIONS):
                    started = perf_counter_ns()
                    size = len(zlib.compress(DATA, level))
                    ended = perf_counter_ns()
                    log.info("Iteration", iteration=iteration, size=size, microseconds=(ended - started) / 1000)
                    call_costs.append(perf_counter_ns() - ended)
        run.set_outputs({"iterations": len(call_costs)})

    stats = log.stats()
    percentiles = quantiles(call_costs, n=100)
    print(f"cost of a call: p50 {percentiles[49] / 1000:.1f} us, p99 {percentiles[98] / 1000:.1f} us")
    print(f"offered {stats.offered}, accepted {stats.accepted}, written {stats.written}, refused {stats.refused}")
    print(f"dropped {stats.dropped}, failed {stats.failed}, degraded {stats.degraded}")
    print(f"{sum(1 for _ in reader.executions(path))} executions in {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "logs/benchmark_script.jsonl")
