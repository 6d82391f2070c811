"""`amsha-log ls` and `amsha-log show`: the executions in a log, and everything about one of them."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from .. import reader
from ._render import (
    STATUS_STYLES,
    clock_time,
    complain,
    counted,
    executions_table,
    new_console,
    pairs,
    printable,
    quiet_pipe,
    record_text,
    seconds,
    whole_time,
    write_json,
)
from ._resources import resource_lines

__all__ = ["run_ls", "run_show"]

SHOWN_RECORDS: Final = 200
"""Records that `show` prints; all of them are in its JSON."""
_NEAR: Final = 5
_KNOWN_FIELDS: Final = ("execution_id", "crew_name")  # said once, in the header
_SEVERE: Final = ("ERROR", "CRITICAL")
T = TypeVar("T")


def run_ls(paths: Iterable[str], *, json: bool) -> int:
    """Print all executions. Returns the exit code."""
    executions = reader.executions(*paths)
    with quiet_pipe():
        if json:
            write_json({"executions": executions})
        elif executions:
            new_console().print(executions_table(executions))
        else:
            new_console().print("no executions")
    return 0


def run_show(execution_id: str, paths: Iterable[str], *, json: bool) -> int:
    """Print one execution. Returns the exit code, 1 when the log has no such execution."""
    paths = list(paths)
    detail = reader.detail(execution_id, *paths)
    if detail is None:
        known = [execution.execution_id for execution in reader.executions(*paths)]
        complain(_not_found(execution_id, known))
        return 1
    with quiet_pipe():
        if json:
            write_json(detail)
        else:
            _print_detail(new_console(), detail)
    return 0


def _not_found(wanted: str, known: list[str]) -> str:
    containing = [name for name in known if wanted and wanted in name]
    near = list(dict.fromkeys([*containing, *get_close_matches(wanted, known, _NEAR)]))[:_NEAR]
    hint = f"; did you mean {' or '.join(near)}?" if near else ", and none like it"
    return f"no execution {wanted}{hint}"


def _print_detail(console: Console, detail: reader.Detail) -> None:
    for line in _header(detail):
        console.print(line, soft_wrap=True)
    _print_section(console, "States", [_state_text(state) for state in detail.states])
    if detail.resources is not None:
        _print_section(console, "Resources", map(Text, resource_lines(detail.resources)))
    if detail.steps:
        console.print()
        console.print(_step_tree(detail.steps), soft_wrap=True)
    for title, texts in (
        ("Files", [_file_text(use) for use in detail.files]),
        ("Retries", [_retry_text(retry) for retry in detail.retries]),
        ("Configuration", [_setting_text(setting) for setting in detail.configuration]),
    ):
        if texts:
            _print_section(console, *_shortened(title, texts))
    title, records = _shortened("Records", detail.records)
    _print_section(console, title, [record_text(record, _KNOWN_FIELDS) for record in records])
    last = detail.records[-1] if detail.records else {}
    message = printable(str(last.get("message") or last.get("event") or ""))
    _print_section(console, f"Last activity {whole_time(detail.last_activity)}  {message}", [])
    errors = [record for record in detail.records if record.get("level") in _SEVERE]
    if errors:
        _print_section(console, "Errors", [text for record in errors for text in _error_texts(record)])


def _shortened(title: str, items: list[T]) -> tuple[str, list[T]]:
    """The latest of many items, and a title that says how many are left out."""
    hidden = len(items) - SHOWN_RECORDS
    if hidden <= 0:
        return title, items
    return f"{title} ({hidden:,} earlier ones are not shown, see --json)", items[-SHOWN_RECORDS:]


def _print_section(console: Console, title: str, lines: Iterable[Text]) -> None:
    console.print()
    console.print(title, soft_wrap=True)
    for line in lines:
        console.print(Text("  ") + line, soft_wrap=True)


def _state_text(state: reader.State) -> Text:
    change = " -> ".join(printable(name) for name in (state.state_from, state.state_to) if name)
    return Text(f"{clock_time(state.timestamp)} {change}")


def _file_text(use: reader.FileUse) -> Text:
    """What was done with a file: its operation or, where the line has none, its message."""
    what = use.operation or use.message
    text = Text(f"{clock_time(use.timestamp)} {printable(' '.join(filter(None, (what, use.file_path))))}")
    if use.status:
        text.append("  ").append(*_styled(use.status))
    if use.validation_status:
        text.append(f"  validation {printable(use.validation_status)}")
    if use.cleaning_action:
        text.append(f"  cleaned by {printable(use.cleaning_action)}")
    if use.file_size_bytes is not None:
        text.append(f"  {use.file_size_bytes:,} bytes")
    if use.attempt is not None and use.attempt > 1:
        text.append(f"  {_attempt_words(use.attempt, None)}")
    return _with_error(text, use.error_type)


def _retry_text(retry: reader.Retry) -> Text:
    name = f" {printable(retry.name)}" if retry.name else ""
    text = Text(f"{clock_time(retry.timestamp)} {printable(retry.what)}{name}")
    if retry.attempt is not None:
        text.append(f"  {_attempt_words(retry.attempt, retry.max_retries)}")
    _with_error(text, retry.error_type)
    if retry.recovery_action:
        text.append(f"  recovered by {printable(retry.recovery_action)}")
    return text


def _setting_text(setting: reader.Setting) -> Text:
    what = printable(setting.message or setting.event)
    return Text(f"{clock_time(setting.timestamp)} {what} {pairs(setting.values)}")


def _attempt_words(attempt: int, max_retries: int | None) -> str:
    return f"attempt {attempt}" if max_retries is None else f"attempt {attempt} of {max_retries}"


def _styled(status: str) -> tuple[str, str]:
    shown = printable(status)
    return shown, STATUS_STYLES.get(shown.lower(), "")


def _with_error(text: Text, error_type: str | None) -> Text:
    return text.append(f"  {printable(error_type)}", "red") if error_type else text


def _error_texts(record: Mapping[str, Any]) -> list[Text]:
    """A record of an error, and its stack trace below it."""
    trace = record.get("stacktrace")
    lines = _trace(trace) if isinstance(trace, Mapping) else []
    return [record_text(record, _KNOWN_FIELDS), *(Text(f"  {line}") for line in lines)]


def _header(detail: reader.Detail) -> list[Text]:
    run = detail.execution
    took = seconds(run.duration_seconds)
    lines = [
        Text.assemble(
            (printable(run.crew_name or "execution"), "bold"),
            f"  {printable(run.execution_id)}  ",
            _styled(run.status),
        ),
        Text(f"started {whole_time(run.started_at)}, ended {whole_time(run.ended_at)}, took {took}"),
        Text(", ".join(_usage(run))),
    ]
    if run.parent_execution_id is not None:
        lines.append(Text(f"parent {printable(run.parent_execution_id)}"))
    if run.depends_on:
        lines.append(Text(f"depends on {', '.join(map(printable, run.depends_on))}"))
    payload = pairs(
        {"inputs": run.inputs, "outputs": run.outputs}, [n for n in ("inputs", "outputs") if getattr(run, n) is None]
    )
    if payload:
        lines.append(Text(payload))
    if not detail.complete:
        lines.append(Text(f"not complete: {'; '.join(_why_incomplete(detail))}", style="yellow"))
    return lines


def _usage(run: reader.Execution) -> list[str]:
    said = [counted(run.steps, "step"), counted(run.llm_calls, "model call")]
    said += [counted(run.retries, "retry", "retries"), counted(run.errors, "error")]
    for value, text in (
        (run.model_name, f"model {printable(run.model_name or '')}"),
        (run.total_tokens, f"{run.total_tokens or 0:,} tokens"),
        (run.cost_usd, f"${run.cost_usd or 0:,.4f}"),
        (run.peak_memory_mb, f"peak {run.peak_memory_mb or 0:,.1f} MB"),
        (run.peak_gpu_memory_mb, f"GPU peak {run.peak_gpu_memory_mb or 0:,.1f} MB"),
        (run.mean_cpu_percent, f"CPU {run.mean_cpu_percent or 0:,.1f} %"),
    ):
        if value is not None:
            said.append(text)
    return said


def _why_incomplete(detail: reader.Detail) -> list[str]:
    run = detail.execution
    reasons = []
    if run.ended_at is None:
        reasons.append(f"it has no end ({printable(run.status)})")
    if run.lost_records:
        reasons.append(f"up to {run.lost_records:,} of its records are lost")
    if run.ended_at is not None and any(step.status == "unknown" for step in detail.steps):
        reasons.append("a step has no end")
    return reasons or ["its beginning is not in the files"]


def _step_tree(steps: list[reader.Step]) -> Tree:
    """Steps under their parents; a step whose parent is not in the log, or is below itself, stands at the top."""
    root = Tree("Steps")
    by_id = {step.step_id: step for step in steps}
    names = {step.step_id: step.name for step in steps if step.name}
    branches: dict[str, Tree] = {}

    def branch(step: reader.Step, below: frozenset[str]) -> Tree:
        if step.step_id not in branches:
            parent = by_id.get(step.parent_step_id or "")
            at_top = parent is None or parent.step_id in below
            trunk = root if at_top or parent is None else branch(parent, below | {step.step_id})
            if step.step_id not in branches:
                branches[step.step_id] = trunk.add(_step_text(step, names))
        return branches[step.step_id]

    for step in steps:
        branch(step, frozenset({step.step_id}))
    return root


def _step_text(step: reader.Step, names: Mapping[str, str]) -> Text:
    """A step on one line; `names` are those of all steps by their ids."""
    text = Text(f"{printable(step.kind or 'step')} {printable(step.name or step.step_id)}  ")
    text.append(*_styled(step.status))
    if step.state not in (None, "running", step.status):
        text.append(f" (was {printable(step.state or '')})")
    text.append(f"  {seconds(step.duration_seconds)}")
    if step.attempt is not None and step.attempt > 1:
        text.append(f"  {_attempt_words(step.attempt, step.max_retries)}")
    if step.depends_on:
        text.append(f"  after {', '.join(printable(names.get(name, name)) for name in step.depends_on)}")
    return _with_error(text, step.error_type)


def _trace(trace: Mapping[str, Any], indent: str = "") -> list[str]:
    """A structured stack trace, its causes first, like Python prints it."""
    lines = []
    for key, words in (("cause", "which caused"), ("context", "while it was handled")):
        inner = trace.get(key)
        if isinstance(inner, Mapping):
            lines += [*_trace(inner, indent), f"{indent}{words}:"]
    frames = trace.get("frames")
    for frame in frames if isinstance(frames, list) else []:
        if not isinstance(frame, Mapping):
            continue
        if "omitted" in frame:
            lines.append(f"{indent}  ... {frame['omitted']} frames omitted")
            continue
        where = f"{frame.get('file')}:{frame.get('line')} in {frame.get('function')}"
        code = frame.get("code")
        lines.append(f"{indent}  {printable(where)}{f'    {printable(str(code))}' if code else ''}")
    lines.append(f"{indent}{printable(str(trace.get('type')))}: {printable(str(trace.get('message')))}")
    notes = trace.get("notes")
    lines += [f"{indent}  {printable(str(note))}" for note in (notes if isinstance(notes, list) else [])]
    group = trace.get("exceptions")
    for inner in group if isinstance(group, list) else []:
        if isinstance(inner, Mapping):
            lines += _trace(inner, indent + "  | ")
    return lines
