"""KeyValueStorage keeps the storage contract over stores of py-key-value, within a process."""

import pytest
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.stores.redis import RedisStore
from redis.asyncio import Redis
from servers.redis import redis_server, redis_url  # noqa: F401 - fixtures

from gramkeep.storages.key_value import KeyValueStorage
from gramkeep.testing.conformance import ClientConformance, StorageConformance


class OverAStore(StorageConformance):
    """What holds in one process: the second storage is another one over the same store."""

    @pytest.fixture
    async def storage(self, store):
        self.store = store
        return KeyValueStorage(store)

    def reopen(self, storage):
        return KeyValueStorage(self.store)


class TestKeyValueStorageOverMemoryStore(OverAStore):
    @pytest.fixture
    def store(self):
        return MemoryStore()


class TestKeyValueStorageOverRedisStore(OverAStore):
    @pytest.fixture
    async def store(self, redis_url):  # noqa: F811
        patience = {"socket_connect_timeout": 60, "socket_timeout": 60}  # on a busy machine too
        async with Redis.from_url(redis_url, decode_responses=True, **patience) as client:
            await client.flushdb()
            yield RedisStore(client=client)


class TestTheStoreOfAUser(ClientConformance):
    @pytest.fixture
    def client(self):
        return MemoryStore()

    def storage_over(self, client):
        return KeyValueStorage(client)

    async def is_open(self, client):
        await client.put("open", {"yes": 1})
        return await client.get("open") == {"yes": 1}
