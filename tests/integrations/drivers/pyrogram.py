"""Pyrogram, by its fork kurigram: clients that start, take updates and send as ever.

Only what would go over the network stands here: `Offline` is Telegram for a client.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from pyrogram import Client, filters, handlers, raw, types

from gramkeep.integrations.pyrogram import lazy_session, session

from .base import Driver
from .events import (
    BOT_ID,
    ChannelPost,
    Chat,
    Event,
    InlineQuery,
    Person,
    PollUpdate,
    Text,
    Upgrade,
)
from .handlers import BlockingTurn, Gate, Handler, Turn

HANDLERS = {
    "message": (handlers.MessageHandler, ~filters.channel),
    "business_message": (handlers.BusinessMessageHandler, filters.all),
    "channel_post": (handlers.MessageHandler, filters.channel),
    "inline_query": (handlers.InlineQueryHandler, filters.all),
    "poll": (handlers.PollHandler, filters.all),
}

GET_MESSAGES = (raw.functions.messages.GetMessages, raw.functions.channels.GetMessages)

_numbers = count(1)


class PyrogramDriver(Driver):
    framework = "Pyrogram (kurigram)"
    session = session
    lazy_session = lazy_session

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._app: Client | None = None

    def make(self) -> None:
        self._app = Client("bot", api_id=1, api_hash="x", bot_token="42:x", workers=16)
        self._telegram = Offline(self._app, self.record)

    def set_up(self, kind: Any) -> None:
        kind.setup(self._app)

    def register(self, handler: Handler) -> None:
        def call_plain(client: Client, event: Any, **found: Any) -> None:  # gets a thread
            answer = handler.run_blocking(BlockingTurn(text_of(event), found))
            if answer is not None:
                asyncio.run_coroutine_threadsafe(say(event, answer), client.loop).result()

        async def call(client: Client, event: Any, **found: Any) -> None:
            await handler.run(Turn(text_of(event), found, partial(say, event)))

        async def say(event: Any, text: str) -> None:
            await event.reply(text)

        function = handler.asking(call_plain if handler.is_sync else call, "client", "event")
        fits = filters.create(lambda _, __, event: handler.text in (None, text_of(event)))
        for update_type in handler.types:
            kind, only = HANDLERS[update_type]
            self._app.add_handler(kind(function, only & fits), handler.level)

    async def start(self) -> None:
        await self._app.start()

    async def stop(self) -> None:
        if self._app.is_initialized:
            await self._app.stop(clear_handlers=False)

    async def deliver(self, events: Sequence[Event]) -> None:
        await self._telegram.deliver(*map(_packet, events))


Packet = tuple[raw.base.Update, list[raw.base.User], list[raw.base.Chat]]
"""A raw update, and the users and chats that it mentions."""


class Offline:
    """Telegram, for one client: it is told what happens, and tells what it sends to whom."""

    def __init__(self, app: Client, sent: Any) -> None:
        self._app = app
        self._sent = sent
        self.reading = Gate()  # through which it must be gone to get messages from Telegram
        self.reading.open()
        app.storage = Client(app.name, in_memory=True).storage
        app.load_session = self._load_session
        app.get_session = self._get_session

    async def deliver(self, *packets: Packet) -> None:
        """Make updates happen, all at once: none is handled before the last has happened."""
        for _, users, chats in packets:
            await self._app.fetch_peers([*users, *chats])
        for packet in packets:
            update, users, chats = map(over_the_wire, packet)
            by_id = ({one.id: one for one in some} for some in (users, chats))
            self._app.dispatcher.updates_queue.put_nowait((update, *by_id))

    async def invoke(self, query: Any, **_: Any) -> Any:
        """Answer what the client asks of Telegram."""
        if isinstance(query, GET_MESSAGES):  # to what a message answers
            await self.reading.passed()
        return over_the_wire(self._answer_to(query))

    async def stop(self) -> None: ...

    async def _load_session(self) -> None:
        storage = self._app.storage
        await storage.open()
        for name, value in {
            "dc_id": 2,
            "server_address": "127.0.0.1",
            "port": 9,
            "test_mode": False,
            "auth_key": b"x" * 256,
            "user_id": BOT_ID,
            "is_bot": True,
            "date": 0,
        }.items():
            await getattr(storage, name)(value)

    async def _get_session(self, **_: Any) -> "Offline":
        return self

    def _answer_to(self, query: Any) -> Any:
        now = int(time.time())
        if isinstance(query, raw.functions.updates.GetState):
            return raw.types.updates.State(pts=1, qts=0, date=now, seq=1, unread_count=0)
        if isinstance(query, raw.functions.users.GetFullUser):
            return raw.types.users.UserFull(
                full_user=raw.types.UserFull(
                    id=BOT_ID,
                    settings=raw.types.PeerSettings(),
                    notify_settings=raw.types.PeerNotifySettings(),
                    common_chats_count=0,
                ),
                chats=[],
                users=[
                    raw.types.User(
                        id=BOT_ID, is_self=True, bot=True, bot_info_version=1, first_name="Bot"
                    )
                ],
            )
        if isinstance(query, GET_MESSAGES):
            return raw.types.messages.Messages(messages=[], topics=[], chats=[], users=[])
        query = getattr(query, "query", query)  # of a business connection
        assert isinstance(query, raw.functions.messages.SendMessage), query
        self._sent(query.message)
        return raw.types.Updates(updates=[], users=[], chats=[], date=now, seq=0)


def over_the_wire(thing: Any) -> Any:
    """Give what is read of the bytes by which a thing is sent."""
    if isinstance(thing, list):
        return [over_the_wire(one) for one in thing]
    return raw.core.TLObject.read(BytesIO(thing.write()))


def user(person: Person) -> raw.types.User:
    return raw.types.User(id=person.id, access_hash=1, first_name=person.name)


def channel(chat: Chat) -> raw.types.Channel:
    return raw.types.Channel(
        id=-chat.id - 1_000_000_000_000,
        title="A chat",
        photo=raw.types.ChatPhotoEmpty(),
        date=0,
        megagroup=chat.type == "supergroup",
        broadcast=chat.type == "channel",
        forum=chat.is_forum,
        access_hash=1,
    )


def group(chat: Chat) -> raw.types.Chat:
    return raw.types.Chat(
        id=-chat.id,
        title="A chat",
        photo=raw.types.ChatPhotoEmpty(),
        participants_count=2,
        date=0,
        version=1,
    )


def raw_chat(chat: Chat) -> Any:
    return group(chat) if chat.type == "group" else channel(chat)


def peer(place: Person | Chat) -> Any:
    if isinstance(place, Person):
        return raw.types.PeerUser(user_id=place.id)
    if place.type == "group":
        return raw.types.PeerChat(chat_id=-place.id)
    return raw.types.PeerChannel(channel_id=channel(place).id)


def new_message(place: Person | Chat, content: Any, sender: Person | None, **more: Any) -> Packet:
    """Make the update for a text, or for what happened in a chat if the content is an action."""
    kind = raw.types.Message if isinstance(content, str) else raw.types.MessageService
    told = {"message": content} if isinstance(content, str) else {"action": content}
    message = kind(
        id=next(_numbers),
        peer_id=peer(place),
        date=int(time.time()),
        from_id=None if sender is None else peer(sender),
        **told,
        **more,
    )
    in_channel = isinstance(place, Chat) and place.type != "group"
    update = raw.types.UpdateNewChannelMessage if in_channel else raw.types.UpdateNewMessage
    users = [] if sender is None else [user(sender)]
    chats = [raw_chat(place)] if isinstance(place, Chat) else []
    return update(message=message, pts=1, pts_count=1), users, chats


def _packet(event: Event) -> Packet:
    if isinstance(event, Text):
        place = event.chat or event.sender
        more = {}
        if event.topic is not None:
            more["reply_to"] = raw.types.MessageReplyHeader(
                reply_to_msg_id=event.topic, forum_topic=True
            )
        update, users, chats = new_message(place, event.text, event.sender, **more)
        if event.business is not None:
            update = raw.types.UpdateBotNewBusinessMessage(
                connection_id=event.business, message=update.message, qts=1
            )
        return update, users, chats
    if isinstance(event, ChannelPost):
        return new_message(event.chat, event.text, None, post=True)
    if isinstance(event, InlineQuery):
        query = raw.types.UpdateBotInlineQuery(
            query_id=1, user_id=event.sender.id, query=event.text, offset=""
        )
        return query, [user(event.sender)], []
    if isinstance(event, PollUpdate):
        results = raw.types.PollResults(results=[], total_voters=1)
        return raw.types.UpdateMessagePoll(poll_id=1, results=results), [], []
    return _upgrade(event)


def _upgrade(event: Upgrade) -> Packet:
    if event.told_in == event.old:
        action = raw.types.MessageActionChatMigrateTo(channel_id=channel(event.new).id)
    else:
        action = raw.types.MessageActionChannelMigrateFrom(title="A chat", chat_id=-event.old.id)
    return new_message(event.told_in, action, event.by)


def text_of(event: Any) -> str | None:
    text = event.text if isinstance(event, types.Message) else None
    return None if text is None else str(text)  # it is a Str, which has the formatting, too
