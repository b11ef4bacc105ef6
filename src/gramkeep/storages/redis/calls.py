"""What is asked of a Redis server: calls, and the commands that several of them make together."""

from __future__ import annotations

import asyncio
import math
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
        self.future = loop.create_future()
        return self.future

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


class Kind:
    """What calls must have in common to become one command: the script, and its first arguments."""

    __slots__ = ("first", "script")

    def __init__(self, script: Script, *first: bytes) -> None:
        self.script = script
        self.first = first


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
        if self.width + len(call.keys) > KEYS_AT_ONCE or self.size + call.size > BYTES_AT_ONCE:
            return False
        self.calls.append(call)
        self.width += len(call.keys)
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


def read_of(keys: Sequence[bytes], slot: int | None = None) -> Call:
    """Ask for values and what is left of their lifetimes."""
    return Call(_READING, keys, (), 2 * len(keys), slot)


def claim_of(
    keys: Sequence[bytes], waited: Sequence[float], lease: Lease, slot: int | None = None
) -> Call:
    """Ask for the same of keys that the lease's owner holds from then on."""
    return Call(
        _claiming(lease.owner, lease.seconds),
        [name for key in keys for name in (key, lease_key(key))],
        [b"%d" % (seconds * 1000) if seconds else b"0" for seconds in waited],
        2 * len(keys),
        slot,
    )


def change_of(
    keys: Sequence[bytes],
    puts: Sequence[Put],
    lease: Lease | None,
    *,
    atomic: bool = False,
    slot: int | None = None,
) -> Call:
    """Ask for changes."""
    call = Call(
        _changing("" if lease is None else lease.owner, atomic),
        keys if lease is None else [name for key in keys for name in (key, lease_key(key))],
        [argument for put in puts for argument in _arguments(put)],
        len(puts),
        slot,
    )
    call.is_alone = atomic
    call.is_repeatable = False
    for put in puts:
        if isinstance(put.value, bytes):
            call.is_change = True
            call.size += len(put.value)
        elif put.value is DELETE or put.ttl is not None:
            call.is_change = True
    return call


_READING: Final = Kind(READ)


@lru_cache(256)
def _claiming(owner: str, seconds: float) -> Kind:
    return Kind(CLAIM, owner.encode(), b"%d" % _milliseconds(seconds), _KEPT)


@lru_cache(256)
def _changing(owner: str, atomic: bool) -> Kind:
    return Kind(CHANGE, owner.encode(), _KEPT, b"1" if atomic else b"")


def command_of(*arguments: bytes) -> Call:
    """Ask for a command of Redis's own."""
    return Call(None, (), arguments, 1)


def in_parts(sizes: Sequence[int] | int) -> Iterator[slice]:
    """Divide a call about many keys, or about so many bytes each, into some that are short."""
    count = sizes if isinstance(sizes, int) else len(sizes)
    first = total = 0
    for at in range(count):
        own = 0 if isinstance(sizes, int) else sizes[at]
        if at > first and (at - first >= KEYS_AT_ONCE or total + own > BYTES_AT_ONCE):
            yield slice(first, at)
            first, total = at, 0
        total += own
    yield slice(first, count)


def _arguments(put: Put) -> tuple[bytes, bytes, bytes, bytes]:
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
    ttl = b"" if put.ttl is None else b"%d" % _milliseconds(put.ttl)
    word = _WORDS[what, basis, put.hold]
    return word, expected, value, ttl


_WORDS: Final = {
    (what, basis, hold): f"{what}{basis}{'H' if hold else '-'}".encode()
    for what in "SDK"
    for basis in "ANVDX"
    for hold in (True, False)
}


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
