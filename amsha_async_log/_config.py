"""The options of `open_log`: their defaults, where they come from, and what is allowed."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct, field
from msgspec.structs import fields as struct_fields

from ._config_file import CONFIG_FILE_VARIABLE, FileOptions, read_options
from .exceptions import ConfigError
from .records import LEVEL_NAMES, LEVELS

__all__ = ["LONGEST_S", "LogConfig", "build_config", "level_number"]

ENVIRONMENT_PREFIX: Final = "AMSHA_LOG_"
LONGEST_S: Final = 366 * 86_400
"""A year: beyond it platform clocks overflow."""


def _script_name() -> str:
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    return name.encode("utf-8", "backslashreplace").decode()  # a file name need not be UTF-8


class LogConfig(Struct, frozen=True, kw_only=True):
    """Every option of a log. Zero always means off or unlimited. Raises `ConfigError` on a wrong value."""

    path: str = "logs/amsha.jsonl"
    """The active file. Other processes, and forked children, write beside it as `<stem>.<writer><suffix>`."""
    level: str = "INFO"
    """Calls below this level return False at once and are not counted. A name or a `logging` number."""
    max_queue_size: int = 65_536
    """Records that may wait for the batcher. Beyond it a call is refused (`queue_full`), or waits."""
    max_queue_bytes: int = 64 * 1024 * 1024
    """Encoded bytes that may wait (`queue_bytes`). A typed event counts as 512."""
    when_full: Literal["drop_newest", "block"] = "drop_newest"
    """`block` makes threads without a running event loop wait for room; on a loop's thread it refuses all the same."""
    flush_interval_s: float = 0.1
    """Longest time a record waits for company before it is written. 0 writes as soon as the batcher gets to it."""
    max_bytes: int = 50 * 1024 * 1024
    """Size at which a segment is closed and renamed. 0: never."""
    backup_count: int = 10
    """Rotated segments kept for each writer; older ones are deleted. 0: all are kept."""
    rotate_interval_s: float = 0
    """Age, from its first line on, at which a segment is closed with the next write, and renamed. 0: never."""
    durability: Literal["os", "fsync", "fsync_errors"] = "os"
    """`os`: written means handed to the kernel. `fsync`: each batch is fsynced. `fsync_errors`: those with an ERROR."""
    console: Literal["auto"] | bool = "auto"
    """Print lines on stderr too. `auto`: when stderr is a terminal."""
    shutdown_timeout_s: float = 5.0
    """Longest time a close may take. What is not written by then is counted as `left_behind`. 0: no limit."""
    handle_sigterm: bool = True
    """Drain on SIGTERM, where nothing else handles it, before its default action happens."""
    max_record_bytes: int = 1024 * 1024
    """A value that makes a line longer is replaced by its size and beginning. 0: no limit."""
    file_mode: int = 0o600
    """Permissions of new files, before the umask."""
    program: str = field(default_factory=_script_name)
    """Name of the program in the segment header. Default: the script's name."""

    sample_interval_s: float = 0
    """Seconds between two samples of the process, the host, the container and the event loops. 0: no samples."""
    gpu_interval_s: float | None = None
    """Seconds between two samples of the GPUs. None: `sample_interval_s`. 0: GPUs are never asked."""
    gpu_process: bool = False
    """Ask GPUs in a process of its own, so that a driver that crashes takes that one along and not the program."""
    cpu_by_task: bool = False
    """Measure the CPU time of each execution's own tasks and threads, for 4 to 7 us a step of a task; else it is shared
    by overlap."""
    loop_stall_s: float = 1.0
    """How long an event loop may not run before a sampling log says where it is held up. 0: it never does."""

    max_age_s: float = 0
    max_total_bytes: int = 0
    compression: str | None = None
    redact: bool = False
    payload_bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse what is not allowed; the message names option, value and what is."""
        for name, neutral in _NOT_AVAILABLE.items():
            value = getattr(self, name)
            if value != neutral:
                raise _wrong(name, value, f"only {neutral!r}: this part is not available in this version")
        for name, check, allowed in _RULES:
            value = getattr(self, name)
            if not check(value):
                raise _wrong(name, value, allowed)


_NOT_AVAILABLE: Final[Mapping[str, object]] = {
    "max_age_s": 0,
    "max_total_bytes": 0,
    "compression": None,
    "redact": False,
    "payload_bytes": 0,
}


def _wrong(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"option {name}={value!r}: allowed is {allowed}")


def _is_int(value: object, minimum: int = 0) -> bool:
    return type(value) is int and value >= minimum


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_S


def _is_interval(value: object) -> bool:
    return _is_seconds(value) and (value == 0 or value >= _SHORTEST_INTERVAL_S)  # type: ignore[operator]


def _encodes(text: str, encode: Callable[[str], bytes]) -> bool:
    try:
        encode(text)
    except UnicodeEncodeError:
        return False
    return True


def _one_of(*choices: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in choices


_SHORTEST_INTERVAL_S: Final = 0.01
"""A sample costs 0.3 ms with caches cold: at a hundred a second 3 % of a core."""
_INTERVAL = f"0 (off) or a number of seconds from {_SHORTEST_INTERVAL_S} to {LONGEST_S}"
_COUNT = "an integer of 0 or more (0: unlimited)"
_SECONDS = f"a number of seconds from 0 to {LONGEST_S}"
_FLAG = "True or False"
_LEVEL_CHOICES = ", ".join(LEVELS)

_RULES: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    (
        "path",
        lambda v: isinstance(v, str) and v != "" and "\0" not in v and _encodes(v, os.fsencode),
        "the path of a file",
    ),
    ("level", _one_of(*LEVELS), _LEVEL_CHOICES),
    ("max_queue_size", _is_int, _COUNT),
    ("max_queue_bytes", _is_int, _COUNT),
    ("when_full", _one_of("drop_newest", "block"), "'drop_newest' or 'block'"),
    ("flush_interval_s", _is_seconds, _SECONDS),
    ("max_bytes", _is_int, "an integer of 0 or more (0: never rotate)"),
    ("backup_count", _is_int, _COUNT),
    ("rotate_interval_s", _is_seconds, _SECONDS),
    ("durability", _one_of("os", "fsync", "fsync_errors"), "'os', 'fsync' or 'fsync_errors'"),
    ("console", lambda v: isinstance(v, bool) or v == "auto", "'auto', True or False"),
    ("shutdown_timeout_s", _is_seconds, _SECONDS),
    ("handle_sigterm", lambda v: isinstance(v, bool), _FLAG),
    ("max_record_bytes", lambda v: _is_int(v) and (v == 0 or v >= 256), "0 (no limit) or an integer of 256 or more"),
    ("file_mode", lambda v: _is_int(v) and v <= 0o777, "permission bits from 0 to 0o777"),
    ("sample_interval_s", _is_interval, _INTERVAL),
    ("gpu_interval_s", lambda v: v is None or _is_interval(v), f"None (as sample_interval_s) or {_INTERVAL}"),
    ("gpu_process", lambda v: isinstance(v, bool), _FLAG),
    ("cpu_by_task", lambda v: isinstance(v, bool), _FLAG),
    ("loop_stall_s", _is_seconds, _SECONDS),
    ("program", lambda v: isinstance(v, str) and _encodes(v, str.encode), "a name in UTF-8"),
)


def level_number(level: object) -> int:
    """The number of a level given by name (any case) or number. Raises `ConfigError` on any other value."""
    if isinstance(level, str) and level.upper() in LEVELS:
        return LEVELS[level.upper()]
    if type(level) is int and level in LEVEL_NAMES:
        return level
    raise _wrong("level", level, _LEVEL_CHOICES)


def _from_text(name: str, text: str) -> object:
    """An environment variable's text as the option's type; text that does not fit stays text and is refused."""
    default = _DEFAULTS[name]
    lowered = text.strip().lower()
    if lowered in ("true", "false") and (isinstance(default, bool) or name == "console"):
        return lowered == "true"
    if (isinstance(default, bool) or name == "console") and lowered in ("0", "1"):
        return lowered == "1"
    if name == "level":
        return int(lowered) if lowered.isdigit() else lowered
    if name == "gpu_interval_s" and lowered == "none":
        return None
    if name == "gpu_interval_s" or (isinstance(default, int | float) and not isinstance(default, bool)):
        for parse in (lambda t: int(t, 8) if name == "file_mode" else int(t), float):
            try:
                return parse(lowered)
            except ValueError:
                continue
    return text


_DEFAULTS: Final[Mapping[str, object]] = {
    f.name: f.default_factory() if callable(f.default_factory) else f.default for f in struct_fields(LogConfig)
}


def build_config(
    options: Mapping[str, object], environ: Mapping[str, str] | None = None, *, config_file: str | None = None
) -> LogConfig:
    """One configuration out of keyword arguments and, where they are silent, of what stands elsewhere.

    That is `AMSHA_LOG_<OPTION>` variables, then the options of a file (see `_config_file`). Raises `ConfigError` on an
    unknown option and on a wrong value, wherever it stands.
    """
    environ = os.environ if environ is None else environ
    chosen: dict[str, Any] = _of_file(read_options(config_file, environ))
    for variable, text in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != CONFIG_FILE_VARIABLE:
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            if name not in _DEFAULTS:
                raise ConfigError(f"environment variable {variable}={text!r}: allowed are {_names()}")
            chosen[name] = _from_text(name, text)
    for name, value in options.items():
        if name not in _DEFAULTS:
            raise _unknown(name, value)
        chosen[name] = value
    if isinstance(chosen.get("path"), os.PathLike):
        chosen["path"] = os.fspath(chosen["path"])
    if "level" in chosen:
        chosen["level"] = LEVEL_NAMES[level_number(chosen["level"])]
    return LogConfig(**chosen)


def _of_file(said: FileOptions) -> dict[str, Any]:
    """The options of a file, checked here so that an error names the file."""
    chosen = dict(said.options)
    try:
        for name, value in chosen.items():
            if name not in _DEFAULTS:
                raise _unknown(name, value)
        if "level" in chosen:
            chosen["level"] = LEVEL_NAMES[level_number(chosen["level"])]
        if chosen:
            LogConfig(**chosen)
    except ConfigError as error:
        raise ConfigError(f"{said.where}: {error}") from None
    return chosen


def _unknown(name: str, value: object) -> ConfigError:
    return ConfigError(f"option {name}={value!r}: no such option; allowed are {', '.join(_DEFAULTS)}")


def _names() -> str:
    return ", ".join([*(ENVIRONMENT_PREFIX + name.upper() for name in _DEFAULTS), CONFIG_FILE_VARIABLE])
