"""python-telegram-bot's ``chat_data``, persisted with `PicklePersistence`.

It is in memory while the bot runs, and a job persists it every 60 seconds. So an update by itself
saves nothing; `PTBSaved` persists at the end of every update, which is what saving means here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from telegram.ext import Application, PicklePersistence

from benchmarks.order import new_dict
from benchmarks.python_worker.contender import Contender


class PTBChatData(Contender):
    """Chat data that waits for the next interval."""

    packages = ("python-telegram-bot",)

    def __init__(self, place: str, items: int) -> None:
        self.persistence: PicklePersistence[Any, Any, Any] = PicklePersistence(
            Path(place.removeprefix("file://")) / "bot.pickle"
        )
        builder = Application.builder().token("42:benchmark").persistence(self.persistence)
        self.application: Application[Any, Any, Any, Any, Any, Any] = builder.build()
        self._items = items

    async def update(self, number: int) -> None:
        self._change(number)
        await self.handler()
        self.application.mark_data_for_update_persistence(chat_ids=number)

    def _change(self, number: int) -> None:
        data = self.application.chat_data[number]
        if not data:
            data.update(new_dict(self._items))
        data["count"] += 1


class PTBSaved(PTBChatData):
    """Chat data that is persisted with every update."""

    async def fill(self, numbers: Iterable[int]) -> None:
        """Store all at once: the file is written as a whole for each chat that changed."""
        self.persistence.on_flush = True
        for number in numbers:
            await super().update(number)
        await self.application.update_persistence()
        await self.persistence.flush()
        self.persistence.on_flush = False

    async def update(self, number: int) -> None:
        await super().update(number)
        await self.application.update_persistence()
