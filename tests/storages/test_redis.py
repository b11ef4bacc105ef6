"""RedisStorage keeps the storage contract: on Redis, Valkey, with Sentinels and in a Cluster."""

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel
from servers.redis import redis_server, redis_url, valkey_server
from servers.redis_cluster import redis_cluster
from servers.redis_sentinel import redis_sentinel

from gramkeep.storages.redis import RedisStorage
from gramkeep.testing.conformance import ClientConformance, LeaseConformance, StorageConformance

__all__ = ["redis_cluster", "redis_sentinel", "redis_server", "redis_url", "valkey_server"]


class OverURL(StorageConformance, LeaseConformance):
    """What the URL of a server leads to. Its databases are emptied before each test."""

    @pytest.fixture
    async def storage(self, url):
        self.url = url
        storage = RedisStorage.from_url(url)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return RedisStorage.from_url(self.url)


async def emptied(url):
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


class TestRedis(OverURL):
    @pytest.fixture
    async def url(self, redis_url):
        return await emptied(redis_url)


class TestValkeyWithRESP3(OverURL):
    @pytest.fixture
    async def url(self, valkey_server):
        url = (await emptied(valkey_server.url)).replace("redis://", "valkey://")
        return f"{url}?protocol=3"


class TestSentinelWithReplicasToWaitFor(OverURL):
    @pytest.fixture
    async def url(self, redis_sentinel):
        redis_sentinel.primary.ask("FLUSHALL")
        return f"{redis_sentinel.url}?wait_replicas=1"


class TestCluster(OverURL):
    @pytest.fixture
    async def url(self, redis_cluster):
        redis_cluster.flush()
        return redis_cluster.url


class OverClient(ClientConformance):
    def storage_over(self, client):
        return RedisStorage(client)

    async def is_open(self, client):
        return await client.ping()


class TestClient(OverClient):
    @pytest.fixture
    async def client(self, redis_url):
        async with Redis.from_url(await emptied(redis_url), max_connections=1) as client:
            yield client


class TestClientThatDecodes(OverClient):
    @pytest.fixture
    async def client(self, redis_url):
        async with Redis.from_url(await emptied(redis_url), decode_responses=True) as client:
            yield client


class TestClientOfSentinel(OverClient):
    @pytest.fixture
    async def client(self, redis_sentinel):
        redis_sentinel.primary.ask("FLUSHALL")
        sentinel = Sentinel([("127.0.0.1", node.port) for node in redis_sentinel.sentinels])
        async with sentinel.master_for(redis_sentinel.service) as client:
            yield client
        for each in sentinel.sentinels:
            await each.aclose()


class TestClientOfCluster(OverClient):
    @pytest.fixture
    async def client(self, redis_cluster):
        redis_cluster.flush()
        nodes = [ClusterNode("127.0.0.1", node.port) for node in redis_cluster.nodes]
        async with RedisCluster(startup_nodes=nodes) as client:
            yield client
