"""Those who share a storage: an owner claims, waits, writes and gives up, as a process would."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from gramkeep.storage import (
    ANY,
    BUSY,
    KEEP,
    Answer,
    Basis,
    Change,
    Lease,
    Put,
    Record,
    Storage,
    Token,
)

Claimed: TypeAlias = Record | Answer | None
"""What a `claim` says of a key."""

LONG = 60.0  # a lease that outlasts every test
SHORT = 0.3  # one that ends in it
MARGIN = 0.15  # for clocks and timers that are coarser than ours


class Owner:
    """One of those who share a storage, as a process would, under its own name."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name

    def lease(self, seconds: float = LONG, waited: Mapping[str, float] | None = None) -> Lease:
        """Give the lease that this owner's calls carry."""
        return Lease(self.name, seconds, waited or {})

    async def claim(self, key: str, *, waited: float = 0.0, seconds: float = LONG) -> Claimed:
        """Claim one key, for a long time unless told otherwise."""
        (answer,) = await self.claim_all([key], waited=waited, seconds=seconds)
        return answer

    async def claim_all(
        self, keys: Sequence[str], *, waited: float = 0.0, seconds: float = LONG
    ) -> list[Claimed]:
        """Claim several keys in one call, after the same wait for each."""
        lease = self.lease(seconds, dict.fromkeys(keys, waited) if waited else None)
        answers = await self.storage.claim(keys, lease)
        assert len(answers) == len(keys), "one answer per key"
        return list(answers)

    async def put(
        self,
        key: str,
        value: bytes | Change,
        expected: Token | Basis = ANY,
        ttl: float | None = None,
        *,
        hold: bool = False,
    ) -> bool:
        """Carry out one change under a lease, and tell whether it was done."""
        change = Put(key, value, expected, ttl, hold)
        answers = await self.storage.put([change], self.lease())
        assert len(answers) == 1, "one answer per change"
        assert type(answers[0]) is bool
        return answers[0]

    async def give_up(self, key: str) -> bool:
        """Do nothing but give up the lease, or the place among those who wait."""
        return await self.put(key, KEEP)


def owners(storage: Storage) -> tuple[Owner, Owner, Owner]:
    """Give three that share a storage."""
    return Owner(storage, "one"), Owner(storage, "two"), Owner(storage, "three")


def taken(answer: Claimed) -> Record:
    """Give the record of a claim that found one and wasn't refused."""
    assert isinstance(answer, Record), f"a claim was answered by {answer}"
    return answer


async def assert_held(key: str, *, against: Owner) -> None:
    """Make sure that somebody else holds a key, without leaving anybody waiting for it."""
    assert await against.claim(key) is BUSY, f"{key!r} is free"
    await against.give_up(key)


async def assert_free(key: str, *, for_: Owner) -> None:
    """Make sure that nobody else holds a key, or waits for it, and leave it free."""
    assert await for_.claim(key) is not BUSY, f"{key!r} is held"
    await for_.give_up(key)
