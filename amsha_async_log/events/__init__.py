"""Typed events. Emit one with `log.emit(events.FileOperation(...))`; it costs a third of a plain call.

Each struct is one value of a line's `event` key, in six groups: execution tracing, performance metrics, LLM operations,
file operations, error context, configuration changes. Fields left at their default are not written. Where and by whom
(`execution_id`, `crew_name`, `step_id`) comes from the running execution and need not be repeated; anything else can be
added as a keyword of `emit`.

Durations are seconds, sizes bytes, memory MB of 2^20 bytes, costs US dollars, percentages 0 to 100 (CPU: 100 for each
core), `attempt` counts from 1. A value of another type than declared raises nothing: it is written as it is, or marked.
What is declared a scalar must not be a container that changes after the call.
"""

from ._base import default_level
from ._configuration import ConfigChanged
from ._errors import ErrorRaised, ErrorRecovered
from ._execution import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionStateChanged,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepStarted,
    StepStateChanged,
)
from ._files import FileOperation
from ._llm import (
    LlmCallCompleted,
    LlmCallFailed,
    LlmCallRateLimited,
    LlmCallRetried,
    LlmConfigured,
    ToolCallCompleted,
    ToolCallFailed,
)
from ._performance import MetricsAttribution, MetricsExecution
from ._samples import (
    SampleCgroup,
    SampleGpu,
    SampleHost,
    SampleLoop,
    SampleLoopStalled,
    SampleProcess,
    SampleSourceChanged,
)

__all__ = [
    "ConfigChanged",
    "ErrorRaised",
    "ErrorRecovered",
    "ExecutionCancelled",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionStarted",
    "ExecutionStateChanged",
    "FileOperation",
    "LlmCallCompleted",
    "LlmCallFailed",
    "LlmCallRateLimited",
    "LlmCallRetried",
    "LlmConfigured",
    "MetricsAttribution",
    "MetricsExecution",
    "SampleCgroup",
    "SampleGpu",
    "SampleHost",
    "SampleLoop",
    "SampleLoopStalled",
    "SampleProcess",
    "SampleSourceChanged",
    "StepCancelled",
    "StepCompleted",
    "StepFailed",
    "StepStarted",
    "StepStateChanged",
    "ToolCallCompleted",
    "ToolCallFailed",
    "default_level",
]
