"""A bot that remembers how many messages each chat has sent it.

    BOT_TOKEN=123:abc python examples/aiogram_counter.py

Sessions are kept in the SQLite file bot.db beside where you start it. STORAGE takes another URL,
BOT_API_URL another Bot API server.
"""

import asyncio
import logging
import os
from dataclasses import dataclass

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command
from aiogram.methods import TelegramMethod
from aiogram.types import Message

from gramkeep import Session
from gramkeep.integrations.aiogram import session

API_URL = os.environ.get("BOT_API_URL", "https://api.telegram.org")


@dataclass
class Counter:
    count: int = 0


dispatcher = Dispatcher()
session(initial=Counter, storage=os.environ.get("STORAGE", "sqlite:///bot.db")).setup(dispatcher)


@dispatcher.message(Command("reset"))
async def reset(message: Message, session_handle: Session[Counter]) -> TelegramMethod[Message]:
    await session_handle.clear()
    return message.answer("Forgotten. I start again from nothing.")


@dispatcher.message()
async def count(message: Message, session: Counter) -> TelegramMethod[Message]:
    session.count += 1
    # Returned, not awaited: aiogram sends it when the session is saved, so that nobody is told a
    # number that could still be lost.
    return message.answer(f"Message number {session.count} in this chat.")


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    api = AiohttpSession(api=TelegramAPIServer.from_base(API_URL))
    bot = Bot(os.environ["BOT_TOKEN"], session=api)
    await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
