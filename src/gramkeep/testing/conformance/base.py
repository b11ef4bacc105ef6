"""What the parts of the suite share: the hooks, and short words for reading and writing."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from gramkeep.storage import ANY, Basis, Change, Put, Record, Storage, Token

PATIENCE = 30.0
"""Seconds after which a call that should have returned long ago counts as hung."""

LATE_AT_MOST = 20.0  # seconds that the machine may take between a change and a look at it

ATTEMPTS = 20
STEPS = 20  # rounds in which a call is cancelled after that many steps of the event loop
ROUNDS = STEPS + 25  # the others cancel it after 0.1 ms to 50 ms


class Hooks:
    """What a subclass of the suite may set; see `StorageConformance`."""

    reopens: ClassVar[bool] = True
    """Whether a second storage object can open the same data."""

    settling_seconds: ClassVar[float] = 0.0
    """How long after its return a cancelled `put` may still take effect."""

    many: ClassVar[int] = 1000
    """How many keys make many; fewer only for a test's server that is slow."""

    def reopen(self, storage: Any) -> Storage | Awaitable[Storage]:
        """Make a second storage object over the data of ``storage``, with its own connection."""
        pytest.fail(
            f"{type(self).__name__} must define reopen(self, storage), giving a second storage "
            f"over the same data, or say `reopens = False` if {storage.name} can't have one"
        )

    @asynccontextmanager
    async def reopened(self, storage: Storage) -> AsyncIterator[Storage]:
        """Hold the second storage object for the length of a test."""
        if not self.reopens:
            pytest.skip(f"the data of {storage.name} lives in the storage object itself")
        made = self.reopen(storage)
        second: Storage = await made if inspect.isawaitable(made) else made
        assert second is not storage, "reopen() must make another storage object"
        try:
            yield second
        finally:
            await second.aclose()

    async def interrupt(self, call: Coroutine[Any, Any, object], round_: int) -> None:
        """Start a call, and cancel it the later the higher the round, which is below `ROUNDS`."""
        task = asyncio.create_task(call)
        if round_ < STEPS:
            for _ in range(round_):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.0001 * 1.3 ** (round_ - STEPS))
        task.cancel()
        await finish(task)
        if not task.cancelled():
            task.result()  # raises what the call raised
        if self.settling_seconds:
            await asyncio.sleep(self.settling_seconds)


@asynccontextmanager
async def promptly() -> AsyncIterator[None]:
    """Fail, rather than hang, if what is inside doesn't come to an end."""
    limit = asyncio.timeout(PATIENCE)
    try:
        async with limit:
            yield
    except TimeoutError:
        assert not limit.expired(), f"no answer within {PATIENCE:g} s"
        raise


async def finish(*tasks: asyncio.Task[Any]) -> None:
    """Wait for tasks to be done, in whatever way, and fail rather than hang."""
    await asyncio.wait(tasks, timeout=PATIENCE)
    assert all(task.done() for task in tasks), f"no answer within {PATIENCE:g} s"


async def settled(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Give the answers of calls that nobody cancelled."""
    await finish(*tasks)
    assert not any(task.cancelled() for task in tasks), "a call beside a cancelled one is too"
    return [task.result() for task in tasks]


def skip_unless_transactional(storage: Storage) -> None:
    """Ask nothing about ``atomic`` of a storage that doesn't offer it."""
    if not storage.transactional:
        pytest.skip(f"{storage.name} doesn't declare itself transactional")


async def put(
    storage: Storage,
    key: str,
    value: bytes | Change,
    expected: Token | Basis = ANY,
    ttl: float | None = None,
) -> bool:
    """Carry out one change and tell whether it was done."""
    answers = await storage.put([Put(key, value, expected, ttl)])
    assert len(answers) == 1, "one answer per change"
    assert type(answers[0]) is bool
    return answers[0]


async def store(storage: Storage, key: str, value: bytes, ttl: float | None = None) -> None:
    """Store a value whatever was there."""
    assert await put(storage, key, value, ANY, ttl), "a put that expects ANY is always done"


async def find(storage: Storage, key: str) -> Record | None:
    """Read one key."""
    answers = await storage.get([key])
    assert len(answers) == 1, "one answer per key"
    return answers[0]


async def read(storage: Storage, key: str) -> Record:
    """Read one key that must be there."""
    record = await find(storage, key)
    assert record is not None, f"{key!r} isn't there"
    return record


async def values(storage: Storage, *keys: str) -> list[bytes | None]:
    """Read several values, ``None`` for what isn't there."""
    records = await storage.get(keys)
    return [None if record is None else record.value for record in records]


async def scanned(storage: Storage, prefix: str = "") -> list[str]:
    """Scan to the end, and give the keys sorted, with any that came twice."""
    return sorted([key async for key in storage.scan(prefix)])


def attempts(*, within: float) -> Iterator[str]:
    """Give one key after another, until what was done with one took less than some seconds.

    Some things don't last, and the machine that runs the tests may be slow. What is asserted after
    the loop is about an attempt that was in time.
    """
    for n in range(ATTEMPTS):
        started = time.monotonic()
        yield f"key {n}"
        if time.monotonic() - started < within:
            return
    pytest.fail(f"a few calls took longer than {within:g} s, {ATTEMPTS} times")


def assert_lifetime(record: Record, seconds: float) -> None:
    """Hold what is left of a lifetime against what it should be, or was shortly before."""
    assert record.expires_at is not None, "expires_at is missing"
    off = record.expires_at - (time.time() + seconds)
    assert -LATE_AT_MOST < off < 1, "expires_at is off"
