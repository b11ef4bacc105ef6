"""Sessions in the memory of this process: for tests, and for what may be forgotten."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from gramkeep.errors import ConfigurationError
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Lease, Put, Record, Storage


class MemorySessionStorage(Storage):
    """Keeps encoded sessions in a dict, so that nobody shares live objects.

    ``time_to_live``: lifetime of what is stored without one of its own, a timedelta or seconds.
    Expired sessions give their memory back as later ones are written.
    """

    transactional = True
    outlives_closing = True

    def __init__(self, time_to_live: Lifetime | None = None) -> None:
        self.name = "memory://"
        self._ttl: float | None = None
        if time_to_live is not None:
            self._ttl = positive_seconds("time_to_live", time_to_live)
        self._records: dict[str, Record] = {}
        self._expiries: list[tuple[float, str]] = []

    @classmethod
    def from_url(cls, url: str) -> MemorySessionStorage:
        """Make a storage from ``memory://``."""
        parts = urlsplit(url)
        if parts.netloc or parts.path or parts.query:
            text = f"storage URL {url!r}: memory:// takes nothing more"
            raise ConfigurationError(text)
        return cls()

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys."""
        # Where nothing expires there is nothing to look at.
        return list(map(self._find if self._expiries else self._records.get, keys))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes."""
        if atomic:
            expected = [self._is_expected(put) for put in puts]
            if not all(expected):
                return expected
        outcomes = list(map(self._carry_out, puts))
        if self._expiries:
            self._forget_expired(len(self._expiries))
        return outcomes

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``."""
        for key in list(self._records):
            if key.startswith(prefix) and self._find(key) is not None:
                yield key

    async def prune(self, at_most: int) -> int:
        """Remove some expired values."""
        return self._forget_expired(at_most)

    async def aclose(self) -> None:
        """Do nothing: what is stored lives as long as this object."""

    def _find(self, key: str) -> Record | None:
        record = self._records.get(key)
        if record is None or record.expires_at is None or record.expires_at > time.time():
            return record
        del self._records[key]
        return None

    def _is_expected(self, put: Put) -> bool:
        if put.expected is ANY:
            return True
        record = self._find(put.key)
        if record is None:
            return put.expected is ABSENT
        return record.token == put.expected

    def _carry_out(self, put: Put) -> bool:
        if not self._is_expected(put):
            return False
        value = put.value
        if value is DELETE:
            self._records.pop(put.key, None)
            return True
        if value is KEEP:
            record = self._find(put.key)
            if record is None or put.ttl is None:
                return True
            value = record.value
        ttl = put.ttl or self._ttl
        expires_at = None if ttl is None else time.time() + ttl
        # The value is its own token: equal bytes are an equal basis to build on.
        self._records[put.key] = Record(value, value, expires_at)
        if expires_at is not None:
            heapq.heappush(self._expiries, (expires_at, put.key))
        return True

    def _forget_expired(self, at_most: int) -> int:
        now, expiries, before = time.time(), self._expiries, len(self._records)
        while expiries and expiries[0][0] <= now and before - len(self._records) < at_most:
            self._find(heapq.heappop(expiries)[1])
        if len(expiries) > 64 + 2 * len(self._records):  # mostly of values written again since
            self._expiries = [
                (record.expires_at, key)
                for key, record in self._records.items()
                if record.expires_at is not None
            ]
            heapq.heapify(self._expiries)
        return before - len(self._records)
