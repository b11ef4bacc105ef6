"""Where updates of python-telegram-bot come from, and the sessions that each of them holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, Final, Self

from telegram import Bot, Update
from telegram.ext import ApplicationHandlerStop, CallbackContext

from gramkeep.errors import GramkeepError
from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin


def origin_of(update: object, bot: Bot) -> Origin:
    """Say where an update came from; of one that isn't Telegram's there is the ``event`` alone."""
    if not isinstance(update, Update):
        return Origin(bot_id=bot.id, event=update)
    # `effective_message` would warn of a query's message that is too old to be shown.
    query = update.callback_query
    message: Any = update.effective_message if query is None else query.message
    connection = getattr(
        message or update.deleted_business_messages, "business_connection_id", None
    )
    chat, user, connected = update.effective_chat, update.effective_user, update.business_connection
    return Origin(
        bot_id=bot.id,
        chat_id=None if chat is None else chat.id,
        chat_type=None if chat is None else str(chat.type),
        user_id=None if user is None else user.id,
        thread_id=_thread_id(message),
        business_connection_id=connection if connected is None else connected.id,
        event=update,
    )


def _thread_id(message: Any) -> int | None:
    # Outside of topics the id of a thread only says what a message answers to.
    if getattr(message, "is_topic_message", None):
        return message.message_thread_id  # type: ignore[no-any-return]
    # In a channel's direct messages every writer has a topic.
    return getattr(getattr(message, "direct_messages_topic", None), "topic_id", None)


def _upgrade(update: object) -> tuple[int | None, int | None]:
    """Give the old and the new id of a group, if this is a message that it is a supergroup now."""
    if not isinstance(update, Update) or update.message is None:
        return None, None
    message = update.message
    if message.migrate_to_chat_id is not None:
        return message.chat.id, message.migrate_to_chat_id
    return message.migrate_from_chat_id, message.chat.id


class Turn:
    """The sessions of one update, error or job, from its beginning to its end.

    ``async with`` ends it, or gives it up if an exception passes. ``tasks`` are those of the
    handlers for which the update doesn't wait, ``failure`` is why its sessions can't be used.
    """

    def __init__(self, plugins: Plugins, origin: Origin, update: object = None) -> None:
        self.origin, self.update = origin, update
        self.tasks: list[asyncio.Task[Any]] = []
        self.failure: Exception | None = None
        self.is_loaded = self.is_over = False
        self._plugins = plugins
        self._upgrade = _upgrade(update)
        self._stack = AsyncExitStack()
        self._handles: dict[SessionPlugin[Any], Session[Any]] = {}

    async def begin(self) -> None:
        """Take the places in the sessions' queues, in the order in which updates came."""
        self.origin = await self._plugins.follow_upgrade(self.origin, *self._upgrade)
        self._upgrade = None, None
        self._handles = await self._plugins.enter(self.origin, self._stack)

    async def load(self) -> None:
        """Wait for the sessions that aren't lazy, and load them."""
        self.is_loaded = True
        try:
            for plugin, handle in self._handles.items():
                if not plugin.lazy:
                    await plugin.sessions.hand_out(handle, lazy=False)
        except Exception as failure:
            self.failure = failure
            raise

    def handle(self, plugin: SessionPlugin[Any]) -> Session[Any]:
        """Give the handle of one kind of session."""
        if self.failure is not None:
            raise self.failure
        return self._handles[plugin]

    async def end(self) -> None:
        """Save the sessions."""
        await self._stack.aclose()

    async def end_after_tasks(self) -> None:
        """Save the sessions when the last handler is done; errors of those are known elsewhere."""
        async with self:
            while running := [task for task in self.tasks if not task.done()]:
                await asyncio.wait(running)
            if any(task.cancelled() for task in self.tasks):
                await self.give_up(asyncio.CancelledError())

    async def give_up(self, error: BaseException) -> None:
        """Leave the sessions as they were."""
        await self._stack.__aexit__(type(error), error, error.__traceback__)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await (self.end() if error is None else self.give_up(error))


current_turn: Final[ContextVar[Turn | None]] = ContextVar("current_turn", default=None)
"""The update that is handled. Also seen by what outlives it, such as tasks and jobs it starts."""


class TurnContext(CallbackContext[Any, Any, Any, Any]):
    """A context that knows its turn."""

    session_turn: Turn | None = None

    async def refresh_data(self) -> None:
        """Get the sessions; PTB awaits this before the first handler of an update, and jobs."""
        if self.job is not None:  # of whose end PTB tells nobody
            self.job.callback = Callback.around(self.job.callback)
        elif (turn := current_turn.get()) is not None:
            self.session_turn = turn
            await turn.load()
        await super().refresh_data()


class Callback:
    """A callback for errors, or of a job, with sessions of its own; equal to what it calls."""

    def __init__(self, callback: Callable[..., Awaitable[Any]]) -> None:
        update_wrapper(self, callback, updated=())
        self.callback = callback

    @classmethod
    def around(cls, callback: Any) -> Callback:
        """Make one, unless it is one."""
        return callback if isinstance(callback, Callback) else cls(callback)

    def __eq__(self, other: object) -> bool:
        return bool(self.callback == (other.callback if isinstance(other, Callback) else other))

    def __hash__(self) -> int:
        return hash(self.callback)

    async def __call__(self, *arguments: Any) -> Any:
        context = arguments[-1]
        async with _turn_of(context, arguments[0]) as turn:
            try:
                await turn.begin()
                if _can_load(context):
                    await turn.load()
            except Exception as failure:
                if context.error is None:
                    raise
                turn.failure = failure  # for who uses them: errors are to be heard of in any case
            context.session_turn = turn
            try:
                return await self.callback(*arguments)
            except ApplicationHandlerStop as stop:  # no failure: what was changed is saved
                passed = stop
        raise passed


def _turn_of(context: Any, update: object) -> Turn:
    plugins, job = context.application.session_plugins, context.job
    if job is None:
        failed = current_turn.get()
        if failed is not None and failed.update is update:
            return Turn(plugins, failed.origin)
        return Turn(plugins, origin_of(update, context.bot))
    conversation = getattr(job.data, "callback_context", None)
    if isinstance(conversation, TurnContext):  # it timed out, and handlers get its last context
        turn = Turn(plugins, origin_of(job.data.update, context.bot))
        conversation.session_turn = turn
        return turn
    origin = Origin(bot_id=context.bot.id, chat_id=job.chat_id, user_id=job.user_id, event=job)
    return Turn(plugins, origin)


def _can_load(context: Any) -> bool:
    """Whether to load before the callback: not where that would fail again, or never end.

    A handler that waits for a task of its own holds its session while that task's error is told.
    """
    is_awaited = context.coroutine is not None and not is_of_handler(context.coroutine)
    return not is_awaited and not isinstance(context.error, GramkeepError)


def is_of_handler(coroutine: Any) -> bool:
    """Tell the task of a handler with ``block=False`` from other tasks."""
    return getattr(coroutine, "__name__", None) == "handle_update"
