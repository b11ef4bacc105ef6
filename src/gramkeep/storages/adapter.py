"""Sessions in whatever a user's own ``read``, ``write`` and ``delete`` reach.

What an adapter is given to keep is, of a session's bytes,

- the JSON value that they are: ``{"count": 3}``;
- with a version or a lifetime, in an envelope: ``{"v": 2, "__d": {"count": 3}, "e": ms}``, one for
  both, in the form of grammY's ``enhanceStorage`` (see `gramkeep.envelope`);
- if they aren't JSON, or JSON that would be written in another way here, with other spaces: the
  bytes in base64, ``{"__b": "g6ZjaA=="}``, in an envelope where they have a lifetime.

``None`` is how adapters say "not there", so a value that is ``null`` is kept in an envelope. So is
a user's own data that has the form of an envelope; of the form of ``__b``, it is kept in base64.
What was stored here is therefore never taken for something else.
"""

from __future__ import annotations

import copy
import inspect
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from gramkeep.envelope import Envelope, closed, expiry_in, is_envelope, is_expired, opened
from gramkeep.errors import (
    ConfigurationError,
    GramkeepError,
    SessionDecodeError,
    StorageUnavailable,
)
from gramkeep.storage import (
    ABSENT,
    ANY,
    DELETE,
    KEEP,
    Lease,
    Put,
    Record,
    Storage,
    StorageAdapter,
    paged,
)
from gramkeep.storages.concurrency import Locks, side_by_side, to_its_end

BYTES: Final = "__b"
AT_ONCE: Final = 50  # calls that are under way to the adapter for one call to its storage


class AdapterStorage(Storage):
    """A storage over a user's own adapter; ``storage=`` makes one of any `StorageAdapter`.

    Compare-and-set holds within the process: a lock per key is held from reading over comparing to
    writing, and all storages over one adapter object share these locks. Between processes it can't
    hold, as an adapter has no way to write only where nothing changed: two processes that change
    one session at the same time may overwrite each other's change. Neither ``"serial"`` nor
    ``"optimistic"`` isolation across processes is promised.

    An adapter has no lifetimes either, so they are kept with the value. What has expired isn't
    found any more, but stays where it is until it is written, deleted or pruned.

    What the adapter raises becomes `StorageUnavailable`. A `put` that is cancelled while the
    adapter writes waits for the end of that write. Of a call about several keys, up to `AT_ONCE`
    go side by side to the adapter.

    Raises `ConfigurationError` for an object that lacks a method; listing does where the adapter
    has neither ``read_all_keys`` nor ``read_all_entries``.
    """

    def __init__(self, adapter: StorageAdapter[Any]) -> None:
        if isinstance(adapter, Shaped):
            self._calls, self._shape = adapter.calls, adapter.shape
        else:
            self._calls, self._shape = Calls(adapter), Shape()
        self.adapter = adapter
        self.name = self._calls.name
        self._locks = _locks_of.setdefault(id(self._calls.adapter), _Locks(self._calls.adapter))

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys."""
        return await side_by_side(self._get, keys, at_once=AT_ONCE)

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, each for itself."""
        return await side_by_side(self._put, puts, at_once=AT_ONCE)

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``; reads values, to leave out expired."""
        async for key, value in self._calls.entries(prefix):
            if is_there(value):
                yield key

    async def prune(self, at_most: int) -> int:
        """Remove some expired values for good; none, if the adapter can't list."""
        total = 0
        if not self._calls.lists:
            return total
        async for key, value in self._calls.entries():
            if not is_there(value):
                async with self._locks.of(key):
                    now = await self._calls.read(key)
                    if now is not None and not is_there(now):
                        await self._calls.delete(key)
                        total += 1
                if total == at_most:
                    break
        return total

    async def has(self, key: str) -> bool:
        """Whether anything is stored under ``key``."""
        return is_there(await self._calls.read(key))

    async def aclose(self) -> None:
        """Do nothing: the adapter is its user's."""

    async def _all_records(self) -> AsyncIterator[tuple[str, Record]]:
        async for key, value in self._calls.entries():
            record = await self._record(key, value)
            if record is not None:
                yield key, record

    async def _get(self, key: str) -> Record | None:
        return await self._record(key, await self._calls.read(key))

    async def _record(self, key: str, value: Any) -> Record | None:
        if not is_there(value):
            return None
        envelope = opened(value)
        # The token is what is in it, however long that lives. It is made at once, with no word to
        # others in between, as the value may be the adapter's own object.
        token = self._bytes(key, envelope)
        shown = await self._shape.unfold(key, envelope)
        stored = token if shown is envelope else self._bytes(key, shown)
        expires_at = None if envelope.expires is None else envelope.expires / 1000
        return Record(stored, token, expires_at)

    async def _put(self, put: Put) -> bool:
        async with self._locks.of(put.key):
            if put.expected is ANY and put.value is not KEEP:
                value = None  # not asked for: what can't be read can still be replaced or deleted
            else:
                value = await self._calls.read(put.key)
                if put.expected is not ANY and not self._is_expected(put, value):
                    return False
            if isinstance(put.value, bytes):
                expires = None if put.ttl is None else expiry_in(put.ttl)
                envelope = _envelope_of(put.value, expires)
                await self._calls.write(put.key, self._shape.fold(put.key, envelope))
            elif put.value is DELETE:
                await self._calls.delete(put.key)
            elif put.ttl is not None and is_there(value):
                kept = msgspec.structs.replace(opened(value), expires=expiry_in(put.ttl))
                await self._calls.write(put.key, copy.deepcopy(closed(kept)))
            return True

    def _is_expected(self, put: Put, value: Any) -> bool:
        if put.expected is ABSENT or not is_there(value):
            return put.expected is ABSENT and not is_there(value)
        return put.expected == self._bytes(put.key, opened(value))

    def _bytes(self, key: str, envelope: Envelope[Any]) -> bytes:
        try:
            return _bytes_of(envelope)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            reason = (
                f"what {self.name} gave has no JSON form ({str(error) or type(error).__name__})"
            )
            raise SessionDecodeError(key=key, storage=self.name, path="$", reason=reason) from error


_storages: WeakValueDictionary[int, AdapterStorage] = WeakValueDictionary()


def storage_over(adapter: StorageAdapter[Any]) -> AdapterStorage:
    """Give the storage over an adapter: one and the same, as long as it is in use.

    Raises `ConfigurationError` for an object that lacks a method.
    """
    found = _storages.get(id(adapter))  # it holds its adapter, so that the id is not given anew
    if found is None:
        found = _storages[id(adapter)] = AdapterStorage(adapter)
    return found


class Calls:
    """A user's adapter, called alike whether its methods are sync or async.

    What it raises becomes `StorageUnavailable`, which names it by its class; gramkeep's own errors
    go through. Raises `ConfigurationError` for an object that lacks a method.
    """

    def __init__(self, adapter: Any) -> None:
        is_class = isinstance(adapter, type)
        needed = ("read", "write", "delete")
        missing = [name for name in needed if not callable(getattr(adapter, name, None))]
        if is_class or missing:
            what = "is a class" if is_class else f"has no {', no '.join(missing)}"
            text = (
                f"storage={adapter!r} {what}; pass a URL such as 'sqlite:///bot.db', an object of "
                "a class in gramkeep.storages, or any object with the methods read(key), "
                "write(key, value) and delete(key)"
            )
            raise ConfigurationError(text)
        self.adapter = adapter
        named = isinstance(adapter, Storage | Shaped)
        self.name: str = adapter.name if named else type(adapter).__name__

    @property
    def lists(self) -> bool:
        """Whether the adapter can tell what it has."""
        return any(self._has(name) for name in ("read_all_keys", "read_all_entries"))

    async def read(self, key: str) -> Any:
        """Give what is stored, perhaps the adapter's own object; ``None`` if there is nothing."""
        with self._errors(key):
            value = self.adapter.read(key)
            return await value if inspect.isawaitable(value) else value

    async def write(self, key: str, value: Any) -> None:
        """Store a value; cancelled, it first waits for the end of that."""
        with self._errors(key):
            call = self.adapter.write(key, value)
            if inspect.isawaitable(call):
                await to_its_end(call)

    async def delete(self, key: str) -> None:
        """Remove a value, if there is one; cancelled, it first waits for the end of that."""
        if not isinstance(self.adapter, Storage) and await self.read(key) is None:
            return  # it may delete like a dict, which knows no deleting of what isn't there
        with self._errors(key):
            call = self.adapter.delete(key)
            if inspect.isawaitable(call):
                await to_its_end(call)

    async def entries(self, prefix: str = "") -> AsyncIterator[tuple[str, Any]]:
        """Iterate over keys that start with ``prefix``, and what is stored under them."""
        if self._has("read_all_entries"):
            async for key, value in self._all("read_all_entries"):
                if key.startswith(prefix) and value is not None:
                    yield key, value
        elif self._has("read_all_keys"):
            async for keys in paged(self._keys(prefix)):
                for key, value in zip(
                    keys, await side_by_side(self.read, keys, at_once=AT_ONCE), strict=True
                ):
                    if value is not None:
                        yield key, value
        else:
            text = (
                f"the sessions in {self.name} can't be listed: it has no read_all_keys. Give it "
                "that method, of all keys, or read_all_entries, of pairs of key and value"
            )
            raise ConfigurationError(text, storage=self.name)

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        async for key in self._all("read_all_keys"):
            if key.startswith(prefix):
                yield key

    async def _all(self, method: str) -> AsyncIterator[Any]:
        with self._errors():
            answer = getattr(self.adapter, method)()
            if inspect.isawaitable(answer):
                answer = await answer
            if not hasattr(answer, "__aiter__"):
                answer = list(answer)  # it may be the view of a dict, which others go on changing
        if isinstance(answer, list):
            for item in answer:
                yield item
            return
        iterator = aiter(answer)
        while True:
            with self._errors():
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    return
            yield item

    def _has(self, method: str) -> bool:
        return callable(getattr(self.adapter, method, None))

    @contextmanager
    def _errors(self, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except GramkeepError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise StorageUnavailable(storage=self.name, reason=reason, key=key) from error


def is_there(value: Any) -> bool:
    """Whether what an adapter gave is a value, and one that has not expired."""
    return value is not None and not is_expired(opened(value))


class Shape:
    """How envelopes are shaped into an adapter's values: bare, where one is not needed."""

    async def unfold(self, key: str, envelope: Envelope[Any]) -> Envelope[Any]:
        """Make what the session is of what was stored; neither is to be changed afterwards."""
        return envelope

    def fold(self, key: str, envelope: Envelope[Any]) -> Any:
        """Make the value to be stored."""
        data = envelope.data
        is_bare = envelope.version is None and envelope.expires is None
        if is_bare and data is not None and not is_envelope(data):
            return data
        return closed(envelope)


class Shaped:
    """An adapter over another one, whose values have a shape of their own.

    `AdapterStorage` goes past it to the adapter below, so that versions and expiries of both are
    in one envelope.
    """

    def __init__(self, calls: Calls, shape: Shape) -> None:
        self.calls = calls
        self.shape = shape
        self.name = calls.name


class _Locks(Locks):
    """The locks of one adapter object, whichever storages are over it."""

    def __init__(self, adapter: Any) -> None:
        super().__init__()
        self._adapter = adapter  # held, so that its id is not given to another one


_locks_of: WeakValueDictionary[int, _Locks] = WeakValueDictionary()


def _envelope_of(stored: bytes, expires: int | None) -> Envelope[Any]:
    """Put bytes and their expiry into an envelope, the one which they are if they are one."""
    try:
        envelope = opened(msgspec.json.decode(stored))
        if envelope.expires is None:
            envelope.expires = expires
            if _bytes_of(envelope) == stored:
                return envelope
    except (ValueError, RecursionError):
        pass
    return Envelope(data={BYTES: b64encode(stored).decode()}, expires=expires)


def _bytes_of(envelope: Envelope[Any]) -> bytes:
    """Give back the bytes that were put into an envelope, whatever expiry it has."""
    data = envelope.data
    if envelope.version is not None:
        return msgspec.json.encode(Envelope(version=envelope.version, data=data))
    if is_envelope(data):
        return msgspec.json.encode(Envelope(data=data))
    if isinstance(data, dict) and data.keys() == {BYTES} and isinstance(data[BYTES], str):
        with suppress(ValueError):
            return b64decode(data[BYTES], validate=True)
    return msgspec.json.encode(data)
