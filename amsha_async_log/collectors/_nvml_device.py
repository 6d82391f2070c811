"""One GPU, or one MIG instance of it."""

from collections.abc import Callable
from typing import Any, Final

from .. import events
from . import _nvml_values as values_of
from ._nvml_backoff import LAST_S, Backoff
from ._nvml_calls import Ask, Fields, Reasons
from ._nvml_codes import DEVICE_WIDE, NO_FAULT, NOT_THERE, OK, UNDER_MIG, DeviceFailed, code_of, detail_of
from ._nvml_process import OwnProcess

__all__ = ["Device", "Pace"]

_ASK_AGAIN_S: Final = LAST_S
"""Until a device is asked again what it has refused: rights and modes change, and nothing tells so."""


class Pace:
    """How often which tier is read."""

    __slots__ = ("clock", "fast_only", "medium_s", "slow_s")

    def __init__(self, *, fast_only: bool, medium_s: float, slow_s: float, clock: Callable[[], float]) -> None:
        self.fast_only = fast_only
        self.medium_s = medium_s
        self.slow_s = slow_s
        self.clock = clock
        """Measures what calls cost."""


class _Tier:
    """Values of a tier that is not read at every look."""

    __slots__ = ("due", "read_at", "unknown", "values")

    def __init__(self) -> None:
        self.values: Fields = {}
        self.unknown: Reasons = {}
        self.read_at = 0.0
        self.due = float("-inf")

    def read(self, handle: Any, asks: list[Ask], now: float) -> None:
        """Raises DeviceFailed."""
        self.values, self.unknown, self.read_at = {}, {}, now
        for ask in asks:
            ask.fill(handle, self.values, self.unknown)


class Device:
    """What is known of one device, and the samples of it.

    A device that fails is asked nothing until it is time to look it up again, by its id: its number may be another's.
    """

    def __init__(
        self, nvml: Any, pace: Pace, own: OwnProcess, *, index: int, uuid: str | None, parent: "Device | None" = None
    ) -> None:
        self.index = index
        self.parent = parent
        self.state = OK
        """`ok`, or the code of what is wrong."""
        self.detail: str | None = None
        """What the driver said, of a state that is not ok."""
        self.told: str | None = None
        """The state last reported; None: none was."""
        self.is_expected = True
        """Present since the first look: that it is there is no news."""
        self.is_missing = False
        """The driver does not know its id any more."""
        self.instances: list[Device] = []
        self.mig_mode = values_of.mig_mode(nvml)
        self.handle: Any = None
        self._nvml = nvml
        self._pace = pace
        self._facts: Fields = {} if uuid is None else {"gpu_uuid": uuid}
        self._fact_asks = values_of.facts(nvml)
        self._tiers = values_of.tiers(nvml, own, self._facts, pace.slow_s)
        self._unknown_facts: Reasons = {}
        self._is_divided = False
        self._ask_again_at = float("-inf")
        self._medium = _Tier()
        self._slow = _Tier()
        self._kept: Fields = {}
        self._kept_unknown: Reasons = {}
        """Of both slower tiers, and of the facts that could not be learnt."""
        self._backoff = Backoff()

    @property
    def uuid(self) -> str | None:
        """The driver's id of it; None: it did not tell."""
        uuid: str | None = self._facts.get("gpu_uuid")
        return uuid

    def found(self, handle: Any, index: int) -> None:
        """It is there, under this handle and number."""
        self.handle = handle
        self.index = index
        self.is_missing = False

    def divide(self, is_divided: bool) -> None:
        """Whether it is divided into instances."""
        if is_divided is not self._is_divided:
            self._is_divided = is_divided
            self._open_all()

    def begin(self) -> None:
        """The driver has been initialised anew: everything is asked anew, and at once."""
        self.handle = None
        self._backoff.due = float("-inf")
        self._forget_values()

    def read(self, now: float) -> events.SampleGpu:
        """A sample. Changes `state`."""
        if self.state != OK and now < self._backoff.due:
            return self.unread(self.state)
        started = self._pace.clock()
        try:
            if self.state != OK or self.handle is None:
                self._look_up()
            sample = self._sample(now)
        except DeviceFailed as failure:
            self._fail(failure, now)
            sample = self.unread(failure.code)
        else:
            self.state = OK
            self.detail = None
            self._backoff.worked(now)
        sample.cost_seconds = self._pace.clock() - started
        return sample

    def unread(self, code: str) -> events.SampleGpu:
        """A sample with nothing but what does not change."""
        asks = self._tiers.fast if self._pace.fast_only else [ask for tier in self._tiers for ask in tier]
        unknown: Reasons = {field: code for ask in asks for field in ask.fields}
        return self._made(self._facts, unknown, code)

    def _sample(self, now: float) -> events.SampleGpu:
        if now >= self._ask_again_at:
            self._ask_again_at = now + _ASK_AGAIN_S
            self._open_all()
        values: Fields = {}
        unknown: Reasons = {}
        self._read_fast(values, unknown)
        if now >= self._medium.due or now >= self._slow.due:
            self._read_slower(now)
        if self._kept_unknown:
            unknown |= self._kept_unknown
        sample = self._made({**self._facts, **self._kept, **values}, unknown, OK)
        if not self._pace.fast_only:
            sample.medium_age_seconds = now - self._medium.read_at or None
            sample.slow_age_seconds = now - self._slow.read_at or None
        return sample

    def _read_slower(self, now: float) -> None:
        if now >= self._medium.due:
            self._medium.read(self.handle, [] if self._pace.fast_only else self._tiers.medium, now)
            self._medium.due = now + self._pace.medium_s
        if now >= self._slow.due:
            self._slow.read(self.handle, [] if self._pace.fast_only else self._tiers.slow, now)
            self._slow.due = now + self._pace.slow_s
            self._read_facts()
        self._kept = {**self._medium.values, **self._slow.values}
        self._kept_unknown = {**self._unknown_facts, **self._medium.unknown, **self._slow.unknown}

    def _read_fast(self, values: Fields, unknown: Reasons) -> None:
        """Raises DeviceFailed also if all that the device can tell fails."""
        answered = False
        for ask in self._tiers.fast:
            answered |= ask.fill(self.handle, values, unknown)
        if not answered:
            faults = [ask.reason for ask in self._tiers.fast if ask.reason not in NO_FAULT]
            if faults:
                raise DeviceFailed(faults[0], "nothing that it is asked at every look is answered")

    def _read_facts(self) -> None:
        self._unknown_facts = {}
        for ask in self._fact_asks:
            if ask.fields[0] not in self._facts:
                ask.fill(self.handle, self._facts, self._unknown_facts)

    def _fail(self, failure: DeviceFailed, now: float) -> None:
        self.state = failure.code
        self.detail = failure.detail
        self._forget_values()
        # What has gone wrong in the device takes time to become right; of other failures the next may be a success.
        self._backoff.failed(now, at_once=failure.code not in DEVICE_WIDE)

    def _look_up(self) -> None:
        """A new handle. Raises DeviceFailed; a device that has failed is then still in the state that it was in."""
        name = "nvmlDeviceGetHandleByIndex" if self.uuid is None else "nvmlDeviceGetHandleByUUID"
        try:
            self.handle = getattr(self._nvml, name)(self.index if self.uuid is None else self.uuid)
        except Exception as error:  # noqa: BLE001 - whatever the driver does becomes a code
            code = code_of(error)
            self.is_missing = code in NOT_THERE
            raise DeviceFailed(code if self.state == OK else self.state, detail_of(error, name)) from None

    def _made(self, fields: Fields, unknown: Reasons, state: str) -> events.SampleGpu:
        if unknown:  # but for what was learnt earlier and does not change
            unknown = {field: code for field, code in unknown.items() if field not in self._facts}
        return events.SampleGpu(
            gpu_index=self.index,
            mig_parent_uuid=None if self.parent is None else self.parent.uuid,
            source_state=state,
            unknown=unknown or None,
            **fields,
        )

    def _open_all(self) -> None:
        """Ask again what was refused, but for what a divided GPU or an instance never tells."""
        for asks in (self._fact_asks, [self.mig_mode], *self._tiers):
            for ask in asks:
                ask.again()
        for ask in (ask for asks in self._tiers for ask in asks):
            if self.parent is not None:
                is_told = ask.fields[0] in values_of.TOLD_BY_INSTANCE
            else:
                is_told = not (self._is_divided and ask.fields[0] in values_of.NOT_IF_DIVIDED)
            if not is_told:
                ask.refuse(UNDER_MIG)

    def _forget_values(self) -> None:
        """Nothing is known but what does not change; all of it is read at the next look."""
        self._medium = _Tier()
        self._slow = _Tier()
        self._ask_again_at = float("-inf")
