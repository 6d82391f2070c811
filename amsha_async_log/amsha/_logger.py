"""The one log that all of Amsha's loggers write to, and its rotation."""

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .._config import level_number
from .._pipeline import Log, open_private_log
from .._stderr import tell
from ..exceptions import AmshaLogError, ConfigError
from ..stdlib import AsyncLogHandler, StdlibLogger
from ._rotation import DatedLayout, RotationConfig, delete_archives, load_rotation_config

__all__ = [
    "cleanup_old_archives",
    "get_logger",
    "get_rotation_config",
    "reset_logger",
    "rotate_logs",
    "should_rotate",
]

NAME: Final = "Amsha"
ROOT: Final = ".Nibandha"
LEVEL_VARIABLE: Final = "AMSHA_LOG_LEVEL"
_MB: Final = 1 << 20
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_YEAR_HOURS: Final = 8766
_CONSOLE_FORMAT: Final = "%(asctime)s %(levelname)-8s %(name)s  %(message)s"


class _Service:
    """Amsha's log while it is in use: the handler on the logger `Amsha`, and what it writes to."""

    def __init__(self) -> None:
        self.home = _home()
        self.rotation = _rotation_or_defaults()
        self.layout: DatedLayout | None = None
        path = self.home / "logs" / f"{NAME}.log"
        if self.rotation.enabled:
            rotation = self.rotation
            self.layout = DatedLayout(
                self.home / rotation.log_data_dir, self.home / rotation.archive_dir, rotation.timestamp_format
            )
            path = self.layout.active(time.time())
            self.layout.archive_left_over(path)
        self.log: Log | None = self._open(path)
        self.handler: logging.Handler
        if self.log is not None:
            self.handler = AsyncLogHandler(self.log)
        else:
            self.handler = logging.StreamHandler(sys.stderr)
            self.handler.setFormatter(logging.Formatter(_CONSOLE_FORMAT))

    def _open(self, path: Path) -> Log | None:
        """The log, or None where the file cannot be written; then one line says so."""
        reason = _not_writable(path)
        if not reason:
            rotation = self.rotation
            hours = min(rotation.rotation_interval_hours, _YEAR_HOURS)
            limits: Mapping[str, Any] = {"max_bytes": 0, "backup_count": 0, "rotate_interval_s": 0}
            if rotation.enabled:
                limits = {
                    "max_bytes": max(1, round(rotation.max_size_mb * _MB)) if rotation.max_size_mb else 0,
                    "backup_count": 0,
                    "rotate_interval_s": hours * _HOUR_S,
                }
            try:
                # The level is the loggers' matter. Other options may come from AMSHA_LOG_<OPTION> variables.
                return open_private_log({"path": path, "level": "DEBUG", "console": True, **limits}, self.layout)
            except ConfigError as error:
                reason = str(error)
        tell(f"cannot write {path}: {reason}; {NAME} logs to the console only")
        return None

    def close(self) -> None:
        logger = logging.getLogger(NAME)
        logger.removeHandler(self.handler)
        logger.addHandler(_NOTHING)  # else the standard library would print what is logged meanwhile
        self.handler.close()
        if self.log is not None:
            self.log.close()


class _Holder:
    """The service there is, made on first use."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.service: _Service | None = None

    def renew_lock(self) -> None:
        """In a forked child the thread that held it may be gone."""
        self.lock = threading.RLock()


_HOLDER: Final = _Holder()
_NOTHING: Final = logging.NullHandler()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HOLDER.renew_lock)


def get_logger(module_name: str | None = None, log_level: int | str | None = None) -> logging.Logger:
    """The logger `Amsha`, or `Amsha.<module_name>` below it. The same object for the same name.

    Its records go to `.Nibandha/Amsha/logs/Amsha.log` below the folder that is current at the first call (with rotation
    enabled: to `<log_data_dir>/<timestamp>.log`), and to the console; not to the root logger. `log_level`:
    level of the logger asked for, a name or a number; None: for `Amsha` that of the variable AMSHA_LOG_LEVEL, else
    INFO, for others that of the name above. Where the file cannot be written, one line on stderr says so and the
    console alone is left. Any thread. Raises ValueError for a level there is not, as `Logger.setLevel` does.
    """
    with _HOLDER.lock:
        if _HOLDER.service is None:
            _HOLDER.service = _start()
        name = module_name or NAME
        if name != NAME and not name.startswith(f"{NAME}."):
            name = f"{NAME}.{name}"
        logger = _made(name)
        if log_level is not None:
            logger.setLevel(log_level.upper() if isinstance(log_level, str) else log_level)
        return logger


def should_rotate() -> bool:
    """Is the active file, with everything logged so far, due to be archived? False where rotation is not enabled."""
    service = _HOLDER.service
    if service is None or service.log is None or not service.rotation.enabled:
        return False
    service.log.flush()
    return service.log.rotation_due()


def rotate_logs() -> bool:
    """Move the active file, with everything logged so far, to the archive and begin a new one. True if it was moved.

    False where rotation is not enabled, nothing was logged since the last time, or the disk does not let it in time.
    """
    service = _HOLDER.service
    if service is None or service.log is None or not service.rotation.enabled:
        return False
    before = service.log.stats().segments
    return service.log.rotate() and service.log.stats().segments > before


def cleanup_old_archives() -> int:
    """Delete the archives older than `archive_retention_days` (0: none). Returns how many were deleted.

    Only files that a log wrote; nothing else ever deletes one.
    """
    service = _HOLDER.service
    rotation = get_rotation_config() if service is None else service.rotation
    if not rotation.archive_retention_days:
        return 0
    home = _home() if service is None else service.home
    return delete_archives(home / rotation.archive_dir, rotation.archive_retention_days * _DAY_S, time.time())


def get_rotation_config() -> RotationConfig:
    """What rotation goes by: that of the log in use or, before there is one, what the file says.

    Without a file, or with one that could not be understood when the log was opened: the defaults, disabled. Before
    there is a log, raises `ConfigError` for such a file, `MissingExtraError` for YAML without PyYAML.
    """
    service = _HOLDER.service
    return load_rotation_config(Path(ROOT) / "config") if service is None else service.rotation


def reset_logger() -> None:
    """Write what was logged, close the file and forget it; the next `get_logger` starts anew.

    Loggers that were handed out stay usable: silent until then, writing to the new file afterwards.
    """
    with _HOLDER.lock:
        service, _HOLDER.service = _HOLDER.service, None
        if service is not None:
            service.close()


def _start() -> _Service:
    service = _Service()
    logger = _made(NAME)
    logger.removeHandler(_NOTHING)
    logger.addHandler(service.handler)
    logger.propagate = False
    logger.setLevel(_level_of_environment())
    return service


def _made(name: str) -> logging.Logger:
    """The logger of that name, of the cheaper class unless somebody has made it before."""
    manager = logging.Logger.manager
    before = manager.loggerClass
    manager.setLoggerClass(StdlibLogger)  # a logger that another thread makes meanwhile gets it too: no harm
    try:
        return logging.getLogger(name)
    finally:
        manager.loggerClass = before


def _level_of_environment() -> int:
    text = os.environ.get(LEVEL_VARIABLE, "").strip()
    if not text:
        return logging.INFO
    try:
        return level_number(int(text) if text.isdigit() else text)
    except ConfigError as error:
        tell(f"variable {LEVEL_VARIABLE}: {error}; INFO is used")
        return logging.INFO


def _home() -> Path:
    """Where Amsha's files are: below the folder that is current now."""
    return Path(os.path.join(_working_directory(), ROOT, NAME))


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # deleted
        return ""


def _rotation_or_defaults() -> RotationConfig:
    try:
        return load_rotation_config(Path(ROOT) / "config")
    except AmshaLogError as error:
        tell(str(error))
        return RotationConfig()


def _not_writable(path: Path) -> str:
    """Why `path` can never be written, empty where it can or where only trying tells.

    Asked beforehand because on a thread that runs an event loop opening a log does not wait for the answer.
    """
    place = path
    while not os.path.exists(place):  # which asks without raising
        if place == place.parent:
            return "the working directory is gone"
        place = place.parent
    if place == path:
        return "" if os.path.isfile(path) and os.access(path, os.W_OK) else "not a file that may be written"
    if not os.path.isdir(place):
        return f"{place} is not a folder"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"no permission to write in {place}"
