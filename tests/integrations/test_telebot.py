"""What only pyTelegramBotAPI has: class middlewares, handlers' parameters, batches of updates.

Here its bots with coroutines, in `test_telebot_threads` those with threads. What holds for every
framework stands in ``scenarios/``.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from integrations.drivers.handlers import until
from integrations.drivers.telebot import Errors
from integrations.watched_storage import WatchedStorage
from telebot import asyncio_helper
from telebot.async_telebot import AsyncTeleBot
from telebot.asyncio_handler_backends import (
    BaseMiddleware,
    CancelUpdate,
    ContinueHandling,
    SkipHandler,
)
from telebot.types import CallbackQuery, ChatBoostRemoved, Message, Update
from telebot.util import update_types

from gramkeep import (
    ConfigurationError,
    NoSessionKey,
    Origin,
    Session,
    SessionBusy,
    StorageUnavailable,
    per_user,
)
from gramkeep.integrations.telebot import origin_of, session
from gramkeep.testing import TelegramServer

Polling = Callable[[AsyncTeleBot], AbstractAsyncContextManager[None]]


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def bot(telegram: TelegramServer, errors: Errors) -> AsyncTeleBot:
    asyncio_helper.API_URL = f"{telegram.url}/bot{{0}}/{{1}}"
    return AsyncTeleBot(telegram.token, exception_handler=errors)


@pytest.fixture
def polling(telegram: TelegramServer) -> Polling:
    """Run a bot by long polling over HTTP, for the length of an ``async with``."""

    @asynccontextmanager
    async def run(bot: AsyncTeleBot) -> AsyncIterator[None]:
        task = asyncio.create_task(bot.infinity_polling(timeout=1, allowed_updates=update_types))
        await until(lambda: bot._polling)  # also when it is started again
        await telegram.bot_listening()
        try:
            yield
        finally:
            task.cancel()
            await task

    return run


async def stored(storage: WatchedStorage, key: object) -> Any:
    record = (await storage.get([str(key)]))[0]
    return None if record is None else json.loads(record.value)


async def test_what_a_handler_raises_is_swallowed_by_telebot_and_saves_nothing(
    telegram, polling, bot, storage, errors
):
    session(initial=Counter, storage=storage).setup(bot)

    @bot.message_handler(func=lambda message: message.text == "fail")
    async def fail(message: Message, session: Counter) -> None:
        session.count = 1000
        raise ValueError("on purpose")

    @bot.message_handler()
    async def count(message: Message, session: Counter) -> None:
        session.count += 1
        await bot.send_message(message.chat.id, str(session.count))

    ada = telegram.user("Ada")
    async with polling(bot):
        for text in ("fail", "x"):
            await ada.write(text)
        assert (await ada.next_answer()).text == "1"
    assert [str(error) for error in errors.kept] == ["on purpose"]
    assert await stored(storage, ada.id) == {"count": 1, "seen": []}


async def test_handlers_get_what_they_name_and_a_handler_of_one_parameter_nothing(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)
    got = {}

    @bot.message_handler(commands=["one"])
    async def one(session: Message) -> None:  # it is the message, whatever it is called
        got["one"] = type(session).__name__

    @bot.message_handler(commands=["data"])
    async def whole(message: Message, data: dict[str, Any]) -> None:
        data["session"].count += 1
        got["data"] = sorted(data)

    @bot.message_handler(commands=["bot"], pass_bot=True)
    async def with_bot(message: Message, bot: AsyncTeleBot, session: Counter) -> None:
        session.count += 1
        got["bot"] = bot

    @bot.message_handler(commands=["handle"])
    async def handle(message: Message, session_handle: Session[Counter]) -> None:
        session_handle.data.count += 1
        got["handle"] = session_handle.key

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("/one")
        await until(lambda: "one" in got)
        assert storage.calls == 0
        for command in ("data", "bot", "handle"):
            await ada.write(f"/{command}")
        await until(lambda: len(got) == 4)
    assert got == {
        "one": "Message",
        "data": ["session", "session_handle"],
        "bot": bot,
        "handle": str(ada.id),
    }
    assert (await stored(storage, ada.id))["count"] == 3


async def test_a_handler_that_lets_others_go_on_shares_the_session_with_them(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)

    @bot.message_handler()
    async def first(message: Message, session: Counter) -> ContinueHandling:
        session.seen.append("first")
        return ContinueHandling()

    @bot.message_handler()
    async def second(message: Message, session: Counter) -> None:
        session.seen.append("second")
        if message.text == "fail":
            raise ValueError("on purpose")
        await bot.send_message(message.chat.id, "done")

    ada = telegram.user("Ada")
    async with polling(bot):
        for text in ("fail", "x"):
            await ada.write(text)
        await ada.next_answer()
    assert (await stored(storage, ada.id))["seen"] == ["first", "second"]


async def test_handlers_after_one_that_lets_them_go_on_may_ask_for_more_without_a_circle(
    telegram, polling, bot, storage
):
    kind = partial(session, initial=Counter, storage=storage, lock_timeout=20)
    kind(key="chat", prefix="chat:").setup(bot)
    kind(key="user", prefix="user:", get_session_key=per_user).setup(bot)
    arrived: list[str] = []
    go_on = asyncio.Event()

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return message.text == "first"

    @bot.message_handler(func=arrives)
    async def pass_on(message: Message, chat: Counter) -> ContinueHandling:
        await go_on.wait()
        chat.seen.append("passed on")
        return ContinueHandling()

    @bot.message_handler()
    async def note(message: Message, chat: Counter, user: Counter) -> None:
        chat.seen.append(message.text)
        user.seen.append(message.text)
        await bot.send_message(message.chat.id, "noted")

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


class Notes(BaseMiddleware):
    """Takes notes in the session before and after every handler."""

    def __init__(self) -> None:
        self.update_types = ["message"]
        self.update_sensitive = False

    async def pre_process(self, message: Message, data: dict[str, Any]) -> None:
        counter = await data["session_handle"]
        counter.seen.append(f"before {message.text}")

    async def post_process(
        self, message: Message, data: dict[str, Any], exception: Exception | None
    ) -> None:
        data["session_handle"].data.seen.append(f"after {message.text}")


class Giving(BaseMiddleware):
    """Gives handlers something under a name that could be one of ours."""

    def __init__(self) -> None:
        self.update_types = ["message"]
        self.update_sensitive = False

    async def pre_process(self, message: Message, data: dict[str, Any]) -> None:
        data["handler"] = "the user's own"

    async def post_process(
        self, message: Message, data: dict[str, Any], exception: Exception | None
    ) -> None: ...


async def test_data_that_middlewares_give_handlers_may_have_any_name(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)
    bot.setup_middleware(Giving())

    @bot.message_handler()
    async def answer(message: Message, *, handler: str, session: Counter) -> None:
        session.seen.append(handler)
        await bot.send_message(message.chat.id, handler)

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("x")
        assert (await ada.next_answer()).text == "the user's own"
    assert (await stored(storage, ada.id))["seen"] == ["the user's own"]


class Gate(BaseMiddleware):
    """Stops some messages, in all ways there are."""

    def __init__(self) -> None:
        self.update_types = ["message"]
        self.update_sensitive = True

    async def pre_process_message(self, message: Message, data: dict[str, Any]) -> Any:
        if message.text == "raise":
            raise ValueError("on purpose")
        return {"cancel": CancelUpdate(), "skip": SkipHandler()}.get(message.text)

    async def post_process_message(
        self, message: Message, data: dict[str, Any], exception: Exception | None
    ) -> None: ...


async def test_middlewares_change_the_session_and_however_they_stop_an_update_it_is_let_go(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage).setup(bot)
    bot.setup_middleware(Notes())
    bot.setup_middleware(Gate())

    @bot.message_handler()
    async def answer(message: Message) -> None:
        await bot.send_message(message.chat.id, "done")

    loop_errors = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: loop_errors.append(str(context["exception"]))
    )
    ada = telegram.user("Ada")
    async with polling(bot):
        for text in ("raise", "cancel", "skip", "x"):
            await ada.write(text)
        await ada.next_answer()
    seen = ["before cancel", "before skip", "after skip", "before x", "after x"]
    assert (await stored(storage, ada.id))["seen"] == seen
    assert all(error == "on purpose" for error in loop_errors)  # telebot leaves it to asyncio


async def test_messages_and_button_presses_of_one_batch_are_handled_in_their_order(
    telegram, polling, bot, storage
):
    session(initial=Counter, storage=storage, get_session_key=lambda o: str(o.user_id)).setup(bot)
    listened = []

    async def listen(messages: list[Message]) -> None:
        listened.extend(message.text for message in messages)

    bot.set_update_listener(listen)

    @bot.message_handler()
    async def note_message(message: Message, session: Counter) -> None:
        await asyncio.sleep(0.01)
        session.seen.append(message.text)

    @bot.callback_query_handler(func=lambda query: True)
    async def note_press(query: CallbackQuery, session: Counter) -> None:
        session.seen.append(query.data)
        await bot.answer_callback_query(query.id)

    ada = telegram.user("Ada")
    async with polling(bot):
        with telegram.hold():
            await ada.press_inline("1", "a")
            await ada.write("b")
            await ada.press_inline("1", "c")
            await ada.write("d")

        async def all_seen() -> bool:
            kept = await stored(storage, ada.id)
            return kept is not None and len(kept["seen"]) == 4

        await until(all_seen)
    assert (await stored(storage, ada.id))["seen"] == ["a", "b", "c", "d"]
    assert listened == ["b", "d"]


async def test_a_session_that_cant_be_saved_is_told_and_takes_no_other_update_with_it(
    telegram, polling, bot, storage, errors
):
    session(initial=Counter, storage=storage).setup(bot)

    @bot.message_handler()
    async def break_it(message: Message, session: Counter) -> None:
        session.count += 1
        storage.is_down = True

    @bot.callback_query_handler(func=lambda query: True)
    async def answer(query: CallbackQuery) -> None:
        await bot.send_message(query.from_user.id, "pressed")

    ada = telegram.user("Ada")
    async with polling(bot):
        with telegram.hold():
            await ada.write("x")
            await ada.press_inline("1", "a")
        await ada.next_answer()
        await until(lambda: errors.kept)
    (error,) = errors.kept
    assert isinstance(error, StorageUnavailable)


async def test_an_error_of_ours_that_nobody_handles_is_logged_with_its_traceback(
    telegram, polling, bot, storage, caplog
):
    bot.exception_handler = None
    session(storage=storage, get_session_key=lambda origin: origin.event.no_such_thing).setup(bot)

    @bot.message_handler()
    async def never(message: Message) -> None:
        raise AssertionError

    ada = telegram.user("Ada")
    with caplog.at_level(logging.ERROR, "TeleBot"):
        async with polling(bot):
            await ada.write("x")
            await until(lambda: "no_such_thing" in caplog.text)
    assert "AttributeError" in caplog.text


async def test_a_handler_that_opens_its_own_session_again_is_told_at_once(
    telegram, polling, bot, storage, errors
):
    counters = session(initial=Counter, storage=storage)
    counters.setup(bot)

    @bot.message_handler()
    async def wait_for_itself(message: Message, session: Counter) -> None:
        async with counters.sessions.open(str(message.chat.id)):
            pass

    ada = telegram.user("Ada")
    async with polling(bot):
        await ada.write("x")
        await until(lambda: errors.kept)
    (error,) = errors.kept
    assert isinstance(error, SessionBusy)


async def test_a_webhook_that_takes_updates_one_by_one_counts_right(bot, storage):
    counters = session(initial=Counter, storage=storage)
    counters.setup(bot)

    @bot.message_handler()
    async def count(message: Message, session: Counter) -> None:
        before = session.count
        await asyncio.sleep(0.001)
        session.count = before + 1

    def update(number: int) -> Update:
        person = {"id": 7, "first_name": "Ada", "is_bot": False}
        chat = {"id": 7, "type": "private", "first_name": "Ada"}
        message = {"message_id": number, "date": 1, "chat": chat, "from": person, "text": "x"}
        return Update.de_json({"update_id": number, "message": message})

    await asyncio.gather(*(bot.process_new_updates([update(number)]) for number in range(50)))
    assert await stored(storage, 7) == {"count": 50, "seen": []}


async def test_a_job_beside_a_bot_that_is_started_again_finds_its_sessions_open(
    polling, bot, sqlite_url
):
    counters = session(initial=Counter, storage=sqlite_url)
    counters.setup(bot)
    for number in (1, 2):
        async with polling(bot):
            async with counters.sessions.open("42") as opened:
                opened.data.count += 1
            assert (await counters.sessions.get("42")).count == number
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await counters.sessions.get("42")


async def test_updates_of_every_type_have_an_origin(telegram, polling, bot, storage):
    origins: dict[str, Origin] = {}

    def remember(origin: Origin) -> None:
        origins.setdefault(type(origin.event).__name__, origin)

    session(storage=storage, get_session_key=remember).setup(bot)

    def found(name: str) -> tuple[Any, ...]:
        origin = origins[name]
        assert origin.bot_id == telegram.bot.id
        return (
            origin.chat_id,
            origin.user_id,
            origin.thread_id,
            origin.business_connection_id,
        )

    ada, owner = telegram.user("Ada"), telegram.user("Owner")
    group = telegram.group("Friends", members=[ada])
    person, chat = ada.api(), group.api()
    async with polling(bot):
        message = await ada.write("x", chat=group)
        await ada.inline_query("cats")
        await ada.choose_inline_result("1", "cats")
        await ada.pre_checkout(payload="p")
        await ada.shipping("p")
        await ada.block_bot()
        await ada.react(message, "👍")
        await ada.ask_to_join(telegram.channel("News"))
        await ada.press_inline("1", "a")
        connection = await owner.connect_business()
        answer = {"poll_id": "1", "option_ids": [], "option_persistent_ids": []}
        boost = {"boost_id": "b", "add_date": 1, "expiration_date": 2}
        by_premium = {"source": {"source": "premium", "user": person}}
        deleted = {"business_connection_id": "c", "message_ids": [1]}
        for kind, payload in {
            "message_reaction_count": {"chat": chat, "message_id": 1, "date": 1, "reactions": []},
            "poll_answer": answer | {"user": person},
            "chat_boost": {"chat": chat, "boost": boost | by_premium},
            "deleted_business_messages": deleted | {"chat": chat},
        }.items():
            await telegram.deliver({kind: payload})
        await until(lambda: len(origins) == 14)
    by_gift = {"source": {"source": "gift_code", "user": person}}
    removed = {"chat": chat, "boost_id": "b", "remove_date": 3} | by_gift
    # Older AsyncTeleBots have handlers for these, but never call them.
    origins["ChatBoostRemoved"] = origin_of(ChatBoostRemoved.de_json(removed), bot)
    assert found("Message") == (group.id, ada.id, None, None)
    for name in ("InlineQuery", "ChosenInlineResult", "PreCheckoutQuery", "ShippingQuery"):
        assert found(name) == (None, ada.id, None, None), name
    assert found("CallbackQuery") == (None, ada.id, None, None)  # of a message sent inline
    assert found("PollAnswer") == (None, ada.id, None, None)
    assert found("ChatMemberUpdated") == (ada.id, ada.id, None, None)
    assert found("MessageReactionUpdated") == (group.id, ada.id, None, None)
    assert found("MessageReactionCountUpdated") == (group.id, None, None, None)
    assert found("ChatJoinRequest")[1:] == (ada.id, None, None)
    assert found("BusinessConnection") == (None, owner.id, None, connection.id)
    assert found("BusinessMessagesDeleted") == (group.id, None, None, "c")
    assert found("ChatBoostUpdated") == (group.id, ada.id, None, None)
    assert found("ChatBoostRemoved") == (group.id, None, None, None)


@pytest.mark.parametrize("user_id", [1087968824, 136817688, 777000])
async def test_those_who_stand_for_many_share_no_session_of_a_user(
    telegram, polling, bot, storage, errors, user_id
):
    session(initial=Counter, storage=storage, get_session_key=per_user).setup(bot)

    @bot.message_handler()
    async def count_user(_message: Message, session: Counter) -> None:
        session.count += 1

    ada = telegram.user("Ada")
    group = telegram.supergroup("Friends", members=[ada])
    stand_in = {"from": ada.api() | {"id": user_id}, "sender_chat": group.api()}
    async with polling(bot):
        await ada.write("x", chat=group, fields=stand_in)
        await ada.write("x", chat=group)
        await until(lambda: storage.writes and errors.kept)
    assert [type(error) for error in errors.kept] == [NoSessionKey]
    assert [key async for key in storage.scan()] == [str(ada.id)]


@pytest.mark.parametrize(
    ("fields", "thread_id"),
    [
        ({"message_thread_id": 5, "is_topic_message": True}, 5),
        ({"message_thread_id": 5}, None),  # a thread of replies is no topic
        ({"direct_messages_topic": {"topic_id": 9}}, 9),
    ],
)
async def test_topics_of_forums_and_of_direct_messages_are_threads_also_of_presses_there(
    telegram, polling, bot, storage, fields, thread_id
):
    threads = []
    session(storage=storage, get_session_key=lambda o: threads.append(o.thread_id)).setup(bot)
    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    async with polling(bot):
        message = await ada.write("x", chat=group, fields=fields)
        query = {"id": "1", "from": ada.api(), "chat_instance": "1", "data": "a"}
        await telegram.deliver({"callback_query": query | {"message": message.api() | fields}})
        await until(lambda: len(threads) == 2)
    assert threads == [thread_id, thread_id]


@pytest.mark.parametrize("wrong", [AsyncTeleBot, object(), "x"], ids=["class", "object", "text"])
def test_setting_up_on_anything_else_is_refused(wrong, storage):
    with pytest.raises(ConfigurationError, match="are set up on a TeleBot or an AsyncTeleBot"):
        session(initial=Counter, storage=storage).setup(wrong)
