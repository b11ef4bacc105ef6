"""SQLiteStorage keeps the storage contract."""

import pytest

from gramkeep.storages.sqlite import SQLiteStorage
from gramkeep.testing.conformance import LeaseConformance, StorageConformance


class TestSQLiteStorage(StorageConformance, LeaseConformance):
    @pytest.fixture
    async def storage(self, tmp_path):
        self.path = tmp_path / "sessions.db"
        storage = SQLiteStorage(self.path)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return SQLiteStorage(self.path)
