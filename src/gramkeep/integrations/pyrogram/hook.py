"""How the updates of one client of Pyrogram come to its handlers, with sessions around each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from pyrogram import ContinuePropagation, StopPropagation, dispatcher

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.pyrogram.turns import Packet, UpdateTurn, current_turn, twin_of
from gramkeep.locks import KeyLocks

Work: TypeAlias = Callable[[asyncio.Lock], Awaitable[None]]

log = logging.getLogger(dispatcher.__name__)  # where Pyrogram tells of errors


class Hook:
    """All sessions of one client, in one place around its updates.

    Pyrogram has no place to hook into around an update. Its dispatcher has workers, which take
    updates from one queue, parse them, and call handlers. So methods of this dispatcher are
    replaced, and called by what replaces them: a worker handles each update as if there were no
    other, and calls twins of the handlers.
    """

    def __init__(self, client: Any) -> None:
        self.plugins = Plugins(StopPropagation, ContinuePropagation)
        self._client = client
        self._arrivals = KeyLocks()
        self._dispatcher = changed = client.dispatcher
        self._next_packet = changed.updates_queue.get
        changed.add_handler = partial(self._add_handler, changed.add_handler)
        changed.start = partial(self._start, changed.start)
        changed.stop = partial(self._stop, changed.stop)
        changed.handler_worker = partial(self._handle_all, changed.handler_worker)
        changed.updates_queue.get = _only_packet
        changed.update_parsers = _Parsers(changed.update_parsers)

    def _add_handler(self, add: Callable[..., Any], handler: Any, *group: Any, **named: Any) -> Any:
        return add(twin_of(handler, self._client, self.plugins), *group, **named)

    async def _start(self, start: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(0)  # Pyrogram adds handlers in tasks
        groups = list(self._dispatcher.groups.values())
        for group in (*groups, getattr(self._dispatcher, "error_handlers", [])):
            group[:] = [twin_of(handler, self._client, self.plugins) for handler in group]
        await self.plugins.start_up()
        await start()

    async def _stop(self, stop: Callable[..., Awaitable[None]], *args: Any, **named: Any) -> None:
        try:
            await stop(*args, **named)
        finally:
            await self.plugins.shut_down()

    async def _handle_all(self, work: Work, lock: asyncio.Lock) -> None:
        """Do what one of the dispatcher's workers does, until it is stopped."""
        while (packet := await self._next_packet()) is not None:
            # In a task of its own: by the task, who holds a session is told from others; and a
            # handler that is cancelled ends no worker.
            await asyncio.wait([asyncio.create_task(self._handle(packet, work, lock))])

    async def _handle(self, packet: Packet, work: Work, lock: asyncio.Lock) -> None:
        turn = UpdateTurn(self.plugins, self._client, packet, self._arrivals)
        current_turn.set(turn)
        try:
            async with turn:
                await work(lock)  # the dispatcher's own code, which finds this update alone
                turn.check()
        except Exception as error:  # noqa: BLE001 - it is told
            await self._tell(error, turn, packet)

    async def _tell(self, error: Exception, turn: UpdateTurn, packet: Packet) -> None:
        """Tell of an error of ours as Pyrogram does of a handler's."""
        tell = getattr(self._dispatcher, "handle_update_handler_exception", None)
        if tell is None:
            log.error("%s", error, exc_info=error)
        else:
            with suppress(*turn.steering):  # not all forks keep them from here
                await tell(error, turn.last_handler, *packet)


async def _only_packet() -> Packet | None:
    """Give a worker the update that it is to handle, and then tell it that there are no more."""
    return current_turn.get().left.pop()


class _Parsers(dict[type, Any]):
    """Pyrogram's parsers of updates; when one is parsed, or has no parser, it has arrived."""

    def get(self, kind: type, default: Any = None) -> Any:
        return partial(current_turn.get().arrive, super().get(kind, default))
