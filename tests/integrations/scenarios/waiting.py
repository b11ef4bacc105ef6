"""Who waits for whom."""

import asyncio

from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, BOB, Text
from integrations.drivers.handlers import Gate, Turn

from gramkeep import Origin, per_user

from .scenario import Counter, count, scenario


@scenario
async def updates_of_one_chat_are_handled_in_their_order(bot: Driver) -> None:
    """Updates of one chat are handled in their order, however long each takes."""
    bot.keep(initial=Counter, storage=bot.storage)

    @bot.on()
    async def note(turn: Turn) -> None:
        await turn.pause(0.02 if turn.text in {"0", "3"} else 0)
        turn.session.seen.append(turn.text)
        await turn.answer(turn.text)

    in_order = [str(number) for number in range(10)]
    async with bot:
        await bot.send(*(Text(ADA, text) for text in in_order))
        assert await bot.answers(10) == in_order
    assert (await bot.stored(ADA.id))["seen"] == in_order


@scenario
async def another_chat_does_not_wait(bot: Driver) -> None:
    """Another chat doesn't wait for a handler that takes long."""
    bot.keep(initial=Counter, storage=bot.storage)
    begun, go_on = Gate(), Gate()

    @bot.on(text="long")
    async def take_long(turn: Turn) -> None:
        begun.open()
        await turn.wait_for(go_on)
        turn.session.count += 10
        await turn.answer("done")

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "long"))
        await begun.passed()
        assert await bot.ask(Text(BOB, "x")) == "1"
        go_on.open()
        assert await bot.answers(1) == ["done"]
    assert (await bot.stored(ADA.id))["count"] == 10
    assert (await bot.stored(BOB.id))["count"] == 1


@scenario
async def a_handler_that_needs_no_session_holds_nobody_up(bot: Driver) -> None:
    """A handler that doesn't ask for the session holds nobody up."""
    bot.keep(initial=Counter, storage=bot.storage)
    begun, go_on = Gate(), Gate()

    @bot.on(text="long", asks=())
    async def take_long(turn: Turn) -> None:
        begun.open()
        await turn.wait_for(go_on)
        await turn.answer("done")

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "long"))
        await begun.passed()
        assert await bot.ask(Text(ADA, "x")) == "1"
        go_on.open()
        assert await bot.answers(1) == ["done"]


@scenario
async def updates_with_two_sessions_never_wait_in_a_circle(bot: Driver) -> None:
    """Updates with two sessions each never wait for each other in a circle."""

    async def slow_at_times(origin: Origin) -> str | None:
        key = per_user(origin)
        await asyncio.sleep(0.01 if next(slow) else 0)
        return key

    slow = iter([True, False] * 10)
    bot.keep(initial=Counter, storage=bot.storage, prefix="a:", lock_timeout=20)
    bot.keep(
        initial=Counter,
        storage=bot.storage,
        key="other",
        prefix="b:",
        get_session_key=slow_at_times,
        lock_timeout=20,
    )

    @bot.on(asks=("session", "other"))
    async def count_both(turn: Turn) -> None:
        await turn.pause()
        turn.session.count += 1
        turn.named("other").session.count += 1
        await turn.answer("ok")

    async with bot:
        await bot.send(*(Text(ADA, "x") for _ in range(6)))
        await bot.answers(6)
    for key in (f"a:{ADA.id}", f"b:{ADA.id}"):
        assert (await bot.stored(key))["count"] == 6
