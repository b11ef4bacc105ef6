"""How a session lies in a MongoDB document: gramkeep's own form, and grammY's to the letter.

Both are pure: they make the parts of queries and updates that concern key, value and lifetime, and
make records of what came back. `gramkeep.storages.mongodb.updates` puts the parts together.

In an aggregation expression a text that begins with ``$`` names a field and a dict may name an
operator, so that everything which comes from outside is wrapped in ``$literal``.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from gramkeep.envelope import MARK, is_envelope
from gramkeep.errors import SessionDecodeError, SessionEncodeError
from gramkeep.storage import PLACE_KEPT, Record
from gramkeep.storages.driver import driver_of

with driver_of("mongodb"):
    from bson import Binary, DatetimeMS, Int64, ObjectId

Expression: TypeAlias = Any
"""An aggregation expression."""

NOW: Final = "$$NOW"  # by the server's clock, one moment for all of a command
NOW_MS: Final = {"$toLong": NOW}
REMOVE: Final = "$$REMOVE"
HAS_VALUE: Final = {"$ne": [{"$type": "$value"}, "missing"]}
PLACE_KEPT_MS: Final = round(PLACE_KEPT * 1000)


def milliseconds(date: Expression) -> Expression:
    """Count a date as milliseconds since the epoch; one that is missing as null.

    Only numbers are compared: not every server that speaks MongoDB's protocol compares a stored
    date with its clock. Null is less than any number, and ``$max`` leaves it out.
    """
    return {"$toLong": date}


_EXPIRY: Final = milliseconds("$expires_at")
_HAS_NO_EXPIRY: Final = {"$lte": [_EXPIRY, None]}


class Layout(ABC):
    """One form of documents. ``storage`` is how errors call the storage."""

    key: ClassVar[str]
    """The field that holds the key; where it is ``_id``, keys are the documents' names."""

    removes_itself: ClassVar[bool]
    """Whether the server removes what has expired."""

    alive: ClassVar[Expression]
    """Whether a document has a value that hasn't expired."""

    gone: ClassVar[Mapping[str, Expression]]
    """What becomes of the fields of a value that isn't there any more."""

    at_last: ClassVar[Mapping[str, Expression]]
    """What is set after every other change."""

    def __init__(self, storage: str) -> None:
        self.storage = storage

    @abstractmethod
    def identity(self, key: str) -> Mapping[str, Expression]:
        """Say what a document that an update makes is to be called."""

    @abstractmethod
    def dump(self, key: str, value: bytes) -> Any:
        """Make the value of a document. Raises `SessionEncodeError` for what can't be one."""

    @abstractmethod
    def stored(self, value: Any, lifetime: int | None) -> Mapping[str, Expression]:
        """Give the fields of a value with a lifetime in milliseconds."""

    @abstractmethod
    def renewed(self, lifetime: int) -> Mapping[str, Expression]:
        """Give the fields of the value that is there, with its lifetime counted from now."""

    @abstractmethod
    def record(self, document: Mapping[str, Any]) -> Record:
        """Read a document. Raises `SessionDecodeError` for what can't be a session."""

    value: ClassVar[Expression] = "$value"
    """What a record's token is compared with."""

    def _no_session(self, document: Mapping[str, Any], what: str) -> SessionDecodeError:
        return SessionDecodeError(
            key=document[self.key], storage=self.storage, path="$", reason=what
        )


class GramkeepLayout(Layout):
    """``{_id: key, value: Binary, expires_at: Date}``: any key, any bytes.

    ``remove_at`` is when the server's own monitor removes the document: not before a lease on it
    has ended.
    """

    key = "_id"
    removes_itself = True
    alive: ClassVar[Expression] = {
        "$and": [
            HAS_VALUE,
            {"$or": [_HAS_NO_EXPIRY, {"$gt": [_EXPIRY, NOW_MS]}]},
        ]
    }
    gone: ClassVar[Mapping[str, Expression]] = {"value": REMOVE, "expires_at": REMOVE}
    at_last: ClassVar[Mapping[str, Expression]] = {
        "remove_at": {
            "$cond": [
                {"$and": [HAS_VALUE, _HAS_NO_EXPIRY]},
                REMOVE,
                {
                    "$toDate": {
                        "$max": [
                            NOW_MS,
                            _EXPIRY,
                            milliseconds("$lease.until"),
                            {"$add": [milliseconds("$waiting.seen"), PLACE_KEPT_MS]},
                        ]
                    }
                },
            ]
        }
    }

    def identity(self, key: str) -> Mapping[str, Expression]:
        return {}

    def dump(self, key: str, value: bytes) -> Any:
        return Binary(value)

    def stored(self, value: Any, lifetime: int | None) -> Mapping[str, Expression]:
        expires_at = REMOVE if lifetime is None else {"$add": [NOW, lifetime]}
        return {"value": {"$literal": value}, "expires_at": expires_at}

    def renewed(self, lifetime: int) -> Mapping[str, Expression]:
        return {"expires_at": {"$add": [NOW, lifetime]}}

    def record(self, document: Mapping[str, Any]) -> Record:
        value, expires_at = document["value"], document.get("expires_at")
        if type(value) is not bytes or not isinstance(expires_at, DatetimeMS | None):
            what = "the document is not of gramkeep's layout; layout='grammy' reads grammY's"
            raise self._no_session(document, what)
        return Record(value, value, None if expires_at is None else int(expires_at) / 1000)


# grammY's.

_INT32: Final = 2**31
_INT64: Final = 2**63
_POSITIONAL: Final = 1e21  # below it JavaScript writes whole numbers without an exponent
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: Final = {"$map": {"input": {"$objectToArray": "$value"}, "as": "field", "in": "$$field.k"}}
_NUMBER_OR_NONE: Final = ["missing", "null", "int", "long", "double", "decimal"]
_IS_ENVELOPE: Final = {
    "$cond": [
        {"$eq": [{"$type": "$value"}, "object"]},
        {
            "$and": [
                {"$in": [MARK, _NAMES]},
                {"$setIsSubset": [_NAMES, ["v", MARK, "e"]]},
                {"$in": [{"$type": "$value.v"}, _NUMBER_OR_NONE]},
                {"$in": [{"$type": "$value.e"}, _NUMBER_OR_NONE]},
            ]
        },
        False,
    ]
}


class GrammyLayout(Layout):
    """``{_id: ObjectId, key: key, value: value}`` of ``@grammyjs/storage-mongodb`` 2.6.

    The value is BSON, typed as JavaScript's driver types it. The expiry is kept as by grammY's
    ``enhanceStorage``: ``{"v": version, "__d": data, "e": expiry}``.
    """

    key = "key"
    removes_itself = False
    alive: ClassVar[Expression] = {
        "$and": [
            HAS_VALUE,
            {
                "$not": [
                    {
                        "$and": [
                            _IS_ENVELOPE,
                            {"$isNumber": "$value.e"},
                            {"$lte": ["$value.e", NOW_MS]},
                        ]
                    }
                ]
            },
        ]
    }
    gone: ClassVar[Mapping[str, Expression]] = {"value": REMOVE}
    at_last: ClassVar[Mapping[str, Expression]] = {}
    # Without the expiry, which may change while the value doesn't.
    value: ClassVar[Expression] = {
        "$cond": [
            _IS_ENVELOPE,
            {"v": {"$ifNull": ["$value.v", None]}, MARK: f"$value.{MARK}"},
            {"v": {"$literal": None}, MARK: "$value"},
        ]
    }

    def identity(self, key: str) -> Mapping[str, Expression]:
        # grammY's collection has no unique index on its keys. A name that follows from the key
        # keeps two writers from making a document each.
        name = ObjectId(hashlib.sha256(key.encode()).digest()[:12])
        return {"_id": {"$ifNull": ["$_id", name]}}

    def dump(self, key: str, value: bytes) -> Any:
        try:
            return _bson_of(msgspec.json.decode(value))
        except (ValueError, RecursionError) as error:
            reason = f"layout='grammy' keeps JSON, and the encoded session can't be kept: {error}"
            raise SessionEncodeError(
                key=key, storage=self.storage, path="$", reason=reason
            ) from error

    def stored(self, value: Any, lifetime: int | None) -> Mapping[str, Expression]:
        if lifetime is None:
            return {"value": {"$literal": value}}
        members = value if is_envelope(value) else {MARK: value}
        fields = {name: {"$literal": member} for name, member in members.items()}
        return {"value": {**fields, "e": _in(lifetime)}}

    def renewed(self, lifetime: int) -> Mapping[str, Expression]:
        expiry = {"e": _in(lifetime)}
        enveloped = {"$mergeObjects": ["$value", expiry]}
        return {"value": {"$cond": [_IS_ENVELOPE, enveloped, {MARK: "$value", **expiry}]}}

    def record(self, document: Mapping[str, Any]) -> Record:
        stored = document["value"]
        try:
            value = _json_of(stored)
        except (ValueError, RecursionError) as error:
            raise self._no_session(document, str(error)) from error
        token = {"v": None, MARK: stored}
        if is_envelope(value):
            token = {"v": stored.get("v"), MARK: stored[MARK]}
        expires_at = value.get("e") if is_envelope(value) else None
        if expires_at is not None:
            del value["e"]
            if "v" not in value and not is_envelope(value[MARK]):
                value = value[MARK]
            expires_at = math.ceil(expires_at) / 1000
        return Record(msgspec.json.encode(value), token, expires_at)


LAYOUTS: Final[Mapping[str, Callable[[str], Layout]]] = {
    "gramkeep": GramkeepLayout,
    "grammy": GrammyLayout,
}


def _in(lifetime: int) -> Expression:
    """Count milliseconds from now, as the double that JavaScript keeps an expiry in."""
    return {"$add": [{"$toDouble": NOW}, lifetime]}


def _bson_of(value: Any) -> Any:
    """Type a JSON value as JavaScript's driver does: what isn't whole in 32 bits is a double."""
    if isinstance(value, dict):
        if any("\0" in name for name in value):
            text = "the name of a field has a NUL in it, which BSON can't hold"
            raise ValueError(text)
        return {name: _bson_of(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_bson_of(item) for item in value]
    if type(value) is not int or -_INT32 <= value < _INT32:
        return value
    if abs(value) < _POSITIONAL and float(value) == value:
        return float(value)
    if -_INT64 <= value < _INT64:
        return Int64(value)
    text = f"BSON has no whole number as large as {value}"
    raise ValueError(text)


def _json_of(value: Any) -> Any:
    """Give a BSON value as JavaScript's ``JSON.stringify`` shows it."""
    match value:
        case dict():
            return {name: _json_of(member) for name, member in value.items()}
        case list():
            return [_json_of(item) for item in value]
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                return None
            return int(value) if value.is_integer() and abs(value) < _POSITIONAL else value
        case DatetimeMS():
            return _iso(int(value))
    text = f"it holds a BSON {type(value).__name__}, which JSON has no form for"
    raise ValueError(text)


def _iso(milliseconds: int) -> str:
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        text = f"it holds a date of {milliseconds} ms, outside of the years 1 to 9999"
        raise ValueError(text) from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
