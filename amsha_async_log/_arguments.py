"""What a call is given besides its fields, made usable: levels, messages, `extra`, `exc_info`. Nothing here raises."""

import sys
from collections.abc import Mapping
from typing import Any

from ._snapshot import describe, describe_type
from .records import LEVEL_NAMES, LEVELS

__all__ = ["exception_of", "extra_fields", "format_message", "level_name"]


def level_name(level: object) -> str:
    """The name of a level; a number counts as the level at or below it, anything unknown as INFO."""
    if type(level) is int or type(level) is bool:
        return LEVEL_NAMES[min(max(level // 10 * 10, 10), 50)]
    name = level.upper() if type(level) is str else ""
    return name if name in LEVELS else "INFO"


def format_message(message: object, args: tuple[object, ...]) -> tuple[str, str]:
    """The message with its arguments, and what was wrong with them."""
    try:
        text = str.__str__(message if issubclass(type(message), str) else str(message))
    except Exception as error:  # noqa: BLE001 - a user's __str__
        return describe(message), f"not a text: {describe_type(error)}"
    if not args:
        return text, ""
    try:
        only = args[0] if len(args) == 1 and issubclass(type(args[0]), Mapping) and args[0] else None
        return str.__str__(text % (args if only is None else only)), ""
    except Exception as error:  # noqa: BLE001 - a user's format or __str__
        return f"{text} [{len(args)} arguments]", f"arguments do not fit: {describe_type(error)}"


def extra_fields(extra: Any) -> dict[Any, object]:
    """What `extra` holds; one that is no mapping, or cannot be read, is a field itself."""
    try:
        if issubclass(type(extra), Mapping):
            return dict(extra)
    except Exception:  # noqa: BLE001 - a user's mapping
        return {"extra": extra}
    return {"extra": extra}


def exception_of(exc_info: object) -> BaseException | None:
    """The exception that `exc_info` stands for: itself, one in a tuple, or the one being handled."""
    kind = type(exc_info)  # not isinstance, which asks the value
    if issubclass(kind, BaseException):
        return exc_info  # type: ignore[return-value]
    if kind is tuple:
        return next((item for item in exc_info if issubclass(type(item), BaseException)), None)  # type: ignore[attr-defined]
    return None if exc_info is None or exc_info is False else sys.exc_info()[1]
