"""`MySQLStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gramkeep.errors import ConfigurationError, StorageUnavailable
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import BUSY, Answer, Lease, Put, Record, Storage
from gramkeep.storages.driver import driver_of
from gramkeep.storages.mysql.calls import NO_SUCH_TABLE, Calls, Conversation, is_error
from gramkeep.storages.mysql.changes import Batch, Change, TooLarge, fitting, in_order
from gramkeep.storages.mysql.connections import Connections, OwnConnections, PoolConnections
from gramkeep.storages.mysql.statements import SCAN_PAGE, Statements, decoded, encoded, id_of
from gramkeep.storages.url_options import (
    seconds,
    url_options,
    whole_number,
    without_password,
    yes_or_no,
)

with driver_of("mysql"):
    from asyncmy.pool import Pool

SWEEP_EVERY: Final = 60.0  # seconds between two looks for what has expired
SWEEP_AT_MOST: Final = 500  # rows deleted by one of them
PORT: Final = 3306


class MySQLStorage(Storage):
    """Keeps sessions in the database of a URL, ``mysql://user:password@host:3306/database``.

    In place of the URL an asyncmy pool can be given, which then is never closed. ``database``
    names the database for a pool; without it the tables are looked for in the pool's own.
    ``table``: the table's name; that of the leases is the same and ``_leases``.
    ``create``: whether the tables are created at first use if they aren't there; see `setup`.
    ``max_connections``: how many connections are made, at most; a pool has a limit of its own.
    ``connect_timeout``, ``command_timeout``: how long to wait for a connection to be made, and for
    the answer to a command or a free connection: timedeltas or seconds.
    ``tls``: an `ssl.SSLContext`; ``True`` checks the server's certificate as browsers do.
    ``unix_socket``: the path of the server's socket, in place of the URL's host and port.

    Raises `ConfigurationError` for options that make no sense.
    """

    can_lease = True
    transactional = True
    calls_at_once = 2

    def __init__(
        self,
        place: str | Pool,
        *,
        database: str | None = None,
        table: str = "gramkeep_sessions",
        create: bool = True,
        max_connections: int = 8,
        connect_timeout: Lifetime = 5.0,
        command_timeout: Lifetime = 10.0,
        tls: ssl.SSLContext | bool = False,
        unix_socket: str | None = None,
    ) -> None:
        if max_connections < 1:
            text = f"max_connections={max_connections!r} must be at least 1"
            raise ConfigurationError(text)
        self._connect_timeout = positive_seconds("connect_timeout", connect_timeout)
        self._command_timeout = positive_seconds("command_timeout", command_timeout)
        self._max_connections = max_connections
        self._arguments: dict[str, Any] = {}
        self._pool: Pool | None = None
        if isinstance(place, str):
            self._arguments, in_url = _arguments(place, tls=tls, unix_socket=unix_socket)
            database = database or in_url
            if not database:
                text = f"storage URL {without_password(place)!r} names no database"
                raise ConfigurationError(text)
            self._arguments |= {"database": database, "connect_timeout": self._connect_timeout}
            url = urlsplit(place)
            host = unix_socket or f"{url.hostname}:{self._arguments['port']}"
            self.name = f"mysql://{host}/{database}"
        else:
            self._pool = place
            self.name = f"mysql:///{database or ''}"
        if table != "gramkeep_sessions":
            self.name += f"?table={table}"
        self._statements = Statements(table, database)
        self._calls = Calls(self.name, self._begin, command_timeout=self._command_timeout)
        self._create = create
        self._largest_packet: int | None = None  # bytes; None until it was asked for
        self._swept = time.monotonic()

    @classmethod
    def from_url(cls, url: str) -> MySQLStorage:
        """Make a storage from ``mysql://user:password@host:port/database?option=value``.

        The options ``table``, ``create``, ``max_connections``, ``connect_timeout``,
        ``command_timeout``, ``tls``, ``tls_ca`` (the path of a file of certificates to trust) and
        ``unix_socket`` may follow the ``?``. ``mariadb://`` means the same.
        """
        options = url_options(
            url,
            {
                "table": str,
                "create": yes_or_no,
                "max_connections": whole_number,
                "connect_timeout": seconds,
                "command_timeout": seconds,
                "tls": yes_or_no,
                "tls_ca": str,
                "unix_socket": str,
            },
        )
        if trusted := options.pop("tls_ca", None):
            try:
                options["tls"] = ssl.create_default_context(cafile=trusted)
            except OSError as error:
                text = f"storage URL {without_password(url)!r}: tls_ca can't be read: {error}"
                raise ConfigurationError(text) from error
        return cls(url.partition("?")[0], **options)

    @property
    def ddl(self) -> str:
        """The statements that create the tables, for those who do that themselves."""
        return ";\n".join(self._statements.ddl) + ";\n"

    async def setup(self) -> None:
        """Create the tables, unless they are there. Idempotent.

        Called at the first use, unless ``create=False``. Raises `StorageUnavailable`.
        """
        try:
            await self._calls.send(self._statements.exist)
        except StorageUnavailable as error:
            if not is_error(error.__cause__, NO_SUCH_TABLE):
                raise
            # The last one keeps the driver from logging that somebody else was faster.
            await self._calls.send([*self._statements.ddl, "DO 0"])

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys."""
        if not keys:
            return []
        await self._prepare()
        ids = [id_of(key) for key in keys]
        found: dict[bytes, Record] = {}
        for statement in self._statements.get(list(dict.fromkeys(ids))):
            (result,) = await self._calls.send([statement], is_repeatable=True)
            found |= {id_: _record(value, expiry) for id_, value, expiry in result.rows}
        return [found.get(id_) for id_ in ids]

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read several keys, and hold them from here on."""
        if not keys:
            return []
        await self._prepare()
        ids = [id_of(key) for key in keys]
        waited = {id_of(key): since for key, since in lease.waited.items()}
        # In order, so that two calls never wait for each other crosswise.
        statements = self._statements.claim(sorted(set(ids)), lease, waited)
        # To claim what one has claimed already only makes the lease begin anew.
        results = await self._calls.send(statements, is_repeatable=True)
        answers: dict[bytes, Record | Answer | None] = {}
        for _, result in zip(results[::2], results[1::2], strict=True):
            for id_, is_held, value, expiry in result.rows:
                answer = None if value is None else _record(value, expiry)
                answers[id_] = answer if is_held else BUSY
        return [answers.get(id_, BUSY) for id_ in ids]

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes."""
        if not puts:
            return []
        largest = await self._prepare()
        try:
            groups = fitting(in_order(puts), largest)
        except TooLarge as error:
            key, size = error.change.put.key, error.change.size
            reason = (
                f"{size} bytes of SQL are needed to write it, and the server's max_allowed_packet "
                f"is {largest}: raise it there"
            )
            raise StorageUnavailable(storage=self.name, reason=reason, key=key) from error
        done: dict[int, bool] = {}
        if atomic and len(puts) > 1:
            done = await self._put_all(groups, lease)
        else:
            for group in groups:
                done |= await self._put_each(group, lease)
        await self._sweep_sometimes()
        return [done[place] for place in range(len(puts))]

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in the order of their bytes."""
        await self._prepare()
        start, after = encoded(prefix), None
        while True:
            page = self._statements.page(start, after)
            (result,) = await self._calls.send([page], is_repeatable=True)
            for id_, long_key in result.rows:
                key = decoded(id_ if long_key is None else long_key)
                if key.startswith(prefix):
                    yield key
            if len(result.rows) < SCAN_PAGE:
                return
            after = result.rows[-1][0]

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions from the table."""
        await self._prepare()
        removed = 0
        while removed < at_most:
            wanted = min(at_most - removed, SWEEP_AT_MOST)
            expired = self._statements.expired(wanted)
            (found,) = await self._calls.send([expired], is_repeatable=True)
            if not found.rows:
                break
            ids = sorted(id_ for (id_,) in found.rows)
            (result,) = await self._calls.send([self._statements.remove_expired(ids)])
            removed += result.changed
            if len(ids) < wanted:
                break
        return removed

    async def aclose(self) -> None:
        """Wait for what was asked before, then close the connections. Idempotent."""
        await self._calls.aclose()

    # What is sent.

    async def _put_each(self, changes: Sequence[Change], lease: Lease | None) -> dict[int, bool]:
        """Carry changes out, each for itself, in one transaction and one round trip."""
        before, after = self._around(changes, lease)
        batch = Batch(self._statements, changes, lease)
        start = ["START TRANSACTION", *before]
        results = await self._calls.send([*start, *batch.statements, *after, "COMMIT"])
        return batch.outcomes(results[len(start) :])

    async def _put_all(
        self, groups: Sequence[Sequence[Change]], lease: Lease | None
    ) -> dict[int, bool]:
        """Carry all changes out, or none; leases are given up in any case."""
        before, after = self._around([change for group in groups for change in group], lease)

        async def transaction(ask: Conversation) -> dict[int, bool]:
            await ask(["START TRANSACTION", *before, "SAVEPOINT gramkeep"])
            done: dict[int, bool] = {}
            for group in groups:
                batch = Batch(self._statements, group, lease)
                done |= batch.outcomes(await ask(batch.statements))
            undo = [] if all(done.values()) else ["ROLLBACK TO SAVEPOINT gramkeep"]
            await ask([*undo, *after, "COMMIT"], is_last=True)
            return done

        return await self._calls.converse(transaction)

    def _around(
        self, changes: Sequence[Change], lease: Lease | None
    ) -> tuple[list[str], list[str]]:
        """Give the statements about leases before and after those that change sessions."""
        if lease is None:
            return [], []
        ids = [change.id for change in changes]
        held = [change.id for change in changes if change.put.hold]
        return [self._statements.give_up(ids, held, lease)], [self._statements.remove_free(ids)]

    async def _sweep_sometimes(self) -> None:
        """Remove what has expired, and leases of the dead, once in a while."""
        now = time.monotonic()
        if now - self._swept < SWEEP_EVERY:
            return
        self._swept = now
        with suppress(StorageUnavailable):  # what was asked for is done
            removed = await self.prune(SWEEP_AT_MOST)
            (found,) = await self._calls.send([self._statements.dead_leases(SWEEP_AT_MOST)])
            if found.rows:
                ids = sorted(id_ for (id_,) in found.rows)
                await self._calls.send([self._statements.remove_free(ids)])
            if max(removed, len(found.rows)) == SWEEP_AT_MOST:
                self._swept = 0.0  # there may be more, for the next one

    async def _prepare(self) -> int:
        """Do what the first use needs, and give the largest packet that the server takes."""
        if self._largest_packet is None:
            if self._create:
                await self.setup()
            asked = ["SELECT @@max_allowed_packet"]
            (result,) = await self._calls.send(asked, is_repeatable=True)
            self._largest_packet = int(result.rows[0][0])
        return self._largest_packet

    def _begin(self) -> Connections:
        if self._pool is not None:
            return PoolConnections(self._pool, command_timeout=self._command_timeout)
        return OwnConnections(
            self._arguments,
            at_most=self._max_connections,
            connect_timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
        )


def _record(value: bytes, expiry: int | None) -> Record:
    return Record(value, value, None if expiry is None else expiry / 1000)


def _arguments(
    url: str, *, tls: ssl.SSLContext | bool, unix_socket: str | None
) -> tuple[dict[str, Any], str]:
    """Give what asyncmy wants to know of a URL, and the database that it names."""
    parts = urlsplit(url)
    shown = without_password(url)
    if parts.scheme not in ("mysql", "mariadb") or not (parts.hostname or unix_socket):
        text = f"storage URL {shown!r}: write mysql://user:password@host:3306/database"
        raise ConfigurationError(text)
    if parts.query or parts.fragment:
        text = f"storage URL {shown!r}: give options as keywords, or use MySQLStorage.from_url"
        raise ConfigurationError(text)
    return (
        {
            "host": parts.hostname,
            "port": parts.port or PORT,
            "unix_socket": unix_socket,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or "").encode(),  # text it would encode as Latin-1
            "ssl": ssl.create_default_context() if tls is True else tls or None,
            "charset": "utf8mb4",
            "autocommit": True,
        },
        unquote(parts.path[1:]),
    )
