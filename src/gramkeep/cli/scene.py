"""What both forms of the demo play with: a server, a bot, two people, a group, a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from gramkeep.cli.bot_process import BotProcess
from gramkeep.storages.sqlite import SQLiteStorage
from gramkeep.testing import Chat, TelegramServer, User

START_TIMEOUT: Final = 60.0  # seconds; a framework alone takes some to be imported


class Seat(NamedTuple):
    """Who writes, and where."""

    user: User
    chat: Chat

    @property
    def name(self) -> str:
        own = self.chat is self.user.chat
        return self.user.name if own else f"{self.user.name} in {self.chat.name}"


class Scene:
    """The server is running; the bot isn't before `start_bot`."""

    def __init__(self, server: TelegramServer, bot: BotProcess, storage: SQLiteStorage) -> None:
        self.server = server
        self.bot = bot
        self.bot_is_ready = False
        self.storage = storage
        ada, linus = server.user("Ada"), server.user("Linus")
        group = server.group("Team", [ada, linus])
        self.chats = [ada.chat, linus.chat, group]
        self.seats = [
            Seat(ada, ada.chat),
            Seat(linus, linus.chat),
            Seat(ada, group),
            Seat(linus, group),
        ]

    async def start_bot(self) -> None:
        """Start the bot and wait until it talks to the server. Raises `BotDied`, `WaitTimeout`."""
        self.bot_is_ready = False
        await self.bot.start()
        # The first thing a bot asks, once in its life.
        ready = asyncio.create_task(self.server.wait_for_call("getMe", START_TIMEOUT))
        exited = asyncio.create_task(self.bot.exited())
        try:
            await asyncio.wait({ready, exited}, return_when=asyncio.FIRST_COMPLETED)
            if not self.bot.is_running:
                raise self.bot.died()
            await ready
            self.bot_is_ready = True
        finally:
            ready.cancel()
            exited.cancel()
            await asyncio.gather(ready, exited, return_exceptions=True)

    async def stored(self) -> dict[str, str]:
        """Read the file: the stored JSON of every session, by its key."""
        keys = [key async for key in self.storage.scan()]
        records = await self.storage.get(keys)
        return {
            key: record.value.decode()
            for key, record in zip(keys, records, strict=True)
            if record is not None
        }


@asynccontextmanager
async def open_scene(framework: str) -> AsyncIterator[Scene]:
    """Set the scene with a framework's bot; at the end stop bot and server and remove the files."""
    with TemporaryDirectory(prefix="gramkeep-demo-") as folder:
        async with TelegramServer(bot_name="Bot") as server:
            bot = BotProcess(framework, token=server.token, api_url=server.url, folder=Path(folder))
            storage = SQLiteStorage(bot.database)
            try:
                yield Scene(server, bot, storage)
            finally:
                try:
                    await bot.stop()
                finally:
                    await storage.aclose()
