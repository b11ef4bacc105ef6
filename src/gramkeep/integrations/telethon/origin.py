"""Where updates of Telethon come from."""

from __future__ import annotations

from typing import Any

from telethon.events import NewMessage
from telethon.tl import types
from telethon.tl.custom import Message
from telethon.utils import get_peer_id

from gramkeep.origin import Origin, person


def origin_of(event: Any, client: Any) -> Origin:
    """Say where an update came from. ``event`` is what its handlers get: an event, or it is raw."""
    update = getattr(event, "original_update", None) or event
    me = client._self_id  # noqa: SLF001 - in public it would have to be awaited
    entities = getattr(update, "_entities", None) or {}
    if isinstance(update, types.UpdateShortMessage | types.UpdateShortChatMessage):
        built: Any = NewMessage.build(update, self_id=me)
        update = types.UpdateNewMessage(built.message, 0, 0)
    message = _message(update)
    peer = _peer(update, message)
    chat_id = None if peer is None else get_peer_id(peer)
    connected = getattr(update, "connection", None)
    return Origin(
        bot_id=me,
        chat_id=chat_id,
        chat_type=_chat_type(peer, message, entities.get(chat_id)),
        user_id=person(_user_id(update, message, me)),
        thread_id=None if message is None else _thread_id(message),
        business_connection_id=getattr(connected or update, "connection_id", None),
        event=event,
    )


def upgrade_of(event: Any) -> tuple[int | None, int | None]:
    """Give the old and the new id of a group, if this is a message that it is a supergroup now."""
    message = _message(event)
    match getattr(message, "action", None):
        case types.MessageActionChatMigrateTo(channel_id=new_id):
            return get_peer_id(message.peer_id), get_peer_id(types.PeerChannel(new_id))
        case types.MessageActionChannelMigrateFrom(chat_id=old_id):
            return get_peer_id(types.PeerChat(old_id)), get_peer_id(message.peer_id)
    return None, None


def _message(update: Any) -> Any:
    message = getattr(update, "message", None)
    return message if isinstance(message, Message) else None  # it may be a text, and more


def _peer(update: Any, message: Any) -> Any:
    """Find the chat. Events name one in some cases where there is none, or where it isn't known."""
    if message is not None:
        return message.peer_id
    if isinstance(update, types.UpdateUserTyping | types.UpdateBotStopped):
        return types.PeerUser(update.user_id)
    if isinstance(update, types.UpdateMessagePollVote):
        return None  # its peer is who votes
    if isinstance(update, types.UpdateEncryptedChatTyping | types.UpdateEncryptedMessagesRead):
        return None  # secret chats have ids of their own
    peer = getattr(update, "peer", None) or getattr(update, "peer_id", None)
    if isinstance(peer, types.PeerUser | types.PeerChat | types.PeerChannel):
        return peer
    for name, made in (("channel_id", types.PeerChannel), ("chat_id", types.PeerChat)):
        if (bare_id := getattr(update, name, None)) is not None:
            return made(bare_id)
    return None


def _chat_type(peer: Any, message: Any, entity: Any) -> str | None:
    if isinstance(peer, types.PeerUser):
        return "private"
    if isinstance(peer, types.PeerChat):
        return "group"
    if peer is None or (message is None and entity is None):
        return None
    is_channel = entity.broadcast if message is None else message.post
    return "channel" if is_channel else "supergroup"


def _user_id(update: Any, message: Any, me: int | None) -> int | None:
    """Find the user who acts, if it is a user; in groups and channels, chats act as well."""
    connection = getattr(update, "connection", None)
    for actor in (
        *(getattr(update, name, None) for name in ("actor_id", "inviter_id", "user_id", "actor")),
        getattr(connection, "user_id", None),
        getattr(update, "from_id", None),
        update.peer if isinstance(update, types.UpdateMessagePollVote) else None,
        None if message is None else message.from_id,
    ):
        if actor:
            return _as_user(actor)
    # In private chats messages don't say who sent them, where it can be told without.
    if message is not None and isinstance(message.peer_id, types.PeerUser):
        if not message.out:
            return _as_user(message.peer_id)
        return me if getattr(update, "connection_id", None) is None else None
    return None


def _as_user(actor: Any) -> int | None:
    return actor if isinstance(actor, int) else getattr(actor, "user_id", None)


def _thread_id(message: Any) -> int | None:
    if isinstance(message.action, types.MessageActionTopicCreate):
        return int(message.id)
    reply = message.reply_to
    if getattr(reply, "forum_topic", False):
        # Outside of topics this only says what a message answers to.
        return int(reply.reply_to_top_id or reply.reply_to_msg_id)
    writer = getattr(message, "saved_peer_id", None)
    if writer is not None and isinstance(message.peer_id, types.PeerChannel):
        return int(get_peer_id(writer))  # in a channel's direct messages every writer has a topic
    return None
