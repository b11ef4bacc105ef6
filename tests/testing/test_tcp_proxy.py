"""The proxy leads connections through, and fails in the ways it says."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from gramkeep.testing.proxy import TCPProxy

PROMPT = 20.0
A_MOMENT = 0.1


class Echo:
    """A server that answers all it gets by itself, and notes it."""

    def __init__(self):
        self.seen = []
        self.ended = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _talk(self, reader, writer):
        try:
            while data := await reader.read(65536):
                self.seen.append(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
async def echo():
    async with Echo() as echo:
        yield echo


@pytest.fixture
async def proxy(echo):
    async with TCPProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@asynccontextmanager
async def client_of(proxy):
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(client, line):
    reader, writer = client
    writer.write(line)
    await writer.drain()
    async with asyncio.timeout(PROMPT):
        return await reader.readline()


async def until(condition):
    async with asyncio.timeout(PROMPT):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_said_arrives_and_so_does_the_answer(proxy):
    async with client_of(proxy) as client:
        assert await ask(client, b"one\n") == b"one\n"
        assert await ask(client, b"two\n") == b"two\n"


async def test_much_data_arrives_whole_and_in_order(proxy):
    data = bytes(range(251)) * 20_000
    async with client_of(proxy) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(PROMPT):
            answer = await reader.readexactly(len(data))
    is_same = answer == data
    assert is_same


async def test_connections_are_counted(proxy):
    assert (proxy.open, proxy.opened) == (0, 0)
    async with client_of(proxy) as one, client_of(proxy) as two:
        assert [await ask(one, b"1\n"), await ask(two, b"2\n")] == [b"1\n", b"2\n"]
        assert (proxy.open, proxy.opened) == (2, 2)
    await until(lambda: proxy.open == 0)
    assert proxy.opened == 2


async def test_an_end_goes_through_in_both_directions(proxy, echo):
    async with client_of(proxy) as (reader, writer):
        writer.write(b"last\n")
        writer.write_eof()
        assert await reader.read() == b"last\n"
    await until(lambda: echo.ended == 1 and proxy.open == 0)


async def test_cutting_resets_both_ends_and_new_connections_work(proxy, echo):
    async with client_of(proxy) as client:
        await ask(client, b"one\n")
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await ask(client, b"two\n")
    await until(lambda: echo.ended == 1)
    assert proxy.open == 0
    async with client_of(proxy) as client:
        assert await ask(client, b"three\n") == b"three\n"
    assert echo.seen == [b"one\n", b"three\n"]


async def test_a_connection_can_be_cut_before_anything_was_said(proxy):
    for pause in range(8):
        async with client_of(proxy) as (reader, _):
            await until(lambda: proxy.open == 1)
            for _ in range(pause):
                await asyncio.sleep(0)
            assert proxy.cut() == 1
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_refusing_leaves_open_connections_and_ends_on_the_same_port(proxy):
    port = proxy.port
    async with client_of(proxy) as client:
        await ask(client, b"one\n")
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(proxy.host, port)
        assert await ask(client, b"two\n") == b"two\n"
    proxy.resume()
    assert proxy.port == port
    async with client_of(proxy) as client:
        assert await ask(client, b"three\n") == b"three\n"


async def test_a_stall_holds_requests_and_answers_until_it_ends(proxy, echo):
    async with client_of(proxy) as old:
        await ask(old, b"one\n")
        proxy.stall()
        asked = asyncio.create_task(ask(old, b"two\n"))
        async with client_of(proxy) as new:
            asked_too = asyncio.create_task(ask(new, b"three\n"))
            await asyncio.sleep(A_MOMENT)
            assert echo.seen == [b"one\n"]
            assert not asked.done()
            assert not asked_too.done()
            proxy.resume()
            assert [await asked, await asked_too] == [b"two\n", b"three\n"]


async def test_a_stalled_connection_can_be_cut(proxy, echo):
    async with client_of(proxy) as client:
        await ask(client, b"one\n")
        proxy.stall()
        asked = asyncio.create_task(ask(client, b"two\n"))
        await asyncio.sleep(A_MOMENT)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asked
    assert echo.seen == [b"one\n"]


async def test_dropped_answers_are_those_of_requests_that_were_carried_out(proxy, echo):
    async with client_of(proxy) as client:
        await ask(client, b"one\n")
        proxy.drop_answers()
        asked = asyncio.create_task(ask(client, b"two\n"))
        await asyncio.wait_for(proxy.dropped(), PROMPT)
        assert echo.seen == [b"one\n", b"two\n"]
        assert not asked.done()
        async with client_of(proxy) as untouched:
            proxy.resume()
            assert await ask(untouched, b"three\n") == b"three\n"
        with pytest.raises(ConnectionResetError):
            await asked
    assert echo.seen == [b"one\n", b"two\n", b"three\n"]


async def test_waiting_for_a_drop_is_for_the_drops_since(proxy):
    for line in (b"one\n", b"two\n"):
        async with client_of(proxy) as client:
            proxy.drop_answers()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(proxy.dropped(), A_MOMENT)
            client[1].write(line)
            await asyncio.wait_for(proxy.dropped(), PROMPT)
            proxy.resume()


async def test_latency_delays_each_way_and_can_be_changed(proxy):
    async with client_of(proxy) as client:
        proxy.latency = 0.1
        start = time.monotonic()
        await ask(client, b"one\n")
        assert time.monotonic() - start >= 0.2
        proxy.latency = 0.0
        took = []
        for _ in range(10):  # of which the machine may hold some up
            start = time.monotonic()
            await ask(client, b"two\n")
            took.append(time.monotonic() - start)
        assert min(took) < 0.2


async def test_without_a_server_behind_it_connections_are_reset(proxy, echo):
    echo._server.close()
    async with client_of(proxy) as client:
        with pytest.raises(ConnectionResetError):
            await ask(client, b"one\n")
    await until(lambda: proxy.open == 0)
    assert proxy.opened == 1


async def test_leaving_the_proxy_ends_everything(echo):
    async with TCPProxy("127.0.0.1", echo.port) as proxy:
        port = proxy.port
        reader, writer = await asyncio.open_connection(proxy.host, port)
        await ask((reader, writer), b"one\n")
        proxy.stall()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: echo.ended == 1)
    assert proxy.open == 0
