"""A log written by the package itself, damaged at random places: every damage is found and named."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mutator import (
    compress,
    cut_line,
    delete_line,
    duplicate_line,
    edit_byte,
    edit_field,
    insert_line,
    line_count,
    remove_file,
    swap_lines,
    truncate_at_line,
    truncate_bytes,
)

from amsha_async_log import open_log, reader

ROUNDS = 40
RECORDS = 300


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    with open_log(folder / "app.jsonl", level="DEBUG", max_bytes=20_000, console=False) as log:
        for number in range(RECORDS):
            log.info("record %d", number, number=number, text="some words to fill the line")
    return folder


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.node.name)


class Copies:
    """Fresh copies of the original, to be damaged."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = original
        self._folder = folder
        self._number = 0

    def files(self) -> list[Path]:
        """The files of a new copy in the order they were written, the active one last."""
        self._number += 1
        folder = self._folder / str(self._number)
        shutil.copytree(self._original, folder)
        return sorted(folder.iterdir(), key=lambda file: (file.name == "app.jsonl", file.name))


@pytest.fixture
def copies(original: Path, tmp_path: Path) -> Copies:
    return Copies(original, tmp_path)


def verify(file: Path) -> tuple[reader.Report, set[str]]:
    report = reader.verify(file.parent)
    return report, {finding.kind for finding in report.findings}


def is_last_line(files: list[Path], file: Path, index: int) -> bool:
    """The very last line of the log: without it the log is as if its writer had been killed just before."""
    return file == files[-1] and index == line_count(file) - 1


def test_original_is_complete_and_has_several_segments(original: Path) -> None:
    report = reader.verify(original)
    (writer,) = report.writers
    assert (report.ok, report.findings, writer.end, writer.records) == (True, [], "closed", RECORDS)
    assert report.segments >= 4


def test_deleted_line_is_missing(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        files = copies.files()
        file = chance.choice(files)
        index = chance.randrange(line_count(file))
        last = is_last_line(files, file, index)
        delete_line(file, index)
        report, kinds = verify(file)
        if last:
            assert kinds == {"no_footer"}
        else:
            assert not report.ok
            assert "missing" in kinds
            assert report.writers[0].missing == 1


def test_duplicated_line_is_a_duplicate(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        file = chance.choice(copies.files())
        count = line_count(file)
        duplicate_line(file, chance.randrange(count), chance.randrange(count + 1))
        report, kinds = verify(file)
        assert not report.ok
        assert "duplicate" in kinds
        assert (report.duplicates, report.writers[0].missing) == (1, 0)


def test_swapped_lines_are_out_of_order(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        file = chance.choice(copies.files())
        swap_lines(file, *chance.sample(range(line_count(file)), 2))
        report, kinds = verify(file)
        assert not report.ok
        assert "out_of_order" in kinds
        assert (report.writers[0].missing, report.duplicates) == (0, 0)


@pytest.mark.parametrize("field", ["message", "number", "text", "timestamp", "level"])
def test_edited_field_fails_the_checksum(copies: Copies, chance: random.Random, field: str) -> None:
    edited = 0
    for _ in range(ROUNDS):
        file = chance.choice(copies.files())
        index = chance.randrange(line_count(file) - 1)  # a footer is covered by its own counts, not by its checksum
        if not edit_field(file, index, field):
            continue
        edited += 1
        report, kinds = verify(file)
        assert not report.ok
        assert "checksum" in kinds
        assert report.writers[0].missing == 0
    assert edited or field == "level"


@pytest.mark.parametrize("field", ["seq", "writer"])
def test_edited_envelope_is_named(copies: Copies, chance: random.Random, field: str) -> None:
    for _ in range(ROUNDS):
        files = copies.files()
        file = chance.choice(files)
        index = chance.randrange(line_count(file))
        last = is_last_line(files, file, index)
        if edit_field(file, index, field):
            report, kinds = verify(file)
            assert kinds
            assert not report.ok or last


@pytest.mark.parametrize("field", ["records", "lines", "first_seq", "last_seq", "bytes", "crc32", "accepted"])
def test_edited_footer_fails_the_checksum(copies: Copies, field: str) -> None:
    for position in range(len(copies.files())):
        file = copies.files()[position]
        assert edit_field(file, line_count(file) - 1, field)
        report, kinds = verify(file)
        assert not report.ok
        assert kinds == {"checksum"}


def test_changed_byte_is_found(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        file = chance.choice(copies.files())
        footer = len(file.read_bytes().splitlines(keepends=True)[-1])
        edit_byte(file, chance.randrange(file.stat().st_size - footer), 1 << chance.randrange(8))
        report, kinds = verify(file)
        assert not report.ok
        assert kinds & {"checksum", "missing", "corrupt", "foreign"}


def test_cut_line_is_corrupt(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        file = chance.choice(copies.files())
        cut_line(file, chance.randrange(line_count(file)), chance.randrange(1, 100))
        report, kinds = verify(file)
        assert not report.ok
        assert "corrupt" in kinds
        assert report.corrupt_lines == 1


@pytest.mark.parametrize("data", [b"", b"INFO something else", b'{"level":"INFO"}', b"\x00" * 100])
def test_foreign_line_is_corrupt(copies: Copies, chance: random.Random, data: bytes) -> None:
    for _ in range(ROUNDS // 4):
        file = chance.choice(copies.files())
        insert_line(file, chance.randrange(line_count(file) + 1), data)
        report, kinds = verify(file)
        assert not report.ok
        assert kinds & {"corrupt", "foreign"}


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda file, chance: truncate_at_line(file, chance.randrange(line_count(file))), id="at a line"),
        pytest.param(lambda file, chance: truncate_bytes(file, chance.randrange(file.stat().st_size)), id="anywhere"),
    ],
)
def test_truncated_rotated_segment_is_missing_lines(
    copies: Copies, chance: random.Random, cut: Callable[[Path, random.Random], None]
) -> None:
    for _ in range(ROUNDS):
        file = chance.choice(copies.files()[:-1])
        cut(file, chance)
        report, kinds = verify(file)
        assert not report.ok
        assert "missing" in kinds
        assert any(file.name in finding.message for finding in report.findings)


def test_truncated_last_segment_has_an_unknown_end(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        file = copies.files()[-1]
        truncate_at_line(file, chance.randrange(line_count(file) - 1))
        report, kinds = verify(file)
        assert (report.ok, kinds, report.writers[0].end) == (True, {"unclosed"}, "unknown")


def test_missing_rotated_segment_is_named(copies: Copies) -> None:
    for position in range(1, len(copies.files()) - 1):
        file = copies.files()[position]
        remove_file(file)
        report, kinds = verify(file)
        assert (report.ok, kinds) == (False, {"missing_segment"})
        assert report.findings[0].file == str(file)


def test_oldest_segments_may_go(copies: Copies) -> None:
    for count in range(1, len(copies.files())):
        files = copies.files()
        for file in files[:count]:
            remove_file(file)
        report, kinds = verify(files[0])
        assert (report.ok, kinds, report.writers[0].missing) == (True, set(), 0)
        assert report.writers[0].first_seq > 1


def test_compressed_segments_are_as_good(copies: Copies) -> None:
    files = copies.files()
    for file in files[:-1]:
        compress(file)
    report, kinds = verify(files[0])
    assert (report.ok, kinds, report.writers[0].records) == (True, set(), RECORDS)


def test_damage_everywhere_never_makes_the_reader_fail(copies: Copies, chance: random.Random) -> None:
    for _ in range(ROUNDS // 2):
        files = copies.files()
        for _ in range(30):
            file = chance.choice(files)
            edit_byte(file, chance.randrange(file.stat().st_size), chance.randrange(1, 256))
        report, _kinds = verify(files[0])
        assert not report.ok
        assert sum(1 for _ in reader.records(files[0].parent)) <= RECORDS + 50
        assert reader.executions(files[0].parent) == []
