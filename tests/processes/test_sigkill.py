"""A bot that is killed at random moments, under load."""

import asyncio
import json
import random
import re
import sqlite3
from collections import defaultdict
from contextlib import closing

import pytest
from child_processes import run_example_bot

from gramkeep.testing import TelegramServer

from .backends import folder

KILLS = 30


@pytest.fixture
def path():
    with folder() as place:
        yield place / "bot.db"


@pytest.mark.timeout(300)
async def test_thirty_kills_under_load_lose_no_count_that_was_answered(processes, path):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    async with TelegramServer() as telegram:
        people = [telegram.user(name) for name in ("Ada", "Bob", "Cleo", "Dan")]

        async def write_on() -> None:
            while True:
                for person in people:
                    await person.write("x")
                await asyncio.sleep(0.004)

        kills_amid_answers = 0
        for _ in range(KILLS):
            bot = processes.Process(
                target=run_example_bot, args=(telegram.url, telegram.token, f"sqlite:///{path}")
            )
            bot.start()
            before = len(sent(telegram))
            more = chance.randrange(8)
            writing = asyncio.create_task(write_on())
            try:
                while len(sent(telegram)) <= before + more:
                    assert bot.is_alive()
                    await asyncio.sleep(0.001)
                await asyncio.sleep(chance.uniform(0, 0.05))
            finally:
                bot.kill()
                writing.cancel()
                await asyncio.to_thread(bot.join)
            kills_amid_answers += len(sent(telegram)) > before + 1

            counts = read(path)
            for chat_id, answered in highest_answers(telegram).items():
                assert counts.get(chat_id, 0) >= answered, f"seed {seed}, chat {chat_id}"
        assert kills_amid_answers > KILLS / 2
        assert sum(highest_answers(telegram).values()) > KILLS


def sent(telegram: TelegramServer) -> list[tuple[int, str]]:
    return [
        (int(call.params["chat_id"]), call.params["text"])
        for call in telegram.calls
        if call.method == "sendMessage"
    ]


def highest_answers(telegram: TelegramServer) -> dict[int, int]:
    highest: dict[int, int] = defaultdict(int)
    for chat_id, text in sent(telegram):
        number = int(re.fullmatch(r"Message number (\d+) in this chat\.", text)[1])
        highest[chat_id] = max(highest[chat_id], number)
    return highest


def read(path) -> dict[int, int]:
    """Read the counts as the next process would find them, and check the file."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT key, value FROM gramkeep_sessions").fetchall()
    return {int(key): json.loads(value)["count"] for key, value in rows}
