"""`MongoStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from typing import Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import quote, unquote_plus, urlsplit

from gramkeep.errors import (
    ConfigurationError,
    GramkeepError,
    SessionEncodeError,
    StorageUnavailable,
)
from gramkeep.storage import Answer, Lease, Put, Record, Storage
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
from gramkeep.storages.mongodb.turns import Turns, answers
from gramkeep.storages.url_options import without_password

with driver_of("mongodb"):
    from bson.errors import InvalidDocument
    from pymongo import AsyncMongoClient
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import (
        AutoReconnect,
        OperationFailure,
        PyMongoError,
        ServerSelectionTimeoutError,
    )

TOGETHER: Final = 50  # keys in one command,
BYTES_TOGETHER: Final = 1024 * 1024  # and bytes to write, unless a value alone has more
COMMANDS_OF_CLAIM: Final = 2  # for many keys: as many or fewer are better claimed one by one

Answers: TypeAlias = dict[str, Record | Answer | None]

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
        # grammY's keys are no names, and of a document that isn't there many would learn nothing.
        self._shares_commands = self._layout.key == "_id"
        self.calls_at_once = 2 if self._shares_commands else None
        options = given.database.client.options
        self._turns = Turns(
            self.name,
            timeout=options.timeout,
            patience=options.timeout or options.server_selection_timeout,
        )

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
        """Read several keys, up to fifty of them in one command."""
        return await self._turns.settled(self._get(keys))

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read and take several keys, up to fifty of them in two commands.

        Those that were busy before, or have no document yet, take one each.
        """
        return await self._turns.settled(self._claim(keys, lease))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, up to fifty of them in one command."""
        return await self._turns.settled(self._put(puts, lease))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in the order of their UTF-8."""
        page = await self._turns.settled(self._page(prefix, None))
        while page:
            for key in page:
                if not key.startswith(prefix):
                    return  # keys are in order, so no other one follows
                yield key
            page = await self._turns.settled(self._page(prefix, page[-1]))

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions of grammY's layout; gramkeep's the server removes."""
        return await self._turns.settled(self._prune(at_most))

    async def aclose(self) -> None:
        """Finish what was asked before, then close the client, unless it is the user's."""
        await self._turns.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _get(self, keys: Sequence[str]) -> list[Record | None]:
        found: dict[str, Record] = {}
        for records in await self._turns.each(_portions(list(dict.fromkeys(keys))), self._read):
            found |= records
        return [found.get(key) for key in keys]

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

    async def _claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        def claim_many(keys: Sequence[str]) -> Coroutine[Any, Any, Answers]:
            return self._claiming(lambda documents: documents.claim_many(keys, lease))

        def claim_one(key: str) -> Coroutine[Any, Any, Record | Answer | None]:
            return self._claiming(lambda documents: documents.claim(key, lease))

        if len(keys) == 1:
            return await self._turns.each(keys, claim_one)
        found: Answers = {}
        fresh = [key for key in keys if key not in lease.waited]
        if self._shares_commands and len(fresh) > COMMANDS_OF_CLAIM:
            for some in await self._turns.each(_portions(fresh), claim_many):
                found |= some
        alone = [key for key in keys if key not in found]
        return _together(keys, found, alone, await self._turns.outcomes(alone, claim_one))

    async def _claiming(self, claim: Callable[[Documents], Awaitable[T]]) -> T:
        try:
            documents = await self._documents()
            try:
                return await claim(documents)
            except AutoReconnect as error:
                if error.timeout:
                    raise
                # The connection was lost. Who claims twice has what it would have had by once.
                return await claim(documents)
        except PyMongoError as error:
            raise self._unavailable(error) from error

    async def _put(self, puts: Sequence[Put], lease: Lease | None) -> list[bool]:
        def put_many(puts: Sequence[Put]) -> Coroutine[Any, Any, set[str]]:
            return self._put_many(puts, lease)

        def put_one(put: Put) -> Coroutine[Any, Any, bool]:
            return self._put_one(put, lease)

        if len(puts) == 1:
            return await self._turns.each(puts, put_one)
        done: dict[str, bool] = {}
        if self._shares_commands:
            portions = [portion for portion in _portions(puts, _size) if len(portion) > 1]
            for some in await self._turns.each(portions, put_many):
                done |= dict.fromkeys(some, True)
        alone = [put for put in puts if put.key not in done]
        keys = [put.key for put in alone]
        outcomes = await self._turns.outcomes(alone, put_one)
        return _together([put.key for put in puts], done, keys, outcomes)

    async def _put_many(self, puts: Sequence[Put], lease: Lease | None) -> set[str]:
        try:
            return await (await self._documents()).put_many(puts, lease)
        except PyMongoError as error:
            raise self._unavailable(error, writes=True) from error

    async def _put_one(self, put: Put, lease: Lease | None) -> bool:
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
        connection = self._connection = Connection(*self._open(), self._prepare)
        return await connection.ready()

    async def _prepare(self, collection: Collection) -> Documents:
        documents = Documents(collection, self._layout)
        await documents.prepare()
        return documents

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


def _together(
    keys: Sequence[str],
    shared: Mapping[str, T],
    alone: Sequence[str],
    outcomes: Sequence[T | BaseException],
) -> list[T]:
    """Put the outcomes of those that went alone between the shared answers of the others."""
    of_each = {**shared, **dict(zip(alone, outcomes, strict=True))}
    in_order = [of_each[key] for key in keys]
    for outcome in outcomes:
        if isinstance(outcome, GramkeepError):
            outcome.outcomes = in_order
    return answers(in_order)


def _portions(items: Sequence[K], size_of: Callable[[K], int] = lambda _: 0) -> list[list[K]]:
    """Divide what is asked for into commands, none of which takes long."""
    portions: list[list[K]] = []
    size = 0
    for item in items:
        size += size_of(item)
        if not portions or len(portions[-1]) == TOGETHER or size > BYTES_TOGETHER:
            portions.append([])
            size = size_of(item)
        portions[-1].append(item)
    return portions


def _size(put: Put) -> int:
    return len(put.value) if isinstance(put.value, bytes) else 0
