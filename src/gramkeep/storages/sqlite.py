"""Sessions in one SQLite file: nothing to install, safe with several processes on the file.

One connection lives on one thread of its own. Calls queue for it, and those that gathered while a
commit was under way go into the next one together (group commit): many updates share one wait for
the disk. A call is answered after its commit.

The table is ``(key TEXT PRIMARY KEY, value BLOB, expires_at INTEGER)``, the expiry in milliseconds
since the epoch. A value is its own token: writes compare it, whoever wrote it.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from gramkeep.errors import ConfigurationError, StorageUnavailable
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import Lease, Put, Record, Storage
from gramkeep.storages.sqlite_database import LAYOUTS, Database, Page, Prune
from gramkeep.storages.worker import Job, Read, Worker, Write

T = TypeVar("T")


class SQLiteStorage(Storage):
    """Keeps sessions in the SQLite file at ``path``, which is created at first use.

    ``synchronous``: ``"FULL"``, every answered save survives a power cut; ``"NORMAL"``, it
    survives any death of the process, but a power cut may undo the last ones.
    ``busy_timeout``: how long to wait for another process that is writing, a timedelta or seconds.
    ``layout``: the form of the table, gramkeep's own or that of GramIO's SQLite storage, which
    takes JSON alone and counts lifetimes in whole seconds.
    ``table``: the table's name, created if it isn't there; by default as the layout has it.

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
        layout: Literal["gramkeep", "gramio"] = "gramkeep",
        table: str | None = None,
    ) -> None:
        path = os.fspath(path)
        if not path or path == ":memory:" or "\0" in path:
            text = f"SQLiteStorage needs the path of a file, not {path!r}; see also memory://"
            raise ConfigurationError(text)
        if synchronous not in ("FULL", "NORMAL"):
            text = f"synchronous={synchronous!r} must be 'FULL' or 'NORMAL'"
            raise ConfigurationError(text)
        if layout not in LAYOUTS:
            text = f"layout={layout!r} must be one of {', '.join(LAYOUTS)}"
            raise ConfigurationError(text)
        table = LAYOUTS[layout].table if table is None else table
        if not table or "\0" in table:
            text = f"table={table!r} is no name for a table"
            raise ConfigurationError(text)
        self.name = f"sqlite:///{path}"
        self._make_database: Callable[[], Database] = partial(
            Database,
            Path(path).absolute(),
            layout=LAYOUTS[layout],
            table=table,
            synchronous=synchronous,
            busy_timeout=positive_seconds("busy_timeout", busy_timeout),
        )
        self._worker: Worker | None = None
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> SQLiteStorage:
        """Make a storage from ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

        The options ``synchronous``, ``busy_timeout``, ``layout`` and ``table`` may follow a ``?``.
        """
        parts = urlsplit(url, allow_fragments=False)  # a file's name may have a # in it
        if parts.netloc or len(parts.path) < 2:  # noqa: PLR2004 - a slash and a name
            text = f"storage URL {url!r}: write sqlite:///bot.db, or sqlite:////var/lib/bot.db"
            raise ConfigurationError(text)
        options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := options.keys() - {"synchronous", "busy_timeout", "layout", "table"}:
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
        return await self._call(Read(keys))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, in one transaction with others that wait."""
        return await self._call(Write(puts, atomic=atomic))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in their order."""
        page = await self._call(Page(prefix, after=None))
        while page:
            for key in page:
                if not key.startswith(prefix):
                    return  # keys are in order, so no other one follows
                yield key
            page = await self._call(Page(prefix, after=page[-1]))

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions from the file, in one short transaction."""
        return await self._call(Prune(at_most))

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


def _reason(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    reason = f"{error} ({name})" if name else str(error)
    if name.startswith("SQLITE_BUSY"):
        return f"{reason}: another process kept the file locked for longer than busy_timeout"
    return reason
