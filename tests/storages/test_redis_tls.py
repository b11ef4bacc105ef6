"""Redis over TLS, with a login."""

import asyncio
import gc
import os
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from servers.redis import tls_server

from gramkeep import StorageUnavailable
from gramkeep.storage import ANY, Put
from gramkeep.storages.redis import RedisStorage

__all__ = ["tls_server"]

PASSWORD = "p%40ss%3Aw%2Frd"  # p@ss:w/rd, as it is written in a URL


async def uses(storage):
    try:
        assert await storage.put([Put("key", b"\0" * 300_000, ANY)]) == [True]
        assert [len(record.value) for record in await storage.get(["key"])] == [300_000]
        assert [key async for key in storage.scan()] == ["key"]
    finally:
        await storage.aclose()


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_server_is_reached_over_tls_with_a_login(tls_server, scheme, protocol):
    await uses(
        RedisStorage.from_url(
            f"{scheme}://bot:{PASSWORD}@127.0.0.1:{tls_server.port}/0"
            f"?ssl_ca_certs={tls_server.authority}&protocol={protocol}"
        )
    )


async def test_a_client_of_the_users_own_is_reached_over_tls(tls_server):
    options = {"ssl": True, "ssl_ca_certs": str(tls_server.authority), "port": tls_server.port}
    async with Redis(username="bot", password="p@ss:w/rd", **options) as client:
        await uses(RedisStorage(client))


async def test_a_server_that_can_not_be_trusted_is_not_used(tls_server):
    storage = RedisStorage.from_url(f"rediss://bot:{PASSWORD}@127.0.0.1:{tls_server.port}/0")
    with pytest.raises(StorageUnavailable, match="certificate verify failed") as raised:
        await storage.get(["key"])
    assert "ss:w" not in str(raised.value)
    await storage.aclose()


async def test_a_forked_child_does_not_end_the_connection_of_its_parent(tls_server):
    storage = RedisStorage.from_url(
        f"rediss://bot:{PASSWORD}@127.0.0.1:{tls_server.port}/0?ssl_ca_certs={tls_server.authority}"
    )
    await storage.put([Put("key", b"parent", ANY)])
    connections = int(tls_server.info("stats")["total_connections_received"])
    writers = [each for each in gc.get_objects() if isinstance(each, asyncio.StreamWriter)]
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.events._set_running_loop(None)
            asyncio.run(storage.put([Put("child", b"1", ANY)]))
            for writer in writers:
                with suppress(ResourceWarning):
                    writer.__del__()  # as the end of a child does
            status = 0
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert status == 0
    assert [record.value for record in await storage.get(["key", "child"])] == [b"parent", b"1"]
    # The child's, and the one that asks for this figure.
    assert int(tls_server.info("stats")["total_connections_received"]) == connections + 2
    await storage.aclose()


async def test_the_connection_is_made_anew_after_a_restart(tls_server):
    storage = RedisStorage.from_url(
        f"rediss://bot:{PASSWORD}@127.0.0.1:{tls_server.port}/0?ssl_ca_certs={tls_server.authority}"
    )
    await storage.put([Put("key", b"1", ANY)])
    tls_server.restart()
    assert await storage.put([Put("key", b"2", b"1")]) == [True]
    await storage.aclose()
