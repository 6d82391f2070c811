"""Samples are due on a grid that does not drift; missed ones are counted, not bunched; dear ones come less often."""

from hypothesis import given
from hypothesis import strategies as st

from amsha_async_log._deadlines import Deadlines

SECOND = 1_000_000_000


def test_first_is_due_at_once() -> None:
    deadlines = Deadlines(7, 1.0)
    assert deadlines.due_ns == 7
    assert deadlines.take(7) == (0, 0)


def test_lateness_does_not_shift_what_follows() -> None:
    deadlines = Deadlines(0, 1.0)
    for n in range(10_000):
        assert deadlines.take(n * SECOND + 3_000_000) == (3_000_000, 0)
    assert deadlines.due_ns == 10_000 * SECOND


def test_missed_ones_are_counted_and_not_made_up_for() -> None:
    deadlines = Deadlines(0, 1.0)
    assert deadlines.take(round(3.5 * SECOND)) == (round(3.5 * SECOND), 3)
    assert deadlines.due_ns == 4 * SECOND


@given(st.lists(st.integers(0, 10 * SECOND), max_size=50))
def test_taken_and_missed_ones_are_all_that_were_due(waits: list[int]) -> None:
    deadlines, now, counted = Deadlines(0, 1.0), 0, 0
    for wait in waits:
        now = max(now, deadlines.due_ns) + wait
        counted += 1 + deadlines.take(now)[1]
        assert deadlines.due_ns == counted * SECOND > now


def test_sampling_that_costs_too_much_comes_less_often_and_returns() -> None:
    deadlines = Deadlines(0, 0.01)
    for _ in range(50):
        deadlines.add_cost(400_000)  # 4 % of the interval
    assert deadlines.stretch == 4
    for _ in range(50):
        deadlines.add_cost(10_000)
    assert deadlines.stretch == 1


def test_one_dear_sample_changes_nothing() -> None:
    deadlines = Deadlines(0, 1.0)
    for _ in range(20):
        deadlines.add_cost(1_000_000)
    deadlines.add_cost(20_000_000)
    assert deadlines.stretch == 1


def test_cost_near_the_limit_does_not_go_back_and_forth() -> None:
    deadlines = Deadlines(0, 0.1)
    seen = set()
    for _ in range(100):
        deadlines.add_cost(1_100_000)  # 1.1 % of the interval
        seen.add(deadlines.stretch)
    assert seen == {2}


def test_stretch_is_bounded() -> None:
    deadlines = Deadlines(0, 0.001)
    for _ in range(100):
        deadlines.add_cost(10 * SECOND)
    assert deadlines.stretch == 64
