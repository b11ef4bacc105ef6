"""MongoStorage keeps the storage contract in grammY's documents too, as far as JSON goes."""

import asyncio

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandListener

from gramkeep import SessionDecodeError, SessionEncodeError, Sessions
from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, Lease, Put
from gramkeep.storages.mongodb import MongoStorage
from gramkeep.testing.conformance import LeaseConformance, StorageConformance
from gramkeep.testing.conformance.base import assert_lifetime

from .json_texts import JSONTexts

pytest_plugins = ["servers.mongodb_fixtures"]


class AnyBytes(JSONTexts, MongoStorage):
    """Keeps what the contract asks for, which isn't JSON."""


class TestMongoStorageInGrammysLayout(StorageConformance, LeaseConformance):
    many = 150

    @pytest.fixture
    async def storage(self, mongodb_database, small_pages):
        # The disk would take most of the time, and this server is slow for one.
        self.url = f"{mongodb_database}?journal=false"
        storage = AnyBytes(self.url, layout="grammy")
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return AnyBytes(self.url, layout="grammy")


@pytest.fixture
async def storage(mongodb_database):
    storage = MongoStorage(mongodb_database, collection="sessions", layout="grammy")
    yield storage
    await storage.aclose()


@pytest.fixture
async def collection(mongodb_database):
    async with AsyncMongoClient(mongodb_database) as client:
        yield client.get_default_database()["sessions"]


async def grammy_writes(collection, key, value):
    """What ``updateOne({key}, {$set: {key, value}}, {upsert: true})`` of grammY's adapter does."""
    await collection.update_one({"key": key}, {"$set": {"key": key, "value": value}}, upsert=True)


async def documents(collection):
    return await collection.find({}, {"_id": 0}).to_list()


async def value_of(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


VALUES = [
    *(b"0", b"true", b"null", b'""', b"[]", b"{}", b'"a\\nb"', b"[[1],[2]]", b"1.5", b"-7"),
    *(b'{"a":[1,{"b":[]}],"c":"x: y, z"}', b'{"b":1,"a":2}', b'{"":{"":0}}', b"9007199254740991"),
    *(b"2147483648", b"-2147483649", b"9223372036854775807", b"9007199254740993", b"1e-7"),
    *(b'{"$set":{"a":"$b"},"a.b":"$$NOW","$literal":"$x"}', b'"$value"', b'{"v":1,"__d":2}'),
    *(b'{"v":1,"__d":{"__d":3}}', b'{"__d":{"__d":3}}', b'{"__d":1,"v":"mine","e":5}'),
    *(b'{"__d":1,"x":2}', b'[{"__d":1,"e":5}]', b"100000000000000000000", b"1e300"),
]


@pytest.mark.parametrize("value", VALUES, ids=bytes.decode)
@pytest.mark.parametrize("ttl", [None, 60])
async def test_json_comes_back_exactly_and_is_its_own_token(storage, value, ttl):
    assert await storage.put([Put("key", value, ABSENT, ttl)]) == [True]
    (record,) = await storage.get(["key"])
    assert record.value == value
    assert (record.expires_at is None) is (ttl is None)
    assert await storage.put([Put("key", KEEP, record.token, 90)]) == [True]
    (kept,) = await storage.get(["key"])
    assert kept.value == value
    assert_lifetime(kept, 90)
    assert await storage.put([Put("key", b'"other"', b"stale")]) == [False]
    assert await storage.put([Put("key", DELETE, kept.token)]) == [True]
    assert await value_of(storage, "key") is None


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"\0", b"{", b"NaN", b'"\xff"', b"\x93\x01", b"1 2", b'"\\ud83c"', b'{"\\u0000":1}'),
        *(b"18446744073709551615", b"[" * 2000 + b"]" * 2000),
    ],
)
async def test_what_no_document_can_hold_is_refused_and_leaves_the_old_value(storage, value):
    await storage.put([Put("key", b"1", ANY)])
    with pytest.raises(SessionEncodeError) as caught:
        await storage.put([Put("key", value, ANY)])
    assert (caught.value.key, caught.value.storage) == ("key", storage.name)
    assert await value_of(storage, "key") == b"1"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 5.0, -0.0, 1e20])
async def test_numbers_are_read_as_json_stringify_shows_them(storage, collection, value):
    await grammy_writes(collection, "key", [value])
    shown = {5.0: b"[5]", 0.0: b"[0]", 1e20: b"[100000000000000000000]"}.get(value, b"[null]")
    assert await value_of(storage, "key") == shown


async def test_bson_that_json_has_no_form_for_is_an_error_and_not_a_new_session(
    storage, collection
):
    await grammy_writes(collection, "key", {"raw": b"\0"})
    with pytest.raises(SessionDecodeError, match="holds a BSON bytes") as caught:
        await storage.get(["key"])
    assert (caught.value.key, caught.value.storage) == ("key", storage.name)
    with pytest.raises(SessionDecodeError):
        await storage.claim(["key"], Lease("me", 60))


async def test_a_claim_leaves_what_grammy_reads_and_all_traces_go(storage, collection):
    await grammy_writes(collection, "old", {"count": 1})
    before = await documents(collection)
    await storage.claim(["old", "new"], Lease("me", 60))
    assert await storage.claim(["old"], Lease("other", 60)) == [BUSY]
    held = {document["key"]: document for document in await documents(collection)}
    assert held["old"]["value"] == {"count": 1}
    assert "value" not in held["new"]  # which grammY's adapter takes for missing
    await storage.put([Put("old", KEEP, ANY)], Lease("other", 60))
    await storage.put([Put("old", KEEP, ANY), Put("new", KEEP, ANY)], Lease("me", 60))
    assert await documents(collection) == before


async def test_what_grammy_writes_under_a_lease_is_not_overwritten(storage, collection):
    lease = Lease("me", 60)
    await grammy_writes(collection, "old", {"count": 1})
    old, new = await storage.claim(["old", "new"], lease)
    assert new is None
    await grammy_writes(collection, "old", {"count": 2})
    await grammy_writes(collection, "new", {"count": 1})
    puts = [Put("old", b'{"count":9}', old.token), Put("new", b'{"count":9}', ABSENT)]
    assert await storage.put(puts, lease) == [False, False]
    assert await documents(collection) == [
        {"key": "old", "value": {"count": 2}},
        {"key": "new", "value": {"count": 1}},
    ]


async def test_a_session_of_which_there_are_two_is_the_one_that_grammy_reads(storage, collection):
    await storage.get(["key"])  # so that the index is there
    await collection.insert_many([{"key": "key", "value": 1}, {"key": "key", "value": 2}])
    assert await value_of(storage, "key") == b"1"
    assert [key async for key in storage.scan()] == ["key"]
    (record,) = await storage.claim(["key"], Lease("me", 60))
    assert await storage.put([Put("key", b"3", record.token)], Lease("me", 60)) == [True]
    assert (await collection.find_one({"key": "key"}))["value"] == 3


async def test_writers_at_once_make_one_document(mongodb_database, collection):
    storages = [
        MongoStorage(mongodb_database, collection="sessions", layout="grammy") for _ in range(3)
    ]
    for _ in range(5):
        puts = [storage.put([Put("key", b"1", ANY)]) for storage in storages * 4]
        await asyncio.gather(*puts)
        assert len(await documents(collection)) == 1
        await storages[0].put([Put("key", DELETE, ANY)])
    for storage in storages:
        await storage.aclose()


async def test_expired_sessions_are_pruned_and_no_others(storage, collection):
    await storage.put([Put("lasting", b"1", ANY), Put("expiring", b"1", ANY, 60)])
    for number in range(3):
        await grammy_writes(collection, f"expired {number}", {"__d": 1, "e": 5})
    await grammy_writes(collection, "own", {"__d": 1, "e": 5, "name": "the user's own"})
    assert await storage.prune(2) == 2
    assert await storage.prune(2) == 1
    assert await storage.prune(2) == 0
    left = [document["key"] for document in await documents(collection)]
    assert sorted(left) == ["expiring", "lasting", "own"]


async def test_pruning_goes_on_where_somebody_renews_what_was_found(mongodb_database, collection):
    for number in range(3):
        await grammy_writes(collection, f"expired {number}", {"__d": 1, "e": 5})
    rivals = [Rival(mongodb_database)]
    async with AsyncMongoClient(mongodb_database, event_listeners=rivals) as client:
        storage = MongoStorage(client, collection="sessions", layout="grammy")
        assert await storage.prune(2) == 2
        await storage.aclose()
    assert [document["value"] for document in await documents(collection)] == ["renewed"]


class Rival(CommandListener):
    """Renews a session, once, between the look for what has expired and its removal."""

    def __init__(self, url):
        self.url = url
        self.has_renewed = False

    def started(self, event):
        if event.command_name != "delete" or self.has_renewed:
            return
        found = event.command["deletes"][0]["q"].get("_id")
        if found is not None:
            self.has_renewed = True
            with MongoClient(self.url) as client:
                sessions = client.get_default_database()["sessions"]
                sessions.update_one({"_id": found["$in"][0]}, {"$set": {"value": "renewed"}})

    def succeeded(self, event):
        pass

    failed = succeeded


async def test_what_dead_processes_left_is_swept_at_the_next_start(mongodb_database, collection):
    first = MongoStorage(mongodb_database, collection="sessions", layout="grammy")
    await first.claim(["dead"], Lease("dead", 0.1))
    await first.claim(["living"], Lease("living", 60))
    await first.aclose()
    await asyncio.sleep(0.4)
    second = MongoStorage(mongodb_database, collection="sessions", layout="grammy")
    assert await second.get(["dead"]) == [None]
    assert [document["key"] for document in await documents(collection)] == ["living"]
    await second.aclose()


@pytest.mark.parametrize("unique", [True, False])
async def test_an_index_that_the_user_made_is_left_alone(storage, collection, unique):
    await collection.create_index("key", unique=unique, name="mine")
    await storage.put([Put("key", b"1", ANY)])
    assert await value_of(storage, "key") == b"1"
    indexes = await (await collection.list_indexes()).to_list()
    assert [index["name"] for index in indexes] == ["_id_", "mine"]


async def test_sessions_go_on_where_grammy_left_off(storage, collection):
    await grammy_writes(collection, "42", {"count": 2**31})
    sessions = Sessions(initial=dict, storage=storage)
    async with sessions.open("42") as session:
        session.data["count"] += 1
    assert await documents(collection) == [{"key": "42", "value": {"count": float(2**31 + 1)}}]
