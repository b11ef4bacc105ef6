"""The bots of docs/integrations/telebot.md answer as they should."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from telebot import TeleBot, apihelper, asyncio_helper

from gramkeep.testing import TelegramServer

from .conftest import texts_of
from .pages import AFTER_SAVING, LAZY_SESSIONS, PARAMETERS, SEVERAL_KINDS

PAGE = "docs/integrations/telebot.md"


@asynccontextmanager
async def talk(bot):
    """Let a bot poll a local Bot API server for the length of an ``async with``."""
    async with TelegramServer(token=bot.token) as telegram:
        apihelper.API_URL = asyncio_helper.API_URL = f"{telegram.url}/bot{{0}}/{{1}}"
        if isinstance(bot, TeleBot):
            poll = {"long_polling_timeout": 1}
            thread = threading.Thread(target=bot.infinity_polling, kwargs=poll)
            thread.start()
        else:
            task = asyncio.create_task(bot.infinity_polling(timeout=1))
        await telegram.bot_listening()
        try:
            yield telegram
        finally:
            if isinstance(bot, TeleBot):
                await asyncio.to_thread(bot.stop_bot)
                await asyncio.to_thread(thread.join)
            else:
                task.cancel()
                await task


@pytest.mark.parametrize(
    ("section", "conversation"),
    [
        PARAMETERS,
        AFTER_SAVING,
        SEVERAL_KINDS,
        ("Middlewares", {"a": "a", "b": "a, b"}),
        LAZY_SESSIONS,
        (
            "Threads",
            {
                "/count": "You have sent 1 commands",
                "/name": "What is your name?",
                "Ada": "is called Ada",
                "/reset": "Forgotten",
                "/count ": "You have sent 1 commands",
            },
        ),
    ],
)
async def test_the_bots_of_the_page_answer_as_they_should(run, section, conversation):
    module = await run(PAGE, through=section)
    async with talk(module.bot) as telegram:
        assert await texts_of(telegram, *conversation) == list(conversation.values())


async def test_jobs_beside_a_bot_with_coroutines_and_one_with_threads(run, capsys):
    module = await run(PAGE, through="Outside of handlers")
    async with talk(module.bot):
        await module.job()
        assert await module.sessions.get("42") == module.Counter(1)
    module = await run(PAGE, through="Threads")
    async with talk(module.bot):
        await asyncio.to_thread(module.job)
    assert capsys.readouterr().out == "100\nCounter(count=100, notes=[])\n"


async def test_the_errors_of_a_bot_are_reported(run, capsys):
    module = await run(PAGE, through="Errors")

    @module.bot.message_handler()
    async def fail(message, session):
        await module.bot.reply_to(message, "failing")
        raise ValueError

    async with talk(module.bot) as telegram:
        assert await texts_of(telegram, "x") == ["failing"]
    assert capsys.readouterr().out == "An update failed: ValueError()\n"
