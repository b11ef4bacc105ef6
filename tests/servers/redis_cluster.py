"""A Redis Cluster of three primaries, with a third of the slots each, and a replica of each."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import pytest

from servers.process import free_port, wait_until
from servers.redis import RedisServer

BUS = 10_000  # so much higher than its port is the one on which a node talks to other nodes

# Milliseconds after which nodes take another for dead, and its replica takes over.
NEVER = 60_000  # a server that the machine holds up for a while stays what it is
WHILE_MEETING = 2_000  # they also tell each other about themselves as often as that


class RedisCluster:
    """Six servers. A replica takes over when it is told to."""

    def __init__(self, *options: str, binary: str | Path | None = None) -> None:
        self.options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NEVER)),
            *("--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0"),
            *options,
        )
        self.nodes = [
            RedisServer(*self.options, binary=binary, port=free_port(neighbour=BUS), in_memory=True)
            for _ in range(6)
        ]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def start(self) -> "RedisCluster":
        for number, node in enumerate(self.nodes):
            node.start()
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        self._set_timeout(WHILE_MEETING)
        for one, other in combinations(self.nodes, 2):
            one.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        for number, node in enumerate(self.nodes[:3]):
            first_slot, last_slot = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first_slot, last_slot)
        self._wait_until(self._have_met, "the nodes to meet")
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            replica.ask("CLUSTER", "REPLICATE", self.id_of(primary))
        self.wait_until_healthy()
        self._set_timeout(NEVER)
        return self

    def wait_until_healthy(self) -> None:
        """Wait until all nodes that run agree that there is a primary for every slot."""
        self._wait_until(self._are_healthy, "a healthy cluster")

    def running(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.is_running]

    def id_of(self, node: RedisServer) -> str:
        return str(node.ask("CLUSTER", "MYID"))

    def primaries(self) -> list[RedisServer]:
        return [node for node in self.running() if node.info("replication")["role"] == "master"]

    def owner_of(self, slot: int) -> RedisServer:
        """Find the primary that has a slot."""
        for first, last, port in self._owners(self.running()[0]):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
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

    def _set_timeout(self, milliseconds: int) -> None:
        for node in self.nodes:
            node.ask("CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def _have_met(self) -> bool:
        ids = set(map(self.id_of, self.nodes))
        known = [str(node.ask("CLUSTER", "NODES")).splitlines() for node in self.nodes]
        return all({line.split()[0] for line in lines} == ids for lines in known)

    def _are_healthy(self) -> bool:
        """Whether all that run know the same primaries, and those that aren't one follow one."""
        (owners, *others) = {frozenset(self._owners(node)) for node in self.running()}
        primaries = {port for _, _, port in owners}
        return not others and all(
            "cluster_state:ok" in str(node.ask("CLUSTER", "INFO"))
            and (
                node.port in primaries or node.info("replication").get("master_link_status") == "up"
            )
            for node in self.running()
        )

    def _owners(self, node: RedisServer) -> Iterator[tuple[int, int, int]]:
        """Give the first slot, the last, and the port of their primary, as a node knows them."""
        for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
            yield first, last, primary[1]

    def _wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        wait_until(is_so, what, tell=lambda: "\n".join(self._told()))

    def _told(self) -> Iterator[str]:
        for node in self.nodes:
            yield f"node {node.port}: {node.told('CLUSTER', 'INFO')}"
            yield f"{node.told('CLUSTER', 'NODES')}\n{node.told('INFO', 'replication')}"
            yield node.process.end_of_log()


@pytest.fixture(scope="module")
def redis_cluster():
    cluster = RedisCluster()
    try:
        yield cluster.start()
    finally:
        cluster.remove()
