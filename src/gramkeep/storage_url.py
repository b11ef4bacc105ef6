"""From a URL to the storage it names; drivers are imported only when one is named."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from gramkeep.errors import ConfigurationError
from gramkeep.storage import Storage
from gramkeep.storages.url_options import without_password


class Backend(NamedTuple):
    """Where the storage for a scheme is defined; its class makes itself ``from_url``."""

    module: str
    class_name: str


_REDIS = Backend("gramkeep.storages.redis", "RedisStorage")
_POSTGRES = Backend("gramkeep.storages.postgres", "PostgresStorage")
_MYSQL = Backend("gramkeep.storages.mysql", "MySQLStorage")
_MONGODB = Backend("gramkeep.storages.mongodb", "MongoStorage")

BACKENDS = {
    "memory": Backend("gramkeep.storages.memory", "MemorySessionStorage"),
    "sqlite": Backend("gramkeep.storages.sqlite", "SQLiteStorage"),
    "file": Backend("gramkeep.storages.file", "FileStorage"),
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "valkey+cluster": _REDIS,
    "valkeys+cluster": _REDIS,
    "valkey+sentinel": _REDIS,
    "valkeys+sentinel": _REDIS,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "mongodb": _MONGODB,
    "mongodb+srv": _MONGODB,
    "s3": Backend("gramkeep.storages.s3", "S3Storage"),
}


def storage_from_url(url: str) -> Storage:
    """Make the storage that ``url`` names; it opens its connections when first used.

    Raises `ConfigurationError` for an unknown scheme, a URL that its storage can't read, or a
    driver that isn't installed.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    backend = BACKENDS.get(scheme)
    if backend is None:
        known = ", ".join(f"{name}://" for name in BACKENDS)
        what = f"has the unknown scheme {scheme!r}" if scheme else "has no scheme"
        text = f"storage URL {without_password(url)!r} {what}; known are {known}"
        raise ConfigurationError(text)
    storage_class = getattr(import_module(backend.module), backend.class_name)
    try:
        storage = storage_class.from_url(url)
    except ValueError as error:
        # urllib's text may have a part of the password in it, where that looks like a port.
        reason = "its host or port isn't one" if "@" in url else str(error)
        text = f"storage URL {without_password(url)!r} can't be read: {reason}"
        raise ConfigurationError(text) from None
    assert isinstance(storage, Storage)  # noqa: S101 - of our own table, for the type checker
    return storage
