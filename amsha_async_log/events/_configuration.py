"""Configuration changes: overrides and what was changed while the program ran."""

from typing import Any

from ._base import Event

__all__ = ["ConfigChanged"]


class ConfigChanged(Event, tag="config.changed", kw_only=True):
    """An option was changed or overridden. Emit one for each option, or one for an override as a whole."""

    option: str | None = None
    """Its name, dotted where it is nested."""
    old: Any = None
    """Its value before."""
    new: Any = None
    """Its value from now on."""
    source: str | None = None
    """Where the new value comes from: `argument`, `environment`, `file`, ..."""
    override_model: str | None = None
    """The model that an LLM override puts in place."""
    output_alias: str | None = None
    """The name an output override gives to what is produced."""
    output_folder: str | None = None
    """The folder an output override puts it into."""
    parameters_changed: Any = ()
    """Names of the LLM parameters that an override changes."""
