"""What can happen to a bot, said in no framework's words."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

UpdateType: TypeAlias = Literal[
    "message", "business_message", "channel_post", "inline_query", "poll"
]
"""The types of updates that scenarios know, by their names in the Bot API."""


@dataclass(frozen=True)
class Person:
    """A user. The private chat with them has the same id."""

    id: int
    name: str


@dataclass(frozen=True)
class Chat:
    """Any other chat. Ids are marked as the Bot API does it: ``-4``, ``-1004`` and so on."""

    id: int
    type: Literal["group", "supergroup", "channel"]
    is_forum: bool = False


@dataclass(frozen=True)
class Text:
    """Somebody writes: in private if no ``chat`` is given.

    ``topic`` is what `Driver.topic` gave, ``business`` what `Driver.connect_business` gave.
    """

    sender: Person
    text: str
    chat: Chat | None = None
    topic: int | None = None
    business: str | None = None


@dataclass(frozen=True)
class ChannelPost:
    """A channel publishes something; nobody is its sender."""

    chat: Chat
    text: str


@dataclass(frozen=True)
class InlineQuery:
    """Somebody types ``@bot text`` in a chat of which the bot learns nothing."""

    sender: Person
    text: str


@dataclass(frozen=True)
class PollUpdate:
    """A poll's votes changed; whose vote it was, and where, isn't said."""


@dataclass(frozen=True)
class Upgrade:
    """The service message, in the chat ``told_in``, that a group became a supergroup."""

    old: Chat
    new: Chat
    told_in: Chat
    by: Person


Event: TypeAlias = Text | ChannelPost | InlineQuery | PollUpdate | Upgrade

BOT_ID = 42

ADA = Person(7_000_001, "Ada")
BOB = Person(7_000_002, "Bob")
OWNER = Person(7_000_003, "Owner")  # of a business account

GROUP = Chat(-4_000_001, "group")
SUPERGROUP = Chat(-1_002_000_000_001, "supergroup")
FORUM = Chat(-1_002_000_000_002, "supergroup", is_forum=True)
CHANNEL = Chat(-1_002_000_000_003, "channel")
