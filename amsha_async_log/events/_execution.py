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
    """As `prompt_tokens`."""
    total_tokens: int | None = None
    """Prompt and completion together."""
    cached_tokens: int | None = None
    """Of the prompt tokens, those the provider had cached."""
    reasoning_tokens: int | None = None
    """Of the completion tokens, those spent on reasoning."""
    cost_usd: float | None = None
    """Cost of its own model calls, as `record_tokens` was given it."""


class ExecutionStarted(Event, tag="execution.started", kw_only=True):
    """An execution began to run. Written by `log.execution(...)` when it is entered."""

    status: str = always("running")
    """The state it is in now."""
    parent_execution_id: str | None = None
    """The execution it was started in, in this process or the one it was joined from."""
    depends_on: Any = ()
    """Ids of executions whose results it needs."""
    inputs: Any = None
    """What it works on."""
    attempt: int = 1
    """Which attempt this is, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    trace_id: str | None = None
    """W3C trace id, 32 hexadecimal digits: the same for all executions of one request."""


class ExecutionStateChanged(Event, tag="execution.state_changed", kw_only=True):
    """An execution is `pending`, `paused`, or `running` again. Written by `run.set_state(...)`.

    Without `state_to` it carries tokens or outputs that it was told of after its end, or by a process that joined it.
    """

    state_from: str | None = None
    """The state before; left out where there was none."""
    state_to: str | None = None
    """The state it is in now."""
    status: str | None = None
    """As `state_to`."""


class ExecutionCompleted(_End, tag="execution.completed", kw_only=True):
    """An execution ended without an exception. Written by the execution itself."""

    status: str = always("completed")
    """How it ended."""


class ExecutionFailed(_End, tag="execution.failed", kw_only=True):
    """An execution ended with an exception; `stacktrace` holds its frames. Written by the execution itself.

    CRITICAL when `attempt` has reached `max_retries`.
    """

    error_type: str | None = None
    """Name of the exception's class."""
    error_message: str | None = None
    """What the exception says."""
    status: str = always("failed")
    """How it ended."""
    attempt: int = 1
    """Which attempt failed, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""


class ExecutionCancelled(_End, tag="execution.cancelled", kw_only=True):
    """An execution was cancelled: its block was left by a cancellation, KeyboardInterrupt or SystemExit.

    Written by the execution itself.
    """

    error_type: str | None = None
    """Name of the class of what cancelled it."""
    status: str = always("cancelled")
    """How it ended."""


class StepStarted(Event, tag="step.started", kw_only=True):
    """A step was entered. Written by `run.step(...)`."""

    step_kind: str
    """What it is: `task`, `agent`, `tool`, `llm`, ..."""
    step_name: str
    """Which one it is."""
    parent_step_id: str | None = None
    """The step it was entered in, if any."""
    status: str = always("running")
    """The state it is in now."""
    depends_on: Any = ()
    """Names or ids of steps whose results it needs."""
    inputs: Any = None
    """What it works on."""
    attempt: int | None = None
    """Which attempt this is, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""


class StepStateChanged(Event, tag="step.state_changed", kw_only=True):
    """A step is `pending`, `paused`, or `running` again. Written by `step.set_state(...)`.

    Without `state_to` it carries tokens or outputs that it was told of after its end, or by a process that joined it.
    """

    step_kind: str
    """What it is: `task`, `agent`, `tool`, `llm`, ..."""
    step_name: str
    """Which one it is."""
    state_from: str | None = None
    """The state before; left out where there was none."""
    state_to: str | None = None
    """The state it is in now."""
    status: str | None = None
    """As `state_to`."""


class StepCompleted(_End, tag="step.completed", kw_only=True):
    """A step ended without an exception. Written by the step itself."""

    step_kind: str
    """What it is: `task`, `agent`, `tool`, `llm`, ..."""
    step_name: str
    """Which one it is."""
    status: str = always("completed")
    """How it ended."""


class StepFailed(_End, tag="step.failed", kw_only=True):
    """A step ended with an exception. Written by the step itself.

    CRITICAL when `attempt` has reached `max_retries`.
    """

    step_kind: str
    """What it is: `task`, `agent`, `tool`, `llm`, ..."""
    step_name: str
    """Which one it is."""
    error_type: str | None = None
    """Name of the exception's class."""
    error_message: str | None = None
    """What the exception says."""
    status: str = always("failed")
    """How it ended."""
    attempt: int | None = None
    """Which attempt failed, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""


class StepCancelled(_End, tag="step.cancelled", kw_only=True):
    """A step was cancelled, as an execution is. Written by the step itself."""

    step_kind: str
    """What it is: `task`, `agent`, `tool`, `llm`, ..."""
    step_name: str
    """Which one it is."""
    error_type: str | None = None
    """Name of the class of what cancelled it."""
    status: str = always("cancelled")
    """How it ended."""
