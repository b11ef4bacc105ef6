"""What grammY's and GramIO's Redis storages wrote is read here, and what is written here, there."""

import json

import pytest
from grammy import recorded, run_node, with_node
from redis.asyncio import Redis
from servers.redis import redis_server, redis_url

from gramkeep import SessionDecodeError, Sessions
from gramkeep.enhance import enhance_storage
from gramkeep.storages.redis import RedisStorage

__all__ = ["redis_server", "redis_url"]

GRAMMY = recorded("grammy/redis.json")
GRAMIO = recorded("gramio/redis.json")
CASES = recorded("cases.json")["cases"]

PLAIN = [entry for entry in GRAMMY["entries"] if "enhance" not in entry]
# What JSON can hold, and no text can: half a character. It is refused, with its path.
NO_TEXT = {"plain:surrogate", "surrogate"}


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


@pytest.mark.parametrize("entry", PLAIN, ids=lambda entry: ascii(entry["key"]))
async def test_what_grammy_stored_is_read_and_written_alike(storage, redis, entry):
    await redis.set(entry["key"], entry["raw"])
    if entry["key"] in NO_TEXT:
        with pytest.raises(SessionDecodeError):
            await storage.read(entry["key"])
        assert await redis.get(entry["key"]) == entry["raw"].encode()
        return
    value = await storage.read(entry["key"])
    assert value == entry["value"]
    await storage.write(entry["key"], value)
    assert json.loads(await redis.get(entry["key"])) == json.loads(entry["raw"])
    assert await redis.keys() == [entry["key"].encode()]
    assert [key async for key in storage.read_all_keys()] == [entry["key"]]


@pytest.mark.parametrize("key", GRAMIO)
async def test_what_gramio_stored_is_read_and_written_alike(storage, redis, key):
    await redis.set(key, GRAMIO[key])
    value = await storage.read(key)
    assert value == json.loads(GRAMIO[key])
    await storage.write(key, value)
    assert json.loads(await redis.get(key)) == value


async def test_a_lifetime_that_either_set_is_known_here(storage, redis):
    raw, seconds = GRAMMY["ttl"]["raw"], GRAMMY["ttl"]["ttl"]
    await redis.set("of grammY", raw, ex=seconds)
    await redis.execute_command("SETEX", "of GramIO", seconds, raw)
    now = (await redis.time())[0]
    for record in await storage.get(["of grammY", "of GramIO"]):
        assert record.value == raw.encode()
        assert now + seconds - 5 < record.expires_at < now + seconds + 5


async def test_sessions_of_a_bot_in_typescript_are_gone_on_with(storage, redis):
    await redis.set("42", '{"count":3}')
    sessions = Sessions(initial=dict, storage=storage)
    async with sessions.open("42") as session:
        session.data["count"] += 1
    assert await redis.get("42") == b'{"count":4}'
    async with sessions.open("42") as session:
        session.data["count"] += 1
        await redis.set("42", '{"count":10}')  # by the other bot, which knows of no leases
        with pytest.raises(Exception, match="changed by another writer"):
            await session.save()
        await session.reload()
    assert await redis.get("42") == b'{"count":10}'


def enhanced(storage, options):
    def step(number):
        return lambda old: {**old, "path": [*old.get("path", []), number]}

    return enhance_storage(
        storage=storage,
        migrations={number: step(number) for number in options.get("migrations", [])},
        time_to_live=options.get("millisecondsToLive", 0) / 1000 or None,
    )


LIVE = [
    *(case for case in CASES if case["key"] not in NO_TEXT),
    *({"key": key, "value": {"count": 1}} for key in ("42", "a{b}c", "ключ", "a*b?", "😀")),
    *(
        {"key": f"enhanced {number}", "value": {"name": "Ada"}, "enhance": options}
        for number, options in enumerate(
            [
                {"millisecondsToLive": 60_000},
                {"migrations": [1, 2]},
                {"migrations": [1], "millisecondsToLive": 60_000},
            ]
        )
    ),
]


@with_node
async def test_grammy_writes_and_it_is_read_here(storage, redis_url):
    await run_node("write.mjs", "redis", LIVE, REDIS_URL=redis_url)
    for case in LIVE:
        reader = enhanced(storage, case["enhance"]) if "enhance" in case else storage
        assert await reader.read(case["key"]) == case["value"], case["key"]
    assert {key async for key in storage.read_all_keys()} == {case["key"] for case in LIVE}


@with_node
async def test_it_is_written_here_and_grammy_reads_it(storage, redis_url):
    for case in LIVE:
        writer = enhanced(storage, case["enhance"]) if "enhance" in case else storage
        await writer.write(case["key"], case["value"])
    missing = {"key": "missing", "missing": True}
    output = json.loads(
        await run_node("verify.mjs", "redis", [*LIVE, missing], REDIS_URL=redis_url)
    )
    assert (output["matched"], output["mismatches"]) == (len(LIVE) + 1, [])
