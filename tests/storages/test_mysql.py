"""MySQLStorage keeps the storage contract, on MariaDB."""

import asyncmy
import pytest
from servers.mariadb import connect_arguments

from gramkeep.storages.mysql import MySQLStorage
from gramkeep.testing.conformance import ClientConformance, LeaseConformance, StorageConformance

pytest_plugins = ["servers.mariadb_fixtures"]


class TestMySQLStorage(StorageConformance, LeaseConformance):
    @pytest.fixture
    async def storage(self, mariadb_database):
        self.url = mariadb_database
        storage = MySQLStorage(self.url)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return MySQLStorage(self.url)


class TestAPoolOfTheUsers(ClientConformance):
    @pytest.fixture
    async def client(self, mariadb_database):
        pool = await asyncmy.create_pool(
            **connect_arguments(mariadb_database), minsize=0, maxsize=3
        )
        yield pool
        pool.close()
        await pool.wait_closed()

    def storage_over(self, client):
        return MySQLStorage(client)

    async def is_open(self, client):
        async with client.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT 1")
            return await cursor.fetchone() == (1,)
