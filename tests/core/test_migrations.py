"""Versions kept with the state, and the migrations between them."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Literal

import pydantic
import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    NewerSessionVersion,
    SessionDecodeError,
    SessionEncodeError,
    Sessions,
)
from gramkeep.storage import ANY, Put


@dataclass
class Pet:
    name: str = ""
    age: int = 0


@pytest.fixture
def storage():
    return MemorySessionStorage()


@pytest.fixture
def ran():
    return []


@pytest.fixture
def migrations(ran):
    def to_4(old):
        ran.append(4)
        return {**old, "age": old["age"] + 1}

    def to_1(old):
        ran.append(1)
        return {"name": old["petName"]}

    async def to_1_5(old):
        await asyncio.sleep(0)
        ran.append(1.5)
        return {**old, "age": 10}

    return {4: to_4, 1: to_1, 1.5: to_1_5}


async def put(storage, key, value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    assert await storage.put([Put(key, raw, ANY)]) == [True]


async def stored(storage, key):
    record = (await storage.get([key]))[0]
    return record and record.value


@pytest.mark.parametrize(
    ("value", "expected", "run"),
    [
        ({"petName": "Rex"}, Pet("Rex", 11), [1, 1.5, 4]),
        ({"__d": {"petName": "Rex"}}, Pet("Rex", 11), [1, 1.5, 4]),
        ({"__d": {"petName": "Rex"}, "v": 0}, Pet("Rex", 11), [1, 1.5, 4]),
        ({"__d": {"name": "Rex"}, "v": 1}, Pet("Rex", 11), [1.5, 4]),
        ({"__d": {"name": "Rex", "age": 3}, "v": 1.5}, Pet("Rex", 4), [4]),
        ({"__d": {"name": "Rex", "age": 3}, "v": 4}, Pet("Rex", 3), []),
    ],
)
async def test_every_migration_that_is_newer_runs_once_in_numeric_order(
    storage, migrations, ran, value, expected, run
):
    await put(storage, "a", value)
    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations)
    async with sessions.open("a") as session:
        assert session.data == expected
        assert not session.is_new
    assert ran == run


async def test_a_migrated_session_is_saved_at_the_next_write_and_not_before(
    storage, migrations, ran
):
    legacy = b'{"petName": "Rex"}'
    await put(storage, "a", legacy)
    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations, ttl=1000)
    async with sessions.open("a"):
        pass
    assert await sessions.get("a") == Pet("Rex", 11)
    assert await stored(storage, "a") == legacy
    async with sessions.open("a") as session:
        session.data.age = 12
    assert await stored(storage, "a") == b'{"v":4,"__d":{"name":"Rex","age":12}}'
    ran.clear()
    async with sessions.open("a") as session:
        assert session.data == Pet("Rex", 12)
    assert ran == []


async def test_new_sessions_get_the_newest_version(storage, migrations, ran):
    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations)
    async with sessions.open("a") as session:
        session.data.name = "Tom"
    assert await stored(storage, "a") == b'{"v":4,"__d":{"name":"Tom","age":0}}'
    assert ran == []


@pytest.mark.parametrize("version", [4.5, 5, 100])
async def test_data_of_a_newer_version_is_refused_and_left_as_it_is(
    storage, migrations, ran, version
):
    await put(storage, "a", {"__d": {"name": "Rex"}, "v": version})
    before = await stored(storage, "a")
    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations)
    with pytest.raises(NewerSessionVersion, match=f"version {version}") as caught:
        async with sessions.open("a"):
            pytest.fail("the handler must not run")
    assert (caught.value.version, caught.value.newest, caught.value.key) == (version, 4, "a")
    assert await stored(storage, "a") == before
    assert ran == []


async def test_versioned_data_without_migrations_is_not_taken_for_an_empty_session(storage):
    await put(storage, "a", {"__d": {"name": "Rex"}, "v": 4})
    with pytest.raises(NewerSessionVersion, match="there are no migrations"):
        await Sessions(initial=Pet, storage=storage).get("a")


async def test_an_expired_envelope_of_grammy_counts_as_absent(storage):
    await put(storage, "a", {"__d": {"name": "Rex"}, "e": 1000})
    sessions = Sessions(initial=Pet, storage=storage)
    async with sessions.open("a") as session:
        assert session.is_new
        session.data.name = "Tom"
    assert await stored(storage, "a") == b'{"name":"Tom","age":0}'


async def test_an_envelope_of_grammy_that_lives_is_read(storage):
    await put(storage, "a", {"__d": {"name": "Rex"}, "e": 99999999999999})
    assert await Sessions(initial=Pet, storage=storage).get("a") == Pet("Rex")


@pytest.mark.parametrize(
    "data",
    [{"__d": 5}, {"__d": 5, "x": 1}, {"__d": {"__d": 1}, "v": 3}, {"__d": 1, "v": 2, "e": 3}],
)
@pytest.mark.parametrize("migrations", [None, {1: lambda old: old}])
async def test_a_users_own_field_of_the_envelopes_name_stays_as_it_is(storage, data, migrations):
    sessions = Sessions(initial=dict, storage=storage, migrations=migrations)
    async with sessions.open("a") as session:
        session.data.update(data)
    async with sessions.open("a") as session:
        assert session.data == data
        session.data["more"] = 1
    assert await sessions.get("a") == {**data, "more": 1}


async def test_a_migration_that_raises_keeps_the_handler_from_running(storage):
    await put(storage, "a", {"petName": "Rex"})

    def broken(old):
        return old["nothing"]

    sessions = Sessions(initial=Pet, storage=storage, migrations={1: broken})
    with pytest.raises(SessionDecodeError, match="migration broken to version 1 raised KeyError"):
        async with sessions.open("a"):
            pytest.fail("the handler must not run")
    assert await stored(storage, "a") == b'{"petName": "Rex"}'


async def test_what_a_migration_makes_must_fit_the_type(storage):
    await put(storage, "a", {"petName": "Rex"})
    sessions = Sessions(initial=Pet, storage=storage, migrations={1: lambda old: {"age": "old"}})
    with pytest.raises(SessionDecodeError, match=r"Expected `int`, got `str`, at \$\.age"):
        await sessions.get("a")


async def test_what_a_migration_makes_and_can_not_be_written_is_named_by_its_place(storage):
    await put(storage, "a", {"petName": "Rex"})
    sessions = Sessions(storage=storage, migrations={1: lambda old: {"pets": [object()]}})
    with pytest.raises(SessionDecodeError) as caught:
        await sessions.get("a")
    assert caught.value.path == "$.pets[0]"


@pytest.mark.parametrize("migrations", [None, {1: dict}])
@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"xs": [object()]}, "$.xs[0]"),
        ({"xs": [{None: 1}]}, "$.xs[0]"),
        ({"xs": ["half a \ud800"]}, "$.xs[0]"),
        ({"xs": [(1,)]}, "$.xs[0]"),
        ({"data": {"xs": object()}}, "$.data.xs"),
        ({"data": {"xs": (1,)}}, "$.data.xs"),
        ({"database": (1,)}, "$.database"),
        ({"__d": {"xs": object()}}, "$.__d.xs"),
        ({"__d": {"data": (1,)}}, "$.__d.data"),
        (object(), "$"),
    ],
)
async def test_a_value_that_is_refused_is_named_by_its_place_in_the_data(
    storage, migrations, data, path
):
    sessions = Sessions(initial=dict, storage=storage, migrations=migrations)
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("a") as session:
            session.data = data
    assert caught.value.path == path


@dataclass
class Marks:
    by_letter: dict[Literal["a", "b"], int] = field(default_factory=dict)


@pytest.mark.parametrize("migrations", [None, {1: dict}])
@pytest.mark.parametrize(
    ("kind", "data", "place"),
    [
        (dict[Literal["a", "b"], int], {"c": 1}, "at `key` in `$`"),
        (Marks, Marks({"c": 1}), "at `key` in `$.by_letter`"),
    ],
)
async def test_reasons_name_the_place_in_the_data_too(storage, migrations, kind, data, place):
    sessions = Sessions(data_type=kind, storage=storage, migrations=migrations)
    with pytest.raises(SessionEncodeError) as caught:
        async with sessions.open("a") as session:
            session.data = data
    assert place in caught.value.reason


async def test_a_field_that_was_renamed_is_still_there_for_its_migration(storage):
    """Decoded as today's type, whose fields all have defaults, the old name would be lost."""
    await put(storage, "a", {"__d": {"title": "Rex"}, "v": 1})
    sessions = Sessions(
        initial=Pet, storage=storage, migrations={1: dict, 2: lambda old: {"name": old["title"]}}
    )
    assert await sessions.get("a") == Pet("Rex")


async def test_migrate_all_brings_everything_to_the_newest_version(storage, migrations):
    for number in range(250):
        await put(storage, f"old-{number:03}", {"petName": f"Rex {number}"})
    await put(storage, "current", {"__d": {"name": "Tom", "age": 3}, "v": 4})
    await put(storage, "newer", {"__d": {"name": "Tom", "age": 3}, "v": 5})
    await put(storage, "broken", {"__d": {"name": "Tom"}, "v": 1.5})
    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations)

    dry = await sessions.migrate_all(dry_run=True)
    assert (dry.migrated, dry.current, set(dry.failed)) == (250, 1, {"newer", "broken"})
    assert await stored(storage, "old-007") == b'{"petName": "Rex 7"}'

    seen = []
    report = await sessions.migrate_all(progress=lambda r: seen.append(r.migrated))
    assert (report.migrated, report.current) == (250, 1)
    assert isinstance(report.failed["newer"], NewerSessionVersion)
    assert isinstance(report.failed["broken"], SessionDecodeError)
    assert len(seen) == 253
    assert await stored(storage, "old-007") == b'{"v":4,"__d":{"name":"Rex 7","age":11}}'
    again = await sessions.migrate_all()
    assert (again.migrated, again.current) == (0, 251)


async def test_progress_may_be_told_asynchronously(storage, migrations):
    for name in ("a", "b"):
        await put(storage, name, {"petName": "Rex"})
    seen = []

    async def note(report):
        await asyncio.sleep(0)
        seen.append(report.migrated)

    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations)
    await sessions.migrate_all(progress=note)
    assert seen == [1, 2]


async def test_migrate_all_waits_for_a_session_that_is_held(storage, migrations):
    await put(storage, "a", {"petName": "Rex"})
    sessions = Sessions(initial=Pet, storage=storage, migrations=migrations)
    async with sessions.open("a") as session:
        migrating = asyncio.create_task(sessions.migrate_all())
        await asyncio.sleep(0.01)
        session.data.name = "Tom"
    assert (await migrating).current == 1
    assert await sessions.get("a") == Pet("Tom", 11)


@pytest.mark.parametrize(
    ("migrations", "text"),
    [
        ([dict], "must map versions"),
        ({"1": dict}, "version '1' must be a number"),
        ({True: dict}, "must be a number"),
        ({float("nan"): dict}, "must be a number"),
        ({1: "dict"}, "can't be called"),
    ],
)
def test_wrong_migrations_are_refused(migrations, text):
    with pytest.raises(ConfigurationError, match=text):
        Sessions(initial=Pet, storage="memory://", migrations=migrations)


@pytest.mark.parametrize(
    ("version", "migrations"),
    [(b"", None), (b"", {1: lambda old: old}), (b'"v":1,', {1: lambda old: old})],
)
@pytest.mark.parametrize("data_type", [dict, dict[str, set[int]]])
async def test_an_untouched_session_keeps_the_expiry_in_its_envelope(
    storage, data_type, version, migrations
):
    stored = b'{%b"__d":{"a":[1]},"e":%d}' % (version, (time.time() + 60) * 1000)
    await storage.put([Put("42", stored, ANY)])
    sessions = Sessions(data_type=data_type, storage=storage, migrations=migrations)
    async with sessions.open("42") as held:
        assert list(held.data["a"]) == [1]
    (record,) = await storage.get(["42"])
    assert record.value == stored


# What another writer put into an envelope, where this bot has no versions.


class Model(pydantic.BaseModel):
    count: int = 0


@dataclass
class Plain:
    count: int = 0


@dataclass
class WithSet(Plain):
    seen: set[int] = field(default_factory=set)


def count_of(data):
    return data["count"] if isinstance(data, dict) else data.count


@pytest.mark.parametrize("kind", [Plain, WithSet, Model, dict])
@pytest.mark.parametrize("expiry", [b"", b',"e":99999999999999'])
async def test_a_session_in_an_envelope_is_used_like_any_other_whatever_its_type(
    storage, kind, expiry
):
    await put(storage, "42", b'{"__d":{"count":1}%s}' % expiry)
    sessions = Sessions(initial=kind, storage=storage)
    async with sessions.open("42") as session:
        assert count_of(session.data) == 1
    assert count_of(await sessions.get("42")) == 1
    await put(storage, "42", b'{"__d":{"count":1}%s}' % expiry)
    async with sessions.open("42") as session:
        session.data = kind(count=2)
    assert count_of(await sessions.get("42")) == 2
