"""Each change of a state is told once, whoever looks."""

from hypothesis import given
from hypothesis import strategies as st

from amsha_async_log import events
from amsha_async_log.collectors._base import GpuReading
from amsha_async_log.collectors._gpu_states import GpuStates, failure

STATES = st.sampled_from(["ok", "lost", "hung"])
DEVICES = st.dictionaries(st.sampled_from(["GPU-a", "GPU-b"]), STATES)


def reading(state: str = "ok", devices: dict[str, str] | None = None, changes=()) -> GpuReading:
    samples = [events.SampleGpu(gpu_uuid=uuid, source_state=each) for uuid, each in (devices or {}).items()]
    return GpuReading(state=state, devices=samples, changes=list(changes))


def told(settled: GpuReading) -> list[tuple[str | None, str | None, str | None]]:
    return [(change.gpu_uuid, change.state_from, change.state_to) for change in settled.changes]


def change(before: str | None, after: str, uuid: str | None = None) -> events.SampleSourceChanged:
    return events.SampleSourceChanged(source="gpu", gpu_uuid=uuid, state_from=before, state_to=after)


def test_first_look_tells_what_the_source_tells():
    assert told(GpuStates().settle(reading("lost", {"GPU-a": "ok"}, [change(None, "lost")]))) == [(None, None, "lost")]


def test_first_look_at_what_is_well_tells_nothing():
    assert told(GpuStates().settle(reading("ok", {"GPU-a": "ok"}))) == []


def test_change_of_the_source_is_told_as_it_is():
    states = GpuStates()
    states.settle(reading())
    changed = change("ok", "lost", "GPU-a")
    changed.detail = "fell off the bus"
    settled = states.settle(reading("ok", {"GPU-a": "lost"}, [changed]))
    assert settled.changes == [changed]


def test_same_failure_is_told_once():
    states = GpuStates()
    assert [len(states.settle(failure("hung", str(n))).changes) for n in range(3)] == [1, 0, 0]


def test_source_that_starts_over_does_not_tell_again():
    states = GpuStates()
    states.settle(reading("ok", {"GPU-a": "lost"}, [change("ok", "lost", "GPU-a")]))
    states.settle(failure("helper_died", "SIGSEGV"))
    again = states.settle(reading("ok", {"GPU-a": "lost"}, [change(None, "lost", "GPU-a")]))
    assert told(again) == [(None, "helper_died", "ok")]


def test_device_that_recovered_while_nobody_looked_is_told():
    states = GpuStates()
    states.settle(reading("ok", {"GPU-a": "lost"}, [change("ok", "lost", "GPU-a")]))
    assert told(states.settle(reading("ok", {"GPU-a": "ok"}))) == [("GPU-a", "lost", "ok")]


def test_driver_is_what_was_told_last():
    states = GpuStates()
    assert states.driver == "ok"
    states.settle(failure("hung", ""))
    assert states.driver == "hung"


@given(st.lists(st.tuples(STATES, DEVICES, st.booleans())))
def test_changes_of_each_device_follow_each_other(looks: list[tuple[str, dict[str, str], bool]]):
    states = GpuStates()
    now: dict[str | None, str] = {}
    for driver, devices, is_new in looks:
        said = [change(None, state, uuid) for uuid, state in devices.items()] if is_new else []
        settled = states.settle(reading(driver, devices, said))
        for uuid, before, after in told(settled):
            assert before == now.get(uuid, before)
            assert before != after
            now[uuid] = after
        for uuid, state in [(None, driver), *devices.items()]:
            assert now.setdefault(uuid, state) == state
