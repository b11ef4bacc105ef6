"""The rows of grammY's ``@grammyjs/storage-psql``: JSON as text, an expiry within it."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from gramkeep.envelope import expiry_in
from gramkeep.errors import SessionEncodeError
from gramkeep.storage import ABSENT, Put, Record
from gramkeep.storages.grammy_text import packed, unpacked
from gramkeep.storages.postgres.layout import Change, Layout, kind_of
from gramkeep.storages.postgres.puts import Kind
from gramkeep.storages.postgres.statements import GrammyForm, Statements

TRIES: Final = 5  # of a change whose row is changed by others again and again

_NOT_TEXT: Final = re.compile("[\0\ud800-\udfff]")


class Token(NamedTuple):
    """The value that was read, and the text in which it stood: with an expiry, or without."""

    value: bytes
    text: str


class GrammyLayout(Layout):
    """JSON only, as it is. The expiry is kept as by grammY's ``enhanceStorage``.

    Whether a row has expired only this class can tell, not the server. So the statements compare
    whole texts; where one refuses, `again` says whether it was right.
    """

    form = GrammyForm()
    has_expiry_inside = True

    def key_in(self, key: str) -> str:
        if _NOT_TEXT.search(key) is not None:
            reason = "layout='grammy' keeps keys as they are, and text can't hold this one"
            raise SessionEncodeError(key=key, storage=self.storage, path="$", reason=reason)
        return self.checked(key, key)

    def key_of(self, stored: str) -> str:
        return stored

    def record(self, value: Any, expires_at: datetime | None = None) -> Record | None:
        text: str = value
        data, expires_at_ms = unpacked(text.encode())
        if expires_at_ms is None:
            return Record(data, Token(data, text))
        if expires_at_ms <= time.time() * 1000:
            return None
        return Record(data, Token(data, text), expires_at_ms / 1000)

    def is_clear(self, put: Put) -> bool:
        """Whether what has to be done can be said without another look at the row."""
        if isinstance(put.expected, Token):
            return self.record(put.expected.text) is not None
        return kind_of(put, Token) is not Kind.TOUCH_ANY

    def change(self, put: Put, owner: str | None) -> Change:
        kind, value, old = kind_of(put, Token), None, None
        if isinstance(put.expected, Token):
            old = put.expected.text
        if isinstance(put.value, bytes):
            value = self.packed(put.key, put.value, put.ttl)
        elif kind is Kind.TOUCH and isinstance(put.expected, Token):
            kind, value = Kind.CHANGE, self.packed(put.key, put.expected.value, put.ttl)
        return Change(kind, value, old, owner=owner, hold=put.hold)

    def exact_change(self, put: Put, text: str | None, owner: str | None) -> Change:
        """Say what has to be done for a put if this is the text in the row: it, or nothing."""
        record = None if text is None else self.record(text)
        expected = put.expected
        refused = Change(Kind.REFUSED, owner=owner, hold=put.hold)
        nothing = Change(Kind.NOTHING, owner=owner, hold=put.hold)
        if isinstance(expected, Token):
            if record is None or record.value != expected.value:
                return refused
            put = msgspec.structs.replace(put, expected=record.token)
        elif expected is ABSENT:
            if record is not None:
                return refused
            if not isinstance(put.value, bytes):
                return nothing
            if text is not None:  # expired
                put = msgspec.structs.replace(put, expected=Token(b"", text))
        elif kind_of(put, Token) is Kind.TOUCH_ANY:
            if record is None:
                return nothing
            put = msgspec.structs.replace(put, expected=record.token)
        return self.change(put, owner)

    def page(
        self, statements: Statements, prefix: str, last: str | None, at_most: int
    ) -> tuple[Any, ...] | None:
        # In the order of the database's collation, by which no prefix is a range.
        if _NOT_TEXT.search(prefix) is not None:
            return None
        statement = statements.page_from if last is None else statements.page_beyond
        return statement, last or "", at_most, prefix

    def packed(self, key: str, value: bytes, ttl: float | None) -> str:
        """Make the text of a row. Raises `SessionEncodeError` for what isn't JSON."""
        expires_at = None if ttl is None else expiry_in(ttl)
        return packed(self.storage, key, value, expires_at).decode()


Changes: TypeAlias = Mapping[str, Change]
Read: TypeAlias = Callable[[Iterable[str]], Awaitable[Mapping[str, str]]]
CarryOut: TypeAlias = Callable[[Changes], Awaitable[Container[str]]]


async def put_each(
    layout: GrammyLayout,
    puts: Mapping[str, Put],
    owner: str | None,
    read: Read,
    carry_out: CarryOut,
) -> list[bool]:
    """Carry out puts, looking at a row before or after where only that tells what to do.

    ``read`` gives the texts of rows that are there, ``carry_out`` does changes, which compare
    them, and says of which keys they were done.
    """
    unclear = [key for key, put in puts.items() if not layout.is_clear(put)]
    texts = await read(unclear) if unclear else {}
    changes = {
        key: layout.exact_change(put, texts.get(key), owner)
        if key in unclear
        else layout.change(put, owner)
        for key, put in puts.items()
    }
    done: set[str] = set()
    for _ in range(TRIES):
        answered = await carry_out(changes)
        done.update(key for key in changes if key in answered)
        left = changes.keys() - done
        if not left:
            break
        texts = await read(left)
        exact = {key: layout.exact_change(puts[key], texts.get(key), owner) for key in left}
        # One that is right as it was has been refused because of a lease; or, without one, because
        # of a row that had expired and was removed meanwhile.
        changes = {
            key: change
            for key, change in exact.items()
            if change.kind is not Kind.REFUSED
            and (owner is None or not _is_same(change, changes[key]))
        }
        if not changes:
            break
    return [key in done for key in puts]


async def put_all(
    layout: GrammyLayout,
    puts: Mapping[str, Put],
    owner: str | None,
    read: Read,
    carry_out: CarryOut,
) -> list[bool]:
    """Carry out all puts or none; ``carry_out`` does that with changes."""
    before: dict[str, Change] = {}
    answers: list[bool] = []
    for _ in range(TRIES):
        texts = await read(puts)
        changes = {
            key: layout.exact_change(put, texts.get(key), owner) for key, put in puts.items()
        }
        if before and all(_is_same(changes[key], before[key]) for key in changes):
            break  # it was a lease that was in the way
        done = await carry_out(changes)
        answers = [key in done for key in puts]
        if all(answers) or any(change.kind is Kind.REFUSED for change in changes.values()):
            break
        before = changes
    return answers


def _is_same(change: Change, other: Change) -> bool:
    return (change.kind, change.old) == (other.kind, other.old)
