"""`open_log` and the log it opens: what the program holds, over the `Runtime` that does the work in each process."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from . import _exit
from ._batcher import Ticket
from ._config import LONGEST_S, LogConfig, build_config
from ._logger import Core, Logger
from ._queue import RecordQueue
from ._registry import OPEN_LOGS
from ._retention import Layout
from ._runtime import Runtime, WatchedLoop, reason_of
from ._stats import CloseReport, Ledger, Stats, make_report, make_stats
from ._stderr import tell
from ._task_cpu import measure_loop
from ._waiting import sleep, wait_for
from ._watch import ExecutionWatch
from .exceptions import ConfigError
from .records import LEVELS

__all__ = ["Log", "open_log", "open_private_log"]

OPEN_TIMEOUT_S: Final = 5.0
"""Longest time `open_log` waits to learn whether the path can be written."""
FIRST_LOOK_S: Final = 1.0
"""Longest time that opening a log that samples waits for the first look at the machine, so that the first execution is
measured in full. To import and initialise `pynvml` takes a tenth of a second; a driver that hangs is not waited for."""
GRACE_S: Final = 0.25
"""What a close allows the log's loop beyond the time-out to report, before it reports by itself."""
ROOT_NAME: Final = "amsha"
SAMPLER_LOGGER: Final = "amsha_async_log.sampler"
"""Value of `logger` on samples, and on what they say of executions."""
_POLL_FIRST_S: Final = 0.0005
_POLL_LAST_S: Final = 0.01
_ABANDONED: Final[list[Any]] = []
"""Loops inherited over a fork. They share their epoll with the parent: closing one would close the parent's."""


class Log(Logger):
    """A log and its root logger. Made by `open_log`; a context manager, sync and async, that closes it."""

    __slots__ = (
        "_console",
        "_layout",
        "_loops",
        "_path",
        "_report",
        "_runtimes",
        "_sampler_log",
        "_unmeasure",
        "config",
        "shared",
    )

    def __init__(self, config: LogConfig, *, shared: bool = True, layout: Layout | None = None) -> None:
        self.config: LogConfig = config
        self._path = _absolute(config.path)
        self._layout = layout
        self.shared: bool = shared
        """Whether `get_log()` may mean this log."""
        self._console = config.console if isinstance(config.console, bool) else _stderr_is_terminal()
        self._report: CloseReport | None = None
        self._runtimes: dict[int, Runtime] = {}
        queue = RecordQueue(
            Ledger(),
            max_size=config.max_queue_size,
            max_bytes=config.max_queue_bytes,
            block=config.when_full == "block",
            wake=self._wake,
        )
        core = Core(queue, LEVELS[config.level], config.max_record_bytes, ROOT_NAME)
        super().__init__(core, ROOT_NAME)
        self._loops: list[WatchedLoop] = []
        self._unmeasure: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._sampler_log: Logger | None = None
        if config.sample_interval_s:
            from . import _sampling  # noqa: F401 - loaded here, where nobody waits for a sample yet

            core.watch = self._new_watch()
            self._sampler_log = Logger(core, SAMPLER_LOGGER)

    # -- life --------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the threads and, unless an event loop runs on this thread, wait until the path is known to be good.

        Raises `ConfigError` if it cannot be written. On a loop's thread `async with` and `aready` do so instead,
        since waiting here would hold up the loop.
        """
        self._queue.meet_thread()
        runtime = self._begin(must_open=True)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with contextlib.suppress(TimeoutError):  # a disk that hangs now may work later; records wait until then
                error = runtime.opened.exception(OPEN_TIMEOUT_S)
                if error is not None:
                    runtime.stop(0.0, "open failed")
                self._check_opened(error)
                if self._sampler_log is not None:
                    runtime.measured.result(FIRST_LOOK_S)
        else:
            runtime.opened.add_done_callback(self._tell_unopened)
            self.watch_loop()
        OPEN_LOGS.append(self)
        _exit.install(handle_sigterm=self.config.handle_sigterm)

    def close(self, *, timeout_s: float | None = None, reason: str = "close") -> CloseReport:
        """Refuse further calls, write what was accepted, and give the file up. May be called again.

        Returns within `timeout_s` seconds (None: `shutdown_timeout_s`), on a hung disk too; what is not written by
        then is counted as `left_behind`. Any thread; on the log's own threads it does not wait.
        """
        limit = self._request_close(timeout_s, reason)
        runtime = self._runtime
        if runtime is not None and self._report is None and threading.get_ident() not in self._queue.own_threads:
            with contextlib.suppress(TimeoutError):
                self._report = runtime.closed.result(None if limit == float("inf") else limit + GRACE_S)
        return self._closed()

    async def aclose(self, *, timeout_s: float | None = None) -> CloseReport:
        """As `close`, without holding up the event loop; a cancellation does not cut it short."""
        limit = self._request_close(timeout_s, "close")
        runtime = self._runtime if self._report is None else None
        if runtime is not None and await wait_for(runtime.closed, limit + GRACE_S, shielded=True):
            self._report = runtime.closed.result()
        return self._closed()

    def flush(self, *, durable: bool = False, timeout_s: float | None = None) -> bool:
        """Wait until everything accepted before this call is written; with `durable`, also fsynced.

        False on time-out (None: `shutdown_timeout_s`), on loss since the call, and for `durable` after any fsync
        error. Any thread but the log's own.
        """
        return self._waited_for(*self._request_flush(durable=durable, timeout_s=timeout_s))

    def rotate(self, *, timeout_s: float | None = None) -> bool:
        """Write what was accepted, close the active segment, move it away, and begin the next one.

        Nothing is moved when no record was written to it. Returns as `flush`; any thread but the log's own.
        """
        return self._waited_for(*self._request_flush(durable=False, timeout_s=timeout_s, rotate=True))

    async def aflush(self, *, durable: bool = False, timeout_s: float | None = None) -> bool:
        """As `flush`, without holding up the event loop."""
        ticket, limit = self._request_flush(durable=durable, timeout_s=timeout_s)
        if ticket is None:
            return self._report is None or self._report.ok
        return await wait_for(ticket.done, limit) and ticket.done.result()

    async def aready(self) -> bool:
        """Wait until the file is open and the queue has room: back-pressure for producers that can wait.

        Returns False if the log is closed. Raises `ConfigError` if the path cannot be written.
        """
        runtime = self._runtime
        if runtime is not None and not self._queue.closed and await wait_for(runtime.opened, OPEN_TIMEOUT_S):
            self._check_opened(runtime.opened.exception())
        delay = _POLL_FIRST_S
        while not self._queue.has_room():
            if self._queue.closed:
                return False
            await sleep(delay)
            delay = min(2 * delay, _POLL_LAST_S)
        return True

    def watch_loop(self, loop: asyncio.AbstractEventLoop | None = None) -> bool:
        """Sample that event loop (None: the one that runs on this thread): its lag, and where it hangs.

        A loop in which the log is opened or entered with `async with` is watched already. With `cpu_by_task`, the CPU
        time of its tasks is measured from now on, so call it on the loop's own thread. Returns False, and does nothing,
        where the log takes no samples. Raises RuntimeError if none is given and none runs.
        """
        thread = None
        if loop is None:
            loop = asyncio.get_running_loop()
            thread = (threading.get_ident(), threading.get_native_id())
        watch = self._core.watch
        if watch is None:
            return False
        if any(known is loop for known, _ in self._loops):
            return True
        self._loops[:] = [(known, ident) for known, ident in self._loops if not known.is_closed()]
        self._loops.append((loop, thread))  # in place: a thread that is just starting reads the same list
        if watch.clock is not None:
            self._unmeasure[:] = [(known, end) for known, end in self._unmeasure if not known.is_closed()]
            self._unmeasure.append((loop, measure_loop(loop, watch, watch.clock)))
        runtime = self._runtime
        if runtime is not None:
            runtime.watch_loop(loop, thread)
        return True

    def stats(self) -> Stats:
        """The ledger and the gauges, at one moment."""
        queue, lending, runtime = self._queue, self._queue.lending, self._runtime
        gauges: dict[str, Any] = {
            "own_lines": queue.ledger.own_lines,
            "queued_bytes": queue.bytes_in - queue.bytes_out,
            "lends": lending.count,
            "lend_longest_seconds": lending.longest_s,
            "lend_total_seconds": lending.total_s,
        }
        if runtime is not None:
            path = runtime.writer.path
            gauges |= {
                "batches": runtime.batcher.batches,
                "segments": runtime.writer.segments,
                "sink_ok": runtime.batcher.sink_ok,
                "sink_error": runtime.batcher.sink_error,
                "console_dropped": runtime.console.dropped if runtime.console else 0,
                "path": None if path is None else str(path),
                "writer": runtime.writer_id,
            }
        return make_stats(queue.view(), **gauges)

    def rotation_due(self) -> bool:
        """Has the active segment records, and is it older than `rotate_interval_s` or as large as `max_bytes`?

        Then the next record is written to a new one.
        """
        return self._runtime is not None and self._runtime.writer.due

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        if _asyncio_runs():
            self.watch_loop()
        try:
            await self.aready()
            runtime = self._runtime
            if runtime is not None and self._sampler_log is not None and not self._queue.closed:
                await wait_for(runtime.measured, FIRST_LOOK_S)
        except ConfigError:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Log {self.config.path!r}{' closed' if self._queue.closed else ''}>"

    # -- for the process-wide hooks ----------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent: its records, counts, threads and file. The first call begins anew."""
        for runtime in self._runtimes.values():
            for fd in runtime.writer.fds:
                os.close(fd)
            if runtime.sampler is not None:
                runtime.sampler.abandon()
            _ABANDONED.append(runtime)
        self._runtimes.clear()
        self._loops = []
        self._unmeasure = []
        if self._core.watch is not None:
            self._core.watch = self._new_watch()
        self._core.gates.after_fork_in_child()
        self._queue.own_threads.clear()
        self._queue.ledger.reset()
        self._queue.reset()
        self._report = None

    def expects_sigterm(self) -> bool:
        """Does this log want to be drained on SIGTERM?"""
        return self.config.handle_sigterm

    # -- inside ------------------------------------------------------------------------------------------------------

    def _new_watch(self) -> ExecutionWatch:
        watch = ExecutionWatch(by_task=self.config.cpu_by_task)
        watch.meet_loop = self.watch_loop
        return watch

    @property
    def _runtime(self) -> Runtime | None:
        return self._runtimes.get(os.getpid())

    def _begin(self, *, must_open: bool) -> Runtime:
        mine = Runtime(
            self.config,
            self._queue,
            path=self._path,
            console=self._console,
            must_open=must_open,
            layout=self._layout,
            sampler_log=self._sampler_log,
            loops=self._loops,
        )
        runtime = self._runtimes.setdefault(os.getpid(), mine)  # two threads of a child may be here at once
        if runtime is mine:
            runtime.start()
        return runtime

    def _wake(self) -> None:
        """What the queue calls. In a forked child the first call starts the threads."""
        runtime = self._runtime
        if runtime is None:
            _exit.install_in_child()
            try:
                runtime = self._begin(must_open=False)
            except RuntimeError as error:  # the interpreter is ending and starts no threads: counted at the close
                self._runtimes.clear()
                tell(f"cannot start in this process: {error}")
                return
        runtime.wake()

    def _tell_unopened(self, opened: "Future[None]") -> None:
        """On a loop's thread nobody waits for the file; who never asks with `async with` or `aready` must hear too."""
        error = opened.exception()
        if error is not None:
            tell(f"cannot write {self.config.path}: {reason_of(error)}; nothing is written until the log is closed")

    def _check_opened(self, error: BaseException | None) -> None:
        if error is not None:
            raise ConfigError(
                f"option path={self.config.path!r}: cannot be written: {reason_of(error)}; allowed is a file "
                "in a folder that exists or can be made, with permission to write"
            ) from error

    def _request_close(self, timeout_s: float | None, reason: str) -> float:
        limit = self._limit_of(timeout_s)
        self._queue.close()
        runtime = self._runtime
        if runtime is not None:
            runtime.stop(limit, reason)
        return limit

    def _closed(self) -> CloseReport:
        """The report, also where the runtime gave none; then the log is forgotten."""
        if self._report is None:
            never_logged = self._runtime is None  # as many a forked child
            self._report = make_report(self._queue.view(), ok=never_logged, left_behind=0, duration_seconds=0.0)
        self._core.watch = None
        while self._unmeasure:
            self._unmeasure.pop()[1]()
        if self in OPEN_LOGS:
            OPEN_LOGS.remove(self)
            _exit.release_sigterm()
            lost = self._report.dropped + self._report.failed
            if lost:
                tell(
                    f"{self.config.path} was not closed in order: {lost} of {self._report.accepted} records lost, "
                    f"{self._report.left_behind} of them left behind"
                )
        return self._report

    def _waited_for(self, ticket: Ticket | None, limit: float) -> bool:
        if ticket is None:
            return self._report is None or self._report.ok
        if threading.get_ident() in self._queue.own_threads:
            return False
        try:
            return ticket.done.result(None if limit == float("inf") else limit)
        except TimeoutError:
            return False

    def _request_flush(
        self, *, durable: bool, timeout_s: float | None, rotate: bool = False
    ) -> tuple[Ticket | None, float]:
        limit = self._limit_of(timeout_s)
        runtime = self._runtime
        if runtime is None or self._report is not None:
            return None, limit
        ticket = Ticket(runtime.batcher.lost(), durable=durable, rotate=rotate)
        runtime.batcher.submit(ticket)
        runtime.wake()
        return ticket, limit

    def _limit_of(self, timeout_s: float | None) -> float:
        """Zero seconds in the configuration mean no limit; zero given to a call means now."""
        if timeout_s is None:
            return self.config.shutdown_timeout_s or float("inf")
        return min(max(timeout_s, 0.0), LONGEST_S)


def open_log(
    path: str | os.PathLike[str] | None = None,
    *,
    config_file: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Log:
    """Open a log: `with open_log("logs/app.jsonl") as log` or `async with`. The same log works from both worlds.

    `options` are the fields of `LogConfig`; what is not given comes from `AMSHA_LOG_<OPTION>` variables, then from
    `config_file` (TOML; None: the file that AMSHA_LOG_CONFIG_FILE names, else the table `[tool.amsha_async_log]` of
    `pyproject.toml` in the working directory), then from the defaults. Raises `ConfigError` naming option, value and
    what is allowed; on a thread that runs an event loop, a path that cannot be written is found by `async with` or
    `aready()`.

    A log that is not closed is drained and closed when the process ends.
    """
    if path is not None:
        options["path"] = path
    log = Log(build_config(options, config_file=None if config_file is None else os.fspath(config_file)))
    log.open()
    return log


def open_private_log(options: Mapping[str, Any], layout: Layout | None = None) -> Log:
    """As `open_log`, for a library's own log: `get_log()` never means it. `layout`: where its files go."""
    log = Log(build_config(options), shared=False, layout=layout)
    log.open()
    return log


def _absolute(path: str) -> Path:
    """The path as it is meant now: a program that changes its directory later, or forks, keeps its file."""
    try:
        return Path(os.path.abspath(path))
    except OSError:  # the working directory is gone: whatever is made of the path is found out at open
        return Path(path)


def _asyncio_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio, under anyio
        return False
    return True


def _stderr_is_terminal() -> bool:
    return bool(sys.stderr and sys.stderr.isatty())
