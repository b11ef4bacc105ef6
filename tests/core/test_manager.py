"""Sessions: who waits for whom, what failures leave behind, and how it all ends."""

import asyncio
import gc
import logging
import math
import time
import weakref
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    Origin,
    SessionBusy,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionNotLoaded,
    Sessions,
    StorageUnavailable,
)
from gramkeep.storages.sqlite import SQLiteStorage


@dataclass
class Counter:
    count: int = 0


@pytest.fixture
def sessions(storage):
    return Sessions(initial=Counter, storage=storage, lock_timeout=20)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def add_one(sessions, key, pause=0.0, *, until=None, **options):
    async with sessions.open(key, **options) as session:
        data = await session
        seen = data.count
        await asyncio.sleep(pause)
        if until is not None:
            await until.wait()
        data.count = seen + 1


async def keys_of(sessions, prefix=""):
    return sorted([key async for key in sessions.keys(prefix)])


async def reopens(sessions, key="a"):
    """Whether the key is free, and its session sound."""
    async with asyncio.timeout(5), sessions.open(key) as session:
        return session.data


def gate():
    """Make something to hold a storage up with, and to see that it is held up."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def wait():
        entered.set()
        await go.wait()

    return wait, entered, go


# One update at a time.


@pytest.fixture(params=["memory", "sqlite"])
async def real_storage(request, tmp_path):
    if request.param == "memory":
        yield MemorySessionStorage()
    else:
        made = SQLiteStorage(tmp_path / "bot.db", synchronous="NORMAL")
        yield made
        await made.aclose()


async def test_fifty_updates_at_once_are_all_counted(real_storage):
    sessions = Sessions(initial=Counter, storage=real_storage)
    await asyncio.gather(*(add_one(sessions, "a", 0.001) for _ in range(50)))
    assert await sessions.get("a") == Counter(50)


async def test_lazy_updates_and_eager_ones_are_all_counted(real_storage):
    sessions = Sessions(initial=Counter, storage=real_storage)
    await asyncio.gather(*(add_one(sessions, "a", lazy=i % 2 == 0) for i in range(50)))
    assert await sessions.get("a") == Counter(50)


async def test_open_and_update_mixed_are_all_counted(real_storage):
    sessions = Sessions(initial=Counter, storage=real_storage)

    def increment(counter):
        return replace(counter, count=counter.count + 1)

    await asyncio.gather(
        *(add_one(sessions, "a") if i % 2 else sessions.update("a", increment) for i in range(50))
    )
    assert await sessions.get("a") == Counter(50)


async def test_updates_of_one_session_run_in_the_order_in_which_they_came(storage):
    sessions = Sessions(initial=list[int], storage=storage)

    async def note(number):
        async with sessions.open("a") as session:
            await asyncio.sleep(0)
            session.data.append(number)

    await asyncio.gather(*(note(i) for i in range(100)))
    assert await sessions.get("a") == list(range(100))


async def test_updates_of_other_sessions_do_not_wait(sessions):
    async with sessions.open("a"):
        async with asyncio.timeout(5):
            await asyncio.create_task(add_one(sessions, "b"))
    assert await sessions.get("b") == Counter(1)


async def test_two_managers_over_one_storage_wait_for_each_other(storage):
    both = [Sessions(initial=Counter, storage=storage) for _ in range(2)]
    await asyncio.gather(*(add_one(both[i % 2], "a", 0.001) for i in range(30)))
    assert await both[0].get("a") == Counter(30)


async def test_managers_with_other_prefixes_do_not_wait_for_each_other(storage):
    one = Sessions(initial=Counter, storage=storage, prefix="1:")
    two = Sessions(initial=Counter, storage=storage, prefix="2:")
    async with one.open("a") as first, asyncio.timeout(5), two.open("a") as second:
        first.data.count, second.data.count = 1, 2
    assert (await one.get("a"), await two.get("a")) == (Counter(1), Counter(2))


async def test_an_update_waits_no_longer_than_its_lock_timeout(storage):
    sessions = Sessions(initial=Counter, storage=storage, lock_timeout=timedelta(milliseconds=50))
    async with sessions.open("a") as session:
        with pytest.raises(SessionBusy) as caught:
            await asyncio.create_task(add_one(sessions, "a"))
        assert caught.value.waited == 0.05
        session.data.count = 7
    assert await reopens(sessions) == Counter(7)


async def test_a_task_that_opens_its_session_again_is_told_at_once(sessions):
    async with sessions.open("a") as session:
        session.data.count = 1
        async with asyncio.timeout(5):
            with pytest.raises(SessionBusy) as caught:
                async with sessions.open("a"):
                    pytest.fail("opened twice")
        assert caught.value.waited == 0
    assert await reopens(sessions) == Counter(1)


@pytest.mark.parametrize("call", ["update", "delete"])
async def test_a_task_that_holds_a_session_can_not_change_it_from_outside(sessions, call):
    async with sessions.open("a"):
        async with asyncio.timeout(5):
            with pytest.raises(SessionBusy):
                await (sessions.delete("a") if call == "delete" else sessions.update("a", Counter))
    assert await reopens(sessions) == Counter(0)


async def test_a_task_may_hold_several_sessions(sessions):
    async with sessions.open("a") as first, sessions.open("b") as second:
        first.data.count, second.data.count = 1, 2
    assert (await sessions.get("a"), await sessions.get("b")) == (Counter(1), Counter(2))


async def test_reading_a_session_waits_for_nobody(sessions):
    async with sessions.open("a") as session:
        session.data.count = 1
        async with asyncio.timeout(5):
            assert await sessions.get("a") is None
        await session.save()
        assert await sessions.get("a") == Counter(1)


async def test_deleting_waits_for_the_update_that_holds_the_session(sessions):
    async with sessions.open("a") as session:
        deleting = asyncio.create_task(sessions.delete("a"))
        await settle()
        assert not deleting.done()
        session.data.count = 1
    await deleting
    assert await sessions.get("a") is None


async def test_nothing_is_kept_for_sessions_that_nobody_holds(sessions):
    await asyncio.gather(*(add_one(sessions, f"key {i % 500}") for i in range(1000)))
    assert len(sessions.kind.shared.queues) == 0
    assert not sessions.kind.held


async def test_a_storage_that_is_dropped_takes_its_locks_along():
    sessions = Sessions(initial=Counter, storage=MemorySessionStorage())
    await add_one(sessions, "a")
    locks = weakref.ref(sessions.storage)
    del sessions
    gc.collect()
    assert locks() is None


# What failures leave behind: nothing.


class Oops(Exception):
    pass


async def test_a_failed_handler_changes_nothing_and_frees_the_session(sessions, storage):
    await sessions.update("a", lambda c: replace(c, count=1))
    with pytest.raises(Oops):
        async with sessions.open("a") as session:
            session.data.count = 99
            raise Oops
    assert await storage.value("a") == b'{"count":1}'
    assert await reopens(sessions) == Counter(1)


async def test_a_failed_handler_leaves_no_trace_in_lists_it_changed(storage):
    sessions = Sessions(initial=dict, storage=storage)
    await sessions.update("a", lambda _: {"items": [1]})
    kept = None
    with pytest.raises(Oops):
        async with sessions.open("a") as session:
            kept = session.data
            session.data["items"].append(2)
            raise Oops
    kept["items"].append(3)
    assert await reopens(sessions) == {"items": [1]}


async def test_data_kept_beyond_its_update_is_not_shared(sessions):
    async with sessions.open("a") as session:
        session.data.count = 1
        kept = session.data
    kept.count = 99
    assert await reopens(sessions) == Counter(1)
    snapshot = await sessions.get("a")
    snapshot.count = 98
    assert await reopens(sessions) == Counter(1)


async def test_an_update_cancelled_before_it_ran_leaves_nothing(sessions):
    task = asyncio.create_task(add_one(sessions, "a"))
    task.cancel()
    await asyncio.wait([task])
    assert await reopens(sessions) == Counter(0)
    assert len(sessions.kind.shared.queues) == 0


async def test_an_update_cancelled_while_it_waits_for_its_turn_leaves_nothing(sessions):
    async with sessions.open("a") as session:
        waiting = [asyncio.create_task(add_one(sessions, "a")) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        waiting[1].cancel()
        session.data.count = 10
    await asyncio.wait(waiting)
    assert await reopens(sessions) == Counter(11)
    assert len(sessions.kind.shared.queues) == 0


async def test_an_update_cancelled_while_it_loads_leaves_nothing(sessions, storage):
    storage.before_get, entered, _ = gate()
    task = asyncio.create_task(add_one(sessions, "a"))
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    storage.before_get = None
    assert task.cancelled()
    assert await reopens(sessions) == Counter(0)
    assert storage.puts == []


async def test_an_update_cancelled_in_its_handler_changes_nothing(sessions, storage):
    task = asyncio.create_task(add_one(sessions, "a", 30))
    await settle()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await reopens(sessions) == Counter(0)
    assert storage.puts == []


async def test_an_update_cancelled_while_it_saves_frees_the_session(sessions, storage):
    storage.before_put, entered, go = gate()
    task = asyncio.create_task(add_one(sessions, "a"))
    await entered.wait()
    next_one = asyncio.create_task(add_one(sessions, "a"))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    go.set()
    await asyncio.wait_for(next_one, 5)
    assert await reopens(sessions) == Counter(1)


# Tasks of an update that go on after it.


async def fail_soon():
    await settle()
    raise OSError


@pytest.mark.parametrize("use", ["load", "save", "clear", "reload"])
async def test_the_next_update_begins_when_what_a_failed_one_still_does_is_done(
    sessions, storage, use
):
    await add_one(sessions, "a")
    lazy = use == "load"
    steps = []

    async def held_up():
        steps.append("begins")
        await asyncio.sleep(0.05)
        steps.append("ends")

    async def next_one():
        async with sessions.open("a") as session:
            steps.append("next")
            session.data.count += 10

    with pytest.raises(OSError):
        async with sessions.open("a", lazy=lazy) as session:
            storage.before_get = storage.before_put = held_up
            waiting = asyncio.create_task(next_one())
            if not lazy:
                session.data.count = 5
            await asyncio.gather(session if lazy else getattr(session, use)(), fail_soon())
    storage.before_get = storage.before_put = None
    await waiting
    assert steps[:3] == ["begins", "ends", "begins"] or steps[:3] == ["begins", "ends", "next"]


@pytest.mark.parametrize("use", ["load", "save", "clear", "reload"])
async def test_what_a_failed_update_still_does_holds_nothing_from_other_processes(tmp_path, use):
    path = tmp_path / "bot.db"
    async with aclosing(SQLiteStorage(path)) as storage, aclosing(SQLiteStorage(path)) as theirs:
        sessions = Sessions(initial=Counter, storage=storage, lazy=use == "load")
        others = Sessions(initial=Counter, storage=theirs, lock_timeout=10)
        await add_one(sessions, "a")
        with pytest.raises(OSError):
            async with sessions.open("a") as session:
                used = session if use == "load" else getattr(session, use)()
                await asyncio.gather(used, fail_soon())
        await add_one(others, "a")


async def test_a_task_that_is_left_behind_holds_nothing_from_other_processes(tmp_path):
    path = tmp_path / "bot.db"
    async with aclosing(SQLiteStorage(path)) as storage, aclosing(SQLiteStorage(path)) as theirs:
        sessions = Sessions(initial=Counter, storage=storage)
        others = Sessions(initial=Counter, storage=theirs, lock_timeout=10)
        async with sessions.open("a") as session:
            session.data.count = 1
            left_behind = asyncio.create_task(session.reload())
        with pytest.raises(SessionClosed):
            await left_behind
        await add_one(others, "a")
        assert await sessions.get("a") == Counter(2)


async def test_a_task_whose_update_is_over_does_not_wait_on_for_another_process(tmp_path):
    path = tmp_path / "bot.db"
    async with aclosing(SQLiteStorage(path)) as storage, aclosing(SQLiteStorage(path)) as theirs:
        sessions = Sessions(initial=Counter, storage=storage, lazy=True)
        async with Sessions(initial=Counter, storage=theirs).open("a"), asyncio.timeout(10):
            with pytest.raises(OSError):
                async with sessions.open("a") as session:
                    loading = asyncio.ensure_future(session)
                    await asyncio.sleep(0.1)
                    raise OSError
            with pytest.raises(SessionClosed):
                await loading


async def test_an_update_that_is_cancelled_while_another_task_of_it_saves_ends_after_that(
    sessions, storage
):
    storage.before_put, entered, go = gate()

    async def update():
        async with sessions.open("a") as session:
            session.data.count = 1
            saving.append(asyncio.create_task(session.save()))
            await asyncio.sleep(60)

    saving = []
    task = asyncio.create_task(update())
    await entered.wait()
    for _ in range(3):
        task.cancel()
        await settle()
    assert not task.done()
    go.set()
    await asyncio.wait([task])
    assert task.cancelled()
    await saving[0]
    assert await reopens(sessions) == Counter(1)


async def test_updates_cancelled_at_any_moment_lose_no_acknowledged_one(real_storage):
    sessions = Sessions(initial=Counter, storage=real_storage)
    tasks = [asyncio.create_task(add_one(sessions, "a")) for _ in range(120)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            await asyncio.sleep(0)
        if number % 2 == 0:
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    acknowledged = sum(outcome is None for outcome in outcomes)
    counted = (await reopens(sessions)).count
    # A cancelled update is done or undone, and the canceller can't know which.
    assert acknowledged <= counted <= len(tasks)
    assert len(sessions.kind.shared.queues) == 0


async def test_a_handler_is_not_run_when_the_storage_does_not_answer(sessions, storage):
    async def fail():
        raise StorageUnavailable(storage="memory://", reason="the disk is gone")

    storage.before_get = fail
    with pytest.raises(StorageUnavailable) as caught:
        async with sessions.open("a"):
            pytest.fail("the handler ran")
    assert caught.value.key == "a"
    assert caught.value.storage == "memory://"
    assert caught.value.reason == "the disk is gone"
    with pytest.raises(StorageUnavailable):
        await sessions.get("a")
    storage.before_get = None
    assert await reopens(sessions) == Counter(0)


async def test_a_save_that_the_storage_does_not_answer_is_raised(sessions, storage):
    await add_one(sessions, "a")

    async def fail():
        raise StorageUnavailable(storage="memory://", reason="the disk is full")

    storage.before_put = fail
    with pytest.raises(StorageUnavailable) as caught:
        await add_one(sessions, "a")
    assert caught.value.key == "a"
    storage.before_put = None
    assert await reopens(sessions) == Counter(1)


async def test_an_error_of_the_storage_that_it_did_not_announce_frees_the_session(
    sessions, storage
):
    async def fail():
        raise Oops

    storage.before_get = fail
    with pytest.raises(Oops):
        await add_one(sessions, "a")
    storage.before_get, storage.before_put = None, fail
    with pytest.raises(Oops):
        await add_one(sessions, "a")
    storage.before_put = None
    assert await reopens(sessions) == Counter(0)


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        (b"", "$"),
        (b'{"count":', "$"),
        (b"[" * 100_000, "$"),
        (b"\xff\xfe", "$"),
        (b'{"count":"\xff"}', "$.count"),
        (b'{"count":"many"}', "$.count"),
        (b'{"count":null}', "$.count"),
        (b"null", "$"),
        (b"[]", "$"),
    ],
)
async def test_a_session_that_can_not_be_read_is_not_made_up_and_left_alone(
    sessions, storage, stored, path
):
    await storage.place("a", stored)
    with pytest.raises(SessionDecodeError) as caught:
        async with sessions.open("a"):
            pytest.fail("the handler ran")
    assert caught.value.path == path
    assert (caught.value.key, caught.value.storage) == ("a", "memory://")
    with pytest.raises(SessionDecodeError):
        await sessions.get("a")
    with pytest.raises(SessionDecodeError):
        await sessions.update("a", lambda c: c)
    assert await storage.value("a") == stored
    assert storage.puts == []
    await sessions.delete("a")
    assert await reopens(sessions) == Counter(0)


# The value of a new session.


async def test_a_class_makes_the_first_value(storage):
    assert await reopens(Sessions(initial=Counter, storage=storage)) == Counter(0)


async def test_a_function_makes_the_first_value(storage):
    def make() -> Counter:
        return Counter(5)

    assert await reopens(Sessions(initial=make, storage=storage)) == Counter(5)


async def test_a_lambda_makes_the_first_value_and_tells_its_type(storage):
    sessions = Sessions(initial=lambda: Counter(5), storage=storage)
    await add_one(sessions, "a")
    assert await reopens(sessions) == Counter(6)


async def test_a_generic_type_makes_the_first_value(storage):
    sessions = Sessions(initial=dict[int, set[int]], storage=storage)
    async with sessions.open("a") as session:
        assert session.data == {}
        session.data[1] = {2, 3}
    assert await reopens(sessions) == {1: {2, 3}}


async def test_an_async_function_makes_the_first_value(storage):
    async def make() -> Counter:
        await asyncio.sleep(0)
        return Counter(5)

    assert await reopens(Sessions(initial=make, storage=storage)) == Counter(5)


async def test_a_function_that_takes_the_origin_makes_the_first_value(storage):
    def make(origin) -> Counter:
        return Counter(origin.user_id)

    sessions = Sessions(initial=make, storage=storage)
    async with sessions.open("a", origin=Origin(user_id=7)) as session:
        assert session.data == Counter(7)


async def test_an_async_function_that_takes_the_origin_makes_the_first_value(storage):
    async def make(origin) -> Counter:
        return Counter(origin.user_id)

    sessions = Sessions(initial=make, storage=storage)
    async with sessions.open("a", origin=Origin(user_id=7)) as session:
        assert session.data == Counter(7)


async def test_a_parameter_with_a_default_is_not_given_the_origin(storage):
    def make(count: int = 3) -> Counter:
        return Counter(count)

    assert await reopens(Sessions(initial=make, storage=storage)) == Counter(3)


async def test_an_object_that_initial_gives_twice_is_not_shared(storage):
    shared = Counter()
    sessions = Sessions(initial=lambda: shared, storage=storage)
    async with sessions.open("a") as first, sessions.open("b") as second:
        first.data.count = 1
        assert second.data.count == 0
    assert shared.count == 0
    assert await sessions.get("b") is None


async def test_a_session_without_initial_is_none_until_assigned(storage):
    sessions = Sessions(data_type=Counter, storage=storage)
    async with sessions.open("a") as session:
        assert session.data is None
        assert session.is_new
    assert storage.puts == []
    async with sessions.open("a") as session:
        session.data = Counter(3)
    assert await reopens(sessions) == Counter(3)


async def test_an_initial_value_that_can_not_be_saved_is_refused_before_the_handler(storage):
    sessions = Sessions(initial=lambda: {"when": {1, 2}}, storage=storage)
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("a"):
            pytest.fail("the handler ran")
    assert caught.value.path == "$.when"


async def test_an_initial_that_fails_frees_the_session(storage):
    failing = True

    def make() -> Counter:
        if failing:
            raise Oops
        return Counter()

    sessions = Sessions(initial=make, storage=storage)
    with pytest.raises(Oops):
        async with sessions.open("a"):
            pytest.fail("the handler ran")
    failing = False
    assert await reopens(sessions) == Counter(0)


# sessions.update


async def test_update_returns_what_it_stored(sessions):
    assert await sessions.update("a", lambda c: replace(c, count=c.count + 1)) == Counter(1)
    assert await sessions.get("a") == Counter(1)


async def test_update_takes_async_functions(sessions):
    async def increment(counter):
        await asyncio.sleep(0)
        counter.count += 1
        return counter

    assert await sessions.update("a", increment) == Counter(1)


async def test_update_refuses_a_function_that_returns_nothing(sessions, storage):
    await add_one(sessions, "a")

    def forgets(counter):
        counter.count = 99

    with pytest.raises(ConfigurationError, match="returned None") as caught:
        await sessions.update("a", forgets)
    assert "sessions.delete(key)" in str(caught.value)
    assert await reopens(sessions) == Counter(1)


async def test_update_that_fails_changes_nothing(sessions):
    def fail(counter):
        counter.count = 99
        raise Oops

    with pytest.raises(Oops):
        await sessions.update("a", fail)
    assert await reopens(sessions) == Counter(0)


async def test_update_starts_again_when_another_writer_was_faster(sessions, storage):
    seen = []

    async def increment(counter):
        seen.append(counter.count)
        if len(seen) < 3:
            await storage.place("a", b'{"count":%d}' % (10 * len(seen)))
        return replace(counter, count=counter.count + 1)

    assert await sessions.update("a", increment) == Counter(21)
    assert seen == [0, 10, 20]


async def test_update_gives_up_conflicts_after_the_lock_timeout_and_not_before(storage):
    sessions = Sessions(initial=Counter, storage=storage, lock_timeout=0.05)
    writes = 0

    async def increment(counter):
        nonlocal writes
        writes += 1
        await storage.place("a", b'{"count":%d}' % (1000 + writes))
        return replace(counter, count=-1)

    began = time.monotonic()
    with pytest.raises(SessionConflict):
        await asyncio.wait_for(sessions.update("a", increment), 20)
    assert time.monotonic() - began > 0.05
    assert (await reopens(sessions)).count > 1000


async def test_update_passes_on_a_conflict_of_another_session(sessions):
    calls = 0

    def raise_it(counter):
        nonlocal calls
        calls += 1
        raise SessionConflict(key="b", storage="memory://")

    with pytest.raises(SessionConflict):
        await sessions.update("a", raise_it)
    assert calls == 1


# Optimistic isolation.


async def test_optimistic_updates_that_meet_raise_and_the_sum_is_of_those_acknowledged(
    real_storage,
):
    sessions = Sessions(initial=Counter, storage=real_storage, isolation="optimistic")
    outcomes = await asyncio.gather(
        *(add_one(sessions, "a", 0.001) for _ in range(30)), return_exceptions=True
    )
    done = outcomes.count(None)
    assert done >= 1
    assert all(outcome is None or type(outcome) is SessionConflict for outcome in outcomes)
    assert await sessions.get("a") == Counter(done)


async def test_optimistic_updates_by_function_are_all_counted(real_storage):
    sessions = Sessions(initial=Counter, storage=real_storage, isolation="optimistic")

    async def increment(counter):
        await asyncio.sleep(0)
        return replace(counter, count=counter.count + 1)

    await asyncio.gather(*(sessions.update("a", increment) for _ in range(20)))
    assert await sessions.get("a") == Counter(20)


async def test_an_optimistic_update_waits_for_nobody(storage):
    sessions = Sessions(initial=Counter, storage=storage, isolation="optimistic", lock_timeout=0.01)
    async with sessions.open("a") as outer:
        async with sessions.open("a") as inner:
            inner.data.count = 1
        assert outer.data == Counter(0)
    assert await sessions.get("a") == Counter(1)


# Keys.


@pytest.mark.parametrize("key", ["", None, 42, b"42", "half a \ud800"])
async def test_a_key_that_is_no_whole_text_is_refused(sessions, key):
    with pytest.raises(ConfigurationError, match="must be a string, not empty"):
        sessions.open(key)
    with pytest.raises(ConfigurationError, match="must be a string, not empty"):
        await sessions.get(key)
    with pytest.raises(ConfigurationError, match="must be a string, not empty"):
        await sessions.delete(key)
    with pytest.raises(ConfigurationError, match="must be a string, not empty"):
        await sessions.update(key, lambda c: c)


async def test_the_prefix_is_in_the_storage_and_in_errors_and_nowhere_else(storage):
    sessions = Sessions(initial=Counter, storage=storage, prefix="user:")
    async with sessions.open("7") as session:
        assert session.key == "7"
        session.data.count = 1
    assert await storage.value("user:7") == b'{"count":1}'
    assert await sessions.get("7") == Counter(1)
    assert await keys_of(sessions) == ["7"]
    with pytest.raises(SessionClosed) as caught:
        _ = session.data
    assert caught.value.key == "user:7"


async def test_keys_are_those_of_this_prefix(storage):
    users = Sessions(initial=Counter, storage=storage, prefix="user:")
    everyone = Sessions(initial=Counter, storage=storage)
    for key in ("1", "12", "2"):
        await add_one(users, key)
    await add_one(everyone, "userx")
    assert await keys_of(users) == ["1", "12", "2"]
    assert await keys_of(users, "1") == ["1", "12"]
    assert await keys_of(everyone, "user") == [
        "user:1",
        "user:12",
        "user:2",
        "userx",
    ]
    assert await keys_of(users, "%") == []


async def test_deleting_what_is_not_there_is_no_error(sessions):
    await sessions.delete("a")
    assert await sessions.get("a") is None


async def test_deleting_makes_no_initial_value(storage):
    def make(origin) -> Counter:
        return Counter(origin.user_id + 1)  # fails for an origin without a user

    sessions = Sessions(initial=make, storage=storage)
    await storage.place("a", b'{"count":1}')
    await sessions.delete("a")
    assert await sessions.get("a") is None


# Options.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"initial": 5}, "initial=5 can't be called"),
        ({"initial": lambda a, b: {}}, "needs the arguments a, b"),
        ({"get_session_key": "chat"}, "get_session_key='chat' can't be called"),
        ({"prefix": 5}, "prefix=5 must be a string"),
        ({"key": "my session"}, "key='my session' can't be a handler's parameter"),
        ({"key": None}, "key=None must be a string"),
        ({"isolation": "none"}, "isolation='none' must be one of serial, optimistic"),
        ({"refresh_ttl": "read"}, "refresh_ttl='read' must be one of write, access"),
        ({"refresh_ttl": "access"}, "refresh_ttl='access' counts ttl= anew, and there is none"),
        ({"refresh_ttl": "access", "ttl": None}, "pass a ttl=, too"),
        ({"ttl": 0}, "ttl=0 must be a timedelta or a number of seconds, above 0"),
        ({"ttl": timedelta(0)}, "ttl="),
        ({"ttl": "1h"}, "ttl='1h' must be"),
        ({"ttl": True}, "ttl=True must be"),
        ({"ttl": math.nan}, "ttl=nan must be"),
        ({"lock_timeout": -1}, "lock_timeout=-1 must be"),
        ({"lock_timeout": None}, "lock_timeout=None must be"),
        ({"max_bytes": 0}, "max_bytes=0 must be"),
        ({"max_bytes": 1.5}, "max_bytes=1.5 must be"),
        ({"codec": "json"}, "codec='json' is no Codec"),
        ({"storage": 5}, "storage=5 has no read"),
        ({"storage": "sqlite:"}, "has no scheme"),
        ({"storage": "oracle://db"}, "unknown scheme 'oracle'"),
        ({"initail": Counter}, "unknown option initail"),
        ({"ttl": math.inf}, "ttl=inf must be"),
        ({"lock_timeout": math.inf}, "lock_timeout=inf must be"),
    ],
)
def test_wrong_options_are_refused_with_their_name(options, text):
    with pytest.raises(ConfigurationError) as caught:
        Sessions(**{"storage": "memory://", **options})
    assert text in str(caught.value)


async def test_without_a_storage_one_log_line_says_that_nothing_will_last(caplog):
    with caplog.at_level(logging.WARNING, "gramkeep"):
        sessions = Sessions(initial=Counter)
    assert [record.name for record in caplog.records] == ["gramkeep"]
    assert "memory" in caplog.text
    assert "storage='sqlite:///bot.db'" in caplog.text
    await add_one(sessions, "a")
    assert await sessions.get("a") == Counter(1)


async def test_a_memory_url_says_that_it_is_meant(caplog):
    with caplog.at_level(logging.WARNING, "gramkeep"):
        Sessions(initial=Counter, storage="memory://")
    assert not caplog.records


async def test_a_url_leads_to_its_storage(tmp_path):
    url = f"sqlite:///{tmp_path}/bot.db"
    async with Sessions(initial=Counter, storage=url) as sessions:
        await add_one(sessions, "a")
    async with Sessions(initial=Counter, storage=url) as sessions:
        assert await sessions.get("a") == Counter(1)


# The end.


async def test_closing_waits_for_the_sessions_that_are_held(sessions):
    task = asyncio.create_task(add_one(sessions, "a", 0.05))
    waiting = asyncio.create_task(add_one(sessions, "a", 0.01))
    await settle()
    await sessions.aclose()
    assert task.done()
    assert waiting.done()
    assert await Sessions(initial=Counter, storage=sessions.storage).get("a") == Counter(2)


async def test_closing_lets_updates_come_in_that_were_just_dispatched(sessions):
    task = asyncio.create_task(add_one(sessions, "a", 0.01))
    await sessions.aclose()
    assert task.done()
    assert task.exception() is None


async def test_closing_does_not_wait_for_an_update_that_gave_its_place_up(sessions):
    async with sessions.open("a", lazy=True) as session:
        sessions.reserve(session)
        sessions.withdraw(session)
        async with asyncio.timeout(5):
            await sessions.drain()
        await session  # it changes its mind
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sessions.drain(), 0.05)


async def test_closing_does_not_wait_for_ever_and_names_the_sessions(sessions, storage, caplog):
    go_on = asyncio.Event()
    tasks = [asyncio.create_task(add_one(sessions, key, until=go_on)) for key in ("one", "two")]
    await settle()
    with caplog.at_level(logging.WARNING, "gramkeep"):
        await sessions.aclose(drain_timeout=timedelta(milliseconds=20))
    assert "'one', 'two'" in caplog.text
    go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageUnavailable] * 2
    assert await storage.value("one") is None


async def test_closing_twice_is_no_error(sessions):
    await sessions.aclose()
    await sessions.aclose()


async def test_closing_from_two_tasks_at_once_is_no_error(sessions, caplog):
    task = asyncio.create_task(add_one(sessions, "a", 0.05))
    await settle()
    await asyncio.wait_for(asyncio.gather(sessions.aclose(40), sessions.aclose(40)), 30)
    assert task.done()
    assert not caplog.records


async def test_closing_that_was_cancelled_can_be_repeated(sessions):
    go_on = asyncio.Event()
    task = asyncio.create_task(add_one(sessions, "a", until=go_on))
    await settle()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sessions.aclose(), 0.01)
    go_on.set()
    await sessions.aclose()
    assert task.done()
    assert task.exception() is None


async def test_closing_leaves_a_storage_open_that_the_user_made(sessions, storage):
    await sessions.aclose()
    assert storage.closed == 0


async def test_closing_closes_a_storage_that_was_made_of_a_url(tmp_path):
    sessions = Sessions(initial=Counter, storage=f"sqlite:///{tmp_path}/bot.db")
    await add_one(sessions, "a")
    await sessions.aclose()
    with pytest.raises(StorageUnavailable, match="it was closed"):
        await sessions.storage.get(["a"])


async def test_a_manager_closes_itself_at_the_end_of_its_block(storage):
    with pytest.raises(Oops):
        async with Sessions(initial=Counter, storage=storage) as sessions:
            raise Oops
    with pytest.raises(StorageUnavailable):
        await sessions.get("a")


@pytest.mark.parametrize("url", [True, False], ids=["owned storage", "given storage"])
async def test_a_closed_manager_raises_at_every_use(url, storage):
    sessions = Sessions(initial=Counter, storage="memory://" if url else storage)
    await sessions.aclose()
    with pytest.raises(StorageUnavailable, match="it was closed"):
        async with sessions.open("a"):
            pytest.fail("opened")
    for call in (sessions.get("a"), sessions.delete("a"), sessions.update("a", lambda c: c)):
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await call
    async with sessions.open("a", lazy=True) as session:
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await session
        with pytest.raises(SessionNotLoaded):
            _ = session.data
    with pytest.raises(StorageUnavailable, match="it was closed"):
        await keys_of(sessions)


async def test_an_opened_session_can_not_be_entered_again(sessions):
    opened = sessions.open("a")
    async with opened:
        pass
    with pytest.raises(SessionClosed):
        async with opened:
            pytest.fail("opened twice")
    assert len(sessions.kind.shared.queues) == 0
