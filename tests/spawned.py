"""What tests run in spawned processes: these import it by name, which test modules have none of."""

from collections.abc import Mapping

from amsha_async_log import open_log

__all__ = ["log_a_step"]


def log_a_step(path: str, carrier: Mapping[str, str]) -> None:
    """Join the execution that `carrier` tells of, and log one step of it."""
    with open_log(path, console=False) as log, log.extract(carrier) as joined:
        assert joined is not None
        with joined.step("task", "in the worker"):
            log.info("working")
