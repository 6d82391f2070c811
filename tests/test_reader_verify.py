"""What `reader.verify` says of logs made by hand, damaged and not."""

import fcntl
from pathlib import Path

import pytest
from handmade import START, Writer, closed_log, rotated_log
from mutator import (
    compress,
    cut_line,
    delete_line,
    duplicate_line,
    edit_field,
    insert_line,
    line_count,
    remove_file,
    swap_lines,
    truncate_at_line,
    truncate_bytes,
)

from amsha_async_log import reader
from amsha_async_log.exceptions import ReadError


def kinds(report: reader.Report) -> list[str]:
    return [finding.kind for finding in report.findings]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.jsonl"


# -- logs as their writers left them -----------------------------------------------------------------------------------


def test_closed_log_is_complete(path: Path) -> None:
    closed_log(path)
    report = reader.verify(path)
    assert report == reader.Report(
        ok=True,
        writers=[
            reader.WriterReport(
                writer="aaaaaaaa", records=10, first_seq=1, last_seq=13, missing=0, dropped=0, refused=0, end="closed"
            )
        ],
        torn_lines=0,
        corrupt_lines=0,
        duplicates=0,
        segments=1,
        checksum_failures=0,
        secrets_found=None,
        out_of_order=0,
        findings=[],
    )


def test_rotated_log_is_complete(path: Path) -> None:
    rotated_log(path, segments=5)
    report = reader.verify(path)
    assert (report.ok, report.segments, report.writers[0].records, report.findings) == (True, 5, 50, [])


def test_runs_that_append_to_one_file_are_complete(path: Path) -> None:
    for name in ("aaaaaaaa", "bbbbbbbb", "cccccccc"):
        closed_log(path, name=name)
    report = reader.verify(path)
    assert (report.ok, report.segments, [w.end for w in report.writers]) == (True, 3, ["closed"] * 3)


def test_segments_removed_by_retention_are_not_missing(path: Path) -> None:
    files = rotated_log(path, segments=5)
    for file in files[:2]:
        remove_file(file)
    (writer,) = (report := reader.verify(path)).writers
    assert report.ok
    assert (writer.missing, writer.first_seq) == (0, 25)


def test_declared_loss_is_told_and_all_right(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.lose(7)
    writer.totals.update(offered=20, accepted=13, written=10, dropped=2, failed=1)
    writer.close()
    (told,) = (report := reader.verify(path)).writers
    assert report.ok
    assert (told.refused, told.dropped) == (7, 3)


def test_loss_is_that_of_the_latest_line_with_totals(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.lose(7)
    writer.lose(5)
    assert reader.verify(path).writers[0].refused == 12


def test_killed_writer_is_all_right_and_its_end_unknown(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.write(message="last words")
    report = reader.verify(path)
    assert (report.ok, report.writers[0].end, kinds(report)) == (True, "unknown", ["unclosed"])


def test_writer_that_holds_its_lock_is_running(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = reader.verify(path)
    assert (report.ok, report.writers[0].end, report.findings) == (True, "running", [])


def test_torn_last_line_of_a_running_writer_is_in_flight(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.append(writer.line()[:20])
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = reader.verify(path)
    assert (report.ok, report.torn_lines, report.findings) == (True, 0, [])


def test_lock_is_looked_at_and_given_back(path: Path) -> None:
    closed_log(path)
    reader.verify(path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_torn_last_line_of_a_killed_writer_is_counted_and_all_right(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.append(writer.line()[:20])
    report = reader.verify(path)
    assert (report.ok, report.torn_lines, report.corrupt_lines) == (True, 1, 0)
    assert kinds(report) == ["torn", "unclosed"]


def test_last_line_without_its_newline_still_counts(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.append(writer.line()[:-1])
    report = reader.verify(path)
    assert (report.ok, report.torn_lines, report.writers[0].last_seq) == (True, 1, 2)


def test_healed_tear_is_counted_and_all_right(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.append(writer.line()[:33])
    closed_log(path, name="bbbbbbbb")
    report = reader.verify(path)
    assert (report.ok, report.torn_lines, report.corrupt_lines, report.segments) == (True, 1, 0, 2)
    assert kinds(report) == ["healed", "unclosed"]


def test_tear_of_another_length_than_declared_is_corrupt(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.append(writer.line()[:33])
    closed_log(path, name="bbbbbbbb")
    cut_line(path, 1, 20)
    report = reader.verify(path)
    assert (report.ok, report.corrupt_lines) == (False, 1)


def test_compressed_segments_are_complete(path: Path) -> None:
    for file in rotated_log(path)[:2]:
        compress(file)
    report = reader.verify(path)
    assert (report.ok, report.segments) == (True, 4)


def test_writers_beside_each_other_are_complete(path: Path) -> None:
    closed_log(path)
    closed_log(path.with_name("app.bbbbbbbb.jsonl"), name="bbbbbbbb")
    report = reader.verify(path)
    assert (report.ok, len(report.writers), report.segments) == (True, 2, 2)


def test_unknown_events_of_the_log_are_all_right(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.write("log.from_the_future", something=[1, 2])
    writer.close()
    assert reader.verify(path).ok


def test_lines_without_segments_are_told_but_all_right(path: Path) -> None:
    writer = Writer(path)
    for _ in range(3):
        writer.write()
    report = reader.verify(path)
    assert (report.ok, report.writers[0].records, kinds(report)) == (True, 3, ["no_header", "unclosed"])


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(13))
def test_deleted_line_is_missing(path: Path, index: int) -> None:
    closed_log(path)
    delete_line(path, index)
    report = reader.verify(path)
    if index == 12:  # the same as a writer killed right before it wrote the line
        assert (report.ok, kinds(report)) == (True, ["no_footer"])
    else:
        assert not report.ok
        assert (report.writers[0].missing, report.checksum_failures) == (1, 1)
        assert "missing" in kinds(report)


def test_deleted_line_is_missing_also_where_no_checksum_covers_it(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    for _ in range(5):
        writer.write()
    delete_line(path, 3)
    report = reader.verify(path)
    assert (report.ok, report.writers[0].missing, report.checksum_failures) == (False, 1, 0)


def test_deleted_header_is_missing_also_where_no_checksum_covers_it(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.write()
    delete_line(path, 0)
    report = reader.verify(path)
    assert (report.ok, report.writers[0].missing) == (False, 1)


def test_several_deleted_lines_are_one_finding(path: Path) -> None:
    closed_log(path)
    for _ in range(3):
        delete_line(path, 4)
    (finding,) = (f for f in reader.verify(path).findings if f.kind == "missing")
    assert (finding.seq, finding.line, finding.writer) == (5, 5, "aaaaaaaa")
    assert "3 lines are missing of writer aaaaaaaa (seq 5 to 7)" in finding.message


@pytest.mark.parametrize("index", range(13))
@pytest.mark.parametrize("to", [0, 6, 13])
def test_duplicated_line_is_a_duplicate(path: Path, index: int, to: int) -> None:
    closed_log(path)
    duplicate_line(path, index, to)
    report = reader.verify(path)
    assert not report.ok
    assert "duplicate" in kinds(report)
    assert (report.duplicates, report.writers[0].missing) == (1, 0)


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("distance", [1, 4])
def test_swapped_lines_are_out_of_order(path: Path, index: int, distance: int) -> None:
    closed_log(path)
    swap_lines(path, index, (index + distance) % 13)
    report = reader.verify(path)
    assert not report.ok
    assert "out_of_order" in kinds(report)
    assert (report.out_of_order > 0, report.writers[0].missing, report.duplicates) == (True, 0, 0)


@pytest.mark.parametrize("index", range(13))
def test_cut_line_is_corrupt(path: Path, index: int) -> None:
    closed_log(path)
    cut_line(path, index, 40)
    report = reader.verify(path)
    assert not report.ok
    assert "corrupt" in kinds(report)
    assert report.corrupt_lines == 1


@pytest.mark.parametrize("index", range(12))
def test_edited_line_fails_the_checksum(path: Path, index: int) -> None:
    closed_log(path)
    assert edit_field(path, index, "message")
    report = reader.verify(path)
    assert not report.ok
    assert (kinds(report), report.checksum_failures, report.writers[0].missing) == (["checksum"], 1, 0)


@pytest.mark.parametrize("field", ["records", "lines", "first_seq", "last_seq", "bytes", "crc32", "offered", "written"])
def test_edited_footer_fails_the_checksum(path: Path, field: str) -> None:
    closed_log(path)
    assert edit_field(path, 12, field)
    report = reader.verify(path)
    assert (report.ok, kinds(report), report.checksum_failures) == (False, ["checksum"], 1)


@pytest.mark.parametrize("data", [b'{"a":1}', b"[]", b"", b"\x00\xff", b'{"writer":"aaaaaaaa","seq":"7"}'])
def test_foreign_line_is_corrupt(path: Path, data: bytes) -> None:
    closed_log(path)
    insert_line(path, 5, data)
    report = reader.verify(path)
    assert (report.ok, report.corrupt_lines, report.writers[0].missing) == (False, 1, 0)
    assert set(kinds(report)) & {"foreign", "corrupt"}


def test_line_of_another_writer_inside_a_segment_is_foreign(path: Path) -> None:
    closed_log(path)
    insert_line(path, 5, Writer(path, "zzzzzzzz").line()[:-1])
    report = reader.verify(path)
    assert (report.ok, report.corrupt_lines) == (False, 1)
    assert "foreign" in kinds(report)


def test_line_whose_writer_was_edited_is_foreign_and_missing(path: Path) -> None:
    closed_log(path)
    assert edit_field(path, 5, "writer")
    report = reader.verify(path)
    assert not report.ok
    assert {"foreign", "missing", "checksum"} <= set(kinds(report))


@pytest.mark.parametrize("segment", range(3))
def test_damage_in_one_segment_fails_its_own_checksum_only(path: Path, segment: int) -> None:
    for name in ("aaaaaaaa", "bbbbbbbb", "cccccccc"):
        closed_log(path, name=name)
    assert edit_field(path, 13 * segment + 5, "message")
    report = reader.verify(path)
    (finding,) = report.findings
    assert (report.checksum_failures, finding.writer) == (1, "abc"[segment] * 8)


def test_missing_rotated_segment_is_named(path: Path) -> None:
    files = rotated_log(path)
    remove_file(files[1])
    report = reader.verify(path)
    (finding,) = report.findings
    assert (report.ok, report.writers[0].missing) == (False, 12)
    assert (finding.kind, finding.file) == ("missing_segment", str(files[1]))


def test_missing_last_segment_leaves_the_end_unknown(path: Path) -> None:
    files = rotated_log(path)
    remove_file(files[-1])
    report = reader.verify(path)
    assert (report.ok, report.writers[0].end, kinds(report)) == (True, "unknown", ["unclosed"])
    assert "the next segment is not there" in report.findings[0].message


@pytest.mark.parametrize("keep", range(12))
@pytest.mark.parametrize("segment", range(3))
def test_truncated_rotated_segment_is_named(path: Path, segment: int, keep: int) -> None:
    files = rotated_log(path)
    truncate_at_line(files[segment], keep)
    report = reader.verify(path)
    assert not report.ok
    assert report.writers[0].missing >= 1
    assert any(
        finding.file == str(files[segment]) or files[segment].name in finding.message for finding in report.findings
    )


def test_rotated_segment_cut_inside_a_line_is_named(path: Path) -> None:
    files = rotated_log(path)
    truncate_bytes(files[1], files[1].stat().st_size - 10)
    report = reader.verify(path)
    assert (report.ok, report.torn_lines) == (False, 1)
    assert {"torn", "truncated", "missing"} <= set(kinds(report))


def test_truncated_last_segment_leaves_the_end_unknown(path: Path) -> None:
    closed_log(path)
    truncate_at_line(path, 6)
    report = reader.verify(path)
    assert (report.ok, report.writers[0].end, kinds(report)) == (True, "unknown", ["unclosed"])


def test_renamed_segments_are_out_of_order(path: Path) -> None:
    files = rotated_log(path)
    aside = path.with_name("aside")
    files[0].rename(aside)
    files[1].rename(files[0])
    aside.rename(files[1])
    report = reader.verify(path)
    assert (report.ok, report.out_of_order) == (False, 1)


def test_copied_file_is_a_duplicate(path: Path) -> None:
    closed_log(path)
    path.with_name("copy.jsonl").write_bytes(path.read_bytes())
    report = reader.verify(path.parent)
    assert (report.ok, report.duplicates, kinds(report)) == (False, 13, ["duplicate"])


def test_damaged_compressed_segment_is_named(path: Path) -> None:
    compressed = compress(rotated_log(path)[1])
    compressed.write_bytes(compressed.read_bytes()[:60])
    report = reader.verify(path)
    assert not report.ok
    assert "damaged_file" in kinds(report)


def test_garbage_instead_of_a_segment_is_corrupt(path: Path) -> None:
    files = rotated_log(path)
    files[-1].write_bytes(b"\x00" * 5000 + b"\n" + b"what\n" * 3)
    report = reader.verify(path)
    assert (report.ok, report.corrupt_lines) == (False, 4)


def test_log_of_another_program_is_set_aside(path: Path) -> None:
    closed_log(path)
    path.with_name("other.log").write_text("INFO starting\nINFO done\n")
    report = reader.verify(path.parent)
    assert (report.ok, report.corrupt_lines, kinds(report)) == (True, 0, ["foreign_file"])


def test_nothing_but_foreign_lines_is_not_ok(path: Path) -> None:
    path.write_text("INFO starting\nINFO done\n")
    report = reader.verify(path)
    assert (report.ok, report.corrupt_lines, report.writers) == (False, 2, [])


def test_no_file_at_all_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no log file"):
        reader.verify(tmp_path)


def test_many_findings_are_not_all_listed(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    lines = [writer.line() for _ in range(4000)]
    writer.append(b"".join(lines[::2]))
    report = reader.verify(path)
    assert (len(report.findings), report.findings[-1].kind) == (1001, "more")
    assert report.writers[0].missing == 1999


def test_header_and_file_order_survive_a_clock_that_steps_back(path: Path) -> None:
    writer = Writer(path, start=START)
    writer.open_segment()
    writer.time = START - 3600
    writer.write()
    writer.rotate(1)
    writer.close()
    assert reader.verify(path).ok


def test_fields_of_wrong_types_lose_no_line(path: Path) -> None:
    writer = Writer(path)
    writer.open_segment()
    writer.append(writer.line().replace(b'"timestamp":', b'"timestamp":"late","old":'))
    writer.append(writer.line("log.recovered", torn_bytes="many"))
    writer.close()
    report = reader.verify(path)
    assert (report.ok, report.writers[0].records) == (True, 1)


def test_every_line_is_counted_once_whatever_the_damage(path: Path) -> None:
    rotated_log(path)
    assert sum(line_count(file) for file in path.parent.iterdir()) == sum(1 for _ in reader.records(path))


def test_writer_that_moved_to_another_path_is_complete(path: Path) -> None:
    writer = Writer(path.with_name("app.aaaaaaaa.jsonl"))
    writer.open_segment(owner=False)
    writer.write()
    rotated = writer.rotate(1)
    writer.path.unlink()
    writer.path, writer.previous, writer.seq = path, rotated.name, writer.seq - 1
    writer.open_segment()
    writer.write()
    writer.close()
    report = reader.verify(path)
    assert (report.ok, report.segments, report.findings) == (True, 2, [])
