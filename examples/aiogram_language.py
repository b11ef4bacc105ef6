"""A bot that speaks each user's language, in whichever chat they meet.

    BOT_TOKEN=123:abc python examples/aiogram_language.py

The setting is loaded only for the messages that need it, and is versioned: what the first release
kept as a bare string, this one keeps as an object.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command, CommandObject
from aiogram.methods import SendMessage
from aiogram.types import Message

from gramkeep import Origin, Session, per_user
from gramkeep.integrations.aiogram import lazy_session

API_URL = os.environ.get("BOT_API_URL", "https://api.telegram.org")
GREETINGS = {"en": "Hello", "de": "Hallo", "nl": "Hallo", "ru": "Привет", "es": "Hola"}


@dataclass
class Settings:
    language: str = "en"


def first_settings(origin: Origin) -> Settings:
    """Begin with the language of the user's app, where Telegram tells and we speak it."""
    code = origin.event.from_user.language_code
    return Settings(code if code in GREETINGS else "en")


def from_bare_string(old: str) -> dict[str, Any]:
    return {"language": old}


dispatcher = Dispatcher()
lazy_session(
    initial=first_settings,
    get_session_key=per_user,
    key="settings",
    prefix="settings:",
    migrations={1: from_bare_string},
    storage=os.environ.get("STORAGE", "sqlite:///settings.db"),
).setup(dispatcher)


@dispatcher.message(Command("language"))
async def choose(
    message: Message, command: CommandObject, settings: Session[Settings]
) -> SendMessage:
    if command.args not in GREETINGS:
        return message.answer(f"I speak {', '.join(GREETINGS)}: send /language de")
    (await settings).language = command.args
    return message.answer(f"{GREETINGS[command.args]}!")


@dispatcher.message()
async def greet(message: Message, settings: Session[Settings]) -> SendMessage | None:
    if message.chat.type != "private" and "hello" not in (message.text or "").lower():
        return None  # nothing was loaded for it
    return message.answer(f"{GREETINGS[(await settings).language]}!")


async def main() -> None:
    bot = Bot(os.environ["BOT_TOKEN"], AiohttpSession(api=TelegramAPIServer.from_base(API_URL)))
    await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
