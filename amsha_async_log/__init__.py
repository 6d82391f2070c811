"""Flight recorder of async AI-agent programs: calls never wait, and loss is provable from the file alone."""

from typing import TYPE_CHECKING, Any

from . import events
from ._config import LogConfig
from ._joined import Joined
from ._logger import Logger
from ._registry import get_log, log_execution
from ._stats import CloseReport, Stats
from ._version import VERSION
from .exceptions import AmshaLogError, ConfigError, MissingExtraError, ReadError
from .execution import Execution, Step, Summary, current_execution

if TYPE_CHECKING:
    from . import reader
    from ._pipeline import Log, open_log

__all__ = [
    "AmshaLogError",
    "CloseReport",
    "ConfigError",
    "Execution",
    "Joined",
    "Log",
    "LogConfig",
    "Logger",
    "MissingExtraError",
    "ReadError",
    "Stats",
    "Step",
    "Summary",
    "current_execution",
    "events",
    "get_log",
    "log_execution",
    "open_log",
    "reader",
]

__version__ = VERSION

_LAZY = {"Log": "_pipeline", "open_log": "_pipeline", "reader": "reader"}


def __getattr__(name: str) -> Any:
    """Load what needs an event loop or reads files on first use: importing the package stays cheap."""
    from importlib import import_module

    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    loaded = import_module(f"{__name__}.{module}")
    value = globals()[name] = loaded if name == module else getattr(loaded, name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
