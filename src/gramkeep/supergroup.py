"""Which keys a chat's sessions move to when its group becomes a supergroup.

Telegram gives the supergroup a new chat id and tells so by two service messages, one in each
chat. Keys are made by a function of the user's, so where the chat stands in them, and what stands
beside it, is found out by asking that function about made-up chats and users.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final, NamedTuple

from gramkeep.errors import NoSessionKey
from gramkeep.origin import Origin, SessionKeyFunction, session_key

log = logging.getLogger("gramkeep")

# Ids that no chat or user has, and that don't occur in each other or in other parts of a key.
_CHAT: Final = -9_170_000_000_000_017
_OTHERS: Final = (8_210_000_000_000_021, 7_330_000_000_000_033)


class _Place(NamedTuple):
    """What stands before and after the chat in a key; ``None`` for what differs between users."""

    before: str | None
    after: str | None
    scan_from: str


async def moves(
    function: SessionKeyFunction,
    origin: Origin,
    old_chat_id: int,
    new_chat_id: int,
    keys: Callable[[str], AsyncIterator[str]],
) -> AsyncIterator[tuple[str, str]]:
    """Yield the old and the new key of every session of the chat.

    ``origin`` is that of a service message, ``keys`` iterates over stored keys by their prefix.
    All keys are looked at only where what stands before the chat differs between users.
    """
    place = await _find_place(function, origin)
    old, new = str(old_chat_id), str(new_chat_id)
    if place is None:
        exact = [await _key(function, origin, chat) for chat in (old_chat_id, new_chat_id)]
        if exact[0] is not None and exact[1] is not None and exact[0] != exact[1]:
            yield exact[0], exact[1]
    elif place.before is not None and place.after is not None:
        yield place.before + old + place.after, place.before + new + place.after
    else:
        whole = re.compile(rf"(?<!\d){re.escape(old)}(?!\d)")
        async for key in keys(place.scan_from + (old if place.before is not None else "")):
            found = list(whole.finditer(key))
            if place.before is not None:
                found = [match for match in found if match.start() == len(place.before)]
            if len(found) == 1:
                start, end = found[0].span()
                yield key, key[:start] + new + key[end:]


async def _find_place(function: SessionKeyFunction, origin: Origin) -> _Place | None:
    """Find where in the keys the chat stands; ``None`` if it can't be told."""
    parts: list[tuple[str, str]] = []
    for other in _OTHERS:
        made_up = replace(
            origin,
            user_id=other,
            thread_id=None if origin.thread_id is None and other == _OTHERS[0] else other,
        )
        key = await _key(function, made_up, _CHAT)
        if key is None or key.count(str(_CHAT)) != 1:
            return None
        before, _, after = key.partition(str(_CHAT))
        parts.append((before, after))
    (before, after), (other_before, other_after) = parts
    return _Place(
        before if before == other_before else None,
        after if after == other_after else None,
        _common_start(before, other_before),
    )


async def _key(function: SessionKeyFunction, origin: Origin, chat_id: int) -> str | None:
    try:
        return await session_key(function, replace(origin, chat_id=chat_id))
    except NoSessionKey:
        return None
    except Exception:
        # A function that knows its chats by heart may well fail for one it doesn't know.
        log.exception("get_session_key failed for the made-up chat %s of a moved group", chat_id)
        return None


def _common_start(one: str, other: str) -> str:
    length = 0
    for character, its_like in zip(one, other, strict=False):
        if character != its_like:
            break
        length += 1
    return one[:length]
