"""Lifetimes: an expired value is not there, for every method, and to the fraction of a second."""

# A test suite asserts:
# ruff: noqa: S101
# What is set in a loop over `attempts()` is set: there is one at least.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio

import pytest

from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record, Storage
from gramkeep.testing.conformance.base import (
    Hooks,
    assert_lifetime,
    attempts,
    find,
    put,
    read,
    scanned,
    store,
    values,
)

SHORT = 0.15
SHORT_BUT_USABLE = 0.5  # to do something with the value before, over a network too
MARGIN = 0.1  # for clocks and timers that are coarser than ours
HOUR = 3600.0
DAY = 24 * HOUR


async def store_expired(storage: Storage, key: str, value: bytes) -> Record:
    """Store a value, read it, and let it expire."""
    for _ in attempts(within=SHORT_BUT_USABLE):
        await store(storage, key, value, ttl=SHORT_BUT_USABLE)
        record = await find(storage, key)
    await asyncio.sleep(SHORT_BUT_USABLE + MARGIN)
    assert record is not None, "it expired too early"
    return record


class Expiry(Hooks):
    """What lifetimes do, and what renews them."""

    async def test_a_value_without_ttl_never_expires(self, storage: Storage) -> None:
        await store(storage, "key", b"1")
        assert (await read(storage, "key")).expires_at is None

    @pytest.mark.parametrize("ttl", [90, 25 * HOUR, 14 * DAY, 400 * DAY])
    async def test_a_value_says_when_it_expires(self, storage: Storage, ttl: float) -> None:
        await store(storage, "key", b"1", ttl)
        assert_lifetime(await read(storage, "key"), ttl)

    async def test_fractions_of_a_second_count(self, storage: Storage) -> None:
        puts = [Put("short", b"1", ANY, SHORT), Put("longer", b"1", ANY, SHORT + 0.6)]
        for _ in attempts(within=SHORT + 0.6):
            assert await storage.put(puts) == [True, True]
            await asyncio.sleep(SHORT + MARGIN)
            left = await values(storage, "short", "longer")
        assert left == [None, b"1"]
        await asyncio.sleep(0.6)
        assert await values(storage, "short", "longer") == [None, None]

    async def test_an_expired_value_is_not_scanned(self, storage: Storage) -> None:
        await store(storage, "lasting", b"1", ttl=60)
        await store(storage, "short", b"1", ttl=SHORT)
        await asyncio.sleep(SHORT + MARGIN)
        assert await scanned(storage) == ["lasting"]
        assert await scanned(storage, "short") == []

    async def test_an_expired_value_counts_as_absent(self, storage: Storage) -> None:
        await store_expired(storage, "key", b"expired")
        assert await put(storage, "key", b"new", ABSENT) is True
        record = await read(storage, "key")
        assert (record.value, record.expires_at) == (b"new", None)
        await asyncio.sleep(MARGIN)
        assert await scanned(storage) == ["key"]

    async def test_what_expects_an_expired_value_is_refused(self, storage: Storage) -> None:
        expired = await store_expired(storage, "key", b"expired")
        assert await put(storage, "key", b"new", expired.token) is False
        assert await put(storage, "key", KEEP, expired.token, 60) is False
        assert await put(storage, "key", DELETE, expired.token) is False
        assert await find(storage, "key") is None

    async def test_an_expired_value_can_not_be_kept(self, storage: Storage) -> None:
        await store_expired(storage, "key", b"expired")
        assert await put(storage, "key", KEEP, ANY, 60) is True
        assert await find(storage, "key") is None
        assert await scanned(storage) == []

    async def test_an_expired_value_can_be_deleted(self, storage: Storage) -> None:
        await store_expired(storage, "key", b"expired")
        assert await put(storage, "key", DELETE, ABSENT) is True
        assert await put(storage, "key", DELETE, ANY) is True
        assert await find(storage, "key") is None

    async def test_storing_without_ttl_ends_an_expiry(self, storage: Storage) -> None:
        await store(storage, "key", b"old", ttl=SHORT)
        await store(storage, "key", b"new")
        assert (await read(storage, "key")).expires_at is None
        await asyncio.sleep(SHORT + MARGIN)
        assert await values(storage, "key") == [b"new"]
        assert await scanned(storage) == ["key"]

    async def test_storing_with_a_longer_ttl_extends_a_life(self, storage: Storage) -> None:
        await store(storage, "key", b"same", ttl=SHORT)
        await store(storage, "key", b"same", ttl=25 * HOUR)
        await asyncio.sleep(SHORT + MARGIN)
        record = await read(storage, "key")
        assert record.value == b"same"
        assert_lifetime(record, 25 * HOUR - SHORT - MARGIN)
        assert await scanned(storage) == ["key"]

    async def test_storing_with_a_shorter_ttl_shortens_a_life(self, storage: Storage) -> None:
        await store(storage, "key", b"same", ttl=25 * HOUR)
        await store(storage, "key", b"same", ttl=SHORT)
        await asyncio.sleep(SHORT + MARGIN)
        assert await find(storage, "key") is None

    async def test_a_refused_put_leaves_the_expiry(self, storage: Storage) -> None:
        await store(storage, "key", b"stored", ttl=HOUR)
        assert await put(storage, "key", b"new", ABSENT, 25 * HOUR) is False
        assert await put(storage, "key", b"new", ABSENT) is False
        assert_lifetime(await read(storage, "key"), HOUR)

    async def test_keep_counts_a_lifetime_anew(self, storage: Storage) -> None:
        for _ in attempts(within=SHORT_BUT_USABLE):
            await store(storage, "key", b"stored", ttl=SHORT_BUT_USABLE)
            assert await put(storage, "key", KEEP, ANY, 25 * HOUR) is True
        await asyncio.sleep(SHORT_BUT_USABLE + MARGIN)
        record = await read(storage, "key")
        assert record.value == b"stored"
        assert_lifetime(record, 25 * HOUR - SHORT_BUT_USABLE - MARGIN)
        assert await put(storage, "key", KEEP, record.token, HOUR) is True
        assert_lifetime(await read(storage, "key"), HOUR)

    async def test_keep_gives_a_lasting_value_a_lifetime(self, storage: Storage) -> None:
        await store(storage, "key", b"stored")
        assert await put(storage, "key", KEEP, ANY, SHORT) is True
        await asyncio.sleep(SHORT + MARGIN)
        assert await find(storage, "key") is None

    async def test_keep_without_ttl_leaves_the_expiry(self, storage: Storage) -> None:
        await store(storage, "expiring", b"1", ttl=HOUR)
        await store(storage, "lasting", b"1")
        answers = await storage.put([Put("expiring", KEEP, ANY), Put("lasting", KEEP, ANY)])
        assert answers == [True, True]
        assert_lifetime(await read(storage, "expiring"), HOUR)
        assert (await read(storage, "lasting")).expires_at is None
