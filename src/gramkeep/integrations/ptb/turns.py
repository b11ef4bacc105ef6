"""Where updates of python-telegram-bot come from, and the sessions that each of them holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, Final

from telegram import Bot, ChatBoostSourcePremium, Update
from telegram.ext import CallbackContext

from gramkeep.errors import GramkeepError, NoSessionKey
from gramkeep.handle import Session
from gramkeep.integrations.around import Plugins
from gramkeep.integrations.callbacks import StandIn
from gramkeep.integrations.turns import Turn, upgrade_in
from gramkeep.middleware import SessionPlugin
from gramkeep.origin import Origin, person


def origin_of(update: object, bot: Bot) -> Origin:
    """Say where an update came from; of one that isn't Telegram's there is the ``event`` alone."""
    if not isinstance(update, Update):
        return Origin(bot_id=bot.id, event=update)
    # `effective_message` would warn of a query's message that is too old to be shown.
    query = update.callback_query
    message: Any = update.effective_message if query is None else query.message
    there: Any = message or update.deleted_business_messages
    connection_id = getattr(update.business_connection, "id", None)
    # What is effective for PTB leaves out a chat that votes, and a user who boosts.
    chat: Any = update.effective_chat or getattr(update.poll_answer, "voter_chat", None)
    boost = getattr(getattr(update.chat_boost, "boost", None), "source", None)
    user = boost.user if isinstance(boost, ChatBoostSourcePremium) else update.effective_user
    return Origin(
        bot_id=bot.id,
        chat_id=None if chat is None else chat.id,
        chat_type=None if chat is None else str(chat.type),
        user_id=None if user is None else person(user.id),
        thread_id=_thread_id(message),
        business_connection_id=connection_id or getattr(there, "business_connection_id", None),
        event=update,
    )


def _thread_id(message: Any) -> int | None:
    # Outside of topics the id of a thread only says what a message answers to.
    if getattr(message, "is_topic_message", None):
        return message.message_thread_id  # type: ignore[no-any-return]
    # In a channel's direct messages every writer has a topic.
    return getattr(getattr(message, "direct_messages_topic", None), "topic_id", None)


class UpdateTurn(Turn):
    """The sessions of one update, error or job, as its contexts show them.

    ``loads`` says whether they are loaded as soon as the turn begins, ``failure`` why they can't
    be used. ``tasks`` are those of the handlers for which the update doesn't wait.
    """

    def __init__(self, plugins: Plugins, origin: Origin, update: object = None) -> None:
        super().__init__(plugins, origin, upgrade_in(getattr(update, "message", None)))
        self.update = update
        self.loads = self.is_over = False
        self.failure: Exception | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    async def begin(self, plugins: Collection[SessionPlugin[Any]] | None = None) -> None:
        """Take the places in the sessions' queues, in the order in which updates came."""
        await super().begin(plugins)
        if self.loads:
            await self.load()

    async def load(self) -> None:
        """Wait for the sessions that aren't lazy, and load them."""
        try:
            for plugin, handle in self.handles.items():
                if not plugin.lazy:
                    await plugin.sessions.hand_out(handle, lazy=False)
        except Exception as failure:
            self.failure = failure
            raise

    async def end_after_tasks(self) -> None:
        """Save the sessions when the last handler is done; errors of those are known elsewhere."""
        async with self:
            while running := [task for task in self.tasks if not task.done()]:
                await asyncio.wait(running)
            if any(task.cancelled() for task in self.tasks):
                await self.give_up(asyncio.CancelledError())


current_turn: Final[ContextVar[UpdateTurn | None]] = ContextVar("current_turn", default=None)
"""The update that is handled. Also seen by what outlives it, such as tasks and jobs it starts."""


def turn_of(update: object) -> UpdateTurn | None:
    """Give the turn of an update, if it is the one that is handled."""
    turn = current_turn.get()
    return turn if turn is not None and turn.update is update else None


class TurnContext(CallbackContext[Any, Any, Any, Any]):
    """A context that knows its turn."""

    session_turn: UpdateTurn | None = None

    async def refresh_data(self) -> None:
        """Get the sessions; PTB awaits this before the first handler of an update, and jobs."""
        if self.job is not None:  # of whose end PTB tells nobody
            self.job.callback = Callback.around(self.job.callback)
        elif (turn := current_turn.get()) is not None:
            self.session_turn = turn
            turn.loads = True  # from here on, also when it begins anew
            await turn.load()
        await super().refresh_data()

    def handle_of(self, plugin: SessionPlugin[Any]) -> Session[Any]:
        """Give the handle of one kind of session."""
        if self.session_turn is None:
            reason = "its context was made neither for an update that is handled nor for a job"
            raise NoSessionKey(reason)
        if self.session_turn.failure is not None:
            raise self.session_turn.failure
        return self.session_turn.handles[plugin]


class Callback(StandIn):
    """A callback for errors, or of a job, with sessions of its own."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        update_wrapper(self, function, updated=())
        self.function = function

    @classmethod
    def around(cls, function: Any) -> Callback:
        """Make one, unless it is one."""
        return function if isinstance(function, cls) else cls(function)

    async def __call__(self, *arguments: Any) -> Any:
        context = arguments[-1]
        async with _own_turn(context, arguments[0]) as turn:
            turn.loads = _can_load(context)
            try:
                await turn.begin()
            except Exception as failure:
                if context.error is None:
                    raise
                turn.failure = failure  # for who uses them: errors are to be heard of in any case
            context.session_turn = turn
            return await self.function(*arguments)


def _own_turn(context: Any, update: object) -> UpdateTurn:
    plugins, job = context.application.session_plugins, context.job
    if job is None:
        failed = turn_of(update)
        origin = origin_of(update, context.bot) if failed is None else failed.origin
        return UpdateTurn(plugins, origin)
    conversation = getattr(job.data, "callback_context", None)
    if isinstance(conversation, TurnContext):  # it timed out, and handlers get its last context
        conversation.session_turn = UpdateTurn(plugins, origin_of(job.data.update, context.bot))
        return conversation.session_turn
    origin = Origin(bot_id=context.bot.id, chat_id=job.chat_id, user_id=job.user_id, event=job)
    return UpdateTurn(plugins, origin)


def _can_load(context: Any) -> bool:
    """Whether to load before the callback: not where that would fail again, or never end.

    A handler that waits for a task of its own holds its session while that task's error is told.
    """
    is_awaited = context.coroutine is not None and not is_of_handler(context.coroutine)
    return not is_awaited and not isinstance(context.error, GramkeepError)


def is_of_handler(coroutine: Any) -> bool:
    """Tell the task of a handler with ``block=False`` from other tasks."""
    return getattr(coroutine, "__name__", None) == "handle_update"
