"""PostgresStorage keeps the storage contract, directly and through PgBouncer."""

import asyncpg
import pytest

from gramkeep.storages.postgres import PostgresStorage
from gramkeep.testing.conformance import ClientConformance, LeaseConformance, StorageConformance

pytest_plugins = ["servers.postgres_fixtures"]


class TestPostgresStorage(StorageConformance, LeaseConformance):
    @pytest.fixture
    async def storage(self, postgres_database):
        self.url = postgres_database
        storage = PostgresStorage(self.url)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return PostgresStorage(self.url)


class TestPostgresStorageBehindPgBouncer(StorageConformance, LeaseConformance):
    @pytest.fixture
    async def storage(self, pgbouncer_database):
        self.url = pgbouncer_database
        storage = PostgresStorage(self.url)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return PostgresStorage(self.url)


class OverAPool(ClientConformance):
    def storage_over(self, client):
        return PostgresStorage(client)

    async def is_open(self, client):
        return await client.fetchval("SELECT 1", timeout=5) == 1


class TestAPoolOfTheUsers(OverAPool):
    @pytest.fixture
    async def client(self, postgres_database):
        async with asyncpg.create_pool(postgres_database, min_size=0, max_size=3) as pool:
            yield pool


class TestAPoolOfTheUsersBehindPgBouncer(OverAPool):
    @pytest.fixture
    async def client(self, pgbouncer_database):
        async with asyncpg.create_pool(
            pgbouncer_database, min_size=0, max_size=3, statement_cache_size=0
        ) as pool:
            yield pool
