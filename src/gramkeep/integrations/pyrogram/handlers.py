"""Handlers of Pyrogram, and what stands in for them while an update is handled."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial, wraps
from types import MethodType
from typing import Any, Final, NamedTuple

from pyrogram import Client, ContinuePropagation, StopPropagation, handlers
from pyrogram.handlers.handler import Handler

from gramkeep.errors import ConfigurationError
from gramkeep.integrations.around import Plugins, names_of
from gramkeep.integrations.callbacks import Callback

STEERING: Final = (StopPropagation, ContinuePropagation)
"""What handlers raise to tell Pyrogram how to go on; no failures."""

# Not all forks have them.
_ERROR_HANDLERS: Final[tuple[type, ...]] = tuple(
    kind for name, kind in vars(handlers).items() if name == "ErrorHandler"
)


class Twin(NamedTuple):
    """What stands in for a handler, and what it calls."""

    handler: Any
    callback: HandlerCallback


class HandlerCallback(Callback):
    """A handler's function, and the sessions that it asks for. Plain functions get a thread."""

    def __init__(self, handler: Any, client: Client, plugins: Plugins) -> None:
        self.handler = handler
        self.is_for_errors = isinstance(handler, _ERROR_HANDLERS)
        # With pyromod's listeners, which some forks have, the user's function isn't the callback.
        function = getattr(handler, "original_callback", handler.callback)
        self._is_plain = not inspect.iscoroutinefunction(function)
        super().__init__(
            _in_thread(function, client) if self._is_plain else function,
            plugins,
            taken=_taken(handler, function, client),
            steering=STEERING,
        )

    def check(self) -> None:
        """Raise `ConfigurationError` if this is for a thread, and names what is to be awaited."""
        for plugin in self.asked if self._is_plain else ():
            data, handle = names_of(plugin)
            name = handle if handle in self._named else data
            if name == handle or plugin.lazy:
                called = getattr(self.function, "__qualname__", "a handler")
                text = (
                    f"{called} is a plain function, which Pyrogram calls in a thread, but names "
                    f"{name!r}, which is to be awaited: make it an async def"
                )
                raise ConfigurationError(text)


def stand_in(handler: Any, call: Callable[..., Awaitable[Any]]) -> Any:
    """Give a handler for the same updates, in which ``call`` does what the function did."""

    async def callback(*args: Any) -> Any:  # Pyrogram awaits only what it sees to be async
        return await call(*args)

    twin = copy(handler)
    twin.stands_for = handler
    if hasattr(handler, "original_callback"):  # before it, its own method looks for listeners
        twin.original_callback = callback
        twin.callback = MethodType(handler.callback.__func__, twin)
    else:
        twin.callback = callback
    return twin


def original(argument: Any) -> Any:
    """Give the handler that users know in place of what stands in for it; all else as it is."""
    return getattr(argument, "stands_for", argument) if isinstance(argument, Handler) else argument


def _in_thread(function: Callable[..., Any], client: Client) -> Callable[..., Awaitable[Any]]:
    @wraps(function)
    async def call(*args: Any, **sessions: Any) -> Any:
        work = partial(function, *args, **sessions)
        return await asyncio.get_running_loop().run_in_executor(client.executor, work)

    return call


def _taken(handler: Any, function: Callable[..., Any], client: Any) -> int:
    """Say how many of a function's parameters are for what Pyrogram gives handlers of its kind."""
    if isinstance(handler, handlers.RawUpdateHandler):
        given = 4
    elif isinstance(handler, _ERROR_HANDLERS):
        given = 6 if hasattr(client.dispatcher, "handle_update_handler_exception") else 3
    else:
        given = 2
    parameters = inspect.signature(function).parameters.values()
    by_place = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
    return min(given, len(by_place))  # the last may be ``*args``
