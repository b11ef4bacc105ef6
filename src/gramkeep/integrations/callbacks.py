"""Handlers of frameworks that have no middleware: each is called through one of these."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import cached_property, partial
from typing import Any

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins, names_of
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin


class Callback:
    """A handler's function, and the sessions that it asks for by the names of its parameters.

    ``taken`` parameters at the front are the framework's own. ``steering`` are exceptions by which
    handlers tell the framework how to go on; they are no failures.
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[Any]],
        plugins: Plugins,
        *,
        taken: int,
        steering: tuple[type[Exception], ...] = (),
    ) -> None:
        self.function = function
        self._plugins = plugins
        self._taken = taken
        self._steering = steering

    @cached_property
    def _named(self) -> set[str]:
        parameters = list(inspect.signature(self.function).parameters)[self._taken :]
        # What a partial was given by name is the user's own, whatever it is called.
        given = self.function.keywords if isinstance(self.function, partial) else {}
        return set(parameters).difference(given)

    @cached_property
    def asked(self) -> list[SessionPlugin[Any]]:
        """The kinds of session that the function gets. Known when all of them are set up."""
        return self._plugins.named_in(self._named)

    async def given(self, handles: Mapping[SessionPlugin[Any], Session[Any]]) -> dict[str, Any]:
        """Load the sessions that the function asks for, and give what its parameters name."""
        sessions: dict[str, Any] = {}
        for plugin in self.asked:
            data, handle = names_of(plugin)
            sessions[data] = await plugin.sessions.hand_out(handles[plugin], lazy=plugin.lazy)
            sessions[handle] = handles[plugin]
        return {name: session for name, session in sessions.items() if name in self._named}

    async def call(self, origin: Origin, *args: Any) -> Any:
        """Call the function with its sessions, and save them when it is done."""
        steered: Exception | None = None
        result: Any = None
        async with AsyncExitStack() as stack:
            handles = await self._plugins.enter(origin, stack, self.asked)
            sessions = await self.given(handles)
            try:
                result = await self.function(*args, **sessions)
            except self._steering as raised:
                steered = raised
        if steered is not None:
            raise steered
        return result
