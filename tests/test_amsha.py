"""The drop-in for Amsha's logger module: its names, files, levels, rotation, and that it keeps to itself."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import run_python, user_fields, user_lines

from amsha_async_log import amsha, get_log, open_log, reader
from amsha_async_log.exceptions import ConfigError, MissingExtraError
from amsha_async_log.stdlib import StdlibLogger

DEFAULTS = {
    "enabled": False,
    "max_size_mb": 50,
    "rotation_interval_hours": 24,
    "archive_retention_days": 30,
    "backup_count": 5,
    "log_data_dir": "logs/data",
    "archive_dir": "logs/archive",
    "timestamp_format": "%Y-%m-%d",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`.Nibandha/Amsha` of a folder of the test's own; no Amsha logger there before, none left behind."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / ".Nibandha" / "Amsha"
    amsha.reset_logger()
    for name in [name for name in logging.Logger.manager.loggerDict if name.split(".")[0] == "Amsha"]:
        del logging.Logger.manager.loggerDict[name]


def lines_of(path: Path) -> list[dict[str, Any]]:
    amsha.reset_logger()
    return user_lines(path)


@pytest.fixture
def lines(home: Path) -> Callable[[], list[dict[str, Any]]]:
    """Closes the log and gives the lines of `Amsha.log`."""
    return lambda: lines_of(home / "logs" / "Amsha.log")


Lines = Callable[[], list[dict[str, Any]]]


def configure(home: Path, **options: Any) -> None:
    folder = home.parent / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rotation_config.json").write_text(json.dumps({"enabled": True, **options}))


def archives(home: Path, folder: str = "logs/archive") -> list[Path]:
    return sorted((home / folder).glob("*"))


# -- loggers -----------------------------------------------------------------------------------------------------------


def test_record_goes_to_the_file_with_its_fields(lines: Lines) -> None:
    amsha.get_logger("crew_forge").info("Crew execution initiated", extra={"execution_id": "e1", "mode": "async"})
    (line,) = lines()
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "Amsha.crew_forge", "Crew execution initiated")
    assert user_fields(line) == {"execution_id": "e1", "mode": "async"}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (None, "Amsha"),
        ("", "Amsha"),
        ("Amsha", "Amsha"),
        ("a", "Amsha.a"),
        ("Amsha.a.b", "Amsha.a.b"),
        ("Amshax", "Amsha.Amshax"),
    ],
)
def test_name_is_below_amsha(module: str | None, name: str) -> None:
    assert amsha.get_logger(module).name == name


def test_logger_is_a_standard_one_and_the_same_for_the_same_name() -> None:
    logger = amsha.get_logger("forge")
    assert isinstance(logger, logging.Logger)
    assert logger is amsha.get_logger("forge") is logging.getLogger("Amsha.forge")


def test_logger_is_of_the_cheaper_class() -> None:
    assert isinstance(amsha.get_logger("forge"), StdlibLogger)
    assert type(logging.getLogger("some.other.library")) is logging.Logger


def test_logger_that_was_made_before_works_all_the_same(lines: Lines) -> None:
    before = logging.getLogger("Amsha.early")
    assert amsha.get_logger("early") is before
    before.info("hello")
    assert [line["message"] for line in lines()] == ["hello"]


def test_error_has_its_exception_structured(lines: Lines) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        amsha.get_logger().error("Crew execution failed", extra={"attempt": 1, "max_retries": 3}, exc_info=True)
    (line,) = lines()
    assert (line["error_type"], line["error_message"], line["attempt"]) == ("ValueError", "why", 1)
    assert line["stacktrace"]["frames"]


def test_child_of_a_standard_logger_is_recorded(lines: Lines) -> None:
    amsha.get_logger()
    logging.getLogger("Amsha.deep.down").info("hello")
    assert [line["logger"] for line in lines()] == ["Amsha.deep.down"]


def test_nothing_reaches_the_root_logger(caplog: pytest.LogCaptureFixture) -> None:
    amsha.get_logger("forge").critical("not for root")
    assert caplog.records == []


def test_other_libraries_do_not_reach_the_file(lines: Lines) -> None:
    amsha.get_logger().info("mine")
    logging.getLogger("crewai").error("theirs")
    assert [line["message"] for line in lines()] == ["mine"]


def test_log_of_the_program_and_that_of_amsha_are_apart(lines: Lines, tmp_path: Path) -> None:
    amsha.get_logger().info("amsha's")
    get_log().info("nobody's")
    with open_log(tmp_path / "own.jsonl", console=False):
        get_log().info("the program's")
        amsha.get_logger().info("amsha's too")
    assert [line["message"] for line in user_lines(tmp_path / "own.jsonl")] == ["the program's"]
    assert [line["message"] for line in lines()] == ["amsha's", "amsha's too"]


def test_several_loggers_share_one_file(home: Path) -> None:
    for name in ("a", "b", "c"):
        amsha.get_logger(name).info("hello")
    amsha.reset_logger()
    assert len(list((home / "logs").iterdir())) == 1
    assert len(reader.verify(home / "logs").writers) == 1


def test_first_call_decides_the_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = amsha.get_logger()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    logger.info("hello")
    amsha.get_logger("b").info("hello")
    assert len(lines_of(home / "logs" / "Amsha.log")) == 2


def test_lines_are_on_the_console_too(tmp_path: Path) -> None:
    program = "from amsha_async_log.amsha import get_logger; get_logger('forge').info('hello', extra={'n': 1})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Amsha.forge  hello n=1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_program_that_never_closes_the_log_loses_nothing(home: Path, tmp_path: Path) -> None:
    program = (
        "from amsha_async_log.amsha import get_logger\nfor n in range(500): get_logger().info('n', extra={'n': n})"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert [line["n"] for line in user_lines(home / "logs" / "Amsha.log")] == list(range(500))


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "expected"), [(None, 20), ("DEBUG", 10), ("warning", 30), ("40", 40), (" info ", 20), ("", 20)]
)
def test_level_comes_from_the_environment(variable: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable is not None:
        monkeypatch.setenv("AMSHA_LOG_LEVEL", variable)
    assert amsha.get_logger("a").getEffectiveLevel() == expected


def test_level_there_is_not_in_the_environment_is_said_and_info_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSHA_LOG_LEVEL", "LOUD")
    assert amsha.get_logger().level == logging.INFO
    (line,) = capsys.readouterr().err.splitlines()
    assert "AMSHA_LOG_LEVEL" in line
    assert "LOUD" in line


@pytest.mark.parametrize("level", ["debug", "DEBUG", logging.DEBUG])
def test_level_given_holds_for_that_logger_alone(lines: Lines, level: Any) -> None:
    amsha.get_logger("loud", level).debug("kept")
    amsha.get_logger("quiet").debug("not kept")
    assert [line["message"] for line in lines()] == ["kept"]


def test_level_given_for_amsha_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSHA_LOG_LEVEL", "ERROR")
    assert amsha.get_logger(log_level="DEBUG").level == logging.DEBUG


def test_level_there_is_not_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        amsha.get_logger(log_level="loud")


# -- where the file cannot be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["file", "folder"])
def test_place_that_cannot_be_written_leaves_the_console_and_says_so(
    home: Path, make: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if make == "file":
        home.parent.write_text("in the way")
    else:
        (home / "logs" / "Amsha.log").mkdir(parents=True)
    amsha.get_logger("forge").info("hello")
    amsha.get_logger("forge").info("again")
    said, *shown = capsys.readouterr().err.splitlines()
    assert "cannot write" in said
    assert said.endswith("Amsha logs to the console only")
    assert [line.split("  ")[-1] for line in shown] == ["hello", "again"]
    if make == "file":
        home.parent.unlink()


def test_place_that_cannot_be_written_is_found_out_on_a_loop_too(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.parent.write_text("in the way")

    async def main() -> None:
        amsha.get_logger().info("hello")

    loop = asyncio.new_event_loop()  # not watched for blocking calls: a first call looks for its folder
    loop.run_until_complete(main())
    loop.close()
    assert len(capsys.readouterr().err.splitlines()) == 2
    home.parent.unlink()


UNREADABLE = """
import os
from amsha_async_log.amsha import get_logger
os.setgid(65534); os.setuid(65534)
get_logger().info("hello")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_folder_that_may_not_be_searched_leaves_the_console(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o755)
    (tmp_path / "closed" / ".Nibandha").mkdir(mode=0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE], cwd=tmp_path / "closed", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said, shown = done.stderr.splitlines()
    assert "logs to the console only" in said
    assert shown.endswith("hello")


READ_ONLY = """
import os
from amsha_async_log.amsha import get_logger
os.setgid(65534); os.setuid(65534)
get_logger().info("hello")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_read_only_folder_leaves_the_console(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY], cwd=tmp_path / "closed", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said, shown = done.stderr.splitlines()
    assert "no permission to write" in said
    assert shown.endswith("hello")


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_without_a_file_rotation_has_its_defaults_and_is_off() -> None:
    config = amsha.get_rotation_config()
    assert dict(config) == DEFAULTS
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert (amsha.should_rotate(), amsha.rotate_logs(), amsha.cleanup_old_archives()) == (False, False, 0)


def test_without_a_file_nothing_is_ever_rotated(home: Path) -> None:
    logger = amsha.get_logger()
    assert (amsha.should_rotate(), amsha.rotate_logs()) == (False, False)
    logger.info("hello")
    assert (amsha.should_rotate(), amsha.rotate_logs()) == (False, False)
    assert [path.name for path in (home / "logs").iterdir()] == ["Amsha.log"]


def test_enabled_the_active_file_is_named_after_the_date(home: Path) -> None:
    configure(home)
    amsha.get_logger().info("hello")
    today = time.strftime("%Y-%m-%d")
    assert [line["message"] for line in lines_of(home / "logs" / "data" / f"{today}.log")] == ["hello"]
    assert not (home / "logs" / "Amsha.log").exists()


def test_restart_on_the_same_day_goes_on_with_the_file(home: Path) -> None:
    configure(home)
    for number in range(3):
        amsha.get_logger().info("run %d", number)
        amsha.reset_logger()
    (path,) = (home / "logs" / "data").iterdir()
    assert [line["message"] for line in user_lines(path)] == ["run 0", "run 1", "run 2"]
    assert reader.verify(path).ok


def test_folders_and_format_can_be_chosen(home: Path) -> None:
    configure(home, log_data_dir="active", archive_dir="old/ones", timestamp_format="run-%Y")
    amsha.get_logger().info("hello")
    assert (home / "active" / f"run-{time.strftime('%Y')}.log").exists()
    assert amsha.rotate_logs()
    assert len(archives(home, "old/ones")) == 1


def test_rotating_moves_everything_logged_to_the_archive(home: Path) -> None:
    configure(home)
    for number in range(2000):
        amsha.get_logger().info("n", extra={"n": number})
    assert amsha.rotate_logs()
    amsha.get_logger().info("after")
    amsha.reset_logger()
    (archive,) = archives(home)
    (active,) = (home / "logs" / "data").iterdir()
    assert archive.suffix == active.suffix == ".log"
    assert [line["n"] for line in user_lines(archive)] == list(range(2000))
    assert [line["message"] for line in user_lines(active)] == ["after"]
    assert reader.verify(home).ok


def test_rotating_twice_in_a_row_moves_once(home: Path) -> None:
    configure(home)
    amsha.get_logger().info("hello")
    assert amsha.rotate_logs()
    assert not amsha.rotate_logs()
    assert len(archives(home)) == 1


def test_file_that_is_full_is_archived_by_itself(home: Path) -> None:
    configure(home, max_size_mb=0.01)
    for number in range(500):
        amsha.get_logger().info("n", extra={"n": number})
    amsha.reset_logger()
    assert len(archives(home)) > 3
    assert all(path.stat().st_size <= 0.01 * 2**20 for path in archives(home))
    assert sorted(line["n"] for path in home.rglob("*.log") for line in user_lines(path)) == list(range(500))
    verdict = reader.verify(home)
    assert verdict.ok, verdict.findings


def test_file_that_is_old_is_due_and_archived_with_the_next_record(home: Path) -> None:
    configure(home, rotation_interval_hours=1e-9)
    amsha.get_logger().info("first")
    assert amsha.should_rotate()
    amsha.get_logger().info("second")
    amsha.reset_logger()
    (archive,) = archives(home)
    assert [line["message"] for line in user_lines(archive)] == ["first"]


def test_file_is_not_due_while_it_is_small_and_young(home: Path) -> None:
    configure(home)
    amsha.get_logger().info("hello")
    assert not amsha.should_rotate()


def test_file_that_is_larger_than_allowed_is_due(home: Path) -> None:
    configure(home, max_size_mb=0.0001)
    amsha.get_logger().info("one record does not fit")
    assert amsha.should_rotate()
    assert amsha.rotate_logs()
    assert not amsha.should_rotate()


def test_age_goes_on_over_a_restart(home: Path) -> None:
    configure(home, rotation_interval_hours=1)
    amsha.get_logger().info("hello")
    amsha.reset_logger()
    (path,) = (home / "logs" / "data").iterdir()
    header, _, rest = path.read_bytes().partition(b"\n")
    record = json.loads(header)
    record["timestamp"] -= 7200
    path.write_bytes(json.dumps(record, separators=(",", ":")).encode() + b"\n" + rest)
    amsha.get_logger()
    assert amsha.should_rotate()


def test_archives_are_deleted_by_age_alone_and_only_when_asked(home: Path) -> None:
    configure(home, archive_retention_days=1, max_size_mb=0.005, backup_count=1)
    for _ in range(200):
        amsha.get_logger().info("hello")
    amsha.rotate_logs()
    made = archives(home)
    assert len(made) > 3
    assert amsha.cleanup_old_archives() == 0
    long_ago = time.time() - 2 * 86_400
    for path in made[:2]:
        os.utime(path, (long_ago, long_ago))
    assert amsha.cleanup_old_archives() == 2
    assert archives(home) == made[2:]


def test_fraction_of_a_day_is_an_age(home: Path) -> None:
    configure(home, archive_retention_days=1e-9)
    amsha.get_logger().info("hello")
    amsha.rotate_logs()
    assert amsha.cleanup_old_archives() == 1


def test_zero_days_keep_all(home: Path) -> None:
    configure(home, archive_retention_days=0)
    amsha.get_logger().info("hello")
    amsha.rotate_logs()
    os.utime(archives(home)[0], (0, 0))
    assert amsha.cleanup_old_archives() == 0


def test_files_that_no_log_wrote_are_left(home: Path) -> None:
    configure(home, archive_retention_days=1)
    folder = home / "logs" / "archive"
    folder.mkdir(parents=True)
    for name in ("notes.log", "other.txt"):
        (folder / name).write_text("mine")
        os.utime(folder / name, (0, 0))
    amsha.get_logger()
    assert amsha.cleanup_old_archives() == 0
    assert len(archives(home)) == 2


def test_archive_that_cannot_be_made_keeps_the_file_beside(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(home)
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "archive").write_text("in the way")
    amsha.get_logger().info("hello")
    assert amsha.rotate_logs()
    amsha.get_logger().info("after")
    amsha.reset_logger()
    assert len(list((home / "logs" / "data").iterdir())) == 2
    assert "cannot move or delete old segments" in capsys.readouterr().err
    assert reader.verify(home).ok


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_yaml_is_read(home: Path, suffix: str) -> None:
    pytest.importorskip("yaml", reason="needs the extra yaml")
    (home.parent / "config").mkdir(parents=True)
    (home.parent / "config" / f"rotation_config.{suffix}").write_text("enabled: true\nmax_size_mb: 0.5\nother: 1\n")
    assert dict(amsha.get_rotation_config()) == {**DEFAULTS, "enabled": True, "max_size_mb": 0.5}


def test_empty_file_is_the_defaults(home: Path) -> None:
    pytest.importorskip("yaml", reason="needs the extra yaml")
    (home.parent / "config").mkdir(parents=True)
    (home.parent / "config" / "rotation_config.yaml").write_text("# nothing\n")
    assert dict(amsha.get_rotation_config()) == DEFAULTS


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("enabled", "yes"),
        ("max_size_mb", -1),
        ("max_size_mb", "50"),
        ("max_size_mb", True),
        ("max_size_mb", 1e12),
        ("rotation_interval_hours", None),
        ("archive_retention_days", []),
        ("backup_count", 1.5),
        ("log_data_dir", ""),
        ("archive_dir", 5),
        ("timestamp_format", "%Y/%m"),
        ("timestamp_format", ""),
        ("timestamp_format", 5),
    ],
)
def test_wrong_option_is_said_and_rotation_stays_off(
    home: Path, option: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(home, **{option: value})
    with pytest.raises(ConfigError, match=f"option {option}="):
        amsha.get_rotation_config()
    amsha.get_logger("a", "ERROR").info("works all the same")
    (said,) = capsys.readouterr().err.splitlines()
    assert f"option {option}=" in said
    assert "allowed is" in said
    assert not amsha.get_rotation_config().enabled


@pytest.mark.parametrize(("name", "text"), [("json", "{"), ("json", "[1]"), ("json", "\xff"), ("yaml", "a: [")])
def test_file_that_cannot_be_read_is_said_in_one_line(
    home: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("yaml", reason="needs the extra yaml")
    (home.parent / "config").mkdir(parents=True)
    (home.parent / "config" / f"rotation_config.{name}").write_bytes(text.encode("latin-1"))
    amsha.get_logger()
    (said,) = capsys.readouterr().err.splitlines()
    assert "rotation_config" in said
    assert not amsha.get_rotation_config().enabled


def test_yaml_without_its_extra_names_the_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.parent / "config").mkdir(parents=True)
    (home.parent / "config" / "rotation_config.yaml").write_text("enabled: true\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"amsha_async_log\[yaml\]"):
        amsha.get_rotation_config()


# -- starting anew -----------------------------------------------------------------------------------------------------


def test_reset_writes_everything_first(home: Path) -> None:
    for number in range(1000):
        amsha.get_logger().info("n", extra={"n": number})
    amsha.reset_logger()
    assert len(user_lines(home / "logs" / "Amsha.log")) == 1000


def test_reset_reads_configuration_and_folder_anew(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    amsha.get_logger()
    amsha.reset_logger()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    configure(tmp_path / "b" / ".Nibandha" / "Amsha")
    amsha.get_logger()
    assert amsha.get_rotation_config().enabled
    assert (tmp_path / "b" / ".Nibandha" / "Amsha" / "logs" / "data").exists()


def test_logger_from_before_a_reset_is_silent_then_writes_again(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = amsha.get_logger("forge")
    amsha.reset_logger()
    logger.critical("nowhere")
    assert capsys.readouterr().err == ""
    amsha.get_logger()
    logger.info("again")
    assert [line["message"] for line in lines()] == ["again"]


def test_reset_without_a_log_does_nothing() -> None:
    amsha.reset_logger()
    assert "Amsha" not in logging.Logger.manager.loggerDict


# -- operations --------------------------------------------------------------------------------------------------------


def test_operation_that_succeeds_has_the_lines_of_the_original(lines: Lines) -> None:
    logger = amsha.get_logger("builder", "DEBUG")

    @amsha.log_execution(logger, "build_crew")
    def build(name: str) -> str:
        return name.upper()

    assert build("x") == "X"
    started, completed = lines()
    assert (started["level"], started["message"]) == ("DEBUG", "build_crew started")
    assert user_fields(started) == {"operation": "build_crew", "function": "build"}
    assert (completed["level"], completed["message"], completed["status"]) == (
        "INFO",
        "build_crew completed",
        "success",
    )
    assert completed["duration_seconds"] == round(completed["duration_seconds"], 4)


def test_operation_that_fails_has_type_and_stack(lines: Lines) -> None:
    @amsha.log_execution(amsha.get_logger(), "build_crew")
    def build() -> None:
        raise KeyError("missing")

    with pytest.raises(KeyError):
        build()
    (failed,) = lines()
    assert (failed["level"], failed["message"], failed["status"], failed["error_type"]) == (
        "ERROR",
        "build_crew failed",
        "failed",
        "KeyError",
    )
    assert failed["stacktrace"]["frames"][-1]["function"].endswith("build")


def test_coroutine_is_an_operation_too(lines: Lines) -> None:
    @amsha.log_execution(amsha.get_logger(), "op")
    async def work() -> int:
        await asyncio.sleep(0)
        return 5

    assert asyncio.run(work()) == 5
    assert [line["message"] for line in lines()] == ["op completed"]


def test_operation_works_with_any_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "plain"):
        amsha.log_execution(logging.getLogger("plain"), "100% op")(lambda: None)()
    assert [record.getMessage() for record in caplog.records] == ["100% op started", "100% op completed"]


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_execution_metrics_have_the_names_of_the_original(lines: Lines) -> None:
    metrics = {
        "general": {
            "total_tokens": 2500,
            "prompt_tokens": 1000,
            "completion_tokens": 1500,
            "cpu_usage_end_percent": 12.5,
            "memory_usage_change_mb": 45.2,
        },
        "gpu": {"gpu_0": {"utilization": 80}},
    }
    amsha.MetricsLogger(amsha.get_logger()).log_execution_metrics("research", "e1", metrics, 5.43219)
    (line,) = lines()
    assert line["message"] == "Execution metrics captured"
    assert user_fields(line) == {
        "crew_name": "research",
        "execution_id": "e1",
        "duration_seconds": 5.4322,
        "total_tokens": 2500,
        "prompt_tokens": 1000,
        "completion_tokens": 1500,
        "cpu_usage_percent": 12.5,
        "memory_change_mb": 45.2,
        "gpu_metrics": {"gpu_0": {"utilization": 80}},
    }


def test_llm_configuration_has_the_names_of_the_original(lines: Lines) -> None:
    config = {"model": "azure/gpt-4o", "temperature": 0.2, "top_p": 0.9, "max_completion_tokens": 4096}
    amsha.MetricsLogger(amsha.get_logger()).log_llm_config("gpt-4o", config)
    (line,) = lines()
    assert line["message"] == "LLM configuration"
    assert user_fields(line) == {
        "model_name": "gpt-4o",
        "model": "azure/gpt-4o",
        "temperature": 0.2,
        "top_p": 0.9,
        "max_tokens": 4096,
        "stream": False,
    }


def test_file_operation_has_the_names_of_the_original(lines: Lines) -> None:
    amsha.MetricsLogger(amsha.get_logger()).log_file_operation("save", "out.json", "success", file_size_bytes=10)
    (line,) = lines()
    assert line["message"] == "File operation: save"
    assert user_fields(line) == {
        "operation": "save",
        "file_path": "out.json",
        "status": "success",
        "file_size_bytes": 10,
    }


@pytest.mark.parametrize("metrics", [None, {}, {"general": None, "gpu": None}, {"general": 5}, "x"])
def test_metrics_that_are_not_there_raise_nothing(lines: Lines, metrics: Any) -> None:
    amsha.MetricsLogger(amsha.get_logger()).log_execution_metrics("c", "e", metrics, None)  # type: ignore[arg-type]
    (line,) = lines()
    assert (line["total_tokens"], line["gpu_metrics"]) == (0, {})


def test_field_that_the_standard_library_keeps_for_itself_is_renamed(lines: Lines) -> None:
    amsha.MetricsLogger(amsha.get_logger()).log_file_operation("save", "x", "success", name="n", module="m")
    (line,) = lines()
    assert (line["name_"], line["module_"]) == ("n", "m")


# -- a whole crew ------------------------------------------------------------------------------------------------------


def test_importing_it_opens_nothing(tmp_path: Path) -> None:
    run_python(
        "import os, sys; os.chdir(sys.argv[1]); import amsha_async_log.amsha, threading;"
        "assert threading.active_count() == 1; assert os.listdir('.') == []",
        tmp_path,
    )


def test_forked_child_logs_into_a_file_beside(home: Path) -> None:
    amsha.get_logger().info("parent")
    child = os.fork()
    if child == 0:
        try:
            amsha.get_logger("child").info("child")
            amsha.reset_logger()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    amsha.reset_logger()
    assert len(list((home / "logs").iterdir())) == 2
    assert sorted(line["message"] for path in (home / "logs").iterdir() for line in user_lines(path)) == [
        "child",
        "parent",
    ]


def test_files_of_earlier_days_go_to_the_archive_at_the_next_start(home: Path) -> None:
    configure(home, archive_retention_days=30)
    data = home / "logs" / "data"
    for day in ("2020-01-01", "2020-01-02"):
        amsha.get_logger().info(day)
        amsha.reset_logger()
        (today,) = data.glob("2*.log")
        today.rename(data / f"{day}.log")
        os.utime(data / f"{day}.log", (1e9, 1e9))
        (data / "notes.log").write_text("mine")
    amsha.get_logger().info("today")
    assert sorted(path.name.split(".")[0] for path in archives(home)) == ["2020-01-01", "2020-01-02"]
    assert {path.name for path in data.iterdir()} == {"notes.log", f"{time.strftime('%Y-%m-%d')}.log"}
    assert amsha.cleanup_old_archives() == 2


def test_file_that_another_process_writes_is_not_archived(home: Path) -> None:
    configure(home)
    (home / "logs" / "data").mkdir(parents=True)
    with open_log(home / "logs" / "data" / "other.log", console=False) as other:
        other.info("mine")
        other.flush()
        amsha.get_logger()
        assert archives(home) == []


def test_working_directory_that_is_gone_leaves_the_console(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    amsha.get_logger().info("hello")
    said, shown = capsys.readouterr().err.splitlines()
    assert "cannot write" in said
    assert shown.endswith("hello")
    monkeypatch.chdir(tmp_path)


def test_configuration_nested_too_deep_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home.parent / "config").mkdir(parents=True)
    (home.parent / "config" / "rotation_config.json").write_text("[" * 100_000)
    amsha.get_logger()
    (said,) = capsys.readouterr().err.splitlines()
    assert "rotation_config.json" in said
