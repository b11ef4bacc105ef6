"""Counting."""

import asyncio

import pytest
from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, Text

from gramkeep import ConfigurationError, Sessions

from .scenario import Counter, count, scenario


@scenario
async def fifty_updates_of_one_chat_at_once_count_to_fifty(bot: Driver) -> None:
    """50 updates of one chat at once leave a counter at 50."""
    bot.keep(initial=Counter, storage=bot.sqlite_url)
    bot.on()(count)
    async with bot:
        await bot.send(*(Text(ADA, str(number)) for number in range(50)))
        answers = await bot.answers(50)
    assert answers == [str(number) for number in range(1, 51)]
    async with Sessions(initial=Counter, storage=bot.sqlite_url) as sessions:
        assert (await sessions.get(str(ADA.id))).count == 50


@scenario
async def a_counter_goes_on_after_a_restart(bot: Driver) -> None:
    """A counter in SQLite goes on after a restart."""
    for start in (0, 2):
        bot.make()
        bot.keep(initial=Counter, storage=bot.sqlite_url)
        bot.on()(count)
        async with bot:
            for number in (1, 2):
                assert await bot.ask(Text(ADA, "x")) == str(start + number)


@scenario
async def a_bot_started_again_in_one_process_counts_on(bot: Driver) -> None:
    """A bot that is stopped and started again in one process counts on."""
    bot.keep(initial=Counter, storage=bot.sqlite_url)
    bot.on()(count)
    for start in (0, 2):
        async with bot:
            for number in (1, 2):
                assert await bot.ask(Text(ADA, "x")) == str(start + number)


@scenario
async def handlers_and_jobs_share_a_session_and_lose_nothing(bot: Driver) -> None:
    """Handlers and a job share a ready `Sessions`, and lose nothing."""
    sessions = Sessions(initial=Counter, storage=bot.storage)
    with pytest.raises(ConfigurationError, match="prefix="):
        bot.keep(sessions, prefix="x")
    bot.keep(sessions)
    bot.on()(count)

    async def work() -> None:
        for _ in range(20):
            async with sessions.open(str(ADA.id)) as opened:
                before = opened.data.count
                await asyncio.sleep(0.001)
                opened.data.count = before + 1

    async with bot:
        working = asyncio.create_task(bot.beside(work()))
        await bot.send(*(Text(ADA, str(number)) for number in range(20)))
        await bot.answers(20)
        await working
    kept = await bot.beside(sessions.get(str(ADA.id)))
    assert kept.count == 40
    await bot.beside(sessions.aclose())  # it was still open: whoever made it closes it
