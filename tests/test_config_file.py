"""Options from TOML files: which file counts, what wins over it, and what is said of a wrong one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support import run_python, user_lines

from amsha_async_log import open_log
from amsha_async_log._config import build_config
from amsha_async_log.exceptions import ConfigError

SECTION = "[tool.amsha_async_log]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_of_pyproject_is_read(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(
        SECTION + 'path = "a.jsonl"\nlevel = "debug"\nmax_bytes = 1_000\nconsole = false\nfile_mode = 0o640\n'
    )
    config = build_config({}, {})
    assert (config.path, config.level, config.max_bytes) == ("a.jsonl", "DEBUG", 1000)
    assert (config.console, config.file_mode) == (False, 0o640)


def test_log_opened_without_arguments_follows_the_file(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(SECTION + 'path = "a/b.jsonl"\nlevel = "DEBUG"\nconsole = false\n')
    with open_log() as log:
        log.debug("hello")
    assert [line["message"] for line in user_lines(folder / "a" / "b.jsonl")] == ["hello"]


def test_environment_wins_over_the_file_and_arguments_over_both(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(SECTION + "max_bytes = 1\nbackup_count = 1\nmax_queue_size = 1\n")
    environ = {"AMSHA_LOG_MAX_BYTES": "2", "AMSHA_LOG_BACKUP_COUNT": "2"}
    config = build_config({"max_bytes": 3}, environ)
    assert (config.max_bytes, config.backup_count, config.max_queue_size) == (3, 2, 1)


@pytest.mark.parametrize("text", ["level = 'DEBUG'\n", SECTION + "level = 'DEBUG'\n"])
def test_file_of_its_own_may_have_the_table_or_not(folder: Path, text: str) -> None:
    (folder / "log.toml").write_text(text)
    assert build_config({}, {}, config_file="log.toml").level == "DEBUG"


def test_file_can_be_named_by_a_path_object_and_by_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "log.toml").write_text("backup_count = 7\nconsole = false\n")
    with open_log(folder / "a.jsonl", config_file=folder / "log.toml") as log:
        assert log.config.backup_count == 7
    monkeypatch.setenv("AMSHA_LOG_CONFIG_FILE", str(folder / "log.toml"))
    with open_log(folder / "b.jsonl") as log:
        assert log.config.backup_count == 7


def test_argument_names_the_file_rather_than_the_environment(folder: Path) -> None:
    (folder / "one.toml").write_text("backup_count = 1\n")
    (folder / "two.toml").write_text("backup_count = 2\n")
    environ = {"AMSHA_LOG_CONFIG_FILE": "one.toml"}
    assert build_config({}, environ, config_file="two.toml").backup_count == 2


def test_named_file_stands_instead_of_pyproject(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(SECTION + "max_bytes = 1\n")
    (folder / "log.toml").write_text("backup_count = 7\n")
    config = build_config({}, {}, config_file="log.toml")
    assert (config.backup_count, config.max_bytes) == (7, 50 * 2**20)


@pytest.mark.parametrize(
    "text",
    ["", "[tool.other]\nx = 1\n", "# amsha_async_log\n", "this is no TOML at all ["],
)
def test_pyproject_that_does_not_concern_the_log_is_left_alone(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    assert build_config({}, {}) == build_config({}, {}, config_file=None)
    assert build_config({}, {}).level == "INFO"


def test_pyproject_that_is_a_folder_is_left_alone(folder: Path) -> None:
    (folder / "pyproject.toml").mkdir()
    assert build_config({}, {}).level == "INFO"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_bites = 1", r"option max_bites=1: no such option"),
        ("max_bytes = -1", r"option max_bytes=-1: allowed is"),
        ("max_bytes = '1'", r"option max_bytes='1': allowed is"),
        ("level = 'LOUD'", r"option level='LOUD': allowed is"),
        ("level = 2024-01-01", r"option level=datetime.date"),
        ("path = ['a']", r"option path=\['a'\]: allowed is"),
    ],
)
def test_wrong_option_is_said_with_file_and_table(folder: Path, line: str, said: str) -> None:
    (folder / "pyproject.toml").write_text(f"{SECTION}{line}\n")
    with pytest.raises(ConfigError, match=rf"^pyproject.toml \[tool.amsha_async_log\]: {said}"):
        open_log()


@pytest.mark.parametrize("content", [b"level = \n", b"\xff\xfe", b"level = 'a\n", b"a = 1\na = 2\n"])
def test_named_file_that_is_no_toml_is_an_error(folder: Path, content: bytes) -> None:
    (folder / "log.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^configuration file log.toml: is no TOML: "):
        build_config({}, {}, config_file="log.toml")


@pytest.mark.parametrize("text", ["[tool]\namsha_async_log = 5\n", "[[tool.amsha_async_log]]\nlevel = 'INFO'\n"])
def test_options_that_are_no_table_are_an_error(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"pyproject.toml: tool.amsha_async_log=.*: allowed is a table"):
        build_config({}, {})


def test_file_nested_too_deep_is_an_error(folder: Path) -> None:
    (folder / "log.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="is no TOML"):
        build_config({}, {}, config_file="log.toml")


def test_broken_pyproject_with_the_table_is_an_error(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(SECTION + "level = \n")
    with pytest.raises(ConfigError, match=r"^configuration file pyproject.toml: is no TOML: .*line 2"):
        build_config({}, {})


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b"])
def test_named_file_that_cannot_be_read_is_an_error(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^configuration file .*: cannot be read: "):
        build_config({}, {}, config_file=name)


def test_named_pyproject_without_the_table_has_no_options(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("level = 'LOUD'\n")
    assert build_config({}, {}, config_file="pyproject.toml").level == "INFO"


def test_log_opened_on_a_loop_follows_the_file_too(folder: Path, opened: Callable[..., object]) -> None:
    (folder / "pyproject.toml").write_text(SECTION + "backup_count = 3\n")

    async def main() -> int:
        async with open_log(folder / "a.jsonl", console=False) as log:
            return log.config.backup_count

    assert asyncio.run(main()) == 3


def test_toml_is_not_loaded_without_such_a_file(folder: Path) -> None:
    run_python(
        "import os, sys; os.chdir(sys.argv[1]); from amsha_async_log import open_log;"
        "open_log('a.jsonl', console=False).close(); assert 'tomllib' not in sys.modules",
        folder,
    )
