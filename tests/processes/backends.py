"""Every storage that several processes can use, each with a server of its own where it has one."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from servers.mariadb import query
from servers.mariadb import running_server as running_mariadb
from servers.mongodb import running_server as running_mongodb
from servers.postgres import running_pgbouncer, running_postgres
from servers.process import running, server_folder
from servers.redis import RedisServer, valkey_binary
from servers.redis_cluster import RedisCluster
from servers.s3 import S3Server


class Server(Protocol):
    """A server of our own, which may be killed and started again on its data."""

    def kill(self) -> None: ...
    def start(self) -> object: ...


@dataclass
class Backend:
    """A storage's URL, and the server behind it if it is one process that tests may kill."""

    url: str
    server: Server | None = None

    def url_through(self, port: int) -> str:
        """Give the URL that leads to another port of this machine."""
        parts = urlsplit(self.url)
        return self.url.replace(f":{parts.port}", f":{port}", 1)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port


@contextmanager
def folder() -> Iterator[Path]:
    """Hold a folder where a disk that others use too stops nobody for seconds."""
    place = server_folder("processes", in_memory=True)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def sqlite() -> Iterator[Backend]:
    with folder() as place:
        yield Backend(f"sqlite:///{place}/bot.db")


@contextmanager
def file() -> Iterator[Backend]:
    with folder() as place:
        yield Backend(f"file://{place}/sessions")


@contextmanager
def redis() -> Iterator[Backend]:
    with running(RedisServer()) as server:
        yield Backend(server.url, server)


@contextmanager
def valkey() -> Iterator[Backend]:
    with running(RedisServer(binary=valkey_binary())) as server:
        yield Backend(server.url.replace("redis://", "valkey://"), server)


@contextmanager
def redis_cluster() -> Iterator[Backend]:
    cluster = RedisCluster()
    try:
        cluster.start()
        yield Backend(cluster.url)
    finally:
        cluster.remove()


@contextmanager
def postgres() -> Iterator[Backend]:
    with running_postgres() as server:
        yield Backend(server.url(), server)


@contextmanager
def pgbouncer() -> Iterator[Backend]:
    with running_postgres() as server, running_pgbouncer(server) as bouncer:
        yield Backend(bouncer.url())


@contextmanager
def mariadb() -> Iterator[Backend]:
    with running_mariadb() as server:
        asyncio.run(query(server.url(), "CREATE DATABASE gramkeep"))
        yield Backend(server.url("gramkeep"), server)


@contextmanager
def mongodb() -> Iterator[Backend]:
    with running_mongodb() as server:
        # To this server and to no other that it names. It doesn't remember what it has done, so
        # that a write which the driver sends again would meet itself.
        options = "directConnection=true&retryWrites=false"
        yield Backend(f"{server.url('gramkeep')}?{options}", server)


@contextmanager
def s3() -> Iterator[Backend]:
    with running(S3Server()) as server:
        yield Backend(server.url("hammer"), server)


STARTERS: dict[str, Callable[[], AbstractContextManager[Backend]]] = {
    starter.__name__: starter
    for starter in (
        *(sqlite, file, redis, valkey, redis_cluster, postgres, pgbouncer, mariadb, mongodb, s3),
    )
}
LEASING = [name for name in STARTERS if name not in {"file", "s3"}]
KILLABLE = ["redis", "postgres", "mariadb", "mongodb"]
