"""`open_log`: the only place that wires the parts together, starts them and stops them in order."""

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aiofiles.os import wrap

from . import _exit
from ._batcher import Batcher, Ticket
from ._config import LONGEST_S, LogConfig, build_config
from ._console import Console
from ._encoder import LineEncoder
from ._logger import Core, Logger
from ._origin import boot_id, process_start, versions
from ._queue import RecordQueue
from ._registry import OPEN_LOGS
from ._retention import Layout
from ._stats import CloseReport, Ledger, Stats, make_report, make_stats
from ._stderr import tell
from ._task_cpu import measure_loop
from ._threads import DaemonExecutor, start_daemon
from ._waiting import sleep, wait_for
from ._watch import ExecutionWatch
from ._writer import SegmentWriter
from .exceptions import ConfigError
from .records import (
    LEVELS,
    SCHEMA_FINGERPRINT,
    SCHEMA_VERSION,
    LogClosed,
    LogOpened,
    LogRecovered,
    SegmentClosed,
    SegmentOpened,
)

if TYPE_CHECKING:
    from ._sampler import MetricsSampler

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

__all__ = ["Log", "open_log", "open_private_log"]

OPEN_TIMEOUT_S: Final = 5.0
"""Longest time `open_log` waits to learn whether the path can be written."""
FIRST_LOOK_S: Final = 1.0
"""Longest time that opening a log that samples waits for the first look at the machine, so that the first execution is
measured in full. To import and initialise `pynvml` takes a tenth of a second; a driver that hangs is not waited for."""
GRACE_S: Final = 0.25
"""What a close allows the log's loop beyond the time-out to report, before it reports by itself."""
RESTART_FIRST_S: Final = 0.1
RESTART_LAST_S: Final = 10.0
CONSOLE_WAIT_S: Final = 0.2
"""How long a close in order waits for the terminal to show the last lines; part of `GRACE_S` at the worst."""
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
"""Errors of a file system that may work later: no fault of the configuration."""
ROOT_NAME: Final = "amsha"
SAMPLER_LOGGER: Final = "amsha_async_log.sampler"
"""Value of `logger` on samples, and on what they say of executions."""
LoopThread = tuple[int, int]
"""Python's id of a thread, and the system's."""
WatchedLoop = tuple[asyncio.AbstractEventLoop, LoopThread | None]
"""A loop and, where it is known, the thread that it runs on."""
_POLL_FIRST_S: Final = 0.0005
_POLL_LAST_S: Final = 0.01
_ABANDONED: Final[list[Any]] = []
"""Loops inherited over a fork. They share their epoll with the parent: closing one would close the parent's."""


class _Runtime:
    """The threads, the loop and the file of one log in one process. A forked child makes its own, on first use."""

    def __init__(
        self,
        config: LogConfig,
        queue: RecordQueue,
        *,
        path: Path,
        console: bool,
        must_open: bool,
        layout: Layout | None,
        sampler_log: Logger | None,
        loops: Iterable[WatchedLoop],
    ) -> None:
        self.writer_id = secrets.token_hex(4)
        self.sampler: MetricsSampler | None = None
        self.measured: Future[None] = Future()
        """Set once the machine was looked at for the first time, or will not be."""
        self.opened: Future[None] = Future()
        """Set once the file is open, or may come to be. With `must_open`, an exception in it says that none will."""
        self.closed: Future[CloseReport] = Future()
        self.console = Console() if console else None
        self.encoder = LineEncoder(self.writer_id, config.max_record_bytes)
        self.writer = SegmentWriter(
            path,
            self.writer_id,
            max_bytes=config.max_bytes,
            backup_count=config.backup_count,
            file_mode=config.file_mode,
            opening=self._opening_lines,
            closing=self._closing_line,
            next_seq=lambda: self.encoder.next_seq,
            rotate_interval_s=config.rotate_interval_s,
            layout=layout,
        )
        self._wake = asyncio.Event()
        self.batcher = Batcher(
            queue,
            self.encoder,
            self.writer,
            self._run_io,
            flush_interval_s=config.flush_interval_s,
            durability=config.durability,
            console=self.console,
            wake=self._wake,
        )
        self._config = config
        self._queue = queue
        self._must_open = must_open
        self._loop = new_event_loop()
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._stop_since = 0.0
        self._stop_deadline = float("inf")
        self._wrapped: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._sampler_log = sampler_log
        self._loops = loops

    # -- from any thread ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start both threads. Raises RuntimeError if the interpreter is shutting down."""
        self._executor = DaemonExecutor(self._queue.own_threads)
        start_daemon(self._run)

    def wake(self) -> None:
        """Wake the batcher. Never raises: a loop that is closed needs no waking."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)

    def wake_sampler(self) -> None:
        """An execution has started or ended. As `wake`."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake_sampler)

    def watch_loop(self, loop: asyncio.AbstractEventLoop, thread: LoopThread | None) -> None:
        """Sample that event loop too."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._add_loop, loop, thread)

    def stop(self, timeout_s: float, reason: str) -> None:
        """Drain for at most `timeout_s`, then report in `closed`. The first request counts."""
        if not self._stop_reason:
            self._stop_reason = reason
            self._stop_since = time.monotonic()
            self._stop_deadline = self._stop_since + timeout_s
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    # -- on the log's own thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._queue.own_threads.add(threading.get_ident())
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._queue.own_threads.discard(threading.get_ident())
            self._loop.close()

    async def _main(self) -> None:
        try:
            await self._run_io(self.writer.open)
            self.opened.set_result(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, `open_log` must hear of it
            if self._must_open and not (isinstance(error, OSError) and error.errno in _PASSING):
                self.batcher.sink_ok, self.batcher.sink_error = False, _reason(error)
                self.opened.set_exception(error)
                await self._stop.wait()
                self._end(self.batcher.give_up(error), in_order=False)
                return
            self.opened.set_result(None)  # the batcher goes on trying
        finishing = asyncio.ensure_future(self._finish(asyncio.ensure_future(self._supervised())))
        sampling = self._start_sampling()
        await self._stop.wait()
        if sampling is not None:
            sampling.cancel()
            await self._end_sampling()
        self.batcher.stop()
        self._wake.set()
        timeout = self._stop_deadline - time.monotonic()
        done, _ = await asyncio.wait({finishing}, timeout=None if timeout == float("inf") else max(timeout, 0.0))
        if not done:
            finishing.cancel()
        self._end(0 if done else self.batcher.give_up(), in_order=bool(done))

    def _end(self, left: int, *, in_order: bool) -> None:
        report = self._report(left, in_order=in_order)
        self._executor.submit(self.writer.abandon)  # behind whatever still hangs there
        self._executor.shutdown()
        if self.console is not None:
            self.console.close(CONSOLE_WAIT_S if in_order else 0.0)
        self.closed.set_result(report)

    async def _supervised(self) -> None:
        """Run the batcher until it ends in order. A defect in it costs the records in hand, not the log."""
        delay = RESTART_FIRST_S
        while True:
            try:
                await self.batcher.run()
            except Exception as error:  # noqa: BLE001 - the log must outlive its own defects, and says so
                self.batcher.fail_in_hand()
                tell(f"the batcher failed and is started again: {type(error).__name__}: {error}")
                await asyncio.sleep(delay)
                delay = min(2 * delay, RESTART_LAST_S)
            else:
                return

    # -- sampling ----------------------------------------------------------------------------------------------------

    def _start_sampling(self) -> "asyncio.Future[None] | None":
        log = self._sampler_log
        if log is None or log.watch is None:
            self.measured.set_result(None)
            return None
        from ._sampling import make_sampler

        try:
            self.sampler = make_sampler(
                self._config,
                log.emit_in,
                self._queue.nudge,
                self._queue.is_calm,
                log.watch,
                owner=self.writer.owner,
                own_threads=self._queue.own_threads,
                gauges=self._gauges,
            )
        except Exception as error:  # noqa: BLE001 - a log must not fail because a machine cannot be measured
            tell(f"no samples are taken: {type(error).__name__}: {error}")
            self.measured.set_result(None)
            return None
        self.sampler.ready.add_done_callback(lambda _ready: self.measured.set_result(None))
        for loop, thread in self._loops:
            self.sampler.add_loop(loop, thread)
        log.watch.wake = self.wake_sampler
        return asyncio.ensure_future(self._supervise_sampling(self.sampler))

    async def _supervise_sampling(self, sampler: "MetricsSampler") -> None:
        """A defect of the sampler costs samples, not the log."""
        delay = RESTART_FIRST_S
        while True:
            try:
                await sampler.run()
            except Exception as error:  # noqa: BLE001 - as with the batcher
                tell(f"the sampler failed and is started again: {type(error).__name__}: {error}")
                await asyncio.sleep(delay)
                delay = min(2 * delay, RESTART_LAST_S)

    async def _end_sampling(self) -> None:
        assert self.sampler is not None
        try:
            await self.sampler.finish(self._stop_deadline)
        except Exception as error:  # noqa: BLE001 - the records still have to be written
            tell(f"the last samples failed: {type(error).__name__}: {error}")

    def _wake_sampler(self) -> None:
        if self.sampler is not None:
            self.sampler.wake()

    def _add_loop(self, loop: asyncio.AbstractEventLoop, thread: LoopThread | None) -> None:
        if self.sampler is not None:
            self.sampler.add_loop(loop, thread)

    def _gauges(self) -> tuple[int, int]:
        refused = sum(levels.total() for levels in self._queue.ledger.refused.values())
        return len(self._queue.items), refused + self.batcher.lost()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _finish(self, batcher: asyncio.Future[None]) -> None:
        """After the batcher: the closing lines."""
        try:
            await batcher
            await self.batcher.write_own(self._closing_report(), "log closed")
            await self.batcher.close_file()
        finally:
            batcher.cancel()

    async def _run_io(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a blocking function on the log's I/O thread: never on the default executor, which exit waits for."""
        wrapped = self._wrapped.get(function)
        if wrapped is None:
            wrapped = self._wrapped[function] = wrap(function)
        return await wrapped(*args, executor=self._executor)

    def _report(self, left: int, *, in_order: bool) -> CloseReport:
        took = time.monotonic() - self._stop_since
        return make_report(self._queue.view(), ok=in_order, left_behind=left, duration_seconds=took)

    def _closing_report(self) -> LogClosed:
        report = self._report(0, in_order=True)
        return LogClosed(reason=self._stop_reason, **{name: getattr(report, name) for name in report.__struct_fields__})

    # -- on the I/O thread, while the loop's thread waits for it -----------------------------------------------------

    def _opening_lines(self, writer: SegmentWriter) -> tuple[bytes, int]:
        segment, now = writer.segment, time.time()
        header = SegmentOpened(
            schema_version=SCHEMA_VERSION,
            fingerprint=SCHEMA_FINGERPRINT,
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid=os.getpid(),
            process_start=process_start(),
            program=self._config.program,
            versions=versions(),
            redaction=False,
            owner=segment.owner,
            previous_segment=writer.previous_name,
        )
        lines = [self.encoder.own_line(header, now, "segment opened")]
        if segment.torn_bytes:
            healed = LogRecovered(torn_bytes=segment.torn_bytes)
            lines.append(self.encoder.own_line(healed, now, "a torn last line was closed off", "WARNING"))
        if writer.segments == 1:
            config = {name: getattr(self._config, name) for name in self._config.__struct_fields__}
            lines.append(self.encoder.own_line(LogOpened(config=config), now, "log opened"))
        self._queue.ledger.own_lines += len(lines)
        return b"".join(lines), len(lines)

    def _closing_line(self, writer: SegmentWriter) -> bytes:
        segment = writer.segment
        self._queue.ledger.own_lines += 1
        footer = SegmentClosed(
            records=segment.records,
            lines=segment.lines,
            first_seq=segment.first_seq,
            last_seq=segment.last_seq,
            bytes=segment.size,
            crc32=segment.crc,
            totals=self._queue.ledger.view(self._queue.waiting()).totals(),
        )
        line = self.encoder.own_line(footer, time.time(), "segment closed")[: -len(b"}\n")]
        return b'%b,"line_crc32":%d}\n' % (line, zlib.crc32(line))


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
        self._runtimes: dict[int, _Runtime] = {}
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
    def _runtime(self) -> _Runtime | None:
        return self._runtimes.get(os.getpid())

    def _begin(self, *, must_open: bool) -> _Runtime:
        mine = _Runtime(
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
            tell(f"cannot write {self.config.path}: {_reason(error)}; nothing is written until the log is closed")

    def _check_opened(self, error: BaseException | None) -> None:
        if error is not None:
            raise ConfigError(
                f"option path={self.config.path!r}: cannot be written: {_reason(error)}; allowed is a file "
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


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"


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
