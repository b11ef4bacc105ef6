"""The leases of `SQLiteStorage`, in a file of their own beside that of the sessions.

Nothing in it has to last: a write that nobody holds the key for is still compared with what is
stored. So it is never waited for until it is on the disk, and made anew where it can't be read.

Times are those of the monotonic clock, which all processes of a machine share and nobody sets. It
starts again with the machine: what claims to be from the future is left over from before.

Who holds a transaction on this file never waits for the file of the sessions.
"""

# ruff: noqa: S608 - the name of the table is quoted

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from gramkeep.storage import PLACE_KEPT, Lease
from gramkeep.storages.sqlite.file import AT_ONCE, DatabaseFile, quoted
from gramkeep.storages.sqlite.processes import is_dead, this_process

T = TypeVar("T")

SUFFIX: Final = "-leases"  # of the file's name, after that of the sessions' file
SWEEP_EVERY: Final = 60.0  # seconds between two looks for what the dead left behind
PLACE_RENEWED: Final = 0.1  # seconds after which a waiter renews its place
AS_LONG: Final = 0.002  # seconds; waits that differ by less count as equal
ATTEMPTS: Final = 5  # with a file that others may be deleting

# After these errors the file is made anew: it is another's, of another release, or broken.
UNREADABLE: Final = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}

log = logging.getLogger("gramkeep")


class Row(msgspec.Struct, frozen=True, gc=False):
    """Who holds a key, and of those who wait for it the one that has waited for longest."""

    owner: str | None = None
    process: str | None = None
    taken: float = 0.0
    until: float = 0.0
    waiter: str | None = None
    since: float = 0.0
    seen: float = 0.0

    def holder(self, now: float) -> str | None:
        """Say who holds the key."""
        return self.owner if self.taken <= now < self.until else None

    def first(self, now: float) -> str | None:
        """Say who is to hold the key next."""
        return self.waiter if self.seen <= now < self.seen + PLACE_KEPT else None

    def claimed(self, lease: Lease, waited: float, now: float) -> Row:
        """Give the row after a claim, which had its way if its owner is the holder then."""
        holder, first, since = self.holder(now), self.first(now), now - waited
        is_first = first is None or first == lease.owner
        if holder == lease.owner or (
            holder is None and (is_first or since - AS_LONG <= self.since)
        ):
            held = replace(
                self,
                owner=lease.owner,
                process=this_process(),
                taken=now,
                until=now + lease.seconds,
            )
            return held.without_waiter() if is_first else held
        if first == lease.owner and now - self.seen < PLACE_RENEWED:
            return self
        if is_first or since + AS_LONG < self.since:
            return replace(self, waiter=lease.owner, since=since, seen=now)
        return self

    def given_up(self, owner: str, now: float) -> Row:
        """Give the row after its owner, or one who waited, wants the key no more."""
        row = self.without_owner() if self.owner == owner else self
        return row.without_waiter() if self.first(now) in (None, owner) else row

    def without_owner(self) -> Row:
        """Give the row with nobody holding the key."""
        return replace(self, owner=None, process=None, taken=0.0, until=0.0)

    def without_waiter(self) -> Row:
        """Give the row with nobody waiting."""
        return self if self.waiter is None else replace(self, waiter=None, since=0.0, seen=0.0)


NOBODY: Final = Row()


class Leases:
    """The connection to the leases of one table of sessions, and all SQL for them."""

    def __init__(self, sessions: Path, table: str, *, busy_timeout: float) -> None:
        table = quoted(table)
        columns = (
            "(key TEXT PRIMARY KEY NOT NULL, owner TEXT, process TEXT, taken REAL NOT NULL, "
            "until REAL NOT NULL, waiter TEXT, since REAL NOT NULL DEFAULT 0, "
            "seen REAL NOT NULL DEFAULT 0)"
        )
        # Beside the file itself, as the logs of SQLite, for those that know it by a link.
        self._path = Path(os.path.realpath(sessions) + SUFFIX)
        self._file = DatabaseFile(
            self._path,
            [f"CREATE TABLE IF NOT EXISTS {table} {columns} WITHOUT ROWID"],
            synchronous="OFF",
            busy_timeout=busy_timeout,
            lasting=False,
        )
        self._swept = float("-inf")
        # Who was given a key over this connection, as long as nobody else changes the file.
        self._given: dict[str, str] = {}
        self._seen: tuple[sqlite3.Connection, int] | None = None
        self._select = (
            "SELECT key, owner, process, taken, until, waiter, since, seen "
            f"FROM {table} WHERE key IN "
        )
        self._take = (
            f"INSERT OR IGNORE INTO {table} (key, owner, process, taken, until) "
            "VALUES (?, ?, ?, ?, ?)"
        )
        self._leave = f"DELETE FROM {table} WHERE key = ? AND owner = ? AND waiter IS NULL"
        self._replace = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        self._delete = f"DELETE FROM {table} WHERE key = ?"
        self._sweep = (
            f"DELETE FROM {table} WHERE (owner IS NULL OR ? NOT BETWEEN taken AND until + ?) "
            f"AND (waiter IS NULL OR ? NOT BETWEEN seen AND seen + {PLACE_KEPT})"
        )

    def claim(self, claims: Sequence[tuple[str, Lease]]) -> tuple[list[bool], bool]:
        """Let leases have keys, and say of each whether it has; in one transaction.

        And say whether any was taken from one whose lease ran out, who may be writing still.
        """

        def decide(rows: dict[str, Row], now: float) -> tuple[list[bool], bool]:
            answers, ran_out = [], False
            for key, lease in claims:
                before = rows.get(key, NOBODY)
                row = rows[key] = before.claimed(lease, lease.waited.get(key, 0.0), now)
                answers.append(row.holder(now) == lease.owner)
                ran_out |= answers[-1] and before.owner not in (None, lease.owner)
            return answers, ran_out

        # Those who wait mostly wait on, and look before they keep others from writing.
        waits = any(lease.waited for _, lease in claims)
        if not waits and time.monotonic() - self._swept < SWEEP_EVERY:
            now, process = time.monotonic(), this_process()
            rows = [(key, lease.owner, process, now, now + lease.seconds) for key, lease in claims]
            if self._run(lambda connection: _all_or_none(connection, self._take, rows)):
                self._given.update((key, lease.owner) for key, lease in claims)
                return [True] * len(claims), False
        keys = [key for key, _ in claims]
        for key in keys:
            self._given.pop(key, None)
        return self._run(lambda connection: self._change(connection, keys, decide, waits))

    def give_up(self, given: Sequence[tuple[str, str]]) -> list[bool]:
        """Take keys from owners, and say of each whether no other one holds it."""

        def decide(rows: dict[str, Row], now: float) -> list[bool]:
            answers = []
            for key, owner in given:
                row = rows.get(key, NOBODY)
                answers.append(row.holder(now) in (None, owner))
                rows[key] = row.given_up(owner, now)
            return answers

        keys = [key for key, _ in given]
        for key in keys:
            self._given.pop(key, None)
        if self._run(lambda connection: _all_or_none(connection, self._leave, given)):
            return [True] * len(given)
        return self._run(lambda connection: self._change(connection, keys, decide))

    def holders(self, claimed: Sequence[tuple[str, str]]) -> dict[str, str | None]:
        """Say who holds keys, of which some may be missing for nobody.

        They are paired with those who think that they hold them, as nearly all do.
        """

        def look(connection: sqlite3.Connection) -> dict[str, str | None]:
            # Which changes with what others do, and is far sooner read than rows.
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if self._seen != (connection, version):
                self._seen = connection, version
                self._given.clear()
            if all(self._given.get(key) == owner for key, owner in claimed):
                return dict(claimed)
            rows, now = self._rows(connection, [key for key, _ in claimed])
            return {key: row.holder(now) for key, row in rows.items()}

        return self._run(look)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()

    def _run(self, operation: Callable[[sqlite3.Connection], T], attempts: int = ATTEMPTS) -> T:
        try:
            return self._file.run(operation)
        except (sqlite3.Error, FileNotFoundError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            # It was deleted at this moment; SQLite looks at it once more to open its log.
            vanished = isinstance(error, FileNotFoundError) or code == sqlite3.SQLITE_IOERR_FSTAT
            if attempts == 1 or not (vanished or code & 0xFF in UNREADABLE):
                error.add_note(str(self._path))
                raise
            if not vanished:
                log.warning("%s is no file of leases, and made anew: %s", self._path, error)
                self._file.delete()
        return self._run(operation, attempts - 1)

    def _change(
        self,
        connection: sqlite3.Connection,
        keys: Sequence[str],
        decide: Callable[[dict[str, Row], float], T],
        look_first: bool = False,
    ) -> T:
        """Carry out what is decided on the rows of keys, by changing the rows."""
        if look_first:
            before, now = self._rows(connection, keys)
            after = dict(before)
            answer = decide(after, now)
            if after == before:
                return answer
        connection.execute("BEGIN IMMEDIATE")
        before, now = self._rows(connection, keys)
        after = dict(before)
        answer = decide(after, now)
        changed = [(key, row) for key, row in after.items() if row != before.get(key, NOBODY)]
        for key, row in changed:
            if row == NOBODY:
                connection.execute(self._delete, (key,))
            else:
                connection.execute(self._replace, (key, *msgspec.structs.astuple(row)))
        if now - self._swept > SWEEP_EVERY:
            connection.execute(self._sweep, (now, SWEEP_EVERY, now))
            self._swept = now
        connection.execute("COMMIT")
        return answer

    def _rows(
        self, connection: sqlite3.Connection, keys: Sequence[str]
    ) -> tuple[dict[str, Row], float]:
        """Give the rows that there are, and the time: later than what is in any of them.

        What a dead process held, nobody holds.
        """
        rows: dict[str, Row] = {}
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            marks = ",".join("?" * len(some))
            found: Iterable[Any] = connection.execute(f"{self._select}({marks})", some)
            rows |= {key: Row(*columns) for key, *columns in found}
        for key, row in rows.items():
            if row.process is not None and row.process != this_process() and is_dead(row.process):
                rows[key] = row.without_owner()
        return rows, time.monotonic()


def _all_or_none(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> bool:
    """Carry out a statement with each of some rows, and say whether it changed one for each."""
    if len(rows) == 1:
        return connection.execute(statement, rows[0]).rowcount == 1
    connection.execute("BEGIN IMMEDIATE")
    all_changed = connection.executemany(statement, rows).rowcount == len(rows)
    connection.execute("COMMIT" if all_changed else "ROLLBACK")
    return all_changed
