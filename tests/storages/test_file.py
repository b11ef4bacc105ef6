"""FileStorage keeps the storage contract."""

import pytest

from gramkeep.storages.file import FileStorage
from gramkeep.testing.conformance import StorageConformance


class TestFileStorage(StorageConformance):
    @pytest.fixture
    async def storage(self, tmp_path):
        self.path = tmp_path / "sessions"
        storage = FileStorage(self.path)
        yield storage
        await storage.aclose()

    def reopen(self, storage):
        return FileStorage(self.path)
