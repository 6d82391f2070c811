"""The latest samples of machines, processes, GPUs and event loops while a log is followed."""

from collections.abc import Collection, Hashable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from .. import events
from ._lines import LineDecoder
from ._live_views import LiveCgroup, LiveGpu, LiveHost, LiveLoop, LiveProcess
from ._lock import is_this_machine

__all__ = ["Machine"]

_KEPT: Final = 1_024
"""Samples kept of each kind: far more GPUs or loops than anybody looks at, so that junk cannot fill the memory."""
_STALL_SLACK_S: Final = 0.1
"""Between the moment a lag is measured and the one its line is stamped with."""

_HOSTS: Final = LineDecoder(events.SampleHost)
_PROCESSES: Final = LineDecoder(events.SampleProcess)
_CGROUPS: Final = LineDecoder(events.SampleCgroup)
_GPUS: Final = LineDecoder(events.SampleGpu)
_LOOPS: Final = LineDecoder(events.SampleLoop)
_STALLS: Final = LineDecoder(events.SampleLoopStalled)
_CHANGES: Final = LineDecoder(events.SampleSourceChanged)

_GpuKey = tuple[str | None, str | int | None]
_LoopKey = tuple[str, str | None]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
S = TypeVar("S", bound=Struct)


class _Stall(Struct):
    """A time in which a loop does not run."""

    began: float | None
    blocked_at: str | None


class Machine:
    """Takes `sample.*` lines and keeps the latest of each thing."""

    def __init__(self) -> None:
        self._hosts: dict[str | None, LiveHost] = {}
        self._processes: dict[str, LiveProcess] = {}
        self._cgroups: dict[str, LiveCgroup] = {}
        self._gpus: dict[_GpuKey, LiveGpu] = {}
        self._loops: dict[_LoopKey, LiveLoop] = {}
        self._stalls: dict[_LoopKey, _Stall] = {}

    def add(self, event: str, record: dict[str, Any], writer: str, host: str | None, time: float | None) -> None:
        """Take the next line of an event `sample.*`; `host` is the machine of its writer."""
        if event == "sample.host":
            self._add_host(_HOSTS.convert(record), host, time)
        elif event == "sample.process":
            self._add_process(_PROCESSES.convert(record), writer, time)
        elif event == "sample.cgroup":
            group = _CGROUPS.convert(record)
            if group is not None:
                _put(self._cgroups, writer, _taken(LiveCgroup, group))
        elif event == "sample.gpu":
            self._add_gpu(_GPUS.convert(record), host, time)
        elif event == "sample.loop":
            self._add_loop(_LOOPS.convert(record), writer, time)
        elif event == "sample.loop_stalled":
            self._add_stall(_STALLS.convert(record), writer, time)
        elif event == "sample.source_changed":
            self._add_change(_CHANGES.convert(record), host)

    def forget(self, writers: Collection[str], hosts: Collection[str | None]) -> None:
        """Keep only what is known of these writers, and of machines on which there are any."""
        _keep(self._processes, [name for name in self._processes if name in writers])
        _keep(self._cgroups, [name for name in self._cgroups if name in writers])
        _keep(self._loops, [key for key in self._loops if key[0] in writers])
        _keep(self._stalls, [key for key in self._stalls if key[0] in writers])
        _keep(self._hosts, [host for host in self._hosts if host in hosts])
        _keep(self._gpus, [key for key in self._gpus if key[0] in hosts])

    # -- what is known -----------------------------------------------------------------------------------------------

    @property
    def host(self) -> LiveHost | None:
        """This machine, else the one that was sampled last."""
        here = [found for name, found in self._hosts.items() if name is not None and is_this_machine(name, None)]
        return max(here or self._hosts.values(), key=lambda found: found.timestamp or 0.0, default=None)

    @property
    def processes(self) -> list[LiveProcess]:
        """By the order in which their writers were first sampled."""
        return [
            msgspec.structs.replace(found, cgroup=self._cgroups.get(name)) for name, found in self._processes.items()
        ]

    @property
    def gpus(self) -> list[LiveGpu]:
        """By machine and number."""
        return sorted(
            self._gpus.values(),
            key=lambda gpu: (gpu.host or "", -1 if gpu.gpu_index is None else gpu.gpu_index, gpu.gpu_uuid or ""),
        )

    def loops(self, now: float) -> list[LiveLoop]:
        """By the order in which they were first sampled."""
        found = []
        for key, loop in self._loops.items():
            stall = self._stalls.get(key)
            if stall is not None:
                stalled = None if stall.began is None else max(0.0, round(now - stall.began, 3))
                loop = msgspec.structs.replace(loop, stalled_seconds=stalled, blocked_at=stall.blocked_at)  # noqa: PLW2901
            found.append(loop)
        return found

    def process(self, writer: str) -> LiveProcess | None:
        """That of a writer."""
        return self._processes.get(writer)

    # -- lines -------------------------------------------------------------------------------------------------------

    def _add_host(self, sample: events.SampleHost | None, host: str | None, time: float | None) -> None:
        if sample is not None:
            _put(self._hosts, host, _taken(LiveHost, sample, host=host, timestamp=time))

    def _add_process(self, sample: events.SampleProcess | None, writer: str, time: float | None) -> None:
        if sample is not None:
            _put(self._processes, writer, _taken(LiveProcess, sample, writer=writer, timestamp=time, cgroup=None))

    def _add_gpu(self, sample: events.SampleGpu | None, host: str | None, time: float | None) -> None:
        if sample is None:
            return
        gpu = _taken(LiveGpu, sample, host=host, timestamp=time)
        before = self._gpu_of(host, gpu.gpu_uuid, gpu.gpu_index)
        if before is not None:  # what a GPU is does not change while it cannot be asked
            known = self._gpus[before]
            gpu.gpu_index = known.gpu_index if gpu.gpu_index is None else gpu.gpu_index
            gpu.gpu_uuid = gpu.gpu_uuid or known.gpu_uuid
            gpu.gpu_name = gpu.gpu_name or known.gpu_name
            del self._gpus[before]
        _put(self._gpus, (host, gpu.gpu_uuid or gpu.gpu_index), gpu)

    def _gpu_of(self, host: str | None, uuid: str | None, index: int | None) -> _GpuKey | None:
        """The key of a GPU seen before: by its id, else by its number, which the parts of one GPU may share."""
        if uuid is not None:
            return next((key for key in ((host, uuid), (host, index)) if key in self._gpus), None)
        for key, gpu in self._gpus.items():
            if key[0] == host and gpu.gpu_index == index and gpu.mig_parent_uuid is None:
                return key
        return None

    def _add_loop(self, sample: events.SampleLoop | None, writer: str, time: float | None) -> None:
        if sample is None:
            return
        key = (writer, sample.loop_name)
        before = self._loops.get(key)
        loop = _taken(LiveLoop, sample, writer=writer, timestamp=time, stalled_seconds=None, blocked_at=None, stalls=0)
        loop.stalls = (before.stalls if before is not None else 0) + max(sample.stalls or 0, 0)
        _put(self._loops, key, loop)
        stall = self._stalls.get(key)
        if stall is not None and _is_over(stall, sample.lag_max_seconds, time):
            del self._stalls[key]

    def _add_stall(self, stall: events.SampleLoopStalled | None, writer: str, time: float | None) -> None:
        if stall is None:
            return
        key = (writer, stall.loop_name)
        if key not in self._loops:
            self._add_loop(events.SampleLoop(loop_name=stall.loop_name), writer, None)
        began = None if time is None else time - (stall.stalled_seconds or 0.0)
        _put(self._stalls, key, _Stall(began, stall.blocked_at))

    def _add_change(self, change: events.SampleSourceChanged | None, host: str | None) -> None:
        """One GPU has changed; what a writer's sources as a whole are in is the writer's."""
        if change is None or change.source != "gpu" or (change.gpu_uuid is None and change.gpu_index is None):
            return
        key = self._gpu_of(host, change.gpu_uuid, change.gpu_index)
        if key is not None:
            self._gpus[key].source_state = change.state_to


def _is_over(stall: _Stall, lag: float | None, time: float | None) -> bool:
    """A loop that still hangs has a lag that reaches back to when it began to."""
    if lag is None or time is None or stall.began is None:
        return True
    return lag < time - stall.began - _STALL_SLACK_S


def _taken(shape: type[S], sample: Struct, **given: object) -> S:
    """A view of a sample: the fields that both have, and those given."""
    names = [name for name in shape.__struct_fields__ if name not in given and name != "unknown"]
    return shape(
        **{name: getattr(sample, name) for name in names}, **given, unknown=getattr(sample, "unknown", None) or {}
    )


def _put(kept: dict[K, V], key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > _KEPT:
        del kept[next(iter(kept))]


def _keep(kept: dict[K, V], wanted: list[K]) -> None:
    for key in kept.keys() - set(wanted):
        del kept[key]
