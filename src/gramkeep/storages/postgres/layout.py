"""How sessions stand in a table: gramkeep's own form, and that of grammY's storage.

All here is pure; `gramkeep.storages.postgres` talks to the server.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, Final, NamedTuple

from gramkeep.errors import SessionEncodeError
from gramkeep.storage import ABSENT, ANY, DELETE, Put, Record
from gramkeep.storages.postgres.puts import Kind
from gramkeep.storages.postgres.statements import Form, Statements

LONGEST_KEY: Final = 2600  # bytes; what an index can hold, with some room
DIGESTED: Final = 1024  # bytes of a value above which its digest is compared

# What text can't hold, and the character that stands before its number instead.
_ODD: Final = re.compile("[\0\1\ud800-\udfff]")
_ESCAPED: Final = re.compile("\1([0-9a-f]{4})")


class Change(NamedTuple):
    """A row of the put statement: what is to be done to a key, and what is expected."""

    kind: Kind
    value: Any = None
    old: Any = None
    digest: bytes | None = None
    ttl: float | None = None
    owner: str | None = None
    hold: bool = False


class Layout:
    """Gramkeep's own. A NUL in a key, which text can't hold, is written as U+0001 and 0000."""

    form: Form = Form()
    has_expiry_inside = False

    def __init__(self, storage: str) -> None:
        self.storage = storage

    def key_in(self, key: str) -> str:
        """Give a key as it stands in the table. Raises `SessionEncodeError` if it can't."""
        return self.checked(_escaped(key), key)

    def key_of(self, stored: str) -> str:
        """Give the key that stands in the table."""
        if "\1" in stored:
            return _ESCAPED.sub(lambda escaped: chr(int(escaped[1], 16)), stored)
        return stored

    def record(self, value: Any, expires_at: datetime | None) -> Record | None:
        """Make a record of a row, ``None`` if what is in it has expired."""
        return Record(value, value, None if expires_at is None else expires_at.timestamp())

    def change(self, put: Put, owner: str | None) -> Change:
        """Say what the statement has to do for a put, under the lease of ``owner``."""
        kind = kind_of(put, bytes)
        old: bytes | None = None
        digest: bytes | None = None
        if isinstance(put.expected, bytes):
            if len(put.expected) > DIGESTED:
                digest = hashlib.sha256(put.expected).digest()
            else:
                old = put.expected
        value = put.value if isinstance(put.value, bytes) else None
        return Change(kind, value, old, digest, put.ttl, owner, put.hold)

    def removal(self, value: Any, owner: str | None) -> Change:
        """Say how to remove a row that `record` found expired, and leave the lease."""
        return Change(Kind.REMOVE, None, value, owner=owner, hold=True)

    def page(
        self, statements: Statements, prefix: str, last: str | None, at_most: int
    ) -> tuple[Any, ...] | None:
        """Give the statement, and its arguments, for the page of keys after ``last``.

        ``None`` where no key can begin like that.
        """
        prefix = _escaped(prefix)
        start = prefix if last is None else last + "\1"  # no text comes between these two
        end = _end_of(prefix)
        if end is None:
            return statements.page, start, at_most
        return statements.page_below, start, at_most, end

    def checked(self, stored: str, key: str) -> str:
        if len(stored) > LONGEST_KEY // 4 and (size := len(stored.encode())) > LONGEST_KEY:
            reason = f"its key takes {size} bytes, and an index holds at most {LONGEST_KEY}"
            raise SessionEncodeError(key=key, storage=self.storage, path="$", reason=reason)
        return stored


def kind_of(put: Put, token: type) -> Kind:
    """Tell what kind of change a put is; one that expects no ``token`` of ours is refused."""
    expected = put.expected
    if expected is ABSENT:
        return Kind.ADD if isinstance(put.value, bytes) else Kind.ABSENT
    if expected is ANY:
        if isinstance(put.value, bytes):
            return Kind.SET
        if put.value is DELETE:
            return Kind.DROP
        return Kind.NOTHING if put.ttl is None else Kind.TOUCH_ANY
    if not isinstance(expected, token):
        return Kind.REFUSED
    if isinstance(put.value, bytes):
        return Kind.CHANGE
    if put.value is DELETE:
        return Kind.REMOVE
    return Kind.SAME if put.ttl is None else Kind.TOUCH


def _escaped(key: str) -> str:
    if _ODD.search(key) is None:
        return key
    return _ODD.sub(lambda odd: f"\1{ord(odd[0]):04x}", key)


def _end_of(prefix: str) -> str | None:
    """Give the first text after all that begin with a prefix, by code point; ``None`` for none."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return None
    last = prefix[-1]
    return prefix[:-1] + ("\ue000" if last == "\ud7ff" else chr(ord(last) + 1))
