"""A Starlette app under uvicorn: its own lines, uvicorn's, access lines and warnings are one log; callers are followed.

Run: python examples/uvicorn_server.py [LOG]       then: amsha-log ls LOG
Needs: pip install starlette uvicorn
"""

import asyncio
import logging
import socket
import sys
import warnings
from urllib.error import HTTPError
from urllib.request import Request as Call
from urllib.request import urlopen

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from amsha_async_log import get_log, open_log, reader

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"log": {"class": "amsha_async_log.stdlib.AsyncLogHandler"}},  # writes to the log opened last
    "root": {"handlers": ["log"], "level": "INFO"},  # uvicorn's loggers have no handlers, hence come here too
}
logger = logging.getLogger("shop")


class Traced:
    """Middleware: each request is an execution, in the trace of whoever sent it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan of the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with get_log().extract(scope["headers"]):
            async with get_log().execution("request", inputs={"path": scope["path"]}):
                await self.app(scope, receive, send)


async def read_order(request: Request) -> JSONResponse:
    number = request.path_params["number"]
    if number == 2:
        warnings.warn("order 2 is in the old format", stacklevel=1)
    price = 100 / number
    logger.info("Order read", extra={"order": number, "price": price})
    return JSONResponse({"order": number, "price": price})


app = Traced(Starlette(routes=[Route("/orders/{number:int}", read_order)]))


def ask(url: str) -> int:
    """The status of the answer. The headers say in which execution and step this was called."""
    try:
        with urlopen(Call(url, headers=get_log().inject({}))) as response:  # the thread has the context of the caller
            return int(response.status)
    except HTTPError as error:
        error.close()
        return error.code


async def main(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with open_log(path, sample_interval_s=1, console=False) as log:
            logging.captureWarnings(capture=True)
            server = uvicorn.Server(uvicorn.Config(app, log_config=LOGGING))
            serving = asyncio.create_task(server.serve([listening]))
            async with log.execution("client") as run:
                for number in (1, 2, 0):
                    async with run.step("call", f"order {number}"):
                        print(number, await asyncio.to_thread(ask, f"{address}/orders/{number}"))
            server.should_exit = True
            await serving
    executions = list(reader.executions(path))
    for execution in executions:
        print(f"{execution.crew_name:8} {execution.status:9} caused by {execution.parent_execution_id}")
    print(f"{len(executions)} executions in {path}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "logs/uvicorn_server.jsonl"))
