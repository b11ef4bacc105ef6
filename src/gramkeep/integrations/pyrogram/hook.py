"""How the updates of one client of Pyrogram come to its handlers, with sessions around each.

Pyrogram has no place to hook into around an update. Its dispatcher has workers, which take updates
from one queue and call handlers. Here a worker has each update handled by a copy of the dispatcher
that knows only this update, and twins of the handlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.pyrogram.handlers import HandlerCallback, Twin, original, stand_in
from gramkeep.integrations.pyrogram.one_update import Packet, dispatcher_for_one
from gramkeep.integrations.pyrogram.origin import place_of
from gramkeep.integrations.pyrogram.turns import Turn
from gramkeep.locks import KeyLocks
from gramkeep.middleware import SessionPlugin

current_turn: Final[ContextVar[Turn]] = ContextVar("current_turn")


class Hook:
    """All sessions of one client, in one place around its updates.

    Methods of this client and its dispatcher are replaced, and called by what replaces them.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._plugins = Plugins()
        self._parsing = KeyLocks()
        self._twins: dict[Any, Twin] = {}
        self._dispatcher = client.dispatcher
        self._for_one = dispatcher_for_one(type(client.dispatcher))
        client.add_handler = partial(self._add_handler, client.add_handler)
        client.remove_handler = partial(self._remove_handler, client.remove_handler)
        self._dispatcher.start = partial(self._start, self._dispatcher.start)
        self._dispatcher.stop = partial(self._stop, self._dispatcher.stop)
        self._dispatcher.handler_worker = self._handle_all

    def add(self, plugin: SessionPlugin[Any]) -> None:
        """Set one more kind of session up."""
        self._plugins.add(plugin)
        self._check_all()

    def _check_all(self) -> None:
        for group in self._dispatcher.groups.values():
            for handler in group:
                self._callback(handler).check()

    def _add_handler(self, add: Callable[..., Any], handler: Any, *args: Any, **named: Any) -> Any:
        self._callback(handler).check()
        return add(handler, *args, **named)

    def _remove_handler(
        self, remove: Callable[..., Any], handler: Any, *args: Any, **named: Any
    ) -> Any:
        self._twins.pop(handler, None)
        return remove(handler, *args, **named)

    async def _start(self, start: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(0)  # Pyrogram adds handlers in tasks
        self._check_all()
        for plugin in self._plugins:
            await plugin.start_up()
        await start()

    async def _stop(self, stop: Callable[..., Awaitable[None]], *args: Any, **named: Any) -> None:
        try:
            await stop(*args, **named)
        finally:
            self._twins.clear()
            await asyncio.gather(*(plugin.shut_down() for plugin in self._plugins))

    async def _handle_all(self, lock: asyncio.Lock) -> None:
        """Do what one of the dispatcher's workers does, until it is stopped."""
        while (packet := await self._dispatcher.updates_queue.get()) is not None:
            # In a task of its own: by the task, who holds a session is told from others; and a
            # handler that is cancelled ends no worker.
            handling = asyncio.create_task(self._handle(packet, lock))
            try:
                await asyncio.wait([handling])
            except asyncio.CancelledError:
                handling.cancel()
                raise

    async def _handle(self, packet: Packet, lock: asyncio.Lock) -> None:
        turn = Turn(self._plugins, self._client, packet[0])
        current_turn.set(turn)
        # Taken on arrival: some updates take longer than others until they are parsed.
        ticket = self._parsing.reserve(place_of(packet[0]))
        dispatcher = self._for_one(self._dispatcher, self._twins_of, turn, packet, ticket)
        try:
            await dispatcher.handle(lock)
            await turn.end()
        except Exception as error:  # noqa: BLE001 - it is told
            await dispatcher.tell(error)
        except BaseException as error:  # it was cancelled
            await turn.give_up(error)
            raise

    def _twins_of(self, handlers: Sequence[Any]) -> list[Twin]:
        return [self._twins.get(handler) or self._twin_of(handler) for handler in handlers]

    def _twin_of(self, handler: Any) -> Twin:
        callback = self._callback(handler)
        twin = self._twins[handler] = Twin(stand_in(handler, partial(_call, callback)), callback)
        return twin

    def _callback(self, handler: Any) -> HandlerCallback:
        return HandlerCallback(handler, self._client, self._plugins)


async def _call(callback: HandlerCallback, *args: Any) -> Any:
    turn = current_turn.get()
    if callback.is_for_errors:
        return await turn.call_for_error(callback, *map(original, args))
    return await turn.call(callback, *args)
