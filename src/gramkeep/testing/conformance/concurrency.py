"""Many at once, and some that don't wait for the end."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio

from gramkeep.storage import ABSENT, ANY, DELETE, Put, Storage
from gramkeep.testing.conformance.base import (
    ROUNDS,
    Hooks,
    find,
    promptly,
    put,
    read,
    scanned,
    settled,
    skip_unless_transactional,
    store,
    values,
)

WRITERS = 8
INCREMENTS = 10
MANY = 200

LATE = 0.25  # seconds in which a write that wasn't settled would come to light


async def count_up(storage: Storage) -> None:
    """Increment one counter, again and again, as two processes would without a lock."""
    for _ in range(INCREMENTS):
        while True:
            record = await find(storage, "counter")
            count = 0 if record is None else int(record.value)
            await asyncio.sleep(0)  # for storages that would answer without letting others run
            expected = ABSENT if record is None else record.token
            if await put(storage, "counter", b"%d" % (count + 1), expected):
                break


async def transfer(storage: Storage, source: str, target: str) -> None:
    """Move 1 from one key to another, in one atomic put."""
    while True:
        records = [record for record in await storage.get([source, target]) if record is not None]
        taken, given = records
        await asyncio.sleep(0)
        puts = [
            Put(source, b"%d" % (int(taken.value) - 1), taken.token),
            Put(target, b"%d" % (int(given.value) + 1), given.token),
        ]
        if all(await storage.put(puts, atomic=True)):
            break


class Concurrency(Hooks):
    """Compare-and-set under contention, and cancellation at any moment."""

    async def test_writers_that_compare_lose_no_update(self, storage: Storage) -> None:
        async with promptly():
            await asyncio.gather(*(count_up(storage) for _ in range(WRITERS)))
        assert await values(storage, "counter") == [b"%d" % (WRITERS * INCREMENTS)]

    async def test_writers_over_two_handles_lose_no_update(self, storage: Storage) -> None:
        async with self.reopened(storage) as second, promptly():
            handles = [storage, second] * (WRITERS // 2)
            await asyncio.gather(*(count_up(handle) for handle in handles))
            counted = b"%d" % (WRITERS * INCREMENTS)
            assert await values(storage, "counter") == [counted]
            assert await values(second, "counter") == [counted]

    async def test_atomic_transfers_keep_the_sum(self, storage: Storage) -> None:
        skip_unless_transactional(storage)
        keys = ("a", "b", "c")
        await storage.put([Put(key, b"100", ANY) for key in keys])
        transfers = [("a", "b"), ("b", "a"), ("b", "c"), ("a", "c")] * 3
        async with promptly():
            await asyncio.gather(*(transfer(storage, *way) for way in transfers))
        stored = [int(value or b"0") for value in await values(storage, *keys)]
        assert stored == [100 - 3, 100 - 3, 100 + 6]

    async def test_of_many_that_expect_absence_one_succeeds(self, storage: Storage) -> None:
        async with promptly():
            answers = await asyncio.gather(
                *(put(storage, "key", b"%d" % n, ABSENT) for n in range(MANY))
            )
        assert answers.count(True) == 1
        assert await values(storage, "key") == [b"%d" % answers.index(True)]

    async def test_changes_of_different_keys_go_side_by_side(self, storage: Storage) -> None:
        keys = [f"key {n}" for n in range(MANY)]
        async with promptly():
            answers = await asyncio.gather(*(put(storage, key, key.encode()) for key in keys))
            assert answers == [True] * MANY
            stored = await asyncio.gather(*(values(storage, key) for key in keys))
        lost = [key for key, there in zip(keys, stored, strict=True) if there != [key.encode()]]
        assert lost == [], "keys that don't have what was stored under them"
        assert await scanned(storage) == sorted(keys)

    async def test_readers_see_whole_values(self, storage: Storage) -> None:
        whole = [bytes([byte]) * 100_000 for byte in b"ab"]
        await store(storage, "key", whole[0])
        async with promptly():
            writing = asyncio.gather(*(store(storage, "key", whole[n % 2]) for n in range(MANY)))
            seen = await asyncio.gather(*(values(storage, "key") for _ in range(MANY)))
            await writing
        torn = [len(value or b"") for (value,) in seen if value not in whole]
        assert torn == [], "lengths of values that nobody stored"

    async def test_a_cancelled_put_leaves_the_old_value_or_the_new(self, storage: Storage) -> None:
        await store(storage, "replaced", b"old")
        await store(storage, "deleted", b"old")
        for round_ in range(ROUNDS):
            puts = [
                Put("replaced", b"new", ANY),
                Put("deleted", DELETE, ANY),
                Put("made", b"new", ABSENT),
            ]
            await self.interrupt(storage.put(puts), round_)
            replaced, deleted, made = await values(storage, "replaced", "deleted", "made")
            assert replaced in {b"old", b"new"}
            assert deleted in {b"old", None}
            assert made in {None, b"new"}
            await store(storage, "replaced", b"old")
            await store(storage, "deleted", b"old")
            assert await put(storage, "made", DELETE) is True

    async def test_a_cancelled_put_is_settled(self, storage: Storage) -> None:
        first: list[bytes | None] = []
        for round_ in range(ROUNDS):
            key = f"key {round_}"
            await store(storage, key, b"old")
            await self.interrupt(storage.put([Put(key, b"new", ANY)]), round_)
            first += await values(storage, key)
        await asyncio.sleep(LATE)
        assert await values(storage, *(f"key {round_}" for round_ in range(ROUNDS))) == first

    async def test_what_a_cancelled_put_leaves_can_be_built_on(self, storage: Storage) -> None:
        keys = [f"key {round_}" for round_ in range(ROUNDS)]
        for round_, key in enumerate(keys):
            await store(storage, key, b"old")
            await self.interrupt(storage.put([Put(key, b"new", ANY)]), round_)
            left = await read(storage, key)
            assert await put(storage, key, left.value + b" and more", left.token) is True
        await asyncio.sleep(LATE)
        for stored in await values(storage, *keys):
            assert stored in {b"old and more", b"new and more"}

    async def test_a_cancelled_atomic_put_leaves_all_or_nothing(self, storage: Storage) -> None:
        skip_unless_transactional(storage)
        for round_ in range(ROUNDS):
            keys = [f"key {n} of {round_}" for n in range(3)]
            puts = [Put(key, b"new", ABSENT) for key in keys]
            await self.interrupt(storage.put(puts, atomic=True), round_)
            assert await values(storage, *keys) in [[None] * 3, [b"new"] * 3]

    async def test_cancelling_a_put_leaves_those_beside_it_alone(self, storage: Storage) -> None:
        for round_ in range(ROUNDS):
            keys = [f"key {n} of {round_}" for n in range(3)]
            beside = [asyncio.create_task(put(storage, key, b"1", ABSENT)) for key in keys]
            await self.interrupt(storage.put([Put("cancelled", b"1", ANY)]), round_)
            assert await settled(*beside) == [True] * len(keys)
            assert await values(storage, *keys) == [b"1"] * len(keys)

    async def test_cancelling_a_get_harms_nothing(self, storage: Storage) -> None:
        await store(storage, "key", b"1")
        for round_ in range(ROUNDS):
            await self.interrupt(storage.get(["key"]), round_)  # alone, then with others
            beside = [asyncio.create_task(values(storage, "key", "x")) for _ in range(3)]
            await self.interrupt(storage.get(["key", "cancelled"]), round_)
            assert await settled(*beside) == [[b"1", None]] * len(beside)
            assert await put(storage, "key", b"1", (await read(storage, "key")).token) is True
