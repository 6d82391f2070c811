"""The sequence numbers seen of a writer, kept as ranges: one range for as long as nothing is missing."""

from bisect import bisect_right
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Hole", "SeqRanges"]

P = TypeVar("P")


class Hole(NamedTuple, Generic[P]):
    """Numbers that are missing, with the places of the lines on either side."""

    first: int
    last: int
    before: P
    after: P


class SeqRanges(Generic[P]):
    """A set of sequence numbers that remembers where the ends of its ranges were seen.

    Adding the next number costs the same however many there are; memory grows with the holes only.
    """

    __slots__ = ("_ends", "_first_places", "_last_places", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._first_places: list[P] = []
        self._last_places: list[P] = []

    def add(self, seq: int, place: P) -> bool:
        """Add a number; False when it is there already."""
        ends = self._ends
        if ends and seq == ends[-1] + 1:  # the next line in order, that is nearly always
            ends[-1] = seq
            self._last_places[-1] = place
            return True
        index = bisect_right(self._starts, seq)
        if index and seq <= ends[index - 1]:
            return False
        after_left = index > 0 and ends[index - 1] == seq - 1
        before_right = index < len(ends) and self._starts[index] == seq + 1
        if after_left and before_right:
            ends[index - 1] = ends[index]
            self._last_places[index - 1] = self._last_places[index]
            for column in (self._starts, ends, self._first_places, self._last_places):
                del column[index]
        elif after_left:
            ends[index - 1] = seq
            self._last_places[index - 1] = place
        elif before_right:
            self._starts[index] = seq
            self._first_places[index] = place
        else:
            self._starts.insert(index, seq)
            ends.insert(index, seq)
            self._first_places.insert(index, place)
            self._last_places.insert(index, place)
        return True

    @property
    def first(self) -> int | None:
        """The lowest number, None when there is none."""
        return self._starts[0] if self._starts else None

    @property
    def last(self) -> int | None:
        """The highest number, None when there is none."""
        return self._ends[-1] if self._ends else None

    def holes(self) -> list[Hole[P]]:
        """What is missing between the lowest and the highest number, in order."""
        return [
            Hole(self._ends[i] + 1, self._starts[i + 1] - 1, self._last_places[i], self._first_places[i + 1])
            for i in range(len(self._starts) - 1)
        ]

    def missing(self, first: int, last: int) -> int:
        """How many numbers from `first` to `last` are missing, those outside what was seen not counted."""
        total = 0
        for index in range(max(1, bisect_right(self._starts, first)), len(self._starts)):
            hole_first, hole_last = self._ends[index - 1] + 1, self._starts[index] - 1
            if hole_first > last:
                break
            total += max(0, min(hole_last, last) - max(hole_first, first) + 1)
        return total
