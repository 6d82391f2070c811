"""The stand-in for the driver library answers the real `pynvml` as the driver would."""

import os
import signal
import threading

import nvml
import pynvml
import pytest


def first():
    return pynvml.nvmlDeviceGetHandleByIndex(0)


def test_values_are_as_set():
    with nvml.driver("devices=2;1.util=77") as driver:
        pynvml.nvmlInit()
        driver.set(0, used=5 << 30, temperature=70)
        assert pynvml.nvmlDeviceGetCount() == 2
        assert pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByIndex(1)).gpu == 77
        assert pynvml.nvmlDeviceGetMemoryInfo(first(), pynvml.nvmlMemory_v2).used == 5 << 30
        assert pynvml.nvmlDeviceGetTemperatureV(first(), pynvml.NVML_TEMPERATURE_GPU) == 70
        assert pynvml.nvmlDeviceGetPciInfo_v3(first()).busId == "00000000:01:00.0"


def test_rule_applies_to_the_calls_it_names():
    with nvml.driver("devices=2;nvmlDeviceGetPowerUsage@1:err=15,after=1,count=2") as driver:
        pynvml.nvmlInit()
        answers = []
        for index in (0, 1, 1, 1, 1, 0):
            try:
                pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByIndex(index))
                answers.append("ok")
            except pynvml.NVMLError_GpuIsLost:
                answers.append("lost")
        assert answers == ["ok", "ok", "lost", "lost", "ok", "ok"]
        assert driver.calls("nvmlDeviceGetPowerUsage", gpu=1) == 4


def test_processes_are_listed():
    with nvml.driver() as driver:
        pynvml.nvmlInit()
        driver.processes(0, {10: 1 << 30, 11: nvml.NOT_AVAILABLE}, {10: 60})
        assert [(p.pid, p.usedGpuMemory) for p in pynvml.nvmlDeviceGetComputeRunningProcesses(first())] == [
            (10, 1 << 30),
            (11, None),
        ]
        assert [(p.pid, p.smUtil) for p in pynvml.nvmlDeviceGetProcessUtilization(first(), 0)] == [(10, 60), (11, 0)]


def test_instances_are_devices():
    with nvml.driver("0.mig_mode=1;0.instances=2"):
        pynvml.nvmlInit()
        instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(first(), 1)
        assert pynvml.nvmlDeviceGetUUID(instance).startswith("MIG-")
        assert pynvml.nvmlDeviceIsMigDeviceHandle(instance).value == 1
        assert pynvml.nvmlDeviceGetUUID(
            pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
        ) == pynvml.nvmlDeviceGetUUID(first())
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetUtilizationRates(instance)
        with pytest.raises(pynvml.NVMLError_NotFound):
            pynvml.nvmlDeviceGetMigDeviceHandleByIndex(first(), 2)


def test_gpu_that_is_gone_moves_the_others():
    with nvml.driver("devices=3") as driver:
        pynvml.nvmlInit()
        third = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(2))
        driver.set(1, gone=1)
        assert pynvml.nvmlDeviceGetCount() == 2
        assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(1)) == third
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(third)) == 1


def test_name_that_is_not_text():
    with nvml.driver("0.bad_name=1"):
        pynvml.nvmlInit()
        with pytest.raises(UnicodeDecodeError):
            pynvml.nvmlDeviceGetName(first())


def test_driver_without_a_function():
    with nvml.driver(omit=nvml.OLD_DRIVER):
        pynvml.nvmlInit()
        with pytest.raises(pynvml.NVMLError_FunctionNotFound):
            pynvml.nvmlDeviceGetTemperatureV(first(), 0)
        with pytest.raises(pynvml.NVMLLibraryMismatchError):
            pynvml.nvmlDeviceGetComputeRunningProcesses(first())


def test_no_library():
    with nvml.no_library(), pytest.raises(pynvml.NVMLError_LibraryNotFound):
        pynvml.nvmlInit()


def test_shutdown_by_another():
    with nvml.driver() as driver:
        pynvml.nvmlInit()
        handle = first()
        driver.foreign_shutdown()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetPowerUsage(handle)


def test_call_hangs_until_cleared():
    with nvml.driver("nvmlDeviceGetPowerUsage:hang=1") as driver:
        pynvml.nvmlInit()
        answered = threading.Event()
        thread = threading.Thread(target=lambda: (pynvml.nvmlDeviceGetPowerUsage(first()), answered.set()))
        thread.start()
        assert not answered.wait(0.05)
        driver.clear()
        thread.join(10)
        assert answered.is_set()


@pytest.mark.parametrize(("rule", "end"), [("crash=1", signal.SIGSEGV), ("abort=1", signal.SIGABRT)])
def test_call_ends_the_process(rule: str, end: signal.Signals):
    program = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount(), flush=True); pynvml.nvmlDeviceGetHandleByIndex(0)"
    done = nvml.run(program, rules=f"devices=3;nvmlDeviceGetHandleByIndex_v2:{rule}")
    assert (done.stdout, done.returncode) == ("3\n", -end)


def test_controls_in_another_process():
    program = "import nvml, pynvml; d = nvml.loaded(); d.configure('devices=5'); pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount(), d.users)"
    assert nvml.run(program).stdout == "5 1\n"


def test_forked_child_has_to_initialise():
    with nvml.driver():
        pynvml.nvmlInit()
        handle = first()
        if (child := os.fork()) == 0:
            try:
                pynvml.nvmlDeviceGetPowerUsage(handle)
            except pynvml.NVMLError_Uninitialized:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
