"""gramkeep, as its users have it: `Sessions.open`, with all defaults."""

from __future__ import annotations

from benchmarks.order import Order, new_order
from benchmarks.python_worker.contender import Contender
from gramkeep import Sessions

DRIVERS = {"redis": "hiredis", "postgresql": "asyncpg", "mysql": "asyncmy", "mongodb": "pymongo"}


class Gramkeep(Contender):
    """Typed sessions under a URL."""

    def __init__(self, place: str, items: int) -> None:
        def initial() -> Order:
            return new_order(items)

        self._sessions = Sessions(initial=initial, storage=place)
        driver = DRIVERS.get(place.partition(":")[0])
        self.packages = ("gramkeep", "msgspec", *((driver,) if driver else ()))

    async def update(self, number: int) -> None:
        async with self._sessions.open(str(number)) as session:
            session.data.count += 1
            if self.handler_waits:
                await self.handler()

    async def aclose(self) -> None:
        await self._sessions.aclose()
