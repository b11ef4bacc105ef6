"""Where updates came from, and the keys made of it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import (
    ConfigurationError,
    NoSessionKey,
    Origin,
    per_chat,
    per_topic,
    per_user,
    per_user_in_chat,
)
from gramkeep.origin import person, session_key


@pytest.mark.parametrize(
    ("function", "origin", "key"),
    [
        (per_chat, Origin(chat_id=42, user_id=7, thread_id=5), "42"),
        (per_chat, Origin(chat_id=-10042), "-10042"),
        (per_chat, Origin(chat_id=42, business_connection_id="c1"), "42@c1"),
        (per_chat, Origin(chat_id=42, business_connection_id="a:b@c%d"), "42@a%3Ab%40c%25d"),
        (per_user, Origin(chat_id=42, user_id=7), "7"),
        (per_user, Origin(user_id=7, business_connection_id="c1"), "7"),
        (per_user_in_chat, Origin(chat_id=42, user_id=7), "42:7"),
        (per_user_in_chat, Origin(chat_id=42, user_id=7, business_connection_id="c"), "42@c:7"),
        (per_topic, Origin(chat_id=42, thread_id=5), "42:5"),
        (per_topic, Origin(chat_id=42), "42"),
        (per_topic, Origin(chat_id=42, thread_id=5, business_connection_id="c"), "42@c:5"),
    ],
)
async def test_an_update_has_its_key(function, origin, key):
    assert function(origin) == key
    assert await session_key(function, origin) == key


@pytest.mark.parametrize(
    ("function", "origin", "missing"),
    [
        (per_chat, Origin(user_id=7), "chat_id"),
        (per_user, Origin(chat_id=42), "user_id"),
        (per_user_in_chat, Origin(chat_id=42), "user_id"),
        (per_user_in_chat, Origin(user_id=7), "chat_id"),
        (per_topic, Origin(thread_id=5), "chat_id"),
    ],
)
async def test_an_update_that_lacks_a_part_has_no_key(function, origin, missing):
    assert function(origin) is None
    with pytest.raises(NoSessionKey) as caught:
        await session_key(function, origin)
    assert function.__name__ in str(caught.value)
    assert missing in caught.value.reason


def test_the_sender_of_a_ctx_stands_for_its_user():
    class Ctx:
        chat_id = 42
        sender_id = 7

    assert per_user(Ctx()) == "7"
    assert per_user_in_chat(Ctx()) == "42:7"

    class Both(Ctx):
        user_id = 8

    assert per_user(Both()) == "8"


def test_a_ctx_without_any_of_the_attributes_has_no_key():
    for function in (per_chat, per_user, per_user_in_chat, per_topic):
        assert function(object()) is None


@pytest.mark.parametrize("function", [per_chat, per_user, per_user_in_chat, per_topic])
async def test_an_empty_part_raises(function):
    class Ctx:
        chat_id = ""
        user_id = ""

    with pytest.raises(NoSessionKey, match="empty"):
        await session_key(function, Ctx())


@pytest.mark.parametrize("connection", ["", None])
async def test_an_empty_business_connection_is_not_taken_for_none(connection):
    origin = Origin(chat_id=42, business_connection_id=connection)
    if connection is None:
        assert per_chat(origin) == "42"
    else:
        with pytest.raises(NoSessionKey):
            per_chat(origin)


IDS = st.one_of(st.none(), st.integers(-(10**14), 10**14))
TEXTS = st.one_of(st.none(), st.text("ab:@%0123-", min_size=1, max_size=6))
ORIGINS = st.builds(
    Origin,
    chat_id=st.one_of(IDS, TEXTS),
    user_id=st.one_of(IDS, TEXTS),
    thread_id=st.one_of(st.none(), st.integers(1, 20), TEXTS),
    business_connection_id=TEXTS,
)

WHAT_COUNTS = {
    per_chat: ("chat_id", "business_connection_id"),
    per_user: ("user_id",),
    per_user_in_chat: ("chat_id", "user_id", "business_connection_id"),
    per_topic: ("chat_id", "thread_id", "business_connection_id"),
}


def identity(function, origin):
    values = (getattr(origin, name) for name in WHAT_COUNTS[function])
    return tuple(None if value is None else str(value) for value in values)


@pytest.mark.parametrize("function", WHAT_COUNTS, ids=lambda function: function.__name__)
@given(one=ORIGINS, other=ORIGINS)
def test_different_places_never_have_the_same_key(function, one, other):
    keys = function(one), function(other)
    if None not in keys:
        assert (keys[0] == keys[1]) is (identity(function, one) == identity(function, other))


@pytest.mark.parametrize("function", WHAT_COUNTS, ids=lambda function: function.__name__)
@given(origin=ORIGINS)
def test_a_key_has_no_none_in_it_and_is_checked_all_the_same(function, origin):
    key = function(origin)
    if key is not None:
        assert "None" not in key
        assert asyncio.run(session_key(function, origin)) == key


FULL = {
    "bot_id": 1,
    "chat_id": 42,
    "chat_type": "private",
    "user_id": 7,
    "thread_id": 5,
    "business_connection_id": "c",
}


@pytest.mark.parametrize(
    "name", ["chat_id", "user_id", "thread_id", "business_connection_id", "bot_id"]
)
@pytest.mark.parametrize(
    "spell",
    [
        "{}".format,
        "{}:1".format,
        "1:{}".format,
        "user{}".format,
        "{}user".format,
        "a_{}_b".format,
        "a-{}".format,
        "\N{LATIN SMALL LETTER E WITH ACUTE}{}".format,
    ],
)
async def test_a_part_that_is_missing_does_not_become_the_word_none(name, spell):
    def find(origin):
        return spell(getattr(origin, name))

    assert await session_key(find, Origin(**FULL)) == spell(FULL[name])
    with pytest.raises(NoSessionKey) as caught:
        await session_key(find, Origin(**{**FULL, name: None}))
    assert caught.value.reason.endswith(f"and the update has no {name}")


async def test_the_error_for_a_missing_part_names_it():
    with pytest.raises(NoSessionKey) as caught:
        await session_key(lambda o: f"{o.user_id}:{o.chat_id}", Origin(chat_id=42))
    assert caught.value.reason.endswith("and the update has no user_id")


async def test_a_none_that_is_a_name_is_kept():
    class Ctx:
        chat_id = 42
        user_id = None
        name = "None"

    assert await session_key(lambda ctx: f"{ctx.chat_id}:{ctx.name}", Ctx()) == "42:None"
    assert await session_key(lambda o: "None of them", Origin(chat_id=42)) == "None of them"


async def test_an_async_key_function_is_awaited():
    async def find(origin):
        await asyncio.sleep(0)
        return f"{origin.user_id}"

    assert await session_key(find, Origin(user_id=7)) == "7"
    with pytest.raises(NoSessionKey):
        await session_key(find, Origin())


@pytest.mark.parametrize("key", [42, b"42", ["42"], 0, False])
async def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(ConfigurationError) as caught:
        await session_key(lambda o: key, Origin(chat_id=42))
    assert repr(key) in str(caught.value)
    assert type(key).__name__ in str(caught.value)


async def test_an_empty_key_is_refused():
    with pytest.raises(NoSessionKey, match="empty key"):
        await session_key(lambda o: "", Origin(chat_id=42))


async def test_a_key_of_half_characters_is_refused():
    with pytest.raises(ConfigurationError, match="whole characters"):
        await session_key(lambda o: "\ud800", Origin(chat_id=42))


def test_an_origin_can_not_be_changed():
    with pytest.raises(AttributeError):
        Origin(chat_id=42).chat_id = 43


async def test_a_key_that_is_calculated_of_a_missing_id_is_no_key():
    with pytest.raises(NoSessionKey, match="no chat_id and no user_id"):
        await session_key(lambda o: f"{o.chat_id}:{abs(o.user_id or 0)}", Origin(bot_id=1))


@pytest.mark.parametrize("user_id", [1087968824, 136817688, 777000])
def test_a_user_who_stands_for_many_is_nobody(user_id):
    assert person(user_id) is None
    assert person(7) == 7
    assert person(None) is None
