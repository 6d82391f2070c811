"""Execution tracing: states, inputs and outputs, dependencies."""

from typing import Any

from ._base import Event, always

__all__ = [
    "ExecutionCancelled",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionStarted",
    "ExecutionStateChanged",
    "StepCancelled",
    "StepCompleted",
    "StepFailed",
    "StepStarted",
    "StepStateChanged",
]


class _End(Event, kw_only=True):
    """What every end of an execution or step says."""

    duration_seconds: float
    """From its start to its end, on the monotonic clock."""
    outputs: Any = None
    """What it produced, as `set_outputs` was given it."""
    prompt_tokens: int | None = None
    """Of this execution or step by itself, as `record_tokens` was given it; the steps inside tell their own."""
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    """Of the prompt tokens, those the provider had cached."""
    reasoning_tokens: int | None = None
    """Of the completion tokens, those spent on reasoning."""
    cost_usd: float | None = None


class ExecutionStarted(Event, tag="execution.started", kw_only=True):
    """An execution began to run. Written by `log.execution(...)` when it is entered."""

    status: str = always("running")
    parent_execution_id: str | None = None
    """The execution it was started in, in this process or the one it was joined from."""
    depends_on: Any = ()
    """Ids of executions whose results it needs."""
    inputs: Any = None
    attempt: int = 1
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    trace_id: str | None = None
    """W3C trace id, 32 hexadecimal digits: the same for all executions of one request."""


class ExecutionStateChanged(Event, tag="execution.state_changed", kw_only=True):
    """An execution is `pending`, `paused`, or `running` again. Written by `run.set_state(...)`."""

    state_from: str | None = None
    state_to: str
    status: str
    """As `state_to`."""


class ExecutionCompleted(_End, tag="execution.completed", kw_only=True):
    """An execution ended without an exception."""

    status: str = always("completed")


class ExecutionFailed(_End, tag="execution.failed", kw_only=True):
    """An execution ended with an exception; `stacktrace` holds its frames."""

    error_type: str | None = None
    error_message: str | None = None
    status: str = always("failed")
    attempt: int = 1
    max_retries: int | None = None


class ExecutionCancelled(_End, tag="execution.cancelled", kw_only=True):
    """An execution was cancelled: its block was left by a cancellation, KeyboardInterrupt or SystemExit."""

    error_type: str | None = None
    status: str = always("cancelled")


class StepStarted(Event, tag="step.started", kw_only=True):
    """A step was entered. Written by `run.step(...)`."""

    step_kind: str
    """What it is: `task`, `agent`, `tool`, `llm`, ..."""
    step_name: str
    parent_step_id: str | None = None
    status: str = always("running")
    depends_on: Any = ()
    """Names or ids of steps whose results it needs."""
    inputs: Any = None
    attempt: int | None = None
    max_retries: int | None = None


class StepStateChanged(Event, tag="step.state_changed", kw_only=True):
    """A step is `pending`, `paused`, or `running` again. Written by `step.set_state(...)`."""

    step_kind: str
    step_name: str
    state_from: str | None = None
    state_to: str
    status: str
    """As `state_to`."""


class StepCompleted(_End, tag="step.completed", kw_only=True):
    """A step ended without an exception."""

    step_kind: str
    step_name: str
    status: str = always("completed")


class StepFailed(_End, tag="step.failed", kw_only=True):
    """A step ended with an exception."""

    step_kind: str
    step_name: str
    error_type: str | None = None
    error_message: str | None = None
    status: str = always("failed")
    attempt: int | None = None
    max_retries: int | None = None


class StepCancelled(_End, tag="step.cancelled", kw_only=True):
    """A step was cancelled."""

    step_kind: str
    step_name: str
    error_type: str | None = None
    status: str = always("cancelled")
