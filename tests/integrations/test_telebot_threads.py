"""What only threaded bots of pyTelegramBotAPI have: two threads for all, handlers that block.

What holds for every framework stands in ``scenarios/``.
"""

import asyncio
import json
import os
import sqlite3
import sys
import textwrap
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from integrations.drivers.handlers import PATIENCE, until
from integrations.drivers.telebot import Errors
from integrations.watched_storage import WatchedStorage
from telebot import TeleBot, apihelper
from telebot.handler_backends import BaseMiddleware, ContinueHandling
from telebot.types import Message, Update

from gramkeep import (
    ConfigurationError,
    SessionBusy,
    SessionClosed,
    SessionOptions,
    Sessions,
    StorageUnavailable,
    per_user,
)
from gramkeep.integrations.telebot import BlockingSession, lazy_session, session
from gramkeep.testing import TelegramServer

Polling = Callable[[TeleBot], AbstractAsyncContextManager[None]]


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def make_bot(telegram: TelegramServer, errors: Errors) -> Iterator[Callable[..., TeleBot]]:
    apihelper.API_URL = f"{telegram.url}/bot{{0}}/{{1}}"
    bots = []

    def make(**options: Any) -> TeleBot:
        bots.append(TeleBot(telegram.token, exception_handler=errors, **options))
        return bots[-1]

    yield make
    for bot in bots:
        if bot.threaded:
            bot.worker_pool.close()


@pytest.fixture
def bot(make_bot: Callable[..., TeleBot]) -> TeleBot:
    return make_bot()


@pytest.fixture
def polling(telegram: TelegramServer) -> Polling:
    """Run a bot by long polling over HTTP, for the length of an ``async with``."""

    @asynccontextmanager
    async def run(bot: TeleBot) -> AsyncIterator[None]:
        poll = {"long_polling_timeout": 1}
        thread = threading.Thread(target=bot.infinity_polling, kwargs=poll)
        thread.start()
        await telegram.bot_listening()
        try:
            yield
        finally:
            bot.stop_polling()
            await asyncio.to_thread(thread.join)

    return run


async def stored(storage: WatchedStorage, key: object) -> Any:
    record = (await storage.get([str(key)]))[0]
    return None if record is None else json.loads(record.value)


def jsons(*texts: str) -> list[dict[str, Any]]:
    """Make updates as a web server gets them, all from one person."""
    person = {"id": 7, "first_name": "Ada"}
    message = {"date": 1, "from": person | {"is_bot": False}, "chat": person | {"type": "private"}}
    return [
        {"update_id": number, "message": message | {"message_id": number, "text": text}}
        for number, text in enumerate(texts, 1)
    ]


def updates(*texts: str) -> list[Update]:
    return [Update.de_json(update) for update in jsons(*texts)]


async def test_updates_that_wait_for_their_session_keep_no_thread_from_others(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)
    go_on = threading.Event()

    @bot.message_handler(func=lambda message: message.text == "ping")
    def ping(message: Message) -> None:
        bot.send_message(message.chat.id, "pong")

    @bot.message_handler()
    def count(message: Message, session: Counter) -> None:
        if message.text == "long":
            assert go_on.wait(PATIENCE)
        session.count += 1
        bot.send_message(message.chat.id, str(session.count))

    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    async with polling(bot):
        with telegram.hold():
            await ada.write("long")
            for _ in range(5):
                await ada.write("x")
        for number in range(1, 4):  # by the second of the bot's two threads
            await bob.write("x")
            assert (await bob.next_answer()).text == str(number)
        await ada.write("ping")
        assert (await ada.next_answer()).text == "pong"
        go_on.set()
        assert [answer.text for answer in await ada.answers(6)] == list("123456")


async def test_filters_are_asked_once_also_for_updates_that_wait(telegram, polling, bot, storage):
    session(initial=Counter, storage=storage).setup(bot)
    asked = []

    def note(name: str, *, passes: bool) -> Callable[[Message], bool]:
        def check(message: Message) -> bool:
            asked.append(name)
            return passes

        return check

    @bot.message_handler(func=note("never", passes=False))
    def never(message: Message) -> None: ...

    @bot.message_handler(func=note("first", passes=True))
    def first(message: Message, session: Counter) -> ContinueHandling:
        session.seen.append("first")
        return ContinueHandling()

    @bot.message_handler(func=note("second", passes=True))
    def second(message: Message, session: Counter) -> None:
        session.seen.append("second")
        bot.send_message(message.chat.id, "done")

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("x")
        await ada.next_answer()
    assert asked == ["never", "first", "second"]
    assert (await stored(storage, ada.id))["seen"] == ["first", "second"]


async def test_next_step_handlers_and_reply_handlers_get_the_session_they_name(
    telegram, polling, bot, storage, errors
):
    session(initial=Counter, storage=storage).setup(bot)
    reads = []

    @bot.message_handler(commands=["order"])
    def order(message: Message) -> None:
        bot.register_next_step_handler(message, take_order, "for", here="the table")
        bot.send_message(message.chat.id, "What?")

    def take_order(message: Message, word: str, session: Counter, here: str) -> None:
        session.seen.append(f"{message.text} {word} {here}")
        asked = bot.send_message(message.chat.id, "With milk?")
        bot.register_for_reply(asked, take_reply)

    def take_reply(message: Message, session_handle: BlockingSession[Counter]) -> None:
        session_handle.data.seen.append(f"milk: {message.text}")
        session_handle.save()
        bot.register_next_step_handler(message, fail)
        bot.send_message(message.chat.id, "Thanks")

    def fail(message: Message, session: Counter) -> None:
        session.count = 1000
        bot.register_next_step_handler(message, own, session="its own", data="session")
        raise ValueError("on purpose")

    def own(message: Message, session: str, data: str) -> None:
        reads.append(len(storage.reads))
        bot.send_message(message.chat.id, f"{session} {data}")

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("/order")
        await ada.next_answer()
        assert storage.calls == 0
        await ada.write("tea")
        question = await ada.next_answer()
        await until(lambda: storage.writes)  # the reply is awaited
        await ada.write("yes", reply_to=question)
        assert (await ada.next_answer()).text == "Thanks"
        await ada.write("fail")
        await until(lambda: errors.kept)
        await ada.write("x")
        assert (await ada.next_answer()).text == "its own session"
    assert reads == [3]
    assert [str(error) for error in errors.kept] == ["on purpose"]
    assert await stored(storage, ada.id) == {
        "count": 0,
        "seen": ["tea for the table", "milk: yes"],
    }


async def test_handlers_after_one_that_lets_them_go_on_may_ask_for_more_without_a_circle(
    telegram, polling, bot, storage
):
    kind = partial(session, initial=Counter, storage=storage, lock_timeout=20)
    kind(key="chat", prefix="chat:").setup(bot)
    kind(key="user", prefix="user:", get_session_key=per_user).setup(bot)
    arrived: list[str] = []
    go_on = threading.Event()

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return message.text == "first"

    @bot.message_handler(func=arrives)
    def pass_on(message: Message, chat: Counter) -> ContinueHandling:
        assert go_on.wait(PATIENCE)
        chat.seen.append("passed on")
        return ContinueHandling()

    @bot.message_handler()
    def note(message: Message, chat: Counter, user: Counter) -> None:
        chat.seen.append(message.text)
        user.seen.append(message.text)
        bot.send_message(message.chat.id, "noted")

    ada = telegram.user("Ada")
    async with polling(bot):
        with telegram.hold():
            for text in ("first", "second", "third"):
                await ada.write(text)
        await until(lambda: len(arrived) == 3)
        go_on.set()
        await ada.answers(3)
    assert (await stored(storage, f"chat:{ada.id}"))["seen"] == [
        "passed on",
        "first",
        "second",
        "third",
    ]
    assert (await stored(storage, f"user:{ada.id}"))["seen"] == ["first", "second", "third"]


async def test_handlers_that_are_no_functions_of_python_get_the_message_alone(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)
    messages: deque[Message] = deque()
    bot.register_message_handler(messages.append, commands=["next"])

    @bot.message_handler()
    def ask(message: Message) -> None:
        bot.register_next_step_handler(message, messages.append)
        bot.send_message(message.chat.id, "next?")

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("x")
        await ada.next_answer()
        for text in ("y", "/next"):
            await ada.write(text)
        await until(lambda: [message.text for message in messages] == ["y", "/next"])


class Connecting(BaseMiddleware):
    """Gives handlers a database connection, which belongs to the thread that made it."""

    def __init__(self) -> None:
        self.update_types = ["message"]
        self.update_sensitive = False

    def pre_process(self, message: Message, data: dict[str, Any]) -> None:
        data["session_handle"].load().seen.append("before")
        data["connection"] = sqlite3.connect(":memory:")

    def post_process(
        self, message: Message, data: dict[str, Any], exception: Exception | None
    ) -> None:
        data["session_handle"].data.seen.append("after")
        data["connection"].close()


async def test_class_middlewares_run_in_the_thread_of_the_handler_and_share_its_session(
    telegram, polling, make_bot, storage, errors
):
    bot = make_bot(use_class_middlewares=True)
    session(initial=Counter, storage=storage).setup(bot)
    bot.setup_middleware(Connecting())

    @bot.message_handler(func=lambda message: message.text == "fail")
    def fail(message: Message, session: Counter) -> None:
        session.count = 1000
        raise ValueError("on purpose")

    @bot.message_handler(func=lambda message: message.text == "data")
    def whole(message: Message, data: dict[str, Any]) -> None:
        data["session"].count += 1
        bot.send_message(message.chat.id, ",".join(sorted(data)))

    @bot.message_handler()
    def count(message: Message, session: Counter, connection: sqlite3.Connection) -> None:
        session.count += connection.execute("SELECT 1").fetchone()[0]
        bot.send_message(message.chat.id, str(session.count))

    ada = telegram.user("Ada")
    async with polling(bot):
        with telegram.hold():
            for text in ("fail", "x", "y", "data"):
                await ada.write(text)
        texts = [answer.text for answer in await ada.answers(3)]
    assert texts == ["1", "2", "connection,session,session_handle"]
    assert [str(error) for error in errors.kept] == ["on purpose"]
    assert await stored(storage, ada.id) == {"count": 3, "seen": ["before", "after"] * 3}


async def test_a_bot_of_one_thread_saves_before_it_takes_the_next_update(make_bot, storage, errors):
    bot = make_bot(threaded=False)
    session(initial=Counter, storage=storage).setup(bot)
    written = []

    @bot.message_handler()
    def count(message: Message, session: Counter) -> None:
        written.append(len(storage.writes))
        session.seen.append(message.text)
        if message.text == "fail":
            raise ValueError("on purpose")

    await asyncio.to_thread(bot.process_new_updates, updates("a", "fail", "b"))
    assert written == [0, 1, 1]
    assert [str(error) for error in errors.kept] == ["on purpose"]
    bot.exception_handler = None
    with pytest.raises(ValueError, match="on purpose"):
        await asyncio.to_thread(bot.process_new_updates, updates("fail"))
    storage.is_down = True
    with pytest.raises(StorageUnavailable):
        await asyncio.to_thread(bot.process_new_updates, updates("x"))
    storage.is_down = False
    assert (await stored(storage, 7))["seen"] == ["a", "b"]


async def test_a_session_that_cant_be_saved_is_told_and_the_bot_goes_on(
    telegram, polling, bot, storage, errors
):
    session(initial=Counter, storage=storage).setup(bot)

    @bot.message_handler()
    def count(message: Message, session: Counter) -> None:
        session.count += 1
        storage.is_down = message.text == "down"

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("down")
        await until(lambda: errors.kept)
        storage.is_down = False
        await ada.write("up")
        await until(lambda: storage.writes)
    (error,) = errors.kept
    assert isinstance(error, StorageUnavailable)
    assert (await stored(storage, ada.id))["count"] == 1


async def test_the_methods_of_a_handle_block_and_are_over_with_the_update(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)
    lazy_session(initial=Counter, storage=storage, key="lazy", prefix="lazy:").setup(bot)
    kept = []

    @bot.message_handler()
    def use(
        message: Message,
        session_handle: BlockingSession[Counter],
        lazy: BlockingSession[Counter],
    ) -> None:
        kept.append(lazy)
        assert session_handle.is_open
        assert session_handle.is_new
        assert session_handle.key == str(message.chat.id)
        assert repr(session_handle).startswith(f"<BlockingSession '{message.chat.id}' in")
        assert storage.reads == [str(message.chat.id)]
        assert lazy.load() is lazy.load() is lazy.data
        lazy.data.count += 1
        session_handle.data = Counter(5)
        session_handle.save()
        session_handle.data.count = 6
        session_handle.reload()
        assert session_handle.data.count == 5
        session_handle.clear()
        assert session_handle.data.count == 0
        with pytest.raises(AttributeError, match="'BlockingSession' object has no attribute 'x'"):
            _ = session_handle.x
        bot.send_message(message.chat.id, "done")

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("x")
        await ada.next_answer()
        await until(lambda: not kept[0].is_open)
        with pytest.raises(SessionClosed):
            await asyncio.to_thread(kept[0].save)
    assert await stored(storage, ada.id) is None
    assert (await stored(storage, f"lazy:{ada.id}"))["count"] == 1


async def test_the_parts_of_a_lazy_multi_session_are_loaded_one_by_one(
    telegram, polling, bot, storage
):
    lazy_session(
        type="multi",
        user=SessionOptions(initial=Counter, get_session_key=per_user, storage=storage),
        chat=SessionOptions(initial=Counter, storage=storage),
    ).setup(bot)

    @bot.message_handler(func=lambda message: message.text == "forget")
    def forget(message: Message, session_handle: BlockingSession[Any]) -> None:
        session_handle.user.clear()
        bot.send_message(message.chat.id, "forgotten")

    @bot.message_handler()
    def count(message: Message, session: Any) -> None:
        session.user.load().count += 1
        bot.send_message(message.chat.id, str(session.user.data.count))

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("x")
        assert (await ada.next_answer()).text == "1"
        await until(lambda: storage.writes)
        assert storage.reads == [f"user:{ada.id}"]
        await ada.write("forget")
        await ada.next_answer()
    assert await stored(storage, f"user:{ada.id}") is None


async def test_jobs_of_threads_share_sessions_with_handlers_and_lose_nothing(
    telegram, polling, bot, storage
):
    sessions = Sessions(initial=Counter, storage=storage)
    counters = session(sessions)
    counters.setup(bot)

    @bot.message_handler()
    def count(message: Message, session: Counter) -> None:
        session.count += 1
        bot.send_message(message.chat.id, "counted")

    ada = telegram.user("Ada")

    async def count_slowly() -> None:
        async with sessions.open(str(ada.id)) as opened:
            before = opened.data.count
            await asyncio.sleep(0.001)
            opened.data.count = before + 1

    def work() -> None:
        for _ in range(20):
            counters.run(count_slowly())

    async with polling(bot):
        working = asyncio.create_task(asyncio.to_thread(work))
        for _ in range(20):
            await ada.write("x")
        await ada.answers(20)
        await working
    kept = await asyncio.to_thread(counters.run, sessions.get(str(ada.id)))
    assert kept.count == 40


async def test_what_a_handler_runs_knows_whose_session_is_held(
    telegram, polling, bot, storage, errors
):
    counters = session(initial=Counter, storage=storage)
    counters.setup(bot)

    @bot.message_handler(func=lambda message: message.text == "itself")
    def wait_for_itself(message: Message, session: Counter) -> None:
        counters.run(counters.sessions.delete(str(message.chat.id)))

    @bot.message_handler()
    def change_another(message: Message, session: Counter) -> None:
        changed = counters.run(counters.sessions.update("another", lambda c: Counter(c.count + 1)))
        bot.send_message(message.chat.id, str(changed.count))

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("itself")
        await until(lambda: errors.kept)
        await ada.write("x")
        assert (await ada.next_answer()).text == "1"
    (error,) = errors.kept
    assert isinstance(error, SessionBusy)


async def test_running_something_where_an_event_loop_would_be_held_up_is_refused(storage):
    counters = session(initial=Counter, storage=storage)
    with pytest.raises(ConfigurationError, match="await"):
        counters.run(counters.sessions.get("42"))


async def test_stopping_a_bot_waits_for_all_that_it_has_taken(telegram, polling, bot, storage):
    session(initial=Counter, storage=storage).setup(bot)
    go_on = threading.Event()

    @bot.message_handler()
    def count(message: Message, session: Counter) -> None:
        assert go_on.wait(PATIENCE)
        session.count += 1

    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    async with polling(bot):
        with telegram.hold():
            for _ in range(3):
                await ada.write("x")
            await bob.write("x")
        await telegram.drained()
        stopping = asyncio.create_task(asyncio.to_thread(bot.stop_bot))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        go_on.set()
        await stopping
    assert (await stored(storage, ada.id))["count"] == 3
    assert (await stored(storage, bob.id))["count"] == 1


async def test_a_handler_that_stops_the_bot_is_saved_and_what_is_left_undone_holds_nobody_up(
    telegram, polling, bot, storage
):
    counters = session(initial=Counter, storage=storage)
    counters.setup(bot)
    all_there, begun = threading.Event(), threading.Event()

    @bot.message_handler()
    def stop(message: Message, session: Counter) -> None:
        begun.set()
        assert all_there.wait(PATIENCE)
        session.count += 1
        bot.stop_bot()

    ada = telegram.user("Ada")
    async with asyncio.timeout(PATIENCE), polling(bot):
        await ada.write("stop")
        await asyncio.to_thread(begun.wait)
        for _ in range(3):
            await ada.write("never handled")
        await telegram.drained()
        all_there.set()
    assert (await stored(storage, ada.id))["count"] == 1


async def test_a_group_is_followed_when_it_is_upgraded_by_a_bot_that_handles_no_messages(
    telegram, polling, bot, storage
):
    sessions = session(initial=Counter, storage=storage)
    sessions.setup(bot)

    @bot.callback_query_handler(func=lambda query: True)
    def press(query: Any) -> None: ...

    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    async with polling(bot):
        key = str(group.id)
        await asyncio.to_thread(sessions.run, sessions.sessions.update(key, lambda _: Counter(1)))
        supergroup = await group.upgrade(by=ada)

        async def moved() -> bool:
            return await stored(storage, supergroup.id) is not None

        await until(moved)
    assert await stored(storage, group.id) is None


async def test_a_process_that_ends_waits_for_the_handlers_that_hold_a_session(tmp_path: Path):
    """As where a web server takes the updates, and nobody stops the bot."""
    program = textwrap.dedent(
        """
        import sys, time
        from telebot import TeleBot
        from telebot.types import Update
        from gramkeep.integrations.telebot import session

        bot = TeleBot("42:token")
        session(initial=list, storage="sqlite:///bot.db").setup(bot)

        @bot.message_handler()
        def note(message, session):
            time.sleep(0.2)
            session.append(message.text)

        for text in sys.argv[1:]:
            bot.process_new_updates([Update.de_json(text)])
        """
    )
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *map(json.dumps, jsons("a", "b", "c"))),
        cwd=tmp_path,
        env=os.environ | paths,
    )
    assert await asyncio.wait_for(process.wait(), 60) == 0
    with closing(sqlite3.connect(tmp_path / "bot.db")) as connection:
        ((value,),) = connection.execute("SELECT value FROM gramkeep_sessions").fetchall()
    assert json.loads(value) == ["a", "b", "c"]
