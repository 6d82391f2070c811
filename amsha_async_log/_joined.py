"""The context that another process or service sent along."""

import time
from types import TracebackType
from typing import Final

from ._context import CURRENT, Scope, enter, leave
from ._propagation import Origin
from ._run import Emitter, Request
from .execution import Execution, Step, current_execution

__all__ = ["Joined", "current_origin"]

_IDS: Final = frozenset({"execution_id", "crew_name", "step_id", "trace_id"})


class Joined:
    """The context that another process or service sent along. Made by `log.extract(...)`; enter it with `with`.

    Inside, lines carry the ids of the execution and step it was sent from, executions become its children, and
    `run.step(...)` its steps. Entering gives that execution (or step), None where nothing was sent. Leaving writes
    nothing: whoever began the execution ends it. It may be entered any number of times, by several tasks at once.
    """

    __slots__ = ("_scope", "run")

    def __init__(self, emitter: Emitter, origin: Origin) -> None:
        self.run: Execution | Step | None = None
        """The execution or step it was sent from."""
        self._scope: Scope | None = None
        named = {"execution_id": origin.execution_id, "crew_name": origin.crew_name, "trace_id": origin.trace_id}
        if not origin.trace_id:
            return
        values, reasons = emitter.encode_context({name: value for name, value in named.items() if value})
        context = CURRENT.get().without(_IDS)
        if not origin.execution_id:
            self._scope = context.child(values, Request(origin.trace_id), reasons)
            return
        execution = Execution(
            emitter,
            origin.crew_name,
            execution_id=origin.execution_id,
            parent_execution_id=None,
            depends_on=(),
            inputs=None,
            attempt=1,
            max_retries=None,
            fields={},
        )
        execution.trace_id = origin.trace_id
        execution._state = "running"
        execution._elsewhere = True
        execution._began = time.monotonic_ns()
        execution._scope = self._scope = context.child(values, execution, reasons)
        self.run = execution
        if origin.step_id:
            self.run = step = Step(emitter, execution, None, "", "", {})
            step.step_id = origin.step_id
            step._state = "running"
            step._elsewhere = True
            step_values, _ = emitter.encode_context({"step_id": origin.step_id})
            step._scope = self._scope = self._scope.child(step_values, step)

    def __enter__(self) -> Execution | Step | None:
        if self._scope is not None:
            enter(self._scope.again())
        return self.run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._scope is not None:
            leave(self._scope.run)

    async def __aenter__(self) -> Execution | Step | None:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def current_origin() -> Origin:
    """What the calling code would tell another process of where it is."""
    run = CURRENT.get().run
    execution = current_execution()
    if execution is None:
        return Origin(run.trace_id if isinstance(run, Request) else "")
    step_id = run.step_id if isinstance(run, Step) else ""
    return Origin(execution.trace_id, str(execution.execution_id), step_id, str(execution.crew_name))
