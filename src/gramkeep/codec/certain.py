"""Which values load as what they are for certain, so that loading them again needn't be tried.

A text comes back from JSON and MessagePack as that text, and so does an object made of nothing but
such values, if nothing but the types of its fields has a say in how it is made. Whether that is so
is found out of a type once. Of a value only the classes in it are looked at then: whatever a type
says, its fields may hold anything. All others are tried and compared, see
`gramkeep.codec.comparing`, which compiles its functions for the same reason.
"""

from __future__ import annotations

import keyword
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import Flag
from inspect import getattr_static
from types import MemberDescriptorType
from typing import Any, Final, TypeAlias

from msgspec import inspect

from gramkeep.envelope import MARK

SHORT: Final = 4300  # bytes: in fewer, no number has more digits than Python reads again
MOST: Final = 10**600  # and here too, with the least that may be set by `set_int_max_str_digits`
DEEP: Final = 8  # loops and conditions in each other: Python has twice as many at most

_PLAIN: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: "int",
    inspect.StrType: "str",
    inspect.BoolType: "bool",
}
_OBJECTS: Final = (inspect.DataclassType, inspect.StructType)
_Object: TypeAlias = inspect.DataclassType | inspect.StructType


class _UncertainError(Exception):
    """There is a type in it of whose values nothing is certain."""


def certain_in(root: inspect.Type, *, is_short: bool = True) -> Callable[[Any], bool]:
    """Make a function that says of a value of one type whether it loads as what it is.

    It is asked of what could be encoded, where ``is_short`` into less than `SHORT` bytes. ``False``
    means that it has to be tried, and so does any exception, as where an attribute is missing.
    """
    compiler = _Compiler(is_short=is_short)
    try:
        if isinstance(root, _OBJECTS) and not _may_be_envelope(root):
            function: Callable[[Any], bool] = compiler.made[compiler.function_for(root)]
            return function
    except _UncertainError:
        pass
    return _never


def _may_be_envelope(root: _Object) -> bool:
    names = {field.encode_name for field in root.fields}
    return MARK in names or (isinstance(root, inspect.StructType) and root.tag_field == MARK)


def _never(_value: Any) -> bool:
    return False


class _Compiler:
    """Writes functions made of nothing but statements that return ``False``, without any calls.

    Only of a class that comes again, as in a tree, a function of its own is made.
    """

    def __init__(self, *, is_short: bool) -> None:
        self.made: dict[str, Any] = {"datetime": datetime, "UTC": UTC, "most": MOST}
        self._is_short = is_short
        self._names: dict[int, str] = {}
        self._seen: set[int] = set()

    def function_for(self, kind: _Object) -> str:
        """Name the function for objects of a class, making it where it is new."""
        if id(kind) not in self._names:
            name = self._names[id(kind)] = f"certain_{len(self._names)}"
            self._seen.add(id(kind))
            text = "\n ".join([f"def {name}(x0):", *self._object("x0", kind, 1), "return True"])
            exec(text, self.made)  # noqa: S102 - of nothing but names
        return self._names[id(kind)]

    def _object(self, x: str, kind: _Object, depth: int) -> Iterator[str]:
        cls: Any = typing.get_origin(kind.cls) or kind.cls
        if not _is_made_of_fields(kind, cls):
            raise _UncertainError
        yield _unless(f"{x}.__class__ is {self._name_of(cls)}")
        for field in kind.fields:
            yield from self._value(f"{x}.{field.name}", field.type, depth)

    def _value(self, found: str, kind: inspect.Type, depth: int) -> Iterator[str]:
        """Write what has to be true of what is ``found``, a value of this type."""
        x = f"x{depth}"
        if (plain := _plain(kind)) and (plain != "int" or self._is_short):
            yield _unless(f"{found}.__class__ is {plain}")
            return
        if x != found:
            yield f"{x} = {found}"
        match kind:
            case inspect.IntType() if plain:
                yield _unless(f"{x}.__class__ is int and -most < {x} < most")
            case inspect.FloatType() if kind == inspect.FloatType():
                yield _unless(f"{x}.__class__ is float and -1e999 < {x} < 1e999")
            case inspect.DateTimeType(tz=None):
                zone = f"({x}.tzinfo is None or {x}.tzinfo is UTC)"
                yield _unless(f"{x}.__class__ is datetime and {zone}")
            case inspect.EnumType() if not issubclass(kind.cls, Flag):
                yield _unless(f"{x}.__class__ is {self._name_of(kind.cls)}")
            case inspect.DataclassType() | inspect.StructType():
                if id(kind) in self._seen or depth > DEEP:
                    yield _unless(f"{self.function_for(kind)}({x})")
                else:
                    self._seen.add(id(kind))
                    yield from self._object(x, kind, depth + 1)
            case inspect.ListType(min_length=None, max_length=None):
                yield _unless(f"{x}.__class__ is list")
                yield from self._all(x, kind.item_type, depth + 1)
            case inspect.DictType(min_length=None, max_length=None):
                if _plain(kind.key_type) != "str":
                    raise _UncertainError
                yield _unless(f"{x}.__class__ is dict")
                yield from self._all(x, kind.key_type, depth + 1)
                yield from self._all(f"{x}.values()", kind.value_type, depth + 1)
            case inspect.UnionType(types=members):
                others = [other for other in members if not isinstance(other, inspect.NoneType)]
                if len(others) != 1:  # of several, the reader chooses
                    raise _UncertainError
                yield f"if {x} is not None:"
                yield from _inner(self._value(x, others[0], depth + 1))
            case _:
                raise _UncertainError

    def _all(self, items: str, kind: inspect.Type, depth: int) -> Iterator[str]:
        """Write what has to be true of some values, all of one type."""
        if (plain := _plain(kind)) and (plain != "int" or self._is_short):
            yield _unless(f"{{*map(type, {items})}} <= {{{plain}}}")
            return
        if depth > DEEP:
            raise _UncertainError
        yield f"for x{depth} in {items}:"
        yield from _inner(self._value(f"x{depth}", kind, depth))

    def _name_of(self, cls: type) -> str:
        name = f"class_{len(self.made)}"
        self.made[name] = cls
        return name


def _unless(condition: str) -> str:
    return f"if not ({condition}): return False"


def _inner(lines: Iterator[str]) -> Iterator[str]:
    return (f" {line}" for line in lines)


def _plain(kind: inspect.Type) -> str | None:
    """Name the class of values that always come back; ``None`` for types with constraints, too."""
    is_free = type(kind) in _PLAIN and kind == type(kind)()
    return _PLAIN[type(kind)] if is_free else None


def _is_made_of_fields(kind: _Object, cls: Any) -> bool:
    """Whether nothing but the declared fields of an object is written, read and compared."""
    if isinstance(kind, inspect.StructType):
        attributes, leaves_out = cls.__struct_fields__, cls.__struct_config__.omit_defaults
    else:  # of attrs classes, validators and converters may do anything
        attributes, leaves_out = getattr(cls, "__dataclass_fields__", ()), False
    return (
        {field.name for field in kind.fields} == set(attributes)
        and not leaves_out
        and not hasattr(cls, "__post_init__")
        and cls.__new__ is object.__new__
        and cls.__getattribute__ is object.__getattribute__
        and all(name.isidentifier() and not keyword.iskeyword(name) for name in attributes)
        and not any(_is_computed(cls, name) for name in attributes)
    )


def _is_computed(cls: type, name: str) -> bool:
    found = getattr_static(cls, name, None)
    return hasattr(type(found), "__set__") and not isinstance(found, MemberDescriptorType)
