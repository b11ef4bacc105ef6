"""The documents of gramkeep's own layout, the commands that change them, and what is left."""

import asyncio
import re

import pytest
from bson import Binary
from pymongo import AsyncMongoClient, MongoClient, WriteConcern
from pymongo.monitoring import CommandListener
from servers.mongodb import running_server

from gramkeep import SessionConflict, SessionDecodeError, Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, PLACE_KEPT, Lease, Put
from gramkeep.storages.mongodb import MongoStorage
from gramkeep.storages.mongodb.turns import AT_ONCE
from gramkeep.testing.conformance.base import attempts

pytest_plugins = ["servers.mongodb_fixtures"]

ME, OTHER = Lease("me", 60), Lease("other", 60)
MANY = [str(number) for number in range(40)]


class Commands(CommandListener):
    """Writes down what a client sends."""

    def __init__(self):
        self.names = []
        self.sent = []
        self.under_way = 0
        self.most_under_way = 0

    def started(self, event):
        self.names.append(event.command_name)
        self.sent.append(event.command)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

    def succeeded(self, event):
        self.under_way -= 1

    failed = succeeded

    def clear(self):
        self.names.clear()
        self.sent.clear()
        self.most_under_way = 0


@pytest.fixture
async def client(mongodb_database):
    commands = Commands()
    async with AsyncMongoClient(mongodb_database, event_listeners=[commands]) as client:
        client.commands = commands
        yield client


@pytest.fixture
async def collection(client):
    return client.get_default_database()["gramkeep_sessions"]


@pytest.fixture
async def storage(client):
    storage = MongoStorage(client)
    await storage.get(["x"])  # prepares the collection
    client.commands.clear()
    yield storage
    await storage.aclose()


async def documents(collection):
    return await collection.find().to_list()


async def test_a_session_is_a_document_of_its_key_its_bytes_and_its_expiry(storage, collection):
    await storage.put([Put("a\0b", b"\0\xff", ANY), Put("brief", b"{}", ANY, 60)])
    lasting, brief = await documents(collection)
    assert lasting == {"_id": "a\0b", "value": b"\0\xff"}
    assert list(brief) == ["_id", "value", "expires_at", "remove_at"]
    assert brief["expires_at"] == brief["remove_at"]
    (index,) = [i for i in await (await collection.list_indexes()).to_list() if i["name"] != "_id_"]
    assert dict(index["key"]) == {"remove_at": 1}
    assert index["expireAfterSeconds"] == 0


async def test_an_update_takes_two_commands(storage, client):
    sessions = Sessions(initial=dict, storage=storage)
    for _ in range(3):  # a new session, and one that is there
        client.commands.clear()
        async with sessions.open("42") as session:
            session.data["count"] = session.data.get("count", 0) + 1
        assert client.commands.names == ["findAndModify", "findAndModify"]


async def test_deleting_a_session_takes_two_commands(storage, client, collection):
    await storage.put([Put("42", b"{}", ANY)])
    client.commands.clear()
    async with Sessions(initial=dict, storage=storage).open("42") as session:
        session.data = None
    assert client.commands.names == ["findAndModify", "delete"]
    assert await documents(collection) == []


async def test_many_sessions_are_read_by_one_command_and_claimed_by_two(storage, client):
    await storage.put([Put(key, b"1", ANY) for key in MANY])
    client.commands.clear()
    assert {record.value for record in await storage.get(MANY)} == {b"1"}
    assert client.commands.names == ["find"]
    client.commands.clear()
    assert {record.value for record in await storage.claim(MANY, ME)} == {b"1"}
    assert client.commands.names == ["update", "find"]
    assert await storage.claim(MANY, OTHER) == [BUSY] * len(MANY)


async def test_claims_of_what_is_not_there_or_was_busy_take_one_command_each(storage, client):
    await storage.put([Put(key, b"1", ANY) for key in MANY])
    client.commands.clear()
    waiting = Lease("me", 60, dict.fromkeys(MANY[:3], 1.5))
    answers = await storage.claim([*MANY, "new"], waiting)
    assert [answer and answer.value for answer in answers] == [*[b"1"] * len(MANY), None]
    assert client.commands.names == ["update", "find", *["findAndModify"] * 4]


async def test_many_changes_take_one_command_and_one_more_where_nothing_is_left(storage, client):
    await storage.claim(MANY[:20], ME)
    client.commands.clear()
    assert await storage.put([Put(key, b"1", ABSENT) for key in MANY], ME) == [True] * len(MANY)
    assert client.commands.names == ["update"]
    client.commands.clear()
    changes = [Put(key, KEEP, ANY) for key in ("x", *MANY[20:])]
    deletions = [Put(key, DELETE, b"1") for key in MANY[:20]]
    assert await storage.put(changes + deletions, ME) == [True] * (len(MANY) + 1)
    assert client.commands.names == ["update", "delete"]
    assert [key async for key in storage.scan()] == sorted(MANY[20:])


async def test_each_of_many_changes_has_its_own_outcome_and_leaves_no_trace(storage, collection):
    await storage.put([Put(key, b"1", ANY) for key in "abcdef"])
    await storage.claim(["a", "b", "x"], ME)
    await storage.claim(["c"], OTHER)
    puts = {
        Put("a", b"2", b"1"): True,
        Put("b", b"2", b"0"): False,
        Put("c", b"2", b"1"): False,  # somebody else's
        Put("d", b"2", ABSENT): False,
        Put("e", DELETE, b"1"): True,
        Put("f", DELETE, b"0"): False,
        Put("x", KEEP, ANY): True,
        Put("n", b"2", ABSENT): True,
        Put("gone", b"2", b"1"): False,
        Put("gone too", KEEP, ABSENT): True,
        Put("gone as well", DELETE, b"1"): False,
    }
    assert await storage.put(list(puts), ME) == list(puts.values())
    await storage.put([Put("c", KEEP, ANY)], OTHER)
    assert await documents(collection) == [
        {"_id": key, "value": value}
        for key, value in zip("abcdfn", [b"2", *[b"1"] * 4, b"2"], strict=True)
    ]


async def test_updates_at_once_share_commands(storage, client):
    sessions = Sessions(initial=dict, storage=storage)
    for _ in range(2):
        client.commands.clear()
        await asyncio.gather(*(add_one(sessions, key) for key in MANY))
    # Some go alone before, and while, the others go together: nine or so, of eighty.
    assert len(client.commands.names) <= 20
    assert [(await sessions.get(key))["count"] for key in MANY] == [2] * len(MANY)


async def add_one(sessions, key):
    async with sessions.open(key) as session:
        session.data["count"] = session.data.get("count", 0) + 1


async def test_a_session_that_the_server_does_not_take_fails_alone(storage, client):
    """Whether it refuses to let it be claimed, or to be written."""
    await storage.put([Put(key, b'{"count":1}', ANY) for key in MANY])
    sessions = Sessions(initial=dict, storage=storage)
    forbidden = [{"_id": {"$ne": "7"}}, {"value": {"$ne": Binary(b'{"count":13}')}}]
    await storage.write("8", {"count": 12})
    validator = {"$and": forbidden}
    await client.get_default_database().command("collMod", "gramkeep_sessions", validator=validator)
    calls = (add_one(sessions, key) for key in MANY)
    outcomes = dict(zip(MANY, await asyncio.gather(*calls, return_exceptions=True), strict=True))
    for key in ("7", "8"):
        error = outcomes.pop(key)
        assert isinstance(error, StorageUnavailable)
        assert "validation" in str(error)
    assert set(outcomes.values()) == {None}
    counts = {key: (await sessions.get(key))["count"] for key in MANY}
    assert counts == dict.fromkeys(MANY, 2) | {"7": 1, "8": 12}


async def test_few_commands_are_under_way_however_many_are_asked_for(storage, client):
    puts = [[Put(str(number), b"1", ANY)] for number in range(AT_ONCE * 3)]
    assert await asyncio.gather(*map(storage.put, puts)) == [[True]] * len(puts)
    assert 1 < client.commands.most_under_way <= AT_ONCE


async def test_looking_at_what_is_not_there_leaves_nothing(storage, client, collection):
    async with Sessions(initial=dict, storage=storage).open("42"):
        (document,) = await documents(collection)
        assert document.keys() == {"_id", "lease", "remove_at"}
    assert await documents(collection) == []


async def test_leases_and_places_are_gone_when_nobody_waits(storage, collection):
    for key in attempts(within=PLACE_KEPT):
        await storage.put([Put(key, b"1", ANY)])
        before = await documents(collection)
        await storage.claim([key], ME)
        assert await storage.claim([key], OTHER) == [BUSY]
        await storage.put([Put(key, KEEP, ANY)], ME)
        document = await collection.find_one({"_id": key})
        await storage.claim([key], OTHER)
        await storage.put([Put(key, KEEP, ANY)], OTHER)
    assert document["waiting"]["owner"] == "other"  # whose turn it is next
    assert "lease" not in document
    assert await documents(collection) == before


async def test_a_deleted_session_that_somebody_waits_for_keeps_the_place(storage, collection):
    late = Lease("late", 60)
    for key in attempts(within=PLACE_KEPT):
        waiting = Lease("other", 60, {key: 5})
        await storage.put([Put(key, b"1", ANY)])
        await storage.claim([key], ME)
        await storage.claim([key], waiting)
        assert await storage.put([Put(key, DELETE, ANY)], ME) == [True]
        newcomer = await storage.claim([key], late)
        waiter = await storage.claim([key], waiting)
        for lease in (waiting, late):
            await storage.put([Put(key, KEEP, ANY)], lease)
    assert (newcomer, waiter) == ([BUSY], [None])
    assert await documents(collection) == []


async def test_a_refusal_leaves_no_trace(storage, collection):
    await storage.put([Put("key", b"1", ANY)])
    before = await documents(collection)
    assert await storage.put([Put("key", b"2", ABSENT), Put("x", b"2", b"1")], ME) == [False] * 2
    assert await documents(collection) == before


async def test_the_server_removes_what_has_expired_but_no_lease_on_it():
    with running_server() as server, MongoClient(server.url("bot")) as client:

        def swept():
            client.admin.command("secantusAdmin.pruneTtl")  # as it does by itself every minute
            return sorted(document["_id"] for document in client.bot.gramkeep_sessions.find())

        storage = MongoStorage(server.url("bot"))
        await storage.put([Put(key, b"1", ANY, 0.3) for key in ("expired", "leased")])
        await storage.put([Put("lasting", b"1", ANY)])
        await storage.claim(["leased"], ME)
        await storage.claim(["of the dead"], Lease("dead", 0.3))
        await asyncio.sleep(0.6)
        assert swept() == ["lasting", "leased"]
        assert await storage.claim(["leased"], OTHER) == [BUSY]
        assert await storage.claim(["leased"], Lease("me", 0.3)) == [None]
        await asyncio.sleep(0.6)
        assert swept() == ["lasting"]
        await storage.aclose()


async def test_a_hand_that_changes_the_value_is_noticed(storage, collection):
    await storage.put([Put("42", b'{"count":1}', ANY)])
    with pytest.raises(SessionConflict):
        async with Sessions(initial=dict, storage=storage).open("42") as session:
            change = {"$set": {"value": Binary(b'{"count":9}')}}
            await collection.update_one({"_id": "42"}, change)
            session.data["count"] += 1
    assert (await documents(collection))[0]["value"] == b'{"count":9}'


@pytest.mark.parametrize("value", [{"count": 1}, "text", None, 5])
async def test_a_document_of_another_form_is_an_error_and_not_a_new_session(
    storage, collection, value
):
    await collection.insert_one({"_id": "42", "value": value})
    for call in (storage.get(["42"]), storage.claim(["42"], ME)):
        with pytest.raises(SessionDecodeError, match="layout='grammy' reads grammY's") as caught:
            await call
        assert (caught.value.key, caught.value.storage) == ("42", storage.name)
    assert (await documents(collection))[0]["value"] == value


async def test_documents_that_are_no_sessions_are_left_alone(storage, collection):
    await collection.insert_many([{"_id": 7, "value": b"1"}, {"value": b"1"}, {"_id": "no value"}])
    assert [key async for key in storage.scan()] == []
    assert await storage.get(["no value", "7"]) == [None, None]
    await storage.prune(100)
    assert await collection.count_documents({}) == 3


async def test_reads_are_from_the_primary_and_writes_for_the_majority(client):
    storage = MongoStorage(client)
    await storage.put([Put("key", b"1", ANY)])
    written = [command for command in client.commands.sent if "findAndModify" in command]
    assert {command["writeConcern"]["w"] for command in written} == {"majority"}
    await storage.aclose()


async def test_a_write_concern_that_the_user_chose_stays(client):
    collection = client.get_default_database().get_collection(
        "mine", write_concern=WriteConcern(w=1)
    )
    storage = MongoStorage(collection)
    await storage.put([Put("key", b"1", ANY)])
    written = [command for command in client.commands.sent if "findAndModify" in command]
    assert {command["writeConcern"]["w"] for command in written} == {1}
    assert re.search("collection=mine$", storage.name)
    await storage.aclose()
