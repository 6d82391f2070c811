"""The segment writer: what is in the file after any failure, rotation, retention, healing, files taken away."""

import errno
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amsha_async_log import _retention, _writer
from amsha_async_log._writer import SegmentLostError, SegmentWriter


class Lines:
    """Stands in for the encoder: numbers lines, makes opening and closing lines."""

    def __init__(self) -> None:
        self.next_seq = 1

    def line(self, event: str, **fields: object) -> bytes:
        text = json.dumps({"event": event, "seq": self.next_seq, **fields}, separators=(",", ":"))
        self.next_seq += 1
        return text.encode() + b"\n"

    def opening(self, writer: SegmentWriter) -> tuple[bytes, int]:
        line = self.line("log.segment_opened", previous_segment=writer.previous_name, torn=writer.segment.torn_bytes)
        return line, 1

    def closing(self, writer: SegmentWriter) -> bytes:
        segment = writer.segment
        counts = {"records": segment.records, "lines": segment.lines, "last_seq": segment.last_seq}
        return self.line("log.segment_closed", bytes=segment.size, crc32=segment.crc, **counts)


def make(
    path: Path, *, max_bytes: int = 0, backup_count: int = 0, writer: str = "aaaaaaaa", **options: Any
) -> tuple[SegmentWriter, Lines]:
    lines = Lines()
    made = SegmentWriter(
        path,
        writer,
        **options,
        max_bytes=max_bytes,
        backup_count=backup_count,
        file_mode=0o600,
        opening=lines.opening,
        closing=lines.closing,
        next_seq=lambda: lines.next_seq,
    )
    return made, lines


def put(writer: SegmentWriter, lines: Lines, number: int) -> None:
    """As the batcher does without trouble: rotate when it does not fit, then append."""
    first = lines.next_seq
    chunk = b"".join([lines.line("log", n=n) for n in range(number)])
    if not writer.fits(len(chunk)) and not writer.fresh:
        lines.next_seq = first
        writer.rotate()
        chunk = b"".join([lines.line("log", n=n) for n in range(number)])
    writer.append(chunk, number, number)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "app.jsonl"


def test_a_segment_has_header_records_and_footer(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    put(writer, lines, 3)
    writer.close()
    assert [e["event"] for e in events(path)] == ["log.segment_opened", "log", "log", "log", "log.segment_closed"]


def test_the_footer_counts_and_checks_all_bytes_before_it(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    put(writer, lines, 3)
    writer.close()
    data = path.read_bytes()
    before = data[: data.rfind(b"\n", 0, -1) + 1]
    footer = events(path)[-1]
    assert (footer["records"], footer["lines"], footer["last_seq"]) == (3, 4, 4)
    assert (footer["bytes"], footer["crc32"]) == (len(before), zlib.crc32(before))


def test_a_later_run_appends_and_its_checksum_covers_the_whole_file(path: Path) -> None:
    for _ in range(3):
        writer, lines = make(path)
        writer.open()
        put(writer, lines, 3)
        writer.close()
    data = path.read_bytes()
    before = data[: data.rfind(b"\n", 0, -1) + 1]
    assert events(path)[-1]["crc32"] == zlib.crc32(before)
    assert len([e for e in events(path) if e["event"] == "log"]) == 9


def test_the_checksum_covers_what_a_killed_writer_left(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    put(writer, lines, 3)
    writer.abandon()
    writer, lines = make(path)
    writer.open()
    writer.close()
    data = path.read_bytes()
    before = data[: data.rfind(b"\n", 0, -1) + 1]
    assert events(path)[-1]["crc32"] == zlib.crc32(before)


def test_a_torn_last_line_is_closed_off_before_anything_is_written(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"event":"log","seq":1}\n{"event":"lo')
    writer, _ = make(path)
    writer.open()
    writer.close()
    whole = path.read_bytes().splitlines()
    assert whole[1] == b'{"event":"lo'
    assert json.loads(whole[2])["torn"] == len(b'{"event":"lo')


def test_a_file_longer_than_a_read_is_taken_over_whole(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 3_000_000)
    writer, _ = make(path)
    writer.open()
    assert writer.segment.torn_bytes == 3_000_000
    writer.close()
    assert events_after(path, 3_000_001)[-1]["crc32"] == zlib.crc32(path.read_bytes().rsplit(b"\n", 2)[0] + b"\n")


def events_after(path: Path, offset: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes()[offset:].splitlines()]


def test_new_files_have_the_mode_asked_for(path: Path) -> None:
    writer, _ = make(path)
    writer.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    writer.abandon()


def test_the_second_writer_of_a_path_writes_beside_it(path: Path) -> None:
    first, _ = make(path)
    first.open()
    second, _ = make(path, writer="bbbbbbbb")
    second.open()
    assert second.path == path.with_name("app.bbbbbbbb.jsonl")
    assert (first.segment.owner, second.segment.owner) == (True, False)
    first.abandon()
    second.abandon()


def test_the_path_is_free_again_once_its_owner_has_closed(path: Path) -> None:
    first, _ = make(path)
    first.open()
    first.close()
    second, _ = make(path, writer="bbbbbbbb")
    second.open()
    assert second.path == path
    second.abandon()


def test_the_path_is_free_though_a_child_forked_just_now_still_has_the_descriptor(path: Path) -> None:
    first, _ = make(path)
    first.open()
    inherited = os.dup(first.segment.fd)  # refers to the same open file, and its lock, as a child's copy does
    first.close()
    second, _ = make(path, writer="bbbbbbbb")
    second.open()
    os.close(inherited)
    assert second.path == path
    second.abandon()


def test_no_segment_grows_beyond_max_bytes(path: Path) -> None:
    writer, lines = make(path, max_bytes=4096)
    writer.open()
    for _ in range(200):
        put(writer, lines, 5)
    writer.close()
    sizes = [file.stat().st_size for file in path.parent.iterdir()]
    assert len(sizes) > 3
    assert max(sizes) <= 4096


def test_numbers_go_on_over_rotations_in_name_order(path: Path) -> None:
    writer, lines = make(path, max_bytes=4096)
    writer.open()
    for _ in range(200):
        put(writer, lines, 5)
    writer.close()
    files = [*_retention.rotated(path), path]
    assert [e["seq"] for file in files for e in events(file)] == list(range(1, lines.next_seq))


def test_each_header_names_the_segment_before(path: Path) -> None:
    writer, lines = make(path, max_bytes=4096)
    writer.open()
    for _ in range(100):
        put(writer, lines, 5)
    writer.close()
    files = [*_retention.rotated(path), path]
    assert [events(file)[0]["previous_segment"] for file in files] == [None, *[file.name for file in files[:-1]]]


def test_only_backup_count_rotated_segments_are_kept(path: Path) -> None:
    writer, lines = make(path, max_bytes=2048, backup_count=2)
    writer.open()
    for _ in range(100):
        put(writer, lines, 5)
    writer.close()
    assert len(_retention.rotated(path)) == 2
    kept = [e["seq"] for file in [*_retention.rotated(path), path] for e in events(file)]
    assert kept == list(range(kept[0], lines.next_seq))


def test_retention_leaves_foreign_files_alone(path: Path) -> None:
    path.parent.mkdir()
    names = ["app.20200101T000000Z-000001.jsonl", "app.backup.jsonl", "apple.jsonl", "app.2020-1.jsonl", "notes.txt"]
    for name in names:
        (path.parent / name).write_text("mine")
    writer, lines = make(path, max_bytes=2048, backup_count=1)
    writer.open()
    for _ in range(100):
        put(writer, lines, 5)
    writer.close()
    assert all((path.parent / name).read_text() == "mine" for name in names)


def test_rotated_names_sort_in_write_order_though_the_clock_steps_back(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    names = []
    for now in (5000.0, 5000.0, 4000.0, 5001.0, 100.0):
        target = _retention.rotated_path(path, now)
        target.touch()
        names.append(target.name)
    assert names == sorted(names)
    assert len(set(names)) == 5


class Clock:
    """A wall clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_segment_is_overdue_once_it_is_as_old_as_the_interval(path: Path) -> None:
    clock = Clock()
    writer, lines = make(path, rotate_interval_s=60, clock=clock)
    writer.open()
    put(writer, lines, 1)
    clock.now += 59.9
    assert not writer.overdue
    clock.now += 0.1
    assert writer.overdue
    assert writer.due
    writer.rotate()
    assert not writer.overdue
    writer.close()


def test_segment_without_records_is_never_overdue(path: Path) -> None:
    clock = Clock()
    writer, _ = make(path, rotate_interval_s=60, clock=clock)
    writer.open()
    clock.now += 1000
    assert not writer.overdue
    writer.close()


def test_segment_is_never_overdue_without_an_interval(path: Path) -> None:
    clock = Clock()
    writer, lines = make(path, clock=clock)
    writer.open()
    put(writer, lines, 1)
    clock.now += 1e9
    assert not writer.overdue
    writer.close()


def test_age_of_a_file_that_is_continued_is_that_of_its_first_line(path: Path) -> None:
    clock = Clock()
    path.parent.mkdir()
    path.write_bytes(b'{"event":"log.segment_opened","timestamp":%d}\n' % (clock.now - 61))
    writer, _ = make(path, rotate_interval_s=60, clock=clock)
    writer.open()
    assert writer.overdue
    writer.close()


def test_segment_is_due_once_it_is_as_large_as_it_may_be(path: Path) -> None:
    writer, lines = make(path, max_bytes=200)
    writer.open()
    assert not writer.due
    put(writer, lines, 10)
    assert writer.due
    writer.close()


class Elsewhere(_retention.Layout):
    """Finished segments go to another folder."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, 0)
        self.folder = folder

    def rotated(self, path: Path, now: float) -> Path:
        self.folder.mkdir(exist_ok=True)
        return _retention.rotated_path(path, now, self.folder)


def test_layout_says_where_finished_segments_go(path: Path, tmp_path: Path) -> None:
    writer, lines = make(path, max_bytes=2048, layout=Elsewhere(path, tmp_path / "old"))
    writer.open()
    for _ in range(60):
        put(writer, lines, 5)
    writer.close()
    assert list(path.parent.iterdir()) == [path]
    files = [*_retention.rotated(path, tmp_path / "old"), path]
    assert len(files) > 3
    assert [e["seq"] for file in files for e in events(file)] == list(range(1, lines.next_seq))


def test_segment_that_cannot_go_where_the_layout_says_stays_beside(path: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("in the way")
    writer, lines = make(path, layout=Elsewhere(path, tmp_path / "old"))
    writer.open()
    put(writer, lines, 1)
    writer.rotate()
    assert isinstance(writer.retention_error, FileExistsError)
    assert len(_retention.rotated(path)) == 1
    (tmp_path / "old").unlink()
    put(writer, lines, 1)
    writer.rotate()
    assert writer.retention_error is None
    writer.close()


def test_a_deleted_file_is_made_anew(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    put(writer, lines, 3)
    path.unlink()
    with pytest.raises(SegmentLostError):
        put(writer, lines, 3)
    writer.open()
    put(writer, lines, 2)
    writer.close()
    assert [e["event"] for e in events(path)] == ["log.segment_opened", "log", "log", "log.segment_closed"]


def test_a_deleted_folder_is_made_anew(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(SegmentLostError):
        put(writer, lines, 3)
    writer.open()
    writer.close()
    assert path.exists()


def test_a_renamed_file_is_finished_under_its_new_name(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    put(writer, lines, 3)
    moved = path.with_name("moved.jsonl")
    path.rename(moved)
    chunk = b"".join([lines.line("log", n=n) for n in range(2)])
    with pytest.raises(SegmentLostError) as lost:
        writer.append(chunk, 2, 2)
    assert lost.value.lines_written == 2
    assert events(moved)[-1]["event"] == "log.segment_closed"
    assert events(moved)[-1]["records"] == 5
    writer.open()
    assert events(path)[0]["previous_segment"] == "app.jsonl"
    writer.abandon()


def test_a_truncated_file_gets_a_new_segment(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    put(writer, lines, 3)
    os.truncate(path, 0)
    with pytest.raises(SegmentLostError):
        put(writer, lines, 1)
    writer.open()
    put(writer, lines, 1)
    writer.close()
    data = path.read_bytes()
    assert b"\0" not in data
    assert events(path)[-1]["crc32"] == zlib.crc32(data[: data.rfind(b"\n", 0, -1) + 1])


def test_a_file_that_others_added_to_gets_a_new_segment(path: Path) -> None:
    writer, lines = make(path)
    writer.open()
    with path.open("ab") as file:
        file.write(b"half a li")
    with pytest.raises(SegmentLostError):
        put(writer, lines, 1)
    writer.open()
    put(writer, lines, 1)
    writer.close()
    assert b"half a li\n" in path.read_bytes()


def test_a_file_deleted_while_it_is_rotated_is_no_trouble(path: Path) -> None:
    writer, lines = make(path, max_bytes=2048)
    writer.open()
    put(writer, lines, 10)
    path.unlink()
    with pytest.raises(SegmentLostError):
        writer.rotate()
    writer.open()
    writer.close()
    assert path.exists()


def test_a_prune_that_fails_does_not_stop_the_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, lines = make(path, max_bytes=2048, backup_count=1)
    writer.open()

    def refuse(self: Path) -> None:
        raise PermissionError(errno.EACCES, "no", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(30):
        put(writer, lines, 5)
    assert isinstance(writer.retention_error, PermissionError)
    monkeypatch.undo()
    writer.close()


def test_a_directory_as_path_is_an_error_at_once(tmp_path: Path) -> None:
    writer, _ = make(tmp_path)
    with pytest.raises(IsADirectoryError):
        writer.open()


# -- a fault at every call ---------------------------------------------------------------------------------------------

FAULTS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EINTR, "short"]
FAULTY = ("open", "write", "fstat", "stat", "rename", "pread", "close", "fsync")


class FaultyOs:
    """The real `os`, whose n-th call of a function that touches files fails, once or `times` times in a row."""

    def __init__(self, at: int, fault: int | str, times: int) -> None:
        self._at = at
        self._fault = fault
        self._times = times
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._wrapped(name, real) if name in FAULTY else real

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.calls += 1
            if not self._at <= self.calls < self._at + self._times:
                return real(*args)
            if self._fault == "short":
                return real(args[0], args[1][: max(1, len(args[1]) // 2)]) if name == "write" else real(*args)
            if name == "close":
                real(*args)  # Linux closes the descriptor whatever it returns
            raise OSError(self._fault, os.strerror(int(self._fault)))

        return call


def drive(writer: SegmentWriter, lines: Lines, batches: int) -> int:
    """What the batcher does about failures: try again, encode again. Returns the records put."""

    def insist(operation: Callable[..., None], *args: Any, resume: Callable[..., None] | None = None) -> None:
        for _ in range(50):
            try:
                operation(*args)
            except OSError:
                operation = resume or operation
            else:
                return
        raise AssertionError("it never worked again")

    written = 0
    insist(writer.open)
    for batch in range(batches):
        numbers = list(range(batch * 5, batch * 5 + 5))
        while numbers:
            first = lines.next_seq
            chunk = b"".join([lines.line("log", n=n) for n in numbers])
            if not writer.fits(len(chunk)) and not writer.fresh:
                lines.next_seq = first
                try:
                    insist(writer.rotate)
                except SegmentLostError:
                    insist(writer.open)
                continue
            try:
                insist(writer.append, chunk, len(numbers), len(numbers), resume=writer.resume)
                done = len(numbers)
            except SegmentLostError as lost:
                done = lost.lines_written
                if done < len(numbers):
                    lines.next_seq = first + done
                insist(writer.open)
            numbers = numbers[done:]
            written += done
    insist(writer.close)
    return written


def check(path: Path, batches: int) -> None:
    files = [*_retention.rotated(path), path]
    whole = [e for file in files for e in events(file)]
    assert [e["n"] for e in whole if e["event"] == "log"] == list(range(batches * 5)), "each record once, in order"
    assert [e["seq"] for e in whole] == sorted({e["seq"] for e in whole})
    for file in files:
        data = file.read_bytes()
        footer = json.loads(data.splitlines()[-1])
        assert footer["event"] == "log.segment_closed"
        assert footer["crc32"] == zlib.crc32(data[: footer["bytes"]])


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int | str, int], FaultyOs]]:
    def install(at: int, fault: int | str, times: int) -> FaultyOs:
        shim = FaultyOs(at, fault, times)
        monkeypatch.setattr(_writer, "os", shim)
        return shim

    yield install
    monkeypatch.undo()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, 4])
def test_a_fault_at_every_call_loses_and_doubles_nothing(
    tmp_path: Path, faulty: Callable[[int, int | str, int], FaultyOs], fault: int | str, times: int
) -> None:
    batches, at = 12, 0
    while True:
        at += 1
        path = tmp_path / str(at) / "app.jsonl"
        writer, lines = make(path, max_bytes=1200)
        shim = faulty(at, fault, times)
        assert drive(writer, lines, batches) == batches * 5
        check(path, batches)
        if shim.calls < at:
            break
    assert at > 50, "the sweep covered the run"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.tuples(st.integers(1, 150), st.sampled_from(FAULTS), st.integers(1, 5)), max_size=4),
    max_bytes=st.sampled_from([0, 700, 1200, 5000]),
)
def test_any_mix_of_faults_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, faults: list[tuple[int, int | str, int]], max_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("w") / "app.jsonl"
    writer, lines = make(path, max_bytes=max_bytes)

    class Many(FaultyOs):
        def __init__(self) -> None:
            super().__init__(0, "short", 0)

        def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                self.calls += 1
                for at, fault, times in faults:
                    if at <= self.calls < at + times:
                        one = FaultyOs(1, fault, 1)
                        return one._wrapped(name, real)(*args)
                return real(*args)

            return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_writer, "os", Many())
        assert drive(writer, lines, 8) == 40
    check(path, 8)
