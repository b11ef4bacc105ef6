"""aiogram: dispatchers that poll over HTTP, with routers for the deeper levels."""

import asyncio
from pathlib import Path
from typing import Any

from aiogram import Bot, Dispatcher, F, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message, TelegramObject

from gramkeep.integrations.aiogram import lazy_session, session

from .bot_api import BotApiDriver
from .handlers import BlockingTurn, Handler, Turn


class AiogramDriver(BotApiDriver):
    framework = "aiogram"
    session = session
    lazy_session = lazy_session

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._polling: asyncio.Task[None] | None = None

    def make(self) -> None:
        self._dispatcher = Dispatcher()
        self._routers: list[Router] = [self._dispatcher]

    def set_up(self, kind: Any) -> None:
        kind.setup(self._dispatcher)

    def register(self, handler: Handler) -> None:
        def call_plain(event: Message, **found: Any) -> Any:  # aiogram gives it a thread
            answer = handler.run_blocking(BlockingTurn(text_of(event), found))
            return answer and event.answer(answer)  # returned, so that aiogram sends it

        async def call(event: TelegramObject, **found: Any) -> None:
            await handler.run(Turn(text_of(event), found, getattr(event, "answer", None)))

        function = handler.asking(call_plain if handler.is_sync else call, "event")
        filters = [] if handler.text is None else [F.text == handler.text]
        for update_type in handler.types:
            self._router(handler.level).observers[update_type].register(function, *filters)

    async def start(self) -> None:
        api = TelegramAPIServer.from_base(self.telegram.url)
        self._session = AiohttpSession(api=api)
        polling = self._dispatcher.start_polling(
            Bot(self.telegram.token, self._session),
            polling_timeout=1,
            handle_signals=False,
            close_bot_session=False,
        )
        self._polling = asyncio.create_task(polling)
        await self.telegram.bot_listening()

    async def stop(self) -> None:
        polling, self._polling = self._polling, None
        if polling is not None:
            await self._dispatcher.stop_polling()
            await polling
            # Closed here because aiogram, when it has done so, sleeps 0.25 s for the sake of TLS.
            await (await self._session.create_session()).close()

    def _router(self, level: int) -> Router:
        while len(self._routers) <= level:
            self._routers.append(self._routers[-1].include_router(Router()))
        return self._routers[level]


def text_of(event: TelegramObject) -> str | None:
    return getattr(event, "text", None)
