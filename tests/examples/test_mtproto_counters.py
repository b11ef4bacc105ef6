"""The counters for Telethon and Pyrogram, programs whose clients are given raw updates.

Their answers are read where the client would send them to Telegram.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from integrations.drivers.events import ADA, BOB

TESTS = Path(__file__).parents[1]

TELETHON = """
import asyncio, json, runpy, sys
from integrations.drivers.events import ADA, BOB
from integrations.drivers.telethon import Telegram

example = runpy.run_path(sys.argv[1])
telegram = Telegram(example["client"])

async def talk():
    answers = []
    for person, text in [(ADA, "hello"), (ADA, "again"), (BOB, "hello"), (ADA, "/reset")]:
        telegram.write(person, text)
        answers += await telegram.answers(1)
    telegram.write(ADA, "hello")
    print(json.dumps(answers + await telegram.answers(1)), flush=True)

async def main():
    talking = asyncio.create_task(talk())
    await example["main"]()
    await talking

asyncio.run(main())
"""

PYROGRAM = """
import asyncio, json, runpy, signal, sys
from integrations.drivers.events import ADA, BOB
from integrations.drivers.handlers import until
from integrations.drivers.pyrogram import Offline, new_message

example = runpy.run_path(sys.argv[1])
app, answers = example["app"], []
telegram = Offline(app, answers.append)

async def talk():
    await until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, timeout=60)
    talk = [(ADA, "hello"), (ADA, "again"), (BOB, "hello"), (ADA, "/reset"), (ADA, "hello")]
    for number, (person, text) in enumerate(talk, 1):
        await telegram.deliver(new_message(person, text, person))
        await until(lambda: len(answers) == number)
    print(json.dumps(answers), flush=True)

talking = app.loop.create_task(talk())
example["main"]()
talking.result()
"""


@pytest.mark.parametrize(
    ("example", "program"),
    [
        pytest.param("telethon_counter", TELETHON, id="telethon"),
        pytest.param("pyrogram_counter", PYROGRAM, id="pyrogram"),
    ],
)
async def test_the_counter_counts_for_each_chat_and_forgets_when_told(tmp_path, example, program):
    path = tmp_path / "bot.db"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, TESTS.parent / "examples" / f"{example}.py"),
        cwd=tmp_path,
        env={
            **os.environ,
            "API_ID": "1",
            "API_HASH": "hash",
            "BOT_TOKEN": "42:token",
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "STORAGE": f"sqlite:///{path}",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        answers = json.loads(await asyncio.wait_for(process.stdout.readline(), 100))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert answers == [
        "Message number 1 in this chat.",
        "Message number 2 in this chat.",
        "Message number 1 in this chat.",
        "Forgotten. I start again from nothing.",
        "Message number 1 in this chat.",
    ]
    with closing(sqlite3.connect(path)) as connection:
        rows = dict(connection.execute("SELECT key, value FROM gramkeep_sessions"))
    assert rows == {str(ADA.id): b'{"count":1}', str(BOB.id): b'{"count":1}'}
