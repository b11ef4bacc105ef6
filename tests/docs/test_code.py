"""The Python code of the documentation runs, and does what the text around it says."""

import asyncio
import functools
import json
import logging
import re
import sqlite3
from contextlib import closing

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.fsm.context import FSMContext

from gramkeep import StorageUnavailable
from gramkeep.testing import TelegramServer

from .pages import ROOT, blocks

TESTED_ELSEWHERE = {
    "docs/testing.md": "tests/testing/telegram/test_guide.py",
    "docs/storages/custom.md": "tests/storages/test_custom_guide.py",
}
AIOGRAM = "docs/integrations/aiogram.md"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if any(blocks(path))
)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in TESTED_ELSEWHERE])
async def test_the_code_of_a_page_runs_from_its_top_to_its_end(run, page):
    await run(page, name="bot")


def test_pages_whose_code_is_not_run_here_are_tested_elsewhere():
    for page, test in TESTED_ELSEWHERE.items():
        assert page in PAGES
        assert page.rpartition("/")[2] in (ROOT / test).read_text("utf-8")


# README.md


async def test_fifty_messages_counted_in_the_fsm_data_of_aiogram_leave_the_counter_at_one(talk):
    dispatcher = Dispatcher()

    @dispatcher.message()
    async def count(message, state: FSMContext):
        data = await state.get_data()
        await message.bot.send_chat_action(message.chat.id, "typing")
        await state.update_data(count=data.get("count", 0) + 1)
        await message.answer(str((await state.get_data())["count"]))

    async with talk(dispatcher) as telegram:
        ada = telegram.user("Ada")
        with telegram.hold():
            for _ in range(50):
                await ada.write("x")
        assert {answer.text for answer in await ada.answers(50)} == {"1"}


async def test_fifty_messages_to_the_bot_of_the_readme_count_to_fifty_in_their_order(run, talk):
    module = await run("README.md", through="A bot that counts", name="bot")
    async with talk(module.dispatcher) as telegram:
        ada = telegram.user("Ada")
        with telegram.hold():
            for _ in range(50):
                await ada.write("x")
        texts = [answer.text for answer in await ada.answers(50)]
    assert texts == [f"Message number {number} in this chat." for number in range(1, 51)]


async def test_the_bot_of_the_readme_goes_on_after_a_restart_and_forgets_when_asked(
    run, monkeypatch
):
    async with TelegramServer() as telegram:
        monkeypatch.setenv("BOT_TOKEN", telegram.token)
        ada = telegram.user("Ada")
        for text in ("Message number 1 in this chat.", "Message number 2 in this chat."):
            module = await run("README.md", through="A bot that counts", name="bot")
            api = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
            module.Bot = functools.partial(Bot, session=api)  # otherwise it would go to Telegram
            running = asyncio.create_task(module.main())
            await ada.write("x")
            assert (await ada.next_answer()).text == text
            if text.startswith("Message number 2"):
                await ada.write("/reset")
                assert (await ada.next_answer()).text.startswith("Forgotten")
                await ada.write("x")
                assert (await ada.next_answer()).text == "Message number 1 in this chat."
            await module.dispatcher.stop_polling()
            await running


async def test_the_job_and_the_test_of_the_readme(run, capsys):
    module = await run("README.md", name="bot")
    await module.test_the_bot_counts()
    await module.birthday(42)
    assert "Counter(count=100)" in capsys.readouterr().out


# docs/quickstart.md


async def test_the_shop_of_the_quickstart(run, talk, monkeypatch):
    module = await run("docs/quickstart.md", name="bot")
    async with talk(module.dispatcher) as telegram:
        ada, bob = telegram.user("Ada"), telegram.user("Bob")
        for text, answer in {
            "/help": "/add, /clear, /order",
            "/order": "There is nothing in your basket.",
            "/add": "You have 1 of apple.",
            "/add  apple": "You have 2 of apple.",
            "/order ": "Thank you!",
        }.items():
            await ada.write(text)
            assert (await ada.next_answer()).text == answer
        await bob.write("/add pear")
        await bob.next_answer()
        await module.give_away(ada.id)
        assert await module.users_with_apples() == [str(ada.id)]
        basket = await module.baskets.sessions.get(str(ada.id))
        assert basket.items == {"apple": 2, "surprise": 1}
        assert basket.ordered_at is not None
        await ada.write("/clear")
        await ada.next_answer()
        assert await module.baskets.sessions.get(str(ada.id)) is None


# docs/integrations/aiogram.md


async def texts_of(telegram, *written):
    ada = telegram.user("Ada")
    answers = []
    for text in written:
        await ada.write(text)
        answers.append((await ada.next_answer()).text)
    return answers


@pytest.mark.parametrize(
    ("section", "conversation"),
    [
        (
            "Parameters",
            {
                "/count": "You have sent 1 commands",
                "/count ": "You have sent 2 commands",
                "/reset": "Forgotten",
                "/count  ": "You have sent 1 commands",
                "/ping": "pong",
            },
        ),
        ("The name", {"x": "1, and the database session", "y": "2, and the database session"}),
        ("Several kinds", {"x": "1 in this chat, 1 from you", "y": "2 in this chat, 2 from you"}),
        ("Filters", {"a": "Hello", "b": "Hello", "c": "You again!"}),
        ("Middleware", {"a": "a", "b": "a, b"}),
        ("Error handlers", {"x": "0, ['ValueError']", "y": "0, ['ValueError', 'ValueError']"}),
        ("Lazy sessions", {"x": "not counted", "count": "1", "count ": "not counted"}),
    ],
)
async def test_the_bots_of_the_aiogram_page_answer_as_they_should(run, talk, section, conversation):
    module = await run(AIOGRAM, through=section)
    async with talk(module.dispatcher) as telegram:
        assert await texts_of(telegram, *conversation) == list(conversation.values())


async def test_a_job_beside_an_aiogram_bot(run, talk):
    module = await run(AIOGRAM, through="Outside of handlers")
    async with talk(module.dispatcher) as telegram:
        assert await texts_of(telegram, "x") == ["The job has run 0 times"]
        await module.job()
        assert await module.sessions.get("42") == module.Counter(1)


async def test_two_kinds_of_the_aiogram_page_stand_in_one_file(run, talk, tmp_path):
    module = await run(AIOGRAM, through="Several kinds")
    async with talk(module.dispatcher) as telegram:
        await texts_of(telegram, "x")
        (ada,) = [chat.id for chat in telegram._world.chats.values()]
    with closing(sqlite3.connect(tmp_path / "bot.db")) as connection:
        rows = dict(connection.execute("SELECT key, value FROM gramkeep_sessions"))
    assert {key: json.loads(value) for key, value in rows.items()} == {
        f"chat:{ada}": {"count": 1, "notes": []},
        f"user:{ada}": {"count": 1},
    }


# docs/guides/shutdown.md


async def test_hooks_registered_after_setup_run_when_no_handler_holds_a_session(run, talk):
    module = await run("docs/guides/shutdown.md", through="With aiogram")
    order = []
    started = asyncio.Event()

    @module.dispatcher.message()
    async def slow(message, session):
        started.set()
        await asyncio.sleep(0.05)
        session["done"] = True
        order.append("handler")

    @module.dispatcher.shutdown()
    async def close_another():
        order.append("hook")

    async with talk(module.dispatcher) as telegram:
        await telegram.user("Ada").write("x")
        await started.wait()
    assert order == ["handler", "hook"]


async def test_a_dispatcher_started_again_says_that_its_sessions_are_closed(run, talk, caplog):
    module = await run("docs/index.md")
    for _ in range(2):
        async with talk(module.dispatcher) as telegram:
            await telegram.user("Ada").write("x")
            await telegram.drained()
    assert "it was closed" in caplog.text


# docs/storages


async def test_without_a_storage_a_warning_says_that_sessions_end_with_the_process(caplog):
    from gramkeep import Sessions  # noqa: PLC0415

    with caplog.at_level(logging.WARNING, "gramkeep"):
        Sessions(initial=dict)
    assert "memory" in caplog.text


async def test_the_table_of_the_sqlite_page_is_the_one_that_is_made(run, tmp_path):
    await run("docs/storages/sqlite.md")
    with closing(sqlite3.connect(tmp_path / "bot.db")) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        made = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql]
    page = (ROOT / "docs/storages/sqlite.md").read_text("utf-8")
    (shown,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert mode == "wal"
    assert [words(sql) for sql in made] == [
        words(sql) for sql in shown.replace("IF NOT EXISTS ", "").split(";") if sql.strip()
    ]


def words(sql):
    return re.findall(r"[\w\"]+|[(),?]", sql)


async def test_a_file_that_disappears_is_not_replaced_by_an_empty_one(tmp_path):
    from gramkeep import Sessions  # noqa: PLC0415

    path = tmp_path / "bot.db"
    async with Sessions(initial=dict, storage=f"sqlite:///{path}") as sessions:
        await sessions.update("42", lambda data: {**data, "x": 1})
        path.unlink()
        with pytest.raises(StorageUnavailable):
            await sessions.get("42")
        assert not path.exists()
