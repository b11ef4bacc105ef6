"""Sessions as objects in a bucket: S3, and servers that speak like it.

An object is a session, in plain bytes that others can read. `layout` says what lies where,
`changes` how nothing gets lost; `objects` speaks to the server.
"""

from gramkeep.storages.s3.storage import S3Storage

__all__ = ["S3Storage"]
