"""PostgreSQL and PgBouncer: throwaway servers with all they keep in folders of their own."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from .process import OwnServer, ServerProcess, free_port, program, running, server_folder

USER = "postgres"  # neither server runs as root
PROGRAMS = "usr/lib/postgresql/*/bin"  # where Debian has those that aren't for everybody
URL_VARIABLE = "GRAMKEEP_TEST_POSTGRES_URL"

_PROTOCOL = 3 << 16
_ANSWERED = b"R"  # the first byte of what a server sends that lets one in, or asks for a password


class Postgres(OwnServer):
    """A PostgreSQL server on loopback that trusts everybody; ``settings`` go on its command line.

    It doesn't wait for the disk: what it answered survives the death of its processes, which is
    all that happens to it here, but not a power cut. `remove` deletes its data.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = server_folder("postgres", user=USER)
        self.port = free_port()
        data = self.folder / "data"
        _make_cluster(data)
        chosen = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "dynamic_shared_memory_type": "mmap",  # which killed servers don't leave in memory
            "shared_buffers": "32MB",
            "max_connections": "60",
            **settings,
        }
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        self.process = ServerProcess(
            [program("postgres", PROGRAMS), "-D", data, *options],
            self.folder,
            is_ready=lambda: _lets_in(self.port, "postgres"),
            user=USER,
        )

    def url(self, database: str = "postgres", *, user: str = USER, password: str = "") -> str:
        return _url(self.port, database, user, password)


class GivenPostgres:
    """A server of the user's own, whose URL names a role that may make databases."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self.port = self._url.port or 5432

    def url(self, database: str | None = None) -> str:
        path = self._url.path if database is None else f"/{quote(database, safe='')}"
        return self._url._replace(path=path).geturl()


class PgBouncer(OwnServer):
    """A PgBouncer in transaction mode before a PostgreSQL server.

    All clients of a database share ``servers`` connections, each for one transaction at a time.
    """

    def __init__(self, behind: Postgres | GivenPostgres, *, servers: int = 2) -> None:
        server = urlsplit(behind.url())
        password = f" password={server.password}" if server.password else ""
        self.folder = server_folder("pgbouncer", user=USER)
        self.port = free_port()
        (self.folder / "users.txt").write_text(f'"{USER}" ""\n')
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(f"""\
[databases]
* = host={server.hostname} port={behind.port} user={server.username}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
auth_file = {self.folder / "users.txt"}
admin_users = {USER}
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 200
""")
        self.process = ServerProcess(
            [program("pgbouncer", "usr/sbin"), configuration],
            self.folder,
            is_ready=lambda: _lets_in(self.port, "pgbouncer"),
            user=USER,
        )

    def url(self, database: str = "postgres") -> str:
        return _url(self.port, database, USER, "")


def running_postgres(**settings: str) -> AbstractContextManager[Postgres]:
    """Hold a server of one's own, which may be killed."""
    return running(Postgres(**settings))


@contextmanager
def shared_postgres() -> Iterator[Postgres | GivenPostgres]:
    """Hold a server that tests only use: the user's, or else one of this test run."""
    if given := os.environ.get(URL_VARIABLE):
        yield GivenPostgres(given)
    else:
        with running_postgres() as server:
            yield server


def running_pgbouncer(
    behind: Postgres | GivenPostgres, *, servers: int = 2
) -> AbstractContextManager[PgBouncer]:
    """Hold a PgBouncer before a server, which is not touched in the end."""
    return running(PgBouncer(behind, servers=servers))


def _url(port: int, database: str, user: str, password: str) -> str:
    secret = f":{quote(password, safe='')}" if password else ""
    return f"postgresql://{user}{secret}@127.0.0.1:{port}/{quote(database, safe='')}"


def _lets_in(port: int, database: str) -> bool:
    """Whether the server takes connections: it may listen before, and refuse them."""
    parameters = f"user\0{USER}\0database\0{database}\0\0".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        head = struct.pack("!II", 8 + len(parameters), _PROTOCOL)
        connection.sendall(head + parameters)
        return connection.recv(1) == _ANSWERED


def _make_cluster(data: Path) -> None:
    done = subprocess.run(
        [
            program("initdb", PROGRAMS),
            *("-D", data, "-U", USER, "-A", "trust", "-E", "UTF8"),
            *("--locale=C.UTF-8", "--no-sync", "--no-instructions"),
        ],
        user=USER if os.getuid() == 0 else None,
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
