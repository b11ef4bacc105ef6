"""Where contenders keep their sessions: the tests' own servers, and folders."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path

import asyncpg
from servers import mariadb, mongodb
from servers.postgres import Postgres, running_postgres
from servers.redis import RedisServer

DATABASES = 64  # of the Redis server

# More than the 100 of redis-py: at the 101st update under way it raises.
POOL = "max_connections=512"


class Places:
    """Places of their own for contenders; servers are started when the first one needs them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._numbers = count()
        self._kinds: dict[str, Callable[[int], str]] = {
            "nothing": lambda _: "",
            "memory": lambda _: "memory://",
            "redis": self._redis_database,
            "redis-py": lambda number: f"{self._redis_database(number)}?{POOL}",
            "postgres": self._postgres_database,
            "mysql": self._mysql_database,
            "mongodb": self._mongodb_database,
            "sqlite": lambda _: f"sqlite:///{self._folder()}/bot.db",
            "sqlite-normal": lambda _: f"sqlite:///{self._folder()}/bot.db?synchronous=NORMAL",
            "sqlite-file": lambda _: f"file://{self._folder()}/bot.db",
            "file": lambda _: f"file://{self._folder()}",
        }

    def make(self, kind: str) -> str:
        """Make an empty place, and give its URL."""
        return self._kinds[kind](next(self._numbers))

    def _folder(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="gramkeep-bench-", ignore_cleanup_errors=True)
        return Path(self._stack.enter_context(folder))

    @cached_property
    def _redis(self) -> RedisServer:
        server = RedisServer("--appendonly", "no", "--databases", str(DATABASES))
        self._stack.callback(server.remove)
        return server.start()

    def _redis_database(self, number: int) -> str:
        return f"redis://127.0.0.1:{self._redis.port}/{number % DATABASES}"

    @cached_property
    def _postgres(self) -> Postgres:
        settings = {"fsync": "on", "shared_buffers": "128MB", "max_connections": "100"}
        return self._stack.enter_context(running_postgres(**settings))

    def _postgres_database(self, number: int) -> str:
        asyncio.run(_create(self._postgres.url(), f"bench{number}"))
        return self._postgres.url(f"bench{number}")

    @cached_property
    def _mariadb(self) -> mariadb.MariaDB:
        return self._stack.enter_context(
            mariadb.running_server(
                "--innodb-flush-log-at-trx-commit=1",
                "--innodb-buffer-pool-size=128M",
                "--innodb-log-file-size=96M",
            )
        )

    def _mysql_database(self, number: int) -> str:
        asyncio.run(mariadb.query(self._mariadb.url(), f"CREATE DATABASE bench{number}"))
        return self._mariadb.url(f"bench{number}")

    @cached_property
    def _mongodb(self) -> mongodb.MongoDB:
        return self._stack.enter_context(mongodb.running_server())

    def _mongodb_database(self, number: int) -> str:
        return self._mongodb.url(f"bench{number}")


@contextmanager
def places() -> Iterator[Places]:
    """Hold places, and remove them with all that is in them."""
    with ExitStack() as stack:
        yield Places(stack)


async def _create(url: str, database: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {database}")
    finally:
        await connection.close()
