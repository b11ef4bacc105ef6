"""Sessions for bots of pyTelegramBotAPI whose handlers are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from telebot import logger
from telebot.types import Update

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.telebot.turns import Handler, TelebotTurn


class Hook:
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
        raised: BaseException | None = None
        try:
            async with _Turn(self.plugins, self._bot, event, handlers) as turn:
                await turn.arrive()
                try:
                    await run_all(event, turn.handlers, [turn, *(middlewares or ())], update_type)
                except BaseException as error:
                    raised = error
                    raise
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
        await self.plugins.start_up()
        await poll(*args, **kwargs)

    async def _close(self, close: Callable[[], Awaitable[None]]) -> None:
        for _ in range(3):  # the turns of the loop that a new update takes to its sessions
            await asyncio.sleep(0)
        try:
            await self.plugins.shut_down()
        finally:
            await close()


class _Turn(TelebotTurn):
    """The sessions of one update that is handled by coroutines."""

    async def pre_process(self, _event: Any, data: dict[str, Any]) -> None:
        self.show(data)

    async def post_process(self, _event: Any, _data: dict[str, Any], _error: Any) -> None: ...

    async def call(self, handler: Handler, /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler that has matched, with the sessions it asks for."""
        try:
            self.keep_places(handler)
            for plugin in handler.asked:
                found = await plugin.sessions.hand_out(self.handles[plugin], lazy=plugin.lazy)
                self.data[plugin.sessions.options.key] = found
            return await handler.function(*args, **kwargs, **handler.chosen(self.data))
        except BaseException:
            self.has_failed = True
            raise
