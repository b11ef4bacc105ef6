"""Waiting for leases: who comes next, many at once, and some that don't wait for the end."""

# A test suite asserts:
# ruff: noqa: S101
# What is set in a loop over `attempts()` is set: there is one at least.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
import random
import time

from gramkeep.storage import ANY, BUSY, KEEP, PLACE_KEPT, Put, Storage
from gramkeep.testing.conformance.base import (
    ROUNDS,
    Hooks,
    attempts,
    promptly,
    put,
    settled,
    store,
    values,
)
from gramkeep.testing.conformance.owners import (
    LONG,
    MARGIN,
    Claimed,
    Owner,
    assert_free,
    owners,
    taken,
)

RIVALS = 4
INCREMENTS = 10
FAIR = 3  # increments that all have made before one has made all of its own
POLL = 0.002  # seconds between two claims of one who waits
HANDLING = 0.01  # seconds that a key is held, long enough for the others to ask meanwhile
MANY = 50
LATE = 0.25  # seconds in which a claim that wasn't settled would come to light


async def wait_for(owner: Owner, key: str) -> Claimed:
    """Ask for a key until the answer is another than BUSY, as a process does."""
    began = time.monotonic()
    while True:
        answer = await owner.claim(key, waited=time.monotonic() - began)
        if answer is not BUSY:
            return answer
        await asyncio.sleep(POLL)


async def count_under_lease(owner: Owner, counts: dict[str, int]) -> None:
    """Increment one counter, and compare nothing: only the lease keeps others away."""
    for _ in range(INCREMENTS):
        count = int(taken(await wait_for(owner, "counter")).value)
        await asyncio.sleep(HANDLING)
        assert await owner.put("counter", b"%d" % (count + 1)) is True
        counts[owner.name] += 1


async def count_together(rivals: list[Owner]) -> list[dict[str, int]]:
    """Let all count at once, and tell how far each one was whenever one had finished."""
    await store(rivals[0].storage, "counter", b"0")
    counts = dict.fromkeys((rival.name for rival in rivals), 0)
    when_done: list[dict[str, int]] = []

    async def count(rival: Owner) -> None:
        await count_under_lease(rival, counts)
        when_done.append(dict(counts))

    first = Owner(rivals[0].storage, "first")
    await first.claim("counter")  # so that all wait before one begins
    async with promptly():
        await asyncio.gather(*(rival.claim("counter") for rival in rivals))
        await asyncio.gather(first.give_up("counter"), *map(count, rivals))
    return when_done


class Waiting(Hooks):
    """The order of those who wait, contention, and cancellation."""

    # Who comes next

    async def test_who_has_waited_for_longer_comes_first(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        for key in attempts(within=PLACE_KEPT):
            assert await one.claim(key) is None
            assert await two.claim(key, waited=1) is BUSY
            await one.give_up(key)
            again = await one.claim(key)
            newcomer = await three.claim(key, waited=0.5)
            waiter = await two.claim(key, waited=1)
        assert (again, newcomer, waiter) == (BUSY, BUSY, None)

    async def test_a_place_is_kept_between_two_claims(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        for key in attempts(within=PLACE_KEPT):
            await one.claim(key)
            assert await two.claim(key, waited=1) is BUSY
            await one.give_up(key)
            await asyncio.sleep(PLACE_KEPT / 2)
            again = await one.claim(key)
        assert again is BUSY

    async def test_a_place_is_kept_as_long_as_its_waiter_asks(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        pause = PLACE_KEPT * 0.52  # two of them are longer than a place is kept
        for key in attempts(within=PLACE_KEPT + pause):
            await one.claim(key)
            assert await two.claim(key, waited=1) is BUSY
            await asyncio.sleep(pause)
            assert await two.claim(key, waited=1 + pause) is BUSY
            await one.give_up(key)
            await asyncio.sleep(pause)
            again = await one.claim(key)
        assert again is BUSY

    async def test_who_asks_no_more_loses_the_place(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim("key")
        assert await two.claim("key", waited=1) is BUSY
        await one.give_up("key")
        await asyncio.sleep(PLACE_KEPT + MARGIN)
        assert await one.claim("key") is None

    async def test_a_lost_place_can_be_taken_by_one_who_waited_less(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        pause = PLACE_KEPT + MARGIN
        for key in attempts(within=pause + PLACE_KEPT):
            await one.claim(key)
            assert await two.claim(key, waited=10) is BUSY
            await asyncio.sleep(pause)
            assert await three.claim(key, waited=1) is BUSY
            await one.give_up(key)
            again = await one.claim(key)
            waiter = await three.claim(key, waited=1)
        assert (again, waiter) == (BUSY, None)

    async def test_a_longer_wait_displaces_a_shorter_one(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        for key in attempts(within=PLACE_KEPT):
            await one.claim(key)
            assert await two.claim(key, waited=1) is BUSY
            assert await three.claim(key, waited=2) is BUSY
            await one.give_up(key)
            shorter = await two.claim(key, waited=1)
            longer = await three.claim(key, waited=2)
        assert (shorter, longer) == (BUSY, None)

    async def test_a_shorter_wait_does_not_displace_a_longer_one(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        for key in attempts(within=PLACE_KEPT):
            await one.claim(key)
            assert await two.claim(key, waited=2) is BUSY
            assert await three.claim(key, waited=1) is BUSY
            await one.give_up(key)
            shorter = await three.claim(key, waited=1)
            longer = await two.claim(key, waited=2)
        assert (shorter, longer) == (BUSY, None)

    async def test_the_longest_wait_comes_before_a_place_taken_earlier(
        self, storage: Storage
    ) -> None:
        one, two, three = owners(storage)
        await one.claim("key")
        assert await two.claim("key", waited=1) is BUSY
        await one.give_up("key")
        assert await three.claim("key", waited=2) is None

    async def test_who_waits_for_one_key_hinders_nobody_at_another(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim_all(["waited for", "beside"])
        assert await two.claim("waited for", waited=1) is BUSY
        await one.give_up("beside")
        assert await one.claim("beside") is None

    async def test_each_key_of_a_claim_has_its_own_wait(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        for key in attempts(within=PLACE_KEPT):
            other = f"other {key}"
            await one.claim_all([key, other])
            await two.storage.claim([other, key], two.lease(LONG, {key: 1}))
            await storage.put([Put(key, KEEP, ANY), Put(other, KEEP, ANY)], one.lease())
            answers = await one.claim_all([key, other], waited=0.5)
        assert answers == [BUSY, None]

    async def test_who_gives_the_place_up_hinders_nobody(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim_all(["before", "after"])
        assert await two.claim_all(["before", "after"], waited=1) == [BUSY, BUSY]
        assert await two.give_up("before") is False
        await one.give_up("before")
        await one.give_up("after")
        assert await two.give_up("after") is True
        assert await one.claim_all(["before", "after"]) == [None, None]

    async def test_who_got_the_key_waits_no_more(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        await one.claim("key")
        assert await two.claim("key", waited=1) is BUSY
        await one.give_up("key")
        assert await two.claim("key", waited=1, seconds=0.01) is None
        await asyncio.sleep(0.03)
        assert await three.claim("key") is None

    async def test_a_renewal_comes_before_those_who_wait(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim("key")
        assert await two.claim("key", waited=1) is BUSY
        assert await one.claim("key") is None

    async def test_those_who_wait_hinder_no_writing(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        await one.claim("key")
        assert await two.claim("key", waited=1) is BUSY
        assert await one.put("key", b"1", hold=True) is True
        assert await put(storage, "key", b"2") is True
        assert await one.put("key", b"3") is True
        assert await one.put("key", b"4") is True
        assert taken(await two.claim("key", waited=1)).value == b"4"

    async def test_a_late_owner_comes_after_those_who_wait(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        lasts = PLACE_KEPT / 2
        for key in attempts(within=PLACE_KEPT):
            await one.claim(key, seconds=lasts)
            await two.claim(key, waited=1)
            await asyncio.sleep(lasts + 0.01)
            late = await one.claim(key)
            waiter = await two.claim(key, waited=1)
        assert (late, waiter) == (BUSY, None)

    async def test_another_handle_waits_in_the_same_order(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        async with self.reopened(storage) as second:
            two = Owner(second, "two")
            for key in attempts(within=PLACE_KEPT):
                await one.claim(key)
                assert await two.claim(key, waited=1) is BUSY
                await one.give_up(key)
                again = await one.claim(key)
                waiter = await two.claim(key, waited=1)
            assert (again, waiter) == (BUSY, None)

    # Many at once

    async def test_of_many_that_claim_a_key_one_gets_it(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        await store(storage, "there", b"1")
        rivals = [one, *(Owner(storage, f"rival {n}") for n in range(MANY))]
        for key in ("there", "absent"):
            async with promptly():
                answers = await asyncio.gather(*(rival.claim(key) for rival in rivals))
                puts = [rival.put(key, b"new", hold=True) for rival in rivals]
                answered = await asyncio.gather(*puts)
            assert len(rivals) - answers.count(BUSY) == 1
            assert answered == [answer is not BUSY for answer in answers]

    async def test_claims_in_any_order_never_wait_for_each_other(self, storage: Storage) -> None:
        one, *_ = owners(storage)
        held: dict[str, str] = {}

        async def claim_and_give_up(owner: Owner, seed: int) -> None:
            order = random.Random(seed)  # noqa: S311 - keeps no secrets
            keys = [f"key {n}" for n in range(5)]
            for _ in range(INCREMENTS):
                order.shuffle(keys)
                answers = await owner.claim_all(keys)
                mine = [key for key, got in zip(keys, answers, strict=True) if got is not BUSY]
                assert [held[key] for key in mine if key in held] == [], "a key is held twice"
                held.update(dict.fromkeys(mine, owner.name))
                await asyncio.sleep(0)
                for key in mine:
                    del held[key]
                order.shuffle(keys)
                puts = [Put(key, b"1", ANY) for key in keys]
                done = dict(zip(keys, await storage.put(puts, owner.lease()), strict=True))
                assert [key for key in mine if not done[key]] == [], "an owner was refused"

        rivals = [one, *(Owner(storage, f"rival {n}") for n in range(2 * RIVALS))]
        async with promptly():
            await asyncio.gather(*(claim_and_give_up(rival, n) for n, rival in enumerate(rivals)))

    async def test_a_lease_alone_loses_no_update(self, storage: Storage) -> None:
        owners(storage)
        await count_together([Owner(storage, f"rival {n}") for n in range(RIVALS)])
        assert await values(storage, "counter") == [b"%d" % (RIVALS * INCREMENTS)]

    async def test_a_lease_alone_loses_no_update_over_two_handles(self, storage: Storage) -> None:
        owners(storage)
        async with self.reopened(storage) as second:
            handles = [storage, second] * (RIVALS // 2)
            await count_together([Owner(handle, f"rival {n}") for n, handle in enumerate(handles)])
            assert await values(storage, "counter") == [b"%d" % (RIVALS * INCREMENTS)]
            assert await values(second, "counter") == [b"%d" % (RIVALS * INCREMENTS)]

    async def test_no_owner_is_left_waiting_while_another_comes_again(
        self, storage: Storage
    ) -> None:
        owners(storage)
        rivals = [Owner(storage, f"rival {n}") for n in range(RIVALS)]
        counts, *_ = await count_together(rivals)
        assert min(counts.values()) >= FAIR, f"one had {INCREMENTS} while all had {counts}"

    # Cancellation

    async def test_a_cancelled_claim_can_be_given_up(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        keys = [f"key {round_}" for round_ in range(ROUNDS)]
        for round_, key in enumerate(keys):
            await self.interrupt(one.claim(key), round_)
            assert await one.give_up(key) is True
            await assert_free(key, for_=two)
        await asyncio.sleep(LATE)
        assert await two.claim_all(keys) == [None] * ROUNDS

    async def test_a_cancelled_claim_can_be_repeated(self, storage: Storage) -> None:
        one, two, _ = owners(storage)
        async with promptly():
            for round_ in range(ROUNDS):
                key = f"key {round_}"
                await self.interrupt(one.claim(key), round_)
                assert await one.claim(key) is None
                assert await two.claim(key) is BUSY

    async def test_cancelling_a_claim_leaves_those_beside_it_alone(self, storage: Storage) -> None:
        one, two, three = owners(storage)
        for round_ in range(ROUNDS):
            key = f"key {round_}"
            beside = [asyncio.create_task(two.claim(f"{key}, {n}")) for n in range(3)]
            await self.interrupt(one.claim(key), round_)
            assert await settled(*beside) == [None] * len(beside)
            assert await three.claim(f"{key}, 1") is BUSY

    async def test_a_cancelled_put_gives_up_in_one_step_with_the_change(
        self, storage: Storage
    ) -> None:
        one, two, _ = owners(storage)
        for round_ in range(ROUNDS):
            key = f"key {round_}"
            await store(storage, key, b"old")
            await one.claim(key)
            await self.interrupt(one.put(key, b"new"), round_)
            if await two.claim(key) is BUSY:
                assert await values(storage, key) == [b"old"], "changed, and yet held"
            else:
                assert await values(storage, key) == [b"new"], "given up before the change"
