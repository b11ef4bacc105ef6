"""What S3Storage puts into a bucket, and what becomes of it."""

import asyncio
import string
import time

import pytest
from servers.s3 import s3_server  # noqa: F401 - a fixture

from gramkeep import SessionConflict, Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put
from gramkeep.storages.s3 import S3Storage
from gramkeep.storages.s3 import changes as s3_changes
from gramkeep.storages.s3 import layout as s3_layout
from gramkeep.storages.s3.layout import Content, before, key_in, name_of, object_name_of
from gramkeep.testing.conformance.base import attempts
from gramkeep.testing.conformance.keys import PREFIXES, STRANGE_KEYS

SHORT = 0.1


async def put(storage, key, value, expected=ANY, ttl=None):
    (answer,) = await storage.put([Put(key, value, expected, ttl)])
    return answer


async def find(storage, key):
    (record,) = await storage.get([key])
    return record


async def keys_in(storage, prefix=""):
    return [key async for key in storage.scan(prefix)]


async def expire(storage, key, value=b"1"):
    await put(storage, key, value, ttl=SHORT)
    await asyncio.sleep(2 * SHORT)


@pytest.fixture
def prefix():
    return f"test-{time.time_ns():x}"


@pytest.fixture
def bucket(s3_server, prefix):  # noqa: F811
    return s3_server.store(prefix=prefix)


@pytest.fixture
def storage(s3_server, prefix):  # noqa: F811
    return S3Storage("sessions", prefix, **s3_server.options)


@pytest.fixture
def other(s3_server, prefix):  # noqa: F811
    """The storage of another process, as far as anybody in there can tell."""
    return S3Storage("sessions", prefix, **s3_server.options)


def body_of(bucket, name):
    return bytes(bucket.get(name).bytes())


def names_in(bucket):
    return sorted(meta["path"] for page in bucket.list() for meta in page)


# Names


@pytest.mark.parametrize("key", [*STRANGE_KEYS, "", "k" * 800, "ключ" * 40], ids=ascii)
def test_every_key_has_a_name_that_leads_back_to_it(key):
    name = object_name_of(key)
    assert key_in(name) == key
    assert set(name) <= set(string.ascii_letters + string.digits + "_-:!/")
    assert all(0 < len(part) < 255 and part not in {".", ".."} for part in name.split("/"))


@pytest.mark.parametrize("prefix", PREFIXES, ids=ascii)
def test_names_follow_what_stands_before_their_prefix(prefix):
    start = name_of(prefix)
    for key in STRANGE_KEYS:
        name = object_name_of(key)
        assert name.startswith(start) == key.startswith(prefix)
        if key.startswith(prefix):
            assert name > before(start)


def test_no_name_is_a_folder_of_another():
    names = [object_name_of("k" * length) for length in range(190, 620)]
    folders = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    assert not folders & set(names)
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    "name", ["a.json", "a/b", "!", "!!", "!4", "!41", "!2f", "!FF", "ä", "a b"]
)
def test_a_name_that_no_key_has_is_somebody_elses(name):
    assert key_in(name) == ("" if name == "!" else None)


async def test_a_key_too_long_for_a_name_is_refused(storage, bucket):
    longest = "k" * (s3_layout.LONGEST_NAME - len(f"{bucket.prefix}/") - 2 * 4)
    await put(storage, longest, b"1")
    assert await keys_in(storage) == [longest]
    for call in (storage.get(["a", longest + "kk"]), put(storage, longest + "kk", b"1")):
        with pytest.raises(StorageUnavailable, match="Use shorter keys") as caught:
            await call
        assert caught.value.key == longest + "kk"


# Bodies


async def test_a_session_without_a_lifetime_is_its_plain_bytes(storage, bucket):
    await put(storage, "user:7", b'{"count":3}')
    assert body_of(bucket, "user:7") == b'{"count":3}'
    (write,) = [name for name in bucket.get("user:7").attributes if name.startswith("gramkeep")]
    assert write == "gramkeep-write"


async def test_a_session_with_a_lifetime_is_followed_by_whitespace(storage, bucket):
    await put(storage, "user:7", b'{"count":3}', ttl=90)
    body, attributes = body_of(bucket, "user:7"), bucket.get("user:7").attributes
    assert body.rstrip() == b'{"count":3}'
    assert len(body) == 64
    assert attributes["gramkeep-length"] == "11"
    assert -20 < int(attributes["gramkeep-expires-at"]) / 1000 - time.time() - 90 < 1
    assert (await find(storage, "user:7")).value == b'{"count":3}'


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 64, 65, 96, 1000])
def test_what_has_a_lifetime_is_told_by_its_size_and_is_always_another_body(length):
    content = Content(b" " * length, expires_at=2e9, write="1")
    bodies = {s3_layout.pack(content)[0] for _ in range(20)}
    assert len(bodies) == 20
    assert {len(body) % 64 for body in bodies} == {0}
    assert length + 32 <= len(bodies.pop()) < length + 32 + 64
    assert s3_layout.unpack(*s3_layout.pack(content)) == content
    assert s3_layout.may_say_more(len(s3_layout.pack(content)[0]))


async def test_what_others_store_is_read_and_their_changes_are_noticed(storage, bucket):
    bucket.put("42", b'{"count":3}\n', attributes={"Content-Type": "application/json"})
    record = await find(storage, "42")
    assert (record.value, record.expires_at) == (b'{"count":3}\n', None)
    bucket.put("42", b'{"count":4}')
    assert await put(storage, "42", b"lost", record.token) is False
    assert await put(storage, "42", DELETE, record.token) is False
    assert body_of(bucket, "42") == b'{"count":4}'
    assert await put(storage, "42", b"5", (await find(storage, "42")).token) is True


@pytest.mark.parametrize("name", ["expires-at", "removed-until", "length"])
async def test_metadata_that_are_no_numbers_are_an_error_and_not_no_session(storage, bucket, name):
    bucket.put("42", b" " * 64, attributes={f"gramkeep-{name}": "soon"})
    for call in (storage.get(["42"]), put(storage, "42", b"1"), anext(storage.scan())):
        with pytest.raises(StorageUnavailable, match="metadata of '42' are damaged"):
            await call
    assert body_of(bucket, "42") == b" " * 64


async def test_objects_that_are_no_sessions_are_not_listed_nor_pruned(storage, bucket):
    bucket.put("notes.txt", b" " * 64)
    bucket.put("folder/inside", b" " * 64)
    await put(storage, "42", b"1")
    assert await keys_in(storage) == ["42"]
    assert await storage.prune(100) == 0
    assert {"notes.txt", "folder/inside", "42"} <= set(names_in(bucket))


async def test_a_folder_is_not_that_of_another_prefix(s3_server, storage, prefix):  # noqa: F811
    await put(storage, "42", b"1")
    for other in (prefix[:-1], f"{prefix}x", f"{prefix}/42"):
        assert await keys_in(S3Storage("sessions", other, **s3_server.options)) == []


async def test_sessions_at_the_top_of_a_bucket(s3_server):  # noqa: F811
    bucket = f"top-{time.time_ns():x}"
    s3_server.store(bucket=bucket).put("no session", b"")  # SeaweedFS makes the bucket for that
    storage = S3Storage(bucket, **s3_server.options)
    await put(storage, "user:7", b"1")
    await put(storage, "chat:42", b"1")
    assert await keys_in(storage) == ["chat:42", "user:7"]
    assert await keys_in(storage, "!") == []
    assert await keys_in(storage, "user:") == ["user:7"]


# What is asked


async def test_a_scan_asks_only_what_may_have_expired(storage, monkeypatch):
    await storage.put([Put(f"{n}", b"1", ANY) for n in range(20)])
    await storage.put([Put(f"expiring {n}", b"1", ANY, 90) for n in range(5)])
    looked_at = []
    look = storage._open().objects.look

    async def counted(name):
        looked_at.append(name)
        return await look(name)

    monkeypatch.setattr(storage._open().objects, "look", counted)
    assert len(await keys_in(storage)) == 25
    assert len(looked_at) == 5


async def test_an_update_is_one_request_to_read_and_one_to_write(storage, monkeypatch):
    requests = []
    objects = storage._open().objects
    await put(storage, "first", b"1")
    for name in ("read", "look", "write", "remove"):
        monkeypatch.setattr(objects, name, noting(requests, name, getattr(objects, name)))
    async with Sessions(initial=dict, storage=storage, ttl=90) as sessions:
        for count in range(3):
            async with sessions.open("42") as session:
                session.data["count"] = count
        assert requests == ["read", "write"] * 3


def noting(requests, name, method):
    async def noted(*arguments):
        requests.append(name)
        return await method(*arguments)

    return noted


# Expiry


async def test_of_those_who_follow_an_expired_session_with_equal_bytes_one_succeeds(storage, other):
    for ttl in (None, 90):
        for round_ in range(10):
            await expire(storage, f"{ttl} {round_}", b"same")
            answers = await asyncio.gather(
                put(storage, f"{ttl} {round_}", b"same", ABSENT, ttl),
                put(other, f"{ttl} {round_}", b"same", ABSENT, ttl),
            )
            assert sorted(answers) == [False, True]


async def test_an_expired_session_that_was_kept_by_another_process_is_the_expected_one(
    storage, other
):
    for key in attempts(within=4 * SHORT):
        await put(storage, key, b"1", ttl=4 * SHORT)
        record = await find(storage, key)
        await put(other, key, KEEP, ANY, 90)
    await asyncio.sleep(4 * SHORT)
    assert await put(storage, key, b"2", record.token) is True
    assert (await find(other, key)).value == b"2"


async def test_prune_removes_what_has_expired_and_nothing_else(storage, bucket):
    await storage.put([Put(f"expired {n}", b"1", ANY, SHORT) for n in range(7)])
    await storage.put([Put("lasting", b" " * 64, ANY), Put("expiring", b"1", ANY, 90)])
    await asyncio.sleep(2 * SHORT)
    assert await storage.prune(5) == 5
    assert await storage.prune(5) == 2
    assert await storage.prune(5) == 0
    assert names_in(bucket) == ["!conditions", "expiring", "lasting"]


async def test_prune_makes_up_for_what_others_remove_first(storage, other, bucket, monkeypatch):
    await storage.put([Put(f"expired {n}", b"1", ANY, SHORT) for n in range(5)])
    await asyncio.sleep(2 * SHORT)
    changes = storage._open().changes
    clear = changes.clear

    async def clear_late(name):
        if "0" in name.removeprefix("expired!20"):
            await other._open().changes.clear(name)
        return await clear(name)

    monkeypatch.setattr(changes, "clear", clear_late)
    assert await storage.prune(2) == 2
    assert await storage.prune(3) == 2
    assert names_in(bucket) == ["!conditions"]


async def test_prune_asks_about_each_object_once_a_round(storage, monkeypatch):
    await storage.put([Put(f"expired {n}", b"1", ANY, SHORT) for n in range(5)])
    await storage.put([Put(f"living {n}", b"1", ANY, 90) for n in range(5)])
    await asyncio.sleep(2 * SHORT)
    assert await storage.prune(3) == 3
    objects = storage._open().objects
    look, looked_at = objects.look, []

    async def noting(name):
        looked_at.append(name)
        return await look(name)

    monkeypatch.setattr(objects, "look", noting)
    assert await storage.prune(3) == 2
    assert len(looked_at) == len(set(looked_at)) == 7


async def test_sessions_prune(storage, bucket):
    async with Sessions(initial=dict, storage=storage, ttl=SHORT) as sessions:
        for n in range(30):
            await sessions.update(f"{n}", lambda _: {"count": 1})
        await asyncio.sleep(2 * SHORT)
        assert await sessions.prune() == 30
    assert names_in(bucket) == ["!conditions"]


# Removal


async def test_a_deleted_session_leaves_nothing(storage, bucket):
    await put(storage, "42", b"1", ttl=90)
    assert await put(storage, "42", DELETE, (await find(storage, "42")).token) is True
    await put(storage, "43", b"1")
    assert await put(storage, "43", DELETE, ANY) is True
    await expire(storage, "44")
    assert await put(storage, "44", DELETE, ABSENT) is True
    assert names_in(bucket) == ["!conditions"]


async def test_no_acknowledged_session_is_lost_to_one_who_deletes(storage, other):
    """One makes the session again and again, the other deletes what it has read."""
    made = deleted = 0

    async def make():
        nonlocal made
        for n in range(60):
            if await put(storage, "42", b"%d" % n, ABSENT):
                made += 1
            await asyncio.sleep(0)

    async def delete():
        nonlocal deleted
        while not making.done():
            record = await find(other, "42")
            if record is not None and await put(other, "42", DELETE, record.token):
                deleted += 1
            await asyncio.sleep(0)

    making = asyncio.create_task(make())
    await asyncio.gather(making, delete())
    left = 0 if await find(storage, "42") is None else 1
    assert made > 1
    assert made == deleted + left


class Dying:
    """Makes the storage die between writing the gravestone and removing it."""

    def __init__(self, storage, monkeypatch):
        self.objects = storage._open().objects
        monkeypatch.setattr(self.objects, "remove", self.remove)

    async def remove(self, name):
        raise StorageUnavailable(storage="this", reason="it died")


async def test_a_gravestone_is_no_session_and_nobody_writes_over_it_in_its_time(
    storage, other, monkeypatch
):
    Dying(storage, monkeypatch)
    await put(storage, "42", b"1")
    assert await put(storage, "42", DELETE) is True
    assert await find(other, "42") is None
    assert await keys_in(other) == []
    assert await put(other, "42", DELETE, ABSENT) is True
    assert await put(other, "42", KEEP, ANY, 90) is True
    assert await other.prune(100) == 0
    writing = asyncio.create_task(put(other, "42", b"2", ABSENT))
    await asyncio.sleep(0.2)
    assert not writing.done()
    now = time.time()
    monkeypatch.setattr(s3_layout.time, "time", lambda: now + 3600)
    assert await writing is True
    assert (await find(storage, "42")).value == b"2"


async def test_waiting_for_a_gravestone_to_go_has_an_end(storage, other, monkeypatch):
    other._open().changes._timeout = 0.3
    Dying(storage, monkeypatch)
    await put(storage, "42", b"1")
    await put(storage, "42", DELETE)
    with pytest.raises(StorageUnavailable, match="died while deleting") as caught:
        await put(other, "42", b"2")
    assert caught.value.key == "42"
    assert await find(other, "42") is None


async def test_prune_removes_the_gravestones_of_the_dead(storage, other, bucket, monkeypatch):
    monkeypatch.setattr(s3_changes, "SPARE", -10.0)
    Dying(storage, monkeypatch)
    await storage.put([Put(f"{n}", b"1", ANY) for n in range(3)])
    assert await storage.put([Put(f"{n}", DELETE, ANY) for n in range(3)]) == [True] * 3
    monkeypatch.undo()
    assert await other.prune(100) == 3
    assert names_in(bucket) == ["!conditions"]


async def test_who_stood_still_after_the_gravestone_removes_nothing(
    storage, other, bucket, monkeypatch
):
    """Its time is over, and what is there by then may be another's session."""
    objects = storage._open().objects
    write = objects.write

    async def slow_write(name, content, basis):
        done = await write(name, content, basis)
        now = time.time()
        monkeypatch.setattr(s3_layout.time, "time", lambda: now + 3600)
        assert await put(other, "42", b"another's", ABSENT) is True
        return done

    await put(storage, "42", b"1")
    monkeypatch.setattr(objects, "write", slow_write)
    assert await put(storage, "42", DELETE) is True
    assert body_of(bucket, "42") == b"another's"


async def test_updates_of_two_processes_meet_in_a_conflict(storage, other):
    async with (
        Sessions(initial=dict, storage=storage) as one,
        Sessions(initial=dict, storage=other) as two,
    ):
        with pytest.raises(SessionConflict):
            async with one.open("42") as session:
                session.data["by"] = "one"
                await two.update("42", lambda _: {"by": "two"})
        assert await one.get("42") == {"by": "two"}
        increments = [
            sessions.update("43", lambda data: {"n": data.get("n", 0) + 1})
            for sessions in (one, two) * 5
        ]
        await asyncio.gather(*increments)
        assert await one.get("43") == {"n": 10}
