"""A PostgreSQL server that dies, hangs or throws clients out, and clients that come and go."""

import asyncio
import gc
import os
import secrets
import time
from contextlib import aclosing

import asyncpg
import pytest

from gramkeep import Sessions
from gramkeep.errors import StorageUnavailable
from gramkeep.storage import ANY, BUSY, KEEP, Lease, Put
from gramkeep.storages.postgres import PostgresStorage, connections
from gramkeep.testing import TCPProxy

pytest_plugins = ["servers.postgres_fixtures"]

ONE = Lease("one", 60)
OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


async def ask(url, statement, *arguments):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


@pytest.fixture
def own_name():
    """Name the connections of a test, since PgBouncer keeps some to the same database."""
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture
def named(postgres_database, own_name):
    """Give the URL of a database with that name in it."""
    return f"{postgres_database}?application_name={own_name}"


async def connections_fall_to(number, url, name):
    """Wait for the server to notice who has left, and hold how many are left against a number."""
    connection = await asyncpg.connect(url)
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
    async with asyncio.timeout(20):
        while await connection.fetchval(count, name) > number:
            await asyncio.sleep(0.02)
    await connection.close()


async def somebody_waits_for_a_lock(connection):
    """Wait for it, and give the process of the server that waits."""
    query = f"SELECT pid {OTHERS} AND datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while (pid := await connection.fetchval(query)) is None:
            await asyncio.sleep(0.01)
    return pid


async def configuration_is_read(url, *, read_only):
    """Wait for a server that was told to read it again; all its processes are told at once."""
    async with asyncio.timeout(20):
        while await ask(url, "SHOW default_transaction_read_only") != read_only:
            await asyncio.sleep(0.02)


async def value_of(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


async def many(storage, number=30):
    """Make many calls at once, and give what came of them."""
    calls = [storage.put([Put(f"key {n}", b"1", ANY)]) for n in range(number)]
    calls += [storage.get([f"key {n}"]) for n in range(number)]
    calls += [storage.claim([f"other {n}"], ONE) for n in range(number)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_server_that_was_killed_is_used_again_as_soon_as_it_is_back(own_postgres):
    async with aclosing(PostgresStorage(own_postgres.url())) as storage:
        await storage.put([Put("key", b"1", ANY)])
        for number in range(2):
            outcomes = asyncio.create_task(many(storage))
            await asyncio.sleep(0.005 * number)
            own_postgres.kill()
            for outcome in await outcomes:
                assert isinstance(outcome, list | StorageUnavailable), repr(outcome)
            for call in (storage.get(["key"]), storage.put([Put("key", b"2", ANY)])):
                with pytest.raises(StorageUnavailable) as caught:
                    await call
                assert caught.value.storage == storage.name
            own_postgres.start()
            assert await value_of(storage, "key") == b"1"
            assert await many(storage) != []
        await connections_fall_to(10, own_postgres.url(), "gramkeep")
    await connections_fall_to(0, own_postgres.url(), "gramkeep")


async def test_stale_connections_of_a_server_that_was_restarted_make_no_call_fail(own_postgres):
    async with aclosing(PostgresStorage(own_postgres.url())) as storage:
        for _ in range(3):
            outcomes = await many(storage)
            assert [outcome for outcome in outcomes if not isinstance(outcome, list)] == []
            await asyncio.to_thread(own_postgres.restart)
        assert await storage.put([Put("key", b"1", ANY)]) == [True]


async def test_a_server_that_became_a_replica_is_left_for_one_that_takes_writes(own_postgres):
    admin = await asyncpg.connect(own_postgres.url())
    async with aclosing(PostgresStorage(own_postgres.url())) as storage:
        await storage.put([Put("key", b"1", ANY)])
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        await configuration_is_read(own_postgres.url(), read_only="on")
        before = await admin.fetch(f"SELECT pid {OTHERS} ORDER BY 1")
        with pytest.raises(StorageUnavailable, match="read-only transaction"):
            await storage.put([Put("key", b"2", ANY)])
        assert await value_of(storage, "key") == b"1"
        assert await admin.fetch(f"SELECT pid {OTHERS} ORDER BY 1") != before
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("SELECT pg_reload_conf()")
        await configuration_is_read(own_postgres.url(), read_only="off")
        assert await storage.put([Put("key", b"2", ANY)]) == [True]
    await admin.close()


async def test_a_pool_of_the_users_recovers_too(own_postgres):
    async with asyncpg.create_pool(own_postgres.url(), min_size=0, max_size=4) as pool:
        storage = PostgresStorage(pool)
        for _ in range(3):
            outcomes = await many(storage)
            assert [outcome for outcome in outcomes if not isinstance(outcome, list)] == []
            await asyncio.to_thread(own_postgres.restart)
        assert pool.get_size() <= 4
        await storage.aclose()


async def test_clients_that_are_thrown_out_come_back_and_leave_nothing_behind(
    named, postgres_database, own_name
):
    # With a time to wait for it: a server process that isn't over yet takes changes to its end.
    throw_out = (
        f"SELECT count(pg_terminate_backend(pid, 10000)) {OTHERS} AND datname = current_database()"
    )
    async with aclosing(PostgresStorage(named)) as storage:
        await storage.put([Put("key", b"1", ANY)])
        for _ in range(3):
            calls = asyncio.create_task(many(storage))
            assert await ask(postgres_database, throw_out) >= 0
            for outcome in await calls:
                assert isinstance(outcome, list | StorageUnavailable), repr(outcome)
            outcomes = await many(storage)
            assert [outcome for outcome in outcomes if not isinstance(outcome, list)] == []
            await connections_fall_to(10, postgres_database, own_name)


class ThatKeepsEndsToItself(TCPProxy):
    """Leads on what a server says last and, when told so, not that it hung up after that."""

    keeps_ends = False

    async def lets_through(self, connection, data, *, is_answer):
        if self.keeps_ends and is_answer and not data:
            await asyncio.Event().wait()
        return await super().lets_through(connection, data, is_answer=is_answer)


async def test_a_change_goes_elsewhere_if_its_connection_ends_before_it_is_sent(own_postgres):
    async with ThatKeepsEndsToItself("127.0.0.1", own_postgres.port) as proxy:
        url = own_postgres.url().replace(f":{own_postgres.port}", f":{proxy.port}")
        async with aclosing(PostgresStorage(url)) as storage:
            await storage.put([Put("key", b"1", ANY)])
            proxy.keeps_ends = True
            throw_out = f"SELECT count(pg_terminate_backend(pid, 10000)) {OTHERS}"
            await ask(own_postgres.url(), throw_out)
            for _ in range(10):  # turns of the event loop, in which its last words arrive
                await asyncio.sleep(0.01)
            assert await storage.put([Put("key", b"2", b"1")]) == [True]
            assert await value_of(storage, "key") == b"2"
            proxy.keeps_ends = False


async def test_reads_and_claims_survive_being_thrown_out_in_the_middle(postgres_database):
    """They can be asked again without harm. A change can't, and says that it may have been made."""
    blocker = await asyncpg.connect(postgres_database)
    async with aclosing(PostgresStorage(postgres_database)) as storage:
        await storage.put([Put("key", b"1", ANY)])
        for call, survives in (
            (storage.claim(["key"], ONE), True),
            (storage.get(["key"]), True),
            (storage.put([Put("key", b"2", ANY)]), False),
        ):
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute(
                "LOCK gramkeep_sessions, gramkeep_sessions_leases IN ACCESS EXCLUSIVE MODE"
            )
            calling = asyncio.create_task(call)
            pid = await somebody_waits_for_a_lock(blocker)
            await blocker.execute(f"SELECT pg_terminate_backend({pid}, 10000)")
            await transaction.rollback()
            if survives:
                (record,) = await calling
                assert record.value == b"1"
            else:
                with pytest.raises(StorageUnavailable, match="whether the change was made"):
                    await calling
        assert await value_of(storage, "key") == b"1"
    await blocker.close()


async def test_who_hangs_at_the_server_is_told_after_the_timeout(postgres_database, monkeypatch):
    blocker = await asyncpg.connect(postgres_database)
    async with aclosing(PostgresStorage(postgres_database)) as storage:
        await storage.put([Put("key", b"1", ANY)])
        async with blocker.transaction():
            await blocker.execute("SELECT * FROM gramkeep_sessions FOR UPDATE")
            began = time.monotonic()
            with monkeypatch.context() as impatient:
                impatient.setattr(storage._link.calls.server, "_command_timeout", 0.3)
                with pytest.raises(StorageUnavailable, match="in time; whether the change was"):
                    await storage.put([Put("key", b"2", ANY)])
            assert time.monotonic() - began < 5
            assert await storage.put([Put("beside", b"1", ANY)]) == [True]
        await asyncio.sleep(0.1)
        assert await value_of(storage, "key") == b"1"
        assert await storage.put([Put("key", b"3", ANY)]) == [True]
    await blocker.close()


async def test_a_server_that_does_not_answer_at_all_is_given_up_after_the_timeout():
    async def silence(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    storage = PostgresStorage(f"postgresql://bot@127.0.0.1:{port}/bots", connect_timeout=0.2)
    began = time.monotonic()
    calls = [storage.get(["key"]) for _ in range(20)]
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, StorageUnavailable)
    assert time.monotonic() - began < 5, "they wait for each other"
    await storage.aclose()
    server.close()


async def test_cancelled_calls_leave_connections_that_work(named, postgres_database, own_name):
    async with aclosing(PostgresStorage(named, max_connections=3)) as storage:
        await storage.put([Put("key", b"1", ANY)])
        for steps in range(40):
            calls = [
                asyncio.create_task(call)
                for call in (
                    storage.get(["key"]),
                    storage.claim(["key"], ONE),
                    storage.put([Put("key", b"1", ANY), Put("beside", b"1", ANY)], atomic=True),
                    storage.put([Put("other", b"1", ANY)]),
                )
            ]
            for _ in range(steps % 10):
                await asyncio.sleep(0)
            if steps >= 10:
                await asyncio.sleep(0.0001 * steps)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert await value_of(storage, "key") == b"1"
        await connections_fall_to(3, postgres_database, own_name)
        await storage.put([Put("key", KEEP, ANY)], ONE)
        assert await storage.claim(["key"], Lease("two", 60)) != [BUSY]


async def test_calls_wait_for_a_connection_in_turn_where_there_are_few(
    named, postgres_database, own_name
):
    async with aclosing(PostgresStorage(named, max_connections=2)) as storage:
        pairs = [[Put(f"key {n}", b"1", ANY), Put(f"beside {n}", b"1", ANY)] for n in range(40)]
        done = []

        async def put(number):
            assert await storage.put(pairs[number], atomic=True) == [True, True]
            done.append(number)

        await asyncio.gather(put(0), put(1))  # which makes both connections
        calls = [asyncio.create_task(put(number)) for number in range(2, 40)]
        await asyncio.sleep(0)
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
        assert 0 < await ask(postgres_database, count, own_name) <= 2
        await asyncio.gather(*calls)
        assert len(done) == 40
        # One may be held up, but beside it go those behind it and no others.
        assert max(number - place for place, number in enumerate(done)) < 2
        assert 0 < await ask(postgres_database, count, own_name) <= 2


async def test_who_can_get_no_connection_is_told_after_the_timeout(postgres_database, monkeypatch):
    blocker = await asyncpg.connect(postgres_database)
    storage = PostgresStorage(postgres_database, max_connections=1)
    async with aclosing(storage), blocker.transaction():
        await storage.put([Put("key", b"1", ANY)])
        await blocker.execute("SELECT * FROM gramkeep_sessions FOR UPDATE")
        putting = asyncio.create_task(storage.put([Put("key", b"2", ANY)]))
        await somebody_waits_for_a_lock(blocker)
        with monkeypatch.context() as impatient:
            impatient.setattr(storage._link.calls.server, "_connect_timeout", 0.3)
            with pytest.raises(StorageUnavailable, match="in time"):
                await storage.get(["key"])
        await blocker.execute("ROLLBACK; BEGIN")
        assert await putting == [True]
        assert await value_of(storage, "key") == b"2"
    await blocker.close()


async def test_connections_that_nobody_needs_are_closed(
    named, postgres_database, own_name, monkeypatch
):
    monkeypatch.setattr(connections, "IDLE", 0.1)
    async with aclosing(PostgresStorage(named)) as storage:
        for _ in range(2):
            assert [answer for answer in await many(storage) if not isinstance(answer, list)] == []
            await connections_fall_to(0, postgres_database, own_name)
        assert await value_of(storage, "key 1") == b"1"


async def test_a_call_cancelled_while_it_connects_harms_nobody(postgres_database):
    for steps in range(0, 30, 3):
        async with aclosing(PostgresStorage(postgres_database)) as storage:
            calls = [asyncio.create_task(storage.get(["key"])) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            calls[0].cancel()
            assert await asyncio.gather(*calls[1:]) == [[None], [None]]


async def test_closing_while_it_connects_leaves_no_connection(named, postgres_database, own_name):
    for pause in (0, 0.001, 0.005, 0.01):
        storage = PostgresStorage(named)
        call = asyncio.create_task(storage.put([Put("key", b"1", ANY)]))
        await asyncio.sleep(pause)
        await storage.aclose()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        assert outcome == [True] or isinstance(outcome, StorageUnavailable)
    await connections_fall_to(0, postgres_database, own_name)


async def test_a_closed_storage_says_so(postgres_database):
    storage = PostgresStorage(postgres_database)
    await storage.put([Put("key", b"1", ANY)])
    await storage.aclose()
    for call in (
        storage.get(["key"]),
        storage.claim(["key"], ONE),
        storage.put([Put("key", b"1", ANY)]),
        storage.prune(1),
        storage.setup(),
    ):
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await call


async def test_pgbouncer_may_be_restarted(pgbouncer_database, pgbouncer):
    async with aclosing(PostgresStorage(pgbouncer_database)) as storage:
        for _ in range(3):
            outcomes = await many(storage, 10)
            assert [outcome for outcome in outcomes if not isinstance(outcome, list)] == []
            await asyncio.to_thread(pgbouncer.restart)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_storage_is_used_again_in_another_event_loop(postgres_server):
    storage = PostgresStorage(postgres_server.url(), table="loops")
    for number in (1, 2, 3):

        async def use(number=number):
            async with Sessions(initial=dict, storage=storage) as sessions:
                await sessions.update("key", lambda data: {"count": data.get("count", 0) + 1})
                assert await sessions.get("key") == {"count": number}

        asyncio.run(use())

    async def clean_up():
        await storage.aclose()
        await ask(postgres_server.url(), "DROP TABLE loops, loops_leases")

    asyncio.run(clean_up())
    gc.collect()  # the connections of loops that ended before the storage was closed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
async def test_a_forked_child_has_connections_of_its_own(postgres_database):
    async with aclosing(PostgresStorage(postgres_database)) as storage:
        await storage.put([Put("key", b"parent", ANY)])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.events._set_running_loop(None)
                loop = asyncio.new_event_loop()
                value = loop.run_until_complete(value_of(storage, "key"))
                loop.run_until_complete(storage.put([Put("key", b"child", ANY)]))
                status = 0 if value == b"parent" else 2
            finally:
                os._exit(status)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await value_of(storage, "key") == b"child"
        assert await storage.put([Put("key", b"parent again", ANY)]) == [True]
