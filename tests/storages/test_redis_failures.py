"""What can go wrong between a bot and its Redis, and what comes of it."""

import asyncio
import gc
import os
import re
import signal
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis
from servers.process import free_port
from servers.redis import RedisServer, redis_server, redis_url

from gramkeep import StorageUnavailable
from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, Lease, Put
from gramkeep.storages.redis import RedisStorage

__all__ = ["redis_server", "redis_url"]

LEASE = Lease("one", 30.0)
PAGE = (Path(__file__).parents[2] / "docs/storages/redis.md").read_text("utf-8")


@pytest.fixture(scope="module")
def mortal():
    """A server that tests may kill."""
    server = RedisServer()
    yield server.start()
    server.remove()


@pytest.fixture
def server(mortal):
    if not mortal.is_running:
        mortal.start()
    mortal.ask("FLUSHALL")
    return mortal


@pytest.fixture
async def storage(server):
    storage = RedisStorage.from_url(server.url)
    yield storage
    await storage.aclose()


@pytest.fixture
async def impatient(server):
    storage = RedisStorage.from_url(f"{server.url}?timeout=3&connect_timeout=2")
    yield storage
    await storage.aclose()


@pytest.fixture
async def shared(redis_url):
    """A storage on the server that other tests use as well, which nobody kills."""
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    storage = RedisStorage.from_url(redis_url)
    yield storage
    await storage.aclose()


async def unavailable(call):
    with pytest.raises(StorageUnavailable) as raised:
        await call
    return raised.value


async def test_every_call_says_that_there_is_no_server():
    storage = RedisStorage.from_url(f"redis://bot:secret@127.0.0.1:{free_port()}/0")
    calls = [
        storage.get(["key"]),
        storage.claim(["key"], LEASE),
        storage.put([Put("key", b"1", ANY)]),
        anext(storage.scan()),
        storage.read("key"),
        storage.has("key"),
    ]
    for call in calls:
        error = await unavailable(call)
        assert error.storage == storage.name
        assert "secret" not in f"{error} {error.__cause__!r} {error.__cause__.__cause__!r}"
    await storage.aclose()


async def test_a_closed_storage_says_so(shared):
    await shared.put([Put("key", b"1", ANY)])
    await shared.aclose()
    for call in (shared.get(["key"]), shared.put([Put("key", b"2", ANY)]), anext(shared.scan())):
        assert (await unavailable(call)).reason == "it was closed"


async def test_a_server_that_was_killed_and_started_again_is_used_at_once(storage, server):
    await storage.put([Put("key", b"1", ANY)])
    await storage.claim(["held"], LEASE)
    for _ in range(3):
        server.kill()
        await unavailable(storage.get(["key"]))
        server.start()
        (record,) = await storage.claim(["key"], LEASE)
        assert await storage.put([Put("key", record.value + b"1", record.token)], LEASE) == [True]
    assert (await storage.get(["key"]))[0].value == b"1111"


async def test_a_restart_between_two_calls_goes_unnoticed(storage, server):
    await storage.put([Put("key", b"1", ANY)])
    server.restart()
    assert await storage.put([Put("key", b"2", b"1")]) == [True]
    server.kill()
    server.start()
    assert await storage.claim(["key"], LEASE) != [BUSY]


async def test_what_was_answered_outlives_sigkill_under_load(storage, server):
    told = dict.fromkeys((f"counter {n}" for n in range(20)), 0)
    unknown = dict.fromkeys(told, 0)

    over = False

    async def count(key):
        while not over:
            try:
                (record,) = await storage.claim([key], LEASE)
            except StorageUnavailable:
                await asyncio.sleep(0.01)
                continue
            count = 0 if record is None else int(record.value)
            assert told[key] <= count <= told[key] + unknown[key]
            expected = ABSENT if record is None else record.token
            try:
                assert await storage.put([Put(key, b"%d" % (count + 1), expected)], LEASE) == [True]
            except StorageUnavailable:
                told[key], unknown[key] = count, 1
            else:
                told[key], unknown[key] = count + 1, 0

    async def some_are_told():
        before = dict(told)
        async with asyncio.timeout(20):
            while any(told[key] < before[key] + 5 for key in told):
                await asyncio.sleep(0.01)

    counting = [asyncio.create_task(count(key)) for key in told]
    for _ in range(3):
        await some_are_told()
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
    await some_are_told()
    over = True
    await asyncio.gather(*counting)
    for key, count in told.items():
        (record,) = await storage.get([key])
        assert count <= int(record.value) <= count + unknown[key]


@pytest.fixture
def frozen(server):
    """Stop the server from running, as a machine without memory would, without ending it."""
    pid = server.process.pid
    yield lambda: os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)


async def test_a_server_that_does_not_answer_is_waited_for_and_no_longer(impatient, frozen):
    await impatient.put([Put("key", b"1", ANY)])
    frozen()
    began = time.monotonic()
    error = await unavailable(impatient.put([Put("key", b"2", ANY)]))
    assert 2.9 < time.monotonic() - began < 9
    assert "within 3 s" in error.reason
    assert "whether a change was made is not known" in error.reason
    began = time.monotonic()
    error = await unavailable(impatient.put([Put("key", b"2", ANY)]))
    assert 1.9 < time.monotonic() - began < 9
    assert "within 2 s" in error.reason
    assert "not known" not in error.reason


async def test_a_change_that_may_have_been_made_is_not_made_again(impatient, server, frozen):
    await impatient.put([Put("key", b"1", ANY)])
    frozen()
    await unavailable(impatient.put([Put("key", b"2", b"1")]))
    os.kill(server.process.pid, signal.SIGCONT)
    # Redis carries out what it had received, though nobody waits for the answer any more.
    assert (await impatient.get(["key"]))[0].value == b"2"


class Cut:
    """Stands before a server, and ends the next connection that asks something, when told to."""

    def __init__(self, port):
        self.port = port
        self.before_asking = self.before_answering = False

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.storage = RedisStorage.from_url(f"redis://127.0.0.1:{port}/0")
        return self

    async def __aexit__(self, *_):
        await self.storage.aclose()
        self.server.close()

    async def connected(self, reader, writer):
        upstream, asking = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while data := await reader.read(1 << 16):
                if self.before_asking:
                    self.before_asking = False
                    return
                asking.write(data)
                answer = await upstream.read(1 << 16)
                if self.before_answering:
                    self.before_answering = False
                    return
                writer.write(answer)
        finally:
            asking.close()
            writer.close()


async def test_a_read_or_a_claim_whose_connection_ended_is_made_again(server):
    async with Cut(server.port) as cut:
        await cut.storage.put([Put("key", b"1", ANY)])
        for moment in ("before_asking", "before_answering"):
            setattr(cut, moment, True)
            (record,) = await cut.storage.get(["key"])
            assert record.value == b"1"
            setattr(cut, moment, True)
            (record,) = await cut.storage.claim(["key"], LEASE)
            assert record.value == b"1"
            assert await cut.storage.claim(["key"], Lease("other", 30.0)) == [BUSY]


async def test_a_change_whose_connection_ended_is_not_made_again(server):
    async with Cut(server.port) as cut:
        await cut.storage.put([Put("key", b"1", ANY)])
        for moment, stored in (("before_asking", b"1"), ("before_answering", b"2")):
            setattr(cut, moment, True)
            error = await unavailable(cut.storage.put([Put("key", b"2", b"1")], LEASE))
            assert "whether a change was made is not known" in error.reason
            assert (await cut.storage.get(["key"]))[0].value == stored
        assert await cut.storage.put([Put("key", b"3", b"2")], LEASE) == [True]


async def test_scripts_that_the_server_forgot_are_sent_again(shared, redis_url):
    async with Redis.from_url(redis_url) as client:
        for _ in range(2):
            await client.script_flush()
            claims = (shared.claim([f"key {n}"], LEASE) for n in range(10))
            assert await asyncio.gather(*claims) == [[None]] * 10
            puts = (shared.put([Put(f"key {n}", b"1", ABSENT)], LEASE) for n in range(10))
            assert await asyncio.gather(*puts) == [[True]] * 10
            gets = (shared.get([f"key {n}"]) for n in range(10))
            assert {answer[0].value for answer in await asyncio.gather(*gets)} == {b"1"}
            await client.flushdb()


async def test_a_server_without_memory_refuses_and_changes_nothing(storage, server):
    await storage.put([Put("key", b"1", ANY)])
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        error = await unavailable(storage.put([Put("key", b"2", b"1")]))
        assert "OOM" in error.reason
        await unavailable(storage.claim(["key"], LEASE))
        assert (await storage.get(["key"]))[0].value == b"1"
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")
    assert await storage.put([Put("key", b"2", b"1")]) == [True]


async def test_a_wrong_password_is_told_without_it(server):
    server.ask("ACL", "SETUSER", "bot", "on", ">right", "~*", "+@all")
    port = server.port
    storage = RedisStorage.from_url(f"redis://bot:secret@127.0.0.1:{port}/0")
    error = await unavailable(storage.get(["key"]))
    assert "invalid username-password pair" in error.reason
    assert "secret" not in f"{error} {error.__cause__!r}"
    await storage.aclose()
    storage = RedisStorage.from_url(f"redis://bot:right@127.0.0.1:{port}/0?protocol=3")
    assert await storage.get(["key"]) == [None]
    await storage.aclose()


async def test_what_a_user_may_not_do_is_told(server):
    server.ask("ACL", "SETUSER", "narrow", "on", ">narrow", "~bot:*", "+@all")
    storage = RedisStorage.from_url(f"redis://narrow:narrow@127.0.0.1:{server.port}/0")
    assert await storage.get(["bot:1"]) == [None]
    assert "NOPERM" in (await unavailable(storage.get(["other"]))).reason
    assert "NOPERM" in (await unavailable(storage.claim(["bot:1"], LEASE))).reason
    await storage.aclose()


async def test_the_rights_that_the_documentation_names_are_enough(server):
    rights = re.search(r"`(~bot:\* [^`]+)`, and the commands `([^`]+)`", PAGE)
    server.ask(
        "ACL", "SETUSER", "able", "reset", "on", ">able", *f"{rights[1]} {rights[2]}".split()
    )
    storage = RedisStorage.from_url(f"redis://able:able@127.0.0.1:{server.port}/0")
    assert await storage.claim(["bot:1"], LEASE) == [None]
    assert await storage.claim(["bot:1"], Lease("other", 1.0)) == [BUSY]
    assert await storage.put([Put("bot:1", b"1", ABSENT, 60)], LEASE) == [True]
    assert await storage.put([Put("bot:1", KEEP, b"1", 90), Put("bot:2", b"", ANY)]) == [True] * 2
    assert (await storage.get(["bot:1"]))[0].value == b"1"
    assert await storage.put([Put("bot:2", DELETE, ANY)]) == [True]
    assert [key async for key in storage.scan("bot:")] == ["bot:1"]
    await storage.aclose()


async def test_a_scan_that_loses_its_server_does_not_go_on_with_another(storage, server):
    puts = [Put(f"key {n}", b"1", ANY) for n in range(3000)]
    await storage.put(puts)
    scanning = storage.scan()
    await anext(scanning)
    server.restart()
    with pytest.raises(StorageUnavailable):
        [key async for key in scanning]
    assert len([key async for key in storage.scan()]) == len(puts)


async def test_cancelled_calls_cost_no_connection_and_mix_up_no_answers(shared, redis_url):
    async with Redis.from_url(redis_url) as client:
        await shared.put([Put(f"key {n}", b"%d" % n, ANY) for n in range(50)])
        before = await client.info("stats")

        async def read(n):
            (record,) = await shared.get([f"key {n}"])
            assert record.value == b"%d" % n

        for round_ in range(60):
            reading = [asyncio.create_task(read(n)) for n in range(50)]
            for _ in range(round_ % 12):
                await asyncio.sleep(0)
            for task in reading[round_ % 3 :: 3]:
                task.cancel()
            for answer in await asyncio.gather(*reading, return_exceptions=True):
                assert answer is None or isinstance(answer, asyncio.CancelledError)
        after = await client.info("stats")
    assert after["total_connections_received"] == before["total_connections_received"]


async def test_a_lease_is_given_up_behind_the_claim_that_was_cancelled(shared):
    for steps in range(8):
        claiming = asyncio.create_task(shared.claim(["key"], LEASE))
        for _ in range(steps):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        await shared.put([Put("key", KEEP, ANY)], LEASE)
        other = Lease("other", 30.0)
        assert await shared.claim(["key"], other) == [None]
        await shared.put([Put("key", KEEP, ANY)], other)


async def test_a_change_cancelled_on_its_way_is_done_before_its_caller_goes_on(
    storage, frozen, server
):
    await storage.put([Put("key", b"1", ANY)])
    frozen()
    changing = asyncio.create_task(storage.put([Put("key", b"2", b"1")]))
    await asyncio.sleep(0.05)
    for _ in range(2):
        changing.cancel()
        await asyncio.sleep(0.05)
    assert not changing.done()
    os.kill(server.process.pid, signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert (await storage.get(["key"]))[0].value == b"2"


async def test_a_call_cancelled_before_it_was_sent_is_not_made(storage, frozen, server):
    await storage.put([Put("key", b"1", ANY)])
    frozen()
    others = [asyncio.create_task(storage.get([name])) for name in ("a", "b")]
    await asyncio.sleep(0.05)
    others.append(asyncio.create_task(storage.get(["c"])))
    changing = asyncio.create_task(storage.put([Put("key", b"2", b"1")]))
    await asyncio.sleep(0.05)  # both wait until there are fewer commands under way
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    os.kill(server.process.pid, signal.SIGCONT)
    assert await asyncio.gather(*others) == [[None]] * 3
    assert (await storage.get(["key"]))[0].value == b"1"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # nobody closed it in its loop
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_storage_is_used_in_one_event_loop_after_the_other(redis_url):
    storage = RedisStorage.from_url(redis_url)

    async def use(storage):
        await storage.put([Put("key", b"1", ANY)])
        assert (await storage.get(["key"]))[0].value == b"1"

    for _ in range(3):
        asyncio.run(use(storage))
    asyncio.run(storage.aclose())
    del storage
    gc.collect()  # for Python to complain here, and not in another test
    gc.collect()


async def test_a_forked_child_gets_a_connection_of_its_own(shared):
    await shared.put([Put("key", b"parent", ANY)])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.events._set_running_loop(None)
            asyncio.run(shared.put([Put("child", b"1", b"not this")]))
            asyncio.run(shared.put([Put("child", b"1", ANY)]))
            status = 0
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert status == 0
    assert [r.value for r in await shared.get(["key", "child"])] == [b"parent", b"1"]
