"""What only aiogram has: filters, error handlers, control flow by exceptions, webhooks.

What holds for every framework stands in ``scenarios/``.
"""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from aiogram import Bot, Dispatcher, F, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.dispatcher.event.bases import CancelHandler, SkipHandler
from aiogram.filters import Command, Filter, and_f, or_f
from aiogram.fsm.context import FSMContext
from aiogram.methods import SendMessage
from aiogram.types import (
    CallbackQuery,
    ErrorEvent,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    Update,
)
from aiogram.webhook.aiohttp_server import SimpleRequestHandler, setup_application
from aiohttp import web
from aiohttp.test_utils import TestServer
from integrations.drivers.handlers import until
from integrations.watched_storage import WatchedStorage

from gramkeep import (
    ConfigurationError,
    NoSessionKey,
    Origin,
    Session,
    SessionClosed,
    per_chat,
    per_user,
)
from gramkeep.integrations.aiogram import session
from gramkeep.testing import TelegramServer

Polling = Callable[[Dispatcher], AbstractAsyncContextManager[Bot]]


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


@pytest.fixture
def bot(telegram: TelegramServer) -> Bot:
    return Bot(telegram.token, AiohttpSession(api=TelegramAPIServer.from_base(telegram.url)))


@pytest.fixture
def polling(bot: Bot) -> Polling:
    """Run a dispatcher by long polling over HTTP, for the length of an ``async with``."""

    @asynccontextmanager
    async def run(dispatcher: Dispatcher) -> AsyncIterator[Bot]:
        task = asyncio.create_task(
            dispatcher.start_polling(bot, polling_timeout=1, handle_signals=False)
        )
        try:
            yield bot
        finally:
            await dispatcher.stop_polling()
            await task

    return run


async def stored(storage, key) -> Any:
    record = (await storage.get([key]))[0]
    return None if record is None else json.loads(record.value)


def count_slowly(dispatcher: Dispatcher) -> None:
    @dispatcher.message()
    async def count(message: Message, session: Counter) -> SendMessage:
        before = session.count
        await asyncio.sleep(0.001)
        session.count = before + 1
        session.seen.append(message.text)
        return message.answer(str(session.count))  # sent when the session is saved


async def test_slow_filters_dont_change_the_order_within_a_chat(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    async def slow_at_first(message: Message) -> bool:
        await asyncio.sleep(0.05 if message.text == "0" else 0)
        return True

    @dispatcher.message(slow_at_first)
    async def count(message: Message, session: Counter) -> None:
        session.seen.append(message.text)
        await message.answer(message.text)

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        with telegram.hold():
            for number in range(5):
                await ada.write(str(number))
        await ada.answers(5)
    assert (await stored(storage, str(ada.id)))["seen"] == ["0", "1", "2", "3", "4"]


async def test_an_error_handler_that_swallows_the_error_saves_nothing_of_the_failed_handler(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message()
    async def fail(message: Message, session: Counter) -> None:
        session.count = 1000
        raise ValueError("on purpose")

    @dispatcher.errors()
    async def swallow(event: ErrorEvent, session: Counter) -> None:
        session.seen.append(f"{type(event.exception).__name__} at {session.count}")
        await event.update.message.answer("sorry")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        await ada.next_answer()
    assert await stored(storage, str(ada.id)) == {"count": 0, "seen": ["ValueError at 0"]}


async def test_error_handlers_with_several_sessions_wait_for_nobody_in_a_circle(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage, prefix="a:", lock_timeout=20).setup(dispatcher)
    session(
        initial=Counter,
        storage=storage,
        key="user",
        get_session_key=per_user,
        prefix="b:",
        lock_timeout=20,
    ).setup(dispatcher)

    @dispatcher.message()
    async def count(message: Message, session: Counter, user: Counter) -> SendMessage:
        await asyncio.sleep(0.001)
        session.count += 1
        user.count += 1
        if int(message.text) % 2:
            raise ValueError("on purpose")
        return message.answer("ok")

    @dispatcher.errors()
    async def note(event: ErrorEvent, session: Counter, user: Counter) -> SendMessage:
        await asyncio.sleep(0.001)
        session.seen.append(type(event.exception).__name__)
        user.seen.append(type(event.exception).__name__)
        return event.update.message.answer("noted")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for number in range(40):
            await ada.write(str(number))
            await asyncio.sleep(0.002)
        await ada.answers(40, timeout=30)
    for key in (f"a:{ada.id}", f"b:{ada.id}"):
        assert await stored(storage, key) == {"count": 20, "seen": ["ValueError"] * 20}


async def test_a_filter_that_asks_loads_the_session_and_only_when_its_turn_comes(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    async def is_counted(message: Message, session: Counter) -> bool:
        return session.count > 0

    @dispatcher.message(Command("plain"))
    async def plain(message: Message) -> None:
        await message.answer("plain")

    @dispatcher.message(F.text == "x", is_counted)
    async def counted(message: Message) -> None:
        await message.answer("counted")

    @dispatcher.message(F.text != "nothing")
    async def other(message: Message, state: FSMContext) -> None:
        await message.answer("other")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text in ("/plain", "y", "nothing"):
            await ada.write(text)
        await ada.answers(2)
        await telegram.drained()
        assert storage.calls == 0
        await ada.write("x")
        assert (await ada.next_answer()).text == "other"
    assert (storage.reads, storage.writes) == ([str(ada.id)], [])


async def test_filters_get_the_session_also_when_combined_and_in_nested_routers(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    inner, innermost = Router(), Router()
    dispatcher.include_router(inner)
    inner.include_router(innermost)

    class AtLeast(Filter):
        def __init__(self, least: int) -> None:
            self.least = least

        async def __call__(self, message: Message, session: Counter) -> bool | dict[str, Any]:
            return {"reached": session.count} if session.count >= self.least else False

    async def is_loud(message: Message, session_handle: Session[Counter]) -> bool:
        return session_handle.data.count >= 0 and message.text.isupper()

    innermost.message.filter(~AtLeast(3))

    @innermost.message(or_f(and_f(AtLeast(2), F.text == "nope"), is_loud))
    async def second(message: Message, session: Counter) -> None:
        session.count += 1
        await message.answer(f"loud {session.count}")

    @dispatcher.message(AtLeast(3))
    async def third(message: Message, reached: int) -> None:
        await message.answer(f"reached {reached}")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text in ("A", "B", "nope", "D"):
            await ada.write(text)
        texts = [answer.text for answer in await ada.answers(4)]
    assert texts == ["loud 1", "loud 2", "loud 3", "reached 3"]


async def test_data_for_handlers_and_filters_may_have_any_name(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    dispatcher["call"] = dispatcher["asked"] = "the user's own"

    async def is_own(message: Message, session: Counter, call: str, asked: str) -> bool:
        return call == asked == "the user's own"

    @dispatcher.message(is_own)
    async def answer(message: Message, session: Counter, call: str) -> None:
        await message.answer(call)

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        assert (await ada.next_answer()).text == "the user's own"


async def test_a_handler_that_skips_is_no_failure(telegram, polling, dispatcher, storage):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message()
    async def first(message: Message, session: Counter) -> None:
        session.seen.append("first")
        raise SkipHandler

    @dispatcher.message()
    async def second(message: Message, session: Counter) -> None:
        session.seen.append("second")
        await message.answer("done")
        if message.text == "cancel":
            raise CancelHandler

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text in ("x", "cancel"):
            await ada.write(text)
        await ada.answers(2)
    assert (await stored(storage, str(ada.id)))["seen"] == ["first", "second"] * 2


def two_kinds(dispatcher: Dispatcher, storage: WatchedStorage) -> None:
    """Set up sessions of the chat and of the user, for which nobody waits long."""
    for key, get_session_key in (("chat", per_chat), ("user", per_user)):
        session(
            initial=Counter,
            storage=storage,
            key=key,
            prefix=f"{key}:",
            get_session_key=get_session_key,
            lock_timeout=20,
        ).setup(dispatcher)


@pytest.mark.parametrize("skipping", [[""], ["chat"], ["user"], ["chat", ""]])
async def test_handlers_after_one_that_skips_may_ask_for_more_and_nobody_waits_in_a_circle(
    telegram, polling, dispatcher, storage, skipping
):
    two_kinds(dispatcher, storage)
    arrived: list[str] = []
    all_there = asyncio.Event()

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return True

    async def skip(message: Message, **found: Counter) -> None:
        await all_there.wait()
        for counter in found.values():
            counter.seen.append("skipped")
        raise SkipHandler

    for asked in skipping:
        handler = partial(skip)
        named = [inspect.Parameter(asked, inspect.Parameter.KEYWORD_ONLY)] if asked else []
        handler.__signature__ = inspect.Signature(named)
        dispatcher.message(arrives, F.text == "skip")(handler)
    later = Router()
    dispatcher.include_router(later)

    @later.message()
    async def note(message: Message, chat: Counter, user: Counter) -> None:
        chat.seen.append(message.text)
        user.seen.append(message.text)
        await message.answer("noted")

    ada = telegram.user("Ada")
    texts = ["skip", "x", "skip", "y"]
    async with polling(dispatcher):
        with telegram.hold():
            for text in texts:
                await ada.write(text)
        await until(lambda: set(texts) == set(arrived))
        all_there.set()
        await ada.answers(4)
    for key in ("chat", "user"):
        kept = (await stored(storage, f"{key}:{ada.id}"))["seen"]
        assert sorted(kept) == sorted(texts + ["skipped"] * 2 * skipping.count(key))
        if skipping[0]:  # one that asks for no session lets later updates pass
            assert [text for text in kept if text != "skipped"] == texts


async def test_places_that_were_given_up_are_taken_again_in_one_step(
    telegram, polling, dispatcher, storage
):
    two_kinds(dispatcher, storage)
    arrived: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return message.text == "first"

    @dispatcher.message(arrives)
    async def ask_for_none(message: Message) -> None:
        raise SkipHandler

    @dispatcher.message(F.text == "first")
    async def ask_for_one(message: Message, user: Counter) -> None:
        begun.set()
        await go_on.wait()
        raise SkipHandler

    @dispatcher.message()
    async def ask_for_both(message: Message, chat: Counter, user: Counter) -> None:
        chat.seen.append(message.text)
        await message.answer("noted")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("first")
        await begun.wait()
        await ada.write("second")
        await until(lambda: len(arrived) == 2)
        go_on.set()
        await ada.answers(2)
    assert (await stored(storage, f"chat:{ada.id}"))["seen"] == ["first", "second"]


async def test_a_filter_of_a_later_handler_that_asks_for_more_waits_for_nobody_in_a_circle(
    telegram, polling, dispatcher, storage
):
    two_kinds(dispatcher, storage)
    arrived: list[str] = []
    all_there = asyncio.Event()

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return True

    @dispatcher.message(arrives)
    async def skip(message: Message, chat: Counter) -> None:
        await all_there.wait()
        chat.seen.append(message.text)
        raise SkipHandler

    async def is_new_here(message: Message, user: Counter, chat: Counter) -> bool:
        return len(user.seen) < len(chat.seen)

    @dispatcher.message(is_new_here)
    async def answer(message: Message) -> None:
        await message.answer("hello")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for number in range(3):
            await ada.write(str(number))
        await until(lambda: len(arrived) == 3)
        all_there.set()
        await ada.answers(3)


async def test_a_middleware_that_uses_another_kind_than_the_handler_waits_for_nobody_in_a_circle(
    telegram, polling, dispatcher, storage
):
    two_kinds(dispatcher, storage)
    arrived: list[str] = []
    all_there = asyncio.Event()

    @dispatcher.message.middleware()
    async def note_for_user(handler, event, data):
        await all_there.wait()
        user = await data["user_handle"]
        user.seen.append(event.text)
        return await handler(event, data)

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return message.text == "both"

    @dispatcher.message(arrives)
    async def ask_for_both(message: Message, chat: Counter, user: Counter) -> None:
        chat.seen.append(message.text)
        await message.answer("noted")

    @dispatcher.message()
    async def ask_for_one(message: Message, chat: Counter) -> None:
        chat.seen.append(message.text)
        await message.answer("noted")

    ada = telegram.user("Ada")
    texts = ["one", "both", "one"]
    async with polling(dispatcher):
        with telegram.hold():
            for text in texts:
                await ada.write(text)
        await until(lambda: arrived == texts)
        all_there.set()
        await ada.answers(3)
    for key in ("chat", "user"):
        assert (await stored(storage, f"{key}:{ada.id}"))["seen"] == texts


async def test_nobody_waits_for_a_session_that_neither_the_handler_nor_a_later_one_asks_for(
    telegram, polling, dispatcher, storage
):
    two_kinds(dispatcher, storage)
    arrived: list[str] = []
    go_on = asyncio.Event()

    @dispatcher.message(F.text == "user")
    async def use_user(message: Message, user: Counter) -> SendMessage:
        user.seen.append(message.text)
        return message.answer("done")

    def arrives(message: Message) -> bool:
        arrived.append(message.text)
        return True

    @dispatcher.message(arrives)
    async def use_chat(message: Message, chat: Counter) -> SendMessage:
        await go_on.wait()
        return message.answer("done at last")

    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    async with polling(dispatcher):
        for text in ("runs", "waits for the chat"):
            await ada.write(text)
        await until(lambda: len(arrived) == 2)
        await ada.write("user", chat=group)
        assert (await telegram.answers(1))[0].text == "done"
        go_on.set()
        await ada.answers(2)


async def test_a_bot_behind_a_webhook_counts_right(telegram, bot, dispatcher, storage):
    session(initial=Counter, storage=storage).setup(dispatcher)
    count_slowly(dispatcher)
    app = web.Application()
    SimpleRequestHandler(dispatcher, bot, secret_token="s3cret").register(app, path="/hook")
    setup_application(app, dispatcher, bot=bot)
    async with TestServer(app) as server:
        await bot.set_webhook(str(server.make_url("/hook")), secret_token="s3cret")
        ada = telegram.user("Ada")
        await asyncio.gather(*(ada.write(str(number)) for number in range(50)))
        answers = await ada.answers(50, timeout=30)
        await bot.delete_webhook()
    assert sorted(int(answer.text) for answer in answers) == list(range(1, 51))
    assert (await stored(storage, str(ada.id)))["count"] == 50


async def test_updates_of_every_type_have_an_origin(telegram, polling, storage):
    dispatcher = Dispatcher()
    origins: dict[str, Origin] = {}

    def remember(origin: Origin) -> None:
        origins.setdefault(type(origin.event).__name__, origin)

    session(storage=storage, get_session_key=remember).setup(dispatcher)

    for observer in dispatcher.observers.values():
        if observer.event_name not in ("update", "error"):

            @observer()
            async def handle(event: Any) -> None: ...

    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    channel = telegram.channel("News")
    async with polling(dispatcher):
        await telegram.bot_listening()  # and has said which types of update it takes
        message = await ada.write("x", chat=group)
        await ada.inline_query("cats")
        await ada.choose_inline_result("1", "cats")
        await ada.pre_checkout(payload="p")
        await ada.shipping("p")
        await ada.block_bot()
        await channel.post("news")
        await ada.react(message, "👍")
        await telegram.drained()
    assert (origins["Message"].chat_id, origins["Message"].user_id) == (group.id, ada.id)
    for name in ("InlineQuery", "ChosenInlineResult", "PreCheckoutQuery", "ShippingQuery"):
        assert (origins[name].chat_id, origins[name].user_id) == (None, ada.id), name
    assert origins["ChatMemberUpdated"].chat_id == ada.id
    assert origins["MessageReactionUpdated"].chat_id == group.id


async def test_an_update_type_newer_than_aiogram_is_skipped_as_ever(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        with pytest.warns(RuntimeWarning, match="unknown update type"):
            await telegram.deliver({"telepathy": {"thought": "x"}})
            await ada.write("x")
            assert (await ada.next_answer()).text == "1"


async def test_error_handlers_of_an_upgraded_group_get_the_new_chats_session(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message(F.text)
    async def count(message: Message, session: Counter) -> SendMessage:
        session.count += 1
        return message.answer("ok")

    @dispatcher.message()
    async def fail(message: Message, session: Counter) -> None:
        raise ValueError("on purpose")

    @dispatcher.errors()
    async def note(event: ErrorEvent, session: Counter) -> None:
        session.seen.append("error")

    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    async with polling(dispatcher):
        await ada.write("x", chat=group)
        await telegram.answers(1)
        supergroup = await group.upgrade(by=ada)

        async def both_failed() -> bool:
            kept = await stored(storage, str(supergroup.id))
            return kept is not None and kept["seen"] == ["error"] * 2

        await until(both_failed)
    assert {key async for key in storage.scan()} == {str(supergroup.id)}


async def test_the_same_update_delivered_twice_is_handled_in_turn(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    telegram.faults.deliver_twice(times=1)
    async with polling(dispatcher):
        await ada.write("x")
        texts = [answer.text for answer in await ada.answers(2)]
    assert texts == ["1", "2"]


async def test_a_group_keeps_its_session_where_no_handler_takes_messages(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.callback_query()
    async def count(query: CallbackQuery, session: Counter) -> None:
        session.count += 1
        await query.answer(str(session.count))

    button = InlineKeyboardButton(text="Count", callback_data="count")
    keyboard = InlineKeyboardMarkup(inline_keyboard=[[button]])
    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    async with polling(dispatcher) as bot:
        await telegram.bot_listening()
        for expected in ("1", "2"):
            await bot.send_message(group.id, "Count?", reply_markup=keyboard)
            query = await ada.press((await telegram.answers(1))[0], "count")
            assert (await query.answered())["text"] == expected
            if expected == "1":
                group = await group.upgrade(by=ada)
    assert {key async for key in storage.scan()} == {str(group.id)}


async def catch(handler: Any, event: Any, data: dict[str, Any]) -> Any:
    """Catch what a handler raises, as middlewares of users do."""
    try:
        return await handler(event, data)
    except (ValueError, TimeoutError):
        await data["bot"].send_message(data["event_chat"].id, "sorry")


async def catch_late(handler: Any, event: Any, data: dict[str, Any]) -> Any:
    async def within(event: Any, data: dict[str, Any]) -> Any:
        message = event.message if isinstance(event, Update) else event
        return await asyncio.wait_for(handler(event, data), 0.05 if message.text == "fail" else 20)

    return await catch(within, event, data)


@pytest.mark.parametrize("catching", [catch, catch_late])
@pytest.mark.parametrize(
    "place",
    [
        lambda dispatcher, router: dispatcher.message.middleware,
        lambda dispatcher, router: dispatcher.message.outer_middleware,
        lambda dispatcher, router: dispatcher.update.middleware,
        lambda dispatcher, router: dispatcher.update.outer_middleware,
        lambda dispatcher, router: router.message.middleware,
        lambda dispatcher, router: router.message.outer_middleware,
    ],
    ids=["inner", "outer", "inner of updates", "outer of updates", "router", "outer of router"],
)
async def test_a_failed_handler_changes_nothing_where_a_middleware_catches_the_error(
    telegram, polling, dispatcher, storage, place, catching
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    router = Router()
    dispatcher.include_router(router)
    place(dispatcher, router)(catching)

    @router.message(F.text == "fail")
    async def fail(message: Message, session: Counter) -> None:
        session.count = 1000
        if catching is catch_late:
            await asyncio.sleep(5)
        raise ValueError("on purpose")

    @router.message()
    async def count(message: Message, session: Counter) -> SendMessage:
        session.count += 1
        return message.answer(str(session.count))

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text, expected in (("fail", "sorry"), ("x", "1")):
            await ada.write(text)
            assert (await ada.next_answer()).text == expected
    assert (await stored(storage, str(ada.id)))["count"] == 1


async def test_a_failed_middleware_changes_nothing_where_another_one_catches_the_error(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    dispatcher.message.outer_middleware(catch)

    @dispatcher.message.middleware()
    async def fail_afterwards(handler, event, data):
        await handler(event, data)
        raise ValueError("on purpose")

    @dispatcher.message()
    async def count(message: Message, session: Counter) -> None:
        session.count += 1

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        assert (await ada.next_answer()).text == "sorry"
        await telegram.drained()
    assert await stored(storage, str(ada.id)) is None


@pytest.mark.parametrize("is_lazy", [False, True])
@pytest.mark.parametrize("level", ["message", "update"])
@pytest.mark.parametrize("place", ["middleware", "outer_middleware"])
async def test_a_handler_that_is_called_again_after_it_failed_gets_its_sessions_anew(
    telegram, polling, dispatcher, storage, place, level, is_lazy
):
    session(initial=Counter, storage=storage, lazy=is_lazy).setup(dispatcher)
    calls: list[str] = []

    @getattr(dispatcher.observers[level], place)()
    async def try_twice(handler, event, data):
        try:
            return await handler(event, data)
        except ValueError:
            return await handler(event, data)

    async def is_right(message: Message, session_handle: Session[Counter]) -> bool:
        return (await session_handle).count == int(message.text)

    @dispatcher.message(is_right)
    async def count(message: Message, session_handle: Session[Counter]) -> SendMessage:
        counter = await session_handle
        before = counter.count
        counter.seen.append(message.text)
        await asyncio.sleep(0.001)
        counter.count = before + 1
        calls.append(message.text)
        if len(calls) % 2:
            raise ValueError("on purpose")
        return message.answer(str(counter.count))

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for number in range(10):
            await ada.write(str(number))
            await ada.next_answer()
    kept = await stored(storage, str(ada.id))
    assert kept == {"count": 10, "seen": [str(number) for number in range(10)]}


async def test_a_handler_to_which_a_middleware_passes_a_failed_update_on_gets_a_session_anew(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message.middleware()
    async def pass_on(handler, event, data):
        try:
            return await handler(event, data)
        except ValueError as error:
            raise SkipHandler from error

    @dispatcher.message()
    async def fail(message: Message, session: Counter) -> None:
        session.seen.append("failed")
        raise ValueError("on purpose")

    @dispatcher.message()
    async def note(message: Message, session: Counter) -> SendMessage:
        session.seen.append("noted")
        return message.answer("noted")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        await ada.next_answer()
    assert (await stored(storage, str(ada.id)))["seen"] == ["noted"]


async def test_a_middleware_cant_use_the_session_of_a_handler_that_failed(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message.middleware()
    async def note(handler, event, data):
        try:
            return await handler(event, data)
        except ValueError:
            (await data["session_handle"]).seen.append("failed")

    @dispatcher.message()
    async def fail(message: Message, session: Counter) -> None:
        raise ValueError("on purpose")

    @dispatcher.errors()
    async def tell(event: ErrorEvent) -> SendMessage:
        return event.update.message.answer(type(event.exception).__name__)

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        assert (await ada.next_answer()).text == SessionClosed.__name__
    assert storage.writes == []


async def test_a_handler_that_begins_after_its_update_is_over_is_told_so_and_holds_nobody_up(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage, lock_timeout=20).setup(dispatcher)
    tasks: list[asyncio.Task[Any]] = []

    @dispatcher.message.middleware()
    async def dont_wait(handler, event, data):
        if event.text != "later":
            return await handler(event, data)

        async def call_later() -> Any:
            await asyncio.sleep(0.05)
            return await handler(event, data)

        tasks.append(asyncio.create_task(call_later()))
        return None

    @dispatcher.message()
    async def count(message: Message, session: Counter) -> SendMessage:
        session.count += 1
        return message.answer(str(session.count))

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("later")
        await until(lambda: tasks and tasks[0].done())
        assert isinstance(tasks[0].exception(), SessionClosed)
        await ada.write("x")
        assert (await ada.next_answer()).text == "1"


async def test_filters_of_error_handlers_get_the_session_too(
    telegram, polling, dispatcher, storage
):
    two_kinds(dispatcher, storage)

    async def has_failed_before(event: ErrorEvent, chat: Counter) -> bool:
        return chat.count > 0

    @dispatcher.message()
    async def fail(message: Message, chat: Counter, user: Counter) -> None:
        chat.count = user.count = 1000
        raise ValueError("on purpose")

    @dispatcher.errors(has_failed_before)
    async def note_again(event: ErrorEvent, user: Counter) -> SendMessage:
        user.seen.append("again")
        return event.update.message.answer("again")

    @dispatcher.errors()
    async def note(event: ErrorEvent, chat: Counter) -> SendMessage:
        chat.count += 1
        return event.update.message.answer("noted")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for expected in ("noted", "again", "again"):
            await ada.write("x")
            assert (await ada.next_answer()).text == expected
    assert await stored(storage, f"chat:{ada.id}") == {"count": 1, "seen": []}
    assert await stored(storage, f"user:{ada.id}") == {"count": 0, "seen": ["again"] * 2}


async def test_error_handlers_get_the_session_also_if_a_middleware_before_it_failed(
    telegram, polling, dispatcher, storage
):
    @dispatcher.update.outer_middleware()
    async def fail(handler, event, data):
        raise ValueError("on purpose")

    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.errors()
    async def note(event: ErrorEvent, session: Counter) -> SendMessage:
        session.count += 1
        return event.update.message.answer(str(session.count))

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await telegram.bot_listening()
        await ada.write("x")
        assert (await ada.next_answer()).text == "1"


@pytest.mark.parametrize("wrong", [Router(), Bot("42:x"), Dispatcher, None])
def test_sessions_are_set_up_on_a_dispatcher_and_on_nothing_else(wrong):
    with pytest.raises(ConfigurationError, match=r"setup\(.*\): .* on the Dispatcher"):
        session(initial=Counter, storage="memory://").setup(wrong)


@pytest.mark.parametrize(
    "stand_in", [1087968824, 136817688, 777000], ids=["anonymous", "channel", "forwarded"]
)
async def test_users_who_stand_for_many_share_no_session(
    telegram, polling, dispatcher, storage, stand_in
):
    session(initial=Counter, storage=storage, get_session_key=per_user).setup(dispatcher)
    refused: list[str] = []

    @dispatcher.message()
    async def count(message: Message, session: Counter) -> None:
        try:
            session.count += 1
        except NoSessionKey as error:
            refused.append(str(error))

    ada = telegram.user("Ada")
    group = telegram.supergroup("Friends", members=[ada])
    sender = {"id": stand_in, "is_bot": True, "first_name": "Many"}
    async with polling(dispatcher):
        await ada.write("x", chat=group, fields={"from": sender, "sender_chat": group.api()})
        await ada.write("x", chat=group)
        await telegram.drained()
    assert len(refused) == 1
    assert "without user_id" in refused[0]
    assert {key async for key in storage.scan()} == {str(ada.id)}


async def test_a_handler_that_stops_the_bot_without_awaiting_it_finishes_first(
    telegram, bot, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message()
    async def stop(message: Message, session: Counter) -> None:
        session.count += 1
        tasks.append(asyncio.create_task(dispatcher.stop_polling()))
        await asyncio.sleep(0.05)
        session.count += 1

    tasks: list[asyncio.Task[None]] = []
    ada = telegram.user("Ada")
    await ada.write("x")
    async with asyncio.timeout(10):
        await dispatcher.start_polling(bot, polling_timeout=1, handle_signals=False)
    assert (await stored(storage, str(ada.id)))["count"] == 2
