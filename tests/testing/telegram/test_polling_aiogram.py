"""A real aiogram bot, polling a TelegramServer over HTTP."""

import asyncio
import contextlib

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command
from aiogram.types import Message

from gramkeep.testing import TelegramServer


@pytest.fixture
async def telegram():
    async with TelegramServer() as server:
        yield server


@contextlib.asynccontextmanager
async def polling(dp, telegram):
    session = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
    async with Bot(telegram.token, session=session) as bot:
        task = asyncio.create_task(dp.start_polling(bot, handle_signals=False))
        try:
            await telegram.bot_listening()
            yield bot
        finally:
            await dp.stop_polling()
            await task


async def test_a_command_is_answered_in_the_private_chat(telegram):
    dp = Dispatcher()

    @dp.message(Command("start"))
    async def start(message: Message):
        await message.answer(f"Hello, {message.from_user.first_name}!")

    alice = telegram.user("Alice")
    async with polling(dp, telegram):
        await alice.write("/start")
        assert (await alice.next_answer()).text == "Hello, Alice!"
