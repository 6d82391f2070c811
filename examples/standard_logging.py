"""A program that uses `logging` and `warnings` as ever, third-party code included: one dictConfig makes a log of it.

Run: python examples/standard_logging.py [LOG]       then: amsha-log show EXECUTION_ID LOG
"""

import logging
import logging.config
import sys
import warnings

from amsha_async_log import open_log, reader
from amsha_async_log.stdlib import StdlibLogger

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"log": {"class": "amsha_async_log.stdlib.AsyncLogHandler"}},  # writes to the log opened last
    "root": {"handlers": ["log"], "level": "DEBUG"},
    "loggers": {"http_client": {"level": "WARNING"}},  # too talkative below that
}

logging.setLoggerClass(StdlibLogger)  # optional: calls of loggers made from here on cost a fraction
logger = logging.getLogger("billing")


class HttpClient:
    """Stands for a library that knows nothing of this package."""

    logger = logging.getLogger("http_client.connection")

    def get(self, url: str) -> str:
        """Pretend to ask for something."""
        self.logger.debug("GET %s", url)
        if url.endswith("/3"):
            self.logger.warning("Retrying %s after %d ms", url, 250)
        return url.rpartition("/")[2]


def price_of(order: int) -> float:
    if order == 2:
        warnings.warn("order 2 is in the old format", stacklevel=2)
    return 100 / (4 - order)


def main(path: str) -> None:
    logging.config.dictConfig(LOGGING)
    logging.captureWarnings(capture=True)
    client = HttpClient()
    with open_log(path, level="DEBUG", console=False) as log, log.execution("billing_run") as run:
        for order in range(1, 6):
            client.get(f"https://shop.example/orders/{order}")
            try:
                price = price_of(order)
            except ZeroDivisionError:
                logger.exception("Order %d has no price", order)
            else:
                logger.info("Order %d read", order, extra={"order": order, "price": price})
        execution_id = run.execution_id
    for record in reader.records(path):
        if record["event"] == "log":
            print(f"{record['level']:8} {record['logger']:22} {record['message']}")
    print(f"{sum(1 for _ in reader.executions(path))} executions in {path}")
    print(f"see the traceback with: amsha-log show {execution_id} {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "logs/standard_logging.jsonl")
