"""What people do: the verbs a test calls, each of which delivers the update it causes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gramkeep.testing.telegram.chats import BusinessConnection, Chat
from gramkeep.testing.telegram.errors import UsageError
from gramkeep.testing.telegram.objects import JSON, Account, Message, Poll, Query, Topic

if TYPE_CHECKING:
    from gramkeep.testing.telegram.world import World


@dataclass(eq=False, kw_only=True)
class User(Account):
    """A person who talks to the bot. Made by `TelegramServer.user`.

    Each verb delivers an update and returns at once; it does not wait for the bot.
    """

    world: World = field(repr=False)

    @property
    def chat(self) -> Chat:
        """The user's private chat with the bot."""
        return self.world.chats[self.id]

    async def next_answer(self, timeout: float = 5) -> Message:
        """`Chat.next_answer` of the private chat."""
        return await self.chat.next_answer(timeout)

    async def answers(self, count: int, timeout: float = 5) -> list[Message]:
        """`Chat.answers` of the private chat."""
        return await self.chat.answers(count, timeout)

    async def next_edit(self, timeout: float = 5) -> Message:
        """`Chat.next_edit` of the private chat."""
        return await self.chat.next_edit(timeout)

    async def write(
        self,
        text: str | None,
        *,
        chat: Chat | None = None,
        topic: Topic | None = None,
        reply_to: Message | None = None,
        entities: list[JSON] | None = None,
        fields: JSON | None = None,
    ) -> Message:
        """Send a message: a `message` update, or `business_message` in a business chat.

        `chat` defaults to the topic's, then the replied-to message's, then the private chat.
        Commands in `text` become `bot_command` entities unless `entities` is given. `fields` adds
        or replaces fields of the Bot API `Message`, for photos, albums, service messages, …; `text`
        may then be None. Raises `UsageError` if the user is not in the chat.
        """
        if chat is None:
            source = topic or reply_to
            chat = source.chat if source is not None else self.chat
        chat.check_member(self)
        if chat.type == "channel":
            raise UsageError(f"nobody writes in the channel {chat.name!r}: use its post()")
        if topic is not None and topic not in chat.topics:
            names = [topic.name for topic in chat.topics]
            raise UsageError(f"{chat.name!r} has no topic {topic.name!r}, only {names}")
        if reply_to is not None and reply_to not in chat.messages:
            raise UsageError(f"message {reply_to.id} is not in {chat.name!r}:\n{chat.transcript()}")
        message = self.world.add_message(
            chat,
            self,
            text,
            entities=entities,
            reply_to=reply_to,
            thread_id=topic.id if topic is not None else None,
            fields=fields,
        )
        self.world.deliver(_message_kind(chat, "message"), message.api())
        return message

    async def edit(self, message: Message, text: str) -> None:
        """Change one's own message: `edited_message` or `edited_business_message`.

        Raises `UsageError` if it is somebody else's.
        """
        if message.sender is not self:
            raise UsageError(f"{self.name} did not write message {message.describe()}")
        self.world.change_text(message, text)
        self.world.deliver(_message_kind(message.chat, "edited_message"), message.api())

    async def delete(self, message: Message) -> None:
        """Delete a message; bots hear of it in business chats only: `deleted_business_messages`."""
        message.chat.check_member(self)
        message.deleted = True
        if message.chat.connection is not None:
            self.world.deliver(
                "deleted_business_messages",
                {
                    "business_connection_id": message.chat.connection.id,
                    "chat": message.chat.api(),
                    "message_ids": [message.id],
                },
            )

    async def press(self, message: Message, button: str) -> Query:
        """Press an inline button, found by its text or else its callback data: `callback_query`.

        Raises `UsageError`, listing the buttons there are, if it is missing or has no callback.
        """
        message.chat.check_member(self)
        buttons = [button for row in message.buttons for button in row]
        found = [b for b in buttons if b.text == button] or [
            b for b in buttons if b.callback_data == button
        ]
        if not found:
            there = ", ".join(f"{b.text!r} ({b.callback_data or b.url})" for b in buttons)
            raise UsageError(f"message {message.id} has no button {button!r}, only: {there or '-'}")
        if found[0].callback_data is None:
            raise UsageError(f"button {button!r} has no callback data: {dict(found[0].raw)}")
        return self.world.ask(
            "callback_query",
            self,
            {
                "message": message.api(),
                "chat_instance": str(message.chat.id),
                "data": found[0].callback_data,
            },
        )

    async def press_inline(self, inline_message_id: str, callback_data: str) -> Query:
        """Press a button under an inline message: a `callback_query` without a chat."""
        return self.world.ask(
            "callback_query",
            self,
            {
                "inline_message_id": inline_message_id,
                "chat_instance": inline_message_id,
                "data": callback_data,
            },
        )

    async def inline_query(self, text: str, *, offset: str = "") -> Query:
        """Type `@bot text` somewhere: an `inline_query` update."""
        return self.world.ask("inline_query", self, {"query": text, "offset": offset})

    async def choose_inline_result(self, result_id: str, text: str = "") -> str:
        """Pick a result: `chosen_inline_result`. Returns the `inline_message_id` it carries."""
        inline_message_id = self.world.new_id()
        self.world.deliver(
            "chosen_inline_result",
            {
                "result_id": result_id,
                "from": self.api(),
                "query": text,
                "inline_message_id": inline_message_id,
            },
        )
        return inline_message_id

    async def react(self, message: Message, *emoji: str) -> None:
        """Set one's reactions to a message, none to take them back: `message_reaction`.

        Telegram delivers these only to bots that ask for them in `allowed_updates`.
        """
        message.chat.check_member(self)
        old = message.reactions.get(self.id, [])
        new: list[JSON] = [{"type": "emoji", "emoji": one} for one in emoji]
        message.reactions[self.id] = new
        self.world.deliver(
            "message_reaction",
            {
                "chat": message.chat.api(),
                "message_id": message.id,
                "user": self.api(),
                "date": int(time.time()),
                "old_reaction": old,
                "new_reaction": new,
            },
        )

    async def vote(self, poll: Poll, *options: str) -> None:
        """Vote in a poll the bot sent, no option to take the vote back.

        A `poll` update with the new counts and, unless the poll is anonymous, a `poll_answer`.
        Raises `UsageError` for an option that is not there.
        """
        if poll.is_closed:
            raise UsageError(f"the poll {poll.question!r} is closed")
        missing = [option for option in options if option not in poll.options]
        if missing:
            raise UsageError(f"{poll.question!r} has no option {missing[0]!r}: {poll.options}")
        chosen = [poll.options.index(option) for option in options]
        poll.votes.pop(self.id, None)
        if chosen:
            poll.votes[self.id] = chosen
        self.world.deliver("poll", poll.api())
        if not poll.is_anonymous:
            self.world.deliver(
                "poll_answer",
                {
                    "poll_id": poll.id,
                    "user": self.api(),
                    "option_ids": chosen,
                    "option_persistent_ids": [str(number) for number in chosen],
                },
            )

    async def join(self, chat: Chat) -> None:
        """Join a group: a `new_chat_members` message (not in channels) and `chat_member`."""
        if self in chat.members:
            raise UsageError(f"{self.name} is in {chat.name!r} already")
        before = self.world.member(chat, self)
        chat.members.append(self)
        self._moved(chat, before, {"new_chat_members": [self.api()]})

    async def leave(self, chat: Chat) -> None:
        """Leave a group: a `left_chat_member` message and `chat_member`."""
        chat.check_member(self)
        before = self.world.member(chat, self)
        chat.members.remove(self)
        self._moved(chat, before, {"left_chat_member": self.api()})

    def _moved(self, chat: Chat, before: JSON, notice: JSON) -> None:
        if chat.type != "channel":
            message = self.world.add_message(chat, self, None, fields=notice)
            self.world.deliver("message", message.api())
        self._member_update("chat_member", chat, before, self.world.member(chat, self))

    async def ask_to_join(self, chat: Chat) -> None:
        """Ask to be let into a chat: `chat_join_request`. The bot may approve or decline it."""
        if self in chat.members:
            raise UsageError(f"{self.name} is in {chat.name!r} already")
        self.world.deliver(
            "chat_join_request",
            {
                "chat": chat.api(),
                "from": self.api(),
                "user_chat_id": self.id,
                "date": int(time.time()),
            },
        )

    async def block_bot(self) -> None:
        """Block the bot: `my_chat_member`; from now on its messages to this user get 403."""
        self._set_bot(self.chat, is_out=True)

    async def unblock_bot(self) -> None:
        """Unblock the bot: `my_chat_member`."""
        self._set_bot(self.chat, is_out=False)

    async def remove_bot(self, chat: Chat) -> None:
        """Throw the bot out of a chat: `my_chat_member`; from now on its messages there get 403."""
        chat.check_member(self)
        self._set_bot(chat, is_out=True)

    async def add_bot(self, chat: Chat) -> None:
        """Let the bot in again: `my_chat_member`."""
        chat.check_member(self, bot_too=False)
        self._set_bot(chat, is_out=False)

    def _set_bot(self, chat: Chat, *, is_out: bool) -> None:
        before = self.world.member(chat, self.world.bot)
        chat.bot_is_out = is_out
        self._member_update("my_chat_member", chat, before, self.world.member(chat, self.world.bot))

    def _member_update(self, kind: str, chat: Chat, before: JSON, after: JSON) -> None:
        self.world.deliver(
            kind,
            {
                "chat": chat.api(),
                "from": self.api(),
                "date": int(time.time()),
                "old_chat_member": before,
                "new_chat_member": after,
            },
        )

    async def connect_business(self) -> BusinessConnection:
        """Let the bot act for this user's business account: `business_connection`.

        Customers then write with `customer.write(text, chat=connection.chat(customer))`.
        """
        connection = BusinessConnection(id=self.world.new_id(), user=self)
        self.world.connections[connection.id] = connection
        self.world.deliver(
            "business_connection",
            {
                "id": connection.id,
                "user": self.api(),
                "user_chat_id": self.id,
                "date": int(time.time()),
                "is_enabled": True,
                "rights": {"can_reply": True},
            },
        )
        return connection

    async def pre_checkout(
        self, payload: str, *, amount: int = 100, currency: str = "XTR"
    ) -> Query:
        """Confirm a payment: `pre_checkout_query`. `amount` is in the currency's smallest unit."""
        return self.world.ask(
            "pre_checkout_query",
            self,
            {"currency": currency, "total_amount": amount, "invoice_payload": payload},
        )

    async def shipping(self, payload: str, *, country_code: str = "NL") -> Query:
        """Give a shipping address for an invoice: `shipping_query`."""
        address = {
            "country_code": country_code,
            "state": "",
            "city": "Amsterdam",
            "street_line1": "Dam 1",
            "street_line2": "",
            "post_code": "1012",
        }
        return self.world.ask(
            "shipping_query", self, {"invoice_payload": payload, "shipping_address": address}
        )


def _message_kind(chat: Chat, kind: str) -> str:
    if chat.connection is None:
        return kind
    return {"message": "business_message", "edited_message": "edited_business_message"}[kind]
