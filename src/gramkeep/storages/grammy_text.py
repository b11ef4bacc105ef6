"""Sessions as text in grammY's file and PostgreSQL storages: JSON, a lifetime in its envelope.

The envelope is that of ``enhanceStorage`` in grammY's ``convenience/session.ts``. Its fields stay
encoded here, so that what another codec wrote comes back to the byte.
"""

from __future__ import annotations

import json
import math

import msgspec

from gramkeep.envelope import MARK, is_envelope
from gramkeep.errors import SessionEncodeError


def packed(storage: str, key: str, value: bytes, expires_at: int | None) -> bytes:
    """Make the text that is stored; ``expires_at`` is in milliseconds since the epoch.

    Raises `SessionEncodeError` for what isn't JSON.
    """
    try:
        is_plain = _is_plain_json(value)
        if expires_at is not None and not is_plain:
            text = "half a surrogate pair can't have a lifetime"
            raise ValueError(text)  # noqa: TRY301 - one way to say what is wrong with a value
    except (ValueError, RecursionError) as error:
        reason = f"layout='grammy' keeps JSON, and the encoded session can't be kept: {error}"
        raise SessionEncodeError(key=key, storage=storage, path="$", reason=reason) from error
    if expires_at is None:
        return value
    members = _envelope(value) or {MARK: value}
    return _object({**members, "e": b"%d" % expires_at})


def unpacked(text: bytes) -> tuple[bytes, int | None]:
    """Take what is stored apart: the session's bytes, and its expiry in milliseconds, if any."""
    members = _envelope(text) or {}
    expires_at = json.loads(members.pop("e", b"null"))
    if expires_at is None:
        return text, None
    data = members[MARK]
    if "v" in members or _envelope(data) is not None:  # data that looks like one needs its own
        data = _object(members)
    return data, math.ceil(expires_at)


def compact(text: bytes) -> bytes | None:
    """Take all spaces out, and change nothing else; ``None`` if that can't be done."""
    try:
        return msgspec.json.format(text, indent=-1)
    except (ValueError, RecursionError):
        return None


def _is_plain_json(value: bytes) -> bool:
    """Tell JSON that msgspec can read from JSON with half a surrogate pair, which it can't.

    Raises `ValueError`, `RecursionError` for anything else.
    """
    text = value.decode()  # which msgspec leaves unchecked here
    if compact(value) is not None:
        return True
    json.loads(text, parse_constant=_refuse)
    return False


def _refuse(constant: str) -> None:
    text = f"{constant} is no JSON"
    raise ValueError(text)


def _envelope(text: bytes) -> dict[str, bytes] | None:
    """Take an envelope apart, ``None`` if it isn't one; its fields stay encoded."""
    if f'"{MARK}"'.encode() not in text:
        return None
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        shown = {
            name: None if name == MARK else json.loads(bytes(members[name])) for name in members
        }
    except (ValueError, RecursionError):
        return None
    return {name: bytes(members[name]) for name in members} if is_envelope(shown) else None


def _object(members: dict[str, bytes]) -> bytes:
    return b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), members[name]) for name in members)
