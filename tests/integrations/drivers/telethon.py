"""Telethon: clients whose updates come to them as Telegram sends them, only not over a network."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from telethon import TelegramClient, events, utils
from telethon.crypto import AuthKey
from telethon.sessions import MemorySession
from telethon.tl import functions, types

from gramkeep.integrations.telethon import lazy_session, session

from .base import Driver
from .events import (
    ADA,
    BOB,
    BOT_ID,
    CHANNEL,
    FORUM,
    GROUP,
    SUPERGROUP,
    ChannelPost,
    Chat,
    Event,
    InlineQuery,
    Person,
    PollUpdate,
    Text,
    Upgrade,
)
from .handlers import Handler, Turn, until

DATE = datetime(2026, 1, 1, tzinfo=UTC)
KNOWN = (ADA, BOB, GROUP, SUPERGROUP, FORUM, CHANNEL)


class Telegram:
    """Stands in for ``client._sender``, the part of a client that talks to Telegram.

    Everything above it is Telethon's own: connecting, keeping updates in order, dispatching them,
    making requests, disconnecting. ``sent`` has the texts that the client has sent, and nobody has
    asked for yet.
    """

    auth_key = AuthKey(None)

    def __init__(self, client: TelegramClient, bot_id: int = BOT_ID) -> None:
        self.bot_id = bot_id
        self.sent: list[str] = []
        self._client = client
        self._is_connected = False
        self._pts: dict[Any, int] = defaultdict(lambda: 1)  # of the account, and of each channel
        self._messages = 0
        self.disconnected: asyncio.Future[None] | None = None
        client._sender = self

    # --- what Telethon asks of it

    async def connect(self, _connection: object) -> bool:
        if self._is_connected:
            return False
        self._is_connected = True
        self.disconnected = asyncio.get_running_loop().create_future()
        return True

    def is_connected(self) -> bool:
        return self._is_connected

    async def disconnect(self) -> None:
        self._is_connected = False
        if self.disconnected is not None and not self.disconnected.done():
            self.disconnected.set_result(None)

    def send(self, request: Any, ordered: bool = False) -> asyncio.Future[Any]:
        if not self._is_connected:
            raise ConnectionError
        result = asyncio.get_running_loop().create_future()
        result.set_result(self._result(request))
        return result

    def _result(self, request: Any) -> Any:
        match request:
            case functions.InvokeWithLayerRequest():
                return None  # the configuration, which nobody looks at
            case functions.users.GetUsersRequest():
                return [types.User(self.bot_id, is_self=True, bot=True, access_hash=1)]
            case functions.updates.GetStateRequest():
                return types.updates.State(pts=1, qts=1, date=DATE, seq=1, unread_count=0)
            case functions.updates.GetDifferenceRequest():
                return types.updates.DifferenceEmpty(date=DATE, seq=1)
            case functions.messages.SendMessageRequest():
                self.sent.append(request.message)
                return types.UpdateShortSentMessage(self._next_id(), 0, 0, DATE, out=True)
            case functions.messages.SetBotCallbackAnswerRequest():
                self.sent.append(request.message)
                return True
            case functions.messages.SetInlineBotResultsRequest():
                self.sent.append(", ".join(result.title for result in request.results))
                return True
        raise NotImplementedError(request)

    # --- what happens in Telegram

    def push(self, updates: Sequence[Any], *known: Person | Chat) -> None:
        """Send raw updates to the client, all in one, with what they name people and chats by."""
        users = [user_entity(one) for one in known if isinstance(one, Person)]
        chats = [chat_entity(one) for one in known if isinstance(one, Chat)]
        container = types.Updates(list(updates), users, chats, DATE, seq=0)
        self._client._updates_queue.put_nowait(container)

    def write(self, sender: Person, *texts: str, chat: Chat | None = None, **fields: Any) -> None:
        """Let somebody write to the bot, all messages at once; see `message`."""
        known = (sender,) if chat is None else (sender, chat)
        self.push([self.message(sender, text, chat, **fields) for text in texts], *known)

    async def answers(self, count: int) -> list[str]:
        """Give the bot's next answers, in their order, waiting for them if need be."""
        await until(lambda: len(self.sent) >= count, f"only {self.sent} of {count} answers")
        answers, self.sent = self.sent[:count], self.sent[count:]
        return answers

    def message(self, sender: Person, text: str, chat: Chat | None = None, **fields: Any) -> Any:
        """Make the raw update of a message; ``fields`` are those of a raw message."""
        fields = {"peer_id": peer(sender, chat), "message": text} | fields
        if chat is not None:
            fields.setdefault("from_id", types.PeerUser(sender.id))
        return self.new(types.Message(id=self._next_id(), date=DATE, **fields))

    def service(self, sender: Person, action: Any, chat: Chat) -> Any:
        """Make the raw update of a message that says what somebody did."""
        fields = {"peer_id": peer(sender, chat), "from_id": types.PeerUser(sender.id)}
        message = types.MessageService(id=self._next_id(), date=DATE, action=action, **fields)
        return self.new(message)

    def new(self, message: Any) -> Any:
        """Make the raw update of a raw message."""
        channel_id = getattr(message.peer_id, "channel_id", None)
        made = types.UpdateNewMessage if channel_id is None else types.UpdateNewChannelMessage
        return made(message, self.next_pts(channel_id), 1)

    def next_pts(self, whose: Any) -> int:
        """Give the next number in a sequence of updates that must have no gaps."""
        self._pts[whose] += 1
        return self._pts[whose]

    def _next_id(self) -> int:
        self._messages += 1
        return self._messages


def peer(sender: Person, chat: Chat | None) -> Any:
    """Give the place of a message, as raw updates name it."""
    if chat is None:
        return types.PeerUser(sender.id)
    bare_id, kind = utils.resolve_id(chat.id)
    return kind(bare_id)


def user_entity(person: Person) -> Any:
    return types.User(person.id, access_hash=1, first_name=person.name)


def chat_entity(chat: Chat) -> Any:
    bare_id, kind = utils.resolve_id(chat.id)
    photo = types.ChatPhotoEmpty()
    if kind is types.PeerChat:
        return types.Chat(bare_id, str(chat.id), photo, 2, DATE, 1)
    is_channel = chat.type == "channel"
    return types.Channel(
        bare_id,
        str(chat.id),
        photo,
        DATE,
        access_hash=1,
        broadcast=is_channel,
        megagroup=not is_channel,
        forum=chat.is_forum,
    )


class TelethonDriver(Driver):
    framework = "Telethon"
    session = session
    lazy_session = lazy_session
    missing: ClassVar = {
        "handlers_in_nested_routers_or_groups_get_the_session": (
            "handlers stand in one list, without routers or groups"
        ),
        "synchronous_handlers_count_right": "handlers are coroutines",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client: TelegramClient | None = None

    def make(self) -> None:
        self._client = TelegramClient(MemorySession(), 1, "hash")
        self._telegram = Telegram(self._client)
        self._handlers: list[Handler] = []

    def set_up(self, kind: Any) -> None:
        kind.setup(self._client)

    def register(self, handler: Handler) -> None:
        async def call(event: Any, **found: Any) -> None:
            await handler.run(Turn(text_of(event), found, self.record))

        def matches(event: Any) -> bool:
            # Telethon would call all handlers that match.
            return handler is next(filter(lambda one: fits(one, event), self._handlers), None)

        self._handlers.append(handler)
        function = handler.asking(call, "event")
        for builder in {BUILDERS[update_type] for update_type in handler.types}:
            self._client.add_event_handler(function, builder(func=matches))

    async def start(self) -> None:
        await self._client.start(bot_token=f"{BOT_ID}:token")

    async def stop(self) -> None:
        if self._client is not None and self._client.is_connected():
            await self._client.disconnect()

    async def deliver(self, events: Sequence[Event]) -> None:
        self._telegram.push([self._update(event) for event in events], *KNOWN)

    def _update(self, event: Event) -> Any:
        telegram = self._telegram
        match event:
            case Text(sender, text, chat, topic, business):
                reply = types.MessageReplyHeader(forum_topic=True, reply_to_msg_id=topic)
                fields = {} if topic is None else {"reply_to": reply}
                update = telegram.message(sender, text, chat, **fields)
                if business is None:
                    return update
                qts = telegram.next_pts("qts")
                return types.UpdateBotNewBusinessMessage(business, update.message, qts)
            case ChannelPost(chat, text):
                return telegram.message(Person(0, ""), text, chat, from_id=None, post=True)
            case InlineQuery(sender, text):
                return types.UpdateBotInlineQuery(1, sender.id, text, "")
            case Upgrade(old, new, told_in, by):
                action = (
                    types.MessageActionChatMigrateTo(peer(by, new).channel_id)
                    if told_in == old
                    else types.MessageActionChannelMigrateFrom("Group", peer(by, old).chat_id)
                )
                return telegram.service(by, action, told_in)
            case PollUpdate():
                return types.UpdateMessagePoll(1, types.PollResults())


class _BusinessMessage(events.Raw):
    """Telethon has no event for messages to business accounts."""

    def __init__(self, func: Any) -> None:
        super().__init__(types.UpdateBotNewBusinessMessage, func=func)


class _Poll(events.Raw):
    """Nor for polls."""

    def __init__(self, func: Any) -> None:
        super().__init__(types.UpdateMessagePoll, func=func)


BUILDERS: dict[str, Any] = {
    "message": events.NewMessage,
    "business_message": _BusinessMessage,
    "channel_post": events.NewMessage,
    "inline_query": events.InlineQuery,
    "poll": _Poll,
}


def fits(handler: Handler, event: Any) -> bool:
    return handler.text in (None, text_of(event))


def text_of(event: Any) -> str | None:
    message = getattr(event, "message", None)
    return getattr(message, "message", None)
