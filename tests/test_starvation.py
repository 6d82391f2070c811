"""The batcher gets its turn beside loops that poll without pause, saturated producers and neighbours that compute."""

from pathlib import Path

import pytest
from programs import check_complete, records, run

BUSY = """
    import asyncio, os, sys, threading, time
    from amsha_async_log import open_log
    path = sys.argv[1] + "/app.jsonl"
    log = open_log(path, console=False)
    seen = lambda: sum(b'"event":"log"' in line for line in open(path, "rb"))
"""


def test_a_loop_that_polls_without_pause_has_every_record_written_before_the_next(tmp_path: Path) -> None:
    """One record each 0.3 s: without a lend, all would be written when the loop ends."""
    done = run(
        BUSY + "    waiting = []\n"
        "    async def main():\n"
        "        for n in range(12):\n"
        "            log.info('tick', n=n); until = time.monotonic() + 0.3\n"
        "            while time.monotonic() < until: await asyncio.sleep(0)\n"
        "            waiting.append(n + 1 - seen())\n"
        "    asyncio.run(main())\n"
        "    print(waiting)\n",
        tmp_path,
    )
    assert done.stdout == f"{[0] * 12}\n", done.stderr


def test_a_second_record_just_after_the_first_is_written_too(tmp_path: Path) -> None:
    done = run(
        BUSY + "    waiting = []\n"
        "    async def main():\n"
        "        for n in range(8):\n"
        "            log.info('tick', n=n); log.info('tock', n=n); until = time.monotonic() + 0.3\n"
        "            while time.monotonic() < until: await asyncio.sleep(0)\n"
        "            waiting.append(2 * (n + 1) - seen())\n"
        "    asyncio.run(main())\n"
        "    print(waiting)\n",
        tmp_path,
    )
    assert done.stdout == f"{[0] * 8}\n", done.stderr


def test_a_saturated_producer_is_refused_nothing(tmp_path: Path) -> None:
    done = run(
        BUSY + "    async def main():\n"
        "        for i in range(300_000):\n"
        "            log.info('x', i=i, agent='writer', tokens=100)\n"
        "            if i % 64 == 0: await asyncio.sleep(0)\n"
        "    asyncio.run(main())\n"
        "    report = log.close(); print(report.refused, report.written, report.ok)\n",
        tmp_path,
    )
    assert done.stdout == "0 300000 True\n", done.stderr
    assert [r["i"] for r in records(tmp_path)] == list(range(300_000))


@pytest.mark.parametrize("neighbours", [1, 3])
def test_records_are_written_beside_threads_that_compute(tmp_path: Path, neighbours: int) -> None:
    done = run(
        BUSY + f"    stop = []\n"
        "    def hog():\n"
        "        while not stop: sum(range(1000))\n"
        f"    threads = [threading.Thread(target=hog, daemon=True) for _ in range({neighbours})]\n"
        "    for t in threads: t.start()\n"
        "    for n in range(5):\n"
        "        log.info('x', n=n)\n"
        "        deadline = time.monotonic() + 20\n"
        "        while seen() < n + 1 and time.monotonic() < deadline: time.sleep(0.01)\n"
        "    print(seen()); stop.append(1)\n",
        tmp_path,
    )
    assert done.stdout == "5\n", done.stderr


def test_blocking_threads_lose_nothing_against_a_small_queue(tmp_path: Path) -> None:
    done = run(
        BUSY.replace("console=False", "console=False, when_full='block', max_queue_size=500") + "    def work(k):\n"
        "        for i in range(5000): assert log.info('x', k=k, i=i)\n"
        "    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]\n"
        "    for t in threads: t.start()\n"
        "    for t in threads: t.join()\n"
        "    report = log.close(); print(report.refused, report.written)\n",
        tmp_path,
    )
    assert done.stdout == "0 40000\n", done.stderr
    by_thread: dict[int, list[int]] = {}
    for record in records(tmp_path):
        by_thread.setdefault(record["k"], []).append(record["i"])
    assert by_thread == {k: list(range(5000)) for k in range(8)}


def test_loops_in_threads_that_wait_until_ready_lose_nothing(tmp_path: Path) -> None:
    done = run(
        BUSY.replace("console=False", "console=False, max_queue_size=500") + "    async def main(k):\n"
        "        for i in range(5000):\n"
        "            if i % 50 == 0: assert await log.aready()\n"
        "            while not log.info('x', k=k, i=i): await log.aready()\n"
        "    threads = [threading.Thread(target=asyncio.run, args=(main(k),)) for k in range(4)]\n"
        "    for t in threads: t.start()\n"
        "    for t in threads: t.join()\n"
        "    print(log.close().written)\n",
        tmp_path,
    )
    assert done.stdout == "20000\n", done.stderr
    by_thread: dict[int, list[int]] = {}
    for record in records(tmp_path):
        by_thread.setdefault(record["k"], []).append(record["i"])
    assert by_thread == {k: list(range(5000)) for k in range(4)}
    check_complete(tmp_path)


def test_a_parked_log_wakes_for_nothing(tmp_path: Path) -> None:
    done = run(
        BUSY + "    def switches():\n"
        "        total = 0\n"
        "        for task in os.listdir('/proc/self/task'):\n"
        "            if int(task) != os.getpid():\n"
        "                status = open(f'/proc/self/task/{task}/status').read()\n"
        "                total += int(status.split('voluntary_ctxt_switches:')[1].split()[0])\n"
        "        return total\n"
        "    log.info('x'); log.flush()\n"
        "    before = None\n"
        "    while before != switches(): before = switches(); time.sleep(1)\n"
        "    time.sleep(2); print(switches() - before)\n",
        tmp_path,
    )
    assert done.stdout == "0\n", done.stderr
