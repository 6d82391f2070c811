"""CPython's own tests of `logging`, as the running interpreter has them, against AsyncLogHandler and StdlibLogger."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

PROGRAM = Path(__file__).with_name("cpython_logging.py")

CLASSES = (
    "BasicConfigTest",
    "BasicFilterTest",
    "BuiltinLevelsTest",
    "ChildLoggerTest",
    "ConfigDictTest",
    "ConfigFileTest",
    "CustomLevelsAndFiltersTest",
    "ExceptionTest",
    "LastResortTest",
    "LogRecordFactoryTest",
    "LogRecordTest",
    "LoggerAdapterTest",
    "LoggerTest",
    "ManagerTest",
    "MemoryHandlerTest",
    "MemoryTest",
    "ModuleLevelMiscTest",
    "QueueHandlerTest",
    "QueueListenerTest",
    "ShutdownTest",
    "WarningsTest",
)
"""Those that log by a StreamHandler or that are about loggers. The others are about other handlers, the stream of a
StreamHandler or its lock, formatters by themselves, and time zones."""

NOT_APPLICABLE: Mapping[str, str] = MappingProxyType(
    {
        "ConfigDictTest.test_config4_ok": "looks for the text that a formatter makes of an exception; lines have its parts",
        "ConfigDictTest.test_config4a_ok": "as test_config4_ok",
        "ConfigFileTest.test_config4_ok": "as test_config4_ok",
        "ExceptionTest.test_formatting": "looks at the exc_text that a StreamHandler before it leaves on the record",
        "LogRecordTest.test_dict_arg": "looks at the message that a StreamHandler before it leaves on the record",
        "LoggerTest.test_caching": "looks at the private cache of isEnabledFor; ours does not remember",
    }
)
"""Cases that must fail, and why. Ours never changes a record."""


@dataclass(frozen=True)
class Outcome:
    """What the program found."""

    mode: str
    cases: Mapping[str, str]
    """Each case, and what was wrong with it."""
    direct: int
    """Calls that were logged without a LogRecord."""


@pytest.fixture(scope="module", params=["records", "native"])
def outcome(request: pytest.FixtureRequest) -> Outcome:
    """Run all cases, once with and once without LogRecords."""
    try:
        found = importlib.util.find_spec("test.test_logging")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip("this interpreter was installed without its `test` package, hence without CPython's own tests")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), request.param, *CLASSES],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return Outcome(request.param, told["cases"], told["direct"])


def test_every_case_passes_that_applies(outcome: Outcome) -> None:
    failed = {name: wrong for name, wrong in outcome.cases.items() if wrong and name not in NOT_APPLICABLE}
    assert not failed, "\n".join(f"{name}: {wrong}" for name, wrong in failed.items())


def test_every_case_that_does_not_apply_exists_and_fails(outcome: Outcome) -> None:
    assert [name for name in NOT_APPLICABLE if not outcome.cases.get(name)] == []


def test_every_class_has_cases(outcome: Outcome) -> None:
    assert {name.partition(".")[0] for name in outcome.cases} == set(CLASSES)


def test_only_one_mode_logs_without_records(outcome: Outcome) -> None:
    assert (outcome.direct > 50) == (outcome.mode == "native")
