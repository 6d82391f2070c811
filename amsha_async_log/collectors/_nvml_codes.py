"""What NVIDIA's driver answers, as the codes that lines carry."""

from typing import Any, Final

__all__ = [
    "DEVICE_WIDE",
    "DRIVER_WIDE",
    "NOT_THERE",
    "NO_FAULT",
    "OK",
    "PID_NS_UNMATCHED",
    "REFUSALS",
    "TRY_OLDER",
    "UNDER_MIG",
    "DeviceFailed",
    "code_of",
    "detail_of",
]

OK: Final = "ok"
UNDER_MIG: Final = "mig"
"""The driver does not tell this of a GPU divided into instances, or of an instance."""
PID_NS_UNMATCHED: Final = "pid_ns_unmatched"
"""The driver names processes by numbers that mean nothing in this process' namespace."""

_CODES: Final = {
    0: OK,
    1: "uninitialized",
    2: "invalid",
    3: "not_supported",
    4: "no_permission",
    9: "driver_not_loaded",
    10: "timeout",
    12: "library_absent",
    13: "function_missing",
    15: "lost",
    16: "reset_required",
    17: "os_error",
    18: "driver_mismatch",
    25: "function_missing",  # the driver has the function, but not for so new a structure
    26: "deprecated",
    27: "not_ready",
    28: "gpu_not_found",
}
"""Numbers of `nvmlReturn_t`, from the declarations of `pynvml`. Any other number n is `error_n`."""

TRY_OLDER: Final = frozenset({"not_supported", "function_missing", "deprecated"})
"""Where an older function may still answer."""
NO_FAULT: Final = TRY_OLDER | {UNDER_MIG}
"""Answers of a device with which nothing is wrong: it cannot tell this."""
REFUSALS: Final = NO_FAULT | {"no_permission", "undecodable"}
"""Answers that asking again at once does not change."""
DRIVER_WIDE: Final = frozenset({"uninitialized", "driver_not_loaded", "driver_mismatch"})
"""Answers that hold for all devices, if the driver as a whole gives them too."""
DEVICE_WIDE: Final = DRIVER_WIDE | {"lost", "reset_required", "gpu_not_found", "timeout"}
"""Answers after which the device is asked nothing more. `timeout` is one of them since each call may take as long
again: 45 s, with a card whose firmware does not answer."""
NOT_THERE: Final = frozenset({"error_6", "gpu_not_found", "invalid"})
"""What looking a device up by its id gives once it is not there any more."""


class DeviceFailed(Exception):  # noqa: N818 - never leaves the collector
    """A device has answered something of `DEVICE_WIDE`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


def code_of(error: BaseException) -> str:
    """The code of what `pynvml` raised. Never compares or hashes it, which errors of `pynvml` do not stand.

    By names of classes: `pynvml` is imported only where a driver is looked for.
    """
    value: Any = getattr(error, "value", None)
    if isinstance(value, int):
        return _CODES.get(value, f"error_{value}")
    name = type(error).__name__
    if name == "NVMLLibraryMismatchError":  # a driver without the newest version of a function
        return "function_missing"
    if isinstance(error, UnicodeDecodeError):
        return "undecodable"
    if isinstance(error, ImportError):
        return "library_absent"
    return "os_error" if isinstance(error, OSError) else f"error_{name}"


def detail_of(error: BaseException, call: str) -> str:
    """What failed and how. Does not ask the driver for a text, as `str` of such an error does."""
    value, cause = getattr(error, "value", None), error.__context__
    told = f"{type(error).__name__} {value}" if value is not None else f"{type(error).__name__}: {error}"
    return f"{call}: {told}" + (f" ({cause})" if isinstance(cause, OSError) else "")
