"""One update of Pyrogram: its sessions, and what stands in for handlers to be called with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from functools import wraps
from types import MethodType
from typing import Any, Final, TypeAlias

from pyrogram import Client, handlers
from pyrogram.types import CallbackQuery

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.callbacks import Callback
from gramkeep.integrations.pyrogram.origin import origin_of, upgrade_of
from gramkeep.integrations.shared_turn import SharedTurn
from gramkeep.integrations.turns import OrderedTurn, Turn
from gramkeep.locks import KeyLocks
from gramkeep.middleware import SessionPlugin

Packet: TypeAlias = tuple[Any, dict[int, Any], dict[int, Any]]
"""A raw update, and the users and chats that it mentions."""

_ERROR_HANDLER: Final[Any] = getattr(handlers, "ErrorHandler", ())  # not all forks have it


class UpdateTurn(OrderedTurn, SharedTurn):
    """The sessions of one update, from its arrival to its end.

    ``last_handler`` is the last that got a session.
    """

    def __init__(self, plugins: Plugins, client: Any, packet: Packet, arrivals: KeyLocks) -> None:
        super().__init__(plugins, origin_of(packet[0], client), upgrade_of(packet[0]), arrivals)
        self.left = [None, packet]  # for its worker to take
        self.last_handler: Any = None
        self._client = client
        self._kinds: Any = ()  # of the handlers that may get to see it
        self._failure: Exception | None = None  # why its sessions can't be had; not told yet

    async def arrive(self, parse: Callable[..., Awaitable[Any]] | None, *packet: Any) -> Any:
        """Parse the update, then take the places in the queues of its sessions."""
        parsed, kind = (None, type(None)) if parse is None else await parse(*packet)
        self._kinds = (kind, handlers.RawUpdateHandler)
        try:
            if parsed is not None:
                told_in, self.origin = self.origin.chat_id, origin_of(parsed, self._client)
                if isinstance(parsed, CallbackQuery) and self.origin.chat_id is None:
                    # The message with the button couldn't be had. Where it is, the update knows.
                    self.origin = replace(self.origin, chat_id=told_in)
            await self.begin()
        except Exception as failure:  # noqa: BLE001 - raised where a handler asks, or at the end
            self._failure = failure
        return parsed, kind

    def check(self) -> None:
        """Raise why no session could be had, unless a handler has done so."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def call(self, twin: Any, *args: Any) -> Any:
        """Call a handler's function with the sessions that it asks for."""
        callback: Callback = twin.with_sessions
        if isinstance(twin, _ERROR_HANDLER):  # it has sessions of its own
            return await callback.call(Turn(self._plugins, self.origin), *map(_original, args))
        in_group, in_later_groups = self._ahead(twin)
        if callback.asked:
            self.check()
            if not self.is_begun:
                await self.begin()
            self.last_handler = twin.handler
        # Mostly those behind it in its group aren't called, but those of later groups are.
        if callback.asked or self._is_used or not in_later_groups:
            self.keep_for(callback.asked, in_group | in_later_groups)
        return await callback.call_in(self, *args)

    def _ahead(self, twin: Any) -> tuple[set[SessionPlugin[Any]], set[SessionPlugin[Any]]]:
        """Say what may be asked for by those behind a handler in its group, and in later groups."""
        groups = iter(self._client.dispatcher.groups.values())
        group = next(group for group in groups if twin in group)
        in_group = group[group.index(twin) + 1 :]
        return self._asked_by(in_group), self._asked_by(each for group in groups for each in group)

    def _asked_by(self, twins: Iterable[Any]) -> set[SessionPlugin[Any]]:
        asking = [each for each in twins if isinstance(each, self._kinds)]
        return {plugin for twin in asking for plugin in twin.with_sessions.asked}


current_turn: Final[ContextVar[UpdateTurn]] = ContextVar("current_turn")


class Twin:
    """Goes before a handler's own class, to make a copy that is called with sessions.

    It is equal to the handler, by which users remove it.
    """

    handler: Any
    with_sessions: Callback

    def __eq__(self, other: object) -> bool:
        return self.handler is _original(other)

    def __hash__(self) -> int:
        return hash(self.handler)


def twin_of(handler: Any, client: Client, plugins: Plugins) -> Any:
    """Make a handler's twin, unless it is one."""
    if isinstance(handler, Twin):
        return handler
    # With pyromod's listeners, which some forks have, the user's function isn't the callback.
    function = getattr(handler, "original_callback", handler.callback)

    @wraps(function)
    async def call(*args: Any) -> Any:  # Pyrogram awaits only what it sees to be async
        return await current_turn.get().call(twin, *args)

    twin: Any = copy(handler)
    twin.__class__ = type(type(handler).__name__, (Twin, type(handler)), {})
    twin.handler = handler
    taken = _given(handler, client.dispatcher)
    twin.with_sessions = Callback(function, plugins, taken=taken, threads=client.executor)
    if function is handler.callback:
        twin.callback = call
    else:  # before it, the handler's own method looks for listeners
        twin.original_callback = call
        twin.callback = MethodType(handler.callback.__func__, twin)
    return twin


def _original(thing: Any) -> Any:
    """Give the handler that users know in place of its twin; all else as it is."""
    return thing.handler if isinstance(thing, Twin) else thing


def _given(handler: Any, dispatcher: Any) -> int:
    """Say how many values Pyrogram gives handlers of a kind."""
    if isinstance(handler, _ERROR_HANDLER):
        return 6 if hasattr(dispatcher, "handle_update_handler_exception") else 3
    return 4 if isinstance(handler, handlers.RawUpdateHandler) else 2
