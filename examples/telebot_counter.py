"""A bot that remembers how many messages each chat has sent it.

    BOT_TOKEN=123:abc python examples/telebot_counter.py

Sessions are kept in the SQLite file bot.db beside where you start it. STORAGE takes another URL,
BOT_API_URL another Bot API server.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass

from telebot import asyncio_helper
from telebot.async_telebot import AsyncTeleBot
from telebot.types import Message
from telebot.util import content_type_media

from gramkeep import Session
from gramkeep.integrations.telebot import session

API_URL = os.environ.get("BOT_API_URL", "https://api.telegram.org")


@dataclass
class Counter:
    count: int = 0


asyncio_helper.API_URL = f"{API_URL}/bot{{0}}/{{1}}"
bot = AsyncTeleBot(os.environ["BOT_TOKEN"])
session(initial=Counter, storage=os.environ.get("STORAGE", "sqlite:///bot.db")).setup(bot)


@bot.message_handler(commands=["reset"])
async def reset(message: Message, session_handle: Session[Counter]) -> None:
    await session_handle.clear()
    await bot.send_message(message.chat.id, "Forgotten. I start again from nothing.")


@bot.message_handler(content_types=content_type_media)
async def count(message: Message, session: Counter, session_handle: Session[Counter]) -> None:
    session.count += 1
    # Saved before it is sent, so that nobody is told a number that could still be lost.
    await session_handle.save()
    await bot.send_message(message.chat.id, f"Message number {session.count} in this chat.")


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    polling = asyncio.create_task(bot.infinity_polling())
    # telebot itself listens to Ctrl+C alone; services are stopped by SIGTERM.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, polling.cancel)
    await polling


if __name__ == "__main__":
    asyncio.run(main())
