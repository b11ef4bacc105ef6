"""What this process holds in a storage that others use too, kept alive while its updates run.

A lease is taken in the round trip that reads the session and given up in the one that writes it.
It is renewed in between, so that a long handler keeps its session and a dead process doesn't.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final

import msgspec

from gramkeep.calls import Calls
from gramkeep.errors import StorageUnavailable
from gramkeep.locks import KeyLocks
from gramkeep.releases import LateReleases
from gramkeep.storage import ANY, BUSY, KEEP, Lease, Put, Record

RENEWALS: Final = 3  # in the time that a lease lasts
SHORTEST_PAUSE: Final = 0.001  # seconds before a busy session is asked for again,
LONGEST_PAUSE: Final = 0.01  # growing with the time that was waited, as far as this

log = logging.getLogger("gramkeep")


class NoLongerWanted(Exception):
    """The update that waited for keys is over."""


class _Held(msgspec.Struct):
    """One key's lease; ``until`` is on the monotonic clock, by the latest when it will end."""

    seconds: float
    until: float


class Leases:
    """The leases of one process in one storage, for updates that queue for their keys before.

    Belongs to one event loop at a time, that of the ``queues``. ``name`` is the storage's, for the
    log.
    """

    def __init__(self, calls: Calls, queues: KeyLocks, name: str) -> None:
        self._calls = calls
        self._queues = queues
        self._name = name
        self._owner = ""
        self._leases: dict[float, Lease] = {}  # by their length
        self._held: dict[str, _Held] = {}
        self._lapsed: set[str] = set()  # held still, but perhaps not all the time
        self._late = LateReleases(self._release)
        self._renewing: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._shortest = 0.0  # seconds, of the leases for which the timer was set
        self._loop: asyncio.AbstractEventLoop | None = None

    def lease(self, seconds: float) -> Lease:
        """Give what the storage is told with a call of this process."""
        lease = self._leases.get(seconds)
        if lease is None:
            if not self._owner:
                self._owner = f"{os.getpid()}-{token_hex(8)}"
            lease = self._leases[seconds] = Lease(self._owner, seconds)
        return lease

    def disown(self) -> None:
        """Begin anew, in a forked child: what the parent holds is another's."""
        self._owner = ""
        self._leases.clear()
        self._held.clear()
        self._late.clear()
        self._loop = None

    async def take(
        self,
        keys: Sequence[str],
        seconds: float,
        *,
        began: float,
        timeout: float,
        is_wanted: Callable[[], bool],
    ) -> list[Record | None]:
        """Read keys that are held from here on, waiting for those that another process holds.

        ``began`` is since when their update waits, on the monotonic clock. Keys are in the order
        in which every update takes them: none waits for an earlier key while it holds a later
        one, so that two never wait for each other.

        Raises `TimeoutError`, `StorageUnavailable`, and `NoLongerWanted` where ``is_wanted`` says
        so while it waits. Whatever it raises, the keys may be held.
        """
        if not self._late.is_idle:
            await self._late.drop(keys)
        records: list[Record | None] = []
        waited: dict[str, float] = {}
        pending = keys
        while True:
            asked = time.monotonic()
            lease = self._leases.get(seconds) or self.lease(seconds)
            if waited:
                lease = msgspec.structs.replace(lease, waited=waited)
            answers: list[Any] = await self._calls.claim(pending, lease)
            if BUSY not in answers:
                self._hold(pending, seconds, asked + seconds)
                return records + answers if records else answers
            free = answers.index(BUSY)
            self._hold(pending[:free], seconds, asked + seconds)
            records += answers[:free]
            early = [
                key for key, answer in zip(pending, answers, strict=True) if answer is not BUSY
            ]
            if len(early) > free:
                await self._give_up(early[free:], seconds)
            if not is_wanted():
                raise NoLongerWanted
            now = time.monotonic()
            if now - began > timeout:
                raise TimeoutError
            pause = min(max(SHORTEST_PAUSE, (now - began) / 8), LONGEST_PAUSE)
            await asyncio.sleep(min(pause, max(0.0, began + timeout - now)))
            pending = pending[free:]
            waited[pending[0]] = time.monotonic() - began

    def renew_no_more(self, key: str) -> float:
        """Let a lease end, and say until when, on the monotonic clock, it certainly lasts.

        Before the `put` that gives it up, and before `renewed`, which waits for what is under
        way: a renewal that the storage sees after it would hold the key again, for nobody.
        """
        held = self._held.pop(key, None)
        if key in self._lapsed:
            self._lapsed.discard(key)
            return -math.inf
        return math.inf if held is None else held.until

    @property
    def is_renewing(self) -> bool:
        """Whether any renewal is under way."""
        return bool(self._renewing)

    async def renewed(self, keys: Iterable[str]) -> None:
        """Wait for renewals of these keys that are under way."""
        for key in keys:
            if key in self._renewing:
                await asyncio.wait([self._renewing[key]])

    async def give_up(self, keys: Sequence[str], seconds: float) -> None:
        """Let others have these keys, of updates that have nothing to write.

        Cancelling takes effect after it: the next update of this process must not find its claim
        given up by this one. Where the storage is out of reach, it is told when it is back,
        unless the leases have ended before.
        """
        for key in keys:
            self.renew_no_more(key)
        try:
            await self._give_up(keys, seconds)
        except asyncio.CancelledError:
            # Whether they were given up is not known.
            again = asyncio.ensure_future(self._give_up(keys, seconds))
            while not again.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([again])
            again.result()
            raise

    async def _give_up(self, keys: Sequence[str], seconds: float) -> None:
        if self._renewing:
            await self.renewed(keys)
        try:
            await self._release(keys, seconds)
        except StorageUnavailable as error:
            self._late.add(keys, seconds)
            log.warning(
                "%s: sessions can't be given up now; other processes can have them when the "
                "storage is back, or in %g s: %s (%s)",
                self._name,
                seconds,
                ", ".join(map(repr, keys)),
                error.reason,
            )

    async def _release(self, keys: Sequence[str], seconds: float) -> None:
        await self._calls.put([Put(key, KEEP, ANY) for key in keys], self.lease(seconds))

    def _hold(self, keys: Sequence[str], seconds: float, until: float) -> None:
        """Note what is held, and see to it that the timer comes in time for it."""
        for key in keys:
            self._held[key] = _Held(seconds, until)
        if self._loop is not self._queues.loop:
            self._loop, self._timer = self._queues.loop, None
            self._renewing.clear()
        if self._timer is None or seconds < self._shortest:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held and self._loop is not None:
            self._shortest = min(held.seconds for held in self._held.values())
            pause = self._shortest / RENEWALS
            self._timer = self._loop.call_later(pause, self._renew_what_is_due, self._loop)

    def _renew_what_is_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = time.monotonic()
        due: dict[float, list[str]] = {}
        for key, held in self._held.items():
            # Within the next period it would come to its last one, in which a delay could end it.
            if key not in self._renewing and held.until - now < held.seconds * 2 / RENEWALS:
                due.setdefault(held.seconds, []).append(key)
        for seconds, keys in due.items():
            task = loop.create_task(self._renew(keys, seconds))
            self._renewing.update(dict.fromkeys(keys, task))
        self._set_timer()  # or the next one that is taken does

    async def _renew(self, keys: Sequence[str], seconds: float) -> None:
        asked = time.monotonic()
        try:
            answers = await self._calls.claim(keys, self.lease(seconds))
        except StorageUnavailable as error:
            log.warning("%s: leases were not renewed: %s", self._name, error.reason)
            return
        finally:
            for key in keys:
                del self._renewing[key]
        for key, answer in zip(keys, answers, strict=True):
            if (held := self._held.get(key)) is None:
                continue  # it is being given up
            if held.until < asked:
                self._lapsed.add(key)  # another may have had it meanwhile: saving will tell
            if answer is BUSY:
                self._lapsed.add(key)
                del self._held[key]
            else:
                held.until = asked + seconds
