"""MongoStorage keeps the storage contract, in documents of its own layout."""

import pytest
from pymongo import AsyncMongoClient

from gramkeep.storages.mongodb import MongoStorage
from gramkeep.testing.conformance import ClientConformance, LeaseConformance, StorageConformance

pytest_plugins = ["servers.mongodb_fixtures"]


class TestMongoStorage(StorageConformance, LeaseConformance):
    many = 150

    @pytest.fixture
    async def storage(self, mongodb_database, small_pages):
        # The disk would take most of the time, and this server is slow for one.
        self.url = f"{mongodb_database}?journal=false"
        storage = MongoStorage(self.url)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return MongoStorage(self.url)


class TestAClientOfTheUsers(ClientConformance):
    @pytest.fixture
    async def client(self, mongodb_database):
        async with AsyncMongoClient(mongodb_database) as client:
            yield client

    def storage_over(self, client):
        return MongoStorage(client)

    async def is_open(self, client):
        return (await client.admin.command("ping"))["ok"] == 1


class TestACollectionOfTheUsers(ClientConformance):
    @pytest.fixture
    async def client(self, mongodb_database):
        async with AsyncMongoClient(mongodb_database) as client:
            yield client

    def storage_over(self, client):
        return MongoStorage(client.get_default_database()["sessions"])

    async def is_open(self, client):
        return (await client.admin.command("ping"))["ok"] == 1
