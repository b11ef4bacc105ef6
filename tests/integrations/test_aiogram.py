"""aiogram bots, long-polling a Bot API server over HTTP."""

import asyncio
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiogram import Bot, Dispatcher, F, Router
from aiogram.dispatcher.event.bases import CancelHandler, SkipHandler
from aiogram.filters import Command, Filter, and_f, or_f
from aiogram.methods import SendMessage
from aiogram.types import ErrorEvent, Message
from aiogram.webhook.aiohttp_server import SimpleRequestHandler, setup_application
from aiohttp import web
from aiohttp.test_utils import TestServer

from gramkeep import (
    ConfigurationError,
    NoSessionKey,
    Origin,
    Session,
    SessionClosed,
    SessionDecodeError,
    SessionOptions,
    Sessions,
    per_topic,
    per_user,
    per_user_in_chat,
)
from gramkeep.integrations.aiogram import lazy_session, session
from gramkeep.multi import MultiHandle, MultiSession
from gramkeep.storage import ANY, Put


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


async def put(storage, key, value) -> None:
    assert await storage.put([Put(key, value, ANY)]) == [True]


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


async def test_fifty_updates_of_one_chat_at_once_count_to_fifty_in_their_order(
    telegram, polling, dispatcher, sqlite_url
):
    installed = session(initial=Counter, storage=sqlite_url)
    installed.setup(dispatcher)
    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        with telegram.hold():
            for number in range(50):
                await ada.write(str(number))
        answers = await ada.answers(50)
        kept = await installed.sessions.get(str(ada.id))
    assert [answer.text for answer in answers] == [str(number) for number in range(1, 51)]
    assert kept == Counter(50, [str(number) for number in range(50)])


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


async def test_a_handler_that_needs_no_session_holds_nobody_up(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    go_on = asyncio.Event()

    @dispatcher.message(Command("wait"))
    async def wait(message: Message) -> None:
        await go_on.wait()
        await message.answer("waited")

    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        with telegram.hold():
            await ada.write("/wait")
            await ada.write("hello")
        assert (await ada.next_answer()).text == "1"
        go_on.set()
        assert (await ada.next_answer()).text == "waited"


async def test_another_chat_does_not_wait(telegram, polling, dispatcher, storage):
    session(initial=Counter, storage=storage).setup(dispatcher)
    go_on = asyncio.Event()
    ada, bob = telegram.user("Ada"), telegram.user("Bob")

    @dispatcher.message()
    async def count(message: Message, session: Counter) -> None:
        if message.chat.id == ada.id:
            await go_on.wait()
        session.count += 1
        await message.answer(str(session.count))

    async with polling(dispatcher):
        await ada.write("first")
        await bob.write("second")
        assert (await bob.next_answer()).text == "1"
        go_on.set()
        assert (await ada.next_answer()).text == "1"


@pytest.mark.parametrize("is_new_dispatcher", [True, False])
async def test_a_counter_persists_over_a_restart(telegram, bot, sqlite_url, is_new_dispatcher):
    ada = telegram.user("Ada")
    dispatcher = Dispatcher()
    session(initial=Counter, storage=sqlite_url).setup(dispatcher)
    count_slowly(dispatcher)
    for start in (0, 3):
        if is_new_dispatcher:
            dispatcher = Dispatcher()
            session(initial=Counter, storage=sqlite_url).setup(dispatcher)
            count_slowly(dispatcher)
        task = asyncio.create_task(
            dispatcher.start_polling(bot, polling_timeout=1, handle_signals=False)
        )
        for number in range(1, 4):
            await ada.write("x")
            assert (await ada.next_answer()).text == str(start + number)
        await dispatcher.stop_polling()
        await task


async def test_a_raising_handler_changes_nothing_and_frees_the_key(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message(Command("fail"))
    async def fail(message: Message, session: Counter) -> None:
        session.count = 1000
        await message.answer("failing")
        raise ValueError("on purpose")

    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text in ("one", "/fail", "two"):
            await ada.write(text)
        texts = [answer.text for answer in await ada.answers(3)]
    assert texts == ["1", "failing", "2"]
    assert await stored(storage, str(ada.id)) == {"count": 2, "seen": ["one", "two"]}


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
    session(initial=Counter, storage=storage, prefix="a:", lock_timeout=3).setup(dispatcher)
    session(
        initial=Counter,
        storage=storage,
        key="user",
        get_session_key=per_user,
        prefix="b:",
        lock_timeout=3,
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
        await ada.answers(40)
    for key in (f"a:{ada.id}", f"b:{ada.id}"):
        assert await stored(storage, key) == {"count": 20, "seen": ["ValueError"] * 20}


async def test_a_cancelled_handler_changes_nothing_and_frees_the_key(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    tasks = []

    @dispatcher.message(Command("hang"))
    async def hang(message: Message, session: Counter) -> None:
        session.count = 1000
        tasks.append(asyncio.current_task())
        await message.answer("hanging")
        await asyncio.Event().wait()

    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("/hang")
        await ada.next_answer()
        await ada.write("x")
        tasks[0].cancel()
        assert (await ada.next_answer()).text == "1"
    assert await stored(storage, str(ada.id)) == {"count": 1, "seen": ["x"]}


async def test_handlers_that_dont_ask_for_the_session_cause_no_call_to_the_storage(
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
    async def other(message: Message, state: Any) -> None:
        await message.answer("other")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text in ("/plain", "y", "nothing"):
            await ada.write(text)
        await ada.answers(2)
        await telegram.drained()
        assert storage.calls == 0
        await ada.write("x")  # here a filter asks
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


async def test_an_unreachable_storage_stops_the_handler_and_the_chat_goes_on_after_recovery(
    telegram, polling, dispatcher, storage, caplog
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("one")
        assert (await ada.next_answer()).text == "1"
        storage.is_down = True
        await ada.write("lost")
        await telegram.drained()
        storage.is_down = False
        await ada.write("two")
        assert (await ada.next_answer()).text == "2"
    assert (await stored(storage, str(ada.id)))["seen"] == ["one", "two"]
    assert f"unavailable for session '{ada.id}': it is switched off" in caplog.text


async def test_a_corrupted_session_stops_the_handler_and_its_bytes_stay_as_they_were(
    telegram, polling, dispatcher, storage, caplog
):
    installed = session(initial=Counter, storage=storage)
    installed.setup(dispatcher)
    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    torn = b'{"count": 7, "se'
    await put(storage, str(ada.id), torn)
    async with polling(dispatcher):
        await ada.write("x")
        await telegram.drained()
        with pytest.raises(SessionDecodeError, match=str(ada.id)):
            await installed.sessions.get(str(ada.id))
        assert (await storage.get([str(ada.id)]))[0].value == torn
        await put(storage, str(ada.id), b'{"count": 7}')
        await ada.write("x")
        assert (await ada.next_answer()).text == "8"
    assert "SessionDecodeError" in caplog.text


async def test_an_update_without_a_key_is_handled_and_only_the_use_of_its_session_raises(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    seen: list[Any] = []

    @dispatcher.inline_query()
    async def inline(query: Any, session: Counter, session_handle: Session[Counter]) -> None:
        seen.append("handled")
        for use in (
            lambda: session.count,
            lambda: session_handle.data,
            lambda: session_handle.key,
            lambda: setattr(session, "count", 1),
            lambda: bool(session),
        ):
            with pytest.raises(NoSessionKey, match="InlineQuery without chat_id") as caught:
                use()
            seen.append(str(caught.value))
        await query.answer([])

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.inline_query("cats")
        await telegram.wait_for_call("answerInlineQuery")
    assert len(seen) == 6
    assert "per_chat returned None" in seen[1]
    assert storage.calls == 0


async def test_clearing_deletes_and_the_next_update_starts_anew(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message(Command("reset"))
    async def reset(message: Message, session_handle: Session[Counter]) -> None:
        await session_handle.clear()
        await message.answer("cleared")

    @dispatcher.message(Command("delete"))
    async def delete(message: Message, session_handle: Session[Counter]) -> None:
        session_handle.data = None
        await message.answer("deleted")

    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    async with polling(dispatcher):
        for text in ("a", "/reset", "b", "/delete", "c"):
            await ada.write(text)
        texts = [answer.text for answer in await ada.answers(5)]
    assert texts == ["1", "cleared", "1", "deleted", "1"]


async def test_a_session_used_after_its_update_raises(telegram, polling, dispatcher, storage):
    session(initial=Counter, storage=storage).setup(dispatcher)
    kept: list[Session[Counter]] = []

    @dispatcher.message()
    async def keep(message: Message, session_handle: Session[Counter]) -> None:
        kept.append(session_handle)
        await message.answer("kept")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        await ada.next_answer()
    with pytest.raises(SessionClosed, match=str(ada.id)):
        _ = kept[0].data


async def test_a_lazy_session_is_loaded_when_awaited(telegram, polling, dispatcher, storage):
    lazy_session(initial=Counter, storage=storage).setup(dispatcher)

    @dispatcher.message()
    async def count(message: Message, session: Session[Counter]) -> None:
        if message.text != "load":
            await message.answer("not loaded")
            return
        counter = await session
        counter.count += 1
        await message.answer(str((await session).count))

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        await ada.write("x")
        await ada.next_answer()
        assert storage.calls == 0
        await ada.write("load")
        assert (await ada.next_answer()).text == "1"
    assert (await stored(storage, str(ada.id)))["count"] == 1


async def test_two_kinds_of_session_live_side_by_side(telegram, polling, dispatcher, storage):
    session(initial=Counter, storage=storage, prefix="chat:").setup(dispatcher)
    session(
        initial=dict, storage=storage, key="basket", get_session_key=per_user, prefix="user:"
    ).setup(dispatcher)
    with pytest.raises(ConfigurationError, match="already has sessions named 'basket'"):
        session(key="basket", storage=storage).setup(dispatcher)

    @dispatcher.message()
    async def buy(message: Message, session: Counter, basket: dict[str, int]) -> None:
        session.count += 1
        await asyncio.sleep(0)
        basket[message.text] = basket.get(message.text, 0) + 1
        await message.answer("ok")

    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    group = telegram.group("Friends", members=[ada, bob])
    async with polling(dispatcher):
        with telegram.hold():
            for _ in range(10):
                await ada.write("apple", chat=group)
                await bob.write("pear", chat=group)
                await ada.write("plum")
        await telegram.answers(30)
    assert (await stored(storage, f"chat:{group.id}"))["count"] == 20
    assert (await stored(storage, f"chat:{ada.id}"))["count"] == 10
    assert await stored(storage, f"user:{ada.id}") == {"apple": 10, "plum": 10}
    assert await stored(storage, f"user:{bob.id}") == {"pear": 10}


async def test_a_second_kind_with_an_async_key_function_waits_for_nobody_in_a_circle(
    telegram, polling, dispatcher, storage
):
    async def slow_key(origin: Origin) -> str | None:
        await asyncio.sleep(0.01 if origin.event.text == "0" else 0)
        return per_user(origin)

    session(initial=Counter, storage=storage, prefix="a:", lock_timeout=3).setup(dispatcher)
    session(
        initial=Counter,
        storage=storage,
        key="other",
        get_session_key=slow_key,
        prefix="b:",
        lock_timeout=3,
    ).setup(dispatcher)

    @dispatcher.message()
    async def both(message: Message, session: Counter, other: Counter) -> None:
        await asyncio.sleep(0.001)
        session.count += 1
        other.count += 1
        await message.answer("ok")

    ada = telegram.user("Ada")
    async with polling(dispatcher):
        with telegram.hold():
            for number in range(6):
                await ada.write(str(number % 2))
        await ada.answers(6, timeout=2.5)
    assert (await stored(storage, f"b:{ada.id}"))["count"] == 6


@pytest.mark.parametrize(
    ("get_session_key", "expected"),
    [
        (per_user, "{ada}"),
        (per_user_in_chat, "{group}:{ada}"),
        (per_topic, "{group}:{topic}"),
        (lambda origin: f"{origin.bot_id}/{origin.chat_type}", "{bot}/supergroup"),
    ],
)
async def test_keys_say_where_an_update_came_from(
    telegram, polling, dispatcher, storage, get_session_key, expected
):
    session(initial=Counter, storage=storage, get_session_key=get_session_key).setup(dispatcher)
    count_slowly(dispatcher)
    ada = telegram.user("Ada")
    group = telegram.supergroup("Forum", members=[ada], forum=True)
    topic = group.topic("News")
    async with polling(dispatcher) as bot:
        await ada.write("x", chat=group, topic=topic)
        await telegram.answers(1)
        key = expected.format(ada=ada.id, group=group.id, topic=topic.id, bot=bot.id)
    assert (await stored(storage, key))["count"] == 1


async def test_a_business_chat_is_apart_from_the_bots_own_chat_with_the_same_person(
    telegram, polling, dispatcher, storage
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    origins: list[str | None] = []

    @dispatcher.business_message()
    @dispatcher.message()
    async def count(message: Message, session: Counter, session_handle: Session[Counter]) -> None:
        session.count += 1
        origins.append(session_handle.key)
        await message.answer(str(session.count))

    ada, owner = telegram.user("Ada"), telegram.user("Owner")
    connection = await owner.connect_business()
    async with polling(dispatcher):
        await ada.write("to the bot")
        await ada.next_answer()
        await ada.write("to the shop", chat=connection.chat(ada))
        await telegram.answers(1, chat=connection.chat(ada))
    assert origins == [str(ada.id), f"{ada.id}@{connection.id}"]


async def test_shutting_down_waits_for_the_handler_that_runs_and_saves_its_session(
    telegram, bot, dispatcher, sqlite_url
):
    installed = session(initial=Counter, storage=sqlite_url)
    installed.setup(dispatcher)
    started, go_on = asyncio.Event(), asyncio.Event()

    @dispatcher.message()
    async def slow(message: Message, session: Counter) -> None:
        started.set()
        await go_on.wait()
        session.count += 1

    ada = telegram.user("Ada")
    task = asyncio.create_task(
        dispatcher.start_polling(bot, polling_timeout=1, handle_signals=False)
    )
    await ada.write("x")
    await started.wait()
    stopping = asyncio.create_task(dispatcher.stop_polling())
    await asyncio.sleep(0.1)
    assert not task.done()
    go_on.set()
    await stopping
    await task
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert await sessions.get(str(ada.id)) == Counter(1)


async def test_a_ready_manager_serves_handlers_and_jobs_alike(
    telegram, polling, dispatcher, storage
):
    sessions = Sessions(initial=Counter, storage=storage)
    session(sessions).setup(dispatcher)
    with pytest.raises(ConfigurationError, match="prefix="):
        session(sessions, prefix="x")  # type: ignore[call-overload]
    count_slowly(dispatcher)
    ada = telegram.user("Ada")

    async def job() -> None:
        for _ in range(20):
            async with sessions.open(str(ada.id)) as opened:
                before = opened.data.count
                await asyncio.sleep(0.001)
                opened.data.count = before + 1

    async with polling(dispatcher):
        working = asyncio.create_task(job())
        for number in range(20):
            await ada.write(str(number))
        await ada.answers(20)
        await working
    assert (await stored(storage, str(ada.id)))["count"] == 40
    assert await sessions.get(str(ada.id))  # whoever made it closes it
    await sessions.aclose()


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
        answers = await ada.answers(50)
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


async def test_the_parts_of_a_multi_session_come_with_one_read_and_go_with_one_write(
    telegram, polling, dispatcher, storage
):
    session(
        type="multi",
        user=SessionOptions(initial=Counter, get_session_key=per_user, storage=storage),
        chat=SessionOptions(initial=Counter, storage=storage),
    ).setup(dispatcher)

    @dispatcher.message(Command("forget"))
    async def forget(message: Message, session_handle: MultiHandle) -> None:
        await session_handle.user.clear()
        await message.answer("forgotten")

    @dispatcher.message()
    async def count(message: Message, session: MultiSession) -> SendMessage:
        session.user.count += 1
        await asyncio.sleep(0.001)
        session.chat.count += 1
        return message.answer(f"{session.user.count} {session.chat.count}")

    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    group = telegram.group("Friends", members=[ada, bob])
    async with polling(dispatcher):
        with telegram.hold():
            for _ in range(10):
                await ada.write("x", chat=group)
                await bob.write("x", chat=group)
        answers = await telegram.answers(20)
        assert len(storage.reads) == 40
        await ada.write("/forget", chat=group)
        await telegram.answers(1)
    assert sorted(int(answer.text.split()[1]) for answer in answers) == list(range(1, 21))
    assert (await stored(storage, f"chat:{group.id}"))["count"] == 20
    assert (await stored(storage, f"user:{bob.id}"))["count"] == 10
    assert await stored(storage, f"user:{ada.id}") is None


@pytest.mark.parametrize("new_chat_first", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_group_that_becomes_a_supergroup_keeps_its_sessions(
    telegram, polling, dispatcher, storage, new_chat_first, at_once
):
    session(initial=Counter, storage=storage).setup(dispatcher)
    session(
        initial=Counter,
        storage=storage,
        key="member",
        prefix="member:",
        get_session_key=per_user_in_chat,
    ).setup(dispatcher)

    @dispatcher.message()
    async def count(message: Message, session: Counter, member: Counter) -> SendMessage | None:
        if message.text is None:  # the service messages come here, too
            return None
        session.count += 1
        member.count += 1
        return message.answer(f"{session.count} {member.count}")

    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    group = telegram.group("Friends", members=[ada, bob])
    async with polling(dispatcher):
        await ada.write("x", chat=group)
        await bob.write("x", chat=group)
        await telegram.answers(2)
        with telegram.hold() if at_once else nullcontext():
            supergroup = await group.upgrade(by=ada, new_chat_first=new_chat_first)
        while await stored(storage, f"member:{supergroup.id}:{bob.id}") is None:
            await asyncio.sleep(0.01)
        await ada.write("x", chat=supergroup)
        await bob.write("x", chat=supergroup)
        answers = await telegram.answers(2)
    assert {answer.text for answer in answers} == {"3 2", "4 2"}
    assert {key async for key in storage.scan()} == {
        str(supergroup.id),
        f"member:{supergroup.id}:{ada.id}",
        f"member:{supergroup.id}:{bob.id}",
    }


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
        while ((await stored(storage, str(supergroup.id))) or {}).get("seen") != ["error"] * 2:
            await asyncio.sleep(0.01)
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


async def test_without_a_storage_a_log_line_says_that_sessions_are_not_kept(caplog):
    with caplog.at_level(logging.WARNING, "gramkeep"):
        await session(initial=Counter).sessions.aclose()
    assert "kept in memory and end with this process" in caplog.text


def test_the_bot_fixture_is_a_real_one(bot: Bot):
    assert bot.session.api.base.startswith("http://127.0.0.1")
