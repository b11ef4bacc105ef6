"""What a contender has to do."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib.metadata import version

FILLERS = 16  # updates at a time while the first sessions are stored


class Contender(ABC):
    """A way to keep sessions, under a load. Made in the event loop that it runs in.

    ``packages``: those whose versions the results should name.
    """

    packages: tuple[str, ...] = ()
    handler_waits = False
    """Whether handlers wait for something, as they do where several updates are under way."""

    @abstractmethod
    async def update(self, number: int) -> None:
        """Load a session, let a handler change it, and save it."""

    async def fill(self, numbers: Iterable[int]) -> None:
        """Store sessions for the first time."""
        left = iter(numbers)

        async def update_some() -> None:
            for number in left:
                await self.update(number)

        await asyncio.gather(*(update_some() for _ in range(FILLERS)))

    async def handler(self) -> None:
        """Be what else a handler does: give others their turn, if there are others."""
        if self.handler_waits:
            await asyncio.sleep(0)

    async def aclose(self) -> None:  # noqa: B027 - many have nothing to close
        """Let go of what is open."""

    def versions(self) -> dict[str, str]:
        """Give the versions of what it is made of."""
        return {package: version(package) for package in self.packages}
