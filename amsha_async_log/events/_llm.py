"""LLM operations: which model was chosen and why, each call with what it used and cost, retries, rate limits, tools."""

from typing import Any

from ._base import Event

__all__ = [
    "LlmCallCompleted",
    "LlmCallFailed",
    "LlmCallRateLimited",
    "LlmCallRetried",
    "LlmConfigured",
    "ToolCallCompleted",
    "ToolCallFailed",
]


class LlmConfigured(Event, tag="llm.configured", kw_only=True):
    """A model was chosen and configured. Emit it when the client is made or its parameters change."""

    model_name: str | None = None
    """The name the program uses."""
    model: str | None = None
    """The provider's name for it, where that differs."""
    provider: str | None = None
    """Who runs it: `openai`, `azure`, `ollama`, ..."""
    endpoint: str | None = None
    """URL of the API, without credentials."""
    api_version: str | None = None
    """Version of the API, as the provider writes it."""
    selection_reason: str | None = None
    """Why this one: a rule, a fallback, an override."""
    temperature: float | None = None
    """Sampling temperature."""
    top_p: float | None = None
    """Share of the probability mass that is sampled from: 0 to 1."""
    max_tokens: int | None = None
    """Most tokens a completion may have."""
    stream: bool | None = None
    """Whether answers come in pieces."""
    seed: int | None = None
    """Seed for sampling."""
    parameters: Any = None
    """Any other parameters, by name."""


class _LlmCall(Event, kw_only=True):
    """What every end of a model call says."""

    model_name: str | None = None
    """The name the program uses."""
    model: str | None = None
    """The provider's name of the model that was called or answered, where that differs."""
    provider: str | None = None
    """Who runs it: `openai`, `azure`, `ollama`, ..."""
    endpoint: str | None = None
    """URL of the API, without credentials."""
    api_version: str | None = None
    """Version of the API, as the provider writes it."""
    selection_reason: str | None = None
    """Why this model: a rule, a fallback, an override."""
    agent_name: str | None = None
    """The agent that called."""
    task_name: str | None = None
    """The task it called for."""
    request_id: str | None = None
    """The provider's id of the request, for its support."""
    attempt: int | None = None
    """Which attempt this was, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    duration_seconds: float | None = None
    """API latency: from the request to the end of the answer."""
    http_status_code: int | None = None
    """Of the answer."""
    rate_limit_remaining_requests: int | None = None
    """Headroom the provider reported: requests left in its present window."""
    rate_limit_remaining_tokens: int | None = None
    """Headroom the provider reported: tokens left in its present window."""
    rate_limit_reset_seconds: float | None = None
    """Until the window begins anew."""


class LlmCallCompleted(_LlmCall, tag="llm.call.completed", gc=False, kw_only=True):
    """A model answered. Emit it once for each answer, with the usage the provider reports for that call."""

    prompt_tokens: int | None = None
    """Cached ones included."""
    completion_tokens: int | None = None
    """Reasoning included."""
    total_tokens: int | None = None
    """Left out: prompt and completion together."""
    cached_tokens: int | None = None
    """Of the prompt tokens, those the provider had cached."""
    cache_write_tokens: int | None = None
    """Of the prompt tokens, those the provider put into its cache."""
    reasoning_tokens: int | None = None
    """Of the completion tokens, those spent on reasoning."""
    cost_usd: float | None = None
    """Cost of this call."""
    time_to_first_token_seconds: float | None = None
    """From the request to the first piece of the answer."""
    finish_reason: str | None = None
    """Why the answer ended, in the provider's words: `stop`, `length`, `tool_calls`, ..."""
    temperature: float | None = None
    """Sampling temperature of this call."""
    top_p: float | None = None
    """Share of the probability mass that was sampled from: 0 to 1."""
    max_tokens: int | None = None
    """Most tokens the completion could have."""
    stream: bool | None = None
    """Whether the answer came in pieces."""
    retries: int | None = None
    """Requests the client repeated by itself within this call, where only their number is known."""


class LlmCallFailed(_LlmCall, tag="llm.call.failed", gc=False, kw_only=True):
    """A model call failed for good. Emit it instead of `llm.call.completed`.

    CRITICAL when `attempt` has reached `max_retries`.
    """

    error_type: str | None = None
    """Name of the exception's class. Left out: that of the exception given as `exc_info`."""
    error_message: str | None = None
    """What the exception says. Left out: that of `exc_info`."""


class LlmCallRetried(_LlmCall, tag="llm.call.retried", gc=False, kw_only=True):
    """A model call failed and will be tried again after `wait_seconds`. Emit it before the wait."""

    error_type: str | None = None
    """Name of the exception's class. Left out: that of the exception given as `exc_info`."""
    error_message: str | None = None
    """What the exception says. Left out: that of `exc_info`."""
    wait_seconds: float | None = None
    """From now to the next attempt."""


class LlmCallRateLimited(_LlmCall, tag="llm.call.rate_limited", gc=False, kw_only=True):
    """The provider refused a call because of its rate limit (HTTP 429). Emit it instead of `llm.call.retried`."""

    retry_after_seconds: float | None = None
    """How long the provider asks to wait."""


class _ToolCall(Event, kw_only=True):
    """What every end of a tool call says."""

    tool_name: str
    """The tool, as the model names it."""
    agent_name: str | None = None
    """The agent that called."""
    task_name: str | None = None
    """The task it called for."""
    duration_seconds: float | None = None
    """From the call to its end."""
    attempt: int | None = None
    """Which attempt this was, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    inputs: Any = None
    """The arguments it was called with."""


class ToolCallCompleted(_ToolCall, tag="tool.call.completed", kw_only=True):
    """A tool that a model asked for returned. Emit it once for each call."""

    outputs: Any = None
    """What it returned."""
    from_cache: bool | None = None
    """Whether that came from a cache, without the tool being run."""


class ToolCallFailed(_ToolCall, tag="tool.call.failed", kw_only=True):
    """A tool that a model asked for failed. Emit it instead of `tool.call.completed`.

    CRITICAL when `attempt` has reached `max_retries`.
    """

    error_type: str | None = None
    """Name of the exception's class. Left out: that of the exception given as `exc_info`."""
    error_message: str | None = None
    """What the exception says. Left out: that of `exc_info`."""
