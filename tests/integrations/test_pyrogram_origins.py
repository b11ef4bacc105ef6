"""Where Pyrogram's updates come from, by what it really makes of raw ones."""

from dataclasses import replace
from typing import Any

import pytest
from integrations.drivers.events import ADA, BOB, BOT_ID, CHANNEL, FORUM, GROUP, SUPERGROUP, Person
from integrations.drivers.handlers import until
from integrations.drivers.pyrogram import (
    Offline,
    channel,
    new_message,
    peer,
    raw_chat,
    user,
)
from pyrogram import Client, handlers
from pyrogram import raw as raw_api

from gramkeep import Origin
from gramkeep.integrations.pyrogram import origin_of, session

raw: Any = raw_api.types

PRIVATE = Origin(chat_id=ADA.id, chat_type="private", user_id=ADA.id)
IN_GROUP = Origin(chat_id=GROUP.id, chat_type="group", user_id=ADA.id)
IN_SUPERGROUP = Origin(chat_id=SUPERGROUP.id, chat_type="supergroup", user_id=ADA.id)
IN_CHANNEL = Origin(chat_id=CHANNEL.id, chat_type="channel")
ONLY_ADA = Origin(user_id=ADA.id)
ANONYMOUS = Person(1087968824, "Group")  # stands for all admins who are


def message(*args: Any, **more: Any) -> Any:
    return new_message(*args, **more)[0].message


def edited(update: Any, kind: Any) -> Any:
    return kind(message=update.message, pts=1, pts_count=1)


def reply_in_topic() -> Any:
    return raw.MessageReplyHeader(reply_to_msg_id=9, reply_to_top_id=5, forum_topic=True)


def participant(person: Any) -> Any:
    return raw.ChannelParticipant(user_id=person.id, date=1)


CASES: dict[str, tuple[Any, type, Origin]] = {
    "a message": (new_message(ADA, "x", ADA)[0], handlers.MessageHandler, PRIVATE),
    "in a group": (new_message(GROUP, "x", ADA)[0], handlers.MessageHandler, IN_GROUP),
    "in a supergroup": (
        new_message(SUPERGROUP, "x", ADA)[0],
        handlers.MessageHandler,
        IN_SUPERGROUP,
    ),
    "in a topic": (
        new_message(FORUM, "x", ADA, reply_to=reply_in_topic())[0],
        handlers.MessageHandler,
        Origin(chat_id=FORUM.id, chat_type="supergroup", user_id=ADA.id, thread_id=5),
    ),
    "in a forum, in no topic": (
        new_message(FORUM, "x", ADA)[0],
        handlers.MessageHandler,
        Origin(chat_id=FORUM.id, chat_type="supergroup", user_id=ADA.id),
    ),
    "of nobody, in a channel": (
        new_message(CHANNEL, "x", None, post=True)[0],
        handlers.MessageHandler,
        IN_CHANNEL,
    ),
    "edited": (
        edited(new_message(ADA, "x", ADA)[0], raw.UpdateEditMessage),
        handlers.EditedMessageHandler,
        PRIVATE,
    ),
    "deleted somewhere": (
        raw.UpdateDeleteMessages(messages=[1, 2], pts=1, pts_count=1),
        handlers.DeletedMessagesHandler,
        Origin(),
    ),
    "deleted in a supergroup or channel": (
        raw.UpdateDeleteChannelMessages(
            channel_id=channel(SUPERGROUP).id, messages=[1], pts=1, pts_count=1
        ),
        handlers.DeletedMessagesHandler,
        Origin(chat_id=SUPERGROUP.id),
    ),
    "a button below a message that is gone": (
        raw.UpdateBotCallbackQuery(
            query_id=1, user_id=ADA.id, peer=peer(GROUP), msg_id=99, chat_instance=1, data=b"x"
        ),
        handlers.CallbackQueryHandler,
        Origin(chat_id=GROUP.id, user_id=ADA.id),
    ),
    "a button below a message sent inline": (
        raw.UpdateInlineBotCallbackQuery(
            query_id=1,
            user_id=ADA.id,
            msg_id=raw.InputBotInlineMessageID(dc_id=2, id=1, access_hash=1),
            chat_instance=1,
            data=b"x",
        ),
        handlers.CallbackQueryHandler,
        ONLY_ADA,
    ),
    "a button in a business chat": (
        raw.UpdateBusinessBotCallbackQuery(
            query_id=1,
            user_id=ADA.id,
            connection_id="shop",
            message=message(ADA, "x", ADA),
            chat_instance=1,
            data=b"x",
        ),
        handlers.CallbackQueryHandler,
        replace(PRIVATE, business_connection_id="shop"),
    ),
    "an inline query": (
        raw.UpdateBotInlineQuery(query_id=1, user_id=ADA.id, query="x", offset=""),
        handlers.InlineQueryHandler,
        ONLY_ADA,
    ),
    "a chosen inline result": (
        raw.UpdateBotInlineSend(user_id=ADA.id, query="x", id="1"),
        handlers.ChosenInlineResultHandler,
        ONLY_ADA,
    ),
    "a member of a supergroup": (
        raw.UpdateChannelParticipant(
            channel_id=channel(SUPERGROUP).id,
            date=1,
            actor_id=ADA.id,
            user_id=BOB.id,
            new_participant=participant(BOB),
            qts=1,
        ),
        handlers.ChatMemberUpdatedHandler,
        IN_SUPERGROUP,
    ),
    "a member of a supergroup, by an anonymous admin": (
        raw.UpdateChannelParticipant(
            channel_id=channel(SUPERGROUP).id,
            date=1,
            actor_id=ANONYMOUS.id,
            user_id=BOB.id,
            new_participant=participant(BOB),
            qts=1,
        ),
        handlers.ChatMemberUpdatedHandler,
        replace(IN_SUPERGROUP, user_id=None),
    ),
    "a member of a group": (
        raw.UpdateChatParticipant(
            chat_id=-GROUP.id,
            date=1,
            actor_id=ADA.id,
            user_id=BOB.id,
            new_participant=raw.ChatParticipant(user_id=BOB.id, inviter_id=ADA.id, date=1),
            qts=1,
        ),
        handlers.ChatMemberUpdatedHandler,
        IN_GROUP,
    ),
    "a request to join": (
        raw.UpdateBotChatInviteRequester(
            peer=peer(SUPERGROUP),
            date=1,
            user_id=ADA.id,
            about="",
            invite=raw.ChatInvitePublicJoinRequests(),
            qts=1,
        ),
        handlers.ChatJoinRequestHandler,
        IN_SUPERGROUP,
    ),
    "a poll": (
        raw.UpdateMessagePoll(poll_id=1, results=raw.PollResults(results=[], total_voters=1)),
        handlers.PollHandler,
        Origin(),
    ),
    "a vote": (
        raw.UpdateMessagePollVote(poll_id=1, peer=peer(ADA), options=[b"0"], positions=[0], qts=1),
        handlers.PollHandler,
        ONLY_ADA,
    ),
    "a user's status": (
        raw.UpdateUserStatus(user_id=ADA.id, status=raw.UserStatusRecently()),
        handlers.UserStatusHandler,
        ONLY_ADA,
    ),
    "a reaction": (
        raw.UpdateBotMessageReaction(
            peer=peer(GROUP),
            msg_id=1,
            date=1,
            actor=peer(ADA),
            old_reactions=[],
            new_reactions=[raw.ReactionEmoji(emoticon="+")],
            qts=1,
        ),
        handlers.MessageReactionHandler,
        IN_GROUP,
    ),
    "reactions of nobody in particular": (
        raw.UpdateBotMessageReactions(peer=peer(CHANNEL), msg_id=1, date=1, reactions=[], qts=1),
        handlers.MessageReactionCountHandler,
        IN_CHANNEL,
    ),
    "a business message": (
        raw.UpdateBotNewBusinessMessage(
            connection_id="shop", message=message(ADA, "x", ADA), qts=1
        ),
        handlers.BusinessMessageHandler,
        replace(PRIVATE, business_connection_id="shop"),
    ),
    "an edited business message": (
        raw.UpdateBotEditBusinessMessage(
            connection_id="shop", message=message(ADA, "x", ADA), qts=1
        ),
        handlers.EditedBusinessMessageHandler,
        replace(PRIVATE, business_connection_id="shop"),
    ),
    "deleted business messages": (
        raw.UpdateBotDeleteBusinessMessage(
            connection_id="shop", peer=peer(ADA), messages=[1], qts=1
        ),
        handlers.DeletedBusinessMessagesHandler,
        Origin(chat_id=ADA.id, chat_type="private", business_connection_id="shop"),
    ),
    "a business connection": (
        raw.UpdateBotBusinessConnect(
            connection=raw.BotBusinessConnection(
                connection_id="shop", user_id=ADA.id, dc_id=2, date=1
            ),
            qts=1,
        ),
        handlers.BusinessConnectionHandler,
        replace(ONLY_ADA, business_connection_id="shop"),
    ),
    "a boost": (
        raw.UpdateBotChatBoost(
            peer=peer(CHANNEL),
            boost=raw.Boost(id="1", user_id=ADA.id, date=1, expires=2),
            qts=1,
        ),
        handlers.ChatBoostHandler,
        replace(IN_CHANNEL, user_id=ADA.id),
    ),
    "a pre-checkout query": (
        raw.UpdateBotPrecheckoutQuery(
            query_id=1, user_id=ADA.id, payload=b"x", currency="EUR", total_amount=1
        ),
        handlers.PreCheckoutQueryHandler,
        ONLY_ADA,
    ),
    "paid media": (
        raw.UpdateBotPurchasedPaidMedia(user_id=ADA.id, payload="x", qts=1),
        handlers.PurchasedPaidMediaHandler,
        ONLY_ADA,
    ),
    "something raw of a user": (
        raw.UpdateBotStopped(user_id=ADA.id, date=1, stopped=True, qts=1),
        handlers.RawUpdateHandler,
        ONLY_ADA,
    ),
    "something raw of a group": (
        raw.UpdateChatDefaultBannedRights(
            peer=peer(GROUP),
            default_banned_rights=raw.ChatBannedRights(until_date=0),
            version=1,
        ),
        handlers.RawUpdateHandler,
        Origin(chat_id=GROUP.id),
    ),
    "something raw of a channel": (
        raw.UpdateChannelMessageViews(channel_id=channel(CHANNEL).id, id=1, views=1),
        handlers.RawUpdateHandler,
        Origin(chat_id=CHANNEL.id),
    ),
    "something raw of nobody": (
        raw.UpdateConfig(),
        handlers.RawUpdateHandler,
        Origin(),
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_update_says_where_it_came_from(name):
    update, kind, origin = CASES[name]
    app = Client("bot", api_id=1, api_hash="x", bot_token="42:x")
    telegram = Offline(app, print)
    origins = []

    def note(origin: Origin) -> None:
        origins.append(origin)

    session(storage="memory://", get_session_key=note).setup(app)
    events = []

    async def handle(client, event, *raw_parts, session):
        events.append(event)

    app.add_handler(kind(handle))
    chats = [raw_chat(chat) for chat in (GROUP, SUPERGROUP, FORUM, CHANNEL)]
    async with app:
        await telegram.deliver((update, [user(ADA), user(BOB), user(ANONYMOUS)], chats))
        await until(lambda: events, "the handler isn't called")
    assert [replace(one, event=None) for one in origins] == [replace(origin, bot_id=BOT_ID)]
    assert origins[0].event is events[0]
    assert origin_of(events[0], app).user_id == origin.user_id
