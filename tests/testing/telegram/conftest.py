import asyncio
import contextlib

import aiohttp
import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

from gramkeep.testing import TelegramServer


@pytest.fixture
def telegram_options():
    return {}


@pytest.fixture
async def telegram(telegram_options):
    async with TelegramServer(**telegram_options) as server:
        yield server


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def call(telegram, http):
    """Call a method with a JSON body; gives the whole answer of the Bot API."""

    async def make(method, **params):
        async with http.post(f"{telegram.url}/bot{telegram.token}/{method}", json=params) as got:
            answer = await got.json()
            assert answer["ok"] == (got.status == 200)
            assert answer["ok"] or answer["error_code"] == got.status
            return answer

    return make


@pytest.fixture
def result(call):
    """Call a method that must succeed; gives its result."""

    async def make(method, **params):
        answer = await call(method, **params)
        assert answer["ok"], answer
        return answer["result"]

    return make


@pytest.fixture
async def aiogram_bot(telegram):
    session = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
    async with Bot(telegram.token, session=session) as bot:
        yield bot


@pytest.fixture
def polling(telegram, aiogram_bot):
    """In `async with polling(dispatcher)` the bot polls."""

    @contextlib.asynccontextmanager
    async def run(dispatcher):
        task = asyncio.create_task(dispatcher.start_polling(aiogram_bot, handle_signals=False))
        try:
            await telegram.bot_listening()
            yield aiogram_bot
        finally:
            await dispatcher.stop_polling()
            await task

    return run
