"""A Redis Cluster that changes under load: slots that move, and primaries that die."""

import asyncio

import pytest
from servers.redis_cluster import redis_cluster

from gramkeep import StorageUnavailable
from gramkeep.storage import ANY, BUSY, Lease, Put
from gramkeep.storages.redis import RedisStorage
from gramkeep.storages.redis.keys import lease_key, slot_of

from .counting import Counter

__all__ = ["redis_cluster"]

LEASE = Lease("one", 30.0)


@pytest.fixture
async def cluster(redis_cluster):
    redis_cluster.flush()
    return redis_cluster


@pytest.fixture
async def storage(cluster):
    storage = RedisStorage.from_url(cluster.url)
    yield storage
    await storage.aclose()


async def test_one_call_reaches_all_nodes(storage, cluster):
    keys = [f"key {n}" for n in range(300)]
    assert await storage.put([Put(key, key.encode(), ANY) for key in keys]) == [True] * 300
    assert await storage.claim(keys[::-1], Lease("other", 30.0)) != [BUSY] * 300
    assert [record.value for record in await storage.get(keys)] == [key.encode() for key in keys]
    sizes = [int(node.ask("DBSIZE")) for node in cluster.primaries()]
    assert min(sizes) > 100
    assert sum(sizes) == 600  # the sessions, and their leases
    assert sorted([key async for key in storage.scan()]) == sorted(keys)


async def test_one_node_of_the_url_that_answers_is_enough(cluster):
    hosts = f"127.0.0.1:1,127.0.0.1:{cluster.nodes[4].port}"
    storage = RedisStorage.from_url(f"redis+cluster://{hosts}")
    assert await storage.put([Put(f"key {n}", b"1", ANY) for n in range(20)]) == [True] * 20
    await storage.aclose()


async def test_a_cluster_that_is_not_there_is_told():
    storage = RedisStorage.from_url("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(StorageUnavailable, match="no node of the cluster answers"):
        await storage.get(["key"])
    await storage.aclose()


class Move:
    """A slot on its way from one primary to another."""

    def __init__(self, cluster, slot):
        self.slot = slot
        self.cluster = cluster
        self.source = cluster.owner_of(slot)
        self.target = next(node for node in cluster.primaries() if node is not self.source)

    def begin(self):
        source, target = map(self.cluster.id_of, (self.source, self.target))
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    def take_some(self, count):
        """Move some keys, and tell whether there were any."""
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            to = ("127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *keys)
            self.source.ask("MIGRATE", *to)
        return bool(keys)

    def end(self):
        target = self.cluster.id_of(self.target)
        for node in (self.target, self.source, *self.cluster.primaries()):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", target)


async def test_sessions_are_used_on_while_their_slot_moves(storage, cluster):
    moving, others = [f"{{moving}}:{n}" for n in range(10)], [f"other {n}" for n in range(10)]
    async with Counter(storage, [*moving, *others]) as counter:
        for _ in range(2):  # there and back
            await counter.progress()
            move = Move(cluster, slot_of(b"moving"))
            move.begin()
            await asyncio.sleep(0.1)
            while await asyncio.to_thread(move.take_some, 3):
                await asyncio.sleep(0.02)
            await asyncio.to_thread(move.end)
        await counter.progress()
    assert counter.unknown == counter.refused == 0
    assert await counter.lost() == 0
    values = [int(record.value) for record in await storage.get([*moving, *others])]
    assert values == list(counter.acknowledged.values())


async def test_what_is_already_at_the_new_node_is_found_there(storage, cluster):
    await storage.put([Put("{moving}", b"1", ANY)])
    await storage.claim(["{moving}"], LEASE)
    move = Move(cluster, slot_of(b"moving"))
    move.begin()
    assert [record.value for record in await storage.get(["{moving}"])] == [b"1"]
    while move.take_some(1):
        pass
    # Asked of the old node, which says ASK: the session and its lease are both at the new one.
    assert [record.value for record in await storage.get(["{moving}"])] == [b"1"]
    assert await storage.claim(["{moving}"], Lease("other", 30.0)) == [BUSY]
    assert await storage.put([Put("{moving}", b"2", b"1", hold=True)], LEASE) == [True]
    # One that has no lease there yet has to wait until the slot has moved.
    waiting = asyncio.create_task(storage.claim(["{moving}:new"], LEASE))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    move.end()
    assert await waiting == [None]
    assert move.target.ask("GET", lease_key(b"{moving}").decode()) is not None


async def test_a_manual_failover_goes_unnoticed(storage, cluster):
    async with Counter(storage, [f"key {n}" for n in range(20)]) as counter:
        await counter.progress()
        primary = cluster.primaries()[0]
        cluster.replica_of(primary).ask("CLUSTER", "FAILOVER")
        await counter.progress(20)
    await asyncio.to_thread(cluster.wait_until_healthy)
    assert counter.unknown == counter.refused == 0
    assert await counter.lost() == 0


async def test_no_change_that_replicas_confirmed_is_lost_with_the_primary(cluster):
    storage = RedisStorage.from_url(f"{cluster.url}?wait_replicas=1")
    counter = Counter(storage, [f"key {n}" for n in range(30)])
    async with counter:
        await counter.progress()
        primary = cluster.owner_of(slot_of(b"key 0"))
        replica = cluster.replica_of(primary)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER", "TAKEOVER")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(primary.start)
        await asyncio.to_thread(cluster.wait_until_healthy)
        await counter.progress()
    assert await counter.lost() == 0
    await storage.aclose()


async def test_calls_wait_for_a_replica_that_takes_over(storage, cluster):
    await storage.put([Put("key 0", b"1", ANY)])
    primary = cluster.owner_of(slot_of(b"key 0"))
    replica = cluster.replica_of(primary)
    await asyncio.to_thread(replica.ask, "CLUSTER", "MYID")
    await asyncio.sleep(0.1)
    await asyncio.to_thread(primary.kill)
    await asyncio.sleep(0.1)  # for the connection to end before the call
    reading = asyncio.create_task(storage.get(["key 0"]))
    writing = asyncio.create_task(storage.put([Put("key 0", b"2", ANY)]))
    await asyncio.sleep(0.2)
    assert not reading.done()
    await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER", "TAKEOVER")
    assert (await reading)[0].value in {b"1", b"2"}
    assert await writing == [True]
    await asyncio.to_thread(primary.start)
    await asyncio.to_thread(cluster.wait_until_healthy)
