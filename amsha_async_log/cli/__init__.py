"""The command line `amsha-log`: what each command takes, and how errors become one line and an exit code."""

import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from ..exceptions import AmshaLogError, MissingExtraError
from ._executions import run_ls, run_show
from ._render import complain
from ._tail import run_tail
from ._top import LEAST_INTERVAL_S, run_top
from ._verify import run_verify

__all__ = ["app", "run"]

app: typer.Typer = typer.Typer(
    name="amsha-log",
    help="Read the logs of amsha_async_log: follow them, watch what runs, list executions, show one, prove that nothing"
    " is missing.",
    epilog="Example: amsha-log ls logs/",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

USAGE_ERROR_CODE: Final = 2
_INTERRUPTED_CODE: Final = 130
_UsageError: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])
"""`ClickException`, the base of all errors in how a command was called. Typer carries it, but has no name for it."""

PathsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH",
        help="A log file (its rotated and sibling segments come with it), a glob pattern, or a directory."
        " Default: AMSHA_LOG_PATH, else logs/, else .Nibandha/.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command(epilog="Example: amsha-log tail -f -n 50 logs/amsha.jsonl")
def tail(
    paths: PathsArgument = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is added, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines to begin with.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print each line as it is in the file.")] = False,
) -> None:
    """Print the last lines of a log, all of its writers merged by time."""
    raise typer.Exit(run_tail(paths or [], lines=lines, follow=follow, json=json))


@app.command(epilog="Example: amsha-log ls logs/")
def ls(paths: PathsArgument = None, *, json: JsonOption = False) -> None:
    """List the executions in a log with their outcome, duration, usage and losses."""
    raise typer.Exit(run_ls(paths or [], json=json))


@app.command(epilog="Example: amsha-log show 0198c0de-7a3b-7c11-9d2e-5f60718293a4 logs/")
def show(
    execution_id: Annotated[str, typer.Argument(help="Its id, as ls prints it.")],
    paths: PathsArgument = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show one execution: its states, steps, files, retries, configuration, records and errors."""
    raise typer.Exit(run_show(execution_id, paths or [], json=json))


@app.command(
    epilog="Example: amsha-log top logs/. Keys of the JSON: timestamp writers host processes gpus loops executions"
    " records_per_second lost_records; what is unknown is null, with the reason under unknown."
)
def top(
    paths: PathsArgument = None,
    *,
    interval: Annotated[
        float, typer.Option(min=LEAST_INTERVAL_S, max=86_400, help="Seconds between two refreshes.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line for each refresh.")] = False,
) -> None:
    """Watch a log: executions as they run, processes, event loops and GPUs. q or Ctrl-C quits."""
    if interval != interval:  # noqa: PLR0124 - not a number passes every range
        message = "must be a number of seconds"
        raise typer.BadParameter(message, param_hint="--interval")
    raise typer.Exit(run_top(paths or [], interval_s=interval, once=once, json=json))


@app.command(epilog="Example: amsha-log verify logs/amsha.jsonl && echo nothing is missing")
def verify(paths: PathsArgument = None, *, json: JsonOption = False) -> None:
    """Prove from the files alone that nothing is missing, doubled, moved or changed. Exits with 1 if something is."""
    raise typer.Exit(run_verify(paths or [], json=json))


@app.command(epilog="Example: amsha-log demo --crews 5")
def demo(
    *,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where the log goes. Default: a fresh temporary directory.", show_default=False),
    ] = None,
    crews: Annotated[int, typer.Option(min=1, help="How many crews run at once.")] = 20,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the files that the crews write beside the log.")] = False,
    seed: Annotated[int, typer.Option(help="Decides how the crews fare.")] = 7,
) -> None:
    """Run crews against a model server of their own, log them, read the log back and verify it."""
    try:
        module = importlib.import_module("amsha_async_log.cli.demo")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("amsha_async_log"):
            raise
        message = f'the demo needs {error.name}: pip install "amsha_async_log[cli]"'
        raise MissingExtraError(message) from error
    target = directory if directory is not None else Path(tempfile.mkdtemp(prefix="amsha-log-demo-"))
    raise typer.Exit(module.run_demo(target, crews, keep, seed))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return the exit code: 0 fine, 1 a finding, 2 wrong usage or input that cannot be read.

    Errors are one line on stderr.
    """
    _prepare_streams()
    try:
        code = app(args=list(arguments), prog_name="amsha-log", standalone_mode=False)
    except _UsageError as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _fail(f"{message} (see amsha-log --help)")
    except AmshaLogError as error:
        return _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        return _INTERRUPTED_CODE
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    complain(" ".join(message.split()))
    return USAGE_ERROR_CODE


def _prepare_streams() -> None:
    """Output must neither fail for a character the terminal's encoding lacks nor for a stream closed at the start."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
