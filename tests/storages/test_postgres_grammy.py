"""The table of grammY's storage-psql keeps the contract too, as far as JSON and its keys go."""

import asyncio
import json
import math

import asyncpg
import msgspec
import pytest

from gramkeep import SessionDecodeError, SessionEncodeError, Sessions
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Lease, Put
from gramkeep.storages.postgres import PostgresStorage
from gramkeep.storages.postgres.grammy import GrammyLayout, put_each
from gramkeep.testing.conformance import LeaseConformance, StorageConformance
from gramkeep.testing.conformance.base import assert_lifetime

from .json_texts import JSONTexts

pytest_plugins = ["servers.postgres_fixtures"]

LEASE = Lease("one", 60)


class AnyKeys(PostgresStorage):
    """Keeps keys without NUL, which the contract asks for and a text of PostgreSQL's can't have."""

    async def get(self, keys):
        return await super().get([place(key) for key in keys])

    async def claim(self, keys, lease):
        waited = {place(key): seconds for key, seconds in lease.waited.items()}
        lease = msgspec.structs.replace(lease, waited=waited)
        return await super().claim([place(key) for key in keys], lease)

    async def put(self, puts, lease=None, *, atomic=False):
        placed = [msgspec.structs.replace(put, key=place(put.key)) for put in puts]
        return await super().put(placed, lease, atomic=atomic)

    async def scan(self, prefix=""):
        async for key in super().scan(place(prefix)):
            yield key.replace("%00", "\0").replace("%25", "%")


def place(key):
    return key.replace("%", "%25").replace("\0", "%00")


class AnyBytes(JSONTexts, AnyKeys):
    """Keeps what the contract asks for, which isn't JSON."""


class TestPostgresStorageInGrammysLayout(StorageConformance, LeaseConformance):
    @pytest.fixture
    async def storage(self, english_database):
        self.url = english_database
        storage = AnyBytes(self.url, layout="grammy")
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return AnyBytes(self.url, layout="grammy")


@pytest.fixture
async def storage(postgres_database):
    made = PostgresStorage(postgres_database, layout="grammy")
    yield made
    await made.aclose()


@pytest.fixture
async def connection(postgres_database):
    made = await asyncpg.connect(postgres_database)
    yield made
    await made.close()


async def value_of(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


@pytest.mark.parametrize("value", [b"", b"\0", b"{", b"NaN", b'"\xff"', b"\x93\x01", b"1 2"])
async def test_a_value_that_is_no_json_is_refused(storage, value):
    await storage.put([Put("key", b"1", ANY)])
    with pytest.raises(SessionEncodeError, match="keeps JSON") as caught:
        await storage.put([Put("key", value, ANY)])
    assert (caught.value.key, caught.value.storage) == ("key", storage.name)
    assert await value_of(storage, "key") == b"1"


@pytest.mark.parametrize(
    "value",
    [
        *(b"1", b"null", b"[]", b"{}", b'"a\\nb"', b'{"a":[1,{"b":[]}],"c":"x: y, z"}'),
        *(b'{ "a": 1 }', b"[1,\n\t2\n]", b"[1e+21,1.0,-0]", b'{"v":1,"__d":2}', b'"\xc2\x80"'),
        *(b'{"v":1,"__d":{"__d":3}}', b'{"__d":{"__d":3}}', b'{"__d":1,"v":"mine","e":5}'),
    ],
)
@pytest.mark.parametrize("ttl", [None, 60])
async def test_json_comes_back_exactly(storage, value, ttl):
    assert await storage.put([Put("key", value, ABSENT, ttl)]) == [True]
    (record,) = await storage.get(["key"])
    assert record.value == value
    assert (record.expires_at is None) is (ttl is None)
    assert await storage.put([Put("key", KEEP, record.token, 90)]) == [True]
    (kept,) = await storage.get(["key"])
    assert kept.value == record.value
    assert_lifetime(kept, 90)
    assert await storage.put([Put("key", DELETE, record.token)]) == [True]
    assert await value_of(storage, "key") is None


async def test_half_a_surrogate_pair_can_be_kept_but_not_for_a_time(storage):
    await storage.put([Put("key", b'"\\ud83c"', ANY)])
    assert await value_of(storage, "key") == b'"\\ud83c"'
    with pytest.raises(SessionEncodeError, match="can't have a lifetime"):
        await storage.put([Put("key", KEEP, ANY, 60)])


async def test_an_expiry_goes_into_grammys_envelope(storage, connection):
    await storage.put([Put("42", b'{"count":1}', ANY, 60)])
    await storage.put([Put("43", b'{"v":2,"__d":{"count":1}}', ANY, 60)])
    rows = await connection.fetch("SELECT value FROM sessions ORDER BY key")
    plain, versioned = (json.loads(row[0]) for row in rows)
    (record,) = await storage.get(["42"])
    assert list(plain.items()) == [("__d", {"count": 1}), ("e", round(record.expires_at * 1000))]
    assert list(versioned) == ["v", "__d", "e"]


async def test_what_expired_is_made_anew_under_a_lease(storage, connection):
    await storage.put([Put("key", b"1", ANY, 0.01)])
    await asyncio.sleep(0.02)
    assert await storage.claim(["key"], LEASE) == [None]
    assert await connection.fetchval("SELECT count(*) FROM sessions") == 0
    assert await storage.claim(["key"], Lease("two", 60)) != [None], "it gave up the lease"
    assert await storage.put([Put("key", b"2", ABSENT)], LEASE) == [True]
    assert await value_of(storage, "key") == b"2"


@pytest.mark.parametrize("atomic", [False, True])
async def test_what_expired_is_made_anew_without_a_lease(storage, atomic):
    await storage.put([Put(key, b"1", ANY, 0.01) for key in "abc"])
    await asyncio.sleep(0.02)
    puts = [Put("a", b"2", ABSENT), Put("b", DELETE, ABSENT), Put("c", KEEP, ANY, 60)]
    assert await storage.put(puts, atomic=atomic) == [True] * 3
    assert [record and record.value for record in await storage.get("abc")] == [b"2", None, None]


async def test_what_expired_and_was_removed_between_two_looks_is_made_anew():
    done = [[], ["key"]]  # the first time, the expired row is in the way

    async def carry_out(changes):
        return done.pop(0)

    async def read(keys):
        return {}  # and now it is gone

    puts = {"key": Put("key", b"1", ABSENT)}
    assert await put_each(GrammyLayout("storage"), puts, None, read, carry_out) == [True]


async def test_a_value_of_null_reads_as_json_null_and_is_compared_as_such(storage, connection):
    await storage.setup()
    await connection.execute("INSERT INTO sessions VALUES ('key', NULL)")
    (record,) = await storage.get(["key"])
    assert record.value == b"null"
    assert await storage.read("key") is None
    assert await storage.has("key")
    assert await storage.put([Put("key", b"1", ABSENT)]) == [False]
    assert await storage.put([Put("key", b"1", record.token)]) == [True]
    assert await value_of(storage, "key") == b"1"


async def test_a_change_that_grammy_makes_underneath_is_noticed(storage, connection):
    await storage.put([Put("key", b'{"count":1}', ANY)])
    (record,) = await storage.claim(["key"], LEASE)
    await connection.execute("UPDATE sessions SET value = '{\"count\":2}'")
    assert await storage.put([Put("key", b'{"count":3}', record.token)], LEASE) == [False]
    assert await value_of(storage, "key") == b'{"count":2}'


async def test_a_key_that_text_cannot_hold_is_refused_and_never_there(storage):
    for key in ("a\0b", "\ud83c"):
        with pytest.raises(SessionEncodeError, match="can't hold") as caught:
            await storage.put([Put(key, b"1", ANY)])
        assert caught.value.key == key
        assert await storage.get([key]) == [None]
        assert [found async for found in storage.scan(key)] == []


async def test_broken_text_is_an_error_and_not_a_new_session(storage, connection):
    await storage.setup()
    for raw in ("", "{", '{"__d":1,"e":'):
        await connection.execute(
            "INSERT INTO sessions VALUES ('42', $1) ON CONFLICT (key) DO UPDATE SET value = $1", raw
        )
        async with Sessions(initial=dict, storage=storage) as sessions:
            with pytest.raises(SessionDecodeError):
                async with sessions.open("42"):
                    pass
        assert await connection.fetchval("SELECT value FROM sessions") == raw


async def test_pruning_looks_into_the_values(storage):
    await storage.setup()
    storage._link._sweep_at = math.inf  # which would have them removed before
    await storage.put([Put(f"old {n}", b"1", ANY, 0.01) for n in range(25)])
    await storage.put([Put("new", b"1", ANY, 60), Put("ever", b'{"__d":1}', ANY)])
    await asyncio.sleep(0.02)
    assert sorted([key async for key in storage.scan()]) == ["ever", "new"]
    assert [await storage.prune(10) for _ in range(4)] == [10, 10, 5, 0]
    assert sorted([key async for key in storage.scan()]) == ["ever", "new"]


async def test_expired_sessions_are_swept(postgres_database, connection):
    storage = PostgresStorage(postgres_database, layout="grammy")
    await storage.setup()
    old = json.dumps({"__d": 1, "e": 1})
    await connection.execute("INSERT INTO sessions VALUES ('old', $1), ('ever', '1')", old)
    await storage.put([Put("new", b"1", ANY, 60)])
    async with asyncio.timeout(10):
        while await connection.fetchval("SELECT count(*) FROM sessions") != 2:
            await asyncio.sleep(0.02)
    await storage.aclose()
