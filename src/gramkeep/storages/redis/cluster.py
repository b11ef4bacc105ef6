"""The nodes of a Redis Cluster: which of them has which slot, and what to do when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from gramkeep.storages.redis.address import Address, Node
from gramkeep.storages.redis.calls import Call, command_of
from gramkeep.storages.redis.keys import SLOTS
from gramkeep.storages.redis.servers import Limits, Server, Servers
from gramkeep.storages.redis.wire import Lost, Refused, Wire

RETRY_PAUSE: Final = 0.05  # seconds before a cluster that is changing is asked again
REDIRECTIONS: Final = 5  # that are followed without such a pause

# What a node answers that can't serve a slot now: it did nothing, and may soon be able to.
_UNDONE: Final = {"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "ASK"}


class Cluster(Servers):
    """The primaries of a cluster, each of which has some of the slots.

    A call waits for a cluster that is changing, for ``timeout`` at most: while a replica takes over
    from its primary, and while the slot moves to another node. See also
    https://redis.io/docs/reference/cluster-spec/ on ``MOVED``, ``ASK`` and ``TRYAGAIN``.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._servers: dict[Node, Server] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._refreshing: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[Any]] = set()

    async def ask(self, call: Call) -> Any:
        """Make a call where its slot is."""
        deadline = asyncio.get_running_loop().time() + self._limits.timeout
        slot = call.slot or 0
        redirections = 0
        node: Node | None = None
        asked = call
        error: Lost | Refused
        while True:
            try:
                if node is None:
                    node = self._slots[slot] or await self._node_of(slot)
                return await self._server(node).ask(asked)
            except Refused as refused:
                error = refused
                word, _, rest = refused.reason.partition(" ")
                if word not in _UNDONE:
                    raise
                redirections += 1
                if word in ("MOVED", "ASK") and redirections <= REDIRECTIONS:
                    node = _target(rest, node or ("", 0))
                    asked = call
                    if word == "ASK":
                        asked = call.to_importing_node()
                    else:
                        self._slots[slot] = node
                    continue
            except Lost as lost:
                error = lost
                if lost.was_sent and not call.is_repeatable:
                    raise
            if asyncio.get_running_loop().time() > deadline:
                raise error
            await asyncio.sleep(RETRY_PAUSE)
            await self._refresh()
            node, asked, redirections = None, call, 0

    async def wires(self) -> AsyncIterator[Wire]:
        """Give a connection to each primary."""
        await self._refresh()
        for node in sorted({node for node in self._slots if node is not None}):
            async for wire in self._server(node).wires():
                yield wire

    async def aclose(self) -> None:
        """Close all connections."""
        loop = asyncio.get_running_loop()
        tasks = [*self._asking, *([self._refreshing] if self._refreshing else [])]
        tasks = [task for task in tasks if task.get_loop() is loop]
        servers, self._servers = self._servers, {}
        await asyncio.gather(*(server.aclose() for server in servers.values()))
        if tasks:
            await asyncio.wait(tasks)

    def _server(self, node: Node) -> Server:
        server = self._servers.get(node)
        if server is None:
            server = self._servers[node] = Server(self._address, self._limits, node)
        return server

    async def _node_of(self, slot: int) -> Node:
        await self._refresh()
        node = self._slots[slot]
        if node is None:
            raise Refused("CLUSTERDOWN no node has the slot")
        return node

    async def _refresh(self) -> None:
        """Find out who has which slot, once for all who ask meanwhile."""
        loop = asyncio.get_running_loop()
        task = self._refreshing
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._refreshing = loop.create_task(self._find_out())
            task.add_done_callback(_retrieved)
        await asyncio.shield(task)

    async def _find_out(self) -> None:
        """Ask all nodes at once, as some may be dead, and believe the first that answers."""
        nodes = dict.fromkeys([*self._servers, *self._address.nodes()])
        asking = [asyncio.create_task(self._ask_for_slots(node)) for node in nodes]
        for task in asking:
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            task.add_done_callback(_retrieved)
        error: Lost | Refused = Lost("there is no node to ask", was_sent=False)
        for answer in asyncio.as_completed(asking):
            try:
                slots = await answer
                break
            except (Lost, Refused) as failed:
                error = failed
        else:
            raise Lost(f"no node of the cluster answers: {error}", was_sent=False)
        self._slots = slots
        primaries = set(slots)
        gone = [node for node in self._servers if node not in primaries]
        for server in [self._servers.pop(node) for node in gone]:
            closing = asyncio.create_task(server.aclose())
            self._asking.add(closing)
            closing.add_done_callback(self._asking.discard)

    async def _ask_for_slots(self, asked: Node) -> list[Node | None]:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, primary, *_ in await self._server(asked).ask(
            command_of(b"CLUSTER", b"SLOTS")
        ):
            # A node that doesn't know its own host means the one it was asked by.
            node = ((primary[0] or b"").decode() or asked[0], int(primary[1]))
            slots[first : last + 1] = [node] * (last + 1 - first)
        return slots


def _target(text: str, asked: Node) -> Node:
    """Read where ``MOVED slot host:port`` and ``ASK slot host:port`` point."""
    host, _, port = text.rpartition(" ")[2].rpartition(":")
    return host or asked[0], int(port)


def _retrieved(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
