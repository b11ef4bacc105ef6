"""Kinds of handlers."""

import threading
import time

from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, Text
from integrations.drivers.handlers import Turn

from .scenario import Counter, count, scenario


@scenario
async def handlers_in_nested_routers_or_groups_get_the_session(bot: Driver) -> None:
    """Handlers in nested routers, or in further groups, get the session."""
    bot.keep(initial=Counter, storage=bot.storage)
    for level, text in enumerate(("outer", "inner", "innermost")):
        bot.on(text=text, level=level)(count)
    async with bot:
        for number, text in enumerate(("innermost", "outer", "inner", "innermost"), 1):
            assert await bot.ask(Text(ADA, text)) == str(number)
    assert (await bot.stored(ADA.id))["count"] == 4


@scenario
async def synchronous_handlers_count_right(bot: Driver) -> None:
    """20 updates at once, handled by a plain function, leave a counter at 20."""
    bot.keep(initial=Counter, storage=bot.storage)
    threads = set()

    @bot.on()
    def count_in_a_thread(turn: Turn) -> str:
        before = turn.session.count
        threads.add(threading.current_thread())
        time.sleep(0.002)
        turn.session.count = before + 1
        return str(before + 1)

    async with bot:
        await bot.send(*(Text(ADA, "x") for _ in range(20)))
        answers = await bot.answers(20)
    assert sorted(map(int, answers)) == list(range(1, 21))
    assert (await bot.stored(ADA.id))["count"] == 20
    assert threading.main_thread() not in threads
