"""File operations, with what validation and cleaning found."""

from ._base import Event

__all__ = ["FileOperation"]


class FileOperation(Event, tag="file.operation", gc=False, kw_only=True):
    """A file or folder was read, written, validated, cleaned, moved or deleted. Emit it when that has ended."""

    operation: str
    """`read`, `save`, `validate`, `clean`, ..."""
    file_path: str
    status: str
    """`success`, `failed` or `skipped`."""
    file_size_bytes: int | None = None
    duration_seconds: float | None = None
    validation_status: str | None = None
    """What validation said: `success`, `failed`, ..."""
    validation_message: str | None = None
    """Why it is not valid."""
    cleaning_action: str | None = None
    """What was done to make it valid."""
    output_alias: str | None = None
    attempt: int | None = None
    max_retries: int | None = None
    error_type: str | None = None
    error_message: str | None = None
