"""The examples of docs/testing.md, run as they stand there."""

import asyncio
import re
from pathlib import Path

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message
from aiogram.webhook.aiohttp_server import SimpleRequestHandler
from aiohttp import web

from gramkeep.testing import TelegramServer, WaitTimeout


def make_dispatcher() -> Dispatcher:
    dispatcher = Dispatcher()
    votes: dict[int, int] = {}

    @dispatcher.message(Command("vote"))
    async def vote(message: Message) -> None:
        button = InlineKeyboardButton(text="Me too", callback_data="vote")
        keyboard = InlineKeyboardMarkup(inline_keyboard=[[button]])
        await message.answer("Who is for it?", reply_markup=keyboard)

    @dispatcher.callback_query()
    async def count(query: CallbackQuery) -> None:
        chat_id = query.message.chat.id
        votes[chat_id] = votes.get(chat_id, 0) + 1
        await query.message.edit_text(f"{votes[chat_id]} for it")
        await query.answer("Counted")

    return dispatcher


@pytest.fixture
async def telegram():
    async with TelegramServer() as server:
        api = TelegramAPIServer.from_base(server.url)
        async with Bot(server.token, session=AiohttpSession(api=api)) as bot:
            dispatcher = make_dispatcher()
            polling = asyncio.create_task(dispatcher.start_polling(bot, handle_signals=False))
            await server.bot_listening()
            yield server
            await dispatcher.stop_polling()
            await polling


async def test_votes_of_a_group_are_counted(telegram):
    alice, bob = telegram.user("Alice"), telegram.user("Bob")
    friends = telegram.group("Friends", [alice, bob])

    await alice.write("/vote", chat=friends)
    question = await friends.next_answer()
    assert question.text == "Who is for it?"

    query = await bob.press(question, "Me too")
    assert (await query.answered())["text"] == "Counted"
    assert (await friends.next_edit()).text == "1 for it"


async def test_each_group_has_its_own_count(telegram):
    alice = telegram.user("Alice")
    groups = [telegram.group(title, [alice]) for title in ("One", "Two")]
    with telegram.hold():
        for group in groups:
            await alice.write("/vote", chat=group)
    for question in await telegram.answers(2):
        await alice.press(question, "Me too")
    for group in groups:
        assert (await group.next_edit()).text == "1 for it"


async def test_topics(telegram):
    alice = telegram.user("Alice")
    team = telegram.supergroup("Team", [alice], forum=True)
    news = team.topic("News")
    await alice.write("/vote", topic=news)
    assert (await team.next_answer()).thread_id == news.id


async def test_a_group_that_becomes_a_supergroup(telegram):
    alice = telegram.user("Alice")
    group = telegram.group("Friends", [alice])
    supergroup = await group.upgrade()
    await alice.write("/vote", chat=supergroup)
    assert (await supergroup.next_answer()).text == "Who is for it?"


async def test_a_failed_edit_leaves_the_press_unanswered(telegram):
    alice = telegram.user("Alice")
    await alice.write("/vote")
    question = await alice.next_answer()
    with telegram.faults.server_error(times=1, methods={"editMessageText"}) as fault:
        query = await alice.press(question, "Me too")
        await telegram.wait_for_call("editMessageText")
        assert fault.used == 1
    # This bot answers the press after the edit, so an edit that fails leaves it unanswered.
    with pytest.raises(WaitTimeout):
        await query.answered(timeout=0.1)


async def test_by_webhook():
    async with TelegramServer() as telegram:
        api = TelegramAPIServer.from_base(telegram.url)
        async with Bot(telegram.token, session=AiohttpSession(api=api)) as bot:
            app = web.Application()
            SimpleRequestHandler(make_dispatcher(), bot, secret_token="s3cret").register(app, "/")
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                port = runner.addresses[0][1]
                await bot.set_webhook(f"http://127.0.0.1:{port}/", secret_token="s3cret")

                alice = telegram.user("Alice")
                await alice.write("/vote")
                assert (await alice.next_answer()).text == "Who is for it?"
            finally:
                await runner.cleanup()


def test_the_guide_shows_these_examples():
    here = Path(__file__)
    guide = here.parents[3] / "docs" / "testing.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        assert block in here.read_text(encoding="utf-8")
