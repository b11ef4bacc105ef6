"""python-telegram-bot: applications that poll over HTTP, with groups for the deeper levels."""

from pathlib import Path
from typing import Any, ClassVar

from telegram import Update
from telegram.ext import (
    Application,
    BaseHandler,
    CallbackContext,
    InlineQueryHandler,
    MessageHandler,
    PollHandler,
    filters,
)

from gramkeep.integrations.ptb import lazy_session, session

from .bot_api import BotApiDriver
from .events import UpdateType
from .handlers import Handler, Turn

MESSAGES = {
    "message": filters.UpdateType.MESSAGE,
    "business_message": filters.UpdateType.BUSINESS_MESSAGE,
    "channel_post": filters.UpdateType.CHANNEL_POST,
}
OTHERS = {"inline_query": InlineQueryHandler, "poll": PollHandler}


class PTBDriver(BotApiDriver):
    framework = "python-telegram-bot"
    session = session
    lazy_session = lazy_session
    missing: ClassVar = {
        "a_handler_that_needs_no_session_causes_no_call": (
            "handlers don't say what they use; `lazy_session` is loaded where it is awaited"
        ),
        "a_handler_that_needs_no_session_holds_nobody_up": (
            "handlers don't say what they use; `lazy_session` waits where it is awaited"
        ),
        "synchronous_handlers_count_right": "handlers are coroutines",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._application: Any = None

    def make(self) -> None:
        self._builder = (
            Application.builder()
            .token(self.telegram.token)
            .base_url(f"{self.telegram.url}/bot")
            .concurrent_updates(True)
        )
        self._handlers: list[tuple[BaseHandler, int]] = []
        self._application = None

    def set_up(self, kind: Any) -> None:
        kind.setup(self._builder)

    def register(self, handler: Handler) -> None:
        async def call(update: Update, context: CallbackContext[Any, Any, Any, Any]) -> None:
            await handler.run(ContextTurn(update, context))

        for update_type in handler.types:
            made = _handler(update_type, handler.text, call)
            self._handlers.append((made, handler.level))

    async def start(self) -> None:
        if self._application is None:
            self._application = self._builder.build()
            for handler, group in self._handlers:
                self._application.add_handler(handler, group)
        await self._application.initialize()
        await self._application.updater.start_polling(timeout=1, allowed_updates=Update.ALL_TYPES)
        await self._application.start()
        await self.telegram.bot_listening()

    async def stop(self) -> None:
        if self._application is not None and self._application.running:
            await self._application.updater.stop()
            await self._application.stop()
            await self._application.shutdown()


class ContextTurn(Turn):
    """What is found by its name is found on the context."""

    def __init__(self, update: Update, context: CallbackContext[Any, Any, Any, Any]) -> None:
        message = update.effective_message
        super().__init__(message and message.text, {}, message and message.reply_text)
        self._context = context

    @property
    def session(self) -> Any:
        return getattr(self._context, self.key)

    @session.setter
    def session(self, value: Any) -> None:
        setattr(self._context, self.key, value)

    @property
    def handle(self) -> Any:
        return getattr(self._context, f"{self.key}_handle")


def _handler(update_type: UpdateType, text: str | None, call: Any) -> BaseHandler:
    if update_type in OTHERS:
        return OTHERS[update_type](call)
    chosen = MESSAGES[update_type]
    return MessageHandler(chosen if text is None else chosen & filters.Text([text]), call)
