"""What all benchmarks share: timed calls and their percentiles, noise floors, tables, checks, the command line.

A script makes a `Report`, fills it with tables, figures and checks, and leaves the rest to `main`.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = [
    "WARM_UP",
    "Case",
    "ReadBack",
    "Report",
    "Table",
    "Timing",
    "bootstrap",
    "empty",
    "empty_calls",
    "interleave",
    "main",
    "read_back",
    "sample_calls",
    "temporary_folder",
    "us",
]

RESAMPLES: Final = 2_000
WARM_UP: Final = 200
_VERSIONS_OF: Final = ("amsha_async_log", "msgspec", "uvloop", "orjson", "structlog")


# -- timing ------------------------------------------------------------------------------------------------------------


def empty() -> None:
    """The call that does nothing: timed as any other, it is the noise floor."""


def sample_calls(call: Callable[[], object], number: int, into: "array[int]") -> None:
    """Call `number` times in a tight loop, and add the nanoseconds that each call took to `into`."""
    clock, add = time.perf_counter_ns, into.append
    for _ in range(number):
        began = clock()
        call()
        add(clock() - began)


def empty_calls(number: int = 100_000) -> "array[int]":
    """Nanoseconds of `number` timed calls that do nothing: the timer, the call, and what the machine does meanwhile."""
    samples = array("q")
    sample_calls(empty, number, samples)
    return samples


@dataclass(frozen=True, slots=True)
class Timing:
    """Percentiles of single calls, in nanoseconds. No mean: it hides what matters."""

    calls: int
    p50: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, samples: Iterable[int]) -> "Timing":
        """The percentiles of `samples` (nearest rank)."""
        ordered = sorted(samples)
        last = len(ordered) - 1
        p50, p99, p99_9 = (float(ordered[round(share * last)]) for share in (0.5, 0.99, 0.999))
        return cls(len(ordered), p50, p99, p99_9, float(ordered[last]))

    def cells(self) -> list[str]:
        """p50, p99, p99.9 and max for a row of a table."""
        return [us(value) for value in (self.p50, self.p99, self.p99_9, self.max)]


@dataclass(slots=True)
class Case:
    """One thing to be timed beside others."""

    name: str
    call: Callable[[], object]
    between: Callable[[], object] = empty
    """Done after each burst, outside the clock: lets a backend catch up."""
    context: Context | None = None
    """Where it is called, if not here."""
    samples: "array[int]" = field(default_factory=lambda: array("q"))
    bursts: list[float] = field(default_factory=list)
    """p50 of each burst, in order: what comparisons are made with."""

    def burst(self, number: int) -> None:
        """Time `number` calls."""
        first = len(self.samples)
        if self.context is None:
            sample_calls(self.call, number, self.samples)
        else:
            self.context.run(sample_calls, self.call, number, self.samples)
        self.bursts.append(statistics.median(self.samples[first:]))
        self.between()


def interleave(cases: Sequence[Case], rounds: int, burst: int) -> None:
    """Time all cases burst by burst, in turns and every other round backwards, so that drift hits all alike."""
    for case in cases:  # what happens once (caches, imports, adaptive bytecode) is not what is asked
        case.burst(WARM_UP)
        case.samples = array("q")
        case.bursts.clear()
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            case.burst(burst)


def bootstrap(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """How many times the other one series is: (ratio, and its 95 % interval low, high).

    The ratio is the median of the ratios of neighbours, not that of the two medians: what was measured side by side
    shares the machine's mood, which over a whole run may change by a factor of two.
    """
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    rng = random.Random(0)  # noqa: S311 - the same figures give the same interval
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return statistics.median(ratios), medians[round(0.025 * RESAMPLES)], medians[round(0.975 * RESAMPLES) - 1]


# -- reading back ------------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct):
    event: str
    timestamp: float
    level: str
    logger: str
    writer: str
    seq: int
    agent_name: str | None = None
    attempt: int | None = None


@dataclass(slots=True)
class ReadBack:
    """What the files of one writer hold, read without the package's own reader."""

    lines: int = 0
    records: int = 0
    """Lines whose event does not start with `log.`."""
    first_seq: int = 0
    gaps: int = 0
    """Places where `seq` does not go up by one from a line to the next."""
    producers: dict[str, int] = field(default_factory=dict)
    """`agent_name` to records."""
    disorder: int = 0
    """Records whose `attempt` is not above that of the same producer's record before."""
    bytes: int = 0


def read_back(folder: Path, pattern: str = "*.jsonl", *, numbered: bool = False) -> ReadBack:
    """Parse every line in `folder` in write order. Raises msgspec's error on a line that is no JSON or no line.

    `numbered`: each producer gave its records its name as `agent_name` and a number that grows as `attempt`.
    """
    decoder = msgspec.json.Decoder(_Line)
    result = ReadBack()
    last_seq = 0
    last: dict[str, int] = {}
    for path in sorted(folder.glob(pattern)):  # rotated names sort in write order, the active one last
        data = path.read_bytes()
        result.bytes += len(data)
        for line in decoder.decode_lines(data):
            result.lines += 1
            if not result.first_seq:
                result.first_seq = line.seq
            elif line.seq != last_seq + 1:
                result.gaps += 1
            last_seq = line.seq
            if line.event.startswith("log."):
                continue
            result.records += 1
            if numbered and line.agent_name is not None and line.attempt is not None:
                result.producers[line.agent_name] = result.producers.get(line.agent_name, 0) + 1
                result.disorder += line.attempt <= last.get(line.agent_name, -1)
                last[line.agent_name] = line.attempt
    return result


# -- the report --------------------------------------------------------------------------------------------------------


def us(nanoseconds: float) -> str:
    """Nanoseconds as microseconds, three figures."""
    value = nanoseconds / 1000
    return f"{value:.3f} us" if value < 10 else f"{value:.1f} us" if value < 1000 else f"{value / 1000:.2f} ms"


@dataclass(slots=True)
class Table:
    """A table that can be printed and written as Markdown."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def text(self) -> str:
        """For a terminal."""
        rows = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join([f"\n{self.title}", *lines, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        """For `results.md`."""
        head = f"| {' | '.join(self.columns)} |\n|---|{'---:|' * (len(self.columns) - 1)}"
        body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in self.rows)
        return f"**{self.title}**\n\n{head}\n{body}\n" + (f"\n{self.note}\n" if self.note else "")


@dataclass(slots=True)
class Report:
    """What one script found."""

    script: str
    quick: bool
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[tuple[str, bool]] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
        """Add a table and print it."""
        table = Table(title, list(columns), [[str(cell) for cell in row] for row in rows], note)
        self.tables.append(table)
        print(table.text(), flush=True)

    def check(self, what: str, ok: bool) -> None:  # noqa: FBT001
        """Something that has to be true for the figures to mean anything; if not, the script exits with 1."""
        self.checks.append((what, bool(ok)))
        if not ok:
            print(f"CHECK FAILED: {what}", flush=True)

    def check_ledger(self, what: str, stats: Any, offered: int | None = None) -> None:
        """The identities of the ledger, and that it counts all `offered` calls."""
        self.check(f"{what}: offered = accepted + refused", stats.offered == stats.accepted + stats.refused)
        outcome = stats.written + stats.dropped + stats.failed + stats.queued
        self.check(f"{what}: accepted = written + dropped + failed + queued", stats.accepted == outcome)
        if offered is not None:
            self.check(f"{what}: every call counted ({stats.offered} of {offered})", stats.offered == offered)

    def check_files(self, what: str, found: ReadBack, records: int) -> None:
        """Every line parsed (else reading raised), as many as written, numbered without gaps."""
        self.check(f"{what}: {records} records written, {found.records} read back", found.records == records)
        self.check(f"{what}: seq without gaps", found.gaps == 0)
        self.check(f"{what}: order of each producer kept", found.disorder == 0)

    def floor(self, samples: Iterable[int]) -> Timing:
        """Note the noise floor of this run, and return it."""
        timing = Timing.of(samples)
        self.figures["noise_floor_ns"] = asdict(timing)
        return timing

    def document(self) -> dict[str, Any]:
        """Everything as JSON-able data."""
        return {
            "script": self.script,
            "quick": self.quick,
            "machine": machine(),
            "figures": self.figures,
            "tables": [asdict(table) for table in self.tables],
            "checks": [{"what": what, "ok": ok} for what, ok in self.checks],
        }


def machine() -> dict[str, str]:
    """Where and when the figures were taken."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    versions = []
    for name in _VERSIONS_OF:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": f"{cpu}, {os.cpu_count()} logical",
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "versions": ", ".join(versions),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


# -- running -----------------------------------------------------------------------------------------------------------


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards. `TMPDIR` says where it is made, hence which file system is measured."""
    folder = Path(tempfile.mkdtemp(prefix="amsha-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(
    script: str,
    measure: Callable[[Report], None],
    description: str,
    children: Mapping[str, Callable[[list[str]], None]] | None = None,
) -> None:
    """Run one script. `children` are what it starts itself as, with `--child NAME ARGUMENTS...`."""
    if len(sys.argv) > 2 and sys.argv[1] == "--child" and children:  # noqa: PLR2004
        children[sys.argv[2]](sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=(description.partition("\n")[0]))
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to FILE")
    options = parser.parse_args()
    report = Report(script, options.quick)
    about = machine()
    print(
        f"{script}{' --quick' if options.quick else ''}: Python {about['python']}, {about['cpu']}, load {about['load']}"
    )
    measure(report)
    failed = [what for what, ok in report.checks if not ok]
    print(f"\nchecks: {len(report.checks) - len(failed)} of {len(report.checks)} hold")
    if options.json is not None:
        options.json.write_text(json.dumps(report.document(), indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)
