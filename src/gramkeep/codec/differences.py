"""What a value and its reload don't have in common, and where.

Two ways to the same answer: `alike` is quick and only says yes or no, `differences` says where.
Neither relies on ``==`` of a whole: equality overlooks fields that don't take part in it, and takes
an enum member for its value, a named tuple for a tuple.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

# Where types are the same, these are the same if they are equal.
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None), date, timedelta, UUID})
_LOST: Final = object()
# Where classes name the attributes that make their objects up.
_OF_MODELS: Final = "__pydantic_fields__"
_NAMES: Final = ("__dataclass_fields__", "__struct_fields__", _OF_MODELS)
_MORE_IN_MODELS: Final = ("__pydantic_extra__", "__pydantic_private__")


def alike(value: Any, back: Any) -> bool:
    """Whether ``back``, the reload of ``value``, is the same in all its parts.

    May say no where `differences` finds none, as for an int that the type makes a float.
    """
    if value is back:
        return True
    kind = type(value)
    if kind is not type(back):
        return False
    if kind in _PLAIN:
        return bool(value == back)
    if kind is list or kind is tuple:
        return len(value) == len(back) and all(map(alike, value, back))
    if kind is dict:
        return (
            len(value) == len(back)
            and all(map(alike, value, back))  # a reload has the keys in the same order
            and all(map(alike, value.values(), back.values()))
        )
    if kind is datetime:
        return bool(value == back) and value.utcoffset() == back.utcoffset()
    for attribute in _NAMES:
        if (names := getattr(kind, attribute, None)) is not None:
            break
    else:
        return not any(True for _ in differences(value, back))
    for name in names:
        part, other = getattr(value, name, None), getattr(back, name, None)
        if type(part) in _PLAIN and type(part) is type(other):  # spares most of the calls
            if part != other:
                return False
        elif not alike(part, other):
            return False
    return attribute is not _OF_MODELS or all(
        alike(getattr(value, more, None), getattr(back, more, None)) for more in _MORE_IN_MODELS
    )


def differences(value: Any, back: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    """Yield path and reason of everything in ``value`` that ``back``, its reload, has otherwise."""
    if value is back:
        return
    if isinstance(value, float) and not math.isfinite(value):
        if type(back) is not float:
            yield path, f"{value!r} has no JSON form"
        elif repr(value) != repr(back):
            yield path, f"{value!r} would load as {back!r}"
    elif type(value) is not type(back):
        # An int where the type says float is a float by the language's own rules (PEP 484).
        if not (type(value) is int and type(back) is float and value == back):
            yield path, f"a {type_name(type(value))} would load as a {type_name(type(back))}"
    elif isinstance(value, dict):
        yield from _dict_differences(value, back, path)
    elif isinstance(value, list | tuple):
        for index, (item, other) in enumerate(zip(value, back, strict=False)):
            yield from differences(item, other, f"{path}[{index}]")
        if len(value) != len(back):
            yield path, f"{len(value)} items would load as {len(back)}"
    elif isinstance(value, set | frozenset):
        yield from _set_differences(value, back, path)
    elif isinstance(value, datetime | time):
        yield from _moment_differences(value, back, path)
    elif isinstance(value, Decimal):
        if value.as_tuple() != back.as_tuple():  # equal ones may have other digits
            yield path, f"{value!r} would load as {back!r}"
    elif (parts := parts_of(value)) is not None:
        others = parts_of(back) or {}
        for step, part in parts.items():
            if (other := others.pop(step, _LOST)) is _LOST:
                yield path + step, "it would be lost"
            else:
                yield from differences(part, other, path + step)
        for step in others:
            yield path + step, "it is not there, but would be after loading"
    elif value != back:
        shown, other = repr(value), repr(back)
        yield path, f"{shown} would load as {'another value' if other == shown else other}"


def _dict_differences(
    value: dict[Any, Any], back: dict[Any, Any], path: str
) -> Iterator[tuple[str, str]]:
    kept = {key: key for key in back}
    for key, item in value.items():
        where = f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"
        if key not in kept or any(True for _ in differences(key, kept[key])):
            yield where, f"a key of type {type_name(type(key))} would load as another"
        else:
            yield from differences(item, back[key], where)
    if len(value) < len(back):
        yield path, f"{len(value)} items would load as {len(back)}"


def _set_differences(
    value: set[Any] | frozenset[Any], back: set[Any] | frozenset[Any], path: str
) -> Iterator[tuple[str, str]]:
    kept = {item: item for item in back}
    for item in value:
        where = f"{path}{{{item!r}}}"
        if item not in kept:
            yield where, f"{item!r} would load as another value"
        else:
            yield from differences(item, kept[item], where)
    if len(value) != len(back):
        yield path, f"{len(value)} items would load as {len(back)}"


def _moment_differences(
    value: datetime | time, back: datetime | time, path: str
) -> Iterator[tuple[str, str]]:
    # Equal moments may be at other offsets, and then read another hour.
    offset, other = value.utcoffset(), back.utcoffset()
    if offset != other:
        yield path, f"a {type_name(type(value))} {_at(offset)} would load as one {_at(other)}"
    elif value != back:
        yield path, f"{value!r} would load as {back!r}"


def _at(offset: timedelta | None) -> str:
    if offset is None:
        return "without a UTC offset"
    return f"at UTC{'-' if offset < timedelta(0) else '+'}{abs(offset)}"


def parts_of(value: Any) -> dict[str, Any] | None:
    """Give the attributes that make an object up, by their step in a path.

    ``None`` for what isn't made of attributes. Of a pydantic model these are its fields, its extra
    and its private attributes.
    """
    kind = type(value)
    if is_dataclass(value):
        names: Any = kind.__dataclass_fields__
    elif (names := getattr(kind, "__struct_fields__", None)) is None:
        if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
            names = [attribute.name for attribute in attributes]
        elif (names := getattr(kind, _OF_MODELS, None)) is None:
            return None
        elif getattr(kind, "__pydantic_root_model__", False):
            return {"": value.root}
    parts = {f".{name}": getattr(value, name, None) for name in names}
    for more in _MORE_IN_MODELS:
        parts |= {f".{name}": part for name, part in (getattr(value, more, None) or {}).items()}
    return parts


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value directly consists of, each with its step in a path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (f".{key}" if isinstance(key, str) else f"[{key!r}]"), item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in value:
            yield f"{{{item!r}}}", item
    else:
        yield from (parts_of(value) or {}).items()


def type_name(kind: Any) -> str:
    """Name a type as its user would."""
    return kind.__qualname__ if isinstance(kind, type) else str(kind)
