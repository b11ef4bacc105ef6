"""What lies in Redis: sessions under their own keys, and leases that leave nothing behind."""

import asyncio
import os
from binascii import crc_hqx

import pytest
from redis.asyncio import Redis
from servers.redis import redis_server, redis_url

from gramkeep import ConfigurationError, SessionDecodeError, Sessions
from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, Lease, Put
from gramkeep.storages.redis import RedisStorage
from gramkeep.storages.redis.keys import lease_key, slot_of
from gramkeep.testing.conformance.base import attempts

__all__ = ["redis_server", "redis_url"]

LEASE = Lease("one", 30.0)
BIG = b"\xff" * 100_000


@pytest.fixture
async def redis(redis_url):
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client


@pytest.fixture
async def storage(redis, redis_url):
    storage = RedisStorage.from_url(redis_url)
    yield storage
    await storage.aclose()


async def test_a_session_is_a_plain_string_under_its_own_key(storage, redis):
    await storage.put([Put("user:{7} ключ", b'{"count":1}', ABSENT, 60)])
    assert await redis.keys() == ["user:{7} ключ".encode()]
    assert await redis.get("user:{7} ключ") == b'{"count":1}'
    assert 40_000 < await redis.pttl("user:{7} ключ") <= 60_000


async def test_a_value_that_another_program_changed_is_not_overwritten(storage, redis):
    for value in (b"small", BIG):
        await redis.set("key", value)
        (record,) = await storage.get(["key"])
        await redis.set("key", value + b"!")
        assert await storage.put([Put("key", b"new", record.token)]) == [False]
        assert await redis.get("key") == value + b"!"
        (record,) = await storage.get(["key"])
        assert await storage.put([Put("key", b"new", record.token)]) == [True]


async def test_the_lease_lies_beside_the_session_and_is_gone_when_given_up(storage, redis):
    await storage.claim(["42", "user:{7}"], LEASE)
    names = {b"gramkeep:lease:{42}", b"gramkeep:lease:t:user:{7}"}
    assert set(await redis.keys()) == names
    for name in names:
        assert await redis.get(name) == b"=one"
        assert 10_000 < await redis.pttl(name) <= 30_000
    assert [key async for key in storage.scan()] == []
    assert [key async for key in storage.scan("gramkeep:lease:")] == []
    await storage.put([Put("42", b"1", ABSENT), Put("user:{7}", KEEP, ANY)], LEASE)
    assert await redis.keys() == [b"42"]


async def test_what_a_dead_process_and_one_that_waited_leave_is_gone_with_the_lease(storage, redis):
    for key in attempts(within=0.2):
        await storage.claim([key], Lease("dead", 0.2))
        answer = await storage.claim([key], Lease("waiting", 0.2))
        name = lease_key(key.encode())
        held, left = await redis.get(name), await redis.pttl(name)
    assert answer == [BUSY]
    assert held not in {None, b"=dead"}
    assert 0 < left <= 250
    await asyncio.sleep(0.4)
    assert await redis.keys() == []


async def test_a_place_is_given_up_with_the_wait(storage, redis):
    await storage.claim(["42"], LEASE)
    await storage.claim(["42"], Lease("waiting", 30.0))
    await storage.put([Put("42", KEEP, ANY)], Lease("waiting", 30.0))
    assert await redis.get("gramkeep:lease:{42}") == b"=one"
    await storage.claim(["42"], Lease("waiting", 30.0))
    await storage.put([Put("42", KEEP, ANY)], LEASE)
    assert await redis.pttl("gramkeep:lease:{42}") <= 250
    await storage.put([Put("42", KEEP, ANY)], Lease("waiting", 30.0))
    assert await redis.keys() == []


@pytest.mark.parametrize(
    "key",
    ["", "a", "{", "}", "{}", "{}a", "}{", "a}b", "a{b", "{a}", "x{a}y{b}", "{{a}}", "{}{a}", "é{"],
)
def test_a_lease_is_in_the_slot_of_its_session(key):
    assert slot_of(lease_key(key.encode())) == slot_of(key.encode())


def test_leases_of_many_odd_keys_are_in_their_slots_and_of_one_session_each():
    pieces = [b"", b"{", b"}", b"t:", b"s:", b"a", b":", b"\0", b"\xff"]
    keys = {a + b + c + d for a in pieces for b in pieces for c in pieces for d in pieces}
    assert len({lease_key(key) for key in keys}) == len(keys)
    assert all(slot_of(lease_key(key)) == slot_of(key) for key in keys)


def test_slots_are_those_of_the_specification():
    assert slot_of(b"123456789") == 0x31C3
    assert (
        slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of(b"user1000")
    )
    assert slot_of(b"foo{}{bar}") == crc_hqx(b"foo{}{bar}", 0) % 16384
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")


@pytest.mark.parametrize("key", ["gramkeep:lease:", "gramkeep:lease:{42}"])
async def test_a_session_can_not_be_kept_among_the_leases(storage, key):
    calls = [
        storage.get([key]),
        storage.claim([key], LEASE),
        storage.put([Put("other", b"1", ANY), Put(key, b"1", ANY)]),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="begins with 'gramkeep:lease:'") as raised:
            await call
        assert (raised.value.key, raised.value.storage) == (key, storage.name)
    assert await storage.get(["other"]) == [None]


async def test_what_is_no_string_is_not_taken_for_nothing(storage, redis):
    await redis.rpush("list", "a")
    await redis.set("string", "b")
    for call in (storage.get, lambda keys: storage.claim(keys, LEASE)):
        with pytest.raises(SessionDecodeError, match="something else than a string") as raised:
            await call(["string", "list"])
        assert raised.value.key == "list"
    puts = [Put("list", b"new", ABSENT), Put("string", b"new", b"b"), Put("list 2", b"new", ABSENT)]
    assert await storage.put(puts) == [False, True, True]
    assert await storage.put([Put("list", b"new", b"a")]) == [False]
    assert await redis.lrange("list", 0, -1) == [b"a"]
    assert sorted([key async for key in storage.scan()]) == ["list 2", "string"]
    await storage.put([Put("list", DELETE, ANY)])
    assert await redis.exists("list") == 0


async def test_an_error_about_one_key_is_nothing_to_calls_that_go_with_it(storage, redis):
    await redis.rpush("list", "a")
    await redis.set("string", "b")
    asked = [storage.get(["string"]), storage.get(["list"]), storage.get(["string"])] * 5
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for at, answer in enumerate(answers):
        if at % 3 == 1:
            assert isinstance(answer, SessionDecodeError)
        else:
            assert answer[0].value == b"b"


async def test_keys_of_others_that_are_no_text_are_not_listed(storage, redis):
    await redis.set(b"\xff\xfe", "x")
    await redis.set("key", "x")
    assert [key async for key in storage.scan()] == ["key"]


async def test_a_scan_gives_each_key_once_while_the_table_shrinks(storage, redis):
    staying = [f"key:{n}" for n in range(0, 16_000, 16)]
    async with redis.pipeline(transaction=False) as pipeline:
        for n in range(16_000):
            pipeline.set(f"key:{n}", "x")
        await pipeline.execute()
    seen = []
    async for key in storage.scan("key:"):
        seen.append(key)
        if len(seen) == 3000:
            async with redis.pipeline(transaction=False) as pipeline:
                for n in range(16_000):
                    if n % 16:
                        pipeline.delete(f"key:{n}")
                await pipeline.execute()
            await asyncio.sleep(0.3)  # in which Redis makes its table smaller
    assert len(seen) == len(set(seen))
    assert set(staying) <= set(seen)


async def test_an_update_alone_is_two_round_trips(storage, redis):
    sessions = Sessions(initial=dict, storage=storage)
    for _ in range(2):
        await redis.config_resetstat()
        async with sessions.open("42") as session:
            session.data["count"] = session.data.get("count", 0) + 1
    ran = {
        name: each["calls"]
        for name, each in (await redis.info("commandstats")).items()
        if not name.startswith(("cmdstat_config", "cmdstat_info"))
    }
    assert ran["cmdstat_evalsha"] == 2
    assert set(ran) <= {f"cmdstat_{name}" for name in ("evalsha", "get", "set", "del", "pttl")}
    assert await redis.keys() == [b"42"]


async def test_calls_that_come_together_share_a_round_trip(storage, redis):
    await storage.get(["0"])
    await redis.config_resetstat()
    keys = [str(n) for n in range(100)]
    await asyncio.gather(*(storage.put([Put(key, b"1", ANY)], LEASE) for key in keys))
    stats = await redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= 3
    assert stats["cmdstat_set"]["calls"] == 100


async def test_a_storage_has_one_connection_however_much_is_asked(storage, redis, redis_url):
    name = f"counted-{os.getpid()}"
    counted = RedisStorage.from_url(f"{redis_url}?client_name={name}")
    for _ in range(3):
        calls = [counted.put([Put(f"key {n}", BIG, ANY)]) for n in range(60)]
        await asyncio.gather(*calls, *(counted.get([f"key {n}"]) for n in range(60)))
        clients = [client for client in await redis.client_list() if client["name"] == name]
        assert len(clients) == 1
    await counted.aclose()
    async with asyncio.timeout(20):
        while any(client["name"] == name for client in await redis.client_list()):
            await asyncio.sleep(0.01)
