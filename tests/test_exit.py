"""However a process ends, what was accepted is in the file, or the rest is counted, within bounded time."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from programs import LIMIT_S, check_complete, lines, program, records, run

OPEN = """
    import asyncio, os, signal, sys, time
    from amsha_async_log import open_log
    log = open_log(sys.argv[1] + "/app.jsonl", console=False, shutdown_timeout_s=3)
    def burst():
        for i in range(2000):
            log.info("x", i=i)
"""

ENDS = {
    "returning": ("burst()", 0),
    "sys_exit": ("burst(); sys.exit(3)", 3),
    "an_unhandled_exception": ("burst(); raise ValueError('x')", 1),
    "sigint": ("burst(); os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", -signal.SIGINT),
    "sigterm": ("burst(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
    "a_dead_loop": ("async def main(): burst()\n    asyncio.run(main())", 0),
    "a_loop_that_raised": ("async def main(): burst(); raise ValueError\n    asyncio.run(main())", 1),
    "sigterm_in_an_asyncio_loop": (
        "async def main():\n"
        "        burst(); asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)\n"
        "        await asyncio.sleep(30)\n"
        "    asyncio.run(main())",
        -signal.SIGTERM,
    ),
    "sigterm_in_a_uvloop": (
        "async def main():\n"
        "        burst(); asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)\n"
        "        await asyncio.sleep(30)\n"
        "    import uvloop; uvloop.run(main())",
        -signal.SIGTERM,
    ),
    "sigterm_in_a_busy_loop": (
        "burst(); import threading; threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    while True: pass",
        -signal.SIGTERM,
    ),
    "exit_in_a_thread_while_main_waits": (
        "import threading; t = threading.Thread(target=burst); t.start(); t.join()",
        0,
    ),
    "logging_in_atexit": ("import atexit; atexit.register(burst)", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_lost_when_the_program_ends_by(end: str, tmp_path: Path) -> None:
    body, code = ENDS[end]
    done = run(OPEN + f"    {body}\n", tmp_path)
    assert done.returncode == code, done.stderr
    assert [r["i"] for r in records(tmp_path)] == list(range(2000))
    check_complete(tmp_path)


def test_records_of_a_later_atexit_handler_are_refused_not_raised(tmp_path: Path) -> None:
    done = run(
        "import atexit, sys; atexit.register(lambda: print(log.info('late')))" + OPEN.replace("\n    ", "\n"), tmp_path
    )
    assert done.stdout.strip() == "False"
    assert done.returncode == 0


def test_sigkill_leaves_whole_lines_and_no_closing_line(tmp_path: Path) -> None:
    with program(OPEN + "    burst(); log.flush(); print('ready', flush=True); time.sleep(60)\n", tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert len(records(tmp_path)) == 2000
    check_complete(tmp_path, closed=False)
    assert lines(tmp_path)[-1]["event"] == "log"


def test_a_user_s_sigterm_handler_is_left_alone(tmp_path: Path) -> None:
    done = run(
        "import signal, sys, os\n"
        "signal.signal(signal.SIGTERM, lambda *a: (print('mine'), sys.exit(7)))\n"
        + OPEN.replace("\n    ", "\n")
        + "burst(); os.kill(os.getpid(), signal.SIGTERM)\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (7, "mine\n")
    assert len(records(tmp_path)) == 2000


def test_handle_sigterm_false_leaves_the_default_action(tmp_path: Path) -> None:
    code = OPEN.replace("shutdown_timeout_s=3", "handle_sigterm=False")
    done = run(code + "    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n", tmp_path)
    assert done.stdout == "True\n"


def test_sigterm_is_given_back_when_the_log_closes(tmp_path: Path) -> None:
    done = run(OPEN + "    log.close(); print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n", tmp_path)
    assert done.stdout == "True\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="a new process-id namespace needs root")
def test_process_1_flushes_on_sigterm_and_goes_on(tmp_path: Path) -> None:
    """As pid 1 of a container the default action of SIGTERM is to do nothing."""
    code = """
        import os, signal, sys, time
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        CLONE_NEWPID = 0x20000000
        if libc.unshare(CLONE_NEWPID) != 0:
            print("no namespaces"); sys.exit(0)
        child = os.fork()
        if child == 0:
            from amsha_async_log import open_log
            assert os.getpid() == 1
            log = open_log(sys.argv[1] + "/app.jsonl", console=False, flush_interval_s=60)
            log.info("a"); log.flush(); log.info("b")
            os.kill(1, signal.SIGTERM)
            log.info("c")
            print("goes on", log.close().written, flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
    """
    done = run(code, tmp_path)
    if "no namespaces" in done.stdout:
        pytest.skip("this kernel allows no new process-id namespace")
    assert done.stdout == "goes on 3\n0\n", done.stderr
    assert [r["message"] for r in records(tmp_path)] == ["a", "b", "c"]


def test_a_hung_disk_does_not_hold_the_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    reader = os.open(tmp_path / "app.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        code = OPEN.replace("shutdown_timeout_s=3", "shutdown_timeout_s=0.5")
        done = run(code + "    burst(); print('done')\n", tmp_path)
    finally:
        os.close(reader)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "left behind" in done.stderr


def test_neither_a_hung_disk_nor_a_full_stderr_pipe_holds_the_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    reader = os.open(tmp_path / "app.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    unread, stderr = os.pipe()
    try:
        os.set_blocking(stderr, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(stderr, bytes(4096))
        os.set_blocking(stderr, True)
        code = textwrap.dedent(OPEN.replace("shutdown_timeout_s=3", "shutdown_timeout_s=0.5")) + "burst()\n"
        done = subprocess.run([sys.executable, "-c", code, tmp_path], stderr=stderr, timeout=LIMIT_S, check=False)
    finally:
        for descriptor in (reader, unread, stderr):
            os.close(descriptor)
    assert done.returncode == 0


def test_close_reports_what_a_hung_disk_kept(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    code = OPEN.replace("shutdown_timeout_s=3", "shutdown_timeout_s=0.5") + (
        "    burst(); r = log.close()\n"
        "    print(r.ok, r.accepted == r.written + r.dropped + r.failed, r.left_behind == r.dropped > 0)\n"
        "    print(0.4 < r.duration_seconds)\n"
    )
    assert run(code, tmp_path).stdout == "False True True\nTrue\n"


def test_closing_twice_gives_the_same_report(tmp_path: Path) -> None:
    done = run(OPEN + "    burst(); print(log.close() == log.close(), log.close().ok)\n", tmp_path)
    assert done.stdout == "True True\n"


def test_two_threads_may_close_at_once(tmp_path: Path) -> None:
    done = run(
        OPEN + "    burst(); from concurrent.futures import ThreadPoolExecutor as T\n"
        "    with T(8) as pool: reports = list(pool.map(lambda _: log.close(), range(8)))\n"
        "    print(len(set(map(str, reports))), reports[0].written)\n",
        tmp_path,
    )
    assert done.stdout == "1 2000\n"


def test_a_log_closed_by_a_signal_during_close_ends_once(tmp_path: Path) -> None:
    done = run(
        OPEN + "    burst(); import threading\n"
        "    threading.Thread(target=lambda: [os.kill(os.getpid(), signal.SIGTERM)]).start(); log.close()\n"
        "    time.sleep(30)\n",
        tmp_path,
    )
    assert done.returncode == -signal.SIGTERM
    check_complete(tmp_path)


def test_a_cancelled_task_still_closes_the_log_completely(tmp_path: Path) -> None:
    done = run(
        """
        import asyncio, sys
        from amsha_async_log import open_log
        async def work(started):
            async with open_log(sys.argv[1] + "/app.jsonl", console=False) as log:
                for i in range(2000):
                    log.info("x", i=i)
                started.set()
                await asyncio.sleep(60)
        async def main():
            started = asyncio.Event()
            task = asyncio.create_task(work(started))
            await started.wait()
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                print("cancelled")
        asyncio.run(main())
        """,
        tmp_path,
    )
    assert done.stdout == "cancelled\n", done.stderr
    assert len(records(tmp_path)) == 2000
    check_complete(tmp_path)


def test_a_timed_out_trio_block_still_closes_the_log_completely(tmp_path: Path) -> None:
    pytest.importorskip("trio", reason="trio is a test dependency only")
    done = run(
        """
        import sys, trio
        from amsha_async_log import open_log
        async def main():
            with trio.move_on_after(0.05):
                async with open_log(sys.argv[1] + "/app.jsonl", console=False) as log:
                    for i in range(2000):
                        log.info("x", i=i)
                    assert await log.aflush()
                    await trio.sleep(60)
        trio.run(main)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path)) == 2000
    check_complete(tmp_path)


def test_a_thousand_loops_one_after_another_share_one_log(tmp_path: Path) -> None:
    done = run(
        OPEN + "    async def main(i): log.info('loop', i=i); await asyncio.sleep(0)\n"
        "    for i in range(1000): asyncio.run(main(i))\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert [r["i"] for r in records(tmp_path)] == list(range(1000))


def test_a_killed_run_s_lock_is_gone_and_the_next_run_owns_the_path(tmp_path: Path) -> None:
    with program(OPEN + "    burst(); log.flush(); print('ready', flush=True); time.sleep(60)\n", tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert run(OPEN + "    burst()\n", tmp_path).returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["app.jsonl"]


def test_a_log_is_drained_though_nothing_refers_to_it(tmp_path: Path) -> None:
    done = run(OPEN + "    burst(); del log; import gc; gc.collect()\n", tmp_path)
    assert done.returncode == 0
    assert len(records(tmp_path)) == 2000


def test_the_log_s_threads_are_gone_after_close(tmp_path: Path) -> None:
    done = run(
        OPEN + "    count = lambda: len(os.listdir('/proc/self/task'))\n"
        "    burst(); log.close()\n"
        "    while count() > 1: time.sleep(0.01)\n"
        "    print(count())\n",
        tmp_path,
    )
    assert done.stdout == "1\n"


def test_no_descriptor_is_left_after_close(tmp_path: Path) -> None:
    done = run(
        "import os, sys, time\n"
        "from amsha_async_log import open_log\n"
        "count = lambda: len(os.listdir('/proc/self/fd'))\n"
        "open_log(sys.argv[1] + '/a.jsonl', console=False).close()\n"
        "before = count()\n"
        "for i in range(20): open_log(sys.argv[1] + '/a.jsonl', console=False).close()\n"
        "deadline = time.monotonic() + 20\n"
        "while count() > before and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print(count() <= before)\n",
        tmp_path,
    )
    assert done.stdout == "True\n", done.stderr


def test_sigterm_reaches_a_worker_that_multiprocessing_terminates(tmp_path: Path) -> None:
    done = run(
        """
        import multiprocessing, sys, time
        from amsha_async_log import open_log, get_log
        def work(ready):
            for i in range(500):
                get_log().info("child", i=i)
            ready.set()
            time.sleep(60)
        log = open_log(sys.argv[1] + "/app.jsonl", console=False)
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        process = context.Process(target=work, args=(ready,))
        process.start(); ready.wait()
        while process.is_alive():  # Python may notice a signal only after a call that had just begun to block
            process.terminate(); process.join(0.5)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path)) == 500
    check_complete(tmp_path)
