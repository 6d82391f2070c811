"""What is asked of a GPU, and which fields the answers make."""

import ctypes
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ._base import MB
from ._nvml_calls import Ask, Fields, Put, Reasons, Way, way_with, ways_of
from ._nvml_codes import PID_NS_UNMATCHED
from ._nvml_process import OwnProcess

__all__ = ["NOT_IF_DIVIDED", "TOLD_BY_INSTANCE", "Tiers", "facts", "mig_mode", "tiers"]

TOLD_BY_INSTANCE: Final = frozenset({"gpu_memory_mb", "gpu_processes"})
"""First fields of the questions that a MIG instance answers; the others the whole GPU does, or nobody."""
NOT_IF_DIVIDED: Final = frozenset({"gpu_percent", "process_gpu_percent"})
"""First fields of the questions that a GPU does not answer while it is divided."""

_THROTTLE_REASONS: Final = (
    "gpu_idle",
    "applications_clocks",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake",
    "display_clocks",
    "board_limit",
    "reliability",
)
"""Names of the bits `nvmlClocksEventReason...`, lowest first, from the declarations of `pynvml`."""

_UNCORRECTED: Final = 1
_SINCE_LOADED: Final = 0
_CHIP: Final = 0
_SM_CLOCK: Final = 1
_MEMORY_CLOCK: Final = 2
"""Numbers of NVML's enumerations, from the declarations of `pynvml`."""

_number: Final[Callable[[Any, str], Any]] = ctypes.Structure.__getattribute__
"""A field of a structure. Those of `pynvml` look fields up in Python, in case they are text: twice the time."""


class Tiers(NamedTuple):
    """What is asked at every look, every few seconds, and still less often."""

    fast: list[Ask]
    medium: list[Ask]
    slow: list[Ask]


def facts(nvml: Any) -> list[Ask]:
    """What does not change."""
    return [
        Ask(("gpu_uuid",), ways_of(nvml, "nvmlDeviceGetUUID"), _as_it_is("gpu_uuid")),
        Ask(("gpu_name",), ways_of(nvml, "nvmlDeviceGetName"), _as_it_is("gpu_name")),
        Ask(("gpu_pci_bus_id",), ways_of(nvml, "nvmlDeviceGetPciInfo_v3"), _put_bus_id),
    ]


def mig_mode(nvml: Any) -> Ask:
    """Whether a GPU is divided: `[now, after a reset]`."""
    return Ask((), ways_of(nvml, "nvmlDeviceGetMigMode"), _as_it_is("mig"))


def tiers(nvml: Any, own: OwnProcess, known: Fields, look_back_s: float) -> Tiers:
    """What one device is asked. `known`: where its total memory goes; `look_back_s`: of the first look at processes."""

    def put_memory(answer: Any, values: Fields, _unknown: Reasons) -> None:
        values["gpu_memory_mb"] = _number(answer, "used") / MB
        if "gpu_memory_total_mb" not in known:
            known["gpu_memory_total_mb"] = answer.total / MB

    def put_processes(answer: Any, values: Fields, unknown: Reasons) -> None:
        values["gpu_processes"] = len(answer)
        held = own.of(answer)
        if held is None:
            unknown["process_gpu_memory_mb"] = PID_NS_UNMATCHED
        elif any(entry.usedGpuMemory is None for entry in held):
            unknown["process_gpu_memory_mb"] = "not_supported"
        else:
            values["process_gpu_memory_mb"] = sum(entry.usedGpuMemory for entry in held) / MB

    memory: list[Way] = [
        # The older one counts as used what the driver keeps for itself.
        *way_with(nvml, "nvmlDeviceGetMemoryInfo", ("nvmlMemory_v2",), name="nvmlDeviceGetMemoryInfo_v2"),
        *ways_of(nvml, "nvmlDeviceGetMemoryInfo"),
    ]
    temperature: list[Way] = [
        *way_with(nvml, "nvmlDeviceGetTemperatureV", (_CHIP,)),
        *way_with(nvml, "nvmlDeviceGetTemperature", (_CHIP,)),
    ]
    reasons = ways_of(nvml, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    processes = ways_of(nvml, "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2")
    share = _Share(nvml, own, look_back_s)
    return Tiers(
        fast=[
            Ask(
                ("gpu_percent", "gpu_memory_percent"),
                ways_of(nvml, "nvmlDeviceGetUtilizationRates"),
                _put_utilization,
            ),
            Ask(("gpu_memory_mb", "gpu_memory_total_mb"), memory, put_memory),
            _scaled(nvml, "nvmlDeviceGetTotalEnergyConsumption", "energy_joules", 1000),
        ],
        medium=[
            _scaled(nvml, "nvmlDeviceGetPowerUsage", "power_watts", 1000),
            Ask(("temperature_celsius",), temperature, _put_temperature),
            _clock(nvml, _SM_CLOCK, "sm_clock_mhz"),
            _clock(nvml, _MEMORY_CLOCK, "memory_clock_mhz"),
            Ask(("throttle_reasons",), reasons, _put_reasons),
        ],
        slow=[
            Ask(
                ("ecc_errors",),
                way_with(nvml, "nvmlDeviceGetTotalEccErrors", (_UNCORRECTED, _SINCE_LOADED)),
                _as_it_is("ecc_errors"),
            ),
            Ask(("gpu_processes", "process_gpu_memory_mb"), processes, put_processes),
            Ask(("process_gpu_percent",), share.ways(), share.put),
        ],
    )


class _Share:
    """How much this process computes: the driver tells what there was since it was last asked."""

    def __init__(self, nvml: Any, own: OwnProcess, look_back_s: float) -> None:
        self._nvml = nvml
        self._own = own
        self._look_back_us = int(look_back_s * 1e6)
        self._since = _now_us() - self._look_back_us

    def ways(self) -> list[Way]:
        name = "nvmlDeviceGetProcessUtilization"
        return [(name, self._ask)] if hasattr(self._nvml, name) else []

    def _ask(self, handle: Any) -> Any:
        if self._since > (now := _now_us()):  # the clock, which entries are stamped with, was set back
            self._since = now - self._look_back_us
        try:
            return self._nvml.nvmlDeviceGetProcessUtilization(handle, self._since)
        except self._nvml.NVMLError as error:
            if error.value in {0, 6}:  # "success" of the question how many there are, or "not found": nobody computed
                return []
            raise

    def put(self, answer: Any, values: Fields, unknown: Reasons) -> None:
        # Some drivers return a hundred entries, most of them old or with shares of thousands of percent.
        fresh = [entry for entry in answer if entry.timeStamp > self._since and entry.smUtil <= 100]  # noqa: PLR2004
        own = self._own.of(fresh)
        self._since = max((entry.timeStamp for entry in fresh), default=self._since)
        if own is None:
            unknown["process_gpu_percent"] = PID_NS_UNMATCHED
        else:
            values["process_gpu_percent"] = float(max(own, key=lambda entry: entry.timeStamp).smUtil) if own else 0.0


def _now_us() -> int:
    return time.time_ns() // 1000


def _as_it_is(field: str) -> Put:
    def put(answer: Any, values: Fields, _unknown: Reasons) -> None:
        values[field] = answer

    return put


def _scaled(nvml: Any, function: str, field: str, divisor: int) -> Ask:
    def put(answer: Any, values: Fields, _unknown: Reasons) -> None:
        values[field] = answer / divisor

    return Ask((field,), ways_of(nvml, function), put)


def _clock(nvml: Any, which: int, field: str) -> Ask:
    ways = way_with(nvml, "nvmlDeviceGetClockInfo", (which,))
    return Ask((field,), ways, _as_it_is(field))


def _put_utilization(answer: Any, values: Fields, _unknown: Reasons) -> None:
    values["gpu_percent"] = float(_number(answer, "gpu"))
    values["gpu_memory_percent"] = float(_number(answer, "memory"))


def _put_temperature(answer: int, values: Fields, _unknown: Reasons) -> None:
    values["temperature_celsius"] = float(answer)


def _put_bus_id(answer: Any, values: Fields, _unknown: Reasons) -> None:
    values["gpu_pci_bus_id"] = answer.busId


def _put_reasons(answer: int, values: Fields, _unknown: Reasons) -> None:
    names = [*_THROTTLE_REASONS, *(f"bit_{bit}" for bit in range(len(_THROTTLE_REASONS), answer.bit_length()))]
    values["throttle_reasons"] = [name for bit, name in enumerate(names) if answer & (1 << bit)]
