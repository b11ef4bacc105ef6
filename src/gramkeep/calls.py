"""Calls to a storage that share round trips: those made while one is under way go as the next.

There are no timers. A call that comes alone goes straight through, at once and as it is; only
when as many are under way as the storage says it does well with, further ones gather, and go
together as soon as one of those is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar

import msgspec

from gramkeep.errors import GramkeepError, StorageUnavailable
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
        self._waited: dict[str, float] = {}  # seconds, of keys that are claimed again
        if storage.calls_at_once is None:
            # Nothing to share: not even a detour is made.
            self.get = storage.get  # type: ignore[method-assign]
            self.claim = storage.claim  # type: ignore[method-assign]
            self.put = storage.put  # type: ignore[method-assign]

    def disown(self) -> None:
        """Begin anew, in a forked child: what is under way is the parent's."""
        self._lanes.clear()
        self._waited.clear()

    def get(self, keys: Sequence[str]) -> Coroutine[Any, Any, list[Record | None]]:
        """Read several keys; see `Storage.get`."""
        lane = self._lanes.get("get")
        if lane is None:
            lane = self._lane("get", self._storage.get)
        return lane.ask(keys)

    def claim(
        self, keys: Sequence[str], lease: Lease
    ) -> Coroutine[Any, Any, list[Record | Answer | None]]:
        """Read and hold several keys; see `Storage.claim`."""
        place = lease.owner, lease.seconds
        lane = self._lanes.get(place)
        if lane is None:
            bare = msgspec.structs.replace(lease, waited={})

            def claim(keys: Sequence[str]) -> Awaitable[list[Record | Answer | None]]:
                if self._waited.keys().isdisjoint(keys):
                    return self._storage.claim(keys, bare)
                waited = {key: self._waited[key] for key in keys if key in self._waited}
                return self._storage.claim(keys, msgspec.structs.replace(bare, waited=waited))

            lane = self._lane(place, claim)
        return self._claim_again(lane, keys, lease) if lease.waited else lane.ask(keys)

    def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> Coroutine[Any, Any, list[bool]]:
        """Carry out several changes; see `Storage.put`. An atomic call is never shared."""
        if atomic:
            return self._storage.put(puts, lease, atomic=True)
        place = None if lease is None else lease.owner
        lane = self._lanes.get(place)
        if lane is None:

            def put(puts: Sequence[Put]) -> Awaitable[list[bool]]:
                return self._storage.put(puts, lease)

            lane = self._lane(place, put, keys_of=_changed_keys, size_of=_size)
        return lane.ask(puts)

    async def _claim_again(
        self, lane: _Lane[str, Record | Answer | None], keys: Sequence[str], lease: Lease
    ) -> list[Record | Answer | None]:
        self._waited.update(lease.waited)
        try:
            return await lane.ask(keys)
        finally:
            for key in lease.waited:
                self._waited.pop(key, None)

    def _lane(
        self,
        place: Hashable,
        call: Callable[[Sequence[T]], Awaitable[list[A]]],
        *,
        keys_of: Callable[[Sequence[T]], Sequence[str]] | None = None,
        size_of: Callable[[Sequence[T]], int] | None = None,
    ) -> _Lane[T, A]:
        limit = self._storage.calls_at_once
        assert limit is not None  # noqa: S101 - or nothing would come here
        lane = self._lanes[place] = _Lane(call, limit, keys_of, size_of)
        return lane


def _changed_keys(puts: Sequence[Put]) -> Sequence[str]:
    return [put.key for put in puts]


def _size(puts: Sequence[Put]) -> int:
    return sum([len(put.value) for put in puts if isinstance(put.value, bytes)])


class _Request(Generic[T, A]):
    """One caller's items on their way in a call that others share."""

    __slots__ = ("future", "items", "sent")

    def __init__(self, items: Sequence[T], future: asyncio.Future[list[A]]) -> None:
        self.items = items
        self.future = future
        self.sent: asyncio.Task[None] | None = None


class _Lane(Generic[T, A]):
    """Calls of one sort, of which ``limit`` are under way at most."""

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[list[A]]],
        limit: int,
        keys_of: Callable[[Sequence[T]], Sequence[str]] | None,
        size_of: Callable[[Sequence[T]], int] | None,
    ) -> None:
        self._call = call
        self._limit = limit
        self._keys_of = keys_of  # of items that are no keys themselves
        self._size_of = size_of
        self._under_way = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # while calls are under way
        self._waiting: list[_Request[T, A]] = []

    async def ask(self, items: Sequence[T]) -> list[A]:
        """Have the items answered, alone or together with those of others."""
        if self._under_way < self._limit:
            self._under_way += 1
            try:
                return await self._call(items)
            finally:
                self._go_on()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        request: _Request[T, A] = _Request(items, self._loop.create_future())
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
        if self._waiting and self._loop is not None:
            together = self._take()
            self._under_way += 1
            task = self._loop.create_task(self._send(together))
            for request in together:
                request.sent = task
        elif not self._under_way:
            self._loop = None

    def _take(self) -> list[_Request[T, A]]:
        """Take requests out of the queue that fit into one call, no key of theirs twice."""
        together: list[_Request[T, A]] = []
        later: list[_Request[T, A]] = []
        keys: set[str] = set()
        size = 0
        for request in self._waiting:
            own: Sequence[Any] = request.items
            if self._keys_of is not None:
                own = self._keys_of(own)
            if self._size_of is not None:
                size += self._size_of(request.items)
            is_too_much = len(keys) + len(own) > KEYS_TOGETHER or size > BYTES_TOGETHER
            if together and (is_too_much or not keys.isdisjoint(own)):
                later.append(request)
            else:
                together.append(request)
            keys.update(own)  # also of those that wait: who comes later doesn't overtake them
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
            if isinstance(error, GramkeepError) and error.outcomes is not None:
                _tell_each(together, error.outcomes)
            elif len(together) == 1 or isinstance(error, StorageUnavailable):
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


def _tell_each(together: Sequence[_Request[Any, Any]], outcomes: Sequence[object]) -> None:
    """Give each request the outcomes of its own items, or the first error among them."""
    left = iter(outcomes)
    for request in together:
        own = list(islice(left, len(request.items)))
        errors = [outcome for outcome in own if isinstance(outcome, Exception)]
        if errors:
            _fail(request, errors[0])
        elif not request.future.done():
            request.future.set_result(own)


def _fail(request: _Request[Any, Any], error: Exception) -> None:
    if request.future.done():
        return
    if isinstance(error, StorageUnavailable):  # one each, as they grow notes and tracebacks
        copy = StorageUnavailable(storage=str(error.storage), reason=error.reason, key=error.key)
        copy.__cause__ = error
        error = copy
    request.future.set_exception(error)
