"""How Redis's keys are named: sessions, their leases beside them, and patterns for scans.

A session lies under its own key, in UTF-8, with nothing added. The key of its lease begins with
`LEASES` and is made so that a cluster keeps both in one slot:

- ``gramkeep:lease:{42}`` for ``42``, in which there are no braces;
- ``gramkeep:lease:t:user:{42}`` for ``user:{42}``, which has a hash tag of its own;
- ``gramkeep:lease:s:{..}:{}x`` for ``{}x``, whose braces are no tag: ``..`` are two bytes that lead
  to the same slot.

No two sessions share one, since what follows the prefix tells the three apart.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from typing import Final

from gramkeep.errors import ConfigurationError

LEASES: Final = b"gramkeep:lease:"
SLOTS: Final = 16384

_PLAIN: Final = LEASES + b"{"
_OPEN, _CLOSE = b"{}"  # numbers, which are found far sooner than bytes

_POLYNOMIAL: Final = 0x11021  # of the CRC-16 that `crc_hqx` and Redis compute

_PATTERN: Final = re.compile(r"([*?\[\]\\^])")


def key_bytes(key: str, storage: str) -> bytes:
    """Give the key as Redis has it; raises `ConfigurationError` for one among the leases'."""
    raw = key.encode() if key.isascii() else key.encode("utf-8", "surrogatepass")
    if raw.startswith(LEASES):
        error = ConfigurationError(
            f"session key {key!r} begins with {LEASES.decode()!r}, under which {storage} keeps its "
            "leases. Give the sessions another prefix="
        )
        error.key, error.storage = key, storage
        raise error
    return raw


def key_text(raw: bytes) -> str | None:
    """Give the key of a session, or ``None`` for what can't be one: leases, and no UTF-8."""
    if raw.startswith(LEASES):
        return None
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def lease_key(raw: bytes) -> bytes:
    """Name the lease of a session's key."""
    if _OPEN not in raw and _CLOSE not in raw and raw:
        return _PLAIN + raw + b"}"
    if _tag(raw) is not None:
        return LEASES + b"t:" + raw
    return LEASES + b"s:{" + _tag_of_slot(slot_of(raw)) + b"}:" + raw


def slot_of(raw: bytes) -> int:
    """Tell in which slot a cluster keeps a key, as its specification says."""
    tag = _tag(raw)
    return crc_hqx(raw if tag is None else tag, 0) % SLOTS


def pattern_of(prefix: str) -> bytes:
    """Give the pattern that matches keys with this prefix, taken literally."""
    return (_PATTERN.sub(r"\\\1", prefix) + "*").encode("utf-8", "surrogatepass")


def _tag(raw: bytes) -> bytes | None:
    start = raw.find(b"{")
    if start < 0:
        return None
    end = raw.find(b"}", start + 1)
    return raw[start + 1 : end] if end > start + 1 else None


def _tag_of_slot(slot: int) -> bytes:
    """Find two bytes of that slot, by running the CRC backwards: it maps them one to one."""
    for high in range(0, 1 << 16, SLOTS):
        crc = high | slot
        for _ in range(16):
            crc = (crc ^ _POLYNOMIAL if crc & 1 else crc) >> 1
        tag = crc.to_bytes(2, "big")
        if b"}" not in tag:
            return tag
    raise AssertionError  # four candidates, of which "}" can't be in all
