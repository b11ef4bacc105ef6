"""pydantic's classes in the type of a session: kept, validated, and refused where part is lost."""

import datetime as dt
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, SecretStr

from gramkeep import (
    CodecError,
    ConfigurationError,
    JSONCodec,
    MemorySessionStorage,
    MessagePackCodec,
    SessionEncodeError,
    Sessions,
)
from gramkeep.envelope import Envelope

from .keeping import keep, round_trip


class Item(BaseModel):
    name: str = ""
    price: float = Field(default=1.0, ge=0)


class Cart(BaseModel):
    items: list[Item] = []
    tags: set[str] = set()
    at: dt.datetime | None = None


@pydantic.dataclasses.dataclass
class Checked:
    count: pydantic.PositiveInt = 1
    item: Item = Field(default_factory=Item)
    blob: bytes = b""


@dataclass
class Order:
    cart: Cart | None = None
    more: dict[str, Item] = field(default_factory=dict)
    checked: list[Checked] = field(default_factory=list)


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    content: T


class Shelf(msgspec.Struct):
    item: Item


NOW = dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))
FULL = Cart(items=[Item(name="tea", price=2.5), Item()], tags={"a", "b"}, at=NOW)


def written(codec, data):
    return keep(codec.bind(Any), data).stored


# What is kept.


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (Cart, FULL),
        (Cart | None, FULL),
        (Cart | None, None),
        (list[Cart], [Cart(), FULL]),
        (dict[int, Item], {5: Item(name="x")}),
        (Order, Order(FULL, {"a": Item(price=0)}, [Checked(3)])),
        (Shelf, Shelf(Item(name="b"))),
        (Checked, Checked(7, Item(), b"\x00\xff")),
        (tuple[Item, Checked], (Item(), Checked())),
        (RootModel[list[Item]], RootModel[list[Item]]([Item()])),
        (list[RootModel[dict[str, int]]], [RootModel[dict[str, int]]({"a": 1})]),
    ],
)
def test_a_session_with_models_loads_as_the_same(codec, data_type, value):
    assert round_trip(codec, data_type, value) == value
    in_an_envelope = Envelope(data=value, version=2)
    assert round_trip(codec, Envelope[data_type], in_an_envelope) == in_an_envelope


MODELS = st.builds(
    Cart,
    items=st.lists(st.builds(Item, name=st.text(st.characters(exclude_categories=["Cs"])))),
    tags=st.sets(st.sampled_from("abc")),
    at=st.none() | st.datetimes(timezones=st.just(dt.UTC)),
)


@given(st.sampled_from([JSONCodec(), MessagePackCodec()]), MODELS)
def test_whatever_a_model_holds_loads_equal_and_then_is_no_change(codec, value):
    for data_type, wrapped in [(Cart, value), (Order, Order(value))]:
        kept = keep(codec.bind(data_type), wrapped)
        assert kept.load() == wrapped
        assert kept.changed_to(kept.load()) is kept


def test_a_model_alone_and_one_in_a_dataclass_are_written_alike():
    alone = JSONCodec().bind(Cart).encode(FULL, "key")
    inside = JSONCodec().bind(list[Cart]).encode([FULL], "key")
    assert inside == b"[" + alone + b"]"
    assert JSONCodec().bind(Any).decode(alone, "key")["at"] == "2024-02-29T12:00:00+05:45"


def test_a_changed_model_is_told_from_an_unchanged_one(codec):
    kept = keep(codec.bind(Cart), FULL)
    value = kept.load()
    value.tags = {"b", "a"}
    assert kept.changed_to(value) is kept
    value.items[1].price = 3
    changed = kept.changed_to(value)
    assert changed.load().items[1].price == 3.0


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, serialize_by_alias=True)
    plain: int = 0
    apart: int = Field(0, validation_alias=pydantic.AliasPath("a", 1), serialization_alias="z")
    left: int = Field(0, alias="right")
    right: int = Field(0, alias="left")


def test_aliases_have_no_say_in_what_is_stored(codec):
    value = Aliased(PLAIN=1, a=[0, 2], right=3, left=4)
    kept = keep(codec.bind(Aliased), value)
    assert codec.bind(Any).decode(kept.stored, "key") == {
        "plain": 1,
        "apart": 2,
        "left": 3,
        "right": 4,
    }
    assert kept.load() == value
    assert round_trip(codec, list[Aliased], [value]) == [value]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: dt.datetime = NOW
    id: UUID = UUID(int=1)
    pair: tuple[int, ...] = (1, 2)
    numbers: frozenset[int] = frozenset({3})


def test_strict_models_are_kept(codec):
    for data_type, value in [(Strict, Strict()), (list[Strict], [Strict()])]:
        assert round_trip(codec, data_type, value) == value
    for data_type, wrong in [(Strict, {"pair": ["1"]}), (list[Strict], [{"pair": ["1"]}])]:
        with pytest.raises(CodecError, match="valid integer") as caught:
            codec.bind(data_type).decode(written(codec, wrong), "key")
        assert caught.value.path.endswith(".pair[0]")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Pet(RootModel[Annotated[Cat | Dog, Field(discriminator="kind")]]):
    pass


def test_a_union_of_models_is_kept_in_a_root_model(codec):
    with pytest.raises(ConfigurationError, match="RootModel with a discriminator"):
        codec.bind(Cat | Dog)
    assert round_trip(codec, list[Pet], [Pet(Dog()), Pet(Cat(lives=3))])[1].root == Cat(lives=3)
    with pytest.raises(CodecError) as caught:
        codec.bind(Pet).decode(written(codec, {"kind": "cat", "lives": "many"}), "key")
    assert caught.value.path == "$.lives"  # without the member of the union that pydantic names


class Generics(BaseModel, Generic[T]):
    content: T


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    number: int = 1


class Tree(BaseModel):
    children: list["Tree"] = []


@pytest.mark.parametrize("value", [Generics[int](content=1), Deferred(), Tree(children=[Tree()])])
def test_generic_deferred_and_recursive_models_are_kept(codec, value):
    assert round_trip(codec, type(value), value) == value
    assert round_trip(codec, list[type(value)], [value]) == [value]


def test_nan_in_a_model_is_kept_by_messagepack_and_refused_by_json():
    assert str(round_trip(MessagePackCodec(), Cart, Cart(items=[Item(price="inf")]))).count("inf")
    for data_type, value in [(Item, Item(price="inf")), (list[Item], [Item(price="inf")])]:
        with pytest.raises(CodecError) as caught:
            keep(JSONCodec().bind(data_type), value)
        assert caught.value.path.endswith(".price")


# What doesn't fit is not read.


@pytest.mark.parametrize(
    ("data_type", "data", "path"),
    [
        (Cart, {"items": [{"price": "x"}]}, "$.items[0].price"),
        (Cart, {"items": [{}, {"price": -1}]}, "$.items[1].price"),
        (Cart, {"items": 5}, "$.items"),
        (Cart, [], "$"),
        (Order, {"cart": {"items": [{"price": "x"}]}}, "$.cart.items[0].price"),
        (Order, {"more": {"a": {"price": -1}}}, "$.more[...].price"),
        (Order, {"checked": [{}, {"count": 0}]}, "$.checked[1].count"),
        (Order, {"checked": [{"item": {"price": -1}}]}, "$.checked[0].item.price"),
        (Checked, {"count": -5}, "$.count"),
        (RootModel[list[Item]], [{"price": "x"}], "$[0].price"),
        (Generics[int], {}, "$.content"),
        (dict[str, Generics[int]], {"a": {}}, "$[...].content"),
    ],
)
def test_what_pydantic_refuses_is_refused_with_its_path(codec, data_type, data, path):
    with pytest.raises(CodecError) as caught:
        codec.bind(data_type).decode(written(codec, data), "key")
    assert caught.value.path == path
    assert "pydantic.dev" not in caught.value.reason


def test_json_that_is_none_is_refused():
    for data in (b"", b"{", b'{"items":[}', b"\xff"):
        with pytest.raises(CodecError) as caught:
            JSONCodec().bind(Cart).decode(data, "key")
        assert caught.value.path == "$"


class Raising(BaseModel):
    number: int = 0

    @pydantic.field_validator("number")
    @classmethod
    def refuse(cls, number):
        if number < 0:
            raise KeyError("no such number")
        return number


def test_a_validator_that_raises_something_else_refuses_too(codec):
    for data_type, data in [(Raising, {"number": -1}), (list[Raising], [{"number": -1}])]:
        with pytest.raises(CodecError, match="KeyError: 'no such number'"):
            codec.bind(data_type).decode(written(codec, data), "key")


# What would be lost is not saved.


class Losing(BaseModel):
    kept: int = 0
    anything: Any = None
    excluded: str = Field("", exclude=True)
    secret: SecretStr = SecretStr("")
    raw: bytes = b""
    _private: list[int] = PrivateAttr(default_factory=list)

    @pydantic.computed_field
    @property
    def double(self) -> int:
        return self.kept * 2


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")


def losing(**values):
    value = Losing(**{name: item for name, item in values.items() if name[0] != "_"})
    for name in values.keys() - value.__pydantic_fields__.keys():
        setattr(value, name, values[name])
    return value


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (losing(_private=[5]), "$._private", "1 items would load as 0"),
        (losing(excluded="x"), "$.excluded", "'x' would load as ''"),
        (losing(secret="x"), "$.secret", "would load as another value"),
        (losing(raw=b"\xff"), "$.raw", "utf-?8"),
        (losing(anything=(1, 2)), "$.anything", "a tuple would load as a list"),
        (losing(anything=[{1}]), "$.anything[0]", "a set would load as a list"),
        (losing(anything=NOW), "$.anything", "a datetime would load as a str"),
        (losing(anything=Item()), "$.anything", "a Item would load as a dict"),
        (losing(anything={"a": [object()]}), "$.anything.a[0]", "nable to serialize"),
        (losing(anything=["\ud800"]), "$.anything[0]", "surrogates"),
        (Extra(a=1, b=(2,)), "$.b", "a tuple would load as a list"),
        (Losing.model_construct(kept="5"), "$.kept", "a str would load as a int"),
        (Cart.model_construct(items=[Item.model_construct(price="2")]), "$.items[0].price", "str"),
    ],
)
def test_what_would_be_lost_in_a_model_is_refused_with_its_path(codec, value, path, reason):
    kind = type(value)
    with pytest.raises(CodecError, match=reason) as caught:
        keep(codec.bind(kind), value)
    assert caught.value.path == path
    with pytest.raises(CodecError, match=reason) as caught:
        keep(codec.bind(dict[str, list[kind]]), {"x": [value]})
    assert caught.value.path == "$.x[0]" + path[1:]


def test_private_and_excluded_values_that_are_as_they_would_be_after_loading_are_no_loss(codec):
    assert round_trip(codec, Losing, Losing(kept=5)).double == 10
    assert round_trip(codec, Extra, Extra(a=1)) == Extra(a=1)


@pytest.mark.parametrize(
    ("name", "value"), [("_private", [5]), ("excluded", "x"), ("secret", SecretStr("other"))]
)
def test_a_change_in_nothing_but_what_would_be_lost_is_refused(codec, name, value):
    for data_type, wrap in [(Losing, lambda v: v), (dict[str, list[Losing]], lambda v: {"": [v]})]:
        kept = keep(codec.bind(data_type), wrap(Losing()))
        changed = Losing()
        setattr(changed, name, value)
        with pytest.raises(CodecError) as caught:
            kept.changed_to(wrap(changed))
        assert caught.value.path.endswith(f".{name}")


class Shown(BaseModel):
    number: int = 0

    @pydantic.field_serializer("number")
    def show(self, number):
        return number // 10


def test_a_change_that_a_serializer_hides_is_refused(codec):
    kept = keep(codec.bind(list[Shown]), [Shown(number=0)])
    with pytest.raises(CodecError, match="5 would load as 0"):
        kept.changed_to([Shown(number=5)])


class Big(Item):
    size: int = 0


def test_a_model_of_a_derived_class_is_refused(codec):
    for data_type, value, path in [
        (Item, Big(), "$"),
        (list[Item], [Item(), Big()], "$[1]"),
        (Cart, Cart(items=[Big()]), "$.items[0]"),
    ]:
        with pytest.raises(CodecError, match="a Big would load as a Item") as caught:
            keep(codec.bind(data_type), value)
        assert caught.value.path == path


def test_a_model_that_contains_itself_is_refused(codec):
    tree = Tree()
    tree.children.append(tree)
    for data_type, value in [(Tree, tree), (list[Tree], [tree])]:
        with pytest.raises(CodecError, match=r"contains itself|[Cc]ircular"):
            keep(codec.bind(data_type), value)


def test_a_model_where_the_type_says_nothing_is_refused(codec):
    with pytest.raises(CodecError) as caught:
        keep(codec.bind(dict), {"a": [Item()]})
    assert caught.value.path == "$.a[0]"


def test_a_value_that_would_not_pass_validation_is_not_saved(codec):
    for data_type, value in [
        (Item, Item.model_construct(price=-1.0)),
        (Cart, Cart.model_construct(items=[Item.model_construct(price=-1.0)])),
    ]:
        with pytest.raises(CodecError, match=r"would not load again .*greater than or equal") as e:
            keep(codec.bind(data_type), value)
        assert e.value.path.endswith("price")
    checked = Checked()
    checked.count = -1
    with pytest.raises(CodecError, match=r"would not load again .*greater than 0") as e:
        keep(codec.bind(Order), Order(None, {}, [checked]))
    assert e.value.path == "$.checked[0].count"


# pydantic's dataclasses.


def test_a_dataclass_of_pydantic_is_written_as_any_dataclass(codec):
    @dataclass
    class Plain:
        count: int = 1
        item: Item = field(default_factory=Item)
        blob: bytes = b""

    value = keep(codec.bind(Plain), Plain(3, Item(), b"\xff"))
    assert codec.bind(Checked).decode(value.stored, "key") == Checked(3, Item(), b"\xff")


@pydantic.dataclasses.dataclass(config=ConfigDict(strict=True, extra="forbid"), frozen=True)
class Frozen:
    at: dt.datetime = Field(default=NOW, alias="moment")
    ids: frozenset[int] = frozenset()
    late: int = field(default=5, init=False)


def test_strict_and_frozen_dataclasses_with_aliases_are_kept():
    assert round_trip(JSONCodec(), list[Frozen], [Frozen(ids=frozenset({1}))])[0].late == 5


def test_what_is_missing_in_a_dataclass_of_pydantic_has_the_default_of_its_field(codec):
    @pydantic.dataclasses.dataclass
    class Grown:
        old: int
        new: int = Field(default=5, gt=0)
        made: list[int] = Field(default_factory=lambda: [1])

    for data_type, data in [(Grown, {"old": 1}), (Box[Grown], {"content": {"old": 1}})]:
        value = codec.bind(data_type).decode(written(codec, data), "key")
        assert getattr(value, "content", value) == Grown(1, 5, [1])


def test_a_dataclass_of_pydantic_that_takes_extra_attributes_is_refused_at_once(codec):
    @pydantic.dataclasses.dataclass(config=ConfigDict(extra="allow"))
    class Open:
        a: int = 0

    with pytest.raises(ConfigurationError, match="Open is a dataclass that takes extra attributes"):
        codec.bind(list[Open])


# Set-up.


class Unfinished(BaseModel):
    later: "NotDefinedAnywhere"  # noqa: F821 - that is the point


def test_a_model_whose_annotations_can_not_be_resolved_is_refused_at_once(codec):
    for data_type in (Unfinished, list[Unfinished]):
        with pytest.raises(ConfigurationError, match="NotDefinedAnywhere"):
            codec.bind(data_type)


def test_a_class_of_pydantic_that_is_no_model_is_refused_at_once(codec):
    with pytest.raises(ConfigurationError, match="it holds SecretStr"):
        codec.bind(list[SecretStr])


def test_a_pydantic_that_is_too_old_is_refused_at_once(codec, monkeypatch):
    monkeypatch.setattr(pydantic, "VERSION", "2.10.6")
    with pytest.raises(ConfigurationError, match=r"need pydantic 2\.11 or newer, and 2\.10\.6 is"):
        codec.bind(Cart)


def test_pydantic_is_not_imported_for_sessions_without_its_classes():
    program = """
import sys, dataclasses, typing
from gramkeep import JSONCodec
from gramkeep.codec import MessagePackCodec

@dataclasses.dataclass
class Session:
    anything: typing.Any = None
    numbers: set[int] = dataclasses.field(default_factory=set)

for codec in (JSONCodec(), MessagePackCodec()):
    bound = codec.bind(Session)
    for value in (Session(), {"a": 1}, lambda: 0):
        try:
            bound.check(value, bound.encode(value, "k"), "k")
        except ValueError:
            pass
print("pydantic" in sys.modules, "cryptography" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]


async def test_sessions_of_models_work_in_bots():
    sessions = Sessions(initial=Cart, storage="memory://")
    async with sessions.open("42") as session:
        session.data.items.append(Item(name="tea"))
    assert await sessions.get("42") == Cart(items=[Item(name="tea")])


@pytest.mark.parametrize("migrations", [None, {1: lambda old: old}])
async def test_sessions_of_models_with_private_attributes_are_deleted(codec, migrations):
    storage = MemorySessionStorage()
    options = {"initial": Losing, "storage": storage, "codec": codec, "migrations": migrations}
    sessions = Sessions(**options)
    async with sessions.open("42") as session:
        session.data.kept = 5
    async with sessions.open("42") as session:
        session.data = None
    assert await storage.get(["42"]) == [None]


async def test_a_change_of_a_private_attribute_alone_is_refused_in_bots(codec):
    sessions = Sessions(initial=Losing, storage="memory://", codec=codec)
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("42") as session:
            session.data._private = [1]
    assert caught.value.path == "$._private"
