"""The bots on the page of python-telegram-bot answer as they should."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType

import pytest
from telegram.ext import ApplicationBuilder

from gramkeep.testing import TelegramServer

from .conftest import Run, texts_of
from .pages import LAZY_SESSIONS, SEVERAL_KINDS

PAGE = "docs/integrations/ptb.md"

Start = Callable[[str], Awaitable[ModuleType]]


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@pytest.fixture
async def start(
    run: Run, telegram: TelegramServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    """Run the page through a section, and let the bot that stands there poll a local server."""
    build = ApplicationBuilder.build
    started = []

    def build_for_the_server(builder):
        return build(builder.token(telegram.token).base_url(f"{telegram.url}/bot"))

    async def start(section: str) -> ModuleType:
        module = await run(PAGE, through=section)
        application = module.application
        await application.initialize()
        await application.updater.start_polling(timeout=1)
        await application.start()
        started.append(application)
        return module

    monkeypatch.setattr(ApplicationBuilder, "build", build_for_the_server)
    yield start
    for application in started:
        await application.updater.stop()
        await application.stop()
        await application.shutdown()


@pytest.mark.parametrize(
    ("section", "conversation"),
    [
        (
            "Handlers",
            {
                "/count": "You have sent 1 commands",
                "/count ": "You have sent 2 commands",
                "/reset": "Forgotten",
                "/count  ": "You have sent 1 commands",
            },
        ),
        ("Types", {"x": "1", "y": "2"}),
        SEVERAL_KINDS,
        ("Groups of handlers", {"x": "1", "y": "2"}),
        ("Handlers that aren't waited for", {"x": "101", "y": "202"}),
        ("Error handlers", {"x": "0, ['ValueError']", "y": "0, ['ValueError', 'ValueError']"}),
        ("Jobs", {"x": "It is 101 now", "y": "It is 202 now"}),
        LAZY_SESSIONS,
    ],
)
async def test_the_bots_of_the_page_answer_as_they_should(start, telegram, section, conversation):
    await start(section)
    assert await texts_of(telegram, *conversation) == list(conversation.values())


async def test_work_beside_a_bot(start, telegram):
    module = await start("Outside of handlers")
    assert await texts_of(telegram, "x") == ["It ran 0 times"]
    await module.nightly()
    assert await module.sessions.get("42") == module.Counter(1)
    await module.sessions.aclose()
