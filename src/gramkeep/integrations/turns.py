"""The sessions of one update, for all who handle it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Self, TypeAlias

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins
from gramkeep.locks import KeyLocks
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin

PATIENCE: Final = 60.0
"""Seconds that an update waits for earlier ones, before it overtakes them."""

Upgrade: TypeAlias = tuple[int | None, int | None]
"""The old and the new id of a group that became a supergroup; no upgrade if either is ``None``."""

NO_UPGRADE: Final = None, None


def upgrade_in(message: Any) -> Upgrade:
    """Say which upgrade a message of the Bot API tells of, in whichever framework, or ``None``."""
    if message is None:
        return NO_UPGRADE
    if message.migrate_to_chat_id is not None:
        return message.chat.id, message.migrate_to_chat_id
    return message.migrate_from_chat_id, message.chat.id


class Turn:
    """The sessions of one update, error or job, from its beginning to its end.

    ``async with`` saves them at its end, or leaves them as they were if a failure passes. Then
    it may begin again, for others that handle the same update.
    """

    def __init__(self, plugins: Plugins, origin: Origin, upgrade: Upgrade = NO_UPGRADE) -> None:
        self.origin = origin
        self.handles: dict[SessionPlugin[Any], Session[Any]] = {}
        self.is_begun = False
        self.steering = plugins.steering
        self._plugins = plugins
        self._upgrade = upgrade
        self._stack = AsyncExitStack()

    async def follow_upgrade(self) -> None:
        """Move the sessions of a group that became a supergroup; once, or until it works."""
        self.origin = await self._plugins.follow_upgrade(self.origin, *self._upgrade)
        self._upgrade = NO_UPGRADE

    async def begin(self, plugins: Collection[SessionPlugin[Any]] | None = None) -> None:
        """Take the places in the queues of the sessions, of all kinds or of these."""
        await self.follow_upgrade()
        self.handles = await self._plugins.enter(self.origin, self._stack, plugins)
        self.is_begun = True

    async def end(self) -> None:
        """Save the sessions."""
        self.is_begun = False
        await self._stack.aclose()

    async def give_up(self, error: BaseException) -> None:
        """Leave the sessions as they are stored."""
        self.is_begun = False
        await self._stack.__aexit__(type(error), error, error.__traceback__)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, self.steering):
            await self.end()
        else:
            await self.give_up(error)


class OrderedTurn(Turn):
    """As `Turn`, where an update may be overtaken before it is known who handles it.

    ``arrivals`` are the queues of updates that came. It begins when the earlier ones of its chat
    and of its user have, or let it pass.
    """

    def __init__(
        self, plugins: Plugins, origin: Origin, upgrade: Upgrade, arrivals: KeyLocks
    ) -> None:
        super().__init__(plugins, origin, upgrade)
        ids = {"chat": origin.chat_id, "user": origin.user_id}
        self._places = [
            arrivals.reserve(f"{whose} {each}") for whose, each in ids.items() if each is not None
        ]

    async def begin(self, plugins: Collection[SessionPlugin[Any]] | None = None) -> None:
        """Take the places in the queues of the sessions, in the order in which updates came."""
        try:
            with suppress(TimeoutError):
                for place in self._places:
                    await place.wait(PATIENCE)
            await super().begin(plugins)
        finally:
            self.let_pass()

    async def end(self) -> None:
        """Save the sessions."""
        self.let_pass()
        await super().end()

    async def give_up(self, error: BaseException) -> None:
        """Leave the sessions as they are stored."""
        self.let_pass()
        await super().give_up(error)

    def let_pass(self) -> None:
        """Let later updates begin."""
        while self._places:
            self._places.pop().release()
