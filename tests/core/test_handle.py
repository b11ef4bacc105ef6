"""Session: what a handler can do with its session, and when it no longer can."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypedDict

import msgspec
import pytest

from gramkeep import (
    SessionBusy,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionNotLoaded,
    Sessions,
    SessionTooLarge,
    StorageUnavailable,
)


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)


@dataclass
class Counter:
    count: int = 0


class Movie(TypedDict, total=False):
    title: str
    year: int


class Oops(Exception):
    pass


@pytest.fixture
def sessions(storage):
    return Sessions(initial=Counter, storage=storage, lock_timeout=20)


@pytest.fixture
def lazy(storage):
    return Sessions(initial=Counter, storage=storage, lock_timeout=20, lazy=True)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def elsewhere(sessions, key, count):
    """Change a session as another process would: past this process's queue."""
    others = Sessions(initial=Counter, storage=sessions.storage, isolation="optimistic")
    await others.update(key, lambda _: Counter(count))


# What is written, and what isn't.


async def test_a_change_is_stored_when_the_update_is_over(sessions, storage):
    async with sessions.open("a") as session:
        session.data.count = 5
        assert await storage.value("a") is None
    assert await storage.value("a") == b'{"count":5}'
    assert (len(storage.gets), len(storage.puts)) == (1, 1)


async def test_a_session_that_did_not_change_is_not_written(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        assert session.data == Counter(5)
    assert storage.puts == []


async def test_a_change_that_was_taken_back_is_not_written(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        session.data.count += 1
        session.data.count -= 1
    async with sessions.open("a") as session:
        session.data = Counter(5)
    assert storage.puts == []


async def test_a_new_session_that_did_not_change_is_not_stored(sessions, storage):
    async with sessions.open("a") as session:
        assert session.is_new
    async with sessions.open("a") as session:
        session.data = Counter(0)
    assert storage.puts == []
    assert await storage.value("a") is None


@pytest.mark.parametrize(
    "stored",
    [
        b'{ "count": 5 }',
        b'{\n  "count" : 5\n}\n',
        b'{"count":5,"of an older version":true}',
    ],
)
async def test_what_another_writer_spelled_otherwise_is_not_rewritten(sessions, storage, stored):
    await storage.place("a", stored)
    async with sessions.open("a") as session:
        assert session.data == Counter(5)
    assert storage.puts == []
    assert await storage.value("a") == stored


async def test_a_session_that_lacks_fields_is_not_written_for_that(storage):
    sessions = Sessions(initial=Cart, storage=storage)
    await storage.place("a", b'{"items":["x"]}')
    async with sessions.open("a") as session:
        assert session.data == Cart(["x"])
    assert storage.puts == []


async def test_sets_stored_in_another_order_are_no_change(storage):
    sessions = Sessions(initial=Cart, storage=storage)
    tags = [f"tag {i}" for i in range(40)]
    for order in (tags, tags[::-1], sorted(tags, key=hash)):
        await storage.place("a", json.dumps({"items": [], "tags": order}).encode())
        async with sessions.open("a") as session:
            session.data.tags.add("tag 1")  # which is there already
    assert storage.puts == []


async def test_a_large_set_inside_a_new_session_is_no_change(storage):
    def make() -> Cart:
        return Cart(tags={f"tag {i}" for i in range(1000)})

    sessions = Sessions(initial=make, storage=storage)
    async with sessions.open("a") as session:
        assert len(session.data.tags) == 1000
    assert storage.puts == []


async def test_a_replaced_value_is_stored(sessions, storage):
    async with sessions.open("a") as session:
        session.data = Counter(8)
        assert session.data == Counter(8)
    assert await storage.value("a") == b'{"count":8}'


async def test_none_deletes_the_session(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        session.data = None
        assert session.data is None
        assert await storage.value("a") is not None
    assert await storage.value("a") is None


async def test_none_for_a_session_that_is_not_stored_writes_nothing(sessions, storage):
    async with sessions.open("a") as session:
        session.data = None
    assert storage.puts == []


async def test_a_deleted_session_that_is_assigned_again_is_stored(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        session.data = None
        session.data = Counter(6)
    assert await storage.value("a") == b'{"count":6}'
    async with sessions.open("a") as session:
        session.data = None
        await session.save()
        assert await storage.value("a") is None
        session.data = Counter(7)
    assert await storage.value("a") == b'{"count":7}'


async def test_a_value_that_can_not_be_saved_is_refused_and_nothing_is_written(storage):
    sessions = Sessions(initial=dict, storage=storage)
    await storage.place("a", b'{"ok":1}')
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("a") as session:
            session.data["rows"] = [{"tags": {1, 2}}]
    assert caught.value.path == "$.rows[0].tags"
    assert (caught.value.key, caught.value.storage) == ("a", "memory://")
    assert await storage.value("a") == b'{"ok":1}'
    async with asyncio.timeout(5), sessions.open("a") as session:
        assert session.data == {"ok": 1}


async def test_a_session_larger_than_max_bytes_is_refused_and_nothing_is_written(storage):
    sessions = Sessions(initial=list[str], storage=storage, max_bytes=20)
    async with sessions.open("a") as session:
        session.data.append("x" * 16)  # ["xxxxxxxxxxxxxxxx"] is 20 bytes
    with pytest.raises(SessionTooLarge) as caught:
        async with sessions.open("a") as session:
            session.data[0] += "y"
    assert (caught.value.size, caught.value.limit) == (21, 20)
    assert len(await storage.value("a")) == 20
    async with asyncio.timeout(5), sessions.open("a") as session:
        assert session.data == ["x" * 16]


async def test_max_bytes_counts_bytes_not_characters(storage):
    sessions = Sessions(initial=list[str], storage=storage, max_bytes=20)
    with pytest.raises(SessionTooLarge):
        async with sessions.open("a") as session:
            session.data.append("é" * 10)


async def test_a_session_that_grew_too_large_elsewhere_can_still_be_read(storage):
    sessions = Sessions(initial=list[str], storage=storage, max_bytes=10)
    await storage.place("a", b'["much longer than that"]')
    async with sessions.open("a") as session:
        assert session.data == ["much longer than that"]
        session.data = ["ok"]
    assert await storage.value("a") == b'["ok"]'


# A write whose basis changed underneath.


async def test_another_writers_change_is_not_overwritten(sessions, storage):
    with pytest.raises(SessionConflict) as caught:
        async with sessions.open("a") as session:
            session.data.count = 1
            await elsewhere(sessions, "a", 50)
    assert (caught.value.key, caught.value.storage) == ("a", "memory://")
    assert await storage.value("a") == b'{"count":50}'


async def test_a_session_that_another_writer_deleted_is_not_brought_back(sessions, storage):
    await storage.place("a", b'{"count":5}')
    others = Sessions(initial=Counter, storage=storage, isolation="optimistic")
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            session.data.count = 6
            await others.delete("a")
    assert await storage.value("a") is None


async def test_another_writers_change_is_not_deleted(sessions, storage):
    await storage.place("a", b'{"count":5}')
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            await elsewhere(sessions, "a", 50)
            session.data = None
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            await elsewhere(sessions, "a", 60)
            await session.clear()
    assert await storage.value("a") == b'{"count":60}'


async def test_a_session_that_only_was_read_conflicts_with_nobody(sessions):
    async with sessions.open("a"):
        await elsewhere(sessions, "a", 50)
    assert await sessions.get("a") == Counter(50)


async def test_a_conflict_frees_the_session(sessions):
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            session.data.count = 1
            await elsewhere(sessions, "a", 50)
    async with asyncio.timeout(5), sessions.open("a") as session:
        session.data.count += 1
    assert await sessions.get("a") == Counter(51)


# Saving in the middle.


async def test_a_save_in_the_middle_survives_the_failure_after_it(sessions, storage):
    with pytest.raises(Oops):
        async with sessions.open("a") as session:
            session.data.count = 1
            await session.save()
            assert await storage.value("a") == b'{"count":1}'
            session.data.count = 2
            raise Oops
    assert await storage.value("a") == b'{"count":1}'


async def test_saving_several_times_stores_each_state_in_turn(sessions, storage):
    async with sessions.open("a") as session:
        for count in (1, 2, 3):
            session.data.count = count
            await session.save()
            assert await storage.value("a") == b'{"count":%d}' % count
        session.data.count = 4
    assert await storage.value("a") == b'{"count":4}'


async def test_saving_what_did_not_change_since_writes_nothing(sessions, storage):
    async with sessions.open("a") as session:
        session.data.count = 1
        await session.save()
        await session.save()
    assert len(storage.puts) == 1


async def test_going_back_to_the_first_state_after_a_save_is_a_change(sessions, storage):
    async with sessions.open("a") as session:
        session.data.count = 1
        await session.save()
        session.data.count = 0
    assert await storage.value("a") == b'{"count":0}'


async def test_another_writers_change_after_a_save_is_not_overwritten(sessions, storage):
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            session.data.count = 1
            await session.save()
            await elsewhere(sessions, "a", 50)
            session.data.count = 2
    assert await storage.value("a") == b'{"count":50}'


async def test_a_deletion_elsewhere_after_a_save_is_not_undone(sessions, storage):
    others = Sessions(initial=Counter, storage=storage, isolation="optimistic")
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            session.data.count = 1
            await session.save()
            await others.delete("a")
            session.data.count = 2
    assert await storage.value("a") is None


async def test_a_session_stays_held_after_a_save(sessions):
    async with sessions.open("a") as session:
        session.data.count = 1
        await session.save()
        waiting = asyncio.create_task(sessions.update("a", lambda c: Counter(c.count + 10)))
        await settle()
        assert not waiting.done()
        session.data.count = 2
    assert await waiting == Counter(12)


async def test_two_saves_at_once_in_one_update_do_not_conflict(sessions, storage):
    storage.before_put = lambda: asyncio.sleep(0.01)
    async with sessions.open("a") as session:
        session.data.count = 1
        await asyncio.gather(session.save(), session.save())
    assert await storage.value("a") == b'{"count":1}'


async def test_a_change_made_while_saving_is_saved_at_the_end(sessions, storage):
    storage.before_put = lambda: asyncio.sleep(0.01)
    async with sessions.open("a") as session:
        session.data.count = 1
        saving = asyncio.create_task(session.save())
        await settle()
        session.data.count = 2
        await saving
    assert await storage.value("a") == b'{"count":2}'


async def test_a_save_that_failed_can_be_repeated(sessions, storage):
    async def fail():
        raise StorageUnavailable(storage="memory://", reason="the disk is full")

    async with sessions.open("a") as session:
        session.data.count = 1
        storage.before_put = fail
        with pytest.raises(StorageUnavailable):
            await session.save()
        storage.before_put = None
    assert await storage.value("a") == b'{"count":1}'


# Clearing.


async def test_clear_deletes_now_and_starts_afresh(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        assert not session.is_new
        await session.clear()
        assert await storage.value("a") is None
        assert session.data == Counter(0)
        assert session.is_new
    assert await storage.value("a") is None


async def test_a_deletion_by_clear_survives_the_failure_after_it(sessions, storage):
    await storage.place("a", b'{"count":5}')
    with pytest.raises(Oops):
        async with sessions.open("a") as session:
            await session.clear()
            session.data.count = 1
            raise Oops
    assert await storage.value("a") is None


async def test_changes_after_clear_are_stored(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        await session.clear()
        session.data.count += 1
    assert await storage.value("a") == b'{"count":1}'


async def test_clear_after_save_deletes_what_was_saved(sessions, storage):
    async with sessions.open("a") as session:
        session.data.count = 1
        await session.save()
        await session.clear()
        assert await storage.value("a") is None
        session.data.count = 7
        await session.save()
        await session.clear()
    assert await storage.value("a") is None


async def test_clearing_twice_is_no_error(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        await session.clear()
        await session.clear()
    assert await storage.value("a") is None


async def test_clear_of_a_new_session_leaves_nothing(sessions, storage):
    async with sessions.open("a") as session:
        session.data.count = 5
        await session.clear()
        assert session.data == Counter(0)
    assert await storage.value("a") is None


async def test_clear_of_a_new_session_is_refused_where_another_writer_stored_one(sessions, storage):
    async with sessions.open("a") as session:
        await storage.place("a", b'{"count":5}')
        with pytest.raises(SessionConflict):
            await session.clear()
    assert await storage.value("a") == b'{"count":5}'


async def test_clear_drops_a_session_that_can_not_be_read(lazy, storage):
    await storage.place("a", b"not json")
    async with lazy.open("a") as session:
        with pytest.raises(SessionDecodeError):
            await session
        await session.clear()
        assert await storage.value("a") is None
        assert session.data == Counter(0)
        session.data.count = 3
    assert await storage.value("a") == b'{"count":3}'


async def test_clear_of_a_lazy_session_needs_no_loading(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        await session.clear()
        assert session.data == Counter(0)
    assert storage.gets == []
    assert await storage.value("a") is None


async def test_clear_of_a_session_without_initial_leaves_none(storage):
    sessions = Sessions(data_type=Counter, storage=storage)
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        await session.clear()
        assert session.data is None
        assert session.is_new
    assert await storage.value("a") is None


async def test_a_clear_whose_initial_fails_changes_nothing(storage):
    failing = False

    def make() -> Counter:
        if failing:
            raise Oops
        return Counter()

    sessions = Sessions(initial=make, storage=storage)
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        failing = True
        with pytest.raises(Oops):
            await session.clear()
        assert session.data == Counter(5)
    assert await storage.value("a") == b'{"count":5}'


# Reloading.


async def test_reload_forgets_what_was_not_saved(sessions, storage):
    await storage.place("a", b'{"count":5}')
    async with sessions.open("a") as session:
        session.data.count = 99
        await session.reload()
        assert session.data == Counter(5)
    assert storage.puts == []


async def test_reload_sees_what_others_wrote_and_can_build_on_it(sessions, storage):
    async with sessions.open("a") as session:
        await elsewhere(sessions, "a", 50)
        await session.reload()
        assert session.data == Counter(50)
        assert not session.is_new
        session.data.count += 1
    assert await storage.value("a") == b'{"count":51}'


async def test_reload_forgets_an_assignment(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        session.data = Counter(99)
        await session.reload()
        assert session.data == Counter(5)
    assert storage.puts == []


async def test_reload_of_what_another_writer_broke_raises_and_leaves_it(sessions, storage):
    with pytest.raises(SessionDecodeError):
        async with sessions.open("a") as session:
            await storage.place("a", b"broken")
            await session.reload()
    assert await storage.value("a") == b"broken"


# New or not.


async def test_is_new_says_whether_something_was_stored(sessions):
    async with sessions.open("a") as session:
        assert session.is_new
        session.data.count = 1
    async with sessions.open("a") as session:
        assert not session.is_new


async def test_is_new_tells_what_loading_found_also_after_a_save(sessions):
    async with sessions.open("a") as session:
        session.data.count = 1
        await session.save()
        assert session.is_new
        await session.reload()
        assert not session.is_new


@pytest.mark.parametrize("save_first", [False, True])
async def test_whether_a_session_is_new_is_unknown_where_it_was_assigned_unread(
    lazy, storage, save_first
):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        session.data = Counter(9)
        if save_first:
            await session.save()
        with pytest.raises(SessionNotLoaded, match=r"loaded, .* before assigning"):
            _ = session.is_new
        assert await session == Counter(9)
        await session.reload()
        assert not session.is_new


async def test_a_session_that_was_cleared_unread_is_new(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        await session.clear()
        assert session.is_new
        assert session.data == Counter(0)


# After the update.


@pytest.mark.parametrize("how", ["saved", "failed", "never loaded"])
async def test_every_use_after_the_update_is_over_raises(sessions, how):
    with suppress(Oops):
        async with sessions.open("a", lazy=how == "never loaded") as session:
            if how == "failed":
                raise Oops

    def assign():
        session.data = Counter(1)

    for use in (
        lambda: session.data,
        lambda: session.key,
        lambda: session.is_new,
        assign,
    ):
        with pytest.raises(SessionClosed) as caught:
            use()
        assert (caught.value.key, caught.value.storage) == ("a", "memory://")
    for use in (session.save, session.clear, session.reload, session._load_once):
        with pytest.raises(SessionClosed):
            await use()
    with pytest.raises(SessionClosed):
        await session
    assert "unavailable" in repr(session)
    assert await sessions.get("a") is None


async def test_a_repr_says_what_is_known_and_shows_no_data(lazy):
    async with lazy.open("a") as session:
        assert repr(session) == "<Session 'a' in memory://, unread>"
        await session
        session.data.count = 12345
        assert repr(session) == "<Session 'a' in memory://, loaded>"


async def test_a_handle_that_is_taken_for_its_data_says_what_it_is(lazy):
    async with lazy.open("a") as session:
        with pytest.raises(AttributeError, match="'Session' object has no attribute 'count'"):
            _ = session.count
        with pytest.raises(AttributeError, match="'Session' object has no attribute 'count'"):
            session.count = 1


# Lazy sessions.


async def test_a_lazy_session_that_nobody_asks_for_causes_no_io(lazy, storage):
    async with lazy.open("a") as session:
        assert session.key == "a"
    assert storage.gets == storage.puts == []
    assert len(lazy.kind.shared.queues) == 0


async def test_a_lazy_session_is_loaded_by_await_and_once(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        data = await session
        assert data == Counter(5)
        assert await session is data
        assert session.data is data
        data.count = 6
    assert storage.gets == ["a"]
    assert await storage.value("a") == b'{"count":6}'


async def test_a_lazy_session_awaited_by_many_at_once_is_read_once(lazy, storage):
    await storage.place("a", b'{"count":5}')
    storage.before_get = lambda: asyncio.sleep(0.01)
    async with lazy.open("a") as session:
        values = await asyncio.gather(*(session for _ in range(10)))
        assert all(value is values[0] for value in values)
    assert storage.gets == ["a"]


async def test_one_of_many_that_await_can_be_cancelled(lazy, storage):
    await storage.place("a", b'{"count":5}')
    go = asyncio.Event()
    storage.before_get = go.wait
    for victim in range(3):
        go.clear()
        async with lazy.open("a") as session:
            tasks = [asyncio.create_task(session._load_once()) for _ in range(3)]
            await settle()
            tasks[victim].cancel()
            await settle()
            go.set()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [i == victim for i in range(3)]
            assert session.data == Counter(5)
    assert len(lazy.kind.shared.queues) == 0


async def test_the_data_of_a_lazy_session_can_not_be_used_before_it_is_loaded(lazy):
    async with lazy.open("a") as session:
        with pytest.raises(SessionNotLoaded) as caught:
            _ = session.data
        assert (caught.value.key, caught.value.storage) == ("a", "memory://")
        with pytest.raises(SessionNotLoaded):
            _ = session.is_new


async def test_a_read_that_failed_can_be_repeated_in_the_same_update(lazy, storage):
    await storage.place("a", b'{"count":5}')

    async def fail():
        raise StorageUnavailable(storage="memory://", reason="not now")

    async with lazy.open("a") as session:
        storage.before_get = fail
        with pytest.raises(StorageUnavailable):
            await session
        storage.before_get = None
        assert await session == Counter(5)
        session.data.count = 6
    assert await storage.value("a") == b'{"count":6}'


async def test_a_failed_read_that_the_handler_coped_with_raises_nothing_later(lazy, storage):
    await storage.place("a", b"broken")
    async with lazy.open("a") as session:
        with pytest.raises(SessionDecodeError):
            await session
        with pytest.raises(SessionNotLoaded):
            _ = session.data
    assert await storage.value("a") == b"broken"
    assert storage.puts == []
    assert len(lazy.kind.shared.queues) == 0


async def test_when_many_await_and_the_read_fails_each_is_told(lazy, storage):
    async def fail():
        await asyncio.sleep(0)
        raise StorageUnavailable(storage="memory://", reason="not now")

    storage.before_get = fail
    async with lazy.open("a") as session:
        outcomes = await asyncio.gather(*(session for _ in range(4)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StorageUnavailable] * 4


async def test_assigning_to_a_lazy_session_overwrites_without_reading(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        session.data = Counter(9)
        assert session.data == Counter(9)
        assert await session == Counter(9)
    assert storage.gets == []
    assert await storage.value("a") == b'{"count":9}'


async def test_assigning_the_initial_value_to_a_lazy_session_overwrites_too(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as session:
        session.data = Counter(0)
    assert await lazy.get("a") == Counter(0)


async def test_assigning_none_to_a_lazy_session_deletes_without_reading(lazy, storage):
    await storage.place("a", b"broken, even")
    async with lazy.open("a") as session:
        session.data = None
    assert storage.gets == []
    assert await storage.value("a") is None


async def test_assigning_to_a_lazy_session_waits_for_the_update_that_holds_it(lazy, storage):
    async with lazy.open("a") as holder:
        await holder

        async def overwrite():
            async with lazy.open("a") as session:
                session.data = Counter(100)

        overwriting = asyncio.create_task(overwrite())
        await settle()
        assert not overwriting.done()
        holder.data.count = 1
    await overwriting
    assert await storage.value("a") == b'{"count":100}'


async def test_an_assignment_in_an_update_that_fails_is_dropped(lazy, storage):
    await storage.place("a", b'{"count":5}')
    with pytest.raises(Oops):
        async with lazy.open("a") as session:
            session.data = Counter(9)
            raise Oops
    assert await storage.value("a") == b'{"count":5}'


@pytest.mark.parametrize("stored", [b'{"count":5}', None])
async def test_what_is_assigned_while_loading_stays_assigned(storage, stored):
    async def make() -> Counter:
        await asyncio.sleep(0.02)
        return Counter()

    lazy = Sessions(initial=make, storage=storage, lazy=True)
    if stored is not None:
        await storage.place("a", stored)
        storage.before_get = lambda: asyncio.sleep(0.02)
    async with lazy.open("a") as session:
        loading = asyncio.create_task(session._load_once())
        await settle()
        session.data = Counter(9)
        await loading
        assert session.data == Counter(9)
    assert await storage.value("a") == b'{"count":9}'


async def test_loading_and_clearing_at_once_behind_another_update_are_both_done(lazy, storage):
    await storage.place("a", b'{"count":5}')
    async with lazy.open("a") as holder:
        await holder

        async def both():
            async with lazy.open("a") as session:
                await asyncio.gather(session, session.clear())

        task = asyncio.create_task(both())
        await settle()
    await asyncio.wait_for(task, 5)
    assert await storage.value("a") is None


async def test_a_load_that_waits_when_its_update_fails_is_told_that_it_is_over(lazy):
    async with lazy.open("a") as holder:
        await holder
        loading = None

        async def fails_early():
            nonlocal loading
            async with lazy.open("a") as session:
                loading = asyncio.create_task(session._load_once())
                await settle()
                raise Oops

        with pytest.raises(Oops):
            await asyncio.create_task(fails_early())
        with pytest.raises(SessionClosed):
            await asyncio.wait_for(loading, 5)
    assert len(lazy.kind.shared.queues) == 0


async def test_the_end_of_an_update_waits_for_a_load_that_its_handler_left_behind(lazy):
    loading = None

    async def leaves_early():
        nonlocal loading
        async with lazy.open("a") as session:
            loading = asyncio.create_task(session._load_once())
            await settle()

    async with lazy.open("a") as holder:
        await holder
        leaving = asyncio.create_task(leaves_early())
        await settle()
    await asyncio.wait_for(leaving, 5)
    await asyncio.wait([loading], timeout=5)
    assert loading.done()
    assert loading.exception() is None or isinstance(loading.exception(), SessionClosed)
    assert len(lazy.kind.shared.queues) == 0


async def test_a_save_that_queued_behind_the_end_of_its_update_is_refused(sessions, storage):
    storage.before_put = lambda: asyncio.sleep(0.03)
    data = first = second = None

    async def handler():
        nonlocal data, first
        async with sessions.open("a") as session:
            data = session.data
            data.count = 1
            first = asyncio.create_task(session.save())
            await settle()
            data.count = 2

            async def save_late():
                await settle()  # by now the update is at its end, and waits for the first save
                await session.save()

            nonlocal second
            second = asyncio.create_task(save_late())

    update = asyncio.create_task(handler())
    await settle()
    await first
    await settle()
    data.count = 99  # while the update's end writes the 2
    await update
    with pytest.raises(SessionClosed):
        await second
    assert await storage.value("a") == b'{"count":2}'


async def test_a_lazy_session_loaded_in_a_child_task_is_held_by_the_update(lazy):
    async with lazy.open("a") as session:
        await asyncio.create_task(session._load_once())
        session.data.count = 1
        other = asyncio.create_task(lazy.update("a", lambda c: Counter(c.count + 10)))
        await settle()
        assert not other.done()
    assert await other == Counter(11)


async def test_a_lazy_session_that_is_busy_can_be_tried_again(storage):
    lazy = Sessions(initial=Counter, storage=storage, lazy=True, lock_timeout=0.02)
    release = asyncio.Event()

    async def hold():
        async with lazy.open("a") as session:
            await session
            await release.wait()

    holder = asyncio.create_task(hold())
    await settle()
    async with lazy.open("a") as session:
        with pytest.raises(SessionBusy):
            await session
        release.set()
        await holder
        assert await session == Counter(0)
    assert len(lazy.kind.shared.queues) == 0


async def test_lazy_can_be_chosen_for_one_update(sessions, lazy, storage):
    async with sessions.open("a", lazy=True):
        pass
    assert storage.gets == []
    async with lazy.open("a", lazy=False) as session:
        assert session.data == Counter(0)


# Lifetimes.


async def expiry(storage, key="a"):
    record = storage._find(key)
    return None if record is None else record.expires_at


async def test_a_session_without_ttl_does_not_expire(sessions, storage):
    await sessions.update("a", lambda _: Counter(1))
    assert await expiry(storage) is None


async def test_a_ttl_counts_from_the_last_write(storage):
    sessions = Sessions(initial=Counter, storage=storage, ttl=1000)
    await sessions.update("a", lambda _: Counter(1))
    first = await expiry(storage)
    assert first == pytest.approx(time.time() + 1000, abs=60)
    await asyncio.sleep(0.01)
    async with sessions.open("a"):
        pass
    assert await expiry(storage) == first
    await sessions.update("a", lambda _: Counter(2))
    assert await expiry(storage) > first


async def test_a_ttl_counts_from_the_last_access_if_so_chosen(storage):
    sessions = Sessions(initial=Counter, storage=storage, ttl=1000, refresh_ttl="access")
    await sessions.update("a", lambda _: Counter(1))
    first = await expiry(storage)
    await asyncio.sleep(0.01)
    async with sessions.open("a"):
        pass
    assert await expiry(storage) > first
    assert await storage.value("a") == b'{"count":1}'


async def test_a_failed_update_and_one_that_does_not_load_are_no_access(storage):
    sessions = Sessions(initial=Counter, storage=storage, ttl=1000, refresh_ttl="access")
    await sessions.update("a", lambda _: Counter(1))
    written = len(storage.puts)
    async with sessions.open("a", lazy=True):
        pass
    with pytest.raises(Oops):
        async with sessions.open("a"):
            raise Oops
    assert len(storage.puts) == written


async def test_access_to_a_new_session_stores_nothing(storage):
    sessions = Sessions(initial=Counter, storage=storage, ttl=1000, refresh_ttl="access")
    async with sessions.open("a"):
        pass
    assert await storage.value("a") is None


async def test_an_expired_session_is_new_again(storage):
    sessions = Sessions(initial=Counter, storage=storage, ttl=0.02)
    await sessions.update("a", lambda _: Counter(1))
    await asyncio.sleep(0.03)
    assert await sessions.get("a") is None
    async with sessions.open("a") as session:
        assert session.is_new
        assert session.data == Counter(0)


@pytest.mark.parametrize("save_first", [False, True])
async def test_a_session_that_expires_while_its_handler_runs_is_saved(storage, save_first):
    sessions = Sessions(initial=Counter, storage=storage, ttl=0.05)
    await sessions.update("a", lambda _: Counter(1))
    async with sessions.open("a") as session:
        if save_first:
            session.data.count = 7
            await session.save()
        await asyncio.sleep(0.1)
        assert await storage.value("a") is None
        session.data.count += 1
        await session.save()
        assert json.loads(storage.puts[-1].value) == {"count": session.data.count}


@pytest.mark.parametrize("save_first", [False, True])
async def test_a_session_that_expires_while_its_handler_runs_can_be_deleted(storage, save_first):
    sessions = Sessions(initial=Counter, storage=storage, ttl=0.05)
    await sessions.update("a", lambda _: Counter(1))
    async with sessions.open("a") as session:
        if save_first:
            session.data.count = 7
            await session.save()
        await asyncio.sleep(0.1)
        session.data = None
    assert await storage.value("a") is None


async def test_what_another_writer_stored_after_an_expiry_is_not_overwritten(storage):
    sessions = Sessions(initial=Counter, storage=storage, ttl=0.05)
    await sessions.update("a", lambda _: Counter(1))
    with pytest.raises(SessionConflict):
        async with sessions.open("a") as session:
            await asyncio.sleep(0.1)
            await storage.place("a", b'{"count":50}')
            session.data.count += 1
    assert await storage.value("a") == b'{"count":50}'


# Every kind of change is noticed, also beside a set.


@dataclass
class Mixed:
    tags: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    items: list[int] = field(default_factory=list)
    groups: list[set[int]] = field(default_factory=list)
    by_name: dict[str, set[int]] = field(default_factory=dict)
    note: str | None = None
    size: float | None = None
    movie: Movie = field(default_factory=Movie)


CHANGES = {
    "a set's member added": lambda m: m.tags.add("new"),
    "a set's member removed": lambda m: m.tags.discard("a"),
    "a set emptied": lambda m: m.tags.clear(),
    "a dict's entry added": lambda m: m.counts.update(new=1),
    "a dict's entry changed": lambda m: m.counts.update(a=2),
    "a dict's entry removed": lambda m: m.counts.pop("a"),
    "a dict emptied": lambda m: m.counts.clear(),
    "a list's item added": lambda m: m.items.append(4),
    "a list's item removed": lambda m: m.items.pop(),
    "a list's items turned round": lambda m: m.items.reverse(),
    "a list emptied": lambda m: m.items.clear(),
    "a set in a list changed": lambda m: m.groups[0].add(9),
    "a set in a list removed": lambda m: m.groups.pop(),
    "sets in a list turned round": lambda m: m.groups.reverse(),
    "a set in a dict changed": lambda m: m.by_name["x"].add(9),
    "a set in a dict removed": lambda m: m.by_name.pop("x"),
    "a text changed": lambda m: setattr(m, "note", "other"),
    "a text dropped": lambda m: setattr(m, "note", None),
    "a number changed": lambda m: setattr(m, "size", 2.5),
    "a number dropped": lambda m: setattr(m, "size", None),
    "an optional entry added": lambda m: m.movie.update(year=1979),
    "an optional entry removed": lambda m: m.movie.pop("title"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("spacing", [(",", ":"), (", ", ": ")], ids=["ours", "another writer's"])
async def test_every_change_is_stored(storage, change, spacing):
    def make() -> Mixed:
        return Mixed(
            {"a", "b", "c"},
            {"a": 1, "b": 2},
            [1, 2, 3],
            [{1, 2}, {3}],
            {"x": {1}, "y": {2}},
            "text",
            1.5,
            {"title": "Alien"},
        )

    sessions = Sessions(initial=make, storage=storage)
    stored = json.dumps(json.loads(msgspec.json.encode(make())), separators=spacing).encode()
    await storage.place("stored", stored)
    for key in ("stored", "new"):
        async with sessions.open(key) as session:
            pass
        assert storage.puts == []
    for key in ("stored", "new"):
        async with sessions.open(key) as session:
            change(session.data)
            expected = session.data
        assert await sessions.get(key) == expected, key
        assert expected != make()


async def test_a_number_that_can_not_be_saved_is_refused_beside_a_set(storage):
    sessions = Sessions(initial=Mixed, storage=storage)
    await storage.place("a", b'{"size":1.5}')
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("a") as session:
            session.data.size = float("nan")
    assert caught.value.path == "$.size"
