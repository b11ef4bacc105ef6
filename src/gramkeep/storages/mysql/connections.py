"""Connections for `MySQLStorage`: its own, a bounded number, or those of a user's pool."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from gramkeep.storages.driver import driver_of

with driver_of("mysql"):
    import asyncmy
    from asyncmy.cursors import Cursor
    from asyncmy.errors import MySQLError

IDLE: Final = 5.0  # seconds without use, after which a connection is asked whether it lives
PAUSE: Final = 0.05  # after which the event loop may have been busy while the server went away

SQL_MODE: Final = "STRICT_TRANS_TABLES"

# What statements rely on and a user's connection may have otherwise, for the length of one packet:
# MariaDB's SIMULTANEOUS_ASSIGNMENT and EMPTY_STRING_IS_NULL would change what they mean, and
# without autocommit they would leave a transaction open.
_BEFORE: Final = (
    "SET @gramkeep_sql_mode = @@SESSION.sql_mode, @gramkeep_autocommit = @@SESSION.autocommit",
    f"SET SESSION sql_mode = '{SQL_MODE}', SESSION autocommit = 1",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
_AFTER: Final = (
    "SET SESSION sql_mode = @gramkeep_sql_mode, SESSION autocommit = @gramkeep_autocommit",
)


class Result(NamedTuple):
    """What a statement answered: its rows, and how many it found or changed."""

    rows: Sequence[Any]
    changed: int


class NoConnection(Exception):
    """There is none, for the reason that is the text."""


class Connections(Protocol):
    """Where a storage borrows connections."""

    before: Sequence[str]
    """Statements that each packet begins with."""

    after: Sequence[str]
    """Statements that it ends with."""

    @property
    def stale_at_most(self) -> int:
        """How many may turn out dead, one after the other, before a live one comes."""
        ...

    def serve(self) -> bool:
        """Whether they are those of the running event loop, and of this process."""
        ...

    async def acquire(self) -> Any:
        """Borrow one; raises `NoConnection`, `MySQLError` or `OSError` if there is none."""
        ...

    async def release(self, connection: Any, *, is_usable: bool) -> None:
        """Give one back, or rid of it."""
        ...

    def forget_idle(self) -> None:
        """Note that one was dead, and so the others may be."""
        ...

    async def aclose(self) -> None:
        """Wait for those that are lent, and close what isn't the user's."""
        ...


class OwnConnections:
    """Up to ``at_most`` connections, made when needed, of one event loop in one process."""

    before: Sequence[str] = ()
    after: Sequence[str] = ()
    stale_at_most = 2  # the first of those that were idle; then they are new ones

    def __init__(
        self,
        arguments: Mapping[str, Any],
        *,
        at_most: int,
        connect_timeout: float,
        command_timeout: float,
    ) -> None:
        self._arguments = arguments
        self._at_most = at_most
        self._connect_timeout = connect_timeout
        self._patience = command_timeout
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._free = asyncio.Semaphore(at_most)
        self._idle: list[Any] = []
        self._is_closed = False

    def serve(self) -> bool:
        return self._loop is asyncio.get_running_loop() and self._pid == os.getpid()

    async def acquire(self) -> Any:
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            text = f"all {self._at_most} connections were busy for {self._patience:g} s"
            raise NoConnection(text) from None
        if self._is_closed:
            self._free.release()
            raise NoConnection("it was closed")
        try:
            while self._idle:
                connection = self._idle.pop()
                if await catch_up(connection) < IDLE or await self._lives(connection):
                    return connection
            return await self._connect()
        except BaseException:
            self._free.release()
            raise

    async def release(self, connection: Any, *, is_usable: bool) -> None:
        if is_usable and connection.connected:
            self._idle.append(connection)
        else:
            connection.close()
        self._free.release()

    def forget_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def abandon(self) -> None:
        """Let go of connections that belong to another event loop, or to the parent process."""
        idle, self._idle = self._idle, []
        if self._pid != os.getpid():
            return  # closing would take the parent's sockets out of the parent's selector
        for connection in idle:
            with suppress(RuntimeError):  # the event loop is closed
                connection.close()

    async def aclose(self) -> None:
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                for _ in range(self._at_most):  # as they come back
                    await self._free.acquire()
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await connection.ensure_closed()
            except (MySQLError, OSError):
                connection.close()

    async def _connect(self) -> Any:
        connection = None
        lock_wait = max(1, math.floor(self._patience / 2))  # seconds; it reports before we give up
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await asyncmy.connect(**self._arguments)
                session = f"SET SESSION sql_mode = '{SQL_MODE}', autocommit = 1"
                wait = f"SET SESSION innodb_lock_wait_timeout = {lock_wait}"
                # so that rows are locked, and no gaps between them
                isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
                await run(connection, [session, wait, isolation])
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, TimeoutError):
                text = f"no connection within {self._connect_timeout:g} s"
                raise NoConnection(text) from None
            raise
        return connection

    async def _lives(self, connection: Any) -> bool:
        try:
            async with asyncio.timeout(self._connect_timeout):
                await connection.ping(reconnect=False)
        except (MySQLError, OSError):  # TimeoutError is one
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        return True


class PoolConnections:
    """The connections of the user's pool, whose sessions are left as they were found."""

    before: Sequence[str] = _BEFORE
    after: Sequence[str] = _AFTER

    def __init__(self, pool: Any, *, command_timeout: float) -> None:
        self._pool = pool
        self._patience = command_timeout

    @property
    def stale_at_most(self) -> int:
        return int(self._pool.maxsize) + 1

    def serve(self) -> bool:
        return True

    async def acquire(self) -> Any:
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._pool.acquire()
        except TimeoutError:
            text = f"the pool gave no connection within {self._patience:g} s"
            raise NoConnection(text) from None
        except RuntimeError as error:  # it was closed
            raise NoConnection(f"the pool said: {error}") from error
        try:
            await catch_up(connection)
        except BaseException:
            await self._pool.release(connection)
            raise
        return connection

    async def release(self, connection: Any, *, is_usable: bool) -> None:
        if not is_usable:
            connection.close()  # the pool throws away what comes back closed
        await self._pool.release(connection)

    def forget_idle(self) -> None:
        """Leave that to the pool."""

    async def aclose(self) -> None:
        """Leave the pool open, and what is lent to those who have it."""


async def catch_up(connection: Any) -> float:
    """Let the event loop see that the server has hung up; gives the seconds since the last use.

    A connection that is known to be closed refuses to send. One that isn't, sends, and then it
    can't be told whether the server has carried out what was sent.
    """
    idle_for: float = asyncio.get_running_loop().time() - connection.last_usage
    if idle_for > PAUSE:
        await asyncio.sleep(0)  # the loop looks at its sockets,
        await asyncio.sleep(0)  # and runs what it has seen there
    return idle_for


async def run(connection: Any, statements: Sequence[str]) -> list[Result]:
    """Send statements in one packet, and give what each of them answered.

    Raises `MySQLError` at the first one that failed; those after it weren't carried out.
    """
    cursor = connection.cursor(Cursor)
    await cursor.execute(";".join(statements))
    results = [Result(await cursor.fetchall(), cursor.rowcount)]
    while await cursor.nextset():
        results.append(Result(await cursor.fetchall(), cursor.rowcount))
    return results
