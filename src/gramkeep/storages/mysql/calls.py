"""Calls of `MySQLStorage` to its server: over which connection, how long, and how often."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from gramkeep.errors import StorageUnavailable
from gramkeep.storages.driver import driver_of
from gramkeep.storages.mysql.connections import (
    Connections,
    NoConnection,
    OwnConnections,
    Result,
    run,
)

with driver_of("mysql"):
    from asyncmy.errors import InterfaceError, MySQLError

T = TypeVar("T")

DEADLOCKS: Final = 10  # times that a call may be the victim before it gives up
SETTLES_WITHIN: Final = 1.0  # seconds; a cancelled call waits no longer for its answer

# Of https://dev.mysql.com/doc/mysql-errors/8.0/en/: error numbers, of the server and the client.
_DEADLOCK: Final = 1213  # the server rolled the whole transaction back
NO_SUCH_TABLE: Final = 1146
_PACKET_TOO_LARGE: Final = 1153
_SERVER_GONE: Final = 2006  # found before anything was sent
_SERVER_LOST: Final = 2013  # found while waiting for the answer

_HINTS: Final = {
    NO_SUCH_TABLE: "create the tables with `await storage.setup()`, or by hand: print storage.ddl",
    _PACKET_TOO_LARGE: "raise max_allowed_packet on the server",
    1142: "grant SELECT, INSERT, UPDATE and DELETE on both tables, and CREATE or create=False",
    1665: "set binlog_format to ROW or MIXED on the server",
}


class Conversation:
    """Round trips over one connection, of which the first and the last do more than asked."""

    __slots__ = ("_after", "_before", "_connection")

    def __init__(self, connection: Any, connections: Connections) -> None:
        self._connection = connection
        self._before = connections.before
        self._after = connections.after

    async def __call__(self, statements: Sequence[str], *, is_last: bool = False) -> list[Result]:
        """Send statements in one packet, and give what each of them answered."""
        before, self._before = self._before, ()
        after = self._after if is_last else ()
        results = await run(self._connection, [*before, *statements, *after])
        return results[len(before) : len(results) - len(after)]


Work: TypeAlias = Callable[[Conversation], Awaitable[T]]


class Calls:
    """Sends statements, each call over one of the connections that ``begin`` makes.

    ``name`` is the storage's, for errors; a call may take ``command_timeout`` seconds.
    """

    def __init__(
        self, name: str, begin: Callable[[], Connections], *, command_timeout: float
    ) -> None:
        self._name = name
        self._begin = begin
        self._command_timeout = command_timeout
        self._connections: Connections | None = None
        self._is_closed = False

    async def send(self, statements: Sequence[str], *, is_repeatable: bool = False) -> list[Result]:
        """Send statements in one packet."""

        async def once(ask: Conversation) -> list[Result]:
            return await ask(statements, is_last=True)

        return await self.converse(once, is_repeatable=is_repeatable)

    async def converse(self, work: Work[T], *, is_repeatable: bool = False) -> T:
        """Do work over one connection, and again where that can't do harm."""
        deadlocks = stale = lost = 0
        while True:
            try:
                return await self._attempt(work)
            except StorageUnavailable as error:
                cause = error.__cause__
                if is_error(cause, _DEADLOCK) and deadlocks < DEADLOCKS:
                    deadlocks += 1
                    pause = random.uniform(0, 0.002 * 2 ** min(deadlocks, 6))  # noqa: S311
                    await asyncio.sleep(pause)
                elif _was_never_sent(cause) and stale < self.lent().stale_at_most:
                    stale += 1
                elif is_error(cause, _SERVER_LOST) and is_repeatable and not lost:
                    lost += 1
                else:
                    raise

    async def _attempt(self, work: Work[T]) -> T:
        connections = self.lent()
        try:
            connection = await connections.acquire()
        except NoConnection as error:
            raise StorageUnavailable(storage=self._name, reason=str(error)) from error
        except (MySQLError, OSError) as error:
            raise StorageUnavailable(storage=self._name, reason=_reason(error)) from error
        task = asyncio.create_task(self._carry_out(work, connection, connections))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # What was sent will happen. A claim that came into force after its caller has given
            # it up would keep everybody out until it ends, so it is waited for.
            await _settle(task)
            raise

    async def _carry_out(self, work: Work[T], connection: Any, connections: Connections) -> T:
        """Do work over a connection, and give it back."""
        is_usable = False
        try:
            async with asyncio.timeout(self._command_timeout):
                answer = await work(Conversation(connection, connections))
            is_usable = True
        except TimeoutError as error:
            reason = (
                f"no answer within {self._command_timeout:g} s; whether it was carried out is "
                "not known"
            )
            raise StorageUnavailable(storage=self._name, reason=reason) from error
        except (MySQLError, OSError) as error:
            if _was_never_sent(error):
                connections.forget_idle()
            raise StorageUnavailable(storage=self._name, reason=_reason(error)) from error
        finally:
            # After any error the connection may hold an open transaction, or answers that nobody
            # waits for.
            await connections.release(connection, is_usable=is_usable)
        return answer

    def lent(self) -> Connections:
        """Give the connections of this event loop; raises `StorageUnavailable` if closed."""
        if self._is_closed:
            raise StorageUnavailable(storage=self._name, reason="it was closed")
        if self._connections is not None and self._connections.serve():
            return self._connections
        if isinstance(self._connections, OwnConnections):
            self._connections.abandon()
        self._connections = self._begin()
        return self._connections

    async def aclose(self) -> None:
        """Wait for what was asked before, then close the connections. Idempotent."""
        self._is_closed = True
        connections, self._connections = self._connections, None
        if connections is None:
            return
        if connections.serve():
            await connections.aclose()
        elif isinstance(connections, OwnConnections):
            connections.abandon()


def is_error(error: BaseException | None, number: int) -> bool:
    """Whether it is the driver's error with that number."""
    return isinstance(error, MySQLError) and error.args[:1] == (number,)


def _was_never_sent(error: BaseException | None) -> bool:
    """Whether the connection was found dead before anything went over it."""
    is_unconnected = isinstance(error, InterfaceError) and error.args[:1] == (0,)
    return is_unconnected or is_error(error, _SERVER_GONE)


def _reason(error: MySQLError | OSError) -> str:
    if not isinstance(error, MySQLError) or len(error.args) < 2:  # noqa: PLR2004 - number, text
        return str(error) or type(error).__name__
    number, text = error.args[:2]
    reason = f"{text} (error {number})"
    if number == _SERVER_LOST:
        return f"{reason}; whether it was carried out is not known"
    return f"{reason}: {_HINTS[number]}" if number in _HINTS else reason


async def _settle(task: asyncio.Task[Any]) -> None:
    """Wait for a task whose caller was cancelled, but not for ever, and not if cancelled again."""
    try:
        await asyncio.wait([task], timeout=SETTLES_WITHIN)
    finally:
        if not task.done():
            task.cancel()
        task.add_done_callback(_overlook)


def _overlook(task: asyncio.Task[Any]) -> None:
    """Take note of an error that there is nobody to be told of."""
    if not task.cancelled():
        task.exception()
