"""The threads, the loop and the file of one log in one process: what starts them, and stops them in order."""

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
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiofiles.os import wrap

from ._batcher import Batcher
from ._config import LogConfig
from ._console import Console
from ._encoder import LineEncoder
from ._logger import Logger
from ._origin import boot_id, process_start, versions
from ._queue import RecordQueue
from ._retention import Layout
from ._stats import CloseReport, make_report
from ._stderr import tell
from ._threads import DaemonExecutor, start_daemon
from ._writer import SegmentWriter
from .records import (
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

__all__ = ["LoopThread", "Runtime", "WatchedLoop", "reason_of"]

RESTART_FIRST_S: Final = 0.1
RESTART_LAST_S: Final = 10.0
CONSOLE_WAIT_S: Final = 0.2
"""How long a close in order waits for the terminal to show the last lines; part of `GRACE_S` at the worst."""
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
"""Errors of a file system that may work later: no fault of the configuration."""
LoopThread = tuple[int, int]
"""Python's id of a thread, and the system's."""
WatchedLoop = tuple[asyncio.AbstractEventLoop, LoopThread | None]
"""A loop and, where it is known, the thread that it runs on."""


class Runtime:
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
                self.batcher.sink_ok, self.batcher.sink_error = False, reason_of(error)
                self.opened.set_exception(error)
                await self._stop.wait()
                self._end(self.batcher.give_up(error), in_order=False)
                return
            self.opened.set_result(None)  # the batcher goes on trying
        batching = self._supervised("batcher", self.batcher.run, self.batcher.fail_in_hand)
        finishing = asyncio.ensure_future(self._finish(asyncio.ensure_future(batching)))
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

    async def _supervised(
        self, name: str, run: Callable[[], Awaitable[None]], failed: Callable[[], None] = lambda: None
    ) -> None:
        """Run a part of the log until it ends in order. A defect in it costs what `failed` gives up, not the log."""
        delay = RESTART_FIRST_S
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - the log must outlive its own defects, and says so
                failed()
                tell(f"the {name} failed and is started again: {type(error).__name__}: {error}")
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
        return asyncio.ensure_future(self._supervised("sampler", self.sampler.run))

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


def reason_of(error: BaseException) -> str:
    """What the system said, else the exception."""
    return (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
