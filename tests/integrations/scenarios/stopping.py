"""Stopping the bot."""

import asyncio

from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, Text
from integrations.drivers.handlers import Gate, Turn

from gramkeep import Sessions

from .scenario import Counter, scenario


@scenario
async def stopping_waits_for_the_handler_that_runs_and_saves_its_session(bot: Driver) -> None:
    """A bot that is stopped in the middle of a handler lets it finish, and saves its session."""
    bot.keep(initial=Counter, storage=bot.sqlite_url)
    begun, go_on = Gate(), Gate()

    @bot.on()
    async def take_long(turn: Turn) -> None:
        begun.open()
        await turn.wait_for(go_on)
        turn.session.count += 1

    async with bot:
        await bot.send(Text(ADA, "x"))
        await begun.passed()
        stopping = asyncio.create_task(bot.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        go_on.open()
        await stopping
    async with Sessions(initial=Counter, storage=bot.sqlite_url) as sessions:
        assert await sessions.get(str(ADA.id)) == Counter(1)
