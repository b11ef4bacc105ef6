"""The sessions of one update of Pyrogram, for all the handlers that get to see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from pyrogram import Client
from pyrogram.types import CallbackQuery

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins
from gramkeep.integrations.pyrogram.handlers import STEERING, HandlerCallback
from gramkeep.integrations.pyrogram.origin import chat_id_of, origin_of, upgrade_of
from gramkeep.middleware import SessionPlugin


class Turn:
    """The sessions of one update, from its arrival to its end.

    ``ahead`` tells which callbacks may still be called for it: those after the current one in its
    group, and those in later groups. ``last_handler`` is the last that got a session.
    """

    def __init__(self, plugins: Plugins, client: Client, update: Any) -> None:
        self.ahead: Callable[[], Sequence[Sequence[HandlerCallback]]] = lambda: ((), ())
        self.last_handler: Any = None
        self._plugins = plugins
        self._client = client
        self._update = update
        self._origin = origin_of(update, client)
        self._stack = AsyncExitStack()
        self._handles: dict[SessionPlugin[Any], Session[Any]] = {}
        self._is_used = False
        self._failure: Exception | None = None  # why no session can be had
        self._is_told = False  # of the failure

    async def arrive(self, parsed: Any) -> None:
        """Take the places in the sessions' queues, when it is known what the update is."""
        try:
            self._find_origin(parsed)
            self._origin = await self._plugins.follow_upgrade(
                self._origin, *upgrade_of(self._update)
            )
            await self._begin()
        except Exception as failure:  # noqa: BLE001 - raised where a handler asks, or at the end
            await self.give_up(failure)
            self._failure = failure

    async def call(self, callback: HandlerCallback, *args: Any) -> Any:
        """Call a handler's function with the sessions that it asks for."""
        try:
            return await callback.function(*args, **await self._sessions_for(callback))
        except STEERING:
            raise
        except BaseException as error:
            await self.give_up(error)
            raise

    async def call_for_error(self, callback: HandlerCallback, *args: Any) -> Any:
        """Call an error handler's function, with sessions of its own."""
        return await callback.call(self._origin, *args)

    async def end(self) -> None:
        """Save the sessions."""
        if self._failure is not None and not self._is_told:
            raise self._failure
        await self._stack.aclose()

    async def give_up(self, error: BaseException) -> None:
        """Leave the sessions as they are stored; handlers that are still called begin anew."""
        self._handles = {}
        self._is_used = False
        await self._stack.__aexit__(type(error), error, error.__traceback__)

    def _find_origin(self, parsed: Any) -> None:
        if parsed is None:
            return
        self._origin = origin_of(parsed, self._client)
        if self._origin.chat_id is None and isinstance(parsed, CallbackQuery):
            # The message with the button couldn't be had. Where it is, the update knows.
            self._origin = replace(self._origin, chat_id=chat_id_of(self._update))

    async def _begin(self) -> None:
        self._handles = await self._plugins.enter(self._origin, self._stack)

    async def _sessions_for(self, callback: HandlerCallback) -> dict[str, Any]:
        in_group, in_later_groups = self.ahead()
        if not callback.asked and not self._is_used:
            if not any(later.asked for later in in_later_groups):
                await self._leave()
            return {}
        if self._failure is not None:
            self._is_told = True
            raise self._failure
        if not self._handles:
            await self._begin()
        self._is_used = True
        self.last_handler = callback.handler if callback.asked else self.last_handler
        # A place that is given up isn't taken again while others are held: that could go round.
        needed = {each for one in (callback, *in_group, *in_later_groups) for each in one.asked}
        for plugin, handle in self._handles.items():
            if plugin not in needed:
                plugin.sessions.withdraw(handle)
        return await callback.given(self._handles)

    async def _leave(self) -> None:
        """Let nobody wait for this update, as it uses no session."""
        self._handles = {}
        await self._stack.aclose()
