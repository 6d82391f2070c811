"""Every exception this package raises on purpose. None of them ever comes out of a logging call."""

__all__ = ["AmshaLogError", "ConfigError", "MissingExtraError", "ReadError"]


class AmshaLogError(Exception):
    """Base of the package's own errors."""


class ConfigError(AmshaLogError, ValueError):
    """An option of `open_log` is wrong, or the log's path cannot be written.

    The message names the option, the value given and what is allowed.
    """


class MissingExtraError(AmshaLogError, ImportError):
    """A part was used whose optional dependencies are not installed; the message names the extra."""


class ReadError(AmshaLogError, OSError):
    """A log file cannot be opened or read; the message names it and says why."""
