"""Which kinds of session may live side by side on one bot."""

from dataclasses import dataclass

import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    SessionOptions,
    per_topic,
    per_user,
    per_user_in_chat,
    session,
)
from gramkeep.integrations.around import Plugins

STORAGE = MemorySessionStorage()
SQLITE = "sqlite:///bot.db"


def one_per_bot(origin):
    return str(origin.bot_id)


def one_per_language(origin):
    return origin.event.from_user.language_code


def side_by_side(one, other):
    plugins = Plugins()
    for key, options in (("one", one), ("other", other)):
        plugins.add(session(**{"key": key, **options}))


def parts(**options):
    return {"type": "multi", "user": SessionOptions(**options)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"storage": STORAGE}, {"storage": STORAGE}),
        ({"storage": SQLITE}, {"storage": SQLITE}),
        ({"storage": STORAGE, "prefix": "p:"}, {"storage": STORAGE, "prefix": "p:"}),
        ({"storage": STORAGE}, {"storage": STORAGE, "get_session_key": per_user}),
        ({"storage": STORAGE}, {"storage": STORAGE, "get_session_key": per_topic}),
        ({"storage": STORAGE, "get_session_key": one_per_bot},) * 2,
        (parts(storage=STORAGE, prefix="p:"), {"storage": STORAGE, "prefix": "p:"}),
        ({"storage": STORAGE, "prefix": "user:"}, parts(storage=STORAGE)),
    ],
)
def test_two_kinds_that_would_share_their_records_are_refused(one, other):
    with pytest.raises(ConfigurationError, match=r"same keys in .*: give each a prefix="):
        side_by_side(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"storage": STORAGE}, {"storage": MemorySessionStorage()}),
        ({"storage": "memory://"}, {"storage": "memory://"}),
        ({"storage": SQLITE}, {"storage": "sqlite:///other.db"}),
        ({"storage": STORAGE}, {"storage": STORAGE, "prefix": "p:"}),
        ({"storage": STORAGE}, {"storage": STORAGE, "get_session_key": per_user_in_chat}),
        ({"storage": STORAGE}, {"storage": STORAGE, "get_session_key": one_per_bot}),
        (
            {"storage": STORAGE, "get_session_key": one_per_language},
            {"storage": STORAGE, "get_session_key": one_per_bot},
        ),
        (parts(storage=STORAGE), {"storage": STORAGE}),
    ],
)
def test_kinds_that_may_have_keys_of_their_own_live_side_by_side(one, other):
    side_by_side(one, other)


def test_functions_that_have_no_hash_are_compared_all_the_same():
    @dataclass
    class Key:
        name: str

        def __call__(self, origin):
            return self.name

    one, same = ({"storage": STORAGE, "get_session_key": Key("one")} for _ in range(2))
    side_by_side(one, {"storage": STORAGE, "get_session_key": Key("other")})
    with pytest.raises(ConfigurationError, match="same keys"):
        side_by_side(one, same)
