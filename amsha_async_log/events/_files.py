"""File operations, with what validation and cleaning found."""

from ._base import Event

__all__ = ["FileOperation"]


class FileOperation(Event, tag="file.operation", gc=False, kw_only=True):
    """A file or folder was read, written, validated, cleaned, moved or deleted. Emit it when that has ended."""

    operation: str
    """`read`, `save`, `validate`, `clean`, `create`, `move`, `delete`, ..."""
    file_path: str
    """The file or folder, as the program names it."""
    status: str
    """`success`, `failed` or `skipped`."""
    destination_path: str | None = None
    """Where it was copied or moved to, or where the cleaned one is."""
    file_size_bytes: int | None = None
    """Its size when the operation had ended."""
    duration_seconds: float | None = None
    """How long the operation took."""
    validation_status: str | None = None
    """What validation said: `success`, `failed`, ..."""
    validation_message: str | None = None
    """Why it is not valid."""
    cleaning_action: str | None = None
    """What was done to make it valid."""
    output_alias: str | None = None
    """The name under which the program's configuration knows this output."""
    model_name: str | None = None
    """The model that produced what is in it."""
    attempt: int | None = None
    """Which attempt this was, from 1."""
    max_retries: int | None = None
    """Attempts there are in all. None or 0: not limited."""
    error_type: str | None = None
    """Name of the class of the exception it failed with. Left out: that of the exception given as `exc_info`."""
    error_message: str | None = None
    """What the exception says. Left out: that of `exc_info`."""
