"""The SQL of `SQLiteStorage`, its one connection, and the forms of its table.

Everything here runs on the storage's worker thread.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from gramkeep.errors import ConfigurationError
from gramkeep.storage import ANY, DELETE, KEEP, Put, Record
from gramkeep.storages.worker import Job, Read, Write

SWEEP_EVERY: Final = 60.0  # seconds between two looks for expired sessions
SWEEP_AT_MOST: Final = 500  # rows deleted by one of them, so that no commit gets long
SCAN_PAGE: Final = 500  # keys read in one go while scanning
READ_AT_ONCE: Final = 500  # keys in one SELECT; any SQLite takes 999 parameters

# After these errors the connection is as good as before; after all others it is opened anew.
HARMLESS: Final = {"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_FULL", "SQLITE_TOOBIG"}


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
    """The connection and all SQL; lives on the worker's thread."""

    def __init__(
        self, path: Path, *, layout: Layout, table: str, synchronous: str, busy_timeout: float
    ) -> None:
        table = '"' + table.replace('"', '""') + '"'
        self._path = path
        self._layout = layout
        self._log = path.with_name(path.name + "-wal")
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._table = table
        self._connection: sqlite3.Connection | None = None
        self._file: _FileId | None = None  # of the file that was opened
        self._wal: _FileId | None = None  # of its write-ahead log
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
        """Answer reads and pruning at once, then all writes after one commit."""
        writes = [job for job in jobs if isinstance(job, Write)]
        others = [job for job in jobs if not isinstance(job, Write)]
        if others:
            for job in others:
                self._attempt(job)
            yield others
        if writes:
            self._commit(writes)
            yield writes

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _attempt(self, job: Any) -> None:
        try:
            job.answer = self._answer(self._connected(), job)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            self._recover(error)
            job.error = error

    def _commit(self, writes: Sequence[Write]) -> None:
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, OSError) as error:
            self._recover(error)
            for write in writes:
                write.error = error
            return
        try:
            answers = [self._write(connection, write) for write in writes]
            self._sweep_sometimes(connection)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to the callers
            self._recover(error)
            if len(writes) == 1:
                writes[0].error = error
            else:
                for write in writes:  # alone, so that only the one which can't be written fails
                    self._commit([write])
            return
        for write, answer in zip(writes, answers, strict=True):
            write.answer = answer

    def _answer(self, connection: sqlite3.Connection, job: Read | Page | Prune) -> Any:
        now = self._layout.moment(time.time())
        if isinstance(job, Prune):
            return self._remove_expired(connection, job.at_most)
        if isinstance(job, Page):
            from_where = f"{'>=' if job.after is None else '>'} ? ORDER BY key LIMIT {SCAN_PAGE}"
            start = job.prefix if job.after is None else job.after
            rows = connection.execute(f"{self._select_keys} {from_where}", (now, start))
            return [key for (key,) in rows]
        found: dict[str, Record] = {}
        for first in range(0, len(job.keys), READ_AT_ONCE):
            keys = job.keys[first : first + READ_AT_ONCE]
            marks = ",".join("?" * len(keys))
            rows = connection.execute(f"{self._select}({marks})", (now, *keys))
            for key, stored, expires_at in rows:
                value = self._layout.load(stored)
                found[key] = Record(value, value, self._layout.seconds(expires_at))
        return [found.get(key) for key in job.keys]

    def _write(self, connection: sqlite3.Connection, job: Write) -> list[bool]:
        nested = job.atomic and len(job.puts) > 1
        if nested:
            connection.execute("SAVEPOINT one_call")
        outcomes = [self._put(connection, put) for put in job.puts]
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

    def _connected(self) -> sqlite3.Connection:
        """Give the connection to the file that is at the path now, opening it if need be."""
        if self._file is not None and self._file != _file_id(self._path):
            self._let_go_of_replaced_file()
        if self._connection is None:
            self._connection = self._open()
            self._file = _file_id(self._path)
            # On a file system that can't share memory, SQLite stays with a journal of another kind.
            self._wal = _file_id(self._log) if self._log.exists() else None
        return self._connection

    def _let_go_of_replaced_file(self) -> None:
        """Close the connection to a file in whose place another was put, a backup perhaps."""
        self.close()
        with suppress(FileNotFoundError):
            if self._wal == _file_id(self._log):
                # The log belongs to the file that is gone. SQLite would take it for the new
                # one's, and write the old sessions over the new.
                self._log.unlink()
                self._log.with_name(self._path.name + "-shm").unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        # Once a file was there, only a file that is there will do: creating an empty one in its
        # place would make every session new.
        mode = "rwc" if self._file is None else "rw"
        if not self._path.parent.is_dir():
            text = f"the folder {self._path.parent} does not exist"
            raise FileNotFoundError(text)
        deadline = time.monotonic() + self._busy_timeout
        while True:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode={mode}",
                uri=True,
                timeout=self._busy_timeout,
                isolation_level=None,
            )
            try:
                # Switching to WAL needs the file for itself, and doesn't wait for it.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                if self._file is None:  # a table that was dropped since isn't made up again
                    self._create(connection)
            except sqlite3.OperationalError as error:
                connection.close()
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            except BaseException:
                connection.close()
                raise
            else:
                return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} {self._layout.columns}")
        if self._layout.has_index:
            index = self._table[:-1] + '_expires_at"'
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {index} ON {self._table} (expires_at) "
                "WHERE expires_at IS NOT NULL"
            )
        connection.execute("COMMIT")

    def _recover(self, error: Exception) -> None:
        """Make the connection usable after an error, or open another one next time."""
        connection = self._connection
        if connection is None:
            return
        if getattr(error, "sqlite_errorname", None) in HARMLESS:
            if not connection.in_transaction:
                return
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
                return
        self.close()


_FileId: TypeAlias = tuple[int, int]


def _file_id(path: Path) -> _FileId:
    status = os.stat(path)  # noqa: PTH116 - half the cost, and asked in every call
    return status.st_dev, status.st_ino
