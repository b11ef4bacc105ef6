"""What `MongoStorage` reaches the server through: a collection, of its own client or the user's.

A client belongs to one event loop and to one process. One that is opened here is opened anew in
another loop or after a fork; what it leaves behind there is closed with that loop or process.
"""

from __future__ import annotations

import asyncio
import os
import re
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from gramkeep.errors import ConfigurationError
from gramkeep.storages.driver import driver_of
from gramkeep.storages.url_options import without_password

with driver_of("mongodb"):
    from bson.codec_options import CodecOptions, DatetimeConversion
    from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import ConfigurationError as DriverConfigurationError
    from pymongo.errors import InvalidName, PyMongoError

T = TypeVar("T")

Client: TypeAlias = AsyncMongoClient[dict[str, Any]]
Collection: TypeAlias = AsyncCollection[dict[str, Any]]

# Unless the URL says otherwise. By itself the driver waits half a minute for a server and for ever
# for an answer, and opens a hundred connections. ``timeoutMS`` bounds all of a command, the wait
# for a server and the driver's own retries in it, and lets the server give up what is too late.
DEFAULTS: Final[dict[str, Any]] = {
    "timeoutMS": 5_000,
    "maxPoolSize": 20,
    "w": "majority",
    "journal": True,  # as it is by itself where a replica set is set up as usual
}

# Dates of any year, and none of the types that a user's client may have registered.
_CODEC_OPTIONS: Final = CodecOptions[dict[str, Any]](
    datetime_conversion=DatetimeConversion.DATETIME_MS
)
_MAJORITY: Final = WriteConcern("majority", j=True)


class Connection(Generic[T]):
    """A collection, and what is made of it at first use, in one event loop of one process."""

    def __init__(
        self,
        client: Client | None,
        collection: Collection,
        prepare: Callable[[Collection], Awaitable[T]],
    ) -> None:
        """Use a collection, of a ``client`` to be closed with it, or of the user's."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._prepare = prepare
        self._ready: T | None = None
        self._lock = asyncio.Lock()
        write_concern = collection.write_concern
        self._collection = collection.with_options(
            codec_options=_CODEC_OPTIONS,
            read_preference=ReadPreference.PRIMARY,  # the others answer with what was before
            write_concern=_MAJORITY if write_concern.is_server_default else write_concern,
        )

    def is_of_here(self) -> bool:
        """Whether it can be used in the event loop and the process that are running."""
        return self._loop is asyncio.get_running_loop() and self._pid == os.getpid()

    async def ready(self) -> T:
        """Give what was made of the collection, or make it."""
        if self._ready is None:
            async with self._lock:
                if self._ready is None:
                    self._ready = await self._prepare(self._collection)
        return self._ready

    async def close(self) -> None:
        if self._client is not None and self.is_of_here():
            await self._client.close()


def open_client(url: str) -> Client:
    """Make a client, which connects when first used.

    Raises `ConfigurationError` for a URL that PyMongo can't read; passwords don't stand in it.
    """
    given = {name.lower() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    options = {name: value for name, value in DEFAULTS.items() if name.lower() not in given}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an unknown option is but warned of
            return AsyncMongoClient(url, **options)
    except (PyMongoError, ValueError, TypeError, UserWarning) as error:
        text = (
            f"storage URL {without_password(url)!r} can't be read: {_without_secrets(url, error)}"
        )
        raise ConfigurationError(text) from None


def collection_of(client: Client, database: str | None, collection: str | None) -> Collection:
    """Give a client's collection, by default in the database that the client was given.

    Raises `ConfigurationError` where there is none, or a name can't be one.
    """
    try:
        named = client.get_default_database() if database is None else client[database]
        return named["gramkeep_sessions" if collection is None else collection]
    except DriverConfigurationError:
        text = "MongoStorage needs a database: name it in the URL, or say database=…"
        raise ConfigurationError(text) from None
    except InvalidName as error:
        text = f"MongoStorage: {error}"
        raise ConfigurationError(text) from None


def _without_secrets(url: str, error: Exception) -> str:
    """Give the driver's words, unless they repeat a part of what may be a password."""
    user = url.partition("//")[2].rpartition("@")[0]
    secrets = {part for part in re.split("[:@/?]", user)[1:] if part}
    text = str(error)
    if any(secret in text or unquote(secret) in text for secret in secrets):
        return "user names and passwords must be percent-encoded"
    return text
