"""The seven methods of grammY's storages, which every storage here has too."""

import json
import types
from pathlib import Path

import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    SessionDecodeError,
    SessionEncodeError,
    Sessions,
    StorageUnavailable,
)
from gramkeep.storage import ANY, PAGE, Put, Storage
from gramkeep.storages.adapter import AdapterStorage
from gramkeep.storages.sqlite import SQLiteStorage

from .kinds import Async

GOLDEN = Path(__file__).parents[1] / "golden"
MEMORY = {
    case["name"]: case
    for case in json.loads((GOLDEN / "grammy" / "memory.json").read_text())["cases"]
}
VALUES = [
    *({"a": [1, 2.5, None, True, "é"]}, [], {}, "", "text", 0, 7, 1.5, False, 2**70),
    *({"__d": 1, "v": 2, "e": 3}, {"__d": {"__d": 1}}, {"__b": "aGk="}, {"": {"": [[]]}}),
]


@pytest.fixture(params=["memory", "sqlite", "adapter"])
async def storage(request, tmp_path):
    made = {
        "memory": MemorySessionStorage,
        "sqlite": lambda: SQLiteStorage(tmp_path / "bot.db"),
        "adapter": lambda: AdapterStorage(Async()),
    }[request.param]()
    yield made
    await made.aclose()


async def listed(iterator):
    return sorted([item async for item in iterator])


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_json_value_is_read_as_it_was_written(storage, value):
    await storage.write("k", value)
    back = await storage.read("k")
    assert (back, type(back)) == (value, type(value))
    assert await listed(storage.read_all_entries()) == [("k", value)]


async def test_what_is_not_there_is_read_as_none(storage):
    assert await storage.read("k") is None
    assert await storage.has("k") is False
    await storage.delete("k")
    await storage.write("k", 1)
    assert await storage.has("k") is True
    await storage.delete("k")
    assert await storage.read("k") is None


async def test_a_write_replaces_what_was_there_with_its_lifetime(storage):
    await storage.put([Put("k", b"1", ANY, 60)])
    await storage.write("k", 2)
    (record,) = await storage.get(["k"])
    assert (record.value, record.expires_at) == (b"2", None)


async def test_all_keys_values_and_entries_are_listed(storage):
    stored = {f"{n:04}": {"n": n} for n in range(3 * PAGE + 7)}
    await storage.put([Put(key, json.dumps(value).encode(), ANY) for key, value in stored.items()])
    assert await listed(storage.read_all_keys()) == list(stored)
    entries = [entry async for entry in storage.read_all_entries()]
    assert sorted(entries) == [*stored.items()]
    assert [value async for value in storage.read_all_values()] == [value for _, value in entries]


async def test_an_empty_storage_lists_nothing(storage):
    for iterator in (
        storage.read_all_keys(),
        storage.read_all_values(),
        storage.read_all_entries(),
    ):
        assert await listed(iterator) == []


async def test_listing_keeps_one_page_of_values_in_memory():
    class Counting(MemorySessionStorage):
        largest = 0

        async def get(self, keys):
            self.largest = max(self.largest, len(keys))
            return await super().get(keys)

    storage = Counting()
    await storage.put([Put(str(n), b"1", ANY) for n in range(10 * PAGE)])
    assert [value async for value in storage.read_all_values()] == [1] * 10 * PAGE
    assert storage.largest == PAGE


@pytest.mark.parametrize("stored", [b"", b"\x82\xa1a\x01", b"{", b'"\\ud83c"', b"[" * 5000])
async def test_bytes_that_are_not_json_are_refused_with_their_key(storage, stored):
    await storage.put([Put("some key", stored, ANY)])
    for ask in (
        lambda: storage.read("some key"),
        lambda: listed(storage.read_all_values()),
        lambda: listed(storage.read_all_entries()),
    ):
        with pytest.raises(SessionDecodeError, match=r"'some key'.*it is not JSON") as caught:
            await ask()
        assert (caught.value.key, caught.value.storage) == ("some key", storage.name)
    assert await storage.has("some key") is True
    assert await listed(storage.read_all_keys()) == ["some key"]


@pytest.mark.parametrize(
    "value",
    [object(), {"a": {1}}, (1, 2), {1: "a"}, float("nan"), b"bytes", "\ud83c", {"a": ...}],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_that_json_would_not_bring_back_is_refused(storage, value):
    with pytest.raises(SessionEncodeError, match="'k'"):
        await storage.write("k", value)
    assert await storage.has("k") is False


async def test_values_are_never_shared(storage):
    value = {"a": [1]}
    await storage.write("k", value)
    value["a"].append(2)
    (await storage.read("k"))["a"].append(3)
    assert await storage.read("k") == {"a": [1]}


async def test_a_session_is_seen_as_it_is_stored(storage):
    sessions = Sessions(initial=dict, storage=storage, migrations={3: dict}, prefix="p:")
    async with sessions.open("42") as session:
        session.data["a"] = 1
    assert await storage.read("p:42") == {"v": 3, "__d": {"a": 1}}
    await storage.write("p:42", {"v": 3, "__d": {"a": 2}})
    assert await sessions.get("42") == {"a": 2}


async def test_a_closed_storage_says_that_it_is_unavailable(tmp_path):
    storage = SQLiteStorage(tmp_path / "bot.db")
    await storage.aclose()
    for ask in (storage.read("k"), storage.write("k", 1), storage.delete("k"), storage.has("k")):
        with pytest.raises(StorageUnavailable):
            await ask


def test_every_storage_has_the_seven_methods():
    methods = {"read", "write", "delete", "has", "read_all_keys", "read_all_values"}
    for name in [*methods, "read_all_entries"]:
        assert isinstance(vars(Storage)[name], types.FunctionType)


# MemorySessionStorage(time_to_live=…), as grammY's of that name


@pytest.mark.parametrize(
    "name",
    [
        "no time to live",
        "infinite",
        "50 ms, after 51 ms: gone",
    ],
)
async def test_the_memory_storage_forgets_as_grammys_does(clock, name):
    case = MEMORY[name]
    lifetime = None if case["ttl"] in (None, "Infinity") else case["ttl"] / 1000
    storage = MemorySessionStorage(lifetime)
    await storage.write("k", {"count": 1})
    clock.now += case["after_ms"]
    missing = case["read"] == "undefined"
    assert await storage.read("k") == (None if missing else case["read"])
    assert await storage.has("k") is not missing
    assert await listed(storage.read_all_keys()) == ([] if missing else ["k"])
    values = case["listing_values_first"]
    assert [value async for value in storage.read_all_values()] == values["values"]
    assert [[*entry] async for entry in storage.read_all_entries()] == values["entries"]


async def test_reading_does_not_prolong_a_life_in_memory(clock):
    storage = MemorySessionStorage(time_to_live=0.05)
    await storage.write("k", 1)
    clock.now += 40
    assert await storage.read("k") == 1
    clock.now += 40
    assert (await storage.read("k") or "undefined") == MEMORY["reading does not prolong"]["read"]


def test_a_life_of_no_length_is_refused():
    with pytest.raises(ConfigurationError, match="time_to_live=0"):
        MemorySessionStorage(time_to_live=0)
