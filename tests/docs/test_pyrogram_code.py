"""The bots on the page of Pyrogram answer as they should."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType

import pytest
from integrations.drivers.events import ADA
from integrations.drivers.handlers import until
from integrations.drivers.pyrogram import Offline, new_message

from .conftest import Run
from .pages import AFTER_SAVING, LAZY_SESSIONS, PARAMETERS, SEVERAL_KINDS

PAGE = "docs/integrations/pyrogram.md"

Talk = Callable[..., Awaitable[list[str]]]
Start = Callable[[str], Awaitable[tuple[ModuleType, Talk]]]


@pytest.fixture
async def start(run: Run) -> AsyncIterator[Start]:
    """Run the page through a section, and give the client that stands there raw updates."""
    started = []

    async def start(section: str) -> tuple[ModuleType, Talk]:
        module = await run(PAGE, through=section)
        answers: list[str] = []
        telegram = Offline(module.app, answers.append)
        await module.app.start()
        started.append(module.app)

        async def talk(*written: str) -> list[str]:
            for number, text in enumerate(written, len(answers) + 1):
                await telegram.deliver(new_message(ADA, text, ADA))
                await until(lambda number=number: len(answers) == number, f"only {answers}")
            return answers[-len(written) :]

        return module, talk

    yield start
    for app in started:
        await app.stop()


@pytest.mark.parametrize(
    ("section", "conversation"),
    [
        PARAMETERS,
        ("Texts", {"/note a": "1 notes", "/note b": "2 notes"}),
        ("Groups of handlers", {"x": "1", "y": "2"}),
        ("Error handlers", {"x": "0, ['ValueError']", "y": "0, ['ValueError', 'ValueError']"}),
        AFTER_SAVING,
        SEVERAL_KINDS,
        (
            "Plain functions",
            {
                "x": "You have sent 1 messages",
                "y": "You have sent 2 messages",
                "/forget": "Forgotten",
                "z": "You have sent 1 messages",
            },
        ),
        LAZY_SESSIONS,
        (
            "Updates without a session",
            {"x": "UpdateNewMessage", "y": "UpdateNewMessage, UpdateNewMessage"},
        ),
    ],
)
async def test_the_bots_of_the_page_answer_as_they_should(start, section, conversation):
    _, talk = await start(section)
    assert await talk(*conversation) == list(conversation.values())


async def test_work_beside_a_bot(start):
    module, talk = await start("Outside of handlers")
    assert await talk("x") == ["The job has run 0 times"]
    await module.job()
    assert await talk("x") == ["The job has run 1 times"]
    await module.sessions.aclose()
