"""Sessions in MySQL or MariaDB, shared by any number of processes and machines.

A table keeps the sessions, another one who holds which of them. An update alone costs two round
trips, whatever happens in them: one packet of statements that claims and reads, one that compares,
writes and gives up. A value is its own token: writes compare it, whoever wrote it.
"""

from gramkeep.storages.mysql.storage import MySQLStorage

__all__ = ["MySQLStorage"]
