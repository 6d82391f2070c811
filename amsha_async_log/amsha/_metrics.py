"""The lines that Amsha writes of its operations, metrics, models and files, with the names it gives them."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from .._observe import End, observed
from .._run import is_failure
from .._snapshot import describe_type

__all__ = ["MetricsLogger", "log_execution"]

F = TypeVar("F", bound=Callable[..., Any])
_REFUSED: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Names that the standard library takes for itself."""


def log_execution(logger: logging.Logger, operation_name: str) -> Callable[[F], F]:
    """Log each call of the function: `<operation_name> started` (DEBUG), `completed` (INFO), `failed` (ERROR).

    Fields: `operation`, `function`, `duration_seconds` (four decimals), `status`, and of a failure `error_type` and the
    stack trace. For functions, coroutines, generators, async generators and methods; what was raised passes through. A
    cancelled call is `cancelled` (INFO).
    """
    started, completed, failed, cancelled = (
        f"{operation_name} {outcome}" for outcome in ("started", "completed", "failed", "cancelled")
    )

    def decorate(function: F) -> F:
        name = getattr(function, "__name__", None) or describe_type(function)

        def watch(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> End:
            began = time.monotonic()
            logger.debug(started, extra={"operation": operation_name, "function": name})

            def end(error: BaseException | None) -> None:
                fields = {
                    "operation": operation_name,
                    "function": name,
                    "duration_seconds": round(time.monotonic() - began, 4),
                }
                if error is None:
                    logger.info(completed, extra={**fields, "status": "success"})
                    return
                fields |= {"error_type": describe_type(error)}
                if is_failure(error):
                    logger.error(failed, extra={**fields, "status": "failed"}, exc_info=error)
                else:
                    logger.info(cancelled, extra={**fields, "status": "cancelled"})

            return end

        decorated: F = observed(function, watch)
        return decorated

    return decorate


class MetricsLogger:
    """Lines about executions, models and files, through any logger. No call raises because of what it is given."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger

    def log_execution_metrics(
        self, crew_name: str, execution_id: str, metrics: Mapping[str, Any], duration: float
    ) -> None:
        """`Execution metrics captured`. `metrics`: `{"general": {...}, "gpu": {...}}`; `duration`: seconds.

        Of `general` are taken `total_tokens`, `prompt_tokens`, `completion_tokens`, `cpu_usage_end_percent` (as
        `cpu_usage_percent`), `memory_usage_change_mb` (as `memory_change_mb`); `gpu` as a whole as `gpu_metrics`.
        What is not there is 0, as in Amsha.
        """
        general = _part(metrics, "general")
        self.logger.info(
            "Execution metrics captured",
            extra={
                "crew_name": crew_name,
                "execution_id": execution_id,
                "duration_seconds": _rounded(duration),
                "total_tokens": general.get("total_tokens", 0),
                "prompt_tokens": general.get("prompt_tokens", 0),
                "completion_tokens": general.get("completion_tokens", 0),
                "cpu_usage_percent": general.get("cpu_usage_end_percent", 0),
                "memory_change_mb": general.get("memory_usage_change_mb", 0),
                "gpu_metrics": _part(metrics, "gpu"),
            },
        )

    def log_llm_config(self, model_name: str, config: Mapping[str, Any]) -> None:
        """`LLM configuration`: `model`, `temperature`, `top_p`, `max_completion_tokens` (as `max_tokens`), `stream`."""
        config = _mapping(config)
        self.logger.info(
            "LLM configuration",
            extra={
                "model_name": model_name,
                "model": config.get("model"),
                "temperature": config.get("temperature"),
                "top_p": config.get("top_p"),
                "max_tokens": config.get("max_completion_tokens"),
                "stream": config.get("stream", False),
            },
        )

    def log_file_operation(self, operation: str, file_path: str, status: str, **extra_data: Any) -> None:
        """`File operation: <operation>`, with `extra_data` as further fields: `file_size_bytes`, `execution_id`, ...

        A field with a name that the standard library keeps for itself gets a trailing underscore.
        """
        said = {"operation": operation, "file_path": file_path, "status": status}
        more = {f"{name}_" if name in _REFUSED else name: value for name, value in extra_data.items()}
        message = f"File operation: {operation}"
        self.logger.info(message, extra={**more, **said})


def _part(metrics: object, name: str) -> Mapping[str, Any]:
    return _mapping(_mapping(metrics).get(name))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rounded(duration: Any) -> Any:
    return round(duration, 4) if isinstance(duration, int | float) else duration
