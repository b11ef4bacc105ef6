"""What type checkers must see of adapters; only type-checked, never run."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, assert_type

from gramkeep import MemorySessionStorage, Storage
from gramkeep.enhance import EnhancedAdapter, enhance_storage
from gramkeep.storage import StorageAdapter
from gramkeep.storages.adapter import AdapterStorage, storage_over
from gramkeep.storages.sqlite import SQLiteStorage

Cart = dict[str, int]


class Half:
    def read(self, key: str) -> Cart | None:
        return None

    def write(self, key: str, value: Cart) -> None:
        pass


class Sync(Half):
    def delete(self, key: str) -> None:
        pass


class Async:
    async def read(self, name: str) -> Cart | None:
        return None

    async def write(self, name: str, cart: Cart) -> bool:
        return True

    async def delete(self, name: str) -> bool:
        return True


class OfText:
    async def read(self, key: str) -> str | None:
        return None

    def write(self, key: str, value: str) -> None:
        pass

    def delete(self, key: str) -> None:
        pass


def take_carts(adapter: StorageAdapter[Cart]) -> None:
    take_anything(adapter)


def take_anything(adapter: StorageAdapter[Any]) -> None:
    assert_type(storage_over(adapter), AdapterStorage)
    assert_type(enhance_storage(storage=adapter), EnhancedAdapter)


async def adapters(storage: Storage) -> None:
    take_carts(Sync())
    take_carts(Async())
    take_carts(storage)
    take_carts(enhance_storage(storage=Sync()))
    take_carts(Half())  # type: ignore[arg-type]
    take_carts(OfText())  # type: ignore[arg-type]
    take_anything(OfText())
    take_anything(MemorySessionStorage())
    take_anything(AdapterStorage(Async()))
    take_anything(Half())  # type: ignore[arg-type]


async def enhanced() -> None:
    made = enhance_storage(storage=Sync(), migrations={1: dict, 1.5: dict}, time_to_live=60)
    enhance_storage(storage=SQLiteStorage("bot.db"), time_to_live=timedelta(days=1))
    enhance_storage(storage=made)
    enhance_storage(storage="sqlite:///bot.db")  # type: ignore[arg-type]
    assert_type(await made.read("42"), Any)
    assert_type(await made.has("42"), bool)
    assert_type(made.read_all_keys(), AsyncIterator[str])
    assert_type(made.read_all_entries(), AsyncIterator[tuple[str, Any]])


async def built_in(storage: Storage) -> None:
    assert_type(await storage.read("42"), Any)
    assert_type(await storage.has("42"), bool)
    assert_type(await storage.write("42", {"a": 1}), None)
    assert_type(storage.read_all_keys(), AsyncIterator[str])
    assert_type(storage.read_all_entries(), AsyncIterator[tuple[str, Any]])
