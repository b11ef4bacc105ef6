"""`alike` for one type, made once: what is known of the type isn't found out again at each save.

The functions are compiled from text, as those of dataclasses are, and for the same reason: the
check before a save would take two or three times as long.
"""

from __future__ import annotations

import keyword
import typing
from collections.abc import Callable
from typing import Any, Final

from msgspec import inspect

from gramkeep.codec.differences import alike

_PLAIN: Final = (
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.BoolType,
    inspect.BytesType,
    inspect.DateType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
)
_OBJECTS: Final = (inspect.DataclassType, inspect.StructType)

# Types first: an enum member equals its value, and False equals 0.
_OTHER_TYPE: Final = "x.__class__ is not y.__class__"
_DIFFERENT: Final = f"{_OTHER_TYPE} or x != y"


def alike_in(root: inspect.Type) -> Callable[[Any, Any], bool]:
    """Make `alike` for values of one type; it is right for others, too, and then slower."""
    compiler = _Compiler()
    function: Callable[[Any, Any], bool] = compiler.made[compiler.function_for(root)]
    return function


class _Compiler:
    def __init__(self) -> None:
        self.made: dict[str, Any] = {"alike": alike}
        self._names: dict[int, str] = {}

    def function_for(self, kind: inspect.Type) -> str:
        """Name the function that compares values of a type, making it where it is new."""
        if id(kind) in self._names:
            return self._names[id(kind)]
        lines = [f"if {_OTHER_TYPE}: return False"]
        if isinstance(kind, inspect.ListType) and isinstance(kind.item_type, (*_PLAIN, *_OBJECTS)):
            name = self._new_name(kind)
            if isinstance(kind.item_type, _PLAIN):
                lines += ["return x == y and [*map(type, x)] == [*map(type, y)]"]
            else:
                item = self.function_for(kind.item_type)
                lines += [f"return len(x) == len(y) and all(map({item}, x, y))"]
        elif isinstance(kind, _OBJECTS) and (attributes := _attributes(kind)):
            name = self._new_name(kind)
            lines += ["a, b = x, y"]
            declared = {field.name: field.type for field in kind.fields}
            for attribute in attributes:
                lines += [f"x, y = a.{attribute}, b.{attribute}"]
                lines += [f"if {self._difference(declared.get(attribute))}: return False"]
            lines += ["return True"]
        else:
            return "alike"
        text = "\n ".join([f"def {name}(x, y):", *lines])
        exec(text, self.made)  # noqa: S102 - of nothing but names of attributes
        return name

    def _difference(self, kind: inspect.Type | None) -> str:
        if isinstance(kind, _PLAIN):
            return _DIFFERENT
        if isinstance(kind, inspect.DateTimeType):
            same_offset = "x.tzinfo is y.tzinfo or x.utcoffset() == y.utcoffset()"
            return f"{_DIFFERENT} or not ({same_offset})"
        return f"not {'alike' if kind is None else self.function_for(kind)}(x, y)"

    def _new_name(self, kind: inspect.Type) -> str:
        return self._names.setdefault(id(kind), f"alike_{len(self._names)}")


def _attributes(kind: inspect.DataclassType | inspect.StructType) -> list[str]:
    """Give the names of all attributes; of none, if not all can stand in Python text."""
    cls: Any = typing.get_origin(kind.cls) or kind.cls
    for names in ("__dataclass_fields__", "__struct_fields__"):
        if hasattr(cls, names):
            found = list(getattr(cls, names))
            break
    else:
        found = [attribute.name for attribute in cls.__attrs_attrs__]
    stands = all(name.isidentifier() and not keyword.iskeyword(name) for name in found)
    return found if stands else []
