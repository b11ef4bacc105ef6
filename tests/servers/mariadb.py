"""MariaDB: a throwaway server with its data in a folder of its own.

Where GRAMKEEP_TEST_MYSQL_URL names a server of the user's own, ``mysql://user:password@host``, the
tests use that one, and make and drop databases there; all but those that must stop the server.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import asyncmy

from .process import OwnServer, ServerProcess, free_port, program, running, server_folder

USER = "mysql"  # MariaDB refuses to run as root
URL_VARIABLE = "GRAMKEEP_TEST_MYSQL_URL"
GREETING = 5  # bytes: the length and number of the server's first packet, and its protocol

SMALL = [
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--innodb-log-buffer-size=1M",
    "--key-buffer-size=256K",
    "--performance-schema=OFF",
    "--max-connections=100",
]


class MariaDB(OwnServer):
    """A MariaDB server on loopback, for root without a password.

    ``options`` are added to the server's command line. `remove` deletes its data. It hands each
    commit to the kernel, but doesn't wait for the disk: that is not what the death of its process
    takes.
    """

    def __init__(self, *options: str) -> None:
        self.folder = server_folder("mariadb", user=USER)
        self.port = free_port()
        self.socket = self.folder / "mysqld.sock"
        data = self.folder / "data"
        # A server that starts removes temporary tables of others from a folder that they share.
        temporary = self.folder / "tmp"
        temporary.mkdir()
        if os.getuid() == 0:
            shutil.chown(temporary, USER)
        _install(data, temporary)
        self.process = ServerProcess(
            [
                program("mariadbd", "usr/sbin"),
                "--no-defaults",
                f"--datadir={data}",
                f"--tmpdir={temporary}",
                f"--socket={self.socket}",
                f"--port={self.port}",
                f"--pid-file={self.folder / 'mysqld.pid'}",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--innodb-flush-log-at-trx-commit=2",
                *SMALL,
                *options,
            ],
            self.folder,
            is_ready=self._greets,
            user=USER,
        )

    def url(self, database: str = "", *, user: str = "root", password: str = "") -> str:
        secret = f":{quote(password, safe='')}" if password else ""
        return f"mysql://{user}{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def _greets(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            return len(connection.recv(GREETING)) == GREETING


class GivenServer:
    """A server of the user's own, who may make and drop databases there."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self.port = self._url.port or 3306

    def url(self, database: str = "") -> str:
        return self._url._replace(path=f"/{database}").geturl()


def running_server(*options: str) -> AbstractContextManager[MariaDB]:
    """Hold a server of one's own, which may be killed."""
    return running(MariaDB(*options))


@contextmanager
def shared_server() -> Iterator[MariaDB | GivenServer]:
    """Hold a server that tests only use: the user's, or else one of this test run."""
    if given := os.environ.get(URL_VARIABLE):
        yield GivenServer(given)
    else:
        with running_server() as server:
            yield server


def connect_arguments(url: str) -> dict[str, object]:
    """Give what asyncmy's ``connect`` and ``create_pool`` take for a URL."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or "").encode(),
        "database": unquote(parts.path[1:]) or None,
    }


async def query(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on a connection of their own, and give the rows of the last one."""
    async with (
        asyncmy.connect(**connect_arguments(url), autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements:
            await cursor.execute(statement)
        return list(await cursor.fetchall())


def _install(data: Path, temporary: Path) -> None:
    command = [
        program("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={temporary}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
        *SMALL[:2],
    ]
    if os.getuid() == 0:
        command.append(f"--user={USER}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
