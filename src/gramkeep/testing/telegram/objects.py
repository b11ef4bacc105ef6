"""What the server knows and hands to tests: accounts, messages, buttons, queries, calls."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gramkeep.testing.telegram.chats import Chat
    from gramkeep.testing.telegram.waiting import Bell

JSON: TypeAlias = dict[str, Any]

# As TDLib's match_bot_commands (td/telegram/MessageEntity.cpp) finds them.
_COMMAND = re.compile(r"(?<![\w/<>])/[A-Za-z0-9_]{1,64}(?:@[A-Za-z0-9_]{3,32})?(?![\w/<>])")


def utf16_length(text: str) -> int:
    """Length in UTF-16 code units, the unit of all Bot API offsets.

    https://core.telegram.org/bots/api#messageentity
    """
    return len(text.encode("utf-16-le")) // 2


def command_entities(text: str) -> list[JSON]:
    """Find the `bot_command` entities that Telegram's clients find in a text."""
    return [
        {
            "type": "bot_command",
            "offset": utf16_length(text[: found.start()]),
            "length": utf16_length(found.group()),
        }
        for found in _COMMAND.finditer(text)
    ]


@dataclass(eq=False, kw_only=True)
class Account:
    """A user or the bot itself; `api()` is its Bot API `User` object."""

    id: int
    first_name: str
    last_name: str | None = None
    username: str | None = None
    language_code: str | None = None
    is_bot: bool = False
    is_premium: bool = False

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}" if self.last_name else self.first_name

    def api(self) -> JSON:
        """Return https://core.telegram.org/bots/api#user."""
        user: JSON = {"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name}
        for name in ("last_name", "username", "language_code"):
            if (value := getattr(self, name)) is not None:
                user[name] = value
        if self.is_premium:
            user["is_premium"] = True
        return user


@dataclass(frozen=True, kw_only=True)
class Button:
    """One inline button. `raw` is the whole Bot API `InlineKeyboardButton`."""

    text: str
    callback_data: str | None = None
    url: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic of a forum; `id` is the `message_thread_id` of its messages."""

    id: int
    name: str
    chat: Chat = field(repr=False)


@dataclass(eq=False, kw_only=True)
class Message:
    """A message as it stands now: edits change `text` and `buttons` in place.

    `time` is in seconds since the epoch, `edits` holds the earlier texts, oldest first, `fields`
    what else the Bot API object carries (a photo, `new_chat_members`, …).
    """

    id: int
    chat: Chat = field(repr=False)
    sender: Account | None = field(repr=False)
    text: str | None
    time: float = field(repr=False)
    entities: list[JSON] = field(default_factory=list, repr=False)
    buttons: list[list[Button]] = field(default_factory=list)
    keyboard: JSON | None = field(default=None, repr=False)
    reply_to: Message | None = field(default=None, repr=False)
    thread_id: int | None = None
    in_topic: bool = field(default=False, repr=False)
    parse_mode: str | None = field(default=None, repr=False)
    edits: list[str | None] = field(default_factory=list, repr=False)
    edit_time: float | None = field(default=None, repr=False)
    deleted: bool = False
    fields: JSON = field(default_factory=dict, repr=False)
    poll: Poll | None = field(default=None, repr=False)
    reactions: dict[int, list[JSON]] = field(default_factory=dict, repr=False)
    order: int = field(default=0, repr=False)

    @property
    def from_bot(self) -> bool:
        return self.sender is not None and self.sender.is_bot

    @property
    def button_texts(self) -> list[str]:
        return [button.text for row in self.buttons for button in row]

    def api(self, *, with_reply: bool = True) -> JSON:
        """Return https://core.telegram.org/bots/api#message."""
        connection = self.chat.connection
        optional = {
            "message_thread_id": self.thread_id,
            "is_topic_message": self.in_topic or None,
            "business_connection_id": connection and connection.id,
            "edit_date": self.edit_time and int(self.edit_time),
            # The Bot API shows the replied-to message, but not what that one replied to.
            "reply_to_message": (
                self.reply_to.api(with_reply=False) if with_reply and self.reply_to else None
            ),
            "text": self.text,
            "entities": self.entities or None,
            "poll": self.poll and self.poll.api(),
            "reply_markup": (
                {"inline_keyboard": [[dict(button.raw) for button in row] for row in self.buttons]}
                if self.buttons
                else None
            ),
        }
        return (
            {"message_id": self.id, "date": int(self.time), "chat": self.chat.api()}
            | self._sender()
            | {name: value for name, value in optional.items() if value is not None}
            | self.fields
        )

    def _sender(self) -> JSON:
        if self.chat.type == "channel":
            return {"sender_chat": self.chat.api()}
        if self.sender is None:
            return {}
        if self.chat.connection is not None and self.from_bot:
            # The customer sees the business account; the Bot API says who really wrote.
            return {
                "from": self.chat.connection.user.api(),
                "sender_business_bot": self.sender.api(),
            }
        return {"from": self.sender.api()}

    def describe(self) -> str:
        """One line of a transcript."""
        what = self.text if self.text is not None else f"<{', '.join(self.fields) or 'empty'}>"
        notes = [f"buttons: {self.button_texts}"] if self.buttons else []
        notes += [f"edited, before: {self.edits}"] if self.edits else []
        notes += ["deleted"] if self.deleted else []
        who = self.sender.name if self.sender is not None else self.chat.name
        thread = f" [thread {self.thread_id}]" if self.thread_id is not None else ""
        return f"{self.id}{thread} {who}: {what}" + (f"  ({'; '.join(notes)})" if notes else "")


@dataclass(eq=False, kw_only=True)
class Query:
    """Something a user asked that the bot has to answer by its id.

    `kind` is the update's type (`"callback_query"`, `"inline_query"`, …), `answer` the parameters
    of the bot's answering call, None until it came.
    """

    id: str
    kind: str
    user: Account
    bell: Bell = field(repr=False)
    answer: JSON | None = None

    async def answered(self, timeout: float = 5) -> JSON:
        """Wait for the bot's answer and return its parameters, such as `text` and `show_alert`.

        Raises `WaitTimeout` after `timeout` seconds.
        """
        return await self.bell.until(
            lambda: self.answer,
            timeout,
            lambda: f"the {self.kind} of {self.user.name} was not answered within {timeout} s",
        )


@dataclass(eq=False, kw_only=True)
class Poll:
    """A poll the bot sent; `votes` maps a user's id to the chosen options' numbers."""

    id: str
    question: str
    options: list[str]
    is_anonymous: bool = True
    allows_multiple_answers: bool = False
    is_closed: bool = False
    votes: dict[int, list[int]] = field(default_factory=dict)

    def api(self) -> JSON:
        """Return https://core.telegram.org/bots/api#poll."""
        return {
            "id": self.id,
            "question": self.question,
            "options": [
                {
                    "persistent_id": str(number),
                    "text": text,
                    "voter_count": sum(number in chosen for chosen in self.votes.values()),
                }
                for number, text in enumerate(self.options)
            ],
            "total_voter_count": len(self.votes),
            "is_closed": self.is_closed,
            "is_anonymous": self.is_anonymous,
            "type": "regular",
            "allows_multiple_answers": self.allows_multiple_answers,
            "allows_revoting": True,
            "members_only": False,
        }


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file the bot sent along."""

    name: str
    content_type: str
    content: bytes = field(repr=False)


@dataclass(eq=False, kw_only=True)
class Call:
    """One call of the bot: `method` as documented, `params` with JSON parameters decoded.

    `time` is in seconds since the epoch. Once `done`, either `ok` is true and `result` is what the
    bot got, or `error` says why not; `dropped` if no answer reached the bot.
    """

    method: str
    params: JSON
    time: float
    done: bool = False
    ok: bool = False
    result: Any = None
    error: str | None = None
    dropped: bool = False
