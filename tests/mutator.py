"""Damages log files, by bytes and line numbers alone. Lines are counted from 0; a line includes its newline."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "compress",
    "cut_line",
    "delete_line",
    "duplicate_line",
    "edit_byte",
    "edit_field",
    "insert_line",
    "line_count",
    "remove_file",
    "swap_lines",
    "truncate_at_line",
    "truncate_bytes",
]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _change(path: Path, change: Callable[[list[bytes]], None]) -> None:
    lines = _lines(path)
    change(lines)
    path.write_bytes(b"".join(lines))


def line_count(path: Path) -> int:
    """How many lines the file has."""
    return len(_lines(path))


def delete_line(path: Path, index: int) -> None:
    """Take a line out."""

    def change(lines: list[bytes]) -> None:
        del lines[index]

    _change(path, change)


def duplicate_line(path: Path, index: int, to: int | None = None) -> None:
    """Put a copy of a line before line `to`, by default right after itself."""

    def change(lines: list[bytes]) -> None:
        lines.insert(index + 1 if to is None else to, lines[index])

    _change(path, change)


def swap_lines(path: Path, index: int, other: int) -> None:
    """Exchange two lines."""

    def change(lines: list[bytes]) -> None:
        lines[index], lines[other] = lines[other], lines[index]

    _change(path, change)


def insert_line(path: Path, index: int, data: bytes) -> None:
    """Put `data` and a newline before a line."""

    def change(lines: list[bytes]) -> None:
        lines.insert(index, data + b"\n")

    _change(path, change)


def edit_byte(path: Path, offset: int, xor: int) -> None:
    """Change one byte of the file; `xor` must not be 0."""
    data = bytearray(path.read_bytes())
    data[offset] ^= xor
    path.write_bytes(data)


def edit_field(path: Path, index: int, field: str) -> bool:
    """Change the first letter of a text, or the last digit of a number, so that the line stays valid JSON.

    False: the line has no such field, or nothing in it to change.
    """
    lines = _lines(path)
    match = re.search(rb'"%b":("[a-z]|\d+)' % re.escape(field.encode()), lines[index])
    if match is None:
        return False
    at = match.end() - 1
    line = bytearray(lines[index])
    line[at] = line[at] + 1 if chr(line[at]) not in "z9" else line[at] - 1
    lines[index] = bytes(line)
    path.write_bytes(b"".join(lines))
    return True


def cut_line(path: Path, index: int, keep: int) -> None:
    """Keep only the first `keep` bytes of a line, and its newline."""

    def change(lines: list[bytes]) -> None:
        lines[index] = lines[index][:keep].rstrip(b"\n") + b"\n"

    _change(path, change)


def truncate_at_line(path: Path, index: int) -> None:
    """Cut the file off before a line."""

    def change(lines: list[bytes]) -> None:
        del lines[index:]

    _change(path, change)


def truncate_bytes(path: Path, size: int) -> None:
    """Cut the file off after `size` bytes."""
    path.write_bytes(path.read_bytes()[:size])


def remove_file(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def compress(path: Path) -> Path:
    """Replace the file by a compressed one; returns its path."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target
