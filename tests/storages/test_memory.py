"""MemorySessionStorage keeps the storage contract, and its memory in bounds."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from gramkeep.errors import ConfigurationError
from gramkeep.manager import Sessions
from gramkeep.storage import ANY, KEEP, Put, Record
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.memory import MemorySessionStorage
from gramkeep.testing.conformance import StorageConformance


class TestMemorySessionStorage(StorageConformance):
    reopens = False

    @pytest.fixture
    def storage(self):
        return MemorySessionStorage()


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("gramkeep.storages.memory.time", clock)
    return clock


async def read(storage, key):
    return (await storage.get([key]))[0]


@pytest.mark.parametrize("day", [timedelta(days=1), 86_400, 86_400.0])
async def test_time_to_live_is_the_lifetime_of_what_is_stored_without_one(clock, day):
    storage = MemorySessionStorage(time_to_live=day)
    await storage.put([Put("a", b"1", ANY), Put("b", b"1", ANY, 2 * 86_400)])
    assert (await read(storage, "a")).expires_at == clock.now + 86_400
    assert (await read(storage, "b")).expires_at == clock.now + 2 * 86_400
    clock.now += 86_400
    assert await read(storage, "a") is None
    assert [key async for key in storage.scan()] == ["b"]


async def test_a_value_written_again_lives_for_another_time_to_live(clock):
    storage = MemorySessionStorage(time_to_live=60)
    await storage.put([Put("a", b"1", ANY)])
    clock.now += 59
    await storage.put([Put("a", b"2", ANY)])
    clock.now += 59
    assert (await read(storage, "a")).value == b"2"


async def test_keep_without_a_ttl_does_not_start_the_time_to_live_again(clock):
    storage = MemorySessionStorage(time_to_live=60)
    await storage.put([Put("a", b"1", ANY)])
    clock.now += 59
    await storage.put([Put("a", KEEP, ANY)])
    clock.now += 1
    assert await read(storage, "a") is None


@pytest.mark.parametrize("lifetime", [0, -1, timedelta(0), "60", float("nan")])
def test_a_time_to_live_must_be_above_zero(lifetime):
    with pytest.raises(ConfigurationError, match="time_to_live="):
        MemorySessionStorage(time_to_live=lifetime)


async def test_expired_values_give_their_memory_back_as_others_are_written(clock):
    storage = MemorySessionStorage()
    await storage.put([Put(f"short {n}", b"1", ANY, 60) for n in range(1000)])
    await storage.put([Put("long", b"1", ANY, 600), Put("for ever", b"1", ANY)])
    clock.now += 61
    await storage.put([Put("one more", b"1", ANY)])
    assert set(storage._records) == {"long", "for ever", "one more"}
    assert [key for _, key in storage._expiries] == ["long"]


async def test_a_value_that_outlives_its_first_expiry_is_not_forgotten(clock):
    storage = MemorySessionStorage()
    await storage.put([Put("longer", b"1", ANY, 60), Put("for ever", b"1", ANY, 60)])
    await storage.put([Put("longer", KEEP, ANY, 600), Put("for ever", b"1", ANY)])
    clock.now += 61
    await storage.put([Put("one more", b"1", ANY)])
    assert set(storage._records) == {"longer", "for ever", "one more"}


async def test_writing_few_keys_again_and_again_takes_no_more_memory():
    storage = MemorySessionStorage(time_to_live=3600)
    for n in range(5000):
        await storage.put([Put(f"key {n % 10}", b"%d" % n, ANY)])
    assert len(storage._records) == 10
    assert len(storage._expiries) < 100


async def test_deleted_values_are_forgotten_before_they_would_have_expired():
    storage = MemorySessionStorage(time_to_live=3600)
    sessions = Sessions(initial=dict, storage=storage)
    for n in range(500):
        async with sessions.open(str(n)) as session:
            session.data["n"] = n
        await sessions.delete(str(n))
    assert storage._records == {}
    assert len(storage._expiries) < 100


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)


async def test_what_is_stored_is_bytes_and_no_object_of_a_handler():
    storage = MemorySessionStorage()
    sessions = Sessions(initial=Cart, storage=storage)
    async with sessions.open("42") as session:
        cart = session.data
        cart.items.append("tea")
    stored = storage._records["42"]
    assert stored == Record(b'{"items":["tea"]}', b'{"items":["tea"]}')
    cart.items.append("milk")
    assert storage._records["42"] is stored
    async with sessions.open("42") as session:
        assert session.data == Cart(["tea"])
        assert session.data is not cart


async def test_a_handler_that_fails_changes_nothing():
    sessions = Sessions(initial=Cart, storage=MemorySessionStorage())

    async def fail():
        async with sessions.open("42") as session:
            session.data.items.append("tea")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await sessions.get("42") is None


async def test_two_storages_share_nothing():
    one, other = MemorySessionStorage(), MemorySessionStorage()
    await one.put([Put("a", b"1", ANY)])
    assert await read(other, "a") is None


async def test_what_is_stored_outlives_aclose():
    storage = MemorySessionStorage()
    await storage.put([Put("a", b"1", ANY)])
    await storage.aclose()
    assert (await read(storage, "a")).value == b"1"


def test_its_url_names_it():
    storage = storage_from_url("memory://")
    assert isinstance(storage, MemorySessionStorage)
    assert storage.name == "memory://"
    assert storage_from_url("memory://") is not storage


@pytest.mark.parametrize("url", ["memory://host", "memory:///path", "memory://?ttl=60"])
def test_a_url_that_says_more_is_refused(url):
    with pytest.raises(ConfigurationError, match="memory:// takes nothing more"):
        storage_from_url(url)
