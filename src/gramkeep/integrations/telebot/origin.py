"""Where updates of pyTelegramBotAPI come from."""

from __future__ import annotations

from typing import Any

from telebot.types import BusinessConnection, CallbackQuery, Message

from gramkeep.integrations.turns import Upgrade, upgrade_in
from gramkeep.origin import Origin, person


def origin_of(event: Any, bot: Any) -> Origin:
    """Say where an update came from. ``event`` is what its handlers get: a message, a query."""
    # By their dicts: some of telebot's attributes log that they are deprecated when they are read.
    fields = vars(event)
    place = fields.get("message") if isinstance(event, CallbackQuery) else event
    there = {} if place is None else vars(place)
    chat = there.get("chat") or there.get("voter_chat")
    user = fields.get("from_user") or fields.get("user")
    boost = fields.get("boost")
    if user is None and boost is not None and boost.source.source == "premium":
        user = boost.source.user
    thread_id = there.get("message_thread_id") if there.get("is_topic_message", True) else None
    if thread_id is None:
        # In a channel's direct messages every writer has a topic.
        thread_id = getattr(there.get("direct_messages_topic"), "topic_id", None)
    connection = event.id if isinstance(event, BusinessConnection) else None
    return Origin(
        bot_id=bot.bot_id,
        chat_id=None if chat is None else chat.id,
        chat_type=None if chat is None else chat.type,
        user_id=None if user is None else person(user.id),
        thread_id=thread_id,
        business_connection_id=connection or there.get("business_connection_id"),
        event=event,
    )


def upgrade_of(event: Any) -> Upgrade:
    """Say of which upgrade of a group an update tells."""
    return upgrade_in(event if isinstance(event, Message) else None)
