"""The options of `open_log`: defaults, where they come from, and how wrong ones are refused."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import user_lines

from amsha_async_log import ConfigError, LogConfig, open_log
from amsha_async_log._config import build_config, level_number
from amsha_async_log._pipeline import Log

DEFAULTS = {
    "path": "logs/amsha.jsonl",
    "level": "INFO",
    "max_queue_size": 65_536,
    "max_queue_bytes": 64 * 2**20,
    "when_full": "drop_newest",
    "flush_interval_s": 0.1,
    "max_bytes": 50 * 2**20,
    "backup_count": 10,
    "rotate_interval_s": 0,
    "durability": "os",
    "console": "auto",
    "shutdown_timeout_s": 5.0,
    "handle_sigterm": True,
    "max_record_bytes": 2**20,
    "file_mode": 0o600,
    "sample_interval_s": 0,
    "gpu_interval_s": None,
    "gpu_process": False,
    "cpu_by_task": False,
    "loop_stall_s": 1.0,
}
NOT_YET = {
    "max_age_s": 1,
    "max_total_bytes": 1,
    "compression": "gzip",
    "redact": True,
    "payload_bytes": 65_536,
}


class PathObject:
    """The least that is an `os.PathLike`."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        return self._path


# -- defaults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "default"), DEFAULTS.items())
def test_default_is_the_documented_one(option: str, default: object) -> None:
    value = getattr(build_config({}, {}), option)
    assert value == default
    assert type(value) is type(default)


def test_program_is_by_default_the_name_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/crew.py", "--flag"])
    assert build_config({}, {}).program == "crew.py"


@pytest.mark.parametrize("argv", [[], [""]])
def test_program_is_python_where_there_is_no_script(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert build_config({}, {}).program == "python"


def test_defaults_and_parts_to_come_are_all_the_options_there_are() -> None:
    assert set(LogConfig.__struct_fields__) == {*DEFAULTS, *NOT_YET, "program"}


def test_configuration_is_frozen() -> None:
    config = build_config({}, {})
    with pytest.raises(AttributeError):
        config.level = "DEBUG"


def test_log_shows_the_configuration_it_runs_with(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(level="debug", max_queue_size=100)
    assert (log.config.path, log.config.level, log.config.max_queue_size) == (str(log_path), "DEBUG", 100)


# -- where values come from --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("AMSHA_LOG_PATH", "a/b.jsonl", "path", "a/b.jsonl"),
        ("AMSHA_LOG_LEVEL", "debug", "level", "DEBUG"),
        ("AMSHA_LOG_MAX_QUEUE_SIZE", "12", "max_queue_size", 12),
        ("AMSHA_LOG_MAX_QUEUE_BYTES", " 4096 ", "max_queue_bytes", 4096),
        ("AMSHA_LOG_WHEN_FULL", "block", "when_full", "block"),
        ("AMSHA_LOG_FLUSH_INTERVAL_S", "0.25", "flush_interval_s", 0.25),
        ("AMSHA_LOG_FLUSH_INTERVAL_S", "2", "flush_interval_s", 2),
        ("AMSHA_LOG_MAX_BYTES", "1000", "max_bytes", 1000),
        ("AMSHA_LOG_BACKUP_COUNT", "0", "backup_count", 0),
        ("AMSHA_LOG_DURABILITY", "fsync_errors", "durability", "fsync_errors"),
        ("AMSHA_LOG_CONSOLE", "auto", "console", "auto"),
        ("AMSHA_LOG_CONSOLE", "true", "console", True),
        ("AMSHA_LOG_CONSOLE", "False", "console", False),
        ("AMSHA_LOG_SHUTDOWN_TIMEOUT_S", "1e1", "shutdown_timeout_s", 10.0),
        ("AMSHA_LOG_HANDLE_SIGTERM", "false", "handle_sigterm", False),
        ("AMSHA_LOG_HANDLE_SIGTERM", "0", "handle_sigterm", False),
        ("AMSHA_LOG_HANDLE_SIGTERM", "1", "handle_sigterm", True),
        ("AMSHA_LOG_HANDLE_SIGTERM", "TRUE", "handle_sigterm", True),
        ("AMSHA_LOG_MAX_RECORD_BYTES", "512", "max_record_bytes", 512),
        ("AMSHA_LOG_FILE_MODE", "640", "file_mode", 0o640),
        ("AMSHA_LOG_FILE_MODE", "0o640", "file_mode", 0o640),
        ("AMSHA_LOG_PROGRAM", "7", "program", "7"),
    ],
)
def test_environment_variable_sets_option(variable: str, text: str, option: str, value: object) -> None:
    chosen = getattr(build_config({}, {variable: text}), option)
    assert (chosen, type(chosen)) == (value, type(value))


def test_keyword_wins_over_environment() -> None:
    assert build_config({"level": "ERROR"}, {"AMSHA_LOG_LEVEL": "DEBUG"}).level == "ERROR"


def test_environment_fills_what_keywords_leave_open() -> None:
    config = build_config({"level": "ERROR"}, {"AMSHA_LOG_LEVEL": "DEBUG", "AMSHA_LOG_BACKUP_COUNT": "3"})
    assert (config.level, config.backup_count) == ("ERROR", 3)


def test_open_log_reads_the_environment_of_the_process(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Log]
) -> None:
    monkeypatch.setenv("AMSHA_LOG_LEVEL", "error")
    assert opened().config.level == "ERROR"


def test_path_may_come_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch, log_path: Path) -> None:
    monkeypatch.setenv("AMSHA_LOG_PATH", str(log_path))
    with open_log(console=False) as log:
        log.info("here")
    assert [line["message"] for line in user_lines(log_path)] == ["here"]


def test_other_environment_variables_do_not_matter() -> None:
    assert build_config({}, {"AMSHA_LEVEL": "x", "LOG_LEVEL": "y", "XAMSHA_LOG_LEVEL": "z"}).level == "INFO"


# -- refused -----------------------------------------------------------------------------------------------------------


def test_unknown_option_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"option max_size=5\b.*max_queue_size, .*max_bytes"):
        build_config({"max_size": 5}, {})


def test_unknown_environment_variable_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"AMSHA_LOG_LEVLE='DEBUG'.*AMSHA_LOG_LEVEL, "):
        build_config({}, {"AMSHA_LOG_LEVLE": "DEBUG"})


WRONG: list[tuple[str, Any, str]] = [
    ("path", "", "path of a file"),
    ("path", "a\0b", "path of a file"),
    ("path", 5, "path of a file"),
    ("path", None, "path of a file"),
    ("path", b"x.jsonl", "path of a file"),
    ("level", "LOUD", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("level", 25, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("level", 20.0, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("level", None, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("level", True, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("max_queue_size", -1, "an integer of 0 or more"),
    ("max_queue_size", 1.0, "an integer of 0 or more"),
    ("max_queue_size", True, "an integer of 0 or more"),
    ("max_queue_size", "1", "an integer of 0 or more"),
    ("max_queue_bytes", -1, "an integer of 0 or more"),
    ("when_full", "drop_oldest", "'drop_newest' or 'block'"),
    ("when_full", None, "'drop_newest' or 'block'"),
    ("flush_interval_s", -0.1, "a number of seconds from 0 to "),
    ("flush_interval_s", float("nan"), "a number of seconds from 0 to "),
    ("flush_interval_s", float("inf"), "a number of seconds from 0 to "),
    ("flush_interval_s", "1", "a number of seconds from 0 to "),
    ("flush_interval_s", True, "a number of seconds from 0 to "),
    ("max_bytes", -1, "an integer of 0 or more"),
    ("backup_count", -1, "an integer of 0 or more"),
    ("durability", "sync", "'os', 'fsync' or 'fsync_errors'"),
    ("console", "yes", "'auto', True or False"),
    ("console", 1, "'auto', True or False"),
    ("shutdown_timeout_s", -1, "a number of seconds from 0 to "),
    ("shutdown_timeout_s", None, "a number of seconds from 0 to "),
    ("handle_sigterm", 1, "True or False"),
    ("max_record_bytes", 255, "0 (no limit) or an integer of 256 or more"),
    ("max_record_bytes", -1, "0 (no limit) or an integer of 256 or more"),
    ("file_mode", 0o1777, "permission bits from 0 to 0o777"),
    ("file_mode", -1, "permission bits from 0 to 0o777"),
    ("program", 3, "a name"),
    ("program", "\udcff.py", "a name in UTF-8"),
    ("path", "\ud800.jsonl", "path of a file"),
]


@pytest.mark.parametrize(("option", "value", "allowed"), WRONG)
def test_wrong_value_is_refused_naming_option_value_and_what_is_allowed(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build_config({option: value}, {})
    assert f"option {option}={value!r}" in str(refused.value)
    assert allowed in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AMSHA_LOG_LEVEL", "loud"),
        ("AMSHA_LOG_MAX_QUEUE_SIZE", "many"),
        ("AMSHA_LOG_MAX_QUEUE_SIZE", ""),
        ("AMSHA_LOG_MAX_QUEUE_SIZE", "1.5"),
        ("AMSHA_LOG_FLUSH_INTERVAL_S", "soon"),
        ("AMSHA_LOG_FLUSH_INTERVAL_S", "nan"),
        ("AMSHA_LOG_FLUSH_INTERVAL_S", "-1"),
        ("AMSHA_LOG_FILE_MODE", "999"),
        ("AMSHA_LOG_HANDLE_SIGTERM", "yes"),
        ("AMSHA_LOG_CONSOLE", "maybe"),
        ("AMSHA_LOG_WHEN_FULL", "DROP"),
        ("AMSHA_LOG_PATH", ""),
    ],
)
def test_wrong_environment_value_is_refused_naming_option_and_value(variable: str, text: str) -> None:
    option = variable.removeprefix("AMSHA_LOG_").lower()
    with pytest.raises(ConfigError, match=rf"option {option}=.*allowed is "):
        build_config({}, {variable: text})


@pytest.mark.parametrize(("option", "value"), NOT_YET.items())
def test_option_of_a_part_to_come_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"option {option}=.*not available"):
        build_config({option: value}, {})


@pytest.mark.parametrize(("option", "value"), NOT_YET.items())
def test_option_of_a_part_to_come_is_refused_from_the_environment(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"option {option}=.*not available"):
        build_config({}, {f"AMSHA_LOG_{option.upper()}": str(value)})


@pytest.mark.parametrize("option", NOT_YET)
def test_option_of_a_part_to_come_may_be_given_as_off(option: str) -> None:
    off = getattr(build_config({}, {}), option)
    assert getattr(build_config({option: off}, {}), option) == off


@pytest.mark.parametrize("option", ["redact", "payload_bytes", "max_age_s"])
def test_option_of_a_part_to_come_may_be_off_in_the_environment(option: str) -> None:
    assert not getattr(build_config({}, {f"AMSHA_LOG_{option.upper()}": "0"}), option)


@pytest.mark.parametrize(("text", "value"), [("none", None), ("None", None), ("0", 0), ("2", 2), ("0.5", 0.5)])
def test_gpu_interval_is_read_from_the_environment(text: str, value: float | None) -> None:
    assert build_config({}, {"AMSHA_LOG_GPU_INTERVAL_S": text}).gpu_interval_s == value


@pytest.mark.parametrize("option", ["sample_interval_s", "gpu_interval_s"])
@pytest.mark.parametrize("value", [-1, 0.005, float("nan"), True, "1", 1e12])
def test_interval_that_cannot_be_kept_is_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"option {option}=.*allowed is .*0\.01"):
        build_config({option: value}, {})


def test_config_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="option level"):
        build_config({"level": "no"}, {})


def test_log_config_itself_refuses_a_wrong_value() -> None:
    with pytest.raises(ConfigError, match="option backup_count=-1"):
        LogConfig(backup_count=-1)


def test_refused_configuration_opens_no_log_and_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        open_log(tmp_path / "new" / "app.jsonl", backup_count=-1)
    assert list(tmp_path.iterdir()) == []


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["warning", "WARNING", "Warning", "wArNiNg", 30, logging.WARNING])
def test_level_may_be_a_name_in_any_case_or_a_number(level: str | int) -> None:
    assert build_config({"level": level}, {}).level == "WARNING"


@pytest.mark.parametrize("name", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_level_numbers_are_those_of_the_standard_library(name: str) -> None:
    assert level_number(name) == logging.getLevelName(name)


# -- paths and zeros ---------------------------------------------------------------------------------------------------


def test_path_may_be_a_path_object(tmp_path: Path) -> None:
    assert build_config({"path": tmp_path / "x.jsonl"}, {}).path == os.fspath(tmp_path / "x.jsonl")


def test_path_may_be_anything_with_fspath() -> None:
    assert build_config({"path": PathObject("x.jsonl")}, {}).path == "x.jsonl"


def test_path_object_of_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"option path=b'x'"):
        build_config({"path": PathObject(b"x")}, {})


@pytest.mark.parametrize(
    "option",
    [
        "max_queue_size",
        "max_queue_bytes",
        "flush_interval_s",
        "max_bytes",
        "backup_count",
        "shutdown_timeout_s",
        "max_record_bytes",
    ],
)
def test_zero_means_off_or_unlimited(opened: Callable[..., Log], log_path: Path, option: str) -> None:
    log = opened(**{option: 0})
    assert all([log.info("record", number=number, text="x" * 2000) for number in range(300)])
    assert log.close().ok
    assert [line["number"] for line in user_lines(log_path)] == list(range(300))


def test_record_limit_of_zero_cuts_nothing(opened: Callable[..., Log], log_path: Path) -> None:
    log = opened(max_record_bytes=0)
    log.info("large", text="x" * 3_000_000)
    log.close()
    assert user_lines(log_path)[0]["text"] == "x" * 3_000_000


def test_large_counts_are_usable(opened: Callable[..., Log], log_path: Path) -> None:
    counts = ("max_queue_size", "max_queue_bytes", "max_bytes", "backup_count", "max_record_bytes")
    log = opened(**dict.fromkeys(counts, 10**12))
    log.info("x")
    assert log.close().ok
    assert len(user_lines(log_path)) == 1


@pytest.mark.parametrize("seconds", [1e10, 1e300, 10**400], ids=["1e10", "1e300", "integer beyond float"])
@pytest.mark.parametrize("option", ["shutdown_timeout_s", "flush_interval_s"])
def test_number_of_seconds_too_large_for_a_clock_is_refused_or_works(
    opened: Callable[..., Log], option: str, seconds: float
) -> None:
    try:
        log = opened(**{option: seconds})
    except ConfigError:
        return
    log.info("x")
    try:
        assert log.flush()
        assert log.close().ok
    finally:
        log.close(timeout_s=5)


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("AMSHA_LOG_LEVEL", "20", "level", "INFO"),
        ("AMSHA_LOG_LEVEL", " debug ", "level", "DEBUG"),
        ("AMSHA_LOG_CONSOLE", "0", "console", False),
        ("AMSHA_LOG_CONSOLE", "1", "console", True),
    ],
)
def test_variable_is_understood_as_people_write_it(variable: str, text: str, option: str, value: object) -> None:
    assert getattr(build_config({}, {variable: text}), option) == value
