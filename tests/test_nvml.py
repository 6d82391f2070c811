"""What is told of GPUs, over the real `pynvml` and a stand-in for the driver."""

import os
import sys
import threading

import nvml
import pytest
from support import run_python

from amsha_async_log.collectors._nvml_backoff import FIRST_S, LAST_S
from amsha_async_log.collectors.nvml import NvmlSource

UUID = "GPU-00000000-0000-0000-0000-{:012d}".format


def told(reading):
    return [(change.gpu_uuid, change.state_from, change.state_to) for change in reading.changes]


def only(reading):
    (sample,) = reading.devices
    return sample


def test_values_of_a_gpu():
    with nvml.driver("0.reasons=0x5;0.ecc=3;0.energy_mj=5000;0.power_mw=0") as driver:
        driver.processes(0, {os.getpid(): 3 << 30, 1: 1 << 30}, {os.getpid(): 30, 1: 60})
        source = NvmlSource()
        reading = source.read(0.0)
        source.close()
    sample = only(reading)
    assert (reading.state, reading.changes, sample.source_state, sample.unknown) == ("ok", [], "ok", None)
    assert (sample.gpu_index, sample.gpu_uuid, sample.gpu_name) == (0, UUID(0), "Stub GPU")
    assert (sample.gpu_pci_bus_id, sample.mig_parent_uuid) == ("00000000:01:00.0", None)
    assert (sample.gpu_percent, sample.gpu_memory_percent) == (40.0, 20.0)
    assert (sample.gpu_memory_mb, sample.gpu_memory_total_mb) == (10 * 1024.0, 80 * 1024.0)
    assert (sample.energy_joules, sample.power_watts, sample.temperature_celsius) == (5.0, 0.0, 55.0)
    assert (sample.sm_clock_mhz, sample.memory_clock_mhz) == (1410, 1593)
    assert (sample.throttle_reasons, sample.ecc_errors) == (["gpu_idle", "sw_power_cap"], 3)
    assert (sample.gpu_processes, sample.process_gpu_memory_mb, sample.process_gpu_percent) == (2, 3 * 1024.0, 30.0)


def test_reason_without_a_name_is_told_by_its_bit():
    with nvml.driver("0.reasons=0x1800"):
        assert only(NvmlSource().read(0.0)).throttle_reasons == ["bit_11", "bit_12"]


def test_importing_the_collector_does_not_import_pynvml():
    program = "import sys, amsha_async_log.collectors.nvml as m; m.NvmlSource(); print('pynvml' in sys.modules)"
    assert run_python(program).stdout == "False\n"


def test_library_is_found_by_its_name():
    program = "from amsha_async_log.collectors.nvml import NvmlSource as S; print([d.gpu_percent for d in S().read(0.0).devices])"
    assert nvml.run(program, rules="devices=2;1.util=7").stdout == "[40.0, 7.0]\n"


# Tiers


def test_slower_tiers_keep_their_values_and_tell_their_age():
    with nvml.driver("0.power_mw=1000;0.ecc=1") as driver:
        source = NvmlSource(medium_interval_s=5, slow_interval_s=15)
        first = only(source.read(100.0))
        driver.set(0, power_mw=2000, ecc=2, util=90)
        between, medium, slow = (only(source.read(at)) for at in (104.0, 105.0, 115.0))
    assert (first.medium_age_seconds, first.slow_age_seconds) == (None, None)
    assert (between.gpu_percent, between.power_watts, between.ecc_errors) == (90.0, 1.0, 1)
    assert (between.medium_age_seconds, between.slow_age_seconds) == (4.0, 4.0)
    assert (medium.power_watts, medium.ecc_errors, medium.medium_age_seconds) == (2.0, 1, None)
    assert (slow.ecc_errors, slow.slow_age_seconds) == (2, None)


def test_fast_only_leaves_the_slower_tiers_out():
    with nvml.driver() as driver:
        source = NvmlSource(fast_only=True)
        for at in range(100):
            sample = only(source.read(float(at)))
        called = driver.called()
    assert (sample.gpu_percent, sample.power_watts, sample.ecc_errors, sample.unknown) == (40.0, None, None, None)
    assert sample.medium_age_seconds is sample.slow_age_seconds is None
    assert "nvmlDeviceGetPowerUsage" not in called
    assert "nvmlDeviceGetComputeRunningProcesses_v3" not in called


def test_fast_look_costs_three_calls_for_each_device():
    with nvml.driver("devices=3") as driver:
        source = NvmlSource()
        source.read(0.0)
        before = [driver.calls(gpu=gpu) for gpu in (0, 1, 2, -1)]
        source.read(1.0)
        assert [driver.calls(gpu=gpu) - n for gpu, n in zip((0, 1, 2, -1), before, strict=True)] == [3, 3, 3, 9]


def test_calls_of_slower_tiers_are_made_on_their_tiers_only():
    import pynvml

    newest = "nvmlDeviceGetTemperatureV"
    temperature = newest if hasattr(pynvml, newest) else "nvmlDeviceGetTemperature"  # not in each version of pynvml
    with nvml.driver() as driver:
        source = NvmlSource(medium_interval_s=5, slow_interval_s=15)
        source.read(0.0)
        before = driver.called()
        for at in range(1, 61):
            source.read(float(at))
        per_call = {name: n - before[name] for name, n in driver.called().items() if n != before[name]}
    assert per_call == {
        "nvmlDeviceGetUtilizationRates": 60,
        "nvmlDeviceGetMemoryInfo_v2": 60,
        "nvmlDeviceGetTotalEnergyConsumption": 60,
        "nvmlDeviceGetPowerUsage": 12,
        temperature: 12,
        "nvmlDeviceGetClockInfo": 24,
        "nvmlDeviceGetCurrentClocksEventReasons": 12,
        "nvmlDeviceGetTotalEccErrors": 4,
        "nvmlDeviceGetComputeRunningProcesses_v3": 4,
        "nvmlDeviceGetProcessUtilization": 4,
        "nvmlDeviceGetMigMode": 4,
        "nvmlDeviceGetCount_v2": 4,
    }


@pytest.mark.parametrize(
    "rules", ["devices=2", "devices=2;*@1:err=3", "devices=2;1.lost=1", "devices=2;1.mig_mode=1;1.instances=1"]
)
def test_no_look_but_those_of_slower_tiers_costs_more_than_eight_calls(rules):
    with nvml.driver(rules) as driver:
        source = NvmlSource(medium_interval_s=5, slow_interval_s=15)
        for at in range(60):
            before = driver.calls(gpu=1)
            source.read(float(at))
            if at % 15:
                assert driver.calls(gpu=1) - before <= 8


def test_what_is_refused_is_not_asked_again_for_minutes():
    with nvml.driver("nvmlDeviceGetPowerUsage:err=3") as driver:
        source = NvmlSource()
        for at in range(0, int(LAST_S), 5):
            assert only(source.read(float(at))).unknown == {"power_watts": "not_supported"}
        assert driver.calls("nvmlDeviceGetPowerUsage") == 1
        driver.clear()
        assert only(source.read(LAST_S)).power_watts == 250.0


def test_no_setting_is_changed_and_no_throughput_measured():
    with nvml.driver() as driver:
        source = NvmlSource()
        for at in range(0, 1000, 5):
            source.read(float(at))
        source.close()
        assert not [name for name in driver.called() if "Set" in name or "Throughput" in name]


def test_slow_device_tells_its_cost():
    clock = iter(range(100))
    with nvml.driver():
        sample = only(NvmlSource(clock=lambda: float(next(clock))).read(0.0))
    assert sample.cost_seconds == 1.0


def test_reading_that_takes_long_belongs_to_its_device():
    with nvml.driver("devices=2;nvmlDeviceGetUtilizationRates@1:delay_us=30000"):
        reading = NvmlSource().read(0.0)
    quick, slow = reading.devices
    assert slow.cost_seconds >= 0.03
    assert reading.cost_seconds >= quick.cost_seconds + slow.cost_seconds


# Old drivers and odd answers


def test_old_driver_is_asked_in_the_old_way():
    with nvml.driver(omit=nvml.OLD_DRIVER):
        sample = only(NvmlSource().read(0.0))
    assert (sample.temperature_celsius, sample.throttle_reasons) == (55.0, [])
    assert sample.gpu_memory_mb == 10 * 1024.0 + 512.0  # with what the driver keeps for itself


def test_old_driver_lists_processes_where_pynvml_still_knows_how():
    import pynvml

    with nvml.driver(omit=nvml.OLD_DRIVER) as driver:
        driver.processes(0, {os.getpid(): 1 << 30})
        sample = only(NvmlSource().read(0.0))
    if hasattr(pynvml, "nvmlDeviceGetComputeRunningProcesses_v2"):
        assert (sample.gpu_processes, sample.process_gpu_memory_mb) == (1, 1024.0)
    else:
        assert sample.unknown == dict.fromkeys(["gpu_processes", "process_gpu_memory_mb"], "function_missing")


def test_way_that_works_is_remembered():
    new, old = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
    with nvml.driver(f"{new}:err=26") as driver:
        source = NvmlSource()
        for at in range(0, 100, 5):
            assert only(source.read(float(at))).throttle_reasons == []
        assert (driver.calls(new), driver.calls(old)) == (1, 20)


def test_function_that_the_driver_lacks_altogether():
    with nvml.driver(omit=["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPciInfo_v3"]):
        sample = only(NvmlSource().read(0.0))
    assert sample.unknown == {"energy_joules": "function_missing", "gpu_pci_bus_id": "function_missing"}
    assert sample.source_state == "ok"


def test_function_that_pynvml_lacks(monkeypatch):
    import pynvml

    monkeypatch.delattr(pynvml, "nvmlDeviceGetTemperatureV", raising=False)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetProcessUtilization")
    with nvml.driver():
        sample = only(NvmlSource().read(0.0))
    assert (sample.temperature_celsius, sample.unknown) == (55.0, {"process_gpu_percent": "function_missing"})


def test_name_that_is_not_text():
    with nvml.driver("devices=2;0.bad_name=1"):
        first, second = NvmlSource().read(0.0).devices
    assert (first.gpu_name, first.unknown, first.gpu_percent) == (None, {"gpu_name": "undecodable"}, 40.0)
    assert second.gpu_name == "Stub GPU"


def test_id_that_is_not_text():
    with nvml.driver("devices=2;0.bad_uuid=1"):
        source = NvmlSource()
        first = source.read(0.0).devices[0]
        again = source.read(16.0).devices[0]
    assert (first.gpu_uuid, first.unknown, first.gpu_percent) == (None, {"gpu_uuid": "undecodable"}, 40.0)
    assert (again.gpu_uuid, again.gpu_index) == (None, 0)


def test_energy_that_goes_backwards_is_told_as_it_is():
    with nvml.driver("0.energy_mj=9000;0.power_mw=0") as driver:
        source = NvmlSource()
        before = only(source.read(0.0))
        driver.set(0, energy_mj=2000)
        after = only(source.read(1.0))
    assert (before.energy_joules, after.energy_joules, after.unknown) == (9.0, 2.0, None)


def test_all_calls_that_fail_are_a_state_of_the_device():
    with nvml.driver(
        "devices=2;nvmlDeviceGetUtilizationRates@1:err=999;nvmlDeviceGetMemoryInfo_v2@1:err=999;nvmlDeviceGetTotalEnergyConsumption@1:err=3"
    ):
        reading = NvmlSource().read(0.0)
    assert [sample.source_state for sample in reading.devices] == ["ok", "error_999"]
    assert told(reading) == [(UUID(1), None, "error_999")]


def test_device_that_can_tell_nothing_is_in_order():
    with nvml.driver(
        "nvmlDeviceGetUtilizationRates:err=3;nvmlDeviceGetMemoryInfo_v2:err=3;nvmlDeviceGetMemoryInfo:err=3;nvmlDeviceGetTotalEnergyConsumption:err=3"
    ):
        sample = only(NvmlSource().read(0.0))
    assert (sample.source_state, sample.power_watts) == ("ok", 250.0)
    assert sample.unknown["gpu_memory_mb"] == sample.unknown["gpu_memory_total_mb"] == "not_supported"


# The driver comes and goes


def test_no_library_is_told_once():
    with nvml.no_library():
        source = NvmlSource()
        readings = [source.read(float(at)) for at in range(100)]
        source.close()
    assert [reading.state for reading in readings] == ["library_absent"] * 100
    (change,) = [change for reading in readings for change in reading.changes]
    assert (change.source, change.state_from, change.state_to, change.gpu_index) == (
        "gpu",
        None,
        "library_absent",
        None,
    )
    assert "libnvidia-ml.so.1" in change.detail


def test_no_pynvml_is_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    reading = NvmlSource().read(0.0)
    assert reading.state == "library_absent"
    assert reading.changes[0].detail.startswith("import pynvml: ModuleNotFoundError")


def test_driver_is_looked_for_less_and_less_often():
    with nvml.driver("nvmlInitWithFlags:err=9") as driver:
        source = NvmlSource()
        tried = []
        for at in range(1500):
            before = driver.calls("nvmlInitWithFlags")
            assert source.read(float(at)).state == "driver_not_loaded"
            if driver.calls("nvmlInitWithFlags") != before:
                tried.append(at)
    assert tried == [0, 5, 15, 35, 75, 155, 315, 615, 915, 1215]


def test_driver_that_comes_late_brings_its_devices_without_a_word_of_them():
    with nvml.driver("devices=2;nvmlInitWithFlags:err=9") as driver:
        source = NvmlSource()
        assert told(source.read(0.0)) == [(None, None, "driver_not_loaded")]
        driver.clear()
        reading = source.read(FIRST_S)
    assert told(reading) == [(None, "driver_not_loaded", "ok")]
    assert len(reading.devices) == 2


def test_driver_shut_down_by_another_is_initialised_again_at_the_next_look():
    with nvml.driver("devices=2") as driver:
        source = NvmlSource()
        source.read(0.0)
        driver.foreign_shutdown()
        lost, back = source.read(1.0), source.read(2.0)
        assert driver.users == 1
    assert told(lost) == [(None, "ok", "uninitialized")]
    assert [sample.source_state for sample in lost.devices] == ["uninitialized"] * 2
    assert {sample.gpu_percent for sample in lost.devices} == {None}
    assert {sample.unknown["gpu_percent"] for sample in lost.devices} == {"uninitialized"}
    assert told(back) == [(None, "uninitialized", "ok")]
    assert [sample.gpu_percent for sample in back.devices] == [40.0, 41.0]


def test_driver_shut_down_over_and_over_is_told_of_less_and_less_often():
    with nvml.driver() as driver:
        source = NvmlSource()
        changes = []
        for at in range(300):
            driver.foreign_shutdown()
            changes += told(source.read(float(at)))
    assert 0 < len(changes) <= 20


def test_driver_is_given_up_once():
    with nvml.driver() as driver:
        source = NvmlSource()
        source.read(0.0)
        source.close()
        source.close()
        assert (driver.users, driver.calls("nvmlShutdown")) == (0, 1)


def test_driver_that_was_never_there_is_not_given_up():
    with nvml.driver("nvmlInitWithFlags:err=9") as driver:
        source = NvmlSource()
        source.read(0.0)
        source.close()
        assert driver.calls("nvmlShutdown") == 0


def test_user_who_came_first_keeps_the_driver():
    import pynvml

    with nvml.driver() as driver:
        pynvml.nvmlInit()
        source = NvmlSource()
        source.read(0.0)
        source.close()
        assert driver.users == 1


# Devices come and go


def test_lost_device_does_not_disturb_the_others_and_comes_back():
    with nvml.driver("devices=2") as driver:
        source = NvmlSource()
        source.read(0.0)
        driver.lose(1)
        lost = source.read(1.0)
        driver.give_back(1)
        waiting, back = source.read(1.0 + FIRST_S - 0.5), source.read(1.0 + FIRST_S)
    assert told(lost) == [(UUID(1), "ok", "lost")]
    assert (lost.state, lost.devices[0].source_state, lost.devices[0].gpu_percent) == ("ok", "ok", 40.0)
    sample = lost.devices[1]
    assert (sample.gpu_uuid, sample.gpu_name, sample.gpu_memory_total_mb) == (UUID(1), "Stub GPU", 80 * 1024.0)
    assert (sample.gpu_percent, sample.power_watts, sample.unknown["power_watts"]) == (None, None, "lost")
    assert told(waiting) == []
    assert told(back) == [(UUID(1), "lost", "ok")]
    assert (back.devices[1].power_watts, back.devices[1].medium_age_seconds) == (250.0, None)


def test_lost_device_is_asked_nothing_until_its_time():
    with nvml.driver("devices=2") as driver:
        source = NvmlSource()
        source.read(0.0)
        driver.lose(1)
        source.read(1.0)
        before = driver.calls(gpu=1)
        for tenth in range(11, 59):
            source.read(tenth / 10)
        assert driver.calls(gpu=1) == before


def test_lost_device_is_found_under_another_number():
    with nvml.driver("devices=3") as driver:
        source = NvmlSource()
        source.read(0.0)
        driver.lose(2)
        source.read(1.0)
        driver.set(0, gone=1)
        driver.give_back(2)
        for at in range(2, 30):
            reading = source.read(float(at))
    assert [(s.gpu_index, s.gpu_uuid, s.gpu_percent) for s in reading.devices] == [
        (0, UUID(1), 41.0),
        (1, UUID(2), 42.0),
    ]


def test_device_that_is_lost_from_the_start_is_listed():
    with nvml.driver("devices=2;1.lost=1") as driver:
        source = NvmlSource()
        first = source.read(0.0)
        driver.give_back(1)
        back = source.read(FIRST_S)
    assert [(s.gpu_index, s.gpu_uuid, s.source_state) for s in first.devices] == [(0, UUID(0), "ok"), (1, None, "lost")]
    assert [(c.gpu_index, c.state_from, c.state_to) for c in first.changes] == [(1, None, "lost")]
    assert told(back) == [(UUID(1), "lost", "ok")]
    assert back.devices[1].gpu_uuid == UUID(1)


def test_device_that_appears_is_told_at_the_slow_tier():
    with nvml.driver("devices=1") as driver:
        source = NvmlSource(slow_interval_s=15)
        source.read(0.0)
        driver.configure("devices=2")
        before, after = source.read(14.0), source.read(15.0)
    assert (told(before), len(before.devices)) == ([], 1)
    assert (told(after), len(after.devices)) == ([(UUID(1), None, "ok")], 2)


def test_device_that_is_gone_is_told_and_left_out():
    with nvml.driver("devices=3") as driver:
        source = NvmlSource()
        source.read(0.0)
        driver.set(1, gone=1)
        changes = []
        for at in range(1, 5):
            reading = source.read(float(at))
            changes += told(reading)
    assert changes[-1] == (UUID(1), "invalid", "gone")
    assert [(s.gpu_index, s.gpu_uuid) for s in reading.devices] == [(0, UUID(0)), (1, UUID(2))]


def test_no_devices_at_all():
    with nvml.driver("devices=0"):
        reading = NvmlSource().read(0.0)
    assert (reading.state, reading.devices, reading.changes) == ("ok", [], [])


# MIG


def test_instances_are_devices_of_their_own():
    with nvml.driver("devices=2;1.mig_mode=1;1.instances=2"):
        reading = NvmlSource().read(0.0)
    assert reading.changes == []
    whole, divided, first, second = reading.devices
    assert whole.unknown is None
    assert divided.unknown == {"gpu_percent": "mig", "gpu_memory_percent": "mig", "process_gpu_percent": "mig"}
    assert (divided.power_watts, divided.mig_parent_uuid) == (250.0, None)
    assert [s.gpu_uuid[:4] for s in (first, second)] == ["MIG-", "MIG-"]
    assert [s.mig_parent_uuid for s in (first, second)] == [UUID(1)] * 2
    assert [(s.gpu_memory_mb, s.gpu_memory_total_mb) for s in (first, second)] == [(1024.0, 10240.0), (2048.0, 10240.0)]
    assert {first.unknown[field] for field in ("gpu_percent", "energy_joules", "power_watts", "ecc_errors")} == {"mig"}
    assert (first.gpu_processes, first.source_state) == (0, "ok")


def test_process_on_an_instance():
    with nvml.driver("0.mig_mode=1;0.instances=1") as driver:
        driver.processes(0, {os.getpid(): 1 << 30}, instance=0)
        _, instance = NvmlSource().read(0.0).devices
    assert (instance.gpu_processes, instance.process_gpu_memory_mb) == (1, 1024.0)


def test_instances_that_are_made_and_removed():
    with nvml.driver() as driver:
        source = NvmlSource(slow_interval_s=15)
        source.read(0.0)
        driver.set(0, mig_mode=1, instances=1)
        made = source.read(15.0)
        driver.set(0, mig_mode=0)
        removed = source.read(30.0)
    (uuid, before, after) = told(made)[0]
    assert (uuid[:4], before, after) == ("MIG-", None, "ok")
    assert made.devices[0].unknown["gpu_percent"] == "mig"
    assert told(removed)[-1] == (uuid, "ok", "gone")
    assert (only(removed).gpu_percent, only(removed).unknown) == (40.0, None)


# Processes


def test_pids_of_other_processes_leave_this_one_with_nothing():
    with nvml.driver() as driver:
        driver.processes(0, {4_000_000: 1 << 30}, {4_000_000: 50})
        source = NvmlSource()
        source.read(0.0)
        own = source._inventory._own
        own.is_namespaced = False  # as on a machine itself, wherever the tests run
        sample = only(source.read(16.0))
    assert (sample.process_gpu_memory_mb, sample.process_gpu_percent) == (0.0, 0.0)


def test_pids_that_mean_nothing_here_leave_it_unknown():
    with nvml.driver() as driver:
        driver.processes(0, {4_000_000: 1 << 30}, {4_000_000: 50})
        source = NvmlSource()
        source.read(0.0)
        source._inventory._own.is_namespaced = True  # as in a container, wherever the tests run
        sample = only(source.read(16.0))
    assert (sample.gpu_processes, sample.process_gpu_memory_mb, sample.process_gpu_percent) == (1, None, None)
    assert sample.unknown == {"process_gpu_memory_mb": "pid_ns_unmatched", "process_gpu_percent": "pid_ns_unmatched"}


def test_memory_that_the_driver_does_not_tell_is_unknown():
    with nvml.driver() as driver:
        driver.processes(0, {os.getpid(): nvml.NOT_AVAILABLE})
        sample = only(NvmlSource().read(0.0))
    assert (sample.gpu_processes, sample.process_gpu_memory_mb) == (1, None)
    assert sample.unknown == {"process_gpu_memory_mb": "not_supported"}


def test_share_beyond_all_measure_is_not_believed():
    with nvml.driver() as driver:
        driver.processes(0, {os.getpid(): 1}, {os.getpid(): 4_000_000_000})
        sample = only(NvmlSource().read(0.0))
    assert sample.process_gpu_percent == 0.0


def test_another_process_can_be_told_of():
    with nvml.driver() as driver:
        driver.processes(0, {os.getppid(): 2 << 30, os.getpid(): 1 << 30})
        sample = only(NvmlSource(pid=os.getppid()).read(0.0))
    assert sample.process_gpu_memory_mb == 2048.0


# Forks and threads


def test_forked_child_initialises_for_itself_though_a_thread_held_the_lock_of_pynvml():
    import pynvml

    with nvml.driver("0.util=70") as driver:
        NvmlSource().read(0.0)
        pynvml.libLoadLock.acquire()
        try:
            child = os.fork()
            if child == 0:
                try:
                    sample = only(NvmlSource().read(0.0))
                    os._exit(0 if (sample.gpu_percent, driver.users) == (70.0, 1) else 1)
                finally:
                    os._exit(2)
        finally:
            pynvml.libLoadLock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_reading_that_hangs_goes_on_when_the_driver_answers():
    with nvml.driver("nvmlDeviceGetMemoryInfo_v2:hang=1") as driver:
        source = NvmlSource()
        readings = []
        thread = threading.Thread(target=lambda: readings.append(source.read(0.0)))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        driver.clear()
        thread.join(10)
    assert only(readings[0]).gpu_memory_mb == 10 * 1024.0
