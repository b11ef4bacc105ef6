"""What an update costs, counted: calls to its storage, and what is run for it in the process.

Times differ from machine to machine, counts don't. Each number here is a promise: one that grows
has made every update dearer.
"""

import asyncio
import re
import selectors
import sqlite3
import sys
from collections import Counter as Tally
from contextlib import aclosing
from dataclasses import dataclass, field
from inspect import CO_COROUTINE
from types import SimpleNamespace

import asyncpg
import pytest
from servers.redis import redis_server
from storages.broken.unbroken import Unbroken

import gramkeep
from gramkeep import MemorySessionStorage, SessionOptions, Sessions
from gramkeep.multi import MultiSessions
from gramkeep.storage import KEEP
from gramkeep.storages.postgres import PostgresStorage
from gramkeep.storages.redis import RedisStorage, wire
from gramkeep.storages.sqlite import SQLiteStorage

__all__ = ["redis_server"]

pytest_plugins = ["servers.postgres_fixtures"]


@dataclass
class Counter:
    count: int = 0
    names: list[str] = field(default_factory=list)


class Noting(Unbroken):
    """Notes its calls, and answers each in the next turn of the loop, as a server would."""

    def __init__(self, *state):
        super().__init__(*state)
        self.calls = []

    async def get(self, keys):
        self.calls.append(("get", *keys))
        await asyncio.sleep(0)
        return await super().get(keys)

    async def claim(self, keys, lease):
        self.calls.append(("claim", *keys))
        await asyncio.sleep(0)
        return await super().claim(keys, lease)

    async def put(self, puts, lease=None, *, atomic=False):
        keeps = all(put.value is KEEP for put in puts)
        self.calls.append(("give up" if keeps else "put", *(put.key for put in puts)))
        await asyncio.sleep(0)
        return await super().put(puts, lease, atomic=atomic)


class NotingWithoutLeases(Noting):
    can_lease = False


@pytest.fixture
def leasing():
    return Noting()


@pytest.fixture
def plain():
    return NotingWithoutLeases()


@pytest.fixture(params=[Noting, NotingWithoutLeases])
def either(request):
    return request.param()


async def counted_to_one(storage, key="42", **options):
    """Give sessions of which one is stored, with nothing noted yet."""
    sessions = Sessions(initial=Counter, storage=storage, **options)
    await add_one(sessions, key)
    storage.calls.clear()
    return sessions


async def add_one(sessions, key="42"):
    async with sessions.open(key) as session:
        session.data.count += 1


# Calls of one update.


async def test_an_update_whose_handler_asks_for_no_session_makes_no_call(either):
    sessions = await counted_to_one(either)
    origin = SimpleNamespace(chat_id=42)
    async with await sessions.open_for(origin, lazy=True) as session:
        sessions.reserve(session)  # as an integration does for every update
        sessions.withdraw(session)
    assert either.calls == []


async def test_a_lazy_session_that_is_not_awaited_makes_no_call(either):
    sessions = await counted_to_one(either)
    async with sessions.open("42", lazy=True):
        pass
    assert either.calls == []


async def test_an_update_that_only_reads_makes_one_call(plain):
    sessions = await counted_to_one(plain)
    async with sessions.open("42") as session:
        assert session.data.count == 1
    assert plain.calls == [("get", "42")]


async def test_an_update_that_only_reads_under_a_lease_makes_one_more_to_give_it_up(leasing):
    sessions = await counted_to_one(leasing)
    async with sessions.open("42") as session:
        assert session.data.count == 1
    assert leasing.calls == [("claim", "42"), ("give up", "42")]


async def test_an_update_that_changes_the_session_makes_two_calls(plain):
    sessions = await counted_to_one(plain)
    await add_one(sessions)
    assert plain.calls == [("get", "42"), ("put", "42")]


async def test_an_update_that_changes_the_session_under_a_lease_makes_two_calls_as_well(leasing):
    sessions = await counted_to_one(leasing)
    await add_one(sessions)
    assert leasing.calls == [("claim", "42"), ("put", "42")]


async def test_a_lazy_session_that_is_awaited_makes_no_other_calls_than_one_that_is_not(leasing):
    sessions = await counted_to_one(leasing)
    async with sessions.open("42", lazy=True) as session:
        (await session).count += 1
    assert leasing.calls == [("claim", "42"), ("put", "42")]


async def test_a_session_that_is_new_and_stays_so_is_read_and_not_written(plain):
    sessions = await counted_to_one(plain)
    async with sessions.open("43") as session:
        assert session.is_new
    assert plain.calls == [("get", "43")]


async def test_data_that_encodes_to_what_is_stored_is_not_written_whatever_it_loads_as(plain):
    @dataclass
    class Price:
        euros: float = 0.0

    sessions = Sessions(initial=Price, storage=plain)
    for _ in range(2):
        async with sessions.open("42") as session:
            session.data = Price(5)  # stored as 5, and loaded as 5.0
    assert plain.calls == [("get", "42"), ("put", "42"), ("get", "42")]


async def test_overwriting_or_deleting_a_session_unread_makes_one_call(plain):
    sessions = await counted_to_one(plain)
    async with sessions.open("42", lazy=True) as session:
        session.data = Counter(7)
    await sessions.delete("42")
    assert plain.calls == [("put", "42"), ("put", "42")]


async def test_a_snapshot_makes_one_call(either):
    sessions = await counted_to_one(either)
    assert (await sessions.get("42")).count == 1
    assert either.calls == [("get", "42")]


# Saving in the middle of a handler.


async def test_a_save_in_the_middle_makes_one_call(plain):
    sessions = await counted_to_one(plain)
    async with sessions.open("42") as session:
        session.data.count += 1
        await session.save()
        await session.save()  # of nothing new
    assert plain.calls == [("get", "42"), ("put", "42")]


async def test_a_change_after_a_save_makes_two_more_as_the_token_of_what_was_saved_is_asked_for(
    plain,
):
    sessions = await counted_to_one(plain)
    async with sessions.open("42") as session:
        session.data.count += 1
        await session.save()
        session.data.count += 1
    assert plain.calls == [("get", "42"), ("put", "42"), ("get", "42"), ("put", "42")]


async def test_a_save_under_a_lease_holds_it_and_the_end_gives_it_up(leasing):
    sessions = await counted_to_one(leasing)
    async with sessions.open("42") as session:
        session.data.count += 1
        await session.save()
    assert leasing.calls == [("claim", "42"), ("put", "42"), ("give up", "42")]


# Several sessions in one update.


def three_parts(storage):
    options = SessionOptions(initial=Counter, storage=storage)
    return MultiSessions(one=options, two=options, three=options)


async def use(sessions, *changed):
    async with await sessions.open_for(SimpleNamespace(chat_id=42)) as handle:
        for name in changed:
            getattr(handle.view, name).count += 1


ALL = ("one:42", "three:42", "two:42")


@pytest.mark.parametrize("changed", [("one", "two", "three"), ("one",)])
async def test_the_parts_of_a_multi_session_in_one_storage_take_two_calls_however_many_change(
    leasing, changed
):
    sessions = three_parts(leasing)
    await use(sessions, "one", "two", "three")
    leasing.calls.clear()
    await use(sessions, *changed)
    (claim, put) = leasing.calls
    assert claim == ("claim", *ALL)
    assert (put[0], sorted(put[1:])) == ("put", sorted(ALL))


async def test_a_multi_session_that_is_only_read_makes_one_call_and_one_to_give_it_up(leasing):
    await use(three_parts(leasing))
    (claim, release) = leasing.calls
    assert claim == ("claim", *ALL)
    assert (release[0], sorted(release[1:])) == ("give up", sorted(ALL))


async def test_a_multi_session_without_leases_writes_what_changed_and_nothing_else(plain):
    await use(three_parts(plain), "two")
    assert plain.calls == [("get", *ALL), ("put", "two:42")]


# Many updates at once.


@pytest.mark.parametrize("limit", [1, 2, 4])
async def test_a_wave_of_updates_shares_its_calls(either, limit, monkeypatch):
    """Of each sort as many calls go alone as may be under way, and the others together."""
    monkeypatch.setattr(type(either), "calls_at_once", limit)
    sessions = Sessions(initial=Counter, storage=either)
    await asyncio.gather(*(add_one(sessions, str(number)) for number in range(128)))
    tally = Tally(call[0] for call in either.calls)
    reads = tally.pop("get", 0) + tally.pop("claim", 0)
    assert reads == limit + 1
    # Those that went alone are also over one after the other.
    assert tally == {"put": 2 * limit + 1}


async def test_updates_that_go_on_and_on_make_a_fifth_of_a_call_each_at_most(either, monkeypatch):
    monkeypatch.setattr(type(either), "calls_at_once", 2)
    sessions = Sessions(initial=Counter, storage=either)
    keys = iter(map(str, range(1280)))

    async def work():
        for key in keys:
            await add_one(sessions, key)

    await asyncio.gather(*(work() for _ in range(128)))
    assert len(either.calls) <= 1280 / 5


# What is run in the process.


def run_by(function):
    """Run a coroutine function, and tally the functions of gramkeep's, and of C's, it called.

    A coroutine counts once: over a storage in memory none of them waits.
    """
    tally = Tally()

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(gramkeep.__path__[0]):
            tally["calls"] += 1
            tally["coroutines"] += bool(frame.f_code.co_flags & CO_COROUTINE)
        elif event == "c_call":
            tally[getattr(argument, "__qualname__", "")] += 1

    async def run():
        sys.setprofile(note)
        try:
            await function()
        finally:
            sys.setprofile(None)

    return run, tally


async def tally_of(update):
    await update()
    await update()  # by now, all that is made once has been made
    run, tally = run_by(update)
    await run()
    return tally


@pytest.fixture
async def in_memory():
    sessions = Sessions(initial=Counter, storage=MemorySessionStorage())
    await add_one(sessions)
    return sessions


async def test_an_update_in_memory_runs_ten_coroutines_and_few_calls(in_memory):
    tally = await tally_of(lambda: add_one(in_memory))
    assert tally["coroutines"] <= 10
    assert tally["calls"] <= 43


async def test_an_update_that_only_reads_runs_eight_coroutines(in_memory):
    async def read():
        async with in_memory.open("42") as session:
            assert session.data.count > 0

    tally = await tally_of(read)
    assert tally["coroutines"] <= 8
    assert tally["calls"] <= 34


@pytest.mark.parametrize("does_change", [True, False])
async def test_an_update_starts_no_task_of_its_own(leasing, does_change):
    sessions = await counted_to_one(leasing)
    tasks = []

    def note(loop, coroutine, **options):
        tasks.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(note)
    async with sessions.open("42") as session:
        session.data.count += does_change
    loop.set_task_factory(None)
    assert tasks == []
    assert len(leasing.calls) == 2


async def test_a_lazy_session_that_is_not_awaited_takes_no_place_and_decodes_nothing(in_memory):
    async def pass_by():
        async with in_memory.open("42", lazy=True):
            pass

    tally = await tally_of(pass_by)
    assert tally["coroutines"] <= 4
    assert tally["calls"] <= 13
    assert tally["Decoder.decode"] == tally["Encoder.encode"] == 0


async def test_what_is_certain_to_load_again_is_decoded_once_and_encoded_once(in_memory):
    tally = await tally_of(lambda: add_one(in_memory))
    assert (tally["Decoder.decode"], tally["Encoder.encode"]) == (1, 1)


async def test_what_others_wrote_is_encoded_once_more_as_it_may_look_otherwise(in_memory):
    async def count_in_what_another_wrote():
        await in_memory.storage.write("42", {"names": [], "count": 1})
        await add_one(in_memory)

    tally = await tally_of(count_in_what_another_wrote)
    assert (tally["Decoder.decode"], tally["Encoder.encode"]) == (1, 2)


async def test_what_is_not_certain_is_decoded_once_more_before_it_is_written():
    @dataclass
    class Tagged(Counter):
        tags: dict[int, str] = field(default_factory=dict)

    sessions = Sessions(initial=Tagged, storage=MemorySessionStorage())
    tally = await tally_of(lambda: add_one(sessions))
    assert (tally["Decoder.decode"], tally["Encoder.encode"]) == (2, 1)


# What real storages are told. How many updates of a wave go together there is a matter of time: far
# fewer calls than the two each that they take alone, in any case.

WAVE = 100
AT_MOST = 10


async def wave(sessions):
    await asyncio.gather(*(add_one(sessions, str(number)) for number in range(WAVE)))


@pytest.fixture
def statements(monkeypatch):
    """What SQLite is told by connections that are opened from here on."""
    told = []
    connect = sqlite3.connect

    def connect_and_trace(*args, **options):
        connection = connect(*args, **options)
        connection.set_trace_callback(told.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_and_trace)
    return told


async def test_an_update_in_sqlite_is_one_commit_and_many_at_once_are_few(tmp_path, statements):
    sessions = Sessions(initial=Counter, storage=SQLiteStorage(tmp_path / "bot.db"))
    await add_one(sessions)
    statements.clear()
    await add_one(sessions)
    assert statements.count("COMMIT") == 1
    statements.clear()
    await wave(sessions)
    assert statements.count("COMMIT") <= AT_MOST
    await sessions.storage.aclose()


async def test_an_update_in_redis_is_two_scripts_and_many_at_once_are_few(redis_server):
    redis_server.ask("FLUSHALL")
    sessions = Sessions(initial=Counter, storage=RedisStorage.from_url(redis_server.url))

    async def scripts_of(update):
        await update(sessions)  # by now the server knows the scripts
        redis_server.ask("CONFIG", "RESETSTAT")
        await update(sessions)
        stats = redis_server.ask("INFO", "commandstats")
        return int(re.search(r"cmdstat_evalsha:calls=(\d+)", str(stats))[1])

    assert await scripts_of(add_one) == 2
    assert await scripts_of(wave) <= AT_MOST
    await sessions.storage.aclose()


async def test_a_redis_connection_that_was_silent_is_looked_at_once_for_a_wave(
    redis_server, monkeypatch
):
    looks = []
    has_input = wire.Wire._has_input
    monkeypatch.setattr(wire.Wire, "_has_input", lambda it: looks.append(it) or has_input(it))
    monkeypatch.setattr(wire, "SILENCE", -1.0)
    async with aclosing(RedisStorage.from_url(redis_server.url)) as storage:
        await asyncio.gather(*(storage.get([str(number)]) for number in range(2)))
        looks.clear()
        await asyncio.gather(*(storage.get([str(number)]) for number in range(50)))
    assert len(looks) == 1


def test_an_update_in_redis_takes_two_turns_of_the_event_loop_one_for_each_answer(redis_server):
    turns = 0

    class Selector(selectors.DefaultSelector):
        def select(self, timeout=None):
            nonlocal turns
            turns += 1
            return super().select(timeout)

    async def update_some():
        nonlocal turns
        sessions = Sessions(initial=Counter, storage=RedisStorage.from_url(redis_server.url))
        await add_one(sessions)
        turns = 0
        for _ in range(20):
            await add_one(sessions)
        assert turns <= 20 * 2 + 5  # an answer may come in pieces
        await sessions.storage.aclose()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
        runner.run(update_some())


async def test_an_update_in_postgresql_is_two_queries_and_many_at_once_are_few(
    postgres_database, monkeypatch
):
    queries = []

    def note(name):
        original = getattr(asyncpg.Connection, name)

        def noting(connection, query, *args, **options):
            if "SKIP LOCKED" not in query:  # which sweeps away what expired, in the background
                queries.append(query)
            return original(connection, query, *args, **options)

        monkeypatch.setattr(asyncpg.Connection, name, noting)

    for name in ("execute", "fetch", "fetchmany", "fetchrow", "fetchval"):
        note(name)
    sessions = Sessions(initial=Counter, storage=PostgresStorage(postgres_database))
    await add_one(sessions)
    queries.clear()
    await add_one(sessions)
    assert len(queries) == 2
    await wave(sessions)
    queries.clear()
    await wave(sessions)
    assert len(queries) <= AT_MOST
    await sessions.storage.aclose()
