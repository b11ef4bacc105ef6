"""What is asked of the server: reads, claims and changes, each of any number of keys."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

from gramkeep.storages.postgres.layout import Change
from gramkeep.storages.postgres.server import Server
from gramkeep.storages.postgres.statements import Kind, Statements

T = TypeVar("T")

Row: TypeAlias = Sequence[Any]
"""A key, its value, and the moment at which that expires, if the table says so."""


class Ask(NamedTuple):
    """What is asked about a key by a claim: for whom, for how many seconds, after what wait."""

    owner: str
    seconds: float
    waited: float


class Claimed(NamedTuple):
    """Whether a key was given, and its row if it was."""

    is_given: bool
    row: Row | None


class _Undone(Exception):
    """Ends a transaction of which nothing is to remain."""


class Calls:
    """The calls to one server. Keys and values are as they stand in the table.

    Each runs in a task of its own. Breaking a statement off takes a second connection, and leaves
    open for a while whether it was done; so a caller who is cancelled lets it run to its end.
    """

    def __init__(self, server: Server, statements: Statements) -> None:
        self.server = server
        self._statements = statements
        self._under_way: set[asyncio.Task[Any]] = set()

    async def read(self, keys: Iterable[str]) -> Mapping[str, Row]:
        """Read rows, and give those that are there."""
        asked = list(keys)
        rows = await self._unbroken(
            self.server.use(
                lambda connection: connection.fetch(self._statements.get, asked), repeatable=True
            )
        )
        return {row[0]: row for row in rows}

    async def claim(self, asks: Mapping[str, Ask]) -> Mapping[str, Claimed]:
        """Take leases, and read the rows of the keys that were given."""
        keys = sorted(asks)
        owners, seconds, waited = zip(*(asks[key] for key in keys), strict=True)
        halves = (keys, owners, seconds, waited, (), ()), ((), (), (), (), keys, owners)
        rows = await self._settled(
            self.server.use(
                # Both in one message, the second one seeing what the first one did.
                lambda connection: connection.fetchmany(self._statements.claim, halves),
                repeatable=True,
            )
        )
        given: dict[str, bool] = {}
        found: dict[str, Row] = {}
        for key, owner, value, expires_at in rows:
            if value is None:  # of the first half: who has the lease now
                given[key] = owner == asks[key].owner
            else:
                found[key] = (key, value, expires_at)
        return {key: Claimed(is_given, found.get(key)) for key, is_given in given.items()}

    async def change(self, changes: Mapping[str, Change]) -> Mapping[str, bool]:
        """Carry out changes, each for itself, and say which were done."""
        if not changes:
            return {}
        statement, arguments = self._put(changes)
        rows = await self._settled(
            self.server.use(lambda connection: connection.fetch(statement, *arguments))
        )
        return {row[0]: True for row in rows}

    async def change_all(self, changes: Mapping[str, Change]) -> Mapping[str, bool]:
        """Carry out all changes or none, and say which are what was expected.

        Leases are given up in either case.
        """
        statement, arguments = self._put(changes)

        async def work(connection: Any) -> Mapping[str, bool]:
            done: dict[str, bool] = {}
            with suppress(_Undone):
                async with connection.transaction(isolation="read_committed"):
                    rows = await connection.fetch(statement, *arguments)
                    done = {row[0]: True for row in rows}
                    if len(done) < len(changes):
                        raise _Undone
            return done

        done = await self._settled(self.server.use(work))
        if len(done) < len(changes):
            gives_up = {
                key: Change(Kind.NOTHING, owner=change.owner)
                for key, change in changes.items()
                if change.owner is not None and not change.hold
            }
            if gives_up:
                await self.change(gives_up)
        return done

    async def run(self, statement: str, *arguments: Any) -> list[Row]:
        """Run a statement that may as well be run twice, and give its rows."""
        return await self._unbroken(
            self.server.use(
                lambda connection: connection.fetch(statement, *arguments), repeatable=True
            )
        )

    async def remove_expired(self, at_most: int) -> int:
        """Remove some rows that have expired, and say how many."""
        rows = await self.run(self._statements.remove_expired, at_most)
        return int(rows[0][0])

    async def remove_leases(self, at_most: int) -> None:
        """Remove some leases that have run out."""
        await self.run(self._statements.remove_leases, at_most)

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    def _begun(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _unbroken(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call that goes on if its caller doesn't."""
        return await asyncio.shield(self._begun(call))

    async def _settled(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call that changes something, if cancelled too: then it is done or undone."""
        task = self._begun(call)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    continue  # raised below, when nothing is open
            raise

    def _put(self, changes: Mapping[str, Change]) -> tuple[str, list[Sequence[Any]]]:
        keys = sorted(changes)
        rows = [changes[key] for key in keys]
        statement = self._statements.put(
            {row.kind for row in rows}, leased=any(row.owner is not None for row in rows)
        )
        return statement, [keys, *zip(*rows, strict=True)]
