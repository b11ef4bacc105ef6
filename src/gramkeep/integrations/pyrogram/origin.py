"""Where updates of Pyrogram come from, by what its forks make of them, or by what is raw."""

from __future__ import annotations

from typing import Any, Final

from pyrogram import Client, types, utils
from pyrogram.raw import types as raw_types

from gramkeep.origin import Origin, person

_raw: Final[Any] = raw_types  # hundreds, which type checkers can't see

# Bot API names for kinds of chats that forks tell apart further.
_CHAT_TYPES: Final[dict[Any, str]] = {"bot": "private"} | dict.fromkeys(
    ("forum", "direct", "monoforum"), "supergroup"
)

_BUSINESS_CONNECTION: Final[Any] = getattr(types, "BusinessConnection", ())  # not all forks have it


def origin_of(event: Any, client: Client) -> Origin:
    """Say where an update came from.

    ``event`` is what its handlers get: a message, a query, a list of deleted messages, a user
    whose status changed; or a raw update.
    """
    is_list = isinstance(event, list)
    one = event[0] if is_list and event else event
    place = one.message if isinstance(one, types.CallbackQuery) else one
    chat = getattr(place, "chat", None) or getattr(place, "voter_chat", None)
    chat_type: Any = getattr(getattr(chat, "type", None), "value", None)
    if is_list and chat_type == "channel":
        chat_type = None  # may be a supergroup as well: of deleted messages only the id is told
    return Origin(
        bot_id=None if client.me is None else client.me.id,
        chat_id=_chat_id(event) if chat is None else chat.id,
        chat_type=_CHAT_TYPES.get(chat_type, chat_type),
        user_id=person(_user_id(one)),
        thread_id=_thread_id(place),
        business_connection_id=_connection_id(one, place),
        event=event,
    )


def upgrade_of(update: Any) -> tuple[int | None, int | None]:
    """Give the old and the new id of a group, if this says that it is a supergroup now."""
    action: Any = getattr(getattr(update, "message", None), "action", None)
    if isinstance(action, _raw.MessageActionChatMigrateTo):
        return _chat_id(update), utils.get_channel_id(action.channel_id)
    if isinstance(action, _raw.MessageActionChannelMigrateFrom):
        return -action.chat_id, _chat_id(update)
    return None, None


def _chat_id(update: Any) -> int | None:
    """Give the id, as the Bot API marks it, of the chat that a raw update names, if it does."""
    if isinstance(update, _raw.UpdateMessagePollVote):
        return None  # its peer is who voted
    message = getattr(update, "message", None)
    peer: Any = getattr(message, "peer_id", None) or getattr(update, "peer", None)
    if isinstance(peer, _raw.PeerUser | _raw.PeerChat | _raw.PeerChannel):
        return utils.get_peer_id(peer)
    if (channel_id := getattr(update, "channel_id", None)) is not None:
        return utils.get_channel_id(channel_id)
    if (chat_id := getattr(update, "chat_id", None)) is not None:
        return -int(chat_id)
    return None


def _user_id(one: Any) -> int | None:
    if isinstance(one, types.User):  # whose status changed
        return one.id
    acting = getattr(one, "boost", None) or one
    for name in ("from_user", "user", "voter"):
        if (user := getattr(acting, name, None)) is not None:
            return int(user.id)
    # What is raw has ids alone.
    sender = getattr(getattr(one, "message", None), "from_id", None)
    for named in (one, sender, getattr(one, "peer", None)):
        if isinstance(user_id := getattr(named, "user_id", None), int):
            return user_id
    return None


def _thread_id(message: Any) -> int | None:
    # Outside of topics the id of a thread only says what a message answers to.
    if getattr(message, "is_topic_message", None) or getattr(message, "topic_message", None):
        return message.message_thread_id  # type: ignore[no-any-return]
    # In a channel's direct messages every writer has a topic.
    topic_id: int | None = getattr(message, "direct_messages_topic_id", None)
    return topic_id or getattr(getattr(message, "direct_messages_topic", None), "topic_id", None)


def _connection_id(one: Any, place: Any) -> str | None:
    if isinstance(one, _BUSINESS_CONNECTION):
        return one.id  # type: ignore[no-any-return]
    # Of a connection in other forks, of what is raw, and of messages.
    of_one = getattr(one, "bot_connection_id", None) or getattr(one, "connection_id", None)
    return of_one or getattr(place, "business_connection_id", None)
