"""From readings and edges to what each execution cost: what is known, what is not, and that nothing is counted twice."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log import events
from amsha_async_log._attribution import Account, Edge
from amsha_async_log._resources import ProcessReading, Resources

S = 1_000_000_000
MB = 1 << 20


class Bench:
    """Resources with a clock and a CPU counter of the test's own."""

    def __init__(self, **options: Any) -> None:
        self.now = self.cpu = 0
        self.resources = Resources(ProcessReading(0, 0), **options)
        self.told: list[tuple[Account, events.MetricsExecution]] = []

    def later(self, seconds: float, cpu: float = 0.0) -> None:
        self.now += round(seconds * S)
        self.cpu += round(cpu * S)

    def start(self, parent: Account | None = None) -> Account:
        account = Account(None, parent, self.now)
        self.resources.add_edges([Edge(self.now, self.cpu, account, True, account.parent)])
        return account

    def end(self, account: Account) -> None:
        account.ended_ns = self.now
        self.resources.add_edges([Edge(self.now, self.cpu, account, False, account.parent)])

    def sample(self, **values: Any) -> None:
        self.resources.read_process(ProcessReading(self.now, self.cpu, **values))
        self.told += self.resources.finished(self.now)

    def gpus(self, *joules: float | None, **values: Any) -> None:
        devices = [
            events.SampleGpu(gpu_uuid=f"GPU-{i}", energy_joules=energy, **values) for i, energy in enumerate(joules)
        ]
        self.resources.read_gpus(self.now, devices)
        self.told += self.resources.finished(self.now)

    def cost(self, account: Account) -> events.MetricsExecution:
        (found,) = [said for who, said in self.told if who is account]
        return found


def test_execution_is_told_of_with_the_first_sample_after_its_end() -> None:
    bench = Bench(gpu_unknown="off")
    one = bench.start()
    bench.later(2, cpu=1.5)
    bench.end(one)
    assert bench.told == []
    bench.later(1)
    bench.sample()
    assert bench.cost(one).cpu_seconds == 1.5
    assert bench.cost(one).duration_seconds == 2.0


def test_peak_is_exact_where_the_high_water_mark_rose() -> None:
    bench = Bench(gpu_unknown="off")
    bench.sample(rss_bytes=100 * MB, peak_rss_bytes=100 * MB)
    one = bench.start()
    bench.later(1)
    bench.end(one)
    bench.sample(rss_bytes=110 * MB, peak_rss_bytes=500 * MB)
    assert bench.cost(one).peak_memory_mb == 500.0


def test_peak_is_the_highest_sample_where_the_high_water_mark_is_older() -> None:
    bench = Bench(gpu_unknown="off")
    bench.sample(rss_bytes=100 * MB, peak_rss_bytes=500 * MB)
    one = bench.start()
    bench.later(1)
    bench.sample(rss_bytes=130 * MB, peak_rss_bytes=500 * MB)
    bench.later(1)
    bench.end(one)
    bench.sample(rss_bytes=120 * MB, peak_rss_bytes=500 * MB)
    assert bench.cost(one).peak_memory_mb == 130.0


def test_execution_waits_for_the_gpus_to_answer_but_not_for_ever() -> None:
    bench = Bench()
    bench.gpus(0.0)
    one = bench.start()
    bench.later(1)
    bench.end(one)
    bench.sample()
    assert bench.told == []
    bench.later(2)
    bench.told += bench.resources.finished(bench.now)
    cost = bench.cost(one)
    assert cost.energy_joules is None
    assert cost.unknown is not None
    assert cost.unknown["energy_joules"] == "stale"


def test_energy_of_all_gpus_is_added_up() -> None:
    bench = Bench()
    bench.gpus(10.0, 20.0)
    one = bench.start()
    bench.later(1)
    bench.end(one)
    bench.sample()
    bench.gpus(13.0, 24.0)
    assert bench.cost(one).energy_joules == 7.0


def test_energy_is_unknown_as_soon_as_one_gpu_is() -> None:
    bench = Bench()
    bench.gpus(10.0, 20.0)
    one = bench.start()
    bench.later(1)
    bench.gpus(12.0, None, unknown={"energy_joules": "lost"})
    bench.later(1)
    bench.end(one)
    bench.sample()
    bench.gpus(13.0, 24.0)
    assert bench.cost(one).energy_joules is None
    assert (bench.cost(one).unknown or {})["energy_joules"] == "stale"
    totals = bench.resources.totals()
    assert totals["energy_millijoules:GPU-0"]["executions"] == 0
    assert totals["energy_millijoules:GPU-0"]["unattributed"] == 3000


def test_execution_that_ran_before_a_gpu_was_first_read_does_not_know_its_energy() -> None:
    bench = Bench()
    one = bench.start()
    bench.later(1)
    bench.gpus(10.0)
    bench.later(1)
    bench.gpus(20.0)
    bench.end(one)
    bench.sample()
    bench.gpus(21.0)
    assert (bench.cost(one).unknown or {})["energy_joules"] == "late_start"


def test_driver_that_hangs_keeps_nothing_back_and_piles_nothing_up() -> None:
    bench = Bench()
    bench.gpus(10.0)
    for _ in range(1000):
        one = bench.start()
        bench.later(0.01)
        bench.end(one)
        bench.resources.lose_gpus(bench.now, "hung")
        bench.sample()
        assert (bench.cost(one).unknown or {})["energy_joules"] == "hung"
        bench.told.clear()
    (counter,) = bench.resources._energies.values()
    assert not counter._edges
    assert not counter.done
    assert not bench.resources._marks


def test_execution_that_ended_after_the_last_sample_is_told_of_at_the_close() -> None:
    bench = Bench(gpu_unknown="off")
    bench.sample(rss_bytes=MB, peak_rss_bytes=MB)
    one = bench.start()
    bench.later(1, cpu=1)
    bench.end(one)
    bench.told += bench.resources.finished(bench.now, at_once=True)
    assert bench.cost(one).cpu_seconds == 1.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "inside", "end", "sample", "gpus", "lost", "reset", "hung"]),
        st.integers(0, 5),
        st.floats(0, 2),
        st.integers(0, 500),
    ),
    max_size=60,
)


@given(STEPS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_executions_are_told_is_what_the_totals_say_they_got(
    steps: list[tuple[str, int, float, int]], by_task: bool
) -> None:
    bench = Bench(by_task=by_task)
    alive: list[Account] = []
    written = 0
    energy = [0, 0]
    for what, which, later, more in steps:
        bench.later(later, cpu=later / 2)
        written += more
        energy = [energy[0] + more, energy[1] + 2 * more]
        if what == "start":
            alive.append(bench.start())
        elif what == "inside" and alive:
            alive.append(bench.start(alive[which % len(alive)]))
        elif what == "end" and alive:
            account = alive.pop(which % len(alive))
            account.task_ns += more
            bench.end(account)
        elif what == "sample":
            bench.sample(write_bytes=written, rss_bytes=MB, peak_rss_bytes=MB)
        elif what == "gpus":
            bench.gpus(*(value / 1000 for value in energy))
        elif what == "lost":
            bench.gpus(energy[0] / 1000, None)
        elif what == "reset":
            energy = [0, energy[1]]
        elif what == "hung":
            bench.resources.lose_gpus(bench.now, "hung")
    bench.sample(write_bytes=written)
    bench.told += bench.resources.finished(bench.now, at_once=True)
    bench.told += bench.resources.unfinished(bench.now, 0)
    assert len({id(who) for who, _ in bench.told}) == len(bench.told)
    totals = bench.resources.totals()
    for name, counter in totals.items():
        assert counter["executions"] + counter["idle"] + counter["unattributed"] == counter["total"], name
        assert counter["executions"] >= 0, name
        assert counter["idle"] >= 0, name
        if not by_task or name != "cpu_nanoseconds":
            assert counter["unattributed"] >= 0, name
    said = [cost for _, cost in bench.told]
    assert sum(round((cost.cpu_seconds or 0) * S) for cost in said) == totals["cpu_nanoseconds"]["executions"]
    if "file_write_bytes" in totals:
        assert sum(cost.file_write_bytes or 0 for cost in said) == totals["file_write_bytes"]["executions"]
    energies = [counter["executions"] for name, counter in totals.items() if name.startswith("energy")]
    assert sum(round((cost.energy_joules or 0) * 1000) for cost in said) == sum(energies)
    assert all(cost.energy_joules is not None or "energy_joules" in (cost.unknown or {}) for cost in said)
