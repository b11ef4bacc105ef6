"""The SQL of `PostgresStorage`: its tables, and one statement for each kind of call.

Statements take arrays, so that any number of calls go together in one. Rows are locked in the
order of their keys, so that those who write several don't wait for each other in a circle.

All moments are by the server's clock, and by its clock when a row is looked at, after waiting for
whoever had it locked: ``clock_timestamp()``, not ``now()``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gramkeep.errors import ConfigurationError
from gramkeep.storage import PLACE_KEPT
from gramkeep.storages.postgres.puts import OLD_IS_THERE, Kind, Leases, put_template

ROUNDING: Final = 0.002  # seconds by which nobody has waited for longer than somebody else

# The server's limit is 63 bytes; the names of indexes and of the other table are made of this one.
LONGEST_NAME: Final = {"schema": 63, "table": 52, "leases": 63}

_PLACE: Final = f"interval '{PLACE_KEPT} seconds'"
_ROUNDING: Final = f"interval '{ROUNDING} seconds'"


class Form:
    """The form of the table: gramkeep's own. Keys compare by their bytes, so scans use the index.

    ``{table}`` and the other names in braces are filled in by `Statements`.
    """

    type = "bytea"
    value = "s.value"
    digest = "sha256(s.value)"
    alive = "(s.expires_at IS NULL OR s.expires_at > clock_timestamp())"
    expired = "s.expires_at <= clock_timestamp()"
    columns = "key, value, expires_at"
    row = "f.key, f.value, clock_timestamp() + f.ttl * interval '1 second'"
    assignment = "value = excluded.value, expires_at = excluded.expires_at"
    replacement = "value = f.value, expires_at = clock_timestamp() + f.ttl * interval '1 second'"
    expiry = "s.expires_at"
    keys = "s.key, NULL AS value"
    ddl = """\
CREATE TABLE IF NOT EXISTS {table} (
  key text COLLATE "C" PRIMARY KEY,
  value bytea NOT NULL,
  expires_at timestamptz
);
CREATE INDEX IF NOT EXISTS {expiry_index} ON {table} (expires_at) WHERE expires_at IS NOT NULL;
"""


class GrammyForm(Form):
    """The table of grammY's ``@grammyjs/storage-psql``. Lifetimes are in the values.

    It has no column for them, so that to these statements everything is alive.
    """

    type = "text"
    value = "coalesce(s.value, 'null')"  # which is how grammY reads it
    digest = "sha256(convert_to(coalesce(s.value, 'null'), 'UTF8'))"
    alive = "true"
    expired = "false"
    columns = "key, value"
    row = "f.key, f.value"
    assignment = "value = excluded.value"
    replacement = "value = f.value"
    expiry = "NULL::timestamptz"
    keys = "s.key, CASE WHEN s.value LIKE '%\"__d\"%' THEN s.value END AS value"
    ddl = """\
CREATE TABLE IF NOT EXISTS {table} ("key" VARCHAR NOT NULL, "value" TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS {unique_index} ON {table} ("key");
"""


# Unlogged: a lease costs no wait for the disk, and may vanish in a crash.
_LEASES: Final = """\
CREATE UNLOGGED TABLE IF NOT EXISTS {leases} (
  key text COLLATE "C" PRIMARY KEY,
  owner text,
  until timestamptz NOT NULL,
  waiter text,
  since timestamptz NOT NULL,
  seen timestamptz NOT NULL
);
"""

_MISSING: Final = """\
SELECT FROM (VALUES (to_regclass({table_name})), (to_regclass({leases_name}))) AS t (found)
WHERE found IS NULL
"""

# Leases wait for no disk, and neither do transactions of which nothing else is to remain. They
# would, where reading a table of sessions tidies up one of its pages.
_AT_ONCE: Final = "set_config('synchronous_commit', 'off', true)"

# Both claims are two statements in one, of which each execution carries out one half: first the
# claim, then the read of what was claimed. The second half must not share the snapshot of the
# first, which is as old as its beginning: a claim that had to wait for the row of a lease would
# read the value from before the change that it waited for.

# What nobody holds and nobody waits for, which is nearly always all.
_TAKE: Final = """\
WITH taken AS (
  INSERT INTO {leases} (key, owner, until, since, seen)
  SELECT a.key, $2::text, c.now + $3::float8 * interval '1 second', c.now, c.now
  FROM {asked}, clock_timestamp() AS c (now), {at_once}
  ON CONFLICT (key) DO NOTHING
  RETURNING key
)
SELECT key, NULL::{type} AS value, NULL::timestamptz AS expires_at FROM taken
UNION ALL
SELECT s.key, {value}, {expiry} FROM {table} AS s WHERE s.key = {wanted} AND {alive}
"""
_SEVERAL: Final = {
    "asked": "unnest($1::text[]) AS a (key)",
    "wanted": "ANY ($4::text[])",
}
_ONE: Final = {"asked": "(SELECT $1::text WHERE $1 IS NOT NULL) AS a (key)", "wanted": "$4::text"}

# A lease that isn't given loses an owner that asks for it: it was that owner's own, and ran out.
_CLAIM: Final = """\
WITH claimed AS (
  INSERT INTO {leases} AS l (key, owner, until, since, seen)
  SELECT a.key, $2::text, c.now + $3::float8 * interval '1 second',
    c.now - a.waited * interval '1 second', c.now
  FROM unnest($1::text[], $5::float8[]) AS a (key, waited), clock_timestamp() AS c (now),
    {at_once}
  ON CONFLICT (key) DO UPDATE SET (owner, until, waiter, since, seen) = (
    SELECT
      CASE WHEN given THEN excluded.owner ELSE nullif(l.owner, excluded.owner) END,
      CASE WHEN given THEN excluded.until ELSE l.until END,
      CASE WHEN given THEN nullif(l.waiter, excluded.owner)
        WHEN placed THEN excluded.owner ELSE l.waiter END,
      CASE WHEN placed AND NOT given THEN excluded.since ELSE l.since END,
      CASE WHEN placed AND NOT given THEN now ELSE l.seen END
    FROM clock_timestamp() AS c (now), LATERAL (
      SELECT
        l.owner IS NOT DISTINCT FROM excluded.owner AND l.until > now
        OR (l.owner IS NULL OR l.owner = excluded.owner OR l.until <= now)
          AND (l.waiter IS NULL OR l.waiter = excluded.owner OR l.seen <= now - {place}
            OR l.since >= excluded.since - {rounding}) AS given,
        l.waiter IS NULL OR l.waiter = excluded.owner OR l.seen <= now - {place}
          OR l.since > excluded.since AS placed
    ) AS decision
  )
  RETURNING l.key, l.owner
)
SELECT key, NULL::{type} AS value, NULL::timestamptz AS expires_at FROM claimed
WHERE owner = $2
UNION ALL
SELECT s.key, {value}, {expiry} FROM {table} AS s WHERE s.key = ANY($4::text[]) AND {alive}
"""

_GET: Final = """\
SELECT s.key, {value} AS value, {expiry} AS expires_at
FROM {table} AS s WHERE s.key = ANY($1::text[]) AND {alive}
"""

_PAGE: Final = """\
SELECT {keys} FROM {table} AS s WHERE s.key >= $1 AND {alive} ORDER BY s.key LIMIT $2
"""
_PAGE_BELOW: Final = """\
SELECT {keys} FROM {table} AS s WHERE s.key >= $1 AND s.key < $3 AND {alive}
ORDER BY s.key LIMIT $2
"""
_PAGE_FROM: Final = """\
SELECT {keys} FROM {table} AS s WHERE s.key >= $1 AND starts_with(s.key, $3) AND {alive}
ORDER BY s.key LIMIT $2
"""

_REMOVE_EXPIRED: Final = """\
WITH removed AS (
  DELETE FROM {table} AS s WHERE s.expires_at <= now() AND s.key = ANY (ARRAY(
    SELECT key FROM {table} WHERE expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED
  )) RETURNING 1
)
SELECT count(*) AS removed FROM removed
"""

_REMOVE_LEASES: Final = """\
DELETE FROM {leases} AS l WHERE {over} AND l.key = ANY (ARRAY(
  SELECT l.key FROM {leases} AS l WHERE {over} LIMIT $1 FOR UPDATE SKIP LOCKED
))
"""
_OVER: Final = (
    "(l.owner IS NULL OR l.until <= now()) AND (l.waiter IS NULL OR l.seen <= now() - {place})"
)


class Tables(NamedTuple):
    """The names of what is in the database, as they stand in SQL."""

    table: str
    leases: str
    expiry_index: str
    unique_index: str


def tables(table: str, schema: str | None, leases: str | None) -> Tables:
    """Quote the names of the tables.

    Without ``schema``, ``table`` may be ``schema.table``; otherwise it is looked for where the
    server looks for tables. Raises `ConfigurationError` for what can't be a name.
    """
    if schema is None and "." in table:
        schema, table = table.split(".", 1)
    leases = f"{table}_leases" if leases is None else leases
    for option, name in (("schema", schema), ("table", table), ("leases", leases)):
        if name is None:
            continue
        # The server would cut a longer name without a word, perhaps into that of another table.
        if not name or "\0" in name or len(name.encode("utf-8", "replace")) > LONGEST_NAME[option]:
            text = f"{option}={name!r} must be a name of 1 to {LONGEST_NAME[option]} bytes"
            raise ConfigurationError(text)
    if leases == table:
        text = f"leases={leases!r} is the name of the table itself"
        raise ConfigurationError(text)
    place = "" if schema is None else f"{_quoted(schema)}."
    return Tables(
        table=place + _quoted(table),
        leases=place + _quoted(leases),
        expiry_index=_quoted(f"{table}_expires_at"),
        unique_index=_quoted(f"idx_{table}".lower()),  # as grammY names it, without quotes
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _constant(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class Statements:
    """The statements on tables of one form."""

    def __init__(self, form: Form, names: Tables) -> None:
        self._names: dict[str, str] = {
            **names._asdict(),
            "place": _PLACE,
            "rounding": _ROUNDING,
            "at_once": _AT_ONCE,
            **{name: getattr(form, name) for name in dir(form) if not name.startswith("_")},
        }
        self._names["old_is_there"] = self._fill(OLD_IS_THERE)
        self._names["over"] = self._fill(_OVER)
        self._puts: dict[tuple[frozenset[Kind], Leases, frozenset[str]], str] = {}
        self.ddl = self._fill(form.ddl + _LEASES)
        self._names["table_name"] = _constant(names.table)
        self._names["leases_name"] = _constant(names.leases)
        self.missing = self._fill(_MISSING)
        self.take_one = self._fill(_TAKE, **_ONE)
        self.take = self._fill(_TAKE, **_SEVERAL)
        self.claim = self._fill(_CLAIM)
        self.get = self._fill(_GET)
        self.remove_expired = self._fill(_REMOVE_EXPIRED)
        self.remove_leases = self._fill(_REMOVE_LEASES)
        self.page = self._fill(_PAGE)
        self.page_below = self._fill(_PAGE_BELOW)
        self.page_from = self._fill(_PAGE_FROM)
        self.page_beyond = self._fill(_PAGE_FROM.replace(">=", ">"))

    def put(self, kinds: frozenset[Kind], leases: Leases, arrays: frozenset[str]) -> str:
        """Give the statement that carries out changes of these kinds, and no others.

        Its parameters are a key and the fields of a `Change`, in their order: arrays of as many
        as there are changes, or, of those not in ``arrays``, what all changes have in common. It
        answers with the keys whose changes were done.
        """
        which = (kinds, leases, arrays)
        statement = self._puts.get(which)
        if statement is None:
            statement = self._puts[which] = self._fill(put_template(*which))
        return statement

    def _fill(self, template: str, **more: str) -> str:
        return template.format_map(self._names | more)
