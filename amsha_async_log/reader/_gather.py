"""All lines of a log for what rebuilds executions: in the order their writers wrote them, wherever they stand now."""

from collections.abc import Callable, Iterator
from heapq import merge
from math import inf
from operator import itemgetter
from typing import TypeVar

from ._lanes import Lane
from ._merge import merged
from ._writers import Line

__all__ = ["gather"]

T = TypeVar("T")
C = TypeVar("C")


def gather(
    lanes: list[Lane],
    decode: Callable[[bytes], T | None],
    line_of: Callable[[T], Line],
    fresh: Callable[[], C],
    take: Callable[[C, Lane, T], None],
) -> C:
    """Give every line to a consumer that `fresh` makes, with `take`, and return it.

    Files are in the order they were written, unless somebody has sorted, joined or shuffled lines. That shows as a
    number that is not above the one before it of the same writer; then everything is read once more, kept in memory,
    and sorted by writer and number, each number once: a copy of a file tells nothing twice.
    """
    consumer = fresh()
    latest: dict[str, int] = {}
    for lane, item in merged(lanes, decode, lambda item: line_of(item).timestamp):
        line = line_of(item)
        seq = line.seq
        if seq > 0:
            if seq <= latest.get(line.writer, 0):
                break
            latest[line.writer] = seq
        take(consumer, lane, item)
    else:
        return consumer
    consumer = fresh()
    for lane, item in _sorted(lanes, decode, line_of):
        take(consumer, lane, item)
    return consumer


def _sorted(
    lanes: list[Lane], decode: Callable[[bytes], T | None], line_of: Callable[[T], Line]
) -> Iterator[tuple[Lane, T]]:
    writers: dict[str, list[tuple[int, int, Lane, T]]] = {}
    number = 0
    for lane in lanes:
        for raw in lane.lines():
            item = decode(raw.data) if raw.first else None
            if item is not None:
                number += 1
                line = line_of(item)
                writers.setdefault(line.writer, []).append((max(line.seq, 0), number, lane, item))
    for found in writers.values():
        found.sort(key=itemgetter(0, 1))
    for _, _, lane, item in merge(*(_timed(found, line_of) for found in writers.values()), key=itemgetter(0, 1)):
        yield lane, item


def _timed(found: list[tuple[int, int, Lane, T]], line_of: Callable[[T], Line]) -> Iterator[tuple[float, int, Lane, T]]:
    """The lines of one writer, each with a time that never goes back."""
    time, place = -inf, found[0][1]
    before = 0
    for seq, _, lane, item in found:
        if 0 < seq == before:
            continue
        before = seq
        given = line_of(item).timestamp
        if given is not None and given > time:
            time = given
        yield time, place, lane, item
