"""What the sampler is told of executions: everything, in order, and nothing twice."""

import threading

from amsha_async_log._watch import EDGES_MOST, ExecutionWatch


def test_starts_and_ends_are_taken_once_and_in_order_of_time() -> None:
    watch = ExecutionWatch()
    accounts = [watch.started(None, None) for _ in range(400)]
    for account in accounts:
        assert account is not None
        watch.ended(account)
    taken = []
    while watch.pending:
        taken += watch.take()
    assert [edge.starts for edge in taken] == [True] * 400 + [False] * 400
    assert [edge.time_ns for edge in taken] == sorted(edge.time_ns for edge in taken)
    assert watch.take() == []


def test_waking_comes_once_until_all_is_taken() -> None:
    watch, wakes = ExecutionWatch(), []
    watch.wake = lambda: wakes.append(1)
    watch.started(None, None)
    watch.started(None, None)
    assert len(wakes) == 1
    watch.take()
    watch.started(None, None)
    assert len(wakes) == 2


def test_what_is_told_while_another_thread_takes_is_never_forgotten() -> None:
    watch = ExecutionWatch()
    started = 0
    done = threading.Event()

    def tell() -> None:
        nonlocal started
        for _ in range(3000):
            account = watch.started(None, None)
            assert account is not None
            watch.ended(account)
            started += 2
        done.set()

    thread = threading.Thread(target=tell)
    thread.start()
    taken = 0
    while not done.is_set() or watch.pending:
        taken += len(watch.take()) if watch.pending else 0
    thread.join()
    assert not watch._edges
    assert taken == started


def test_no_account_is_kept_of_what_the_sampler_cannot_follow() -> None:
    watch = ExecutionWatch()
    accounts = [watch.started(None, None) for _ in range(EDGES_MOST + 10)]
    assert accounts[0] is not None
    assert accounts[-1] is None
    assert watch.skipped == 9
