"""What is asked of a Redis server: calls, and what several must have in common to go together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final

import msgspec

from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, PLACE_KEPT, Lease, Put
from gramkeep.storages.redis.keys import lease_key
from gramkeep.storages.redis.packing import ARGUMENT, packed
from gramkeep.storages.redis.scripts import CHANGE, CLAIM, READ, Script

KEYS_AT_ONCE: Final = 500  # in one script: nobody else is served while it runs
BYTES_AT_ONCE: Final = 4 << 20  # of values, for the same reason
LONGEST_COMPARED: Final = 1024  # bytes of an expected value that are sent; beyond it, their digest

_KEPT: Final = b"%d" % (PLACE_KEPT * 1000)

_TWO: Final = ARGUMENT * 2
_THREE: Final = ARGUMENT * 3


class Call(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One thing asked of a server.

    Calls of one ``kind`` and of one ``slot``, where there are slots, go together as one command.
    ``kind`` is ``None`` for a command that stands alone. ``names``, of keys and of their leases,
    and ``arguments`` are packed as they are sent, ``width`` and ``length`` of them. ``answers`` is
    how many a script gives for the call; ``is_change`` says that replicas must have it.
    """

    kind: Kind | None
    names: bytes
    width: int
    answers: int
    slot: int | None = None
    arguments: bytes = b""
    length: int = 0
    is_alone: bool = False  # not joined with others, as all of it is to be done or nothing
    is_asking: bool = False  # of the node to which its slot is moving
    is_change: bool = False
    is_repeatable: bool = True  # asking twice is as good as asking once

    def to_importing_node(self) -> Call:
        """Give the same call for the node that its slot is moving to."""
        return msgspec.structs.replace(self, is_asking=True, is_alone=True)


class Kind(ABC):
    """What calls must have in common to become one command: the script, and its first arguments.

    ``width`` is how many answers the script gives for each key. All keys of a kind that
    ``is_indivisible`` are asked about in one call.
    """

    width = 2
    is_indivisible = False

    def __init__(self, script: Script, *first: bytes) -> None:
        self.script = script
        self.first = packed(*first)
        self.length = len(first)

    @abstractmethod
    def call(self, keys: Sequence[bytes], items: Sequence[Any], slot: int | None) -> Call:
        """Make a call about keys; ``items`` say of each what is asked about it."""

    def size(self, item: Any) -> int:
        """Say how many bytes of a value go with what is asked about a key."""
        return 0


class Reading(Kind):
    """Asks for values and what is left of their lifetimes."""

    def call(self, keys: Sequence[bytes], items: Sequence[Any], slot: int | None) -> Call:
        """Make a call."""
        return Call(self, packed(*keys), len(keys), 2 * len(keys), slot)


class Claiming(Kind):
    """Asks for the same of keys that an owner holds from then on, and has waited for some time."""

    def call(self, keys: Sequence[bytes], items: Sequence[float], slot: int | None) -> Call:
        """Make a call."""
        twice = 2 * len(keys)
        waits = packed(*[b"%d" % (seconds * 1000) for seconds in items])
        return Call(self, _with_leases(keys), twice, twice, slot, waits, len(keys))


class ClaimingFirst(Claiming):
    """The same, without a wait before. They go apart, as they needn't say for how long."""

    def call(self, keys: Sequence[bytes], items: Sequence[Any], slot: int | None) -> Call:
        """Make a call."""
        twice = 2 * len(keys)
        return Call(self, _with_leases(keys), twice, twice, slot)


class Changing(Kind):
    """Asks for changes, under a lease or without, each for itself or all or none."""

    width = 1

    def __init__(self, owner: str, *, is_atomic: bool) -> None:
        super().__init__(CHANGE, owner.encode(), _KEPT, b"1" if is_atomic else b"")
        self._has_lease = bool(owner)
        self.is_indivisible = is_atomic

    def size(self, item: Put) -> int:
        """Say how many bytes a change writes."""
        return len(item.value) if isinstance(item.value, bytes) else 0

    def call(self, keys: Sequence[bytes], items: Sequence[Put], slot: int | None) -> Call:
        """Make a call."""
        count = len(keys)
        return Call(
            self,
            _with_leases(keys) if self._has_lease else packed(*keys),
            2 * count if self._has_lease else count,
            count,
            slot,
            b"".join(map(_arguments, items)),
            3 * count,
            is_alone=self.is_indivisible,
            is_change=any(map(_is_change, items)),
            is_repeatable=False,
        )


READING: Final = Reading(READ)


def claiming(lease: Lease) -> Claiming:
    """Give the kind of claims under a lease."""
    return _claiming(lease.owner, lease.seconds, bool(lease.waited))


@lru_cache(256)
def _claiming(owner: str, seconds: float, has_waited: bool) -> Claiming:
    kind = Claiming if has_waited else ClaimingFirst
    return kind(CLAIM, owner.encode(), b"%d" % _milliseconds(seconds), _KEPT)


@lru_cache(256)
def changing(owner: str, is_atomic: bool) -> Changing:
    """Give the kind of changes under the lease of an owner, or of nobody."""
    return Changing(owner, is_atomic=is_atomic)


def command_of(*arguments: bytes) -> Call:
    """Ask for a command of Redis's own."""
    return Call(None, b"", 0, 1, None, packed(*arguments), len(arguments))


def in_parts(sizes: Sequence[int]) -> Iterator[slice]:
    """Divide a call about keys, with so many bytes each, into some that are short."""
    first = total = 0
    for at, own in enumerate(sizes):
        if at > first and (at - first >= KEYS_AT_ONCE or total + own > BYTES_AT_ONCE):
            yield slice(first, at)
            first, total = at, 0
        total += own
    yield slice(first, len(sizes))


def _with_leases(keys: Sequence[bytes]) -> bytes:
    if len(keys) == 1:
        key, lease = keys[0], lease_key(keys[0])
        return _TWO % (len(key), key, len(lease), lease)
    return packed(*[name for key in keys for name in (key, lease_key(key))])


def _is_change(put: Put) -> bool:
    return put.value is not KEEP or put.ttl is not None


def _arguments(put: Put) -> bytes:
    value, expected = put.value, put.expected
    what = b"S"
    if not isinstance(value, bytes):
        what, value = (b"D" if value is DELETE else b"K"), b""
    if isinstance(expected, bytes):
        basis = b"V"
        if len(expected) > LONGEST_COMPARED:
            basis = b"D"
            expected = sha1(expected, usedforsecurity=False).hexdigest().encode()
    else:  # "X" for a token that isn't this storage's
        basis = b"A" if expected is ANY else b"N" if expected is ABSENT else b"X"
        expected = b""
    word = what + basis + (b"H" if put.hold else b"-")
    if put.ttl is not None:
        word += b"%d" % _milliseconds(put.ttl)
    return _THREE % (len(word), word, len(expected), expected, len(value), value)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
