"""Sessions in files, one each: to look into, to copy, to keep under version control.

All work is done on one thread. Reads need no lock, as files are only ever replaced whole. Writes
that gathered are checked and carried out together, under a lock on the folder that keeps other
processes out; a call is answered when its files are on the disk. A value is its own token.
"""

from gramkeep.storages.file.storage import FileStorage

__all__ = ["FileStorage"]
