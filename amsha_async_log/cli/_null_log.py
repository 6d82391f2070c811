"""The log that is none: what the overhead benchmark runs the same work with to have a baseline."""

from types import TracebackType
from typing import Self

from msgspec import Struct

__all__ = ["NullLog"]


class NullLog:
    """A log, an execution and a step that do nothing at all: the baseline that a real log is compared with."""

    def debug(self, _message: str, *_args: object, **_fields: object) -> bool:
        return True

    info = warning = error = debug

    def emit(self, _struct: Struct, **_fields: object) -> bool:
        return True

    def execution(self, *_names: str, **_fields: object) -> Self:
        return self

    step = execution

    def record_tokens(self, **_counts: object) -> None: ...

    def set_outputs(self, _value: object) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None: ...
