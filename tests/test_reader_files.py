"""Which files the reader finds, and in which order it reads them."""

import gzip
import os
from pathlib import Path

import pytest
from handmade import START, Writer, closed_log, rotated_log
from mutator import compress

from amsha_async_log import reader
from amsha_async_log.exceptions import ReadError
from amsha_async_log.reader import _lines
from amsha_async_log.reader._lanes import LogFile


def messages(*paths: Path | str) -> list[str]:
    return [record["message"] for record in reader.records(*paths) if record["event"] == "log"]


def writers(*paths: Path | str) -> set[str]:
    return {record["writer"] for record in reader.records(*paths)}


def test_directory_is_searched_recursively(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    closed_log(tmp_path / "one.jsonl", name="aaaaaaaa")
    closed_log(folder / "two.log", name="bbbbbbbb")
    assert writers(tmp_path) == {"aaaaaaaa", "bbbbbbbb"}


def test_directory_search_passes_over_payloads_and_unfinished_files(tmp_path: Path) -> None:
    closed_log(tmp_path / "one.jsonl")
    payloads = tmp_path / "one.payloads"
    payloads.mkdir()
    (payloads / "x.jsonl").write_text("garbage\n")
    (tmp_path / "one.jsonl.gz.tmp").write_bytes(b"half")
    assert reader.verify(tmp_path).ok


def test_directory_search_passes_over_files_with_other_names(tmp_path: Path) -> None:
    closed_log(tmp_path / "one.jsonl")
    (tmp_path / "notes.txt").write_text("hello\n")
    assert reader.verify(tmp_path).findings == []


def test_file_brings_its_rotated_segments_in_order(tmp_path: Path) -> None:
    files = rotated_log(tmp_path / "app.jsonl", segments=12, records=2)
    assert len(files) == 12
    expected = [f"record {number} of segment {segment}" for segment in range(12) for number in range(2)]
    assert messages(tmp_path / "app.jsonl") == expected


def test_rotated_segment_brings_the_whole_family(tmp_path: Path) -> None:
    files = rotated_log(tmp_path / "app.jsonl", segments=3, records=2)
    assert len(messages(files[1])) == 6


def test_file_brings_the_writers_beside_it_and_their_rotated_segments(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl", name="aaaaaaaa")
    rotated_log(tmp_path / "app.bbbbbbbb.jsonl", segments=3, name="bbbbbbbb")
    assert len(messages(tmp_path / "app.jsonl")) == 10 + 30


def test_file_of_a_writer_beside_the_owner_brings_the_family_too(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl", name="aaaaaaaa")
    closed_log(tmp_path / "app.bbbbbbbb.jsonl", name="bbbbbbbb")
    assert writers(tmp_path / "app.bbbbbbbb.jsonl") == {"aaaaaaaa", "bbbbbbbb"}


def test_file_does_not_bring_another_log_that_looks_like_a_writer_beside_it(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl", name="aaaaaaaa")
    closed_log(tmp_path / "app.research.jsonl", name="bbbbbbbb")
    assert writers(tmp_path / "app.jsonl") == {"aaaaaaaa"}
    assert writers(tmp_path / "app.research.jsonl") == {"bbbbbbbb"}


def test_file_does_not_bring_logs_with_other_stems_or_suffixes(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl", name="aaaaaaaa")
    closed_log(tmp_path / "app2.jsonl", name="bbbbbbbb")
    closed_log(tmp_path / "app.log", name="cccccccc")
    assert writers(tmp_path / "app.jsonl") == {"aaaaaaaa"}


def test_active_file_may_be_gone_while_rotated_segments_are_there(tmp_path: Path) -> None:
    files = rotated_log(tmp_path / "app.jsonl", segments=3, records=2)
    files[-1].unlink()
    assert len(messages(tmp_path / "app.jsonl")) == 4


def test_glob_stands_for_what_it_matches(tmp_path: Path) -> None:
    for name in ("aaaaaaaa", "bbbbbbbb"):
        closed_log(tmp_path / f"{name[0]}-app.jsonl", name=name)
    assert writers(str(tmp_path / "a-*.jsonl")) == {"aaaaaaaa"}
    assert writers(str(tmp_path / "**" / "*.jsonl")) == {"aaaaaaaa", "bbbbbbbb"}


def test_file_with_glob_characters_in_its_name_is_read(tmp_path: Path) -> None:
    closed_log(tmp_path / "app[1].jsonl")
    assert len(messages(tmp_path / "app[1].jsonl")) == 10


def test_file_named_twice_is_read_once(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    assert len(messages(tmp_path, tmp_path / "app.jsonl")) == 10


def test_compressed_segments_are_read(tmp_path: Path) -> None:
    files = rotated_log(tmp_path / "app.jsonl", segments=3, records=2)
    compress(files[0])
    assert len(messages(tmp_path / "app.jsonl")) == 6
    assert reader.verify(tmp_path).ok


def test_plain_form_wins_while_a_segment_is_compressed(tmp_path: Path) -> None:
    files = rotated_log(tmp_path / "app.jsonl", segments=3, records=2)
    files[0].with_name(files[0].name + ".gz").write_bytes(gzip.compress(files[0].read_bytes())[:50])
    assert reader.verify(tmp_path).ok


def test_damaged_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl.gz"
    closed_log(tmp_path / "app.jsonl")
    compress(tmp_path / "app.jsonl")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReadError, match=r"app\.jsonl\.gz"):
        list(reader.records(path))


def test_zstd_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl.zst"
    path.write_bytes(b"x")
    with pytest.raises(ReadError, match="zstd is not supported"):
        list(reader.records(path))


def test_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"nowhere\.jsonl: no such file"):
        list(reader.records(tmp_path / "nowhere.jsonl"))


def test_glob_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        list(reader.records(str(tmp_path / "*.jsonl")))


def test_empty_directory_has_no_lines(tmp_path: Path) -> None:
    assert list(reader.records(tmp_path)) == []


def test_without_a_path_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_log(tmp_path / "here.jsonl")
    monkeypatch.setenv("AMSHA_LOG_PATH", str(tmp_path / "here.jsonl"))
    assert len(messages()) == 10


@pytest.mark.parametrize("folder", ["logs", ".Nibandha"])
def test_without_a_path_or_environment_the_usual_directories_are_read(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMSHA_LOG_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    closed_log(tmp_path / folder / "app.jsonl")
    assert len(messages()) == 10


def test_without_any_default_the_reader_says_what_it_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMSHA_LOG_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReadError, match="AMSHA_LOG_PATH is not set"):
        list(reader.records())


def test_lines_of_writers_come_merged_by_time(tmp_path: Path) -> None:
    writers_ = [Writer(tmp_path / f"app.{name * 8}.jsonl", name * 8, start=START) for name in "abc"]
    for writer in writers_:
        writer.open_segment()
    for number in range(20):
        writer = writers_[number % 3]
        writer.time = START + 1 + number
        writer.write(message=str(number))
    for writer in writers_:
        writer.time = START + 100
        writer.close()
    assert messages(tmp_path) == [str(number) for number in range(20)]


def test_lines_of_one_writer_keep_their_order_when_its_clock_steps_back(tmp_path: Path) -> None:
    closed_log(tmp_path / "other.jsonl", name="bbbbbbbb", start=START + 50)
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment()
    for number in range(20):
        writer.time = START + 100 - number
        writer.write(message=str(number))
    records = [r for r in reader.records(tmp_path) if r["writer"] == writer.name and r["event"] == "log"]
    assert [r["message"] for r in records] == [str(number) for number in range(20)]


def test_long_line_is_read_whole(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment()
    writer.write(message="long", text="x" * 5_000_000)
    writer.write(message="after")
    writer.close()
    long = next(record for record in reader.records(tmp_path) if record["message"] == "long")
    assert len(long["text"]) == 5_000_000
    assert reader.verify(tmp_path).ok


def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    path.write_bytes(b'nonsense\n[1]\n\n\xff\xfe\n{"a":1}\n{"a":1e999}\n"text"\n{"a":')
    assert list(reader.records(path)) == [{"a": 1}, {"a": float("inf")}]


def test_reading_can_stop_early(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    records = reader.records(tmp_path)
    assert next(records)["event"] == "log.segment_opened"
    records.close()  # type: ignore[attr-defined]


def test_lines_of_the_same_time_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    for name in "cba":
        writer = Writer(tmp_path / f"{name}.jsonl", name * 8, step=0.0)
        writer.write(message=f"{name}1")
        writer.write(message=f"{name}2")
    assert messages(tmp_path) == ["a1", "a2", "b1", "b2", "c1", "c2"]


def test_line_too_long_for_the_memory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines, "CHUNK_BYTES", 64)
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 1000)
    writer = Writer(tmp_path / "app.jsonl")
    writer.write(message="before")
    writer.append(b"x" * 10_000 + b"\n")
    writer.write(message="after")
    writer.append(b"x" * 10_000)
    assert messages(tmp_path) == ["before", "after"]
    report = reader.verify(tmp_path)
    assert (report.corrupt_lines, report.torn_lines, report.writers[0].missing) == (2, 0, 0)


def test_checksum_covers_lines_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines, "CHUNK_BYTES", 64)
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 1000)
    writer = Writer(tmp_path / "app.jsonl")
    writer.open_segment()
    writer.append(b"x" * 10_000 + b"\n")
    writer.close()
    assert reader.verify(tmp_path).checksum_failures == 0


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that opens and cannot be read")
def test_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ReadError, match="cannot read /proc/self/mem: Input/output error"):
        list(reader.records("/proc/self/mem"))


def test_what_is_no_regular_file_is_said_to_be_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    with pytest.raises(ReadError, match=r"app\.jsonl: not a regular file"):
        list(reader.records(tmp_path / "app.jsonl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_named(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    (tmp_path / "app.jsonl").chmod(0)
    with pytest.raises(ReadError, match=r"app\.jsonl: Permission denied"):
        list(reader.records(tmp_path))


def test_segment_that_is_compressed_before_it_is_read_is_read_all_the_same(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    file = LogFile(tmp_path / "app.jsonl")
    compress(tmp_path / "app.jsonl")
    assert len(list(file.lines())) == 13


def test_segment_that_retention_removes_before_it_is_read_has_no_lines(tmp_path: Path) -> None:
    closed_log(tmp_path / "app.jsonl")
    file = LogFile(tmp_path / "app.jsonl")
    (tmp_path / "app.jsonl").unlink()
    assert (list(file.lines()), file.gone) == ([], True)
