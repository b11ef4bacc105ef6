"""`MongoStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote_plus, urlsplit

from gramkeep.errors import ConfigurationError, SessionEncodeError, StorageUnavailable
from gramkeep.storage import Answer, Lease, Put, Record, Storage
from gramkeep.storages.concurrency import Gate
from gramkeep.storages.driver import driver_of
from gramkeep.storages.mongodb.connection import (
    Client,
    Collection,
    Connection,
    collection_of,
    open_client,
)
from gramkeep.storages.mongodb.documents import Documents
from gramkeep.storages.mongodb.layout import LAYOUTS
from gramkeep.storages.url_options import without_password

with driver_of("mongodb"):
    import pymongo
    from bson.errors import InvalidDocument
    from pymongo import AsyncMongoClient
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import (
        AutoReconnect,
        OperationFailure,
        PyMongoError,
        ServerSelectionTimeoutError,
    )

READ_AT_ONCE: Final = 100  # keys in one command
AT_ONCE: Final = 16  # commands under way: with more, the driver keeps the event loop busy

T = TypeVar("T")
K = TypeVar("K")


class MongoStorage(Storage):
    """Keeps sessions in a collection, made with its index at first use.

    ``place``: a URL, or the user's own `AsyncMongoClient` or `AsyncCollection`, which are never
    closed here.
    ``database``: by default the one that the URL, or the client's, names.
    ``collection``: its name, unless ``place`` is one.
    ``layout``: ``"gramkeep"``, for any keys and codecs; ``"grammy"``, the documents of
    ``@grammyjs/storage-mongodb``, for JSON.

    All reads are from the primary. Timeouts and the like are the driver's own options.
    """

    can_lease = True

    def __init__(
        self,
        place: str | Client | Collection,
        *,
        database: str | None = None,
        collection: str | None = None,
        layout: Literal["gramkeep", "grammy"] = "gramkeep",
    ) -> None:
        if layout not in LAYOUTS:
            text = f"layout={layout!r} must be 'gramkeep' or 'grammy'"
            raise ConfigurationError(text)
        hosts = ""
        self._open: Callable[[], tuple[Client | None, Collection]]
        match place:
            case AsyncCollection():
                if database is not None or collection is not None:
                    text = "a collection was given, which says its name and its database itself"
                    raise ConfigurationError(text)
                given = place
                self._open = lambda: (None, given)
            case AsyncMongoClient():
                given = collection_of(place, database, collection)
                self._open = lambda: (None, given)
            case str():
                given = collection_of(open_client(place), database, collection)
                hosts = urlsplit(place).netloc

                def connect() -> tuple[Client, Collection]:
                    client = open_client(place)
                    return client, collection_of(client, database, collection)

                self._open = connect
            case _:
                kind = type(place).__name__
                text = (
                    f"MongoStorage takes a URL, an AsyncMongoClient or AsyncCollection, no {kind}"
                )
                raise ConfigurationError(text)
        scheme = place.partition(":")[0] if isinstance(place, str) else "mongodb"
        self.name = without_password(
            f"{scheme}://{hosts}/{given.database.name}?collection={quote(given.name)}"
        )
        self._layout = LAYOUTS[layout](self.name)
        self._connection: Connection[Documents] | None = None
        options = given.database.client.options
        self._timeout = options.timeout  # seconds for all of a call, if it is to have an end
        self._patience = options.timeout or options.server_selection_timeout
        self._gate = Gate(AT_ONCE)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @classmethod
    def from_url(cls, url: str) -> MongoStorage:
        """Make a storage from ``mongodb://host/database`` or ``mongodb+srv://host/database``.

        The options ``collection``, ``layout`` and the driver's own may follow a ``?``.
        """
        place, _, query = url.partition("?")
        own: dict[str, Any] = {}
        others = []  # as they stand: the driver has its own rules of encoding
        for option in filter(None, query.split("&")):
            name, _, value = option.partition("=")
            if name in ("collection", "layout"):
                own[name] = unquote_plus(value)
            else:
                others.append(option)
        return cls(f"{place}?{'&'.join(others)}" if others else place, **own)

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys, up to a hundred of them in one command."""
        wanted = list(dict.fromkeys(keys))
        pages = [
            wanted[first : first + READ_AT_ONCE] for first in range(0, len(wanted), READ_AT_ONCE)
        ]
        found: dict[str, Record] = {}
        for records in await self._settled(self._each(pages, self._read)):
            found |= records
        return [found.get(key) for key in keys]

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read and take several keys, each in one command, some at a time."""
        return await self._settled(self._each(keys, lambda key: self._claim(key, lease)))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, each in one command, some at a time."""
        return await self._settled(self._each(puts, lambda put: self._put(put, lease)))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in the order of their UTF-8."""
        page = await self._settled(self._page(prefix, None))
        while page:
            for key in page:
                if not key.startswith(prefix):
                    return  # keys are in order, so no other one follows
                yield key
            page = await self._settled(self._page(prefix, page[-1]))

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions of grammY's layout; gramkeep's the server removes."""
        return await self._settled(self._prune(at_most))

    async def aclose(self) -> None:
        """Finish what was asked before, then close the client, unless it is the user's."""
        self._is_closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _read(self, keys: Sequence[str]) -> dict[str, Record]:
        try:
            return await (await self._documents()).read(keys)
        except PyMongoError as error:
            raise self._unavailable(error) from error

    async def _page(self, prefix: str, after: str | None) -> list[str]:
        try:
            return await (await self._documents()).page(prefix, after)
        except PyMongoError as error:
            raise self._unavailable(error) from error

    async def _claim(self, key: str, lease: Lease) -> Record | Answer | None:
        try:
            documents = await self._documents()
            try:
                return await documents.claim(key, lease)
            except AutoReconnect as error:
                if error.timeout:
                    raise
                # The connection was lost. Who claims twice has what it would have had by once.
                return await documents.claim(key, lease)
        except PyMongoError as error:
            raise self._unavailable(error) from error

    async def _put(self, put: Put, lease: Lease | None) -> bool:
        try:
            return await (await self._documents()).put(put, lease)
        except InvalidDocument as error:
            reason = f"MongoDB can't hold it: {error}"
            raise SessionEncodeError(
                key=put.key, storage=self.name, path="$", reason=reason
            ) from error
        except PyMongoError as error:
            raise self._unavailable(error, writes=True) from error

    async def _prune(self, at_most: int) -> int:
        try:
            return await (await self._documents()).prune(at_most)
        except PyMongoError as error:
            raise self._unavailable(error) from error

    async def _documents(self) -> Documents:
        connection = self._connection
        if connection is not None and connection.is_of_here():
            return await connection.ready()
        if self._is_closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        connection = self._connection = Connection(*self._open(), self._prepare)
        return await connection.ready()

    async def _prepare(self, collection: Collection) -> Documents:
        documents = Documents(collection, self._layout)
        await documents.prepare()
        return documents

    async def _settled(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call; when cancelled, until its commands have been answered.

        A command that is given up half way may still be carried out after the next ones, and take
        a lease that was given up, or write what is no longer wanted. And the driver closes the
        connection of a cancelled command, or leaves it to the garbage collector.
        """
        if self._is_closed:
            call.close()
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        task = asyncio.ensure_future(call)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            if not task.cancelled():
                task.exception()  # nobody else looks at it
            raise cancelled
        return task.result()

    async def _each(
        self, items: Sequence[K], call: Callable[[K], Coroutine[Any, Any, T]]
    ) -> list[T]:
        """Call for each of several, as many at a time as may be, and give the answers in order."""
        if len(items) == 1:
            return [await self._in_turn(call, items[0])]
        calls = (self._in_turn(call, item) for item in items)
        # All are waited for: none may go on behind the back of whoever is told of an error.
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers  # type: ignore[return-value] # no exception is among them

    async def _in_turn(self, call: Callable[[K], Coroutine[Any, Any, T]], item: K) -> T:
        """Call for one when not too many others are under way, which is a part of its time."""
        turn = self._gate.turn()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                await turn.acquire()
        except TimeoutError:
            reason = f"{AT_ONCE} commands before it were not answered in {self._patience:g} s"
            raise StorageUnavailable(storage=self.name, reason=reason) from None
        try:
            left = self._timeout and max(0.001, began + self._timeout - time.monotonic())
            with pymongo.timeout(left):
                return await call(item)
        finally:
            turn.release()

    def _unavailable(self, error: PyMongoError, *, writes: bool = False) -> StorageUnavailable:
        reason = _reason(error)
        # Where no server was found, nothing was sent.
        is_unsent = isinstance(error, ServerSelectionTimeoutError)
        if writes and isinstance(error, AutoReconnect) and not is_unsent:
            reason += "; whether it was written is not known"
        return StorageUnavailable(storage=self.name, reason=reason)


def _reason(error: PyMongoError) -> str:
    """Say what the driver says, without the topology and the server's whole answer behind it."""
    if isinstance(error, OperationFailure) and error.details:
        return f"{error.details.get('errmsg', error)} (code {error.code})"
    return re.split(r",? \(configured timeouts: |, (?:Timeout|full error): ", str(error))[0]
