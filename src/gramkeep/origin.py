"""Where an update came from, and the session keys made of it.

``get_session_key`` functions are called with an `Origin`, or, in plain ``(ctx, next)`` middleware,
with the ctx itself, on which the same attributes are looked up.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
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


def person(user_id: int | None) -> int | None:
    """Give the id of who acts, ``None`` where Telegram names a user who stands for many.

    That is so for anonymous admins, for those who write as a channel, and for posts of a channel
    that go on to its group: https://core.telegram.org/bots/api#message, of ``from``.
    """
    return None if user_id in _STAND_INS else user_id


def require_key(key: str) -> str:
    """Give the key back if a session can have it; otherwise raise `ConfigurationError`."""
    if isinstance(key, str) and key and (key.isascii() or _is_utf8(key)):
        return key
    text = (
        f"key={key!r} can't be a session's key: it must be a string, not empty, of whole characters"
    )
    raise ConfigurationError(text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def session_key(function: SessionKeyFunction, origin: Any) -> str:
    """Call ``get_session_key`` and check what it gives.

    Raises `NoSessionKey` for ``None``, for an empty key, and for one with a ``None`` in it that
    stands for something the update doesn't have; `ConfigurationError` for anything but a string.
    """
    key = await _call(function, origin)
    if key is None:
        raise NoSessionKey(_why_none(function, origin))
    if not isinstance(key, str):
        text = (
            f"get_session_key {_name(function)} returned {key!r}, of type {type(key).__name__}; "
            "it must return a string, or None for updates that have no session"
        )
        raise ConfigurationError(text)
    if not key:
        reason = f"get_session_key {_name(function)} returned an empty key"
        raise NoSessionKey(reason)
    if "None" in key:
        missing = [name for name in _IDS if getattr(origin, name, origin) is None]
        # A function that calculates with an id can't do that with the mark of a missing one.
        with suppress(TypeError, ValueError, ArithmeticError, LookupError):
            again = str(await _call(function, _Blanked(origin)))
            missing = [name for name in missing if _blank(name) in again]
        if missing:
            reason = (
                f"get_session_key {_name(function)} returned {key!r}, and the update has no "
                f"{' and no '.join(missing)}"
            )
            raise NoSessionKey(reason)
    return require_key(key)


async def _call(function: SessionKeyFunction, origin: Any) -> Any:
    key = function(origin)
    return await key if inspect.isawaitable(key) else key


_STAND_INS = (1087968824, 136817688, 777000)  # GroupAnonymousBot, Channel_Bot, Telegram

_IDS = ("bot_id", "chat_id", "user_id", "sender_id", "thread_id", "business_connection_id")


def _blank(name: str) -> str:
    return f"\0no {name}\0"


class _Blanked:
    """An origin whose missing ids can be told from the word None when they end up in a key."""

    def __init__(self, origin: Any) -> None:
        self._origin = origin

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._origin, name)
        return _blank(name) if value is None and name in _IDS else value


def origin_of(ctx: Any) -> Any:
    """Let a ctx of a ``(ctx, next)`` middleware stand in for an `Origin`.

    It does so itself, but for the user who acts, whom some frameworks call the sender.
    """
    return ctx if hasattr(ctx, "user_id") or not hasattr(ctx, "sender_id") else _SentBy(ctx)


class _SentBy:
    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, "sender_id" if name == "user_id" else name)


def _why_none(function: SessionKeyFunction, origin: Any) -> str:
    event = getattr(origin, "event", None)
    what = type(origin if event is None else event).__name__
    values = {"chat_id": getattr(origin, "chat_id", None), "user_id": _user_id(origin)}
    missing = [name for name, value in values.items() if value is None]
    lacks = f", as a {what} without {' and '.join(missing)}" if missing else f" for this {what}"
    return f"get_session_key {_name(function)} returned None{lacks}"


def _name(function: SessionKeyFunction) -> str:
    return getattr(function, "__name__", repr(function))
