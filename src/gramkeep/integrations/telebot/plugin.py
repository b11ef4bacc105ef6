"""`session` and `lazy_session`: how they come to a bot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from telebot import TeleBot, logger
from telebot.types import Update

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.telebot.blocking import run
from gramkeep.integrations.telebot.threads import ThreadedHook
from gramkeep.integrations.telebot.update import Handler, HandlerFailed, UpdateSessions
from gramkeep.middleware import SessionPlugin

if TYPE_CHECKING:  # it needs aiohttp, which threaded bots do without
    from telebot.async_telebot import AsyncTeleBot

T = TypeVar("T")
V = TypeVar("V")


class session(SessionPlugin[T]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of a bot; options as in `SessionOptions`."""

    def setup(self, bot: TeleBot | AsyncTeleBot) -> None:
        """Install these sessions.

        When the bot stops they wait for the handlers that hold one, and close; a ready `Sessions`
        is left open. Two kinds side by side need different ``key`` options; `ConfigurationError`
        says so.
        """
        hook: ThreadedHook | _Hook | None = vars(bot).get("_gramkeep")
        if hook is None:
            hook = ThreadedHook(bot) if isinstance(bot, TeleBot) else _Hook(bot)
            vars(bot)["_gramkeep"] = hook
        hook.plugins.add(self)

    def run(self, coroutine: Coroutine[Any, Any, V]) -> V:
        """Run a coroutine where the sessions of threaded bots live, and wait for its result.

        For threads, in handlers and outside of them: ``counters.run(counters.sessions.get("42"))``.
        Raises `ConfigurationError` on an event loop, which it would hold up.
        """
        return run(coroutine)


class lazy_session(session[T]):  # noqa: N801
    """As `session`, loaded in the handler: by ``await session``, in threads ``session.load()``."""

    lazy = True


class _Hook:
    """All sessions of one `AsyncTeleBot`, in one place around its updates.

    telebot has no place to hook into that sees how an update ends: middlewares don't when another
    one cancels it or raises. So methods of this bot are replaced; it calls them as its own.
    """

    def __init__(self, bot: Any) -> None:
        self.plugins = Plugins()
        self._bot = bot
        bot.process_new_updates = partial(self._one_by_one, bot.process_new_updates)
        around = partial(self._around_update, bot._run_middlewares_and_handlers)  # noqa: SLF001
        bot._run_middlewares_and_handlers = around  # noqa: SLF001 - see above
        bot._process_polling = partial(self._poll, bot._process_polling)  # noqa: SLF001
        bot.close_session = partial(self._close, bot.close_session)  # by telebot when it stops

    async def _one_by_one(
        self, process: Callable[[list[Update]], Awaitable[None]], updates: list[Update]
    ) -> None:
        # telebot handles all messages of a batch before any other update in it; here each takes
        # its place when its turn is, and one that fails takes no others with it.
        await asyncio.gather(*(process([update]) for update in updates))

    async def _around_update(
        self,
        run_all: Callable[..., Awaitable[None]],
        event: Any,
        handlers: list[dict[str, Any]],
        middlewares: list[Any] | None,
        update_type: str,
    ) -> None:
        update = _Update(self.plugins, self._bot, event)
        raised: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                await update.enter(stack)
                standing_in = update.standing_in(handlers)
                try:
                    await run_all(event, standing_in, [update, *(middlewares or ())], update_type)
                except BaseException as error:
                    raised = error
                    raise
                update.check()
        except HandlerFailed:
            pass  # it has told of it
        except Exception as error:
            if error is raised:
                raise
            await self._tell(error)
        finally:
            raised = None  # its traceback has this frame

    async def _tell(self, error: Exception) -> None:
        """Tell of an error of ours as telebot does of a handler's."""
        if not await self._bot._handle_exception(error):  # noqa: SLF001 - it asks its handler
            logger.error("%s", error, exc_info=error)

    async def _poll(self, poll: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> None:
        for plugin in self.plugins:
            await plugin.start_up()
        await poll(*args, **kwargs)

    async def _close(self, close: Callable[[], Awaitable[None]]) -> None:
        for _ in range(3):  # the turns of the loop that a new update takes to its sessions
            await asyncio.sleep(0)
        try:
            await asyncio.gather(*(plugin.shut_down() for plugin in self.plugins))
        finally:
            await close()


class _Update(UpdateSessions):
    """The sessions of one update that is handled by coroutines."""

    async def pre_process(self, _event: Any, data: dict[str, Any]) -> None:
        self.data = data
        for plugin, handle in self.handles.items():
            data[plugin.sessions.options.handle_key] = handle

    async def post_process(self, _event: Any, _data: dict[str, Any], _error: Any) -> None: ...

    async def call(self, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        """Call a handler that has matched, with the sessions it asks for."""
        try:
            for plugin, handle in self.handles.items():
                if plugin in handler.asked:
                    found = await plugin.sessions.hand_out(handle, lazy=plugin.lazy)
                    self.data[plugin.sessions.options.key] = found
                else:
                    plugin.sessions.withdraw(handle)
            return await handler.function(*args, **kwargs, **handler.chosen(self.data))
        except BaseException:
            self.has_failed = True
            raise
