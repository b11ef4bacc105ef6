"""Where a Redis is, and how to connect to it: as a URL says, or as a client that the user made."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from gramkeep.errors import ConfigurationError
from gramkeep.storages.driver import driver_of
from gramkeep.storages.url_options import (
    seconds,
    url_options,
    whole_number,
    without_password,
    yes_or_no,
)

with driver_of("redis"):
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

Node: TypeAlias = tuple[str, int]
"""A server's host and port."""

PORT: Final = 6379
SENTINEL_PORT: Final = 26379


def _protocol(text: str) -> int:
    if text not in ("2", "3"):
        raise ValueError("2 or 3")
    return int(text)


def _cert_reqs(text: str) -> str:
    if text not in ("required", "optional", "none"):
        raise ValueError("required, optional or none")
    return text


_TLS: Final = {
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_check_hostname": yes_or_no,
}
_CONNECTION: Final = {"protocol": _protocol, "client_name": str}
_SENTINEL: Final = {"sentinel_username": str, "sentinel_password": str}
_STORAGE: Final = {
    "timeout": seconds,
    "connect_timeout": seconds,
    "wait_replicas": whole_number,
    "wait_timeout": seconds,
}


class Address(ABC):
    """Makes connections. ``name`` is its URL without passwords."""

    name: str
    is_cluster: bool = False
    has_sentinels: bool = False

    @abstractmethod
    async def connection(self, node: Node | None, within: float) -> AbstractConnection:
        """Make a connection, not connected yet, to where this leads or to a node of a cluster.

        ``within`` is how many seconds all of connecting may take.
        """

    async def primary(self, within: float) -> Node:
        """Ask the Sentinels for the present primary, where there are Sentinels."""
        raise NotImplementedError

    def nodes(self) -> list[Node]:
        """Give the nodes from which a cluster's others are found out."""
        return []


class Given(Address):
    """The server of a client that the user made, for standalone servers and with Sentinel."""

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool  # of one of several classes, hardly typed
        options = self._pool.connection_kwargs
        service = getattr(self._pool, "service_name", None)
        self.has_sentinels = service is not None
        if service is not None:
            self.name = f"redis+sentinel:///{service}"
        elif path := options.get("path"):
            self.name = f"unix://{path}"
        else:
            host, port = options.get("host", "localhost"), options.get("port", PORT)
            self.name = f"redis://{_joined((host, port))}/{options.get('db') or 0}"

    async def primary(self, within: float) -> Node:
        """Ask the Sentinels as the client would."""
        host, port = await self._pool.get_master_address()
        return str(host), int(port)

    async def connection(self, node: Node | None, within: float) -> AbstractConnection:
        """Make a connection as the client's pool would, without counting among its own."""
        connection: AbstractConnection = self._pool.make_connection()
        return connection


class GivenCluster(Address):
    """The cluster of a client that the user made."""

    is_cluster = True

    def __init__(self, client: RedisCluster) -> None:
        self._manager = client.nodes_manager
        self.name = f"redis+cluster://{','.join(map(_joined, self.nodes()))}"

    def nodes(self) -> list[Node]:
        """Give the nodes that the client would ask."""
        return [(node.host, int(node.port)) for node in self._manager.startup_nodes.values()]

    async def connection(self, node: Node | None, within: float) -> AbstractConnection:
        """Make a connection as the client would."""
        assert node is not None  # noqa: S101 - a cluster asks for one of its nodes
        host, port = node
        if (remap := getattr(self._manager, "address_remap", None)) is not None:
            host, port = remap(node)
        example = next(iter(self._manager.startup_nodes.values()))
        options = {**example.connection_kwargs, "host": host, "port": port}
        return example.connection_class(**options)


class FromURL(Address):
    """What a URL says: one server, the nodes of a cluster, or Sentinels and a service."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        parts = urlsplit(url, allow_fragments=False)
        brand, _, form = parts.scheme.partition("+")
        self._is_tls = brand in ("rediss", "valkeys")
        self._service: str | None = None
        login, at, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        self.is_cluster = form == "cluster"
        self.has_sentinels = form == "sentinel"
        self._nodes = [
            _node(url, host, SENTINEL_PORT if form == "sentinel" else PORT)
            for host in (hosts or "localhost").split(",")
        ]
        path = [unquote(part) for part in parts.path.split("/") if part]
        if form == "sentinel":
            if not path:
                raise ConfigurationError(
                    _complaint(url, "say the service: …/mymaster or …/mymaster/0")
                )
            self._service = path.pop(0)
        elif len(self._nodes) > 1 and not self.is_cluster:
            text = f"several hosts need {brand}+cluster:// or {brand}+sentinel://"
            raise ConfigurationError(_complaint(url, text))
        database = path.pop(0) if path else "0"
        if path or not database.isdecimal() or (self.is_cluster and database != "0"):
            text = (
                "a cluster has one database, 0" if self.is_cluster else "the database is a number"
            )
            raise ConfigurationError(_complaint(url, text))
        self._options: dict[str, Any] = {
            "username": unquote(user) or None,
            "password": unquote(password) or None,
            "protocol": 2,
            "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
            **{name: value for name, value in options.items() if name not in _SENTINEL},
        }
        self._sentinel_login = {
            name.removeprefix("sentinel_"): value
            for name, value in options.items()
            if name in _SENTINEL
        }
        if not self.is_cluster:
            self._options["db"] = int(database)
        where = [self._service] if self._service else []
        where += [] if self.is_cluster else [database]
        self.name = (
            f"{parts.scheme}://{user + at if user else ''}{','.join(map(_joined, self._nodes))}"
            + "".join(f"/{part}" for part in where)
        )

    def nodes(self) -> list[Node]:
        """Give the nodes that the URL names."""
        return self._nodes

    async def connection(self, node: Node | None, within: float) -> AbstractConnection:
        """Make a connection to the server, a node, or the present primary of the service."""
        if self.has_sentinels:
            node = await self.primary(within)
        host, port = node or self._nodes[0]
        return (SSLConnection if self._is_tls else Connection)(
            host=host,
            port=port,
            socket_connect_timeout=within,
            socket_timeout=None,
            **self._options,
        )

    async def primary(self, within: float) -> Node:
        """Ask the Sentinels, one after the other."""
        # Each Sentinel in its share of the time: one that hangs must not keep the others unasked.
        share = within / (len(self._nodes) + 1)
        tls = {name: value for name, value in self._options.items() if name in _TLS}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            self._nodes,
            sentinel_kwargs={
                "socket_connect_timeout": share,
                "socket_timeout": share,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
                "ssl": self._is_tls,
                **tls,
                **self._sentinel_login,
            },
        )
        try:
            host, port = await sentinel.discover_master(self._service or "")
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return str(host), int(port)


class URLParts(NamedTuple):
    """A URL, taken apart: where it leads, and the storage's own options."""

    address: Address
    options: dict[str, Any]


def parts_of_url(url: str) -> URLParts:
    """Read a URL. Raises `ConfigurationError`."""
    scheme = urlsplit(url, allow_fragments=False).scheme
    known: dict[str, Any] = {**_CONNECTION, **_STORAGE}
    if scheme.startswith(("rediss", "valkeys")):
        known |= _TLS
    if scheme.endswith("+sentinel"):
        known |= _SENTINEL
    options = url_options(url, known)
    own = {name: options.pop(name) for name in _STORAGE if name in options}
    return URLParts(FromURL(url, options), own)


def _keepalive() -> dict[int, int]:
    # A dead peer is noticed within a minute, as in newer versions of redis-py.
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


_KEEPALIVE: Final = _keepalive()


def _node(url: str, text: str, port: int) -> Node:
    parts = urlsplit(f"//{text}")
    try:
        return parts.hostname or "localhost", parts.port or port
    except ValueError:  # whose text has what may be a part of the password
        reason = "the port is a number, and in a password : / ? # @ are written as %3A and so on"
        raise ConfigurationError(_complaint(url, reason)) from None


def _joined(node: Node) -> str:
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _complaint(url: str, text: str) -> str:
    return f"storage URL {without_password(url)!r}: {text}"
