"""One update of pyTelegramBotAPI, of either flavour: its origin, and what handlers ask of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from typing import Any

from telebot.types import BusinessConnection, CallbackQuery, Message

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins, names_of
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin


def origin_of(event: Any, bot: Any) -> Origin:
    """Say where an update came from. ``event`` is what its handlers get: a message, a query."""
    # By their dicts: some of telebot's attributes log that they are deprecated when they are read.
    fields = vars(event)
    place = fields.get("message") if isinstance(event, CallbackQuery) else event
    there = {} if place is None else vars(place)
    chat = there.get("chat") or there.get("voter_chat")
    user = fields.get("from_user") or fields.get("user")
    boost = fields.get("boost")
    if user is None and boost is not None and boost.source.source == "premium":
        user = boost.source.user
    thread_id = there.get("message_thread_id") if there.get("is_topic_message", True) else None
    if thread_id is None:
        # In a channel's direct messages every writer has a topic.
        thread_id = getattr(there.get("direct_messages_topic"), "topic_id", None)
    connection = event.id if isinstance(event, BusinessConnection) else None
    return Origin(
        bot_id=bot.bot_id,
        chat_id=None if chat is None else chat.id,
        chat_type=None if chat is None else chat.type,
        user_id=None if user is None else user.id,
        thread_id=thread_id,
        business_connection_id=connection or there.get("business_connection_id"),
        event=event,
    )


def upgrade_of(event: Any) -> tuple[int | None, int | None]:
    """Give the old and the new id of a group, if this is a message that it is a supergroup now."""
    if not isinstance(event, Message):
        return None, None
    if event.migrate_to_chat_id is not None:
        return event.chat.id, event.migrate_to_chat_id
    return event.migrate_from_chat_id, event.chat.id


class Handler:
    """Stands for a handler's function, as one that doesn't name the sessions it asks for.

    telebot looks at a function's parameters to see what to call it with. ``call`` is then called
    with that, and this object in front of it, and adds the sessions. The first ``taken``
    parameters are given anyway, the message or whatever came for one, as are those ``given``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        plugins: Plugins,
        call: Callable[..., Any],
        *,
        taken: int = 1,
        given: Container[str] = (),
    ) -> None:
        self.function = function
        self._plugins = plugins
        self._call = call
        self._taken = taken
        self._given = given

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self, *args, **kwargs)

    @cached_property
    def __signature__(self) -> inspect.Signature:
        names = {name for plugin in self._plugins for name in names_of(plugin)}
        taken, others = self._parameters[: self._taken], self._parameters[self._taken :]
        return inspect.Signature(taken + [each for each in others if each.name not in names])

    @cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        try:
            return list(inspect.signature(self.function).parameters.values())
        except ValueError:  # of a function that isn't written in Python
            return []

    @cached_property
    def _named(self) -> set[str]:
        names = {parameter.name for parameter in self._parameters[self._taken :]}
        return {name for name in names if name not in self._given}

    @cached_property
    def asked(self) -> list[SessionPlugin[Any]]:
        """The kinds of session that it gets: those that it names, or all in telebot's ``data``."""
        if "data" in self._named:
            return list(self._plugins)
        return self._plugins.named_in(self._named)

    def chosen(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Give the sessions that its parameters name, of all that there are in ``data``."""
        names = [name for plugin in self._plugins for name in names_of(plugin)]
        return {name: data[name] for name in names if name in self._named}


class UpdateSessions:
    """The sessions of one update. As the first middleware it puts the handles into ``data``."""

    update_sensitive = False  # telebot wants to know it of middlewares

    def __init__(self, plugins: Plugins, bot: Any, event: Any) -> None:
        self.plugins = plugins
        self.bot = bot
        self.event = event
        self.handles: dict[SessionPlugin[Any], Session[Any]] = {}
        self.data: dict[str, Any] = {}
        self.has_failed = False  # that is, a handler: telebot mostly keeps it from its callers

    async def enter(self, stack: AsyncExitStack) -> None:
        """Queue for the sessions; leaving ``stack`` saves them. See `Plugins.enter`."""
        for plugin in self.plugins:
            await plugin.start_up()  # they may have been closed, with a bot that was stopped
        origin = origin_of(self.event, self.bot)
        origin = await self.plugins.follow_upgrade(origin, *upgrade_of(self.event))
        self.handles = await self.plugins.enter(origin, stack)

    def standing_in(self, handlers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give telebot's handlers, as ones that `call` calls."""
        return [
            {**handler, "function": Handler(handler["function"], self.plugins, self.call)}
            for handler in handlers
        ]

    def call(self, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        """Call a handler that has matched, with the sessions it asks for."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `HandlerFailed` if a handler raised."""
        if self.has_failed:
            raise HandlerFailed


class HandlerFailed(Exception):
    """Keeps sessions from being saved when telebot has swallowed what a handler raised."""
