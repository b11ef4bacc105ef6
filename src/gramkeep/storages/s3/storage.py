"""`S3Storage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from gramkeep.errors import ConfigurationError, StorageUnavailable
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import Lease, Put, Record, Storage
from gramkeep.storages.concurrency import side_by_side, to_its_end
from gramkeep.storages.driver import driver_of
from gramkeep.storages.s3.changes import Changes
from gramkeep.storages.s3.layout import (
    LONGEST_NAME,
    Content,
    before,
    key_in,
    name_of,
    object_name_of,
)
from gramkeep.storages.s3.objects import Listed, Objects
from gramkeep.storages.url_options import seconds, url_options, whole_number

with driver_of("s3"):
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

LOOKED_AT_TOGETHER: Final = 100  # objects of a listing
RETRIES: Final = 3  # of a read
OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "endpoint": str,
    "region": str,
    "access_key_id": str,
    "secret_access_key": str,
    "session_token": str,
    "timeout": seconds,
    "connect_timeout": seconds,
    "max_connections": whole_number,
}


class S3Storage(Storage):
    """Keeps every session in an object of its own, in a bucket, under ``prefix/``.

    ``bucket``: its name; the bucket must be there. Or an `obstore.store.S3Store` that the user
    made, which takes the place of all options but ``timeout`` and ``max_connections``.
    ``endpoint``: the URL of a server that isn't Amazon's. ``region``: where the bucket is.
    ``access_key_id``, ``secret_access_key``, ``session_token``: credentials. What isn't given is
    taken from the environment, by the names that Amazon's tools have for it.
    ``timeout``: how long a request may take, with what is repeated of it, a timedelta or seconds.
    ``connect_timeout``: how long connecting may take.
    ``max_connections``: how many requests may be under way at once.

    Updates of one process queue there; those of several processes meet in conflicts, as there are
    no leases in a bucket. Cancelling a `put` waits for its end.
    """

    def __init__(
        self,
        bucket: str | S3Store,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        timeout: Lifetime = 10.0,
        connect_timeout: Lifetime = 5.0,
        max_connections: int = 32,
    ) -> None:
        config = {
            "endpoint": endpoint,
            "region": region,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
            "session_token": session_token,
        }
        config = {name: value for name, value in config.items() if value is not None}
        self._timeout = positive_seconds("timeout", timeout)
        connect_within = positive_seconds("connect_timeout", connect_timeout)
        if type(max_connections) is not int or max_connections < 1:
            text = f"max_connections={max_connections!r} must be a whole number above 0"
            raise ConfigurationError(text)
        folder = _folder(prefix)
        if isinstance(bucket, S3Store):
            if config:
                text = f"{', '.join(config)}: the S3Store that was passed in has its own"
                raise ConfigurationError(text)
            place = "/".join(filter(None, (bucket.config.get("bucket"), bucket.prefix, folder)))
            self.name = f"s3://{place}"
            # Should it repeat a write that was done, and others write in between, that is told as
            # a conflict.
            self._stores = bucket, bucket
        else:
            if not isinstance(bucket, str) or not bucket or "/" in bucket:
                text = f"S3Storage needs the name of a bucket, not {bucket!r}"
                raise ConfigurationError(text)
            self.name = f"s3://{bucket}{'/' if folder else ''}{folder}"
            if endpoint is not None:
                _check_endpoint(endpoint)
                self.name += f"?endpoint={endpoint}"
            self._stores = _stores(bucket, config, self._timeout, connect_within)
        self._folder = folder
        self._longest_name = LONGEST_NAME - len(f"{folder}/".encode())
        self._at_once = max_connections
        self._opened: _Opened | None = None
        self._is_closed = False
        self._pruned_up_to: str | None = None

    @classmethod
    def from_url(cls, url: str) -> S3Storage:
        """Make a storage from ``s3://bucket/prefix``.

        The options may follow a ``?``: ``endpoint``, ``region``, ``access_key_id``,
        ``secret_access_key``, ``session_token``, ``timeout``, ``connect_timeout``,
        ``max_connections``.
        """
        options = url_options(url, OPTIONS)
        parts = urlsplit(url, allow_fragments=False)
        if not parts.netloc or any(character in parts.netloc for character in "@:"):
            text = (
                "an S3 storage URL is s3://bucket/prefix, with credentials in the environment and "
                "?endpoint=https://… for a server of your own"
            )
            raise ConfigurationError(text)
        return cls(parts.netloc, unquote(parts.path), **options)

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys, some at a time side by side."""
        read = self._open().changes.read
        names = [self._name_of(key) for key in keys]
        return await side_by_side(read, names, at_once=self._at_once)

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, each for itself and some at a time side by side."""
        carry_out = self._open().changes.carry_out
        named = [(self._name_of(put.key), put) for put in puts]
        return await to_its_end(
            side_by_side(lambda one: carry_out(*one), named, at_once=self._at_once)
        )

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in the order of their objects' names.

        Objects that may have expired are asked one by one.
        """
        objects, start = self._open().objects, name_of(prefix)
        async for page in objects.pages((before(start) or None) if start else None):
            named = [listed for listed in page if listed.name.startswith(start)]
            for some in _parts(named):
                for listed, content in zip(some, await self._contents(objects, some), strict=True):
                    key = key_in(listed.name)
                    if key is not None and content is not None and content.is_there:
                        yield key
            if page and page[-1].name > start and not page[-1].name.startswith(start):
                return  # names are in order, so no other one follows

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions, and what was left by processes that died while deleting.

        Goes on where the last call came to, and once around. Objects that may have expired are
        asked one by one.
        """
        objects, changes = self._open()
        total = 0
        async for page in self._once_around(objects, self._pruned_up_to):
            unsure = [one for one in page if one.may_say_more and key_in(one.name) is not None]
            for some in _parts(unsure):
                contents = zip(some, await self._contents(objects, some), strict=True)
                gone = [listed.name for listed, content in contents if _is_rest(content)]
                while gone and total < at_most:
                    next_, gone = gone[: at_most - total], gone[at_most - total :]
                    clearing = side_by_side(changes.clear, next_, at_once=self._at_once)
                    total += sum(await to_its_end(clearing))
                    self._pruned_up_to = next_[-1]
                if total >= at_most:
                    return total
            if page:
                self._pruned_up_to = page[-1].name
        self._pruned_up_to = None
        return total

    async def aclose(self) -> None:
        """Take no further calls. Those under way come to their end. Idempotent."""
        self._is_closed = True
        self._opened = None

    async def _once_around(
        self, objects: Objects, after: str | None
    ) -> AsyncIterator[Sequence[Listed]]:
        """List all objects, from behind one to the last, and from the first to that one."""
        async for page in objects.pages(after):
            yield page
        if after is None:
            return
        async for page in objects.pages(None):
            yield [listed for listed in page if listed.name <= after]
            if page and page[-1].name >= after:
                return

    async def _contents(self, objects: Objects, some: Sequence[Listed]) -> list[Content | None]:
        """Say what listed objects are, looking only where the listing doesn't tell."""

        async def content(listed: Listed) -> Content | None:
            if not listed.may_say_more:
                return Content(b"")
            found = await objects.look(listed.name)
            return None if found is None else found.content

        return await side_by_side(content, some, at_once=self._at_once)

    def _open(self) -> _Opened:
        if self._is_closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        if self._opened is None:
            objects = Objects(
                *self._stores,
                self._folder,
                name=self.name,
                timeout=self._timeout,
                at_once=self._at_once,
            )
            changes = Changes(objects, name=self.name, timeout=self._timeout)
            self._opened = _Opened(objects, changes)
        return self._opened

    def _name_of(self, key: str) -> str:
        name = object_name_of(key)
        if len(name) > self._longest_name:
            text = (
                f"the object's name would take {len(name)} bytes, and {self._longest_name} are "
                "possible. Use shorter keys"
            )
            raise StorageUnavailable(storage=self.name, key=key, reason=text)
        return name


class _Opened(NamedTuple):
    objects: Objects
    changes: Changes


def _folder(prefix: str) -> str:
    """Bring a prefix into the form in which objects' names have it."""
    folder = prefix.strip("/")
    if any(part in ("", ".", "..") for part in folder.split("/")) and folder:
        text = f"prefix={prefix!r} must be names with a slash between them, none of them . or .."
        raise ConfigurationError(text)
    return folder


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        text = "endpoint= must be http://host or https://host, without a name or password in it"
        raise ConfigurationError(text)


def _stores(
    bucket: str, config: dict[str, Any], timeout: float, connect_timeout: float
) -> tuple[S3Store, S3Store]:
    """Make a store that repeats what failed, for reading, and one that doesn't, for writing."""
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    from_environment = next(filter(None, map(os.environ.get, variables)), "")
    client: Any = {
        "allow_http": config.get("endpoint", from_environment).startswith("http://"),
        "connect_timeout": f"{connect_timeout * 1000:.0f}ms",
        # gramkeep's own timeout comes first, and is one for all that is repeated
        "timeout": f"{(timeout + 1) * 1000:.0f}ms",
        "pool_idle_timeout": "20s",  # Amazon closes what is idle a little later
    }
    backoff = {
        "init_backoff": timedelta(milliseconds=50),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    }
    retrying: Any = {
        "max_retries": RETRIES,
        "backoff": backoff,
        "retry_timeout": timedelta(seconds=timeout),
    }
    config = config | {"disable_bulk_delete": True}  # which not all servers have
    once: Any = {"max_retries": 0}
    try:
        return (
            S3Store(bucket, client_options=client, retry_config=retrying, **config),
            S3Store(bucket, client_options=client, retry_config=once, **config),
        )
    except (BaseError, ValueError) as error:
        text = f"obstore can't make an S3 client of the options and the environment: {error}"
        raise ConfigurationError(text.partition("\n")[0]) from error


def _is_rest(content: Content | None) -> bool:
    """Whether an object is neither a session nor about to be removed by somebody."""
    return content is not None and not content.is_there and not content.is_being_removed


def _parts(listed: list[Listed]) -> Iterator[list[Listed]]:
    for at in range(0, len(listed), LOOKED_AT_TOGETHER):
        yield listed[at : at + LOOKED_AT_TOGETHER]
