"""GPUs looked at in a process of its own, which may crash or hang with the driver and is replaced."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from .._threads import start_daemon
from ._base import GpuReading
from ._gpu_helper import Request, Setup
from ._gpu_states import GpuStates, describe, failure

__all__ = ["LONGEST_PAUSE_S", "HelperSource"]

LONGEST_PAUSE_S: Final = 60.0
"""Between two starts of a helper. A driver that crashes whoever uses it is then tried once a minute."""

_FIRST_PAUSE_S: Final = 1.0
"""Before the second new start; the first is at once, so that one crash costs one look."""
_SLICE_MS: Final = 250
"""How long to wait for an answer before looking whether the helper lives. The end of its socket tells so at once,
except when a child was forked at the very moment the helper was started, which then holds that end too."""
_LAST_WORDS_S: Final = 1.0
"""How long a helper that has closed its socket may take to end. It has done most of that by then."""
_CLOSE_S: Final = 0.1
"""How long to wait for a helper to end by itself when it is needed no more."""

_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from amsha_async_log.collectors._gpu_helper import main; main()"
)
"""The module is to be found as it was found here, in whatever way the program has changed the path."""
_FLAGS: Final = {"ignore_environment": "-E", "no_user_site": "-s", "no_site": "-S", "dont_write_bytecode": "-B"}
"""What of this interpreter's way to start holds for the helper's too: attribute of `sys.flags` to option."""


class HelperSource:
    """Reads all GPUs through a helper process. For one thread; in a forked child make a new one.

    The first look starts the helper. One that ends gives the state `helper_died`, one that does not answer is killed
    and gives `hung`; while there is none, the readings have no devices and that state. A new one is started at once,
    after that with pauses of 1 s doubled up to 60 s, until one has lived for 60 s. There is never more than one: if a
    killed one does not end, since the driver holds it inside the kernel, there is no new one until it has. Where
    processes cannot be started at all the state is `helper_unavailable`.

    Works whoever else waits for child processes: then only how a helper has ended is not known.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        start_timeout_s: float = 30.0,
        fast_only: bool = False,
        medium_interval_s: float = 5.0,
        slow_interval_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fast_only` and the intervals are those of `NvmlSource`.

        `timeout_s`: how long a look may take before the helper counts as hung. A driver that works answers within
        milliseconds, a busy one within a second or two; killing costs a new start, and may disturb a driver that would
        have answered. `start_timeout_s`: the same for the first look of a helper, which initialises the driver: without
        NVIDIA's persistence daemon that takes seconds for each GPU.
        """
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._setup = Setup(
            parent=0, fast_only=fast_only, medium_interval_s=medium_interval_s, slow_interval_s=slow_interval_s
        )
        self._clock = clock
        self._states = GpuStates()
        self._helper: _Helper | None = None
        self._ending: _Helper | None = None
        """Killed, and not seen to have ended."""
        self._pause_s = 0.0
        self._start_at = float("-inf")

    @property
    def pid(self) -> int | None:
        """The helper's process id; None: there is none at the moment."""
        return None if self._helper is None else self._helper.pid

    def read(self, now: float) -> GpuReading:
        """One look, at `now` (monotonic seconds).

        Waits for the helper, `start_timeout_s` or `timeout_s` at most, and up to 1 s for a killed one to end.
        """
        began = self._clock()
        try:
            if self._helper is None and not self._may_start(began):
                return GpuReading(state=self._states.driver)
            helper = self._helper or self._start()
            timeout_s = self._timeout_s if helper.has_answered else self._start_timeout_s
            return self._states.settle(helper.ask(now, timeout_s, self._clock))
        except _FailedError as failed:
            reading = failure(failed.state, failed.detail, self._clock() - began)
            self._replace()
            return self._states.settle(reading)

    def close(self) -> None:
        """Let the helper end; after 0.1 s it is killed. Does not wait for the driver, nor raise."""
        helper, self._helper = self._helper, None
        for each in filter(None, (helper, self._ending)):
            each.close()
        self._ending = None

    def _may_start(self, now: float) -> bool:
        if self._ending is not None and self._ending.has_ended():
            self._ending = None
        return self._ending is None and now >= self._start_at

    def _start(self) -> "_Helper":
        self._helper = _Helper(self._setup, self._clock())
        return self._helper

    def _replace(self) -> None:
        now = self._clock()
        failed, self._helper = self._helper, None
        if failed is not None:
            if not failed.kill():
                self._ending = failed
            if now - failed.started_at >= LONGEST_PAUSE_S:
                self._pause_s = 0.0
        self._start_at = now + self._pause_s
        self._pause_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        if failed is not None and self._may_start(now):
            with contextlib.suppress(_FailedError):  # the next look tries again, and tells
                self._start()


class _FailedError(Exception):
    """There is no answer."""

    def __init__(self, state: str, detail: str) -> None:
        super().__init__(state)
        self.state = state
        self.detail = detail


class _Helper:
    """One helper process, and this end of the socket to it."""

    def __init__(self, setup: Setup, now: float) -> None:
        """Raises _FailedError if it cannot be started. `now`: when this is, by the clock of the source."""
        self.started_at = now
        self.has_answered = False
        self._decode = msgspec.json.Decoder(GpuReading).decode
        self._process, self._socket = _spawn(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, now: float, timeout_s: float, clock: Callable[[], float]) -> GpuReading:
        """Its answer. Raises _FailedError if there is none within `timeout_s`."""
        deadline = clock() + timeout_s
        try:
            # Not a pipe: writing to one that nobody reads ends programs that have set SIGPIPE back to its default.
            self._socket.send(msgspec.json.encode(Request(now)) + b"\n", socket.MSG_NOSIGNAL)
            answer = self._receive(timeout_s, deadline, clock)
        except OSError:  # the other end is closed, or was with something left to read
            answer = b""
        if not answer.endswith(b"\n"):
            raise _FailedError("helper_died", self._how_it_ended())
        try:
            reading = self._decode(answer)
        except msgspec.MsgspecError as error:
            raise _FailedError("helper_died", f"answer not understood: {error}") from error
        self.has_answered = True
        return reading

    def kill(self) -> bool:
        """End it at once. False: it has not ended yet."""
        self._socket.close()
        self._process.kill()
        return self.has_ended(_LAST_WORDS_S)

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended, within `timeout_s`; then it is no zombie any more."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Let it end, by force after `_CLOSE_S`."""
        self._socket.close()
        if not self.has_ended(_CLOSE_S):
            self._process.kill()
            with contextlib.suppress(RuntimeError):  # the interpreter shuts down, and whoever inherits it reaps it
                start_daemon(self._reap)

    def _reap(self) -> None:
        self._process.wait()

    def _receive(self, timeout_s: float, deadline: float, clock: Callable[[], float]) -> bytes:
        """What it has sent, up to the end of a line or of all it will ever send."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        received = bytearray()
        while not received.endswith(b"\n"):
            is_last = self._process.poll() is not None
            if poll.poll(0 if is_last else min(_SLICE_MS, max(0.0, deadline - clock()) * 1000)):
                if not (part := self._socket.recv(1 << 16)):
                    break
                received += part
            elif is_last:
                break
            elif clock() >= deadline:
                raise _FailedError("hung", f"no answer within {timeout_s:g} s, helper killed")
        return bytes(received)

    def _how_it_ended(self) -> str:
        if not self.has_ended(_LAST_WORDS_S):
            return "closed its socket without ending"
        code = self._process.returncode
        if code < 0:
            return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        # 0 also stands for: somebody else in this process has waited for it.
        return f"exit code {code}" if code else "ended, it is not known how"


def _spawn(setup: Setup) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A new helper and the socket to it. Raises _FailedError."""
    if not sys.executable or getattr(sys, "frozen", False):  # a frozen program would be started once more
        raise _FailedError("helper_unavailable", "there is no interpreter to run it with")
    flags = [option for flag, option in _FLAGS.items() if getattr(sys.flags, flag)]
    told = msgspec.json.encode(msgspec.structs.replace(setup, parent=os.getpid())).decode()
    entries: list[object] = [*sys.path]
    paths = [entry for entry in entries if isinstance(entry, str)]  # importing passes over anything else
    try:
        ours, its = socket.socketpair()
        with its:
            try:
                process = subprocess.Popen(  # noqa: S603 - this interpreter, and nothing that came from outside
                    # No warning can become an error where nobody would read it.
                    [sys.executable, *flags, "-P", "-W", "ignore", "-c", _PROGRAM, told, *paths],
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # signals of the terminal are not for it
                )
            except BaseException:
                ours.close()
                raise
    except (OSError, RuntimeError, ValueError) as error:
        # No such file, no more processes or descriptors, the interpreter shuts down, a path that cannot be passed.
        raise _FailedError("helper_unavailable", describe(error)) from error
    return process, ours
