"""All lines of a log in one stream: in order within each writer, by time between writers."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from heapq import heapify, heapreplace
from math import inf
from typing import Any, TypeVar

from ._files import StrPath, snapshot
from ._lanes import Lane
from ._lines import decode_record

__all__ = ["merged", "records", "time_of_record"]

T = TypeVar("T")


def records(*paths: StrPath) -> Iterator[dict[str, Any]]:
    """Every line of the log as a dict, envelope keys included, the log's own lines (`log.*`) too.

    Paths as for `find_files`; none means the default log. Lines of one writer come in the order it wrote them, lines of
    different writers by `timestamp`. Memory: one line and one chunk per file open at a time. What is not a JSON object
    is passed over; `verify` names it. Raises `ReadError` when a path stands for nothing or a file cannot be read.
    """
    with snapshot(paths) as lanes:
        for _lane, record in merged(lanes, decode_record, time_of_record):
            yield record


def time_of_record(record: dict[str, Any]) -> float | None:
    """The timestamp of a decoded line, None where it has no usable one."""
    value = record.get("timestamp")
    return value if isinstance(value, int | float) and -inf < value < inf else None


def merged(
    lanes: list[Lane], decode: Callable[[bytes], T | None], time_of: Callable[[T], float | None]
) -> Iterator[tuple[Lane, T]]:
    """Decode the lines of all lanes and merge them by time; `decode` gives None for what is no line.

    A lane is opened when its time has come, so files that do not overlap in time are not open together.
    """
    heap = []
    for index, lane in enumerate(lanes):
        with closing(_timed(lane, decode, time_of)) as peeked:
            head = next(peeked, None)
        if head is not None:
            heap.append((head[0], index, _timed(lane, decode, time_of)))
    heapify(heap)
    waiting: list[T | None] = [None] * len(lanes)
    while heap:
        time, index, lines = heap[0]
        lane = lanes[index]
        item = waiting[index]
        if item is not None:
            yield lane, item
        # Stay with this lane for as long as its lines are the oldest.
        limit, limit_index = min((entry[:2] for entry in heap[1:3]), default=(inf, index))
        for time, item in lines:
            if time > limit or (time == limit and index > limit_index):
                waiting[index] = item
                heapreplace(heap, (time, index, lines))
                break
            yield lane, item
        else:
            last = heap.pop()
            if heap:
                heapreplace(heap, last)


def _timed(
    lane: Lane, decode: Callable[[bytes], T | None], time_of: Callable[[T], float | None]
) -> Generator[tuple[float, T], None, None]:
    """Each line of the lane that decodes, with its time; a line without one has that of the line before it."""
    time = -inf
    for line in lane.lines():
        item = decode(line.data) if line.first else None
        if item is not None:
            given = time_of(item)
            if given is not None:
                time = given
            yield time, item
