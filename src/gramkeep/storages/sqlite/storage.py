"""`SQLiteStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from gramkeep.errors import ConfigurationError
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import Answer, Lease, Record
from gramkeep.storages.sqlite.database import LAYOUTS, Database, Page, Prune
from gramkeep.storages.sqlite.file import is_busy
from gramkeep.storages.url_options import seconds, url_options
from gramkeep.storages.worker import Claim, Worker, WorkerStorage


class SQLiteStorage(WorkerStorage):
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

    can_lease = True
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
        super().__init__()
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

    @classmethod
    def from_url(cls, url: str) -> SQLiteStorage:
        """Make a storage from ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

        The options ``synchronous``, ``busy_timeout``, ``layout`` and ``table`` may follow a ``?``.
        """
        parts = urlsplit(url, allow_fragments=False)  # a file's name may have a # in it
        if parts.netloc or len(parts.path) < 2:  # noqa: PLR2004 - a slash and a name
            text = f"storage URL {url!r}: write sqlite:///bot.db, or sqlite:////var/lib/bot.db"
            raise ConfigurationError(text)
        options = url_options(
            url, {"synchronous": str, "busy_timeout": seconds, "layout": str, "table": str}
        )
        return cls(unquote(parts.path[1:]), **options)

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read several keys that the lease's owner holds from here on, together with others."""
        return await self._call(Claim(keys, lease))

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

    def _begin(self) -> Worker:
        database = self._make_database()
        return Worker(self.name, database.process, database.close)

    def _reason(self, error: Exception) -> str | None:
        if not isinstance(error, sqlite3.Error):
            return super()._reason(error)
        name = getattr(error, "sqlite_errorname", "")
        reason = f"{error} ({name})" if name else str(error)
        reason = ": ".join([*getattr(error, "__notes__", []), reason])
        if is_busy(error):
            return f"{reason}: another process kept the file locked for longer than busy_timeout"
        return reason
