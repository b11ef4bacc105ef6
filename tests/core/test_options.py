"""SessionOptions: what may be set, and what type the sessions have by it."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from gramkeep import (
    ConfigurationError,
    JSONCodec,
    MemorySessionStorage,
    SessionDecodeError,
    SessionOptions,
    Sessions,
    per_chat,
    session,
)
from gramkeep.storage import ANY, Put

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers


@dataclass
class Counter:
    count: int = 0


class Movie(TypedDict):
    title: str


def made_by(stored=b'{"count":5}', **options):
    """See what sessions under these options make of what is stored, a counter."""

    async def read():
        storage = MemorySessionStorage()
        await storage.put([Put("a", stored, ANY)])
        return await Sessions(storage=storage, **options).get("a")

    return asyncio.run(read())


def test_the_defaults_are_the_documented_ones():
    options = SessionOptions()
    assert options.initial is None
    assert options.data_type is None
    assert options.storage is None
    assert options.get_session_key is per_chat
    assert options.prefix is None
    assert options.key == "session"
    assert options.handle_key == "session_handle"
    assert options.lazy is False
    assert options.ttl is None
    assert options.refresh_ttl == "write"
    assert isinstance(options.codec, JSONCodec)
    assert options.isolation == "serial"
    assert options.lock_timeout == 60
    assert options.max_bytes == 1024 * 1024


def test_lifetimes_are_timedeltas_or_seconds_and_days_count():
    options = SessionOptions(ttl=timedelta(days=14), lock_timeout=timedelta(minutes=1))
    assert options.ttl == 14 * 24 * 3600
    assert options.lock_timeout == 60
    assert SessionOptions(ttl=0.5).ttl == 0.5


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        SessionOptions(Counter)
    with pytest.raises(TypeError):
        Sessions(Counter)


def test_a_class_tells_the_type():
    assert made_by(initial=Counter) == Counter(5)
    assert made_by(initial=dict) == {"count": 5}
    assert made_by(initial=dict[str, int]) == {"count": 5}


def test_a_return_annotation_tells_the_type():
    def plain() -> Counter:
        raise AssertionError("it need not be called")

    async def asynchronous() -> Counter:
        raise AssertionError("it need not be called")

    def with_origin(origin) -> Counter:
        raise AssertionError("it need not be called")

    def awaitable() -> Awaitable[Counter]:
        raise AssertionError("it need not be called")

    def coroutine() -> Coroutine[Any, Any, Counter]:
        raise AssertionError("it need not be called")

    for initial in (plain, asynchronous, with_origin, awaitable, coroutine):
        assert made_by(initial=initial) == Counter(5), initial.__name__


def test_an_annotation_may_allow_more_than_what_is_made():
    def make() -> Counter | None:
        return None

    assert made_by(b"null", initial=make) is None
    assert made_by(initial=make) == Counter(5)


def test_what_an_unannotated_function_makes_tells_the_type():
    assert made_by(initial=lambda: Counter(3)) == Counter(5)
    assert made_by(initial=functools.partial(Counter, count=3)) == Counter(5)
    assert made_by(initial=lambda: {"a": 1}) == {"count": 5}
    assert made_by(initial=lambda: None) == {"count": 5}


def test_a_method_and_a_callable_object_tell_the_type():
    class Factory:
        def make(self) -> Counter:
            raise AssertionError("it need not be called")

        @classmethod
        def make_by_class(cls) -> Counter:
            raise AssertionError("it need not be called")

        def __call__(self) -> Counter:
            raise AssertionError("it need not be called")

    for initial in (Factory().make, Factory.make_by_class, Factory()):
        assert made_by(initial=initial) == Counter(5)


def test_data_type_goes_before_what_initial_tells():
    assert made_by(initial=lambda: {"count": 1}, data_type=Counter) == Counter(5)
    assert made_by(initial=lambda origin: {}, data_type=dict[str, int]) == {"count": 5}


def test_a_typed_dict_is_a_type_as_any_other():
    assert made_by(b'{"title":"Alien"}', data_type=Movie) == {"title": "Alien"}
    with pytest.raises(SessionDecodeError):
        made_by(b'{"title":5}', data_type=Movie)


def test_without_initial_and_data_type_a_session_holds_any_json():
    assert made_by() == {"count": 5}


@pytest.mark.parametrize(
    "initial",
    [lambda origin: Counter(), lambda a, b: Counter()],
    ids=["takes the origin", "takes too much"],
)
def test_an_initial_whose_type_can_not_be_told_is_refused(initial):
    with pytest.raises(ConfigurationError) as caught:
        Sessions(initial=initial, storage="memory://")
    assert "initial=" in str(caught.value)


def test_an_async_initial_without_an_annotation_is_refused():
    async def make():
        raise AssertionError("it need not be called")

    for initial in (make, lambda: make()):  # noqa: PLW0108 - the lambda is what is tested
        with pytest.raises(
            ConfigurationError, match="annotate what it returns, or pass data_type="
        ):
            Sessions(initial=initial, storage="memory://")


def test_a_class_that_needs_arguments_is_refused_by_name():
    @dataclass
    class Needy:
        name: str
        age: int
        city: str = ""

    with pytest.raises(ConfigurationError) as caught:
        Sessions(initial=Needy, storage="memory://")
    assert "Needy" in str(caught.value)
    assert "name, age" in str(caught.value)


def test_an_annotation_that_does_not_exist_at_run_time_is_refused():
    def make() -> "OnlyForTypeCheckers":
        raise AssertionError("it need not be called")

    with pytest.raises(ConfigurationError, match="OnlyForTypeCheckers"):
        Sessions(initial=make, storage="memory://")
    Sessions(initial=make, data_type=int, storage="memory://")


def test_an_initial_whose_signature_python_does_not_know_is_refused_or_taken():
    unknown = dict.fromkeys  # a builtin
    with suppress(ConfigurationError):
        Sessions(initial=unknown, storage="memory://")


@pytest.mark.parametrize("initial", [time.time, functools.partial(dict, a=1)])
def test_an_initial_that_does_not_say_what_it_takes_is_refused_with_advice(initial):
    with pytest.raises(ConfigurationError, match=r"initial=.*pass a function .*lambda: "):
        Sessions(initial=initial, storage="memory://")
    with pytest.raises(ConfigurationError, match=r"initial=.*pass a function .*lambda: "):
        Sessions(initial=initial, data_type=float, storage="memory://")


@pytest.mark.parametrize("prefix", [0, False, [], b"", 5])
def test_a_prefix_that_is_no_string_is_refused(prefix):
    with pytest.raises(ConfigurationError, match=r"prefix=.* must be a string"):
        SessionOptions(prefix=prefix)


def test_a_prefix_with_half_a_character_is_refused():
    with pytest.raises(ConfigurationError, match=r"prefix='\\ud800:' .* whole characters"):
        SessionOptions(prefix="\ud800:")
    assert SessionOptions(prefix="café:").prefix == "café:"


@pytest.mark.parametrize("lazy", ["no", "", None, [], 0, 1])
def test_lazy_is_true_or_false_and_nothing_else(lazy):
    with pytest.raises(ConfigurationError, match=r"lazy=.* must be True or False"):
        SessionOptions(lazy=lazy)
    with pytest.raises(ConfigurationError, match=r"lazy=.* must be True or False"):
        session(type="multi", lazy=lazy, user=SessionOptions())


def test_a_keyword_only_parameter_without_a_default_is_refused():
    def make(*, origin) -> Counter:
        return Counter()

    with pytest.raises(ConfigurationError, match="origin"):
        Sessions(initial=make, storage="memory://")


def test_refused_options_open_no_storage(tmp_path):
    with pytest.raises(ConfigurationError):
        Sessions(initial=5, storage=f"sqlite:///{tmp_path}/bot.db")
    with pytest.raises(ConfigurationError):
        Sessions(initial=lambda origin: 5, storage=f"sqlite:///{tmp_path}/bot.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "my-session", "1st", "a b", "a.b"])
def test_a_name_that_no_parameter_can_have_is_refused(key):
    with pytest.raises(ConfigurationError, match="identifier"):
        SessionOptions(key=key)


def test_a_name_that_is_a_keyword_is_refused():
    with pytest.raises(ConfigurationError, match="class"):
        SessionOptions(key="class")


def test_a_storage_that_compares_by_value_will_do():
    @dataclass
    class Valued(MemorySessionStorage):
        label: str = ""

        def __post_init__(self):
            super().__init__()

    sessions = Sessions(initial=Counter, storage=Valued("a"))
    assert sessions.storage.label == "a"


def test_initial_is_called_once_at_most_while_setting_up():
    calls = []

    def make():
        calls.append(1)
        return Counter()

    Sessions(initial=make, storage="memory://")
    assert len(calls) <= 1


def test_options_of_any_callable_shape_are_accepted():
    class Finder:
        def __call__(self, origin):
            return "key"

    find: Callable[[Any], str] = Finder()
    assert SessionOptions(get_session_key=find).get_session_key is find
