"""Waiting for something to become true, without polling the clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from gramkeep.testing.telegram.errors import WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Bell:
    """Rung whenever anything changed, so that those who wait look again.

    Whoever waits takes what it waited for inside its own look, and looks run one after another in
    the order of waiting, so two waiters never get the same thing.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(
        self,
        look: Callable[[], T | None],
        timeout: float,
        complaint: Callable[[], str],
    ) -> T:
        """Return what `look` gives as soon as it is not None.

        Raises `WaitTimeout` with the text of `complaint` after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while (found := look()) is None:
                    future = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
        except TimeoutError:
            raise WaitTimeout(complaint()) from None
        return found
