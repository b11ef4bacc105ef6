"""The bots on the page of Telethon answer as they should."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType

import pytest
from integrations.drivers.events import ADA
from integrations.drivers.handlers import until
from integrations.drivers.telethon import Telegram
from telethon.tl import types

from .conftest import Run
from .pages import AFTER_SAVING, LAZY_SESSIONS, PARAMETERS, SEVERAL_KINDS

PAGE = "docs/integrations/telethon.md"

Start = Callable[[str], Awaitable[tuple[ModuleType, Telegram]]]


@pytest.fixture
async def start(run: Run) -> AsyncIterator[Start]:
    """Run the page through a section, and give the client that stands there raw updates."""
    started = []

    async def start(section: str) -> tuple[ModuleType, Telegram]:
        module = await run(PAGE, through=section)
        telegram = Telegram(module.client)
        await module.client.start(bot_token=f"{telegram.bot_id}:token")
        started.append(module.client)
        return module, telegram

    yield start
    for client in started:
        await client.disconnect()


async def texts_of(telegram: Telegram, *written: str) -> list[str]:
    answers = []
    for text in written:
        telegram.write(ADA, text)
        answers += await telegram.answers(1)
    return answers


@pytest.mark.parametrize(
    ("section", "conversation"),
    [
        PARAMETERS,
        AFTER_SAVING,
        SEVERAL_KINDS,
        LAZY_SESSIONS,
        ("Conversations", {"/name": "What is your name?", "Ada": "is called Ada"}),
    ],
)
async def test_the_bots_of_the_page_answer_as_they_should(start, section, conversation):
    _, telegram = await start(section)
    assert await texts_of(telegram, *conversation) == list(conversation.values())


async def test_messages_to_a_business_account_are_noted(start):
    module, telegram = await start("Where an update comes from")
    message = telegram.message(ADA, "Are you open?").message
    telegram.push([types.UpdateBotNewBusinessMessage("b", message, telegram.next_pts("qts"))], ADA)
    noted = await until(lambda: module.customers.sessions.get(f"{ADA.id}@b"))
    assert noted.notes == ["Are you open?"]


async def test_inline_queries_have_a_session_per_user(start):
    _, telegram = await start("Updates without a session")
    for text in ("cats", "dogs"):
        telegram.push([types.UpdateBotInlineQuery(1, ADA.id, text, "")], ADA)
        answer = await telegram.answers(1)
    assert answer == ["cats, dogs"]


async def test_work_beside_a_client(start):
    module, _ = await start("Outside of handlers")
    await module.job()
    assert await module.sessions.get("42") == module.Counter(1)
    await module.sessions.aclose()


async def test_a_handler_that_stops_the_client_has_saved_before(start):
    module, telegram = await start("Shutting down")
    telegram.write(ADA, "/stop")
    await module.client.disconnected
    assert (await module.sessions.get(str(ADA.id))).notes == ["stopped"]
    await module.sessions.aclose()
