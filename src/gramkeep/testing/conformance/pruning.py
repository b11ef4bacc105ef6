"""What `prune` removes, and how much of it. A server that does so by itself leaves it nothing."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio

from gramkeep.storage import ANY, Put, Storage
from gramkeep.testing.conformance.base import Hooks, assert_lifetime, read, scanned, store
from gramkeep.testing.conformance.expiry import HOUR, MARGIN, SHORT

ALL = 100  # more than there are


async def let_expire(storage: Storage, *keys: str) -> None:
    """Store values, and wait until they have expired."""
    assert all(await storage.put([Put(key, b"expired", ANY, SHORT) for key in keys]))
    await asyncio.sleep(SHORT + MARGIN)


class Pruning(Hooks):
    """What is removed, and what is said of it: the number, or 0 if it was gone already."""

    async def test_pruning_removes_what_has_expired_and_nothing_else(
        self, storage: Storage
    ) -> None:
        await store(storage, "lasting", b"1")
        await store(storage, "living", b"2", HOUR)
        await let_expire(storage, *(f"expired {n}" for n in range(7)))
        assert await storage.prune(ALL) in {7, 0}
        assert await storage.prune(ALL) == 0, "what was removed was there again"
        assert await scanned(storage) == ["lasting", "living"]
        lasting, living = await read(storage, "lasting"), await read(storage, "living")
        assert (lasting.value, lasting.expires_at, living.value) == (b"1", None, b"2")
        assert_lifetime(living, HOUR)

    async def test_pruning_removes_no_more_than_asked_for(self, storage: Storage) -> None:
        await store(storage, "lasting", b"1")
        await let_expire(storage, *(f"expired {n}" for n in range(7)))
        assert [await storage.prune(3) for _ in range(4)] in ([3, 3, 1, 0], [0] * 4)

    async def test_fewer_than_asked_for_were_all(self, storage: Storage) -> None:
        await store(storage, "lasting", b"1")
        await let_expire(storage, "b1", "b2", "b3")
        await storage.prune(2)
        # What lies before those has expired since, for a storage that goes on where it came to.
        await let_expire(storage, "a1", "a2", "c1")
        assert await storage.prune(ALL) < ALL
        assert await storage.prune(ALL) == 0, "the last time it said that this was all"
