"""A stand-in for NVIDIA's driver library, so that the real `pynvml` can be tested without a GPU.

It is C (`nvml_stub/nvml_stub.c`, whose head tells what can be asked of it), built with `cc` once for each session of
tests. Without a compiler the test that needs it is skipped.

In the test's own process::

    with nvml.driver("devices=2;nvmlDeviceGetPowerUsage@1:err=3") as driver:
        ...                                             # pynvml, and what uses it, meets the stand-in
        driver.lose(1)                                  # GPU 1 answers 15 until driver.give_back(1)
        driver.set(0, util=70, used=3 << 30)            # names in `values` of the C file
        driver.processes(0, {4711: 2 << 30})            # process to bytes
        driver.configure("nvmlDeviceGetMemoryInfo_v2:hang=1")   # until driver.clear()
        assert driver.calls("nvmlDeviceGetPowerUsage", gpu=0) == 1

In a process of its own, where it is found as the real one is, by its name (`LD_LIBRARY_PATH`); for crashes, forks and
whatever starts processes::

    done = nvml.run("import pynvml; pynvml.nvmlInit()", rules="nvmlInitWithFlags:crash=1")
    assert done.returncode == -signal.SIGSEGV

There `nvml.loaded()` gives the same controls, over the library that the process has loaded or is about to. What starts a
process in another way passes `env=nvml.environment(rules)`.

An old driver is one without some functions: `omit=["nvmlDeviceGetTemperatureV"]` with any of these.
"""

import atexit
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

__all__ = ["NOT_AVAILABLE", "OLD_DRIVER", "Driver", "driver", "environment", "folder", "loaded", "no_library", "run"]

SOURCE = Path(__file__).parent / "nvml_stub" / "nvml_stub.c"
NAME = "libnvidia-ml.so.1"
"""What `pynvml` asks the loader for."""

NOT_AVAILABLE = 2**64 - 1
"""Memory of a process that the driver does not tell."""

OLD_DRIVER = (
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3",
)
"""Functions that drivers of some years ago do not have and today's `pynvml` asks for."""

_BUILT: dict[frozenset[str], Path] = {}


def folder(omit: Iterable[str] = ()) -> Path:
    """The folder of a library without the functions `omit`. Skips the test if there is no compiler."""
    variant = frozenset(omit)
    if variant not in _BUILT:
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            pytest.skip("no C compiler here (cc, gcc or clang) to build the stand-in for NVIDIA's driver library with")
        path = Path(tempfile.mkdtemp(prefix="nvml-stub-"))
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        renamed = [f"-D{name}=omitted_{name}" for name in sorted(variant)]
        command = [compiler, "-O2", "-fPIC", "-shared", *renamed, "-o", str(path / NAME), str(SOURCE), "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        _BUILT[variant] = path
    return _BUILT[variant]


class Driver:
    """Tells a loaded library what to answer."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._library.nvmlstub_calls.restype = ctypes.c_long
        for name in ("clear", "reset", "foreign_shutdown", "called", "processes"):
            getattr(library, f"nvmlstub_{name}").restype = None

    def configure(self, rules: str) -> None:
        """More statements, in the language of NVMLSTUB."""
        assert self._library.nvmlstub_configure(rules.encode()) == 0, f"not understood: {rules}"

    def clear(self) -> None:
        """Forget all rules; what hangs goes on. Values and devices stay."""
        self._library.nvmlstub_clear()

    def reset(self) -> None:
        """As if it had just been loaded with one GPU and no rule."""
        self._library.nvmlstub_reset()

    def set(self, gpu: int, **values: int) -> None:
        """Values of a GPU."""
        self.configure(";".join(f"{gpu}.{name}={value}" for name, value in values.items()))

    def lose(self, gpu: int) -> None:
        """It has fallen off the bus."""
        self.set(gpu, lost=1)

    def give_back(self, gpu: int) -> None:
        """It answers again."""
        self.set(gpu, lost=0)

    def processes(
        self, gpu: int, memory: Mapping[int, int], percent: Mapping[int, int] | None = None, *, instance: int = -1
    ) -> None:
        """The processes on a GPU or one of its MIG instances: process to bytes, and to how busy it is."""
        n = len(memory)
        self._library.nvmlstub_processes(
            gpu,
            instance,
            n,
            (ctypes.c_uint * n)(*memory),
            (ctypes.c_ulonglong * n)(*memory.values()),
            (ctypes.c_uint * n)(*((percent or {}).get(pid, 0) for pid in memory)),
        )

    def foreign_shutdown(self) -> None:
        """Another library of the process has given the driver up, for all."""
        self._library.nvmlstub_foreign_shutdown()

    def calls(self, name: str | None = None, gpu: int = -1) -> int:
        """How often a function was called (None: all of them), for one GPU and its instances (-1: whatever for)."""
        answer: int = self._library.nvmlstub_calls(None if name is None else name.encode(), gpu)
        return answer

    def called(self) -> dict[str, int]:
        """Every function called so far, and how often."""
        text = ctypes.create_string_buffer(8192)
        self._library.nvmlstub_called(text, ctypes.c_size_t(len(text)))
        return {name: int(n) for name, n in (line.split("=") for line in text.value.decode().splitlines())}

    @property
    def users(self) -> int:
        """How often it was initialised and not yet given up."""
        answer: int = self._library.nvmlstub_users()
        return answer


@contextlib.contextmanager
def driver(rules: str = "", *, omit: Iterable[str] = ()) -> Iterator[Driver]:
    """Let `pynvml` of this process use a stand-in, without the functions `omit`; afterwards it is as before."""
    import pynvml

    library = ctypes.CDLL(str(folder(omit) / NAME))
    controls = Driver(library)
    controls.reset()
    controls.configure(rules)
    with _pynvml_over(pynvml, library):
        try:
            yield controls
        finally:
            controls.clear()  # a thread may hang in it


@contextlib.contextmanager
def no_library() -> Iterator[None]:
    """Let `pynvml` of this process find no driver library, even on a machine that has one."""
    import pynvml

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    found = pynvml.CDLL
    pynvml.CDLL = missing
    try:
        with _pynvml_over(pynvml, None):
            yield
    finally:
        pynvml.CDLL = found


@contextlib.contextmanager
def _pynvml_over(pynvml, library: ctypes.CDLL | None) -> Iterator[None]:
    """It keeps the library, pointers into it and a count in its module; all of them have to be of one library."""
    before = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount)
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml._nvmlLib_refcount = 0
    try:
        yield
    finally:
        pynvml.nvmlLib, pointers, pynvml._nvmlLib_refcount = before
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(pointers)


def environment(rules: str = "", *, omit: Iterable[str] = ()) -> dict[str, str]:
    """This process' environment for one that shall find the stand-in, and the modules of the tests."""
    here = str(Path(__file__).parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder(omit)),
        "NVMLSTUB": rules,
        "PYTHONPATH": os.pathsep.join(paths),
    }


def loaded() -> Driver:
    """The controls in a process that was started with `environment`."""
    return Driver(ctypes.CDLL(NAME))


def run(
    program: str, *arguments: object, rules: str = "", omit: Iterable[str] = (), timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter that finds the stand-in, warnings as errors. Any exit code is allowed."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=environment(rules, omit=omit),
    )
