"""What grammY's storage-psql stores, recorded in tests/golden and live, and what is done here."""

import json

import asyncpg
import pytest
from grammy import CASES, lasting, put_of, recorded, run_node, with_node

from gramkeep.storage import ANY, KEEP, Lease, Put
from gramkeep.storages.postgres import PostgresStorage

pytest_plugins = ["servers.postgres_fixtures"]

RECORDED = recorded("grammy/psql.json")
ENTRIES = [entry for entry in RECORDED["entries"] if entry["raw"] is not None]
LEASE = Lease("one", 60)


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


async def make_as_grammy(connection, entries=()):
    for statement in RECORDED["statements"][:2]:
        await connection.execute(statement["text"])
    insert = RECORDED["statements"][2]["text"]
    for entry in entries:
        await connection.execute(insert, entry["key"], entry["raw"])


async def rows_of(connection):
    return dict(await connection.fetch("SELECT key, value FROM sessions"))


async def described(connection):
    columns = await connection.fetch(
        "SELECT column_name, data_type, udt_name, character_maximum_length, is_nullable, "
        "column_default FROM information_schema.columns WHERE table_name = 'sessions' "
        "ORDER BY ordinal_position"
    )
    indexes = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'sessions'"
    )
    constraints = await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass('sessions')"
    )
    return [[dict(row) for row in rows] for rows in (columns, indexes, constraints)]


def data_of(value):
    """What a session's value stands for, its envelope taken off as the codec does it."""
    decoded = json.loads(value)
    is_envelope = isinstance(decoded, dict) and {"__d"} <= decoded.keys() <= {"__d", "v", "e"}
    return decoded["__d"] if is_envelope else decoded


def as_stored(entry):
    """What an original's read gives, without the migrations that ran, which are not stored."""
    value = entry["value"]
    if entry["key"].startswith("legacy_"):
        value = {name: value[name] for name in value if name != "path"}
    return value


async def test_the_table_is_made_as_grammy_makes_it(storage, connection):
    await storage.setup()
    recorded = [RECORDED["columns"], RECORDED["indexes"], RECORDED["constraints"]]
    assert await described(connection) == recorded
    await make_as_grammy(connection)  # which is no error beside ours
    assert await described(connection) == recorded


async def test_a_table_of_grammys_is_used_as_it_is(storage, connection):
    await make_as_grammy(connection)
    before = await described(connection)
    await storage.put([Put("42", b'{"count":1}', ANY)])
    assert await described(connection) == before
    assert await rows_of(connection) == {"42": '{"count":1}'}


async def test_every_recorded_session_is_read_and_listed(storage, connection):
    await make_as_grammy(connection, ENTRIES)
    alive = [entry for entry in ENTRIES if "missing" not in entry]
    keys = [entry["key"] for entry in alive]
    for records in (await storage.get(keys), await storage.claim(keys, LEASE)):
        for entry, record in zip(alive, records, strict=True):
            assert record is not None
            if "own_d" not in entry["key"]:  # there grammY drops the session's other fields
                assert data_of(record.value) == as_stored(entry), entry["key"]
            raw = json.loads(entry["raw"])
            expires_at = raw.get("e") if isinstance(raw, dict) else None
            if "own" not in entry["key"]:
                assert record.expires_at == (None if expires_at is None else expires_at / 1000)
    expired = [entry["key"] for entry in ENTRIES if "missing" in entry]
    assert await storage.get(expired) == [None] * len(expired) != []
    assert {key async for key in storage.scan()} == set(keys)
    expiring = {key for key in keys if key.startswith("expiry:")}
    assert {key async for key in storage.scan("expiry:")} == expiring != set()
    assert await rows_of(connection) == {entry["key"]: entry["raw"] for entry in ENTRIES}


async def test_what_never_expires_is_written_back_byte_by_byte(storage, connection):
    await make_as_grammy(connection, ENTRIES)
    keys = [entry["key"] for entry in ENTRIES]
    records = await storage.get(keys)
    lasting = {
        key: record
        for key, record in zip(keys, records, strict=True)
        if record is not None and record.expires_at is None
    }
    await storage.put([Put(key, b"0", ANY) for key in lasting])
    answers = await storage.put([Put(key, record.value, ANY) for key, record in lasting.items()])
    assert answers == [True] * len(lasting) != []
    assert await rows_of(connection) == {entry["key"]: entry["raw"] for entry in ENTRIES}


async def test_an_expiry_is_changed_where_grammy_has_it_and_nothing_else_is(storage, connection):
    await make_as_grammy(connection, ENTRIES)
    expiring = [
        entry
        for entry in ENTRIES
        if entry["key"].startswith(("expiry:", "both:")) and "own" not in entry["key"]
    ]
    assert expiring
    answers = await storage.put([Put(entry["key"], KEEP, ANY, 60) for entry in expiring])
    assert answers == [True] * len(expiring)
    rows = await rows_of(connection)
    for entry in expiring:
        before, after = (text.rpartition('"e":') for text in (entry["raw"], rows[entry["key"]]))
        assert (after[0], after[1]) == (before[0], before[1]) != ("", "")
        assert after[2] != before[2]


# Live, against the original.

FOR_BOTH = [
    *CASES,
    *({"key": key, "value": {"count": 1}} for key in ("", "' or 1=1; --", "%_", "k" * 300)),
    {"key": "number", "value": 1.5},
    {"key": "text", "value": {"text": "\u2028\x7f\t\"'\\/ 🍏\0", "": {}}},
]


async def run(script, url, cases):
    await run_node(script, "psql", cases, POSTGRES_URL=url)


@with_node
async def test_what_grammy_writes_now_is_read_here(storage, postgres_database):
    await run("write.mjs", postgres_database, FOR_BOTH)
    keys = [entry["key"] for entry in FOR_BOTH]
    for entry, record in zip(FOR_BOTH, await storage.claim(keys, LEASE), strict=True):
        assert data_of(record.value) == entry["value"]
    assert {key async for key in storage.scan()} == set(keys)


@with_node
async def test_what_is_written_here_grammy_reads_now(storage, postgres_database, connection):
    await storage.put([put_of(case) for case in FOR_BOTH])
    await run("verify.mjs", postgres_database, FOR_BOTH)
    mine = await rows_of(connection)
    await connection.execute("DELETE FROM sessions")
    await run("write.mjs", postgres_database, lasting(FOR_BOTH))
    for key, raw in (await rows_of(connection)).items():
        assert mine[key] == raw


@with_node
async def test_grammy_and_this_storage_take_turns_on_one_session(
    storage, postgres_database, connection
):
    await run("write.mjs", postgres_database, [{"key": "42", "value": {"count": 1}}])
    (record,) = await storage.claim(["42"], LEASE)
    await run("write.mjs", postgres_database, [{"key": "42", "value": {"count": 2}}])
    assert await storage.put([Put("42", b'{"count":9}', record.token)], LEASE) == [False]
    (record,) = await storage.claim(["42"], LEASE)
    assert await storage.put([Put("42", b'{"count":3}', record.token)], LEASE) == [True]
    await run("verify.mjs", postgres_database, [{"key": "42", "value": {"count": 3}}])
