"""Which states of GPUs have been told, so that each change is told once, whoever looks and however often it fails."""

import itertools
from collections.abc import Iterator

from .. import events
from ._base import GpuReading, GpuSource

__all__ = ["GpuStates", "describe", "failure", "look"]

_Key = str | int | None
"""The id of a GPU, or its number where it has none; None: the driver as a whole."""


def look(source: GpuSource, now: float) -> GpuReading:
    """What `source` reads at `now` (monotonic seconds). Never raises: a defect of the source is the state `error`."""
    try:
        return source.read(now)
    except BaseException as error:  # noqa: BLE001 - an exit asked for in here would end the thread unseen
        return failure("error", describe(error))


def failure(state: str, detail: str, cost_seconds: float = 0.0) -> GpuReading:
    """A look that gave nothing but the `state` that the driver as a whole is in, and why."""
    change = events.SampleSourceChanged(source="gpu", state_to=state, detail=detail)
    return GpuReading(state=state, changes=[change], cost_seconds=cost_seconds)


def describe(error: BaseException) -> str:
    """Type and text of an exception."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the text of some errors is asked of the driver, which may be what is broken
        return type(error).__name__


class GpuStates:
    """The states told last. A source that is replaced, as with its process, starts by telling all of them again."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[_Key, str] = {}

    @property
    def driver(self) -> str:
        """The state of the driver as a whole; `ok` as long as nothing was told of it."""
        return self._told.get(None, "ok")

    def settle(self, reading: GpuReading) -> GpuReading:
        """`reading` with exactly those changes that differ from what was told before."""
        reading.changes = [c for c in itertools.chain(reading.changes, self._unsaid(reading)) if self._is_new(c)]
        return reading

    def _is_new(self, change: events.SampleSourceChanged) -> bool:
        key: _Key = change.gpu_index if change.gpu_uuid is None else change.gpu_uuid
        state = change.state_to or "ok"
        before = self._told.get(key)
        self._told[key] = state
        if before is not None:
            change.state_from = before
        return before != state

    def _unsaid(self, reading: GpuReading) -> Iterator[events.SampleSourceChanged]:
        """Changes that only a comparison shows: the source is younger than what was told.

        To be taken from here one at a time, after the changes of the source itself have been entered.
        """
        if self._told.setdefault(None, reading.state) != reading.state:
            yield events.SampleSourceChanged(source="gpu", state_to=reading.state)
        for gpu in reading.devices:
            key: _Key = gpu.gpu_index if gpu.gpu_uuid is None else gpu.gpu_uuid
            state = gpu.source_state
            if key is not None and state is not None and self._told.setdefault(key, state) != state:
                yield events.SampleSourceChanged(
                    source="gpu", gpu_index=gpu.gpu_index, gpu_uuid=gpu.gpu_uuid, state_to=state
                )
