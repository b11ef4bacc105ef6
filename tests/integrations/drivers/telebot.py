"""pyTelegramBotAPI: bots that poll over HTTP, with coroutines or with threads for handlers."""

import asyncio
import logging
import threading
from abc import abstractmethod
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from telebot import ExceptionHandler, TeleBot, apihelper, asyncio_helper
from telebot.async_telebot import AsyncTeleBot

from gramkeep.integrations.telebot import lazy_session, session

from .bot_api import BotApiDriver
from .handlers import BlockingTurn, Handler, Turn

ONE_LIST = "handlers stand in one list, without routers or groups"

log = logging.getLogger(__name__)

T = TypeVar("T")


class Errors(ExceptionHandler):
    """Swallows what handlers raise, and keeps it."""

    def __init__(self) -> None:
        self.kept: list[Exception] = []

    def handle(self, exception: Exception) -> bool:
        self.kept.append(exception)
        return True


class Logging(ExceptionHandler):
    """Logs what handlers raise; telebot by itself tells less, or stops polling."""

    def handle(self, exception: Exception) -> bool:
        log.error("a handler failed", exc_info=exception)
        return True


class _TelebotDriver(BotApiDriver):
    session = session
    lazy_session = lazy_session

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._polling: Any = None

    def set_up(self, kind: Any) -> None:
        kind.setup(self._bot)

    def register(self, handler: Handler) -> None:
        function = handler.asking(self._function(handler), "event")
        for update_type in handler.types:
            names = {"inline_query": "inline_handler"}
            register = getattr(self._bot, names.get(update_type, f"{update_type}_handler"))
            register(func=lambda event: handler.text in (None, text_of(event)))(function)

    @abstractmethod
    def _function(self, handler: Handler) -> Any:
        """Make the function that telebot calls."""


class AsyncTeleBotDriver(_TelebotDriver):
    framework = "AsyncTeleBot"
    missing: ClassVar = {
        "handlers_in_nested_routers_or_groups_get_the_session": ONE_LIST,
        "synchronous_handlers_count_right": "handlers are coroutines",
    }

    def make(self) -> None:
        asyncio_helper.API_URL = f"{self.telegram.url}/bot{{0}}/{{1}}"
        self._bot = AsyncTeleBot(self.telegram.token, exception_handler=Logging())

    def _function(self, handler: Handler) -> Any:
        async def call(event: Any, **found: Any) -> None:
            say = None if event_chat(event) is None else answering(self._bot, event)
            await handler.run(Turn(text_of(event), found, say))

        return call

    async def start(self) -> None:
        self._polling = asyncio.create_task(self._bot.polling(timeout=1))
        await self.telegram.bot_listening()

    async def stop(self) -> None:
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()  # as Ctrl+C does it
            await polling


class TeleBotDriver(_TelebotDriver):
    framework = "TeleBot"
    missing: ClassVar = {
        "handlers_in_nested_routers_or_groups_get_the_session": ONE_LIST,
        "a_cancelled_handler_changes_nothing": "threads can't be cancelled",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._bots: list[TeleBot] = []

    def make(self) -> None:
        apihelper.API_URL = f"{self.telegram.url}/bot{{0}}/{{1}}"
        self._bot = TeleBot(self.telegram.token, exception_handler=Logging())
        self._bots.append(self._bot)

    def set_up(self, kind: Any) -> None:
        super().set_up(kind)
        self._kind = kind

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.to_thread(self._kind.run, work)

    def _function(self, handler: Handler) -> Any:
        def call(event: Any, **found: Any) -> None:
            say = None if event_chat(event) is None else answering(self._bot, event)
            answer = handler.run_blocking(BlockingTurn(text_of(event), found, say))
            if answer is not None and say is not None:
                say(answer)

        return call

    async def start(self) -> None:
        # infinity_polling() can't be started again once the bot was stopped.
        poll = partial(self._bot.polling, non_stop=True, long_polling_timeout=1)
        self._polling = threading.Thread(target=poll)
        self._polling.start()
        await self.telegram.bot_listening()

    async def stop(self) -> None:
        polling, self._polling = self._polling, None
        if polling is not None:
            self._bot.stop_polling()
            await asyncio.to_thread(polling.join)

    async def close(self) -> None:
        await super().close()
        for bot in self._bots:
            await asyncio.to_thread(bot.stop_bot)  # it has threads even if it never polled


def event_chat(event: Any) -> Any:
    return getattr(event, "chat", None)


def answering(bot: Any, message: Any) -> Any:
    """Make a function that answers where a message came from."""

    def answer(text: str) -> Any:
        return bot.send_message(
            message.chat.id,
            text,
            message_thread_id=message.message_thread_id,
            business_connection_id=message.business_connection_id,
        )

    return answer


def text_of(event: Any) -> str | None:
    return getattr(event, "text", None)
