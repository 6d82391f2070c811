"""A chat server on 127.0.0.1, shaped like OpenAI's, that is slow, refuses and errs as a provider does.

What it does to a request depends only on the seed and on the request's `user` field, never on the order of arrival.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any, Final

from aiohttp import web

__all__ = ["DOWN_MODEL", "answer_text", "stub_server"]

DOWN_MODEL: Final = "stub-offline"
"""A model whose deployment is down: every call to it is answered with 500."""

_DELAY_SECONDS: Final = (0.005, 0.040)
_ERROR_RATE: Final = 0.08
_RATE_LIMIT_RATE: Final = 0.12
_FENCED_RATE: Final = 0.10
_CUT_RATE: Final = 0.05
_INCOMPLETE_RATE: Final = 0.05

_POINTS: Final = (
    "Demand grew in every region but one.",
    "Two suppliers cover most of the volume.",
    "Unit cost falls with the batch size.",
    "Support tickets follow each release by a day.",
    "The cheapest option is not the slowest.",
    "Churn is concentrated in the first month.",
)


def answer_text(rng: Random) -> str:
    """Write one answer: mostly the JSON asked for, sometimes fenced, cut short or without a field."""
    answer: dict[str, Any] = {
        "title": f"Finding {rng.randrange(1000)}",
        "points": rng.sample(_POINTS, 3),
        "score": rng.randint(1, 10),
    }
    draw = rng.random()
    text = json.dumps(answer, indent=2)
    if draw < _FENCED_RATE:
        return f"```json\n{text}\n```"
    if draw < _FENCED_RATE + _CUT_RATE:
        return text[: len(text) // 2]
    if draw < _FENCED_RATE + _CUT_RATE + _INCOMPLETE_RATE:
        del answer["points"]
        return json.dumps(answer, indent=2)
    return text


def _error(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": kind, "param": None, "code": None}}, status=status, headers=headers
    )


async def _complete(seed: int, request: web.Request) -> web.Response:
    body = await request.json()
    if not isinstance(body, dict) or not {"model", "messages", "user"} <= body.keys():
        return _error(400, "invalid_request_error", "'model', 'messages' and 'user' are required")
    # Not for secrets: the point of the seed is that every run meets the same troubles.
    rng = Random(f"{seed}/{body['user']}")
    await asyncio.sleep(rng.uniform(*_DELAY_SECONDS))
    draw = rng.random()
    if body["model"] == DOWN_MODEL or draw < _ERROR_RATE:
        return _error(500, "server_error", "The server had an error while processing your request")
    if draw < _ERROR_RATE + _RATE_LIMIT_RATE:
        # The header of the RFC has whole seconds only; providers send the exact time in a second one.
        headers = {"Retry-After": "1", "retry-after-ms": str(rng.randint(10, 80))}
        return _error(429, "rate_limit_error", "Rate limit reached for requests", headers)
    prompt_tokens = sum(len(str(message.get("content", ""))) // 4 + 4 for message in body["messages"])
    completion_tokens = rng.randint(80, 400)
    return web.json_response(
        {
            "id": f"chatcmpl-{rng.getrandbits(96):024x}",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer_text(rng)},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }
    )


@asynccontextmanager
async def stub_server(seed: int) -> AsyncIterator[str]:
    """Serve on a free port while the block runs; gives the URL of the chat endpoint."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", partial(_complete, seed))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1/chat/completions"
    finally:
        await runner.cleanup()
