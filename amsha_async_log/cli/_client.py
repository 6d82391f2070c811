"""The demo's model client: calls over HTTP with retries and back-off, each attempt told to the log as it ended."""

import asyncio
from http import HTTPStatus
from random import Random
from time import perf_counter
from typing import Final

import aiohttp
from msgspec import Struct, json

from .. import events
from .._logger import Logger
from ._null_log import NullLog

__all__ = ["MAX_ATTEMPTS", "MODELS", "Completion", "ModelClient", "ProviderError", "Usage"]

MAX_ATTEMPTS: Final = 4
"""Calls made for one answer before the provider is given up."""

MODELS: Final = ("stub-large", "stub-small")
_USD_PER_TOKEN: Final = {"stub-large": (2.5e-6, 1e-5), "stub-small": (1.5e-7, 6e-7)}
_BACK_OFF_SECONDS: Final = 0.02


class ProviderError(Exception):
    """The provider gave no answer, not even to the last retry."""


class _Message(Struct):
    content: str


class _Choice(Struct):
    message: _Message


class Usage(Struct):
    """Tokens of one completion, as the provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Struct):
    """The part of a chat completion that is used here."""

    model: str
    choices: list[_Choice]
    usage: Usage

    @property
    def text(self) -> str:
        return self.choices[0].message.content

    @property
    def cost_usd(self) -> float:
        prompt_price, completion_price = _USD_PER_TOKEN[self.model]
        return self.usage.prompt_tokens * prompt_price + self.usage.completion_tokens * completion_price


class _Refusal(Struct):
    """Why a call got no completion."""

    error_type: str
    message: str


class ModelClient:
    """Asks the model of one chat endpoint; counts what it did."""

    def __init__(self, log: Logger | NullLog, session: aiohttp.ClientSession, url: str) -> None:
        self.calls = 0
        """HTTP calls that were answered, whatever the answer."""
        self.retries = 0
        """Of these, the ones refused or failed and made again."""
        self.total_tokens = 0
        self._log = log
        self._session = session
        self._url = url

    async def ask(self, model: str, prompt: str, key: str) -> Completion:
        """One completion, over as many HTTP calls as the provider makes necessary.

        `key` names the question; the provider's troubles depend on it.
        """
        for attempt in range(1, MAX_ATTEMPTS + 1):
            request = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "user": f"{key}/{attempt}",
            }
            self._log.debug("Model call", model_name=model, prompt_characters=len(prompt), attempt=attempt)
            started = perf_counter()
            async with self._session.post(self._url, json=request) as response:
                body = await response.read()
            elapsed = perf_counter() - started
            self.calls += 1
            if response.ok:
                return self._completed(body, attempt, elapsed)
            refusal = _Refusal(f"HTTP {response.status}", json.decode(body)["error"]["message"])
            if attempt == MAX_ATTEMPTS:
                raise self._failed(model, attempt, elapsed, refusal)
            self.retries += 1
            if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                wait = int(response.headers["retry-after-ms"]) / 1000
                self._rate_limited(model, attempt, elapsed, wait)
            else:
                jitter = Random(f"{key}/{attempt}").random()
                wait = _BACK_OFF_SECONDS * 2 ** (attempt - 1) * (1 + jitter)
                self._retried(model, attempt, elapsed, refusal, wait)
            await asyncio.sleep(wait)
        raise AssertionError  # the last attempt returns or raises

    def _completed(self, body: bytes, attempt: int, elapsed: float) -> Completion:
        completion = json.decode(body, type=Completion)
        usage = completion.usage
        self.total_tokens += usage.total_tokens
        self._log.emit(
            events.LlmCallCompleted(
                model_name=completion.model,
                provider="stub",
                endpoint=self._url,
                attempt=attempt,
                duration_seconds=elapsed,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
                cost_usd=completion.cost_usd,
            )
        )
        return completion

    def _failed(self, model: str, attempt: int, elapsed: float, refusal: _Refusal) -> ProviderError:
        failed = events.LlmCallFailed(
            model_name=model,
            attempt=attempt,
            duration_seconds=elapsed,
            error_type=refusal.error_type,
            error_message=refusal.message,
            max_retries=MAX_ATTEMPTS,
        )
        self._log.emit(failed)
        return ProviderError(f"{model} gave no answer in {MAX_ATTEMPTS} calls, last: {refusal.error_type}")

    def _rate_limited(self, model: str, attempt: int, elapsed: float, wait: float) -> None:
        self._log.emit(
            events.LlmCallRateLimited(
                model_name=model, attempt=attempt, duration_seconds=elapsed, retry_after_seconds=wait
            )
        )

    def _retried(self, model: str, attempt: int, elapsed: float, refusal: _Refusal, wait: float) -> None:
        self._log.emit(
            events.LlmCallRetried(
                model_name=model,
                attempt=attempt,
                duration_seconds=elapsed,
                error_type=refusal.error_type,
                error_message=refusal.message,
                max_retries=MAX_ATTEMPTS,
                wait_seconds=wait,
            )
        )
