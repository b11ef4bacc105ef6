"""MySQLStorage and servers that die, connections that break, callers that don't wait."""

import asyncio
import gc
import multiprocessing
import time

import asyncmy
import pytest
from servers.mariadb import connect_arguments, query

from gramkeep.errors import StorageUnavailable
from gramkeep.storage import ABSENT, ANY, Lease, Put
from gramkeep.storages.mysql import MySQLStorage
from gramkeep.storages.mysql import connections as mysql_connections

pytest_plugins = ["servers.mariadb_fixtures"]

ONE, TWO = Lease("one", 60), Lease("two", 60)
SOON = 5.0  # seconds: at once on a machine that has nothing else to do, and before any timeout

OURS = (
    "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
)


@pytest.fixture
async def storage(mariadb_database):
    storage = MySQLStorage(mariadb_database)
    yield storage
    await storage.aclose()


async def until_there_are(connections, url):
    """Wait for the server to have noticed which connections are closed, and count those left."""
    async with asyncio.timeout(20):
        while (count := len(await query(url, OURS))) > connections:
            await asyncio.sleep(0.02)
    return count


async def kill_connections(url):
    for (id_,) in await query(url, OURS):
        await query(url, f"KILL CONNECTION {id_}")
    await until_there_are(0, url)


async def somebody_waits_for_a_lock(url):
    waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    async with asyncio.timeout(20):
        while not await query(url, waiting):
            # The server looks anew only if nobody has asked for a tenth of a second.
            await asyncio.sleep(0.2)


async def use_all(storage, connections):
    """Have as many connections made."""
    await asyncio.gather(*(storage.get([f"key {n}"]) for n in range(connections)))


async def value_of(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


# Servers that go away


async def test_a_server_killed_and_started_again_is_used_again_with_all_that_was_saved(
    own_mariadb,
):
    await query(own_mariadb.url(), "CREATE DATABASE bots")
    storage = MySQLStorage(own_mariadb.url("bots"))
    await storage.put([Put("key", b"1", ANY)])
    (record,) = await storage.claim(["key"], ONE)
    assert await storage.put([Put("key", b"2", record.token)], ONE) == [True]
    await use_all(storage, 8)
    own_mariadb.kill()
    for call in (
        storage.get(["key"]),
        storage.claim(["key"], ONE),
        storage.put([Put("key", b"x", ANY)]),
    ):
        with pytest.raises(StorageUnavailable, match=r"Can't connect|Lost connection"):
            await call
    own_mariadb.start()
    assert await value_of(storage, "key") == b"2"
    (record,) = await storage.claim(["key"], ONE)
    assert await storage.put([Put("key", b"3", record.token)], ONE) == [True]

    # Connections that are stale now, unknown to the storage, make no call fail.
    await use_all(storage, 8)
    own_mariadb.restart()
    assert await storage.put([Put("key", b"4", ANY)]) == [True]
    await use_all(storage, 8)
    own_mariadb.restart()
    async with asyncmy.create_pool(
        **connect_arguments(own_mariadb.url("bots")), minsize=4, autocommit=True
    ) as pool:
        pooled = MySQLStorage(pool)
        await use_all(pooled, 4)
        own_mariadb.restart()
        assert await pooled.put([Put("key", b"5", ANY)]) == [True]
        assert await value_of(pooled, "key") == b"5"
    assert await until_there_are(8, own_mariadb.url("bots")) <= 8
    await storage.aclose()
    assert await until_there_are(0, own_mariadb.url("bots")) == 0


async def test_no_count_that_was_told_is_lost_when_the_server_is_killed_under_load(own_mariadb):
    await query(own_mariadb.url(), "CREATE DATABASE bots")
    storage = MySQLStorage(own_mariadb.url("bots"), command_timeout=5)
    await storage.setup()
    told = dict.fromkeys(range(8), 0)
    at_most = dict.fromkeys(range(8), 0)
    stop = False

    async def count(number):
        lease = Lease("one", 60)
        while not stop:
            try:
                (record,) = await storage.claim([f"{number}"], lease)
                value = 0 if record is None else int(record.value)
                assert told[number] <= value <= at_most[number]
                at_most[number] = value + 1
                token = ABSENT if record is None else record.token
                if (await storage.put([Put(f"{number}", b"%d" % (value + 1), token)], lease))[0]:
                    told[number] = value + 1
            except StorageUnavailable:
                await asyncio.sleep(0.01)

    async def all_count_on():
        first = dict(told)
        async with asyncio.timeout(30):
            while any(told[number] < first[number] + 5 for number in told):
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(count(number)) for number in told]
    for _ in range(3):
        await all_count_on()
        before = sum(told.values())
        await asyncio.to_thread(own_mariadb.restart)
        back = time.monotonic()
        while sum(told.values()) <= before:
            assert time.monotonic() - back < SOON, "not used again soon"
            await asyncio.sleep(0.01)
    await all_count_on()
    stop = True
    await asyncio.gather(*tasks)
    await storage.aclose()
    assert await until_there_are(0, own_mariadb.url("bots")) == 0


async def test_a_server_that_is_not_there_is_an_error_soon():
    storage = MySQLStorage("mysql://bot:secret@127.0.0.1:1/bots")
    begin = time.monotonic()
    with pytest.raises(StorageUnavailable, match="Can't connect") as caught:
        await storage.get(["key"])
    assert time.monotonic() - begin < SOON
    assert "secret" not in str(caught.value)
    await storage.aclose()


async def test_a_server_that_is_silent_is_waited_for_no_longer_than_said():
    hung_up = asyncio.Event()

    async def say_nothing(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        storage = MySQLStorage(f"mysql://bot@127.0.0.1:{port}/bots", connect_timeout=0.2)
        begin = time.monotonic()
        with pytest.raises(StorageUnavailable, match=r"no connection within 0\.2 s"):
            await storage.get(["key"])
        assert time.monotonic() - begin < SOON
        await storage.aclose()
        await hung_up.wait()


# Connections that break


async def test_killed_connections_make_no_call_fail(storage, mariadb_database):
    await storage.put([Put("key", b"1", ANY)])
    for call in (
        lambda: storage.put([Put("key", b"2", ANY)]),
        lambda: storage.claim(["key"], ONE),
        lambda: storage.get(["key"]),
        lambda: storage.put([Put("key", b"3", ANY), Put("other", b"1", ANY)], atomic=True),
    ):
        await use_all(storage, 4)
        await kill_connections(mariadb_database)
        await call()
    assert await value_of(storage, "key") == b"3"


async def test_a_connection_that_the_server_closed_for_idling_makes_no_call_fail(
    storage, mariadb_database
):
    await storage.setup()
    connection = await storage._calls.lent().acquire()
    await mysql_connections.run(connection, ["SET SESSION wait_timeout = 1"])
    await storage._calls.lent().release(connection, is_usable=True)
    await until_there_are(0, mariadb_database)
    assert await storage.put([Put("key", b"1", ANY)]) == [True]


async def test_a_connection_long_idle_is_asked_whether_it_lives(
    storage, mariadb_database, monkeypatch
):
    monkeypatch.setattr(mysql_connections, "IDLE", 0)
    await use_all(storage, 2)
    await kill_connections(mariadb_database)
    assert await storage.put([Put("key", b"1", ANY)]) == [True]


async def test_a_put_that_may_have_been_carried_out_is_not_repeated(storage, mariadb_database):
    await storage.put([Put("key", b"1", ANY)])
    (record,) = await storage.get(["key"])
    blocker = await asyncmy.connect(**connect_arguments(mariadb_database))
    async with blocker.cursor() as cursor:
        await cursor.execute("SELECT * FROM gramkeep_sessions FOR UPDATE")
        put = asyncio.create_task(storage.put([Put("key", b"2", record.token)]))
        claim = asyncio.create_task(storage.claim(["key"], ONE))
        await somebody_waits_for_a_lock(mariadb_database)
        assert not put.done()
        for (id_,) in await query(mariadb_database, OURS + f" AND id <> {blocker.thread_id()}"):
            await query(mariadb_database, f"KILL CONNECTION {id_}")
        with pytest.raises(StorageUnavailable, match=r"is not known|killed"):
            await put
        assert (await claim)[0].value == b"1"
    await blocker.ensure_closed()
    assert await value_of(storage, "key") == b"1"


async def test_a_session_locked_by_somebody_else_is_an_error_in_time(mariadb_database):
    storage = MySQLStorage(mariadb_database, command_timeout=6)
    await storage.put([Put("key", b"1", ANY), Put("other", b"1", ANY)])
    blocker = await asyncmy.connect(**connect_arguments(mariadb_database))
    async with blocker.cursor() as cursor:
        await cursor.execute("SELECT * FROM gramkeep_sessions WHERE `key` = 'key' FOR UPDATE")
        with pytest.raises(StorageUnavailable, match="Lock wait timeout"):
            await storage.put([Put("a", b"2", ANY), Put("key", b"2", ANY)])
        # of the transaction nothing is left, not even what came before the lock
        assert await storage.get(["a"]) == [None]
        assert await storage.put([Put("other", b"2", ANY)]) == [True]
    await blocker.ensure_closed()
    assert await storage.put([Put("key", b"2", ANY)]) == [True]
    await storage.aclose()


async def test_the_victim_of_a_deadlock_does_its_work_again(storage, mariadb_database):
    await storage.put([Put("a", b"1", ANY), Put("b", b"1", ANY)])
    blocker = await asyncmy.connect(**connect_arguments(mariadb_database))
    async with blocker.cursor() as cursor:
        # with more to undo, so that the server chooses the storage's transaction as the victim
        await cursor.execute("CREATE TABLE much (n INT)")
        await cursor.execute("INSERT INTO much VALUES " + ",".join(["(1)"] * 1000))
        await cursor.execute("SELECT * FROM gramkeep_sessions WHERE `key` = 'b' FOR UPDATE")
        put = asyncio.create_task(
            storage.put([Put("a", b"2", ANY), Put("b", b"2", ANY)], atomic=True)
        )
        await somebody_waits_for_a_lock(mariadb_database)
        await cursor.execute("UPDATE gramkeep_sessions SET value = 'theirs' WHERE `key` = 'a'")
        await blocker.commit()
    assert await put == [True, True]
    assert [record.value for record in await storage.get(["a", "b"])] == [b"2", b"2"]
    await blocker.ensure_closed()


# Callers and connections


async def test_connections_are_bounded_and_waiting_for_one_is_too(mariadb_database, monkeypatch):
    storage = MySQLStorage(mariadb_database, max_connections=3)
    await storage.put([Put("key", b"1", ANY)])
    for _ in range(10):
        await asyncio.gather(*(storage.put([Put(f"{n}", b"1", ANY)]) for n in range(20)))
    assert await until_there_are(3, mariadb_database) == 3
    connections = storage._calls.lent()
    held = [await connections.acquire() for _ in range(3)]
    with monkeypatch.context() as impatient:
        impatient.setattr(connections, "_patience", 0.5)
        begin = time.monotonic()
        with pytest.raises(StorageUnavailable, match=r"all 3 connections were busy for 0\.5 s"):
            await storage.get(["key"])
        assert time.monotonic() - begin < SOON
    for connection in held:
        await connections.release(connection, is_usable=True)
    assert await value_of(storage, "key") == b"1"
    await storage.aclose()
    assert await until_there_are(0, mariadb_database) == 0


async def test_callers_who_give_up_leave_no_connection_and_no_answer_behind(
    storage, mariadb_database
):
    await storage.put([Put(f"{n}", b"%d" % n, ANY) for n in range(20)])

    async def give_up(number):
        call = storage.claim([f"{number}"], ONE) if number % 2 else storage.get([f"{number}"])
        task = asyncio.create_task(call)
        await asyncio.sleep(0.0002 * number)
        task.cancel()

    async def read(number):
        assert await value_of(storage, f"{number}") == b"%d" % number

    for _ in range(10):
        calls = [work(number) for number in range(20) for work in (give_up, read)]
        await asyncio.gather(*calls)
    assert await until_there_are(8, mariadb_database) <= 8
    await storage.aclose()
    assert await until_there_are(0, mariadb_database) == 0


async def test_a_users_pool_gets_no_connection_back_that_somebody_left_in_the_middle(
    mariadb_database,
):
    async with asyncmy.create_pool(
        **connect_arguments(mariadb_database), minsize=1, maxsize=2
    ) as pool:
        storage = MySQLStorage(pool)
        await storage.put([Put(f"{n}", b"%d" % n, ANY) for n in range(20)])
        for number in range(40):
            task = asyncio.create_task(storage.claim([f"{number % 20}"], ONE))
            await asyncio.sleep(0.0001 * number)
            task.cancel()
            await asyncio.wait([task])
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(f"SELECT {number}")
                assert await cursor.fetchone() == (number,)
                await connection.rollback()
        assert pool.size <= 2
        await storage.aclose()


async def test_a_closed_storage_says_so(mariadb_database):
    storage = MySQLStorage(mariadb_database)
    await storage.put([Put("key", b"1", ANY)])
    await asyncio.gather(storage.aclose(), storage.aclose())
    for call in (
        storage.get(["key"]),
        storage.put([Put("key", b"2", ANY)]),
        storage.claim(["key"], ONE),
        storage.prune(1),
        storage.setup(),
    ):
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await call
    assert await until_there_are(0, mariadb_database) == 0


async def test_a_closed_pool_is_an_error_that_says_so(mariadb_database):
    async with asyncmy.create_pool(**connect_arguments(mariadb_database)) as pool:
        storage = MySQLStorage(pool)
        await storage.get(["key"])
    with pytest.raises(StorageUnavailable, match="Cannot acquire connection after closing pool"):
        await storage.get(["key"])
    await storage.aclose()


# Event loops and processes


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # they were
def test_a_storage_goes_on_in_the_next_event_loop(mariadb):
    asyncio.run(query(mariadb.url(), "CREATE DATABASE loops"))
    storage = MySQLStorage(mariadb.url("loops"))
    for count in range(3):
        stored = asyncio.run(use_in_a_loop(storage, count))
        assert stored == (None if count == 0 else b"%d" % (count - 1))
        gc.collect()  # closes what the loop that ended left open
    assert len(asyncio.run(query(mariadb.url("loops"), OURS))) == 1
    asyncio.run(storage.aclose())
    gc.collect()
    assert asyncio.run(until_there_are(0, mariadb.url("loops"))) == 0
    asyncio.run(query(mariadb.url(), "DROP DATABASE loops"))


async def use_in_a_loop(storage, count):
    before = await value_of(storage, "key")
    await storage.put([Put("key", b"%d" % count, ANY)])
    return before


def test_a_child_process_gets_connections_of_its_own(mariadb):
    url = mariadb.url("forks")
    asyncio.run(query(mariadb.url(), "CREATE DATABASE forks"))
    storage = MySQLStorage(url)

    async def parent():
        await storage.put([Put("key", b"parent", ANY)])
        child = multiprocessing.get_context("fork").Process(target=use_in_a_child, args=(storage,))
        child.start()
        while child.is_alive():
            await storage.get(["key"])
            await asyncio.sleep(0.01)
        assert child.exitcode == 0
        assert await value_of(storage, "key") == b"child"
        await storage.aclose()

    asyncio.run(parent())
    asyncio.run(query(mariadb.url(), "DROP DATABASE forks"))


def use_in_a_child(storage):
    asyncio.run(use_in_a_forked_loop(storage))


async def use_in_a_forked_loop(storage):
    assert await value_of(storage, "key") == b"parent"
    for _ in range(20):
        await storage.put([Put("key", b"child", ANY)])
    await storage.aclose()
