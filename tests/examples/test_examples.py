"""The examples, run as their users run them: as programs, against a Bot API server over HTTP."""

import asyncio
import os
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from gramkeep.testing import TelegramServer

EXAMPLES = Path(__file__).parents[2] / "examples"

ANSWERS_WITHIN = 60  # seconds, in which a bot may still be starting on a busy machine


@pytest.fixture
async def telegram():
    async with TelegramServer() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bot.db"


@pytest.fixture
def run(telegram, path):
    @asynccontextmanager
    async def run(name, **variables):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            EXAMPLES / f"{name}.py",
            env={
                **os.environ,
                "BOT_TOKEN": telegram.token,
                "BOT_API_URL": telegram.url,
                "STORAGE": f"sqlite:///{path}",
                **variables,
            },
        )
        try:
            await telegram.bot_listening(timeout=60)
            yield
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return run


async def ask(person, text, chat=None):
    await person.write(text, chat=chat)
    return (await (chat or person).next_answer(ANSWERS_WITHIN)).text


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT key, value FROM gramkeep_sessions").fetchall()
    return {key: value.decode() for key, value in found}


@pytest.mark.parametrize("example", ["aiogram_counter", "ptb_counter", "telebot_counter"])
async def test_the_counter_counts_for_each_chat_and_forgets_when_told(telegram, run, path, example):
    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    async with run(example):
        assert await ask(ada, "hello") == "Message number 1 in this chat."
        assert await ask(ada, "again") == "Message number 2 in this chat."
        assert await ask(bob, "hello") == "Message number 1 in this chat."
        assert "Forgotten" in await ask(ada, "/reset")
        assert await ask(ada, "hello") == "Message number 1 in this chat."
    assert rows(path) == {str(ada.id): '{"count":1}', str(bob.id): '{"count":1}'}


async def test_the_shop_keeps_a_cart_for_the_chat_and_orders_for_each_customer(telegram, run, path):
    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    group = telegram.group("Friends", members=[ada, bob])
    async with run("aiogram_cart"):
        assert await ask(ada, "2 apples", group) == "2 apples in the cart."
        assert await ask(bob, "3 apples", group) == "5 apples in the cart."
        assert await ask(bob, "1 pear", group) == "1 pear in the cart."
        assert await ask(ada, "/cart", group) == "5 apples\n1 pear"
        assert await ask(ada, "/pay", group) == "Paid 6 items. This is your order number 1."
        assert await ask(bob, "/pay", group) == "There is nothing to pay."
        assert await ask(bob, "1 pear", group) == "1 pear in the cart."
        assert await ask(bob, "/empty", group) == "The cart is empty."
    assert rows(path) == {f"customer:{ada.id}": '{"orders":1}'}


async def test_the_language_is_kept_per_user_and_old_settings_are_migrated(telegram, run, path):
    ada = telegram.user("Ada", language_code="de")
    bob = telegram.user("Bob", language_code="xx")
    cleo = telegram.user("Cleo")
    group = telegram.group("Friends", members=[ada, bob, cleo])
    async with run("aiogram_language"):
        assert await ask(ada, "hi") == "Hallo!"
        assert await ask(bob, "hi") == "Hello!"
        assert "I speak en, de" in await ask(bob, "/language tlh")
        assert await ask(bob, "/language es") == "Hola!"
        assert await ask(bob, "hello bot", group) == "Hola!"
        await cleo.write("nobody loads a session for this", chat=group)
    key = f"settings:{cleo.id}"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO gramkeep_sessions VALUES (?, ?, NULL)", (key, b'"ru"'))
    async with run("aiogram_language"):
        assert await ask(cleo, "hi") == "Привет!"
        assert await ask(cleo, "/language nl") == "Hallo!"
    assert rows(path)[key] == '{"v":1,"__d":{"language":"nl"}}'
    assert f"settings:{ada.id}" not in rows(path)  # still what it began with


async def test_a_quiz_round_is_over_when_nobody_answers(telegram, run):
    ada = telegram.user("Ada")

    def solved(text):
        first, _, second = text.rstrip("?").split()[-3:]
        return str(int(first) * int(second))

    async with run("aiogram_quiz", ROUND_SECONDS="600"):
        assert "no round" in await ask(ada, "42")
        question = await ask(ada, "/quiz")
        assert await ask(ada, "wrong") == "No."
        question = await ask(ada, solved(question))
        assert question.startswith("Right, Ada! ")
        assert "Right" in await ask(ada, solved(question))
        assert await ask(ada, "/stop") == "The round is over.\nAda: 2"
        assert "no round" in await ask(ada, "42")
    async with run("aiogram_quiz", ROUND_SECONDS="1"):
        await ask(ada, "/quiz")
        await asyncio.sleep(1.1)
        assert "no round" in await ask(ada, "42")
