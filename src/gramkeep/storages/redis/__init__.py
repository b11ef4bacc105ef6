"""Sessions in Redis or Valkey: one server, a Cluster, or whoever Sentinel says is the primary.

A session is a plain string under its own key, as grammY's and GramIO's storages keep it, and
expires by Redis's own means. Every call is one script, hence one round trip, and calls that come
while one is under way share the next: see `gramkeep.storages.redis.wire`. A value is its own token:
writes compare it, whoever wrote it.
"""

from gramkeep.storages.redis.storage import RedisStorage

__all__ = ["RedisStorage"]
