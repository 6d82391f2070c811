"""Drop-in for Amsha's logger module: the same names, over a log that never waits.

    from amsha_async_log.amsha import MetricsLogger, get_logger, log_execution

`get_logger` returns a `logging.Logger` whose records go to `.Nibandha/Amsha/logs/Amsha.log`, as JSON Lines, and to the
console. Nothing else in the process sees them: not the root logger, not the log of `get_log()`.
"""

from ._logger import (
    cleanup_old_archives,
    get_logger,
    get_rotation_config,
    reset_logger,
    rotate_logs,
    should_rotate,
)
from ._metrics import MetricsLogger, log_execution
from ._rotation import RotationConfig

__all__ = [
    "MetricsLogger",
    "RotationConfig",
    "cleanup_old_archives",
    "get_logger",
    "get_rotation_config",
    "log_execution",
    "reset_logger",
    "rotate_logs",
    "should_rotate",
]
