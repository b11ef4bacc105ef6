"""`PostgresStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from gramkeep.errors import ConfigurationError, SessionEncodeError, StorageUnavailable
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import BUSY, Answer, Lease, Put, Record, Storage
from gramkeep.storages.driver import driver_of
from gramkeep.storages.postgres.calls import Calls, Row
from gramkeep.storages.postgres.grammy import GrammyLayout, put_all, put_each
from gramkeep.storages.postgres.layout import Change, Layout
from gramkeep.storages.postgres.link import Link
from gramkeep.storages.postgres.server import Server, is_about_data
from gramkeep.storages.postgres.statements import Statements, tables
from gramkeep.storages.url_options import (
    seconds,
    url_options,
    whole_number,
    without_password,
    yes_or_no,
)

with driver_of("postgres"):
    import asyncpg

SWEEP_AT_MOST: Final = 500  # rows deleted in one go, so that none takes long
SWEEP_PAUSE: Final = 0.5  # seconds between two such, for others to have their turn
SCAN_PAGE: Final = 500  # keys read in one go while scanning
RACES: Final = 3  # of processes that make the tables at once

LAYOUTS: Final[Mapping[str, type[Layout]]] = {"gramkeep": Layout, "grammy": GrammyLayout}
TABLES: Final = {"gramkeep": "gramkeep_sessions", "grammy": "sessions"}
OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "table": str,
    "schema": str,
    "leases": str,
    "layout": str,
    "create": yes_or_no,
    "max_connections": whole_number,
    "connect_timeout": seconds,
    "command_timeout": seconds,
    "prepared_statements": yes_or_no,
}

# Processes that start at once make the tables one after the other.
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(7310300213507794533);\n"
_MADE_MEANWHILE: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
)


class PostgresStorage(Storage):
    """Keeps sessions in a table of a PostgreSQL database.

    ``pool_or_dsn``: a URL as `asyncpg.connect` takes it, or an ``asyncpg.Pool`` of your own, which
    is never closed.
    ``table``: the table's name, or ``schema.table``; by default as the layout has it. ``schema``:
    the schema apart, and then any name will do for the table. ``leases``: the name of the table
    for leases, in the same schema.
    ``layout``: the form of the table, gramkeep's own or that of grammY's ``storage-psql``, which
    takes JSON alone.
    ``create``: whether the tables are made at first use if they aren't there; see `setup`.
    ``prepared_statements``: ``False`` if a pooler gives each transaction another connection,
    ``True`` if not, or if the pooler knows prepared statements; by default it is found out.
    ``max_connections``: how many are made at most, with a URL.
    ``connect_timeout``, ``command_timeout``: how long to wait for a connection, and for an answer;
    timedeltas or seconds.
    """

    can_lease = True
    transactional = True
    calls_at_once = 2

    def __init__(
        self,
        pool_or_dsn: asyncpg.Pool | str,
        *,
        table: str | None = None,
        schema: str | None = None,
        leases: str | None = None,
        layout: Literal["gramkeep", "grammy"] = "gramkeep",
        create: bool = True,
        prepared_statements: bool | None = None,
        max_connections: int = 10,
        connect_timeout: Lifetime = 5.0,
        command_timeout: Lifetime = 10.0,
    ) -> None:
        if layout not in LAYOUTS:
            text = f"layout={layout!r} must be one of {', '.join(LAYOUTS)}"
            raise ConfigurationError(text)
        names = tables(TABLES[layout] if table is None else table, schema, leases)
        if isinstance(pool_or_dsn, str):
            url = urlsplit(pool_or_dsn)
            if url.scheme not in ("postgresql", "postgres"):
                text = "PostgresStorage needs a URL: postgresql://user:password@host:5432/database"
                raise ConfigurationError(text)
            if misplaced := dict(parse_qsl(url.query)).keys() & OPTIONS.keys():
                text = (
                    f"{', '.join(sorted(misplaced))}: give it to PostgresStorage as a keyword; in "
                    "the URL it is for PostgresStorage.from_url"
                )
                raise ConfigurationError(text)
            if type(max_connections) is not int or max_connections < 1:
                text = f"max_connections={max_connections!r} must be a whole number above 0"
                raise ConfigurationError(text)
            self.name = without_password(pool_or_dsn).partition("?")[0]
        else:
            self.name = f"PostgreSQL table {names.table}"
        self._place = pool_or_dsn
        self._max_connections = max_connections
        self._has_pooler = None if prepared_statements is None else not prepared_statements
        self._connect_timeout = positive_seconds("connect_timeout", connect_timeout)
        self._command_timeout = positive_seconds("command_timeout", command_timeout)
        self._creates = create
        self._layout = LAYOUTS[layout](self.name)
        self._statements = Statements(self._layout.form, names)
        self._link: Link | None = None
        self._swept_to: str | None = None
        self._is_closed = False

    @classmethod
    def from_url(cls, url: str) -> PostgresStorage:
        """Make a storage from ``postgresql://user:password@host:port/database``.

        Options may follow a ``?``; those that aren't of this class are the driver's.
        """
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        own = urlencode([item for item in query if item[0] in OPTIONS])
        rest = urlencode([item for item in query if item[0] not in OPTIONS])
        options = url_options(parts._replace(query=own).geturl(), OPTIONS)
        return cls(parts._replace(query=rest).geturl(), **options)

    @property
    def ddl(self) -> str:
        """The SQL that makes the tables, for those who may make them. Running it twice is fine."""
        return self._statements.ddl

    async def setup(self) -> None:
        """Make the tables where they are missing. Happens at first use, unless ``create=False``.

        Raises `StorageUnavailable`.
        """
        calls = await self._connected()
        await calls.server.use(self._make_tables, repeatable=True)

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys."""
        calls = await self._connected()
        places: list[str | None] = []
        for key in keys:
            try:
                places.append(self._layout.key_in(key))
            except SessionEncodeError:  # nothing can be stored there
                places.append(None)
        asked = dict.fromkeys(place for place in places if place is not None)
        rows = await calls.read(asked) if asked else {}
        return [None if place is None else self._record(rows.get(place)) for place in places]

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Take leases and read what is there."""
        calls = await self._connected()
        places = [self._layout.key_in(key) for key in keys]
        if not places:
            return []
        waited = lease.waited
        waits = {place: waited.get(key, 0.0) for place, key in zip(places, keys, strict=True)}
        given = await calls.claim(waits, lease.owner, lease.seconds)
        answers: list[Record | Answer | None] = []
        expired: dict[str, Change] = {}
        for place in places:
            if place not in given:
                answers.append(BUSY)
                continue
            row = given[place]
            record = self._record(row)
            answers.append(record)
            if record is None and row is not None:
                expired[place] = self._layout.removal(row[1], lease.owner)
        if expired:  # so that a put, which expects nothing to be there, finds nothing
            await calls.change(expired)
        return answers

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, in one statement."""
        calls = await self._connected()
        owner = None if lease is None else lease.owner
        placed = {self._layout.key_in(put.key): put for put in puts}
        if not placed:
            return []
        carry_out = calls.change_all if atomic and len(placed) > 1 else calls.change
        try:
            if isinstance(self._layout, GrammyLayout):
                exactly = put_all if atomic and len(placed) > 1 else put_each
                return await exactly(self._layout, placed, owner, self._texts, carry_out)
            done = await carry_out(
                {place: self._layout.change(put, owner) for place, put in placed.items()}
            )
        except StorageUnavailable as error:
            if not is_about_data(error.__cause__):
                raise
            key, reason = puts[0].key, f"the server can't keep it ({error.__cause__})"
            raise SessionEncodeError(key=key, storage=self.name, path="$", reason=reason) from error
        finally:
            if self._link is not None:
                self._link.sweep_sometimes(partial(self._sweep, calls))
        return [place in done for place in placed]

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in the order of the table's index."""
        async for rows in self._pages(prefix):
            for row in rows:
                if row[1] is None or self._layout.record(row[1], None) is not None:
                    yield self._layout.key_of(row[0])

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions, and what is left of leases."""
        calls = await self._connected()
        await calls.remove_leases(at_most)
        if not self._layout.has_expiry_inside:
            return await calls.remove_expired(at_most)
        removed = 0
        async for rows in self._pages(""):
            removed += await self._remove_expired(calls, rows, at_most - removed)
            if removed >= at_most:
                break
        return removed

    async def aclose(self) -> None:
        """Wait for what is under way, and close the pool unless it is the user's. Idempotent."""
        self._is_closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connected(self) -> Calls:
        if self._is_closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        link = self._link
        if link is None or link.is_elsewhere:
            # Connections belong to one event loop, and don't survive a fork.
            link = self._link = self._new_link()
        if not link.is_open:
            await link.open()
            if link is not self._link:
                raise StorageUnavailable(storage=self.name, reason="it was closed")
        return link.calls

    def _new_link(self) -> Link:
        server = Server(
            self.name,
            self._place,
            max_connections=self._max_connections,
            connect_timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
            has_pooler=self._has_pooler,
        )
        return Link(Calls(server, self._statements), self._prepare)

    async def _prepare(self, connection: Any) -> None:
        if self._creates:
            await self._make_tables(connection)

    async def _make_tables(self, connection: Any) -> None:
        # Asked first, as making a table that is there takes a right that a bot need not have.
        for tries in range(RACES):
            if await connection.execute(self._statements.missing) == "SELECT 0":
                return
            try:
                await connection.execute(_ONE_AT_A_TIME + self.ddl)
            except _MADE_MEANWHILE:  # by somebody who doesn't queue with us: grammY, perhaps
                if tries == RACES - 1:
                    raise

    def _record(self, row: Row | None) -> Record | None:
        return None if row is None else self._layout.record(row[1], row[2])

    async def _texts(self, places: Iterable[str]) -> Mapping[str, str]:
        calls = await self._connected()
        rows = await calls.read(places)
        return {place: row[1] for place, row in rows.items()}

    async def _pages(self, prefix: str) -> AsyncIterator[Sequence[Row]]:
        calls = await self._connected()
        last: str | None = None
        while page := self._layout.page(self._statements, prefix, last, SCAN_PAGE):
            rows = await calls.run(*page)
            if rows:
                yield rows
                last = rows[-1][0]
            if len(rows) < SCAN_PAGE:
                return
            calls = await self._connected()

    async def _remove_expired(self, calls: Calls, rows: Sequence[Row], at_most: int) -> int:
        """Remove rows of a page whose expiry is inside of their values."""
        expired = {
            row[0]: self._layout.removal(row[1], None)
            for row in rows
            if row[1] is not None and self._layout.record(row[1], None) is None
        }
        chosen = dict(islice(expired.items(), at_most))
        return len(await calls.change(chosen))

    async def _sweep(self, calls: Calls) -> None:
        """Remove what has expired, in small steps, until there is nothing more."""
        with suppress(StorageUnavailable):  # nobody waits for it; there is another time
            await calls.remove_leases(SWEEP_AT_MOST)
            if self._layout.has_expiry_inside:
                page = self._layout.page(self._statements, "", self._swept_to, SWEEP_AT_MOST)
                rows = [] if page is None else await calls.run(*page)
                await self._remove_expired(calls, rows, SWEEP_AT_MOST)
                self._swept_to = rows[-1][0] if len(rows) == SWEEP_AT_MOST else None
                return
            removed = SWEEP_AT_MOST
            while removed == SWEEP_AT_MOST:
                removed = await calls.remove_expired(SWEEP_AT_MOST)
                await asyncio.sleep(SWEEP_PAUSE)
