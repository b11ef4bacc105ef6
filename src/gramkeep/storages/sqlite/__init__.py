"""Sessions in one SQLite file: nothing to install, safe with several processes on the file.

The connection lives on a thread of its own. Calls queue for it, and those that gathered while a
commit was under way go into the next one together (group commit): many updates share one wait for
the disk. A call is answered after its commit.

The table is ``(key TEXT PRIMARY KEY, value BLOB, expires_at INTEGER)``, the expiry in milliseconds
since the epoch. A value is its own token: writes compare it, whoever wrote it.

Leases stand in a second file beside the first, which costs no wait for the disk.
"""

from gramkeep.storages.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
