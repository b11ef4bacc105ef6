"""pydantic's classes in the type of a session: kept and validated by pydantic itself.

Models are written by pydantic, under their fields' names, and validated by it when they load.
pydantic's dataclasses are written as any dataclass is, and validated when they load. Nothing here
imports pydantic, unless a session's type has one of its classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gramkeep.codec.base import CodecError
from gramkeep.codec.differences import children, type_name
from gramkeep.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

OLDEST: Final = (2, 11)  # the first that can leave aliases out of it, see BY_NAME
# Aliases may differ between reading and writing, lead into nested data, or be many. Names don't.
BY_NAME: Final[dict[str, Any]] = {"by_alias": False, "by_name": True}
EXACTLY: Final[dict[str, Any]] = {"by_alias": False, "round_trip": True, "warnings": "none"}


def is_model(kind: Any) -> bool:
    """Whether a class is a pydantic model."""
    return (
        isinstance(kind, type)
        and hasattr(kind, "__pydantic_validator__")
        and not hasattr(kind, "__dataclass_fields__")
    )


def is_pydantic_dataclass(kind: type) -> bool:
    """Whether a dataclass is one of pydantic's, and not just derived from one."""
    return "__pydantic_validator__" in vars(kind)


class Models:
    """The pydantic models in the type of a session."""

    def __init__(self, models: Iterable[type]) -> None:
        self._adapters = {model: _adapter(model) for model in models}

    def may_leave_out(self) -> bool:
        """Whether a model may change without a change in what is written of it."""
        return any(_leaves_out(adapter.core_schema) for adapter in self._adapters.values())

    def to_raw_json(self, value: Any) -> msgspec.Raw:
        """Write a model down as a part of JSON: an ``enc_hook``."""
        return msgspec.Raw(self._adapter_of(value).serializer.to_json(value, **EXACTLY))

    def to_builtins(self, value: Any) -> Any:
        """Make a model what JSON knows: an ``enc_hook``."""
        return self._adapter_of(value).serializer.to_python(value, mode="json", **EXACTLY)

    def from_builtins(self, model: type, data: Any) -> Any:
        """Make a model of what JSON knows: a ``dec_hook``."""
        from pydantic_core import to_json  # noqa: PLC0415 - see the module

        # As JSON, since a strict model takes no text for a datetime otherwise.
        return self.from_json(model)(to_json(data, inf_nan_mode="constants"))

    def from_json(self, model: type) -> Callable[[bytes], Any]:
        """Give the function that makes this model of JSON."""
        from pydantic import ValidationError  # noqa: PLC0415

        validate = self._adapters[model].validator.validate_json

        def decode(data: bytes) -> Any:
            try:
                return validate(data, **BY_NAME)
            except ValidationError as error:
                raise _refusal(error, data) from error

        return decode

    def to_json(self, model: type) -> Callable[[Any], bytes]:
        """Give the function that makes JSON of this model."""
        write = self._adapters[model].serializer.to_json
        return lambda value: write(value, **EXACTLY)

    def _adapter_of(self, value: Any) -> TypeAdapter[Any]:
        # A model of a class derived from the declared one is written as the declared one: the
        # check that follows finds that it would load as such, and says so.
        for kind in type(value).__mro__:
            if kind in self._adapters:
                return self._adapters[kind]
        raise TypeError(f"Encoding objects of type {type_name(type(value))} is unsupported")


class PydanticDataclasses:
    """The dataclasses of pydantic in the type of a session."""

    def __init__(self, classes: Iterable[type]) -> None:
        self._adapters = {kind: _adapter(kind) for kind in classes}

    def validating(self, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Have what ``decode`` gives validated by pydantic."""
        from pydantic import ValidationError  # noqa: PLC0415
        from pydantic.fields import FieldInfo  # noqa: PLC0415
        from pydantic_core import ArgsKwargs  # noqa: PLC0415

        def decode_and_validate(data: bytes) -> Any:
            value = decode(data)
            for path, item in self._found_in(value, "$"):
                kind: type[Any] = type(item)
                # A pydantic Field() as a default is nothing that msgspec knows: it stands itself
                # where there is no value.
                arguments = {
                    name: given
                    for name, field in kind.__dataclass_fields__.items()
                    if field.init and type(given := getattr(item, name)) is not FieldInfo
                }
                new = object.__new__(kind)
                try:
                    # What the class itself does when it is called, but for the aliases.
                    self._adapters[kind].validator.validate_python(
                        ArgsKwargs((), arguments), self_instance=new, **BY_NAME
                    )
                except ValidationError as error:
                    refusal = _refusal(error, None)
                    raise CodecError(refusal.reason, path + refusal.path[1:]) from error
                for name, field in kind.__dataclass_fields__.items():
                    if field.init:
                        object.__setattr__(item, name, getattr(new, name))
            return value

        return decode_and_validate

    def _found_in(self, value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if type(value) in self._adapters:
            yield path, value
        if not is_model(type(value)):  # those are validated, with all that is in them
            for step, item in children(value):
                yield from self._found_in(item, path + step)


def _adapter(kind: type) -> TypeAdapter[Any]:
    """Give what validates and writes a class, which may have been waiting for its annotations."""
    import pydantic  # noqa: PLC0415 - loaded long since, by the module that made the class

    if tuple(map(int, pydantic.VERSION.split(".")[:2])) < OLDEST:
        text = (
            f"sessions with {type_name(kind)} need pydantic {'.'.join(map(str, OLDEST))} or newer, "
            f'and {pydantic.VERSION} is installed: pip install "gramkeep[pydantic]"'
        )
        raise ConfigurationError(text)
    config = getattr(kind, "__pydantic_config__", None) or {}
    if not hasattr(kind, "model_fields") and config.get("extra") == "allow":
        text = (
            f"{type_name(kind)} is a dataclass that takes extra attributes, which would not be "
            "saved; make it a pydantic model, or take extra='allow' out of its config"
        )
        raise ConfigurationError(text)
    adapter: TypeAdapter[Any] = pydantic.TypeAdapter(kind)
    adapter.rebuild(raise_errors=True)
    return adapter


def _leaves_out(schema: Any) -> bool:
    """Whether pydantic's schema has private attributes, excluded fields or users' serializers."""
    seen: set[int] = set()
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            serialization = part.get("serialization")
            if (
                (part.get("type") == "model" and part["cls"].__private_attributes__)
                or part.get("serialization_exclude")
                or part.get("serialization_exclude_if")
                or (isinstance(serialization, dict) and "function" in serialization)
            ):
                return True
    return False


def _refusal(error: ValidationError, data: bytes | None) -> CodecError:
    """Say what the first error of pydantic says, at its place in ``data``."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = "$"
    if first["type"] == "json_invalid":
        return CodecError(first["msg"], path)
    # A location also names the members of unions, which are no place in the data: where the data
    # is at hand, only what leads on in it counts, and a last step that leads to nothing there.
    here: Any = None if data is None else msgspec.json.decode(data)
    for part in first["loc"]:
        if data is not None:
            try:
                here = here[part]
            except (TypeError, KeyError, IndexError):
                if first["type"] != "missing" or part != first["loc"][-1]:
                    continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return CodecError(first["msg"], path)
