"""Whose session it is."""

from integrations.drivers.base import Driver
from integrations.drivers.events import (
    ADA,
    BOT_ID,
    CHANNEL,
    FORUM,
    OWNER,
    ChannelPost,
    Event,
    InlineQuery,
    PollUpdate,
    Text,
    UpdateType,
)
from integrations.drivers.handlers import Turn, until

from gramkeep import NoSessionKey, per_topic, per_user

from .scenario import Counter, count, scenario


@scenario
async def a_key_can_have_all_that_an_update_says(bot: Driver) -> None:
    """A key can be made of bot, chat, kind of chat, user and topic."""

    def all_of_it(origin):
        return (
            f"{origin.bot_id}/{origin.chat_type}/{origin.chat_id}/{origin.user_id}"
            f"/{origin.thread_id}"
        )

    bot.keep(initial=Counter, storage=bot.storage, get_session_key=all_of_it)
    bot.on()(count)
    topic = bot.topic(FORUM)
    async with bot:
        await bot.ask(Text(ADA, "x", FORUM, topic=topic))
    key = f"{BOT_ID}/supergroup/{FORUM.id}/{ADA.id}/{topic}"
    assert await bot.stored(key) == {"count": 1, "seen": ["x"]}


@scenario
async def a_topic_is_apart_from_the_rest_of_its_chat(bot: Driver) -> None:
    """A forum's topic has a session apart from the rest of the chat."""
    bot.keep(initial=Counter, storage=bot.storage, get_session_key=per_topic)
    bot.on()(count)
    topic = bot.topic(FORUM)
    async with bot:
        for number in (1, 2):
            assert await bot.ask(Text(ADA, "inside", FORUM, topic=topic)) == str(number)
        assert await bot.ask(Text(ADA, "outside", FORUM)) == "1"
    assert (await bot.stored(f"{FORUM.id}:{topic}"))["seen"] == ["inside"] * 2
    assert (await bot.stored(FORUM.id))["seen"] == ["outside"]


@scenario
async def a_business_chat_is_apart_from_the_bots_own(bot: Driver) -> None:
    """A business account's chat is apart from the bot's own chat with the same person."""
    bot.keep(initial=Counter, storage=bot.storage)
    bot.on("message", "business_message")(count)
    connection = await bot.connect_business(OWNER)
    async with bot:
        assert await bot.ask(Text(ADA, "to the bot")) == "1"
        assert await bot.ask(Text(ADA, "to the shop", business=connection)) == "1"
    assert (await bot.stored(ADA.id))["seen"] == ["to the bot"]
    assert (await bot.stored(f"{ADA.id}@{connection}"))["seen"] == ["to the shop"]


@scenario
async def a_poll_has_no_session(bot: Driver) -> None:
    """A poll has no session: its handler runs, and only use of the session raises."""
    await _has_no_session(bot, "poll", PollUpdate())


@scenario
async def an_inline_query_has_no_session_of_a_chat(bot: Driver) -> None:
    """An inline query has no session of a chat."""
    await _has_no_session(bot, "inline_query", InlineQuery(ADA, "cats"))


@scenario
async def a_channel_post_without_sender_has_no_session_of_a_user(bot: Driver) -> None:
    """A channel post without a sender has no session of a user."""
    await _has_no_session(bot, "channel_post", ChannelPost(CHANNEL, "news"), per_user)


async def _has_no_session(bot: Driver, update_type: UpdateType, event: Event, key=None) -> None:
    options = {} if key is None else {"get_session_key": key}
    bot.keep(initial=Counter, storage=bot.storage, **options)
    errors: list[str] = []

    @bot.on(update_type)
    async def use(turn: Turn) -> None:
        for attempt in (
            lambda: turn.session.count,
            lambda: setattr(turn.session, "count", 1),
            lambda: bool(turn.session),
            lambda: turn.handle.data,
            lambda: turn.handle.key,
        ):
            try:
                attempt()
            except NoSessionKey as error:
                errors.append(str(error))
        errors.append("handled")

    async with bot:
        await bot.send(event)
        await until(lambda: "handled" in errors, "the handler isn't called")
    assert len(errors) == 6
    name = "per_chat" if key is None else key.__name__
    assert all(f"{name} returned None" in error for error in errors[:5]), errors
    assert bot.storage.calls == 0
