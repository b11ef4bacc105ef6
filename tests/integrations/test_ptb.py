"""What only python-telegram-bot has: groups, error handlers, jobs, conversations, contexts.

What holds for every framework stands in ``scenarios/``.
"""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from integrations.drivers.handlers import Gate, until
from telegram import CallbackQuery, Chat, InaccessibleMessage, Message, Update, User
from telegram.ext import (
    Application,
    ApplicationHandlerStop,
    CallbackContext,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    Defaults,
    MessageHandler,
    TypeHandler,
    filters,
)

from gramkeep import (
    ConfigurationError,
    LazySessionFlavor,
    NoSessionKey,
    Origin,
    SessionBusy,
    SessionClosed,
    SessionFlavor,
    SessionNotLoaded,
    Sessions,
    StorageUnavailable,
    per_user,
)
from gramkeep.integrations.ptb import lazy_session, origin_of, session
from gramkeep.testing import TelegramServer

Polling = Callable[[Any], AbstractAsyncContextManager[Any]]


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def builder(telegram: TelegramServer) -> Any:
    return (
        Application.builder()
        .token(telegram.token)
        .base_url(f"{telegram.url}/bot")
        .concurrent_updates(True)
    )


@pytest.fixture
def polling(telegram: TelegramServer) -> Polling:
    """Run an application by long polling over HTTP, for the length of an ``async with``."""

    @asynccontextmanager
    async def run(application: Any) -> AsyncIterator[Any]:
        async with application:
            await application.updater.start_polling(timeout=1, allowed_updates=Update.ALL_TYPES)
            await application.start()
            await telegram.bot_listening()
            try:
                yield application
            finally:
                await application.updater.stop()
                await application.stop()

    return run


async def stored(storage, key) -> Any:
    record = (await storage.get([str(key)]))[0]
    return None if record is None else json.loads(record.value)


async def count(update: Update, context: Any) -> None:
    before = context.session.count
    await asyncio.sleep(0.001)
    context.session.count = before + 1
    context.session.seen.append(update.effective_message.text)
    await update.effective_message.reply_text(str(context.session.count))


async def fail(update: Update, context: Any) -> None:
    context.session.count = 1000
    raise ValueError("on purpose")


def on_text(callback, text=None, **options) -> MessageHandler:
    return MessageHandler(
        filters.TEXT if text is None else filters.Text([text]), callback, **options
    )


# --- handlers and groups


async def test_an_update_that_no_handler_wants_causes_no_call(telegram, builder, polling, storage):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    application.add_handler(on_text(count, "x"))
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("nothing")
        await telegram.drained()
        assert storage.calls == 0
        await ada.write("x")
        assert (await ada.next_answer()).text == "1"


async def test_handlers_of_all_groups_share_one_session_that_is_read_and_written_once(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def note(update: Update, context: Any) -> None:
        context.session.seen.append("note")

    application.add_handler(on_text(note), -1)
    application.add_handler(on_text(count))
    application.add_handler(on_text(note), 1)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await ada.next_answer()
    assert (storage.reads, storage.writes) == ([str(ada.id)], [str(ada.id)])
    assert await stored(storage, ada.id) == {"count": 1, "seen": ["note", "x", "note"]}


async def test_a_handler_that_stops_the_groups_after_it_is_no_failure(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def stop(update: Update, context: Any) -> None:
        context.session.seen.append("stopped")
        raise ApplicationHandlerStop

    application.add_handler(on_text(stop))
    application.add_handler(on_text(fail), 1)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await until(lambda: storage.writes)
    assert await stored(storage, ada.id) == {"count": 0, "seen": ["stopped"]}


async def test_groups_after_a_handler_that_raised_get_what_is_stored(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    application.add_handler(on_text(count))
    application.add_handler(on_text(fail, "fail"), 1)
    application.add_handler(on_text(count), 2)
    ada = telegram.user("Ada")
    async with polling(application):
        for text, answers in {"a": ["1", "2"], "fail": ["3", "3"], "b": ["4", "5"]}.items():
            await ada.write(text)
            assert [answer.text for answer in await ada.answers(2)] == answers
    assert await stored(storage, ada.id) == {"count": 5, "seen": ["a", "a", "fail", "b", "b"]}


async def test_no_handler_of_any_group_runs_without_the_session(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    ran, heard = [], []

    async def run(update: Update, context: Any) -> None:
        ran.append(update)

    async def hear(update: Update, context: Any) -> None:
        with pytest.raises(StorageUnavailable):
            await context.session_handle
        heard.append(context.error)

    application.add_handler(on_text(run))
    application.add_handler(on_text(run), 1)
    application.add_error_handler(hear)
    async with polling(application):
        storage.is_down = True
        await telegram.user("Ada").write("x")
        (error,) = await until(lambda: heard)
    assert isinstance(error, StorageUnavailable)
    assert not ran


async def test_a_session_that_cant_be_loaded_again_after_a_failure_stops_later_groups(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    heard = []

    async def fail_without_storage(update: Update, context: Any) -> None:
        storage.is_down = True
        raise ValueError("on purpose")

    async def hear(update: Update, context: Any) -> None:
        heard.append(type(context.error))
        if isinstance(context.error, StorageUnavailable):
            storage.is_down = False
            counter = await context.session_handle  # nobody holds it, nor tried to load it
            counter.seen.append("noted")
            await update.message.reply_text("noted")
        else:
            with pytest.raises(StorageUnavailable):
                _ = context.session

    application.add_handler(on_text(fail_without_storage))
    application.add_handler(on_text(count), 1)
    application.add_error_handler(hear)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        assert (await ada.next_answer()).text == "noted"
    assert heard == [ValueError, StorageUnavailable]
    assert await stored(storage, ada.id) == {"count": 0, "seen": ["noted"]}


@pytest.mark.parametrize("concurrently", [True, False])
async def test_error_handlers_hear_of_what_cant_be_saved_and_the_bot_goes_on(
    telegram, builder, polling, storage, concurrently
):
    builder.concurrent_updates(concurrently)
    application = session(initial=Counter, storage=storage).setup(builder).build()
    heard = []

    async def count_without_storage(update: Update, context: Any) -> None:
        context.session.count += 1
        storage.is_down = update.message.text == "down"

    async def hear(update: Update, context: Any) -> None:
        storage.is_down = False
        heard.append(context.error)

    application.add_handler(on_text(count_without_storage))
    application.add_error_handler(hear)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("down")
        (error,) = await until(lambda: heard)
        await ada.write("up")
        await until(lambda: storage.writes)
    assert isinstance(error, StorageUnavailable)
    assert (await stored(storage, ada.id))["count"] == 1


@pytest.mark.parametrize("concurrently", [True, False])
async def test_error_handlers_hear_of_a_key_function_that_raises_and_the_bot_goes_on(
    telegram, builder, polling, storage, concurrently
):
    def only_bob(origin: Origin) -> str:
        return {bob.id: "bob"}[origin.user_id]

    builder.concurrent_updates(concurrently)
    made = session(initial=Counter, storage=storage, get_session_key=only_bob)
    application = made.setup(builder).build()
    heard = []

    async def hear(update: Update, context: Any) -> None:
        with pytest.raises(KeyError):
            _ = context.session
        heard.append(context.error)

    application.add_handler(on_text(count))
    application.add_error_handler(hear)
    ada, bob = telegram.user("Ada"), telegram.user("Bob")
    async with polling(application):
        await ada.write("x")
        (error,) = await until(lambda: heard)
        await bob.write("x")
        assert (await bob.next_answer()).text == "1"
    assert isinstance(error, KeyError)


async def test_an_application_that_handles_one_update_at_a_time_counts_right(
    telegram, builder, polling, storage
):
    builder.concurrent_updates(False)
    application = session(initial=Counter, storage=storage).setup(builder).build()
    application.add_handler(on_text(count))
    ada = telegram.user("Ada")
    async with polling(application):
        with telegram.hold():
            for number in range(20):
                await ada.write(str(number))
        texts = [answer.text for answer in await ada.answers(20)]
    assert texts == [str(number) for number in range(1, 21)]


async def test_the_same_update_delivered_twice_is_handled_in_turn(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    application.add_handler(on_text(count))
    ada = telegram.user("Ada")
    telegram.faults.deliver_twice(times=1)
    async with polling(application):
        await ada.write("x")
        texts = [answer.text for answer in await ada.answers(2)]
    assert texts == ["1", "2"]


# --- handlers that aren't waited for


@pytest.mark.parametrize("concurrently", [True, False])
@pytest.mark.parametrize("by_default", [True, False])
async def test_a_handler_that_is_not_waited_for_keeps_the_session_until_it_is_done(
    telegram, builder, polling, storage, by_default, concurrently
):
    builder.concurrent_updates(concurrently)
    if by_default:
        builder.defaults(Defaults(block=False))
    application = session(initial=Counter, storage=storage).setup(builder).build()
    application.add_handler(on_text(count) if by_default else on_text(count, block=False))
    ada = telegram.user("Ada")
    async with polling(application):
        with telegram.hold():
            for number in range(20):
                await ada.write(str(number))
        texts = [answer.text for answer in await ada.answers(20)]
    assert texts == [str(number) for number in range(1, 21)]
    assert (await stored(storage, ada.id))["count"] == 20
    assert storage.reads == [str(ada.id)] * 21


async def test_a_handler_that_is_not_waited_for_and_raises_changes_nothing(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def note(update: Update, context: Any) -> None:
        context.session.seen.append(f"{type(context.error).__name__} at {context.session.count}")
        await update.message.reply_text("noted")

    application.add_handler(on_text(fail, block=False))
    application.add_error_handler(note)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        assert (await ada.next_answer()).text == "noted"
    assert await stored(storage, ada.id) == {"count": 0, "seen": ["ValueError at 0"]}


async def test_a_handler_that_is_not_waited_for_and_is_cancelled_changes_nothing(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    tasks = []

    async def hang(update: Update, context: Any) -> None:
        context.session.count = 1000
        tasks.append(asyncio.current_task())
        await asyncio.sleep(60)

    application.add_handler(on_text(hang, "hang", block=False))
    application.add_handler(on_text(count))
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("hang")
        (task,) = await until(lambda: tasks)
        task.cancel()
        await ada.write("x")
        assert (await ada.next_answer()).text == "1"


async def test_a_stop_waits_for_a_handler_that_the_update_did_not_wait_for(
    telegram, builder, polling, sqlite_url
):
    application = session(initial=Counter, storage=sqlite_url).setup(builder).build()
    begun, go_on = Gate(), Gate()

    async def take_long(update: Update, context: Any) -> None:
        begun.open()
        await go_on.passed()
        context.session.count += 1

    application.add_handler(on_text(take_long, block=False))
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await begun.passed()
        asyncio.get_running_loop().call_later(0.1, go_on.open)
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert await sessions.get(str(ada.id)) == Counter(1)


async def test_a_task_that_outlives_its_update_is_refused_the_session_and_opens_its_own(
    telegram, builder, polling, storage
):
    counters = session(initial=Counter, storage=storage)
    application = counters.setup(builder).build()
    over = Gate()
    refusals = []

    async def work(update: Update, context: Any) -> None:
        await over.passed()
        with pytest.raises(SessionClosed, match="opens its own") as refusal:
            context.session.count += 1
        refusals.append(refusal.value)
        async with counters.sessions.open(context.session_key) as opened:
            opened.data.count += 10

    async def start(update: Update, context: Any) -> None:
        context.session_key = context.session_handle.key
        context.application.create_task(work(update, context), update)
        context.session.count += 1

    application.add_handler(on_text(start))
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await until(lambda: storage.writes)
        over.open()
        await until(lambda: refusals)
    assert (await stored(storage, ada.id))["count"] == 11


async def test_a_handler_that_is_not_waited_for_is_told_that_another_one_failed(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    begun, failed = Gate(), Gate()
    refusals = []

    async def go_on(update: Update, context: Any) -> None:
        context.session.seen.append("before")
        begun.open()
        await failed.passed()
        try:
            context.session.seen.append("after")
        except SessionClosed as refusal:
            refusals.append(refusal)

    async def fail_meanwhile(update: Update, context: Any) -> None:
        await begun.passed()
        await fail(update, context)

    async def open_gate(update: Update, context: Any) -> None:
        failed.open()

    application.add_handler(on_text(go_on, block=False))
    application.add_handler(on_text(fail_meanwhile), 1)
    application.add_error_handler(open_gate)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await until(lambda: refusals)
    assert await stored(storage, ada.id) is None


async def test_an_error_told_when_its_update_is_over_leaves_nothing_behind(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    tasks = []

    async def report_later(update: Update) -> None:
        await until(lambda: storage.writes)
        await application.process_error(update, LookupError("on purpose"))

    async def start(update: Update, context: Any) -> None:
        context.session.count += 1
        tasks.append(asyncio.create_task(report_later(update)))

    application.add_handler(on_text(start, "start"))
    application.add_handler(on_text(count), 1)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("start")
        assert (await ada.next_answer()).text == "2"
        await tasks[0]
        await ada.write("x")
        assert (await ada.next_answer()).text == "3"


async def test_a_handler_that_opens_the_session_it_holds_is_told_at_once(
    telegram, builder, polling, storage
):
    counters = session(initial=Counter, storage=storage)
    application = counters.setup(builder).build()

    async def open_again(update: Update, context: Any) -> None:
        with pytest.raises(SessionBusy, match="already held by this same task"):
            async with counters.sessions.open(context.session_handle.key):
                pass
        await update.message.reply_text("told")

    application.add_handler(on_text(open_again))
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        assert (await ada.next_answer()).text == "told"


# --- error handlers


async def test_an_error_handler_gets_a_session_of_its_own_without_the_failed_ones_changes(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def swallow(update: Update, context: Any) -> None:
        context.session.seen.append(f"{type(context.error).__name__} at {context.session.count}")
        await update.message.reply_text("sorry")

    application.add_handler(on_text(fail))
    application.add_error_handler(swallow)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await ada.next_answer()
    assert await stored(storage, ada.id) == {"count": 0, "seen": ["ValueError at 0"]}


@pytest.mark.parametrize("block", [True, False])
async def test_an_error_handler_that_raises_changes_nothing_and_the_next_one_does(
    telegram, builder, polling, storage, block
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def fail_too(update: Update, context: Any) -> None:
        context.session.seen.append("changed")
        raise LookupError("on purpose")

    async def note(update: Update, context: Any) -> None:
        context.session.seen.append("noted")
        await update.message.reply_text("noted")

    application.add_handler(on_text(fail))
    application.add_error_handler(fail_too, block)
    application.add_error_handler(note, block=block)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await ada.next_answer()
    assert await stored(storage, ada.id) == {"count": 0, "seen": ["noted"]}


async def test_an_error_handler_that_stops_the_others_is_no_failure(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def stop(update: Update, context: Any) -> None:
        context.session.seen.append("stopped")
        raise ApplicationHandlerStop

    application.add_handler(on_text(fail))
    application.add_handler(on_text(count), 1)
    application.add_error_handler(stop)
    application.add_error_handler(fail)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await until(lambda: storage.writes)
    assert await stored(storage, ada.id) == {"count": 0, "seen": ["stopped"]}


async def test_error_handlers_with_several_sessions_wait_for_nobody_in_a_circle(
    telegram, builder, polling, storage
):
    session(initial=Counter, storage=storage, prefix="a:", lock_timeout=20).setup(builder)
    session(
        initial=Counter,
        storage=storage,
        key="user",
        get_session_key=per_user,
        prefix="b:",
        lock_timeout=20,
    ).setup(builder)
    application = builder.build()

    async def count_both(update: Update, context: Any) -> None:
        await asyncio.sleep(0.001)
        context.session.count += 1
        context.user.count += 1
        if int(update.message.text) % 2:
            raise ValueError("on purpose")
        await update.message.reply_text("ok")

    async def note(update: Update, context: Any) -> None:
        await asyncio.sleep(0.001)
        context.session.seen.append(type(context.error).__name__)
        context.user.seen.append(type(context.error).__name__)
        await update.message.reply_text("noted")

    application.add_handler(on_text(count_both))
    application.add_error_handler(note)
    ada = telegram.user("Ada")
    async with polling(application):
        for number in range(40):
            await ada.write(str(number))
            await asyncio.sleep(0.002)
        await ada.answers(40, timeout=30)
    for key in (f"a:{ada.id}", f"b:{ada.id}"):
        assert await stored(storage, key) == {"count": 20, "seen": ["ValueError"] * 20}


async def test_a_handler_can_wait_for_a_task_that_fails(telegram, builder, polling, storage):
    made = session(initial=Counter, storage=storage, lock_timeout=20)
    application = made.setup(builder).build()
    heard = []

    async def wait(update: Update, context: Any) -> None:
        with pytest.raises(LookupError):
            await context.application.create_task(do_in_vain(), update)
        context.session.count += 1
        await update.message.reply_text("done")

    async def do_in_vain() -> None:
        raise LookupError("on purpose")

    async def hear(update: Update, context: Any) -> None:
        heard.append(context.error)

    application.add_handler(on_text(wait))
    application.add_error_handler(hear)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        assert (await ada.next_answer(timeout=20)).text == "done"
    assert (await stored(storage, ada.id))["count"] == 1
    assert len(heard) == 1


async def test_an_error_of_a_task_says_how_to_get_the_session_that_isnt_loaded_for_it(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    told = []

    async def start(update: Update, context: Any) -> None:
        context.application.create_task(do_in_vain(), update)

    async def do_in_vain() -> None:
        raise LookupError("on purpose")

    async def hear(update: Update, context: Any) -> None:
        with pytest.raises(SessionNotLoaded) as caught:
            _ = context.session
        told.append(str(caught.value))
        (await context.session_handle).seen.append("error")
        context.session.count += 1

    application.add_handler(on_text(start))
    application.add_error_handler(hear)
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        await until(lambda: storage.writes)
    assert await stored(storage, ada.id) == {"count": 1, "seen": ["error"]}
    (text,) = told
    assert text.endswith("is not loaded yet: `await` its handle before using its data")


async def test_error_handlers_of_an_upgraded_group_get_the_new_chats_session(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def note(update: Update, context: Any) -> None:
        context.session.seen.append("error")

    application.add_handler(on_text(count))
    application.add_handler(MessageHandler(filters.StatusUpdate.MIGRATE, fail))
    application.add_error_handler(note)
    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    async with polling(application):
        await ada.write("x", chat=group)
        await telegram.answers(1)
        supergroup = await group.upgrade(by=ada)

        async def both_failed() -> bool:
            kept = await stored(storage, supergroup.id)
            return kept is not None and kept["seen"] == ["x", "error", "error"]

        await until(both_failed)
    assert {key async for key in storage.scan()} == {str(supergroup.id)}


async def test_an_error_handler_is_found_again_by_its_callback(builder, storage):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def other(update: object, context: Any) -> None: ...

    application.add_error_handler(fail)
    application.add_error_handler(fail)
    application.add_error_handler(other)
    assert fail in application.error_handlers
    application.remove_error_handler(fail)
    assert list(application.error_handlers) == [other]


# --- jobs and conversations


async def test_a_job_of_a_chat_has_its_session_and_waits_for_its_turn(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    ran = []

    async def work(context: Any) -> None:
        before = context.session.count
        await asyncio.sleep(0.001)
        context.session.count = before + 100
        ran.append(context.job.callback == work)

    application.add_handler(on_text(count))
    ada = telegram.user("Ada")
    async with polling(application):
        job = application.job_queue.run_repeating(work, 0.05, first=0, chat_id=ada.id)
        await asyncio.gather(*(ada.write("x") for _ in range(20)))
        await ada.answers(20)
        await until(lambda: len(ran) > 2)
        job.schedule_removal()
    assert all(ran)
    assert (await stored(storage, ada.id))["count"] == 20 + 100 * len(ran)


async def test_a_job_started_by_a_handler_has_a_session_of_its_own(
    telegram, builder, polling, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def work(context: Any) -> None:
        context.session.seen.append("job")
        await context.bot.send_message(context.job.chat_id, f"{context.session.count}")

    async def start(update: Update, context: Any) -> None:
        context.session.count += 1
        context.job_queue.run_once(work, 0, chat_id=update.effective_chat.id)
        await asyncio.sleep(0.05)
        context.session.count += 1

    application.add_handler(on_text(start))
    ada = telegram.user("Ada")
    async with polling(application):
        await ada.write("x")
        assert (await ada.next_answer()).text == "2"
    assert await stored(storage, ada.id) == {"count": 2, "seen": ["job"]}


async def test_a_job_is_over_when_its_session_is_saved_and_changes_nothing_when_it_raises(
    telegram, builder, storage
):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    heard = []

    async def work(context: Any) -> None:
        context.session.count += 1
        if context.job.data == "fail":
            raise ValueError("on purpose")

    async def hear(update: Update, context: Any) -> None:
        context.session.seen.append(f"{context.error} at {context.session.count}")
        heard.append(update)

    application.add_error_handler(hear)
    async with application:
        await application.start()
        for data in (None, "fail", None):
            job = application.job_queue.run_once(work, 3600, chat_id=42, data=data)
            await job.run(application)
            job.schedule_removal()
        await application.stop()
    assert await stored(storage, 42) == {"count": 2, "seen": ["on purpose at 1"]}
    assert heard == [None]


async def test_a_job_of_nobody_has_no_session_and_runs(builder, storage):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    refusals = []

    async def work(context: Any) -> None:
        with pytest.raises(NoSessionKey, match="Job without chat_id and user_id") as refusal:
            _ = context.session.count
        refusals.append(refusal.value)

    async with application:
        await application.start()
        application.job_queue.run_once(work, 0)
        await until(lambda: refusals)
        await application.stop()
    assert storage.calls == 0


async def test_the_callback_of_a_job_that_ran_can_be_pickled_and_started_again(builder, storage):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    async with application:
        await application.start()
        job = application.job_queue.run_once(count_job, 3600, chat_id=42)
        await job.run(application)
        callback = pickle.loads(pickle.dumps(job.callback))
        again = application.job_queue.run_once(callback, 3600, chat_id=42)
        await again.run(application)
        await application.stop()
    assert callback == count_job
    assert again.name == "count_job"
    assert (await stored(storage, 42))["count"] == 2


async def count_job(context: Any) -> None:
    context.session.count += 1


@pytest.mark.parametrize("block", [True, False])
async def test_handlers_of_nested_conversations_get_the_session_also_when_time_is_out(
    telegram, builder, polling, storage, block
):
    builder.concurrent_updates(False)
    application = session(initial=Counter, storage=storage).setup(builder).build()

    async def step(update: Update, context: Any) -> int:
        await count(update, context)
        return 1

    async def leave(update: Update, context: Any) -> int:
        context.session.seen.append("too late")
        await update.message.reply_text("too late")
        return ConversationHandler.END

    inner = ConversationHandler(
        entry_points=[on_text(step, block=block)],
        states={1: [on_text(step)], ConversationHandler.TIMEOUT: [on_text(leave)]},
        fallbacks=[],
        conversation_timeout=2,
    )
    outer = ConversationHandler(
        entry_points=[CommandHandler("start", step)], states={1: [inner]}, fallbacks=[]
    )
    application.add_handler(outer)
    ada = telegram.user("Ada")
    async with polling(application):
        texts = []
        for text in ("/start", "a", "b"):
            await ada.write(text)
            texts.append((await ada.next_answer()).text)
        texts.append((await ada.next_answer()).text)
        await until(lambda: len(storage.writes) == 4)
    assert texts == ["1", "2", "3", "too late"]
    assert (await stored(storage, ada.id))["seen"] == ["/start", "a", "b", "too late"]


# --- builders and contexts


class BotOfMine(Application):
    def __init__(self, greeting: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.greeting = greeting
        self.processed = []

    async def process_update(self, update: object) -> None:
        self.processed.append(update)
        await super().process_update(update)


class ContextOfMine(SessionFlavor[Counter], CallbackContext[Any, Any, Any, Any]):
    refreshed_at: int | None = None

    async def refresh_data(self) -> None:
        await super().refresh_data()
        self.refreshed_at = self.session.count


async def test_an_application_class_and_a_context_class_of_the_users_stay(
    telegram, builder, polling, storage
):
    builder.application_class(BotOfMine, {"greeting": "Hello"})
    session(initial=Counter, storage=storage).setup(builder)
    builder.context_types(ContextTypes(context=ContextOfMine, chat_data=list))
    application = builder.build()

    async def greet(update: Update, context: ContextOfMine) -> None:
        context.session.count += 1
        assert isinstance(context, ContextOfMine)
        assert context.chat_data == []
        greeting = context.application.greeting
        await update.message.reply_text(f"{greeting} {context.refreshed_at}")

    application.add_handler(on_text(greet))
    ada = telegram.user("Ada")
    async with polling(application):
        for text in ("Hello 0", "Hello 1"):
            await ada.write("x")
            assert (await ada.next_answer()).text == text
    assert isinstance(application, BotOfMine)
    assert len(application.processed) == 2
    assert repr(application).startswith("BotOfMine[")


@pytest.mark.parametrize("make", [session, lazy_session])
def test_a_flavor_must_be_the_one_that_goes_with_the_session(builder, make):
    wrong, right = LazySessionFlavor, SessionFlavor
    if make is lazy_session:
        wrong, right = right, wrong
    make(initial=Counter, storage="memory://").setup(builder)
    context = type("Context", (right, CallbackContext), {})
    builder.context_types(ContextTypes(context=context)).build()
    context = type("Context", (wrong, CallbackContext), {})
    with pytest.raises(ConfigurationError, match=f"Of the flavors these need {right.__name__}"):
        builder.context_types(ContextTypes(context=context)).build()


@pytest.mark.parametrize("key", ["job", "chat_data"])
def test_a_session_doesnt_hide_what_contexts_have_already(builder, key):
    session(initial=Counter, storage="memory://", key=key).setup(builder)
    with pytest.raises(ConfigurationError, match=f"named '{key}' already"):
        builder.build()


def test_setting_up_on_an_application_that_is_built_is_refused(builder):
    with pytest.raises(ConfigurationError, match="set up on the ApplicationBuilder"):
        session(initial=Counter, storage="memory://").setup(builder.build())


async def test_a_context_that_was_made_by_hand_has_no_session(builder, storage):
    application = session(initial=Counter, storage=storage).setup(builder).build()
    context = application.context_types.context(application)
    with pytest.raises(NoSessionKey, match="made neither for an update"):
        _ = context.session


# --- starting and stopping


async def test_hooks_of_the_users_run_around_the_closing_of_sessions(telegram, builder, sqlite_url):
    counters = session(initial=Counter, storage=sqlite_url)
    happened = []

    async def after_start(application: Any) -> None:
        happened.append(await counters.sessions.get("42"))
        await counters.sessions.update("42", lambda counter: Counter(counter.count + 1))
        application.job_queue.run_once(stop, 0.1)

    async def stop(context: Any) -> None:
        context.application.stop_running()

    async def after_stop(application: Any) -> None:
        happened.append(await counters.sessions.get("42"))

    async def after_end(application: Any) -> None:
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await counters.sessions.get("42")
        happened.append("closed")

    builder.post_init(after_start).post_stop(after_stop).post_shutdown(after_end)
    application = counters.setup(builder).build()

    def run() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        application.run_polling(stop_signals=None)

    await asyncio.to_thread(run)
    assert happened == [None, Counter(1), "closed"]


async def test_a_bot_behind_a_webhook_counts_right(telegram, builder, storage):
    application = session(initial=Counter, storage=storage).setup(builder.updater(None)).build()
    application.add_handler(on_text(count))

    async def receive(request: web.Request) -> web.Response:
        update = Update.de_json(await request.json(), application.bot)
        await application.update_queue.put(update)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with TestServer(app) as server, application:
        await application.start()
        await application.bot.set_webhook(str(server.make_url("/hook")))
        ada = telegram.user("Ada")
        await asyncio.gather(*(ada.write(str(number)) for number in range(50)))
        answers = await ada.answers(50, timeout=30)
        await application.bot.delete_webhook()
        await application.stop()
    assert [int(answer.text) for answer in answers] == list(range(1, 51))
    assert (await stored(storage, ada.id))["count"] == 50


# --- origins


async def test_an_update_that_isnt_telegrams_has_a_session_by_its_event(builder, storage):
    @dataclass
    class Payment:
        customer: str

    made = session(
        initial=Counter, storage=storage, get_session_key=lambda origin: origin.event.customer
    )
    application = made.setup(builder).build()

    async def take(payment: Payment, context: Any) -> None:
        context.session.count += 1

    application.add_handler(TypeHandler(Payment, take))
    async with application:
        await application.start()
        for _ in range(3):
            await application.update_queue.put(Payment("ada"))
        await until(lambda: len(storage.writes) == 3)
        await application.stop()
    assert (await stored(storage, "ada"))["count"] == 3


async def test_updates_of_every_type_have_an_origin(telegram, builder, polling, storage):
    origins: dict[str, Origin] = {}

    def remember(origin: Origin) -> None:
        (kind,) = origin.event.to_dict().keys() - {"update_id"}
        origins.setdefault(kind, origin)

    made = session(storage=storage, get_session_key=remember)
    ada = telegram.user("Ada")
    group = telegram.group("Friends", members=[ada])
    channel = telegram.channel("News")
    async with polling(made.setup(builder).build()):
        message = await ada.write("x", chat=group)
        await ada.inline_query("cats")
        await ada.choose_inline_result("1", "cats")
        await ada.pre_checkout(payload="p")
        await ada.shipping("p")
        await ada.block_bot()
        await channel.post("news")
        await ada.react(message, "👍")
        connection = await ada.connect_business()
        await telegram.drained()
        await until(lambda: "business_connection" in origins)
    assert (origins["message"].chat_id, origins["message"].user_id) == (group.id, ada.id)
    assert (origins["message"].chat_type, origins["message"].bot_id) == ("group", telegram.bot.id)
    for name in ("inline_query", "chosen_inline_result", "pre_checkout_query", "shipping_query"):
        assert (origins[name].chat_id, origins[name].user_id) == (None, ada.id), name
    assert origins["my_chat_member"].chat_id == ada.id
    assert origins["message_reaction"].chat_id == group.id
    assert origins["channel_post"].chat_id == channel.id
    assert origins["business_connection"].business_connection_id == connection.id


async def test_a_query_has_the_place_of_its_message_as_far_as_that_is_shown(builder):
    chat, user = Chat(-1005, "supergroup"), User(7, "Ada", is_bot=False)
    shown = Message(
        1,
        datetime.now(UTC),
        chat,
        is_topic_message=True,
        message_thread_id=5,
        business_connection_id="b",
    )
    async with builder.build().bot as bot:
        origins = [
            origin_of(Update(1, callback_query=CallbackQuery("1", user, "1", message)), bot)
            for message in (shown, InaccessibleMessage(chat, 1), None)
        ]
    assert [
        (origin.chat_id, origin.user_id, origin.thread_id, origin.business_connection_id)
        for origin in origins
    ] == [(-1005, 7, 5, "b"), (-1005, 7, None, None), (None, 7, None, None)]


PERSON = {"id": 7, "is_bot": False, "first_name": "Ada"}
GROUP = {"id": -1001, "type": "supergroup", "title": "Friends"}
CHANNEL = {"id": -1009, "type": "channel", "title": "News"}


async def test_boosts_and_votes_name_the_one_who_boosts_or_the_chat_that_votes(builder):
    boost = {"boost_id": "b", "add_date": 1, "expiration_date": 2}
    won = {"source": "giveaway", "giveaway_message_id": 1, "user": PERSON}
    updates = [
        {"chat_boost": {"chat": CHANNEL, "boost": boost | {"source": source}}}
        for source in ({"source": "premium", "user": PERSON}, won)
    ]
    vote = {"poll_id": "1", "option_ids": [0], "option_persistent_ids": ["0"]}
    updates += [{"poll_answer": vote | who} for who in ({"user": PERSON}, {"voter_chat": CHANNEL})]
    async with builder.build().bot as bot:
        origins = [
            origin_of(Update.de_json({"update_id": 1} | update, bot), bot) for update in updates
        ]
    assert [(origin.chat_id, origin.chat_type, origin.user_id) for origin in origins] == [
        (-1009, "channel", 7),
        (-1009, "channel", None),  # nobody paid for it
        (None, None, 7),
        (-1009, "channel", None),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"from": {"id": 1087968824, "is_bot": True, "first_name": "Group"}, "sender_chat": GROUP},
        {"from": {"id": 136817688, "is_bot": True, "first_name": "Channel"}},
        {"from": {"id": 777000, "is_bot": False, "first_name": "Telegram"}},
    ],
    ids=["anonymous admin", "as a channel", "automatic forward"],
)
async def test_those_who_stand_for_many_share_no_session_of_a_user(
    telegram, builder, polling, storage, fields
):
    made = session(initial=Counter, storage=storage, get_session_key=per_user)
    application = made.setup(builder).build()
    heard = []

    async def count_user(_update: Any, context: Any) -> None:
        context.session.count += 1

    async def hear(_update: Any, context: Any) -> None:
        heard.append(type(context.error))

    application.add_handler(TypeHandler(Update, count_user))
    application.add_error_handler(hear)
    ada = telegram.user("Ada")
    group = telegram.supergroup("Friends", members=[ada])
    async with polling(application):
        await ada.write("x", chat=group, fields={"sender_chat": CHANNEL} | fields)
        await ada.write("x", chat=group)
        await until(lambda: storage.writes and heard)
    assert heard == [NoSessionKey]
    assert [key async for key in storage.scan()] == [str(ada.id)]
