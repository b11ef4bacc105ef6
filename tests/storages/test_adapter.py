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


class TestOverAStorageUsedAsAnAdapter(OverAdapter):
    def adapter(self):
        return MemorySessionStorage()


class TestOverAnEnhancedAdapterUsedAsOneOfItsOwn(OverAdapter):
    """Wrapped, so that the storage sees the seven methods alone."""

    def adapter(self):
        return SevenMethodsOf(enhance_storage(storage=Async()))


class SevenMethodsOf:
    def __init__(self, adapter):
        for name in ("read", "write", "delete", "has"):
            setattr(self, name, getattr(adapter, name))
        for name in ("keys", "values", "entries"):
            setattr(self, f"read_all_{name}", getattr(adapter, f"read_all_{name}"))
