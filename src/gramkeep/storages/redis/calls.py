"""What is asked of a Redis server: calls, and the commands that several of them make together."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final

from gramkeep.storage import ABSENT, ANY, DELETE, PLACE_KEPT, Lease, Put
from gramkeep.storages.driver import driver_of
from gramkeep.storages.redis.keys import lease_key
from gramkeep.storages.redis.scripts import CHANGE, CLAIM, READ, Script

with driver_of("redis"):
    import hiredis

KEYS_AT_ONCE: Final = 500  # in one script: nobody else is served while it runs
NAMES_TOGETHER: Final = 100  # of keys and leases of calls that share a script: others are made
# ready while it runs
BYTES_AT_ONCE: Final = 4 << 20  # of values, for the same reason
LONGEST_COMPARED: Final = 1024  # bytes of an expected value that are sent; beyond it, their digest

_KEPT: Final = b"%d" % (PLACE_KEPT * 1000)


class Call:
    """One thing asked of a server, and its answer: a future, settled by whoever asks.

    Calls of one ``kind`` and of one ``slot``, where there are slots, go together as one command.
    ``kind`` is ``None`` for a command that stands alone. ``answers`` is how many a script gives
    for the call; ``size`` the bytes of its values; ``is_change`` says that replicas must have it.
    """

    # Not in slots: what most calls don't change costs nothing here.
    is_alone = False  # not joined with others, as all of it is to be done or nothing
    is_asking = False  # of the node to which its slot is moving
    is_change = False
    is_repeatable = True  # asking twice is as good as asking once
    is_sent = False
    is_done = False
    size = 0
    future: asyncio.Future[Any]
    _settled: asyncio.Future[None] | None = None

    def __init__(
        self,
        kind: Kind | None,
        keys: Sequence[bytes],
        arguments: Sequence[bytes],
        answers: int,
        slot: int | None = None,
    ) -> None:
        self.kind = kind
        self.keys = keys
        self.arguments = arguments
        self.answers = answers
        self.slot = slot

    def begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        """Be asked, for the first time or once more."""
        self.is_sent = self.is_done = False
        future = self.future = loop.create_future()
        return future

    def finish(self, answer: Any) -> None:
        """Be answered, with an exception where there was no answer."""
        self.is_done = True
        if not self.future.done():
            if isinstance(answer, Exception):
                self.future.set_exception(answer)
            else:
                self.future.set_result(answer)
        elif self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def to_importing_node(self) -> Call:
        """Give the same call for the node that its slot is moving to."""
        call = copy(self)
        call.is_asking = call.is_alone = True
        return call

    async def settle(self) -> None:
        """Wait for the end of a call whose caller was cancelled."""
        while not self.is_done:
            self._settled = asyncio.get_running_loop().create_future()
            with suppress(asyncio.CancelledError):  # the caller raises it afterwards
                await self._settled


class Kind(ABC):
    """What calls must have in common to become one command: the script, and its first arguments.

    ``width`` is how many answers the script gives for each key. All keys of a kind that
    ``is_indivisible`` are asked about in one call.
    """

    width = 2
    is_indivisible = False

    def __init__(self, script: Script, *first: bytes) -> None:
        self.script = script
        self.first = first

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
        return Call(self, keys, (), 2 * len(keys), slot)


class Claiming(Kind):
    """Asks for the same of keys that an owner holds from then on, and has waited for some time."""

    def call(self, keys: Sequence[bytes], items: Sequence[float], slot: int | None) -> Call:
        """Make a call."""
        waits = [b"%d" % (seconds * 1000) for seconds in items]
        return Call(self, _with_leases(keys), waits, 2 * len(keys), slot)


class ClaimingFirst(Claiming):
    """The same, without a wait before. They go apart, as they needn't say for how long."""

    def call(self, keys: Sequence[bytes], items: Sequence[Any], slot: int | None) -> Call:
        """Make a call."""
        return Call(self, _with_leases(keys), (), 2 * len(keys), slot)


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
        arguments: list[bytes] = []
        names = _with_leases(keys) if self._has_lease else keys
        call = Call(self, names, arguments, len(keys), slot)
        call.is_repeatable = False
        call.is_alone = self.is_indivisible
        for put in items:
            arguments += _arguments(put)
            if isinstance(put.value, bytes):
                call.is_change = True
                call.size += len(put.value)
            elif put.value is DELETE or put.ttl is not None:
                call.is_change = True
        return call


READING: Final = Reading(READ)


def claiming(lease: Lease) -> Claiming:
    """Give the kind of claims under a lease."""
    return _claiming(lease.owner, lease.seconds, bool(lease.waited))


@lru_cache(256)
def _claiming(owner: str, seconds: float, has_waited: bool) -> Claiming:
    kind = Claiming if has_waited else ClaimingFirst
    return kind(CLAIM, owner.encode(), b"%d" % _milliseconds(seconds), _KEPT)


@lru_cache(256)
def changing(owner: str, *, is_atomic: bool) -> Changing:
    """Give the kind of changes under the lease of an owner, or of nobody."""
    return Changing(owner, is_atomic=is_atomic)


class Command:
    """What is sent at once for one or more calls of a kind."""

    __slots__ = ("calls", "kind", "sent_at", "size", "width")

    def __init__(self, call: Call) -> None:
        self.kind = call.kind
        self.calls = [call]
        self.width = len(call.keys)
        self.size = call.size
        self.sent_at = 0.0

    def takes(self, call: Call) -> bool:
        """Take a call of the same kind along, unless it gets too much."""
        width = self.width + len(call.keys)
        if width > NAMES_TOGETHER or self.size + call.size > BYTES_AT_ONCE:
            return False
        self.calls.append(call)
        self.width = width
        self.size += call.size
        return True

    @property
    def is_change(self) -> bool:
        """Whether there is anything in it that replicas must be given."""
        return any(call.is_change for call in self.calls)

    def packed(self, *, with_text: bool = False) -> bytes:
        """Write the command as it goes over the wire, the script's text in it if asked for."""
        if self.kind is None:
            return pack(tuple(self.calls[0].arguments))
        script, calls = self.kind.script, self.calls
        keys: Iterable[bytes] = calls[0].keys
        arguments: Iterable[bytes] = calls[0].arguments
        if len(calls) > 1:
            keys = [key for call in calls for key in call.keys]
            arguments = [argument for call in calls for argument in call.arguments]
        if calls[0].is_asking:
            with_text = True  # it can't be asked for a second time without another ASKING
        how = (b"EVAL", script.text) if with_text else (b"EVALSHA", script.digest)
        return pack((*how, self.width, *keys, *self.kind.first, *arguments))

    def finish(self, reply: Any) -> None:
        """Give each call its part of the reply, or all of them the error."""
        if self.kind is None or isinstance(reply, Exception):
            for call in self.calls:
                call.finish(reply)
            return
        first = 0
        for call in self.calls:
            call.finish(reply[first : first + call.answers])
            first += call.answers


pack: Callable[[tuple[bytes | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


def commands_of(calls: Iterable[Call]) -> list[Command]:
    """Join calls of one kind, each kind in its order."""
    commands: list[Command] = []
    open_ones: dict[object, Command] = {}
    for call in calls:
        if call.kind is None or call.is_alone:
            commands.append(Command(call))
            continue
        alike = call.kind if call.slot is None else (call.kind, call.slot)
        command = open_ones.get(alike)
        if command is None or not command.takes(call):
            command = open_ones[alike] = Command(call)
            commands.append(command)
    return commands


def _with_leases(keys: Sequence[bytes]) -> Sequence[bytes]:
    if len(keys) == 1:
        return (keys[0], lease_key(keys[0]))
    return [name for key in keys for name in (key, lease_key(key))]


def command_of(*arguments: bytes) -> Call:
    """Ask for a command of Redis's own."""
    return Call(None, (), arguments, 1)


def in_parts(sizes: Sequence[int]) -> Iterator[slice]:
    """Divide a call about keys, with so many bytes each, into some that are short."""
    first = total = 0
    for at, own in enumerate(sizes):
        if at > first and (at - first >= KEYS_AT_ONCE or total + own > BYTES_AT_ONCE):
            yield slice(first, at)
            first, total = at, 0
        total += own
    yield slice(first, len(sizes))


def _arguments(put: Put) -> tuple[bytes, bytes, bytes]:
    value, expected = put.value, put.expected
    if isinstance(value, bytes):
        what = "S"
    else:
        what, value = ("D" if value is DELETE else "K"), b""
    if expected is ANY:
        basis, expected = "A", b""
    elif expected is ABSENT:
        basis, expected = "N", b""
    elif not isinstance(expected, bytes):
        basis, expected = "X", b""  # no token of this storage
    elif len(expected) <= LONGEST_COMPARED:
        basis = "V"
    else:
        basis = "D"
        expected = sha1(expected, usedforsecurity=False).hexdigest().encode()
    word = _WORDS[what, basis, put.hold]
    if put.ttl is not None:
        word += b"%d" % _milliseconds(put.ttl)
    return word, expected, value


_WORDS: Final = {
    (what, basis, hold): f"{what}{basis}{'H' if hold else '-'}".encode()
    for what in "SDK"
    for basis in "ANVDX"
    for hold in (True, False)
}


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
