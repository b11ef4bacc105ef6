"""A local Bot API server with people in it, to test Telegram bots over real HTTP."""

from __future__ import annotations

from gramkeep.testing.telegram.chats import BusinessConnection, Chat
from gramkeep.testing.telegram.errors import UsageError, WaitTimeout
from gramkeep.testing.telegram.faults import Fault, Faults
from gramkeep.testing.telegram.objects import (
    Account,
    Button,
    Call,
    Message,
    Poll,
    Query,
    Topic,
    Upload,
)
from gramkeep.testing.telegram.people import User
from gramkeep.testing.telegram.server import TelegramServer

__all__ = [
    "Account",
    "BusinessConnection",
    "Button",
    "Call",
    "Chat",
    "Fault",
    "Faults",
    "Message",
    "Poll",
    "Query",
    "TelegramServer",
    "Topic",
    "Upload",
    "UsageError",
    "User",
    "WaitTimeout",
]
