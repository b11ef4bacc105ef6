"""What only Pyrogram has: groups, workers, plugins, error handlers, raw updates, threads.

What holds for every framework stands in ``scenarios/``.
"""

import asyncio
import json
import sys
import textwrap
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from integrations.drivers.events import ADA, BOB, GROUP, SUPERGROUP
from integrations.drivers.handlers import Gate, until
from integrations.drivers.pyrogram import Offline, channel, group, new_message, user
from pyrogram import Client, ContinuePropagation, StopPropagation, filters, handlers, raw

from gramkeep import (
    ConfigurationError,
    SessionClosed,
    SessionEncodeError,
    SessionOptions,
    StorageUnavailable,
    per_chat,
    per_user,
)
from gramkeep.integrations.pyrogram import BlockingSession, lazy_session, session


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


class Bot:
    """A client, and the texts that it has sent."""

    def __init__(self, **options: Any) -> None:
        self.app = Client("bot", api_id=1, api_hash="x", bot_token="42:x", **options)
        self.sent: list[str] = []
        self.telegram = Offline(self.app, self.sent.append)

    async def write(self, *texts: str, by=ADA, place=None) -> None:
        """Let somebody write, in private if not in another place."""
        await self.telegram.deliver(*(new_message(place or by, text, by) for text in texts))

    async def has_sent(self, count: int) -> list[str]:
        """Give the next texts, when there are so many."""
        await until(lambda: len(self.sent) >= count, f"only {self.sent}")
        sent = self.sent[:count]
        del self.sent[:count]
        return sent


@pytest.fixture
async def bot() -> Bot:  # in the event loop, as older clients keep to the one they are made in
    return Bot(workers=8)


async def stored(storage, key) -> Any:
    record = (await storage.get([str(key)]))[0]
    return None if record is None else json.loads(record.value)


async def count(client, message, session: Counter) -> None:
    before = session.count
    await asyncio.sleep(0.001)
    session.count = before + 1
    session.seen.append(str(message.text))
    await message.reply(str(session.count))


async def fail(client, message, session: Counter) -> None:
    session.count = 1000
    raise ValueError("on purpose")


# --- how handlers come to be known


async def test_handlers_get_sessions_whenever_and_however_they_were_added(bot, storage):
    @bot.app.on_message(filters.regex("^early$"))
    async def early(client, message, session):
        await count(client, message, session)

    bot.app.add_handler(handlers.MessageHandler(count, filters.regex("^object$")))
    await asyncio.sleep(0)  # Pyrogram adds them in a task
    session(initial=Counter, storage=storage).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count, filters.regex("^late$")))
    async with bot.app:

        @bot.app.on_message()
        async def running(client, message, session, session_handle):
            assert session is session_handle.data
            await count(client, message, session)

        await bot.write("early", "object", "late", "running")
        assert await bot.has_sent(4) == ["1", "2", "3", "4"]


async def test_handlers_may_take_what_pyrogram_gives_by_a_star(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)

    @bot.app.on_message(filters.regex("one"))
    async def one(client, *message, session):
        await count(client, *message, session)

    @bot.app.on_message(filters.regex("both"))
    async def both(*given, session):
        await count(*given, session)

    @bot.app.on_raw_update()
    async def neither(client, *session):
        bot.sent.append(str(len(session)))

    async with bot.app:
        await bot.write("one", "both")
        assert await bot.has_sent(2) == ["1", "2"]
        stopped = raw.types.UpdateBotStopped(user_id=ADA.id, date=1, stopped=True, qts=1)
        await bot.telegram.deliver((stopped, [user(ADA)], []))
        assert await bot.has_sent(1) == ["3"]


async def test_a_handler_that_was_removed_is_not_called_and_may_come_back_changed(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    handler, group = bot.app.add_handler(handlers.MessageHandler(count), 1)

    @bot.app.on_message(group=2)
    async def tell(client, message):
        await message.reply("told")

    async def count_by_ten(client, message, session):
        session.count += 10
        await message.reply(str(session.count))

    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(2) == ["1", "told"]
        bot.app.remove_handler(handler, group)
        await asyncio.sleep(0)
        await bot.write("x")
        assert await bot.has_sent(1) == ["told"]
        handler.callback = count_by_ten
        bot.app.add_handler(handler, group)
        await asyncio.sleep(0)
        await bot.write("x")
        assert await bot.has_sent(2) == ["11", "told"]


async def test_a_handler_that_stands_in_two_groups_is_removed_from_each(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    handler = handlers.MessageHandler(count)
    bot.app.add_handler(handler, 1)
    bot.app.add_handler(handler, 2)
    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(2) == ["1", "2"]
        bot.app.remove_handler(handler, 1)
        await asyncio.sleep(0)
        await bot.write("x")
        assert await bot.has_sent(1) == ["3"]
        bot.app.remove_handler(handler, 2)
        await asyncio.sleep(0)
        await bot.write("x")
    assert (await stored(storage, ADA.id))["count"] == 3


async def test_plugins_of_two_clients_have_the_sessions_of_each(tmp_path, monkeypatch, storage):
    (tmp_path / "of_bots").mkdir()
    (tmp_path / "of_bots" / "counting.py").write_text(
        textwrap.dedent(
            """
            from pyrogram import Client

            @Client.on_message()
            async def count(client, message, session):
                session.append(message.id)
                await message.reply(str(len(session)))
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    one, other = (Bot(plugins={"root": "of_bots"}) for _ in range(2))
    for name, each in {"one": one, "other": other}.items():
        session(initial=list, storage=storage, prefix=f"{name}:").setup(each.app)
    async with one.app, other.app:
        await one.write("x", "x")
        await other.write("x")
        assert await one.has_sent(2) == ["1", "2"]
        assert await other.has_sent(1) == ["1"]
    assert len(await stored(storage, f"one:{ADA.id}")) == 2
    assert len(await stored(storage, f"other:{ADA.id}")) == 1
    sys.modules.pop("of_bots.counting")


async def test_a_client_that_runs_takes_no_more_sessions(bot, storage):
    async with bot.app:
        with pytest.raises(ConfigurationError, match="before the client is started"):
            session(initial=Counter, storage=storage).setup(bot.app)


async def test_handlers_with_listeners_before_them_get_sessions_too(bot, storage):
    """As in pyromod, and in the forks that took it over."""
    listening = []

    class ListeningHandler(handlers.MessageHandler):
        def __init__(self, callback, filters=None):
            self.original_callback = callback
            super().__init__(self.resolve, filters)

        async def resolve(self, client, message):
            if listening:
                listening.pop().set_result(message)
                raise StopPropagation
            await self.original_callback(client, message)

    session(initial=Counter, storage=storage).setup(bot.app)

    async def ask(client, message, session):
        listening.append(asyncio.get_running_loop().create_future())
        await message.reply("what?")
        answer = await listening[0]  # the session is held meanwhile; who listens doesn't need it
        session.seen.append(str(answer.text))
        await message.reply("thanks")

    bot.app.add_handler(ListeningHandler(ask))
    async with bot.app:
        await bot.write("ask")
        assert await bot.has_sent(1) == ["what?"]
        await bot.write("this")
        assert await bot.has_sent(1) == ["thanks"]
    assert (await stored(storage, ADA.id))["seen"] == ["this"]


# --- groups


async def test_handlers_of_all_groups_share_a_session_that_is_read_and_written_once(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)

    @bot.app.on_message(group=-1)
    async def go_on(client, message, session):
        session.seen.append("first")
        raise ContinuePropagation

    @bot.app.on_message(group=-1)
    async def second(client, message, session):
        session.seen.append("second")

    bot.app.add_handler(handlers.MessageHandler(count))

    @bot.app.on_message(group=1)
    async def stop(client, message, session):
        session.seen.append("third")
        raise StopPropagation

    @bot.app.on_message(group=2)
    async def never(client, message, session):
        session.seen.append("never")

    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(1) == ["1"]
    assert (storage.reads, storage.writes) == ([str(ADA.id)], [str(ADA.id)])
    assert (await stored(storage, ADA.id))["seen"] == ["first", "second", "x", "third"]


async def test_a_handler_that_raises_undoes_the_groups_before_it_and_not_those_after_it(
    bot, storage, caplog
):
    session(initial=Counter, storage=storage).setup(bot.app)

    @bot.app.on_message(group=-1)
    async def note(client, message, session):
        session.seen.append("undone")

    bot.app.add_handler(handlers.MessageHandler(fail))
    bot.app.add_handler(handlers.MessageHandler(count), 1)
    async with bot.app:
        await bot.write("x", "y")
        assert await bot.has_sent(2) == ["1", "2"]
    assert await stored(storage, ADA.id) == {"count": 2, "seen": ["x", "y"]}
    assert "on purpose" in caplog.text


async def test_a_handler_without_session_keeps_the_place_for_those_of_later_groups(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    slow = Gate()

    @bot.app.on_message(group=-1)
    async def log(client, message):
        if message.text == "slow":
            await slow.passed()

    bot.app.add_handler(handlers.MessageHandler(count))
    async with bot.app:
        await bot.write("slow", "x")
        await bot.write("of another chat", by=BOB)
        assert await bot.has_sent(1) == ["1"]
        slow.open()
        await bot.has_sent(2)
    assert (await stored(storage, ADA.id))["seen"] == ["slow", "x"]


async def test_handlers_that_ask_one_after_another_never_wait_in_a_circle(bot, storage):
    options = {"initial": Counter, "storage": storage, "lock_timeout": 20}
    session(**options, prefix="a:").setup(bot.app)
    session(**options, prefix="b:", key="other").setup(bot.app)

    @bot.app.on_message(filters.regex("x"))
    async def first(client, message, session):
        await asyncio.sleep(0.001)
        session.count += 1
        raise ContinuePropagation

    @bot.app.on_message(filters.regex("y"))
    async def none(client, message):
        raise ContinuePropagation

    @bot.app.on_message(filters.regex("x"))
    async def second(client, message, other):
        other.count += 1
        await message.reply("ok")

    @bot.app.on_message()
    async def both(client, message, session, other):
        session.count += 1
        await asyncio.sleep(0.001)
        other.count += 1
        await message.reply("ok")

    async with bot.app:
        await bot.write(*"xyz" * 2)
        await bot.has_sent(6)
    assert (await stored(storage, f"a:{ADA.id}"))["count"] == 6
    assert (await stored(storage, f"b:{ADA.id}"))["count"] == 6


async def test_a_handler_holds_nobody_up_who_asks_for_another_session(bot, storage):
    session(initial=Counter, storage=storage, prefix="a:").setup(bot.app)
    session(initial=Counter, storage=storage, prefix="b:", key="other").setup(bot.app)
    go_on = Gate()

    @bot.app.on_message(filters.regex("quick"))
    async def quick(client, message, other):
        await message.reply("quick")

    @bot.app.on_message()
    async def slow(client, message, session):
        await go_on.passed()
        await message.reply("slow")

    async with bot.app:
        await bot.write("slow", "quick")
        assert await bot.has_sent(1) == ["quick"]
        go_on.open()
        assert await bot.has_sent(1) == ["slow"]


# --- order


async def test_a_message_for_which_telegram_is_asked_is_not_overtaken_by_the_next(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count))
    answers_to = {"reply_to": raw.types.MessageReplyHeader(reply_to_msg_id=12345)}
    async with bot.app:
        bot.telegram.reading = Gate()
        await bot.telegram.deliver(
            new_message(ADA, "answer", ADA, **answers_to), new_message(ADA, "next", ADA)
        )
        await bot.write("of another chat", by=BOB)
        assert await bot.has_sent(1) == ["1"]
        bot.telegram.reading.open()
        await bot.has_sent(2)
    assert (await stored(storage, ADA.id))["seen"] == ["answer", "next"]


async def test_such_a_message_is_not_overtaken_by_its_writers_next_in_another_chat(bot, storage):
    session(initial=Counter, storage=storage, get_session_key=per_user).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count))
    answers_to = {"reply_to": raw.types.MessageReplyHeader(reply_to_msg_id=12345)}
    async with bot.app:
        bot.telegram.reading = Gate()
        await bot.telegram.deliver(
            new_message(GROUP, "answer", ADA, **answers_to), new_message(ADA, "next", ADA)
        )
        await bot.write("of another", by=BOB)
        assert await bot.has_sent(1) == ["1"]
        bot.telegram.reading.open()
        await bot.has_sent(2)
    assert (await stored(storage, ADA.id))["seen"] == ["answer", "next"]


async def test_each_message_of_an_album_counts_in_its_order(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count, filters.media_group))
    album = [new_message(ADA, str(number), ADA, grouped_id=7) for number in range(4)]
    async with bot.app:
        await bot.telegram.deliver(*album)
        await bot.has_sent(4)
    assert await stored(storage, ADA.id) == {"count": 4, "seen": ["0", "1", "2", "3"]}


async def test_one_worker_is_enough(storage):
    bot = Bot(workers=1)
    session(initial=Counter, storage=storage).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count))
    async with bot.app:
        await bot.write("a", "b")
        await bot.write("c", by=BOB)
        assert await bot.has_sent(3) == ["1", "2", "1"]


# --- errors


async def test_error_handlers_have_a_session_of_their_own_without_what_failed(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    failing = handlers.MessageHandler(fail)
    bot.app.add_handler(failing)
    known = []

    @bot.app.on_error(ValueError)
    async def note(client, error, handler, update, users, chats, session):
        known.append(handler)
        session.seen.append(str(error))
        await client.send_message(ADA.id, str(session.count))

    async with bot.app:
        await bot.write("x", "y")
        assert await bot.has_sent(2) == ["0", "0"]
    assert known == [failing, failing]
    assert await stored(storage, ADA.id) == {"count": 0, "seen": ["on purpose"] * 2}


async def test_error_handlers_hear_of_a_session_that_cant_be_saved(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)

    async def spoil(client, message, session):
        session.seen.append(object())

    spoiling = handlers.MessageHandler(spoil)
    bot.app.add_handler(spoiling)
    told = []

    @bot.app.on_error()
    async def hear(client, error, handler, *update):
        told.append((type(error), handler))
        raise StopPropagation

    async with bot.app:
        await bot.write("x")
        await until(lambda: told)
    assert told == [(SessionEncodeError, spoiling)]
    assert await stored(storage, ADA.id) is None


async def test_error_handlers_hear_of_a_session_that_cant_be_had_and_later_groups_dont_run(
    bot, storage
):
    def key(origin):
        raise ZeroDivisionError("no key today")

    session(initial=Counter, storage=storage, get_session_key=key).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count, filters.regex("x")))
    bot.app.add_handler(handlers.MessageHandler(count, filters.regex("x")), 1)

    @bot.app.on_message(group=2)
    async def without(client, message):
        await message.reply("no session needed")

    told = []

    @bot.app.on_error()
    async def hear(client, error, *others):
        told.append(str(error))

    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(1) == ["no session needed"]
        assert told == ["no key today"] * 2
        await bot.write("y")  # which asks for none
        assert await bot.has_sent(1) == ["no session needed"]
        await until(lambda: len(told) == 3)


async def test_a_group_whose_sessions_cant_be_moved_gets_no_new_ones(bot, storage):
    sessions = session(initial=Counter, storage=storage)
    sessions.setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(count))
    bot.app.add_handler(handlers.MessageHandler(count), 1)
    told = []

    @bot.app.on_error()
    async def hear(client, error, *others):
        told.append(type(error))
        storage.is_down = len(told) < 2

    await sessions.sessions.update(str(GROUP.id), lambda _: Counter(1))
    action = raw.types.MessageActionChatMigrateTo(channel_id=channel(SUPERGROUP).id)
    async with bot.app:
        storage.is_down = True
        await bot.telegram.deliver(new_message(GROUP, action, ADA))
        await until(lambda: len(told) == 2)
        await bot.telegram.deliver(new_message(GROUP, action, ADA))  # as the new chat says it too
        assert await bot.has_sent(2) == ["2", "3"]
    assert told == [StorageUnavailable] * 2
    assert (await stored(storage, SUPERGROUP.id))["count"] == 3


async def test_a_group_is_followed_by_a_bot_without_handlers(bot, storage):
    sessions = session(initial=Counter, storage=storage)
    sessions.setup(bot.app)
    await sessions.sessions.update(str(GROUP.id), lambda _: Counter(1))
    action = raw.types.MessageActionChannelMigrateFrom(title="A chat", chat_id=group(GROUP).id)

    async def moved() -> bool:
        return await stored(storage, SUPERGROUP.id) is not None

    async with bot.app:
        await bot.telegram.deliver(new_message(SUPERGROUP, action, ADA))
        await until(moved)
    assert await stored(storage, GROUP.id) is None


# --- raw updates


async def test_raw_handlers_get_the_session_of_the_update(bot, storage):
    options: dict[str, Any] = {"initial": Counter, "storage": storage}
    session(**options, get_session_key=per_user, key="users").setup(bot.app)
    session(**options, prefix="chat:").setup(bot.app)
    events = []

    @bot.app.on_raw_update(group=-1)
    async def see(client, update, users, chats):
        events.append((type(update), sorted(users)))

    @bot.app.on_raw_update()
    async def use(client, update, chat_users, chats, users, session_handle):
        users.count += 1
        events.append(session_handle.is_open)
        raise ContinuePropagation

    bot.app.add_handler(handlers.MessageHandler(count))
    stopped = raw.types.UpdateBotStopped(user_id=ADA.id, date=1, stopped=True, qts=1)
    async with bot.app:
        await bot.write("x")
        await bot.has_sent(1)
        await bot.telegram.deliver((stopped, [user(ADA)], []))
        await until(lambda: len(events) == 4)
    assert events == [
        (raw.types.UpdateNewMessage, [ADA.id]),
        True,
        (raw.types.UpdateBotStopped, [ADA.id]),
        False,  # there is no chat
    ]
    assert (await stored(storage, ADA.id))["count"] == 2
    assert (await stored(storage, f"chat:{ADA.id}"))["count"] == 1


# --- threads. In one of them, kurigram's message.reply() would leave an event loop behind


async def test_a_plain_function_saves_clears_and_reloads_by_a_handle_that_blocks(bot, storage):
    counters = session(initial=Counter, storage=storage)
    counters.setup(bot.app)

    @bot.app.on_message()
    def handle(client, message, session, session_handle: BlockingSession[Counter]):
        assert threading.current_thread() is not threading.main_thread()
        assert session is session_handle.data
        session.seen.append(str(message.text))
        if message.text == "save":
            session_handle.save()
            session.seen.append("after it")
            raise ValueError("on purpose")
        if message.text == "reload":
            session_handle.reload()
            session_handle.data.count += 10
        if message.text == "clear":
            session_handle.clear()
        bot.sent.append(f"{session_handle.is_new} {session_handle.data}")

    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(1) == [f"True {Counter(0, ['x'])}"]
        await bot.write("save", "reload")
        assert await bot.has_sent(1) == [f"False {Counter(10, ['x', 'save'])}"]
        await bot.write("clear")
        assert await bot.has_sent(1) == [f"True {Counter()}"]
    assert await stored(storage, ADA.id) is None


async def test_a_plain_function_loads_lazy_sessions_and_their_parts_where_it_needs_them(
    bot, storage
):
    def parts(prefix):
        return {
            name: SessionOptions(
                initial=Counter, get_session_key=key, storage=storage, prefix=f"{prefix}{name}:"
            )
            for name, key in {"user": per_user, "chat": per_chat}.items()
        }

    lazy_session(initial=Counter, storage=storage).setup(bot.app)
    lazy_session(type="multi", key="late", **parts("late ")).setup(bot.app)
    session(type="multi", key="both", **parts("")).setup(bot.app)

    @bot.app.on_message(filters.regex("none"))
    def none(client, message, session: BlockingSession[Counter], late):
        bot.sent.append("loads nothing")

    @bot.app.on_message(filters.regex("late"))
    def some(client, message, session: BlockingSession[Counter], late, late_handle):
        assert session.load() is session.data
        session.data.count += 1
        late.user.load().count += 1
        late_handle.chat.load().count += 10
        bot.sent.append("loads some")

    @bot.app.on_message()
    def all_of_them(client, message, both, both_handle):
        both.user.count += 1
        both_handle.chat.data.count += 10
        both_handle.save()
        bot.sent.append("has all")

    async with bot.app:
        for text, answer in {"none": "loads nothing", "late": "loads some", "x": "has all"}.items():
            await bot.write(text, place=GROUP)
            assert await bot.has_sent(1) == [answer]
            assert bool(storage.calls) == (text != "none")
    counts = {key: (await stored(storage, key))["count"] async for key in storage.scan()}
    assert counts == {
        f"{GROUP.id}": 1,
        f"late user:{ADA.id}": 1,
        f"late chat:{GROUP.id}": 10,
        f"user:{ADA.id}": 1,
        f"chat:{GROUP.id}": 10,
    }


async def test_a_plain_function_handles_errors_with_a_session_of_its_own(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    bot.app.add_handler(handlers.MessageHandler(fail))

    @bot.app.on_error()
    def note(client, error, handler, update, users, chats, session_handle):
        session_handle.data.seen.append(str(error))
        session_handle.save()
        bot.sent.append(str(session_handle.data))

    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(1) == [str(Counter(0, ["on purpose"]))]


async def test_a_thread_that_outlives_its_update_is_refused_the_session(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    begun, over = Gate(), Gate()
    tasks, refusals = [], []

    @bot.app.on_message(filters.regex("long"))
    def take_long(client, message, session_handle):
        session_handle.data.count = 1000
        begun.open()
        over.pass_in_a_thread()
        try:
            session_handle.save()
        except SessionClosed as refusal:
            refusals.append(refusal)

    @bot.app.on_message(group=-1)
    async def note_task(client, message):
        tasks.append(asyncio.current_task())

    bot.app.add_handler(handlers.MessageHandler(count))
    async with bot.app:
        await bot.write("long", "x")
        await begun.passed()
        tasks[0].cancel()
        assert await bot.has_sent(1) == ["1"]
        over.open()
        await until(lambda: refusals)


async def test_a_plain_function_that_raises_or_stops_is_treated_like_any_other(
    bot, storage, caplog
):
    session(initial=Counter, storage=storage).setup(bot.app)

    @bot.app.on_message()
    def handle(client, message, session):
        session.seen.append(str(message.text))
        if message.text == "fail":
            raise ValueError("on purpose")
        raise StopPropagation

    @bot.app.on_message(group=1)
    async def later(client, message):
        await message.reply(str(message.text))

    async with bot.app:
        await bot.write("a", "fail", "b")
        assert await bot.has_sent(1) == ["fail"]
    assert (await stored(storage, ADA.id))["seen"] == ["a", "b"]


# --- lazy and multi


async def test_the_parts_of_a_lazy_multi_session_are_loaded_one_by_one(bot, storage):
    lazy_session(
        type="multi",
        user=SessionOptions(initial=Counter, get_session_key=per_user, storage=storage),
        chat=SessionOptions(initial=Counter, storage=storage),
    ).setup(bot.app)

    @bot.app.on_message()
    async def handle(client, message, session: Any):
        (await session.user).count += 1
        await message.reply(str((await session.user).count))

    async with bot.app:
        await bot.write("x", "y", place=GROUP)
        assert await bot.has_sent(2) == ["1", "2"]
    assert storage.reads == [f"user:{ADA.id}"] * 2


async def test_a_handle_alone_is_loaded_as_well_and_over_with_the_update(bot, storage):
    session(initial=Counter, storage=storage).setup(bot.app)
    kept = []

    @bot.app.on_message()
    async def handle(client, message, session_handle):
        session_handle.data.count += 1
        await session_handle.save()
        kept.append(session_handle)
        await message.reply(str((await stored(storage, ADA.id))["count"]))

    async with bot.app:
        await bot.write("x")
        assert await bot.has_sent(1) == ["1"]
    with pytest.raises(SessionClosed):
        _ = kept[0].data


@pytest.mark.parametrize("wrong", [Client, object(), "x"], ids=["class", "object", "text"])
def test_setting_up_on_anything_else_is_refused(wrong, storage):
    with pytest.raises(ConfigurationError, match="are set up on a Client"):
        session(initial=Counter, storage=storage).setup(wrong)
