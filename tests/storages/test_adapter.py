"""Storages over users' own adapters keep the storage contract."""

import pytest
from adapters.kinds import Async, Listing

from gramkeep.enhance import enhance_storage
from gramkeep.storages.adapter import AdapterStorage
from gramkeep.storages.memory import MemorySessionStorage
from gramkeep.testing.conformance import StorageConformance


class OverAdapter(StorageConformance):
    @pytest.fixture
    def storage(self):
        return AdapterStorage(self.adapter())

    def reopen(self, storage):
        return AdapterStorage(storage.adapter)


class TestOverASyncAdapter(OverAdapter):
    def adapter(self):
        return Listing()


class TestOverAnAsyncAdapter(OverAdapter):
    def adapter(self):
        return Async()


class TestOverAnEnhancedAdapter(OverAdapter):
    def adapter(self):
        return enhance_storage(storage=Listing())


class TestOverAnEnhancedStorage(OverAdapter):
    def adapter(self):
        return enhance_storage(storage=MemorySessionStorage())
