"""The way to a PostgreSQL server: what is asked before it is used, and what its errors mean."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from gramkeep.errors import ConfigurationError, StorageUnavailable
from gramkeep.storages.driver import driver_of
from gramkeep.storages.postgres.connections import Connections, Given, Own

with driver_of("postgres"):
    import asyncpg

T = TypeVar("T")

STATEMENTS: Final = 100  # that a connection keeps prepared; those in use are some dozens
TRIES: Final = 5  # of a call that the server undid to let another one go on

# The server is to plan each statement once for any arguments. It would plan them anew for every
# call, which takes longer than carrying them out, or read the whole table while that is new.
SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
    "default_transaction_isolation": "read committed",
}

UNDONE: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

# The server can't be asked, or not any more.
LOST: Final = (
    OSError,  # TimeoutError too
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)

# What asyncpg raises, after `InternalClientError`, about a connection that is ending already:
# nothing was sent on it.
_UNSENT: Final = "cannot switch to state"

OF_DATA: Final = {"22", "54"}  # classes of the server's error codes, about values and limits

_OTHER_TABLE: Final = (
    asyncpg.UndefinedColumnError,
    asyncpg.DatatypeMismatchError,
    asyncpg.InvalidColumnReferenceError,
    asyncpg.UndefinedFunctionError,
    asyncpg.WrongObjectTypeError,
)


class _Unsent(Exception):
    """A connection had been ended by the server before anything was asked of it."""


class Server:
    """The connections to a server, in one event loop of one process.

    ``place`` is a URL for `asyncpg.connect`, or a pool. ``has_pooler`` says whether something is
    between that gives each transaction another connection, in which no statements may be kept;
    ``None``: find out.
    """

    def __init__(
        self,
        name: str,
        place: Any,
        *,
        max_connections: int,
        connect_timeout: float,
        command_timeout: float,
        has_pooler: bool | None,
    ) -> None:
        self._name = name
        self._place = place
        self._is_own = isinstance(place, str)
        self._connections: Connections = Own(self._connect, max_connections)
        if not self._is_own:
            self._connections = Given(place)
        self._connect_timeout = connect_timeout
        self._command_timeout = command_timeout
        self._has_pooler = has_pooler

    async def open(self, prepare: Callable[[Any], Awaitable[None]]) -> None:
        """Find out what there is to know, and have the server prepared.

        ``prepare`` is given the first connection, for scripts without arguments.
        """

        async def greet(connection: Any) -> None:
            if self._has_pooler is None:
                # A pooler tells its clients a number of its own. Without arguments, and with the
                # answer in the number of rows, this needs no statement to be prepared.
                script = f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}"
                self._has_pooler = await connection.execute(script) != "SELECT 1"
            if self._has_pooler and not self._is_own:
                await self._check_keeps_no_statements(connection)
            await prepare(connection)

        if self._is_own:
            await self._look(greet)
        else:
            await self.use(greet, repeatable=True)

    async def use(self, work: Callable[[Any], Awaitable[T]], *, repeatable: bool = False) -> T:
        """Have something done with a connection.

        What the server undid for the sake of others, or was never sent, is done again; what is
        ``repeatable`` also where a connection turned out to be broken. Raises
        `StorageUnavailable`.
        """
        tries = 0
        while True:
            tries += 1
            is_begun, is_settled = False, True
            try:
                with self._explained(unless=(*UNDONE, _Unsent) if tries < TRIES else ()):
                    connection = await self._connections.take(self._connect_timeout)
                    is_begun = True
                    try:
                        async with asyncio.timeout(self._command_timeout):
                            return await work(connection)
                    except asyncpg.ReadOnlySQLTransactionError:
                        connection.terminate()  # a replica by now; the URL may name others too
                        raise
                    except asyncpg.InternalClientError as error:
                        connection.terminate()  # or the pool would give it to the next one
                        if str(error).startswith(_UNSENT):
                            raise _Unsent(str(error)) from error
                        raise
                    except (TimeoutError, asyncio.CancelledError):
                        is_settled = False
                        raise
                    finally:
                        # One that can't be cleared is closed, and no call suffers.
                        with suppress(*LOST, asyncpg.PostgresError):
                            await self._connections.give_back(
                                connection, self._command_timeout, is_settled=is_settled
                            )
            except _Unsent:
                continue
            except UNDONE:
                await asyncio.sleep(random.uniform(0, 0.01) * tries)  # noqa: S311 - no secret
            except StorageUnavailable as error:
                is_lost = isinstance(error.__cause__, LOST)
                if not is_lost or not is_begun:
                    raise
                if not repeatable:
                    reason = f"{error.reason}; whether the change was made is unknown"
                    raise self._unavailable(reason) from error.__cause__
                if tries > 1 or isinstance(error.__cause__, TimeoutError):
                    raise

    async def close(self) -> None:
        """Close the connections that are one's own."""
        await self._connections.close(self._command_timeout)

    async def _look(self, greet: Callable[[Any], Awaitable[None]]) -> None:
        with self._explained():
            try:
                connection = await asyncpg.connect(
                    self._place,
                    timeout=self._connect_timeout,  # pyright: ignore[reportArgumentType] - a float will do
                    statement_cache_size=0,
                )
            except ValueError:  # of the URL: what can't be read may be a part of the password
                text = f"storage URL {self._name!r} can't be read: is something not escaped?"
                raise ConfigurationError(text, storage=self._name) from None
            try:
                async with asyncio.timeout(self._command_timeout):
                    await greet(connection)
                    await connection.close()
            finally:
                connection.terminate()

    async def _connect(self) -> Any:
        settings = {} if self._has_pooler else dict(SETTINGS)
        if "application_name" not in dict(parse_qsl(urlsplit(self._place).query)):
            settings["application_name"] = "gramkeep"
        return await asyncpg.connect(
            self._place,
            timeout=self._connect_timeout,  # pyright: ignore[reportArgumentType] - a float will do
            # Without a cache, a statement is parsed again in the message that executes it.
            statement_cache_size=0 if self._has_pooler else STATEMENTS,
            server_settings=settings,
        )

    async def _check_keeps_no_statements(self, connection: Any) -> None:
        """Refuse a user's pool that would execute statements where they were never prepared.

        Or worse, where another client has prepared others under their names.
        """
        mark = f"gramkeep_{secrets.token_hex(8)}"
        async with connection.transaction():
            await connection.fetch(f"SELECT 1 AS {mark}")
            script = f"SELECT FROM pg_prepared_statements WHERE statement LIKE '%{mark}'"
            kept = await connection.execute(script)
        if kept != "SELECT 0":
            text = (
                f"{self._name}: a pooler is between that may give each transaction another "
                "connection. Make the pool with statement_cache_size=0; or say "
                "prepared_statements=True, if the pooler looks after prepared statements"
            )
            raise ConfigurationError(text, storage=self._name)

    @contextmanager
    def _explained(self, *, unless: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Raise `StorageUnavailable` where the server can't answer."""
        try:
            yield
        except unless:
            raise
        except asyncpg.PostgresError as error:
            raise self._unavailable(_reason(error)) from error
        except TimeoutError as error:
            raise self._unavailable("it didn't answer in time") from error
        except LOST as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _unavailable(self, reason: str) -> StorageUnavailable:
        return StorageUnavailable(storage=self._name, reason=reason)


def is_about_data(error: BaseException | None) -> bool:
    """Whether the server could work, but not with these keys or values."""
    return isinstance(error, asyncpg.PostgresError) and str(_sqlstate(error))[:2] in OF_DATA


def _sqlstate(error: Any) -> str | None:
    """Give the code of a server's error, which the driver sets without declaring it."""
    state: str | None = error.sqlstate
    return state


def _reason(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.InvalidSchemaNameError):
        advice = "the schema has to be there, and a bot needs USAGE on it"
    elif isinstance(error, asyncpg.UndefinedTableError):
        advice = "`await storage.setup()` makes the tables, as does whoever runs `storage.ddl`"
    elif isinstance(error, asyncpg.InsufficientPrivilegeError):
        advice = (
            "a bot needs SELECT, INSERT, UPDATE and DELETE on both of its tables; somebody who "
            "may create tables makes them by running `storage.ddl`"
        )
    elif isinstance(error, _OTHER_TABLE):
        advice = "the table has another form than this layout's, which `storage.ddl` shows"
    else:
        return str(error)
    return f"{error}: {advice}"
