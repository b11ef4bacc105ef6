"""What is asked of the server: reads, claims and changes, each of any number of keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

from gramkeep.storages.postgres.layout import Change
from gramkeep.storages.postgres.puts import Kind, Leases
from gramkeep.storages.postgres.server import Server
from gramkeep.storages.postgres.statements import Statements

T = TypeVar("T")

WANTED: Final = 1.0  # seconds for which a key is taken for wanted by others, once it was

# What is seldom the same for several changes, and not worth a statement of its own where it is.
DIFFERING: Final = {"value", "old"}

Row: TypeAlias = Sequence[Any]
"""A key, its value, and the moment at which that expires, if the table says so."""


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
        self._wanted: dict[str, float] = {}  # until when keys are taken for wanted by others

    async def read(self, keys: Iterable[str]) -> Mapping[str, Row]:
        """Read rows, and give those that are there."""
        asked = list(keys)
        rows = await self._unbroken(
            self.server.use(
                lambda connection: connection.fetch(self._statements.get, asked), repeatable=True
            )
        )
        return {row[0]: row for row in rows}

    async def claim(
        self, waits: Mapping[str, float], owner: str, seconds: float
    ) -> Mapping[str, Row | None]:
        """Take leases, and give the keys that were given, with their rows if they are there.

        ``waits`` says of each key for how many seconds the owner has waited for it.
        """
        left = sorted(waits)
        given: dict[str, Row | None] = {}
        if not any(waits.values()) and not self._are_wanted(left):
            statement: str = self._statements.take
            none: Any = ()
            asked: Any = left
            if len(left) == 1:
                statement, none, asked = self._statements.take_one, None, left[0]
            given = await self._claimed(
                statement, (asked, owner, seconds, none), (none, owner, seconds, asked)
            )
            left = [key for key in left if key not in given]
            self._note_wanted(left)
        if left:
            waited = [waits[key] for key in left]
            given |= await self._claimed(
                self._statements.claim,
                (left, owner, seconds, (), waited),
                ((), owner, seconds, left, ()),
            )
        return given

    async def change(self, changes: Mapping[str, Change]) -> Mapping[str, Row]:
        """Carry out changes, each for itself, and give the keys of those that were done."""
        if not changes:
            return {}
        if any(change.owner is None for change in changes.values()):
            return await self._changed(changes, Leases.IGNORED)
        if any(change.hold for change in changes.values()) or self._are_wanted(changes):
            return await self._changed(changes, Leases.HEEDED)
        done = await self._changed(changes, Leases.GIVEN_UP)
        if len(done) < len(changes):
            left = {key: change for key, change in changes.items() if key not in done}
            self._note_wanted(left)
            done |= await self._changed(left, Leases.HEEDED)
        return done

    async def change_all(self, changes: Mapping[str, Change]) -> Mapping[str, Row]:
        """Carry out all changes or none, and give the keys of those that are what was expected.

        Leases are given up in either case.
        """
        leases = Leases.IGNORED
        if any(change.owner is not None for change in changes.values()):
            leases = Leases.HEEDED
        statement, arguments = self._put(changes, leases)

        async def work(connection: Any) -> dict[str, Row]:
            done: dict[str, Row] = {}
            with suppress(_Undone):
                async with connection.transaction(isolation="read_committed"):
                    rows = await connection.fetch(statement, *arguments)
                    done = {row[0]: row for row in rows}
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

    async def _claimed(self, statement: str, *halves: Sequence[Any]) -> dict[str, Row | None]:
        rows = await self._settled(
            self.server.use(
                # Both in one message, the second one seeing what the first one did.
                lambda connection: connection.fetchmany(statement, halves),
                repeatable=True,
            )
        )
        given: dict[str, Row | None] = {}
        for row in rows:
            key, value = row[0], row[1]
            if value is None:  # of the first half, which comes first
                given[key] = None
            elif key in given:
                given[key] = row
        return given

    async def _changed(self, changes: Mapping[str, Change], leases: Leases) -> dict[str, Row]:
        statement, arguments = self._put(changes, leases)
        rows = await self._settled(
            self.server.use(lambda connection: connection.fetch(statement, *arguments))
        )
        return {row[0]: row for row in rows}

    def _are_wanted(self, keys: Iterable[str]) -> bool:
        """Whether others want one of the keys too, as was seen a short while ago.

        Then the statement that would do for keys which nobody else wants isn't tried first.
        """
        if not self._wanted:
            return False
        now = time.monotonic()
        self._wanted = {key: until for key, until in self._wanted.items() if until > now}
        return not self._wanted.keys().isdisjoint(keys)

    def _note_wanted(self, keys: Iterable[str]) -> None:
        self._wanted.update(dict.fromkeys(keys, time.monotonic() + WANTED))

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

    def _put(self, changes: Mapping[str, Change], leases: Leases) -> tuple[str, Sequence[Any]]:
        if len(changes) == 1:
            ((key, change),) = changes.items()
            statement = self._statements.put(frozenset((change.kind,)), leases, frozenset())
            return statement, (key, *change)
        keys = sorted(changes)
        arrays = {"key"}
        arguments: list[Any] = [keys]
        columns: Iterable[Sequence[Any]] = zip(*[changes[key] for key in keys], strict=True)
        for name, column in zip(Change._fields, columns, strict=True):
            if name not in DIFFERING and column.count(column[0]) == len(column):
                arguments.append(column[0])
            else:
                arrays.add(name)
                arguments.append(column)
        kinds = frozenset(change.kind for change in changes.values())
        return self._statements.put(kinds, leases, frozenset(arrays)), arguments
