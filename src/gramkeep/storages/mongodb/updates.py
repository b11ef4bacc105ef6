"""The updates of MongoDB's that a claim is, and a put.

Each is an aggregation pipeline: it decides and changes in one step on the server, by the server's
clock. Beside the session's own fields a document may have for a while:

- ``lease``: ``{owner, until}``, who holds the session;
- ``waiting``: ``{owner, since, seen}``, the place of the one that has waited longest;
- ``refused``: `True` after a put alone that was not done, which is how its caller learns of it;
- ``empty``: `True` where nothing is left, until the document is deleted in the next step.

A stage that sets ``lease: {…}`` would merge it with the one that is there, so that no object ever
stands in one without an operator around it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Lease, Put
from gramkeep.storages.mongodb.layout import (
    HAS_VALUE,
    NOW,
    NOW_MS,
    PLACE_KEPT_MS,
    REMOVE,
    Expression,
    Layout,
    milliseconds,
)

Pipeline: TypeAlias = list[dict[str, Any]]

TOLERANCE: Final = 2  # milliseconds by which one must have waited longer to go first

# Of a lease or a place that is missing both are false.
_IS_HELD: Final[Expression] = {"$gt": [milliseconds("$lease.until"), NOW_MS]}
_IS_WAITED_FOR: Final[Expression] = {
    "$gt": [milliseconds("$waiting.seen"), {"$subtract": [NOW_MS, PLACE_KEPT_MS]}]
}
_SINCE: Final = milliseconds("$waiting.since")
NOTHING: Final = {field: {"$exists": False} for field in ("value", "lease", "waiting")}
"""What a query says of documents in which nothing is left."""

_NO_LEASE: Final = {"$eq": [{"$type": "$lease"}, "missing"]}
_NO_PLACE: Final = {"$eq": [{"$type": "$waiting"}, "missing"]}
_HAS_NOTHING: Final = {"$and": [{"$not": [HAS_VALUE]}, _NO_LEASE, _NO_PLACE]}
_EMPTY: Final = {"$set": {"empty": {"$cond": [_HAS_NOTHING, True, REMOVE]}}}


def claim(layout: Layout, key: str, lease: Lease) -> Pipeline:
    """Take a key if that can be, or else a place among those who wait.

    Afterwards the owner of the lease is the one that claimed it exactly if it was granted, and
    there is a value exactly if it hasn't expired.
    """
    owner = {"$literal": lease.owner}
    waited = _in_milliseconds(lease.waited.get(key, 0.0))
    since = {"$subtract": [NOW_MS, waited]}
    is_mine = {"$and": [{"$eq": ["$lease.owner", owner]}, _IS_HELD]}
    is_my_place = {"$eq": ["$waiting.owner", owner]}
    is_taken = {
        "$and": [
            {"$not": [is_my_place]},
            _IS_WAITED_FOR,
            {"$lt": [_SINCE, {"$subtract": [since, TOLERANCE]}]},
        ]
    }
    is_granted = {"$or": [is_mine, {"$not": [{"$or": [_IS_HELD, is_taken]}]}]}
    is_first = {"$or": [is_my_place, {"$not": [_IS_WAITED_FOR]}, {"$lt": [since, _SINCE]}]}
    held = {"owner": owner, "until": {"$add": [NOW, _in_milliseconds(lease.seconds)]}}
    place = {"owner": owner, "since": {"$subtract": [NOW, waited]}, "seen": NOW}
    return [
        {"$set": {**layout.identity(key), "granted": is_granted, "alive": layout.alive}},
        {
            "$set": {
                **_where("$alive", {}, layout.gone),
                "lease": _if("$granted", held, _if(_IS_HELD, "$lease", REMOVE)),
                "waiting": _if(
                    "$granted",
                    _if(is_my_place, REMOVE, "$waiting"),
                    _if(is_first, place, "$waiting"),
                ),
                "granted": REMOVE,
                "alive": REMOVE,
                "refused": REMOVE,
                "empty": REMOVE,
            }
        },
        *_at_last(layout),
    ]


def put(layout: Layout, put: Put, lease: Lease | None, *, or_fail: bool = False) -> Pipeline:
    """Change a value if it is the expected one and nobody else's, and give up what isn't held.

    What is refused is marked, and given up too. Or else it fails, for those who learn of nothing
    but errors, and changes nothing: it would give the document another name, which no server does
    (ImmutableField, 66).
    """
    gives_up: list[Expression] = [{"$not": [_IS_HELD]}]
    leaves: list[Expression] = [{"$not": [_IS_WAITED_FOR]}]
    if lease is not None and not put.hold:
        owner = {"$literal": lease.owner}
        gives_up.append({"$eq": ["$lease.owner", owner]})
        leaves.append({"$eq": ["$waiting.owner", owner]})
    told: dict[str, Expression] = {"refused": _if("$refused", True, REMOVE)}
    if or_fail:
        told = {"_id": _if("$refused", None, "$_id"), "refused": REMOVE}
    return [
        {
            "$set": {
                "refused": {"$not": [_may(layout, put, lease)]},
                "alive": layout.alive,
            }
        },
        {
            "$set": {
                **_where("$refused", {}, _changed(layout, put)),
                "lease": _if({"$or": gives_up}, REMOVE, "$lease"),
                "waiting": _if({"$or": leaves}, REMOVE, "$waiting"),
                **told,
                "alive": REMOVE,
            }
        },
        _EMPTY,
        *_at_last(layout),
    ]


def make(layout: Layout, key: str, put: Pipeline) -> Pipeline:
    """Carry out a put in a document that it makes."""
    identity = dict(layout.identity(key))
    return [{"$set": identity}, *put] if identity else put


def may_delete(layout: Layout, put: Put, lease: Lease | None) -> Expression:
    """Whether all of a document can go with the value that a put deletes."""
    unheld: list[Expression] = [] if lease is not None and not put.hold else [{"$not": [_IS_HELD]}]
    unwaited: Expression = {"$not": [_IS_WAITED_FOR]}
    if lease is not None:
        is_mine = {"$eq": ["$waiting.owner", {"$literal": lease.owner}]}
        unwaited = {"$or": [unwaited, is_mine]}
    return {"$and": [_may(layout, put, lease), *unheld, unwaited]}


def left_over() -> dict[str, Any]:
    """Find documents in which nothing is left but leases and places that are over."""
    return {
        "value": {"$exists": False},
        "$or": [{field: {"$exists": True}} for field in ("lease", "waiting", "empty")],
        "$expr": {"$not": [{"$or": [_IS_HELD, _IS_WAITED_FOR]}]},
    }


def _may(layout: Layout, put: Put, lease: Lease | None) -> Expression:
    conditions: list[Expression] = []
    if lease is not None:
        is_mine = {"$eq": ["$lease.owner", {"$literal": lease.owner}]}
        conditions.append({"$or": [{"$not": [_IS_HELD]}, is_mine]})
    if put.expected is ABSENT:
        conditions.append({"$not": [layout.alive]})
    elif put.expected is not ANY:
        conditions += [layout.alive, {"$eq": [layout.value, {"$literal": put.expected}]}]
    return {"$and": conditions}  # of nothing, it is true


def _changed(layout: Layout, put: Put) -> Mapping[str, Expression]:
    lifetime = None if put.ttl is None else _in_milliseconds(put.ttl)
    if put.value is DELETE:
        return layout.gone
    if put.value is KEEP:
        return {} if lifetime is None else _where("$alive", layout.renewed(lifetime), {})
    return layout.stored(layout.dump(put.key, put.value), lifetime)


def _at_last(layout: Layout) -> Pipeline:
    return [{"$set": dict(layout.at_last)}] if layout.at_last else []


def _if(condition: Expression, then: Expression, otherwise: Expression) -> Expression:
    return {"$cond": [condition, then, otherwise]}


def _where(
    condition: Expression, then: Mapping[str, Expression], otherwise: Mapping[str, Expression]
) -> dict[str, Expression]:
    """Set fields one way or the other, and leave those alone that only the other way names."""
    return {
        field: _if(condition, then.get(field, f"${field}"), otherwise.get(field, f"${field}"))
        for field in {**then, **otherwise}
    }


def _in_milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)
