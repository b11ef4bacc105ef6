"""From the first use to the last, and what a second storage object sees."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from gramkeep.errors import StorageUnavailable
from gramkeep.storage import ABSENT, DELETE, Storage
from gramkeep.testing.conformance.base import (
    Hooks,
    assert_lifetime,
    find,
    promptly,
    put,
    read,
    scanned,
    store,
    values,
)

MANY = 50


async def assert_true_or_unavailable(
    storage: Storage, call: Awaitable[object], truth: object
) -> None:
    """Accept the true answer, or the one error that says there is none."""
    try:
        answer = await call
    except StorageUnavailable as error:
        named = error.storage
    else:
        assert answer == truth
        return
    assert named == storage.name


class Lifecycle(Hooks):
    """Closing, and opening again."""

    async def test_a_storage_never_used_can_be_closed(self, storage: Storage) -> None:
        async with promptly():
            await storage.aclose()

    async def test_closing_twice_is_no_error(self, storage: Storage) -> None:
        await store(storage, "key", b"1")
        async with promptly():
            await storage.aclose()
            await storage.aclose()
            await asyncio.gather(storage.aclose(), storage.aclose())

    async def test_a_closed_storage_says_what_is_true_or_that_it_is_unavailable(
        self, storage: Storage
    ) -> None:
        # A storage in memory has nothing to close and still answers, as may one over a user's
        # client. None makes an answer up, and none fails with an error of its driver's.
        await store(storage, "key", b"1")
        await storage.aclose()
        async with promptly():
            await assert_true_or_unavailable(storage, values(storage, "key", "x"), [b"1", None])
            await assert_true_or_unavailable(storage, scanned(storage), ["key"])
            await assert_true_or_unavailable(storage, put(storage, "key", b"2", ABSENT), False)

    async def test_closing_leaves_no_call_without_a_true_answer(self, storage: Storage) -> None:
        keys = [f"key {n}" for n in range(MANY)]
        async with self.reopened(storage) as second, promptly():
            calls = [asyncio.create_task(put(storage, key, b"1")) for key in keys]
            await asyncio.sleep(0)  # they have begun
            await storage.aclose()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for answer, stored in zip(answers, await values(second, *keys), strict=True):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, StorageUnavailable), repr(answer)
                else:
                    assert (answer, stored) == (True, b"1")

    async def test_a_second_handle_sees_what_the_first_does(self, storage: Storage) -> None:
        async with self.reopened(storage) as second:
            assert await find(second, "key") is None
            await store(storage, "key", b"1", ttl=90)
            seen, own = await read(second, "key"), await read(storage, "key")
            assert (seen.value, own.value) == (b"1", b"1")
            assert_lifetime(seen, 90)
            assert await scanned(second) == ["key"]
            assert await put(second, "key", b"2", seen.token) is True
            assert await values(storage, "key") == [b"2"]
            assert await put(storage, "key", b"3", own.token) is False
            assert await put(storage, "key", DELETE) is True
            assert await values(second, "key") == [None]
            assert await scanned(second) == []

    async def test_what_was_stored_outlives_the_handle(self, storage: Storage) -> None:
        await store(storage, "lasting", b"\0\xff")
        await store(storage, "expiring", b"", ttl=90)
        await storage.aclose()
        async with self.reopened(storage) as second:
            assert await scanned(second) == ["expiring", "lasting"]
            assert await values(second, "expiring", "lasting") == [b"", b"\0\xff"]
            assert_lifetime(await read(second, "expiring"), 90)
            assert (await read(second, "lasting")).expires_at is None

    async def test_closing_one_handle_leaves_the_other_open(self, storage: Storage) -> None:
        await store(storage, "key", b"1")
        async with self.reopened(storage) as second:
            assert await values(second, "key") == [b"1"]
            await second.aclose()
            assert await values(storage, "key") == [b"1"]
            assert await put(storage, "key", b"2") is True
