"""Every error says whose session it is about and what to do; docs/errors.md has them all."""

import asyncio
import copy
import pickle
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import gramkeep
from gramkeep import (
    ConfigurationError,
    GramkeepError,
    NewerSessionVersion,
    NoSessionKey,
    Origin,
    SessionBusy,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionNotLoaded,
    Sessions,
    SessionTooLarge,
    StorageUnavailable,
    errors,
    per_user_in_chat,
)
from gramkeep.storage import ANY, Put
from gramkeep.storages.sqlite import SQLiteStorage

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text("utf-8")
TEXTS = [" ".join(text.split()) for text in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)]

ALL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, GramkeepError)
]

PLACE = {"key": "42", "storage": "sqlite:///bot.db"}
SAMPLES = [
    GramkeepError("text", key="42", storage="memory://"),
    ConfigurationError("text"),
    NoSessionKey("a reason"),
    SessionClosed(**PLACE),
    SessionNotLoaded(**PLACE),
    SessionNotLoaded(**PLACE, was_assigned=True),
    SessionBusy(**PLACE, waited=60.0),
    SessionBusy(**PLACE, waited=0),
    SessionConflict(**PLACE),
    SessionConflict(**PLACE, lease_ran_out=True),
    SessionDecodeError(**PLACE, path="$.count", reason="a reason"),
    SessionEncodeError(**PLACE, path="$.count", reason="a reason"),
    SessionTooLarge(**PLACE, size=5, limit=4),
    NewerSessionVersion(**PLACE, version=3, newest=2),
    NewerSessionVersion(**PLACE, version=3, newest=None),
    StorageUnavailable(**PLACE, reason="a reason"),
    StorageUnavailable(storage="sqlite:///bot.db", reason="a reason"),
]


@dataclass
class Counter:
    count: int = 0


def test_there_is_a_sample_of_every_error():
    assert {type(error) for error in SAMPLES} == set(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_one_of_gramkeeps_and_public(kind):
    assert issubclass(kind, GramkeepError)
    assert getattr(gramkeep, kind.__name__) is kind
    assert kind.__name__ in gramkeep.__all__


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_into_another_process_whole(error, protocol):
    error.add_note("a note")
    for other in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert other.args == error.args
        assert vars(other) == vars(error)
        assert {"key", "storage"} <= vars(other).keys()


@pytest.mark.parametrize(
    "error",
    [error for error in SAMPLES if error.key and type(error) is not GramkeepError],
    ids=lambda error: type(error).__name__,
)
def test_an_error_about_a_session_names_its_key_and_its_storage(error):
    assert repr(error.key) in str(error)
    assert error.storage in str(error)


def test_a_reason_that_is_a_sentence_ends_with_one_full_stop():
    error = StorageUnavailable(**PLACE, reason="connecting failed ('127.0.0.1', 1).")
    assert "connecting failed ('127.0.0.1', 1). No session" in str(error)
    assert error.reason == "connecting failed ('127.0.0.1', 1)."


def test_a_subclass_of_an_error_pickles_too():
    error = pickle.loads(pickle.dumps(Mine(**PLACE, path="$", reason="r")))
    assert type(error) is Mine
    assert error.path == "$"


class Mine(SessionDecodeError):
    pass


# Every error raised for real, as the documentation shows it.


@pytest.fixture
async def storage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = SQLiteStorage("bot.db", busy_timeout=0.05)
    yield storage
    await storage.aclose()


def check(caught, *, key="42", storage="sqlite:///bot.db", **attributes):
    """The text is in the documentation, and the attributes are there."""
    error = caught.value
    assert str(error) in TEXTS
    assert f"## {type(error).__name__}\n" in PAGE
    assert vars(error) == {"key": key, "storage": storage, **attributes}
    section = PAGE.partition(f"## {type(error).__name__}\n")[2].partition("\n## ")[0]
    assert str(error) in " ".join(section.split())
    for name in attributes:
        assert f"`{name}`" in section
    return error


def test_configuration_error():
    with pytest.raises(ConfigurationError) as caught:
        Sessions(initial=Counter, ttl=0)
    check(caught, key=None, storage=None)


async def test_configuration_error_by_update(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    with pytest.raises(ConfigurationError) as caught:
        await sessions.update("42", lambda counter: None)
    check(caught)


class Poll:
    """A stand-in for the framework's own object."""


async def test_no_session_key(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    async with await sessions.open_for(Origin(event=Poll())) as session:
        with pytest.raises(NoSessionKey) as caught:
            await session
    reason = "get_session_key per_chat returned None, as a Poll without chat_id and user_id"
    check(caught, key=None, storage=None, reason=reason)


async def test_no_session_key_with_none_in_it(storage):
    def user_and_chat(origin):
        return f"{origin.user_id}:{origin.chat_id}"

    sessions = Sessions(initial=Counter, storage=storage, get_session_key=user_and_chat)
    async with await sessions.open_for(Origin(chat_id=42)) as session:
        with pytest.raises(NoSessionKey) as caught:
            await session
    reason = "get_session_key user_and_chat returned 'None:42', and the update has no user_id"
    check(caught, key=None, storage=None, reason=reason)


async def test_session_closed(storage):
    async with Sessions(initial=Counter, storage=storage).open("42") as session:
        pass
    with pytest.raises(SessionClosed) as caught:
        session.data.count += 1
    check(caught)


async def test_session_not_loaded(storage):
    async with Sessions(initial=Counter, storage=storage, lazy=True).open("42") as session:
        with pytest.raises(SessionNotLoaded) as caught:
            session.data.count += 1
    check(caught, was_assigned=False)


async def test_session_not_loaded_but_assigned(storage):
    async with Sessions(initial=Counter, storage=storage, lazy=True).open("42") as session:
        session.data = Counter(1)
        with pytest.raises(SessionNotLoaded) as caught:
            _ = session.is_new
    check(caught, was_assigned=True)


async def test_session_busy_with_another_update(storage):
    sessions = Sessions(initial=Counter, storage=storage, lock_timeout=0.05)
    async with sessions.open("42"):
        with pytest.raises(SessionBusy) as caught:
            await asyncio.create_task(sessions.delete("42"))
    check(caught, waited=0.05)


async def test_session_busy_with_itself(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    async with sessions.open("42"):
        with pytest.raises(SessionBusy) as caught:
            await sessions.delete("42")
    check(caught, waited=0)


async def test_session_conflict(storage):
    with pytest.raises(SessionConflict) as caught:
        async with Sessions(initial=Counter, storage=storage).open("42") as session:
            session.data.count += 1
            await storage.put([Put("42", b'{"count":7}', ANY)])
    check(caught, lease_ran_out=False)


async def test_session_decode_error(storage):
    await storage.put([Put("42", b'{"count":"many"}', ANY)])
    with pytest.raises(SessionDecodeError) as caught:
        await Sessions(initial=Counter, storage=storage).get("42")
    check(caught, path="$.count", reason="Expected `int`, got `str`")


async def test_session_encode_error(storage):
    with pytest.raises(SessionEncodeError) as caught:
        async with Sessions(initial=dict, storage=storage).open("42") as session:
            session.data["seen"] = {1, 2, 3}
    check(caught, path="$.seen", reason="a set would load as a list")


async def test_session_too_large(storage):
    with pytest.raises(SessionTooLarge) as caught:
        async with Sessions(initial=list[str], storage=storage).open("42") as session:
            session.data.append("x" * 2_000_000)
    check(caught, size=2_000_004, limit=1_048_576)


@pytest.mark.parametrize("newest", [2, None])
async def test_newer_session_version(storage, newest):
    migrations = {1: lambda old: old, 2: lambda old: old} if newest else None
    await storage.put([Put("42", b'{"__d":{"count":7},"v":3}', ANY)])
    with pytest.raises(NewerSessionVersion) as caught:
        await Sessions(initial=Counter, storage=storage, migrations=migrations).get("42")
    check(caught, version=3, newest=newest)


async def test_storage_unavailable_for_a_session(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    await sessions.update("42", lambda _: Counter(1))
    with closing(sqlite3.connect("bot.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable) as caught:
            await sessions.update("42", lambda _: Counter(2))
    reason = (
        "database is locked (SQLITE_BUSY): another process kept the file locked for longer than "
        "busy_timeout"
    )
    check(caught, reason=reason)


async def test_storage_unavailable_after_the_end(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    await sessions.aclose()
    with pytest.raises(StorageUnavailable) as caught:
        await anext(sessions.keys())
    check(caught, key=None, reason="it was closed")


# The page itself.


def test_the_page_has_a_section_for_every_error():
    sections = re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted(kind.__name__ for kind in ALL if kind is not GramkeepError)


def test_per_user_in_chat_is_what_the_page_advises_where_both_are_needed():
    assert "per_user_in_chat" in PAGE
    assert per_user_in_chat(Origin(chat_id=42, user_id=7)) == "42:7"
