"""A primary, its replica and their Sentinels: failovers, and waiting for the replica."""

import asyncio
import os
import signal
from contextlib import contextmanager

import pytest
from redis.asyncio.sentinel import Sentinel
from servers.redis_sentinel import redis_sentinel

from gramkeep import StorageUnavailable
from gramkeep.storage import ANY, Lease, Put
from gramkeep.storages.redis import RedisStorage

from .counting import Counter

__all__ = ["redis_sentinel"]

KEYS = [f"key {n}" for n in range(20)]
CONFIRMED = "wait_replicas=1&wait_timeout=15&timeout=20"  # where a replica that runs must confirm


@pytest.fixture
async def sentinel(redis_sentinel):
    redis_sentinel.wait_for_replica()
    _, confirming = redis_sentinel.primary.ask_in_turn(["FLUSHALL"], ["WAIT", 1, 15_000])
    assert confirming == 1
    return redis_sentinel


@contextmanager
def frozen(server):
    """Keep a server from running, which doesn't end its connections."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


async def is_written_to(server):
    """Wait until what a server has changes."""
    value = server.ask("GET", KEYS[0])
    async with asyncio.timeout(20):
        while server.ask("GET", KEYS[0]) == value:
            await asyncio.sleep(0.02)


async def test_a_primary_that_dies_is_followed_and_no_confirmed_change_is_lost(sentinel):
    storage = RedisStorage.from_url(f"{sentinel.url}?{CONFIRMED}")
    async with Counter(storage, KEYS) as counter:
        await counter.progress()
        died = sentinel.primary
        await asyncio.to_thread(died.kill)
        await asyncio.to_thread(sentinel.wait_for_other_primary, died)
        await asyncio.to_thread(died.start)  # and is the replica from now on
        await asyncio.to_thread(sentinel.wait_for_replica)
        await counter.progress()
    assert counter.unknown > 0
    assert await counter.lost() == 0
    await storage.aclose()


async def test_a_primary_that_was_replaced_and_does_not_know_is_not_written_to_for_long(sentinel):
    storage = RedisStorage.from_url(sentinel.url)
    before = sentinel.primary
    with sentinel.replaced_primaries_left_alone():
        async with Counter(storage, KEYS) as counter:
            await counter.progress()
            await asyncio.to_thread(sentinel.fail_over)
            await is_written_to(sentinel.primary)
            stopped = before.ask("GET", KEYS[0])
            await asyncio.sleep(0.2)
            assert before.ask("GET", KEYS[0]) == stopped
            assert before.info("replication")["role"] == "master"
    # What the old primary alone had is gone. No update was built on it at the new one.
    assert counter.refused <= len(KEYS)
    assert counter.unknown == 0
    await asyncio.to_thread(sentinel.wait_for_replica)
    await storage.aclose()


async def test_a_client_of_the_users_own_follows_the_sentinels_too(sentinel):
    nodes = [("127.0.0.1", node.port) for node in sentinel.sentinels]
    sentinels = Sentinel(nodes)
    async with sentinels.master_for(sentinel.service) as client:
        storage = RedisStorage(client)
        async with Counter(storage, KEYS) as counter:
            await counter.progress()
            died = sentinel.primary
            await asyncio.to_thread(died.kill)
            await asyncio.to_thread(sentinel.wait_for_other_primary, died)
            await counter.progress()
        await storage.aclose()
    for each in sentinels.sentinels:
        await each.aclose()
    await asyncio.to_thread(died.start)
    await asyncio.to_thread(sentinel.wait_for_replica)


async def test_a_change_waits_for_the_replica_and_nothing_else_does(sentinel):
    storage = RedisStorage.from_url(f"{sentinel.url}?{CONFIRMED}")
    assert await storage.put([Put("key", b"1", ANY)]) == [True]
    lease = Lease("one", 30.0)
    with frozen(sentinel.replica):
        writing = asyncio.create_task(storage.put([Put("key", b"2", b"1")], lease))
        claiming = asyncio.create_task(storage.claim(["key"], lease))
        done, _ = await asyncio.wait({writing, claiming}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {claiming}
        assert (await claiming)[0].value == b"2"
    assert await writing == [True]
    await storage.aclose()


async def test_a_change_that_the_replica_does_not_confirm_is_told(sentinel):
    patient = RedisStorage.from_url(f"{sentinel.url}?{CONFIRMED}")
    impatient = RedisStorage.from_url(f"{sentinel.url}?wait_replicas=1&wait_timeout=0.2")
    assert await patient.put([Put("key", b"1", ANY)]) == [True]
    with frozen(sentinel.replica):
        with pytest.raises(StorageUnavailable, match="by 0 replicas instead of 1 in time"):
            await impatient.put([Put("key", b"2", b"1")], Lease("one", 30.0))
        # What changed nothing, or was refused, has nothing to wait for.
        assert await impatient.put([Put("key", b"3", b"1")]) == [False]
    assert await patient.put([Put("key", b"3", b"2")]) == [True]
    await patient.aclose()
    await impatient.aclose()


async def test_scripts_that_the_primary_forgot_are_sent_again_and_waited_for(sentinel):
    storage = RedisStorage.from_url(f"{sentinel.url}?{CONFIRMED}")
    for expected in (ANY, b"1"):
        sentinel.primary.ask("SCRIPT", "FLUSH")
        puts = (storage.put([Put(f"key {n}", b"1", expected)]) for n in range(20))
        assert await asyncio.gather(*puts) == [[True]] * 20
    await storage.aclose()


async def test_sentinels_that_do_not_answer_are_passed_over(sentinel):
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in sentinel.sentinels)
    storage = RedisStorage.from_url(f"redis+sentinel://127.0.0.1:1,{hosts}/{sentinel.service}")
    with frozen(sentinel.sentinels[0]):
        assert await storage.put([Put("key", b"1", ANY)]) == [True]
    await storage.aclose()


async def test_a_service_that_no_sentinel_knows_is_told(sentinel):
    url = sentinel.url.replace(f"/{sentinel.service}/", "/unknown/")
    storage = RedisStorage.from_url(url)
    with pytest.raises(StorageUnavailable, match="No master found for 'unknown'"):
        await storage.get(["key"])
    await storage.aclose()
