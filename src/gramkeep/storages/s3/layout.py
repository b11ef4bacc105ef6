"""How a session lies in a bucket: what its object is called, and what is in it.

All of it is pure; `gramkeep.storages.s3.objects` does the reading and writing.

**Names.** Letters, digits, ``_``, ``-`` and ``:`` stand for themselves, and all other bytes of the
key's UTF-8 as ``!`` and two hexadecimal digits, so that no key leads out of its folder. Servers
that keep objects as files allow no more than 255 bytes between two slashes, and no object whose
name is a folder to another: every 200 characters, where more follow, comes ``!/``. The name of a
key that starts with a prefix starts with the name of the prefix.

**Bodies.** A session without a lifetime is its plain bytes. Its ETag is made of them, so equal
bytes are an equal basis to build on, as they should be. For what expires they must not be: who
wants to follow an expired session, and who has just done so, may have made the very same bytes. So
what has a lifetime ends in whitespace, which tells a reader of JSON nothing: 32 characters, others
with every write, and as many spaces as make the size a multiple of 64. By that multiple a listing,
which has sizes but no lifetimes, tells which objects have to be asked for theirs.

**Metadata** has the rest: ``gramkeep-write``, another one with every write, by which a writer whose
answer was lost knows its own; ``gramkeep-length``, the bytes of the session without the whitespace;
``gramkeep-expires-at`` and ``gramkeep-removed-until``, in milliseconds since the epoch.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LONGEST_NAME: Final = 1024  # bytes, in S3 itself and all that is like it

_LETTERS: Final = "!-/0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"  # in order
_AFTER_ALL: Final = "~"
_PLAIN: Final = frozenset(_LETTERS.encode()) - frozenset(b"!/")
_SEGMENT: Final = 200  # characters
_CONTINUED: Final = "!/"
_EMPTY: Final = "!"
_ESCAPED: Final = re.compile("!([0-9A-F]{2})")

_MULTIPLE: Final = 64  # bytes
_WHITESPACE: Final = b" \t\n\r"  # all that JSON has: two bits in each
_MARK: Final = 32  # characters of it

_WRITE: Final = "gramkeep-write"
_LENGTH: Final = "gramkeep-length"
_EXPIRES_AT: Final = "gramkeep-expires-at"
_REMOVED_UNTIL: Final = "gramkeep-removed-until"


# Names.


def name_of(key: str) -> str:
    """Name the object of a key, within the folder; of a prefix, how such names begin."""
    raw = key.encode("utf-8", "surrogatepass")
    flat = "".join(chr(byte) if byte in _PLAIN else f"!{byte:02X}" for byte in raw)
    return _CONTINUED.join(flat[at : at + _SEGMENT] for at in range(0, len(flat), _SEGMENT))


def object_name_of(key: str) -> str:
    """Name the object of a key; unlike a prefix, the empty one has a name."""
    return name_of(key) or _EMPTY


def key_in(name: str) -> str | None:
    """Give the key that an object is named after, ``None`` if it is somebody else's object."""
    flat = "" if name == _EMPTY else name.replace(_CONTINUED, "")
    raw = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), flat)
    try:
        key = raw.encode("latin-1").decode("utf-8", "surrogatepass")
    except ValueError:
        return None
    return key if object_name_of(key) == name else None


def before(prefix: str) -> str:
    """Give what lies, in the order of names, just before all that start with ``prefix``."""
    stem, last = prefix[:-1], _LETTERS.index(prefix[-1])
    if last == 0:
        return stem
    # Two slashes in a row are no name, so it is the letter before the slash that stands for it.
    letter = _LETTERS[last - 1]
    return stem + ("-" if letter == "/" else letter) + _AFTER_ALL


# Bodies.


class Content(NamedTuple):
    """What an object holds.

    ``value`` is ``None`` for an object that takes the place of a deleted session until it is
    removed itself, which is before ``removed_until``, or never, by a process that died. Times are
    in seconds since the epoch. ``write`` is ``None`` where somebody else wrote.
    """

    value: bytes | None
    expires_at: float | None = None
    removed_until: float | None = None
    write: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is a session."""
        return self.value is not None and not is_past(self.expires_at)

    @property
    def is_being_removed(self) -> bool:
        """Whether somebody is about to remove the object, and whatever were put in its place."""
        return self.removed_until is not None and not is_past(self.removed_until)


def is_past(moment: float | None) -> bool:
    """Whether a moment, in seconds since the epoch, has come."""
    return moment is not None and moment <= time.time()


def pack(content: Content) -> tuple[bytes, dict[str, str]]:
    """Make the body and the metadata of an object."""
    value, metadata = content.value or b"", {}
    if content.write is not None:
        metadata[_WRITE] = content.write
    if content.expires_at is None and content.removed_until is None:
        return value, metadata
    if content.expires_at is not None:
        metadata[_EXPIRES_AT] = _milliseconds(content.expires_at)
    if content.removed_until is not None:
        metadata[_REMOVED_UNTIL] = _milliseconds(content.removed_until)
    metadata[_LENGTH] = str(len(value))
    mark = bytes(_WHITESPACE[byte % 4] for byte in secrets.token_bytes(_MARK))
    return value + b" " * (-(len(value) + _MARK) % _MULTIPLE) + mark, metadata


def unpack(body: bytes, metadata: Mapping[str, Any]) -> Content:
    """Take an object apart; without a body, to know whether there is a session."""
    length = metadata.get(_LENGTH)
    removed_until = _seconds(metadata.get(_REMOVED_UNTIL))
    return Content(
        None if removed_until is not None else body if length is None else body[: int(length)],
        _seconds(metadata.get(_EXPIRES_AT)),
        removed_until,
        metadata.get(_WRITE),
    )


def may_say_more(size: int) -> bool:
    """Whether an object of this size may have a lifetime, or be no session."""
    return size % _MULTIPLE == 0


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _seconds(milliseconds: str | None) -> float | None:
    return None if milliseconds is None else int(milliseconds) / 1000
