"""What the integrations share: all kinds of session of one bot, around one update at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import product
from typing import Any, Final, TypeVar

from gramkeep.errors import ConfigurationError
from gramkeep.handle import Session
from gramkeep.manager import Sessions
from gramkeep.middleware import SessionPlugin
from gramkeep.multi import MultiSessions
from gramkeep.origin import Origin, per_chat, per_topic, per_user

HookT = TypeVar("HookT")

ALIKE_IN_PRIVATE: Final = (per_chat, per_topic, per_user)  # there all give the user's id


class Plugins:
    """The kinds of session that were set up on one bot, dispatcher or client.

    They queue for their keys in one step, so that two updates with several sessions each stand
    in the same order everywhere, and never wait for each other in a circle. ``steering`` are
    exceptions by which handlers tell the framework how to go on; they are no failures.
    """

    def __init__(self, *steering: type[BaseException]) -> None:
        self.steering = steering
        self._plugins: list[SessionPlugin[Any]] = []

    def __iter__(self) -> Iterator[SessionPlugin[Any]]:
        return iter(self._plugins)

    def add(self, plugin: SessionPlugin[Any]) -> None:
        """Set one more kind up; raises `ConfigurationError` if its name or keys are taken."""
        key = plugin.sessions.options.key
        if any(other.sessions.options.key == key for other in self._plugins):
            text = (
                f"there are sessions named {key!r} here already: give the others a name of their "
                "own, by key="
            )
            raise ConfigurationError(text)
        for other in self._plugins:
            for one, another in product(_kinds_of(other), _kinds_of(plugin)):
                if _would_meet(one, another):
                    text = (
                        f"sessions {other.sessions.options.key!r} and {key!r} would use the same "
                        f"keys in {one.storage.name}: give each a prefix= of its own"
                    )
                    raise ConfigurationError(text)
        self._plugins.append(plugin)

    def named_in(self, names: Collection[str]) -> list[SessionPlugin[Any]]:
        """Give the kinds whose data or handle is among the names of a handler's parameters."""
        return [plugin for plugin in self._plugins if not set(names).isdisjoint(names_of(plugin))]

    async def enter(
        self,
        origin: Origin,
        stack: AsyncExitStack,
        plugins: Iterable[SessionPlugin[Any]] | None = None,
    ) -> dict[SessionPlugin[Any], Session[Any]]:
        """Queue for the sessions of an update in one step, and give the handle of each.

        Leaving ``stack`` saves them, or, if an exception passes, leaves them as they were. What
        handlers find under the name of a session, `Sessions.hand_out` gives.
        """
        plugins = self._plugins if plugins is None else plugins
        opened = [(plugin, await plugin.sessions.open_for(origin, lazy=True)) for plugin in plugins]
        handles = {}
        for plugin, sessions in opened:
            handle = handles[plugin] = await stack.enter_async_context(sessions)
            if not plugin.lazy:
                plugin.sessions.reserve(handle)
        return handles

    async def follow_upgrade(
        self, origin: Origin, old_chat_id: int | None, new_chat_id: int | None
    ) -> Origin:
        """Move a group's sessions, if the update says that it became a supergroup.

        Both messages that say so then belong to the new chat: a session under the old one's key
        would never be found again. ``None`` for either id is no upgrade.
        """
        if old_chat_id is None or new_chat_id is None:
            return origin
        for plugin in self._plugins:
            await plugin.sessions.move_chat(origin, old_chat_id, new_chat_id)
        return replace(origin, chat_id=new_chat_id)

    async def start_up(self) -> None:
        """Open what an earlier `shut_down` closed; when the bot starts."""
        for plugin in self._plugins:
            await plugin.start_up()

    async def drain(self) -> None:
        """Wait for all who hold a session; see `Sessions.drain`."""
        await asyncio.gather(*(plugin.sessions.drain() for plugin in self._plugins))

    async def shut_down(self) -> None:
        """Wait for all who hold a session, then close what was made here; when the bot stops."""
        await asyncio.gather(*(plugin.shut_down() for plugin in self._plugins))


def _kinds_of(plugin: SessionPlugin[Any]) -> Iterable[Sessions[Any]]:
    sessions: Sessions[Any] | MultiSessions = plugin.sessions
    return sessions.parts.values() if isinstance(sessions, MultiSessions) else [sessions]


def _would_meet(one: Sessions[Any], other: Sessions[Any]) -> bool:
    """Whether two kinds are certain to take each other's sessions for theirs.

    Functions of a user's own may well give different keys without a prefix.
    """
    url = one.options.storage
    is_one_place = one.storage is other.storage or (
        isinstance(url, str) and url == other.options.storage and not one.storage.outlives_closing
    )
    functions = one.options.get_session_key, other.options.get_session_key
    are_alike = functions[0] == functions[1] or all(each in ALIKE_IN_PRIVATE for each in functions)
    return is_one_place and one.kind.prefix == other.kind.prefix and are_alike


def names_of(plugin: SessionPlugin[Any]) -> tuple[str, str]:
    """Give the names under which handlers find the data of a session, and its handle."""
    options = plugin.sessions.options
    return options.key, options.handle_key


def hook_of(bot: object, make: Callable[[Any], HookT]) -> HookT:
    """Give what stands around a bot's updates for all its kinds of session, made for the first."""
    attributes = vars(bot)
    if "_gramkeep" not in attributes:
        attributes["_gramkeep"] = make(bot)
    hook: HookT = attributes["_gramkeep"]
    return hook
