"""How the updates of one client of Telethon come to its handlers, with sessions around each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from telethon.events import Raw, StopPropagation

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.callbacks import Callback
from gramkeep.integrations.telethon.origin import origin_of, upgrade_of
from gramkeep.integrations.turns import OrderedTurn
from gramkeep.locks import KeyLocks
from gramkeep.middleware import SessionPlugin

MARGIN: Final = 0.01
"""Seconds after which an album that is due has come to its handlers."""

Dispatch: TypeAlias = Callable[[Any], Awaitable[None]]
Disconnect: TypeAlias = Callable[[], Awaitable[None]]


class Hook:
    """All sessions of one client, in one place around its updates.

    Telethon has no place to hook into around an update, nor for what is to be done before it ends
    its handlers. So methods of this client are replaced; it calls them as its own.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._plugins = Plugins(StopPropagation)
        self._arrivals = KeyLocks()
        self._handling: set[asyncio.Task[Any] | None] = set()
        self._stopping = asyncio.Lock()
        client.add_event_handler = partial(self._add_handler, client.add_event_handler)
        client.list_event_handlers = partial(self._list_handlers, client.list_event_handlers)
        client.connect = partial(self._connect, client.connect)
        client._dispatch_update = partial(self._take, client._dispatch_update)  # noqa: SLF001
        client._dispatch_event = partial(self._handle, client._dispatch_event)  # noqa: SLF001
        client._disconnect_coro = partial(self._disconnect, client._disconnect_coro)  # noqa: SLF001
        client._event_builders.insert(0, (Raw(), _follow_upgrade))  # noqa: SLF001

    def add(self, plugin: SessionPlugin[Any]) -> None:
        """Set one more kind of session up."""
        self._plugins.add(plugin)
        self._wrap_handlers()

    def _wrap_handlers(self) -> None:
        handlers = self._client._event_builders  # noqa: SLF001 - see above
        ours, *others = handlers
        handlers[:] = ours, *((kind, _Handler.around(call, self._plugins)) for kind, call in others)

    def _add_handler(self, add: Callable[..., None], *args: Any, **named: Any) -> None:
        add(*args, **named)
        self._wrap_handlers()

    def _list_handlers(
        self, list_all: Callable[[], Iterable[tuple[Any, Any]]]
    ) -> list[tuple[Any, Any]]:
        _, *handlers = list_all()
        return [(handler.function, kind) for handler, kind in handlers]

    def _connect(self, connect: Callable[[], Any]) -> Any:
        for plugin in self._plugins:
            plugin.sessions.reopen()
        return connect()  # is awaited by the caller, or, with telethon.sync, has been already

    async def _take(self, dispatch: Dispatch, update: Any) -> None:
        handling = self._handle(dispatch, update)
        if not self._client._sequential_updates:  # noqa: SLF001 - see above
            await handling
            return
        # In a task of its own: else the handler would end with the loop that takes updates.
        task = asyncio.create_task(handling)
        tasks = self._client._event_handler_tasks  # noqa: SLF001 - where Telethon has the others
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.shield(task)

    async def _handle(self, dispatch: Dispatch, event: Any) -> None:
        origin = origin_of(event, self._client)
        turn = OrderedTurn(self._plugins, origin, upgrade_of(event), self._arrivals)
        task = asyncio.current_task()
        self._handling.add(task)
        outer = _current.set(turn)
        try:
            async with turn:
                await dispatch(event)
        finally:
            _current.reset(outer)
            self._handling.discard(task)

    def _disconnect(self, disconnect: Disconnect) -> Coroutine[Any, Any, None]:
        return self._drain(disconnect, asyncio.current_task(self._client.loop))

    async def _drain(self, disconnect: Disconnect, caller: asyncio.Task[Any] | None) -> None:
        if caller is not None and caller in self._handling:
            # Telethon ends a handler that disconnects, and so it can't be waited for.
            caller.cancel()
            await asyncio.wait([caller])
        async with self._stopping:
            if (taking := self._client._updates_handle) is not None:  # noqa: SLF001 - see above
                taking.cancel()
            try:
                await self._gather_albums()
                await self._plugins.drain()
                await disconnect()
            finally:
                await self._plugins.shut_down()

    async def _gather_albums(self) -> None:
        """Wait until the handlers of albums have begun for whose last parts Telethon waits."""
        await asyncio.sleep(0)  # let updates that were just dispatched come in
        albums = self._client._albums.values()  # noqa: SLF001 - see above
        due = max((album._due for album in albums), default=0.0)  # noqa: SLF001
        await asyncio.sleep(due + MARGIN - self._client.loop.time())


_current: Final[ContextVar[OrderedTurn]] = ContextVar("_current")


async def _follow_upgrade(_: object) -> None:
    # As the first handler of all updates: there may be no others for this one, and Telethon tells
    # of its errors as of any handler's.
    await _current.get().follow_upgrade()


class _Handler(Callback):
    """A handler's function with its sessions."""

    @classmethod
    def around(cls, function: Any, plugins: Plugins) -> _Handler:
        """Make one, also of one that doesn't know all kinds of session."""
        return cls(function.function if isinstance(function, cls) else function, plugins, taken=1)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", None) or repr(self.function)  # for Telethon's log

    async def __call__(self, event: Any) -> Any:
        turn = _current.get()
        if not self.asked:
            turn.let_pass()
            return await self.function(event)
        turn.origin = replace(turn.origin, event=event)
        return await self.call(turn, event)
