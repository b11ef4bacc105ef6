"""Where an update came from, and the session keys made of it.

``get_session_key`` functions are called with an `Origin`, or, in plain ``(ctx, next)`` middleware,
with the ctx itself, on which the same attributes are looked up.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from gramkeep.errors import ConfigurationError, NoSessionKey

SessionKeyFunction: TypeAlias = Callable[[Any], str | Awaitable[str | None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one update came from; what it doesn't say is ``None``.

    Ids are the Bot API's: users positive, groups negative, supergroups and channels ``-100…``.
    ``event`` is the framework's own object, the one that the handler gets.
    """

    bot_id: int | None = None
    chat_id: int | None = None
    chat_type: str | None = None
    user_id: int | None = None
    thread_id: int | None = None
    business_connection_id: str | None = None
    event: Any = None


def per_chat(origin: Any) -> str | None:
    """One session a chat: ``"42"``; ``None`` for updates without a chat.

    A chat seen through a business connection is another conversation than the bot's own chat of
    the same id, and has its own session: ``"42@<connection>"``.
    """
    return _chat_part(origin)


def per_user(origin: Any) -> str | None:
    """One session a user, in whichever chat: ``"7"``; ``None`` for updates without a user."""
    user = _user_id(origin)
    return None if user is None else _part(user)


def per_user_in_chat(origin: Any) -> str | None:
    """One session for every user in every chat: ``"42:7"``; ``None`` where either is missing."""
    chat, user = _chat_part(origin), _user_id(origin)
    return None if chat is None or user is None else f"{chat}:{_part(user)}"


def per_topic(origin: Any) -> str | None:
    """One session a forum topic: ``"42:5"``, outside topics ``"42"``; ``None`` without a chat."""
    chat, thread = _chat_part(origin), getattr(origin, "thread_id", None)
    return chat if chat is None or thread is None else f"{chat}:{_part(thread)}"


def _chat_part(origin: Any) -> str | None:
    chat = getattr(origin, "chat_id", None)
    if chat is None:
        return None
    connection = getattr(origin, "business_connection_id", None)
    return _part(chat) if connection is None else f"{_part(chat)}@{_part(connection)}"


def _user_id(origin: Any) -> Any:
    # GramIO-like contexts call the user who acts the sender.
    user = getattr(origin, "user_id", None)
    return getattr(origin, "sender_id", None) if user is None else user


def _part(value: Any) -> str:
    """Escape one part of a key, so that no value can reach over the separators."""
    if type(value) is int:
        return str(value)
    text = str(value)
    if not text:
        reason = "a part of its key is empty"
        raise NoSessionKey(reason)
    return text.replace("%", "%25").replace(":", "%3A").replace("@", "%40")


async def session_key(function: SessionKeyFunction, origin: Any) -> str | None:
    """Call ``get_session_key`` and check what it gives.

    Raises `NoSessionKey` for an empty key or one with a ``None`` in it that stands for something
    the update doesn't have, `ConfigurationError` for anything but a string.
    """
    key = function(origin)
    if inspect.isawaitable(key):
        key = await key
    if key is None:
        return None
    if not isinstance(key, str):
        text = (
            f"get_session_key {_name(function)} returned {key!r}, of type {type(key).__name__}; "
            "it must return a string, or None for updates that have no session"
        )
        raise ConfigurationError(text)
    if not key:
        reason = f"get_session_key {_name(function)} returned an empty key"
        raise NoSessionKey(reason)
    if "None" in key and (missing := _missing(origin)) and "None" in re.split(r"[^\w]+|_", key):
        reason = (
            f"get_session_key {_name(function)} returned {key!r}, and the update has no "
            f"{' and no '.join(missing)}"
        )
        raise NoSessionKey(reason)
    return key


def why_no_key(function: SessionKeyFunction, origin: Any) -> str:
    """Say why ``get_session_key`` returned ``None``, for the text of `NoSessionKey`."""
    event = getattr(origin, "event", None)
    what = type(origin if event is None else event).__name__
    missing = _missing(origin)
    lacks = f", as a {what} without {' and '.join(missing)}" if missing else f" for this {what}"
    return f"get_session_key {_name(function)} returned None{lacks}"


def _missing(origin: Any) -> list[str]:
    values = {"chat_id": getattr(origin, "chat_id", None), "user_id": _user_id(origin)}
    return [name for name, value in values.items() if value is None]


def _name(function: SessionKeyFunction) -> str:
    return getattr(function, "__name__", repr(function))
