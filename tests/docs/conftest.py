"""Runs the Python code of the documentation, and bots that are written there."""

import asyncio
import inspect
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

from gramkeep.testing import TelegramServer

from .pages import ROOT, blocks

Run = Callable[..., Awaitable[ModuleType]]
Talk = Callable[[Dispatcher], AbstractAsyncContextManager[TelegramServer]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a page's blocks from the top, in one module, to the end or through a section.

    The working directory is empty. ``await`` works outside of functions, as the pages use it.
    """

    async def run(page: str, *, through: str | None = None, name: str = "a_page") -> ModuleType:
        path = ROOT / page
        monkeypatch.chdir(tmp_path)
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        reached = through is None
        for block in blocks(path):
            if reached and through is not None and block.section != through:
                break
            reached = reached or block.section == through
            source = "\n" * block.line + block.code  # so that tracebacks name the page's lines
            code = compile(source, path, "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, vars(module))
            if inspect.isawaitable(result):
                await result
        assert reached, f"{page} has no code in a section {through!r}"
        return module

    return run


@pytest.fixture
def talk() -> Talk:
    """Let a dispatcher poll a local Bot API server for the length of an ``async with``."""

    @asynccontextmanager
    async def talk(dispatcher: Dispatcher) -> AsyncIterator[TelegramServer]:
        async with TelegramServer() as telegram:
            api = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
            async with Bot(telegram.token, session=api) as bot:
                polling = asyncio.create_task(
                    dispatcher.start_polling(bot, polling_timeout=1, handle_signals=False)
                )
                await telegram.bot_listening()
                try:
                    yield telegram
                finally:
                    await dispatcher.stop_polling()
                    await polling

    return talk


async def texts_of(telegram: TelegramServer, *written: str) -> list[str]:
    """Let Ada write to the bot, and give the texts of its answers."""
    ada = telegram.user("Ada")
    answers = []
    for text in written:
        await ada.write(text)
        answers.append((await ada.next_answer()).text)
    return answers
