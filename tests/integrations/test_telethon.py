"""What only Telethon has: its events, several handlers of one update, ways to add and remove them.

What holds for every framework stands in ``scenarios/``.
"""

import asyncio
import functools
import json
import logging
import signal
import sys
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from integrations.drivers.events import ADA, BOB, CHANNEL, FORUM, GROUP, SUPERGROUP, Chat, Person
from integrations.drivers.handlers import until
from integrations.drivers.telethon import DATE, Telegram, chat_entity, peer
from integrations.watched_storage import WatchedStorage
from telethon import TelegramClient, events
from telethon.sessions import MemorySession
from telethon.tl import types
from telethon.tl.custom import Message

from gramkeep import (
    ConfigurationError,
    NoSessionKey,
    Origin,
    Session,
    SessionClosed,
    SessionOptions,
    Sessions,
    StorageUnavailable,
    per_user,
)
from gramkeep.integrations.telethon import lazy_session, origin_of, session

TESTS = Path(__file__).parents[1]


@dataclass
class Counter:
    count: int = 0
    seen: list[str] = field(default_factory=list)


def new_client(**options: Any) -> TelegramClient:
    return TelegramClient(MemorySession(), 1, "hash", **options)


@pytest.fixture
async def client() -> TelegramClient:
    return new_client()


@pytest.fixture
def telegram(client: TelegramClient) -> Telegram:
    return Telegram(client)


async def stored(storage: WatchedStorage, key: object) -> Any:
    record = (await storage.get([str(key)]))[0]
    return None if record is None else json.loads(record.value)


def texts(pattern: str) -> events.NewMessage:
    return events.NewMessage(pattern=f"^{pattern}$")


# --- handlers


class Bot:
    """Has handlers of all forms."""

    def __init__(self) -> None:
        self.got: dict[str, Any] = {}

    async def method(self, event: Any, session: Counter) -> None:
        session.count += 1
        self.got["method"] = type(session)

    async def bound_before(self, name: str, event: Any, session_handle: Session[Counter]) -> None:
        session_handle.data.count += 1
        self.got[name] = type(session_handle.data)

    async def bound_by_name(self, event: Any, *, session: str) -> None:
        self.got["bound by name"] = session

    async def __call__(self, event: Any, session: Counter) -> None:
        session.count += 1
        self.got["callable"] = type(session)

    async def neither(self, event: Any) -> None:
        self.got["neither"] = type(event.message)

    async def called_session(self, session: Any) -> None:  # it is the event, whatever it is called
        self.got["called session"] = type(session.message)

    def decorated(self) -> Any:
        @functools.wraps(self.method)
        async def decorated(*args: Any, **named: Any) -> None:
            await self.method(*args, **named)
            self.got["decorated"] = set(named)

        return decorated


async def test_handlers_of_all_forms_get_what_they_name(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)
    bot = Bot()
    handlers = {
        "method": bot.method,
        "partial": partial(bot.bound_before, "partial"),
        "bound by name": partial(bot.bound_by_name, session="my own"),
        "callable": bot,
        "neither": bot.neither,
        "called session": bot.called_session,
        "decorated": bot.decorated(),
    }
    for text, handler in handlers.items():
        client.add_event_handler(handler, texts(text))
    async with client:
        for text in handlers:
            telegram.write(ADA, text)
            await until(lambda text=text: text in bot.got)
    assert bot.got == {
        "method": Counter,
        "partial": Counter,
        "bound by name": "my own",
        "callable": Counter,
        "neither": types.Message,
        "called session": types.Message,
        "decorated": {"session"},
    }
    assert (await stored(storage, ADA.id))["count"] == 4
    assert len(storage.reads) == 4 + 1  # this test's own


async def test_handlers_added_before_setup_and_while_running_get_sessions(
    client, telegram, storage
):
    @client.on(texts("before"))
    async def before(event: Any, session: Counter) -> None:
        session.seen.append("before")
        await event.respond("done")

    session(initial=Counter, storage=storage).setup(client)

    @events.register(texts("registered"))
    async def registered(event: Any, session: Counter, user: Counter) -> None:
        session.seen.append("registered")
        user.count += 1
        await event.respond("done")

    client.add_event_handler(registered)
    async with client:
        telegram.write(ADA, "before")
        await telegram.answers(1)
        users = session(initial=Counter, storage=storage, key="user", prefix="user:")
        users.setup(client)
        telegram.write(ADA, "registered")
        await telegram.answers(1)
    assert (await stored(storage, ADA.id))["seen"] == ["before", "registered"]
    assert (await stored(storage, f"user:{ADA.id}"))["count"] == 1


async def test_handlers_are_listed_and_removed_by_the_functions_that_users_know(
    client, telegram, storage
):
    bot = Bot()
    client.add_event_handler(bot.neither, events.NewMessage)
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.NewMessage)
    async def count(event: Any, session: Counter) -> None:
        session.count += 1

    client.add_event_handler(count)  # for raw updates
    listed = client.list_event_handlers()
    assert [function for function, _ in listed] == [bot.neither, count, count]
    assert {type(function).__name__ for function, _ in listed} == {"method", "function"}
    assert [type(kind) for _, kind in listed] == [events.NewMessage, events.NewMessage, events.Raw]
    assert client.remove_event_handler(count, events.Raw) == 1
    assert client.remove_event_handler(bot.neither) == 1
    assert client.remove_event_handler(print) == 0
    assert [function for function, _ in client.list_event_handlers()] == [count]
    async with client:
        telegram.write(ADA, "x")
        await until(lambda: storage.writes)
        assert client.remove_event_handler(count) == 1
        telegram.write(ADA, "x")
        await asyncio.sleep(0.02)
    assert bot.got == {}
    assert (await stored(storage, ADA.id))["count"] == 1


async def test_several_handlers_of_one_update_are_each_for_themselves(
    client, telegram, storage, caplog
):
    session(initial=Counter, storage=storage).setup(client)
    handles = []

    @client.on(events.NewMessage)
    async def fail(event: Any, session: Counter) -> None:
        session.seen.append("never saved")
        raise ValueError("on purpose")

    @client.on(events.NewMessage)
    async def first(event: Any, session: Counter, session_handle: Session[Counter]) -> None:
        handles.append(session_handle)
        session.seen.append(f"first {event.raw_text}")
        await asyncio.sleep(0.001)

    @client.on(events.NewMessage)
    async def second(event: Any, session: Counter) -> None:
        with pytest.raises(SessionClosed):
            _ = handles[-1].data  # of the handler before, which is done
        session.seen.append(f"second {event.raw_text}")
        await event.respond("done")

    with caplog.at_level(logging.ERROR, "telethon"):
        async with client:
            telegram.write(ADA, "a")
            await telegram.answers(1)
            telegram.write(ADA, "b")
            await telegram.answers(1)
    seen = ["first a", "second a", "first b", "second b"]
    assert (await stored(storage, ADA.id))["seen"] == seen
    assert caplog.text.count("Unhandled exception on fail") == 2
    assert "on purpose" in caplog.text


async def test_a_handler_that_stops_propagation_has_succeeded(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.NewMessage)
    async def stop(event: Any, session: Counter) -> None:
        session.seen.append(event.raw_text)
        await event.respond("done")
        raise events.StopPropagation

    @client.on(events.NewMessage)
    async def never(event: Any, session: Counter) -> None:
        session.seen.append("never")

    async with client:
        telegram.write(ADA, "x")
        await telegram.answers(1)
    assert (await stored(storage, ADA.id))["seen"] == ["x"]


async def test_a_handler_without_sessions_is_called_as_telethon_calls_it(client, telegram, caplog):
    session(initial=Counter, storage="memory://").setup(client)

    @client.on(events.NewMessage)
    async def fail(event: Any) -> None:
        await event.respond("failing")
        raise ValueError("on purpose")

    with caplog.at_level(logging.ERROR, "telethon"):
        async with client:
            telegram.write(ADA, "x")
            await telegram.answers(1)
    assert "Unhandled exception on fail" in caplog.text


async def test_lazy_sessions_and_multi_sessions_stand_beside_an_eager_one(
    client, telegram, storage
):
    session(initial=Counter, storage=storage).setup(client)
    lazy_session(initial=Counter, storage=storage, key="late", prefix="late:").setup(client)
    session(
        type="multi",
        key="both",
        user=SessionOptions(initial=Counter, get_session_key=per_user, storage=storage),
        chat=SessionOptions(initial=Counter, storage=storage),
    ).setup(client)

    @client.on(events.NewMessage)
    async def count(event: Any, session: Counter, late: Session[Counter], both: Any) -> None:
        session.count += 1
        if event.raw_text == "late":
            (await late).count += 1
        both.user.count += 1
        both.chat.count += 2
        await event.respond("done")

    async with client:
        telegram.write(ADA, "x", "late", chat=GROUP)
        await telegram.answers(2)
    counts = {key: (await stored(storage, key))["count"] async for key in storage.scan()}
    assert counts == {
        f"{GROUP.id}": 2,
        f"late:{GROUP.id}": 1,
        f"user:{ADA.id}": 2,
        f"chat:{GROUP.id}": 4,
    }


# --- order


@pytest.mark.parametrize("sequential", [False, True])
async def test_fifty_updates_count_to_fifty_in_their_order(sequential, storage):
    client = new_client(sequential_updates=sequential)
    telegram = Telegram(client)
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.NewMessage)
    async def count(event: Any, session: Counter) -> None:
        before = session.count
        await asyncio.sleep(0.001)
        session.count = before + 1
        await event.respond(event.raw_text)

    in_order = [str(number) for number in range(50)]
    async with client:
        telegram.write(ADA, *in_order)
        assert await telegram.answers(50) == in_order
    assert (await stored(storage, ADA.id))["count"] == 50
    assert not client._gramkeep._handling  # nothing is kept of what is over
    assert len(client._gramkeep._arrivals) == 0


async def test_filters_that_take_their_time_let_no_later_update_of_the_chat_overtake(
    client, telegram, storage
):
    session(initial=Counter, storage=storage).setup(client)

    async def is_for_others(event: Any) -> bool:
        await asyncio.sleep(0.03 if event.raw_text == "slow" else 0)
        return False

    @client.on(events.NewMessage(func=is_for_others))
    async def never(event: Any) -> None:
        raise AssertionError

    @client.on(events.NewMessage)
    async def note(event: Any, session: Counter) -> None:
        session.seen.append(event.raw_text)
        await event.respond(event.raw_text)

    async with client:
        telegram.write(ADA, "slow", "a", "slow", "b", chat=GROUP)
        telegram.write(BOB, "from Bob", chat=GROUP)
        telegram.write(BOB, "in private")
        answers = await telegram.answers(6)
    # Bob's two are from one user, so that they keep their order, too.
    assert answers == ["slow", "a", "slow", "b", "from Bob", "in private"]
    assert (await stored(storage, GROUP.id))["seen"] == answers[:-1]


async def test_a_filter_that_never_ends_holds_up_its_own_chat_alone_and_not_for_ever(
    client, telegram, storage, monkeypatch
):
    monkeypatch.setattr("gramkeep.integrations.turns.PATIENCE", 0.1)
    session(initial=Counter, storage=storage).setup(client)

    async def hangs(event: Any) -> bool:
        if event.raw_text == "hang":
            await asyncio.Event().wait()
        return True

    @client.on(events.NewMessage(func=hangs))
    async def note(event: Any, session: Counter) -> None:
        session.seen.append(event.raw_text)
        await event.respond(event.raw_text)

    async with client:
        telegram.write(ADA, "hang", "a")
        telegram.write(BOB, "b")
        assert await telegram.answers(2) == ["b", "a"]
    assert (await stored(storage, ADA.id))["seen"] == ["a"]


async def test_updates_without_chat_and_user_wait_for_nobody(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)
    handled = []

    async def hangs(update: Any) -> bool:
        if update.poll_id == 1:
            await asyncio.Event().wait()
        return True

    @client.on(events.Raw(types.UpdateMessagePoll, func=hangs))
    async def note(update: Any, session: Counter) -> None:
        handled.append(update.poll_id)

    async with client:
        telegram.push([types.UpdateMessagePoll(poll_id, types.PollResults()) for poll_id in (1, 2)])
        await until(lambda: handled)
    assert handled == [2]


async def test_a_handler_that_asks_for_nothing_lets_later_updates_pass(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.NewMessage)
    async def log_it(event: Any) -> None:
        await asyncio.sleep(0.05 if event.raw_text == "slow" else 0)

    @client.on(events.NewMessage)
    async def note(event: Any, session: Counter) -> None:
        await event.respond(event.raw_text)

    async with client:
        telegram.write(ADA, "slow", "quick")
        assert await telegram.answers(2) == ["quick", "slow"]


async def test_a_handler_that_talks_with_its_user_holds_the_session_until_it_is_done(
    client, telegram, storage
):
    session(initial=Counter, storage=storage).setup(client)

    @client.on(texts("/name"))
    async def ask(event: Any, session: Counter) -> None:
        async with client.conversation(event.chat_id) as conversation:
            await conversation.send_message("Who are you?")
            answer = await conversation.get_response()
            session.seen.append(f"is {answer.raw_text}")
            await conversation.send_message("Hello")

    @client.on(events.NewMessage)
    async def note(event: Any, session: Counter) -> None:
        session.seen.append(event.raw_text)
        await event.respond("noted")

    async with client:
        telegram.write(ADA, "/name")
        assert await telegram.answers(1) == ["Who are you?"]
        telegram.write(ADA, "Ada")
        assert await telegram.answers(3) == ["Hello", "noted", "noted"]
    seen = (await stored(storage, ADA.id))["seen"]
    assert seen[0] == "is Ada"
    assert sorted(seen[1:]) == ["/name", "Ada"]


# --- events


async def test_an_album_is_one_event_with_a_session(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.Album)
    async def album(event: Any, session: Counter) -> None:
        session.count += len(event)
        session.seen.append(event.text)
        await event.respond("an album")

    @client.on(events.NewMessage)
    async def single(event: Any, session: Counter) -> None:
        session.seen.append(event.raw_text)

    async with client:
        telegram.write(ADA, "a", "b", "c", chat=GROUP, grouped_id=5)
        assert await telegram.answers(1) == ["an album"]
    assert await stored(storage, GROUP.id) == {"count": 3, "seen": ["a", "b", "c", "a"]}


async def test_an_album_whose_parts_are_still_awaited_is_handled_before_the_client_disconnects(
    client, telegram, sqlite_url
):
    session(initial=Counter, storage=sqlite_url).setup(client)

    @client.on(events.Album)
    async def album(event: Any, session: Counter) -> None:
        session.count += len(event)
        await event.respond("an album")  # it is still connected
        await asyncio.sleep(0.02)
        session.seen.append(event.text)

    async with client:
        telegram.write(ADA, "a", "b", chat=GROUP, grouped_id=5)
        await until(lambda: client._albums)
        await client.disconnect()
    assert telegram.sent == ["an album"]
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert await sessions.get(str(GROUP.id)) == Counter(2, ["a"])


async def test_presses_of_buttons_and_raw_updates_share_the_session_of_their_chat(
    client, telegram, storage
):
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.CallbackQuery)
    async def press(event: Any, session: Counter) -> None:
        session.seen.append(event.data.decode())
        await event.answer("pressed")

    @client.on(events.Raw(types.UpdateBotStopped))
    async def stopped(update: Any, session: Counter) -> None:
        session.seen.append("stopped")

    async with client:
        query = types.UpdateBotCallbackQuery(1, ADA.id, types.PeerUser(ADA.id), 1, 1, b"yes")
        telegram.push([query, types.UpdateBotStopped(ADA.id, DATE, True, telegram.next_pts("qts"))])
        assert await telegram.answers(1) == ["pressed"]
        await until(lambda: len(storage.writes) == 2)
    assert (await stored(storage, ADA.id))["seen"] == ["yes", "stopped"]


async def test_an_update_without_a_key_says_so_where_the_session_is_used(
    client, telegram, storage, caplog
):
    session(initial=Counter, storage=storage).setup(client)

    @client.on(events.MessageDeleted)
    async def deleted(event: Any, session: Counter) -> None:
        await client.send_message(ADA.id, "deleted")
        session.count += 1

    with caplog.at_level(logging.ERROR, "telethon"):
        async with client:
            telegram.write(ADA, "x")  # tells the client who Ada is
            pts = telegram.next_pts(None)
            telegram.push([types.UpdateDeleteMessages([1], pts, 1)])
            await telegram.answers(1)
    assert NoSessionKey.__name__ in caplog.text
    assert "per_chat returned None, as a Event without chat_id and user_id" in caplog.text
    assert storage.calls == 0


async def test_a_group_is_followed_as_soon_as_its_sessions_can_be_moved(
    client, telegram, storage, caplog
):
    counters = session(initial=Counter, storage=storage, lock_timeout=0.05)
    counters.setup(client)
    run = []

    @client.on(events.Raw(types.UpdateNewChannelMessage))
    async def raw(update: Any, session: Counter) -> None:
        run.append("asks for a session, which would be a new one")

    @client.on(events.Raw(types.UpdateNewChannelMessage))
    async def other(update: Any) -> None:
        run.append("asks for none")

    to = types.MessageActionChatMigrateTo(peer(ADA, SUPERGROUP).channel_id)
    old = types.MessageActionChannelMigrateFrom("Group", peer(ADA, GROUP).chat_id)
    with caplog.at_level(logging.ERROR, "telethon"):
        async with client:
            async with counters.sessions.open(str(GROUP.id)) as held:
                held.data.count += 7
                telegram.push([telegram.service(ADA, old, SUPERGROUP)], ADA, SUPERGROUP)
                await until(lambda: run)
            telegram.push([telegram.service(ADA, to, GROUP)], ADA, GROUP)
            await until(lambda: stored(storage, SUPERGROUP.id))
    assert run == ["asks for none"]
    assert "Unhandled exception on _follow_upgrade" in caplog.text
    assert "Unhandled exception on raw" in caplog.text
    assert await stored(storage, SUPERGROUP.id) == {"count": 7, "seen": []}
    assert await stored(storage, GROUP.id) is None


# --- starting and stopping


async def test_running_until_disconnected_ends_when_handlers_have_saved(
    client, telegram, sqlite_url
):
    counters = session(initial=Counter, storage=sqlite_url)
    counters.setup(client)
    begun = asyncio.Event()

    @client.on(events.NewMessage)
    async def count(event: Any, session: Counter) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        session.count += 1
        await event.respond("done")  # it is still connected

    await client.start()
    running = asyncio.create_task(client.run_until_disconnected())
    telegram.write(ADA, "x", "y")
    await begun.wait()
    await client.disconnect()
    await running
    assert await telegram.answers(2) == ["done", "done"]
    with pytest.raises(StorageUnavailable, match="it was closed"):
        await counters.sessions.get(str(ADA.id))
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert (await sessions.get(str(ADA.id))).count == 2


async def test_whoever_disconnects_second_waits_for_the_first(client, telegram, sqlite_url):
    counters = session(initial=Counter, storage=sqlite_url)
    counters.setup(client)
    await client.start()
    await counters.sessions.get("42")  # opens the file
    first = asyncio.ensure_future(client.disconnect())
    await client.disconnected
    await client.disconnect()
    await asyncio.sleep(0)
    assert first.done()


async def test_a_client_that_takes_updates_one_by_one_finishes_the_one_it_handles(sqlite_url):
    client = new_client(sequential_updates=True)
    telegram = Telegram(client)
    session(initial=Counter, storage=sqlite_url).setup(client)
    begun = asyncio.Event()

    @client.on(events.NewMessage)
    async def count(event: Any, session: Counter) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        session.seen.append(event.raw_text)

    async with client:
        telegram.write(ADA, "handled", "not yet")
        await begun.wait()
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert (await sessions.get(str(ADA.id))).seen == ["handled"]


async def test_a_client_that_is_disconnecting_takes_no_more_updates(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)
    begun = []

    @client.on(events.NewMessage)
    async def note(event: Any, session: Counter) -> None:
        begun.append(event.raw_text)
        await asyncio.sleep(0.05)
        session.seen.append(event.raw_text)

    async with client:
        telegram.write(ADA, "in time")
        await until(lambda: begun)
        disconnecting = asyncio.ensure_future(client.disconnect())
        await asyncio.sleep(0.01)
        telegram.write(BOB, "late")
        await disconnecting
    assert begun == ["in time"]
    assert (await stored(storage, ADA.id))["seen"] == ["in time"]


@pytest.mark.parametrize("sequential", [False, True])
async def test_a_handler_that_disconnects_ends_there_while_others_finish(sequential, sqlite_url):
    client = new_client(sequential_updates=sequential)
    telegram = Telegram(client)
    counters = session(initial=Counter, storage=sqlite_url)
    counters.setup(client)
    begun = asyncio.Event()

    @client.on(texts("stop"))
    async def stop(event: Any, session: Counter, session_handle: Session[Counter]) -> None:
        session.seen.append("saved")
        await session_handle.save()
        session.seen.append("not saved")
        begun.set()
        await client.disconnect()
        raise AssertionError  # Telethon cancels it there

    async def job() -> None:
        async with counters.sessions.open("job") as opened:
            await begun.wait()
            await asyncio.sleep(0.05)
            opened.data.count += 1

    async with client:
        working = asyncio.create_task(job())
        telegram.write(ADA, "stop")
        await asyncio.wait_for(client.disconnected, 5)
        await working
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert await sessions.get(str(ADA.id)) == Counter(0, ["saved"])
        assert await sessions.get("job") == Counter(1)


async def test_two_handlers_that_disconnect_at_once_wait_for_nothing(client, telegram, storage):
    session(initial=Counter, storage=storage).setup(client)
    begun = []

    @client.on(events.NewMessage)
    async def stop(event: Any, session: Counter) -> None:
        begun.append(event.chat_id)
        await until(lambda: len(begun) == 2)
        await client.disconnect()

    async with client:
        telegram.write(ADA, "stop")
        telegram.write(BOB, "stop")
        await asyncio.wait_for(client.disconnected, 5)
    assert storage.writes == []


async def test_a_handler_may_have_the_client_disconnected_and_finish(client, telegram, sqlite_url):
    session(initial=Counter, storage=sqlite_url).setup(client)
    tasks = []

    @client.on(events.NewMessage)
    async def stop(event: Any, session: Counter) -> None:
        tasks.append(asyncio.create_task(disconnect()))
        await asyncio.sleep(0.05)
        session.count += 1

    async def disconnect() -> None:
        await client.disconnect()

    async with client:
        telegram.write(ADA, "x")
        await asyncio.wait_for(client.disconnected, 5)
        await tasks[0]
    async with Sessions(initial=Counter, storage=sqlite_url) as sessions:
        assert (await sessions.get(str(ADA.id))).count == 1


async def test_a_job_beside_a_client_that_is_started_again_finds_its_sessions_open(
    client, telegram, sqlite_url
):
    counters = session(initial=Counter, storage=sqlite_url)
    counters.setup(client)
    for number in (1, 2):
        async with client:
            async with counters.sessions.open("42") as opened:
                opened.data.count += 1
            assert (await counters.sessions.get("42")).count == number
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await counters.sessions.get("42")


async def test_two_clients_in_one_process_share_a_ready_sessions_or_have_their_own(storage):
    def key(origin: Origin) -> str:
        return f"{origin.bot_id}/{origin.chat_id}"

    sessions = Sessions(initial=Counter, storage=storage, get_session_key=key)
    clients = {bot_id: new_client() for bot_id in (1, 2)}
    telegrams = {bot_id: Telegram(client, bot_id) for bot_id, client in clients.items()}
    for bot_id, client in clients.items():
        session(sessions).setup(client)
        own = session(initial=Counter, storage=storage, key="own", prefix=f"{bot_id}:")
        own.setup(client)

        @client.on(events.NewMessage)
        async def count(event: Any, session: Counter, own: Counter) -> None:
            session.count += 1
            own.count += 1
            await event.respond("done")

    async with clients[2]:
        async with clients[1]:
            for telegram in telegrams.values():
                telegram.write(ADA, "x")
                await telegram.answers(1)
        telegrams[2].write(ADA, "y")
        await telegrams[2].answers(1)
    for key, count in {f"1/{ADA.id}": 1, f"2/{ADA.id}": 2, f"1:{ADA.id}": 1}.items():
        assert (await stored(storage, key))["count"] == count


PROGRAM = """
import asyncio, sys
from functools import partial
from integrations.drivers.events import ADA
from integrations.drivers.telethon import Telegram
from telethon import events
from telethon.sessions import MemorySession
from telethon.sync import TelegramClient
from gramkeep.integrations.telethon import session

client = TelegramClient(MemorySession(), 1, "hash")
telegram = Telegram(client)
session(initial=dict, storage=sys.argv[1]).setup(client)

@client.on(events.NewMessage)
async def count(event, session):
    # Said when the handler sleeps, so that it isn't what is interrupted.
    asyncio.get_running_loop().call_later(0.05, partial(print, "begun", flush=True))
    await asyncio.sleep(0.5)
    session["count"] = session.get("count", 0) + 1

client.connect()
client.disconnect()
with client:
    telegram.write(ADA, "x")
    client.run_until_disconnected()
"""


async def test_a_program_without_an_event_loop_of_its_own_saves_when_it_is_interrupted(sqlite_url):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, sqlite_url),
        env={"PYTHONPATH": ":".join([str(TESTS), *sys.path])},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 100) == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    async with Sessions(initial=dict, storage=sqlite_url) as sessions:
        assert await sessions.get(str(ADA.id)) == {"count": 1}


# --- origins

USER, HERE = types.PeerUser(ADA.id), peer(ADA, SUPERGROUP)
TOPIC = {"peer_id": peer(ADA, FORUM), "from_id": USER}
NEW = {"positions": [0]} if "positions" in signature(types.UpdateMessagePollVote).parameters else {}


def said(**fields: Any) -> Any:
    fields = {"peer_id": USER, "message": "x"} | fields
    return types.UpdateNewMessage(types.Message(id=9, date=DATE, **fields), 1, 1)


def done(action: Any, **fields: Any) -> Any:
    fields = {"peer_id": peer(ADA, GROUP), "from_id": USER} | fields
    message = types.MessageService(id=9, date=DATE, action=action, **fields)
    return types.UpdateNewMessage(message, 1, 1)


def business(**fields: Any) -> Any:
    return types.UpdateBotNewBusinessMessage("b", said(**fields).message, 1)


def reply(**fields: Any) -> Any:
    return types.MessageReplyHeader(**fields)


@pytest.mark.parametrize(
    ("kind", "update", "chat", "user", "others"),
    [
        (events.NewMessage, said(), ADA, ADA, {}),
        (events.NewMessage, said(out=True), ADA, 42, {}),
        (events.NewMessage, said(peer_id=HERE, from_id=USER), SUPERGROUP, ADA, {}),
        (events.NewMessage, said(peer_id=HERE, from_id=HERE), SUPERGROUP, None, {}),
        (events.NewMessage, said(peer_id=peer(ADA, CHANNEL), post=True), CHANNEL, None, {}),
        (
            events.NewMessage,
            types.UpdateShortMessage(1, ADA.id, "x", 1, 1, DATE),
            ADA,
            ADA,
            {},
        ),
        (
            events.NewMessage,
            types.UpdateShortMessage(1, ADA.id, "x", 1, 1, DATE, out=True),
            ADA,
            42,
            {},
        ),
        (
            events.NewMessage,
            types.UpdateShortChatMessage(1, ADA.id, -GROUP.id, "x", 1, 1, DATE),
            GROUP,
            ADA,
            {},
        ),
        (
            events.NewMessage,
            said(**TOPIC, reply_to=reply(forum_topic=True, reply_to_msg_id=5)),
            FORUM,
            ADA,
            {"thread_id": 5},
        ),
        (
            events.NewMessage,
            said(**TOPIC, reply_to=reply(forum_topic=True, reply_to_msg_id=7, reply_to_top_id=5)),
            FORUM,
            ADA,
            {"thread_id": 5},
        ),
        (
            events.NewMessage,
            said(**TOPIC, reply_to=reply(reply_to_msg_id=7, reply_to_top_id=5)),
            FORUM,
            ADA,
            {},
        ),
        (
            events.NewMessage,
            said(peer_id=HERE, from_id=USER, saved_peer_id=USER),
            SUPERGROUP,
            ADA,
            {"thread_id": ADA.id},
        ),
        (
            events.MessageEdited,
            types.UpdateEditMessage(said().message, 1, 1),
            ADA,
            ADA,
            {},
        ),
        (
            events.MessageDeleted,
            types.UpdateDeleteChannelMessages(HERE.channel_id, [1], 1, 1),
            SUPERGROUP,
            None,
            {},
        ),
        (events.MessageDeleted, types.UpdateDeleteMessages([1], 1, 1), None, None, {}),
        (events.MessageRead, types.UpdateReadHistoryOutbox(USER, 1, 1, 1), ADA, None, {}),
        (
            events.MessageRead,
            types.UpdateReadChannelOutbox(HERE.channel_id, 1),
            SUPERGROUP,
            None,
            {},
        ),
        (
            events.ChatAction,
            done(types.MessageActionChatAddUser([BOB.id])),
            GROUP,
            ADA,  # who adds, not who is added
            {},
        ),
        (
            events.ChatAction,
            types.UpdateChatParticipantAdd(-GROUP.id, BOB.id, ADA.id, DATE, 1),
            GROUP,
            ADA,
            {},
        ),
        (
            events.ChatAction,
            types.UpdateChannelParticipant(
                HERE.channel_id,
                DATE,
                ADA.id,
                BOB.id,
                1,
                new_participant=types.ChannelParticipant(BOB.id, DATE),
            ),
            SUPERGROUP,
            ADA,
            {},
        ),
        (  # by an admin who is anonymous
            events.Raw,
            types.UpdateChannelParticipant(HERE.channel_id, DATE, 1087968824, BOB.id, 1),
            SUPERGROUP,
            None,
            {},
        ),
        (
            events.Raw,
            done(types.MessageActionTopicCreate("News", 1), peer_id=peer(ADA, FORUM)),
            FORUM,
            ADA,
            {"thread_id": 9},
        ),
        (
            events.UserUpdate,
            types.UpdateUserTyping(ADA.id, types.SendMessageTypingAction()),
            ADA,
            ADA,
            {},
        ),
        (
            events.UserUpdate,
            types.UpdateChannelUserTyping(HERE.channel_id, USER, types.SendMessageTypingAction()),
            SUPERGROUP,
            ADA,
            {},
        ),
        (
            events.UserUpdate,
            types.UpdateUserStatus(ADA.id, types.UserStatusOffline(DATE)),
            None,  # nobody is online in a chat
            ADA,
            {},
        ),
        (
            events.CallbackQuery,
            types.UpdateBotCallbackQuery(1, ADA.id, HERE, 1, 1, b"x"),
            SUPERGROUP,
            ADA,
            {},
        ),
        (
            events.CallbackQuery,
            types.UpdateInlineBotCallbackQuery(
                1, ADA.id, types.InputBotInlineMessageID(2, 3, 4), 1, b"x"
            ),
            None,  # Telethon guesses one
            ADA,
            {},
        ),
        (events.InlineQuery, types.UpdateBotInlineQuery(1, ADA.id, "x", ""), None, ADA, {}),
        (events.Album, said(grouped_id=1), ADA, ADA, {}),
        (events.Raw, business(), ADA, ADA, {"business_connection_id": "b"}),
        (events.Raw, business(out=True), ADA, None, {"business_connection_id": "b"}),
        (
            events.Raw,
            types.UpdateBotDeleteBusinessMessage("b", USER, [1], 1),
            ADA,
            None,
            {"business_connection_id": "b"},
        ),
        (
            events.Raw,
            types.UpdateBotBusinessConnect(types.BotBusinessConnection("b", ADA.id, 1, DATE), 1),
            None,
            ADA,
            {"business_connection_id": "b"},
        ),
        (
            events.Raw,
            types.UpdateBotMessageReaction(HERE, 1, DATE, USER, [], [], 1),
            SUPERGROUP,
            ADA,
            {},
        ),
        (
            events.Raw,
            types.UpdateBotMessageReaction(HERE, 1, DATE, HERE, [], [], 1),
            SUPERGROUP,
            None,
            {},
        ),
        (events.Raw, types.UpdateMessagePollVote(1, USER, [b"0"], qts=1, **NEW), None, ADA, {}),
        (events.Raw, types.UpdateEncryptedChatTyping(7), None, None, {}),
        (events.Raw, types.UpdateBotStopped(ADA.id, DATE, True, 1), ADA, ADA, {}),
        (events.Raw, types.UpdateDialogPinned(types.DialogPeer(USER)), None, None, {}),
    ],
)
def test_updates_of_every_type_have_an_origin(client, kind, update, chat, user, others):
    client._mb_entity_cache.set_self_user(42, True, 1)
    update._entities = {place.id: chat_entity(place) for place in (GROUP, SUPERGROUP, FORUM)}
    event = kind.build(update, self_id=42)
    if kind is not events.Raw:
        event.original_update = update
        for message in [event] if isinstance(event, Message) else ():
            message._finish_init(client, {}, None)
    types_of_chats = {Person: "private", Chat: getattr(chat, "type", None), type(None): None}
    expected = Origin(
        bot_id=42,
        chat_id=None if chat is None else chat.id,
        chat_type=types_of_chats[type(chat)],
        user_id=user.id if isinstance(user, Person) else user,
        event=event,
        **others,
    )
    assert origin_of(event, client) == expected


def test_of_a_channel_that_isnt_known_the_kind_isnt_made_up(client):
    update = types.UpdateDeleteChannelMessages(HERE.channel_id, [1], 1, 1)
    assert origin_of(update, client).chat_type is None


@pytest.mark.parametrize("wrong", [TelegramClient, object(), "x"], ids=["class", "object", "text"])
def test_setting_up_on_anything_else_is_refused(wrong, storage):
    with pytest.raises(ConfigurationError, match="are set up on a TelegramClient"):
        session(initial=Counter, storage=storage).setup(wrong)
