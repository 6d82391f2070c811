"""Values that programs log by accident: what JSON cannot hold, what lies, what raises, and what is merely odd."""

import array
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import msgspec

NAN, INFINITY = math.nan, math.inf


class Plain:
    """An object that nothing knows how to encode."""


class RaisingRepr:
    def __repr__(self) -> str:
        raise ValueError("repr")


class RaisingStr:
    def __str__(self) -> str:
        raise ValueError("str")


class RaisingEq:
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        raise ValueError("eq")


class RaisingLen:
    def __len__(self) -> int:
        raise ValueError("len")


class RaisingBool:
    def __bool__(self) -> bool:
        raise ValueError("bool")


class RaisingIter:
    def __iter__(self) -> Iterator[Any]:
        raise ValueError("iter")


class RaisingProperty:
    @property
    def value(self) -> int:
        raise ValueError("property")


class RaisingAttributes:
    """Every look at it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingRepeatedly(RaisingAttributes):
    def __repr__(self) -> str:
        raise ValueError("repr")


class RecursiveRepr:
    def __repr__(self) -> str:
        return repr(self)


class ReprNotStr:
    def __repr__(self) -> str:
        return 5


class SurrogateRepr:
    def __repr__(self) -> str:
        return "\ud800"


class HugeRepr:
    def __repr__(self) -> str:
        return "r" * 5_000_000


def lying(as_type: type) -> object:
    """An object that says it is of another type."""

    class Liar:
        @property
        def __class__(self) -> type:
            return as_type

    return Liar()


class RaisingClass:
    @property
    def __class__(self) -> type:
        raise ValueError("class")


class ListRaisingIter(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise ValueError("iter")


class TupleRaisingIter(tuple[Any, ...]):
    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("iter")


class DictRaisingItems(dict[Any, Any]):
    def items(self) -> Any:
        raise ValueError("items")

    def values(self) -> Any:
        raise ValueError("values")

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("iter")


class RaisingMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise ValueError("getitem")

    def __iter__(self) -> Iterator[str]:
        raise ValueError("iter")

    def __len__(self) -> int:
        raise ValueError("len")


class EndlessMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    def __len__(self) -> int:
        return 1


class RudeStr(str):
    """A str all of whose methods that matter raise."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __str__(self) -> str:
        raise ValueError("str")

    def __repr__(self) -> str:
        raise ValueError("repr")

    def __eq__(self, other: object) -> bool:
        raise ValueError("eq")

    def __len__(self) -> int:
        raise ValueError("len")

    def encode(self, *args: Any) -> bytes:
        raise ValueError("encode")


class RudeInt(int):
    def __index__(self) -> int:
        raise ValueError("index")

    def __int__(self) -> int:
        raise ValueError("int")

    def __repr__(self) -> str:
        raise ValueError("repr")


class RudeFloat(float):
    def __float__(self) -> float:
        raise ValueError("float")

    def __repr__(self) -> str:
        raise ValueError("repr")


class Colour(enum.Enum):
    RED = "red"
    OBJECT = Plain
    NOT_FINITE = NAN


class Number(enum.IntEnum):
    SEVEN = 7


class Bits(enum.Flag):
    A = enum.auto()
    B = enum.auto()


@dataclasses.dataclass
class Data:
    value: Any


@dataclasses.dataclass(slots=True)
class SlotsData:
    value: Any


@attrs.define
class Attrs:
    value: Any


class Record(msgspec.Struct):
    value: Any


class Point(collections.namedtuple("Point", ["x", "y"])):
    __slots__ = ()


class RaisingError(Exception):
    def __str__(self) -> str:
        raise ValueError("str of an exception")


class RaisingZone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise ValueError("utcoffset")


class ArrayLike:
    """What numpy's arrays look like to us."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def tolist(self) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


ArrayLike.__module__ = "numpy"


def cyclic_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def cyclic_dict() -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    return value


def cyclic_data() -> Data:
    value = Data(None)
    value.value = [value]
    return value


def cyclic_struct() -> Record:
    value = Record(None)
    value.value = {"again": value}
    return value


def nested(depth: int, kind: type = list) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def released_memoryview() -> memoryview:
    view = memoryview(b"secret of another")
    view.release()
    return view


def running_generator() -> Any:
    generator = (number for number in range(3))
    next(generator)
    return generator


def endless_generator() -> Iterator[int]:
    while True:
        yield 1


MARKED: dict[str, Callable[[], Any]] = {
    "nan": lambda: NAN,
    "infinity": lambda: INFINITY,
    "minus infinity": lambda: -INFINITY,
    "nested nan": lambda: {"a": [1, (NAN, None)]},
    "nan in a deque": lambda: collections.deque([NAN]),
    "nan in a dataclass": lambda: Data(NAN),
    "nan in a struct": lambda: Record([NAN]),
    "nan beside nulls": lambda: [None, NAN, "null"],
    "nan in an enum": lambda: Colour.NOT_FINITE,
    "nan of a float subclass": lambda: RudeFloat(NAN),
    "surrogate": lambda: "\ud800",
    "nested surrogate": lambda: ["a", {"b": "x\udcffy"}],
    "surrogate key": lambda: {"\udc80": 1},
    "cyclic list": cyclic_list,
    "cyclic dict": cyclic_dict,
    "cyclic dataclass": cyclic_data,
    "cyclic struct": cyclic_struct,
    "list 100,000 deep": lambda: nested(100_000),
    "dict 100,000 deep": lambda: nested(100_000, dict),
    "integer of 5,001 digits": lambda: 10**5_000,
    "key None": lambda: {None: 1},
    "key tuple": lambda: {(1, 2): 3},
    "key bool": lambda: {True: 1, False: 2},
    "key frozenset": lambda: {frozenset({1}): 2},
    "key object": lambda: {Plain(): 1},
    "keys that collide when cleaned": lambda: {"\ud800": 1, "\\ud800": 2},
    "object": Plain,
    "raising repr": RaisingRepr,
    "raising str": RaisingStr,
    "raising eq": RaisingEq,
    "raising len": RaisingLen,
    "raising bool": RaisingBool,
    "raising iter": RaisingIter,
    "raising property": RaisingProperty,
    "raising attributes": RaisingAttributes,
    "raising attributes and repr": RaisingRepeatedly,
    "raising class": RaisingClass,
    "recursive repr": RecursiveRepr,
    "repr that is no str": ReprNotStr,
    "repr with a surrogate": SurrogateRepr,
    "repr of 5 MB": HugeRepr,
    "lies to be a str": lambda: lying(str),
    "lies to be an int": lambda: lying(int),
    "lies to be a float": lambda: lying(float),
    "lies to be a list": lambda: lying(list),
    "lies to be a dict": lambda: lying(dict),
    "lies to be a path": lambda: lying(pathlib.PurePath),
    "lies to be an exception": lambda: lying(ValueError),
    "lies to be a struct": lambda: lying(msgspec.Struct),
    "list raising in iter, with a nan": lambda: ListRaisingIter([NAN]),
    "tuple raising in iter, with a null": lambda: TupleRaisingIter([object()]),
    "dict raising in items": lambda: DictRaisingItems(a=object()),
    "mapping that raises": RaisingMapping,
    "mapping without end": EndlessMapping,
    "enum of an object": lambda: Colour.OBJECT,
    "dataclass with an object": lambda: Data(Plain()),
    "attrs with raising repr": lambda: Attrs(RaisingRepr()),
    "struct with an object": lambda: Record(Plain()),
    "struct with a surrogate": lambda: Record("\ud800"),
    "class": lambda: Plain,
    "function": lambda: len,
    "module": lambda: json,
    "complex": lambda: 1j,
    "ellipsis": lambda: ...,
    "generator": running_generator,
    "generator without end": endless_generator,
    "iterator": lambda: iter([1]),
    "context manager": lambda: contextlib.nullcontext(),
    "released memoryview": released_memoryview,
    "memoryview with gaps": lambda: memoryview(b"abcdef")[::2],
    "array": lambda: array.array("d", [1.0]),
    "namespace": lambda: types.SimpleNamespace(a=1),
    "exception with raising str": RaisingError,
    "datetime in a raising zone": lambda: dt.datetime(2026, 1, 1, tzinfo=RaisingZone()),
    "lock": threading.Lock,
    "weird array": lambda: ArrayLike([Plain()]),
    "array with a nan": lambda: ArrayLike([NAN]),
    "array whose tolist raises": lambda: ArrayLike(ValueError("tolist")),
    "array whose tolist is itself": lambda: (lambda a: (setattr(a, "_result", a), a)[1])(ArrayLike(None)),
    "string of 5 MB": lambda: "x" * 5_000_000,
    "bytes of 5 MB": lambda: b"x" * 5_000_000,
    "dict of 5 MB": lambda: {str(number): "y" * 100 for number in range(50_000)},
    "list of a million": lambda: [0] * 1_000_000,
    "type variable": lambda: type[int],
    "unset": lambda: msgspec.UNSET,
}
"""Each of these is replaced, at least in part, by a marker, and counted as degraded."""

KEPT: dict[str, tuple[Callable[[], Any], Any]] = {
    "none": (lambda: None, None),
    "str subclass": (lambda: RudeStr("text"), "text"),
    "int subclass": (lambda: RudeInt(3), 3),
    "float subclass": (lambda: RudeFloat(1.5), 1.5),
    "enum": (lambda: Colour.RED, "red"),
    "int enum": (lambda: Number.SEVEN, 7),
    "flag": (lambda: Bits.A, 1),
    "huge integer": (lambda: 10**400, 10**400),
    "integer of 64 bits": (lambda: 2**64 - 1, 2**64 - 1),
    "very negative integer": (lambda: -(2**63) - 1, -(2**63) - 1),
    "bytes": (lambda: b"\xff\x00", "/wA="),
    "bytearray": (lambda: bytearray(b"x"), "eA=="),
    "memoryview": (lambda: memoryview(b"x"), "eA=="),
    "set": (lambda: {1}, [1]),
    "frozenset": (lambda: frozenset({"a"}), ["a"]),
    "tuple": (lambda: (1, (2,)), [1, [2]]),
    "named tuple": (lambda: Point(1, 2), [1, 2]),
    "range": (lambda: range(3), [0, 1, 2]),
    "deque": (lambda: collections.deque([1]), [1]),
    "ordered dict": (lambda: collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "default dict": (lambda: collections.defaultdict(list, a=[1]), {"a": [1]}),
    "counter": (lambda: collections.Counter("aab"), {"a": 2, "b": 1}),
    "integer keys": (lambda: {1: "a", 2: "b"}, {"1": "a", "2": "b"}),
    "bytes keys": (lambda: {b"\xff": 1}, {"/w==": 1}),
    "dataclass with slots, one unset": (lambda: SlotsData.__new__(SlotsData), {}),
    "dataclass": (lambda: Data({"a": [1]}), {"value": {"a": [1]}}),
    "attrs": (lambda: Attrs(None), {"value": None}),
    "struct": (lambda: Record((1,)), {"value": [1]}),
    "path": (lambda: pathlib.PurePosixPath("/a/b"), "/a/b"),
    "datetime": (lambda: dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00Z"),
    "date": (lambda: dt.date(2026, 1, 2), "2026-01-02"),
    "decimal": (lambda: decimal.Decimal("1.10"), "1.10"),
    "decimal that is not a number": (lambda: decimal.Decimal("NaN"), "NaN"),
    "uuid": (lambda: uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "exception": (lambda: ValueError("why"), "ValueError: why"),
    "array-like": (lambda: ArrayLike([[1, 2.5]]), [[1, 2.5]]),
    "scalar of an array": (lambda: ArrayLike(2.5), 2.5),
    "control characters": (lambda: "\x00\x1b[31m\r\n\u2028\x7f", "\x00\x1b[31m\r\n\u2028\x7f"),
    "text that says null": (lambda: ["null", None], ["null", None]),
    "float with all digits": (lambda: 0.1 + 0.2, 0.1 + 0.2),
    "least float": (lambda: 5e-324, 5e-324),
    "negative zero": (lambda: -0.0, -0.0),
    "list that raises in iter": (lambda: ListRaisingIter([1]), [1]),
    "dict that raises in items": (lambda: DictRaisingItems(a=None), {"a": None}),
}
"""Each of these is on the line in an obvious form, unmarked."""

LARGE = {
    "list 100,000 deep",
    "dict 100,000 deep",
    "mapping without end",
    "repr of 5 MB",
    "string of 5 MB",
    "bytes of 5 MB",
    "dict of 5 MB",
    "list of a million",
}
"""Those of `MARKED` that take milliseconds each."""

NOT_EVEN_TO_BE_GENERATED = {"raising attributes", "raising attributes and repr", "raising class"}
"""Those of `MARKED` that break the test tools which handle them."""
