"""Every error of the driver, in every call that is made, at the start, in mid-run, at the end, and coming and going."""

from collections import Counter

import nvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log.collectors._nvml_backoff import LAST_S
from amsha_async_log.collectors.nvml import NvmlSource

CODES = [1, 2, 3, 4, 6, 9, 10, 12, 13, 15, 16, 17, 18, 25, 26, 27, 28, 999, 777]
DRIVER_CALLS = ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlShutdown"]
DEVICE_CALLS = [
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetMigMode",
]
DIVIDED_CALLS = ["nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"]
CALLS = [
    *((call, "") for call in DRIVER_CALLS),
    *((call, "@1") for call in DEVICE_CALLS),
    *((call, "@2") for call in (*DIVIDED_CALLS, "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo_v2")),
]
EVERY = [pytest.param(call, at, code, id=f"{call}{at}-{code}") for call, at in CALLS for code in CODES]
every_fault = pytest.mark.parametrize(("call", "at", "code"), EVERY)

RULES = "devices=3;2.mig_mode=1;2.instances=2"
"""The third GPU is divided into two instances."""
VOLATILE = ("energy_joules", "cost_seconds", "medium_age_seconds", "slow_age_seconds")
SLOW_S = 15.0


class Watched:
    """A source, read at a clock of the test's own, with all that it has told."""

    def __init__(self) -> None:
        self.source = NvmlSource(slow_interval_s=SLOW_S)
        self.now = 0.0
        self.changes: list[tuple[str | None, str | None, str | None]] = []

    def read(self, step: float = 1.0):
        self.now += step
        reading = self.source.read(self.now)
        self.changes += [(c.gpu_uuid or _number(c.gpu_index), c.state_from, c.state_to) for c in reading.changes]
        return reading

    def changes_of(self) -> Counter[str | None]:
        return Counter(who for who, _, _ in self.changes)

    def recover(self):
        """Reads for as long as the longest wait, and until the slow tier has been read after that."""
        end = self.now + LAST_S + 2 * SLOW_S
        while self.now < end:
            reading = self.read(SLOW_S)
        return reading


def _number(index):
    return None if index is None else f"#{index}"


def still(sample):
    """The values that the stand-in does not change by itself."""
    values = {field: getattr(sample, field) for field in sample.__struct_fields__ if field not in VOLATILE}
    return values | {"has_energy": sample.energy_joules is not None}


def by_uuid(reading):
    return {sample.gpu_uuid: still(sample) for sample in reading.devices}


def healthy():
    with nvml.driver(RULES):
        source = NvmlSource()
        values = by_uuid(source.read(0.0))
        source.close()
    assert len(values) == 5
    return values


@pytest.fixture(scope="module")
def expected():
    return healthy()


def assert_others_are_untouched(reading, expected, at):
    """`at`: the GPU with the fault, with its instances; none: all of them."""
    if not at:
        return
    own = f"{int(at[1:]):012d}"
    others = {uuid: values for uuid, values in by_uuid(reading).items() if uuid and not uuid.endswith(own)}
    assert others == {uuid: values for uuid, values in expected.items() if not uuid.endswith(own)}


def assert_told_once(changes):
    """Of each device, and the driver, each change begins where the one before ended, and leads elsewhere."""
    last: dict[str | None, str | None] = {}
    for who, before, after in changes:
        assert before != after
        assert before == last.get(who, before)
        last[who] = None if after == "gone" else after


def break_it(driver, call, at, code):
    if call == "nvmlDeviceGetHandleByUUID":  # asked for only once a device has failed
        driver.lose(1)
    driver.configure(f"{call}{at}:err={code}")


def repair(driver):
    driver.clear()
    driver.give_back(1)


@every_fault
def test_fault_from_the_start(call, at, code, expected):
    with nvml.driver(RULES) as driver:
        break_it(driver, call, at, code)
        watched = Watched()
        for _ in range(20):
            reading = watched.read()
            assert_others_are_untouched(reading, expected, at)
        assert max(watched.changes_of().values(), default=0) <= 1
        repair(driver)
        assert by_uuid(watched.recover()) == expected
        assert_told_once(watched.changes)
        watched.source.close()


@every_fault
def test_fault_in_mid_run(call, at, code, expected):
    with nvml.driver(RULES) as driver:
        watched = Watched()
        watched.read()
        assert watched.changes == []
        break_it(driver, call, at, code)
        for _ in range(20):
            reading = watched.read()
            assert_others_are_untouched(reading, expected, at)
        assert max(watched.changes_of().values(), default=0) <= 1
        repair(driver)
        reading = watched.recover()
        assert (reading.state, by_uuid(reading)) == ("ok", expected)
        assert_told_once(watched.changes)
        assert max(watched.changes_of().values(), default=0) <= 2
        watched.source.close()


@every_fault
def test_fault_at_the_end(call, at, code):
    with nvml.driver(RULES) as driver:
        watched = Watched()
        watched.read()
        break_it(driver, call, at, code)
        watched.source.close()
        asked = driver.calls("nvmlShutdown")
        watched.source.close()
        assert (asked, driver.calls("nvmlShutdown")) == (1, 1)


@every_fault
def test_fault_that_comes_and_goes(call, at, code, expected):
    with nvml.driver(RULES) as driver:
        watched = Watched()
        watched.read()
        for second in range(60):
            repair(driver)
            if second % 2:
                break_it(driver, call, at, code)
            assert_others_are_untouched(watched.read(), expected, at)
        assert max(watched.changes_of().values(), default=0) <= 8
        repair(driver)
        assert by_uuid(watched.recover()) == expected
        assert_told_once(watched.changes)
        watched.source.close()


GPUS = st.integers(0, 2)
NAMES = st.sampled_from(["*", *DEVICE_CALLS, *DIVIDED_CALLS])
STEPS = st.one_of(
    st.tuples(st.just("rule"), NAMES, GPUS, st.sampled_from(CODES)),
    st.tuples(st.just("driver"), st.sampled_from(DRIVER_CALLS), st.sampled_from(CODES)),
    st.tuples(
        st.just("set"), GPUS, st.sampled_from(["lost", "gone", "mig_mode", "bad_name", "bad_uuid"]), st.integers(0, 1)
    ),
    st.tuples(st.just("shutdown")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 5.0, 15.0, 60.0])),
)


def take(driver, step):
    match step:
        case "rule", call, gpu, code:
            driver.configure(f"{call}@{gpu}:err={code}")
        case "driver", call, code:
            driver.configure(f"{call}:err={code}")
        case "set", gpu, name, value:
            driver.set(gpu, **{name: value})
        case "shutdown":
            driver.foreign_shutdown()
        case "clear":
            driver.clear()


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_whatever_happens_ends_well(steps, expected):
    with nvml.driver(RULES) as driver:
        watched = Watched()
        for step in steps:
            take(driver, step)
            watched.read(step[1] if step[0] == "wait" else 1.0)
        driver.clear()
        for gpu in range(3):
            driver.set(gpu, lost=0, gone=0, mig_mode=int(gpu == 2), bad_name=0, bad_uuid=0)
        reading = watched.recover()
        assert (reading.state, by_uuid(reading)) == ("ok", expected)
        assert_told_once([change for change in watched.changes if not (change[0] or "").startswith("#")])
        watched.source.close()
