"""Which GPUs and MIG instances there are."""

from typing import Any, NamedTuple

from ._nvml_calls import Fields
from ._nvml_codes import NOT_THERE, OK, DeviceFailed, code_of
from ._nvml_device import Device, Pace
from ._nvml_process import OwnProcess

__all__ = ["Inventory"]


class _Slot(NamedTuple):
    """What the driver tells of the device with one number; None: it does not."""

    number: int
    handle: Any
    uuid: str | None


class Inventory:
    """The devices, known by the driver's ids of them: what a number means changes when a device comes or goes."""

    def __init__(self, nvml: Any, pace: Pace, own: OwnProcess) -> None:
        self.count = 0
        """How many GPUs the driver says there are. Set before `look`."""
        self.devices: list[Device] = []
        """All GPUs by their numbers, each before its instances."""
        self._nvml = nvml
        self._pace = pace
        self._own = own
        self._gpus: list[Device] = []
        self._listed: int | None = None
        self._is_first = True

    def begin(self) -> None:
        """The driver has been initialised: handles of before are worth nothing."""
        self._listed = None
        for device in self.devices:
            device.begin()

    def look(self) -> list[Device]:
        """Find out which devices there are, and return those that are gone.

        GPUs are only listed if their count has changed or one is missing; each costs two calls. A GPU that is divided
        costs two for each instance it could have. What cannot be found out stays as it is known.
        """
        gone: list[Device] = []
        if self.count != self._listed or any(gpu.is_missing for gpu in self._gpus):
            gone += self._list_gpus()
            self._listed = self.count
        for gpu in self._gpus:
            gone += self._list_instances(gpu)
        self.devices = [device for gpu in self._gpus for device in (gpu, *gpu.instances)]
        self._is_first = False
        return gone

    def _list_gpus(self) -> list[Device]:
        left, self._gpus = self._gpus, []
        slots = [self._slot(number) for number in range(self.count)]
        for slot in sorted(slots, key=lambda slot: slot.uuid is None):  # those that say who they are choose first
            gpu = _take(left, slot) or self._new(slot)
            gpu.found(slot.handle, slot.number)
            self._gpus.append(gpu)
        self._gpus.sort(key=lambda gpu: gpu.index)
        return [device for gpu in left for device in (gpu, *gpu.instances)]

    def _slot(self, number: int) -> _Slot:
        handle = uuid = None
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(number)
            uuid = self._nvml.nvmlDeviceGetUUID(handle)
        except Exception:  # noqa: BLE001, S110 - the device itself looks itself up, asks again and says what is wrong
            pass
        return _Slot(number, handle, uuid)

    def _list_instances(self, gpu: Device) -> list[Device]:
        if gpu.state != OK or gpu.handle is None:
            return []
        mode: Fields = {}
        try:
            if not gpu.mig_mode.fill(gpu.handle, mode, {}):
                return []
            is_divided = bool(mode["mig"][0])
            most = self._nvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle) if is_divided else 0
        except DeviceFailed:  # reading its values finds that out too, and says so
            return []
        except Exception:  # noqa: BLE001 - asked again at the next look; until then those are there that were
            return []
        gpu.divide(is_divided)
        left, gpu.instances = gpu.instances, []
        for number in range(most):
            handle = None
            try:
                handle = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
                slot = _Slot(gpu.index, handle, self._nvml.nvmlDeviceGetUUID(handle))
            except Exception as error:  # noqa: BLE001 - as above
                if handle is None and code_of(error) in NOT_THERE:
                    continue
                gpu.instances += left
                return []
            instance = _take(left, slot) or self._new(slot, parent=gpu)
            instance.found(slot.handle, slot.number)
            gpu.instances.append(instance)
        return left

    def _new(self, slot: _Slot, parent: Device | None = None) -> Device:
        device = Device(self._nvml, self._pace, self._own, index=slot.number, uuid=slot.uuid, parent=parent)
        device.is_expected = self._is_first
        return device


def _take(devices: list[Device], slot: _Slot) -> Device | None:
    """Take out of `devices` the one that `slot` speaks of. By number only where one of both has no id."""
    same = [device for device in devices if device.uuid is not None and device.uuid == slot.uuid]
    same += [device for device in devices if device.index == slot.number and None in {device.uuid, slot.uuid}]
    if not same:
        return None
    devices.remove(same[0])
    return same[0]
