"""A local Bot API server, and bots that really poll it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

from gramkeep import MemorySessionStorage, StorageUnavailable
from gramkeep.testing import TelegramServer

Polling = Callable[[Dispatcher], AbstractAsyncContextManager[Bot]]


class WatchedStorage(MemorySessionStorage):
    """A real storage that counts what it is asked, and can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.writes: list[str] = []
        self.is_down = False

    @property
    def calls(self) -> int:
        return len(self.reads) + len(self.writes)

    async def get(self, keys, lease=None):
        self._answer()
        self.reads.extend(keys)
        return await super().get(keys, lease)

    async def put(self, puts, lease=None, *, atomic=False):
        self._answer()
        self.writes.extend(put.key for put in puts)
        return await super().put(puts, lease, atomic=atomic)

    def _answer(self) -> None:
        if self.is_down:
            raise StorageUnavailable(storage=self.name, reason="it is switched off")


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@pytest.fixture
def storage() -> WatchedStorage:
    return WatchedStorage()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/bot.db"


@pytest.fixture
def bot(telegram: TelegramServer) -> Bot:
    return Bot(telegram.token, AiohttpSession(api=TelegramAPIServer.from_base(telegram.url)))


@pytest.fixture
def polling(bot: Bot) -> Polling:
    """Run a dispatcher by long polling over HTTP, for the length of an ``async with``."""

    @asynccontextmanager
    async def run(dispatcher: Dispatcher) -> AsyncIterator[Bot]:
        task = asyncio.create_task(
            dispatcher.start_polling(bot, polling_timeout=1, handle_signals=False)
        )
        try:
            yield bot
        finally:
            await dispatcher.stop_polling()
            await task

    return run
