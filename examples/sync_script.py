"""A plain script without asyncio: the same log, `with` in place of `async with`, and an error with its traceback.

Run: python examples/sync_script.py [LOG]       then: amsha-log show EXECUTION_ID LOG
"""

import json
import sys

from amsha_async_log import open_log, reader

ORDERS = ('{"id": 1, "price": 12.5}', '{"id": 2, "price": "n/a"}', '{"id": 3, "price": 40}', '{"id": 4')


def price_of(order: str) -> float:
    """Read one order; raises ValueError (bad JSON is one, too) when it has no usable price."""
    return float(json.loads(order)["price"])


def main(path: str) -> None:
    with open_log(path, level="DEBUG", sample_interval_s=1, console=False) as log:
        billing = log.child("billing").bind(tenant="acme")
        with log.execution("billing_run", inputs={"orders": len(ORDERS)}) as run:
            execution_id = run.execution_id
            total = 0.0
            with run.step("task", "sum_prices") as step:
                for number, order in enumerate(ORDERS, start=1):
                    try:
                        total += price_of(order)
                    except ValueError:
                        billing.error("Order %d has no usable price", number, order=order, exc_info=True)
                    else:
                        billing.debug("Order %d read", number)
                step.set_outputs(total)
            run.set_outputs({"total": total})
        report = log.close()
    print(f"total {total}, {report.written} records written, {report.refused} refused")
    for execution in reader.executions(path):
        print(f"{execution.execution_id}  {execution.status}  errors={execution.errors}")
    print(f"{sum(1 for _ in reader.executions(path))} executions in {path}")
    print(f"see the two tracebacks with: amsha-log show {execution_id} {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "logs/sync_script.jsonl")
