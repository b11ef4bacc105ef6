"""What is done to stored sessions outside of updates."""

import asyncio
import tracemalloc
from dataclasses import dataclass

import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    Origin,
    SessionOptions,
    Sessions,
    per_chat,
    per_topic,
    per_user,
    per_user_in_chat,
    session,
)
from gramkeep.storage import ANY, Put
from gramkeep.storages.sqlite import SQLiteStorage

OLD, NEW = -42, -1000000000042


@dataclass
class Counter:
    count: int = 0


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request, tmp_path):
    made = (
        MemorySessionStorage() if request.param == "memory" else SQLiteStorage(tmp_path / "bot.db")
    )
    yield made
    await made.aclose()


async def fill(sessions, **counts):
    for key, count in counts.items():
        await sessions.update(key, lambda _, count=count: Counter(count))


async def contents(sessions):
    return {key: data.count async for key, data in sessions.items()}


async def test_items_keys_and_count_see_only_what_is_under_the_prefix(storage):
    ours = Sessions(initial=Counter, storage=storage, prefix="ours:")
    await fill(ours, a=1, ab=2, b=3)
    await fill(Sessions(initial=Counter, storage=storage), other=9)
    assert await contents(ours) == {"a": 1, "ab": 2, "b": 3}
    assert {key async for key in ours.keys("a")} == {"a", "ab"}
    assert [await ours.count(), await ours.count("a"), await ours.count("x")] == [3, 2, 0]


async def test_all_items_of_many_are_seen_once(storage):
    puts = [Put(f"{n:05}", b'{"count":%d}' % n, ANY) for n in range(1234)]
    await storage.put(puts)
    sessions = Sessions(initial=Counter, storage=storage)
    seen = [(key, data.count) async for key, data in sessions.items()]
    assert sorted(seen) == [(f"{n:05}", n) for n in range(1234)]


async def test_streaming_many_sessions_keeps_memory_flat(tmp_path):
    storage = SQLiteStorage(tmp_path / "bot.db", synchronous="NORMAL")
    value = b'{"count":%d,"pad":"' + b"x" * 2000 + b'"}'
    for start in range(0, 20_000, 1000):
        puts = [Put(f"{n:07}", value % n, ANY) for n in range(start, start + 1000)]
        await storage.put(puts)
    sessions = Sessions(initial=dict, storage=storage)
    tracemalloc.start()
    total = 0
    async for _, data in sessions.items():
        total += data["count"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == sum(range(20_000))
    assert peak < 4_000_000  # of 40 MB that are stored
    await storage.aclose()


async def test_prune_removes_what_expired_in_small_steps(storage):
    await storage.put([Put(f"{n}", b"1", ANY, 0.05) for n in range(350)])
    await storage.put([Put("stays", b"1", ANY), Put("lives", b"1", ANY, 100)])
    await asyncio.sleep(0.08)
    sessions = Sessions(storage=storage)
    assert await sessions.prune() == 350
    assert await sessions.prune() == 0
    assert {key async for key in storage.scan()} == {"stays", "lives"}


async def test_move_gives_a_session_another_key(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    await fill(sessions, a=1)
    assert await sessions.move("a", "b")
    assert await contents(sessions) == {"b": 1}
    assert not await sessions.move("a", "b")
    assert not await sessions.move("b", "b")
    assert await contents(sessions) == {"b": 1}


async def test_move_onto_data_keeps_both_and_says_so(storage, caplog):
    sessions = Sessions(initial=Counter, storage=storage)
    await fill(sessions, a=1, b=2)
    assert not await sessions.move("a", "b")
    assert await contents(sessions) == {"a": 1, "b": 2}
    assert "session 'a'" in caplog.text
    assert "was not moved to 'b'" in caplog.text


async def test_move_onto_data_merges_where_a_function_says_how(storage):
    sessions = Sessions(
        initial=Counter,
        storage=storage,
        merge=lambda old, new: Counter(old.count + new.count),
    )
    await fill(sessions, a=1, b=2)
    assert await sessions.move("a", "b")
    assert await contents(sessions) == {"b": 3}


async def test_move_onto_data_merges_by_an_async_function(storage):
    async def merge(old, new):
        await asyncio.sleep(0)
        return Counter(old.count + new.count)

    sessions = Sessions(initial=Counter, storage=storage, merge=merge)
    await fill(sessions, a=1, b=2)
    assert await sessions.move("a", "b")
    assert await contents(sessions) == {"b": 3}


async def test_a_merge_that_returns_nothing_is_refused_and_both_are_kept(storage):
    sessions = Sessions(initial=Counter, storage=storage, merge=lambda old, new: None)
    await fill(sessions, a=1, b=2)
    with pytest.raises(ConfigurationError, match="returned None for 'a' and 'b'; it must return"):
        await sessions.move("a", "b")
    assert await contents(sessions) == {"a": 1, "b": 2}


async def test_move_asks_for_no_initial_value_and_moves_what_equals_one(storage):
    def initial(origin) -> Counter:
        return Counter(origin.event.count)  # there is no event when a session moves

    sessions = Sessions(initial=initial, storage=storage)
    event = Origin(event=Counter(0))
    async with sessions.open("a", origin=event) as opened:
        opened.data.count = 5
    async with sessions.open("a", origin=event) as opened:
        opened.data.count = 0
    assert await sessions.move("a", "b")
    assert await contents(sessions) == {"b": 0}


async def test_migrating_all_asks_for_no_initial_value(storage):
    def initial(origin) -> Counter:
        return Counter(origin.event.count)

    await storage.put([Put("a", b'{"__d":{"count":1},"e":1}', ANY)])
    sessions = Sessions(initial=initial, storage=storage)
    report = await sessions.migrate_all()
    assert (report.migrated, report.failed) == (0, {})


async def test_move_waits_for_the_updates_that_hold_either_session(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    await fill(sessions, a=1)

    async def count(key):
        async with sessions.open(key) as opened:
            before = opened.data.count
            await asyncio.sleep(0.02)
            opened.data.count = before + 1

    updates = [asyncio.create_task(count("a")), asyncio.create_task(count("c"))]
    await asyncio.sleep(0)
    moves = [sessions.move("a", "b"), sessions.move("c", "d")]
    await asyncio.gather(*updates, *moves)
    assert await contents(sessions) == {"b": 2, "d": 1}


async def test_moves_in_both_directions_at_once_do_not_wait_for_each_other_for_ever(storage):
    sessions = Sessions(initial=Counter, storage=storage, lock_timeout=5)
    await fill(sessions, a=1)
    await asyncio.gather(*(sessions.move(*pair) for pair in [("a", "b"), ("b", "a")] * 10))
    assert sum((await contents(sessions)).values()) == 1


def origin(chat_id=OLD, user_id=7, thread_id=None):
    return Origin(bot_id=1, chat_id=chat_id, user_id=user_id, thread_id=thread_id)


async def upper_async(o):
    return f"bot{o.bot_id}/{o.chat_id}/{o.user_id}"


KEYS = [
    (per_chat, {"-42": "-1000000000042"}, {"7", "-421", "421"}),
    (
        per_user_in_chat,
        {"-42:7": "-1000000000042:7", "-42:8": "-1000000000042:8"},
        {"-421:7", "-43:42", "42:42"},
    ),
    (per_topic, {"-42": "-1000000000042", "-42:5": "-1000000000042:5"}, {"-421:5"}),
    (
        lambda o: f"{o.user_id}:{o.chat_id}",
        {"7:-42": "7:-1000000000042", "8:-42": "8:-1000000000042"},
        {"7:-421", "-43:8"},
    ),
    (
        upper_async,
        {"bot1/-42/7": "bot1/-1000000000042/7", "bot1/-42/9": "bot1/-1000000000042/9"},
        {"bot2/-42/7", "bot1/-421/7"},
    ),
    (per_user, {}, {"7", "-42"}),
    (
        lambda o: f"group:{o.chat_id}" if o.chat_id < 0 else f"chat:{o.chat_id}",
        {"group:-42": "group:-1000000000042"},
        {"group:-421", "chat:42"},
    ),
    (lambda o: str(abs(o.chat_id)), {"42": "1000000000042"}, {"421"}),
]


@pytest.mark.parametrize(("function", "moved", "stay"), KEYS)
async def test_a_chats_sessions_move_under_every_key_that_contains_the_chat(
    storage, function, moved, stay
):
    sessions = Sessions(initial=Counter, storage=storage, get_session_key=function, prefix="p:")
    await fill(sessions, **{key: n + 1 for n, key in enumerate([*moved, *stay])})
    before = await contents(sessions)
    assert await sessions.move_chat(origin(), OLD, NEW) == len(moved)
    assert await contents(sessions) == {moved.get(key, key): n for key, n in before.items()}


async def test_both_service_messages_at_once_and_again_move_once(storage):
    sessions = Sessions(initial=Counter, storage=storage)
    await fill(sessions, **{"-42": 5})
    counts = await asyncio.gather(
        *(sessions.move_chat(origin(chat), OLD, NEW) for chat in (OLD, NEW, OLD, NEW))
    )
    assert sum(counts) == 1
    assert await contents(sessions) == {str(NEW): 5}


async def test_a_key_function_that_knows_its_chats_by_heart_moves_the_one_it_knows(storage):
    names = {OLD: "friends-old", NEW: "friends-new"}
    sessions = Sessions(
        initial=Counter, storage=storage, get_session_key=lambda o: names[o.chat_id]
    )
    await fill(sessions, **{"friends-old": 3})
    assert await sessions.move_chat(origin(), OLD, NEW) == 1
    assert await contents(sessions) == {"friends-new": 3}


async def test_all_parts_of_a_multi_session_move(storage):
    installed = session(
        type="multi",
        chat=SessionOptions(initial=Counter, storage=storage),
        member=SessionOptions(initial=Counter, storage=storage, get_session_key=per_user_in_chat),
        user=SessionOptions(initial=Counter, storage=storage, get_session_key=per_user),
    )
    parts = installed.sessions.parts
    await fill(parts["chat"], **{"-42": 1})
    await fill(parts["member"], **{"-42:7": 2, "-42:8": 3})
    await fill(parts["user"], **{"7": 4})
    assert await installed.sessions.move_chat(origin(), OLD, NEW) == 3
    assert {key async for key in storage.scan()} == {
        f"chat:{NEW}", f"member:{NEW}:7", f"member:{NEW}:8", "user:7"
    }  # fmt: skip
