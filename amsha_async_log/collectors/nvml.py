"""NVIDIA GPUs, through the driver's library NVML and the package `pynvml` (`nvidia-ml-py`)."""

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from .. import events
from ._base import GpuReading
from ._nvml_backoff import Backoff
from ._nvml_codes import DRIVER_WIDE, OK, code_of, detail_of
from ._nvml_device import Device, Pace
from ._nvml_inventory import Inventory
from ._nvml_process import OwnProcess

__all__ = ["NvmlSource"]

_SOURCE: Final = "gpu"
_GONE: Final = "gone"
"""State of a device that is no longer there."""


def _forked() -> None:
    """`pynvml` keeps a lock, which a thread of the parent may have held: in the child nobody would release it."""
    nvml: Any = sys.modules.get("pynvml")
    if nvml is not None:
        nvml.libLoadLock = threading.Lock()


os.register_at_fork(after_in_child=_forked)


class NvmlSource:
    """Reads all GPUs and MIG instances. For one thread; in a forked child make a new one.

    Three tiers: utilisation, memory and energy at every look (3 calls for each device); power, temperature, clocks and
    throttle reasons every `medium_interval_s` (5 more); memory errors, processes and which devices there are every
    `slow_interval_s`. In between the values of the slower tiers are those of the last time, with their age. With
    `fast_only` the values of the slower tiers are left out.

    A driver that is not there or fails is tried again after 5 s, then after ever longer, at last every 300 s. So is a
    device. It changes no setting of any device. `pid`: whose share of the GPUs is told; None: this process.
    """

    def __init__(
        self,
        *,
        fast_only: bool = False,
        medium_interval_s: float = 5.0,
        slow_interval_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        pid: int | None = None,
    ) -> None:
        self._pace = Pace(fast_only=fast_only, medium_s=medium_interval_s, slow_s=slow_interval_s, clock=clock)
        self._pid = pid
        self._nvml: Any = None
        self._inventory: Inventory | None = None
        """Present while the driver is initialised, and after that until it is again."""
        self._is_initialised = False
        self._state = OK
        self._detail: str | None = None
        self._told: str | None = None
        self._backoff = Backoff()
        self._look_at = float("-inf")

    def read(self, now: float) -> GpuReading:
        """One look, at `now` (monotonic seconds). Never raises; what is wrong is a state."""
        started = self._pace.clock()
        changes: list[events.SampleSourceChanged] = []
        if not self._is_initialised and now >= self._backoff.due:
            self._initialise(now)
        if self._is_initialised and now >= self._look_at:
            self._look(now, changes)
        known = [] if self._inventory is None else self._inventory.devices
        devices = [self._read_device(device, now, changes) for device in known]
        if self._state != self._told and not (self._told is None and self._state == OK):
            changes.insert(0, _changed(None, self._told, self._state, self._detail))
        self._told = self._state
        return GpuReading(
            devices=devices, changes=changes, state=self._state, cost_seconds=self._pace.clock() - started
        )

    def close(self) -> None:
        """Give the driver up. Never raises."""
        if self._is_initialised:
            self._is_initialised = False
            with contextlib.suppress(Exception):  # given up by somebody else already, or broken: not used any more
                self._nvml.nvmlShutdown()

    def _initialise(self, now: float) -> None:
        """Raises the driver's count of users even if `pynvml` says that it is loaded: that may be of before a fork."""
        call = "import pynvml"
        try:
            self._nvml = importlib.import_module("pynvml")
            call = "nvmlInit"
            self._nvml.nvmlInit()
        except Exception as error:  # noqa: BLE001 - whatever the driver does becomes a code
            self._fail(code_of(error), detail_of(error, call), now)
            return
        self._is_initialised = True
        self._look_at = now
        if self._inventory is None:
            own = OwnProcess(os.getpid() if self._pid is None else self._pid)
            self._inventory = Inventory(self._nvml, self._pace, own)
        self._inventory.begin()

    def _look(self, now: float, changes: list[events.SampleSourceChanged]) -> None:
        """Which devices there are."""
        if not self._count(now):
            return
        assert self._inventory is not None
        changes += [_changed(gone, gone.told, _GONE, "the driver lists it no more") for gone in self._inventory.look()]
        self._look_at = now + self._pace.slow_s

    def _count(self, now: float) -> bool:
        """Ask the driver as a whole how many devices there are. Whether it answered."""
        assert self._inventory is not None
        try:
            self._inventory.count = self._nvml.nvmlDeviceGetCount()
        except Exception as error:  # noqa: BLE001 - whatever the driver does becomes a code
            code, detail = code_of(error), detail_of(error, "nvmlDeviceGetCount")
            if code in DRIVER_WIDE:
                self.close()
            self._fail(code, detail, now)
            return False
        self._state = OK
        self._detail = None
        self._backoff.worked(now)
        return True

    def _fail(self, code: str, detail: str, now: float) -> None:
        self._state = code
        self._detail = detail
        # Given up by another part of the program, while it still works for whoever initialises it.
        self._backoff.failed(now, at_once=code == "uninitialized")
        self._look_at = self._backoff.due

    def _read_device(self, device: Device, now: float, changes: list[events.SampleSourceChanged]) -> events.SampleGpu:
        if not self._is_initialised:
            return device.unread(self._state)
        before = device.state
        sample = device.read(now)
        if device.state not in {before, OK}:
            if device.state in DRIVER_WIDE and not self._count(now) and not self._is_initialised:
                device.state = before  # not the device has failed but the driver
                return device.unread(self._state)
            self._look_at = now
        elif device.is_missing:
            self._look_at = now
        if device.state != device.told:
            if device.state != OK or device.told is not None or not device.is_expected:
                changes.append(_changed(device, device.told, device.state, device.detail))
            device.told = device.state
        return sample


def _changed(device: Device | None, before: str | None, after: str, detail: str | None) -> events.SampleSourceChanged:
    return events.SampleSourceChanged(
        source=_SOURCE,
        gpu_index=None if device is None else device.index,
        gpu_uuid=None if device is None else device.uuid,
        state_from=before,
        state_to=after,
        detail=detail,
    )
