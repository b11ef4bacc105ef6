"""Everything there is: accounts, chats, open queries, polls, and how updates of them come about."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from gramkeep.testing.telegram.chats import BusinessConnection, Chat, ChatType
from gramkeep.testing.telegram.errors import UsageError
from gramkeep.testing.telegram.mailbox import Mailbox
from gramkeep.testing.telegram.objects import (
    JSON,
    Account,
    Button,
    Message,
    Poll,
    Query,
    command_entities,
)
from gramkeep.testing.telegram.people import User
from gramkeep.testing.telegram.waiting import Bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class World:
    """The state behind one server, and the only place that changes it."""

    def __init__(self, bot: Account, repeats: Callable[[str], int]) -> None:
        self.bot = bot
        self.bell = Bell()
        self.mailbox = Mailbox(self.bell.ring, repeats)
        self.users: dict[int, User] = {}
        self.chats: dict[int, Chat] = {}
        self.business_chats: dict[tuple[str, int], Chat] = {}
        self.connections: dict[str, BusinessConnection] = {}
        self.queries: dict[str, Query] = {}
        self.commands: dict[str, list[JSON]] = {}
        self.describe_bot: Callable[[], str] = lambda: "no server is running"
        self._user_ids = itertools.count(7_000_000_001)
        self._group_ids = itertools.count(-4_000_000_001, -1)
        # https://core.telegram.org/bots/api#chat and "Dialog IDs": supergroups and channels are
        # -1000000000000 minus their own number.
        self._supergroup_ids = itertools.count(-1_002_000_000_001, -1)
        self._numbers = itertools.count(1)
        # Messages are numbered by account, for all its private chats and basic groups together;
        # supergroups and channels number their own: https://core.telegram.org/api/updates
        self._message_ids = itertools.count(1)

    def new_id(self) -> str:
        """Make an id of a query, poll or connection."""
        return str(4_000_000_000_000_000_000 + next(self._numbers))

    def add_user(
        self,
        first_name: str,
        *,
        last_name: str | None,
        username: str | None,
        language_code: str | None,
        is_premium: bool,
        user_id: int | None,
    ) -> User:
        """Add a user together with their private chat with the bot, whose id is the user's."""
        user_id = next(self._user_ids) if user_id is None else user_id
        if user_id in self.users:
            raise UsageError(f"there is a user {user_id} already: {self.users[user_id].name}")
        user = User(
            world=self,
            id=user_id,
            first_name=first_name,
            last_name=last_name,
            username=username,
            language_code=language_code,
            is_premium=is_premium,
        )
        self.users[user_id] = user
        self.chats[user_id] = Chat(
            world=self,
            id=user_id,
            type="private",
            user=user,
            members=[user],
            message_ids=self._message_ids,
        )
        return user

    def add_chat(
        self,
        kind: ChatType,
        title: str,
        members: Iterable[User],
        *,
        chat_id: int | None = None,
        is_forum: bool = False,
    ) -> Chat:
        if chat_id is None:
            chat_id = next(self._group_ids if kind == "group" else self._supergroup_ids)
        if chat_id in self.chats:
            raise UsageError(f"there is a chat {chat_id} already: {self.chats[chat_id].name}")
        chat = Chat(
            world=self,
            id=chat_id,
            type=kind,
            title=title,
            is_forum=is_forum,
            members=list(members),
            message_ids=self._message_ids if kind == "group" else itertools.count(1),
        )
        self.chats[chat_id] = chat
        return chat

    def business_chat(self, connection: BusinessConnection, customer: User) -> Chat:
        """Return the chat of a business account with a customer, made on first use."""
        key = connection.id, customer.id
        if key not in self.business_chats:
            self.business_chats[key] = Chat(
                world=self,
                id=customer.id,
                type="private",
                user=customer,
                members=[customer, connection.user],
                connection=connection,
                message_ids=connection.message_ids,
            )
        return self.business_chats[key]

    def add_message(
        self,
        chat: Chat,
        sender: Account | None,
        text: str | None,
        *,
        entities: list[JSON] | None = None,
        reply_to: Message | None = None,
        thread_id: int | None = None,
        buttons: list[list[Button]] | None = None,
        keyboard: JSON | None = None,
        parse_mode: str | None = None,
        fields: JSON | None = None,
        poll: Poll | None = None,
    ) -> Message:
        """Put a message into a chat, without an update."""
        if thread_id is None and reply_to is not None:
            thread_id = self._thread_of_reply(reply_to)
        message = Message(
            id=next(chat.message_ids),
            chat=chat,
            sender=sender,
            text=text,
            time=time.time(),
            entities=command_entities(text or "") if entities is None else entities,
            buttons=buttons or [],
            keyboard=keyboard,
            reply_to=reply_to,
            thread_id=thread_id,
            in_topic=chat.is_forum and thread_id is not None,
            parse_mode=parse_mode,
            fields=fields or {},
            poll=poll,
            order=next(self._numbers),
        )
        chat.messages.append(message)
        if sender is self.bot:
            chat.unread.append(message)
        self.bell.ring()
        return message

    @staticmethod
    def _thread_of_reply(message: Message) -> int | None:
        # Telegram gives replies in supergroups a thread of their own, without is_topic_message.
        if message.chat.type != "supergroup" or message.chat.is_forum:
            return message.thread_id
        return message.thread_id or message.id

    def change_text(
        self, message: Message, text: str | None, entities: list[JSON] | None = None
    ) -> None:
        """Edit a message's text, without an update."""
        if text != message.text:
            message.edits.append(message.text)
        message.text = text
        message.entities = command_entities(text or "") if entities is None else entities
        message.edit_time = time.time()
        self.bell.ring()

    def ask(self, kind: str, user: User, payload: JSON) -> Query:
        """Deliver a query update with a new id and keep it open for the bot's answer."""
        query = Query(id=self.new_id(), kind=kind, user=user, bell=self.bell)
        self.queries[query.id] = query
        self.deliver(kind, {"id": query.id, "from": user.api(), **payload})
        return query

    def deliver(self, kind: str, payload: JSON) -> None:
        self.mailbox.put(kind, payload)

    def unread_answers(self) -> list[Message]:
        """Return the bot's unread messages of all chats, in the order they were sent."""
        chats = [*self.chats.values(), *self.business_chats.values()]
        return sorted((m for chat in chats for m in chat.unread), key=lambda m: m.order)

    def member(self, chat: Chat, account: Account) -> JSON:
        """Return https://core.telegram.org/bots/api#chatmember; a group's first member owns it."""
        user = account.api()
        if account is self.bot:
            if chat.bot_is_out:
                return {"status": "kicked", "user": user, "until_date": 0}
            return {"status": "member", "user": user}
        if account not in chat.members:
            return {"status": "left", "user": user}
        if chat.type != "private" and chat.members[0] is account:
            return {"status": "creator", "user": user, "is_anonymous": False}
        return {"status": "member", "user": user}
