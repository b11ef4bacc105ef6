"""Connections to a PostgreSQL server: those of a pool that the user made, or one's own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from gramkeep.storages.driver import driver_of

with driver_of("postgres"):
    import asyncpg

IDLE: Final = 120.0  # seconds after which a connection is closed, before something between cuts it


class Connections(ABC):
    """Gives connections, each to one call at a time."""

    @abstractmethod
    async def take(self, within: float) -> Any:
        """Give a connection, waiting for one for as many seconds at most.

        Raises `TimeoutError`, and what the driver raises where there is none to be had.
        """

    @abstractmethod
    async def give_back(self, connection: Any, within: float, *, is_settled: bool) -> None:
        """Let others have a connection.

        Unless it ``is_settled``, a statement was broken off on it, and may still go on for as many
        seconds. Raises what the driver raises where it can't be used any more, and then nobody
        gets it.
        """

    @abstractmethod
    async def close(self, within: float) -> None:
        """Close those that are one's own."""


class Given(Connections):
    """Those of the user's pool."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def take(self, within: float) -> Any:
        """Give one of the pool."""
        return await self._pool.acquire(timeout=within)

    async def give_back(self, connection: Any, within: float, *, is_settled: bool) -> None:
        """Give it back to the pool, which looks after what was broken off."""
        if connection.is_closed():
            # asyncpg before 0.32 forgets those that were cut while they were in use, and one
            # after the other the pool has none left.
            connection.terminate()
        await self._pool.release(connection, timeout=within)

    async def close(self, within: float) -> None:
        """Leave the pool to its owner."""


class Own(Connections):
    """Up to ``at_most`` that are made when they are needed; the one used last is used next.

    Taking one that is at hand costs next to nothing, where a pool of the driver's makes a proxy
    and a task for it.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], at_most: int) -> None:
        self._connect = connect
        self._left = at_most  # that may yet be made
        self._idle: list[tuple[Any, float]] = []  # each with the moment it was used last
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._trimming: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def take(self, within: float) -> Any:
        """Give one that is at hand, or make one, or wait for one."""
        if self._is_closed:
            raise asyncpg.InterfaceError("it was closed")
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._left += 1
        async with asyncio.timeout(within):
            if self._left:
                self._left -= 1
            else:
                connection = await self._turn()
                if connection is not None and not connection.is_closed():
                    return connection
            try:
                return await self._connect()
            except BaseException:
                self._pass_on(None)
                raise

    async def give_back(self, connection: Any, within: float, *, is_settled: bool) -> None:
        """Let the next one have it who waits for one, if it can be used on."""
        try:
            if not is_settled and not connection.is_closed():
                async with asyncio.timeout(within):
                    await connection.execute(
                        "SELECT"
                    )  # which waits for the end of what is going on
        except BaseException:
            connection.terminate()
            raise
        finally:
            if connection.is_closed() or connection.is_in_transaction() or self._is_closed:
                connection.terminate()
                self._pass_on(None)
            else:
                self._pass_on(connection)

    async def close(self, within: float) -> None:
        """Close all that nobody uses; the others, when they are given back."""
        self._is_closed = True
        if self._trimming is not None:
            self._trimming.cancel()
        while self._idle:
            self._say_goodbye(self._idle.pop()[0], within)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _turn(self) -> Any:
        """Wait for a connection, or for ``None``: that one may be made."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on(turn.result())
            raise

    def _pass_on(self, connection: Any) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        if connection is None:
            self._left += 1
            return
        self._idle.append((connection, self._loop.time()))
        if self._trimming is None:
            self._trimming = self._loop.call_later(IDLE, self._trim)

    def _trim(self) -> None:
        """Close those that were not needed for a while."""
        self._trimming = None
        too_long = self._loop.time() - IDLE
        while self._idle and self._idle[0][1] <= too_long:
            self._left += 1
            self._say_goodbye(self._idle.pop(0)[0], IDLE)
        if self._idle:
            self._trimming = self._loop.call_at(self._idle[0][1] + IDLE, self._trim)

    def _say_goodbye(self, connection: Any, within: float) -> None:
        task = self._loop.create_task(_close(connection, within))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close(connection: Any, within: float) -> None:
    try:
        with suppress(
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
        ):
            await connection.close(timeout=within)
    finally:
        connection.terminate()
