"""Sessions as JSON: what is saved loads as the same, or is refused."""

import collections
import datetime as dt
import enum
import math
import typing
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import CodecError, ConfigurationError, JSONCodec, SessionEncodeError, Sessions

from .keeping import keep, round_trip
from .shapes import (
    Address,
    Box,
    Color,
    Frozen,
    Item,
    Level,
    Mood,
    Movie,
    Node,
    Pair,
    Point,
    Rights,
    Settings,
    same,
)


def save(data_type, value):
    """Go through what a save goes through; gives the bytes."""
    return keep(JSONCodec().bind(data_type), value).stored


def reload(data_type, value):
    return round_trip(JSONCodec(), data_type, value)


MOMENT = dt.datetime(2024, 2, 29, 23, 59, 59, 123456)  # noqa: DTZ001 - naive on purpose
ABROAD = dt.timezone(dt.timedelta(hours=5, minutes=45))

ROUND_TRIPS = [
    (dt.datetime, MOMENT),
    (dt.datetime, MOMENT.replace(tzinfo=dt.UTC)),
    (dt.datetime, MOMENT.replace(tzinfo=ABROAD)),
    (dt.datetime, MOMENT.replace(tzinfo=ZoneInfo("Europe/Berlin"))),
    (dt.date, dt.date(2024, 2, 29)),
    (dt.date, dt.date.min),
    (dt.time, dt.time(23, 59, 59, 999999)),
    (dt.time, dt.time(1, 2, tzinfo=dt.UTC)),
    (dt.timedelta, dt.timedelta(days=-1, seconds=5, microseconds=7)),
    (dt.timedelta, dt.timedelta.max),
    (Color, Color.RED),
    (Level, Level.HIGH),
    (Mood, Mood.BAD),
    (Rights, Rights.READ | Rights.WRITE),
    (set[int], {1, 2, 3}),
    (set[Color], {Color.RED, Color.BLUE}),
    (set[tuple[int, int]], {(1, 2), (3, 4)}),
    (frozenset[str], frozenset({"a", "b"})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (Point, Point(1, 2.5)),
    (list[Point], [Point(1), Point(2, 3.0)]),
    (Item, Item("tea", Decimal("3.50"))),
    (Frozen, Frozen("x")),
    (Node, Node(1, [Node(2, [Node(3)]), Node(4)])),
    (Box[int], Box(1)),
    (Box[set[str]], Box({"a"})),
    (Settings, Settings(7, ["a"])),
    (Settings, Settings()),
    (Pair, Pair(1, "a")),
    (Address, Address("Main Street", 5)),
    (Movie, {"title": "Alien", "year": 1979}),
    (Movie, {"title": "Alien"}),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("-0E+5")),
    (uuid.UUID, uuid.UUID(int=5)),
    (bytes, b"\x00\xff not text"),
    (bytearray, bytearray(b"\x00\xff")),
    (dict[int, str], {1: "a", -2: "b"}),
    (dict[Level, int], {Level.LOW: 1}),
    (dict[Mood, int], {Mood.GOOD: 1}),
    (dict[dt.date, int], {dt.date(2024, 1, 1): 1}),
    (dict[uuid.UUID, set[int]], {uuid.UUID(int=1): {1}}),
    (Literal["a", "b", 3], 3),
    (int | None, None),
    (int | None, 5),
    (int | str | None, "5"),
    (int | float, 1),
    (int | float, 1.0),
    (list[Item] | None, [Item()]),
    (Item | str, Item("x")),
    (dt.datetime | int, MOMENT),
    (float, 0.1),
    (float, -0.0),
    (float, 1e308),
    (int, 2**63),
    (int, -(2**70)),
    (str, 'a\0b \N{PILE OF POO} \u2028 \\ "'),
    (bool, True),
    (Any, {"a": [1, 2.5, None, True, {"b": "c"}]}),
    (dict, {"a": {"b": [{}]}}),
    (list, [[], {}, ""]),
]


def pairs(cases):
    names = [f"{type(value).__name__} as {kind}" for kind, value in cases]
    return pytest.mark.parametrize(("data_type", "value"), cases, ids=names)


@pairs(ROUND_TRIPS)
def test_what_is_saved_loads_as_the_same(data_type, value):
    assert same(reload(data_type, value), value)


def test_an_aware_datetime_stays_the_same_moment_and_a_naive_one_stays_naive():
    aware = reload(dt.datetime, MOMENT.replace(tzinfo=ABROAD))
    assert aware.utcoffset() == dt.timedelta(hours=5, minutes=45)
    assert reload(dt.datetime, MOMENT).tzinfo is None


def test_an_int_where_the_type_says_float_is_a_float():
    assert same(reload(float, 1), 1.0)
    assert same(reload(list[float], [1, 2.5]), [1.0, 2.5])
    assert same(reload(dict[str, float], {"a": 2**53}), {"a": float(2**53)})


def test_an_int_that_no_float_can_be_is_refused_where_the_type_says_float():
    with pytest.raises(CodecError):
        save(float, 2**53 + 1)


def test_fields_that_do_not_take_part_in_comparisons_are_kept():
    @dataclass
    class Cached:
        key: int = 0
        seen: list[int] = field(default_factory=list, compare=False)
        when: dt.datetime | None = field(default=None, compare=False)

    back = reload(Cached, Cached(1, [2], MOMENT))
    assert (back.seen, back.when) == ([2], MOMENT)


def test_fields_that_do_not_take_part_in_comparisons_are_checked():
    @dataclass
    class Cached:
        seen: list[int] = field(default_factory=list, compare=False)

    with pytest.raises(CodecError) as caught:
        save(Cached, Cached((2,)))
    assert caught.value.path == "$.seen"


def test_private_fields_and_those_not_in_init_are_kept_or_refused():
    @dataclass
    class Private:
        _x: int = 0
        late: int = field(default=0, init=False)

    value = Private(5)
    value.late = 6
    assert same(reload(Private, value), value)

    @attrs.define
    class PrivateAttrs:
        _x: int = 0

    try:
        back = reload(PrivateAttrs, PrivateAttrs(5))
    except (CodecError, ConfigurationError):
        pass
    else:
        assert back == PrivateAttrs(5)


# What would come back as something else.

WRONG_TYPES = [
    (int, "5"),
    (int, 5.0),
    (int, True),
    (int, None),
    (str, 5),
    (str, MOMENT),
    (str, dt.date(2024, 1, 1)),
    (str, uuid.UUID(int=1)),
    (str, Decimal(1)),
    (str, b"abc"),
    (str, Color.RED),
    (bool, 1),
    (float, "1.5"),
    (float, Decimal("1.5")),
    (bytes, "YWJj"),
    (Decimal, 1.5),
    (Decimal, "1.5"),
    (uuid.UUID, "00000000-0000-0000-0000-000000000001"),
    (dt.datetime, "2024-01-02T03:04:05"),
    (dt.datetime, dt.date(2024, 1, 1)),
    (dt.date, MOMENT),
    (dt.timedelta, 5),
    (Color, "red"),
    (list[int], (1, 2)),
    (list[int], {1, 2}),
    (tuple[int, ...], [1, 2]),
    (tuple[int, int], (1, 2, 3)),
    (set[int], [1, 2]),
    (dict[str, str], Item("a")),
    (dict[str, int], {1: 1}),
    (dict[int, int], {"1": 1}),
    (Item, {"name": "a", "price": "1"}),
    (Literal["a"], "b"),
    (Settings, {"volume": 5}),
]


@pairs(WRONG_TYPES)
def test_a_value_that_is_not_of_the_declared_type_is_refused(data_type, value):
    holder = make_dataclass("Holder", [("inner", dict[str, data_type])])
    with pytest.raises(CodecError) as caught:
        save(holder, holder({"x": value}))
    assert caught.value.path.startswith("$.inner")


class Text(str):
    __slots__ = ()


EQUAL_BUT_OTHER = [
    (str, Mood.GOOD),
    (str, Text("a")),
    (int, Level.LOW),
    (set[int], frozenset({1})),
    (frozenset[int], {1}),
    (dict[str, int], collections.OrderedDict(a=1)),
    (dict[str, int], collections.defaultdict(int, a=1)),
    (tuple[int, float], Point(1, 2.0)),
    (Point, (1, 2.0)),
    (bytes, bytearray(b"a")),
]


@pairs(EQUAL_BUT_OTHER)
def test_a_value_that_only_equals_one_of_the_declared_type_is_refused(data_type, value):
    holder = make_dataclass("Holder", [("inner", dict[str, data_type])])
    with pytest.raises(CodecError) as caught:
        save(holder, holder({"x": value}))
    assert caught.value.path == "$.inner.x"


@dataclass
class Special(Item):
    discount: int = 0


@dataclass
class Renamed(Item):
    pass


@pytest.mark.parametrize("value", [Special("tea", Decimal(1), 5), Special(), Renamed("tea")])
def test_an_instance_of_a_subclass_is_refused_as_it_would_load_as_its_base(value):
    with pytest.raises(CodecError) as caught:
        save(list[Item], [Item(), value])
    assert caught.value.path == "$[1]"
    assert type(value).__name__ in caught.value.reason


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("data_type", "wrap", "path"),
    [
        (float, lambda n: n, "$"),
        (float | None, lambda n: n, "$"),
        (list[float | None], lambda n: [None, n], "$[1]"),
        (dict[str, float | None], lambda n: {"a": n}, "$.a"),
        (Box[float | None], Box, "$.content"),
        (dict, lambda n: {"a": [n]}, "$.a[0]"),
        (Any, lambda n: n, "$"),
    ],
)
def test_numbers_that_json_does_not_know_are_refused(data_type, wrap, path, number):
    with pytest.raises(CodecError) as caught:
        save(data_type, wrap(number))
    # msgspec names a dict's values by [...]
    assert caught.value.path.replace("[...]", ".a") == path


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_decimal_that_is_no_number_loads_as_the_same_or_is_refused(text):
    try:
        back = reload(list[Decimal], [Decimal(text)])
    except CodecError:
        return
    assert str(back[0]) == text


def test_an_offset_that_the_format_would_round_is_refused():
    for moment in (
        dt.datetime(1800, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        dt.datetime(2000, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=30))),
    ):
        with pytest.raises(CodecError):
            save(dt.datetime, moment)


UNTYPED = [
    ({"a": {1, 2}}, "$.a", "set"),
    ({"a": frozenset()}, "$.a", "frozenset"),
    ({"a": (1, 2)}, "$.a", "tuple"),
    ({"a": [{"b": ()}]}, "$.a[0].b", "tuple"),
    ({"a": MOMENT}, "$.a", "datetime"),
    ({"a": dt.date(2024, 1, 1)}, "$.a", "date"),
    ({"a": dt.timedelta(1)}, "$.a", "timedelta"),
    ({"a": [0, b"x"]}, "$.a[1]", "bytes"),
    ({"a": Decimal(1)}, "$.a", "Decimal"),
    ({"a": uuid.UUID(int=1)}, "$.a", "UUID"),
    ({"a": Color.RED}, "$.a", "Color"),
    ({"a": Mood.GOOD}, "$.a", "Mood"),
    ({"a": Level.LOW}, "$.a", "Level"),
    ({"a": Text("b")}, "$.a", "Text"),
    ({"a": Item()}, "$.a", "Item"),
    ({"a": Settings()}, "$.a", "Settings"),
    ({"a": Point(1)}, "$.a", "Point"),
    ({"a": collections.OrderedDict()}, "$.a", "OrderedDict"),
    ({1: "a"}, "$[1]", "int"),
    ({"a": {2.5: "b"}}, "$.a[2.5]", "float"),
    ({"a": {MOMENT.date(): 1}}, f"$.a[{MOMENT.date()!r}]", "date"),
    ({1: "a", "1": "b"}, "$[1]", "int"),
    ({"a": [1, math.nan]}, "$.a[1]", "nan"),
    ({"a": {"b": math.inf}}, "$.a.b", "inf"),
    ({"a": [object()]}, "$.a[0]", "object"),
    ({"a": {"b": lambda: 0}}, "$.a.b", "function"),
    ({"a": 1j}, "$.a", "complex"),
    ({"a": {"b": ["\ud800"]}}, "$.a.b[0]", "surrogates"),
    ({"a": {"\ud800": 1}}, "$.a", "surrogates"),
    ({"a": {None: 1}}, "$.a", "keys"),
]


@pytest.mark.parametrize(
    ("value", "path", "word"), UNTYPED, ids=[f"{word} at {path!a}" for _, path, word in UNTYPED]
)
@pytest.mark.parametrize("data_type", [dict, Any, dict[str, Any]], ids=str)
def test_an_untyped_session_refuses_what_json_would_change(data_type, value, path, word):
    with pytest.raises(CodecError) as caught:
        save(data_type, value)
    if data_type != dict[str, Any] or not isinstance(next(iter(value)), int):
        assert caught.value.path == path
        assert word in caught.value.reason


def test_an_untyped_corner_of_a_typed_session_refuses_what_json_would_change():
    @dataclass
    class Half:
        known: set[int] = field(default_factory=set)
        unknown: dict = field(default_factory=dict)

    assert same(reload(Half, Half({1}, {"a": 1})), Half({1}, {"a": 1}))
    with pytest.raises(CodecError) as caught:
        save(Half, Half({1}, {"a": {1}}))
    assert caught.value.path == "$.unknown.a"


def test_data_that_contains_itself_is_refused():
    loop: dict[str, Any] = {}
    loop["self"] = loop
    with pytest.raises(CodecError, match="contains itself"):
        save(dict, loop)
    node = Node()
    node.children.append(node)
    with pytest.raises(CodecError, match="contains itself"):
        save(Node, node)


@pytest.mark.parametrize("depth", [50, 200, 300, 400, 500, 700, 900, 980, 2000, 100_000])
@pytest.mark.parametrize("data_type", [list, Node], ids=["untyped", "typed"])
def test_deep_data_is_saved_or_refused_but_never_anything_else(data_type, depth):
    value = [] if data_type is list else Node()
    for _ in range(depth):
        value = [value] if data_type is list else Node(0, [value])
    try:
        save(data_type, value)
    except CodecError:
        assert depth > 50
    finally:
        while value:  # taken apart by hand: freeing it as a whole would recurse, too
            value = (value if data_type is list else value.children or [None]).pop()


# Bytes that aren't a session.


@pytest.mark.parametrize(
    ("data_type", "data", "path"),
    [
        (Item, b"", "$"),
        (Item, b'{"name":"te', "$"),
        (Item, b'{"name":"tea"}}', "$"),
        (Item, b'{"name":5}', "$.name"),
        (list[Item], b'[{},{"price":"x"}]', "$[1].price"),
        (dict[str, list[int]], b'{"a":[1,"b"]}', "$[...][1]"),
        (Item, b"[" * 100_000, "$"),
        (dict, b'{"a":' * 100_000, "$"),
        (str, b"\xff\xfe", "$"),
        (str, b'"\xff"', "$"),
        (int, b"1" * 5000, "$"),
        (float, b"1e999", "$"),
        (dt.datetime, b'"0000-01-01T00:00:00"', "$"),
        (dt.timedelta, b'"P999999999999D"', "$"),
        (Decimal, b'"1e99999999999999999999"', "$"),
        (bytes, b'"@"', "$"),
        (Color, b'"green"', "$"),
        (Rights, b'"99"', "$"),
        (Item, b"\x80\x04\x95", "$"),
    ],
)
def test_bytes_that_are_no_such_session_are_refused_with_the_place(data_type, data, path):
    codec = JSONCodec().bind(data_type)
    with pytest.raises(CodecError) as caught:
        codec.decode(data, "key")
    assert caught.value.path == path
    assert caught.value.reason
    assert "`$" not in caught.value.reason


@dataclass
class Checked:
    count: int = 0
    error: typing.ClassVar = ValueError

    def __post_init__(self):
        if self.count < 0:
            raise self.error("count below 0")


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, AssertionError, RuntimeError])
def test_a_value_that_its_class_refuses_is_not_read(monkeypatch, error):
    monkeypatch.setattr(Checked, "error", error)
    codec = JSONCodec().bind(Checked)
    assert codec.decode(b'{"count":1}', "key") == Checked(1)
    with pytest.raises(CodecError, match="count below 0"):
        codec.decode(b'{"count":-1}', "key")


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data):
    for data_type in (Item, dict, Node, list[dt.datetime], Any):
        with suppress(CodecError):
            JSONCodec().bind(data_type).decode(data, "key")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # text that can be UTF-8
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_in_an_untyped_session_loads_as_the_same(value):
    assert same(reload(Any, value), value)


# Properties over typed dataclasses.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ZONES = st.none() | st.integers(-1439, 1439).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
LEAVES = st.sampled_from(
    [
        (int, st.integers()),
        (float, st.floats(allow_nan=False, allow_infinity=False)),
        (str, TEXT),
        (bool, st.booleans()),
        (bytes, st.binary(max_size=6)),
        (dt.datetime, st.datetimes(timezones=ZONES)),
        (dt.date, st.dates()),
        (dt.time, st.times()),
        (dt.timedelta, st.timedeltas()),
        (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
        (uuid.UUID, st.uuids()),
        (Color, st.sampled_from(Color)),
        (Level, st.sampled_from(Level)),
        (Rights, st.integers(0, 3).map(Rights)),
        (Point, st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False))),
        (Frozen, st.builds(Frozen, TEXT)),
        (Item, st.builds(Item, TEXT, st.decimals(allow_nan=False, allow_infinity=False))),
    ]
)


def containers(inner):
    def wrap(drawn, shape):
        kind, values = drawn
        if shape == "list":
            return list[kind], st.lists(values, max_size=3)
        if shape == "tuple":
            return tuple[kind, ...], st.lists(values, max_size=3).map(tuple)
        if shape == "pair":
            return tuple[kind, int], st.tuples(values, st.integers())
        if shape == "dict":
            return dict[str, kind], st.dictionaries(TEXT, values, max_size=3)
        if shape == "by number":
            return dict[int, kind], st.dictionaries(st.integers(), values, max_size=3)
        if shape == "optional":
            return kind | None, st.none() | values
        return Box[kind], values.map(Box)

    shapes = ["list", "tuple", "pair", "dict", "by number", "optional", "box"]
    return st.builds(wrap, inner, st.sampled_from(shapes))


HASHABLE = LEAVES.filter(lambda drawn: drawn[0] is not Item)
SETS = st.builds(
    lambda drawn, frozen: (
        (frozenset if frozen else set)[drawn[0]],
        st.frozensets(drawn[1], max_size=4).map(frozenset if frozen else set),
    ),
    HASHABLE,
    st.booleans(),
)
KINDS = st.recursive(LEAVES | SETS, containers, max_leaves=3)


@given(st.data())
def test_whatever_a_dataclass_holds_loads_equal_with_equal_types(data):
    kinds = data.draw(st.lists(KINDS, min_size=1, max_size=3))
    kind = make_dataclass("Drawn", [(f"field{i}", kind) for i, (kind, _) in enumerate(kinds)])
    value = kind(*(data.draw(values) for _, values in kinds))
    assert same(reload(kind, value), value)


@given(st.data())
def test_whatever_is_put_into_a_field_loads_as_the_same_or_is_refused(data):
    kind, _ = data.draw(KINDS)
    _, foreign = data.draw(KINDS)
    holder = make_dataclass("Holder", [("inner", kind)])
    value = holder(data.draw(foreign))
    try:
        back = reload(holder, value)
    except CodecError:
        return
    assert same(_as_floats(back.inner), _as_floats(value.inner))


def _as_floats(value):
    """Ints are floats by the language's own rules, where the type says so."""
    if type(value) is int:
        return float(value) if abs(value) < 2**53 else value
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(_as_floats, value))
    if type(value) is dict:
        return {_as_floats(key): _as_floats(item) for key, item in value.items()}
    if type(value) is Point:
        return Point(_as_floats(value.x), _as_floats(value.y))
    if type(value) is Box:
        return Box(_as_floats(value.content))
    return value


# Types that can't be kept.


class Plain:
    pass


class Odd(enum.Enum):
    PAIR = (1, 2)


@pytest.mark.parametrize(
    "data_type",
    [
        Plain,
        list[Plain],
        complex,
        object,
        Odd,
        collections.deque,
        collections.Counter,
        dict[tuple[int, int], str],
        Item | Node,
        make_dataclass("Deep", [("a", dict[str, list[Plain]])]),
        "NotDefinedAnywhere",
    ],
    ids=str,
)
def test_a_type_that_can_not_be_kept_is_refused_at_once(data_type):
    with pytest.raises(ConfigurationError, match="can't be kept as JSON"):
        JSONCodec().bind(data_type)
    with pytest.raises(ConfigurationError):
        Sessions(data_type=data_type, storage="memory://")


def test_the_error_for_a_type_names_the_part_that_is_the_trouble():
    with pytest.raises(ConfigurationError, match="it holds Plain"):
        JSONCodec().bind(make_dataclass("Deep", [("a", dict[str, list[Plain]])]))


async def test_a_session_says_whose_and_where_the_trouble_is():
    sessions = Sessions(initial=Node, storage="memory://", prefix="tree:")
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("a") as session:
            session.data.children.append(Node(0, [Node("1")]))
    assert caught.value.path == "$.children[0].children[0].value"
    assert (caught.value.key, caught.value.storage) == ("tree:a", "memory://")
    for part in ("'tree:a'", "memory://", caught.value.path, caught.value.reason):
        assert part in str(caught.value)
