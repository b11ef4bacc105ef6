"""What can go wrong, for the bot (a refused call) and for the test (bad use, no answer)."""

from __future__ import annotations

from typing import Any


class BotApiError(Exception):
    """A failed call, as the bot is told of it.

    `code` is both the HTTP status and `error_code`; `parameters` is a Bot API
    `ResponseParameters` object (https://core.telegram.org/bots/api#responseparameters).
    """

    def __init__(
        self, code: int, description: str, parameters: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code} {description}")
        self.code = code
        self.description = description
        self.parameters = parameters


def bad_request(description: str) -> BotApiError:
    return BotApiError(400, f"Bad Request: {description}")


def conflict(description: str) -> BotApiError:
    return BotApiError(409, f"Conflict: {description}")


class UsageError(ValueError):
    """The test asked for what nobody can do in Telegram, such as pressing a missing button."""


class WaitTimeout(AssertionError):
    """The bot did not do in time what the test waited for. The message shows what did happen."""
