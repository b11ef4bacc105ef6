"""A bot that remembers how many messages each chat has sent it.

    BOT_TOKEN=123:abc python examples/ptb_counter.py

Sessions are kept in the SQLite file bot.db beside where you start it. STORAGE takes another URL,
BOT_API_URL another Bot API server.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from telegram import Update
from telegram.ext import (
    Application,
    CallbackContext,
    CommandHandler,
    ContextTypes,
    ExtBot,
    MessageHandler,
    filters,
)

from gramkeep import SessionFlavor
from gramkeep.integrations.ptb import session

API_URL = os.environ.get("BOT_API_URL", "https://api.telegram.org")


@dataclass
class Counter:
    count: int = 0


Data: TypeAlias = dict[Any, Any]


class Context(SessionFlavor[Counter], CallbackContext[ExtBot[None], Data, Data, Data]):
    """Tells type checkers what handlers find under context.session."""


builder = (
    Application.builder()
    .token(os.environ["BOT_TOKEN"])
    .base_url(f"{API_URL}/bot")
    .context_types(ContextTypes(context=Context))
    .concurrent_updates(True)
)
session(initial=Counter, storage=os.environ.get("STORAGE", "sqlite:///bot.db")).setup(builder)


async def reset(update: Update, context: Context) -> None:
    await context.session_handle.clear()
    if update.message:
        await update.message.reply_text("Forgotten. I start again from nothing.")


async def count(update: Update, context: Context) -> None:
    context.session.count += 1
    # Saved before it is sent, so that nobody is told a number that could still be lost.
    await context.session_handle.save()
    if update.message:
        await update.message.reply_text(f"Message number {context.session.count} in this chat.")


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    application = builder.build()
    application.add_handler(CommandHandler("reset", reset))
    application.add_handler(MessageHandler(filters.UpdateType.MESSAGE, count))
    application.run_polling()


if __name__ == "__main__":
    main()
