"""Handlers of frameworks that have no middleware: each is called through one of these."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import cached_property, partial
from typing import Any

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins, names_of
from gramkeep.integrations.blocking import BlockingSession, Desk, Run, ThreadFailed, blocking
from gramkeep.integrations.turns import Turn
from gramkeep.middleware import SessionPlugin


class StandIn:
    """Stands in for a function, and is equal to it: users find and remove handlers by it."""

    function: Callable[..., Any]

    def __eq__(self, other: object) -> bool:
        return bool(self.function == (other.function if isinstance(other, StandIn) else other))

    def __hash__(self) -> int:
        return hash(self.function)


class Callback(StandIn):
    """A handler's function, and the sessions that it asks for by the names of its parameters.

    The first ``taken`` values that it is called with are the framework's own. Where there are
    ``threads``, functions that aren't coroutines are called in one, and get handles that block.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        plugins: Plugins,
        *,
        taken: int,
        threads: Executor | None = None,
    ) -> None:
        self.function = function
        self._plugins = plugins
        self._taken = taken
        self._threads = None if inspect.iscoroutinefunction(function) else threads

    @cached_property
    def _named(self) -> set[str]:
        parameters = list(inspect.signature(self.function).parameters.values())
        by_place = [
            each.name
            for each in parameters
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
        by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        # What a partial was given by name is the user's own, whatever it is called.
        given = self.function.keywords if isinstance(self.function, partial) else {}
        return {*by_place[self._taken :], *by_name}.difference(given)

    @cached_property
    def asked(self) -> list[SessionPlugin[Any]]:
        """The kinds of session that the function gets. Known when all of them are set up."""
        return self._plugins.named_in(self._named)

    async def call(self, turn: Turn, *args: Any) -> Any:
        """Call the function in a turn of its own: its sessions are saved when it is done."""
        async with turn:
            await turn.begin(self.asked)
            return await self._call_with(turn.handles, *args)

    async def call_in(self, turn: Turn, *args: Any) -> Any:
        """Call the function in an update's turn, which goes on, or is given up if this fails."""
        try:
            return await self._call_with(turn.handles, *args)
        except turn.steering:
            raise
        except BaseException as error:
            await turn.give_up(error)
            raise

    async def _call_with(
        self, handles: Mapping[SessionPlugin[Any], Session[Any]], *args: Any
    ) -> Any:
        if self._threads is not None:
            return await self._in_thread(self._threads, handles, *args)
        return await self.function(*args, **await self._given(handles))

    async def _in_thread(
        self, threads: Executor, handles: Mapping[SessionPlugin[Any], Session[Any]], *args: Any
    ) -> Any:
        desk = Desk(asyncio.get_running_loop())
        try:
            step = partial(self.function, *args, **await self._given(handles, desk.run))
            return await desk.have_done(lambda _, step: threads.submit(step), step)
        except ThreadFailed as failed:
            error = failed.error
        finally:
            desk.close()
        raise error

    async def _given(
        self, handles: Mapping[SessionPlugin[Any], Session[Any]], run: Run | None = None
    ) -> dict[str, Any]:
        """Load what is asked for, and give what the parameters name.

        To a thread, which has something awaited by ``run``, goes what blocks instead.
        """
        sessions: dict[str, Any] = {}
        for plugin in self.asked:
            data, handle = names_of(plugin)
            sessions[data] = await plugin.sessions.hand_out(handles[plugin], lazy=plugin.lazy)
            sessions[handle] = handles[plugin]
            if run is not None:
                sessions[handle] = BlockingSession(handles[plugin], run)
                if plugin.lazy:
                    sessions[data] = blocking(sessions[data], run)
        return {name: session for name, session in sessions.items() if name in self._named}
