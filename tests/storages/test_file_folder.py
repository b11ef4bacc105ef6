"""FileStorage beyond its contract: batches, permissions, and folders that come and go."""

import asyncio
import errno
import fcntl
import json
import os
import resource
import shutil
import stat
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from gramkeep import ConfigurationError, Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.file import FileStorage
from gramkeep.storages.file import folder as file_folder
from gramkeep.storages.file import storage as file_storage
from gramkeep.storages.file.folder import Folder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions"


@pytest.fixture
def open_storage(opening, path):
    return lambda place=path, **options: opening(FileStorage, place, **options)


@pytest.fixture
def storage(open_storage):
    return open_storage()


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """What was brought to the disk, in order: ``"file"`` or the folder's name."""
    seen = []
    fsync = os.fsync

    def traced(descriptor):
        fsync(descriptor)
        status = os.fstat(descriptor)
        folders = [path for path in [tmp_path, *tmp_path.rglob("*")] if path.is_dir()]
        names = [path.name for path in folders if os.path.samestat(path.stat(), status)]
        seen.append(names[0] if names else "file")

    monkeypatch.setattr(os, "fsync", traced)
    return seen


async def put(storage, key, value, expected=ANY, ttl=None):
    return (await storage.put([Put(key, value, expected, ttl)]))[0]


async def value_of(storage, key="a"):
    (record,) = await storage.get([key])
    return None if record is None else record.value


async def keys_of(storage, prefix=""):
    return sorted([key async for key in storage.scan(prefix)])


def files_in(path):
    return sorted(
        found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()
    )


@contextmanager
def write_lock(path):
    """Hold the folder's lock, as a process does that is writing, or hangs while it does."""
    with (path / ".gramkeep.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def without_the_powers_of_root():
    """Let permissions count, as they don't for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all():
    """A folder that any user can reach, which pytest's own can't be."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


# Files.


async def test_a_session_is_one_file_that_holds_its_value(storage, path):
    await put(storage, "user:42", b'{"count":1}')
    assert files_in(path) == [".gramkeep.lock", "42/user,42.json"]
    assert (path / "42/user,42.json").read_bytes() == b'{"count":1}'


async def test_a_deleted_session_is_no_file_any_more(storage, path):
    await put(storage, "42", b"1")
    await put(storage, "42", DELETE)
    assert files_in(path) == [".gramkeep.lock"]


async def test_folders_and_files_are_their_owners_alone(storage, path):
    old_mask = os.umask(0)
    try:
        await put(storage, "42", b"1")
        await put(storage, "42", b"2")
    finally:
        os.umask(old_mask)
    modes = {
        found.relative_to(path).as_posix(): stat.S_IMODE(found.stat().st_mode)
        for found in [path, *path.rglob("*")]
    }
    assert modes == {".": 0o700, ".gramkeep.lock": 0o600, "42": 0o700, "42/42.json": 0o600}


async def test_a_folder_that_was_there_keeps_its_permissions(storage, path):
    path.mkdir(0o750)
    path.chmod(0o750)
    await put(storage, "42", b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


async def test_a_file_changed_by_hand_is_read_and_is_a_new_basis(storage, path):
    await put(storage, "42", b'{"count":1}')
    (record,) = await storage.get(["42"])
    (path / "42/42.json").write_text('{\n  "count": 7\n}\n')
    assert await put(storage, "42", b'{"count":2}', record.token) is False
    sessions = Sessions(initial=dict, storage=storage)
    async with sessions, sessions.open("42") as session:
        session.data["count"] += 1
    assert (path / "42/42.json").read_bytes() == b'{"count":8}'


async def test_foreign_files_are_neither_listed_nor_touched(storage, path):
    await put(storage, "42", b"1")
    foreign = [
        *("README.md", "notes.json", ".git/HEAD", "backup/42.json", "42/43.json", "42/42.json~"),
        *("42/.hidden.json", "42/A2.json", "42/%342.json", "xx/notes.txt", "42/.DS_Store"),
    ]
    for name in foreign:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"mine")
    (path / os.fsdecode(b"42/\xff42.json")).write_bytes(b"mine")
    assert await keys_of(storage) == ["42"]
    await put(storage, "42", DELETE)
    assert len(files_in(path)) == len(foreign) + 2


async def test_a_damaged_file_is_an_error_that_names_it_until_it_is_deleted(storage, path):
    await put(storage, "42", b"1", ttl=60)
    await put(storage, "43", b"1")
    damaged = path / "42/42.json"
    damaged.write_bytes(b"#gramkeep oops\n1")
    token = b"1"
    for call in (storage.get(["42"]), storage.put([Put("42", b"2", token)]), keys_of(storage)):
        with pytest.raises(StorageUnavailable, match=r"42/42\.json can't be read"):
            await call
    assert damaged.read_bytes() == b"#gramkeep oops\n1"
    assert await value_of(storage, "43") == b"1"
    assert await put(storage, "42", DELETE) is True
    assert await keys_of(storage) == ["43"]


async def test_a_long_keys_file_without_its_key_is_an_error(storage, path):
    await put(storage, "k" * 300, b"1")
    (found,) = path.rglob("*~*.json")
    found.write_bytes(b"1")
    with pytest.raises(StorageUnavailable, match="named like a session's file"):
        await keys_of(storage)


# Batches.


async def test_puts_that_gather_share_a_sync_of_their_folder(storage, synced):
    await put(storage, "0:42", b"0")
    synced.clear()
    await asyncio.gather(*(put(storage, f"{i}:42", b"1") for i in range(200)))
    assert synced.count("file") == 200
    assert 1 <= synced.count("42") <= 10


async def test_a_put_is_answered_when_file_and_folders_are_on_the_disk(storage, synced, tmp_path):
    await put(storage, "42", b"1")
    assert synced == [tmp_path.name, "sessions", "file", "42"]
    synced.clear()
    await put(storage, "42", DELETE)
    assert synced == ["42"]


async def test_normal_safety_syncs_files_so_that_none_is_torn(open_storage, synced):
    storage = open_storage(synchronous="NORMAL")
    await put(storage, "42", b"1")
    assert synced == ["file"]


async def test_what_changes_nothing_writes_nothing(storage, synced):
    await put(storage, "42", b"1")
    synced.clear()
    assert await put(storage, "42", KEEP) is True
    assert await put(storage, "42", b"2", ABSENT) is False
    assert await put(storage, "43", DELETE) is True
    assert synced == []


async def test_changes_of_one_key_that_go_together_build_on_each_other(storage, path):
    await put(storage, "42", b"0")
    with write_lock(path):
        calls = [
            asyncio.create_task(put(storage, "42", b"1", b"0")),
            asyncio.create_task(put(storage, "42", b"2", b"0")),
            asyncio.create_task(put(storage, "42", DELETE, b"1")),
            asyncio.create_task(put(storage, "42", b"3", ABSENT)),
            asyncio.create_task(put(storage, "42", KEEP, b"3", 60)),
        ]
        await asyncio.sleep(0.05)
    assert await asyncio.gather(*calls) == [True, False, True, True, True]
    (record,) = await storage.get(["42"])
    assert record.value == b"3"
    assert record.expires_at is not None


async def test_only_the_put_that_cant_be_written_fails(storage, path):
    await put(storage, "0", b"0")
    (path / "bb").write_bytes(b"a file where a folder should be")
    outcomes = await asyncio.gather(
        *(put(storage, key, b"1") for key in ("aa", "bb", "cc")), return_exceptions=True
    )
    assert [outcomes[0], outcomes[2]] == [True, True]
    assert isinstance(outcomes[1], StorageUnavailable)
    assert f"{path}/bb" in str(outcomes[1])
    (path / "bb").unlink()
    assert await put(storage, "bb", b"1") is True


async def test_a_call_that_fails_halfway_changes_nothing(storage, path):
    await put(storage, "aa", b"0")
    (path / "bb").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageUnavailable):
        await storage.put([Put("aa", b"1", ANY), Put("cc", b"1", ANY), Put("bb", b"1", ANY)])
    assert await value_of(storage, "aa") == b"0"
    assert files_in(path) == [".gramkeep.lock", "aa/aa.json", "bb"]


# The event loop.


async def test_the_event_loop_goes_on_while_the_disk_is_slow(storage, monkeypatch):
    await put(storage, "42", b"1")
    begun, going_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor):
        begun.set()
        assert going_on.wait(20)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    writing = asyncio.create_task(put(storage, "42", b"2"))
    await asyncio.to_thread(begun.wait, 20)
    assert not writing.done()
    going_on.set()
    assert await writing is True


async def test_the_event_loop_goes_on_while_another_process_writes(storage, path):
    await put(storage, "42", b"1")
    with write_lock(path):
        writing = asyncio.create_task(put(storage, "42", b"2"))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not writing.done()
    assert await writing is True


async def test_another_process_that_never_ends_its_write_is_an_error_after_a_while(
    open_storage, path
):
    storage = open_storage(busy_timeout=0.1)
    await put(storage, "42", b"1")
    with write_lock(path):
        with pytest.raises(StorageUnavailable, match="longer than busy_timeout"):
            await put(storage, "42", b"2")
        assert await value_of(storage, "42") == b"1"  # reading waits for nobody
    assert await put(storage, "42", b"3") is True


async def test_a_lock_on_a_deleted_file_lets_nobody_in(open_storage, path):
    storage = open_storage(busy_timeout=0.3)
    await put(storage, "42", b"1")
    with ExitStack() as third_process:
        with write_lock(path):
            waiting = asyncio.create_task(put(storage, "42", b"2"))
            await asyncio.sleep(0.05)
            (path / ".gramkeep.lock").unlink()
            (path / ".gramkeep.lock").touch()
            third_process.enter_context(write_lock(path))
        with pytest.raises(StorageUnavailable, match="longer than busy_timeout"):
            await waiting
    assert await put(storage, "42", b"2", b"1") is True


# Folders that come and go.


async def test_nothing_is_made_before_the_first_use(storage, path):
    assert not path.exists()
    assert await value_of(storage) is None
    assert path.is_dir()


async def test_the_folder_around_it_is_not_made(open_storage, tmp_path):
    storage = open_storage(tmp_path / "absent" / "sessions")
    with pytest.raises(StorageUnavailable, match=f"the folder {tmp_path}/absent does not exist"):
        await value_of(storage)
    (tmp_path / "absent").mkdir()
    assert await put(storage, "a", b"1") is True


async def test_a_folder_that_vanished_is_not_made_anew(storage, path):
    await put(storage, "a", b"1")
    elsewhere = path.rename(path.with_name("elsewhere"))
    for call in (storage.get(["a"]), storage.put([Put("a", b"2", ANY)]), keys_of(storage)):
        with pytest.raises(StorageUnavailable, match=f"the folder {path} is gone"):
            await call
    assert not path.exists()
    elsewhere.rename(path)
    assert await value_of(storage) == b"1"


async def test_an_empty_folder_in_its_place_makes_no_session_new(storage, path):
    await put(storage, "a", b"1")
    elsewhere = path.rename(path.with_name("elsewhere"))
    path.mkdir()  # as the mount point of a disk that went away
    for call in (storage.get(["a"]), storage.put([Put("a", b"2", ANY)]), keys_of(storage)):
        with pytest.raises(StorageUnavailable, match="another folder is at"):
            await call
    assert list(path.iterdir()) == []
    path.rmdir()
    elsewhere.rename(path)
    assert await value_of(storage) == b"1"


@pytest.mark.parametrize(
    ("step", "comes_first"), [("find", True), ("stage", False)], ids=["locking", "writing"]
)
async def test_a_write_is_not_answered_for_a_folder_that_was_replaced_meanwhile(
    storage, path, monkeypatch, step, comes_first
):
    await put(storage, "a", b"1")
    await value_of(storage, "a")  # it has swept, and nothing goes on there
    method = getattr(Folder, step)

    def replace_around(*args):
        done = method(*args) if comes_first else None
        monkeypatch.undo()
        path.rename(path.with_name("elsewhere"))
        path.mkdir()
        return done if comes_first else method(*args)

    monkeypatch.setattr(Folder, step, replace_around)
    with pytest.raises(StorageUnavailable, match="another folder is at"):
        await put(storage, "a", b"2")
    assert not (path / ".gramkeep.lock").exists()  # or it would be taken for the right one
    with pytest.raises(StorageUnavailable, match="another folder is at"):
        await value_of(storage)


async def test_a_copy_with_sessions_in_it_is_taken_up(storage, path):
    await put(storage, "a", b"1")
    shutil.copytree(path, path.with_name("backup"))
    await put(storage, "a", b"2")
    path.rename(path.with_name("old"))
    path.with_name("backup").rename(path)
    assert await value_of(storage) == b"1"
    assert await put(storage, "a", b"3", b"1") is True


async def test_a_folder_that_vanishes_between_finding_and_reading_it_is_no_new_session(
    storage, path, monkeypatch
):
    await put(storage, "a", b"1")
    content_of = file_storage.content_of

    def late(read):
        if path.exists():
            path.rename(path.with_name("elsewhere"))
        return content_of(read)

    monkeypatch.setattr(file_storage, "content_of", late)
    with pytest.raises(StorageUnavailable):
        await value_of(storage)


async def test_a_file_where_the_folder_should_be_is_an_error_that_names_it(storage, path):
    path.write_bytes(b"mine")
    for call in (storage.get(["a"]), storage.put([Put("a", b"2", ANY)]), keys_of(storage)):
        with pytest.raises(StorageUnavailable, match=f"{path} is not a folder"):
            await call
    assert path.read_bytes() == b"mine"
    path.unlink()
    assert await put(storage, "a", b"1") is True


async def test_a_folder_where_a_file_should_be_is_an_error_and_not_a_new_session(storage, path):
    (path / "42/42.json").mkdir(parents=True)
    for call in (storage.get(["42"]), storage.put([Put("42", b"1", ABSENT)]), keys_of(storage)):
        with pytest.raises(StorageUnavailable, match=r"42/42\.json"):
            await call


async def test_a_folder_that_may_only_be_read_can_be_read(open_to_all):
    with without_the_powers_of_root():
        path = open_to_all / "sessions"
        storage = FileStorage(path)
        await put(storage, "42", b"1")
        for folder in (path, path / "42"):
            folder.chmod(0o500)
        (path / ".gramkeep.lock").chmod(0o400)
        assert await value_of(storage, "42") == b"1"
        assert await value_of(storage, "43") is None
        assert await keys_of(storage) == ["42"]
        for key in ("42", "43"):
            with pytest.raises(StorageUnavailable, match=r"denied.*sessions/"):
                await put(storage, key, b"2")
        for folder in (path, path / "42"):
            folder.chmod(0o700)
        (path / ".gramkeep.lock").chmod(0o600)
        assert await put(storage, "42", b"2") is True
        (path / "42/42.json").chmod(0)
        with pytest.raises(StorageUnavailable, match=r"denied.*42/42.json"):
            await value_of(storage, "42")
        await storage.aclose()


async def test_a_file_that_the_system_cuts_off_leaves_the_old_one_and_no_rubbish(storage, path):
    await put(storage, "42", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        large, small = await asyncio.gather(
            put(storage, "42", bytes(1_000_000)), put(storage, "43", b"1"), return_exceptions=True
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(large, StorageUnavailable)
    assert large.storage == f"file://{path}"
    assert small is True
    assert await value_of(storage, "42") == b"old"
    assert files_in(path) == [".gramkeep.lock", "42/42.json", "43/43.json"]
    assert await put(storage, "42", bytes(1_000_000)) is True


async def test_a_full_disk_is_an_error_until_there_is_room(storage, path, monkeypatch):
    await put(storage, "42", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageUnavailable, match="No space left") as caught:
            await put(storage, "42", b"new")
        assert str(path) in str(caught.value)
    assert await value_of(storage, "42") == b"old"
    assert files_in(path) == [".gramkeep.lock", "42/42.json"]
    assert await put(storage, "42", b"new") is True


# Sweeping.


async def test_what_a_killed_process_left_is_never_listed_and_swept_when_old(
    open_storage, path, monkeypatch
):
    storage = open_storage()
    await put(storage, "42", b"1")
    left = [path / f"42/.gramkeep-{name}.tmp" for name in ("00ff", "11ff")]
    for leftover in left:
        leftover.write_bytes(b"torn")
    old = time.time() - file_storage.LEFT_OVER_AFTER - 1
    os.utime(left[0], (old, old))
    assert await keys_of(storage) == ["42"]
    second = open_storage()
    await put(second, "42", b"2")
    await second.aclose()
    assert files_in(path) == [".gramkeep.lock", "42/.gramkeep-11ff.tmp", "42/42.json"]


async def test_expired_sessions_are_swept_some_at_a_time(open_storage, path, monkeypatch):
    monkeypatch.setattr(file_storage, "SWEEP_EVERY", 0.0)
    monkeypatch.setattr(file_storage, "SWEEP_AT_MOST", 10)
    storage = open_storage()
    await storage.put([Put(f"{n}:short", b"1", ANY, 0.01) for n in range(30)])
    await storage.put([Put(f"{n}:lasting", b"1", ANY, 60) for n in range(5)])
    await asyncio.sleep(0.02)
    counts = []
    for _ in range(8):
        await put(storage, "x", b"1")
        await value_of(storage, "x")  # the sweep is over
        counts.append(len(files_in(path)))
    assert counts == sorted(counts, reverse=True)
    assert max(before - after for before, after in pairwise(counts)) <= 10
    assert counts[-1] == 1 + 5 + 1


async def test_a_sweep_that_fails_fails_no_put(open_storage, path, monkeypatch):
    def no_listing(folder):
        raise PermissionError(folder.path)

    monkeypatch.setattr(file_folder.Folder, "files", no_listing)
    storage = open_storage()
    assert await put(storage, "42", b"1") is True
    assert await put(storage, "42", b"2") is True


# Pruning.


async def expire(storage, *keys):
    """Let sessions expire that no sweep will see: there is one at once, and none for a minute."""
    await put(storage, "first", DELETE)
    await storage.put([Put(key, b"1", ANY, 0.01) for key in keys])
    await asyncio.sleep(0.02)


async def test_prune_removes_no_more_than_asked_for_and_says_how_many(storage, path):
    await expire(storage, *(f"{n}:expired" for n in range(25)))
    await storage.put([Put("lasting", b"1", ANY), Put("living", b"1", ANY, 60)])
    assert await storage.prune(0) == 0
    assert [await storage.prune(10) for _ in range(4)] == [10, 10, 5, 0]
    assert files_in(path) == [".gramkeep.lock", "ng/lasting.json", "ng/living.json"]


async def test_sessions_prune_removes_all_that_expired(storage, path, monkeypatch):
    monkeypatch.setattr(file_storage, "SCAN_PAGE", 7)
    await expire(storage, *(f"{n}" for n in range(130)))
    await storage.put([Put(f"{n}:lasting", b"1", ANY) for n in range(70)])
    sessions = Sessions(storage=storage)
    assert await sessions.prune() == 130
    assert await sessions.prune() == 0
    assert len(files_in(path)) == 1 + 70


async def test_prune_goes_on_where_it_came_to_and_begins_again_at_the_end(storage, monkeypatch):
    looked_at = []
    is_expired = file_storage._Files._is_expired

    def counted(files, place):
        looked_at.append(place)
        return is_expired(files, place)

    monkeypatch.setattr(file_storage._Files, "_is_expired", counted)
    await storage.put([Put(f"{n}:lasting", b"1", ANY) for n in range(50)])
    await expire(storage, *(f"{n}:expired" for n in range(50)))
    assert [await storage.prune(10) for _ in range(5)] == [10] * 5
    assert len(looked_at) <= 100 + 50  # and what was removed once more, under the lock
    await expire(storage, *(f"{n}:lasting" for n in range(50)))
    assert await storage.prune(100) == 50


async def test_prune_over_no_folder_yet_finds_nothing(storage):
    assert await storage.prune(10) == 0


async def test_a_session_that_is_written_while_it_is_pruned_stays(storage, monkeypatch):
    await expire(storage, "a", "b")
    locked = file_folder.Folder.locked

    @contextmanager
    def after_another_process(self, **options):
        with locked(self, **options):
            if options.get("to_write", True):
                (self.path / "a/a.json").write_bytes(b"new")
            yield

    monkeypatch.setattr(file_folder.Folder, "locked", after_another_process)
    assert await storage.prune(10) == 1
    assert await value_of(storage, "a") == b"new"
    assert await value_of(storage, "b") is None


async def test_damaged_and_foreign_files_hold_up_no_pruning(storage, path):
    await expire(storage, "1a", "2a", "3a")
    (path / "1a/1a.json").write_bytes(b"#gramkeep {")
    (path / "1a/readme.txt").write_bytes(b'#gramkeep {"expires_at":1}\n1')
    assert await storage.prune(10) == 2
    assert files_in(path) == [".gramkeep.lock", "1a/1a.json", "1a/readme.txt"]


async def test_pruning_a_folder_that_is_gone_is_an_error(storage, path):
    await expire(storage, "42")
    shutil.rmtree(path)
    with pytest.raises(StorageUnavailable, match="is gone"):
        await storage.prune(10)


async def test_an_expired_file_that_can_not_be_removed_is_an_error(storage, monkeypatch):
    await expire(storage, "42")

    def refused(path):
        raise PermissionError(errno.EACCES, "denied", os.fspath(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(StorageUnavailable, match=r"42\.json"):
        await storage.prune(10)


async def test_pruning_waits_for_another_process_that_writes(open_storage, path):
    storage = open_storage(busy_timeout=0.1)
    await expire(storage, "42")
    with write_lock(path), pytest.raises(StorageUnavailable, match="busy_timeout"):
        await storage.prune(10)
    assert await storage.prune(10) == 1


async def test_others_have_their_turn_while_many_files_are_pruned(storage, monkeypatch):
    monkeypatch.setattr(file_storage, "SCAN_PAGE", 5)
    await storage.put([Put(f"{n}:lasting", b"1", ANY) for n in range(200)])
    await expire(storage, "x")
    pruning = asyncio.create_task(storage.prune(10))
    await asyncio.sleep(0)
    turns = 0
    while not pruning.done():
        assert await value_of(storage, "0:lasting") == b"1"
        turns += 1
    assert await pruning == 1
    assert turns > 10


# Options.


def test_a_url_gives_the_folder_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("file:///var/lib/sessions", "file://./sessions", "file://../sessions"):
        storage = storage_from_url(url)
        assert isinstance(storage, FileStorage)
        assert storage.name == url.replace("//../", "//./../")
    storage = storage_from_url("file:///a%20b/c%23?layout=grammy&synchronous=NORMAL&busy_timeout=1")
    assert storage.name == "file:///a b/c#"
    assert FileStorage("sessions").name == FileStorage(Path("sessions")).name == "file://./sessions"
    assert list(tmp_path.iterdir()) == []


async def test_a_relative_url_is_relative_to_where_the_program_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = storage_from_url("file://./sessions")
    monkeypatch.chdir("/")
    await put(storage, "42", b"1")
    await storage.aclose()
    assert files_in(tmp_path) == ["sessions/.gramkeep.lock", "sessions/42/42.json"]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file:sessions", "has no scheme"),
        ("file://", "write file:///var/lib/sessions"),
        ("file:///", "write file:///var/lib/sessions"),
        ("file://sessions", "write file:///var/lib/sessions"),
        ("file://sessions/bot", "file://./sessions for a folder in the one"),
        ("file://localhost/var/lib", "write file:///var/lib/sessions"),
        ("file:////var/lib/sessions", "write file:///var/lib/sessions"),
        ("file:///s?mode=1", "unknown option mode"),
        ("file:///s?layout=flat", "layout='flat' must be 'gramkeep' or 'grammy'"),
        ("file:///s?synchronous=OFF", "synchronous='OFF' must be 'FULL' or 'NORMAL'"),
        ("file:///s?busy_timeout=soon", "busy_timeout must be a number of seconds"),
        ("file:///s?busy_timeout=0", "busy_timeout=0.0 must be"),
        ("file:///a%00b", "needs the path of a folder"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_with_the_reason(url, text):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url(url)
    assert text in str(caught.value)


def test_an_empty_path_is_refused():
    with pytest.raises(ConfigurationError, match="needs the path of a folder"):
        FileStorage("")


async def test_a_closed_storage_says_so(storage):
    await put(storage, "42", b"1")
    await storage.aclose()
    await storage.aclose()
    with pytest.raises(StorageUnavailable, match="it was closed"):
        await value_of(storage, "42")


async def test_the_files_of_a_whole_bot_can_be_read_by_eye(storage, path):
    sessions = Sessions(initial=dict, storage=storage, prefix="chat:")
    async with sessions, sessions.open("-100123") as session:
        session.data["name"] = "Ада"
    assert json.loads((path / "23/chat,-100123.json").read_text("utf-8")) == {"name": "Ада"}
