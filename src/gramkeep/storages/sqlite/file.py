"""A connection to the SQLite file at a path, opened when it is needed and again when it must be.

Everything here runs on the storage's worker thread.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

# After these errors the connection is as good as before; after all others it is opened anew.
HARMLESS: Final = {"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_FULL", "SQLITE_TOOBIG"}

AT_ONCE: Final = 500  # keys in one SELECT; any SQLite takes 999 parameters

SHORTEST_PAUSE: Final = 0.0001  # seconds before a locked file is tried again,
LONGEST_PAUSE: Final = 0.001  # twice as many each time, as far as this

T = TypeVar("T")

FileId: TypeAlias = tuple[int, int]


class DatabaseFile:
    """The file at ``path``, in WAL mode, with what the statements of ``schema`` make in it.

    ``lasting``: a file that was there once isn't replaced by an empty one when it vanishes, nor
    what was dropped of its schema made up again. Otherwise both are made anew.
    """

    def __init__(
        self,
        path: Path,
        schema: Sequence[str],
        *,
        synchronous: Literal["FULL", "NORMAL", "OFF"],
        busy_timeout: float,
        lasting: bool,
    ) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._index = path.with_name(path.name + "-shm")
        self._schema = schema
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._lasting = lasting
        self._connection: sqlite3.Connection | None = None
        self._opened: FileId | None = None  # the file that was opened
        self._opened_log: FileId | None = None  # its write-ahead log

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out what does nothing where it raises, again while others keep the file locked.

        SQLite itself would look up to ten times a second, and never come to its turn between
        two processes that write all the time.
        """
        pause = SHORTEST_PAUSE
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                return operation(self.connected())
            except UnicodeDecodeError as error:  # SQLite quotes what it takes for SQL in the file
                self.close()
                text = "the file's schema is malformed"
                raise sqlite3.DatabaseError(text) from error
            except Exception as error:
                self._recover(error)
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def connected(self) -> sqlite3.Connection:
        """Give the connection to the file that is at the path now, opening it if need be."""
        if self._opened is not None and self._opened != self._present():
            self._let_go_of_replaced_file()
        return self._connection or self._open()

    def close(self) -> None:
        """Close the connection, if there is one; using the file opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def delete(self) -> None:
        """Remove the file, with all that belongs to it."""
        self.close()
        for path in (self._path, self._log, self._index):
            path.unlink(missing_ok=True)

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

    def _present(self) -> FileId | None:
        try:
            return file_id(self._path)
        except FileNotFoundError:
            if self._lasting:
                raise
            return None

    def _let_go_of_replaced_file(self) -> None:
        """Close the connection to a file in whose place another was put, a backup perhaps."""
        self.close()
        with suppress(FileNotFoundError):
            if self._opened_log == file_id(self._log):
                # The log belongs to the file that is gone. SQLite would take it for the new
                # one's, and write the old rows over the new.
                self._log.unlink()
                self._index.unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        is_new = self._opened is None or not self._lasting
        if not self._path.parent.is_dir():
            text = f"the folder {self._path.parent} does not exist"
            raise FileNotFoundError(text)
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={'rwc' if is_new else 'rw'}",
            uri=True,
            timeout=0,
            isolation_level=None,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            if is_new:
                self._create(connection)
            self._opened = file_id(self._path)
            # On a file system that can't share memory, SQLite stays with a journal of another kind.
            self._opened_log = file_id(self._log) if self._log.exists() else None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in self._schema:
            connection.execute(statement)
        connection.execute("COMMIT")


def file_id(path: Path) -> FileId:
    """Say which file stands at a path."""
    status = os.stat(path)  # noqa: PTH116 - half the cost, and asked in every call
    return status.st_dev, status.st_ino


def is_busy(error: Exception) -> bool:
    """Whether an error says that another process kept the file locked for too long."""
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def quoted(name: str) -> str:
    """Write a name of a table or an index as SQL does."""
    return '"' + name.replace('"', '""') + '"'
