import pytest

from gramkeep.storages.memory import MemorySessionStorage
from gramkeep.testing.conformance import StorageConformance


class TestMemorySessionStorage(StorageConformance):
    reopens = False

    @pytest.fixture
    def storage(self):
        return MemorySessionStorage()
