"""A Redis primary, its replica, and three Sentinels that watch over them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import pytest

from servers.process import ServerProcess, WaitedInVain, program, wait_until
from servers.redis import RedisServer

NEVER = 60_000  # milliseconds; longer than any test
SOON = 1_000
AT_ONCE = 500

_QUICK = ("--repl-diskless-sync-delay", "0")


class RedisSentinel:
    """A primary with a replica, and three Sentinels that let the replica take over.

    They do when they are told to, or when `wait_for_other_primary` is waiting for it: otherwise a
    server that the machine holds up for a while stays what it is.
    """

    service = "sessions"

    def __init__(self) -> None:
        primary = RedisServer(*_QUICK, in_memory=True)
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        self.servers = [primary, RedisServer(*_QUICK, *follow, in_memory=True)]
        self.sentinels = [_Sentinel(self.service, primary.port) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def start(self) -> "RedisSentinel":
        for server in [*self.servers, *self.sentinels]:
            server.start()
        self._wait_until(lambda: all(map(self._knows_others, self.sentinels)), "them to meet")
        self.wait_for_replica()
        return self

    @property
    def primary(self) -> RedisServer:
        """The server that the first Sentinel names."""
        return self._primary_of(self.sentinels[0])

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def wait_for_replica(self) -> None:
        """Wait until the primary has a replica that is up to date, and all Sentinels know it.

        One that last saw it as a primary would make it a replica again right after a failover.
        """

        def is_there() -> bool:
            online = "state=online" in self.primary.info("replication").get("slave0", "")
            return online and all(map(self._knows_replica, self.sentinels))

        self._wait_until(is_there, "a replica")

    def fail_over(self) -> None:
        """Have the replica replace the primary.

        A Sentinel can't while it doesn't know the replica to be fit, or thinks that it was asleep
        itself. Then the next one is asked.
        """
        before = self.primary
        replies = []

        def is_replaced() -> bool:
            sentinel, seconds = next(sentinels), 5.0
            if self._primary_of(sentinel) is before:
                reply = sentinel.told("SENTINEL", "FAILOVER", self.service)
                replies.append(f"{sentinel.port}: {reply}")
                seconds = 5.0 if reply == "OK" else 0.2
            try:
                wait_until(lambda: self._is_other(before), "another primary", within=seconds)
            except WaitedInVain:
                return False
            return True

        sentinels = cycle(self.sentinels)
        self._wait_until(is_replaced, "a failover", lambda: "\n".join(replies))

    def wait_for_other_primary(self, before: RedisServer) -> None:
        """Wait until the Sentinels find a primary dead, and all of them name another."""
        try:
            self._ask_all("SET", self.service, "down-after-milliseconds", SOON)
            self._wait_until(lambda: self._is_other(before), "another primary")
        finally:
            self._ask_all("SET", self.service, "down-after-milliseconds", NEVER)

    @contextmanager
    def replaced_primaries_left_alone(self) -> Iterator[None]:
        """Don't let the Sentinels tell a primary that was replaced that it is a replica now.

        They wait four times as long as between two messages to each other.
        """
        try:
            self._ask_all("DEBUG", "PUBLISH-PERIOD", NEVER)
            yield
        finally:
            self._ask_all("DEBUG", "PUBLISH-PERIOD", AT_ONCE)

    def remove(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.remove()

    def _primary_of(self, sentinel: RedisServer) -> RedisServer:
        _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == int(port))

    def _is_other(self, before: RedisServer) -> bool:
        (primary, *others) = set(map(self._primary_of, self.sentinels))
        if others or primary is before:
            return False
        return primary.info("replication")["role"] == "master"

    def _knows_others(self, sentinel: RedisServer) -> bool:
        state = _pairs(sentinel.ask("SENTINEL", "MASTER", self.service))
        return state["num-other-sentinels"] == "2"

    def _knows_replica(self, sentinel: RedisServer) -> bool:
        states = map(_pairs, sentinel.ask("SENTINEL", "REPLICAS", self.service))
        told = ("flags", "role-reported", "master-link-status")
        return [[state[name] for name in told] for state in states] == [["slave", "slave", "ok"]]

    def _ask_all(self, *words: str | int) -> None:
        for sentinel in self.sentinels:
            sentinel.ask("SENTINEL", *words)

    def _wait_until(
        self, is_so: Callable[[], bool], what: str, tell: Callable[[], str] = str
    ) -> None:
        wait_until(is_so, what, tell=lambda: "\n".join([tell(), *self._told()]))

    def _told(self) -> Iterator[str]:
        for sentinel in self.sentinels:
            yield f"Sentinel {sentinel.port}: {sentinel.told('INFO', 'sentinel')}"
            for kind in ("MASTER", "REPLICAS"):
                yield sentinel.told("SENTINEL", kind, self.service)
        for server in self.servers:
            yield f"Redis {server.port}: {server.told('INFO', 'replication')}"
        for server in [*self.sentinels, *self.servers]:
            yield server.process.end_of_log()


class _Sentinel(RedisServer):
    """A Sentinel that learns and tells faster than by default.

    One that was not given the processor for two seconds does nothing for the next thirty, and a
    second is enough.
    """

    _PERIODS = ("INFO-PERIOD", SOON, "PUBLISH-PERIOD", AT_ONCE, "TILT-PERIOD", SOON)

    def __init__(self, service: str, primary: int) -> None:
        super().__init__(in_memory=True)
        configuration = self.folder / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {service} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {service} {NEVER}\n"
            f"sentinel failover-timeout {service} 3000\n"
        )
        self.process = ServerProcess(
            [program("redis-server"), configuration, "--sentinel"],
            self.folder,
            is_ready=self._is_ready,
        )

    def start(self) -> "_Sentinel":
        super().start()
        self.ask("SENTINEL", "DEBUG", *self._PERIODS)  # which it doesn't keep
        return self


@pytest.fixture(scope="module")
def redis_sentinel():
    sentinel = RedisSentinel()
    try:
        yield sentinel.start()
    finally:
        sentinel.remove()


def _pairs(reply: Sequence[str]) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))
