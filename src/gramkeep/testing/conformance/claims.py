"""Claims: reading what nobody else may write from here on."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio

import pytest

from gramkeep.storage import ABSENT, ANY, BUSY, KEEP, Put, Storage
from gramkeep.testing.conformance.base import (
    Hooks,
    assert_lifetime,
    put,
    read,
    scanned,
    store,
    values,
)
from gramkeep.testing.conformance.keys import STRANGE_KEYS
from gramkeep.testing.conformance.owners import (
    MARGIN,
    SHORT,
    assert_held,
    owners,
    taken,
)
from gramkeep.testing.conformance.values import EXACT_BYTES

HOUR = 3600.0


class Claims(Hooks):
    """What a claim answers, and to whom."""

    async def test_a_claimed_key_is_busy_to_another_owner(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"1")
        assert taken(await one.claim("key")).value == b"1"
        assert await two.claim("key") is BUSY
        assert await two.claim("key", waited=1) is BUSY
        assert await two.claim("key", waited=1000) is BUSY

    async def test_what_is_not_there_can_be_claimed(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        assert await one.claim("key") is None
        assert await two.claim("key") is BUSY

    async def test_a_claim_answers_each_key_for_itself(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        await store(storage, "b", b"2")
        await store(storage, "c", b"3")
        await one.claim_all(["a", "c"])
        busy, stored, also_busy, absent = await two.claim_all(["a", "b", "c", "d"])
        assert (busy, also_busy) == (BUSY, BUSY)
        assert taken(stored).value == b"2"
        assert absent is None
        assert await three.claim_all(["d", "c", "b", "a"]) == [BUSY] * 4

    async def test_a_claim_of_nothing_is_answered_by_nothing(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        assert await one.claim_all([]) == []

    async def test_many_keys_are_claimed_in_one_call(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        keys = [f"key {n}" for n in range(self.many)]
        await storage.put([Put(key, key.encode(), ANY) for key in keys[::2]])
        answers = await one.claim_all(keys)
        assert [taken(answer).value for answer in answers[::2]] == [
            key.encode() for key in keys[::2]
        ]
        assert answers[1::2] == [None] * (self.many // 2)
        assert await two.claim_all(keys[::-1]) == [BUSY] * self.many
        puts = [Put(key, b"new", ANY) for key in keys]
        assert await storage.put(puts, two.lease()) == [False] * self.many
        assert await storage.put(puts, one.lease()) == [True] * self.many
        assert BUSY not in await two.claim_all(keys)

    @pytest.mark.parametrize("value", EXACT_BYTES.values(), ids=EXACT_BYTES)
    async def test_a_claim_gives_bytes_exactly(self, storage: Storage, value: bytes) -> None:
        one, *_ = owners(storage)
        await store(storage, "key", value)
        record = taken(await one.claim("key"))
        # Compared outside of the assert, which would print a mebibyte.
        is_same = record.value == value
        assert is_same, f"{len(record.value)} bytes came back, {len(value)} were stored"
        assert type(record.value) is bytes, "only bytes can't be changed by who reads them"

    async def test_a_claim_says_when_a_value_expires(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await storage.put([Put("lasting", b"1", ANY), Put("expiring", b"1", ANY, 25 * HOUR)])
        lasting, expiring = await one.claim_all(["lasting", "expiring"])
        assert taken(lasting).expires_at is None
        assert_lifetime(taken(expiring), 25 * HOUR)
        assert_lifetime(await read(storage, "expiring"), 25 * HOUR)

    async def test_the_token_of_a_claim_is_what_a_put_compares(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "key", b"old")
        record = taken(await one.claim("key"))
        assert await one.put("key", b"new", record.token) is True
        newer = taken(await one.claim("key"))
        assert newer.value == b"new"
        assert await one.put("key", b"newest", record.token, hold=True) is False
        assert await put(storage, "key", b"newest", newer.token) is True
        assert await values(storage, "key") == [b"newest"]

    async def test_a_token_read_before_holds_under_a_lease(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "key", b"old")
        record = await read(storage, "key")
        await one.claim("key")
        assert await one.put("key", b"new", record.token) is True

    async def test_an_expired_value_is_absent_to_a_claim(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"1", ttl=SHORT)
        await asyncio.sleep(SHORT + MARGIN)
        assert await one.claim("key") is None
        assert await two.claim("key") is BUSY
        assert await one.put("key", b"new", ABSENT) is True

    async def test_a_claim_of_what_is_not_there_shows_nowhere(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        assert await one.claim_all(["given up", "held"]) == [None, None]
        assert await one.claim("ran out", seconds=SHORT) is None
        assert await two.claim("held", waited=1) is BUSY
        assert await one.give_up("given up") is True
        for _ in range(2):
            assert await values(storage, "given up", "held", "ran out") == [None] * 3
            assert await storage.has("held") is False
            assert await scanned(storage) == []
            assert await scanned(storage, "held") == []
            await asyncio.sleep(SHORT + MARGIN)

    async def test_what_nobody_stored_expects_absence_under_a_lease(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        assert await one.claim("key") is None
        assert await one.put("key", b"1", ABSENT, hold=True) is True
        assert await one.put("key", b"2", ABSENT, hold=True) is False
        assert await values(storage, "key") == [b"1"]
        assert await scanned(storage) == ["key"]

    async def test_a_get_ignores_leases(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "key", b"1")
        await one.claim_all(["key", "absent"])
        assert await values(storage, "key", "absent") == [b"1", None]

    async def test_the_owner_can_claim_again(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"1")
        first = taken(await one.claim("key"))
        again = taken(await one.claim("key"))
        assert (again.value, again.token) == (b"1", first.token)
        await assert_held("key", against=two)

    async def test_claiming_again_counts_the_lease_from_now(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim("key", seconds=SHORT)
        await one.claim("key")
        await asyncio.sleep(SHORT + MARGIN)
        assert await two.claim("key") is BUSY

    async def test_any_key_can_be_claimed_for_itself(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        ones, twos = STRANGE_KEYS[::2], STRANGE_KEYS[1::2]
        assert await one.claim_all(ones) == [None] * len(ones)
        answers = await two.claim_all(STRANGE_KEYS)
        assert answers[::2] == [BUSY] * len(ones)
        assert answers[1::2] == [None] * len(twos)
        assert await scanned(storage) == []
        await storage.put([Put(key, KEEP, ANY) for key in ones], two.lease())  # to wait no more
        puts = [Put(key, key.encode(), ANY) for key in STRANGE_KEYS]
        answered = await storage.put(puts, one.lease())
        assert answered == [n % 2 == 0 for n in range(len(STRANGE_KEYS))]
        assert await scanned(storage) == sorted(ones)
        answers = await three.claim_all(STRANGE_KEYS)
        assert [taken(answer).value for answer in answers[::2]] == [key.encode() for key in ones]
        assert answers[1::2] == [BUSY] * len(twos)
