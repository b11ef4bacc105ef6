"""`RedisStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from operator import attrgetter
from typing import Any, Final, cast

from gramkeep.errors import ConfigurationError, SessionDecodeError, StorageUnavailable
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import BUSY, Answer, Lease, Put, Record, Storage
from gramkeep.storages.driver import driver_of
from gramkeep.storages.redis.address import Address, Given, GivenCluster, parts_of_url
from gramkeep.storages.redis.calls import (
    READING,
    Kind,
    changing,
    claiming,
    command_of,
    in_parts,
)
from gramkeep.storages.redis.cluster import Cluster
from gramkeep.storages.redis.keys import key_bytes, key_text, pattern_of, slot_of
from gramkeep.storages.redis.servers import Limits, Server, Servers
from gramkeep.storages.redis.wire import Lost, Refused, Replicas, TooFewReplicas

with driver_of("redis"):
    from hiredis import ReplyError
    from redis.asyncio import Redis, RedisCluster

SCAN_COUNT: Final = b"500"  # places of the key space that one SCAN looks at
KEY_OF: Final = attrgetter("key")
FAILURES: Final = (Lost, Refused, TooFewReplicas)
REMEMBERED: Final = 20_000  # keys of a scan that are not given a second time


class RedisStorage(Storage):
    """Keeps sessions in the Redis or Valkey that ``client`` leads to.

    ``client``: a ``redis.asyncio.Redis``, also of a ``Sentinel``, or a ``RedisCluster``, whose
    addresses, logins and certificates are used for a connection of the storage's own; the client
    itself isn't touched, and never closed. Or what `from_url` makes of a URL.
    ``timeout``: how long an answer may take, a timedelta or seconds.
    ``connect_timeout``: how long connecting may take, logging in and asking Sentinels included.
    ``wait_replicas``: how many replicas must have a change before it is answered.
    ``wait_timeout``: how long to wait for them, less than ``timeout``.

    In a cluster several changes of one call are never ``atomic``, as they are of different nodes.
    """

    can_lease = True

    def __init__(
        self,
        client: Redis | RedisCluster | Address,
        *,
        timeout: Lifetime = 10.0,
        connect_timeout: Lifetime = 5.0,
        wait_replicas: int = 0,
        wait_timeout: Lifetime = 1.0,
    ) -> None:
        answer_within = positive_seconds("timeout", timeout)
        wait_within = positive_seconds("wait_timeout", wait_timeout)
        if wait_replicas < 0:
            raise ConfigurationError(f"wait_replicas={wait_replicas} can't be below 0")
        if wait_replicas and wait_within >= answer_within:
            text = f"wait_timeout={wait_timeout} must be less than timeout={timeout}"
            raise ConfigurationError(text)
        limits = Limits(
            connect_timeout=positive_seconds("connect_timeout", connect_timeout),
            timeout=answer_within,
            replicas=Replicas(wait_replicas, wait_within) if wait_replicas else None,
        )
        address = _address_of(client)
        self.name = address.name
        self._is_cluster = address.is_cluster
        self.transactional = not address.is_cluster
        make: Callable[[Address, Limits], Servers] = Cluster if address.is_cluster else Server
        self._servers = make(address, limits)
        self._is_closed = False

    @classmethod
    def from_url(cls, url: str) -> RedisStorage:
        """Make a storage from a URL; ``valkey`` and ``valkeys`` serve for ``redis``, ``rediss``.

        ``redis://user:password@host:6379/0``, ``rediss://…`` over TLS,
        ``redis+cluster://host:6379,host:6379``,
        ``redis+sentinel://user:password@host:26379,host:26379/service/0``.
        After a ``?`` may follow: ``timeout``, ``connect_timeout``, ``wait_replicas``,
        ``wait_timeout``, ``protocol`` (2 or 3), ``client_name``; over TLS ``ssl_ca_certs``,
        ``ssl_ca_path``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_cert_reqs``,
        ``ssl_check_hostname``; for Sentinels ``sentinel_username``, ``sentinel_password``.
        """
        address, options = parts_of_url(url)
        return cls(address, **options)

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys."""
        return self._records(keys, await self._ask(READING, keys, keys))

    async def claim(self, keys: Sequence[str], lease: Lease) -> list[Record | Answer | None]:
        """Read several keys that the lease's owner holds from here on."""
        waited: Sequence[Any] = keys
        if lease.waited:
            waited = [lease.waited.get(key, 0.0) for key in keys]
        return self._records(keys, await self._ask(claiming(lease), keys, waited))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes; ``atomic`` ones in one script, but not in a cluster."""
        owner = "" if lease is None else lease.owner
        kind = changing(owner, atomic and not self._is_cluster)
        keys = [*map(KEY_OF, puts)]
        replies = await self._ask(kind, keys, puts)
        if replies.count(1) == len(replies):
            return [True] * len(replies)
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, ReplyError):
                raise StorageUnavailable(storage=self.name, reason=str(reply), key=key)
        return [reply == 1 for reply in replies]

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``.

        Redis gives a key twice where its table shrinks meanwhile, and then soon after the first
        time. Of what was given the latest `REMEMBERED` keys at least are therefore not given again.
        """
        pattern = pattern_of(prefix)
        latest: set[bytes] = set()
        before: set[bytes] = set()
        async for page in self._pages(pattern):
            for raw in page:
                key = key_text(raw)
                if key is None or raw in latest or raw in before:
                    continue
                if len(latest) >= REMEMBERED:
                    latest, before = set(), latest
                latest.add(raw)
                yield key

    async def aclose(self) -> None:
        """Close the connections when their calls are answered. Idempotent."""
        self._is_closed = True
        await self._servers.aclose()

    async def _pages(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        command = (b"MATCH", pattern, b"COUNT", SCAN_COUNT, b"TYPE", b"string")
        self._check_open()
        try:
            async for wire in self._servers.wires():
                cursor = None
                while cursor != b"0":
                    # Over this connection or none: another server, or the same one restarted,
                    # would take the cursor for another place, and keys be left out.
                    scan = command_of(b"SCAN", cursor or b"0", *command)
                    cursor, page = await wire.ask(scan)
                    yield page
        except FAILURES as failure:
            raise self._unavailable(failure) from failure

    async def _ask(self, kind: Kind, keys: Sequence[str], items: Sequence[Any]) -> list[Any]:
        """Ask about all keys, and give the replies in their order.

        ``items`` say of each key what is asked about it.
        """
        if self._is_closed:
            self._check_open()
        try:
            if len(keys) != 1:
                return await self._ask_all(kind, keys, items)
            raw = key_bytes(keys[0], self.name)  # as nearly always
            slot = slot_of(raw) if self._is_cluster else None
            replies: list[Any] = await self._servers.ask(kind.call((raw,), items, slot))
        except FAILURES as failure:
            raise self._unavailable(failure) from failure
        return replies

    async def _ask_all(self, kind: Kind, keys: Sequence[str], items: Sequence[Any]) -> list[Any]:
        """Ask about any number of keys, in as many calls as it takes."""
        raw = [key_bytes(key, self.name) for key in keys]
        if not raw:
            return []
        whole: tuple[int | None, Sequence[int]] = None, range(len(raw))
        groups = [whole] if kind.is_indivisible else self._groups(kind, raw, items)
        calls = [
            kind.call([raw[at] for at in own], [items[at] for at in own], slot)
            for slot, own in groups
        ]
        if len(calls) == 1:
            replies: list[Any] = await self._servers.ask(calls[0])
            return replies
        answered = await asyncio.gather(*map(self._servers.ask, calls), return_exceptions=True)
        for outcome in answered:
            if isinstance(outcome, BaseException):
                raise outcome
        width = kind.width
        found: list[Any] = [None] * (len(raw) * width)
        for (_, own), part in zip(groups, cast("list[list[Any]]", answered), strict=True):
            for number, at in enumerate(own):
                found[at * width : (at + 1) * width] = part[number * width :][:width]
        return found

    def _groups(
        self, kind: Kind, raw: Sequence[bytes], items: Sequence[Any]
    ) -> list[tuple[int | None, Sequence[int]]]:
        """Divide keys by their slots, in a cluster, and where they are too many for one script."""
        by_slot: dict[int | None, Sequence[int]] = {None: range(len(raw))}
        if self._is_cluster:
            of_slots: dict[int | None, list[int]] = {}
            for at, key in enumerate(raw):
                of_slots.setdefault(slot_of(key), []).append(at)
            by_slot = dict(of_slots)
        return [
            (slot, own[part])
            for slot, own in by_slot.items()
            for part in in_parts([kind.size(items[at]) for at in own])
        ]

    def _records(self, keys: Sequence[str], replies: list[Any]) -> list[Any]:
        if len(keys) == 1:
            return [self._record(keys[0], *replies)]
        return list(map(self._record, keys, replies[::2], replies[1::2]))

    def _record(self, key: str, value: Any, lifetime: int) -> Record | Answer | None:
        if isinstance(value, bytes):
            # The value is its own token: equal bytes are an equal basis to build on.
            return Record(value, value, None if lifetime < 0 else time.time() + lifetime / 1000)
        if value is None:
            return None
        if value == 1:
            return BUSY
        reason = str(value)
        if "WRONGTYPE" in reason:
            reason = "Redis holds something else than a string there"
            raise SessionDecodeError(key=key, storage=self.name, path="$", reason=reason)
        raise StorageUnavailable(storage=self.name, reason=reason, key=key)

    def _check_open(self) -> None:
        if self._is_closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")

    def _unavailable(self, failure: Exception) -> StorageUnavailable:
        reason = str(failure)
        if isinstance(failure, Lost) and failure.was_sent:
            reason += ", before it answered: whether a change was made is not known"
        return StorageUnavailable(storage=self.name, reason=reason)


def _address_of(client: Redis | RedisCluster | Address) -> Address:
    if isinstance(client, Address):
        return client
    if isinstance(client, RedisCluster):
        return GivenCluster(client)
    if isinstance(client, Redis):
        return Given(client)
    text = (
        f"RedisStorage needs a redis.asyncio.Redis or RedisCluster, not {type(client).__name__}; "
        "RedisStorage.from_url() takes a URL"
    )
    raise ConfigurationError(text)
