"""The documents that grammY's MongoDB storage made, in tests/golden, are read and written here."""

import json
from urllib.parse import urlsplit

import pytest
from bson import json_util
from grammy import CASES, lasting, put_of, recorded, run_node, with_node
from pymongo import AsyncMongoClient

from gramkeep.storage import ANY, Put
from gramkeep.storages.mongodb import MongoStorage

pytest_plugins = ["servers.mongodb_fixtures"]

ENTRIES = recorded("grammy/mongodb.json")["entries"]
ALIVE = [entry for entry in ENTRIES if "missing" not in entry]

# Saved again by JavaScript these stay what they are. Here they are read as JSON shows them.
NOT_OF_JSON = {"plain:date_object", "plain:minus_zero", "plain:not_numbers"}


@pytest.fixture
async def collection(mongodb_database):
    async with AsyncMongoClient(mongodb_database) as client:
        yield client.get_default_database()["sessions"]


@pytest.fixture
async def storage(mongodb_database):
    storage = MongoStorage(mongodb_database, collection="sessions", layout="grammy")
    yield storage
    await storage.aclose()


async def put_recorded(collection):
    documents = [json_util.loads(json.dumps(entry["raw"])) for entry in ENTRIES]
    await collection.insert_many([{**document, "_id": n} for n, document in enumerate(documents)])


async def raw(collection):
    """All values, their types included, by their keys."""
    documents = await collection.find().to_list()
    options = json_util.CANONICAL_JSON_OPTIONS
    return {
        document["key"]: json.loads(json_util.dumps(document["value"], json_options=options))
        for document in documents
    }


def data_of(value):
    """What a session's value stands for, its envelope taken off as the codec does it."""
    decoded = json.loads(value)
    is_envelope = isinstance(decoded, dict) and {"__d"} <= decoded.keys() <= {"__d", "v", "e"}
    return decoded["__d"] if is_envelope else decoded


def as_stored(entry):
    """What an original's read gives, without the migrations that ran, which are not stored."""
    value = entry["value"]
    if entry["key"].startswith("legacy_") and "own_d" not in entry["key"]:
        value = {name: value[name] for name in value if name != "path"}
    return value


async def test_every_recorded_session_is_read_and_listed(storage, collection):
    await put_recorded(collection)
    records = await storage.get([entry["key"] for entry in ALIVE])
    for entry, record in zip(ALIVE, records, strict=True):
        assert record is not None, entry["key"]
        if "own_d" not in entry["key"]:  # there grammY drops the session's other fields
            assert data_of(record.value) == as_stored(entry), entry["key"]
        expires = "millisecondsToLive" in entry.get("enhance", {})
        if "own_d" not in entry["key"] and "infinite" not in entry["key"]:
            expected = 4102444800.0 if expires else None
            assert record.expires_at == expected, entry["key"]
        elif "infinite" in entry["key"]:
            assert record.expires_at is None
    assert await storage.get(["expired:counter"]) == [None]
    assert {key async for key in storage.scan()} == {entry["key"] for entry in ALIVE}
    expiring = {entry["key"] for entry in ALIVE if entry["key"].startswith("expiry:")}
    assert {key async for key in storage.scan("expiry:")} == expiring


async def test_recorded_sessions_are_rewritten_type_by_type(storage, collection):
    await put_recorded(collection)
    before = await raw(collection)
    lasting = [
        entry["key"]
        for entry in ALIVE
        if entry["key"] not in NOT_OF_JSON
        and (
            "millisecondsToLive" not in entry.get("enhance", {})
            or entry["key"].startswith("infinite:")
        )
    ]
    records = await storage.get(lasting)
    found = dict(zip(lasting, records, strict=True))
    puts = [Put(key, b'"other"', record.token) for key, record in found.items()]
    assert await storage.put(puts) == [True] * len(lasting)
    await storage.put([Put(key, record.value, ANY) for key, record in found.items()])
    after = await raw(collection)
    assert after == before
    assert [list(after[key]) for key in lasting if isinstance(after[key], dict)] == [
        list(before[key]) for key in lasting if isinstance(before[key], dict)
    ]


async def test_an_expiry_is_a_double_at_the_end_of_the_envelope(storage, collection):
    await storage.put(
        [
            Put("bare", b'{"count":1}', ANY, 60),
            Put("version", b'{"v":2,"__d":{"count":1}}', ANY, 60),
        ]
    )
    stored = await raw(collection)
    for key, fields in {"bare": ["__d", "e"], "version": ["v", "__d", "e"]}.items():
        assert list(stored[key]) == fields
        assert list(stored[key]["e"]) == ["$numberDouble"]


async def test_documents_made_here_have_the_fields_and_the_name_of_grammys(storage, collection):
    await storage.put([Put("42", b'{"count":1}', ANY)])
    (document,) = await collection.find().to_list()
    assert set(document) == {"_id", "key", "value"}
    assert type(document["_id"]).__name__ == "ObjectId"


# Live, against the original.

FOR_BOTH = [
    *CASES,
    *({"key": str(n), "value": n} for n in (0, 1.5, -7, 2147483648, 9007199254740991, 1e300)),
    {"key": "text", "value": {"text": "\0\u2028\x7f\t\"'\\/ 🍏", "": {}}},
    {"key": "operators", "value": {"a.b": {"$set": "$value"}, "$literal": "$$NOW"}},
]


async def run(script, url, cases):
    database = urlsplit(url).path[1:]
    await run_node(script, "mongodb", cases, MONGODB_URL=url, MONGODB_DATABASE=database)


@with_node
async def test_what_grammy_writes_now_is_read_here(storage, mongodb_database):
    await run("write.mjs", mongodb_database, FOR_BOTH)
    records = await storage.get([entry["key"] for entry in FOR_BOTH])
    for entry, record in zip(FOR_BOTH, records, strict=True):
        assert data_of(record.value) == entry["value"]
    assert {key async for key in storage.scan()} == {entry["key"] for entry in FOR_BOTH}


@with_node
async def test_what_is_written_here_grammy_reads_now_and_types_the_same(
    storage, collection, mongodb_database
):
    await storage.put([put_of(case) for case in FOR_BOTH])
    await run("verify.mjs", mongodb_database, FOR_BOTH)
    mine = await raw(collection)
    await run("write.mjs", mongodb_database, lasting(FOR_BOTH))
    assert await raw(collection) == mine
    assert await collection.count_documents({}) == len(FOR_BOTH)  # it found the documents made here
