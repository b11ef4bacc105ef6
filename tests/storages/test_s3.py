"""S3Storage keeps the storage contract."""

import secrets

import pytest
from servers.s3 import s3_server, s3_url  # noqa: F401 - fixtures

from gramkeep.storages.s3 import S3Storage
from gramkeep.testing.conformance import ClientConformance, StorageConformance


class TestS3Storage(StorageConformance):
    @pytest.fixture
    async def storage(self, s3_url):  # noqa: F811
        self.url = s3_url
        storage = S3Storage.from_url(s3_url)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return S3Storage.from_url(self.url)


class TestTheStoreOfAUser(ClientConformance):
    @pytest.fixture
    def client(self, s3_server):  # noqa: F811
        return s3_server.store(prefix=f"test-{secrets.token_hex(4)}")

    def storage_over(self, client):
        return S3Storage(client, "sessions")

    async def is_open(self, client):
        await client.put_async("open", b"yes")
        return bytes(await (await client.get_async("open")).bytes_async()) == b"yes"
