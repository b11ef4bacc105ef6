"""Storages over users' own adapters keep the storage contract."""

from collections import OrderedDict
from enum import IntEnum, StrEnum

import pytest
from adapters.kinds import Async, Listing

from gramkeep import SessionEncodeError
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


class Level(IntEnum):
    HIGH = 1


class Mood(StrEnum):
    GOOD = "good"


@pytest.mark.parametrize(
    "value",
    [Level.HIGH, Mood.GOOD, [Level.HIGH], {"a": [Mood.GOOD]}, {Mood.GOOD: 1}, OrderedDict(a=1)],
)
@pytest.mark.parametrize("make", [MemorySessionStorage, lambda: AdapterStorage(Listing())])
async def test_what_json_would_bring_back_as_its_base_class_is_refused(make, value):
    storage = make()
    with pytest.raises(SessionEncodeError, match="bring it back as something else"):
        await storage.write("a", value)
    assert await storage.read("a") is None


async def test_every_json_value_is_taken():
    storage = MemorySessionStorage()
    for value in ({"a": [1, 1.5, True, "x", {"b": {}}], "c": False}, [], "x", 5, -0.0, None):
        await storage.write("a", value)
        assert await storage.read("a") == value
