"""The Python code of the documentation runs, and does what the text around it says."""

import asyncio
import functools
import json
import logging
import re
import shutil
import sqlite3
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from contextlib import closing

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.fsm.context import FSMContext
from aiogram.fsm.storage.base import StorageKey

from gramkeep import Sessions, StorageUnavailable
from gramkeep.testing import TelegramServer

from .conftest import texts_of
from .pages import LAZY_SESSIONS, PARAMETERS, ROOT, SEVERAL_KINDS, blocks

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


@pytest.mark.parametrize(
    ("section", "conversation"),
    [
        PARAMETERS,
        ("The name", {"x": "1, and the database session", "y": "2, and the database session"}),
        SEVERAL_KINDS,
        ("Filters", {"a": "Hello", "b": "Hello", "c": "You again!"}),
        ("Middleware", {"a": "a", "b": "a, b"}),
        ("Middleware that catches errors", {"x": "1", "y": "2"}),
        ("Error handlers", {"x": "0, ['ValueError']", "y": "0, ['ValueError', 'ValueError']"}),
        LAZY_SESSIONS,
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


async def test_a_dispatcher_started_again_counts_on(run, talk):
    module = await run("docs/index.md")
    for number in (1, 2):
        async with talk(module.dispatcher) as telegram:
            assert await texts_of(telegram, "x") == [f"Message number {number} in this chat."]


async def test_a_dispatcher_started_again_goes_on_in_memory_made_by_url(run, talk):
    module = await run(AIOGRAM, through="Lazy sessions")
    for number in (1, 2):
        async with talk(module.dispatcher) as telegram:
            assert await texts_of(telegram, "count") == [str(number)]


async def test_a_multi_session_of_a_dispatcher_started_again_has_new_managers(run, talk):
    module = await run("docs/guides/multi.md")
    parts = module.memory.sessions.parts
    for number in (1, 2):
        async with talk(module.dispatcher) as telegram:
            texts = [f"{number} from you, 1 speakers here"]
            assert await texts_of(telegram, "x") == texts
    assert module.memory.sessions.parts["user"] is not parts["user"]


async def test_a_ready_manager_closed_by_a_hook_is_opened_with_its_dispatcher(run, talk):
    module = await run("docs/guides/shutdown.md")
    for _ in range(2):
        async with talk(module.dispatcher):
            assert await module.ready.get("42") == {"done": True}
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await module.ready.get("42")


# docs/guides


async def test_migrating_in_the_background_of_a_bot(run, talk):
    module = await run("docs/guides/migrations.md", through="All at once")
    before = {"first": "Ada", "last": "Lovelace", "age": None}
    await module.storage.write("43", {"v": 1, "__d": before})
    async with talk(module.dispatcher):
        while module.tasks:
            await asyncio.sleep(0.01)
    assert await module.storage.read("43") == {"v": 2, "__d": before}


async def test_pruning_ends_with_its_bot(run, talk):
    module = await run("docs/guides/lifetimes.md")
    async with talk(module.dispatcher):
        (task,) = module.tasks
    await asyncio.sleep(0)
    assert task.cancelled()
    assert not module.tasks


# docs/coming-from


@pytest.mark.parametrize(
    ("page", "section", "conversation"),
    [
        (
            "grammy",
            "Deleting and replacing",
            {"/count": "Message number 1", "/reset": None, "/count ": "Message number 101"},
        ),
        ("gramio", "Clearing", {"/count": "Message number 1", "/reset": None}),
        (
            "aiogram-fsm",
            "The data",
            {
                "/order": "What?",
                "apples": "How many?",
                "2": "2 apples",
                "/order ": "What?",
                "pears": "How many?",
                "3": "2 apples, 3 pears",
            },
        ),
    ],
)
async def test_the_bots_of_the_coming_from_pages_answer_as_they_should(
    run, talk, page, section, conversation
):
    module = await run(f"docs/coming-from/{page}.md", through=section)
    async with talk(module.dispatcher) as telegram:
        ada = telegram.user("Ada")
        for text, answer in conversation.items():
            await ada.write(text)
            if answer is None:
                await telegram.drained()
            else:
                assert (await ada.next_answer()).text == answer


async def test_fsm_data_is_brought_over_at_the_first_message(run, talk):
    module = await run("docs/coming-from/aiogram-fsm.md")
    async with talk(module.dispatcher) as telegram:
        ada = telegram.user("Ada")
        key = StorageKey(bot_id=telegram.bot.id, chat_id=ada.id, user_id=ada.id)
        await module.dispatcher.storage.set_data(key, {"orders": ["1 plum"]})
        texts = []
        for text in ("/order", "apples", "2"):
            await ada.write(text)
            texts.append((await ada.next_answer()).text)
        assert await module.dispatcher.storage.get_data(key) == {}
    assert texts[-1] == "1 plum, 2 apples"


async def test_an_adapter_reads_and_writes_the_texts_of_grammys_redis_storage(run):
    module = await run("docs/coming-from/grammy.md")

    class Client(dict):
        async def get(self, key):
            return super().get(key)

        async def set(self, key, text):
            self[key] = text

        async def delete(self, key):
            del self[key]

    client = Client({"7": '{"v":1,"__d":{"count":3},"e":4102444800000}'})
    sessions = Sessions(
        initial=module.Counter, storage=module.JSONTexts(client), migrations={1: dict}
    )
    async with sessions.open("7") as session:
        assert session.data.count == 3
        session.data.count += 1
    assert json.loads(client["7"]) == {"v": 1, "__d": {"count": 4}}
    await sessions.delete("7")
    assert client == {}


def test_code_that_needs_what_is_not_installed_is_at_least_python():
    """It stands in ``py`` blocks, which aren't run; all other Python is in ``python`` blocks."""
    pages = {}
    for path in (ROOT / "docs").rglob("*.md"):
        for code in re.findall(r"(?ms)^```py\n(.*?)^```$", path.read_text("utf-8")):
            compile(code, path, "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT)
            pages[path.name] = pages.get(path.name, 0) + 1
    assert pages == {"aiogram-fsm.md": 1, "ptb-persistence.md": 4, "mysql.md": 1, "redis.md": 2}


# docs/storages


async def test_without_a_storage_a_warning_says_that_sessions_end_with_the_process(caplog):
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
    path = tmp_path / "bot.db"
    async with Sessions(initial=dict, storage=f"sqlite:///{path}") as sessions:
        await sessions.update("42", lambda data: {**data, "x": 1})
        path.unlink()
        with pytest.raises(StorageUnavailable):
            await sessions.get("42")
        assert not path.exists()


async def test_a_table_that_is_dropped_is_made_up_again_by_the_next_start_only(tmp_path):
    url = f"sqlite:///{tmp_path}/bot.db"
    async with Sessions(initial=dict, storage=url) as sessions:
        await sessions.update("42", lambda data: {**data, "x": 1})
        with closing(sqlite3.connect(tmp_path / "bot.db")) as connection, connection:
            connection.execute("DROP TABLE gramkeep_sessions")
        for _ in range(2):
            with pytest.raises(StorageUnavailable, match="no such table"):
                await sessions.get("42")
    async with Sessions(initial=dict, storage=url) as sessions:
        assert await sessions.get("42") is None


async def test_two_managers_on_one_url_take_turns_as_those_on_one_storage_do(tmp_path):
    url = f"sqlite:///{tmp_path}/bot.db"

    async def count(sessions):
        async with sessions.open("42") as session:
            before = session.data.get("count", 0)
            await asyncio.sleep(0.05)
            session.data["count"] = before + 1

    async with (
        Sessions(initial=dict, storage=url) as one,
        Sessions(initial=dict, storage=url) as other,
    ):
        await asyncio.gather(count(one), count(other))
        beside = Sessions(initial=dict, storage=one.storage)
        await asyncio.gather(count(one), count(beside))
        assert await one.get("42") == {"count": 4}


async def test_a_backup_put_back_as_the_page_says_is_what_counts(tmp_path):
    path = tmp_path / "bot.db"
    script = """
import asyncio, os, sys
from gramkeep import Sessions
async def save(value):
    sessions = Sessions(initial=dict, storage="sqlite:///" + sys.argv[1])
    await sessions.update("42", lambda _: {"value": value})
    return sessions
async def main():
    await (await save("backup")).aclose()
    import sqlite3; sqlite3.connect(sys.argv[1]).execute(f"VACUUM INTO '{sys.argv[1]}.backup'")
    await save("later")
    os._exit(0)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, path)
    assert await process.wait() == 0
    assert path.with_name("bot.db-wal").exists()
    for name in ("bot.db-wal", "bot.db-shm"):
        path.with_name(name).unlink()
    shutil.copy(path.with_name("bot.db.backup"), path)
    async with Sessions(initial=dict, storage=f"sqlite:///{path}") as sessions:
        assert await sessions.get("42") == {"value": "backup"}
