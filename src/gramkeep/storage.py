"""The storage contract: bytes in, bytes out, many keys at a time.

A storage knows nothing of types, versions or bots. It keeps a value per key, says by an opaque
token which value it was, and refuses a write whose basis has changed. `gramkeep.testing` holds
the conformance suite that defines this contract by tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import ClassVar, Literal, TypeAlias

import msgspec

Token: TypeAlias = object
"""What a storage says of a value's identity. Only the storage that gave it can compare it."""


class Change(Enum):
    """What a `Put` does where it doesn't store bytes."""

    DELETE = "delete"
    KEEP = "keep"


class Basis(Enum):
    """What a `Put` expects where it doesn't expect a certain value."""

    ABSENT = "absent"
    ANY = "any"


DELETE: Literal[Change.DELETE] = Change.DELETE
KEEP: Literal[Change.KEEP] = Change.KEEP
ABSENT: Literal[Basis.ABSENT] = Basis.ABSENT
ANY: Literal[Basis.ANY] = Basis.ANY


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is stored under a key.

    ``expires_at`` is in seconds since the epoch, ``None`` for a value that doesn't expire.
    """

    value: bytes
    token: Token
    expires_at: float | None = None


class Put(msgspec.Struct, frozen=True, gc=False):
    """One change of one key, carried out only where the stored value is the expected one.

    ``value``: the bytes to store; `DELETE`, to remove the key; `KEEP`, to leave the value and
    only count its lifetime anew.
    ``expected``: the token of the value read before, `ABSENT` for none, `ANY` to not care.
    ``ttl``: lifetime from now in seconds. ``None`` with bytes: for ever; with `KEEP`: as before.
    """

    key: str
    value: bytes | Change
    expected: Token | Basis
    ttl: float | None = None


class Lease(msgspec.Struct, frozen=True):
    """A claim on keys that outlives a process's death by ``seconds`` at most.

    ``owner`` is unique to one update of one process. Given only to storages that ``can_lease``.
    """

    owner: str
    seconds: float


class Storage(ABC):
    """Where sessions are kept.

    Implementations raise `StorageUnavailable` when they can't answer, and never answer instead:
    "not there" is an answer. An expired value is not there, for every method.

    Cancelling a `put` leaves the old value or the new one, settled by the time the cancelled call
    returns or, over a network, by the time the server drops the connection.
    """

    can_lease: ClassVar[bool] = False
    """Whether `get` and `put` heed a `Lease`, to isolate updates across processes."""

    transactional: ClassVar[bool] = False
    """Whether ``put(..., atomic=True)`` of several keys writes all or none."""

    name: str
    """How errors and logs call this storage: its URL, without passwords."""

    @abstractmethod
    async def get(self, keys: Sequence[str], lease: Lease | None = None) -> list[Record | None]:
        """Read several keys; one answer per key, in order, ``None`` for what isn't there."""

    @abstractmethod
    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes; one answer per change, in order.

        ``False`` says that the stored value was not the expected one, and that nothing was done
        for that key. Each change stands alone, unless ``atomic``, of a ``transactional`` storage:
        then one ``False`` undoes all, and the answers only say whose value was the expected one.
        A key stands at most once in a call.
        """

    @abstractmethod
    def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, taken literally, each once.

        Keys that come or go meanwhile may or may not be seen; all others are.
        """

    async def prune(self, at_most: int) -> int:  # noqa: ARG002 - for those that override it
        """Remove some expired values for good, and say how many; less than ``at_most`` is all.

        Storages whose server does that by itself have nothing to do.
        """
        return 0

    @abstractmethod
    async def aclose(self) -> None:
        """Give up what this storage opened itself, and nothing the user passed in. Idempotent."""
