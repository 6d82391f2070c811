"""The process that looks at GPUs for another one, so that a driver that crashes does not take that one along.

Run by `_gpu_process`, as `python -m amsha_async_log.collectors._gpu_helper SETUP` would (SETUP: JSON of a `Setup`).
Requests come in and answers go out on descriptor 0, a socket, each one line of JSON. Nothing else can get in between:
what the driver or an imported module prints goes to the other descriptors. It opens no log and starts no process.

It ends as soon as nobody can ask any more, also in the middle of a call of the driver. That is so when

* the socket is closed at the other end: by the log, or by the end of its process, whatever ended it; or
* the process that started it has ended. A child that was forked from it, as by `multiprocessing`, has inherited the
  other end of the socket and would keep that open for as long as it lives.
"""

import os
import resource
import select
import signal
import sys
import threading
from typing import Final

import msgspec

from ._base import GpuSource
from ._gpu_states import look
from .nvml import NvmlSource

__all__ = ["REQUESTS", "Request", "Setup", "main", "serve", "wait_for_end"]

REQUESTS: Final = 0
"""Descriptor of the socket."""

_PARENT_POLL_MS: Final = 1000
"""Between looks at who the parent is, where the system cannot tell of its end (Linux before 5.3, some sandboxes)."""


class Setup(msgspec.Struct, kw_only=True):
    """What the helper is told at its start."""

    parent: int
    """The process that asks, whose share of the GPUs is told."""
    fast_only: bool = False
    medium_interval_s: float = 5.0
    slow_interval_s: float = 15.0
    """These three as of `NvmlSource`."""


class Request(msgspec.Struct):
    """Asks for one look, which a `GpuReading` answers."""

    now: float
    """Monotonic seconds: the clock is the machine's, so both processes read the same."""


def main() -> None:
    """Answer requests until nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the program, which may go on
    # A driver may crash once a minute; its dumps would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    threading.Thread(target=_end_with, args=(setup.parent,), daemon=True).start()
    source = NvmlSource(
        fast_only=setup.fast_only,
        medium_interval_s=setup.medium_interval_s,
        slow_interval_s=setup.slow_interval_s,
        pid=setup.parent,
    )
    serve(source, REQUESTS)


def serve(source: GpuSource, descriptor: int) -> None:
    """Answer each request that comes in on a socket with what `source` reads. Returns when its other end is closed."""
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(Request).decode
    with os.fdopen(descriptor, "rb", closefd=False) as requests:
        for line in requests:
            rest = memoryview(encode(look(source, decode(line).now)) + b"\n")
            while rest:
                rest = rest[os.write(descriptor, rest) :]


def wait_for_end(parent: int, descriptor: int) -> None:
    """Return when the other end of a socket is closed, or the process `parent` has ended or is not the parent."""
    poll = select.poll()
    poll.register(descriptor, 0)  # only whether the other end is closed
    try:
        watched = os.pidfd_open(parent)
    except (OSError, AttributeError):  # not known to this system or not allowed; or it has ended, which is seen below
        _wait(poll, parent, _PARENT_POLL_MS)
        return
    try:
        poll.register(watched, select.POLLIN)
        _wait(poll, parent, None)
    finally:
        os.close(watched)


def _wait(poll: "select.poll", parent: int, every_ms: int | None) -> None:
    # The parent is asked for after it has been opened: another process of the same number is not taken for it.
    while os.getppid() == parent and not poll.poll(every_ms):
        pass


def _end_with(parent: int) -> None:
    """End this process when nobody can ask any more.

    Without giving the driver up: the main thread may be in a call of it that never returns, and the system does so.
    """
    wait_for_end(parent, REQUESTS)
    os._exit(0)


if __name__ == "__main__":
    main()
