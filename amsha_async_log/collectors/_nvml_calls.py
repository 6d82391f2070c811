"""A question to the driver, and how it is asked: newer functions first, and not again what was refused."""

from collections.abc import Callable, Iterable
from typing import Any

from ._nvml_codes import DEVICE_WIDE, REFUSALS, TRY_OLDER, DeviceFailed, code_of, detail_of

__all__ = ["Ask", "Fields", "Put", "Reasons", "Way", "way_with", "ways_of"]

Fields = dict[str, Any]
"""Fields of a sample with their values."""
Reasons = dict[str, str]
"""Fields of a sample with why they are absent."""
Way = tuple[str, Callable[[Any], Any]]
"""A function of the driver by name, and the call of it with a handle."""
Put = Callable[[Any, Fields, Reasons], None]
"""Makes fields of what the driver answered."""


class Ask:
    """One question to one device, with what is known of which function answers it."""

    __slots__ = ("_put", "_refused", "_untried", "_way", "_ways", "fields", "reason")

    def __init__(self, fields: tuple[str, ...], ways: list[Way], put: Put) -> None:
        self.fields = fields
        """What the answer sets."""
        self.reason = ""
        """Why there was no answer, after `fill` has returned False."""
        self._ways = ways
        self._put = put
        self.again()

    def again(self) -> None:
        """Forget what was refused, the newest function first: a driver may have been changed."""
        self._untried = iter(self._ways)
        self._refused = True
        self.reason = "function_missing"  # if there is none at all
        self._next()

    def refuse(self, reason: str) -> None:
        """Not to be asked, for `reason`."""
        self._refused = True
        self.reason = reason

    def fill(self, handle: Any, values: Fields, unknown: Reasons) -> bool:
        """Ask, and set the fields, or why they are absent. Whether there was an answer.

        Raises DeviceFailed if the device answers nothing any more.
        """
        while not self._refused:
            name, call = self._way
            try:
                self._put(call(handle), values, unknown)
            except Exception as error:  # noqa: BLE001 - whatever the driver does becomes a code
                code, detail = code_of(error), detail_of(error, name)
            else:
                return True
            if code in DEVICE_WIDE:
                raise DeviceFailed(code, detail)
            # An older function that is missing does not explain why the newer one gave nothing.
            if not (code == "function_missing" and self.reason == "not_supported"):
                self.reason = code
            if code not in TRY_OLDER or not self._next():
                self._refused = code in REFUSALS
                break
        for field in self.fields:
            unknown[field] = self.reason
        return False

    def _next(self) -> bool:
        """Go on to the next older function, if there is one."""
        for way in self._untried:
            self._way, self._refused = way, False
            return True
        return False


def ways_of(nvml: Any, *names: str) -> list[Way]:
    """Those of the functions that this version of `pynvml` has."""
    return [(name, function) for name in names if (function := getattr(nvml, name, None)) is not None]


def way_with(nvml: Any, function: str, arguments: Iterable[int | str], name: str | None = None) -> list[Way]:
    """A function with further arguments, constants of `pynvml` by their names. None if this version lacks any of it."""
    call = getattr(nvml, function, None)
    given = [getattr(nvml, each, None) if isinstance(each, str) else each for each in arguments]
    if call is None or None in given:
        return []
    return [(name or function, lambda handle: call(handle, *given))]
