"""One update that threads handle, while a task of the event loop holds its sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from itertools import dropwhile
from typing import Any, TypeAlias

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.blocking import (
    LOOP_THREAD,
    BlockingSession,
    Desk,
    ThreadFailed,
    Work,
    blocking,
)
from gramkeep.integrations.telebot.turns import Handler, TelebotTurn
from gramkeep.middleware import SessionPlugin

Handlers: TypeAlias = Iterable[dict[str, Any]]
Play: TypeAlias = "Callable[[ThreadedTurn], object]"


class ThreadedTurn(TelebotTurn):
    """One update: a task of the event loop, which holds the sessions while threads handle it.

    They do it by ``play``. It ``stays`` in its thread if it must wait for a session there.
    """

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
        super().__init__(plugins, bot, event, handlers)
        self._play = play
        self._stays = stays
        self._loaded: set[SessionPlugin[Any]] = set()
        self._refusal: Exception | None = None
        self._desk = Desk(LOOP_THREAD.loop)

    # In the task.

    async def hold(self, work: Work) -> None:
        """Hold the sessions from here on, let ``work`` have the handlers called, and save.

        What these raise is for their threads to tell.
        """
        run = self._desk.run
        try:
            async with self:
                await self.arrive()
                self.data = {name: BlockingSession(each, run) for name, each in self.data.items()}
                while (parked := await self._desk.have_done(work, self._call_handlers)) is not None:
                    await self._unpark(parked)
        except (ThreadFailed, CancelledError):
            pass  # nothing was changed
        finally:
            self._desk.close()

    async def _unpark(self, parked: Handler) -> None:
        # From this one on, whose filters have let the update pass.
        left = dropwhile(lambda each: each["function"] is not parked, self.handlers)
        self.handlers = [
            {**each, "filters": {}} if each["function"] is parked else each for each in left
        ]
        try:
            await self._load(parked)
        except Exception as error:  # noqa: BLE001 - raised in the handler's place
            self._refusal = error

    async def _load(self, handler: Handler) -> None:
        self.keep_places(handler)
        for plugin in handler.asked:
            await plugin.sessions.hand_out(self.handles[plugin], lazy=plugin.lazy)
            self._loaded.add(plugin)

    # In threads.

    def _call_handlers(self) -> Handler | None:
        """Have the handlers called, and say which one must wait for a session if one must."""
        try:
            self._play(self)
        except _Parked as parked:
            return parked.handler
        return None

    def pre_process(self, _event: Any, data: dict[str, Any]) -> None:
        self.show(data)

    def post_process(self, _event: Any, _data: dict[str, Any], _error: Any) -> None: ...

    def call(self, handler: Handler, /, *args: Any, **kwargs: Any) -> Any:
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
            LOOP_THREAD.loop.call_soon_threadsafe(self.keep_places, handler)


class _Parked(BaseException):
    """Frees a thread whose next handler must wait for a session; it is called again then."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler
