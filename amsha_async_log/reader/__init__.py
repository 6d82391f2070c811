"""Reads logs back: their lines, the executions in them, and the proof that nothing is missing.

Every function takes paths: files (their rotated and sibling segments come with them), glob patterns, or directories.
Without one it reads the default log: `AMSHA_LOG_PATH`, else `logs/`, else `.Nibandha/`. Logs can be read while they are
written. `ReadError` is raised for what does not exist or cannot be read.
"""

from ._detail import Detail, ExecutionDetail, State, Step, detail
from ._executions import executions
from ._facts import FileUse, Retry, Setting
from ._merge import records
from ._report import Finding, Report, WriterReport
from ._resources import Resources
from ._run import Execution
from ._tail import Follower
from ._verify import verify

__all__ = [
    "Detail",
    "Execution",
    "ExecutionDetail",
    "FileUse",
    "Finding",
    "Follower",
    "Report",
    "Resources",
    "Retry",
    "Setting",
    "State",
    "Step",
    "WriterReport",
    "detail",
    "executions",
    "records",
    "verify",
]
