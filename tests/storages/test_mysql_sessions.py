"""What MySQLStorage stores, and how little it asks for that, whatever connections are like."""

import asyncio
import time
from contextlib import asynccontextmanager

import asyncmy
import pytest
from asyncmy.constants import CLIENT
from asyncmy.cursors import DictCursor
from servers.mariadb import connect_arguments, query

from gramkeep.errors import StorageUnavailable
from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, Lease, Put
from gramkeep.storages.mysql import MySQLStorage
from gramkeep.storages.mysql import statements as mysql_statements
from gramkeep.storages.mysql import storage as mysql_storage
from gramkeep.testing.conformance.base import assert_lifetime, attempts

pytest_plugins = ["servers.mariadb_fixtures"]

ONE, TWO = Lease("one", 60), Lease("two", 60)

# Text that would end a literal, or a character, somewhere.
TRICKS = [
    *("'", '"', "`", "\\", "\\'", "''", "\\\\'", "%s", "%(x)s", "%%", ";", "--", "#", "/*", "\x1a"),
    *("\0", "\\0", "🙂", "\ufeff", "é", "\udc80", "x'61'", "a\n'b'", "NULL", "?", "{}"),
]
TRICKY_BYTES = [
    b"\xbf'",
    b"\xbf\x5c'",
    b"\x95\x5c",
    b"\xa1'--",
    b"\\",
    b"'",
    b"\x00\x1a\xff",
    b"%s",
]

SQL_MODES = [
    "",
    "ANSI",
    "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,ONLY_FULL_GROUP_BY",
    "SIMULTANEOUS_ASSIGNMENT,EMPTY_STRING_IS_NULL,HIGH_NOT_PRECEDENCE",
    "ORACLE",
    "TRADITIONAL,NO_UNSIGNED_SUBTRACTION",
]


@pytest.fixture
async def storage(mariadb_database):
    storage = MySQLStorage(mariadb_database)
    yield storage
    await storage.aclose()


@asynccontextmanager
async def over_a_pool(url, **options):
    async with asyncmy.create_pool(**connect_arguments(url), minsize=1, **options) as pool:
        storage = MySQLStorage(pool)
        yield storage, pool
        await storage.aclose()


@asynccontextmanager
async def counted_turns(url):
    """Give the URL of a proxy, and a list in which it counts how often the client spoke."""
    there = connect_arguments(url)
    turns, last = [0], [None]
    served = asyncio.Semaphore(0)

    async def pump(reader, writer, side):
        try:
            while data := await reader.read(1 << 20):
                if side == "client" and last[0] != "client":
                    turns[0] += 1
                last[0] = side
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader, writer):
        other_reader, other_writer = await asyncio.open_connection(there["host"], there["port"])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(reader, other_writer, "client"))
            tasks.create_task(pump(other_reader, writer, "server"))
        await asyncio.gather(writer.wait_closed(), other_writer.wait_closed())
        served.release()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield url.replace(f":{there['port']}/", f":{port}/"), turns
        await served.acquire()  # the one connection that a storage needs for one call at a time


async def test_the_rows_are_what_the_documentation_says(storage, mariadb_database):
    before = time.time()
    puts = [
        Put("lasting", b"\0\xff", ANY),
        Put("expiring", b"1", ANY, 60),
        Put("é" * 800, b"2", ANY),
    ]
    assert await storage.put(puts) == [True] * 3
    rows = await query(
        mariadb_database,
        "SELECT `key`, value, expires_at, long_key FROM gramkeep_sessions ORDER BY `key`",
    )
    (key, value, expires_at, long_key), lasting, long = rows
    assert (key, value, long_key) == (b"expiring", b"1", None)
    assert before + 59.9 < expires_at / 1000 < time.time() + 60.1
    assert lasting == (b"lasting", b"\0\xff", None, None)
    assert long[0][:1441] == "é".encode() * 720 + b"\xff"
    assert len(long[0]) == 1473
    assert long[1:] == (b"2", None, "é".encode() * 800)


async def test_the_tables_are_those_of_the_ddl(storage, mariadb_database):
    await storage.setup()
    made = await query(mariadb_database, "SHOW CREATE TABLE gramkeep_sessions")
    leases = await query(mariadb_database, "SHOW CREATE TABLE gramkeep_sessions_leases")
    await query(mariadb_database, "DROP TABLE gramkeep_sessions, gramkeep_sessions_leases")
    await query(mariadb_database, *storage.ddl.split(";\n")[:2])
    assert await query(mariadb_database, "SHOW CREATE TABLE gramkeep_sessions") == made
    assert await query(mariadb_database, "SHOW CREATE TABLE gramkeep_sessions_leases") == leases


async def test_an_update_alone_costs_two_round_trips(mariadb_database):
    async with counted_turns(mariadb_database) as (url, turns):
        storage = MySQLStorage(url)
        await storage.put([Put("key", b"0", ANY)])
        for count, ttl in ((1, None), (2, 60)):
            turns[0] = 0
            (record,) = await storage.claim(["key"], ONE)
            assert turns == [1]
            assert await storage.put([Put("key", b"%d" % count, record.token, ttl)], ONE) == [True]
            assert turns == [2]
        for change in (Put("new", b"1", ABSENT), Put("new", DELETE, ANY), Put("new", KEEP, ANY)):
            turns[0] = 0
            await storage.claim(["new"], ONE)
            assert await storage.put([change], ONE) == [True]
            assert turns == [2]
        turns[0] = 0
        keys = [f"key {n}" for n in range(200)]
        await storage.claim(keys, ONE)
        await storage.put([Put(key, b"1", ABSENT) for key in keys], ONE)
        assert turns == [2]
        await storage.aclose()


async def test_nothing_is_left_of_leases_that_were_given_up(storage, mariadb_database):
    for change in (KEEP, b"1", DELETE):
        await storage.claim(["a", "b"], ONE)
        assert await storage.claim(["a"], TWO) == [BUSY]
        assert await storage.put([Put("a", KEEP, ANY)], TWO) == [False]
        await storage.put([Put("a", change, ANY), Put("b", change, "a token of nothing")], ONE)
        await storage.put([Put("c", change, ANY)], ONE)
        assert await query(mariadb_database, "SELECT * FROM gramkeep_sessions_leases") == []


async def test_leases_of_the_dead_are_swept_and_those_of_the_living_are_not(
    storage, mariadb_database, monkeypatch
):
    await storage.claim([f"dead {n}" for n in range(20)], Lease("dead", 0.05))
    await storage.claim(["waited for", "held"], ONE)
    await storage.claim(["waited for"], TWO)
    await storage.put([Put("expired", b"1", ANY, 0.05), Put("kept", b"1", ANY)])
    await asyncio.sleep(0.1)
    monkeypatch.setattr(mysql_storage, "SWEEP_EVERY", 0)
    await storage.put([Put("other", b"1", ANY)])
    left = await query(
        mariadb_database, "SELECT `key` FROM gramkeep_sessions_leases ORDER BY `key`"
    )
    assert left == [(b"held",), (b"waited for",)]
    left = await query(mariadb_database, "SELECT `key` FROM gramkeep_sessions ORDER BY `key`")
    assert left == [(b"kept",), (b"other",)]


async def test_prune_removes_no_more_than_asked_for(storage, mariadb_database):
    await storage.put([Put(f"{n}", b"1", ANY, 0.05) for n in range(700)])
    await storage.put([Put("kept", b"1", ANY, 60), Put("lasting", b"1", ANY)])
    await asyncio.sleep(0.1)
    assert await storage.prune(3) == 3
    assert await storage.prune(1000) == 697
    assert await storage.prune(1000) == 0
    assert await query(mariadb_database, "SELECT COUNT(*) FROM gramkeep_sessions") == [(2,)]


async def test_who_asks_again_soon_writes_nothing(storage, mariadb_database):
    for key in attempts(within=0.1):
        await storage.claim([key], ONE)
        assert await storage.claim([key], TWO) == [BUSY]
        rows = f"SELECT waiter, since, seen FROM gramkeep_sessions_leases WHERE `key` = '{key}'"
        noted = await query(mariadb_database, rows)
        for waited in (0.001, 0.002):
            assert await storage.claim([key], Lease("two", 60, {key: waited})) == [BUSY]
        still_noted = await query(mariadb_database, rows)
    assert still_noted == noted
    await asyncio.sleep(0.11)
    assert await storage.claim([key], Lease("two", 60, {key: 0.11})) == [BUSY]
    ((waiter, _, seen),) = await query(mariadb_database, rows)
    assert waiter == noted[0][0]
    assert seen > noted[0][2]


@pytest.mark.parametrize("charset", ["utf8mb4", "gbk", "sjis", "big5", "latin1"])
async def test_nothing_that_users_send_can_leave_its_literal(mariadb_database, charset):
    async with over_a_pool(
        mariadb_database, charset=charset, sql_mode="'NO_BACKSLASH_ESCAPES'"
    ) as (
        pooled,
        _,
    ):
        for storage in (pooled, MySQLStorage(mariadb_database)):
            puts = [Put(key, key.encode("utf-8", "surrogatepass"), ANY) for key in TRICKS]
            puts += [Put(f"{value!r}", value, ANY) for value in TRICKY_BYTES]
            assert await storage.put(puts) == [True] * len(puts)
            records = await storage.claim([put.key for put in puts], ONE)
            assert [record.value for record in records] == [put.value for put in puts]
            changes = [
                Put(put.key, put.value + b"'", record.token)
                for put, record in zip(puts, records, strict=True)
            ]
            assert await storage.put(changes, ONE) == [True] * len(puts)
            found = sorted([key async for key in storage.scan()])
            assert found == sorted(put.key for put in puts)
            for key in TRICKS:
                assert key in [found async for found in storage.scan(key)]
        await storage.aclose()


@pytest.mark.parametrize("sql_mode", SQL_MODES)
async def test_leases_are_right_whatever_the_sql_mode_of_the_users_connections(
    mariadb_database, sql_mode, monkeypatch
):
    monkeypatch.setattr(mysql_statements, "_KEPT", 60_000)
    async with over_a_pool(mariadb_database, sql_mode=f"'{sql_mode}'", cursor_cls=DictCursor) as (
        one,
        _,
    ):
        await one.put([Put("key", b"", ANY), Put("expired", b"1", ANY, 0.05)])
        (record,) = await one.claim(["key"], ONE)
        assert (record.value, record.expires_at) == (b"", None)
        assert await one.claim(["key"], Lease("two", 60, {"key": 9})) == [BUSY]
        assert await one.put([Put("key", b"1", record.token)], ONE) == [True]
        assert await one.claim(["key"], ONE) == [BUSY], "two has waited for it"
        (record,) = await one.claim(["key"], Lease("two", 60, {"key": 9}))
        assert record.value == b"1"
        assert await one.put([Put("key", b"2", ABSENT)], TWO) == [False]
        await asyncio.sleep(0.05)
        assert await one.put([Put("expired", b"2", ABSENT)]) == [True]
        assert [key async for key in one.scan()] == ["expired", "key"]


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("isolation", ["REPEATABLE-READ", "SERIALIZABLE"])
async def test_the_users_connections_are_left_as_they_were(mariadb_database, autocommit, isolation):
    state = (
        "SELECT @@SESSION.sql_mode, @@SESSION.autocommit, @@SESSION.tx_isolation, @@in_transaction,"
        "@@SESSION.time_zone, DATABASE(), @@character_set_connection"
    )
    async with over_a_pool(
        mariadb_database,
        maxsize=1,
        autocommit=autocommit,
        sql_mode="'ANSI,STRICT_ALL_TABLES'",
        charset="latin1",
        client_flag=CLIENT.FOUND_ROWS,
        init_command=f"SET tx_isolation = '{isolation}', time_zone = '+05:45'",
    ) as (storage, pool):

        async def state_and_id():
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(state)
                found = await cursor.fetchone()
                await connection.rollback()
                return found, connection.thread_id()

        await storage.setup()
        before = await state_and_id()
        await storage.put([Put("a", b"1", ABSENT, 60), Put("b", b"1", ABSENT)], atomic=True)
        assert await storage.put([Put("a", b"2", ABSENT), Put("b", b"2", ANY)], atomic=True) == [
            False,
            True,
        ]
        assert await storage.put([Put("a", b"3", ABSENT)]) == [False]
        (record, _) = await storage.claim(["a", "b"], ONE)
        assert_lifetime(record, 60)
        assert await storage.put([Put("a", b"1", record.token), Put("b", DELETE, ANY)], ONE) == [
            True,
            True,
        ]
        assert [key async for key in storage.scan()] == ["a"]
        assert await state_and_id() == before
        # and what was done is committed
        assert await query(mariadb_database, "SELECT value FROM gramkeep_sessions") == [(b"1",)]


async def test_equal_bytes_written_again_count_as_done(storage):
    await storage.put([Put("a", b"1", ANY, 60), Put("b", b"1", ANY, 60)])
    a, b = await storage.get(["a", "b"])
    assert await storage.put([Put("a", b"1", a.token, 60)]) == [True]
    assert await storage.put([Put("a", b"1", a.token), Put("b", b"1", b.token, 60)]) == [True] * 2
    assert await storage.put([Put("a", KEEP, a.token, 60)]) == [True]


@pytest.mark.parametrize("size", [4095, 4096, 4097, 300_000])
async def test_values_of_every_size_are_compared(storage, size):
    values = [bytes([n]) * size for n in range(3)]
    await storage.put([Put("a", values[0], ANY), Put("b", values[0], ANY)])
    a, b = await storage.get(["a", "b"])
    assert await storage.put([Put("a", values[1], a.token)]) == [True]
    assert await storage.put([Put("a", values[2], a.token), Put("b", values[2], b.token)]) == [
        False,
        True,
    ]
    assert [record.value for record in await storage.get(["a", "b"])] == values[1:]


async def test_keys_of_any_length_are_told_apart(storage):
    keys = [
        letter * length + end
        for letter in ("a", "я", "🙂")
        for length in (359, 360, 719, 720, 1439, 1440, 1536, 5000)
        for end in ("", "b", "bc")
    ]
    keys = list(dict.fromkeys(keys))
    assert await storage.put([Put(key, key.encode(), ANY) for key in keys]) == [True] * len(keys)
    records = await storage.claim(keys, ONE)
    assert [record.value for record in records] == [key.encode() for key in keys]
    assert sorted([key async for key in storage.scan()]) == sorted(keys)
    for prefix in (keys[0], "я" * 720, "я" * 721, "🙂" * 5000, "🙂" * 5000 + "bcd"):
        found = sorted([key async for key in storage.scan(prefix)])
        assert found == sorted(key for key in keys if key.startswith(prefix))
    await storage.put([Put(key, DELETE, ANY) for key in keys[1:]], ONE)
    assert [key async for key in storage.scan()] == keys[:1]


async def test_a_lifetime_does_not_follow_the_time_zone_of_the_session(mariadb_database):
    async with (
        over_a_pool(mariadb_database, init_command="SET time_zone = '-11:00'") as (west, _),
        over_a_pool(mariadb_database, init_command="SET time_zone = '+13:00'") as (east, _),
    ):
        await west.put([Put("key", b"1", ANY, 60)])
        await east.put([Put("other", b"1", ANY, 60)])
        for storage in (west, east):
            for record in await storage.get(["key", "other"]):
                assert_lifetime(record, 60)
        assert await west.claim(["leased"], ONE) == [None]
        assert await east.claim(["leased"], TWO) == [BUSY]


async def test_a_session_larger_than_a_packet_is_refused_and_nothing_lost(
    storage, mariadb_database
):
    ((largest,),) = await query(mariadb_database, "SELECT @@max_allowed_packet")
    await storage.put([Put("key", b"old", ANY)])
    for atomic in (False, True):
        puts = [Put("beside", b"1", ANY), Put("key", bytes(largest // 2), ANY)]
        with pytest.raises(StorageUnavailable, match=f"max_allowed_packet is {largest}") as caught:
            await storage.put(puts, atomic=atomic)
        assert caught.value.key == "key"
    (record, beside) = await storage.get(["key", "beside"])
    assert (record.value, beside) == (b"old", None)


async def test_sessions_that_fit_one_by_one_go_as_several_packets(storage, mariadb_database):
    ((largest,),) = await query(mariadb_database, "SELECT @@max_allowed_packet")
    value = bytes(largest // 5)
    for atomic in (False, True):
        puts = [Put(f"{n} {atomic}", value, ABSENT) for n in range(5)]
        assert await storage.put(puts, atomic=atomic) == [True] * 5
        records = await storage.get([put.key for put in puts])
        assert all(record.value == value for record in records)
        refused = [Put(put.key, b"new", ANY) for put in puts] + [Put(puts[0].key + "x", DELETE, "")]
        assert await storage.put(refused, atomic=True) == [True] * 5 + [False]
        records = await storage.get([put.key for put in puts])
        assert all(record.value == value for record in records)


async def test_batches_in_any_order_and_of_every_kind_finish(storage):
    keys = [f"key {n}" for n in range(6)]

    async def work(seed):
        for round_ in range(8):
            order = [keys[(seed + round_ + n * 5) % len(keys)] for n in range(len(keys))]
            records = await storage.get(order)
            puts = [
                Put(key, b"%d" % seed, ABSENT if record is None else record.token)
                if (seed + n) % 3
                else Put(key, DELETE if n % 2 else b"any", ANY, 60)
                for n, (key, record) in enumerate(zip(order, records, strict=True))
            ]
            answers = await storage.put(puts, atomic=bool(seed % 2))
            assert len(answers) == len(keys)

    await asyncio.gather(*(work(seed) for seed in range(8)))
