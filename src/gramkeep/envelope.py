"""The envelope in which version and expiry are kept with the data, and migrations by version.

Its form is that of grammY's ``enhanceStorage``: ``{"v": version, "__d": data, "e": expiry}``, the
expiry in milliseconds since the epoch, ``v`` and ``e`` left out where there are none. What needs
neither is stored bare.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from gramkeep.errors import ConfigurationError

T = TypeVar("T")

Version: TypeAlias = int | float
Migrations: TypeAlias = Mapping[Version, Callable[[Any], Any | Awaitable[Any]]]

MARK: Final = "__d"
_NAMES: Final = {MARK, "v", "e"}


class Envelope(msgspec.Struct, Generic[T], omit_defaults=True, kw_only=True):
    """State with its version and the moment it expires, in milliseconds since the epoch."""

    version: int | float | None = msgspec.field(name="v", default=None)
    data: T = msgspec.field(name=MARK)
    expires: int | float | None = msgspec.field(name="e", default=None)


def is_envelope(value: Any) -> bool:
    """Whether a decoded value has the form of an envelope and nothing else in it.

    Anything else with a ``__d`` in it is a user's own data: other fields beside it, or a version
    or expiry that is no number.
    """
    return (
        isinstance(value, dict)
        and MARK in value
        and value.keys() <= _NAMES
        and all(_is_number_or_none(value.get(name)) for name in ("v", "e"))
    )


def opened(value: Any) -> Envelope[Any]:
    """Give a decoded value as an envelope: the one it is, or a new one around a bare value."""
    if is_envelope(value):
        return Envelope(version=value.get("v"), data=value[MARK], expires=value.get("e"))
    return Envelope(data=value)


def closed(envelope: Envelope[Any]) -> dict[str, Any]:
    """Give an envelope as the dict that is stored, its fields in grammY's order."""
    value: dict[str, Any] = {}
    if envelope.version is not None:
        value["v"] = envelope.version
    value[MARK] = envelope.data
    if envelope.expires is not None:
        value["e"] = envelope.expires
    return value


def expiry_in(seconds: float) -> int:
    """Give the moment that many seconds from now, in milliseconds since the epoch."""
    return int(time.time() * 1000) + math.ceil(seconds * 1000)


def is_expired(envelope: Envelope[Any]) -> bool:
    """Whether its last millisecond is over, as grammY counts it."""
    return envelope.expires is not None and envelope.expires < int(time.time() * 1000)


class NewerVersion(Exception):
    """The stored data is of a version that no migration leads to."""

    def __init__(self, version: Version, newest: Version | None) -> None:
        super().__init__(version, newest)
        self.version = version
        self.newest = newest


class MigrationFailed(Exception):
    """A migration raised: ``reason`` says which one, and what."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_migrations(migrations: Any) -> None:
    """Raise `ConfigurationError` unless it maps versions to functions, or is ``None``."""
    if migrations is None:
        return
    if not isinstance(migrations, Mapping):
        text = f"migrations={migrations!r} must map versions to functions: {{1: to_1, 2: to_2}}"
        raise ConfigurationError(text)
    for version, migration in migrations.items():
        if type(version) not in (int, float) or not math.isfinite(version):
            text = f"migrations: version {version!r} must be a number"
            raise ConfigurationError(text)
        if not callable(migration):
            text = f"migrations: {migration!r}, of version {version}, can't be called"
            raise ConfigurationError(text)


class Versions:
    """The versions that data can have, and the way from each to the newest.

    ``newest`` is the highest version that ``migrations`` has, ``None`` if there are none.
    """

    def __init__(self, migrations: Migrations | None) -> None:
        self._migrations = sorted((migrations or {}).items(), key=lambda item: item[0])
        self.newest: Version | None = self._migrations[-1][0] if self._migrations else None

    async def migrate(self, data: Any, version: Version | None) -> Any:
        """Run every migration above ``version`` once, in numeric order; all, if it is ``None``.

        A migration may change the data it is given. Raises `NewerVersion`, `MigrationFailed`.
        """
        if version is not None and (self.newest is None or version > self.newest):
            raise NewerVersion(version, self.newest)
        if version == self.newest:
            return data
        for target, migration in self._migrations:
            if version is None or target > version:
                try:
                    data = migration(data)
                    if inspect.isawaitable(data):
                        data = await data
                except Exception as error:
                    name = getattr(migration, "__name__", repr(migration))
                    reason = (
                        f"migration {name} to version {target} raised "
                        f"{type(error).__name__}: {error}"
                    )
                    raise MigrationFailed(reason) from error
        return data


def _is_number_or_none(value: Any) -> bool:
    return value is None or type(value) in (int, float)
