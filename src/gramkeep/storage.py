"""The storage contract: bytes in, bytes out, many keys at a time.

A storage knows nothing of types, versions or bots. It keeps a value per key, says by an opaque
token which value it was, and refuses a write whose basis has changed. `gramkeep.testing` holds
the conformance suite that defines this contract by tests.

`StorageAdapter` is the smaller contract of grammY's storages: plain values under keys. A user's
own adapter serves as a storage, and every `Storage` offers the adapter's methods as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from gramkeep.errors import SessionDecodeError, SessionEncodeError

T = TypeVar("T")

PAGE: Final = 100  # values that are in memory at a time while all of them are read
PLACE_KEPT: Final = 0.25  # seconds that a waiter for a lease keeps its place without asking again

Token: TypeAlias = object
"""What a storage says of a value's identity. Only the storage that gave it can compare it."""


class Change(Enum):
    """What a `Put` does where it doesn't store bytes."""

    DELETE = "delete"
    KEEP = "keep"


class Basis(Enum):
    """What a `Put` expects where it doesn't expect a certain value."""

    ABSENT = "absent"
    ANY = "any"


class Answer(Enum):
    """What a `claim` says of a key where it doesn't say what is stored."""

    BUSY = "busy"


BUSY: Literal[Answer.BUSY] = Answer.BUSY
DELETE: Literal[Change.DELETE] = Change.DELETE
KEEP: Literal[Change.KEEP] = Change.KEEP
ABSENT: Literal[Basis.ABSENT] = Basis.ABSENT
ANY: Literal[Basis.ANY] = Basis.ANY


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is stored under a key.

    ``expires_at`` is in seconds since the epoch, ``None`` for a value that doesn't expire.
    """

    value: bytes
    token: Token
    expires_at: float | None = None


class Put(msgspec.Struct, frozen=True, gc=False):
    """One change of one key, carried out only where the stored value is the expected one.

    ``value``: the bytes to store; `DELETE`, to remove the key; `KEEP`, to leave the value, and
    only count its lifetime anew or give the lease up.
    ``expected``: the token of the value read before, `ABSENT` for none, `ANY` to not care.
    ``ttl``: lifetime from now in seconds. ``None`` with bytes: for ever; with `KEEP`: as before.
    ``hold``: whether the owner of a lease goes on holding the key.
    """

    key: str
    value: bytes | Change
    expected: Token | Basis
    ttl: float | None = None
    hold: bool = False


class Lease(msgspec.Struct, frozen=True):
    """A claim on the keys of a call, which outlives its owner's death by ``seconds`` at most.

    Given only to storages that ``can_lease``. ``owner`` names one process's use of one storage:
    the updates of a process queue in the process. ``waited`` says of keys that were `BUSY` for how
    many seconds the owner has been waiting for them; of all others that is 0.
    """

    owner: str
    seconds: float
    waited: Mapping[str, float] = {}


class Storage(ABC):
    """Where sessions are kept.

    Implementations raise `StorageUnavailable` when they can't answer, and never answer instead:
    "not there" is an answer. An expired value is not there, for every method.

    Cancelling a `put` leaves the old value or the new one, settled by the time the cancelled call
    returns or, over a network, by the time the server drops the connection.
    """

    can_lease: ClassVar[bool] = False
    """Whether there is `claim`, and `put` heeds a `Lease`, to isolate updates across processes."""

    transactional: bool = False
    """Whether ``put(..., atomic=True)`` of several keys writes all or none."""

    outlives_closing: ClassVar[bool] = False
    """Whether the storage can be used on after `aclose`, as one that holds nothing to give up."""

    calls_at_once: int | None = None
    """How many calls of one sort a process best has under way, where round trips are dear.

    Further ones are gathered and go together, as one call with many keys. ``None`` for storages
    that gain nothing by that, or do it themselves.
    """

    name: str
    """How errors and logs call this storage: its URL, without passwords."""

    @abstractmethod
    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys; one answer per key, in order, ``None`` for what isn't there."""

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read several keys that the lease's owner holds from here on; in order as `get`.

        Each key becomes the owner's in one step with its read, for ``lease.seconds`` from now,
        whether or not anything is stored; what was its already, is so for as long again. Where
        that can't be, the answer is `BUSY`: another owner holds the key, or it is free and
        another one has waited for it for longer. Of those who wait, the storage keeps at least
        the one with the longest wait, until `PLACE_KEPT` seconds after it asked last. Keys are
        answered each for itself. Only asked of storages that ``can_lease``.
        """
        raise NotImplementedError(f"{type(self).__name__} can't lease")

    @abstractmethod
    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes; one answer per change, in order.

        ``False`` says that the stored value was not the expected one, and that nothing was done
        for that key. Each change stands alone, unless ``atomic``, of a ``transactional`` storage:
        then one ``False`` undoes all, and the answers only say whose value was the expected one.
        A key stands at most once in a call.

        With a lease, ``False`` also says that another owner holds the key; that a lease has run
        out matters only then. Whatever the answer, the owner gives up each key that it doesn't
        ``hold``, and its place among those who wait for it, in one step with the change.

        After an error nothing was done, or with `StorageUnavailable` nothing is known; unless the
        error's ``outcomes`` give, in order, an answer or an error for each change.
        """

    @abstractmethod
    def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, taken literally, each once.

        Keys that come or go meanwhile may or may not be seen; all others are.
        """

    async def prune(self, at_most: int) -> int:  # noqa: ARG002 - for those that override it
        """Remove some expired values for good, and say how many; less than ``at_most`` is all.

        Storages whose server does that by itself have nothing to do.
        """
        return 0

    @abstractmethod
    async def aclose(self) -> None:
        """Give up what this storage opened itself, and nothing the user passed in. Idempotent."""

    # The adapter's methods, over JSON values: dicts, lists, strings, numbers, booleans, None.

    async def read(self, key: str) -> Any:
        """Read the JSON value stored under ``key``, ``None`` if there is none.

        It is given as it is stored: with the envelope, where versions or expiries are kept in
        one. Raises `SessionDecodeError` for bytes that aren't JSON, `StorageUnavailable`.
        """
        (record,) = await self.get([key])
        return None if record is None else self._json_of(key, record)

    async def write(self, key: str, value: Any) -> None:
        """Store a JSON value, whatever was there; without a lifetime, unless storages add one.

        Raises `SessionEncodeError` for a value that JSON can't hold, or would bring back as
        another (a tuple as a list, an `IntEnum` as an int), `StorageUnavailable`.
        """
        try:
            encoded = msgspec.json.encode(value)
            back = msgspec.json.decode(encoded)
            is_kept = back == value and _is_of_its_types(value, back)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            reason = f"it has no JSON form ({str(error) or type(error).__name__})"
            raise SessionEncodeError(key=key, storage=self.name, path="$", reason=reason) from error
        if not is_kept:
            reason = "JSON would bring it back as something else"
            raise SessionEncodeError(key=key, storage=self.name, path="$", reason=reason)
        await self.put([Put(key, encoded, ANY)])

    async def delete(self, key: str) -> None:
        """Remove what is stored under ``key``; if there is nothing, that is no error.

        Raises `StorageUnavailable`.
        """
        await self.put([Put(key, DELETE, ANY)])

    async def has(self, key: str) -> bool:
        """Whether anything is stored under ``key``. Raises `StorageUnavailable`."""
        (record,) = await self.get([key])
        return record is not None

    async def read_all_keys(self) -> AsyncIterator[str]:
        """Iterate over all keys, as `scan` does."""
        async for key in self.scan():
            yield key

    async def read_all_values(self) -> AsyncIterator[Any]:
        """Iterate over all JSON values, some at a time, so that memory stays flat.

        Raises `SessionDecodeError` at the first one that isn't JSON, `StorageUnavailable`.
        """
        async for key, record in self._all_records():
            yield self._json_of(key, record)

    async def read_all_entries(self) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over all keys with their JSON values; see `read_all_values`."""
        async for key, record in self._all_records():
            yield key, self._json_of(key, record)

    async def _all_records(self) -> AsyncIterator[tuple[str, Record]]:
        async for keys in paged(self.scan()):
            for key, record in zip(keys, await self.get(keys), strict=True):
                if record is not None:
                    yield key, record

    def _json_of(self, key: str, record: Record) -> Any:
        try:
            return msgspec.json.decode(record.value)
        except (ValueError, RecursionError) as error:
            reason = f"it is not JSON ({error})"
            raise SessionDecodeError(key=key, storage=self.name, path="$", reason=reason) from error


class StorageAdapter(Protocol[T]):
    """Where values of type ``T`` are kept: three methods, those of grammY's ``StorageAdapter``.

    Each method may be sync or async. An object with these three serves as ``storage=``, and is
    given plain JSON values: dicts, lists, strings, numbers, booleans, never ``None`` alone. What
    it was given it must give back as it was, dicts in their order.

    Four more are optional. ``has(key)`` says whether there is a value. ``read_all_keys()``,
    ``read_all_values()`` and ``read_all_entries()``, of pairs of key and value, give all there
    are, as an iterable, an awaitable of one, or an async iterator; one of keys or entries is
    needed for listing.
    """

    def read(self, key: str, /) -> T | Awaitable[T | None] | None:
        """Give the value stored under ``key``, ``None`` if there is none."""
        ...

    def write(self, key: str, value: T, /) -> object:
        """Store a value under ``key`` in place of the one that is there. May be awaitable."""
        ...

    def delete(self, key: str, /) -> object:
        """Remove what is stored under ``key``. May be awaitable."""
        ...


def _is_of_its_types(value: Any, equal: Any) -> bool:
    """Whether equal values are of the same types too, which an `IntEnum` and an int are not."""
    if type(value) is not type(equal):
        return False
    if isinstance(value, dict):
        return all(type(key) is str and _is_of_its_types(value[key], equal[key]) for key in value)
    return not isinstance(value, list) or all(map(_is_of_its_types, value, equal))


async def paged(items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    """Group what is iterated over into lists of up to `PAGE` items."""
    page: list[T] = []
    async for item in items:
        page.append(item)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
