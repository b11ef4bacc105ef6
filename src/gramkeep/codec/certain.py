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
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Flag
from inspect import getattr_static
from types import MemberDescriptorType
from typing import Any, Final

from msgspec import inspect

from gramkeep.envelope import MARK

SHORT: Final = 4300  # bytes: in fewer, no number has more digits than Python reads again

_PLAIN: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: "int",
    inspect.StrType: "str",
    inspect.BoolType: "bool",
}
_OBJECTS: Final = (inspect.DataclassType, inspect.StructType)


class _UncertainError(Exception):
    """There is a type in it of whose values nothing is certain."""


def certain_in(root: inspect.Type) -> Callable[[Any], bool]:
    """Make a function that says of a value of one type whether it loads as what it is.

    It is asked of what could be encoded, into less than `SHORT` bytes. ``False`` means that it has
    to be tried, and so does any exception, as where an attribute is missing.
    """
    compiler = _Compiler()
    try:
        if isinstance(root, _OBJECTS) and not _may_be_envelope(root):
            function: Callable[[Any], bool] = compiler.made[compiler.function_for(root)]
            return function
    except _UncertainError:
        pass
    return _never


def _may_be_envelope(root: inspect.DataclassType | inspect.StructType) -> bool:
    names = {field.encode_name for field in root.fields}
    return MARK in names or (isinstance(root, inspect.StructType) and root.tag_field == MARK)


def _never(_value: Any) -> bool:
    return False


class _Compiler:
    def __init__(self) -> None:
        self.made: dict[str, Any] = {"datetime": datetime, "UTC": UTC}
        self._names: dict[int, str] = {}

    def function_for(self, kind: inspect.DataclassType | inspect.StructType) -> str:
        """Name the function for objects of a class, making it where it is new."""
        if id(kind) in self._names:
            return self._names[id(kind)]
        cls: Any = typing.get_origin(kind.cls) or kind.cls
        if not _is_made_of_fields(kind, cls):
            raise _UncertainError
        name = self._names[id(kind)] = f"certain_{len(self._names)}"
        lines = [f"if x.__class__ is not {self._name_of(cls)}: return False", "a = x"]
        for field in kind.fields:
            lines += [f"x = a.{field.name}", f"if not ({self._test(field.type)}): return False"]
        text = "\n ".join([f"def {name}(x):", *lines, "return True"])
        exec(text, self.made)  # noqa: S102 - of nothing but names
        return name

    def _test(self, kind: inspect.Type) -> str:
        """Write what has to be true of ``x``, a value of this type."""
        if plain := _plain(kind):
            return f"x.__class__ is {plain}"
        match kind:
            case inspect.FloatType() if kind == inspect.FloatType():
                return "x.__class__ is float and -1e999 < x < 1e999"
            case inspect.DateTimeType(tz=None):
                return "x.__class__ is datetime and (x.tzinfo is None or x.tzinfo is UTC)"
            case inspect.EnumType() if not issubclass(kind.cls, Flag):
                return f"x.__class__ is {self._name_of(kind.cls)}"
            case inspect.DataclassType() | inspect.StructType():
                return f"{self.function_for(kind)}(x)"
            case inspect.ListType(min_length=None, max_length=None):
                return f"x.__class__ is list and {self._all('x', kind.item_type)}"
            case inspect.DictType(min_length=None, max_length=None):
                if _plain(kind.key_type) == "str":
                    keys = self._all("x", kind.key_type)
                    return f"x.__class__ is dict and {keys} and " + self._all(
                        "x.values()", kind.value_type
                    )
            case inspect.UnionType(types=members):
                others = [other for other in members if not isinstance(other, inspect.NoneType)]
                if len(others) == 1:  # of several, the reader chooses
                    return f"(x is None or {self._test(others[0])})"
        raise _UncertainError

    def _all(self, items: str, kind: inspect.Type) -> str:
        """Write what has to be true of some values, all of one type."""
        if plain := _plain(kind):
            return f"{{*map(type, {items})}} <= {{{plain}}}"
        return f"all([{self._test(kind)} for x in {items}])"

    def _name_of(self, cls: type) -> str:
        name = f"class_{len(self.made)}"
        self.made[name] = cls
        return name


def _plain(kind: inspect.Type) -> str | None:
    """Name the class of values that always come back; ``None`` for types with constraints, too."""
    is_free = type(kind) in _PLAIN and kind == type(kind)()
    return _PLAIN[type(kind)] if is_free else None


def _is_made_of_fields(kind: inspect.DataclassType | inspect.StructType, cls: Any) -> bool:
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
