"""The state of a log that is followed: who writes it, what runs, and what the machine is doing."""

import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from ._alive import writers_alive
from ._files import StrPath
from ._lines import LineDecoder
from ._live_machine import Machine
from ._live_runs import LiveRuns
from ._live_views import LiveView, LiveWriter
from ._lock import is_this_machine
from ._tail import Follower
from ._writers import Line

__all__ = ["LiveLog", "LiveState"]

LOOK_S: Final = 1.0
"""Between two looks at who holds locks: looking takes each lock for an instant, which a writer might want."""
RATE_S: Final = 5
"""Seconds over which records are counted: long enough for a steady number, short enough to see a burst end."""
KEPT_WRITERS: Final = 100
"""Writers kept that have ended; of older ones only what they lost is."""
_LOOKS: Final = 10
"""Looks at a log in which new writers turn up all the time, before it is shown as it is."""

_END_OF_TIME: Final = 1e15  # Unix seconds; what lies beyond is no time

_LINES: Final = LineDecoder(Line)
_LOSSES: Final = ("refused", "dropped", "failed")


class _Writer:
    """One writer while its lines go by."""

    __slots__ = (
        "closed",
        "host",
        "last",
        "life",
        "lost",
        "name",
        "on_this_machine",
        "pid",
        "program",
        "sources",
        "start",
    )

    def __init__(self, name: str, start: float | None) -> None:
        self.name = name
        self.start = start
        self.last = start
        self.program: str | None = None
        self.host: str | None = None
        self.pid: int | None = None
        self.on_this_machine = True
        self.closed = False
        """Its latest line is one that only a writer that ended in order has."""
        self.life = "running"
        """`running unknown killed`, by the lock it holds; holds while it is not closed."""
        self.lost = 0
        self.sources: dict[str, str] = {}

    @property
    def status(self) -> str:
        return "closed" if self.closed else self.life

    @property
    def ended(self) -> bool:
        return self.closed or self.life == "killed"

    def add(self, event: str, record: Mapping[str, Any], moment: float | None) -> None:
        self.last = moment if moment is not None else self.last
        if event.startswith("log."):
            self._add_own(event, record)
        else:
            self.closed = False
            if event == "sample.process":
                self.lost = max(self.lost, _whole(record.get("log_lost")))
            elif event == "sample.source_changed":
                self._add_change(record)

    def _add_own(self, event: str, record: Mapping[str, Any]) -> None:
        if event == "log.segment_opened":
            self.closed = False
            self.program = _text(record.get("program")) or self.program
            self.host = _text(record.get("host")) or self.host
            pid = record.get("pid")
            self.pid = pid if type(pid) is int else self.pid
            self.on_this_machine = is_this_machine(self.host, _text(record.get("boot_id")))
        elif event == "log.closed":
            self.closed = True
        totals = record if event == "log.closed" else record.get("totals")
        if isinstance(totals, Mapping):
            self.lost = max(self.lost, sum(_whole(totals.get(name)) for name in _LOSSES))

    def _add_change(self, record: Mapping[str, Any]) -> None:
        source, state = _text(record.get("source")), _text(record.get("state_to"))
        if source is None or record.get("gpu_uuid") is not None or record.get("gpu_index") is not None:
            return  # one GPU of several
        if state is None or state == "ok":
            self.sources.pop(source, None)
        elif source in self.sources or len(self.sources) < KEPT_WRITERS:
            self.sources[source] = state


class LiveState:
    """Folds the lines of a log into what is known of it now. Takes any line, whatever is in it.

    Memory is bounded: by what runs, the executions and writers kept that have ended, and the GPUs and loops there are.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._writers: dict[str, _Writer] = {}
        self._lost_before = 0
        self._runs = LiveRuns()
        self._machine = Machine()
        self._counts: dict[int, int] = {}
        """Records by the second they are stamped with, for the last few seconds."""

    def add(self, record: dict[str, Any]) -> None:
        """Take the next line, decoded."""
        name, event = _text(record.get("writer")) or "", _text(record.get("event")) or "log"
        moment = _moment(record.get("timestamp"))
        writer = self._writers.get(name)
        if writer is None:
            writer = self._writers[name] = _Writer(name, moment)
        writer.add(event, record, moment)
        if not event.startswith("log."):
            self._count(moment)
        if event.startswith("sample."):
            self._machine.add(event, record, name, writer.host, moment)
        if record.get("execution_id") is not None:
            line = _LINES.convert(record)
            if line is not None and line.execution_id is not None:
                self._runs.add(line, record)

    @property
    def open_writers(self) -> set[str]:
        """Those that have not ended, as far as is known."""
        return {name for name, writer in self._writers.items() if not writer.ended}

    @property
    def running(self) -> int:
        """Executions that have not ended."""
        return self._runs.running

    @property
    def ended(self) -> int:
        """Executions that have ended, of those that are kept."""
        return self._runs.ended

    def settle(self, alive: Mapping[str, bool | None], looked_for: set[str]) -> None:
        """Take in which writers lived, as `writers_alive` tells; `looked_for` were known when it was asked.

        All lines that were in the files when it was asked must have been added.
        """
        for name in looked_for & self._writers.keys():
            writer = self._writers[name]
            lives = alive.get(name, False)
            if lives:
                writer.life = "running"
            else:
                writer.life = "unknown" if lives is None or not writer.on_this_machine else "killed"
        self._runs.settle(self._life_of)
        left = {name: writer for name, writer in self._writers.items() if not writer.ended}
        self._machine.forget(left.keys(), {writer.host for writer in left.values()})
        ended = [writer for writer in self._writers.values() if writer.ended]
        for writer in ended[: max(0, len(ended) - KEPT_WRITERS)]:
            self._lost_before += writer.lost
            del self._writers[writer.name]

    def view(self, executions: int | None = None) -> LiveView:
        """What is known now; at most so many executions, None: all that are kept."""
        now = self._clock()
        counted = sum(count for second, count in self._counts.items() if now - RATE_S - 1 < second <= now - 1)
        return LiveView(
            timestamp=round(now, 6),
            writers=[self._writer_view(writer) for writer in self._writers.values()],
            host=self._machine.host,
            processes=self._machine.processes,
            gpus=self._machine.gpus,
            loops=self._machine.loops(now),
            executions=self._runs.views(self._life_of, now, executions),
            records_per_second=round(counted / RATE_S, 1),
            lost_records=self._lost_before + sum(writer.lost for writer in self._writers.values()),
        )

    def _writer_view(self, writer: _Writer) -> LiveWriter:
        process = self._machine.process(writer.name)
        return LiveWriter(
            writer=writer.name,
            program=writer.program,
            host=writer.host,
            pid=writer.pid,
            status=writer.status,
            started_at=writer.start,
            last_seen_at=writer.last,
            lost_records=writer.lost,
            queued_records=None if process is None else process.log_queued,
            sources=dict(writer.sources),
        )

    def _life_of(self, name: str) -> str:
        writer = self._writers.get(name)
        return "killed" if writer is None or writer.closed else writer.life

    def _count(self, moment: float | None) -> None:
        now = self._clock()
        if moment is not None and now - RATE_S - 2 < moment < now + 2:
            second = int(moment)
            if second not in self._counts:
                self._counts[second] = 0
                for old in [second for second in self._counts if second < now - RATE_S - 2]:
                    del self._counts[old]
            self._counts[second] += 1


class LiveLog:
    """Follows a log and keeps its state. Paths as for `reader.records`. Not thread-safe."""

    def __init__(self, *paths: StrPath) -> None:
        self._paths = paths
        self._follower = Follower(*paths)
        self._looked_for: set[str] = set()
        self._look_due = -inf
        self.state = LiveState()

    @property
    def unreadable(self) -> int:
        """Lines passed over because they are no JSON objects."""
        return self._follower.unreadable

    @property
    def behind(self) -> bool:
        """The files hold more than was read so far; the first update begins at the beginning of the log."""
        return self._follower.behind

    def update(self) -> None:
        """Read on, 8 MiB of each file at most, and look who lives. Raises `ReadError` as `records` does."""
        alive: Mapping[str, bool | None] = {}
        asked: set[str] = set()
        known = self.state.open_writers
        now = time.monotonic()
        if known and not self.behind and (now >= self._look_due or not known <= self._looked_for):
            # Asked before the files are read: what a writer wrote before it gave its lock up will then be known.
            alive, asked = writers_alive(self._paths), known
            self._look_due = now + LOOK_S
        for record in self._follower.poll():
            self.state.add(record)
        if self.behind:
            asked = set()  # some of what they wrote is still to be read: the next look tells
        elif asked:
            self._looked_for = asked
        self.state.settle(alive, asked)

    def catch_up(self) -> None:
        """Update until all is read, and it is known of every writer whether it lives."""
        for _ in range(_LOOKS):
            self.update()
            while self.behind:
                self.update()
            if self.state.open_writers <= self._looked_for:
                return


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _moment(value: object) -> float | None:
    """A time in Unix seconds that can be reckoned with."""
    if type(value) is float or type(value) is int:
        return float(value) if -_END_OF_TIME < value < _END_OF_TIME else None
    return None


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
