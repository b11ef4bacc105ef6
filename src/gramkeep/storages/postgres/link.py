"""A storage's tie to its server in one event loop: opened once, by whoever comes first."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from gramkeep.errors import StorageUnavailable
from gramkeep.storages.postgres.calls import Calls

SWEEP_EVERY: Final = 60.0  # seconds between two looks for what has expired


class Link:
    """The calls to one server, and what is done about them in the background.

    ``prepare`` is done with the first connection.
    """

    def __init__(self, calls: Calls, prepare: Callable[[Any], Awaitable[None]]) -> None:
        self.calls = calls
        self.is_open = False
        self._prepare = prepare
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._opening: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._sweep_at = 0.0

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is of another event loop, or of the process before a fork."""
        return self._loop is not asyncio.get_running_loop() or self._pid != os.getpid()

    async def open(self) -> None:
        """Open it, or wait until it is open. Who comes after a failure tries anew."""
        if self._opening is None:
            self._opening = self._loop.create_task(self.calls.server.open(self._prepare))
            self._opening.add_done_callback(self._opened)
        try:
            await asyncio.shield(self._opening)
        except StorageUnavailable as error:  # one of each caller's own: raising leaves traces
            raise StorageUnavailable(
                storage=error.storage or "", reason=error.reason
            ) from error.__cause__

    def sweep_sometimes(self, sweep: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin to sweep in the background, unless that was done a short while ago."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + SWEEP_EVERY
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = self._loop.create_task(sweep())

    async def close(self) -> None:
        """Wait for what is under way, and close one's own connections."""
        if self.is_elsewhere:
            return  # they are of an event loop that is over, or of the process before a fork
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await self.calls.drain()
        await self.calls.server.close()

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        self.is_open = not task.cancelled() and task.exception() is None
