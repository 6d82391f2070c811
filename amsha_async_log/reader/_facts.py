"""What the lines of one execution tell beside its course: files, retries and settings."""

from typing import Any, Final

from msgspec import Struct

from ..records import RESERVED
from ._attempts import Attempts
from ._run import PARTS, REPEATED_CALLS
from ._states import about_execution
from ._writers import Line

__all__ = ["Facts", "FileUse", "Particulars", "Retry", "Setting"]

_CONTEXT: Final = RESERVED | {"execution_id", "crew_name", "step_id"}
_OVERRIDES: Final = frozenset({"override_model", "output_alias", "parameters_changed"})
_PARAMETERS: Final = frozenset({"temperature", "top_p", "max_tokens", "stream", "api_version"})
_ENOUGH_PARAMETERS: Final = 2
"""With so many of them a plain line describes a model's configuration; with one it says how it was asked this time."""


class Particulars(Struct, gc=False):
    """What `Line` leaves out because only the lines of one execution are asked for it. None: no such field."""

    attempt: int | None = None
    max_retries: int | None = None
    recovery_action: str | None = None
    output_file: str | None = None
    file_size_bytes: int | None = None
    validation_status: str | None = None
    cleaning_action: str | None = None
    agent_name: str | None = None
    tool_name: str | None = None


class FileUse(Struct, kw_only=True):
    """A file that was read, written, validated or cleaned. None: the line does not say."""

    file_path: str | None
    operation: str | None
    status: str | None
    validation_status: str | None
    file_size_bytes: int | None
    attempt: int | None
    error_type: str | None
    timestamp: float | None
    """Unix seconds."""
    event: str
    """`log` for a plain line."""
    message: str | None
    cleaning_action: str | None
    """What was done to make it valid."""


class Retry(Struct, kw_only=True):
    """Something that was done again, or an error that was recovered from. None: the line does not say."""

    timestamp: float | None
    """Unix seconds."""
    what: str
    """`execution`, `step` and `llm call`, which the execution's `retries` count; `tool`, `file` and `error`."""
    name: str | None
    """Of the step, the tool, the model, the file."""
    attempt: int | None
    max_retries: int | None
    error_type: str | None
    recovery_action: str | None


class Setting(Struct, kw_only=True):
    """A configuration, or a change of it."""

    timestamp: float | None
    """Unix seconds."""
    event: str
    """`log` for a plain line."""
    message: str | None
    values: dict[str, Any]
    """The line's own fields, those that are null left out."""


class Facts:
    """Files, retries and settings of one execution while its lines go by."""

    def __init__(self) -> None:
        self.files: list[FileUse] = []
        self.settings: list[Setting] = []
        self._retries: list[Retry] = []
        self._attempts = Attempts()
        self._told: list[tuple[float, Retry]] = []
        """Attempts that a line told of which is no start, with their numbers."""

    def add(self, line: Line, more: Particulars, record: dict[str, Any]) -> None:
        """Take the next line of the execution."""
        plain = line.event == "log" or not line.event.startswith((*PARTS, "execution.", "step."))
        path = line.file_path or (more.output_file if plain else None)
        if line.event.startswith("file.") or (plain and path is not None):
            self._add_file(line, more, path)
        retried = self._retried(line, plain)
        if retried is not None:
            self._add_retry(line, more, *retried)
        elif more.recovery_action is not None:
            self._add_retry(line, more, "error", None)
        if _is_setting(line, record):
            values = {name: value for name, value in record.items() if name not in _CONTEXT and value is not None}
            self.settings.append(
                Setting(timestamp=line.timestamp, event=line.event, message=line.message, values=values)
            )

    @property
    def retries(self) -> list[Retry]:
        """In the order of their lines; an attempt that has a start is there once, as that start."""
        untold = self._attempts.untold
        doubled = {id(retry) for attempt, retry in self._told if attempt not in untold}
        return [retry for retry in self._retries if id(retry) not in doubled]

    def _add_file(self, line: Line, more: Particulars, path: str | None) -> None:
        self.files.append(
            FileUse(
                file_path=path,
                operation=line.operation,
                status=line.status,
                validation_status=more.validation_status,
                file_size_bytes=more.file_size_bytes,
                attempt=more.attempt,
                error_type=line.error_type,
                timestamp=line.timestamp,
                event=line.event,
                message=line.message,
                cleaning_action=more.cleaning_action,
            )
        )

    def _retried(self, line: Line, plain: bool) -> tuple[str, str | None] | None:
        """What was done again, and its name; None when nothing was."""
        event = line.event
        if event in REPEATED_CALLS:
            return "llm call", line.model_name
        if line.attempt is None or line.attempt <= 1:
            return None
        if event == "step.started" and line.step_id is not None:
            return "step", line.step_name
        if event.startswith("tool."):
            return "tool", None
        if event.startswith("file.") or (plain and line.file_path is not None):
            return "file", line.file_path
        if event.startswith("execution.") or (plain and about_execution(line)):
            start = event == "execution.started"
            if self._attempts.add(line.attempt, start=start) or start:
                return "execution", None
        return None

    def _add_retry(self, line: Line, more: Particulars, what: str, name: str | None) -> None:
        retry = Retry(
            timestamp=line.timestamp,
            what=what,
            name=more.tool_name if what == "tool" else name,
            attempt=more.attempt,
            max_retries=more.max_retries,
            error_type=line.error_type,
            recovery_action=more.recovery_action,
        )
        self._retries.append(retry)
        if what == "execution" and line.event != "execution.started" and line.attempt is not None:
            self._told.append((line.attempt, retry))


def _is_setting(line: Line, record: dict[str, Any]) -> bool:
    """Events about configuration, and plain lines with what such events have; a model call is none."""
    if line.event != "log":
        return line.event.startswith("config.") or line.event == "llm.configured"
    if line.duration_seconds is not None or line.total_tokens is not None:
        return False
    return not _OVERRIDES.isdisjoint(record) or len(_PARAMETERS.intersection(record)) >= _ENOUGH_PARAMETERS
