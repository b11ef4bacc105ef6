"""enhance_storage: versions and lifetimes around any storage."""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta

import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    NewerSessionVersion,
    SessionDecodeError,
    SessionEncodeError,
    Sessions,
    StorageUnavailable,
    session,
)
from gramkeep.enhance import enhance_storage
from gramkeep.storage import ANY, Put
from gramkeep.storages.sqlite import SQLiteStorage

from .kinds import Async, Listing, ThreeMethods


@dataclass
class Counter:
    count: int = 0
    step: int = 1


def add_step(old):
    return {**old, "step": 5}


@pytest.fixture(params=[Listing, Async, MemorySessionStorage, SQLiteStorage])
async def storage(request, tmp_path):
    if request.param is SQLiteStorage:
        made = SQLiteStorage(tmp_path / "bot.db")
        yield made
        await made.aclose()
    else:
        yield request.param()


async def stored(storage, key):
    """Read what is in any of these storages, as it is there."""
    value = storage.read(key)
    return await value if asyncio.iscoroutine(value) else value


async def store(storage, key, value):
    written = storage.write(key, value)
    if asyncio.iscoroutine(written):
        await written


async def keys_of(sessions):
    return await listed(sessions.keys())


async def listed(iterator):
    return sorted([item async for item in iterator])


# Alone


async def test_the_envelope_has_grammys_fields_in_grammys_order(clock, storage):
    both = enhance_storage(storage=storage, migrations={1: dict, 3: dict}, time_to_live=60)
    await both.write("k", {"a": 1})
    expected = {"v": 3, "__d": {"a": 1}, "e": clock.now + 60_000}
    assert json.dumps(await stored(storage, "k")) == json.dumps(expected)
    assert await both.read("k") == {"a": 1}


@pytest.mark.parametrize("lifetime", [timedelta(days=14), 14 * 86_400, 1_209_600.0])
async def test_a_lifetime_is_a_timedelta_or_seconds(clock, lifetime):
    adapter = ThreeMethods()
    await enhance_storage(storage=adapter, time_to_live=lifetime).write("k", 1)
    assert adapter.data == {"k": {"__d": 1, "e": clock.now + 1_209_600_000}}


async def test_all_seven_methods_see_what_lives_and_not_what_has_expired(clock, storage):
    enhanced = enhance_storage(storage=storage, time_to_live=60)
    await enhanced.write("a", 1)
    clock.now += 30_000
    await enhanced.write("b", 2)
    assert await listed(enhanced.read_all_keys()) == ["a", "b"]
    clock.now += 30_001
    assert [await enhanced.read("a"), await enhanced.read("b")] == [None, 2]
    assert [await enhanced.has("a"), await enhanced.has("b"), await enhanced.has("x")] == [
        *(False, True, False)
    ]
    assert await listed(enhanced.read_all_keys()) == ["b"]
    assert await listed(enhanced.read_all_values()) == [2]
    assert await listed(enhanced.read_all_entries()) == [("b", 2)]
    await enhanced.delete("b")
    await enhanced.delete("x")
    assert await listed(enhanced.read_all_keys()) == []


async def test_migrations_run_in_numeric_order_each_once_sync_or_async(storage):
    ran = []

    def to(version):
        def sync(old):
            ran.append(version)
            return old

        async def not_sync(old):
            await asyncio.sleep(0)
            return sync(old)

        return not_sync if version % 2 else sync

    await store(storage, "bare", {"a": 1})
    await store(storage, "between", {"v": 2.5, "__d": {"a": 1}})
    migrations = {version: to(version) for version in (10, 9, 2, -1, 2.25)}
    enhanced = enhance_storage(storage=storage, migrations=migrations)
    assert await enhanced.read("bare") == {"a": 1}
    assert ran == [-1, 2, 2.25, 9, 10]
    ran.clear()
    assert await enhanced.read("between") == {"a": 1}
    assert ran == [9, 10]
    ran.clear()
    await enhanced.write("bare", {"a": 2})
    assert await enhanced.read("bare") == {"a": 2}
    assert ran == []


async def test_listing_migrates(storage):
    await store(storage, "a", {"count": 1})
    enhanced = enhance_storage(storage=storage, migrations={1: add_step})
    assert await listed(enhanced.read_all_entries()) == [("a", {"count": 1, "step": 5})]
    assert [value async for value in enhanced.read_all_values()] == [{"count": 1, "step": 5}]


async def test_a_migration_that_changes_what_it_is_given_changes_nothing_stored(storage):
    def in_place(old):
        old["list"].append(1)
        return old

    await store(storage, "k", {"list": []})
    enhanced = enhance_storage(storage=storage, migrations={1: in_place})
    for _ in range(2):
        assert await enhanced.read("k") == {"list": [1]}
    assert await stored(storage, "k") == {"list": []}


async def test_a_newer_version_is_refused_and_left_as_it_is(storage):
    newer = {"v": 3, "__d": {"a": 1}}
    await store(storage, "k", newer)
    for migrations, newest in (({2: dict}, 2), (None, None)):
        enhanced = enhance_storage(storage=storage, migrations=migrations)
        with pytest.raises(NewerSessionVersion) as caught:
            await enhanced.read("k")
        assert (caught.value.key, caught.value.version, caught.value.newest) == ("k", 3, newest)
        assert await enhanced.has("k")
    assert await stored(storage, "k") == newer


async def test_a_legacy_value_under_a_lifetime_is_left_as_it_is_until_it_is_written(clock, storage):
    await store(storage, "k", {"a": 1})
    enhanced = enhance_storage(storage=storage, time_to_live=60)
    assert await enhanced.read("k") == {"a": 1}
    clock.now += 10**9
    assert await enhanced.read("k") == {"a": 1}
    assert await stored(storage, "k") == {"a": 1}
    await enhanced.write("k", {"a": 2})
    assert await stored(storage, "k") == {"__d": {"a": 2}, "e": clock.now + 60_000}


@pytest.mark.parametrize(
    "own",
    [{"__d": 1}, {"__d": 1, "v": 2}, {"__d": {"__d": 1}, "e": 5}, {"__d": 1, "name": "x"}],
)
async def test_data_with_a_field_of_the_envelopes_name_is_read_as_it_was_written(storage, own):
    enhanced = enhance_storage(storage=storage)
    await enhanced.write("k", own)
    assert await stored(storage, "k") == {"__d": own}
    assert await enhanced.read("k") == own


@pytest.mark.parametrize(
    "own", [{"__d": 1, "name": "x"}, {"__d": 1, "v": "text"}, {"__d": 1, "e": True}, {"v": 1}]
)
async def test_a_legacy_value_that_is_no_envelope_stays_as_it_is(storage, own):
    await store(storage, "k", own)
    assert await enhance_storage(storage=storage, migrations={1: dict}).read("k") == own


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"storage": 5}, "has no read"),
        ({"storage": "sqlite:///bot.db"}, "no URL: pass an object"),
        ({"storage": MemorySessionStorage}, "is a class"),
        ({"time_to_live": 0}, "time_to_live=0"),
        ({"time_to_live": timedelta(0)}, "time_to_live="),
        ({"time_to_live": "60"}, "time_to_live='60'"),
        ({"migrations": [dict]}, "must map versions"),
        ({"migrations": {"1": dict}}, "version '1' must be a number"),
        ({"migrations": {1: "dict"}}, "can't be called"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        enhance_storage(**{"storage": ThreeMethods(), **options})


async def test_listing_what_can_not_be_listed_names_the_method():
    enhanced = enhance_storage(storage=ThreeMethods())
    for iterator in (enhanced.read_all_keys(), enhanced.read_all_entries()):
        with pytest.raises(ConfigurationError, match="has no read_all_keys"):
            await listed(iterator)


async def test_errors_of_the_storage_below_are_named():
    class Broken(ThreeMethods):
        def write(self, key, value):
            raise OSError("full")

    with pytest.raises(StorageUnavailable, match=r"Broken.*'k'.*OSError: full"):
        await enhance_storage(storage=Broken()).write("k", 1)
    with pytest.raises(SessionEncodeError, match="memory://"):
        await enhance_storage(storage=MemorySessionStorage()).write("k", object())


async def test_enhanced_storages_can_be_enhanced(clock):
    adapter = Listing()
    inner = enhance_storage(storage=adapter, time_to_live=60)
    outer = enhance_storage(storage=inner, migrations={1: dict})
    await outer.write("k", {"a": 1})
    assert adapter.data == {"k": {"__d": {"v": 1, "__d": {"a": 1}}, "e": clock.now + 60_000}}
    assert await listed(outer.read_all_entries()) == [("k", {"a": 1})]


# As the storage of sessions


async def test_sessions_work_over_an_enhanced_storage(clock, storage):
    await store(storage, "42", {"count": 7})
    enhanced = enhance_storage(storage=storage, migrations={1: add_step}, time_to_live=60)
    sessions = Sessions(initial=Counter, storage=enhanced)
    async with sessions.open("42") as opened:
        assert opened.data == Counter(7, 5)
    assert await stored(storage, "42") == {"count": 7}
    async with sessions.open("42") as opened:
        opened.data.count += 1
    expected = {"v": 1, "__d": {"count": 8, "step": 5}, "e": clock.now + 60_000}
    assert json.dumps(await stored(storage, "42")) == json.dumps(expected)
    assert await enhanced.read("42") == {"count": 8, "step": 5}
    assert await keys_of(sessions) == ["42"]
    clock.now += 60_001
    assert await sessions.get("42") is None
    assert await keys_of(sessions) == []


async def test_middleware_takes_an_enhanced_storage(storage):
    class Context:
        chat_id = 42

    async def handler():
        ctx.session.count += 1

    middleware = session(initial=Counter, storage=enhance_storage(storage=storage))
    for _ in range(2):
        ctx = Context()
        await middleware(ctx, handler)
    assert await stored(storage, "42") == {"__d": {"count": 2, "step": 1}}


async def test_the_sessions_own_lifetime_goes_before_that_of_the_storage(clock):
    adapter = Listing()
    enhanced = enhance_storage(storage=adapter, time_to_live=60, migrations={2: dict})
    sessions = Sessions(initial=Counter, storage=enhanced, ttl=3600, refresh_ttl="access")
    async with sessions.open("42") as opened:
        opened.data.count = 1
    data = {"count": 1, "step": 1}
    assert adapter.data["42"] == {"v": 2, "__d": data, "e": clock.now + 3_600_000}
    clock.now += 1_000_000
    async with sessions.open("42"):
        pass
    assert adapter.data["42"] == {"v": 2, "__d": data, "e": clock.now + 3_600_000}


async def test_renewing_a_lifetime_leaves_an_older_version_to_be_migrated_later(clock):
    adapter = Listing({"42": {"count": 1}})
    enhanced = enhance_storage(storage=adapter, migrations={2: add_step})
    sessions = Sessions(initial=Counter, storage=enhanced, ttl=60, refresh_ttl="access")
    async with sessions.open("42") as opened:
        assert opened.data == Counter(1, 5)
    assert adapter.data["42"] == {"__d": {"count": 1}, "e": clock.now + 60_000}
    assert await sessions.get("42") == Counter(1, 5)


async def test_a_migration_that_gives_something_else_each_time_is_no_conflict():
    numbers = iter(range(100))
    adapter = Listing({"42": {"count": 1}})
    migrations = {1: lambda old: {**old, "step": next(numbers)}}
    sessions = Sessions(
        initial=Counter, storage=enhance_storage(storage=adapter, migrations=migrations)
    )
    async with sessions.open("42") as opened:
        opened.data.count += 1
    assert adapter.data["42"] == {"v": 1, "__d": {"count": 2, "step": 0}}


async def test_the_sessions_own_migrations_share_the_envelope(clock):
    adapter = Listing()
    enhanced = enhance_storage(storage=adapter, time_to_live=60)
    sessions = Sessions(initial=Counter, storage=enhanced, migrations={4: add_step})
    async with sessions.open("42") as opened:
        opened.data.count = 1
    expected = {"v": 4, "__d": {"count": 1, "step": 1}, "e": clock.now + 60_000}
    assert adapter.data["42"] == expected
    assert await sessions.get("42") == Counter(1, 1)


async def test_migrations_on_both_sides_are_refused_before_anything_is_written():
    adapter = Listing()
    enhanced = enhance_storage(storage=adapter, migrations={1: dict})
    sessions = Sessions(initial=Counter, storage=enhanced, migrations={1: dict})
    with pytest.raises(ConfigurationError, match="Give them to one of the two"):
        async with sessions.open("42") as opened:
            opened.data.count = 1
    assert adapter.data == {}


async def test_a_newer_version_keeps_the_handler_from_running(storage):
    await store(storage, "42", {"v": 9, "__d": {"count": 1}})
    for migrations in (None, {1: dict}):
        enhanced = enhance_storage(storage=storage, migrations=migrations)
        with pytest.raises(NewerSessionVersion, match="'42'"):
            async with Sessions(initial=Counter, storage=enhanced).open("42"):
                pytest.fail("the handler must not run")
    assert await stored(storage, "42") == {"v": 9, "__d": {"count": 1}}


async def test_what_can_not_be_read_can_be_given_up():
    storage = MemorySessionStorage()
    await storage.put([Put("42", b"no JSON", ANY)])
    sessions = Sessions(initial=Counter, storage=enhance_storage(storage=storage))
    with pytest.raises(SessionDecodeError, match="'42' in memory://"):
        await sessions.get("42")
    await sessions.delete("42")
    assert await storage.has("42") is False


async def test_updates_over_an_enhanced_storage_take_turns(storage):
    sessions = Sessions(initial=Counter, storage=enhance_storage(storage=storage))

    async def count():
        async with sessions.open("42") as opened:
            before = opened.data.count
            await asyncio.sleep(0)
            opened.data.count = before + 1

    await asyncio.gather(*(count() for _ in range(50)))
    assert await sessions.get("42") == Counter(50)
