"""Leases: who may write, and for how long."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio
import time

import pytest

from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, Change, Put, Storage
from gramkeep.testing.conformance.base import (
    Hooks,
    assert_lifetime,
    find,
    put,
    read,
    scanned,
    skip_unless_transactional,
    store,
    values,
)
from gramkeep.testing.conformance.owners import (
    MARGIN,
    SHORT,
    Owner,
    assert_free,
    assert_held,
    owners,
    taken,
)

HOUR = 3600.0

# What can be done to a value, and what is there afterwards: the value, and its lifetime.
CHANGES = {
    "bytes": ((b"new", None), (b"new", None)),
    "bytes with ttl": ((b"new", 2 * HOUR), (b"new", 2 * HOUR)),
    "DELETE": ((DELETE, None), None),
    "KEEP with ttl": ((KEEP, 2 * HOUR), (b"stored", 2 * HOUR)),
    "KEEP": ((KEEP, None), (b"stored", HOUR)),
}
every_change = pytest.mark.parametrize(("change", "left"), CHANGES.values(), ids=CHANGES)


async def assert_left(storage: Storage, key: str, left: tuple[bytes, float | None] | None) -> None:
    """Compare what is stored with the value and the lifetime that should be there."""
    if left is None:
        assert await find(storage, key) is None
        return
    record = await read(storage, key)
    assert record.value == left[0]
    if left[1] is None:
        assert record.expires_at is None
    else:
        assert_lifetime(record, left[1])


class Leases(Hooks):
    """Writing under a lease, and leases that end by themselves."""

    @every_change
    async def test_a_put_gives_the_lease_up(
        self,
        storage: Storage,
        change: tuple[bytes | Change, float | None],
        left: tuple[bytes, float | None] | None,
    ) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored", HOUR)
        record = taken(await one.claim("key"))
        assert await one.put("key", change[0], record.token, change[1]) is True
        await assert_left(storage, "key", left)
        await assert_free("key", for_=two)

    @every_change
    async def test_a_put_that_holds_keeps_the_lease(
        self,
        storage: Storage,
        change: tuple[bytes | Change, float | None],
        left: tuple[bytes, float | None] | None,
    ) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored", HOUR)
        record = taken(await one.claim("key"))
        assert await one.put("key", change[0], record.token, change[1], hold=True) is True
        await assert_left(storage, "key", left)
        await assert_held("key", against=two)
        await one.give_up("key")
        await assert_left(storage, "key", left)
        await assert_free("key", for_=two)

    async def test_giving_up_leaves_value_and_lifetime(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await storage.put([Put("lasting", b"1", ANY), Put("expiring", b"2", ANY, HOUR)])
        lasting, expiring = await one.claim_all(["lasting", "expiring"])
        for key in ("lasting", "expiring", "absent"):
            assert await one.give_up(key) is True
            await assert_free(key, for_=two)
        await assert_left(storage, "lasting", (b"1", None))
        await assert_left(storage, "expiring", (b"2", HOUR))
        await assert_left(storage, "absent", None)
        assert (await read(storage, "lasting")).token == taken(lasting).token
        assert (await read(storage, "expiring")).token == taken(expiring).token

    async def test_a_refused_put_gives_the_lease_up(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored")
        for key in ("key", "absent"):
            await one.claim(key)
            assert await one.put(key, b"new", "a token of nothing") is False
            await assert_free(key, for_=two)
        assert await values(storage, "key", "absent") == [b"stored", None]

    async def test_a_refused_put_that_holds_keeps_the_lease(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored")
        for key in ("key", "absent"):
            await one.claim(key)
            assert await one.put(key, b"new", "a token of nothing", hold=True) is False
            await assert_held(key, against=two)

    async def test_one_call_gives_up_some_keys_and_holds_others(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "refused", b"stored")
        await one.claim_all(["given up", "held", "refused"])
        puts = [
            Put("held", b"1", ANY, hold=True),
            Put("refused", b"1", ABSENT),
            Put("given up", b"1", ABSENT),
        ]
        assert await storage.put(puts, one.lease()) == [True, False, True]
        assert await values(storage, "held", "refused", "given up") == [b"1", b"stored", b"1"]
        await assert_held("held", against=two)
        await assert_free("refused", for_=two)
        await assert_free("given up", for_=two)

    @every_change
    async def test_another_owners_put_is_refused(
        self,
        storage: Storage,
        change: tuple[bytes | Change, float | None],
        left: tuple[bytes, float | None] | None,  # noqa: ARG002 - nothing of it happens
    ) -> None:
        one, two, three = owners(storage)
        await store(storage, "key", b"stored", HOUR)
        token = taken(await one.claim("key")).token
        for hold in (False, True):
            assert await two.put("key", change[0], ANY, change[1], hold=hold) is False
            assert await two.put("key", change[0], token, change[1], hold=hold) is False
        await assert_left(storage, "key", (b"stored", HOUR))
        await assert_held("key", against=three)
        assert await one.put("key", b"new", token) is True

    @every_change
    async def test_another_owners_put_of_what_is_not_there_is_refused(
        self,
        storage: Storage,
        change: tuple[bytes | Change, float | None],
        left: tuple[bytes, float | None] | None,  # noqa: ARG002 - nothing of it happens
    ) -> None:
        one, two, three = owners(storage)
        await one.claim("key")
        assert await two.put("key", change[0], ANY, change[1]) is False
        assert await two.put("key", change[0], ABSENT, change[1]) is False
        assert await find(storage, "key") is None
        await assert_held("key", against=three)
        assert await one.put("key", b"new", ABSENT) is True

    async def test_one_call_writes_what_no_other_owner_holds(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim("held")
        puts = [Put(key, b"1", ABSENT) for key in ("free", "held", "also free")]
        assert await storage.put(puts, two.lease()) == [True, False, True]
        assert await values(storage, "free", "held", "also free") == [b"1", None, b"1"]

    async def test_a_put_under_no_lease_taken_compares_alone(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        assert await one.put("key", b"1", ABSENT) is True
        assert await one.put("key", b"2", ABSENT) is False
        record = await read(storage, "key")
        assert await one.put("key", b"2", record.token) is True
        assert await one.put("key", b"3", record.token) is False
        await assert_free("key", for_=two)
        assert await one.put("key", b"3", ANY, hold=True) is True
        await assert_free("key", for_=two)  # what was never claimed can't be held either
        assert await values(storage, "key") == [b"3"]

    async def test_a_put_without_a_lease_compares_alone(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "key", b"stored")
        token = taken(await one.claim("key")).token
        await one.claim("absent")
        assert await put(storage, "key", b"new", token) is True
        assert await put(storage, "key", b"newer", token) is False
        assert await put(storage, "key", b"newest", ANY) is True
        assert await put(storage, "absent", b"1", ABSENT) is True
        assert await values(storage, "key", "absent") == [b"newest", b"1"]

    @every_change
    async def test_a_put_without_a_lease_leaves_the_lease(
        self,
        storage: Storage,
        change: tuple[bytes | Change, float | None],
        left: tuple[bytes, float | None] | None,
    ) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored", HOUR)
        await one.claim("key")
        assert await put(storage, "key", change[0], ANY, change[1]) is True
        await assert_left(storage, "key", left)
        await assert_held("key", against=two)
        assert await one.put("key", b"from the owner") is True
        await assert_free("key", for_=two)

    async def test_a_put_without_a_lease_uses_up_the_owners_token(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "key", b"stored")
        token = taken(await one.claim("key")).token
        await store(storage, "key", b"by somebody")
        assert await one.put("key", b"new", token) is False
        assert await one.claim("absent") is None
        await store(storage, "absent", b"by somebody")
        assert await one.put("absent", b"new", ABSENT) is False
        assert await values(storage, "key", "absent") == [b"by somebody"] * 2

    async def test_a_lease_outlives_the_value(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"1", ttl=SHORT)
        await one.claim("key")
        await asyncio.sleep(SHORT + MARGIN)
        await assert_held("key", against=two)
        await storage.prune(self.many)
        await store(storage, "another key", b"1")  # which may clear away what has expired
        await assert_held("key", against=two)
        assert await find(storage, "key") is None
        assert await one.put("key", b"new", ABSENT) is True

    async def test_pruning_takes_no_lease_away(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "stored", b"1")
        await one.claim_all(["stored", "absent"])
        await storage.prune(self.many)
        for key in ("stored", "absent"):
            await assert_held(key, against=two)

    async def test_a_value_outlives_the_lease(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "lasting", b"1")
        await store(storage, "expiring", b"1", HOUR)
        await one.claim_all(["lasting", "expiring"], seconds=SHORT)
        assert await one.put("written", b"1", ABSENT, hold=True) is True
        await asyncio.sleep(SHORT + MARGIN)
        await storage.prune(self.many)
        assert await scanned(storage) == ["expiring", "lasting", "written"]
        await assert_left(storage, "lasting", (b"1", None))
        await assert_left(storage, "expiring", (b"1", HOUR))

    # Leases that end by themselves

    async def test_a_lease_ends_after_its_seconds_and_not_before(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        asked = time.monotonic()
        await one.claim("key", seconds=2 * SHORT)
        claimed = time.monotonic()
        while True:
            asked_again = time.monotonic()
            if await two.claim("key") is not BUSY:
                break
            held_for = asked_again - claimed  # at least
            assert held_for < 2 * SHORT + MARGIN, "a lease doesn't end"
            await asyncio.sleep(0.01)
        held_for = time.monotonic() - asked  # at most
        assert held_for > 2 * SHORT - 0.02, "a lease ended early"

    async def test_a_late_owner_without_a_rival_can_write(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored")
        token = taken(await one.claim("key", seconds=SHORT)).token
        await one.claim("absent", seconds=SHORT)
        await asyncio.sleep(SHORT + MARGIN)
        assert await one.put("key", b"new", token) is True
        assert await one.put("absent", b"new", ABSENT) is True
        assert await values(storage, "key", "absent") == [b"new", b"new"]
        await assert_free("key", for_=two)

    async def test_a_late_owner_without_a_rival_can_claim_again(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim("key", seconds=SHORT)
        await asyncio.sleep(SHORT + MARGIN)
        assert await one.claim("key") is None
        await assert_held("key", against=two)

    @every_change
    async def test_a_late_owner_is_refused_while_a_rival_holds(
        self,
        storage: Storage,
        change: tuple[bytes | Change, float | None],
        left: tuple[bytes, float | None] | None,  # noqa: ARG002 - nothing of it happens
    ) -> None:
        one, two, three = owners(storage)
        await store(storage, "key", b"stored", HOUR)
        token = taken(await one.claim("key", seconds=SHORT)).token
        await asyncio.sleep(SHORT + MARGIN)
        assert taken(await two.claim("key")).value == b"stored"
        assert await one.claim("key") is BUSY
        assert await one.put("key", change[0], ANY, change[1]) is False
        assert await one.put("key", change[0], token, change[1]) is False
        await assert_left(storage, "key", (b"stored", HOUR))
        await assert_held("key", against=three)
        assert await two.put("key", b"by the rival", token) is True

    async def test_a_late_owner_is_refused_after_a_rivals_change(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored")
        token = taken(await one.claim("key", seconds=SHORT)).token
        await one.claim("absent", seconds=SHORT)
        await asyncio.sleep(SHORT + MARGIN)
        await two.claim_all(["key", "absent"])
        assert await two.put("key", b"by the rival") is True
        assert await two.put("absent", b"by the rival") is True
        assert await one.put("key", b"late", token) is False
        assert await one.put("absent", b"late", ABSENT) is False
        assert await values(storage, "key", "absent") == [b"by the rival"] * 2

    async def test_a_late_owner_can_write_if_a_rival_changed_nothing(
        self, storage: Storage
    ) -> None:
        one, two, _ = owners(storage)
        await store(storage, "key", b"stored")
        token = taken(await one.claim("key", seconds=SHORT)).token
        await asyncio.sleep(SHORT + MARGIN)
        await two.claim("key")
        assert await two.give_up("key") is True
        assert await one.put("key", b"late", token) is True
        assert await values(storage, "key") == [b"late"]

    # Atomic puts

    async def test_a_rivals_lease_undoes_an_atomic_put(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        skip_unless_transactional(storage)
        await store(storage, "a", b"stored")
        await one.claim_all(["a", "c"])
        await two.claim("b")
        puts = [Put("a", b"1", ANY), Put("b", b"1", ANY), Put("c", b"1", ABSENT, hold=True)]
        assert await storage.put(puts, one.lease(), atomic=True) == [True, False, True]
        assert await values(storage, "a", "b", "c") == [b"stored", None, None]
        await assert_free("a", for_=three)
        await assert_held("b", against=three)
        await assert_held("c", against=three)

    async def test_a_refused_atomic_put_gives_the_leases_up(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        skip_unless_transactional(storage)
        await store(storage, "a", b"stored")
        await one.claim_all(["a", "b", "c"])
        puts = [Put("a", b"1", ABSENT), Put("b", b"1", ABSENT), Put("c", b"1", ANY, hold=True)]
        assert await storage.put(puts, one.lease(), atomic=True) == [False, True, True]
        assert await values(storage, "a", "b", "c") == [b"stored", None, None]
        await assert_free("a", for_=two)
        await assert_free("b", for_=two)
        await assert_held("c", against=two)

    async def test_an_atomic_put_under_leases_writes_all(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        skip_unless_transactional(storage)
        await one.claim_all(["a", "b"])
        puts = [Put("a", b"1", ABSENT), Put("b", b"1", ABSENT, hold=True), Put("c", b"1", ANY)]
        assert await storage.put(puts, one.lease(), atomic=True) == [True, True, True]
        assert await values(storage, "a", "b", "c") == [b"1", b"1", b"1"]
        await assert_free("a", for_=two)
        await assert_held("b", against=two)

    # Other handles

    async def test_another_handle_respects_leases(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        async with self.reopened(storage) as second:
            two = Owner(second, "two")
            await store(storage, "key", b"stored")
            await one.claim_all(["key", "absent"])
            assert await two.claim_all(["key", "absent"]) == [BUSY, BUSY]
            assert await two.put("key", b"new") is False
            assert await two.put("absent", b"new") is False
            assert await one.put("key", b"by the owner") is True
            assert await one.put("absent", b"by the owner") is True
            answers = await two.claim_all(["key", "absent"])
            assert [taken(answer).value for answer in answers] == [b"by the owner"] * 2
            assert await one.claim_all(["key", "absent"]) == [BUSY, BUSY]
