"""What MongoStorage does when the server is away, slow, or asks for more than an address."""

import asyncio
import gc
import os
import re
import signal
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from pymongo import AsyncMongoClient, MongoClient
from servers.mongodb import running_server
from servers.process import free_port

from gramkeep import ConfigurationError, Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Lease, Put
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.mongodb import MongoStorage
from gramkeep.storages.mongodb.turns import AT_ONCE

pytest_plugins = ["servers.mongodb_fixtures"]

ME = Lease("me", 60)

may_leave_sockets = pytest.mark.filterwarnings(  # see `running_server`
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


async def value_of(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


def connections_to(port):
    """How many connections of this process to a port are open."""
    links = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            links.add(str(path.readlink()))
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(
        f"socket:[{row[9]}]" in links and int(row[2].rpartition(":")[2], 16) == port for row in rows
    )


# URLs


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mongodb://host/bot", "mongodb://host/bot?collection=gramkeep_sessions"),
        ("mongodb://host:1/bot?collection=a+b", "mongodb://host:1/bot?collection=a%20b"),
        (
            "mongodb://ada:s%40cret@a:1,b:2/bot?replicaSet=rs&w=1&layout=grammy",
            "mongodb://ada:***@a:1,b:2/bot?collection=gramkeep_sessions",
        ),
        (
            "mongodb+srv://ada:secret@cluster.example/bot?collection=c",
            "mongodb+srv://ada:***@cluster.example/bot?collection=c",
        ),
    ],
)
async def test_a_url_names_hosts_database_and_collection(url, name):
    storage = storage_from_url(url)
    assert isinstance(storage, MongoStorage)
    assert storage.name == name
    await storage.aclose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mongodb://host", "needs a database"),
        ("mongodb://host/?collection=x", "needs a database"),
        ("mongodb:///bot", "can't be read"),
        ("mongodb://host/bot?layout=grammi", "layout='grammi' must be 'gramkeep' or 'grammy'"),
        ("mongodb://host/bot?colection=x", "colection"),
        ("mongodb://host/bot?timeoutMS=soon", "timeoutMS"),
        ("mongodb://host:port/bot", "can't be read"),
    ],
)
def test_a_url_that_can_not_be_read_is_refused_at_once(url, said):
    with pytest.raises(ConfigurationError, match=said):
        storage_from_url(url)


@pytest.mark.parametrize(
    "password", ["xyzzy@plugh:frotz", "xyzzy/plugh", "xyzzy%plugh", "xyzzy:plugh", "xyzzy?plugh"]
)
def test_a_password_that_was_not_encoded_is_not_told(password):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url(f"mongodb://ada:{password}@host/bot")
    told = str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not re.search("xyzzy|plugh|frotz", told)


@pytest.mark.parametrize("place", [None, 5, MongoClient("mongodb://host/bot", connect=False)])
def test_a_place_of_another_kind_is_refused(place):
    with pytest.raises(ConfigurationError, match="takes a URL, an AsyncMongoClient or Async"):
        MongoStorage(place)
    if isinstance(place, MongoClient):
        place.close()


async def test_a_collection_can_not_be_named_twice(mongodb_database):
    async with AsyncMongoClient(mongodb_database) as client:
        collection = client.get_default_database()["x"]
        for options in ({"database": "a"}, {"collection": "a"}):
            with pytest.raises(ConfigurationError, match="says its name"):
                MongoStorage(collection, **options)


async def test_a_client_that_names_no_database_needs_to_be_told(mongodb):
    async with AsyncMongoClient(mongodb.url()) as client:
        with pytest.raises(ConfigurationError, match="needs a database"):
            MongoStorage(client)
        assert MongoStorage(client, database="bot").name.startswith("mongodb:///bot?")


# A server that isn't there


async def test_many_calls_hear_of_a_missing_server_as_soon_as_one_does():
    """No more than some commands are under way; what the others wait is a part of their time."""
    storage = MongoStorage(f"mongodb://127.0.0.1:{free_port()}/bot?timeoutMS=700")
    began = time.monotonic()
    calls = (storage.get([str(number)]) for number in range(AT_ONCE * 10))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - began < 6  # and not ten times as long as one
    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    await storage.aclose()


async def test_a_server_that_is_not_there_is_an_error_in_good_time():
    storage = MongoStorage(f"mongodb://ada:secret@127.0.0.1:{free_port()}/bot?timeoutMS=700")
    calls = [
        lambda: storage.get(["key"]),
        lambda: storage.claim(["key"], ME),
        lambda: storage.put([Put("key", b"1", ANY)]),
        lambda: storage.put([Put("key", DELETE, ANY)], ME),
        lambda: anext(storage.scan()),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match="Connect") as caught:
            await call()
        assert time.monotonic() - began < 6
        assert caught.value.storage == storage.name
        assert "secret" not in str(caught.value)
        assert "Topology" not in str(caught.value)
    await storage.aclose()


async def test_the_handler_of_a_bot_does_not_run_without_its_session():
    storage = MongoStorage(f"mongodb://127.0.0.1:{free_port()}/bot?timeoutMS=200")
    async with Sessions(initial=dict, storage=storage) as sessions:
        with pytest.raises(StorageUnavailable):
            async with sessions.open("42"):
                pytest.fail("a session was made up")
    await storage.aclose()


async def answered(call):
    """Ask until the storage is there."""
    while True:
        with suppress(StorageUnavailable):
            return await call()


@may_leave_sockets
async def test_storage_recovers_soon_after_the_servers_return(own_mongodb):
    storage = MongoStorage(own_mongodb.url("bot") + "?timeoutMS=2500")
    await answered(lambda: storage.put([Put(f"key {n}", b"1", ANY) for n in range(20)]))
    open_before = connections_to(own_mongodb.port)
    for _ in range(2):
        own_mongodb.kill()
        with pytest.raises(StorageUnavailable):
            await storage.put([Put("key 0", b"2", b"1")])
        own_mongodb.start()
        async with asyncio.timeout(8):  # of ten that the driver lets pass between two looks
            records = await answered(lambda: storage.get([f"key {n}" for n in range(20)]))
        assert [record.value for record in records] == [b"1"] * 20
        await answered(lambda: storage.claim([f"key {n}" for n in range(20)], ME))
        puts = [Put(f"key {n}", KEEP, ANY) for n in range(20)]
        assert await answered(lambda puts=puts: storage.put(puts, ME)) == [True] * 20
        assert connections_to(own_mongodb.port) <= max(open_before, 22)  # 20, and 2 that watch
    await storage.aclose()
    assert connections_to(own_mongodb.port) == 0


@may_leave_sockets
async def test_connections_that_a_restart_cut_fail_no_call(own_mongodb):
    storage = MongoStorage(own_mongodb.url("bot"))
    await storage.put([Put(f"key {n}", b"1", ANY) for n in range(20)])
    await asyncio.to_thread(own_mongodb.restart)
    answers = await storage.put([Put(f"key {n}", b"2", b"1") for n in range(20)])
    assert answers == [True] * 20
    await storage.aclose()


@may_leave_sockets
async def test_updates_wait_for_a_server_that_comes_back_soon(own_mongodb):
    storage = MongoStorage(own_mongodb.url("bot") + "?timeoutMS=20000")
    await storage.put([Put("key", b"1", ANY)])
    own_mongodb.kill()
    call = asyncio.create_task(storage.claim(["key"], ME))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(own_mongodb.start)
    (record,) = await call
    assert record.value == b"1"
    await storage.aclose()


@may_leave_sockets
async def test_no_count_that_was_told_is_lost_by_a_kill(own_mongodb):
    # This server doesn't remember what it has done, to answer a write that the driver sends again.
    storage = MongoStorage(own_mongodb.url("bot") + "?timeoutMS=5000&retryWrites=false")
    sessions = Sessions(initial=dict, storage=storage)
    told = dict.fromkeys(map(str, range(12)), 0)  # enough to share commands
    over = False

    async def count(key):
        while not over:
            try:
                async with sessions.open(key) as session:
                    session.data["count"] = session.data.get("count", 0) + 1
                told[key] += 1
            except StorageUnavailable:
                told[key] = await settled_count(key)

    async def settled_count(key):
        while True:
            try:
                stored = await sessions.get(key)
            except StorageUnavailable:
                await asyncio.sleep(0.05)
            else:
                count = 0 if stored is None else stored["count"]
                assert count in {told[key], told[key] + 1}
                return count

    tasks = [asyncio.create_task(count(key)) for key in told]
    for _ in range(2):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_mongodb.restart)
    before = dict(told)
    async with asyncio.timeout(20):
        while any(told[key] == before[key] for key in told):
            await asyncio.sleep(0.02)
    over = True
    await asyncio.gather(*tasks)
    for key, number in told.items():
        assert (await sessions.get(key))["count"] == number > 0
    await storage.aclose()


@may_leave_sockets
@pytest.mark.parametrize("keys", [["key"], ["key", "other"]], ids=["alone", "together"])
async def test_a_write_that_may_have_been_done_is_an_error_that_says_so(own_mongodb, keys):
    storage = MongoStorage(own_mongodb.url("bot") + "?timeoutMS=2500")
    await answered(lambda: storage.put([Put(key, b"1", ANY) for key in keys]))
    os.kill(own_mongodb.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StorageUnavailable, match="whether it was written is not known"):
            await storage.put([Put(key, b"2", b"1") for key in keys])
    finally:
        os.kill(own_mongodb.pid, signal.SIGCONT)
    for key in keys:
        assert await answered(partial(value_of, storage, key)) in {b"1", b"2"}
    await storage.aclose()


async def test_a_cancelled_call_ends_when_it_is_settled_and_keeps_its_connection(mongodb_database):
    storage = MongoStorage(mongodb_database + "?maxPoolSize=1")
    await storage.put([Put("key", b"1", ANY)])
    port = int(mongodb_database.rpartition("/")[0].rpartition(":")[2])
    before = connections_to(port)
    for round_ in range(30):
        calls = (
            storage.get(["key"]),
            storage.claim(["key"], ME),
            storage.put([Put("key", KEEP, ANY)], ME),
        )
        for call in calls:
            task = asyncio.create_task(call)
            for _ in range(round_):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await value_of(storage, "key") == b"1"
    assert connections_to(port) <= max(before, 3)  # one, and 2 that watch
    await storage.aclose()


# Security


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(mongodb_patience):
    with running_server() as server, MongoClient(server.url()) as admin:
        admin.admin.command("createUser", "ada", pwd="right one", roles=["root"])
        server.stop()
        server.options("--auth")
        server.start()
        right = MongoStorage(server.url("bot?authSource=admin", user="ada:right%20one"))
        assert await right.put([Put("key", b"1", ABSENT)]) == [True]
        await right.aclose()
        wrong = MongoStorage(server.url("bot?authSource=admin", user="ada:wr0ng"))
        with pytest.raises(StorageUnavailable, match=r"(?i)authentication failed") as caught:
            await wrong.get(["key"])
        assert "wr0ng" not in str(caught.value)
        await wrong.aclose()
        nobody = MongoStorage(server.url("bot"))
        with pytest.raises(StorageUnavailable, match=r"(?i)authentication"):
            await nobody.get(["key"])
        await nobody.aclose()


async def test_tls_checks_who_the_server_is(tmp_path, mongodb_patience):
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    options = (f"--tls-cert-file={tmp_path}/server.pem", f"--tls-key-file={tmp_path}/server.key")
    with running_server(*options) as server:
        url = server.url("bot") + "?tls=true"
        trusting = MongoStorage(f"{url}&tlsCAFile={quote(str(tmp_path / 'ca.pem'))}")
        assert await trusting.put([Put("key", b"1", ABSENT)]) == [True]
        await trusting.aclose()
        for refusing in (f"{url}&tlsCAFile={quote(str(tmp_path / 'stranger.pem'))}", url):
            storage = MongoStorage(f"{refusing}&timeoutMS=2000")
            with pytest.raises(StorageUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await storage.get(["key"])
            await storage.aclose()


# Event loops and processes


def test_a_new_event_loop_gets_a_client_of_its_own(mongodb_database):
    storage = MongoStorage(mongodb_database)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the first loop's client wasn't closed
        for count in (b"1", b"2"):
            asyncio.run(storage.put([Put("key", count, ANY)]))
            assert asyncio.run(value_of(storage, "key")) == count
        asyncio.run(storage.aclose())
        gc.collect()


async def test_a_forked_child_gets_a_client_of_its_own(mongodb_database):
    storage = MongoStorage(mongodb_database)
    await storage.put([Put("key", b"parent", ANY)])
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(await_in_child(storage))
        finally:
            os._exit(99)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await value_of(storage, "key") == b"child"
    await storage.aclose()


def await_in_child(storage):
    asyncio._set_running_loop(None)

    async def write():
        assert await value_of(storage, "key") == b"parent"
        assert await storage.put([Put("key", b"child", b"parent")]) == [True]
        await storage.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.new_event_loop().run_until_complete(asyncio.wait_for(write(), 10))
    return 0
