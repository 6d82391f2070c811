"""README and docs: every Python snippet runs, every command shown prints what is shown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r"\d\d:\d\d:\d\d\.\d{3}"), "TIME"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"duration_seconds=[0-9.e-]+"), "duration_seconds=D"),
    (re.compile(r"(took|completed|failed) +[0-9.]+ m?s"), r"\1 D"),
    (re.compile(r"^ [0-9a-z]{8} ", re.MULTILINE), " WRITER_ID "),
    (re.compile(r"─+"), "─"),
    (re.compile(r" +$", re.MULTILINE), ""),
]


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def normalised(text: str) -> str:
    for pattern, replacement in VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()


SNIPPETS = [
    pytest.param(body, id=f"{page.name}-{number}")
    for page in PAGES
    for number, body in enumerate(blocks(page, "python"), 1)
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet_runs(snippet: str, tmp_path: Path) -> None:
    done = run(snippet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def shown_commands() -> list[tuple[str, str]]:
    """The `amsha-log` commands of the README whose output is shown."""
    found = []
    for body in blocks(ROOT / "README.md", "console"):
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith("amsha-log") and output.strip():
                found.append((command, output))
    return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the README's first snippet ran."""
    folder = tmp_path_factory.mktemp("readme")
    done = run(blocks(ROOT / "README.md", "python")[0], cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("command", "output"), shown_commands())
def test_command_prints_what_the_readme_shows(command: str, output: str, logged: Path) -> None:
    arguments = [sys.executable, "-m", "amsha_async_log", *command.split()[1:]]
    done = subprocess.run(arguments, cwd=logged, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, normalised(done.stdout)) == (0, normalised(output)), done.stderr


def test_readme_shows_the_line_that_was_written(logged: Path) -> None:
    shown = blocks(ROOT / "README.md", "json")[0].strip()
    written = next(line for line in (logged / "logs/app.jsonl").read_text().splitlines() if "Asking" in line)

    def bare(line: str) -> str:
        line = re.sub(r'"timestamp":[0-9.]+', '"timestamp":T', normalised(line))
        return re.sub(r'"writer":"[0-9a-z]{8}"', '"writer":W', line)

    assert bare(written) == bare(shown)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for command in ("demo", "tail", "ls", "show", "verify"):
        assert re.search(rf"(amsha-log |`){command}\b", text), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


NAMED_TESTS = sorted(
    {match for page in PAGES for match in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text())}
)


@pytest.mark.parametrize(("file", "test"), NAMED_TESTS)
def test_test_that_a_page_names_exists(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (Path(__file__).parent / file).read_text(), re.MULTILINE)
