"""The SQL of `MySQLStorage`: for MySQL 8.0 and MariaDB 10.6 alike, and for any session.

Statements hold no data but hexadecimal literals and whole numbers, so that no character set and
no ``sql_mode`` can read them differently. All times are milliseconds since the epoch by the
server's clock in UTC, whatever the time zone of the session.
"""

# They are put together from quoted names and literals of our own making:
# ruff: noqa: S608

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Final

from gramkeep.errors import ConfigurationError
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, PLACE_KEPT, Lease, Put

SCAN_PAGE: Final = 500  # keys read in one go while scanning
KEYS_AT_ONCE: Final = 500  # in one list; beyond 1000 MariaDB makes a temporary table of it

ID_BYTES: Final = 1536  # what an index may hold even with the smaller pages of 8 KiB
_CUT: Final = 1440  # bytes of a longer key that its id begins with; a mark and a digest follow
_LEASES: Final = "_leases"
_LONGEST_NAME: Final = 64  # characters, of a table

# Not UNIX_TIMESTAMP(NOW(6)), which goes by the session's time zone and is an hour off in the hour
# that the end of summer repeats.
_NOW: Final = "(TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6)) DIV 1000)"

_KEPT: Final = round(PLACE_KEPT * 1000)  # ms
_AGAIN: Final = 100  # ms after which who asks again has its place noted again
_EQUAL: Final = 2  # ms by which two that wait may differ and still count as equal
_NOBODY: Final = f"x'{'00' * 16}'"

_COMPARED_WHOLE: Final = 4096  # bytes; of longer values their SHA-256 is compared, on the server


class Statements:
    """The statements over one table of sessions and its table of leases."""

    def __init__(self, table: str, database: str | None) -> None:
        for name in (table,) if database is None else (table, database):
            longest = _LONGEST_NAME - (len(_LEASES) if name is table else 0)
            if not name or "\0" in name or len(name) > longest or name.endswith(" "):
                text = f"{name!r} is no name for a table or database, of 1 to {longest} characters"
                raise ConfigurationError(text)
        place = "" if database is None else f"{_quoted(database)}."
        self.table = t = place + _quoted(table)
        self.leases = leases = place + _quoted(table + _LEASES)
        sessions = (
            f"CREATE TABLE IF NOT EXISTS {t} (\n"
            f"  `key` VARBINARY({ID_BYTES}) NOT NULL,\n"
            "  `value` LONGBLOB NOT NULL,\n"
            "  `expires_at` BIGINT NULL,\n"
            "  `change_id` BINARY(8) NOT NULL,\n"
            "  `long_key` LONGBLOB NULL,\n"
            "  PRIMARY KEY (`key`),\n"
            "  KEY `expires_at` (`expires_at`)\n"
            ") ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
        )
        held = (
            f"CREATE TABLE IF NOT EXISTS {leases} (\n"
            f"  `key` VARBINARY({ID_BYTES}) NOT NULL,\n"
            "  `owner` BINARY(16) NOT NULL,\n"
            "  `until` BIGINT NOT NULL,\n"
            "  `waiter` BINARY(16) NOT NULL,\n"
            "  `since` BIGINT NOT NULL,\n"
            "  `seen` BIGINT NOT NULL,\n"
            "  PRIMARY KEY (`key`)\n"
            ") ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
        )
        self.ddl = (sessions, held)
        self.exist = [f"SELECT 1 FROM {t} LIMIT 0", f"SELECT 1 FROM {leases} LIMIT 0"]

    def get(self, ids: Sequence[bytes]) -> list[str]:
        """Read: statements that give rows of id, value, expiry."""
        columns = f"SELECT `key`, `value`, `expires_at` FROM {self.table}"
        return [f"{columns} WHERE `key` IN ({_list(some)}) AND {_ALIVE}" for some in _chunks(ids)]

    def claim(self, ids: Sequence[bytes], lease: Lease, waited: Mapping[bytes, float]) -> list[str]:
        """Claim and read: pairs of statements, of which the second gives rows.

        The rows are of id, whether it is the owner's, value, expiry. Each statement is a
        transaction of its own. Between the two nobody else can take what was claimed.
        """
        statements: list[str] = []
        for some in _chunks(ids):
            statements += self._claim(some, lease, waited)
        return statements

    def _claim(
        self, ids: Sequence[bytes], lease: Lease, waited: Mapping[bytes, float]
    ) -> tuple[str, str]:
        me, until = owner_id(lease), f"{_NOW} + {_ms(lease.seconds)}"
        longer = {id_: _ms(waited[id_]) for id_ in ids if waited.get(id_, 0) > 0}
        my_since = _NOW
        if longer:
            cases = " ".join(f"WHEN {_hex(id_)} THEN {_NOW} - {ms}" for id_, ms in longer.items())
            my_since = f"(CASE `key` {cases} ELSE {_NOW} END)"
        stale = f"`seen` + {_KEPT} <= {_NOW}"
        earlier = f"{my_since} < `since` - {_EQUAL}"
        taken = f"(`waiter` <> {me} AND NOT ({stale}) AND `since` < {my_since} - {_EQUAL})"
        mine = f"(`owner` = {me} AND `until` > {_NOW})"
        rows = ",".join(f"({_hex(id_)},{me},{until},{_NOBODY},0,0)" for id_ in ids)
        # Assignments are made from left to right, each seeing those before it. `owner` and `until`
        # settle who has the key. The place among those who wait comes after, and nothing of a row
        # changes, so that nothing is written to the disk, for one who only asks again soon.
        upsert = (
            f"INSERT INTO {self.leases} (`key`,`owner`,`until`,`waiter`,`since`,`seen`) "
            f"VALUES {rows} ON DUPLICATE KEY UPDATE "
            f"`owner` = IF(IF(`until` > {_NOW}, `owner` = {me}, NOT {taken}), {me}, `owner`), "
            f"`until` = IF(`owner` = {me} AND (`until` > {_NOW} OR NOT {taken}), {until}, `until`),"
            f" `waiter` = IF({mine} OR NOT ({stale} OR `waiter` = {me} OR {earlier}), "
            f"`waiter`, {me}), "
            f"`since` = IF({mine} OR `waiter` <> {me} OR NOT ({stale} OR {earlier}), "
            f"`since`, {my_since}), "
            f"`seen` = IF(`waiter` <> {me}, `seen`, IF({mine}, 0, "
            f"IF(`seen` + {_AGAIN} <= {_NOW}, {_NOW}, `seen`)))"
        )
        held = f"l.`owner` = {me} AND l.`until` > {_NOW}"
        read = (
            f"SELECT l.`key`, {held}, s.`value`, s.`expires_at` FROM {self.leases} AS l "
            f"LEFT JOIN {self.table} AS s ON s.`key` = l.`key` AND {held} "
            f"AND (s.`expires_at` IS NULL OR s.`expires_at` > {_NOW}) "
            f"WHERE l.`key` IN ({_list(ids)})"
        )
        return upsert, read

    def give_up(self, ids: Sequence[bytes], held: Iterable[bytes], lease: Lease) -> str:
        """Give leases and places up, but for the leases that are ``held`` on.

        First in the transaction that writes: its locks keep everybody from claiming meanwhile.
        So that there is something to lock, rows are made where there are none.
        """
        me = owner_id(lease)
        rows = ",".join(f"({_hex(id_)},{me},0,{_NOBODY},0,0)" for id_ in ids)
        held = list(held)
        unheld = f" AND `key` NOT IN ({_list(held)})" if held else ""
        return (
            f"INSERT INTO {self.leases} (`key`,`owner`,`until`,`waiter`,`since`,`seen`) "
            f"VALUES {rows} ON DUPLICATE KEY UPDATE "
            f"`until` = IF(`owner` = {me}{unheld}, 0, `until`), "
            f"`seen` = IF(`waiter` = {me}, 0, `seen`)"
        )

    def remove_free(self, ids: Sequence[bytes]) -> str:
        """Remove leases that nobody has and nobody waits for; last in that transaction."""
        # An index is named because of a table with few rows all would be looked at, and with that
        # locked, where they aren't locked by others already.
        return (
            f"DELETE l FROM {self.leases} AS l FORCE INDEX (PRIMARY) WHERE l.`key` IN "
            f"({_list(ids)}) AND l.`until` <= {_NOW} AND l.`seen` + {_KEPT} <= {_NOW}"
        )

    def put(self, put: Put, id_: bytes, lease: Lease | None) -> list[str]:
        """Carry one change out; it was done if the last statement found or changed a row.

        A ``change_id`` of its own makes every writing change the row, so that an UPDATE which
        found a row can't be taken for one that found none.
        """
        key, value, expected = _hex(id_), put.value, put.expected
        ours = "TRUE"
        if lease is not None:
            ours = (
                f"NOT EXISTS (SELECT 1 FROM {self.leases} AS l WHERE l.`key` = {key} "
                f"AND l.`owner` <> {owner_id(lease)} AND l.`until` > {_NOW})"
            )
        there = f"`key` = {key} AND {_ALIVE}"
        change = _hex(secrets.token_bytes(8))
        expires_at = _expiry(put)
        if expected is ANY or expected is ABSENT:
            is_ours = f"SELECT 1 FROM DUAL WHERE {ours}"
            is_absent = f"{is_ours} AND NOT EXISTS (SELECT 1 FROM {self.table} WHERE {there})"
            if isinstance(value, bytes):
                long_key = "NULL" if len(id_) < _CUT else _hex(encoded(put.key))
                columns = "(`key`,`value`,`expires_at`,`change_id`,`long_key`)"
                new = f"{key},{_hex(value)},{expires_at},{change},{long_key}"
                row = f"{self.table} {columns} SELECT {new} FROM DUAL WHERE {ours}"
                if expected is ANY:
                    return [f"REPLACE INTO {row}"]
                expired = f"`key` = {key} AND `expires_at` <= {_NOW}"
                return [
                    f"DELETE FROM {self.table} WHERE {expired} AND {ours}",
                    f"INSERT INTO {row} ON DUPLICATE KEY UPDATE `value` = {self.table}.`value`",
                    f"SELECT 1 FROM {self.table} WHERE `key` = {key} AND `change_id` = {change}",
                ]
            if expected is ABSENT:
                return [is_absent]
            if value is DELETE:
                return [f"DELETE FROM {self.table} WHERE `key` = {key} AND {ours}", is_ours]
            if put.ttl is None:
                return [is_ours]
            touch = f"UPDATE {self.table} SET `expires_at` = {expires_at} WHERE {there} AND {ours}"
            return [touch, is_ours]
        where = f"WHERE {there} AND {_equals(expected)} AND {ours}"
        if value is DELETE:
            return [f"DELETE FROM {self.table} {where}"]
        if value is KEEP and put.ttl is None:
            return [f"SELECT 1 FROM {self.table} {where} FOR UPDATE"]
        stored = f"`value` = {_hex(value)}, " if isinstance(value, bytes) else ""
        what = f"{stored}`expires_at` = {expires_at}, `change_id` = {change}"
        return [f"UPDATE {self.table} SET {what} {where}"]

    def replace(self, changes: Sequence[tuple[bytes, Put]], lease: Lease | None) -> list[str]:
        """Carry many changes out that `replaces` others; rows of the ids of those done.

        A statement for each would spend most of its time on being prepared.
        """
        ids = [id_ for id_, _ in changes]
        ours = "TRUE"
        if lease is not None:
            ours = (
                f"`key` NOT IN (SELECT l.`key` FROM {self.leases} AS l FORCE INDEX (PRIMARY) "
                f"WHERE l.`key` IN ({_list(ids)}) AND l.`owner` <> {owner_id(lease)} "
                f"AND l.`until` > {_NOW})"
            )
        change = _hex(secrets.token_bytes(8))
        values = " ".join(
            f"WHEN {_hex(id_)} THEN {_hex(put.value)}"
            for id_, put in changes
            if isinstance(put.value, bytes)
        )
        expiries = {id_: _expiry(put) for id_, put in changes}
        expires_at = next(iter(expiries.values()))
        if len(set(expiries.values())) > 1:
            cases = " ".join(f"WHEN {_hex(id_)} THEN {at}" for id_, at in expiries.items())
            expires_at = f"CASE `key` {cases} END"
        pairs = ",".join(
            f"({_hex(id_)},{_hex(put.expected)})"
            for id_, put in changes
            if isinstance(put.expected, bytes)
        )
        table = f"{self.table} FORCE INDEX (PRIMARY)"
        update = (
            f"UPDATE {table} SET `value` = CASE `key` {values} END, `expires_at` = {expires_at}, "
            f"`change_id` = {change} WHERE `key` IN ({_list(ids)}) "
            f"AND (`key`, `value`) IN ({pairs}) AND {_ALIVE} AND {ours}"
        )
        done = f"SELECT `key` FROM {table} WHERE `key` IN ({_list(ids)}) AND `change_id` = {change}"
        return [update, done]

    def page(self, prefix: bytes, after: bytes | None) -> str:
        """List a page of keys, in their order: rows of id, long key."""
        first = f"`key` >= {_hex(prefix[:_CUT])}" if after is None else f"`key` > {_hex(after)}"
        return (
            f"SELECT `key`, `long_key` FROM {self.table} WHERE {first} AND {_below(prefix[:_CUT])} "
            f"AND {_ALIVE} ORDER BY `key` LIMIT {SCAN_PAGE}"
        )

    def expired(self, at_most: int) -> str:
        """Find sessions that have expired: rows of id. Locks nothing."""
        return f"SELECT `key` FROM {self.table} WHERE `expires_at` <= {_NOW} LIMIT {at_most}"

    def remove_expired(self, ids: Sequence[bytes]) -> str:
        return (
            f"DELETE s FROM {self.table} AS s FORCE INDEX (PRIMARY) WHERE s.`key` IN "
            f"({_list(ids)}) AND s.`expires_at` <= {_NOW}"
        )

    def dead_leases(self, at_most: int) -> str:
        """Find leases that dead processes left: rows of id. Locks nothing."""
        return (
            f"SELECT `key` FROM {self.leases} WHERE `until` <= {_NOW} "
            f"AND `seen` + {_KEPT} <= {_NOW} LIMIT {at_most}"
        )


_ALIVE: Final = f"(`expires_at` IS NULL OR `expires_at` > {_NOW})"


def encoded(key: str) -> bytes:
    """Give a key's bytes; text that UTF-8 doesn't have, half of a surrogate pair, included."""
    return key.encode("utf-8", "surrogatepass")


def decoded(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


def id_of(key: str) -> bytes:
    """Give what stands in the index for a key: its bytes, or of a long one a part and a digest.

    The byte between the two isn't in any UTF-8, so that no other key has this id.
    """
    whole = encoded(key)
    if len(whole) < _CUT:
        return whole
    return whole[:_CUT] + b"\xff" + sha256(whole).digest()


def owner_id(lease: Lease) -> str:
    """Give an owner's name the length that its column has."""
    return _hex(blake2b(encoded(lease.owner), digest_size=16).digest())


def replaces(put: Put) -> bool:
    """Whether a change stores a value in place of a certain one that isn't large."""
    is_small = isinstance(put.expected, bytes) and len(put.expected) <= _COMPARED_WHOLE
    return is_small and isinstance(put.value, bytes)


def _expiry(put: Put) -> str:
    return "NULL" if put.ttl is None else f"{_NOW} + {_ms(put.ttl)}"


def _equals(expected: object) -> str:
    if not isinstance(expected, bytes):  # another storage's token
        return "FALSE"
    if len(expected) <= _COMPARED_WHOLE:
        return f"`value` = {_hex(expected)}"
    digest = sha256(expected).hexdigest()
    return f"(LENGTH(`value`) = {len(expected)} AND SHA2(`value`, 256) = '{digest}')"


def _below(prefix: bytes) -> str:
    if not prefix:
        return "TRUE"
    return f"`key` < {_hex(prefix[:-1] + bytes([prefix[-1] + 1]))}"  # no UTF-8 ends in 0xff


def _chunks(ids: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (ids[first : first + KEYS_AT_ONCE] for first in range(0, len(ids), KEYS_AT_ONCE))


def _list(ids: Iterable[bytes]) -> str:
    return ",".join(map(_hex, ids))


def _hex(value: bytes) -> str:
    return f"x'{value.hex()}'"


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
