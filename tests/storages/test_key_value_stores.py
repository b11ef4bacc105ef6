"""What KeyValueStorage puts into stores, takes out of them, and says when they fail."""

import asyncio

import pytest
from key_value.aio.stores.disk import DiskStore
from key_value.aio.stores.filetree import (
    FileTreeStore,
    FileTreeV1CollectionSanitizationStrategy,
    FileTreeV1KeySanitizationStrategy,
)
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.wrappers.prefix_keys import PrefixKeysWrapper

from gramkeep import (
    ConfigurationError,
    SessionConflict,
    SessionDecodeError,
    Sessions,
    StorageUnavailable,
)
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put
from gramkeep.storages.key_value import KeyValueStorage


async def put(storage, key, value, expected=ANY, ttl=None):
    (answer,) = await storage.put([Put(key, value, expected, ttl)])
    return answer


async def find(storage, key):
    (record,) = await storage.get([key])
    return record


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def storage(store):
    return KeyValueStorage(store)


class BrokenStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.error = None

    async def _get_managed_entry(self, **place):
        if self.error is not None:
            raise self.error
        return await super()._get_managed_entry(**place)

    async def _put_managed_entry(self, **entry):
        if self.error is not None:
            raise self.error
        await super()._put_managed_entry(**entry)


# What is stored


async def test_a_session_that_is_json_is_stored_as_its_text(store, storage):
    await put(storage, "42", b'{"name":"\xd0\xaf","count":3}')
    assert await store.get("42") == {"__json": '{"name":"Я","count":3}'}


@pytest.mark.parametrize("value", [b"\0\xff", b"", b"\x80{}", b"{", b'"\0"', b"null \0"])
async def test_a_session_that_is_not_json_is_stored_in_base64(store, storage, value):
    await put(storage, "42", value)
    assert list(await store.get("42")) == ["__b"]
    assert (await find(storage, "42")).value == value


async def test_the_members_of_a_session_keep_their_order(store, storage):
    await put(storage, "42", b'{"b":1,"a":{"z":1,"y":2}}')
    assert (await find(storage, "42")).value == b'{"b":1,"a":{"z":1,"y":2}}'


async def test_what_others_have_stored_is_read_as_json_and_can_be_built_on(store, storage):
    await store.put("42", {"count": 3})
    record = await find(storage, "42")
    assert record.value == b'{"count":3}'
    await store.put("42", {"count": 4})
    assert await put(storage, "42", b'{"count":5}', record.token) is False
    assert await store.get("42") == {"count": 4}
    assert await put(storage, "42", b'{"count":5}', (await find(storage, "42")).token) is True


@pytest.mark.parametrize(
    "value", [{"__b": "not base64!"}, {"at": object()}], ids=["base64", "object"]
)
async def test_what_is_no_session_is_told_and_can_be_replaced_or_deleted(store, storage, value):
    async def given(keys, *, collection=None):
        return [(value, None) for _ in keys]

    store.ttl_many = given
    with pytest.raises(SessionDecodeError, match=r"session '42' in MemoryStore can't be read"):
        await storage.get(["42"])
    with pytest.raises(SessionDecodeError):
        await put(storage, "42", b"1", ABSENT)
    assert await put(storage, "42", b"1") is True
    assert await put(storage, "42", DELETE) is True


async def test_lifetimes_are_the_stores_own(store, storage):
    await put(storage, "42", b"1", ttl=90)
    assert 89 < (await store.ttl("42"))[1] <= 90
    await put(storage, "42", KEEP, ttl=30)
    assert 29 < (await store.ttl("42"))[1] <= 30
    await store.put("43", {"count": 3})
    await put(storage, "43", KEEP, ttl=30)
    assert await store.get("43") == {"count": 3}
    await put(storage, "42", b"1")
    assert (await store.ttl("42"))[1] is None


async def test_collections_are_apart(store, storage):
    cats, dogs = (KeyValueStorage(store, collection=name) for name in ("cats", "dogs"))
    await put(cats, "42", b"1")
    assert await find(dogs, "42") is None
    assert await find(storage, "42") is None
    assert [key async for key in cats.scan()] == ["42"]
    assert [key async for key in dogs.scan()] == []
    assert await store.get("42", collection="cats") == {"__json": "1"}
    assert (cats.name, storage.name) == ("MemoryStore 'cats'", "MemoryStore")


# One process


async def test_storages_over_one_store_compare_and_set_together(store):
    async def count_up():
        storage = KeyValueStorage(store)
        for _ in range(10):
            while True:
                record = await find(storage, "42")
                count = 0 if record is None else int(record.value)
                await asyncio.sleep(0)
                expected = ABSENT if record is None else record.token
                if await put(storage, "42", b"%d" % (count + 1), expected):
                    break

    await asyncio.gather(*(count_up() for _ in range(8)))
    assert await store.get("42") == {"__json": "80"}


async def test_sessions_in_a_store(store):
    async with Sessions(initial=dict, storage=KeyValueStorage(store), ttl=60) as sessions:
        await asyncio.gather(
            *(
                sessions.update("42", lambda data: {"count": data.get("count", 0) + 1})
                for _ in range(50)
            )
        )
        assert await sessions.get("42") == {"count": 50}
        with pytest.raises(SessionConflict):
            async with sessions.open("42") as session:
                session.data["count"] = 0
                await store.put("42", {"count": 7})
        assert await sessions.get("42") == {"count": 7}
        assert await sessions.count() == 1
        await sessions.delete("42")
    assert await store.get("42") is None


# Stores


@pytest.fixture(params=["disk", "filetree"])
async def store_that_lists_nothing(request, tmp_path):
    if request.param == "disk":
        async with DiskStore(directory=tmp_path) as store:
            yield store
        return
    yield FileTreeStore(
        data_directory=tmp_path,
        key_sanitization_strategy=FileTreeV1KeySanitizationStrategy(tmp_path),
        collection_sanitization_strategy=FileTreeV1CollectionSanitizationStrategy(tmp_path),
    )


@pytest.mark.parametrize("key", ["42", "user:42", "../x", "a\0", "k" * 300], ids=ascii)
async def test_stores_on_the_disk_keep_sessions(store_that_lists_nothing, key):
    storage = KeyValueStorage(store_that_lists_nothing)
    assert await put(storage, key, b'{"b":1,"a":2}', ABSENT, 60) is True
    record = await find(storage, key)
    assert record.value == b'{"b":1,"a":2}'
    assert await put(storage, key, b"\0\xff", ABSENT) is False
    assert await put(storage, key, b"\0\xff", record.token) is True
    assert await put(storage, key, b"lost", record.token) is False
    assert (await find(storage, key)).value == b"\0\xff"
    assert (await find(storage, key)).expires_at is None
    assert await put(storage, key, KEEP, ANY, 0.1) is True
    await asyncio.sleep(0.2)
    assert await find(storage, key) is None
    assert await put(storage, key, b"1", ABSENT) is True
    assert await put(storage, key, DELETE) is True
    assert await put(storage, key, DELETE) is True
    assert await find(storage, key) is None


async def test_a_store_that_lists_no_keys_can_not_be_listed(store_that_lists_nothing):
    storage = KeyValueStorage(store_that_lists_nothing)
    with pytest.raises(ConfigurationError, match=r"can't be listed: .* no keys\(\)") as caught:
        [key async for key in storage.scan()]
    assert caught.value.storage == storage.name


async def test_wrappers_are_stores(store):
    storage = KeyValueStorage(PrefixKeysWrapper(store, prefix="bot"))
    await put(storage, "42", b"1")
    assert (await find(storage, "42")).value == b"1"
    assert await store.keys() == ["bot__42"]


async def test_a_listing_that_may_have_been_cut_off_is_an_error(store, storage):
    keys = [f"key {n}" for n in range(10_001)]
    await store.put_many(keys[:9_999], [{}] * 9_999)
    assert len([key async for key in storage.scan()]) == 9_999
    await store.put_many(keys[9_999:], [{}] * 2)
    with pytest.raises(StorageUnavailable, match="lists no more than 10000 keys"):
        [key async for key in storage.scan("key 1")]


async def test_what_a_store_raises_says_which_store_and_session():
    store = BrokenStore()
    storage = KeyValueStorage(store)
    await put(storage, "42", b"1")
    store.error = ConnectionRefusedError("nobody there")
    for call in (storage.get(["42"]), put(storage, "42", b"2"), put(storage, "42", b"2", ABSENT)):
        with pytest.raises(
            StorageUnavailable,
            match="BrokenStore is unavailable for session '42': ConnectionRefusedError: nobody",
        ) as caught:
            await call
        assert caught.value.__cause__ is store.error
    store.error = None
    assert (await find(storage, "42")).value == b"1"


@pytest.mark.parametrize("store", [MemoryStore, {}, None, "memory://"])
def test_only_stores_are_accepted(store):
    with pytest.raises(ConfigurationError, match="needs a store of py-key-value"):
        KeyValueStorage(store)
