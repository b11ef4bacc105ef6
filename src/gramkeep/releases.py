"""Leases that nobody here needs any more, and that the storage could not be told to release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from gramkeep.errors import StorageUnavailable

FIRST_PAUSE: Final = 0.1  # seconds before the storage is told again,
LONGEST_PAUSE: Final = 0.5  # doubled each time, as far as this


class _Late(NamedTuple):
    """A lease's length in seconds, and when it ends by itself, on the monotonic clock."""

    seconds: float
    until: float


class LateReleases:
    """Releases that failed, told again until the storage hears them or the leases have ended.

    Without them, a session whose update met a storage out of reach would be kept from other
    processes until its lease ends, although the storage was back long before. ``release`` tells
    the storage, and raises `StorageUnavailable`. Belongs to one event loop at a time.
    """

    def __init__(self, release: Callable[[Sequence[str], float], Awaitable[None]]) -> None:
        self._release = release
        self._late: dict[str, _Late] = {}
        self._pause = FIRST_PAUSE
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, keys: Iterable[str], seconds: float) -> None:
        """Take over the release of these keys, whose leases last for so many seconds."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._timer, self._telling = loop, None, None
        until = time.monotonic() + seconds
        self._late.update(dict.fromkeys(keys, _Late(seconds, until)))
        if self._timer is None and self._telling is None:
            self._pause = FIRST_PAUSE
            self._timer = loop.call_later(self._pause, self._begin, loop)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to release."""
        return not self._late

    async def drop(self, keys: Iterable[str]) -> None:
        """Release these keys no more: they are wanted here again.

        A release that is under way is waited for, or it could release what is claimed after it.
        """
        dropped = [self._late.pop(key, None) for key in keys]
        if any(dropped) and self._telling is not None:
            await asyncio.wait([self._telling])

    def clear(self) -> None:
        """Forget all, in a process to which none of it belongs."""
        self._late.clear()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._late:  # or a task would be left behind where the loop ends meanwhile
            self._telling = loop.create_task(self._tell(loop))

    async def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        self._late = {key: late for key, late in self._late.items() if late.until > now}
        by_length: dict[float, list[str]] = {}
        for key, late in self._late.items():
            by_length.setdefault(late.seconds, []).append(key)
        try:
            for seconds, keys in by_length.items():
                await self._release(keys, seconds)
                for key in keys:
                    self._late.pop(key, None)
        except StorageUnavailable:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        finally:
            self._telling = None
        if self._late:
            self._timer = loop.call_later(self._pause, self._begin, loop)
