"""JSON and MessagePack keep the same promises: what is saved loads as the same, or is refused."""

import collections
import datetime as dt
import enum
import math
import uuid
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import CodecError, ConfigurationError, JSONCodec
from gramkeep.codec import BoundCodec, EnvelopeFound, MessagePackCodec, differences
from gramkeep.codec.comparing import alike_in
from gramkeep.codec.differences import alike
from gramkeep.envelope import Envelope

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
    Point,
    Settings,
    same,
)

BOTH = st.sampled_from([JSONCodec(), MessagePackCodec()])


# Properties over typed dataclasses.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INT64 = st.integers(-(2**63), 2**64 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.sampled_from(
    [
        (int, INT64),
        (float, FINITE),
        (str, TEXT),
        (bool, st.booleans()),
        (bytes, st.binary(max_size=6)),
        (dt.datetime, st.datetimes(timezones=st.none() | st.just(dt.UTC))),
        (dt.date, st.dates()),
        (dt.time, st.times()),
        (dt.timedelta, st.timedeltas()),
        (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
        (uuid.UUID, st.uuids()),
        (Color, st.sampled_from(Color)),
        (Level, st.sampled_from(Level)),
        (Mood, st.sampled_from(Mood)),
        (Point, st.builds(Point, INT64, FINITE)),
        (Frozen, st.builds(Frozen, TEXT)),
        (Item, st.builds(Item, TEXT, st.decimals(allow_nan=False, allow_infinity=False))),
        (Settings, st.builds(Settings, INT64, st.lists(TEXT, max_size=2))),
        (Address, st.builds(Address, TEXT, INT64)),
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
            return tuple[kind, int], st.tuples(values, INT64)
        if shape == "dict":
            return dict[str, kind], st.dictionaries(TEXT, values, max_size=3)
        if shape == "by number":
            return dict[int, kind], st.dictionaries(INT64, values, max_size=3)
        if shape == "optional":
            return kind | None, st.none() | values
        return Box[kind], values.map(Box)

    shapes = ["list", "tuple", "pair", "dict", "by number", "optional", "box"]
    return st.builds(wrap, inner, st.sampled_from(shapes))


UNHASHABLE = (Item, Settings, Address)
SETS = st.builds(
    lambda drawn, kind: (kind[drawn[0]], st.frozensets(drawn[1], max_size=4).map(kind)),
    LEAVES.filter(lambda drawn: drawn[0] not in UNHASHABLE),
    st.sampled_from([set, frozenset]),
)
KINDS = st.recursive(LEAVES | SETS, containers, max_leaves=3)


def drawn_dataclass(data):
    kinds = data.draw(st.lists(KINDS, min_size=1, max_size=3))
    kind = make_dataclass("Drawn", [(f"field{i}", kind) for i, (kind, _) in enumerate(kinds)])
    return kind, kind(*(data.draw(values) for _, values in kinds))


@given(BOTH, st.data())
def test_whatever_a_dataclass_holds_loads_equal_with_equal_types(codec, data):
    kind, value = drawn_dataclass(data)
    assert same(round_trip(codec, kind, value), value)


@given(BOTH, st.data())
def test_whatever_is_put_into_a_field_loads_as_the_same_or_is_refused(codec, data):
    kind, _ = data.draw(KINDS)
    _, foreign = data.draw(KINDS)
    holder = make_dataclass("Holder", [("inner", kind)])
    value = holder(data.draw(foreign))
    try:
        back = round_trip(codec, holder, value)
    except CodecError:
        return
    assert not list(differences(value, back))


@given(BOTH, st.data())
def test_saving_what_was_loaded_writes_nothing(codec, data):
    kind, value = drawn_dataclass(data)
    kept = keep(codec.bind(kind), value)
    assert kept.changed_to(kept.load()) is kept


@given(st.data())
def test_the_quick_comparisons_find_what_the_thorough_one_finds(data):
    kind, value = drawn_dataclass(data)
    other_kind, other = drawn_dataclass(data) if data.draw(st.booleans()) else (kind, value)
    back = round_trip(MessagePackCodec(), other_kind, other)
    found = list(differences(value, back))
    assert alike(value, back) is not bool(found)
    assert alike_in(msgspec.inspect.type_info(kind))(value, back) is not bool(found)


UNTYPED = st.recursive(
    st.none() | st.booleans() | INT64 | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(BOTH, UNTYPED)
def test_what_json_knows_loads_as_the_same_from_an_untyped_session(codec, value):
    try:
        assert same(round_trip(codec, Any, value), value)
    except CodecError:
        assert "__d" in value


@given(BOTH, st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(codec, data):
    refused = []
    for data_type in (Item, dict, Node, list[dt.datetime], Any, Envelope[Item]):
        try:
            codec.bind(data_type).decode(data, "key")
        except CodecError as error:
            refused.append(error.path)
    assert all(path.startswith("$") for path in refused)


# Kinds of values in both.


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (Movie, {"title": "Alien", "year": 1979}),
        (Literal["a", 3], 3),
        (int | str | None, "5"),
        (Item | str, Item("x")),
        (dict[uuid.UUID, set[int]], {uuid.UUID(int=1): {1}}),
        (bytearray, bytearray(b"\xff")),
        (Node, Node(1, [Node(2, [Node(3)]), Node(4)])),
        (float, -0.0),
        (int, 2**64 - 1),
    ],
    ids=str,
)
def test_what_is_saved_loads_as_the_same(codec, data_type, value):
    assert same(round_trip(codec, data_type, value), value)


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (str, Mood.GOOD),
        (int, Level.LOW),
        (int, True),
        (set[int], frozenset({1})),
        (dict[str, int], collections.OrderedDict(a=1)),
        (tuple[int, float], Point(1, 2.0)),
        (bytes, bytearray(b"a")),
        (list[int], (1, 2)),
        (Color, "red"),
        (set[str], {Mood.GOOD}),
        (dict[str, int], {Mood.GOOD: 1}),
    ],
    ids=str,
)
def test_what_only_equals_a_value_of_the_declared_type_is_refused(codec, data_type, value):
    holder = make_dataclass("Holder", [("inner", dict[str, data_type])])
    with pytest.raises(CodecError) as caught:
        keep(codec.bind(holder), holder({"x": value}))
    assert caught.value.path.startswith("$.inner")


@pytest.mark.parametrize("value", [{"a": [0, {1}]}, {"a": [0, (1,)]}, {"a": [0, Color.RED]}])
def test_an_untyped_session_refuses_what_would_change_with_its_path(codec, value):
    with pytest.raises(CodecError) as caught:
        keep(codec.bind(dict), value)
    assert caught.value.path == "$.a[1]"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_that_is_not_unicode_is_refused_with_its_path(codec, text):
    for data_type, value in [(dict, {"a": [text]}), (dict[str, list[str]], {"a": [text]})]:
        with pytest.raises(CodecError, match="surrogates") as caught:
            keep(codec.bind(data_type), value)
        assert caught.value.path == "$.a[0]"


def test_data_that_contains_itself_is_refused(codec):
    node = Node()
    node.children.append(node)
    with pytest.raises(CodecError, match="contains itself"):
        keep(codec.bind(Node), node)


def test_a_value_that_can_not_be_written_is_refused_with_its_path(codec):
    with pytest.raises(CodecError) as caught:
        keep(codec.bind(Node), Node(0, [Node(), Node(lambda: 0)]))
    assert caught.value.path == "$.children[1].value"


def test_a_comparison_that_raises_refuses_the_value():
    class Odd:
        def __eq__(self, other):
            raise ArithmeticError("no")

        __hash__ = None

    class Bound(BoundCodec):
        def encode(self, value, key):
            return b""

        def decode(self, data, key):
            return Odd()

    with pytest.raises(CodecError, match="comparing it with its reload raised ArithmeticError: no"):
        Bound().check(Odd(), b"", "key")


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"name": 5}, "$.name"),
        ({"name": "a", "price": "x"}, "$.price"),
        ([], "$"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_with_the_path(codec, data, path):
    stored = keep(codec.bind(Any), data).stored
    with pytest.raises(CodecError) as caught:
        codec.bind(Item).decode(stored, "key")
    assert caught.value.path == path


def test_cut_off_bytes_are_refused_at_every_length(codec):
    bound = codec.bind(Item)
    encoded = bound.encode(Item("tea", Decimal(3)), "key")
    for length in range(len(encoded)):
        with pytest.raises(CodecError):
            bound.decode(encoded[:length], "key")


def test_an_envelope_is_told_from_a_bare_value(codec):
    for value in (Envelope(data=Item("x"), version=3), Envelope(data=Item(), expires=1)):
        encoded = codec.bind(Envelope[Item]).encode(value, "key")
        assert codec.bind(Envelope[Item]).decode(encoded, "key") == value
        for data_type in (Item, Settings, Any):
            with pytest.raises(EnvelopeFound):
                codec.bind(data_type).decode(encoded, "key")


def test_the_mark_of_an_envelope_inside_a_value_is_no_envelope(codec):
    value = {"a": {"__d": 1}, "__d": 2, "text": '"__d"'}
    assert round_trip(codec, dict, value) == value


def test_a_value_that_would_be_taken_for_an_envelope_is_refused_where_it_stands_bare(codec):
    class Marked(msgspec.Struct):
        data: int = msgspec.field(name="__d", default=0)

    with pytest.raises(CodecError, match="would not load again"):
        keep(codec.bind(Marked), Marked(1))


def test_sets_in_another_order_are_no_change(codec):
    bound = codec.bind(Box[set[int]])
    for order in ([8, 16, 24, 1], [1, 24, 16, 8]):
        stored = codec.bind(Any).encode({"content": order}, "key")
        value = Box(set(order))
        assert bound.is_same(value, bound.encode(value, "key"), stored, "key")
        other = Box({1, 8, 16})
        assert not bound.is_same(other, bound.encode(other, "key"), stored, "key")


def test_an_error_of_a_codec_survives_pickling():
    import pickle  # noqa: PLC0415 - as worker pools do

    error = pickle.loads(pickle.dumps(CodecError("too long", "$.a")))
    assert (error.reason, error.path, str(error)) == ("too long", "$.a", "too long, at $.a")


# What MessagePack has otherwise.


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_kept_by_messagepack_and_refused_by_json(number):
    for data_type, value in [(dict, {"a": [number]}), (Box[float], Box(number)), (float, number)]:
        assert same(round_trip(MessagePackCodec(), data_type, value), value)
        with pytest.raises(CodecError):
            keep(JSONCodec().bind(data_type), value)


def test_bytes_and_keys_that_are_no_text_are_kept_untyped_by_messagepack():
    value = {"a": b"\x00\xff", 1: {True: "x"}, (1, "b"): 2.5, None: 0, b"k": 1}
    assert same(round_trip(MessagePackCodec(), dict, value), value)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**100])
def test_integers_beyond_64_bits_are_kept_by_json_and_refused_by_messagepack(number):
    assert round_trip(JSONCodec(), dict, {"a": number}) == {"a": number}
    for data_type, value, path in [(dict, {"a": number}, "$.a"), (Node, Node(number), "$.value")]:
        with pytest.raises(CodecError, match="can't serialize ints") as caught:
            keep(MessagePackCodec().bind(data_type), value)
        assert caught.value.path == path


def test_a_datetime_at_another_offset_is_kept_by_json_and_refused_by_messagepack():
    abroad = dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=-3)))
    for data_type, value in [
        (Box[dt.datetime], Box(abroad)),
        (dict[str, dt.datetime], {"content": abroad}),
        (Box[dt.datetime | None], Box(abroad)),
    ]:
        assert same(round_trip(JSONCodec(), data_type, value), value)
        with pytest.raises(CodecError) as caught:
            keep(MessagePackCodec().bind(data_type), value)
        assert caught.value.reason == ("a datetime at UTC-3:00:00 would load as one at UTC+0:00:00")
        assert caught.value.path == "$.content"


def test_aware_datetimes_in_utc_are_kept_untyped_by_messagepack():
    value = {"at": dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)}
    assert same(round_trip(MessagePackCodec(), dict, value), value)
    with pytest.raises(CodecError, match="a datetime would load as a str"):
        keep(MessagePackCodec().bind(dict), {"at": dt.datetime(2024, 2, 29)})  # noqa: DTZ001


def test_dicts_whose_keys_are_no_text_are_kept_by_messagepack_and_refused_by_json_at_once():
    value = {(1, 2): "a"}
    assert round_trip(MessagePackCodec(), dict[tuple[int, int], str], value) == value
    with pytest.raises(ConfigurationError, match="keys are neither text nor numbers"):
        JSONCodec().bind(dict[tuple[int, int], str])


# Types that can't be kept.


class Mixed(enum.Enum):
    NUMBER = 1
    TEXT = "x"


class Plain:
    pass


@dataclass
class Other:
    y: int = 0


@pytest.mark.parametrize(
    ("data_type", "reason"),
    [
        (Mixed, "Enums must contain either all str or all int values"),
        (Item | Other, "more than one dataclass .* tagged Structs of msgspec, or pydantic models"),
        (list[Plain], "it holds Plain, which is no dataclass"),
        (make_dataclass("Deep", [("a", dict[str, list[Plain]])]), "it holds Plain"),
        (complex, "complex"),
        ("NotDefinedAnywhere", "NotDefinedAnywhere"),
    ],
    ids=str,
)
def test_a_type_that_can_not_be_kept_is_refused_at_once_with_the_reason(codec, data_type, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        codec.bind(data_type)
    assert f"can't be kept as {type(codec).format.name}" in str(caught.value)


def test_tagged_structs_are_told_apart(codec):
    class Cat(msgspec.Struct, tag=True):
        lives: int = 9

    class Dog(msgspec.Struct, tag=True):
        bones: int = 0

    assert round_trip(codec, list[Cat | Dog], [Dog(3), Cat()]) == [Dog(3), Cat()]
