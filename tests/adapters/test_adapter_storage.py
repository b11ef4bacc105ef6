"""Users' own adapters as storages: what they are given, and what they may do wrong."""

import asyncio
import base64
import gc
import json
import weakref
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from gramkeep import (
    ConfigurationError,
    NewerSessionVersion,
    SessionConflict,
    SessionDecodeError,
    Sessions,
    StorageUnavailable,
    session,
)
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put
from gramkeep.storages.adapter import AdapterStorage, storage_over

from .kinds import Async, Listing, ThreeMethods


@dataclass
class Counter:
    count: int = 0
    notes: list[str] = field(default_factory=list)


async def store(storage, value, ttl=None, key="k"):
    assert await storage.put([Put(key, value, ANY, ttl)]) == [True]


async def read(storage, key="k"):
    return (await storage.get([key]))[0]


# What an adapter is given


@pytest.mark.parametrize("adapter", [ThreeMethods(), Listing(), Async()], ids=type)
async def test_a_session_reaches_the_adapter_as_plain_json(adapter):
    sessions = Sessions(initial=Counter, storage=adapter)
    async with sessions.open("42") as opened:
        opened.data.count += 1
        opened.data.notes.append("tea")
    assert adapter.data == {"42": {"count": 1, "notes": ["tea"]}}
    assert await sessions.get("42") == Counter(1, ["tea"])
    await sessions.delete("42")
    assert adapter.data == {}


async def test_middleware_takes_an_adapter():
    class Context:
        chat_id = 42

    adapter = ThreeMethods()

    async def handler():
        ctx.session.count += 1

    ctx = Context()
    await session(initial=Counter, storage=adapter)(ctx, handler)
    assert adapter.data == {"42": {"count": 1, "notes": []}}


async def test_a_value_that_another_program_wrote_is_read(clock):
    adapter = Listing({"42": {"count": 7}})
    assert await Sessions(initial=Counter, storage=adapter).get("42") == Counter(7)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'"text"', "text"),
        (b"1.0", 1.0),
        (b"false", False),
        (b"null", {"__d": None}),
        (b'{"v":2,"__d":{"a":1}}', {"v": 2, "__d": {"a": 1}}),
        (b'{"__d":{"__d":1}}', {"__d": {"__d": 1}}),
        (b'{"__d":1,"name":"x"}', {"__d": 1, "name": "x"}),
        (b'{"__d":1,"v":"1"}', {"__d": 1, "v": "1"}),
    ],
)
async def test_json_is_given_as_the_value_it_is(stored, given):
    adapter = ThreeMethods()
    storage = AdapterStorage(adapter)
    await store(storage, stored)
    assert json.dumps(adapter.data["k"]) == json.dumps(given)
    assert (await read(storage)).value == stored


@pytest.mark.parametrize(
    "stored",
    [
        *(b"", b"\x82\xa1a\x01", b'{ "a": 1}', b'{"a":1,"a":2}', b"1e2", b'"\\ud83c"', b"1e999"),
        *(b"[" * 200_000 + b"]" * 200_000, b'{"__b":"aGVsbG8="}', b'{"__d":1}', b'{"__d":1,"e":5}'),
        *(b'{"__d":1,"v":2}', b'{"v":null,"__d":1}', b'{"v":2,"__d":1,"e":5}'),
    ],
)
@pytest.mark.parametrize("ttl", [None, 60])
async def test_other_bytes_are_given_in_base64_and_come_back_exactly(stored, ttl):
    adapter = ThreeMethods()
    storage = AdapterStorage(adapter)
    await store(storage, stored, ttl)
    given = adapter.data["k"] if ttl is None else adapter.data["k"]["__d"]
    assert given == {"__b": base64.b64encode(stored).decode()}
    assert (await read(storage)).value == stored


async def test_what_only_looks_like_base64_is_a_users_own():
    storage = AdapterStorage(ThreeMethods({"k": {"__b": "no base64!"}, "l": {"__b": 5}}))
    assert (await read(storage)).value == b'{"__b":"no base64!"}'
    assert (await read(storage, "l")).value == b'{"__b":5}'


@pytest.mark.parametrize(
    ("stored", "data"),
    [
        (b'{"a":1}', {"__d": {"a": 1}}),
        (b'{"v":2,"__d":{"a":1}}', {"v": 2, "__d": {"a": 1}}),
        (b'{"__d":{"__d":1}}', {"__d": {"__d": 1}}),
        (b"null", {"__d": None}),
    ],
)
async def test_version_and_expiry_share_one_envelope(clock, stored, data):
    adapter = ThreeMethods()
    storage = AdapterStorage(adapter)
    await store(storage, stored, ttl=60)
    expected = {**data, "e": clock.now + 60_000}
    assert json.dumps(adapter.data["k"]) == json.dumps(expected)
    record = await read(storage)
    assert (record.value, record.expires_at) == (stored, (clock.now + 60_000) / 1000)
    clock.now += 60_001
    assert await read(storage) is None


async def test_an_envelope_of_grammy_is_read_and_its_lifetime_renewed(clock):
    adapter = ThreeMethods({"k": {"__d": {"a": 1}}})
    storage = AdapterStorage(adapter)
    token = (await read(storage)).token
    assert await storage.put([Put("k", KEEP, token, 60)]) == [True]
    assert adapter.data["k"] == {"__d": {"a": 1}, "e": clock.now + 60_000}
    assert (await read(storage)).token == token


@pytest.mark.parametrize("data", [{"__d": 5}, {"__d": {"__d": 1}, "v": 3}, {"__b": "aGk="}])
@pytest.mark.parametrize("options", [{}, {"ttl": 60}, {"migrations": {1: dict}}])
async def test_a_users_data_of_the_form_of_an_envelope_survives(data, options):
    sessions = Sessions(initial=dict, storage=Listing(), **options)
    async with sessions.open("42") as opened:
        opened.data.update(data)
    assert await sessions.get("42") == data


async def test_the_adapters_own_objects_are_never_shared():
    adapter = ThreeMethods({"42": {"count": 1, "notes": ["a"]}})
    before = adapter.data["42"]
    sessions = Sessions(initial=Counter, storage=adapter)
    async with sessions.open("42") as opened:
        opened.data.notes.append("b")
        assert before == {"count": 1, "notes": ["a"]}
    stored = adapter.data["42"]
    opened_again = await sessions.get("42")
    opened_again.notes.append("c")
    assert stored == {"count": 1, "notes": ["a", "b"]}


async def test_a_record_is_what_was_there_when_it_was_read():
    adapter = Async({"k": {"a": [1]}})
    storage = AdapterStorage(adapter)
    record = await read(storage)
    adapter.data["k"]["a"].append(2)
    assert record.value == b'{"a":[1]}'
    assert await storage.put([Put("k", b"1", record.token)]) == [False]


async def test_a_lifetime_that_is_renewed_shares_nothing_with_what_was_there_before(clock):
    old = {"a": [1]}
    adapter = ThreeMethods({"k": old})
    await AdapterStorage(adapter).put([Put("k", KEEP, ANY, 60)])
    adapter.data["k"]["__d"]["a"].append(2)
    assert old == {"a": [1]}


# Adapters that fail


class Broken(Listing):
    def read(self, key):
        raise OSError("the disk is on fire")

    def read_all_keys(self):
        yield "a"
        raise OSError("the disk is on fire")


@pytest.mark.parametrize("ask", [read, lambda storage: anext(aiter(storage.scan()))])
async def test_what_the_adapter_raises_says_that_it_is_unavailable(ask):
    with pytest.raises(StorageUnavailable, match=r"Broken.*OSError: the disk is on fire") as caught:
        await ask(AdapterStorage(Broken()))
    assert caught.value.storage == "Broken"
    assert isinstance(caught.value.__cause__, OSError)


async def test_the_handler_does_not_run_when_the_adapter_fails():
    with pytest.raises(StorageUnavailable, match="'42'"):
        async with Sessions(initial=Counter, storage=Broken()).open("42"):
            pytest.fail("the handler must not run")


async def test_a_value_without_json_form_is_named_with_its_key_and_can_be_given_up():
    adapter = ThreeMethods({"42": {"x": object()}})
    sessions = Sessions(initial=dict, storage=adapter)
    with pytest.raises(SessionDecodeError, match=r"'42' in ThreeMethods .* has no JSON form"):
        await sessions.get("42")
    assert await AdapterStorage(adapter).put([Put("42", b"1", ABSENT)]) == [False]
    await sessions.delete("42")
    assert adapter.data == {}


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        (object(), "has no read, no write, no delete"),
        (42, "has no read, no write, no delete"),
        ({}, "has no read, no write, no delete"),
        (type("Half", (), {"read": print, "write": print})(), "has no delete"),
        (type("Half", (), {"read": 1, "write": print, "delete": print})(), "has no read"),
        (ThreeMethods, "is a class"),
    ],
)
def test_an_object_that_lacks_a_method_is_refused_by_its_name(storage, reason):
    with pytest.raises(ConfigurationError, match=reason):
        Sessions(initial=Counter, storage=storage)


async def test_a_scan_of_an_adapter_that_can_not_list_names_the_method():
    storage = AdapterStorage(ThreeMethods({"a": 1}))
    with pytest.raises(ConfigurationError, match=r"ThreeMethods can't be listed.*read_all_keys"):
        [key async for key in storage.scan()]
    assert await storage.prune(100) == 0


# Listing


class Awaited(ThreeMethods):
    async def read_all_keys(self):
        return list(self.data)


class OnlyEntries(ThreeMethods):
    def read_all_entries(self):
        return self.data.items()


class AwaitedEntries(Awaited):
    async def read_all_entries(self):
        return self.data.items()


@pytest.mark.parametrize("kind", [Listing, Awaited, OnlyEntries, AwaitedEntries, Async])
async def test_keys_come_as_an_iterable_an_awaitable_or_an_async_iterator(clock, kind):
    data = {f"{n:03}": {"n": n} for n in range(250)}
    data["gone"] = {"__d": 1, "e": clock.now - 1}
    data["lives"] = {"__d": 1, "e": clock.now}
    storage = AdapterStorage(kind(data))
    assert [key async for key in storage.scan()] == [f"{n:03}" for n in range(250)] + ["lives"]
    assert [key async for key in storage.scan("24")] == [f"24{n}" for n in range(10)]
    assert [value async for value in storage.read_all_values()][-2:] == [{"n": 249}, 1]
    assert [entry async for entry in storage.read_all_entries()][7] == ("007", {"n": 7})
    assert [await storage.has("007"), await storage.has("gone")] == [True, False]


@pytest.mark.parametrize("kind", [Listing, OnlyEntries, Async])
async def test_pruning_removes_what_has_expired_and_nothing_else(clock, kind):
    data = {str(n): {"__d": n, "e": clock.now + n * 1000} for n in range(10)}
    adapter = kind({**data, "for ever": 1})
    storage = AdapterStorage(adapter)
    clock.now += 5_500
    assert await storage.prune(4) == 4
    assert await storage.prune(4) == 2
    assert set(adapter.data) == {"6", "7", "8", "9", "for ever"}


# Several at once


class Slow(Async):
    """Tells when it writes, and goes on when it may."""

    def __init__(self):
        super().__init__()
        self.writing = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def write(self, key, value):
        self.writing.set()
        await self.may_go_on.wait()
        self.data[key] = value


async def test_a_cancelled_put_returns_when_the_adapter_has_written():
    adapter = Slow()
    task = asyncio.create_task(AdapterStorage(adapter).put([Put("k", b"1", ANY)]))
    await adapter.writing.wait()
    for _ in range(3):  # impatience changes nothing
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    adapter.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert adapter.data == {"k": 1}


async def test_a_put_that_waits_for_its_turn_is_cancelled_at_once():
    adapter = Slow()
    storage = AdapterStorage(adapter)
    first = asyncio.create_task(storage.put([Put("k", b"1", ANY)]))
    await adapter.writing.wait()
    second = asyncio.create_task(storage.put([Put("k", b"2", ANY)]))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    adapter.may_go_on.set()
    assert await first == [True]
    assert adapter.data == {"k": 1}


async def test_two_managers_over_one_adapter_take_turns():
    adapter = Async()
    one, other = (Sessions(initial=Counter, storage=adapter) for _ in range(2))
    assert one.storage is other.storage

    async def count(sessions):
        async with sessions.open("42") as opened:
            before = opened.data.count
            await asyncio.sleep(0)
            opened.data.count = before + 1

    await asyncio.gather(*(count(sessions) for sessions in (one, other) * 20))
    assert adapter.data["42"]["count"] == 40


async def test_a_change_by_another_writer_raises_a_conflict():
    adapter = ThreeMethods()
    sessions = Sessions(initial=Counter, storage=adapter)
    with pytest.raises(SessionConflict):
        async with sessions.open("42") as opened:
            opened.data.count = 1
            adapter.data["42"] = {"count": 5}
    assert adapter.data["42"] == {"count": 5}


async def test_saving_twice_in_one_update_is_no_conflict():
    adapter = ThreeMethods()
    async with Sessions(initial=Counter, storage=adapter, ttl=60).open("42") as opened:
        for n in range(3):
            opened.data.count = n
            await opened.save()
    assert adapter.data["42"]["__d"]["count"] == 2


async def test_an_adapter_nobody_uses_any_more_is_let_go():
    adapter = ThreeMethods()
    storage = storage_over(adapter)
    assert storage_over(adapter) is storage
    assert storage_over(ThreeMethods()) is not storage
    await store(storage, b"1")
    assert not storage._locks._of
    references = [weakref.ref(thing) for thing in (adapter, storage, storage._locks)]
    del adapter, storage
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


async def test_lifetimes_of_sessions_are_kept(clock):
    adapter = Listing()
    sessions = Sessions(
        initial=Counter, storage=adapter, ttl=timedelta(days=1), refresh_ttl="access"
    )
    async with sessions.open("42") as opened:
        opened.data.count = 1
    clock.now += 80_000_000
    async with sessions.open("42"):
        pass
    assert adapter.data["42"]["e"] == clock.now + 86_400_000
    clock.now += 86_400_001
    assert await sessions.get("42") is None
    assert await sessions.count() == 0


async def test_sessions_of_a_newer_version_stay_as_they_are():
    adapter = Listing({"42": {"v": 2, "__d": {"count": 1}}})
    with pytest.raises(NewerSessionVersion):
        await Sessions(initial=Counter, storage=adapter, migrations={1: dict}).get("42")
    assert adapter.data == {"42": {"v": 2, "__d": {"count": 1}}}


async def test_deleting_asks_an_adapter_that_deletes_like_a_dict_only_for_what_is_there():
    storage = AdapterStorage(ThreeMethods())
    assert await storage.put([Put("k", DELETE, ANY)]) == [True]
    await storage.delete("k")
