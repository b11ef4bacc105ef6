"""SQLiteStorage beyond its contract: batches, other processes, and files that come and go."""

import asyncio
import gc
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace

import pytest

from gramkeep import ConfigurationError, Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, Put
from gramkeep.storages.sqlite import SQLiteStorage
from gramkeep.storages.sqlite import database as sqlite_database


@dataclass
class Counter:
    count: int = 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bot.db"


@pytest.fixture
def open_storage(opening, path):
    return lambda place=path, **options: opening(SQLiteStorage, place, **options)


@pytest.fixture
def storage(open_storage):
    return open_storage(synchronous="NORMAL")


@pytest.fixture
def statements(monkeypatch):
    """Every statement that any connection opened from now on carries out."""
    seen = []
    connect = sqlite3.connect

    def traced(*args, **options):
        connection = connect(*args, **options)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


async def put(storage, key, value, expected=ANY, ttl=None):
    return (await storage.put([Put(key, value, expected, ttl)]))[0]


async def value_of(storage, key="a"):
    (record,) = await storage.get([key])
    return None if record is None else record.value


def look(path, statement="SELECT key, value FROM gramkeep_sessions ORDER BY key", *parameters):
    """Ask another connection, as another program would."""
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


@asynccontextmanager
async def write_lock(path):
    """Hold the file's write lock, as a process does that is writing, or hangs while it does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


class Pulse:
    """Measures how long the event loop was out of breath while a thread beside it was not."""

    def __init__(self):
        self.longest = 0.0
        self._since_last = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def _measure(self):
        while not self._is_over.wait(0.005):
            self._since_last += 0.005
            self.longest = max(self.longest, self._since_last)

    async def _beat(self):
        while True:
            self._since_last = 0.0
            await asyncio.sleep(0.005)

    async def __aenter__(self):
        self._task = asyncio.create_task(self._beat())
        self._thread.start()
        return self

    async def __aexit__(self, *_):
        self._is_over.set()
        self._thread.join()
        self._task.cancel()
        await asyncio.wait([self._task])


def run_script(script, *arguments):
    """Run a program of its own; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Batches.


async def test_an_answered_put_is_in_the_file(storage, path):
    await put(storage, "a", b"1")
    assert look(path) == [("a", b"1")]


async def test_puts_that_gather_share_a_commit(storage, statements):
    await put(storage, "a", b"0")
    statements.clear()
    await asyncio.gather(*(put(storage, f"key {i}", b"1") for i in range(200)))
    assert 1 <= statements.count("COMMIT") <= 10
    assert statements.count("COMMIT") == statements.count("BEGIN IMMEDIATE")


async def test_every_put_is_answered_after_its_commit(storage, statements, path):
    async def check(i):
        assert await put(storage, f"key {i}", b"1")
        assert statements[-1] == "COMMIT" or look(
            path, "SELECT 1 FROM gramkeep_sessions WHERE key = ?", f"key {i}"
        )

    await asyncio.gather(*(check(i) for i in range(20)))


async def gathered(storage, path, *calls):
    """Make sure that calls go together, by holding the worker up until all have come."""
    async with write_lock(path):
        first = asyncio.ensure_future(put(storage, "first", b"1"))
        await asyncio.sleep(0.05)
        rest = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


def poison(path):
    """Make the database itself refuse one key."""
    look(
        path,
        "CREATE TRIGGER poison BEFORE INSERT ON gramkeep_sessions WHEN NEW.key = 'poison' "
        "BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
    )


async def test_one_put_that_fails_fails_alone(storage, path):
    await put(storage, "a", b"0")
    poison(path)
    outcomes = await gathered(
        storage,
        path,
        put(storage, "a", b"1"),
        put(storage, "poison", b"1"),
        put(storage, "b", b"1", ABSENT),
        put(storage, "b", b"2", ABSENT),
    )
    assert outcomes[0] is True
    assert isinstance(outcomes[1], StorageUnavailable)
    assert "poisoned" in outcomes[1].reason
    assert outcomes[2:] == [True, False]
    assert look(path) == [("a", b"1"), ("b", b"1"), ("first", b"1")]
    assert await put(storage, "c", b"1")


@pytest.mark.parametrize(
    "bad",
    [Put("half \ud800", b"1", ANY), Put("a", b"1", ANY, 1e300), Put("a", b"1", ANY, float("inf"))],
    ids=["a key of half characters", "a lifetime too long", "an endless lifetime"],
)
async def test_one_put_that_can_not_even_be_asked_fails_alone(storage, path, bad):
    await put(storage, "a", b"0")
    outcomes = await gathered(
        storage, path, put(storage, "b", b"1"), storage.put([bad]), put(storage, "c", b"1")
    )
    assert isinstance(outcomes[1], Exception)
    assert (outcomes[0], outcomes[2]) == (True, True)
    assert await put(storage, "d", b"1")
    assert look(path) == [("a", b"0"), ("b", b"1"), ("c", b"1"), ("d", b"1"), ("first", b"1")]


async def test_an_atomic_put_that_fails_half_way_changes_nothing(storage, path):
    await put(storage, "a", b"0")
    poison(path)
    with pytest.raises(StorageUnavailable):
        await storage.put([Put("a", b"1", ANY), Put("poison", b"1", ANY)], atomic=True)
    assert look(path) == [("a", b"0")]


async def test_reads_that_gather_with_a_failing_one_are_answered(storage):
    await put(storage, "a", b"1")
    good, bad, other = await asyncio.gather(
        storage.get(["a"]), storage.get(["\ud800"]), storage.get(["a"]), return_exceptions=True
    )
    assert good[0].value == other[0].value == b"1"
    assert isinstance(bad, Exception)


# How safe a commit is.


@pytest.mark.parametrize(("level", "number"), [("FULL", 2), ("NORMAL", 1)])
async def test_the_chosen_level_of_safety_is_set(open_storage, statements, level, number, path):
    storage = open_storage(synchronous=level)
    await put(storage, "a", b"1")
    assert f"PRAGMA synchronous = {level}" in statements
    # and on the connection that writes, which lives on the worker's thread:
    database = storage._make_database()
    try:
        connection = database._file.connected()
        assert connection.execute("PRAGMA synchronous").fetchone() == (number,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        database.close()


async def test_full_safety_is_the_default(path, statements):
    storage = SQLiteStorage(path)
    await storage.get(["a"])
    await storage.aclose()
    assert "PRAGMA synchronous = FULL" in statements


async def test_closing_leaves_one_file(storage, path):
    await put(storage, "a", b"1")
    await storage.aclose()
    assert [file.name for file in path.parent.iterdir()] == ["bot.db"]


# Other processes.

WRITER = """
    import asyncio, sys
    from gramkeep.storage import ANY, Put
    from gramkeep.storages.sqlite import SQLiteStorage

    async def main(path, key, value):
        storage = SQLiteStorage(path)
        await storage.put([Put(key, value.encode(), ANY)])
        await storage.aclose()

    asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_another_process_writes_is_seen_and_protected(storage, path):
    await put(storage, "a", b"1")
    (record,) = await storage.get(["a"])
    await asyncio.to_thread(run_script, WRITER, path, "a", "2")
    assert await put(storage, "a", b"3", record.token) is False
    assert await put(storage, "a", DELETE, record.token) is False
    assert await value_of(storage) == b"2"


async def test_updates_from_two_processes_are_all_counted(storage, path):
    script = """
        import asyncio, sys
        from dataclasses import dataclass, replace
        from gramkeep import Sessions

        @dataclass
        class Counter:
            count: int = 0

        async def main(path):
            async with Sessions(initial=Counter, storage=f"sqlite:///{path}") as sessions:
                for _ in range(100):
                    await sessions.update("a", lambda c: replace(c, count=c.count + 1))

        asyncio.run(main(sys.argv[1]))
    """
    sessions = Sessions(initial=Counter, storage=storage)
    other = asyncio.create_task(asyncio.to_thread(run_script, script, path))
    for _ in range(100):
        await sessions.update("a", lambda c: replace(c, count=c.count + 1))
        await asyncio.sleep(0.002)
    await other
    assert await sessions.get("a") == Counter(200)


async def test_a_write_that_another_process_holds_up_is_done_when_that_is_over(storage, path):
    await put(storage, "a", b"1")
    async with write_lock(path):
        writing = asyncio.create_task(put(storage, "a", b"2"))
        await asyncio.sleep(0.05)
        assert not writing.done()
    assert await writing
    assert await value_of(storage) == b"2"


async def test_a_write_lock_held_too_long_is_said_and_stalls_nothing(open_storage, path):
    storage = open_storage(busy_timeout=0.5)
    await put(storage, "a", b"1")
    async with write_lock(path), Pulse() as pulse:
        with pytest.raises(StorageUnavailable, match="busy_timeout") as caught:
            await put(storage, "a", b"2")
        assert await value_of(storage) == b"1"
    assert caught.value.storage == f"sqlite:///{path}"
    assert pulse.longest < 0.4
    assert await put(storage, "a", b"3")
    assert await value_of(storage) == b"3"


async def test_a_file_that_is_locked_when_it_is_opened_is_waited_for(open_storage, path):
    await put(open_storage(), "a", b"1")
    patient, hasty = open_storage(), open_storage(busy_timeout=0.05)
    async with write_lock(path), Pulse() as pulse:
        with pytest.raises(StorageUnavailable, match="busy_timeout"):
            await value_of(hasty)
        reading = asyncio.create_task(value_of(patient))
        await asyncio.sleep(0.1)
    assert await asyncio.wait_for(reading, 10) == b"1"
    assert await value_of(hasty) == b"1"
    assert pulse.longest < 0.4


async def test_a_handler_whose_save_was_locked_out_is_told_and_the_next_one_saves(
    open_storage, path
):
    sessions = Sessions(initial=Counter, storage=open_storage(busy_timeout=0.05))
    await sessions.update("a", lambda _: Counter(1))
    async with write_lock(path):
        with pytest.raises(StorageUnavailable) as caught:
            async with sessions.open("a") as session:
                session.data.count = 2
    assert caught.value.key == "a"
    async with asyncio.timeout(10), sessions.open("a") as session:
        assert session.data == Counter(1)
        session.data.count = 3
    assert await sessions.get("a") == Counter(3)


# Files that come and go.


async def test_a_file_that_vanished_is_not_replaced_by_an_empty_one(storage, path):
    await put(storage, "a", b"1")
    aside = path.with_name("aside.db")
    path.rename(aside)
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="No such file"):
            await value_of(storage)
        with pytest.raises(StorageUnavailable, match="No such file"):
            await put(storage, "a", b"2")
        assert not path.exists()
    aside.rename(path)
    assert await value_of(storage) == b"1"
    assert await put(storage, "a", b"3")
    assert look(path) == [("a", b"3")]


async def test_a_session_in_a_file_that_vanished_is_not_made_up(storage, path):
    sessions = Sessions(initial=Counter, storage=storage)
    await sessions.update("a", lambda _: Counter(5))
    aside = path.with_name("aside.db")
    path.rename(aside)
    with pytest.raises(StorageUnavailable):
        async with sessions.open("a"):
            pytest.fail("the handler ran")
    aside.rename(path)
    assert await sessions.get("a") == Counter(5)


async def test_a_folder_that_vanished_with_its_file_may_come_back(open_storage, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    storage = open_storage(folder / "bot.db")
    await put(storage, "a", b"1")
    folder.rename(tmp_path / "unmounted")
    with pytest.raises(StorageUnavailable):
        await value_of(storage)
    assert not folder.exists()
    (tmp_path / "unmounted").rename(folder)
    assert await value_of(storage) == b"1"


async def make_backup(path, value):
    backup = path.with_name("backup.db")
    storage = SQLiteStorage(backup)
    await storage.put([Put("a", value, ANY), *(Put(f"b{i}", value, ANY) for i in range(300))])
    await storage.aclose()
    return backup


@pytest.mark.parametrize("size", [1, 300])
async def test_another_file_put_in_its_place_is_the_one_that_counts(storage, path, size):
    backup = await make_backup(path, b"of the backup")
    await storage.put([Put(f"a{i}", b"old" * 20, ANY) for i in range(size)])
    await put(storage, "a", b"old")
    backup.replace(path)  # while the log of the old one still stands beside it
    assert await value_of(storage) == b"of the backup"
    assert await value_of(storage, "a0") is None
    assert await put(storage, "a", b"new")
    await storage.aclose()
    assert look(path, "PRAGMA integrity_check") == [("ok",)]
    assert dict(look(path)) == {"a": b"new"} | {f"b{i}": b"of the backup" for i in range(300)}


async def test_two_storages_on_a_file_that_is_replaced_both_read_the_new_one(open_storage, path):
    backup = await make_backup(path, b"of the backup")
    one, two = open_storage(), open_storage()
    await put(one, "a", b"old")
    assert await value_of(two) == b"old"
    backup.replace(path)
    assert await value_of(one) == b"of the backup"
    assert await put(one, "c", b"new")
    assert await value_of(two) == b"of the backup"
    assert await value_of(two, "c") == b"new"
    assert await put(two, "d", b"new")
    assert await value_of(one, "d") == b"new"
    await one.aclose()
    await two.aclose()
    assert look(path, "PRAGMA integrity_check") == [("ok",)]
    assert len(look(path)) == 303


async def test_a_write_based_on_a_replaced_file_is_refused(storage, path):
    backup = await make_backup(path, b"of the backup")
    await put(storage, "a", b"old")
    (record,) = await storage.get(["a"])
    backup.replace(path)
    assert await put(storage, "a", b"new", record.token) is False


async def test_a_file_that_is_no_database_is_left_as_it_is(storage, path):
    junk = b"My dear diary, " * 1000
    path.write_bytes(junk)
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="file is not a database"):
            await value_of(storage)
        with pytest.raises(StorageUnavailable, match="file is not a database"):
            await put(storage, "a", b"1")
    assert path.read_bytes() == junk
    assert [file.name for file in path.parent.iterdir()] == ["bot.db"]
    backup = await make_backup(path, b"of the backup")
    backup.replace(path)
    assert await value_of(storage) == b"of the backup"


async def test_a_database_damaged_in_the_middle_raises_and_goes_on_when_restored(storage, path):
    await storage.put([Put(f"key {i}", os.urandom(500), ANY) for i in range(500)])
    await storage.aclose()
    kept = path.with_name("kept.db")
    shutil.copy(path, kept)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 8192))
    again = SQLiteStorage(path)
    with pytest.raises(StorageUnavailable, match=r"malformed|not a database"):
        await again.get([f"key {i}" for i in range(500)])
    kept.replace(path)
    assert await value_of(again, "key 499") is not None
    await again.aclose()


async def test_a_damaged_schema_that_can_not_even_be_quoted_is_said(storage, path):
    await put(storage, "a", b"1")
    await storage.aclose()
    path.write_bytes(path.read_bytes().replace(b" TABLE", b" \xc5\xff\xfe\xfd\xf0"))
    again = SQLiteStorage(path)
    with pytest.raises(StorageUnavailable, match="schema is malformed"):
        await value_of(again)
    await again.aclose()


async def test_a_folder_in_the_place_of_the_file_is_said(open_storage, tmp_path):
    with pytest.raises(StorageUnavailable, match="unable to open"):
        await value_of(open_storage(tmp_path))


async def test_a_missing_folder_is_said_and_not_made(open_storage, tmp_path):
    storage = open_storage(tmp_path / "missing" / "bot.db")
    with pytest.raises(StorageUnavailable, match=r"folder .*missing does not exist"):
        await value_of(storage)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "missing").mkdir()
    assert await put(storage, "a", b"1")


async def test_a_file_that_may_only_be_read_is_said(path):
    script = """
        import asyncio, os, sys, tempfile
        from gramkeep import StorageUnavailable
        from gramkeep.storage import ANY, Put
        from gramkeep.storages.sqlite import SQLiteStorage

        async def attempt(path, **options):
            storage = SQLiteStorage(path)
            try:
                await storage.put([Put("a", b"1", ANY)])
            except StorageUnavailable as error:
                print(error.reason)
            finally:
                await storage.aclose()

        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/bot.db"
            asyncio.run(attempt(path))
            before = open(path, "rb").read()
            os.chmod(path, 0o444)
            os.chmod(folder, 0o555)
            if os.getuid() == 0:  # whom permissions don't stop
                os.seteuid(65534)
            asyncio.run(attempt(path))
            assert open(path, "rb").read() == before
            if os.getuid() == 0:
                os.seteuid(0)
            os.chmod(folder, 0o755)
            os.chmod(path, 0o644)
            asyncio.run(attempt(path))
    """
    said = await asyncio.to_thread(run_script, script)
    assert "readonly" in said or "unable to open" in said
    assert len(said.splitlines()) == 1


async def test_a_table_that_another_program_made_otherwise_is_said(open_storage, path):
    look(path, "CREATE TABLE gramkeep_sessions (key TEXT, text TEXT)")
    with pytest.raises(StorageUnavailable, match=r"expires_at|value"):
        await value_of(open_storage())


async def test_the_tables_of_others_in_the_file_are_left_alone(storage, path):
    look(path, "CREATE TABLE users (name TEXT)")
    look(path, "INSERT INTO users VALUES ('Ann')")
    await put(storage, "a", b"1")
    assert look(path, "SELECT * FROM users") == [("Ann",)]


async def test_the_stored_form_is_the_documented_one(storage, path):
    await put(storage, "a", b"1")
    await put(storage, "b", b"2", ttl=1000)
    rows = look(path, "SELECT key, value, typeof(value), expires_at FROM gramkeep_sessions")
    assert rows[0] == ("a", b"1", "blob", None)
    key, value, kind, expires_at = rows[1]
    assert (key, value, kind) == ("b", b"2", "blob")
    assert expires_at == pytest.approx((time.time() + 1000) * 1000, abs=60_000)


# Options.


async def test_a_url_can_have_options(tmp_path, statements):
    url = f"sqlite:///{tmp_path}/my%20bot.db?synchronous=NORMAL&busy_timeout=0.25&table=chats"
    storage = SQLiteStorage.from_url(url)
    await put(storage, "a", b"1")
    await storage.aclose()
    assert "PRAGMA synchronous = NORMAL" in statements
    assert look(tmp_path / "my bot.db", "SELECT key, value FROM chats") == [("a", b"1")]


@pytest.mark.parametrize("name", ["bot#1.db", "bot?.db", "bot%20.db", "b ö t.db", "file:bot.db"])
async def test_a_file_may_have_any_name(open_storage, tmp_path, name):
    storage = open_storage(tmp_path / name)
    await put(storage, "a", b"1")
    await storage.aclose()
    assert [file.name for file in tmp_path.iterdir()] == [name]


async def test_a_number_sign_in_a_url_belongs_to_the_name(tmp_path):
    storage = SQLiteStorage.from_url(f"sqlite:///{tmp_path}/bot#1.db")
    await put(storage, "a", b"1")
    await storage.aclose()
    assert [file.name for file in tmp_path.iterdir()] == ["bot#1.db"]


async def test_a_relative_path_stays_where_it_was(open_storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = SQLiteStorage.from_url("sqlite:///bot.db")
    monkeypatch.chdir("/")
    await put(storage, "a", b"1")
    await storage.aclose()
    assert [file.name for file in tmp_path.iterdir()] == ["bot.db"]


@pytest.mark.parametrize("table", ['a"b', '"', "a'b", "a;b", "select", "a b", "x]", "Übersicht"])
async def test_a_table_may_have_any_name(open_storage, path, table):
    storage = open_storage(table=table)
    await storage.put([Put("a", b"1", ANY), Put("b", b"2", ANY, 0.001)])
    assert await value_of(storage) == b"1"
    assert [key async for key in storage.scan("a")] == ["a"]
    assert await put(storage, "a", b"2", b"1")
    assert await put(storage, "c", b"3", ABSENT)
    names = [name for (name,) in look(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert names == [table]


async def test_two_tables_of_one_file_are_two_storages(open_storage):
    one, two = open_storage(table="one"), open_storage(table="two")
    await put(one, "a", b"1")
    await put(two, "a", b"2")
    assert (await value_of(one), await value_of(two)) == (b"1", b"2")


@pytest.mark.parametrize(
    "options",
    [
        {"path": ""},
        {"path": ":memory:"},
        {"path": "a\0b"},
        {"synchronous": "OFF"},
        {"synchronous": "full"},
        {"busy_timeout": 0},
        {"busy_timeout": "1"},
        {"table": ""},
        {"table": "a\0b"},
    ],
    ids=repr,
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        SQLiteStorage(**{"path": "bot.db", **options})


# Expiry.


async def test_expired_rows_are_swept_away(storage, path, monkeypatch):
    monkeypatch.setattr(sqlite_database, "SWEEP_EVERY", 0.0)
    await storage.put([Put(f"short {i}", b"1", ANY, 0.001) for i in range(1200)])
    await put(storage, "long", b"1", ttl=1000)
    await put(storage, "forever", b"1")
    await asyncio.sleep(0.01)
    for _ in range(4):  # a commit sweeps only so much, to stay short
        await put(storage, "a", b"1")
    assert look(path, "SELECT key FROM gramkeep_sessions ORDER BY key") == [
        ("a",),
        ("forever",),
        ("long",),
    ]


async def test_a_sweep_that_found_much_goes_on_with_the_next_commit(storage, path, monkeypatch):
    monkeypatch.setattr(sqlite_database, "SWEEP_EVERY", 0.0)
    await storage.put([Put(f"short {i}", b"1", ANY, 0.001) for i in range(1200)])
    monkeypatch.setattr(sqlite_database, "SWEEP_EVERY", 3600.0)
    await asyncio.sleep(0.01)
    again = SQLiteStorage(path, synchronous="NORMAL")
    monkeypatch.setattr(time, "monotonic", lambda start=time.monotonic: start() + 7200)
    for _ in range(4):
        await put(again, "a", b"1")
    await again.aclose()
    assert look(path, "SELECT count(*) FROM gramkeep_sessions") == [(1,)]


# Cancelling, threads, the loop.


@pytest.mark.parametrize("seed", range(4))
async def test_a_put_cancelled_at_any_moment_is_done_or_undone_and_settled(storage, path, seed):
    chance = random.Random(seed)
    await put(storage, "a", b"0")
    current = b"0"
    for number in range(1, 40):
        new = b"%d" % number
        task = asyncio.create_task(put(storage, "a", new, current))
        others = [asyncio.create_task(put(storage, f"o{i}", new)) for i in range(3)]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.002)
        task.cancel()
        await asyncio.wait([task])
        (settled,) = look(path, "SELECT value FROM gramkeep_sessions WHERE key = 'a'")
        assert settled[0] in (current, new)
        if not task.cancelled():
            assert task.result() is True
            assert settled[0] == new
        assert await asyncio.gather(*others) == [True] * 3
        assert await value_of(storage) == settled[0]
        current = settled[0]


async def test_a_put_cancelled_while_it_waits_for_another_process_is_settled_all_the_same(
    open_storage, path
):
    storage = open_storage(busy_timeout=20)
    await put(storage, "a", b"1")
    async with write_lock(path):
        task = asyncio.create_task(put(storage, "a", b"2"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    settled = look(path)
    await asyncio.sleep(0.05)
    assert look(path) == settled


async def test_a_get_cancelled_at_any_moment_harms_nothing(storage):
    chance = random.Random(5)
    await put(storage, "a", b"1")
    for _ in range(100):
        task = asyncio.create_task(storage.get(["a"]))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await value_of(storage) == b"1"


def threads_of(storage_name):
    return [thread for thread in threading.enumerate() if thread.name == storage_name]


async def test_a_storage_that_is_let_go_of_ends_its_thread(path):
    storage = SQLiteStorage(path)
    await put(storage, "a", b"1")
    name = storage.name
    (thread,) = threads_of(name)
    del storage
    gc.collect()
    await asyncio.to_thread(thread.join, 10)
    assert not threads_of(name)
    assert look(path) == [("a", b"1")]


async def test_a_closed_storage_has_no_thread(storage):
    await put(storage, "a", b"1")
    await storage.aclose()
    assert not threads_of(storage.name)


async def test_a_storage_that_was_never_used_has_no_thread_and_no_file(path):
    storage = SQLiteStorage(path)
    assert not threads_of(storage.name)
    await storage.aclose()
    assert not path.exists()


async def test_a_bot_that_is_busy_saving_does_not_stall_its_loop(open_storage):
    sessions = Sessions(initial=Counter, storage=open_storage())
    async with Pulse() as pulse:
        for _ in range(10):
            await asyncio.gather(
                *(
                    sessions.update(f"key {i}", lambda c: replace(c, count=c.count + 1))
                    for i in range(100)
                )
            )
    assert pulse.longest < 0.5
    assert await sessions.get("key 7") == Counter(10)


def test_a_storage_serves_one_loop_after_another(path):
    storage = SQLiteStorage(path)
    assert asyncio.run(put(storage, "a", b"1"))
    assert asyncio.run(value_of(storage)) == b"1"
    asyncio.run(storage.aclose())
