"""Chats: who is in them, what was said, and what the bot answered there."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from gramkeep.testing.telegram.errors import UsageError
from gramkeep.testing.telegram.objects import JSON, Account, Message, Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gramkeep.testing.telegram.people import User
    from gramkeep.testing.telegram.world import World

ChatType: TypeAlias = Literal["private", "group", "supergroup", "channel"]

# https://core.telegram.org/bots/api#message: messages "sent on behalf of a chat" carry this sender.
ANONYMOUS_ADMIN = Account(
    id=1087968824, first_name="Group", username="GroupAnonymousBot", is_bot=True
)


@dataclass(frozen=True, kw_only=True)
class BusinessConnection:
    """The bot acting for a business account in its private chats."""

    id: str
    user: User = field(repr=False)
    message_ids: Iterator[int] = field(
        default_factory=lambda: itertools.count(1), repr=False, compare=False
    )

    def chat(self, customer: User) -> Chat:
        """Return the account's private chat with `customer`; its id is the customer's."""
        return self.user.world.business_chat(self, customer)


@dataclass(eq=False, kw_only=True)
class Chat:
    """A chat the bot takes part in. `messages` is its transcript, oldest first.

    The bot's messages can be awaited one by one with `next_answer`, which misses none however many
    came at once, and its edits with `next_edit`.
    """

    world: World = field(repr=False)
    id: int
    type: ChatType
    message_ids: Iterator[int] = field(repr=False)
    title: str | None = None
    is_forum: bool = False
    user: User | None = field(default=None, repr=False)
    members: list[User] = field(default_factory=list, repr=False)
    topics: list[Topic] = field(default_factory=list, repr=False)
    connection: BusinessConnection | None = field(default=None, repr=False)
    upgraded_to: Chat | None = field(default=None, repr=False)
    bot_is_out: bool = field(default=False, repr=False)
    messages: list[Message] = field(default_factory=list, repr=False)
    unread: deque[Message] = field(default_factory=deque, repr=False)
    unread_edits: deque[Message] = field(default_factory=deque, repr=False)

    @property
    def name(self) -> str:
        return self.title or (self.user.name if self.user is not None else str(self.id))

    def api(self) -> JSON:
        """Return https://core.telegram.org/bots/api#chat."""
        chat: JSON = {"id": self.id, "type": self.type}
        if self.title is not None:
            chat["title"] = self.title
        if self.user is not None:
            user = self.user.api()
            chat |= {
                key: user[key] for key in ("first_name", "last_name", "username") if key in user
            }
        if self.is_forum:
            chat["is_forum"] = True
        return chat

    def topic(self, name: str) -> Topic:
        """Make a topic in a forum. Raises `UsageError` in any other chat."""
        if not self.is_forum:
            raise UsageError(f"{self.name!r} has no topics: make it with forum=True")
        topic = Topic(id=next(self.message_ids), name=name, chat=self)
        self.topics.append(topic)
        return topic

    def message(self, message_id: int) -> Message | None:
        """Find the message with this id; None if there is none or it was deleted."""
        for message in reversed(self.messages):
            if message.id == message_id:
                return None if message.deleted else message
        return None

    def transcript(self) -> str:
        """Everything said here so far, a line each."""
        lines = [f"  {message.describe()}" for message in self.messages]
        heading = f"{self.type} chat {self.name!r} ({self.id})"
        return "\n".join([heading + (":" if lines else ": nothing was said"), *lines])

    async def next_answer(self, timeout: float = 5) -> Message:
        """Return the bot's next message here that no test has read yet, waiting for it if need be.

        Raises `WaitTimeout`, with the transcript, after `timeout` seconds.
        """
        return (await self.answers(1, timeout))[0]

    async def answers(self, count: int, timeout: float = 5) -> list[Message]:
        """Return the bot's next `count` messages here that no test has read yet, in their order.

        Raises `WaitTimeout`, with the transcript, after `timeout` seconds; then none is read.
        """

        def look() -> list[Message] | None:
            if len(self.unread) < count:
                return None
            return [self.unread.popleft() for _ in range(count)]

        return await self.world.bell.until(
            look,
            timeout,
            lambda: (
                f"waited {timeout} s for {count} unread message(s) of the bot, "
                f"there are {len(self.unread)}; {self.world.describe_bot()}\n{self.transcript()}"
            ),
        )

    async def next_edit(self, timeout: float = 5) -> Message:
        """Return the message of the next edit by the bot that no test has read yet.

        Raises `WaitTimeout`, with the transcript, after `timeout` seconds.
        """
        return await self.world.bell.until(
            lambda: self.unread_edits.popleft() if self.unread_edits else None,
            timeout,
            lambda: (
                f"waited {timeout} s for the bot to edit a message; "
                f"{self.world.describe_bot()}\n{self.transcript()}"
            ),
        )

    def check_member(self, user: User, *, bot_too: bool = True) -> None:
        """Raise `UsageError` unless the user, and the bot, can take part here."""
        if self.upgraded_to is not None:
            raise UsageError(
                f"{self.name!r} was upgraded: write to the chat that upgrade() returned"
            )
        if user not in self.members:
            names = ", ".join(member.name for member in self.members) or "nobody"
            raise UsageError(
                f"{user.name} is not in the {self.type} chat {self.name!r} (members: {names})"
            )
        if bot_too and self.bot_is_out:
            raise UsageError(f"the bot is out of {self.name!r} and would see nothing")

    async def post(self, text: str, *, fields: JSON | None = None) -> Message:
        """Publish a post in a channel: a `channel_post` update.

        `fields` adds or replaces fields of the Bot API `Message`. Raises `UsageError` elsewhere.
        """
        if self.type != "channel":
            raise UsageError(f"{self.name!r} is a {self.type}: let one of its members write()")
        message = self.world.add_message(self, None, text, fields=fields)
        self.world.deliver("channel_post", message.api())
        return message

    async def edit_post(self, message: Message, text: str) -> None:
        """Change a channel's post: an `edited_channel_post` update."""
        self.world.change_text(message, text)
        self.world.deliver("edited_channel_post", message.api())

    async def upgrade(self, *, by: User | None = None, new_chat_first: bool = False) -> Chat:
        """Turn the group into a supergroup, as Telegram does when a group grows; return that.

        Two `message` updates tell the bot: `migrate_to_chat_id` in the old chat, and
        `migrate_from_chat_id` in the new one; `new_chat_first` swaps their order. From then on the
        bot's calls for the old id fail with the new id in `parameters.migrate_to_chat_id`.
        Raises `UsageError` for what is no group.
        """
        if self.type != "group" or self.upgraded_to is not None:
            raise UsageError(f"{self.name!r} is no group that could be upgraded")
        if not self.members:
            raise UsageError(f"nobody is in {self.name!r} who could upgrade it")
        by = by or self.members[0]
        self.check_member(by)
        new = self.world.add_chat("supergroup", self.name, self.members)
        self.upgraded_to = new
        old_notice = self.world.add_message(self, by, None, fields={"migrate_to_chat_id": new.id})
        new_notice = self.world.add_message(
            new,
            ANONYMOUS_ADMIN,
            None,
            fields={"migrate_from_chat_id": self.id, "sender_chat": new.api()},
        )
        notices = [old_notice, new_notice]
        for notice in reversed(notices) if new_chat_first else notices:
            self.world.deliver("message", notice.api())
        return new
