"""The statement that carries out changes: made of the parts that a call needs, and no others.

What is in braces are the names and forms of a table, filled in by `Statements`.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class Kind(IntEnum):
    """What a change does, and what it expects."""

    SET = 0  # bytes, whatever is there
    ADD = 1  # bytes, if nothing is there
    CHANGE = 2  # bytes, if the old value is there
    REMOVE = 3  # deletes the old value
    DROP = 4  # deletes, whatever is there
    TOUCH = 5  # a lifetime, if the old value is there
    TOUCH_ANY = 6  # a lifetime, whatever is there
    SAME = 7  # nothing, but tells whether the old value is there
    ABSENT = 8  # nothing, but tells whether nothing is there
    NOTHING = 9  # nothing; gives the lease up
    REFUSED = 10  # the same, and is never what was expected


class Leases(Enum):
    """What a statement makes of leases."""

    IGNORED = "ignored"
    GIVEN_UP = "given up"  # those that are held and that nobody waits for; else nothing is done
    HEEDED = "heeded"  # whatever is to be found


# What is done whatever was there.
_ALWAYS: Final = frozenset({Kind.SET, Kind.DROP, Kind.TOUCH_ANY, Kind.NOTHING})

# What leaves the table of sessions as it is.
_HARMLESS: Final = frozenset({Kind.SAME, Kind.ABSENT, Kind.NOTHING, Kind.REFUSED})

# What a change consists of, in the order of the parameters. Each is an array, or what all changes
# have in common: a change that is alone needn't be taken out of arrays, and the driver looks at
# every item of one.
_PARAMETERS: Final = {
    "key": "text",
    "kind": "int2",
    "value": "{type}",
    "old": "{type}",
    "digest": "bytea",
    "ttl": "float8",
    "owner": "text",
    "hold": "bool",
}

# Does what is to be done under leases that are held, for which nobody waits and which are given
# up: nearly all. A lease that its owner gives up was its own to the end, even if it ran out.
_GIVE_UP_LEASES: Final = """,
free AS (
  DELETE FROM {leases} AS l USING changes AS c
  WHERE l.key = c.key AND l.owner = c.owner AND l.waiter IS NULL
  RETURNING c.*
)"""

# For the others. The rows are locked first, and all that is decided about them is of their newest
# state. An owner is told apart from one who holds the key by what is there now, not by what the
# statement's snapshot saw.
_HEED_LEASES: Final = """,
held AS MATERIALIZED (
  SELECT l.* FROM {leases} AS l WHERE l.key IN (SELECT key FROM changes) ORDER BY l.key FOR UPDATE
),
free AS MATERIALIZED (
  SELECT c.* FROM changes AS c LEFT JOIN held AS h ON h.key = c.key
  WHERE c.owner IS NULL OR h.owner IS NULL OR h.owner = c.owner OR h.until <= clock_timestamp()
),
remaining AS MATERIALIZED (
  SELECT h.key, nullif(h.owner, c.owner) AS owner,
    CASE WHEN h.waiter <> c.owner AND h.seen > clock_timestamp() - {place} THEN h.waiter END
      AS waiter
  FROM held AS h JOIN changes AS c ON c.key = h.key WHERE c.owner IS NOT NULL AND NOT c.hold
),
given_up AS (
  DELETE FROM {leases} AS l USING remaining AS r
  WHERE l.key = r.key AND r.owner IS NULL AND r.waiter IS NULL
),
passed_on AS (
  UPDATE {leases} AS l SET owner = r.owner, waiter = r.waiter FROM remaining AS r
  WHERE l.key = r.key AND (r.owner IS NOT NULL OR r.waiter IS NOT NULL)
)"""

_BY_LEASES: Final = {
    Leases.IGNORED: ", free AS (SELECT * FROM changes)",
    Leases.GIVEN_UP: _GIVE_UP_LEASES,
    Leases.HEEDED: _HEED_LEASES,
}

OLD_IS_THERE: Final = """\
s.key = f.key AND ({value} = f.old OR {digest} = f.digest) AND {alive}"""

_PARTS: Final = {
    Kind.SET: """,
set AS (
  INSERT INTO {table} AS s ({columns}) SELECT {row} FROM free AS f WHERE f.kind = 0
  ON CONFLICT (key) DO UPDATE SET {assignment}
)""",
    Kind.ADD: """,
added AS (
  INSERT INTO {table} AS s ({columns}) SELECT {row} FROM free AS f WHERE f.kind = 1
  ON CONFLICT (key) DO UPDATE SET {assignment} WHERE {expired}
  RETURNING s.key
)""",
    Kind.CHANGE: """,
changed AS (
  UPDATE {table} AS s SET {replacement} FROM free AS f
  WHERE f.kind = 2 AND {old_is_there} RETURNING s.key
)""",
    Kind.REMOVE: """,
removed AS (
  DELETE FROM {table} AS s USING free AS f
  WHERE f.kind = 3 AND {old_is_there} RETURNING s.key
)""",
    Kind.DROP: """,
dropped AS (DELETE FROM {table} AS s USING free AS f WHERE f.kind = 4 AND s.key = f.key)""",
    Kind.TOUCH: """,
touched AS (
  UPDATE {table} AS s SET expires_at = clock_timestamp() + f.ttl * interval '1 second'
  FROM free AS f WHERE f.kind = 5 AND {old_is_there} RETURNING s.key
)""",
    Kind.TOUCH_ANY: """,
touched_any AS (
  UPDATE {table} AS s SET expires_at = clock_timestamp() + f.ttl * interval '1 second'
  FROM free AS f WHERE f.kind = 6 AND s.key = f.key AND {alive}
)""",
}

_ANSWERS: Final = {
    Kind.ADD: "SELECT key FROM added",
    Kind.CHANGE: "SELECT key FROM changed",
    Kind.REMOVE: "SELECT key FROM removed",
    Kind.TOUCH: "SELECT key FROM touched",
    Kind.SAME: """\
SELECT f.key FROM free AS f JOIN {table} AS s ON {old_is_there} WHERE f.kind = 7""",
    Kind.ABSENT: """\
SELECT f.key FROM free AS f WHERE f.kind = 8
  AND NOT EXISTS (SELECT FROM {table} AS s WHERE s.key = f.key AND {alive})""",
}

_ALWAYS_DONE: Final = "SELECT key FROM free WHERE kind IN ({})"


def put_template(kinds: frozenset[Kind], leases: Leases, arrays: frozenset[str]) -> str:
    """Put the statement together; see `Statements.put`."""
    given: list[str] = []
    unnested: list[str] = []
    for number, (name, type_) in enumerate(_PARAMETERS.items(), 1):
        if name in arrays:
            unnested.append(f"${number}::{type_}[]")
            given.append(f"c.{name}")
        else:
            given.append(f"${number}::{type_} AS {name}")
    sources = ["{at_once}"] if kinds <= _HARMLESS else []
    if unnested:
        names = ", ".join(name for name in _PARAMETERS if name in arrays)
        sources.append(f"unnest({', '.join(unnested)}) AS c ({names})")
    words = ["WITH changes AS (SELECT", ", ".join(given)]
    if sources:
        words += ["FROM", ", ".join(sources)]
    parts = [" ".join(words), ")", _BY_LEASES[leases]]
    parts += [part for kind, part in _PARTS.items() if kind in kinds]
    answers = [answer for kind, answer in _ANSWERS.items() if kind in kinds]
    if always := kinds & _ALWAYS:
        numbers = ", ".join(str(kind.value) for kind in sorted(always))
        answers.append(_ALWAYS_DONE.format(numbers))
    if not answers:  # all are refused
        answers = ["SELECT key FROM free WHERE false"]
    return "".join(parts) + "\n" + "\nUNION ALL\n".join(answers)
