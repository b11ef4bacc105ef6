"""State to bytes and back, so that what is saved loads as the same.

A `Codec` is an option; bound to the type of a session it makes a `BoundCodec`, which does the
work. Codecs know nothing of keys' storages: they raise `CodecError`, and the manager says whose.
"""

from __future__ import annotations

import math
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from gramkeep.envelope import MARK, Envelope, is_envelope
from gramkeep.errors import ConfigurationError

MARK_IN_JSON = f'"{MARK}"'.encode()
PATH_IN_MESSAGE = re.compile(r" - at `(?P<path>[^`]+)`$")


class CodecError(ValueError):
    """A value or bytes that the codec refuses: ``reason``, and ``path`` in the data."""

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(f"{reason}, at {path}")
        self.reason = reason
        self.path = path


class EnvelopeFound(CodecError):
    """The bytes are an `Envelope`, where a bare value was asked for."""

    def __init__(self) -> None:
        super().__init__("it is kept in an envelope, with a version or an expiry")


class BoundCodec(ABC):
    """A codec for the values of one type."""

    @abstractmethod
    def encode(self, value: Any, key: str) -> bytes:
        """Make bytes of the value stored under ``key``. Raises `CodecError`."""

    @abstractmethod
    def decode(self, data: bytes, key: str) -> Any:
        """Make a value of the bytes found under ``key``. Raises `CodecError`.

        Of an `Envelope` where another type was asked for, raises `EnvelopeFound`: a type that has
        a default for everything would take it for an empty value.
        """

    def is_same(self, value: Any, encoded: bytes, stored: bytes, key: str) -> bool:
        """Whether ``value``, encoded as ``encoded``, is what the bytes ``stored`` stand for.

        Asked where these differ: equal values may have other bytes, as another writer's spacing.
        """
        return encoded == self.encode(self.decode(stored, key), key)

    def check(self, value: Any, encoded: bytes, key: str) -> None:
        """Make sure that ``encoded``, made of ``value``, will load as the same value.

        Called once before bytes are stored, never for a session that didn't change. Raises
        `CodecError` with the path of the first value that would come back as something else.
        """
        try:
            back = self.decode(encoded, key)
        except CodecError as error:
            raise CodecError(f"it would not load again ({error.reason})", error.path) from error
        for path, reason in differences(value, back):
            raise CodecError(reason, path)


class Codec(ABC):
    """The ``codec`` option: how sessions are written down."""

    @abstractmethod
    def bind(self, data_type: Any) -> BoundCodec:
        """Make the codec for one type; raises `ConfigurationError` for one it can't keep."""


class JSONCodec(Codec):
    """JSON by msgspec, typed: the default.

    Dataclasses, msgspec Structs, attrs classes, TypedDicts, NamedTuples, enums, datetimes, UUIDs,
    Decimals, bytes, sets, tuples and their nestings load as what they were; msgspec's "Supported
    types" has the list and the JSON of each. Where the type says nothing (``dict``, ``list``,
    ``Any``), only what JSON itself knows is accepted: anything else is refused before it is
    saved, with its path.
    """

    def bind(self, data_type: Any) -> BoundCodec:
        """Make the codec for one type; raises `ConfigurationError` for one JSON can't keep."""
        try:
            decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(data_type)
            kinds = list(_kinds(msgspec.inspect.type_info(data_type)))
        except (TypeError, NameError) as error:
            text = f"sessions of type {_type_name(data_type)} can't be kept as JSON: {error}"
            raise ConfigurationError(text) from error
        for kind in kinds:
            if isinstance(kind, msgspec.inspect.CustomType):
                text = (
                    f"sessions of type {_type_name(data_type)} can't be kept as JSON: it holds "
                    f"{_type_name(kind.cls)}, which is no dataclass, Struct, attrs class, "
                    "TypedDict, NamedTuple, enum or other type with a JSON form"
                )
                raise ConfigurationError(text)
        untold = any(isinstance(kind, msgspec.inspect.AnyType) for kind in kinds)
        sets = any(isinstance(kind, _SETS) for kind in kinds)
        bare = typing.get_origin(data_type) is not Envelope
        return _BoundJSON(decoder, untold=untold, sets=sets, bare=bare)


_SETS = (msgspec.inspect.SetType, msgspec.inspect.FrozenSetType)


class _BoundJSON(BoundCodec):
    __slots__ = ("_bare", "_decode", "_encode", "_sets", "_untold")

    def __init__(
        self, decoder: msgspec.json.Decoder[Any], *, untold: bool, sets: bool, bare: bool
    ) -> None:
        self._decode = decoder.decode
        self._encode = msgspec.json.Encoder().encode
        self._untold = untold
        self._sets = sets
        self._bare = bare

    def encode(self, value: Any, key: str) -> bytes:  # noqa: ARG002 - JSON is the same anywhere
        try:
            return self._encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError(*_where_unencodable(value, error)) from error

    def decode(self, data: bytes, key: str) -> Any:  # noqa: ARG002
        try:
            if self._bare and MARK_IN_JSON in data and is_envelope(msgspec.json.decode(data)):
                raise EnvelopeFound
            return self._decode(data)
        except CodecError:
            raise
        except (ValueError, RecursionError) as error:
            reason = str(error)
            found = PATH_IN_MESSAGE.search(reason)
            if found is None:
                raise CodecError(reason) from error
            raise CodecError(reason[: found.start()], found["path"]) from error

    def is_same(self, value: Any, encoded: bytes, stored: bytes, key: str) -> bool:
        back = self.decode(stored, key)
        # Sets have no order, so that equal ones may be written down differently.
        return encoded == self._encode(back) or (
            self._sets and not any(True for _ in differences(value, back))
        )

    def check(self, value: Any, encoded: bytes, key: str) -> None:
        # Where the type tells everything, what decodes to an equal value and encodes to the same
        # bytes is the same, at a tenth of the cost of looking at every part. Neither alone would
        # do: equality overlooks fields that don't take part in it, bytes what has equal JSON.
        if not self._untold:
            try:
                back = self._decode(encoded)
                if back == value and self._encode(back) == encoded:
                    return
            except ValueError:
                pass  # the slow way finds it again, and says where
        super().check(value, encoded, key)


def differences(value: Any, back: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    """Yield path and reason of everything in ``value`` that ``back``, its reload, has otherwise."""
    if isinstance(value, float) and not math.isfinite(value):
        if type(back) is not float:
            yield path, f"{value!r} has no JSON form"
    elif type(value) is not type(back):
        # An int where the type says float is a float by the language's own rules (PEP 484).
        if not (type(value) is int and type(back) is float and value == back):
            yield path, f"a {_type_name(type(value))} would load as a {_type_name(type(back))}"
    elif isinstance(value, dict):
        yield from _dict_differences(value, back, path)
    elif isinstance(value, list | tuple):
        for index, (item, other) in enumerate(zip(value, back, strict=False)):
            yield from differences(item, other, f"{path}[{index}]")
        if len(value) != len(back):
            yield path, f"{len(value)} items would load as {len(back)}"
    elif (names := _field_names(value)) is not None:
        for name in names:
            yield from differences(
                getattr(value, name, None), getattr(back, name, None), f"{path}.{name}"
            )
    elif value != back:
        yield path, f"{value!r} would load as {back!r}"


def _dict_differences(
    value: dict[Any, Any], back: dict[Any, Any], path: str
) -> Iterator[tuple[str, str]]:
    kept = {key: key for key in back}
    for key, item in value.items():
        where = f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"
        if key not in kept or type(kept[key]) is not type(key):
            yield where, f"a key of type {_type_name(type(key))} would load as another"
        else:
            yield from differences(item, back[key], where)


def _field_names(value: Any) -> list[str] | None:
    if is_dataclass(value):
        return [field.name for field in fields(value)]
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _where_unencodable(value: Any, error: Exception) -> tuple[str, str]:
    """Find the place that msgspec's error, which names none, is about."""
    reason = str(error) or type(error).__name__
    if isinstance(error, RecursionError):
        return "it contains itself, or is nested too deeply", "$"
    path = "$"
    while True:
        for step, item in _children(value):
            try:
                msgspec.json.encode(item)
            except (TypeError, ValueError, OverflowError):
                path, value = path + step, item
                break
        else:
            return reason, path


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield (f".{key}" if isinstance(key, str) else f"[{key!r}]"), item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in value:
            yield "{...}", item
    else:
        for name in _field_names(value) or ():
            yield f".{name}", getattr(value, name, None)


def _kinds(root: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """Yield every type in the tree of a type, each class once."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        kind = waiting.pop()
        if id(kind) in seen:
            continue
        seen.add(id(kind))
        yield kind
        for name in kind.__struct_fields__:
            part = getattr(kind, name)
            for inner in part if isinstance(part, tuple) else (part,):
                if isinstance(inner, msgspec.inspect.Field):
                    waiting.append(inner.type)
                elif isinstance(inner, msgspec.inspect.Type):
                    waiting.append(inner)


def _type_name(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind)
