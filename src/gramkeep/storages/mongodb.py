"""Sessions in MongoDB: one document each, claimed and changed by one command each.

What must be decided and done in one step is an update by an aggregation pipeline, which the server
carries out by itself and by its own clock. A retry that the driver makes on its own, as it does
with replica sets, is answered as the first attempt was. A value is its own token: writes compare
it, whoever wrote it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote_plus, urlsplit

from gramkeep.errors import ConfigurationError, SessionEncodeError, StorageUnavailable
from gramkeep.storage import (
    ABSENT,
    ANY,
    BUSY,
    DELETE,
    Answer,
    Lease,
    Put,
    Record,
    Storage,
)
from gramkeep.storages import mongodb_updates as updates
from gramkeep.storages.driver import driver_of
from gramkeep.storages.mongodb_connection import Client, Collection, Connection, open_client
from gramkeep.storages.mongodb_layout import LAYOUTS
from gramkeep.storages.url_options import without_password

with driver_of("mongodb"):
    from bson.errors import InvalidDocument
    from pymongo import AsyncMongoClient, ReturnDocument
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import (
        AutoReconnect,
        DuplicateKeyError,
        InvalidName,
        OperationFailure,
        PyMongoError,
        ServerSelectionTimeoutError,
    )
    from pymongo.errors import ConfigurationError as DriverConfigurationError

READ_AT_ONCE: Final = 100  # keys in one command
AT_ONCE: Final = 16  # commands of one call that are under way together
SCAN_PAGE: Final = 500  # keys read in one go while scanning
ATTEMPTS: Final = 5  # to make a document that others make at the same time

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
        self._open: Callable[[], tuple[Client | None, Collection]]
        if isinstance(place, AsyncCollection):
            if database is not None or collection is not None:
                text = "a collection was given, which says its name and its database itself"
                raise ConfigurationError(text)
            self.name = f"mongodb:///{place.database.name}?collection={quote(place.name)}"
            self._open = lambda: (None, place)
        elif isinstance(place, AsyncMongoClient):
            given = _collection_of(place, database, collection)
            self.name = f"mongodb:///{given.database.name}?collection={quote(given.name)}"
            self._open = lambda: (None, given)
        elif isinstance(place, str):
            given = _collection_of(open_client(place), database, collection)
            parts = urlsplit(place)
            self.name = without_password(
                f"{parts.scheme}://{parts.netloc}/{given.database.name}"
                f"?collection={quote(given.name)}"
            )

            def connect() -> tuple[Client, Collection]:
                client = open_client(place)
                return client, _collection_of(client, database, collection)

            self._open = connect
        else:
            kind = type(place).__name__
            text = (
                f"MongoStorage needs a URL, an AsyncMongoClient or an AsyncCollection, not {kind}"
            )
            raise ConfigurationError(text)
        self._layout = LAYOUTS[layout](self.name)
        self._connection: Connection | None = None
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
        """Read several keys, a hundred of them in one command."""
        wanted = list(dict.fromkeys(keys))
        pages = [wanted[n : n + READ_AT_ONCE] for n in range(0, len(wanted), READ_AT_ONCE)]
        found: dict[str, Record] = {}
        for records in await self._settled(_each(pages, self._read)):
            found |= records
        return [found.get(key) for key in keys]

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read and take several keys, each in one command, some at a time."""
        return await self._settled(_each(keys, lambda key: self._claim(key, lease)))

    async def put(
        self,
        puts: Sequence[Put],
        lease: Lease | None = None,
        *,
        atomic: bool = False,
    ) -> list[bool]:
        """Carry out several changes, each in one command, some at a time."""
        return await self._settled(_each(puts, lambda put: self._put(put, lease)))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in the order of their UTF-8."""
        layout = self._layout
        beyond: dict[str, str] = {"$gte": prefix}
        while True:
            query = {layout.key: beyond, "$expr": layout.alive}
            page = await self._settled(self._answer(self._find(query, keys_only=True)))
            last = None
            for document in page:
                key: str = document[layout.key]
                if not key.startswith(prefix):
                    return  # keys are in order, so no other one follows
                if key != last:
                    yield key
                last = key
            if last is None:
                return
            beyond = {"$gt": last}

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions of grammY's layout; of gramkeep's the server does."""
        if at_most < 1 or self._layout.key == "_id":
            return 0
        return await self._settled(self._answer(self._prune(at_most)))

    async def aclose(self) -> None:
        """Finish what was asked before, then close the client, unless it is the user's."""
        self._is_closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _read(self, keys: Sequence[str]) -> dict[str, Record]:
        layout = self._layout
        query = {layout.key: {"$in": keys}, "$expr": layout.alive}
        found: dict[str, Record] = {}
        for document in await self._answer(self._find(query)):
            # grammY may have made two of one key; the first is the one that it reads
            if document[layout.key] not in found:
                found[document[layout.key]] = layout.record(document)
        return found

    async def _find(
        self, query: Mapping[str, Any], *, keys_only: bool = False
    ) -> list[dict[str, Any]]:
        collection = await self._collection()
        key = self._layout.key
        if keys_only:
            cursor = collection.find(query, {"_id": 0, key: 1}).sort(key).limit(SCAN_PAGE)
        else:
            cursor = collection.find(query)
        return await cursor.to_list()

    async def _claim(self, key: str, lease: Lease) -> Record | Answer | None:
        pipeline = updates.claim(self._layout, key, lease)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                document = await self._answer(self._update(key, pipeline, makes=True), writes=True)
            except StorageUnavailable as error:
                # Who claims again has what it would have had by once: no harm in asking if the
                # connection was lost, or somebody else made the document at the same time.
                if attempt == ATTEMPTS or not _may_ask_again(error.__cause__, attempt):
                    raise
                continue
            if document is None:
                continue
            if document.get("lease", {}).get("owner") != lease.owner:
                return BUSY
            return self._layout.record(document) if "value" in document else None
        raise StorageUnavailable(storage=self.name, reason="it keeps no document that it made")

    async def _put(self, put: Put, lease: Lease | None) -> bool:
        try:
            if put.value is DELETE and not put.hold:
                condition = {"$expr": updates.may_delete(self._layout, put, lease)}
                if await self._answer(self._delete(put.key, condition), writes=True):
                    return True
            return await self._answer(self._change(put, lease), writes=True)
        except InvalidDocument as error:
            reason = f"MongoDB can't hold it: {error}"
            raise SessionEncodeError(
                key=put.key, storage=self.name, path="$", reason=reason
            ) from error

    async def _change(self, put: Put, lease: Lease | None) -> bool:
        pipeline = updates.put(self._layout, put, lease)
        for attempt in range(1, ATTEMPTS + 1):
            document = await self._update(put.key, pipeline, {"refused": 1, "empty": 1})
            if document is not None:
                if document.keys() & {"refused", "empty"}:
                    with suppress(PyMongoError):  # the next claim tidies up as well
                        await self._tidy(put.key, document)
                return "refused" not in document
            # Nothing is there.
            if not isinstance(put.value, bytes) or put.expected not in (ABSENT, ANY):
                return put.expected is ABSENT or put.expected is ANY
            try:
                await self._make(put.key, pipeline)
            except DuplicateKeyError:  # now something is
                if attempt == ATTEMPTS:
                    raise
            else:
                return True
        raise AssertionError  # the last attempt has returned or raised

    async def _update(
        self,
        key: str,
        pipeline: updates.Pipeline,
        projection: Mapping[str, Any] | None = None,
        *,
        makes: bool = False,
    ) -> dict[str, Any] | None:
        collection = await self._collection()
        return await collection.find_one_and_update(
            {self._layout.key: key},
            pipeline,
            projection,
            upsert=makes,
            return_document=ReturnDocument.AFTER,
        )

    async def _make(self, key: str, pipeline: updates.Pipeline) -> None:
        collection = await self._collection()
        await collection.update_one(
            {self._layout.key: key, **updates.NOTHING},
            updates.make(self._layout, key, pipeline),
            upsert=True,
        )

    async def _delete(self, key: str, condition: Mapping[str, Any]) -> bool:
        collection = await self._collection()
        result = await collection.delete_one({self._layout.key: key, **condition})
        return result.deleted_count == 1

    async def _tidy(self, key: str, document: Mapping[str, Any]) -> None:
        if "empty" in document:
            await self._delete(key, updates.NOTHING)
        else:
            collection = await self._collection()
            await collection.update_one({self._layout.key: key}, {"$unset": {"refused": ""}})

    async def _prune(self, at_most: int) -> int:
        collection = await self._collection()
        expired = {"value": {"$exists": True}, "$expr": {"$not": [self._layout.alive]}}
        found = await collection.find(expired, {"_id": 1}).limit(at_most).to_list()
        names = [document["_id"] for document in found]
        result = await collection.delete_many({"_id": {"$in": names}, **expired})
        return result.deleted_count

    async def _prepare(self, collection: Collection) -> None:
        if self._layout.key == "_id":
            await collection.create_index("remove_at", expireAfterSeconds=0)
            return
        indexes = await (await collection.list_indexes()).to_list()
        if all(next(iter(index["key"])) != self._layout.key for index in indexes):
            await collection.create_index(self._layout.key)
        await collection.delete_many(updates.left_over())

    async def _collection(self) -> Collection:
        if self._is_closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        connection = self._connection
        if connection is None or not connection.is_of_here():
            connection = self._connection = Connection(*self._open(), self._prepare)
        return await connection.ready()

    async def _settled(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call; when cancelled, until its commands have been answered.

        A command that is given up half way may still be carried out after the next ones, and take
        a lease that was given up, or write what is no longer wanted. And the driver closes the
        connection of a cancelled command, or leaves it to the garbage collector.
        """
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

    async def _answer(self, call: Awaitable[T], *, writes: bool = False) -> T:
        try:
            return await call
        except PyMongoError as error:
            reason = "it was closed" if self._is_closed else _reason(error)
            if writes and isinstance(error, AutoReconnect) and not _is_unsent(error):
                reason += "; whether it was written is not known"
            raise StorageUnavailable(storage=self.name, reason=reason) from error


def _collection_of(client: Client, database: str | None, collection: str | None) -> Collection:
    try:
        named = client.get_default_database() if database is None else client[database]
        return named["gramkeep_sessions" if collection is None else collection]
    except DriverConfigurationError:
        text = "MongoStorage needs a database: name it in the URL, or say database=…"
        raise ConfigurationError(text) from None
    except InvalidName as error:
        text = f"MongoStorage: {error}"
        raise ConfigurationError(text) from None


async def _each(items: Sequence[K], call: Callable[[K], Coroutine[Any, Any, T]]) -> list[T]:
    """Call for each of several, some at a time, and give the answers in order."""
    if len(items) == 1:
        return [await call(items[0])]
    limit = asyncio.Semaphore(AT_ONCE)

    async def limited(item: K) -> T:
        async with limit:
            return await call(item)

    # All are waited for: none may go on behind the back of whoever is told of an error.
    answers = await asyncio.gather(*map(limited, items), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers  # type: ignore[return-value] # no exception is among them


def _may_ask_again(error: BaseException | None, attempt: int) -> bool:
    is_lost = isinstance(error, AutoReconnect) and not error.timeout
    return isinstance(error, DuplicateKeyError) or (is_lost and attempt == 1)


def _is_unsent(error: AutoReconnect) -> bool:
    return isinstance(error, ServerSelectionTimeoutError)


def _reason(error: PyMongoError) -> str:
    """Say what the driver says, without the topology and the server's whole answer behind it."""
    if isinstance(error, OperationFailure) and error.details:
        return f"{error.details.get('errmsg', error)} (code {error.code})"
    return re.split(r",? \(configured timeouts: |, (?:Timeout|full error): ", str(error))[0]
