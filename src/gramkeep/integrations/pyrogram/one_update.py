"""A dispatcher for one update: Pyrogram's own code, with sessions around what it calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

from pyrogram import dispatcher, handlers

from gramkeep.integrations.pyrogram.handlers import STEERING, HandlerCallback, Twin
from gramkeep.integrations.pyrogram.turns import Turn
from gramkeep.locks import Ticket

Packet: TypeAlias = tuple[Any, dict[int, Any], dict[int, Any]]
"""A raw update, and the users and chats that it mentions."""

Twins: TypeAlias = Callable[[Sequence[Any]], list[Twin]]
"""Gives what stands in for handlers."""

PARSING: Final = 60.0  # seconds after which later updates don't wait any more for an earlier one

log = logging.getLogger(dispatcher.__name__)  # where Pyrogram tells of errors


class OneUpdate:
    """Goes before a fork's class of dispatchers, to make a copy of one for one update.

    The copy's queue has this update alone, and its handlers are `Twins`. ``ticket`` is the
    update's place among those of its chat that are parsed.
    """

    update_parsers: Any
    updates_queue: Any

    def __init__(
        self, original: Any, twins: Twins, turn: Turn, packet: Packet, ticket: Ticket
    ) -> None:
        vars(self).update(vars(original))
        self._original = original
        self._twins = twins
        self._turn = turn
        self._packet = packet
        self._ticket = ticket
        self._kinds: tuple[type, ...] = ()
        self.updates_queue = _Queue(packet, original.updates_queue)
        self.update_parsers = _Parsers(self._parse, original.update_parsers)

    async def handle(self, lock: asyncio.Lock) -> None:
        """Have the update handled, as one of the dispatcher's workers does it."""
        work: Any = type(self._original).handler_worker
        try:
            await work(self, lock)
        finally:
            self._ticket.release()

    async def tell(self, error: Exception) -> None:
        """Tell of an error of ours as Pyrogram does of a handler's."""
        tell = getattr(self, "handle_update_handler_exception", None)
        if tell is None:
            log.error("%s", error, exc_info=error)
        else:
            with suppress(*STEERING):  # not all forks keep them from here
                await tell(error, self._turn.last_handler, *self._packet)

    @property
    def groups(self) -> _Groups:
        """The handlers, asked for while none is added or removed."""
        groups = [self._twins(group) for group in self._original.groups.values()]
        return _Groups(groups, self._turn, self._kinds)

    @property
    def error_handlers(self) -> list[Any]:
        """Handlers for errors, in forks that keep them apart."""
        return [twin.handler for twin in self._twins(self._original.error_handlers)]

    async def _parse(self, parse: Callable[..., Awaitable[Any]] | None, *packet: Any) -> Any:
        parsed, kind = (None, type(None)) if parse is None else await parse(*packet)
        self._kinds = (kind, handlers.RawUpdateHandler)
        # An earlier one may take longer, as some have to ask Telegram what they answer to.
        with suppress(TimeoutError):
            await self._ticket.wait(PARSING)
        await self._turn.arrive(parsed)
        self._ticket.release()
        return parsed, kind


def dispatcher_for_one(dispatchers: type) -> Callable[..., Any]:
    """Make the class of `OneUpdate` for the dispatchers of a fork."""
    return type(dispatchers.__name__, (OneUpdate, dispatchers), {})


class _Queue:
    """A queue that gives one update, and then says that there will be no more."""

    def __init__(self, packet: Packet, original: asyncio.Queue[Any]) -> None:
        self._left = [None, packet]
        self.task_done = original.task_done

    async def get(self) -> Packet | None:
        return self._left.pop()


class _Parsers:
    """Parsers of raw updates, called by another function, also where there is none."""

    def __init__(self, call: Callable[..., Awaitable[Any]], originals: dict[type, Any]) -> None:
        self._call = call
        self._originals = originals

    def get(self, kind: type, _default: object = None) -> Callable[..., Awaitable[Any]]:
        return partial(self._call, self._originals.get(kind))


class _Groups:
    """Groups of handlers; as they are gone through, the update's turn learns what is ahead."""

    def __init__(self, groups: list[list[Twin]], turn: Turn, kinds: tuple[type, ...]) -> None:
        self._groups = groups
        self._turn = turn
        self._kinds = kinds

    def values(self) -> Iterator[Iterator[Any]]:
        for index, group in enumerate(self._groups):
            later = [twin for group in self._groups[index + 1 :] for twin in group]
            yield self._through(group, later)

    def _through(self, group: list[Twin], later: list[Twin]) -> Iterator[Any]:
        for index, twin in enumerate(group):
            self._turn.ahead = partial(self._ahead, group[index + 1 :], later)
            yield twin.handler

    def _ahead(self, *parts: list[Twin]) -> tuple[list[HandlerCallback], ...]:
        return tuple(
            [twin.callback for twin in part if isinstance(twin.handler, self._kinds)]
            for part in parts
        )
