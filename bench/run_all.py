"""Run every benchmark, each in a process of its own, and write the figures as one JSON file and one Markdown page.

python bench/run_all.py                          all of it, about ten minutes, to results.json and results.md
python bench/run_all.py --quick                  small sizes, only printed: does everything still run?
python bench/run_all.py --only call_site idle    some of it
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from _harness import Table, machine, temporary_folder

HERE: Final = Path(__file__).parent
SCRIPTS: Final = (
    "call_site",
    "executions",
    "sampler",
    "cpu_per_record",
    "throughput",
    "overhead",
    "starvation",
    "hung_disk",
    "idle",
    "import_time",
)


def _run(script: str, *, quick: bool) -> dict[str, Any]:
    """Run one script, its output passed through; what it found, or that it failed."""
    with temporary_folder() as folder:
        target = folder / "figures.json"
        command = [sys.executable, str(HERE / f"{script}.py"), "--json", str(target), *(["--quick"] if quick else [])]
        began = time.monotonic()
        status = subprocess.run(command, check=False).returncode
        document: dict[str, Any] = {"script": script, "tables": [], "checks": []}
        if target.exists():
            document = json.loads(target.read_text(encoding="utf-8"))
        document |= {"status": status, "seconds": round(time.monotonic() - began, 1)}
        return document


def _first_line(script: str) -> str:
    return (HERE / f"{script}.py").read_text(encoding="utf-8").splitlines()[0].strip('"')


def _markdown(results: list[dict[str, Any]], before: dict[str, str], after: dict[str, str]) -> str:
    """The page: the machine, then each script's tables as they were printed, and the checks that failed."""
    quick = any(result.get("quick") for result in results)
    parts = [
        "# Results",
        "Written by `bench/run_all.py`; `bench/README.md` says what is measured, how, and how to read it."
        + (" **A quick run: it shows that the scripts work, not how fast anything is.**" if quick else ""),
        f"{before['date']}, Python {before['python']}, {before['system']}, {before['cpu']}. {before['versions']}.",
        f"Load before {before['load']}, after {after['load']}.",
    ]
    for result in results:
        failed = [check["what"] for check in result["checks"] if not check["ok"]]
        parts.append(f"## {result['script']}\n\n{_first_line(result['script'])}")
        parts += [Table(**table).markdown().rstrip() for table in result["tables"]]
        parts.append(
            f"Checks: {len(result['checks']) - len(failed)} of {len(result['checks'])} hold. "
            f"Took {result['seconds']:.0f} s." + (f" **Exit status {result['status']}.**" if result["status"] else "")
        )
        parts += [f"- failed: {what}" for what in failed]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Run what is asked for. Returns 1 if a check failed anywhere."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; writes only the files that are named")
    parser.add_argument(
        "--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="SCRIPT", help=", ".join(SCRIPTS)
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: bench/results.json")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="default: bench/results.md")
    options = parser.parse_args()
    whole = not options.quick and options.only == SCRIPTS
    target_json = options.json or (HERE / "results.json" if whole else None)
    target_markdown = options.markdown or (HERE / "results.md" if whole else None)

    before = machine()
    if os.getloadavg()[0] > 0.5:  # noqa: PLR2004
        print(f"The machine is busy (load {before['load']}): the figures will say more about it than about the log.")
    results = []
    for script in options.only:
        results.append(_run(script, quick=options.quick))
        print(flush=True)
    after = machine()
    if target_json is not None:
        document = {"machine": before, "load_after": after["load"], "results": results}
        target_json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if target_markdown is not None:
        target_markdown.write_text(_markdown(results, before, after), encoding="utf-8")
    failed = [result["script"] for result in results if result["status"]]
    print(f"failed: {', '.join(failed)}" if failed else "every check holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
