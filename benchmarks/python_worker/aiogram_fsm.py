"""aiogram's FSM data: `FSMContext` over its memory or Redis storage.

A handler reads all data and sets it, one call each. In a bot aiogram also reads the state before
any handler; that is left out, in its favour.
"""

from __future__ import annotations

from aiogram.fsm.context import FSMContext
from aiogram.fsm.storage.base import BaseStorage, StorageKey
from aiogram.fsm.storage.memory import MemoryStorage
from aiogram.fsm.storage.redis import RedisStorage

from benchmarks.order import new_dict
from benchmarks.python_worker.contender import Contender


class AiogramFSM(Contender):
    """Data of a chat's user, in memory or in Redis."""

    def __init__(self, place: str, items: int) -> None:
        self._storage: BaseStorage = RedisStorage.from_url(place) if place else MemoryStorage()
        self.packages = ("aiogram", *(("redis", "hiredis") if place else ()))
        self._items = items

    async def update(self, number: int) -> None:
        key = StorageKey(bot_id=42, chat_id=number, user_id=number)
        state = FSMContext(self._storage, key)
        data = await state.get_data() or new_dict(self._items)
        data["count"] += 1
        await self.handler()
        await state.set_data(data)

    async def aclose(self) -> None:
        await self._storage.close()
