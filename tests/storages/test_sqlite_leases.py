"""The leases of SQLiteStorage: their file, other processes, and what they must not cost."""

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing, contextmanager

import pytest

from gramkeep import Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, BUSY, KEEP, PLACE_KEPT, Lease, Put
from gramkeep.storages.sqlite import SQLiteStorage
from gramkeep.storages.sqlite import leases as sqlite_leases
from gramkeep.testing.conformance.base import attempts

SHORT = 0.6  # seconds of a lease that ends in the test


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bot.db"


@pytest.fixture
def leases_path(tmp_path):
    return tmp_path / "bot.db-leases"


@pytest.fixture
def open_storage(opening, path):
    return lambda place=path, **options: opening(SQLiteStorage, place, **options)


@pytest.fixture
def storage(open_storage):
    return open_storage(synchronous="NORMAL")


@pytest.fixture
def statements(monkeypatch):
    """Every statement that any connection opened from now on carries out, with its file."""
    seen = []
    connect = sqlite3.connect

    def traced(place, **options):
        connection = connect(place, **options)
        name = str(place).partition("?")[0].rpartition("/")[2]
        connection.set_trace_callback(lambda statement: seen.append((name, statement)))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


async def claim(storage, key="a", owner="one", *, seconds=60.0, waited=0.0):
    lease = Lease(owner, seconds, {key: waited} if waited else {})
    return (await storage.claim([key], lease))[0]


async def put(storage, value, expected=ANY, key="a", owner="one", *, hold=False):
    return (await storage.put([Put(key, value, expected, None, hold)], Lease(owner, 60.0)))[0]


async def value_of(storage, key="a"):
    (record,) = await storage.get([key])
    return None if record is None else record.value


def look(path, statement, *parameters):
    """Ask another connection, as another program would."""
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def rows(leases_path):
    query = "SELECT key, owner, waiter FROM gramkeep_sessions ORDER BY key"
    return look(leases_path, query)


@contextmanager
def write_lock(path):
    """Hold a file's write lock, as a process does that hangs."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def program(script, *arguments):
    """Run a program of its own, and make sure that it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def line_of(process):
    return (await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 30)).strip()


# What a lease costs.


async def test_what_never_claims_has_no_file_of_leases(storage, path, leases_path):
    await storage.put([Put("a", b"1", ABSENT)])
    await storage.get(["a"])
    assert path.exists()
    assert not leases_path.exists()


async def test_leases_are_not_waited_for_until_they_are_on_the_disk(storage, path):
    database = storage._make_database()
    try:
        leases, sessions = (
            file.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
            for file in (database._leases._file, database._file)
        )
        assert (leases, sessions) == ((0,), (1,))
    finally:
        database.close()


async def test_claiming_and_giving_up_write_nothing_to_the_file_of_the_sessions(
    storage, path, statements
):
    await put(storage, b"1")
    log = path.with_name("bot.db-wal")
    before = log.read_bytes()
    statements.clear()
    assert (await claim(storage)).value == b"1"
    assert await put(storage, KEEP)
    assert log.read_bytes() == before
    assert [text[:6] for name, text in statements if name == "bot.db"] == ["SELECT"]


async def test_giving_up_does_not_wait_for_another_process_that_writes(storage, path):
    await put(storage, b"1")
    await claim(storage)
    with write_lock(path):
        assert await asyncio.wait_for(put(storage, KEEP), 5)
    assert await claim(storage, owner="two") is not BUSY


async def test_calls_that_gather_share_their_transactions(storage, path, statements):
    keys = [f"key {n}" for n in range(200)]
    await storage.get(["a"])
    statements.clear()
    answers = await asyncio.gather(*(claim(storage, key) for key in keys))
    assert answers == [None] * len(keys)
    assert await asyncio.gather(*(put(storage, b"1", ABSENT, key) for key in keys)) == [True] * 200
    for name in ("bot.db", "bot.db-leases"):
        begun = [text for file, text in statements if file == name and text.startswith("BEGIN")]
        assert 1 <= len(begun) <= 12
    reads = [text for file, text in statements if file == "bot.db" and text.startswith("SELECT")]
    assert 1 <= len(reads) <= 12


async def test_a_lease_is_given_up_after_the_commit_of_what_was_saved(storage, statements):
    await claim(storage)
    statements.clear()
    await put(storage, b"1")
    commit = statements.index(("bot.db", "COMMIT"))
    changes = [
        index
        for index, (name, text) in enumerate(statements)
        if name == "bot.db-leases" and not text.startswith(("SELECT", "PRAGMA"))
    ]
    assert changes
    assert all(index > commit for index in changes)


async def test_a_lease_that_nobody_else_can_have_taken_is_not_looked_up(storage, statements):
    for number in range(2):
        await claim(storage)
        statements.clear()
        assert await put(storage, b"%d" % number)
        looks = [name for name, text in statements if text.startswith("SELECT")]
        assert ("bot.db-leases" in looks) is (number == 0), "the first time it isn't known"


@pytest.mark.parametrize("how", ["it ran out", "the file was deleted", "over the same connection"])
async def test_a_lease_that_another_one_has_by_now_is_seen(open_storage, leases_path, how):
    first, second = open_storage(), open_storage()
    await claim(first)
    await put(first, b"1")  # from here on its leases are known
    await claim(first, seconds=60 if how == "the file was deleted" else 0.01)
    await asyncio.sleep(0.02)
    if how == "the file was deleted":
        for suffix in ("", "-wal", "-shm"):
            leases_path.with_name(leases_path.name + suffix).unlink(missing_ok=True)
    other = first if how == "over the same connection" else second
    assert (await claim(other, owner="two")).value == b"1"
    assert not await put(first, b"2", owner="one")
    assert await value_of(first) == b"1"
    assert await put(other, b"3", owner="two")


async def test_who_takes_over_waits_for_the_last_holder_who_is_writing(open_storage, path):
    first, second = open_storage(), open_storage()
    await put(first, b"1")
    await put(second, b"1")  # both have opened their files
    await claim(first, seconds=0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # as the first one, stopped on its way to COMMIT
        connection.execute("UPDATE gramkeep_sessions SET value = ?", (b"2",))
        await asyncio.sleep(0.02)
        taking = asyncio.create_task(claim(second, owner="two"))
        assert not (await asyncio.wait([taking], timeout=0.3))[0]
        connection.execute("COMMIT")
    assert (await taking).value == b"2"
    assert await put(second, b"3", b"2", owner="two")


async def test_asking_again_in_vain_only_reads(storage, leases_path, monkeypatch):
    monkeypatch.setattr(sqlite_leases, "PLACE_KEPT", 120.0)
    monkeypatch.setattr(sqlite_leases, "PLACE_RENEWED", 60.0)
    await claim(storage)
    assert await claim(storage, owner="two", waited=1.0) is BUSY
    assert await claim(storage, owner="three", waited=5.0) is BUSY
    log = leases_path.with_name("bot.db-leases-wal")
    before = log.read_bytes()
    with write_lock(leases_path):
        for owner, waited in [("two", 1.1), ("three", 5.1)] * 3:
            asking = claim(storage, owner=owner, waited=waited)
            assert await asyncio.wait_for(asking, 5) is BUSY
    assert log.read_bytes() == before


async def test_no_rows_are_left_when_all_is_given_up(storage, leases_path, monkeypatch):
    monkeypatch.setattr(sqlite_leases, "PLACE_KEPT", 120.0)
    await asyncio.gather(*(claim(storage, f"key {n}") for n in range(20)))
    assert await claim(storage, "key 3", "two") is BUSY
    assert len(rows(leases_path)) == 20
    await asyncio.gather(*(put(storage, b"1", key=f"key {n}") for n in range(20)))
    assert rows(leases_path) == [("key 3", None, "two")]
    assert await claim(storage, "key 3", "two", waited=0.1) is not BUSY
    assert await put(storage, KEEP, key="key 3", owner="two")
    assert rows(leases_path) == []


async def test_rows_of_the_dead_are_swept_away(storage, leases_path, monkeypatch):
    await claim(storage, "held")
    await claim(storage, "held by the dead", seconds=0.01)
    for key in attempts(within=PLACE_KEPT):  # which is waited for by the dead
        await claim(storage, key)
        assert await claim(storage, key, "two") is BUSY
        await put(storage, KEEP, key=key)
    await asyncio.sleep(PLACE_KEPT + 0.1)
    assert {row[0] for row in rows(leases_path)} >= {"held", "held by the dead", key}
    monkeypatch.setattr(sqlite_leases, "SWEEP_EVERY", 0.0)
    await claim(storage, "new")
    assert rows(leases_path) == [("held", "one", None), ("new", "one", None)]


# Other processes.

HOLDER = """
    import asyncio, sys, time
    from gramkeep.storage import Lease
    from gramkeep.storages.sqlite import SQLiteStorage

    async def main():
        storage = SQLiteStorage(sys.argv[1])
        print(await storage.claim(["a"], Lease("holder", float(sys.argv[2]))), flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
"""


@pytest.fixture
def no_process_is_known_to_be_dead(monkeypatch):
    """As where the others run in containers of their own, or the system doesn't tell."""
    monkeypatch.setattr(sqlite_leases, "is_dead", lambda _: False)


@pytest.mark.usefixtures("no_process_is_known_to_be_dead")
async def test_what_a_killed_process_held_is_free_after_its_lease_and_not_before(storage, path):
    await storage.put([Put("a", b"1", ANY)])
    asked = time.monotonic()
    with program(HOLDER, path, SHORT * 2) as holder:
        assert "BUSY" not in await line_of(holder)
        answered = time.monotonic()
        holder.send_signal(signal.SIGKILL)
    while await claim(storage) is BUSY:
        assert time.monotonic() - answered < 2 * SHORT + 20
        is_refused = await put(storage, b"1") is False
        if time.monotonic() - asked < 2 * SHORT:  # it hasn't run out before the answer
            assert is_refused
        await asyncio.sleep(0.005)
    assert time.monotonic() - asked > 2 * SHORT - 0.01
    assert await put(storage, b"2", b"1")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is dead")
async def test_what_a_process_held_is_free_as_soon_as_it_is_dead_and_not_before(storage, path):
    await storage.put([Put("a", b"1", ANY)])
    with program(HOLDER, path, 60) as holder:
        assert "BUSY" not in await line_of(holder)
        assert await claim(storage) is BUSY
        holder.send_signal(signal.SIGSTOP)
        assert await claim(storage) is BUSY
        assert await put(storage, b"2", b"1") is False
        holder.send_signal(signal.SIGKILL)
        async with asyncio.timeout(10):
            while await claim(storage) is BUSY:  # it may be a zombie by now, which is dead
                await asyncio.sleep(0.001)
    assert await put(storage, b"2", b"1")


async def test_a_forked_child_finds_what_its_parent_holds(path):
    script = """
        import asyncio, os, sys, warnings
        from gramkeep.storage import BUSY, Lease
        from gramkeep.storages.sqlite import SQLiteStorage

        storage = SQLiteStorage(sys.argv[1])

        async def claim(key):
            (answer,) = await storage.claim([key], Lease(str(os.getpid()), 60.0))
            return answer is BUSY

        assert not asyncio.run(claim("parent"))
        warnings.simplefilter("ignore")  # that this program has threads is the point
        child = os.fork()
        if child == 0:
            is_right = asyncio.run(claim("parent")) and not asyncio.run(claim("child"))
            os._exit(0 if is_right else 1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), asyncio.run(claim("parent")), flush=True)
    """
    with program(script, path) as process:
        assert await line_of(process) == "0 False"


UPDATER = """
    import asyncio, json, os, sys, time
    from gramkeep import SessionConflict, Sessions

    async def main(url, seconds):
        counts = {}
        conflicts = 0

        async def go_on(key):
            nonlocal conflicts
            until = time.monotonic() + seconds
            while time.monotonic() < until or counts.get(key, 0) < 4:
                try:
                    async with sessions.open(key) as session:
                        session.data["count"] = session.data.get("count", 0) + 1
                except SessionConflict:
                    conflicts += 1
                else:
                    counts[key] = counts.get(key, 0) + 1

        async with Sessions(initial=dict, storage=url) as sessions:
            await asyncio.gather(*(go_on(key) for key in ("a", "b", "c")))
        print(json.dumps([counts, conflicts]), flush=True)

    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
"""


async def told_by(*processes):
    told = [json.loads(await line_of(process)) for process in processes]
    counts = {key: sum(counts.get(key, 0) for counts, _ in told) for key in ("a", "b", "c")}
    return counts, sum(conflicts for _, conflicts in told)


async def test_processes_wait_for_each_other_instead_of_meeting_in_conflicts(path, leases_path):
    url = f"sqlite:///{path}?synchronous=NORMAL"
    with program(UPDATER, url, 1.5) as one, program(UPDATER, url, 1.5) as two:
        counts, conflicts = await told_by(one, two)
    assert conflicts == 0
    async with Sessions(initial=dict, storage=url) as sessions:
        assert {key: data["count"] async for key, data in sessions.items()} == counts
    assert [row for row in rows(leases_path) if row[1] is not None] == []


async def test_no_update_is_lost_while_the_leases_are_deleted_again_and_again(path, tmp_path):
    url = f"sqlite:///{path}?synchronous=NORMAL"
    chance = random.Random(7)
    with program(UPDATER, url, 1.5) as one, program(UPDATER, url, 1.5) as two:
        telling = asyncio.create_task(told_by(one, two))
        deleted = 0
        while not telling.done():
            for file in tmp_path.glob("bot.db-leases*"):
                if chance.random() < 0.6:
                    file.unlink(missing_ok=True)
                    deleted += 1
            await asyncio.sleep(0.1)
        counts, _ = await telling
    assert deleted > 5
    async with Sessions(initial=dict, storage=url) as sessions:
        assert {key: data["count"] async for key, data in sessions.items()} == counts


# The file of the leases.


async def test_leases_outlive_the_handle(storage, open_storage):
    await claim(storage)
    await storage.aclose()
    again = open_storage()
    assert await claim(again, owner="two") is BUSY
    assert await claim(again) is None


@pytest.mark.parametrize("leftovers", [True, False], ids=["alone", "with its log"])
async def test_a_file_of_leases_that_vanishes_is_made_anew(
    storage, open_storage, tmp_path, leases_path, leftovers
):
    other = open_storage()
    await storage.put([Put("a", b"1", ANY)])
    await claim(storage)
    assert await claim(other, owner="two") is BUSY
    for file in [leases_path] if leftovers else tmp_path.glob("bot.db-leases*"):
        file.unlink()
    assert (await claim(other, owner="two")).value == b"1"  # who held it lost it
    assert leases_path.exists()
    assert await claim(storage) is BUSY
    assert await put(storage, b"late", b"1") is False
    assert await put(other, b"2", b"1", owner="two") is True
    assert (await claim(storage)).value == b"2"
    assert await claim(other, owner="two") is BUSY


async def test_a_save_whose_lease_vanished_is_compared_with_what_is_stored(storage, tmp_path):
    await storage.put([Put("a", b"1", ANY)])
    for basis, answer in [(b"1", True), (b"1", False)]:
        await claim(storage)
        for file in tmp_path.glob("bot.db-leases*"):
            file.unlink()
        assert await put(storage, b"2", basis) is answer
    assert await value_of(storage) == b"2"


def of_other_columns(path):
    look(path, "CREATE TABLE gramkeep_sessions (key TEXT, holder TEXT)")


def junk(path):
    path.write_bytes(b"My dear diary, " * 1000)


def cut_off(path):
    look(path, "CREATE TABLE gramkeep_sessions (key TEXT)")
    path.write_bytes(path.read_bytes()[:5000])


def of_a_later_sqlite(path):
    look(path, "CREATE TABLE t (key TEXT)")
    content = bytearray(path.read_bytes())
    content[18:20] = b"\x09\x09"
    path.write_bytes(content)


def with_no_words_in_it(path):
    look(path, "CREATE TABLE gramkeep_sessions (key TEXT)")
    path.write_bytes(path.read_bytes().replace(b" TABLE", b" \xc5\xff\xfe\xfd\xf0"))


def empty(path):
    path.touch()


@pytest.mark.parametrize(
    "make", [of_other_columns, junk, cut_off, of_a_later_sqlite, with_no_words_in_it, empty]
)
async def test_a_file_that_is_none_of_leases_is_replaced(
    storage, open_storage, leases_path, monkeypatch, make
):
    monkeypatch.setattr(sqlite_leases, "PLACE_KEPT", 120.0)
    make(leases_path)
    assert await claim(storage) is None
    assert await claim(open_storage(), owner="two") is BUSY
    assert await put(storage, b"1", ABSENT) is True
    assert rows(leases_path) == [("a", None, "two")]


async def test_a_file_of_leases_that_is_overwritten_meanwhile_harms_nothing(
    storage, open_storage, leases_path
):
    other = open_storage()
    await claim(storage)
    assert await claim(other, owner="two") is BUSY
    leases_path.with_name("junk").write_bytes(b"My dear diary, " * 1000)
    leases_path.with_name("junk").replace(leases_path)
    assert await put(storage, b"1", ABSENT) is True
    assert (await claim(other, owner="two")).value == b"1"
    assert await claim(storage) is BUSY


async def test_a_file_of_leases_that_can_not_be_opened_is_named(storage, leases_path):
    leases_path.mkdir()
    with pytest.raises(StorageUnavailable, match=r"bot\.db-leases: unable to open"):
        await claim(storage)
    leases_path.rmdir()
    assert await claim(storage) is None


async def test_where_the_sessions_vanished_nothing_is_claimed(storage, path, leases_path):
    await storage.put([Put("a", b"1", ANY)])
    aside = path.with_name("aside.db")
    path.rename(aside)
    with pytest.raises(StorageUnavailable, match="No such file"):
        await claim(storage)
    assert not leases_path.exists()
    aside.rename(path)
    assert (await claim(storage)).value == b"1"


async def test_what_was_saved_is_told_even_if_the_lease_can_not_be_given_up(
    open_storage, leases_path
):
    storage = open_storage(busy_timeout=0.1)
    await claim(storage)
    with write_lock(leases_path):
        assert await put(storage, b"1", ABSENT) is True
        with pytest.raises(StorageUnavailable, match=r"bot\.db-leases: .*busy_timeout"):
            await put(storage, KEEP)
    assert await value_of(storage) == b"1"
    assert await claim(storage, owner="two") is BUSY  # until the lease ends
    assert await put(storage, KEEP) is True
    assert (await claim(storage, owner="two")).value == b"1"


async def test_whoever_knows_the_file_by_a_link_sees_its_leases(
    storage, open_storage, path, tmp_path
):
    await claim(storage)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.db").symlink_to(path)
    linked = open_storage(folder / "link.db")
    assert await claim(linked, owner="two") is BUSY
    assert [file.name for file in folder.iterdir()] == ["link.db"]


async def test_one_claim_that_can_not_even_be_asked_fails_alone(storage):
    outcomes = await asyncio.gather(
        claim(storage, "a"),
        claim(storage, "half \ud800"),
        claim(storage, "b"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], UnicodeEncodeError)
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert await claim(storage, "b", "two") is BUSY


# The clock.


async def test_setting_the_clock_neither_ends_leases_nor_prolongs_them(
    storage, open_storage, monkeypatch
):
    await claim(storage, "a")
    await claim(storage, "b", seconds=SHORT)
    other = open_storage()
    for step in (86_400.0, -86_400.0):
        now = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now, step=step: now() + step)
            assert await claim(other, "a", "two") is BUSY
    await asyncio.sleep(SHORT + 0.1)
    assert await claim(other, "b", "two") is None


async def test_leases_from_before_the_machine_was_started_again_are_void(storage, leases_path):
    await claim(storage)
    await claim(storage, owner="waiting", waited=5.0)
    later = "taken = taken + 1e6, until = until + 1e6, seen = seen + 1e6"
    look(leases_path, f"UPDATE gramkeep_sessions SET {later}")
    assert await put(storage, b"1", ABSENT, owner="three", hold=True) is True
    assert (await claim(storage, owner="two")).value == b"1"
    assert await put(storage, KEEP, owner="two") is True
    assert rows(leases_path) == []


# Tables, layouts, loops.


async def test_the_tables_of_a_file_are_leased_each_for_itself(open_storage):
    one, two = open_storage(table="one"), open_storage(table='a "b"')
    assert await claim(one, owner="one") is None
    assert await claim(two, owner="two") is None
    assert await claim(two, owner="one") is BUSY


async def test_gramios_table_can_be_leased(open_storage, path):
    storage, other = open_storage(layout="gramio"), open_storage(layout="gramio")
    await storage.put([Put("a", b'{"count":1}', ANY)])
    record = await claim(storage)
    assert record.value == b'{"count":1}'
    assert await claim(other, owner="two") is BUSY
    assert await put(other, b"{}", record.token, owner="two") is False
    assert await put(storage, b'{"count":2}', record.token) is True
    assert (await claim(other, owner="two")).value == b'{"count":2}'
    assert look(path, "SELECT name FROM sqlite_master") == [
        ("gramio_storage",),
        ("sqlite_autoindex_gramio_storage_1",),
    ]


def test_a_lease_is_kept_from_one_loop_to_the_next(path):
    storage = SQLiteStorage(path)
    assert asyncio.run(claim(storage)) is None
    assert asyncio.run(claim(storage, owner="two")) is BUSY
    assert asyncio.run(put(storage, b"1", ABSENT)) is True
    assert asyncio.run(claim(storage, owner="two")).value == b"1"
    asyncio.run(storage.aclose())
