"""A group becomes a supergroup."""

from integrations.drivers.base import Driver
from integrations.drivers.events import ADA, BOB, GROUP, SUPERGROUP, Chat, Text, Upgrade
from integrations.drivers.handlers import Turn, until

from gramkeep import per_user_in_chat

from .scenario import Counter, scenario

IN_OLD = Upgrade(GROUP, SUPERGROUP, told_in=GROUP, by=ADA)
IN_NEW = Upgrade(GROUP, SUPERGROUP, told_in=SUPERGROUP, by=ADA)


@scenario
async def a_group_upgraded_in_the_old_chat_first_keeps_its_sessions(bot: Driver) -> None:
    """It keeps its sessions if the old chat says so first."""
    await _upgrade(bot, [IN_OLD], [IN_NEW])


@scenario
async def a_group_upgraded_in_the_new_chat_first_keeps_its_sessions(bot: Driver) -> None:
    """It keeps its sessions if the new chat says so first."""
    await _upgrade(bot, [IN_NEW], [IN_OLD])


@scenario
async def a_group_upgraded_in_both_chats_at_once_keeps_its_sessions(bot: Driver) -> None:
    """It keeps its sessions if both chats say so at once."""
    await _upgrade(bot, [IN_OLD, IN_NEW])


async def _upgrade(bot: Driver, *steps: list[Upgrade]) -> None:
    bot.keep(initial=Counter, storage=bot.storage)
    bot.keep(
        initial=Counter,
        storage=bot.storage,
        key="member",
        prefix="member:",
        get_session_key=per_user_in_chat,
    )

    @bot.on(asks=("session", "member"))
    async def count(turn: Turn) -> None:
        if turn.text is None:  # a service message, in frameworks whose handlers are given those
            turn.session.seen.append("upgraded")  # belongs to the new chat, whichever says so
            return
        turn.session.count += 1
        turn.named("member").session.count += 1
        await turn.answer(f"{turn.session.count} {turn.named('member').session.count}")

    async def write(chat: Chat) -> set[str]:
        await bot.send(Text(ADA, "x", chat), Text(BOB, "x", chat))
        return set(await bot.answers(2))

    async def moved() -> bool:
        keys = {key async for key in bot.storage.scan()}
        return keys == {
            str(SUPERGROUP.id),
            f"member:{SUPERGROUP.id}:{ADA.id}",
            f"member:{SUPERGROUP.id}:{BOB.id}",
        }

    async with bot:
        assert await write(GROUP) == {"1 1", "2 1"}
        for messages in steps:
            await bot.send(*messages)
            await until(moved, "the sessions aren't moved")
        assert await write(SUPERGROUP) == {"3 2", "4 2"}
    assert await moved()
