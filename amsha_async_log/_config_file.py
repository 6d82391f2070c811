"""Options from a file: `[tool.amsha_async_log]` of `pyproject.toml`, or a TOML file of their own."""

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .exceptions import ConfigError

__all__ = ["CONFIG_FILE_VARIABLE", "FileOptions", "read_options"]

CONFIG_FILE_VARIABLE: Final = "AMSHA_LOG_CONFIG_FILE"
PROJECT: Final = "pyproject.toml"
SECTION: Final = "amsha_async_log"


class FileOptions(NamedTuple):
    """Options, and the file and table they stand in."""

    options: Mapping[str, Any]
    where: str


NONE: Final = FileOptions({}, "")


def read_options(config_file: str | None, environ: Mapping[str, str]) -> FileOptions:
    """The options in `config_file`, else in the file that AMSHA_LOG_CONFIG_FILE names, else in `pyproject.toml`.

    A file of its own holds them at its top level, or in `[tool.amsha_async_log]` if it has that; `pyproject.toml`, of
    the working directory, in the latter only. Raises `ConfigError` if a file that was named cannot be read or is no
    TOML.
    """
    named = config_file or environ.get(CONFIG_FILE_VARIABLE)
    if named is None or named == "":
        return _of_project()
    document = _parse(named, _read(named))
    section = _section(document, named)
    if section is not None:
        return FileOptions(section, f"{named} [tool.{SECTION}]")
    return NONE if os.path.basename(named) == PROJECT else FileOptions(document, named)


def _of_project() -> FileOptions:
    try:
        with open(PROJECT, "rb") as file:
            text = file.read()
    except OSError:  # none, or not for us to read: a program need not have one
        return NONE
    if SECTION.encode() not in text:  # somebody else's, which may even be broken: then it is not ours to judge
        return NONE
    section = _section(_parse(PROJECT, text), PROJECT)
    return NONE if section is None else FileOptions(section, f"{PROJECT} [tool.{SECTION}]")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"configuration file {path}: cannot be read: {reason}; allowed is a TOML file") from error


def _parse(path: str, text: bytes) -> dict[str, Any]:
    import tomllib  # 2 ms that only programs with such a file pay

    try:
        return tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are of the first kind
        raise ConfigError(f"configuration file {path}: is no TOML: {error}") from error


def _section(document: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    tool = document.get("tool")
    section = tool.get(SECTION) if isinstance(tool, dict) else None
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"configuration file {path}: tool.{SECTION}={section!r}: allowed is a table")
    return section
