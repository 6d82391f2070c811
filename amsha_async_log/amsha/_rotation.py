"""How Amsha's log is rotated: the file that says so, and where active and archived files are."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from .._retention import HEADER_START, Layout, rotated_path
from ..exceptions import ConfigError, MissingExtraError

__all__ = ["DatedLayout", "RotationConfig", "delete_archives", "load_rotation_config"]

_NAMES: Final = ("rotation_config.yaml", "rotation_config.yml", "rotation_config.json")
SUFFIX: Final = ".log"


@dataclass(frozen=True)
class RotationConfig(Mapping[str, Any]):
    """What `.Nibandha/config/rotation_config.{yaml,yml,json}` says, as attributes and as a mapping. Zero: off."""

    enabled: bool = False
    max_size_mb: float = 50
    """Size, in MB of 2^20 bytes, above which the active file is archived."""
    rotation_interval_hours: float = 24
    """Age, from its first line on, at which it is archived with the next record."""
    archive_retention_days: float = 30
    """Age, from its last line on, above which `cleanup_old_archives` deletes an archive."""
    backup_count: int = 5
    """Read and kept for whoever asks. Archives go by age alone."""
    log_data_dir: str = "logs/data"
    """Folder of the active file, below `.Nibandha/Amsha`."""
    archive_dir: str = "logs/archive"
    """Folder of the archives, below `.Nibandha/Amsha`."""
    timestamp_format: str = "%Y-%m-%d"
    """`strftime` format of the active file's name, in local time."""

    def __getitem__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)


_FIELDS: Final = {field.name: field.type for field in fields(RotationConfig)}


def load_rotation_config(folder: Path) -> RotationConfig:
    """The configuration in `folder`, the defaults (disabled) where there is no file.

    Raises `ConfigError` naming file, option and what is allowed, `MissingExtraError` for YAML without PyYAML.
    """
    path = next((folder / name for name in _NAMES if os.path.isfile(folder / name)), None)
    if path is None:
        return RotationConfig()
    try:
        text = path.read_text(encoding="utf-8")
        said = json.loads(text) if path.suffix == ".json" else _load_yaml(text, path)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise ConfigError(f"cannot read {path}: {reason}; rotation stays off") from error
    if said is None:  # an empty file
        return RotationConfig()
    if not isinstance(said, dict):
        raise ConfigError(f"cannot read {path}: allowed is a mapping of {', '.join(_FIELDS)}; rotation stays off")
    chosen = {name: said[name] for name in _FIELDS if name in said}  # other keys are for other programs
    for name, value in chosen.items():
        allowed = _wrong(name, value)
        if allowed:
            raise ConfigError(f"{path}: option {name}={value!r}: allowed is {allowed}; rotation stays off")
    return RotationConfig(**chosen)


def _load_yaml(text: str, path: Path) -> Any:
    try:
        import yaml  # the extra `yaml`
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'cannot read {path}: needs PyYAML: pip install "amsha_async_log[yaml]", or write it as JSON'
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _wrong(name: str, value: object) -> str:
    """What is allowed, if `value` is not."""
    if name == "enabled":
        return "" if isinstance(value, bool) else "true or false"
    if name in ("log_data_dir", "archive_dir"):
        return "" if isinstance(value, str) and value and "\0" not in value else "a folder below .Nibandha/Amsha"
    if name == "timestamp_format":
        return "" if _is_name(value) else "a strftime format that gives a file name"
    whole = name == "backup_count"
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if number and 0 <= value < _MOST and math.isfinite(value):  # type: ignore[operator, arg-type]
        return ""
    return f"{'a whole' if whole else 'a'} number from 0 (off) to {_MOST:.0f}"


_MOST: Final = 1e6
"""Hours of 114 years, and a terabyte in MB."""


def _is_name(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        name = time.strftime(value, time.localtime(0))
    except ValueError:
        return False
    return bool(name) and name.isprintable() and os.sep not in name and name not in (".", "..")


class DatedLayout(Layout):
    """The active file is named after the time it was begun; finished ones are moved to a folder and never deleted."""

    def __init__(self, data: Path, archive: Path, timestamp_format: str) -> None:
        super().__init__(data / f"Amsha{SUFFIX}", 0)
        self.archive = archive
        self._data = data
        self._format = timestamp_format

    def active(self, now: float) -> Path:
        """The file of that day (or hour, as the format has it); a later run on the same day goes on with it."""
        return self._data / f"{time.strftime(self._format, time.localtime(now))}{SUFFIX}"

    def rotated(self, path: Path, now: float) -> Path:
        """A new name in the archive. Raises OSError if that cannot be made or read."""
        self.archive.mkdir(parents=True, exist_ok=True)
        return rotated_path(path, now, self.archive)

    def archive_left_over(self, active: Path) -> None:
        """Move what earlier days or runs left beside `active` to the archive: files of a log that nobody writes."""
        for path in _written_by_a_log(self._data):
            if path != active and not _is_written(path):
                with contextlib.suppress(OSError):  # another process may be doing the same
                    os.rename(path, self.rotated(path, path.stat().st_mtime))


def _is_written(path: Path) -> bool:
    """Does a process hold the lock of the writer? Unknown counts as yes."""
    from ..reader._lock import is_locked  # the reader is loaded only where there is something to move

    try:
        with path.open("rb") as file:
            return is_locked(file.fileno()) is not False
    except OSError:  # gone, or not ours to read
        return True


def _written_by_a_log(folder: Path) -> list[Path]:
    """The files in `folder` that a log began, by name; those that cannot be read are left aside."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if file.read(len(HEADER_START)) == HEADER_START:
                    found.append(path)
    return found


def delete_archives(folder: Path, older_than_s: float, now: float) -> int:
    """Delete the archives in `folder` last written more than `older_than_s` before `now`. Returns how many.

    Only files that a log began. One that cannot be read or deleted is left.
    """
    deleted = 0
    for path in _written_by_a_log(folder):
        with contextlib.suppress(OSError):  # taken by somebody else meanwhile, or not ours to delete
            if now - path.stat().st_mtime > older_than_s:
                path.unlink()
                deleted += 1
    return deleted
