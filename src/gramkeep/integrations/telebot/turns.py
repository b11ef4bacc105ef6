"""The sessions of one update of pyTelegramBotAPI, of either flavour, and of its handlers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import dropwhile
from typing import Any

from gramkeep.integrations.around import Plugins, names_of
from gramkeep.integrations.callbacks import Callback
from gramkeep.integrations.shared_turn import SharedTurn
from gramkeep.integrations.telebot.origin import origin_of, upgrade_of
from gramkeep.middleware import SessionPlugin


class Handler(Callback):
    """A handler's function, which gets the sessions that it names out of telebot's ``data``."""

    @cached_property
    def _named(self) -> set[str]:
        try:
            return super()._named
        except ValueError:  # of a function that isn't written in Python
            return set()

    def chosen(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Give the sessions that its parameters name, of all that there are in ``data``."""
        names = {name for plugin in self.asked for name in names_of(plugin)}
        return {name: data[name] for name in names & self._named}


class ListedHandler(Handler):
    """Stands for a handler's function, as one that doesn't name the sessions it asks for.

    telebot looks at a function's parameters to see what to call it with. ``call`` is then called
    with that, and this object in front of it, and adds the sessions.
    """

    def __init__(
        self, function: Callable[..., Any], plugins: Plugins, call: Callable[..., Any]
    ) -> None:
        super().__init__(function, plugins, taken=1)
        self._call = call

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(self, *args, **kwargs)

    @cached_property
    def __signature__(self) -> inspect.Signature:
        names = {name for plugin in self._plugins for name in names_of(plugin)} & self._named
        parameters = inspect.signature(self.function).parameters.values()
        return inspect.Signature([each for each in parameters if each.name not in names])

    @cached_property
    def asked(self) -> list[SessionPlugin[Any]]:
        """The kinds of session that it gets: those that it names, or all in telebot's ``data``."""
        return list(self._plugins) if "data" in self._named else super().asked


class TelebotTurn(SharedTurn):
    """The sessions of one update. As the first middleware it puts the handles into ``data``."""

    update_sensitive = False  # telebot wants to know it of middlewares

    def __init__(
        self, plugins: Plugins, bot: Any, event: Any, handlers: Iterable[dict[str, Any]]
    ) -> None:
        super().__init__(plugins, origin_of(event, bot), upgrade_of(event))
        self.handlers = [
            {**each, "function": ListedHandler(each["function"], plugins, self.call)}
            for each in handlers
        ]
        self.data: dict[str, Any] = {}
        self.has_failed = False  # that is, a handler: telebot mostly keeps it from its callers

    async def arrive(self) -> None:
        """Take the places, also if the sessions were closed, with a bot that was stopped."""
        await self._plugins.start_up()
        await self.begin()
        for plugin, handle in self.handles.items():
            self.data[plugin.sessions.options.handle_key] = handle

    def call(self, handler: Handler, /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler that has matched, with the sessions it asks for."""
        raise NotImplementedError

    def keep_places(self, handler: Handler) -> None:
        """Let nobody wait for what neither this handler uses nor one that it may pass on to."""
        those_left = dropwhile(lambda each: each["function"] is not handler, self.handlers)
        self.keep_for(handler.asked, (one for each in those_left for one in each["function"].asked))

    def show(self, data: dict[str, Any]) -> None:
        """Put the handles where middlewares and handlers find them."""
        data.update(self.data)
        self.data = data

    async def end(self) -> None:
        """Save the sessions, unless a handler has failed."""
        if self.has_failed:
            await self.give_up(HandlerFailed())
        await super().end()


class HandlerFailed(Exception):
    """Keeps sessions from being saved when telebot has swallowed what a handler raised."""
