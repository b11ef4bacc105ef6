"""What is taken to load again for certain, does; and of what isn't certain, nothing is taken so."""

import enum
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.inspect import type_info

from gramkeep.codec import JSONCodec, MessagePackCodec, differences
from gramkeep.codec.certain import SHORT, certain_in

T = TypeVar("T")


class Step(enum.Enum):
    FIRST = "first"
    LAST = "last"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Item:
    name: str = ""
    price: float = 0.0


class Place(msgspec.Struct, tag="place", rename="camel"):
    street_name: str = ""
    numbers: list[int] = []


@dataclass
class State:
    count: int = 0
    name: str = ""
    is_on: bool = False
    share: float = 0.0
    seen: datetime | None = None
    step: Step = Step.FIRST
    level: Level = Level.LOW
    tags: list[str] = field(default_factory=list)
    grid: list[list[int]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    stock: dict[str, int] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    item: Item | None = None
    inner: "State | None" = None


class Text(str):
    __slots__ = ()


MOMENTS = st.datetimes(
    timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=2)), timezone.utc])  # noqa: UP017
)
FINE = {
    "count": st.integers(),
    "name": st.text(),
    "is_on": st.booleans(),
    "share": st.floats(),
    "seen": st.none() | MOMENTS,
    "step": st.sampled_from(Step),
    "level": st.sampled_from(Level),
    "tags": st.lists(st.text()),
    "grid": st.lists(st.lists(st.integers())),
    "items": st.lists(st.builds(Item, st.text(), st.floats())),
    "stock": st.dictionaries(st.text(), st.integers()),
    "places": st.dictionaries(st.text(), st.builds(Place, st.text(), st.lists(st.integers()))),
    "item": st.none() | st.builds(Item),
}
WRONG = st.sampled_from(
    [
        *(
            None,
            True,
            1,
            1.0,
            "a",
            "\ud800",
            b"a",
            Text("a"),
            Decimal(1),
            10**30,
            math.nan,
            math.inf,
        ),
        *(Step.LAST, Level.HIGH, Item(1), State("one"), (1,), {"a"}),
        *([1.5], [True], [None], [Item("a", 1)], [Place()], [[Text()]]),
        *({"a": 1.0}, {1: 1}, {"a": None}, {Text("a"): 1}, {"a": Place([])}),
    ]
)
STATES = st.builds(
    State, **{name: fine | WRONG if name != "tags" else fine for name, fine in FINE.items()}
)


@pytest.mark.parametrize("is_short", [True, False], ids=["short", "long"])
@pytest.mark.parametrize("codec", [JSONCodec(), MessagePackCodec()], ids=repr)
@given(value=st.recursive(STATES, lambda inner: st.builds(State, inner=inner), max_leaves=2))
def test_what_is_certain_loads_as_it_was_whatever_the_fields_hold(codec, is_short, value):
    bound = codec.bind(State)
    try:
        encoded = bound.encode(value, "key")
        is_certain = certain_in(type_info(State), is_short=is_short)(value)
    except (ValueError, AttributeError):
        return
    if is_certain and (len(encoded) < SHORT or not is_short):
        assert list(differences(value, bound.decode(encoded, "key"))) == []


@pytest.mark.parametrize("is_short", [True, False], ids=["short", "long"])
@given(value=st.builds(State, **FINE))
def test_what_is_of_the_declared_types_is_certain(is_short, value):
    is_finite = math.isfinite(value.share) and all(math.isfinite(i.price) for i in value.items)
    is_plain = value.seen is None or value.seen.tzinfo in {None, UTC}
    assert certain_in(type_info(State), is_short=is_short)(value) is (is_finite and is_plain)


class Extending(Item):
    pass


@pytest.mark.parametrize(
    "value",
    [Extending(), Item(Text("a")), Item(1), Item("a", 1), Item("a", math.nan), Item(None)],
    ids=repr,
)
def test_what_is_not_exactly_of_the_declared_type_is_not_certain(value):
    assert certain_in(type_info(Item))(Item("a", 0.5))
    assert not certain_in(type_info(Item))(value)


@dataclass
class Checked:
    count: int = 0

    def __post_init__(self):
        if self.count > 3:
            raise ValueError("too many")


@dataclass
class Computed:
    count: int = 0
    _count: int = field(default=0, init=False)

    @property
    def count(self):  # noqa: F811
        return self._count

    @count.setter
    def count(self, value):
        self._count = 0


@dataclass
class Shared:
    count: int = 0
    total: ClassVar[int] = 0


class LeavingOut(msgspec.Struct, omit_defaults=True):
    count: int = 0


class Marked(msgspec.Struct):
    count: int = msgspec.field(name="__d", default=0)


class TaggedAsEnvelope(msgspec.Struct, tag_field="__d", tag="x"):
    count: int = 0


@dataclass
class Answering:
    count: int = 0

    def __getattribute__(self, name):
        return object.__getattribute__(self, name)


@dataclass
class Made:
    count: int = 0

    def __new__(cls, *_args, **_options):
        return object.__new__(cls)


@dataclass
class Box(Generic[T]):
    content: T


class Flags(enum.Flag):
    A = 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, kind()) for kind in (Checked, Computed, Shared, Made)),
        *((kind, kind()) for kind in (LeavingOut, Marked, TaggedAsEnvelope)),
        (Answering, Answering()),
        (Box[Any], Box(1)),
        (Box[int | str], Box(1)),
        (Box[Decimal], Box(Decimal(1))),
        (Box[bytes], Box(b"a")),
        (Box[set[int]], Box({1})),
        (Box[tuple[int, ...]], Box((1,))),
        (Box[dict[int, int]], Box({1: 1})),
        (Box[Flags], Box(Flags.A)),
        (Box[Checked], Box(Checked())),
        (Box[list[Checked]], Box([Checked()])),
        (Box[Annotated[int, msgspec.Meta(ge=1)]], Box(0)),
        (Box[Annotated[str, msgspec.Meta(max_length=1)]], Box("ab")),
        (Box[Annotated[float, msgspec.Meta(ge=1)]], Box(0.5)),
        (Box[Annotated[datetime, msgspec.Meta(tz=True)]], Box(datetime(2026, 1, 1))),  # noqa: DTZ001
        (Box[Annotated[list[int], msgspec.Meta(max_length=1)]], Box([1, 2])),
        (Box[Annotated[dict[str, int], msgspec.Meta(max_length=1)]], Box({"a": 1, "b": 2})),
        (dict, {"a": 1}),
        (dict[str, int], {"a": 1}),
        (list[int], [1]),
        (int, 1),
        (Any, 1),
    ],
    ids=str,
)
def test_of_types_with_rules_of_their_own_nothing_is_certain(kind, value):
    assert not certain_in(type_info(kind))(value)


def test_of_a_generic_class_it_depends_on_what_it_is_of():
    assert certain_in(type_info(Box[int]))(Box(1))
    assert not certain_in(type_info(Box[int]))(Box("a"))


def test_a_missing_attribute_is_left_to_the_reload():
    box = Box(1)
    del box.content
    with pytest.raises(AttributeError):
        certain_in(type_info(Box[int]))(box)


def test_long_data_is_certain_too_unless_a_number_in_it_is_of_more_digits_than_may_be_read_again():
    is_certain = certain_in(type_info(State), is_short=False)
    many = State(tags=["tag"] * 5000, grid=[[10**599] * 500], stock={"a": -(10**599)})
    assert is_certain(many)
    for number in (10**600, -(10**600)):
        for wrong in (
            State(count=number),
            State(grid=[[1], [2, number]]),
            State(stock={"a": number}),
            State(places={"a": Place("", [number])}),
            State(inner=State(count=number)),
        ):
            assert not is_certain(wrong)


def test_long_data_with_a_number_of_too_many_digits_is_refused_as_short_data_is():
    bound = JSONCodec().bind(State)
    value = State(name="a" * 2 * SHORT, count=-(10**4299))
    with pytest.raises(ValueError, match="would not load again"):
        bound.check(value, bound.encode(value, "key"), "key")


@dataclass
class Node:
    left: "Node | None" = None
    right: "Node | None" = None
    children: list["Node"] = field(default_factory=list)
    item: Item = field(default_factory=Item)
    other: Item = field(default_factory=Item)


def test_of_a_tree_every_node_is_looked_at():
    is_certain = certain_in(type_info(Node))
    inner = Node(children=[Node(), Node()])
    assert is_certain(Node(inner, Node(inner), [inner]))
    for wrong in (Node(item=Item(1)), Node(other=Item(1)), Node(children=[None])):
        for around in (Node(wrong), Node(right=wrong), Node(children=[inner, wrong])):
            assert not is_certain(around)
            assert not is_certain(Node(children=[Node(right=around)]))


def test_types_nested_deeper_than_python_nests_loops_are_tried():
    kind, value = int, 1
    for _ in range(30):
        kind, value = list[kind], [value]
    assert not certain_in(type_info(Box[kind]))(Box(value))
    bound = JSONCodec().bind(Box[kind])
    bound.check(Box(value), bound.encode(Box(value), "key"), "key")


def test_numbers_of_more_digits_than_are_read_again_are_refused_though_their_class_is_certain():
    bound = JSONCodec().bind(Box[int])
    longest = Box(-(10**4299))
    assert certain_in(type_info(Box[int]))(longest)
    with pytest.raises(ValueError, match="would not load again"):
        bound.check(longest, bound.encode(longest, "key"), "key")
