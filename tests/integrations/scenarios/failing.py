"""What goes wrong."""

import pytest
from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, Text
from integrations.drivers.handlers import Gate, Turn, until

from gramkeep import SessionClosed

from .scenario import Counter, OnPurpose, count, scenario


@scenario
async def a_handler_that_raises_changes_nothing(bot: Driver) -> None:
    """A handler that raises changes nothing, and the chat goes on."""
    bot.keep(initial=Counter, storage=bot.storage)

    @bot.on(text="fail")
    async def fail(turn: Turn) -> None:
        turn.session.count = 1000
        turn.session.seen.append("fail")
        await turn.answer("failing")
        raise OnPurpose

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "one"), Text(ADA, "fail"), Text(ADA, "two"))
        assert await bot.answers(3) == ["1", "failing", "2"]
    assert await bot.stored(ADA.id) == {"count": 2, "seen": ["one", "two"]}


@scenario
async def a_cancelled_handler_changes_nothing(bot: Driver) -> None:
    """A handler that is cancelled changes nothing, and the chat goes on."""
    bot.keep(initial=Counter, storage=bot.storage)
    begun, never = Gate(), Gate()
    tasks = []

    @bot.on(text="hang")
    async def hang(turn: Turn) -> None:
        turn.session.count = 1000
        tasks.append(turn.task)
        begun.open()
        await turn.wait_for(never)

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "hang"), Text(ADA, "x"))
        await begun.passed()
        tasks[0].cancel()
        assert await bot.answers(1) == ["1"]
    assert await bot.stored(ADA.id) == {"count": 1, "seen": ["x"]}


@scenario
async def a_session_used_after_its_update_raises(bot: Driver) -> None:
    """A session that is used after its update raises `SessionClosed`."""
    bot.keep(initial=Counter, storage=bot.storage)
    kept = []

    @bot.on()
    async def keep(turn: Turn) -> None:
        kept.append(turn.handle)
        await turn.answer("kept")

    async with bot:
        await bot.ask(Text(ADA, "x"))
    with pytest.raises(SessionClosed, match=str(ADA.id)):
        _ = kept[0].data
    with pytest.raises(SessionClosed, match=str(ADA.id)):
        kept[0].data = Counter(1000)


@scenario
async def an_unreadable_session_stops_the_handler_and_stays(bot: Driver) -> None:
    """A stored value that can't be read stops the handler, and stays as it is."""
    bot.keep(initial=Counter, storage=bot.storage)
    bot.on()(count)
    torn = b'{"count": 7, "se'
    await bot.store(ADA.id, torn)
    async with bot:
        await bot.send(Text(ADA, "x"))
        await bot.logged("SessionDecodeError")
        assert bot.storage.writes == [str(ADA.id)]  # this scenario's own
        assert (await bot.storage.get([str(ADA.id)]))[0].value == torn
        await bot.store(ADA.id, b'{"count": 7}')
        assert await bot.ask(Text(ADA, "x")) == "8"


@scenario
async def an_unreachable_storage_stops_the_handler_until_it_is_back(bot: Driver) -> None:
    """A storage that is down stops the handler; when it is up again, so is the chat."""
    bot.keep(initial=Counter, storage=bot.storage)
    bot.on()(count)
    async with bot:
        assert await bot.ask(Text(ADA, "one")) == "1"
        await until(lambda: bot.storage.writes, "nothing is saved")
        bot.storage.is_down = True
        await bot.send(Text(ADA, "lost"))
        await bot.logged(f"unavailable for session '{ADA.id}': it is switched off")
        bot.storage.is_down = False
        assert await bot.ask(Text(ADA, "two")) == "2"
    assert await bot.stored(ADA.id) == {"count": 2, "seen": ["one", "two"]}
