"""Storages that close badly, or keep what others should see to themselves."""

import asyncio

from .unbroken import Unbroken, caught_by


@caught_by("test_a_storage_never_used_can_be_closed")
class WaitsForItsWorker(Unbroken):
    def __init__(self, data=None):
        super().__init__(data)
        self.started = asyncio.Event()  # on first use, which never comes

    async def aclose(self):
        await self.started.wait()


@caught_by("test_closing_twice_is_no_error")
class ClosesOnce(Unbroken):
    def __init__(self, data=None):
        super().__init__(data)
        self.may_close = asyncio.Semaphore(1)

    async def aclose(self):
        await self.may_close.acquire()


@caught_by(
    "test_a_closed_storage_says_what_is_true_or_that_it_is_unavailable",
    "test_what_was_stored_outlives_the_handle",
    "test_closing_one_handle_leaves_the_other_open",
)
class ForgetsWhenClosed(Unbroken):
    async def aclose(self):
        self.data.clear()


@caught_by("test_closing_leaves_no_call_without_a_true_answer")
class WritesBehind(Unbroken):
    closed = False

    async def put(self, puts, lease=None, *, atomic=False):
        asyncio.get_running_loop().call_soon(self.write, puts)
        return [True] * len(puts)

    def write(self, puts):
        for put in () if self.closed else puts:
            self.apply(put)

    async def aclose(self):
        self.closed = True


@caught_by("test_a_second_handle_sees_what_the_first_does")
class CachesReads(Unbroken):
    def find(self, key):
        cache = self.__dict__.setdefault("cache", {})
        return cache.setdefault(key, super().find(key))


@caught_by("test_a_storage_that_leases_is_asked_about_leases")
class SaysThatItCannotLease(Unbroken):
    can_lease = False
