"""Sessions in PostgreSQL: for bots of several processes, or where such a server is at hand.

A claim takes leases and reads in one round trip; a put compares, writes and gives leases up in one
statement. Each is of any number of keys.

The table is ``(key text COLLATE "C", value bytea, expires_at timestamptz)``, with one for leases
beside it. A value is its own token: writes compare it, whoever wrote it.
"""

from gramkeep.storages.postgres.storage import PostgresStorage

__all__ = ["PostgresStorage"]
