"""Calls to a storage that share round trips: those made while one is under way go as the next.

There are no timers. A call that comes alone goes straight through, at once and as it is; only
when as many are under way as the storage says it does well with, further ones gather, and go
together as soon as one of those is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from itertools import chain
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from gramkeep.errors import StorageUnavailable
from gramkeep.storage import Answer, Lease, Put, Record, Storage

T = TypeVar("T")
A = TypeVar("A")

KEYS_TOGETHER: Final = 500  # keys in one gathered call,
BYTES_TOGETHER: Final = 1024 * 1024  # and bytes to write, so that none takes long or is refused


class Calls:
    """The calls of one process to one storage; the methods are those of `Storage`.

    Belongs to one event loop at a time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lanes: dict[Hashable, _Lane[Any, Any]] = {}
        if storage.calls_at_once is None:
            # Nothing to share: not even a detour is made.
            self.get = storage.get  # type: ignore[method-assign]
            self.claim = storage.claim  # type: ignore[method-assign]
            self.put = storage.put  # type: ignore[method-assign]

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys; see `Storage.get`."""
        lane = self._lanes.get("get")
        if lane is None:
            lane = self._lane("get", self._storage.get, key_of=str)
        return await lane.ask(keys)

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read and hold several keys; see `Storage.claim`."""
        place = lease.owner, lease.seconds
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lane(place, self._claim, key_of=_claimed_key)
        waited = lease.waited
        return await lane.ask([_Claim(key, waited.get(key, 0.0), lease) for key in keys])

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes; see `Storage.put`. An atomic call is never shared."""
        if atomic:
            return await self._storage.put(puts, lease, atomic=True)
        place = None if lease is None else lease.owner
        lane = self._lanes.get(place)
        if lane is None:

            async def put(puts: Sequence[Put]) -> list[bool]:
                return await self._storage.put(puts, lease)

            lane = self._lane(place, put, key_of=_changed_key, size_of=_size)
        return await lane.ask(puts)

    async def _claim(self, claims: Sequence[_Claim]) -> list[Record | Answer | None]:
        waited = {claim.key: claim.waited for claim in claims if claim.waited}
        lease = claims[0].lease
        if waited:
            lease = msgspec.structs.replace(lease, waited=waited)
        return await self._storage.claim([claim.key for claim in claims], lease)

    def _lane(
        self,
        place: Hashable,
        call: Callable[[Sequence[T]], Awaitable[list[A]]],
        *,
        key_of: Callable[[T], str],
        size_of: Callable[[T], int] | None = None,
    ) -> _Lane[T, A]:
        limit = self._storage.calls_at_once
        assert limit is not None  # noqa: S101 - or nothing would come here
        lane = self._lanes[place] = _Lane(call, limit, key_of, size_of)
        return lane


class _Claim(NamedTuple):
    key: str
    waited: float
    lease: Lease


def _claimed_key(claim: _Claim) -> str:
    return claim.key


def _changed_key(put: Put) -> str:
    return put.key


def _size(put: Put) -> int:
    return len(put.value) if isinstance(put.value, bytes) else 0


class _Request(Generic[T, A]):
    """One caller's items on their way in a call that others share."""

    __slots__ = ("future", "items", "sent")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.future: asyncio.Future[list[A]] = asyncio.get_running_loop().create_future()
        self.sent: asyncio.Task[None] | None = None


class _Lane(Generic[T, A]):
    """Calls of one sort, of which ``limit`` are under way at most."""

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[list[A]]],
        limit: int,
        key_of: Callable[[T], str],
        size_of: Callable[[T], int] | None,
    ) -> None:
        self._call = call
        self._limit = limit
        self._key_of = key_of
        self._size_of = size_of
        self._under_way = 0
        self._waiting: list[_Request[T, A]] = []

    async def ask(self, items: Sequence[T]) -> list[A]:
        """Have the items answered, alone or together with those of others."""
        if self._under_way < self._limit:
            self._under_way += 1
            try:
                return await self._call(items)
            finally:
                self._go_on()
        request: _Request[T, A] = _Request(items)
        self._waiting.append(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            if request.sent is None:
                self._waiting = [other for other in self._waiting if other is not request]
            elif not request.sent.done():
                # What was sent can't be called back, for the others' sake: it is settled first.
                await asyncio.wait([request.sent])
            raise

    def _go_on(self) -> None:
        self._under_way -= 1
        if self._waiting:
            together = self._take()
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._send(together))
            for request in together:
                request.sent = task

    def _take(self) -> list[_Request[T, A]]:
        """Take requests out of the queue that fit into one call, no key of theirs twice."""
        together: list[_Request[T, A]] = []
        later: list[_Request[T, A]] = []
        keys: set[str] = set()
        size = 0
        for request in self._waiting:
            own = {self._key_of(item) for item in request.items}
            if self._size_of is not None:
                size += sum(map(self._size_of, request.items))
            is_too_much = len(keys) + len(own) > KEYS_TOGETHER or size > BYTES_TOGETHER
            if together and (is_too_much or not keys.isdisjoint(own)):
                later.append(request)
            else:
                together.append(request)
            keys |= own  # also of those that wait: who comes later doesn't overtake them
        self._waiting = later
        return together

    async def _send(self, together: Sequence[_Request[T, A]]) -> None:
        try:
            await self._answer(together)
        finally:
            self._go_on()

    async def _answer(self, together: Sequence[_Request[T, A]]) -> None:
        items: Iterable[T] = chain.from_iterable(request.items for request in together)
        try:
            answers = await self._call(list(items))
        except asyncio.CancelledError:
            for request in together:
                request.future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to the callers
            if len(together) == 1 or isinstance(error, StorageUnavailable):
                for request in together:
                    _fail(request, error)
            else:
                # It is about one of the items, and nothing was done: the others needn't suffer.
                for request in together:
                    await self._answer([request])
            return
        first = 0
        for request in together:
            last = first + len(request.items)
            if not request.future.done():
                request.future.set_result(answers[first:last])
            first = last


def _fail(request: _Request[Any, Any], error: Exception) -> None:
    if request.future.done():
        return
    if isinstance(error, StorageUnavailable):  # one each, as they grow notes and tracebacks
        copy = StorageUnavailable(storage=str(error.storage), reason=error.reason, key=error.key)
        copy.__cause__ = error
        error = copy
    request.future.set_exception(error)
