"""Storages that lose to their own concurrency, or to a cancellation."""

import asyncio

import msgspec

from gramkeep.storage import ANY, DELETE, Put

from .unbroken import Unbroken, caught_by


@caught_by(
    "test_writers_that_compare_lose_no_update",
    "test_of_many_that_expect_absence_one_succeeds",
    "test_atomic_transfers_keep_the_sum",
)
class ChecksBeforeItWrites(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        answers = [self.is_expected(put) for put in puts]
        await asyncio.sleep(0)
        if all(answers):
            for put in puts:
                self.apply(put)
        return answers


@caught_by("test_writers_over_two_handles_lose_no_update")
class LocksItselfOnly(ChecksBeforeItWrites):
    def __init__(self, data=None):
        super().__init__(data)
        self.lock = asyncio.Lock()

    async def put(self, puts, lease=None, *, atomic=False):
        async with self.lock:
            return await super().put(puts)


@caught_by("test_changes_of_different_keys_go_side_by_side")
class WritesAllOfItsFile(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        before = dict(self.data)
        await asyncio.sleep(0)
        self.data.clear()
        self.data.update(before)
        return await super().put(puts)


@caught_by("test_readers_see_whole_values")
class WritesInPieces(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        half = [put.value[: len(put.value) // 2] for put in puts]
        for put, value in zip(puts, half, strict=True):
            self.apply(msgspec.structs.replace(put, value=value))
        await asyncio.sleep(0)
        return await super().put(puts)


@caught_by("test_a_cancelled_put_leaves_the_old_value_or_the_new")
class DeletesThenWrites(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        for put in puts:
            self.apply(Put(put.key, DELETE, ANY))
        await asyncio.sleep(0)
        return await super().put(puts)


@caught_by("test_a_cancelled_put_is_settled", "test_what_a_cancelled_put_leaves_can_be_built_on")
class WritesOnAfterCancelling(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        async def write():
            await asyncio.sleep(0.002)
            return await super(WritesOnAfterCancelling, self).put(puts)

        self.writing = asyncio.create_task(write())
        return await asyncio.shield(self.writing)


@caught_by("test_a_cancelled_atomic_put_leaves_all_or_nothing")
class CommitsOneByOne(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        for put in puts:
            await asyncio.sleep(0)
            self.apply(put)
        return [True] * len(puts)


@caught_by("test_cancelling_a_put_leaves_those_beside_it_alone")
class CancelsAllThatWrite(Unbroken):
    writing = None

    async def put(self, puts, lease=None, *, atomic=False):
        if self.writing is None or self.writing.done():
            self.writing = asyncio.create_task(asyncio.sleep(0.001))
        await self.writing
        return await super().put(puts)


@caught_by("test_cancelling_a_get_harms_nothing")
class CancelsAllThatRead(Unbroken):
    reading = None

    async def get(self, keys):
        if self.reading is None or self.reading.done():
            self.reading = asyncio.create_task(asyncio.sleep(0.001))
        await self.reading
        return await super().get(keys)


@caught_by("test_cancelling_a_get_harms_nothing")
class LosesItsConnection(Unbroken):
    """A cancelled read leaves the lock on the connection behind."""

    busy = False

    async def get(self, keys):
        while self.busy:
            await asyncio.sleep(0.001)
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        return await super().get(keys)
