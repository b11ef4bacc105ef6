"""pyTelegramBotAPI's state data, changed in ``async with``, in its memory or Redis storage."""

from __future__ import annotations

from typing import cast

from telebot.asyncio_storage import StateMemoryStorage, StateRedisStorage
from telebot.asyncio_storage.base_storage import StateDataContext

from benchmarks.order import new_dict
from benchmarks.python_worker.contender import Contender


class TelebotStates(Contender):
    """Data of a chat's user, in memory or in Redis. Data can be set where there is a state."""

    def __init__(self, place: str, items: int) -> None:
        self._storage = StateRedisStorage(redis_url=place) if place else StateMemoryStorage()
        self.packages = ("pyTelegramBotAPI", *(("redis", "hiredis") if place else ()))
        self._items = items
        self._known: set[int] = set()

    async def update(self, number: int) -> None:
        if number not in self._known:
            await self._begin(number)
        # What it is annotated with isn't what it gives.
        session = cast("StateDataContext", self._storage.get_interactive_data(number, number))
        async with session as data:
            data["count"] += 1
            await self.handler()

    async def aclose(self) -> None:
        if isinstance(self._storage, StateRedisStorage):
            await self._storage.redis.aclose()

    async def _begin(self, number: int) -> None:
        self._known.add(number)
        await self._storage.set_state(number, number, "choosing")
        await self._storage.save(number, number, new_dict(self._items))
