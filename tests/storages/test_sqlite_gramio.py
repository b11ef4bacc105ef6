"""The table of GramIO's SQLite storage, read and written."""

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gramkeep import ConfigurationError, MessagePackCodec, SessionConflict, Sessions
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put
from gramkeep.storages.sqlite import SQLiteStorage

GOLDEN = Path(__file__).parents[1] / "golden" / "gramio"


@pytest.fixture
def path(tmp_path):
    shutil.copy(GOLDEN / "sqlite.db", tmp_path / "bot.db")
    return tmp_path / "bot.db"


@pytest.fixture
async def storage(path):
    made = SQLiteStorage(path, layout="gramio")
    yield made
    await made.aclose()


def rows(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def test_every_recorded_session_is_read_as_what_gramio_wrote(storage):
    recorded = json.loads((GOLDEN / "redis.json").read_text())  # the same cases, as plain JSON
    sessions = Sessions(storage=storage, prefix="user:")
    read = {key: data async for key, data in sessions.items()}
    assert len(read) == len(recorded) == 5
    for key, raw in recorded.items():
        case = key.removeprefix("user:")
        expected = json.loads(raw.replace("\\u2028", "\u2028"))
        if case != "text":  # which was recorded with one character more
            assert read[case] == expected, case
    assert read["text"] == {"quote": '"\\/\b\f\n\r\t\u2028\0</script>'}


async def test_the_lifetime_that_gramio_wrote_is_seen(storage):
    (record,) = await storage.get(["with-ttl"])
    assert (record.value, record.expires_at) == (b'{"count":1}', 2110617765)


async def test_what_is_written_has_the_form_that_gramio_writes(storage, path, tmp_path):
    sessions = Sessions(initial=dict, storage=storage, prefix="user:")
    for key, data in [("new", {"name": "Анна 🍏"}), ("counter", {"count": 4})]:
        async with sessions.open(key) as session:
            session.data.clear()
            session.data.update(data)
    before = time.time()
    await storage.put([Put("brief", b"{}", ANY, 100)])
    found = rows(
        path,
        "SELECT key, value, typeof(value), typeof(expires_at) FROM gramio_storage "
        "WHERE key IN ('user:new', 'user:counter', 'brief') ORDER BY key",
    )
    assert found == [
        ("brief", "{}", "text", "integer"),
        ("user:counter", '{"count":4}', "text", "null"),
        ("user:new", '{"name":"Анна 🍏"}', "text", "null"),
    ]
    ((expires_at,),) = rows(path, "SELECT expires_at FROM gramio_storage WHERE key = 'brief'")
    assert before + 100 <= expires_at <= time.time() + 101

    fresh = SQLiteStorage(tmp_path / "fresh.db", layout="gramio")
    await fresh.put([Put("a", b"{}", ANY)])
    await fresh.aclose()
    query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    assert [sql.replace('"', "") for (sql,) in rows(tmp_path / "fresh.db", query)] == [
        sql for (sql,) in rows(GOLDEN / "sqlite.db", query)
    ]


async def test_an_expiry_of_zero_is_none_for_every_method(storage, path):
    await storage.get(["user:counter"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE gramio_storage SET expires_at = 0 WHERE key = 'user:counter'")
        connection.execute("UPDATE gramio_storage SET expires_at = 1 WHERE key = 'user:date'")
    (record, expired) = await storage.get(["user:counter", "user:date"])
    assert record.expires_at is None
    assert expired is None
    assert await storage.prune(100) == 1
    assert await storage.put([Put("user:counter", b"{}", ABSENT)]) == [False]
    assert await storage.put([Put("user:date", b"{}", ABSENT)]) == [True]


@pytest.mark.parametrize("number", [0, 5, -7, 1.5, 0.1, 1e300])
async def test_a_session_that_is_but_a_number_is_compared_as_the_number(storage, number):
    sessions = Sessions(storage=storage)
    async with sessions.open("n") as session:
        session.data = number
    assert await sessions.get("n") == number
    async with sessions.open("n") as session:
        assert session.data == number
        session.data += 1
    assert await sessions.get("n") == number + 1


async def test_a_stale_write_is_refused(storage, path):
    sessions = Sessions(initial=dict, storage=storage)
    with pytest.raises(SessionConflict):
        async with sessions.open("user:counter") as session:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("UPDATE gramio_storage SET value = '{\"count\":99}'")
            session.data["count"] = 5
    (record,) = await storage.get(["user:counter"])
    assert await storage.put([Put("user:counter", KEEP, record.token, 50)]) == [True]
    assert await storage.put([Put("user:counter", DELETE, record.token)]) == [True]


async def test_bytes_that_are_no_json_are_refused(storage):
    sessions = Sessions(initial=dict, storage=storage, codec=MessagePackCodec())
    with pytest.raises(ConfigurationError, match="nothing but JSON"):
        async with sessions.open("a") as session:
            session.data["x"] = 1


def test_an_unknown_layout_is_refused():
    with pytest.raises(ConfigurationError, match="must be one of gramkeep, gramio"):
        SQLiteStorage("bot.db", layout="telegraf")


async def test_the_url_takes_the_layout(path):
    async with Sessions(initial=dict, storage=f"sqlite:///{path}?layout=gramio") as sessions:
        assert await sessions.get("user:counter") == {"count": 3}
