"""The SQL of `SQLiteStorage`, and the forms of its table.

Everything here runs on the storage's worker thread.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from gramkeep.errors import ConfigurationError
from gramkeep.storage import ANY, BUSY, DELETE, KEEP, Basis, Put, Record
from gramkeep.storages.sqlite.file import AT_ONCE, DatabaseFile, is_busy, quoted
from gramkeep.storages.sqlite.leases import Leases
from gramkeep.storages.worker import Claim, Job, Read, Write

SWEEP_EVERY: Final = 60.0  # seconds between two looks for expired sessions
SWEEP_AT_MOST: Final = 500  # rows deleted by one of them, so that no commit gets long
SCAN_PAGE: Final = 500  # keys read in one go while scanning

J = TypeVar("J", bound=Job[Any])


class Layout:
    """The form of the table: gramkeep's own. Values are BLOBs, expiries in milliseconds."""

    table = "gramkeep_sessions"
    columns = "(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, expires_at INTEGER)"
    has_index = True
    alive = "(expires_at IS NULL OR expires_at > ?)"
    expired = "expires_at <= ?"

    def dump(self, value: bytes) -> object:
        """Make what stands in the column of a session's bytes."""
        return value

    def load(self, stored: Any) -> bytes:
        """Make a session's bytes of what stands in the column."""
        return bytes(stored)

    def moment(self, seconds: float) -> int:
        """Count seconds since the epoch as the column does."""
        return math.ceil(seconds * 1000)

    def seconds(self, moment: float | None) -> float | None:
        """Give the column's moment in seconds since the epoch."""
        return None if moment is None else moment / 1000


class GramIOLayout(Layout):
    """The table of GramIO's ``@gramio/storage-sqlite``: JSON text, expiries in whole seconds.

    An expiry of 0 is none, as there. Its column type gives numbers the form of numbers, so that a
    session which is but a number comes back as the same number, not as the same text.
    """

    table = "gramio_storage"
    columns = "(key TEXT PRIMARY KEY, value JSONB NOT NULL, expires_at BIGINT)"
    has_index = False
    alive = "(expires_at IS NULL OR expires_at = 0 OR expires_at > ?)"
    expired = "expires_at <= ? AND expires_at <> 0"

    def dump(self, value: bytes) -> object:
        """Make JSON text; raises `ConfigurationError` for bytes that are none."""
        try:
            msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            text = "layout='gramio' keeps nothing but JSON: use it with codec=JSONCodec()"
            raise ConfigurationError(text) from error
        return value.decode()

    def load(self, stored: Any) -> bytes:
        """Make bytes of JSON text, or of the number that SQLite made of it."""
        return stored.encode() if isinstance(stored, str) else msgspec.json.encode(stored)

    def moment(self, seconds: float) -> int:
        """Count whole seconds, up."""
        return math.ceil(seconds)

    def seconds(self, moment: float | None) -> float | None:
        """Give the moment as it is, and none for 0."""
        return moment or None


LAYOUTS: Final = {"gramkeep": Layout(), "gramio": GramIOLayout()}


class Prune(Job[int]):
    __slots__ = ("at_most",)

    def __init__(self, at_most: int) -> None:
        super().__init__()
        self.at_most = at_most


class Page(Job[list[str]]):
    __slots__ = ("after", "prefix")

    def __init__(self, prefix: str, after: str | None) -> None:
        super().__init__()
        self.prefix = prefix
        self.after = after


class Database:
    """The sessions' table and their leases; lives on the worker's thread."""

    def __init__(
        self,
        path: Path,
        *,
        layout: Layout,
        table: str,
        synchronous: Literal["FULL", "NORMAL"],
        busy_timeout: float,
    ) -> None:
        index = quoted(f"{table}_expires_at")
        self._leases = Leases(path, table, busy_timeout=busy_timeout)
        table = quoted(table)
        schema = [f"CREATE TABLE IF NOT EXISTS {table} {layout.columns}"]
        if layout.has_index:
            schema.append(
                f"CREATE INDEX IF NOT EXISTS {index} ON {table} (expires_at) "
                "WHERE expires_at IS NOT NULL"
            )
        self._file = DatabaseFile(
            path, schema, synchronous=synchronous, busy_timeout=busy_timeout, lasting=True
        )
        self._layout = layout
        self._swept = 0.0
        alive = layout.alive
        self._select = f"SELECT key, value, expires_at FROM {table} WHERE {alive} AND key IN "
        self._select_keys = f"SELECT key FROM {table} WHERE {alive} AND key"
        self._exists = f"SELECT 1 FROM {table} WHERE {alive} AND key = ?"
        self._insert = f"INSERT INTO {table} (key, value, expires_at) VALUES (?, ?, ?) "
        self._overwrite = (
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
            "expires_at = excluded.expires_at"
        )
        self._update = f"UPDATE {table} SET value = ?, expires_at = ? WHERE {alive} AND key = ?"
        self._touch = f"UPDATE {table} SET expires_at = ? WHERE {alive} AND key = ?"
        self._delete = f"DELETE FROM {table} WHERE {alive} AND key = ?"
        self._remove = f"DELETE FROM {table} WHERE key = ?"
        self._sweep = (
            f"DELETE FROM {table} WHERE key IN "
            f"(SELECT key FROM {table} WHERE {layout.expired} LIMIT ?)"
        )

    def process(self, jobs: Sequence[Job[Any]]) -> Iterator[Sequence[Job[Any]]]:
        """Answer at once what writes no session, then all that does after one commit."""
        reads = [job for job in jobs if isinstance(job, Read)]
        claims = [job for job in jobs if isinstance(job, Claim)]
        releases = [job for job in jobs if isinstance(job, Write) and _only_gives_up(job)]
        writes = [job for job in jobs if isinstance(job, Write) and not _only_gives_up(job)]
        others = [job for job in jobs if isinstance(job, Page | Prune)]
        self._together(reads, self._get)
        self._together(releases, self._release)
        self._together(claims, self._claim)
        for job in others:
            self._together([job], self._look_through)
        if len(writes) < len(jobs):
            yield [*reads, *releases, *claims, *others]
        if writes:
            self._together(writes, self._commit)
            yield writes

    def close(self) -> None:
        self._leases.close()
        self._file.close()

    def _together(
        self,
        jobs: Sequence[J],
        carry_out: Callable[[sqlite3.Connection, Sequence[J]], None],
    ) -> None:
        """Carry out jobs as one, or where that fails alone, for those that don't fail alone."""
        if not jobs:
            return
        try:
            self._file.run(lambda connection: carry_out(connection, jobs))
        except Exception as error:  # noqa: BLE001 - handed to the callers
            if len(jobs) > 1 and not is_busy(error):  # which took long enough for all
                for job in jobs:
                    self._together([job], carry_out)
                return
            for job in jobs:
                job.error = error

    def _look_through(self, connection: sqlite3.Connection, jobs: Sequence[Page | Prune]) -> None:
        for job in jobs:
            if isinstance(job, Prune):
                job.answer = self._remove_expired(connection, job.at_most)
                continue
            from_where = f"{'>=' if job.after is None else '>'} ? ORDER BY key LIMIT {SCAN_PAGE}"
            start = job.prefix if job.after is None else job.after
            now = self._layout.moment(time.time())
            rows = connection.execute(f"{self._select_keys} {from_where}", (now, start))
            job.answer = [key for (key,) in rows]

    def _get(self, connection: sqlite3.Connection, reads: Sequence[Read]) -> None:
        found = self._read(connection, [key for job in reads for key in job.keys])
        for job in reads:
            job.answer = [found.get(key) for key in job.keys]

    def _claim(self, connection: sqlite3.Connection, claims: Sequence[Claim]) -> None:
        asked = [(key, job.lease) for job in claims for key in job.keys]
        answers, ran_out = self._leases.claim(asked)
        if ran_out:
            # Who held a key may have found its lease in order, and be writing: it is waited for.
            self._file.run(_lock_for_a_moment)
        # Not before that, to see what the last holders have written:
        held = [key for (key, _), is_held in zip(asked, answers, strict=True) if is_held]
        found = self._read(connection, held)
        left = iter(answers)
        for job in claims:
            job.answer = [found.get(key) if next(left) else BUSY for key in job.keys]

    def _release(self, _: sqlite3.Connection, releases: Sequence[Write]) -> None:
        answers = iter(self._leases.give_up(_given_up(releases)))
        for job in releases:
            job.answer = [next(answers) for _ in job.puts]

    def _commit(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        # Leases are looked at under the lock that every put needs: another process may claim a
        # key whose lease runs out meanwhile, but reads it only when this is written.
        leased = [
            (put.key, job.lease.owner)
            for job in writes
            if job.lease is not None
            for put in job.puts
        ]
        holders = self._leases.holders(leased) if leased else {}
        answers = [self._write(connection, job, holders) for job in writes]
        self._sweep_sometimes(connection)
        connection.execute("COMMIT")
        for job, answer in zip(writes, answers, strict=True):
            job.answer = answer
        # Not before others can see what was written. It is written, whatever comes of this: the
        # leases would end by themselves.
        if given_up := _given_up(writes):
            with suppress(sqlite3.Error, OSError):
                self._leases.give_up(given_up)

    def _read(self, connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Record]:
        now = self._layout.moment(time.time())
        found: dict[str, Record] = {}
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = connection.execute(f"{self._select}({marks})", (now, *some))
            for key, stored, expires_at in rows:
                value = self._layout.load(stored)
                found[key] = Record(value, value, self._layout.seconds(expires_at))
        return found

    def _write(
        self, connection: sqlite3.Connection, job: Write, holders: Mapping[str, str | None]
    ) -> list[bool]:
        nested = job.atomic and len(job.puts) > 1
        if nested:
            connection.execute("SAVEPOINT one_call")
        outcomes = []
        for put in job.puts:
            holder = None if job.lease is None else holders.get(put.key)
            is_free = holder is None or (job.lease is not None and holder == job.lease.owner)
            outcomes.append(is_free and self._put(connection, put))
        if nested:
            if not all(outcomes):
                connection.execute("ROLLBACK TO one_call")
            connection.execute("RELEASE one_call")
        return outcomes

    def _put(self, connection: sqlite3.Connection, put: Put) -> bool:
        key, expected = put.key, put.expected
        now = time.time()
        alive_at = self._layout.moment(now)
        expires_at = None if put.ttl is None else self._layout.moment(now + put.ttl)
        of_token = isinstance(expected, bytes)
        basis: tuple[object, ...] = (alive_at, key)
        if isinstance(expected, bytes):
            basis = (alive_at, key, self._layout.dump(expected))
        elif not isinstance(expected, Basis):
            return False  # no token of this storage's
        same = " AND value = ?" if of_token else ""

        def changed(statement: str, *parameters: object) -> bool:
            return connection.execute(statement, parameters).rowcount == 1

        if isinstance(put.value, bytes):
            value = self._layout.dump(put.value)
            if of_token:
                return changed(self._update + same, value, expires_at, *basis)
            if expected is ANY:
                return changed(self._insert + self._overwrite, key, value, expires_at)
            over_expired = f" WHERE {self._layout.expired}"
            overwrite = self._insert + self._overwrite + over_expired
            return changed(overwrite, key, value, expires_at, alive_at)
        if put.value is DELETE and of_token:
            return changed(self._delete + same, *basis)
        if put.value is KEEP and of_token and put.ttl is not None:
            return changed(self._touch + same, expires_at, *basis)
        if expected is ANY:
            if put.value is DELETE:
                connection.execute(self._remove, (key,))
            elif put.ttl is not None:
                connection.execute(self._touch, (expires_at, *basis))
            return True
        exists = connection.execute(self._exists + same, basis).fetchone() is not None
        return exists is of_token

    def _remove_expired(self, connection: sqlite3.Connection, at_most: int) -> int:
        return connection.execute(self._sweep, (self._layout.moment(time.time()), at_most)).rowcount

    def _sweep_sometimes(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() - self._swept < SWEEP_EVERY:
            return
        swept = self._remove_expired(connection, SWEEP_AT_MOST)
        if swept < SWEEP_AT_MOST:  # otherwise there may be more, for the next commit
            self._swept = time.monotonic()


def _lock_for_a_moment(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("COMMIT")


def _only_gives_up(job: Write) -> bool:
    """Whether a call changes no session."""
    return job.lease is not None and all(
        put.value is KEEP and put.expected is ANY and put.ttl is None and not put.hold
        for put in job.puts
    )


def _given_up(writes: Sequence[Write]) -> list[tuple[str, str]]:
    """Pair the keys that aren't held on with those who held them."""
    return [
        (put.key, job.lease.owner)
        for job in writes
        if job.lease is not None
        for put in job.puts
        if not put.hold
    ]
