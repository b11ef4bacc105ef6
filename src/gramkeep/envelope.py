"""The envelope in which version and expiry are kept with the state.

Its form is that of grammY's ``enhanceStorage``: ``{"v": version, "__d": data, "e": expiry}``, the
expiry in milliseconds since the epoch, ``v`` and ``e`` left out where there are none. What needs
neither is stored bare.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

MARK: Final = "__d"
_NAMES: Final = {MARK, "v", "e"}


class Envelope(msgspec.Struct, Generic[T], omit_defaults=True, kw_only=True):
    """State with its version and the moment it expires, in milliseconds since the epoch."""

    version: int | float | None = msgspec.field(name="v", default=None)
    data: T = msgspec.field(name=MARK)
    expires: int | float | None = msgspec.field(name="e", default=None)


def is_envelope(value: Any) -> bool:
    """Whether a decoded value has the form of an envelope and nothing else in it."""
    return isinstance(value, dict) and MARK in value and value.keys() <= _NAMES
