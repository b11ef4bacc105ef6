"""One update that threads handle, while a task of the event loop holds its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.telebot.blocking import (
    LOOP_THREAD,
    BlockingSession,
    Desk,
    ThreadFailed,
    Work,
    blocking,
)
from gramkeep.integrations.telebot.update import Handler, HandlerFailed, UpdateSessions
from gramkeep.middleware import SessionPlugin

Handlers: TypeAlias = Sequence[dict[str, Any]]
Play: TypeAlias = "Callable[[ThreadedUpdate, Handlers], object]"


class ThreadedUpdate(UpdateSessions):
    """One update: a task of the event loop, which holds the sessions while threads handle it."""

    def __init__(
        self,
        plugins: Plugins,
        bot: Any,
        event: Any,
        handlers: Handlers,
        play: Play,
        *,
        stays: bool,
    ) -> None:
        super().__init__(plugins, bot, event)
        self._handlers: Handlers = self.standing_in(handlers)
        self._play = play
        self._stays = stays
        self._loaded: set[SessionPlugin[Any]] = set()
        self._refusal: Exception | None = None
        self._desk = Desk()

    # In the task.

    async def hold(self, work: Work) -> None:
        """Hold the sessions from here on, let ``work`` have the handlers called, and save.

        What these raise is for their threads to tell.
        """
        try:
            async with AsyncExitStack() as stack:
                await self.enter(stack)
                for plugin, handle in self.handles.items():
                    shown = BlockingSession(handle, self._desk.run)
                    self.data[plugin.sessions.options.handle_key] = shown
                await self._have_handled(work)
                self.check()
        except (HandlerFailed, ThreadFailed, CancelledError):
            pass  # nothing was changed
        finally:
            self._desk.close()

    async def _have_handled(self, work: Work) -> None:
        while True:
            parked = await self._desk.have_done(work, self._call_handlers)
            if parked is None:
                return
            self._handlers = _from(parked, self._handlers)
            try:
                await self._load(parked)
            except Exception as error:  # noqa: BLE001 - raised in the handler's place
                self._refusal = error

    async def _load(self, handler: Handler) -> None:
        self._withdraw(handler)
        for plugin in handler.asked:
            await plugin.sessions.hand_out(self.handles[plugin], lazy=plugin.lazy)
            self._loaded.add(plugin)

    def _withdraw(self, handler: Handler) -> None:
        """Let nobody wait for what this handler doesn't use."""
        for plugin, handle in self.handles.items():
            if plugin not in handler.asked:
                plugin.sessions.withdraw(handle)

    # In threads.

    def _call_handlers(self) -> Handler | None:
        """Have the handlers called, and say which one must wait for a session if one must."""
        try:
            self._play(self, self._handlers)
        except _Parked as parked:
            return parked.handler
        return None

    def pre_process(self, _event: Any, data: dict[str, Any]) -> None:
        data.update(self.data)
        self.data = data

    def post_process(self, _event: Any, _data: dict[str, Any], _error: Any) -> None: ...

    def call(self, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        """Call a handler that has matched, with the sessions it asks for."""
        try:
            self._be_ready_for(handler)
            for plugin in handler.asked:
                shown = plugin.sessions.shown(self.handles[plugin], lazy=plugin.lazy)
                if plugin.lazy:
                    shown = blocking(shown, self._desk.run)
                self.data[plugin.sessions.options.key] = shown
            return handler.function(*args, **kwargs, **handler.chosen(self.data))
        except _Parked:
            raise
        except BaseException:
            self.has_failed = True
            raise

    def _be_ready_for(self, handler: Handler) -> None:
        if self._refusal is not None:
            raise self._refusal
        if not self._loaded.issuperset(handler.asked):
            if not self._stays:
                raise _Parked(handler)
            self._desk.run(self._load(handler))
        elif len(handler.asked) < len(self.handles):
            LOOP_THREAD.loop.call_soon_threadsafe(self._withdraw, handler)


class _Parked(BaseException):
    """Frees a thread whose next handler must wait for a session; it is called again then."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler


def _from(handler: Handler, handlers: Handlers) -> Handlers:
    """Give the handlers from one on whose filters have let the update pass."""
    for index, each in enumerate(handlers):
        if each["function"] is handler:
            return [{**each, "filters": {}}, *handlers[index + 1 :]]
    return handlers
