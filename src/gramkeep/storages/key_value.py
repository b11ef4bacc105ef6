"""Sessions in any store of py-key-value, for a single process.

What the store is given are dicts: ``{"__json": text}`` for a session that is JSON, and
``{"__b": base64}`` for any other bytes. The text is kept as a text, because stores sort the members
of dicts, and some keep numbers in types of their own; a session is to come back as it was. A dict
of another form, which somebody else has stored, is read as JSON.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from gramkeep.errors import (
    ConfigurationError,
    GramkeepError,
    SessionDecodeError,
    StorageUnavailable,
)
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, PAGE, Lease, Put, Record, Storage
from gramkeep.storages.concurrency import Gate, Locks, side_by_side, to_its_end
from gramkeep.storages.driver import driver_of

with driver_of("key-value"):
    from key_value.aio.protocols.key_value import AsyncEnumerateKeysProtocol, AsyncKeyValue

JSON: Final = "__json"
BYTES: Final = "__b"
AT_ONCE: Final = 50  # calls that are under way to the store; redis-py refuses the 101st
LISTED_AT_MOST: Final = 10_000  # keys; of further ones py-key-value's stores say nothing
ALL: Final = 2**31 - 1


# The locks of each store object, which the storages over it hold, and it with them.
_locks_of: WeakValueDictionary[int, Locks] = WeakValueDictionary()


class KeyValueStorage(Storage):
    """Keeps sessions in ``store``, in its ``collection``; the store stays its user's to close.

    py-key-value has no compare-and-set. Here it holds within the process: a lock per key is held
    from reading over comparing to writing, and all storages over one store object share these
    locks. Two processes that change one session at the same time may overwrite each other's
    change: no isolation between processes is promised.

    What the store raises becomes `StorageUnavailable`. A `put` that is cancelled while the store
    writes waits for the end of that write.

    Raises `ConfigurationError` for an object that is no `AsyncKeyValue` store; listing does for a
    store that can't list its keys.
    """

    def __init__(self, store: AsyncKeyValue, *, collection: str | None = None) -> None:
        if isinstance(store, type) or not isinstance(store, AsyncKeyValue):
            text = f"KeyValueStorage needs a store of py-key-value's asyncio form, not {store!r}"
            raise ConfigurationError(text)
        self._store = store
        self._collection = collection
        self.name = type(store).__name__ + ("" if collection is None else f" {collection!r}")
        self._gate = Gate(AT_ONCE)
        self._locks = _locks_of.setdefault(id(store), Locks())

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys, in one call to the store."""
        found = await self._ttl_many(keys)
        return [self._record(key, *one) for key, one in zip(keys, found, strict=True)]

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, each for itself and some at a time side by side."""
        return await to_its_end(side_by_side(self._put, puts, at_once=AT_ONCE))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``.

        Raises `ConfigurationError` where the store can't list its keys, and `StorageUnavailable`
        where it may not have listed all.
        """
        if not isinstance(self._store, AsyncEnumerateKeysProtocol):
            text = (
                f"the sessions in {self.name} can't be listed: py-key-value has no keys() for this "
                "store"
            )
            raise ConfigurationError(text, storage=self.name)
        async with self._call():
            keys = await self._store.keys(self._collection, limit=ALL)
        if len(keys) == LISTED_AT_MOST:
            text = f"it lists no more than {LISTED_AT_MOST} keys, and there may be others"
            raise StorageUnavailable(storage=self.name, reason=text)
        keys = [key for key in keys if key.startswith(prefix)]
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            for key, (value, _) in zip(page, await self._ttl_many(page), strict=True):
                if value is not None:  # stores list what has expired, too
                    yield key

    async def aclose(self) -> None:
        """Do nothing: the store is its user's."""

    async def _put(self, put: Put) -> bool:
        async with self._locks.of((self._collection, put.key)):
            value: Mapping[str, Any] | None = None
            if put.expected is not ANY or put.value is KEEP:
                ((value, ttl),) = await self._ttl_many([put.key])
                if put.expected is not ANY:
                    record = self._record(put.key, value, ttl)
                    if (ABSENT if record is None else record.token) != put.expected:
                        return False
            if isinstance(put.value, bytes):
                await self._write(put.key, _dict_of(put.value), put.ttl)
            elif put.value is DELETE:
                async with self._call(put.key):
                    await self._store.delete(put.key, collection=self._collection)
            elif put.ttl is not None and value is not None:
                await self._write(put.key, value, put.ttl)
            return True

    async def _write(self, key: str, value: Mapping[str, Any], ttl: float | None) -> None:
        async with self._call(key):
            await self._store.put(key, value, collection=self._collection, ttl=ttl)

    async def _ttl_many(
        self, keys: Sequence[str]
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        if not keys:
            return []
        async with self._call(keys[0] if len(keys) == 1 else None):
            return await self._store.ttl_many(keys, collection=self._collection)

    def _record(
        self, key: str, value: Mapping[str, Any] | None, ttl: float | None
    ) -> Record | None:
        if value is None:
            return None
        try:
            stored = _bytes_of(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            reason = f"what {self.name} gave has no JSON form ({error})"
            raise SessionDecodeError(key=key, storage=self.name, path="$", reason=reason) from error
        # The value is its own token: equal bytes are an equal basis to build on.
        return Record(stored, stored, None if ttl is None else time.time() + ttl)

    @asynccontextmanager
    async def _call(self, key: str | None = None) -> AsyncIterator[None]:
        """Hold one call to the store."""
        try:
            async with self._gate.turn():
                yield
        except GramkeepError:
            raise
        except Exception as error:  # each store has those of its driver, and some of its own
            reason = f"{type(error).__name__}: {error}"
            raise StorageUnavailable(storage=self.name, reason=reason, key=key) from error


def _dict_of(stored: bytes) -> dict[str, str]:
    with suppress(ValueError, RecursionError):
        text = stored.decode()
        msgspec.json.decode(stored)
        return {JSON: text}
    return {BYTES: b64encode(stored).decode()}


def _bytes_of(value: Mapping[str, Any]) -> bytes:
    match value:
        case {"__json": str(text)} if len(value) == 1:
            return text.encode()
        case {"__b": str(text)} if len(value) == 1:
            return b64decode(text, validate=True)
    return msgspec.json.encode(value)
