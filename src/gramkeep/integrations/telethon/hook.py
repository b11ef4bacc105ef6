"""How the updates of one client of Telethon come to its handlers, with sessions around each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

from telethon.events import Raw, StopPropagation

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins
from gramkeep.integrations.callbacks import Callback
from gramkeep.integrations.telethon.origin import origin_of, upgrade_of
from gramkeep.locks import KeyLocks, Ticket
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin

PATIENCE: Final = 60.0
"""Seconds that an update waits for the filters of earlier ones, before it overtakes them."""

Dispatch: TypeAlias = Callable[[Any], Awaitable[None]]
Disconnect: TypeAlias = Callable[[], Awaitable[None]]


class Hook:
    """All sessions of one client, in one place around its updates.

    Telethon has no place to hook into around an update, nor for what is to be done before it ends
    its handlers. So methods of this client are replaced; it calls them as its own.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._plugins = _InOrder()
        self._queues = KeyLocks()
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
        ids = (("chat", origin.chat_id), ("user", origin.user_id))
        queues = [f"{whose} {number}" for whose, number in ids if number is not None]
        places = [self._queues.reserve(queue) for queue in queues]
        update = _Update(self._plugins, origin, upgrade_of(event), places)
        task = asyncio.current_task()
        self._handling.add(task)
        outer = _current.set(update)
        try:
            await dispatch(event)
        finally:
            _current.reset(outer)
            self._handling.discard(task)
            update.let_pass()

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
                await asyncio.gather(*(plugin.sessions.drain() for plugin in self._plugins))
                await disconnect()
            finally:
                await asyncio.gather(*(plugin.shut_down() for plugin in self._plugins))


@dataclass
class _Update:
    """An update that is handled, and its places in the queues of updates that have come."""

    plugins: Plugins
    origin: Origin
    upgrade: tuple[int | None, int | None]
    places: list[Ticket]

    async def follow_upgrade(self) -> None:
        """Move the sessions of a group that became a supergroup; once, or until it works."""
        self.origin = await self.plugins.follow_upgrade(self.origin, *self.upgrade)
        self.upgrade = None, None

    async def wait(self) -> None:
        """Wait until the earlier updates of the chat, and of the user, let this one pass."""
        with suppress(TimeoutError):
            for place in self.places:
                await place.wait(PATIENCE)

    def let_pass(self) -> None:
        """Let later updates pass."""
        while self.places:
            self.places.pop().release()


_current: Final[ContextVar[_Update]] = ContextVar("_current")


async def _follow_upgrade(_: object) -> None:
    # As the first handler of all updates: there may be no others for this one, and Telethon tells
    # of its errors as of any handler's.
    await _current.get().follow_upgrade()


class _InOrder(Plugins):
    """Kinds of session for which updates queue in the order in which they have come.

    Filters take their time, and a later update could be through with them earlier. A handler that
    asks for no session lets all later updates pass before it begins.
    """

    async def enter(
        self,
        origin: Origin,
        stack: AsyncExitStack,
        plugins: Iterable[SessionPlugin[Any]] | None = None,
    ) -> dict[SessionPlugin[Any], Session[Any]]:
        update = _current.get()
        try:
            if plugins:
                await update.wait()
            return await super().enter(origin, stack, plugins)
        finally:
            update.let_pass()


class _Handler(Callback):
    """A handler's function with its sessions; equal to the function, by which users remove it."""

    @classmethod
    def around(cls, function: Any, plugins: Plugins) -> _Handler:
        """Make one, also of one that doesn't know all kinds of session."""
        function = function.function if isinstance(function, cls) else function
        return cls(function, plugins, taken=1, steering=(StopPropagation,))

    def __eq__(self, other: object) -> bool:
        return bool(self.function == (other.function if isinstance(other, _Handler) else other))

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", None) or repr(self.function)  # for Telethon's log

    async def __call__(self, event: Any) -> Any:
        update = _current.get()
        if self.asked:
            await update.follow_upgrade()  # if that has failed, it fails again here
        return await self.call(replace(update.origin, event=event), event)
