"""Who answers the calls: a server, connected to when it is needed.

A call is made a second time only where it certainly did nothing, or where that makes no
difference. A change whose connection ended before it was answered is not among these: it may have
been made, and made again it would find its own value and answer that somebody else's is there.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, Final

import msgspec

from gramkeep.storages.driver import driver_of
from gramkeep.storages.redis.address import Address, Node
from gramkeep.storages.redis.calls import Call
from gramkeep.storages.redis.wire import Lost, Refused, Replicas, TooFewReplicas, Wire

with driver_of("redis"):
    from redis.exceptions import RedisError


LOOK_EVERY: Final = 1.0  # seconds in which Sentinels are asked for the primary, while it is used


class Limits(msgspec.Struct, frozen=True):
    """Seconds that connecting and an answer may take, and what replicas must confirm."""

    connect_timeout: float
    timeout: float
    replicas: Replicas | None = None


class Servers(ABC):
    """What a storage asks. Raises `Lost`, `Refused` and `TooFewReplicas`."""

    @abstractmethod
    async def ask(self, call: Call) -> Any:
        """Make a call, in a cluster about keys of one slot."""

    @abstractmethod
    def wires(self) -> AsyncIterator[Wire]:
        """Give a connection to each primary, one after the other."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections when their calls are answered. Idempotent."""


class Server(Servers):
    """One server, or the present primary of a Sentinel's service, or a node of a cluster.

    There is one connection to it, made anew when it is lost. Where replicas must confirm changes,
    these have one of their own: what waits for replicas there holds up nothing else.
    """

    def __init__(self, address: Address, limits: Limits, node: Node | None = None) -> None:
        self._address = address
        self._limits = limits
        self._node = node
        self._has_replicas = limits.replicas is not None
        self._wires: dict[bool, Wire] = {}
        self._connecting: dict[bool, asyncio.Task[Wire]] = {}
        self._next_look = 0.0
        self._in_background: set[asyncio.Task[None]] = set()

    async def ask(self, call: Call) -> Any:
        """Make a call."""
        has_own = self._has_replicas and call.is_change
        is_last = False
        while True:
            wire = self._wires.get(has_own)
            if wire is None or not wire.is_usable:
                wire = await self._connected(has_own)
            if self._address.has_sentinels and wire.loop.time() > self._next_look:
                self._next_look = wire.loop.time() + LOOK_EVERY
                self._run_in_background(self._look_for_primary(wire.node))
            try:
                return await wire.ask(call)
            except Lost as lost:
                if is_last or (lost.was_sent and not call.is_repeatable):
                    raise
            except Refused as refused:
                if "READONLY" not in refused.reason:
                    raise
                # It is a replica now; its Sentinels know the primary.
                wire.abandon("the server has become a replica")
                if is_last:
                    raise
            except TooFewReplicas:
                if self._address.has_sentinels:
                    self._retire()  # they may have gone over to another primary
                raise
            is_last = True

    async def wires(self) -> AsyncIterator[Wire]:
        """Give the connection."""
        wire = self._wires.get(False)
        yield wire if wire is not None and wire.is_usable else await self._connected(False)

    async def aclose(self) -> None:
        """Close the connections."""
        connecting, self._connecting = self._connecting, {}
        loop = asyncio.get_running_loop()
        for task in connecting.values():
            if task.get_loop() is loop:
                task.cancel()
                await asyncio.wait([task])
        self._retire()
        background = [task for task in self._in_background if task.get_loop() is loop]
        if background:
            await asyncio.wait(background)

    async def _look_for_primary(self, used: Node) -> None:
        """Turn away from a primary that the Sentinels have replaced.

        It may not know: one that is cut off from them, or was replaced by hand, takes changes for
        ten seconds and longer, all of which are lost when it becomes a replica.
        """
        within = self._limits.connect_timeout
        with suppress(RedisError, OSError):  # who can't be asked names no other
            async with asyncio.timeout(within):
                primary = await self._address.primary(within)
            if primary != used:
                self._retire()

    def _retire(self) -> None:
        """Use the connections for what is under way there, and for nothing else."""
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            if wire.is_usable:
                self._run_in_background(wire.aclose())

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._in_background.add(task)
        task.add_done_callback(self._in_background.discard)

    async def _connected(self, has_own: bool) -> Wire:
        """Connect, once for all who ask meanwhile."""
        loop = asyncio.get_running_loop()
        task = self._connecting.get(has_own)
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._connecting[has_own] = loop.create_task(self._connect(has_own))
            task.add_done_callback(_retrieved)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise Lost("it was closed", was_sent=False) from None

    async def _connect(self, has_own: bool) -> Wire:
        limits = self._limits
        within = limits.connect_timeout
        try:
            async with asyncio.timeout(within):
                connection = await self._address.connection(self._node, within)
                wire = await Wire.over(
                    connection,
                    timeout=limits.timeout,
                    replicas=limits.replicas if has_own else None,
                )
        except TimeoutError as error:
            reason = f"it can't be connected to within {within:g} s"
            raise Lost(reason, was_sent=False) from error
        except (RedisError, OSError) as error:
            raise Lost(str(error) or type(error).__name__, was_sent=False) from error
        self._wires[has_own] = wire
        return wire


def _retrieved(task: asyncio.Task[Wire]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited has it; nobody may be left
