"""A quiz: a round is forgotten when nobody answers for a while.

    BOT_TOKEN=123:abc python examples/aiogram_quiz.py

/quiz starts a round. ROUND_SECONDS (60) after the last answer it is over, and nothing of it left.
"""

import asyncio
import os
import random
from dataclasses import dataclass, field

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command
from aiogram.methods import SendMessage
from aiogram.types import Message

from gramkeep import Session
from gramkeep.integrations.aiogram import session

API_URL = os.environ.get("BOT_API_URL", "https://api.telegram.org")


@dataclass
class Round:
    question: tuple[int, int] | None = None
    points: dict[str, int] = field(default_factory=dict)
    asked: set[tuple[int, int]] = field(default_factory=set)


dispatcher = Dispatcher()
session(
    initial=Round,
    key="quiz",
    ttl=float(os.environ.get("ROUND_SECONDS", "60")),
    storage=os.environ.get("STORAGE", "sqlite:///quiz.db"),
).setup(dispatcher)


def ask(quiz: Round) -> str:
    quiz.question = random.randint(2, 9), random.randint(2, 9)
    quiz.asked.add(quiz.question)
    return f"{quiz.question[0]} x {quiz.question[1]}?"


@dispatcher.message(Command("quiz"))
async def start(message: Message, quiz: Round) -> SendMessage:
    return message.answer(ask(quiz))


@dispatcher.message(Command("stop"))
async def stop(message: Message, quiz_handle: Session[Round]) -> SendMessage:
    points = quiz_handle.data.points
    await quiz_handle.clear()
    lines = [f"{name}: {count}" for name, count in sorted(points.items())]
    return message.answer("\n".join(["The round is over.", *lines]))


@dispatcher.message()
async def answer(message: Message, quiz: Round) -> SendMessage:
    if quiz.question is None:
        return message.answer("There is no round: start one by /quiz")
    if message.text != str(quiz.question[0] * quiz.question[1]):
        return message.answer("No.")
    name = message.from_user.first_name if message.from_user else "Somebody"
    quiz.points[name] = quiz.points.get(name, 0) + 1
    return message.answer(f"Right, {name}! {ask(quiz)}")


async def main() -> None:
    bot = Bot(os.environ["BOT_TOKEN"], AiohttpSession(api=TelegramAPIServer.from_base(API_URL)))
    await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
