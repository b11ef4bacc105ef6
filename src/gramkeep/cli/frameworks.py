"""The frameworks that the demo's bot is written with; nothing of them is imported to tell."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, NamedTuple


class Package(NamedTuple):
    """What must be installed: its name, the module it is known by, the extra that brings it."""

    name: str
    module: str
    extra: str

    @property
    def is_missing(self) -> bool:
        return find_spec(self.module) is None


FRAMEWORKS: Final = {
    "aiogram": Package("aiogram", "aiogram", "demo"),  # so that the extra alone has a bot
    "ptb": Package("python-telegram-bot", "telegram", "ptb"),
    "telebot": Package("pyTelegramBotAPI", "telebot", "telebot"),
}
"""By the names of their integrations, which `--framework` takes and the examples begin with."""

STAGE: Final = (Package("aiohttp", "aiohttp", "demo"), Package("textual", "textual", "demo"))
"""What the demo needs whichever the framework: the server, and the chat."""
