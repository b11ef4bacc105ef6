"""`enhance_storage`: versions and lifetimes for any storage, kept as grammY keeps them.

Every value is stored in an envelope, ``{"v": version, "__d": data, "e": expiry}``: ``v`` only with
migrations, ``e``, in milliseconds since the epoch, only with a time to live. It is that of
``enhanceStorage`` in grammY's ``convenience/session.ts``, so that a bot written with either reads
what the other one wrote.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gramkeep.envelope import (
    Envelope,
    MigrationFailed,
    Migrations,
    NewerVersion,
    Versions,
    check_migrations,
    closed,
    expiry_in,
    opened,
)
from gramkeep.errors import ConfigurationError, NewerSessionVersion, SessionDecodeError
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import StorageAdapter
from gramkeep.storages.adapter import Calls, Shape, Shaped, is_there


class EnhancedAdapter(Shaped):
    """What `enhance_storage` returns: an adapter with all seven methods, for plain values.

    Also serves as ``storage=``; see there. ``name`` is how errors call the storage.
    """

    shape: _Enhanced

    async def read(self, key: str) -> Any:
        """Give the value stored under ``key``, migrated; ``None`` if there is none.

        Nothing is written: an older value is stored in its new form when it is written again.
        Raises `NewerSessionVersion`, `SessionDecodeError` if a migration raises,
        `StorageUnavailable`.
        """
        return await self._value(key, await self.calls.read(key))

    async def write(self, key: str, value: Any) -> None:
        """Store a value, of the newest version and with a new lifetime, whatever was there.

        Raises `StorageUnavailable`; of a storage of gramkeep's, also `SessionEncodeError`.
        """
        await self.calls.write(key, self.shape.fold(key, Envelope(data=value)))

    async def delete(self, key: str) -> None:
        """Remove what is stored under ``key``; if there is nothing, that is no error.

        Raises `StorageUnavailable`.
        """
        await self.calls.delete(key)

    async def has(self, key: str) -> bool:
        """Whether a value is stored under ``key``. Raises `StorageUnavailable`."""
        return is_there(await self.calls.read(key))

    async def read_all_keys(self) -> AsyncIterator[str]:
        """Iterate over all keys that have a value.

        Raises `ConfigurationError` if the storage can't list, `StorageUnavailable`.
        """
        async for key, stored in self.calls.entries():
            if is_there(stored):
                yield key

    async def read_all_values(self) -> AsyncIterator[Any]:
        """Iterate over all values, migrated. Raises what `read` and `read_all_keys` raise."""
        async for _, value in self.read_all_entries():
            yield value

    async def read_all_entries(self) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over all keys with their values; see `read_all_values`."""
        async for key, stored in self.calls.entries():
            if is_there(stored):
                yield key, await self._value(key, stored)

    async def _value(self, key: str, stored: Any) -> Any:
        if not is_there(stored):
            return None
        return (await self.shape.migrated(key, opened(stored))).data


def enhance_storage(
    *,
    storage: StorageAdapter[Any],
    migrations: Migrations | None = None,
    time_to_live: Lifetime | None = None,
) -> EnhancedAdapter:
    """Give a storage versions and a lifetime, stored in grammY's form.

    ``storage`` is any `StorageAdapter`, of grammY's kind or a `Storage` of gramkeep's; it isn't
    closed with what is returned. Listing needs its ``read_all_keys`` or ``read_all_entries``.

    ``migrations``: ``{version: old -> new}``, any numbers, run in numeric order, each once, on
    values older than it; functions may be async. What is stored without a version is older than
    all. A newer one than ``migrations`` has raises `NewerSessionVersion`, and is left as it is.

    ``time_to_live``: the lifetime of what is written, counted from each write, a timedelta or
    seconds. What has expired is not there, for every method, whether or not this is given. A
    value stored before there was a time to live gets one when it is next written.

    What has the form of an envelope, ``__d`` and nothing beside it but the numbers ``v`` and
    ``e``, is read as one. Any other value with a ``__d`` is a user's own, and stays as it is.

    Raises `ConfigurationError` for what isn't a storage, and for wrong migrations or lifetimes.
    """
    check_migrations(migrations)
    seconds = None
    if time_to_live is not None:
        seconds = positive_seconds("time_to_live", time_to_live)
    if isinstance(storage, str):
        text = (
            f"enhance_storage(storage={storage!r}) takes no URL: pass an object, of a class in "
            "gramkeep.storages or any with the methods read, write and delete"
        )
        raise ConfigurationError(text)
    calls = Calls(storage)
    return EnhancedAdapter(calls, _Enhanced(calls.name, Versions(migrations), seconds))


class _Enhanced(Shape):
    """Always an envelope, with the newest version and an expiry where there are such."""

    def __init__(self, name: str, versions: Versions, seconds: float | None) -> None:
        self._name = name
        self._versions = versions
        self._seconds = seconds

    async def unfold(self, key: str, envelope: Envelope[Any]) -> Envelope[Any]:
        """Migrate, unless the versions are those of the session's own migrations."""
        if self._versions.newest is None:
            return envelope
        return await self.migrated(key, envelope)

    def fold(self, key: str, envelope: Envelope[Any]) -> dict[str, Any]:
        """Make grammY's envelope."""
        version, expires = envelope.version, envelope.expires
        if self._versions.newest is not None:
            if version is not None:
                text = (
                    f"session {key!r} has migrations, and so has the enhance_storage() around "
                    f"{self._name}. Give them to one of the two: there is one version to a value"
                )
                raise ConfigurationError(text, key=key, storage=self._name)
            version = self._versions.newest
        if expires is None and self._seconds is not None:
            expires = expiry_in(self._seconds)
        return closed(Envelope(version=version, data=envelope.data, expires=expires))

    async def migrated(self, key: str, envelope: Envelope[Any]) -> Envelope[Any]:
        """Bring the data to the newest version, and take the version off it."""
        data, version = envelope.data, envelope.version
        if version != self._versions.newest:
            # It may be the adapter's own object, and migrations may change what they are given.
            data = copy.deepcopy(data)
        try:
            data = await self._versions.migrate(data, version)
        except NewerVersion as newer:
            raise NewerSessionVersion(
                key=key, storage=self._name, version=newer.version, newest=newer.newest
            ) from None
        except MigrationFailed as error:
            raise SessionDecodeError(
                key=key, storage=self._name, path="$", reason=error.reason
            ) from error
        return msgspec.structs.replace(envelope, version=None, data=data)
