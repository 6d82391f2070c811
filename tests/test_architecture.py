"""Which module may import which: the layers of `docs/design.md`, read from the source."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import amsha_async_log

PACKAGE = Path(amsha_async_log.__file__).parent
NAME = PACKAGE.name

LAYERS = """
exceptions _version
_config_file records events _deadlines _attribution _config _stats _context _origin _stderr _threads _waiting _states _levels _tally _propagation _observe _watch
_queue _snapshot _arguments _stacktrace _plans _encoder _retention _writer _console collectors reader
_resources _loops _gpus _sampler _sampling _batcher _run execution _joined _operation _logger _registry _task_cpu
_exit _runtime _pipeline stdlib
amsha cli
__init__ __main__
"""
ROWS = [line.split() for line in LAYERS.strip().splitlines()]
ORDER = [module for row in ROWS for module in row]

FRONTEND = {"_logger", "execution", "_queue", "_snapshot", "records", "events", "_context"}
BACKEND = {"_batcher", "_writer"}
READER_MAY_IMPORT = {"records", "events", "exceptions"}
MAY_DEFINE_COROUTINES = {
    "_gpus",
    "_sampler",
    "_waiting",
    "_batcher",
    "_pipeline",
    "_runtime",
    "_registry",
    "_run",
    "_joined",
    "_observe",
    "cli",
}


def sources(package: Path) -> Iterator[tuple[str, Path]]:
    """Each source file with the module of the table it belongs to: a folder counts as one module."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).parts[0].removesuffix(".py"), path


def imported(package: Path, path: Path) -> Iterator[str]:
    """The modules of the table that a file imports, wherever in the file."""
    here = [NAME, *path.relative_to(package).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == NAME:
                yield target[1] if len(target) > 1 and target[1] in ORDER else "__init__"


def graph(package: Path) -> dict[str, set[str]]:
    """Module to the modules it imports, itself left out."""
    edges: dict[str, set[str]] = {}
    for module, path in sources(package):
        edges.setdefault(module, set()).update(set(imported(package, path)) - {module})
    return edges


def violations(package: Path) -> list[str]:
    """Everything in `package` that the rules do not allow."""
    edges = graph(package)
    found = [f"{module} is not in the table" for module in edges if module not in ORDER]
    found += [f"{module} is in the table but not in the package" for module in ORDER if module not in edges]
    for module, targets in edges.items():
        if module not in ORDER:
            continue
        allowed = ORDER[: ORDER.index(module)]
        found += [f"{module} imports {target}" for target in targets if target not in allowed]
    for module in sorted(FRONTEND):
        found += [f"{module} reaches {target}" for target in reachable(edges, module) & BACKEND]
    found += [f"reader imports {target}" for target in edges.get("reader", set()) - READER_MAY_IMPORT]
    for module, path in sources(package):
        if module not in MAY_DEFINE_COROUTINES and defines_coroutine(path):
            found.append(f"{module} defines a coroutine")
    return found


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    pending = [start]
    while pending:
        for target in edges.get(pending.pop(), set()) - seen:
            seen.add(target)
            pending.append(target)
    return seen


def defines_coroutine(path: Path) -> bool:
    return any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def test_package_keeps_to_the_layers() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("records", "from .events import FileOperation", "records imports events"),
        ("exceptions", "from . import records", "exceptions imports records"),
        ("_queue", "import amsha_async_log._snapshot", "_queue imports _snapshot"),
        ("_logger", "from ._batcher import Batcher", "_logger reaches _batcher"),
        ("_encoder", "def late() -> None:\n    from ._writer import SegmentWriter", "_encoder imports _writer"),
        ("_snapshot", "from amsha_async_log._registry import get_log", "_snapshot imports _registry"),
        ("_config", "from . import LogConfig", "_config imports __init__"),
        ("reader/_lines", "from .._stats import Stats", "reader imports _stats"),
        ("_writer", "async def wait() -> None: ...", "_writer defines a coroutine"),
        ("_new", "", "_new is not in the table"),
    ],
)
def test_violation_is_found(tmp_path: Path, module: str, line: str, found: str) -> None:
    copy = tmp_path / NAME
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / f"{module}.py").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert found in violations(copy)


def test_module_that_is_gone_is_found(tmp_path: Path) -> None:
    copy = tmp_path / NAME
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "_retention.py"))
    assert "_retention is in the table but not in the package" in violations(copy)
