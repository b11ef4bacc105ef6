"""Leases in PostgreSQL: what round trips they take, what they wait for, what is left of them."""

import asyncio
import math
import random
import struct
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import asyncpg
import pytest

from gramkeep.errors import ConfigurationError
from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, PLACE_KEPT, Lease, Put
from gramkeep.storages.postgres import PostgresStorage
from gramkeep.testing.conformance.base import attempts

pytest_plugins = ["servers.postgres_fixtures"]

ONE, TWO = Lease("one", 60), Lease("two", 60)
WAITERS = """\
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
async def storage(postgres_database):
    made = PostgresStorage(postgres_database)
    yield made
    await made.aclose()


@pytest.fixture
async def connection(postgres_database):
    made = await asyncpg.connect(postgres_database)
    yield made
    await made.close()


async def somebody_waits(connection):
    async with asyncio.timeout(20):
        while not await connection.fetchval(WAITERS):
            await asyncio.sleep(0.005)


class Wire:
    """Stands between a client and the server, and counts what the client waits for."""

    def __init__(self, port):
        self._port = port
        self.questions = 0

    async def connected(self, reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def back():
            while data := await server_reader.read(65536):
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(back())
        try:
            size = 8
            while size == 8:  # it asks for TLS first
                head = await reader.readexactly(4)
                (size,) = struct.unpack("!I", head)
                server_writer.write(head + await reader.readexactly(size - 4))
            while True:
                head = await reader.readexactly(5)
                (size,) = struct.unpack("!I", head[1:])
                server_writer.write(head + await reader.readexactly(size - 4))
                self.questions += head[:1] in b"SQH"  # Sync, a simple query, or Flush
        except asyncio.IncompleteReadError:
            server_writer.close()
            await answering


@asynccontextmanager
async def wired(url):
    """Give a wire, and the URL of the same database through it."""
    host, _, rest = url.rpartition(":")
    port, _, database = rest.partition("/")
    wire = Wire(int(port))
    server = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
    try:
        yield wire, f"{host}:{server.sockets[0].getsockname()[1]}/{database}"
    finally:
        server.close()


@asynccontextmanager
async def unswept(storage):
    """Give a storage that does nothing in the background."""
    async with aclosing(storage):
        await storage.setup()
        storage._link._sweep_at = math.inf
        yield storage


@pytest.mark.parametrize("layout", ["gramkeep", "grammy"])
async def test_an_update_takes_two_round_trips_however_many_sessions_it_has(
    postgres_database, layout
):
    async with (
        wired(postgres_database) as (wire, url),
        unswept(PostgresStorage(url, layout=layout)) as storage,
    ):
        for number in (1, 30, 1):
            keys = [f"key {n}" for n in range(number)]
            await storage.put([Put(key, b"1", ANY) for key in keys])
            for _ in range(2):  # the first time, statements are prepared
                before = wire.questions
                records = await storage.claim(keys, ONE)
                puts = [
                    Put(key, b"1", record.token) for key, record in zip(keys, records, strict=True)
                ]
                assert await storage.put(puts, ONE) == [True] * number
            assert wire.questions - before == 2


async def test_a_pooler_is_found_out_and_takes_twice_as_many(pgbouncer_database):
    async with (
        wired(pgbouncer_database) as (wire, url),
        unswept(PostgresStorage(url)) as storage,
    ):
        await storage.put([Put("key", b"1", ANY)])
        for _ in range(2):
            before = wire.questions
            (record,) = await storage.claim(["key"], ONE)
            assert await storage.put([Put("key", b"1", record.token)], ONE) == [True]
        assert wire.questions - before == 4


@pytest.mark.parametrize("how", ["by URL", "over pools"])
async def test_many_clients_share_two_connections_of_a_pooler(pgbouncer_database, how):
    pools = [
        asyncpg.create_pool(pgbouncer_database, min_size=0, statement_cache_size=0)
        for _ in range(4)
    ]
    async with AsyncExitStack() as stack:
        if how == "over pools":
            places = [await stack.enter_async_context(pool) for pool in pools]
        else:
            places = [pgbouncer_database] * 4
        storages = [
            await stack.enter_async_context(aclosing(PostgresStorage(place))) for place in places
        ]
        await count_in_all(storages)


async def count_in_all(storages):
    async def count(storage, name):
        for number in range(8):
            key = f"{name} {number % 2}"
            (record,) = await storage.claim([key], Lease(name, 60))
            value = b"1" if record is None else b"%d" % (int(record.value) + 1)
            expected = ABSENT if record is None else record.token
            puts = [Put(key, value, expected), Put(f"{key} beside", b"1", ANY, 60)]
            atomic = number % 3 == 0
            assert await storage.put(puts, Lease(name, 60), atomic=atomic) == [True, True]
            assert [found async for found in storage.scan(name)]

    names = [f"{n} of {m}" for n in range(4) for m in range(4)]
    owned = zip(storages * 4, names, strict=True)
    await asyncio.gather(*(count(storage, name) for storage, name in owned))
    keys = [f"{name} {n}" for name in names for n in range(2)]
    assert {record.value for record in await storages[0].get(keys)} == {b"4"}


async def test_a_pool_that_keeps_statements_is_refused_behind_a_pooler(pgbouncer_database):
    async with asyncpg.create_pool(pgbouncer_database, min_size=0) as pool:
        storage = PostgresStorage(pool)
        for call in (storage.get(["key"]), storage.put([Put("key", b"1", ANY)])):
            with pytest.raises(ConfigurationError, match="statement_cache_size=0"):
                await call
        await storage.aclose()


# What a claim waits for


@pytest.mark.parametrize("there", [True, False])
async def test_a_claim_that_waits_for_a_change_reads_what_it_left(storage, connection, there):
    """The trap of snapshots: a statement sees values as of when it began, and waits after that."""
    if there:
        await storage.put([Put("key", b"old", ANY)])
    for _ in range(7):  # also when statements are planned once for all
        (record,) = await storage.claim(["key"], ONE)
        async with connection.transaction():  # as a put that takes its time
            await connection.execute(
                "DELETE FROM gramkeep_sessions_leases;"
                "INSERT INTO gramkeep_sessions VALUES ('key', 'new') "
                "ON CONFLICT (key) DO UPDATE SET value = 'new'"
            )
            claiming = asyncio.create_task(storage.claim(["key"], TWO))
            checking = await asyncpg.connect(storage._place)
            await somebody_waits(checking)
            await checking.close()
        (claimed,) = await claiming
        assert claimed is not BUSY
        assert claimed is not None
        assert claimed.value == b"new"
        old = Put("key", b"old", claimed.token) if there else Put("key", DELETE, claimed.token)
        assert await storage.put([old], TWO) == [True]
        assert record is None or record.value == b"old"


async def test_a_put_that_waits_for_a_claim_passes_the_lease_on(storage, connection):
    """Also when a place was taken while the put waited, and it saw none when it began."""
    await storage.put([Put("key", b"1", ANY)])
    for number in range(7):
        await storage.claim(["key"], ONE)
        async with connection.transaction():
            await connection.execute(
                "UPDATE gramkeep_sessions_leases "
                "SET waiter = 'two', since = now() - '1 s'::interval, "
                "seen = clock_timestamp() + '5 s'::interval"
            )
            putting = asyncio.create_task(storage.put([Put("key", b"2", ANY)], ONE))
            checking = await asyncpg.connect(storage._place)
            await somebody_waits(checking)
            await checking.close()
        assert await putting == [True]
        assert await storage.claim(["key"], Lease("three", 60)) == [BUSY], number
        (claimed,) = await storage.claim(["key"], TWO)
        assert claimed is not BUSY
        assert await storage.put([Put("key", KEEP, ANY)], TWO) == [True]
        assert await connection.fetchval("SELECT count(*) FROM gramkeep_sessions_leases") == 0


async def test_processes_that_take_turns_never_conflict(postgres_database):
    """Conflicts are for those who write without a lease: here nobody is refused."""
    storages = [PostgresStorage(postgres_database) for _ in range(3)]
    keys = [f"key {n}" for n in range(5)]
    answers = []

    async def write(storage, name):
        choice = random.Random(name)
        lease = Lease(name, 60)
        for _ in range(25):
            wanted = choice.sample(keys, choice.randint(1, 3))
            began = asyncio.get_running_loop().time()
            while True:
                waited = asyncio.get_running_loop().time() - began
                claimed = await storage.claim(
                    wanted, Lease(name, 60, dict.fromkeys(wanted, waited))
                )
                if BUSY not in claimed:
                    break
                taken = [key for key, got in zip(wanted, claimed, strict=True) if got is not BUSY]
                await storage.put([Put(key, KEEP, ANY) for key in taken], lease)
                await asyncio.sleep(choice.uniform(0, 0.005))
            puts = [
                Put(key, b"1", ABSENT)
                if record is None
                else Put(
                    key, DELETE if choice.random() < 0.3 else record.value + b"1", record.token
                )
                for key, record in zip(wanted, claimed, strict=True)
            ]
            answers.extend(await storage.put(puts, lease))

    async with asyncio.timeout(60):
        await asyncio.gather(
            *(write(storage, f"{n} {m}") for n, storage in enumerate(storages) for m in range(3))
        )
    assert set(answers) == {True}
    await asyncio.gather(*(storage.aclose() for storage in storages))


async def test_batches_in_any_order_never_wait_in_a_circle_under_leases(storage, connection):
    keys = [f"key {n:02}" for n in range(40)]

    async def write(name):
        order = random.Random(name)
        for _ in range(10):
            some = order.sample(keys, 20)
            await storage.claim(some, Lease(name, 60))
            await storage.put([Put(key, name.encode(), ANY) for key in some], Lease(name, 60))

    await asyncio.gather(*(write(f"owner {n}") for n in range(6)))
    database = "datname = current_database()"
    await connection.execute("SELECT pg_stat_force_next_flush()")
    assert (
        await connection.fetchval(f"SELECT deadlocks FROM pg_stat_database WHERE {database}") == 0
    )


async def test_what_the_server_undid_for_the_sake_of_another_is_done_again(storage, connection):
    """Here in a circle with somebody who locks rows in another order than ours."""
    await storage.put([Put("a", b"1", ANY), Put("b", b"1", ANY)])
    update = "UPDATE gramkeep_sessions SET value = value WHERE key = $1"
    await connection.execute("SET deadlock_timeout = '30s'")  # so that the other one is undone
    async with connection.transaction():
        await connection.execute(update, "b")
        putting = asyncio.create_task(storage.put([Put("a", b"2", ANY), Put("b", b"2", ANY)]))
        checking = await asyncpg.connect(storage._place)
        await somebody_waits(checking)
        await checking.close()
        await connection.execute(update, "a")
    assert await putting == [True, True]


# What is left


async def test_leases_cost_no_wait_for_the_disk(storage, connection):
    (kind,) = await connection.fetch(
        "SELECT 1 WHERE to_regclass('gramkeep_sessions_leases') IS NULL"
    )
    await storage.setup()
    assert kind is not None
    kind = await connection.fetchval(
        "SELECT relpersistence FROM pg_class WHERE relname = 'gramkeep_sessions_leases'"
    )
    assert kind == b"u"


class Watched(asyncpg.Connection):
    """Notes of every call whether its commit waits for the disk."""

    modes = None

    async def fetch(self, *arguments, **options):
        async with self.transaction():
            rows = await super().fetch(*arguments, **options)
            await self._note()
        return rows

    async def fetchmany(self, *arguments, **options):
        async with self.transaction():
            rows = await super().fetchmany(*arguments, **options)
            await self._note()
        return rows

    async def _note(self):
        Watched.modes.append(await self.fetchval("SHOW synchronous_commit"))


@pytest.mark.parametrize("number", [1, 3])
async def test_only_what_changes_a_session_waits_for_the_disk(
    postgres_database, monkeypatch, number
):
    """A claim would too: reading may tidy up a page of the sessions, which is logged."""
    keys = [f"key {n}" for n in range(number)]

    async def put(value, lease):
        assert await storage.put([Put(key, value, ANY) for key in keys], lease) == [True] * number

    async with asyncpg.create_pool(postgres_database, min_size=0, connection_class=Watched) as pool:
        monkeypatch.setattr(Watched, "modes", [])
        storage = PostgresStorage(pool)
        async with unswept(storage):
            Watched.modes.clear()
            await storage.claim(keys, ONE)
            assert await storage.claim(keys, TWO) == [BUSY] * number
            await put(KEEP, ONE)
            assert await storage.claim(keys, TWO) == [None] * number
            assert set(Watched.modes) == {"off"}
            Watched.modes.clear()
            await put(b"2", TWO)
            assert Watched.modes == ["on"]


async def test_nothing_is_left_of_leases_that_were_given_up(storage, connection):
    count = "SELECT count(*) FROM gramkeep_sessions_leases"
    for name in attempts(within=PLACE_KEPT):
        keys = [f"{name}, {n}" for n in range(20)]
        await storage.claim(keys, ONE)
        assert await storage.claim(keys[:5], TWO) == [BUSY] * 5
        await storage.put([Put(key, b"1", ABSENT) for key in keys], ONE)
        left = await connection.fetchval(count)
        await storage.put([Put(key, KEEP, ANY) for key in keys[:5]], TWO)
    assert left == 5  # for which somebody waits
    assert await connection.fetchval(count) == 0


async def test_what_the_dead_left_is_pruned(storage, connection):
    await storage.claim(["held"], ONE)
    await storage.claim(["dead"], Lease("two", 0.01))
    await storage.claim(["waited for"], ONE)
    await storage.claim(["waited for"], TWO)
    await storage.put([Put("waited for", KEEP, ANY)], ONE)
    await asyncio.sleep(PLACE_KEPT + 0.1)
    await storage.prune(100)
    assert await connection.fetch("SELECT key FROM gramkeep_sessions_leases") == [("held",)]


async def test_a_crash_of_the_server_ends_all_leases(own_postgres):
    storage = PostgresStorage(own_postgres.url())
    await storage.put([Put("key", b"1", ANY)])
    (record,) = await storage.claim(["key"], ONE)
    own_postgres.restart()
    (claimed,) = await storage.claim(["key"], TWO)
    assert claimed.value == b"1"
    assert await storage.put([Put("key", b"2", record.token)], ONE) == [False]
    assert await storage.put([Put("key", b"2", claimed.token)], TWO) == [True]
    await storage.aclose()
