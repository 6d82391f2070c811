"""What the package offers: its names, what importing it costs, and its version."""

import ast
import importlib
import importlib.resources
import json
import pkgutil
from importlib.metadata import version
from types import ModuleType

import pytest
from support import run_python

import amsha_async_log

MODULES = sorted(module.name for module in pkgutil.walk_packages(amsha_async_log.__path__, "amsha_async_log."))
PUBLIC = {
    "AmshaLogError",
    "CloseReport",
    "ConfigError",
    "Execution",
    "Joined",
    "Log",
    "LogConfig",
    "Logger",
    "MissingExtraError",
    "ReadError",
    "Stats",
    "Step",
    "Summary",
    "current_execution",
    "events",
    "get_log",
    "log_execution",
    "open_log",
    "reader",
}


def defined_names(module: ModuleType) -> set[str]:
    """The functions and classes without underscore that a module's own source defines at its top level."""
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def test_package_offers_what_it_should() -> None:
    assert set(amsha_async_log.__all__) == PUBLIC
    assert list(amsha_async_log.__all__) == sorted(amsha_async_log.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_offered_is_there(name: str) -> None:
    assert getattr(amsha_async_log, name) is not None
    assert name in dir(amsha_async_log)


def test_star_import_gives_exactly_the_names_offered() -> None:
    namespace: dict[str, object] = {}
    exec("from amsha_async_log import *", namespace)
    assert set(namespace) - {"__builtins__"} == PUBLIC


def test_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'opne_log'"):
        amsha_async_log.opne_log


@pytest.mark.parametrize("name", MODULES)
def test_all_of_a_module_names_only_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    assert len(set(module.__all__)) == len(module.__all__)
    assert {each for each in module.__all__ if not hasattr(module, each)} == set()


@pytest.mark.parametrize("name", ["amsha_async_log.events", "amsha_async_log.exceptions", "amsha_async_log.records"])
def test_all_of_a_public_module_names_everything_it_defines(name: str) -> None:
    module = importlib.import_module(name)
    assert defined_names(module) <= set(module.__all__)


@pytest.mark.parametrize("name", ["amsha_async_log.execution", "amsha_async_log.exceptions"])
def test_package_offers_everything_of_its_public_modules(name: str) -> None:
    assert set(importlib.import_module(name).__all__) <= PUBLIC


@pytest.mark.parametrize("name", MODULES)
def test_what_other_modules_import_is_offered_or_private_to_the_package(name: str) -> None:
    module = importlib.import_module(name)
    undocumented = [each for each in module.__all__ if each.startswith("_")]
    assert undocumented == []


@pytest.mark.parametrize("name", ["asyncio", "anyio", "uvloop", "aiofiles", "psutil", "typer", "rich", "aiohttp"])
def test_importing_the_package_does_not_load(name: str) -> None:
    loaded = run_python("import sys, json, amsha_async_log; print(json.dumps(sorted(sys.modules)))").stdout
    assert name not in json.loads(loaded)


def test_getting_a_log_before_one_is_open_does_not_load_an_event_loop() -> None:
    program = (
        "import sys; from amsha_async_log import get_log; get_log().info('x', a=1); print('asyncio' in sys.modules)"
    )
    assert run_python(program).stdout == "False\n"


def test_open_log_loads_what_it_needs_on_first_use() -> None:
    assert run_python("from amsha_async_log import open_log; print(open_log.__name__)").stdout == "open_log\n"


def test_version_is_that_of_the_distribution() -> None:
    assert amsha_async_log.__version__ == version("amsha_async_log")


def test_package_is_marked_as_typed() -> None:
    assert importlib.resources.files("amsha_async_log").joinpath("py.typed").is_file()


@pytest.mark.parametrize("error", ["ConfigError", "MissingExtraError", "ReadError"])
def test_every_error_is_an_amsha_log_error(error: str) -> None:
    assert issubclass(getattr(amsha_async_log, error), amsha_async_log.AmshaLogError)
