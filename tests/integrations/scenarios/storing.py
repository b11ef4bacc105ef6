"""What is loaded and stored."""

import pytest
from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, BOB, GROUP, Text
from integrations.drivers.handlers import Turn

from gramkeep import ConfigurationError, SessionOptions, per_user

from .scenario import Counter, count, scenario


@scenario
async def a_handler_that_needs_no_session_causes_no_call(bot: Driver) -> None:
    """A handler that doesn't ask for the session causes no call to the storage."""
    bot.keep(initial=Counter, storage=bot.storage)

    @bot.on(text="ping", asks=())
    async def ping(turn: Turn) -> None:
        await turn.answer("pong")

    bot.on()(count)
    async with bot:
        assert await bot.ask(Text(ADA, "ping")) == "pong"
        assert await bot.ask(Text(BOB, "x")) == "1"
    assert (bot.storage.reads, bot.storage.writes) == ([str(BOB.id)], [str(BOB.id)])


@scenario
async def a_lazy_session_is_loaded_when_awaited(bot: Driver) -> None:
    """A lazy session is loaded when it is awaited, and not before."""
    bot.set_up(bot.lazy_session(initial=Counter, storage=bot.storage))

    @bot.on(text="no")
    async def leave_it(turn: Turn) -> None:
        await turn.answer("not loaded")

    @bot.on()
    async def load(turn: Turn) -> None:
        counter = await turn.load()
        counter.count += 1
        await turn.answer(str((await turn.load()).count))

    async with bot:
        assert await bot.ask(Text(BOB, "no")) == "not loaded"
        assert await bot.ask(Text(ADA, "yes")) == "1"
    assert (bot.storage.reads, bot.storage.writes) == ([str(ADA.id)], [str(ADA.id)])


@scenario
async def an_assigned_value_replaces_the_session(bot: Driver) -> None:
    """Assigning replaces the session's data."""
    bot.keep(initial=Counter, storage=bot.storage)

    @bot.on(text="replace")
    async def replace(turn: Turn) -> None:
        turn.session = Counter(7, ["new"])
        await turn.answer("replaced")

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "a"), Text(ADA, "replace"), Text(ADA, "b"))
        assert await bot.answers(3) == ["1", "replaced", "8"]
    assert await bot.stored(ADA.id) == {"count": 8, "seen": ["new", "b"]}


@scenario
async def none_deletes_the_session(bot: Driver) -> None:
    """`None` deletes the session."""
    bot.keep(initial=Counter, storage=bot.storage)

    @bot.on(text="forget")
    async def forget(turn: Turn) -> None:
        turn.session = None
        await turn.answer("forgotten")

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "a"), Text(ADA, "forget"), Text(ADA, "b"), Text(ADA, "forget"))
        assert await bot.answers(4) == ["1", "forgotten", "1", "forgotten"]
    assert await bot.stored(ADA.id) is None


@scenario
async def clear_deletes_the_session_at_once(bot: Driver) -> None:
    """`clear()` deletes the session at once, and the handler goes on with a new one."""
    bot.keep(initial=Counter, storage=bot.storage)
    stored = []

    @bot.on(text="clear")
    async def clear(turn: Turn) -> None:
        await turn.clear()
        stored.append(list(bot.storage.writes))
        turn.handle.data.count += 100
        await turn.answer("cleared")

    bot.on()(count)
    async with bot:
        await bot.send(Text(ADA, "a"), Text(ADA, "clear"), Text(ADA, "b"))
        assert await bot.answers(3) == ["1", "cleared", "101"]
    assert stored == [[str(ADA.id)] * 2]  # a's, and the deletion
    assert await bot.stored(ADA.id) == {"count": 101, "seen": ["b"]}


@scenario
async def two_sessions_live_side_by_side(bot: Driver) -> None:
    """Two sessions under two names live side by side."""
    bot.keep(initial=Counter, storage=bot.storage, prefix="chat:")
    bot.keep(
        initial=dict, storage=bot.storage, key="basket", get_session_key=per_user, prefix="user:"
    )
    with pytest.raises(ConfigurationError, match="sessions named 'basket' here already"):
        bot.keep(key="basket", storage=bot.storage)

    @bot.on(asks=("session", "basket"))
    async def buy(turn: Turn) -> None:
        turn.session.count += 1
        await turn.pause(0)
        basket = turn.named("basket").session
        basket[turn.text] = basket.get(turn.text, 0) + 1
        await turn.answer("bought")

    async with bot:
        for _ in range(5):
            await bot.send(Text(ADA, "fig", GROUP), Text(BOB, "pear", GROUP), Text(ADA, "plum"))
        await bot.answers(15)
    assert (await bot.stored(f"chat:{GROUP.id}"))["count"] == 10
    assert (await bot.stored(f"chat:{ADA.id}"))["count"] == 5
    assert await bot.stored(f"user:{ADA.id}") == {"fig": 5, "plum": 5}
    assert await bot.stored(f"user:{BOB.id}") == {"pear": 5}


@scenario
async def the_parts_of_a_multi_session_come_and_go_together(bot: Driver) -> None:
    """The parts of a multi session come with one read, go with one write, and can be deleted."""
    bot.keep(
        type="multi",
        user=SessionOptions(initial=Counter, get_session_key=per_user, storage=bot.storage),
        chat=SessionOptions(initial=Counter, storage=bot.storage),
    )

    @bot.on(text="forget me")
    async def forget(turn: Turn) -> None:
        turn.session.user = None
        await turn.answer("forgotten")

    @bot.on()
    async def count_both(turn: Turn) -> None:
        turn.session.user.count += 1
        await turn.pause()
        turn.session.chat.count += 1
        await turn.answer(f"{turn.session.user.count} {turn.session.chat.count}")

    async with bot:
        await bot.send(*(Text(person, "x", GROUP) for person in (ADA, BOB) * 10))
        answers = await bot.answers(20)
        assert await bot.ask(Text(ADA, "forget me", GROUP)) == "forgotten"
    assert sorted(int(answer.split()[1]) for answer in answers) == list(range(1, 21))
    assert (await bot.stored(f"chat:{GROUP.id}"))["count"] == 20
    assert (await bot.stored(f"user:{BOB.id}"))["count"] == 10
    assert await bot.stored(f"user:{ADA.id}") is None
