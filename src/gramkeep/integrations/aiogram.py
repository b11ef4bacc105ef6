"""Sessions for aiogram 3: ``session(initial=Counter, storage=...).setup(dispatcher)``.

Handlers and filters get the data by naming a parameter as the ``key`` option says (``session``),
the handle by naming ``<key>_handle``. A session is loaded when one of them asks, saved when the
update is over, and left as it was if the handler raised, whoever caught that. With `lazy_session`
the parameter is the handle itself: ``counter = await session``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeAlias

from aiogram import Dispatcher
from aiogram.dispatcher.event.bases import CancelHandler, SkipHandler
from aiogram.dispatcher.event.handler import CallableObject, FilterObject, HandlerObject
from aiogram.dispatcher.middlewares.user_context import EVENT_CONTEXT_KEY, EventContext
from aiogram.types import ErrorEvent, Message, TelegramObject, Update
from aiogram.types.update import UpdateTypeLookupError

from gramkeep.errors import ConfigurationError
from gramkeep.integrations.around import Plugins, hook_of
from gramkeep.integrations.shared_turn import SharedTurn
from gramkeep.integrations.turns import upgrade_in
from gramkeep.middleware import DataT, SessionPlugin
from gramkeep.origin import Origin, person

__all__ = ["lazy_session", "origin_of", "session"]

TURN_KEY = "gramkeep_turn"  # where an update's data has its `_Turn`

Handler: TypeAlias = Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]]


class session(SessionPlugin[DataT]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of a dispatcher; options as in `SessionOptions`."""

    def setup(self, dispatcher: Dispatcher) -> None:
        """Install these sessions; before any middleware of yours that uses them.

        When the dispatcher shuts down they wait for the handlers that hold one, and close; a ready
        `Sessions` is left open. Two kinds side by side need different ``key`` options;
        `ConfigurationError` says so.
        """
        if not isinstance(dispatcher, Dispatcher):
            text = f"setup({dispatcher!r}): sessions are set up on the Dispatcher, for all routers"
            raise ConfigurationError(text)
        hook_of(dispatcher, _Hook).plugins.add(self)
        dispatcher.startup.register(self.start_up)
        dispatcher.shutdown.register(self.shut_down)


class lazy_session(session[DataT]):  # noqa: N801
    """As `session`, loaded by ``await session`` in the handler."""

    lazy = True


def origin_of(update: Update, data: dict[str, Any]) -> Origin:
    """Say where an update came from, by what aiogram's own middleware found out."""
    context: EventContext = data[EVENT_CONTEXT_KEY]
    try:
        event: Any = update.event
    except UpdateTypeLookupError:  # of a Bot API newer than this aiogram, which skips it
        event = update
    thread_id = context.thread_id
    if thread_id is None:
        # In a channel's direct messages every writer has a topic, which aiogram leaves out.
        thread_id = getattr(getattr(event, "direct_messages_topic", None), "topic_id", None)
    return Origin(
        bot_id=data["bot"].id,
        chat_id=context.chat_id,
        chat_type=None if context.chat is None else context.chat.type,
        user_id=person(context.user_id),
        thread_id=thread_id,
        business_connection_id=context.business_connection_id,
        event=event,
    )


class _Turn(SharedTurn):
    """The sessions of an update, then of its error; who comes after a failure gets them anew."""

    is_open = False  # while the update or its error is handled
    kinds: Collection[SessionPlugin[Any]] | None = None  # which it has, where that isn't all

    async def __aenter__(self) -> Self:
        self.is_open = True
        return await super().__aenter__()

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.is_open = False
        await super().__aexit__(_, error, __)

    async def have(self, asked: Collection[SessionPlugin[Any]]) -> None:
        """Take the places, if the handler or filter that is called next asks for sessions."""
        if asked:
            if self.is_open and not self.is_begun:
                kinds = {*asked, *(self._plugins if self.kinds is None else self.kinds)}
                await self.begin([plugin for plugin in self._plugins if plugin in kinds])
            self.take()

    async def hand_over(self, asked: Collection[SessionPlugin[Any]], data: dict[str, Any]) -> None:
        """Put the sessions where the handler or filter that is called next finds them."""
        for plugin in asked:
            options = plugin.sessions.options
            handle = data[options.handle_key] = self.handles[plugin]
            data[options.key] = await plugin.sessions.hand_out(handle, lazy=plugin.lazy)

    async def attempt(self, handling: Awaitable[Any]) -> Any:
        """Await a handler; if it fails its changes are given up, also if a middleware catches."""
        try:
            return await handling
        except self.steering:
            raise
        except BaseException as error:
            await self.give_up(error)
            raise


class _Hook:
    """All sessions of one dispatcher, in one place around its updates."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.plugins = Plugins(SkipHandler, CancelHandler)
        self._dispatcher = dispatcher
        self._asked_in: dict[str, set[SessionPlugin[Any]]] = {}  # by types of updates
        dispatcher.update.outer_middleware(self._around_update)
        dispatcher.error.outer_middleware(self._around_error)
        for name, observer in dispatcher.observers.items():
            if name != "update":
                observer.middleware(self._before_handler)
        # Messages tell of upgraded groups, and Telegram sends only what there is a handler for.
        dispatcher.message.register(_never, _never)

    async def _around_update(
        self, handler: Handler, update: TelegramObject, data: dict[str, Any]
    ) -> Any:
        assert isinstance(update, Update)  # noqa: S101 - the observer of updates has no others
        with suppress(UpdateTypeLookupError):
            self._watch(update.event_type)
        data[TURN_KEY] = self._turn_of(update, data)
        async with data[TURN_KEY] as turn:
            await turn.begin()
            for plugin, handle in turn.handles.items():
                data[plugin.sessions.options.handle_key] = handle
            return await handler(update, data)

    async def _around_error(
        self, handler: Handler, event: TelegramObject, data: dict[str, Any]
    ) -> Any:
        # The failed update's sessions are given up by now; error handlers get some of their own.
        assert isinstance(event, ErrorEvent)  # noqa: S101 - the observer of errors has no others
        self._watch("error")
        if TURN_KEY not in data:  # a middleware failed before this update had its turn
            data[TURN_KEY] = self._turn_of(event.update, data)
        async with data[TURN_KEY] as turn:
            turn.kinds = self._asked_in["error"]
            return await handler(event, data)

    def _turn_of(self, update: Update, data: dict[str, Any]) -> _Turn:
        return _Turn(self.plugins, origin_of(update, data), upgrade_in(update.message))

    async def _before_handler(
        self, handler: Handler, event: TelegramObject, data: dict[str, Any]
    ) -> Any:
        called, turn = data["handler"], data[TURN_KEY]
        asked = self._asked_by(called)
        await turn.have(asked)
        if isinstance(called.call, _Call) and not isinstance(handler, partial):
            called.call.keep_places(turn)  # no middleware of the user's comes before the handler
        await turn.hand_over(asked, data)
        return await turn.attempt(handler(event, data))

    def _watch(self, event_type: str) -> None:
        """Learn what handlers for this type of update ask for, and make their filters get it."""
        if event_type in self._asked_in:
            return
        ahead: set[SessionPlugin[Any]] = set()
        self._asked_in[event_type] = ahead
        for router in reversed(list(self._dispatcher.chain_tail)):
            observer = router.observers[event_type]
            for handler in reversed(observer.handlers):
                asked = self._asked_by(handler)
                handler.call = _Call(handler.call, asked, frozenset(ahead))  # type: ignore[method-assign]
                ahead.update(asked, self._watch_filters(handler))
            ahead.update(self._watch_filters(observer._handler))  # noqa: SLF001 - its own filters

    def _watch_filters(self, handler: HandlerObject) -> set[SessionPlugin[Any]]:
        """Make the filters that ask for a session wait for it, and say what they ask for."""
        found: set[SessionPlugin[Any]] = set()
        for filter_object in _filters(handler.filters or ()):
            if asked := self._asked_by(filter_object):
                filter_object.call = partial(_call_filter, asked, filter_object.call)  # type: ignore[method-assign]
                found.update(asked)
        return found

    def _asked_by(self, called: CallableObject) -> list[SessionPlugin[Any]]:
        return list(self.plugins) if called.varkw else self.plugins.named_in(called.params)


class _Call:
    """Calls a handler, and knows what it asks for, and what those after it may ask for."""

    def __init__(
        self,
        call: Callable[..., Awaitable[Any]],
        asked: list[SessionPlugin[Any]],
        ahead: frozenset[SessionPlugin[Any]],
    ) -> None:
        self._call = call
        self._asked = asked
        self._ahead = ahead

    def keep_places(self, turn: SharedTurn) -> None:
        turn.keep_for(self._asked, self._ahead)

    async def __call__(self, event: TelegramObject, /, **data: Any) -> Any:
        turn: _Turn = data[TURN_KEY]
        is_again = not turn.is_begun  # a middleware of the user's has seen it fail
        if is_again:
            await turn.have(self._asked)
        self.keep_places(turn)
        if is_again:
            await turn.hand_over(self._asked, data)
        return await turn.attempt(self._call(event, **data))


def _filters(filters: Any) -> Iterator[FilterObject]:
    """Yield filters, and in place of ``&``, ``|`` and ``~`` those that they combine."""
    for filter_object in filters:
        inner = getattr(filter_object.callback, "targets", None)
        if inner is None and hasattr(filter_object.callback, "target"):
            inner = (filter_object.callback.target,)
        if inner is None:
            yield filter_object
        else:
            yield from _filters(inner)


async def _call_filter(
    asked: list[SessionPlugin[Any]],
    call: Callable[..., Awaitable[Any]],
    event: TelegramObject,
    /,
    **data: Any,
) -> Any:
    turn: _Turn = data[TURN_KEY]
    await turn.have(asked)
    await turn.hand_over(asked, data)
    return await call(event, **data)


async def _never(_: Message) -> bool:
    return False
