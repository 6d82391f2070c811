"""From the state of a log to the lines that `amsha-log top` shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from rich.text import Text

from ..reader._live_views import (
    LiveExecution,
    LiveGpu,
    LiveHost,
    LiveLoop,
    LiveProcess,
    LiveView,
    LiveWriter,
)
from ._render import STATUS_STYLES, clock_time, printable
from ._top_grid import Column, grid

__all__ = ["frame"]

_STALE_INTERVALS: Final = 3  # samples that may be missing before the age of the last one is shown
_STALE_S: Final = 5.0  # and how old it must be in any case
_DAY_S: Final = 86_400


def frame(view: LiveView, title: str, running: int, ended: int, width: int, height: int | None) -> list[Text]:
    """The lines of one frame; `running` and `ended` say how many executions there are. `height` None: no limit."""
    lines = [_title(view, title), _totals(view)]
    lines += [_host(view.host, view.timestamp)] if view.host is not None else []
    lines += [Text(text, style="yellow") for text in _notices(view)]
    # What the machine does may take half of the lines, so that some are left for executions.
    room = None if height is None else max(0, height // 2 - len(lines))
    for section in (_gpus(view, width), _loops(view, width), _processes(view, width)):
        if section and (room is None or room >= min(3, len(section) + 1)):
            section = section if room is None else _cut(section, room - 1)  # noqa: PLW2901
            lines += [Text(), *section]
            room = None if room is None else room - len(section) - 1
    lines += [Text(), Text(f"{running:,} running, {ended:,} ended executions")]
    rows = None if height is None else max(0, height - len(lines) - 1)
    shown = view.executions if rows is None else view.executions[:rows]
    if shown:
        lines += grid(shown, _EXECUTIONS, width)
    return lines if height is None else lines[:height]


def _cut(lines: list[Text], most: int) -> list[Text]:
    """At most so many lines, the last of which says how many are not shown."""
    if len(lines) <= most:
        return lines
    return [*lines[: max(0, most - 1)], Text(f"+ {len(lines) - max(0, most - 1)} more", style="dim")]


# -- the top -----------------------------------------------------------------------------------------------------------


def _title(view: LiveView, title: str) -> Text:
    counts = Counter(writer.status for writer in view.writers)
    said = ", ".join(f"{counts[name]} {name}" for name in ("running", "closed", "killed", "unknown") if counts[name])
    return Text.assemble(
        ("amsha-log top", "bold"),
        f"  {clock_time(view.timestamp)[:8]}  {printable(title)}  writers: {said or 'none'}",
        no_wrap=True,
    )


def _totals(view: LiveView) -> Text:
    queued = [writer.queued_records for writer in view.writers if writer.queued_records is not None]
    lost = view.lost_records
    return Text.assemble(
        f"{view.records_per_second:,.1f} records/s  ",
        (f"{lost:,} lost", "red" if lost else ""),
        f"  queued {f'{sum(queued):,}' if queued else '-'}",
        no_wrap=True,
    )


def _host(host: LiveHost, now: float) -> Text:
    def number(name: str, decimals: int = 1) -> str:
        return _number(getattr(host, name), host.unknown, name, decimals)

    waiting = ", ".join(
        f"{what} {number(f'{name}_pressure_percent')} %"
        for what, name in (("cpu", "cpu"), ("memory", "memory"), ("storage", "io"))
    )
    parts = [
        f"host {printable(host.host or '-')}",
        f"cpu {number('cpu_percent')} %",
        f"memory {number('memory_mb', 0)}/{number('memory_total_mb', 0)} MB",
        f"load {number('load_1m', 2)}",
        f"waiting for {waiting}",
    ]
    if host.source_state not in (None, "ok"):
        parts.append(printable(host.source_state or ""))
    return Text("  ".join(parts) + _age(host, now), no_wrap=True)


def _notices(view: LiveView) -> list[str]:
    """What is wrong with the sources of samples, a line for each kind."""
    found = {(source, state) for writer in view.writers for source, state in writer.sources.items() if _lives(writer)}
    return [f"{printable(source)}: {printable(state)}" for source, state in sorted(found)]


def _lives(writer: LiveWriter) -> bool:
    return writer.status in ("running", "unknown")


# -- what the machine does ---------------------------------------------------------------------------------------------


def _gpus(view: LiveView, width: int) -> list[Text]:
    now = view.timestamp
    columns: list[Column[LiveGpu]] = [
        Column("GPU", lambda gpu: "-" if gpu.gpu_index is None else str(gpu.gpu_index)),
        Column("NAME", lambda gpu: printable(gpu.gpu_name or gpu.gpu_uuid or "-"), 28, right=False),
        Column("UTIL %", lambda gpu: _number(gpu.gpu_percent, gpu.unknown, "gpu_percent", 0), 16),
        Column("MEMORY MB", _gpu_memory, 24),
        Column("POWER W", lambda gpu: _number(gpu.power_watts, gpu.unknown, "power_watts", 0), 16),
        Column(
            "STATE",
            lambda gpu: printable(gpu.source_state or "-") + _age(gpu, now),
            30,
            right=False,
            style=lambda gpu: "" if gpu.source_state in (None, "ok") else "red",
        ),
        Column("ENERGY kJ", lambda gpu: _number(_scaled(gpu.energy_joules, 1e-3), gpu.unknown, "energy_joules"), 16),
        Column("TEMP °C", lambda gpu: _number(gpu.temperature_celsius, gpu.unknown, "temperature_celsius", 0), 16),
        Column("THROTTLED", lambda gpu: printable(", ".join(gpu.throttle_reasons or []) or "-"), 40, right=False),
        Column("HOST", lambda gpu: printable(gpu.host or "-"), 20, right=False),
    ]
    return grid(view.gpus, columns, width) if view.gpus else []


def _gpu_memory(gpu: LiveGpu) -> str:
    used = _number(gpu.gpu_memory_mb, gpu.unknown, "gpu_memory_mb", 0)
    return f"{used}/{_number(gpu.gpu_memory_total_mb, gpu.unknown, 'gpu_memory_total_mb', 0)}"


def _loops(view: LiveView, width: int) -> list[Text]:
    now = view.timestamp
    columns: list[Column[LiveLoop]] = [
        Column("LOOP", lambda loop: printable(loop.loop_name or "-"), 24, right=False),
        Column("LAG MAX ms", lambda loop: _ms(loop.lag_max_seconds, loop.unknown, "lag_max_seconds"), 16),
        Column("LAG P99 ms", lambda loop: _ms(loop.lag_p99_seconds, loop.unknown, "lag_p99_seconds"), 16),
        Column("BUSY %", lambda loop: _number(loop.busy_percent, loop.unknown, "busy_percent"), 16),
        Column("STALLS", lambda loop: f"{loop.stalls:,}", 10),
        Column("TASKS", lambda loop: _number(loop.tasks, loop.unknown, "tasks", 0), 16),
        Column("WRITER", lambda loop: printable(loop.writer) + _age(loop, now), 30, right=False),
    ]
    if not view.loops:
        return []
    lines = grid(view.loops, columns, width)
    stalled = []
    for loop in view.loops:
        if loop.stalled_seconds is not None or loop.blocked_at is not None:
            since = "" if loop.stalled_seconds is None else f" for {loop.stalled_seconds:,.1f} s"
            where = f" at {printable(loop.blocked_at)}" if loop.blocked_at is not None else ""
            name = printable(loop.loop_name or "a loop")
            stalled.append(Text(f"{name} does not run{since}{where}", style="bold red", no_wrap=True))
    return [*stalled, *lines]


def _processes(view: LiveView, width: int) -> list[Text]:
    now = view.timestamp
    writers = {writer.writer: writer for writer in view.writers}

    def pid(process: LiveProcess) -> str:
        writer = writers.get(process.writer)
        return "-" if writer is None or writer.pid is None else str(writer.pid)

    def program(process: LiveProcess) -> str:
        writer = writers.get(process.writer)
        return printable((writer.program if writer is not None else None) or "-")

    columns: list[Column[LiveProcess]] = [
        Column("PROCESS", program, 24, right=False),
        Column("PID", pid, 10),
        Column("CPU %", lambda one: _number(one.cpu_percent, one.unknown, "cpu_percent"), 16),
        Column("MEMORY MB", _process_memory, 24),
        Column("THREADS", lambda one: _number(one.threads, one.unknown, "threads", 0), 16),
        Column("GC MAX ms", lambda one: _ms(one.gc_pause_max_seconds, one.unknown, "gc_pause_max_seconds"), 16),
        Column("QUEUED", lambda one: _number(one.log_queued, one.unknown, "log_queued", 0), 16),
        Column("WRITER", lambda one: printable(one.writer) + _age(one, now), 30, right=False),
        Column("FILES", lambda one: _number(one.open_files, one.unknown, "open_files", 0), 16),
        Column("THROTTLED s", _throttled, 16),
    ]
    return grid(view.processes, columns, width) if view.processes else []


def _process_memory(process: LiveProcess) -> str:
    used = _number(process.memory_mb, process.unknown, "memory_mb", 0)
    limit = process.cgroup.memory_limit_mb if process.cgroup is not None else None
    return used if limit is None else f"{used} of {limit:,.0f}"


def _throttled(process: LiveProcess) -> str:
    group = process.cgroup
    return "-" if group is None else _number(group.throttled_seconds, group.unknown, "throttled_seconds", 2)


# -- executions --------------------------------------------------------------------------------------------------------

_EXECUTIONS: Final[Sequence[Column[LiveExecution]]] = (
    Column("CREW", lambda run: printable(run.crew_name or "-"), 24, right=False),
    Column(
        "STATE",
        lambda run: printable(run.status),
        12,
        right=False,
        style=lambda run: STATUS_STYLES.get(run.status, ""),
    ),
    Column("AGE", lambda run: _duration(run.age_seconds), 12),
    Column("STEP", lambda run: printable(run.step or "-"), 28, right=False),
    Column("TOKENS", lambda run: "-" if run.total_tokens is None else f"{run.total_tokens:,}", 12),
    Column("COST $", lambda run: "-" if run.cost_usd is None else f"{run.cost_usd:,.4f}", 12),
    Column("CALLS", lambda run: f"{run.llm_calls:,}", 8),
    Column("RETRIES", lambda run: f"{run.retries:,}", 8),
    Column("ERRORS", lambda run: f"{run.errors:,}", 8, style=lambda run: "red" if run.errors else ""),
    Column("CPU s", lambda run: _number(run.cpu_seconds, run.unknown, "cpu_seconds", 3), 16),
    Column("EXECUTION", lambda run: printable(run.execution_id), 40, right=False),
    Column("ENERGY J", lambda run: _number(run.energy_joules, run.unknown, "energy_joules", 1), 16),
)


# -- values ------------------------------------------------------------------------------------------------------------


def _number(value: float | None, unknown: Mapping[str, str], name: str, decimals: int = 1) -> str:
    """The value or, where it is unknown, why; a dash where nobody says."""
    return printable(unknown.get(name) or "-") if value is None else f"{value:,.{decimals}f}"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ms(seconds: float | None, unknown: Mapping[str, str], name: str) -> str:
    return _number(_scaled(seconds, 1_000), unknown, name)


def _age(sample: LiveHost | LiveProcess | LiveGpu | LiveLoop, now: float) -> str:
    """How old a sample is, where the next ones are overdue."""
    if sample.timestamp is None:
        return ""
    age = now - sample.timestamp
    overdue = age > max(_STALE_S, _STALE_INTERVALS * (sample.interval_seconds or 0.0))
    return f" ({_duration(age)} old)" if overdue else ""


def _duration(seconds: float | None) -> str:
    """`1.2 s`, `02:03`, `1:02:03`, `3 d 01:02:03`; a dash where it is unknown."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    days, rest = divmod(int(seconds), _DAY_S)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days:,} d {hours:02}:{minutes:02}:{left:02}"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes:02}:{left:02}"
