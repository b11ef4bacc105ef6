"""Types that sessions may have, and what it is for a value to come back as the same."""

import collections
import datetime as dt
import enum
import math
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import attrs
import msgspec


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Settings(msgspec.Struct, omit_defaults=True):
    volume: int = 5
    tags: list[str] = []


class Pair(msgspec.Struct, array_like=True):
    left: int = 0
    right: str = ""


@attrs.define
class Address:
    street: str = ""
    number: int | None = None


@dataclass
class Item:
    name: str = ""
    price: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Frozen:
    text: str = ""


@dataclass
class Node:
    value: int = 0
    children: list["Node"] = field(default_factory=list)


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    content: T


def same(value, other):
    """Equal, and of the same types all the way down; written apart from what is tested."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return same(list(value.items()), list(other.items()))
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, set | frozenset):
        return value == other and collections.Counter(map(type, value)) == collections.Counter(
            map(type, other)
        )
    if hasattr(type(value), "__dataclass_fields__"):
        return all(same(getattr(value, f.name), getattr(other, f.name)) for f in fields(value))
    if isinstance(value, float) and math.isnan(value):
        return math.isnan(other)
    if isinstance(value, dt.datetime):
        return value == other and value.utcoffset() == other.utcoffset()
    return value == other
