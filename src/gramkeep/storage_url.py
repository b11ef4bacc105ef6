"""From a URL to the storage it names; drivers are imported only when one is named."""

from __future__ import annotations

import re
from importlib import import_module
from typing import NamedTuple

from gramkeep.errors import ConfigurationError
from gramkeep.storage import Storage


class Backend(NamedTuple):
    """Where the storage for a scheme is defined; its class makes itself ``from_url``."""

    module: str
    class_name: str


BACKENDS = {
    "memory": Backend("gramkeep.storages.memory", "MemorySessionStorage"),
    "sqlite": Backend("gramkeep.storages.sqlite", "SQLiteStorage"),
    "file": Backend("gramkeep.storages.file", "FileStorage"),
}


def storage_from_url(url: str) -> Storage:
    """Make the storage that ``url`` names; it opens its connections when first used.

    Raises `ConfigurationError` for an unknown scheme or a URL that its storage can't read.
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
        text = f"storage URL {without_password(url)!r} can't be read: {error}"
        raise ConfigurationError(text) from error
    assert isinstance(storage, Storage)  # noqa: S101 - of our own table, for the type checker
    return storage


def without_password(url: str) -> str:
    """Give the URL as it may stand in logs."""
    url = re.sub(r"(?<=//)([^/?#:]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", r"\1***", url)
