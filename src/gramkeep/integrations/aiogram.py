"""Sessions for aiogram 3: ``session(initial=Counter, storage=...).setup(dispatcher)``.

Handlers and filters get the data by naming a parameter as the ``key`` option says (``session``),
the handle by naming ``<key>_handle``. A session is loaded when one of them asks, saved when the
update is over, and left as it was if the handler raised. With `lazy_session` the parameter is the
handle itself: ``counter = await session``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from aiogram import Dispatcher
from aiogram.dispatcher.event.bases import CancelHandler, SkipHandler
from aiogram.dispatcher.event.handler import CallableObject, FilterObject
from aiogram.dispatcher.middlewares.user_context import EVENT_CONTEXT_KEY, EventContext
from aiogram.types import ErrorEvent, Message, TelegramObject, Update
from aiogram.types.update import UpdateTypeLookupError

from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin

__all__ = ["lazy_session", "origin_of", "session"]

T = TypeVar("T")

ORIGIN_KEY = "gramkeep_origin"  # where an update's data has its `Origin`

Handler: TypeAlias = Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]]


class session(SessionPlugin[T]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of a dispatcher; options as in `SessionOptions`."""

    def setup(self, dispatcher: Dispatcher) -> None:
        """Install these sessions; before any middleware of yours that uses them.

        When the dispatcher shuts down they wait for the handlers that hold one, and close; a ready
        `Sessions` is left open. Two kinds side by side need different ``key`` options;
        `ConfigurationError` says so.
        """
        hook = _hooks.get(dispatcher)
        if hook is None:
            hook = _hooks[dispatcher] = _Hook()
            hook.install(dispatcher)
        hook.plugins.add(self)
        dispatcher.startup.register(self.start_up)
        dispatcher.shutdown.register(self.shut_down)


class lazy_session(session[T]):  # noqa: N801
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
        user_id=context.user_id,
        thread_id=thread_id,
        business_connection_id=context.business_connection_id,
        event=event,
    )


class _Hook:
    """All sessions of one dispatcher, in one place around its updates."""

    def __init__(self) -> None:
        self.plugins = Plugins()
        self._watched_types: set[str] = set()

    def install(self, dispatcher: Dispatcher) -> None:
        dispatcher.update.outer_middleware(partial(self._around_update, dispatcher))
        for name, observer in dispatcher.observers.items():
            if name == "error":
                observer.middleware(self._around_error_handler)
            elif name != "update":
                observer.middleware(self._before_handler)

    async def _around_update(
        self, dispatcher: Dispatcher, handler: Handler, update: TelegramObject, data: dict[str, Any]
    ) -> Any:
        assert isinstance(update, Update)  # noqa: S101 - the observer of updates has no others
        self._watch_filters(dispatcher, update)
        origin = origin_of(update, data)
        origin = data[ORIGIN_KEY] = await self.plugins.follow_upgrade(origin, *_upgrade(origin))
        async with AsyncExitStack() as stack:
            _show(await self.plugins.enter(origin, stack), data)
            try:
                return await handler(update, data)
            except (SkipHandler, CancelHandler) as passing:
                # Control flow, no failure: what was changed is saved.
                passed = passing
        raise passed

    async def _before_handler(
        self, handler: Handler, event: TelegramObject, data: dict[str, Any]
    ) -> Any:
        for plugin in self.plugins:
            handle = data[plugin.sessions.options.handle_key]
            if _asks(data["handler"], plugin):
                await _hand_over(plugin, handle, data)
            else:
                plugin.sessions.withdraw(handle)
        return await handler(event, data)

    async def _around_error_handler(
        self, handler: Handler, event: TelegramObject, data: dict[str, Any]
    ) -> Any:
        # The failed update's session is given up by now; an error handler gets one of its own.
        assert isinstance(event, ErrorEvent)  # noqa: S101 - the observer of errors has no others
        asking = [plugin for plugin in self.plugins if _asks(data["handler"], plugin)]
        if not asking:
            return await handler(event, data)
        async with AsyncExitStack() as stack:
            _show(await self.plugins.enter(data[ORIGIN_KEY], stack, asking), data)
            for plugin in asking:
                await _hand_over(plugin, data[plugin.sessions.options.handle_key], data)
            return await handler(event, data)

    def _watch_filters(self, dispatcher: Dispatcher, update: Update) -> None:
        """Make the filters for this type of update that ask for a session wait for it."""
        try:
            event_type = update.event_type
        except UpdateTypeLookupError:
            return
        if event_type in self._watched_types:
            return
        self._watched_types.add(event_type)
        for router in dispatcher.chain_tail:
            observer = router.observers[event_type]
            for handler in (observer._handler, *observer.handlers):  # noqa: SLF001 - its own filters
                for filter_object in _filters(handler.filters or ()):
                    for plugin in self.plugins:
                        if _asks(filter_object, plugin):
                            call = partial(_call_filter, plugin, filter_object.call)
                            filter_object.call = call  # type: ignore[method-assign]


_hooks: WeakKeyDictionary[Dispatcher, _Hook] = WeakKeyDictionary()


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


def _asks(called: CallableObject, plugin: SessionPlugin[Any]) -> bool:
    options = plugin.sessions.options
    return called.varkw or not called.params.isdisjoint((options.key, options.handle_key))


async def _call_filter(
    plugin: SessionPlugin[Any], call: Callable[..., Awaitable[Any]], *args: Any, **data: Any
) -> Any:
    await _hand_over(plugin, data[plugin.sessions.options.handle_key], data)
    return await call(*args, **data)


def _upgrade(origin: Origin) -> tuple[int | None, int | None]:
    """Give the old and the new id of a group, if this is a message that it is a supergroup now."""
    message = origin.event
    if not isinstance(message, Message):
        return None, None
    if message.migrate_to_chat_id is not None:
        return message.chat.id, message.migrate_to_chat_id
    return message.migrate_from_chat_id, message.chat.id


def _show(handles: Mapping[SessionPlugin[Any], Session[Any]], data: dict[str, Any]) -> None:
    for plugin, handle in handles.items():
        data[plugin.sessions.options.handle_key] = handle


async def _hand_over(
    plugin: SessionPlugin[Any], handle: Session[Any], data: dict[str, Any]
) -> None:
    """Put the session where the handler or filter that is called next finds it."""
    options = plugin.sessions.options
    data[options.handle_key] = handle
    data[options.key] = await plugin.sessions.hand_out(handle, lazy=plugin.lazy)
