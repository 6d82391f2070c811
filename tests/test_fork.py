"""Forked children and sibling processes: their own files, no inherited records, nothing lost, nobody deadlocks."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from programs import LIMIT_S, check_complete, lines, program, records, run

OPEN = """
    import os, signal, sys, threading, time
    from amsha_async_log import open_log, get_log
    folder = sys.argv[1]
    log = open_log(folder + "/app.jsonl", console=False)
"""


def test_a_forked_child_writes_beside_its_parent(tmp_path: Path) -> None:
    done = run(
        OPEN + "    log.info('parent')\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        log.info('child')\n"
        "        sys.exit(0)\n"
        "    os.waitpid(child, 0)\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert Counter(r["message"] for r in records(tmp_path)) == {"parent": 1, "child": 1}
    assert len({r["writer"] for r in records(tmp_path)}) == 2
    assert len(list(tmp_path.iterdir())) == 2
    check_complete(tmp_path)


def test_a_child_inherits_no_record_that_waits_in_the_queue(tmp_path: Path) -> None:
    done = run(
        OPEN + "    for i in range(5000): log.info('parent', i=i)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        print(log.stats().queued, flush=True)\n"
        "        sys.exit(0)\n"
        "    os.waitpid(child, 0)\n",
        tmp_path,
    )
    assert done.stdout == "0\n", done.stderr
    assert [r["i"] for r in records(tmp_path)] == list(range(5000))


def test_a_child_that_logs_nothing_leaves_no_file(tmp_path: Path) -> None:
    run(OPEN + "    if os.fork() == 0: sys.exit(0)\n    os.wait()\n", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["app.jsonl"]


def test_a_child_holds_none_of_its_parent_s_locks(tmp_path: Path) -> None:
    """The parent's lock must go with the parent, though a child of it lives on."""
    done = run(
        OPEN + "    import fcntl\n"
        "    r, w = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        os.close(w); os.read(r, 1); os._exit(0)\n"
        "    log.close()\n"
        "    fd = os.open(folder + '/app.jsonl', os.O_RDWR)\n"
        "    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    print('free'); os.close(w); os.wait()\n",
        tmp_path,
    )
    assert done.stdout == "free\n", done.stderr


def test_the_parent_s_loop_survives_a_child_that_logs_and_ends(tmp_path: Path) -> None:
    done = run(
        OPEN + "    for round in range(20):\n"
        "        if os.fork() == 0:\n"
        "            log.info('child'); sys.exit(0)\n"
        "        os.wait(); log.info('parent', round=round)\n"
        "        assert log.flush()\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert Counter(r["message"] for r in records(tmp_path)) == {"parent": 20, "child": 20}
    check_complete(tmp_path)


def test_a_grandchild_writes_too(tmp_path: Path) -> None:
    done = run(
        OPEN + "    log.info('0')\n"
        "    if os.fork() == 0:\n"
        "        log.info('1')\n"
        "        if os.fork() == 0:\n"
        "            log.info('2'); sys.exit(0)\n"
        "        os.wait(); sys.exit(0)\n"
        "    os.wait()\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(r["message"] for r in records(tmp_path)) == ["0", "1", "2"]
    check_complete(tmp_path)


def test_forks_from_threads_that_log_without_pause_neither_deadlock_nor_double(tmp_path: Path) -> None:
    done = run(
        OPEN + "    stop = threading.Event()\n"
        "    def busy(k):\n"
        "        i = 0\n"
        "        while not stop.is_set():\n"
        "            accepted[k] += log.info('parent', k=k); i += 1\n"
        "            if i % 500 == 0: time.sleep(0.001)\n"
        "    accepted = [0, 0, 0]\n"
        "    threads = [threading.Thread(target=busy, args=(k,)) for k in range(3)]\n"
        "    for t in threads: t.start()\n"
        "    for n in range(30):\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            log.info('child', n=n)\n"
        "            log.close(); os._exit(0)\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "    stop.set()\n"
        "    for t in threads: t.join()\n"
        "    report = log.close()\n"
        "    print(sum(accepted) == report.written, report.ok)\n",
        tmp_path,
    )
    assert done.stdout == "True True\n", done.stderr
    assert sorted(r["n"] for r in records(tmp_path) if r["message"] == "child") == list(range(30))
    check_complete(tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_drain_though_they_skip_atexit(tmp_path: Path, method: str) -> None:
    script = tmp_path / "script.py"
    logs = tmp_path / "logs"
    script.write_text(
        "import multiprocessing, sys\n"
        "from amsha_async_log import open_log, get_log\n"
        "def work(k):\n"
        "    log = get_log() if sys.argv[2] == 'fork' else open_log(sys.argv[1] + '/app.jsonl', console=False)\n"
        "    for i in range(300): log.info('child', k=k, i=i)\n"
        "if __name__ == '__main__':\n"
        "    log = open_log(sys.argv[1] + '/app.jsonl', console=False)\n"
        "    context = multiprocessing.get_context(sys.argv[2])\n"
        "    workers = [context.Process(target=work, args=(k,)) for k in range(4)]\n"
        "    for w in workers: w.start()\n"
        "    for w in workers: w.join()\n"
        "    print([w.exitcode for w in workers])\n"
    )
    command = [sys.executable, str(script), str(logs), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout == "[0, 0, 0, 0]\n", done.stderr
    assert Counter(r["k"] for r in records(logs)) == dict.fromkeys(range(4), 300)
    check_complete(logs)


def test_a_process_pool_s_workers_lose_nothing(tmp_path: Path) -> None:
    done = run(
        OPEN + "    import multiprocessing\n"
        "    from concurrent.futures import ProcessPoolExecutor\n"
        "    def work(k):\n"
        "        for i in range(50): get_log().info('child', k=k, i=i)\n"
        "    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context('fork')) as pool:\n"
        "        list(pool.map(work, range(40)))\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert Counter(r["k"] for r in records(tmp_path)) == dict.fromkeys(range(40), 50)
    check_complete(tmp_path)


def test_many_processes_on_one_path_with_rotation_lose_nothing(tmp_path: Path) -> None:
    code = (
        OPEN.replace("console=False", "console=False, max_bytes=30_000, backup_count=0")
        + "    for i in range(2000): log.info('x', k=int(sys.argv[2]), i=i)\n"
    )
    processes = [program(code, tmp_path, k) for k in range(6)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    by_process: dict[int, list[int]] = {}
    for record in records(tmp_path):
        by_process.setdefault(record["k"], []).append(record["i"])
    assert {k: sorted(found) == list(range(2000)) for k, found in by_process.items()} == dict.fromkeys(range(6), True)
    check_complete(tmp_path)


def test_one_process_at_a_time_owns_the_path(tmp_path: Path) -> None:
    done = run(
        OPEN + "    other = open_log(folder + '/app.jsonl', console=False)\n"
        "    print(log.stats().path == folder + '/app.jsonl', other.stats().path != log.stats().path)\n"
        "    log.close(); third = open_log(folder + '/app.jsonl', console=False)\n"
        "    print(third.stats().path == folder + '/app.jsonl')\n",
        tmp_path,
    )
    assert done.stdout == "True True\nTrue\n", done.stderr
    assert [line["owner"] for line in lines(tmp_path) if line["event"] == "log.segment_opened"].count(False) == 1
