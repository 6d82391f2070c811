"""Parts of the collector of GPUs: codes, waits, and which process is meant."""

import os
import subprocess
import sys

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amsha_async_log.collectors import _nvml_process
from amsha_async_log.collectors._nvml_backoff import FIRST_S, LAST_S, Backoff
from amsha_async_log.collectors._nvml_codes import DEVICE_WIDE, code_of, detail_of
from amsha_async_log.collectors._nvml_process import OwnProcess


def error(number):
    """As `pynvml` makes them."""
    return pynvml.NVMLError(number)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (pynvml.NVML_SUCCESS, "ok"),
        (pynvml.NVML_ERROR_UNINITIALIZED, "uninitialized"),
        (pynvml.NVML_ERROR_INVALID_ARGUMENT, "invalid"),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "not_supported"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "no_permission"),
        (pynvml.NVML_ERROR_NOT_FOUND, "error_6"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "driver_not_loaded"),
        (pynvml.NVML_ERROR_TIMEOUT, "timeout"),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "library_absent"),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "function_missing"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "lost"),
        (pynvml.NVML_ERROR_RESET_REQUIRED, "reset_required"),
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, "os_error"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "driver_mismatch"),
        (25, "function_missing"),
        (26, "deprecated"),
        (27, "not_ready"),
        (28, "gpu_not_found"),
        (pynvml.NVML_ERROR_UNKNOWN, "error_999"),
        (777, "error_777"),
    ],
)
def test_number_of_the_driver_becomes_a_code(number, code):
    assert code_of(error(number)) == code


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (pynvml.NVMLLibraryMismatchError("..."), "function_missing"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "undecodable"),
        (OSError(5, "no"), "os_error"),
        (ModuleNotFoundError("pynvml"), "library_absent"),
        (MemoryError(), "error_MemoryError"),
    ],
)
def test_what_is_not_of_the_driver_becomes_a_code(raised, code):
    assert code_of(raised) == code


@given(st.integers(-(2**31), 2**31 - 1))
def test_any_number_becomes_a_code_and_a_text(number):
    assert code_of(error(number))
    assert detail_of(error(number), "nvmlInit").startswith("nvmlInit: NVMLError")


def test_number_that_nobody_knows_stops_no_device():
    assert code_of(error(777)) not in DEVICE_WIDE


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1000)), min_size=1, max_size=60))
def test_wait_is_never_longer_than_the_longest(steps):
    backoff, now = Backoff(), 0
    for works, seconds in steps:
        now += seconds
        if works:
            backoff.worked(now)
        else:
            backoff.failed(now)
            assert FIRST_S <= backoff.due - now <= LAST_S


@given(st.integers(1, 50))
def test_what_comes_and_goes_is_tried_less_and_less_often(period):
    backoff, now, waits = Backoff(), 0, []
    for _ in range(8):
        backoff.failed(now)
        waits.append(backoff.due - now)
        backoff.worked(backoff.due)
        now = backoff.due + period
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_what_has_worked_for_long_is_tried_soon():
    backoff = Backoff()
    for now in (0.0, 5.0, 15.0):
        backoff.failed(now)
    backoff.worked(35.0)
    backoff.failed(35.0 + LAST_S)
    assert backoff.due == 35.0 + LAST_S + FIRST_S


def test_first_try_may_be_at_once_but_not_the_second():
    backoff = Backoff()
    backoff.failed(100.0, at_once=True)
    assert backoff.due == 100.0
    backoff.failed(101.0, at_once=True)
    assert backoff.due == 111.0


def test_numbers_of_a_process_include_its_own():
    assert OwnProcess(os.getpid()).pids[-1] == os.getpid()


def test_namespace_of_a_process_is_that_of_its_parent():
    program = "import os; from amsha_async_log.collectors._nvml_process import OwnProcess as P; print(P(os.getpid()).is_namespaced)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(OwnProcess(os.getpid()).is_namespaced)


def test_process_that_has_ended_keeps_its_number():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    own = OwnProcess(child.pid)
    assert (own.pids, own.is_namespaced) == ([child.pid], False)


class Entry:
    def __init__(self, pid):
        self.pid = pid


@given(st.lists(st.integers(1, 50)), st.lists(st.integers(1, 50), min_size=1, unique=True), st.booleans())
def test_entries_of_a_process_are_those_of_its_outermost_number_that_is_listed(listed, numbers, is_namespaced):
    own = OwnProcess(os.getpid())
    own.pids, own.is_namespaced = numbers, is_namespaced
    answer = own.of([Entry(pid) for pid in listed])
    matching = [number for number in numbers if number in listed]
    if matching:
        assert [entry.pid for entry in answer] == [matching[0]] * listed.count(matching[0])
    else:
        assert answer == (None if listed and is_namespaced else [])


def test_namespace_of_the_machine_is_known_by_the_kernels_number():
    assert _nvml_process._INITIAL_PID_NAMESPACE == 4026531836
