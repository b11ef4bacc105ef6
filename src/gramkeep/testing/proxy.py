"""A TCP proxy that fails as networks do, to stand between a storage, or a bot, and its server.

```python
async with TCPProxy("127.0.0.1", 6379) as proxy:
    async with Sessions(initial=dict, storage=f"redis://{proxy.address}") as sessions:
        await sessions.update("42", count_up)
        proxy.cut()  # the server is gone for a moment
        await sessions.update("42", count_up)
```

It needs nothing but the standard library, and knows nothing of what goes through: TLS stays TLS.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_PIECE: Final = 65536  # bytes
_RESET_WHEN_CLOSED: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


class TCPProxy:
    """Takes connections on a port of its own on loopback, and leads each to ``host`` and ``port``.

    Its faults strike the connections that are open and new ones, may be combined, and last until
    `resume`. ``latency``, in seconds, is how much later every piece of data arrives, each way; it
    may be set at any time. The proxy belongs to one event loop, on Windows a selector one; its
    clients may be anywhere.
    """

    def __init__(self, host: str, port: int, *, latency: float = 0.0) -> None:
        self.server = host, port
        self.latency = latency
        self.opened = 0
        """How many connections there were in all; also those that found no server behind."""
        self._listener: socket.socket | None = None
        self._port = 0
        self._connections: set[_Connection] = set()
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._drops_answers = False
        self._has_dropped = asyncio.Event()

    @property
    def host(self) -> str:
        """Where it listens."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """Where clients connect to: one and the same port, as long as the proxy is there."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``, as it stands in URLs."""
        return f"{self.host}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def cut(self) -> int:
        """Reset the connections that are open, as a server that dies does; say how many."""
        return self._cut(set(self._connections))

    def refuse(self) -> None:
        """Refuse new connections, as a machine where nobody listens. Open ones go on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def stall(self) -> None:
        """Take connections and data, but hold the data back, both ways. Nothing gets lost."""
        self._goes_on.clear()

    def drop_answers(self) -> None:
        """Let requests through to the server, and drop what it answers.

        Connections that have lost an answer are cut by `resume`, as nobody could make sense of
        what follows.
        """
        self._has_dropped.clear()
        self._drops_answers = True

    async def dropped(self) -> None:
        """Wait until an answer was dropped, and the server thus has done what it was asked."""
        await self._has_dropped.wait()

    def resume(self) -> None:
        """End all faults. What was held back arrives."""
        self._drops_answers = False
        self._cut({connection for connection in self._connections if connection.has_lost})
        self._goes_on.set()
        if self._listener is None:
            self._listen()

    async def __aenter__(self) -> Self:
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        tasks = [connection.task for connection in self._connections]
        self.cut()
        if tasks:
            await asyncio.wait(tasks)

    def _listen(self) -> None:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self._port))
            listener.listen(1024)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        self._listener, self._port = listener, listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionError):  # the client was gone before
            client, _ = listener.accept()
            client.setblocking(False)
            self.opened += 1
            connection = _Connection(self, client)
            self._connections.add(connection)
            connection.task.add_done_callback(lambda _: self._connections.discard(connection))

    async def lets_through(self, connection: _Connection, data: bytes, *, is_answer: bool) -> bool:
        """Wait until a piece of data may arrive, and say whether it does. For its connection."""
        if self.latency:
            await asyncio.sleep(self.latency)
        await self._goes_on.wait()
        if not (self._drops_answers and is_answer and data):
            return True
        connection.has_lost = True
        self._has_dropped.set()
        return False

    def _cut(self, connections: set[_Connection]) -> int:
        self._connections -= connections
        for connection in connections:
            connection.cut()
        return len(connections)


class _Connection:
    """A client, the connection to the server that was made for it, and what goes to and fro."""

    def __init__(self, proxy: TCPProxy, client: socket.socket) -> None:
        self.has_lost = False
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(self._close)
        self._proxy = proxy
        self._client = client
        self._ends: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Reset both ends."""
        self.task.cancel()
        _reset_when_closed(self._client)
        for end in self._ends:
            _reset(end)

    def _close(self, _: asyncio.Task[None]) -> None:
        if not self._ends:  # it was cut before it began
            self._client.close()

    async def _run(self) -> None:
        requests, client_end = await asyncio.open_connection(sock=self._client)
        self._ends.append(client_end)
        try:
            answers, server_end = await asyncio.open_connection(*self._proxy.server)
            self._ends.append(server_end)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._lead(requests, server_end, is_answer=False))
                ways.create_task(self._lead(answers, client_end, is_answer=True))
        except* OSError:  # what one end did to its connection happens to the other one
            for end in self._ends:
                _reset(end)
        finally:
            for end in self._ends:
                end.close()

    async def _lead(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while True:
            data = await source.read(_PIECE)
            if not await self._proxy.lets_through(self, data, is_answer=is_answer):
                continue
            if not data:
                break
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


def _reset(end: asyncio.StreamWriter) -> None:
    connection = end.get_extra_info("socket")
    if connection is not None:
        _reset_when_closed(connection)
    end.transport.abort()


def _reset_when_closed(connection: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_WHEN_CLOSED)
