"""The last lines of a log and those added to it, through everything that can happen to its files meanwhile."""

from pathlib import Path

import pytest
from handmade import START, Writer, closed_log, rotated_log
from mutator import compress

from amsha_async_log import reader
from amsha_async_log.exceptions import ReadError
from amsha_async_log.reader import _tail


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment()
    return writer


def texts(records: list[dict[str, object]]) -> list[object]:
    return [record["message"] for record in records]


@pytest.mark.parametrize("last", [0, 1, 5, 9, 10, 11, 40, 1000])
def test_last_lines_are_those_at_the_end_across_segments(tmp_path: Path, last: int) -> None:
    rotated_log(tmp_path / "app.jsonl", segments=4, records=10)
    everything = list(reader.records(tmp_path))
    assert reader.Follower(tmp_path).start(last) == everything[max(0, len(everything) - last) :]


def test_last_lines_are_those_of_all_writers_by_time(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl", name="aaaaaaaa", start=START)
    closed_log(tmp_path / "app.bbbbbbbb.jsonl", name="bbbbbbbb", start=START + 0.0055)
    everything = list(reader.records(tmp_path))
    assert reader.Follower(tmp_path).start(15) == everything[-15:]


def test_last_lines_are_found_in_compressed_segments_too(tmp_path: Path) -> None:
    files = rotated_log(tmp_path / "app.jsonl", segments=3, records=5)
    everything = list(reader.records(tmp_path))
    compress(files[0])
    compress(files[1])
    assert reader.Follower(tmp_path).start(19) == everything[-19:]


def test_last_line_longer_than_a_block_is_whole(writer: Writer) -> None:
    writer.write(message="long", text="x" * (3 * _tail.BLOCK_BYTES))
    writer.write(message="end")
    assert texts(reader.Follower(writer.path).start(2)) == ["long", "end"]


def test_nothing_new_is_nothing(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    assert follower.poll() == []


def test_added_lines_come_once(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    writer.write(message="one")
    writer.write(message="two")
    assert texts(follower.poll()) == ["one", "two"]
    assert follower.poll() == []


def test_line_being_written_comes_when_it_is_whole(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    line = writer.line(message="slow")
    writer.append(line[:20])
    follower.start()
    assert follower.poll() == []
    writer.append(line[20:-1])
    assert follower.poll() == []
    writer.append(line[-1:])
    assert texts(follower.poll()) == ["slow"]


def test_lines_come_through_a_rotation(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    writer.write(message="before")
    writer.rotate(1)
    writer.write(message="after")
    assert [text for text in texts(follower.poll()) if not str(text).startswith("log.")] == ["before", "after"]


def test_lines_come_through_several_rotations_between_two_polls(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    for number in range(5):
        writer.write(message=str(number))
        writer.rotate(number + 1)
    assert [text for text in texts(follower.poll()) if not str(text).startswith("log.")] == list("01234")
    assert follower.poll() == []


def test_rotated_segment_that_is_compressed_is_not_read_again(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    writer.write(message="before")
    rotated = writer.rotate(1)
    follower.poll()
    compress(rotated)
    assert follower.poll() == []


def test_new_writer_beside_the_owner_is_followed(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    closed_log(writer.path.with_name("app.bbbbbbbb.jsonl"), records=2, name="bbbbbbbb")
    assert texts(follower.poll())[1:3] == ["record 0", "record 1"]


def test_new_file_in_a_followed_directory_is_followed(tmp_path: Path) -> None:
    follower = reader.Follower(tmp_path)
    assert follower.start() == []
    closed_log(tmp_path / "new.log", records=2)
    assert texts(follower.poll())[1:3] == ["record 0", "record 1"]


def test_file_that_was_emptied_is_read_from_its_beginning(writer: Writer) -> None:
    writer.write(message="old " * 20)
    follower = reader.Follower(writer.path)
    follower.start()
    writer.path.write_bytes(b"")
    writer.write(message="new")
    assert texts(follower.poll()) == ["new"]


def test_file_that_was_replaced_by_a_longer_one_is_read_from_its_beginning(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    writer.path.write_bytes(b"")
    for _ in range(20):
        writer.write(message="new")
    assert texts(follower.poll()) == ["new"] * 20


def test_burst_larger_than_a_poll_comes_in_several(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tail, "POLL_BYTES", 1000)
    follower = reader.Follower(writer.path)
    follower.start()
    for number in range(50):
        writer.write(message=str(number))
    batches = []
    while batch := follower.poll():
        batches.append(batch)
    assert len(batches) > 5
    assert [text for batch in batches for text in texts(batch)] == [str(number) for number in range(50)]


def test_line_longer_than_a_poll_comes_whole(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tail, "POLL_BYTES", 1000)
    follower = reader.Follower(writer.path)
    follower.start()
    writer.write(message="x" * 10_000)
    assert texts(follower.poll()) == ["x" * 10_000]


def test_unreadable_lines_are_counted(writer: Writer) -> None:
    follower = reader.Follower(writer.path)
    follower.start()
    writer.append(b"nonsense\n")
    writer.write(message="good")
    assert texts(follower.poll()) == ["good"]
    assert follower.unreadable == 1


def test_log_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"app\.jsonl"):
        reader.Follower(tmp_path / "app.jsonl").start()


def test_file_that_was_replaced_by_one_of_the_same_size_is_read_from_its_beginning(writer: Writer) -> None:
    writer.write(message="old")
    size = writer.path.stat().st_size
    follower = reader.Follower(writer.path)
    follower.start()
    line = writer.line(message="new")
    writer.path.write_bytes(line[:-2] + b" " * (size - len(line)) + line[-2:])
    assert texts(follower.poll()) == ["new"]
