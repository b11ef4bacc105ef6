"""A bot that remembers how many messages each chat has sent it.

    API_ID=12345 API_HASH=0123abc BOT_TOKEN=123:abc python examples/telethon_counter.py

Sessions are kept in the SQLite file bot.db beside where you start it. STORAGE takes another URL.
Telethon's own session, the bot's login, is kept in counter.session beside it.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass

from telethon import TelegramClient, events

from gramkeep import Session
from gramkeep.integrations.telethon import session


@dataclass
class Counter:
    count: int = 0


client = TelegramClient("counter", int(os.environ["API_ID"]), os.environ["API_HASH"])
session(initial=Counter, storage=os.environ.get("STORAGE", "sqlite:///bot.db")).setup(client)


@client.on(events.NewMessage(incoming=True, pattern=r"/reset\b"))
async def reset(event: events.NewMessage.Event, session_handle: Session[Counter]) -> None:
    await session_handle.clear()
    await event.respond("Forgotten. I start again from nothing.")
    raise events.StopPropagation  # or count would be called as well


@client.on(events.NewMessage(incoming=True))
async def count(
    event: events.NewMessage.Event, session: Counter, session_handle: Session[Counter]
) -> None:
    session.count += 1
    # Saved before it is sent, so that nobody is told a number that could still be lost.
    await session_handle.save()
    await event.respond(f"Message number {session.count} in this chat.")


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    await client.start(bot_token=os.environ["BOT_TOKEN"])
    # Telethon itself listens to Ctrl+C alone; services are stopped by SIGTERM.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, client.disconnect)
    await client.run_until_disconnected()


if __name__ == "__main__":
    asyncio.run(main())
