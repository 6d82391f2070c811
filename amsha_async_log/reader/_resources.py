"""What an execution cost its machine, by the shares that the samplers of its processes attributed to it."""

from typing import Final

from msgspec import Struct

__all__ = ["EVENT", "Resources", "Share", "Shares"]

EVENT: Final = "metrics.execution"
"""The event whose lines hold shares. Programs may emit it too: only with `attribution` is it a sampler's."""
_AMOUNTS: Final = ("cpu", "seconds"), ("energy", "joules"), ("file_read", "bytes"), ("file_write", "bytes")
"""What adds up over processes, with its unit; `<name>_error_<unit>` adds up beside it."""
_PEAKS: Final = ("peak_memory_mb", "peak_gpu_memory_mb", "loop_lag_max_seconds")
_MEANS: Final = ("mean_memory_mb", "gpu_percent")
_MIXED: Final = "mixed"
_DIGITS: Final = 9  # of sums: CPU time is counted in nanoseconds, and adding floats must not invent smaller parts


class Resources(Struct, kw_only=True):
    """What an execution cost its machine. None: unknown, or not sampled; MB of 2^20 bytes.

    Where it ran in several processes, or ended and began again, amounts and their errors are sums, peaks the highest,
    means those over all of its time.
    """

    cpu_seconds: float | None
    """On all cores."""
    cpu_error_seconds: float | None
    """How far the truth may lie from the value before, either way; the other errors likewise."""
    mean_memory_mb: float | None
    """Resident memory of its process."""
    peak_memory_mb: float | None
    gpu_percent: float | None
    """Mean share of the time in which the GPUs worked."""
    peak_gpu_memory_mb: float | None
    energy_joules: float | None
    energy_error_joules: float | None
    file_read_bytes: int | None
    file_read_error_bytes: int | None
    file_write_bytes: int | None
    file_write_error_bytes: int | None
    loop_lag_max_seconds: float | None
    attribution: str
    """How shares were found: `exclusive overlap task`, or `mixed` where not all lines say the same."""
    unknown: dict[str, str]
    """Field to the reason code of why it is unknown. A field that has a value all the same was unknown in a part of
    the execution: what was used is at least that value.
    """


class Share(Struct, gc=False):
    """What the line of one process says. None: no such field."""

    duration_seconds: float | None = None
    cpu_seconds: float | None = None
    cpu_error_seconds: float | None = None
    mean_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    gpu_percent: float | None = None
    peak_gpu_memory_mb: float | None = None
    energy_joules: float | None = None
    energy_error_joules: float | None = None
    file_read_bytes: int | None = None
    file_read_error_bytes: int | None = None
    file_write_bytes: int | None = None
    file_write_error_bytes: int | None = None
    loop_lag_max_seconds: float | None = None
    attribution: str | None = None
    unknown: dict[str, str] | None = None


class Shares:
    """The shares of one execution while its lines go by."""

    __slots__ = ("_shares",)

    def __init__(self) -> None:
        self._shares: list[Share] = []

    def add(self, share: Share) -> None:
        """Take what a line says; one that no sampler wrote tells nothing here."""
        if share.attribution:
            self._shares.append(share)

    def finish(self) -> Resources | None:
        """All of them together; None when there is none."""
        shares = self._shares
        if not shares:
            return None
        found: dict[str, float | None] = {}
        for name, unit in _AMOUNTS:
            value, error = f"{name}_{unit}", f"{name}_error_{unit}"
            given = [share for share in shares if getattr(share, value) is not None]
            found[value] = _sum(given, value)
            found[error] = _sum(given, error) if all(getattr(share, error) is not None for share in given) else None
        for name in _PEAKS:
            found[name] = max(_values(shares, name), default=None)
        for name in _MEANS:
            found[name] = _mean(shares, name)
        ways = {share.attribution for share in shares if share.attribution}
        return Resources(
            **found,  # type: ignore[arg-type]  # the names and types are those of Share
            attribution=ways.pop() if len(ways) == 1 else _MIXED,
            unknown={name: reason for share in shares for name, reason in (share.unknown or {}).items()},
        )


def _values(shares: list[Share], name: str) -> list[float]:
    return [value for share in shares if (value := getattr(share, name)) is not None]


def _sum(shares: list[Share], name: str) -> float | None:
    values = _values(shares, name)
    if not values:
        return None
    total = sum(values)
    return round(total, _DIGITS) if isinstance(total, float) else total


def _mean(shares: list[Share], name: str) -> float | None:
    """Weighted by how long each lasted, equally where that is not said of all."""
    given = [share for share in shares if getattr(share, name) is not None]
    if not given:
        return None
    weights = [share.duration_seconds or 0.0 for share in given]
    if min(weights) <= 0:
        weights = [1.0] * len(given)
    total: float = sum(weight * getattr(share, name) for weight, share in zip(weights, given, strict=True))
    return round(total / sum(weights), 3)
