"""Typed events. Emit one with `log.emit(events.FileOperation(...))`; it costs a third of a plain call.

Each struct is one value of a line's `event` key. Fields left at their default are not written. Where and by whom
(`execution_id`, `crew_name`, `step_id`) comes from the running execution and need not be repeated.
Durations are seconds, sizes bytes, costs US dollars.
"""

from typing import Any

from msgspec import Struct, field

__all__ = [
    "ErrorRecovered",
    "ExecutionCancelled",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionStarted",
    "FileOperation",
    "LlmCallCompleted",
    "LlmCallFailed",
    "LlmCallRateLimited",
    "LlmCallRetried",
    "StepCancelled",
    "StepCompleted",
    "StepFailed",
    "StepStarted",
    "default_level",
]


def _always(value: str) -> Any:
    """A default that is written all the same, since readers look for it on the line."""
    return field(default_factory=lambda: value)


class _Event(Struct, tag_field="event", kw_only=True, omit_defaults=True):
    """Base of the typed events."""


# -- execution tracing -------------------------------------------------------------------------------------------------


class _End(_Event, kw_only=True):
    """What every end of an execution or step says."""

    duration_seconds: float
    """From entering the block to leaving it, on the monotonic clock."""
    outputs: Any = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost_usd: float | None = None


class ExecutionStarted(_Event, tag="execution.started", kw_only=True):
    """An execution was entered. Written by `log.execution(...)`."""

    status: str = _always("running")
    parent_execution_id: str | None = None
    depends_on: Any = ()
    inputs: Any = None
    attempt: int = 1
    max_retries: int | None = None


class ExecutionCompleted(_End, tag="execution.completed", kw_only=True):
    """An execution ended without an exception."""

    status: str = _always("completed")


class ExecutionFailed(_End, tag="execution.failed", kw_only=True):
    """An execution ended with an exception; `stacktrace` holds its frames."""

    error_type: str | None = None
    error_message: str | None = None
    status: str = _always("failed")
    attempt: int = 1
    max_retries: int | None = None


class ExecutionCancelled(_End, tag="execution.cancelled", kw_only=True):
    """An execution was cancelled: its block was left by a cancellation, KeyboardInterrupt or SystemExit."""

    error_type: str
    status: str = _always("cancelled")


class StepStarted(_Event, tag="step.started", kw_only=True):
    """A step was entered. Written by `run.step(...)`."""

    step_kind: str
    step_name: str
    parent_step_id: str | None = None
    status: str = _always("running")


class StepCompleted(_End, tag="step.completed", kw_only=True):
    """A step ended without an exception."""

    step_kind: str
    step_name: str
    status: str = _always("completed")


class StepFailed(_End, tag="step.failed", kw_only=True):
    """A step ended with an exception."""

    step_kind: str
    step_name: str
    error_type: str | None = None
    error_message: str | None = None
    status: str = _always("failed")


class StepCancelled(_End, tag="step.cancelled", kw_only=True):
    """A step was cancelled."""

    step_kind: str
    step_name: str
    error_type: str
    status: str = _always("cancelled")


# -- LLM operations ----------------------------------------------------------------------------------------------------


class _LlmCall(_Event, kw_only=True):
    model_name: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    attempt: int | None = None
    duration_seconds: float | None = None


class LlmCallCompleted(_LlmCall, tag="llm.call.completed", gc=False, kw_only=True):
    """A model answered."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stream: bool | None = None


class LlmCallFailed(_LlmCall, tag="llm.call.failed", gc=False, kw_only=True):
    """A model call failed for good. CRITICAL when `attempt` has reached `max_retries`."""

    error_type: str
    max_retries: int | None = None
    error_message: str | None = None


class LlmCallRetried(_LlmCall, tag="llm.call.retried", gc=False, kw_only=True):
    """A model call failed and will be tried again after `wait_seconds`."""

    error_type: str | None = None
    error_message: str | None = None
    max_retries: int | None = None
    wait_seconds: float | None = None


class LlmCallRateLimited(_LlmCall, tag="llm.call.rate_limited", gc=False, kw_only=True):
    """The provider refused a call because of its rate limit (HTTP 429)."""

    retry_after_seconds: float | None = None


# -- file operations ---------------------------------------------------------------------------------------------------


class FileOperation(_Event, tag="file.operation", gc=False, kw_only=True):
    """A file was read, written, validated or cleaned."""

    operation: str
    file_path: str
    status: str
    file_size_bytes: int | None = None
    duration_seconds: float | None = None
    validation_status: str | None = None
    attempt: int | None = None
    error_type: str | None = None
    error_message: str | None = None


# -- error context -----------------------------------------------------------------------------------------------------


class ErrorRecovered(_Event, tag="error.recovered", gc=False, kw_only=True):
    """An error was handled; `recovery_action` says how."""

    error_type: str
    recovery_action: str
    error_message: str | None = None
    attempt: int | None = None


_LEVEL_BY_ENDING = {
    ".failed": "ERROR",
    ".retried": "WARNING",
    ".rate_limited": "WARNING",
    ".recovered": "WARNING",
    ".raised": "ERROR",
}


def default_level(event: str) -> str:
    """The level of an event emitted without one: by the last word of its tag, else INFO."""
    return _LEVEL_BY_ENDING.get(event[event.rfind(".") :], "INFO")
