"""Sessions in one SQLite file: nothing to install, safe with several processes on the file.

One connection lives on one thread of its own. Calls queue for it, and those that gathered while a
commit was under way go into the next one together (group commit): many updates share one wait for
the disk. A call is answered after its commit.

The table is ``(key TEXT PRIMARY KEY, value BLOB, expires_at INTEGER)``, the expiry in milliseconds
since the epoch. A value is its own token: writes compare it, whoever wrote it.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from gramkeep.errors import ConfigurationError, StorageUnavailable
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import ANY, DELETE, KEEP, Basis, Lease, Put, Record, Storage
from gramkeep.storages.worker import Job, Worker

SWEEP_EVERY: Final = 60.0  # seconds between two looks for expired sessions
SWEEP_AT_MOST: Final = 500  # rows deleted by one of them, so that no commit gets long
SCAN_PAGE: Final = 500  # keys read in one go while scanning
READ_AT_ONCE: Final = 500  # keys in one SELECT; any SQLite takes 999 parameters

# After these errors the connection is as good as before; after all others it is opened anew.
HARMLESS: Final = {"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_FULL", "SQLITE_TOOBIG"}

T = TypeVar("T")


class SQLiteStorage(Storage):
    """Keeps sessions in the SQLite file at ``path``, which is created at first use.

    ``synchronous``: ``"FULL"``, every answered save survives a power cut; ``"NORMAL"``, it
    survives any death of the process, but a power cut may undo the last ones.
    ``busy_timeout``: how long to wait for another process that is writing, a timedelta or seconds.
    ``table``: the table's name, created if it isn't there.

    A file that disappears while the bot runs isn't replaced by an empty one: reads and writes
    raise `StorageUnavailable` until a file is there again.
    """

    transactional = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: Lifetime = 10.0,
        table: str = "gramkeep_sessions",
    ) -> None:
        path = os.fspath(path)
        if not path or path == ":memory:" or "\0" in path:
            text = f"SQLiteStorage needs the path of a file, not {path!r}; see also memory://"
            raise ConfigurationError(text)
        if synchronous not in ("FULL", "NORMAL"):
            text = f"synchronous={synchronous!r} must be 'FULL' or 'NORMAL'"
            raise ConfigurationError(text)
        if not table or "\0" in table:
            text = f"table={table!r} is no name for a table"
            raise ConfigurationError(text)
        self.name = f"sqlite:///{path}"
        self._make_database: Callable[[], _Database] = partial(
            _Database,
            Path(path).absolute(),
            synchronous=synchronous,
            busy_timeout=positive_seconds("busy_timeout", busy_timeout),
            table='"' + table.replace('"', '""') + '"',
        )
        self._worker: Worker | None = None
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> SQLiteStorage:
        """Make a storage from ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

        The options ``synchronous``, ``busy_timeout`` and ``table`` may follow a ``?``.
        """
        parts = urlsplit(url, allow_fragments=False)  # a file's name may have a # in it
        if parts.netloc or len(parts.path) < 2:  # noqa: PLR2004 - a slash and a name
            text = f"storage URL {url!r}: write sqlite:///bot.db, or sqlite:////var/lib/bot.db"
            raise ConfigurationError(text)
        options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := options.keys() - {"synchronous", "busy_timeout", "table"}:
            text = f"storage URL {url!r}: unknown option {', '.join(sorted(unknown))}"
            raise ConfigurationError(text)
        if "busy_timeout" in options:
            try:
                options["busy_timeout"] = float(options["busy_timeout"])
            except ValueError:
                text = f"storage URL {url!r}: busy_timeout must be a number of seconds"
                raise ConfigurationError(text) from None
        return cls(unquote(parts.path[1:]), **options)

    async def get(self, keys: Sequence[str], lease: Lease | None = None) -> list[Record | None]:
        """Read several keys."""
        return await self._call(_Read(list(keys)))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, in one transaction with others that wait."""
        return await self._call(_Write(list(puts), atomic=atomic))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in their order."""
        page = await self._call(_Page(prefix, after=None))
        while page:
            for key in page:
                if not key.startswith(prefix):
                    return  # keys are in order, so no other one follows
                yield key
            page = await self._call(_Page(prefix, after=page[-1]))

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions from the file, in one short transaction."""
        return await self._call(_Prune(at_most))

    async def aclose(self) -> None:
        """Finish what was asked before, then close the file. Idempotent."""
        self._closed = True
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()

    async def _call(self, job: Job[T]) -> T:
        if self._closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        worker = self._worker
        if worker is None or worker.pid != os.getpid():
            # Threads and SQLite connections don't survive a fork: the child gets its own.
            database = self._make_database()
            worker = self._worker = Worker(self.name, database.process, database.close)
            weakref.finalize(self, worker.dismiss)
        try:
            return await worker.submit(job)
        except sqlite3.Error as error:
            raise StorageUnavailable(storage=self.name, reason=_reason(error)) from error
        except OSError as error:
            raise StorageUnavailable(storage=self.name, reason=str(error)) from error


class _Read(Job[list[Record | None]]):
    __slots__ = ("keys",)

    def __init__(self, keys: list[str]) -> None:
        super().__init__()
        self.keys = keys


class _Write(Job[list[bool]]):
    __slots__ = ("atomic", "puts")

    def __init__(self, puts: list[Put], *, atomic: bool) -> None:
        super().__init__()
        self.puts = puts
        self.atomic = atomic


class _Prune(Job[int]):
    __slots__ = ("at_most",)

    def __init__(self, at_most: int) -> None:
        super().__init__()
        self.at_most = at_most


class _Page(Job[list[str]]):
    __slots__ = ("after", "prefix")

    def __init__(self, prefix: str, after: str | None) -> None:
        super().__init__()
        self.prefix = prefix
        self.after = after


class _Database:
    """The connection and all SQL; lives on the worker's thread."""

    def __init__(self, path: Path, *, synchronous: str, busy_timeout: float, table: str) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._table = table
        self._connection: sqlite3.Connection | None = None
        self._file: _FileId | None = None  # of the file that was opened
        self._wal: _FileId | None = None  # of its write-ahead log
        self._swept = 0.0
        alive = "(expires_at IS NULL OR expires_at > ?)"
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
            f"(SELECT key FROM {table} WHERE expires_at <= ? LIMIT ?)"
        )

    def process(self, jobs: Sequence[Job[Any]]) -> Iterator[Sequence[Job[Any]]]:
        """Answer reads and pruning at once, then all writes after one commit."""
        writes = [job for job in jobs if isinstance(job, _Write)]
        others = [job for job in jobs if not isinstance(job, _Write)]
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

    def _commit(self, writes: Sequence[_Write]) -> None:
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

    def _answer(self, connection: sqlite3.Connection, job: _Read | _Page | _Prune) -> Any:
        now = _milliseconds(time.time())
        if isinstance(job, _Prune):
            return self._remove_expired(connection, job.at_most)
        if isinstance(job, _Page):
            from_where = f"{'>=' if job.after is None else '>'} ? ORDER BY key LIMIT {SCAN_PAGE}"
            start = job.prefix if job.after is None else job.after
            rows = connection.execute(f"{self._select_keys} {from_where}", (now, start))
            return [key for (key,) in rows]
        found: dict[str, Record] = {}
        for first in range(0, len(job.keys), READ_AT_ONCE):
            keys = job.keys[first : first + READ_AT_ONCE]
            marks = ",".join("?" * len(keys))
            for key, value, expires_at in connection.execute(
                f"{self._select}({marks})", (now, *keys)
            ):
                found[key] = Record(value, value, None if expires_at is None else expires_at / 1000)
        return [found.get(key) for key in job.keys]

    def _write(self, connection: sqlite3.Connection, job: _Write) -> list[bool]:
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
        alive_at = _milliseconds(now)
        expires_at = None if put.ttl is None else _milliseconds(now + put.ttl)
        of_token = not isinstance(expected, Basis)
        basis = (alive_at, key, expected) if of_token else (alive_at, key)
        same = " AND value = ?" if of_token else ""

        def changed(statement: str, *parameters: object) -> bool:
            return connection.execute(statement, parameters).rowcount == 1

        if isinstance(put.value, bytes):
            if of_token:
                return changed(self._update + same, put.value, expires_at, *basis)
            if expected is ANY:
                return changed(self._insert + self._overwrite, key, put.value, expires_at)
            over_expired = f" WHERE {self._table}.expires_at <= ?"
            overwrite = self._insert + self._overwrite + over_expired
            return changed(overwrite, key, put.value, expires_at, alive_at)
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
        return connection.execute(self._sweep, (_milliseconds(time.time()), at_most)).rowcount

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
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} "
            "(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, expires_at INTEGER)"
        )
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


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _reason(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    reason = f"{error} ({name})" if name else str(error)
    if name.startswith("SQLITE_BUSY"):
        return f"{reason}: another process kept the file locked for longer than busy_timeout"
    return reason
