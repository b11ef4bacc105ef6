"""A bot that remembers how many messages each chat has sent it.

    API_ID=12345 API_HASH=0123abc BOT_TOKEN=123:abc python examples/pyrogram_counter.py

Sessions are kept in the SQLite file bot.db beside where you start it. STORAGE takes another URL.
Pyrogram's own session, the bot's login, is kept in counter.session beside it.
"""

import logging
import os
from dataclasses import dataclass

from pyrogram import Client, filters
from pyrogram.types import Message

from gramkeep import Session
from gramkeep.integrations.pyrogram import session


@dataclass
class Counter:
    count: int = 0


app = Client(
    "counter",
    api_id=int(os.environ["API_ID"]),
    api_hash=os.environ["API_HASH"],
    bot_token=os.environ["BOT_TOKEN"],
)
session(initial=Counter, storage=os.environ.get("STORAGE", "sqlite:///bot.db")).setup(app)


@app.on_message(filters.command("reset"))
async def reset(_: Client, message: Message, session_handle: Session[Counter]) -> None:
    await session_handle.clear()
    await message.reply("Forgotten. I start again from nothing.")


@app.on_message()
async def count(
    _: Client, message: Message, session: Counter, session_handle: Session[Counter]
) -> None:
    session.count += 1
    # Saved before it is sent, so that nobody is told a number that could still be lost.
    await session_handle.save()
    await message.reply(f"Message number {session.count} in this chat.")


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    app.run()


if __name__ == "__main__":
    main()
