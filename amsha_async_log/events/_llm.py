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
    endpoint: str | None = None
    """URL of the API, without credentials."""
    api_version: str | None = None
    selection_reason: str | None = None
    """Why this one: a rule, a fallback, an override."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """Most tokens a completion may have."""
    stream: bool | None = None
    seed: int | None = None
    parameters: Any = None
    """Any other parameters, by name."""


class _LlmCall(Event, kw_only=True):
    model_name: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    """URL of the API, without credentials."""
    api_version: str | None = None
    selection_reason: str | None = None
    request_id: str | None = None
    """The provider's id of the request, for its support."""
    attempt: int | None = None
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    duration_seconds: float | None = None
    """API latency: from the request to the end of the answer."""
    http_status_code: int | None = None
    rate_limit_remaining_requests: int | None = None
    """Headroom the provider reported: requests left in its present window."""
    rate_limit_remaining_tokens: int | None = None
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
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    time_to_first_token_seconds: float | None = None
    finish_reason: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    retries: int | None = None
    """Requests the client repeated by itself within this call, where only their number is known."""


class LlmCallFailed(_LlmCall, tag="llm.call.failed", gc=False, kw_only=True):
    """A model call failed for good. CRITICAL when `attempt` has reached `max_retries`."""

    error_type: str
    error_message: str | None = None


class LlmCallRetried(_LlmCall, tag="llm.call.retried", gc=False, kw_only=True):
    """A model call failed and will be tried again after `wait_seconds`."""

    error_type: str | None = None
    error_message: str | None = None
    wait_seconds: float | None = None


class LlmCallRateLimited(_LlmCall, tag="llm.call.rate_limited", gc=False, kw_only=True):
    """The provider refused a call because of its rate limit (HTTP 429)."""

    retry_after_seconds: float | None = None


class _ToolCall(Event, kw_only=True):
    tool_name: str
    agent_name: str | None = None
    duration_seconds: float | None = None
    attempt: int | None = None
    max_retries: int | None = None
    inputs: Any = None


class ToolCallCompleted(_ToolCall, tag="tool.call.completed", kw_only=True):
    """A tool that a model asked for returned."""

    outputs: Any = None
    from_cache: bool | None = None


class ToolCallFailed(_ToolCall, tag="tool.call.failed", kw_only=True):
    """A tool that a model asked for failed. CRITICAL when `attempt` has reached `max_retries`."""

    error_type: str | None = None
    """Left out: that of the exception given as `exc_info`."""
    error_message: str | None = None
