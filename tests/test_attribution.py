"""Shares of counters: they add up exactly, and are what a slow, plain account of the same events says."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsha_async_log._attribution import Account, Edge, Gauge, Share, SharedCounter


def account(name: str = "a", parent: Account | None = None) -> Account:
    return Account(name, parent, 0)


def start(time: int, of: Account) -> Edge:
    return Edge(time, 0, of, True, of.parent)


def end(time: int, of: Account) -> Edge:
    return Edge(time, 0, of, False, of.parent)


def test_one_alone_gets_everything_without_error() -> None:
    counter, one = SharedCounter(0, 100), account()
    counter.read_at_edge(start(10, one), 100)
    ((_, share),) = counter.read_at_edge(end(20, one), 170)
    assert (share.amount, share.error, share.overlaps) == (70, 0, 0)


def test_what_is_used_while_nobody_runs_is_idle() -> None:
    counter, one = SharedCounter(0, 0), account()
    counter.read_at_edge(start(10, one), 5)
    counter.read_at_edge(end(20, one), 9)
    counter.read(30, 20)
    assert (counter.total, counter.idle, counter.attributed, counter.unattributed) == (20, 16, 4, 0)


def test_two_at_once_share_equally_and_say_how_wrong_that_may_be() -> None:
    counter, one, two = SharedCounter(0, 0), account("1"), account("2")
    counter.read_at_edge(start(0, one), 0)
    counter.read_at_edge(start(10, two), 100)
    ((_, first),) = counter.read_at_edge(end(20, one), 160)
    ((_, second),) = counter.read_at_edge(end(30, two), 200)
    assert (first.amount, first.error) == (130, 30)
    assert (second.amount, second.error) == (70, 30)


def test_one_that_waits_for_an_inner_one_leaves_its_share_to_it() -> None:
    counter, outer = SharedCounter(0, 0), account("outer")
    inner = account("inner", outer)
    counter.read_at_edge(start(0, outer), 0)
    counter.read_at_edge(start(10, inner), 10)
    ((_, share_of_inner),) = counter.read_at_edge(end(20, inner), 60)
    ((_, share_of_outer),) = counter.read_at_edge(end(30, outer), 67)
    assert (share_of_inner.amount, share_of_outer.amount) == (50, 17)
    assert (share_of_inner.error, share_of_outer.error) == (50, 50)  # nobody knows that the outer one only waited


def test_an_edge_between_two_readings_is_placed_by_time() -> None:
    counter, one = SharedCounter(0, 0), account()
    counter.read(100, 1000, [start(30, one)])
    share = counter.settle(one)
    assert share is not None
    assert (share.amount, share.error, counter.idle) == (700, 1000, 300)


def test_what_only_a_program_uses_is_spread_over_the_time_in_which_one_ran() -> None:
    counter, one, two = SharedCounter(0, 0, busy_only=True), account("1"), account("2")
    ended = dict(counter.read(100, 600, [start(30, one), start(40, two), end(50, one), end(60, two)]))
    assert (ended[one].amount, ended[two].amount, counter.idle) == (300, 300, 0)
    assert (ended[one].error, ended[two].error) == (600, 600)
    counter.read(200, 700)
    assert counter.idle == 100


def test_units_that_do_not_divide_are_nobodys_until_they_do() -> None:
    counter = SharedCounter(0, 0)
    for name in "abc":
        counter.read_at_edge(start(0, account(name)), 0)
    counter.read(1, 10)
    assert (counter.attributed, counter.unattributed) == (9, 1)
    counter.read(2, 12)
    assert (counter.attributed, counter.unattributed) == (12, 0)


def test_counter_that_begins_anew_counts_nothing_twice_and_says_so() -> None:
    counter, one = SharedCounter(0, 1000), account()
    counter.read_at_edge(start(0, one), 1000)
    counter.read(10, 1010)
    counter.read(20, 3)
    ((_, share),) = counter.read(30, 10, [end(30, one)])
    assert share.unknown == "counter_reset"
    assert (share.amount, counter.total) == (17, 17)


def test_what_is_used_while_the_counter_cannot_be_read_is_nobodys() -> None:
    counter, one, two = SharedCounter(0, 0), account("1"), account("2")
    counter.read_at_edge(start(0, one), 0)
    counter.lose(10, [start(5, two)])
    counter.read(20, 100)
    ((_, share),) = counter.read(30, 110, [end(30, one)])
    assert share.unknown == "stale"
    assert (share.amount, counter.unattributed, counter.total) == (5, 100, 110)


def test_account_that_started_before_the_counter_was_known_is_left_out() -> None:
    counter, one = SharedCounter(0, 0), account()
    assert counter.read(10, 5, [end(5, one)]) == []
    assert (counter.idle, counter.total) == (5, 5)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start inside", "end", "read", "read late"]),
        st.integers(0, 7),
        st.integers(0, 50),
        st.integers(-3, 1000),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=500)
def test_shares_idle_and_unattributed_are_the_counter_exactly(steps: list[tuple[str, int, int, int]]) -> None:
    """And each share, and what it may be wrong by, is what a plain account of every unit says."""
    counter = SharedCounter(0, 0)
    accounts: list[Account] = []
    time = value = 0
    shares: dict[Account, Share] = {}
    plain: dict[Account, Fraction] = {}
    alive: list[Account] = []
    rises = 0

    def spend(amount: int) -> None:
        busy = [one for one in alive if not any(other.parent is one for other in alive)]
        for one in busy:
            plain[one] += Fraction(amount, len(busy))

    for what, which, later, by in steps:
        time += later
        if what.startswith("start"):
            parent = alive[which % len(alive)] if what == "start inside" and alive else None
            one = account(str(len(accounts)), parent)
            accounts.append(one)
            plain[one] = Fraction(0)
            edge = start(time, one)
        elif what == "end" and alive:
            edge = end(time, alive[which % len(alive)])
        elif what == "read":
            rise = max(by, 0)
            if by >= 0:
                rises += rise
                value += rise
                spend(rise)
                shares |= dict(counter.read(time, value))
            else:
                value = max(value + by, 0)
                before = counter.total
                shares |= dict(counter.read(time, value))
                assert counter.total == before
            continue
        else:
            continue
        rise = max(by, 0)
        value += rise
        rises += rise
        spend(rise)
        shares |= dict(counter.read_at_edge(edge, value))
        (alive.append if edge.starts else alive.remove)(edge.account)
    for one in alive:
        share = counter.settle(one)
        assert share is not None
        shares[one] = share
    assert counter.total == rises
    assert sum(share.amount for share in shares.values()) == counter.attributed
    assert counter.idle + counter.attributed + counter.unattributed == counter.total
    assert 0 <= counter.unattributed < max(len(accounts), 1)
    for one, share in shares.items():
        assert abs(share.amount - plain[one]) <= len(steps)  # what does not divide is carried to the next


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1000), st.integers(0, 5)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_truth_lies_within_the_error_wherever_the_edges_were(
    readings: list[tuple[int, int, int]], chance: object
) -> None:
    """Whoever used each unit, among those that ran when it was used: no share is further off than it says."""
    counter = SharedCounter(0, 0, busy_only=chance.random() < 0.5)  # type: ignore[attr-defined]
    alive: list[Account] = []
    truth: dict[Account, int] = {}
    shares: dict[Account, Share] = {}
    time = value = 0
    for span, rise, edges in readings:
        begin, time = time, time + span + 1
        value += rise
        made: list[Edge] = []
        present = set(alive)
        for i in range(edges):
            at = begin + (i + 1) * span // (edges + 1)
            if alive and chance.random() < 0.5:  # type: ignore[attr-defined]
                made.append(end(at, alive.pop(chance.randrange(len(alive)))))  # type: ignore[attr-defined]
            else:
                parent = chance.choice([None, *alive])  # type: ignore[attr-defined]
                one = Account(None, parent, at)
                truth[one] = 0
                alive.append(one)
                made.append(start(at, one))
                present.add(one)
        if present:
            truth[chance.choice(sorted(present, key=id))] += rise  # type: ignore[attr-defined]
        shares |= dict(counter.read(time, value, made))
    for one in alive:
        share = counter.settle(one)
        assert share is not None
        shares[one] = share
    for one, share in shares.items():
        assert abs(share.amount - truth[one]) <= share.error + len(readings), (share.amount, truth[one], share.error)
    assert counter.idle + counter.attributed + counter.unattributed == counter.total == value


def test_mean_is_weighted_by_time() -> None:
    gauge = Gauge()
    gauge.read(0, 10.0)
    before = gauge.integral(5)
    gauge.read(10, 30.0)
    after = gauge.integral(15)
    assert (after[0] - before[0]) / (after[1] - before[1]) == pytest.approx(20.0)


def test_time_before_the_first_reading_is_not_part_of_a_mean() -> None:
    gauge = Gauge()
    before = gauge.integral(0)
    gauge.read(10, 4.0)
    after = gauge.integral(20)
    assert (after[0] - before[0]) / (after[1] - before[1]) == pytest.approx(4.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=100), st.integers(0, 500))
def test_peak_is_the_highest_reading_since(readings: list[tuple[int, int]], since: int) -> None:
    gauge, time = Gauge(), 0
    seen = []
    for later, value in readings:
        time += later
        gauge.read(time, value)
        seen.append((time, value))
    assert gauge.peak_since(since) == max((value for at, value in seen if at >= since), default=None)


def test_peaks_that_fall_for_ever_take_bounded_memory_and_are_never_too_low() -> None:
    gauge = Gauge()
    for time in range(20_000):
        gauge.read(time, 20_000.0 - time)
    assert len(gauge._peaks) <= 4097
    for since in (0, 1, 777, 10_000, 19_999):
        peak = gauge.peak_since(since)
        assert peak is not None
        assert peak >= 20_000.0 - since
