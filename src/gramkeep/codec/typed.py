"""Codecs over msgspec, for sessions of one type: what JSON and MessagePack have in common."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, NamedTuple

import msgspec
from msgspec import inspect

from gramkeep.codec.base import (
    BoundCodec,
    Codec,
    CodecError,
    EnvelopeFound,
    refuse_differences,
)
from gramkeep.codec.certain import SHORT, certain_in
from gramkeep.codec.checked import Checked
from gramkeep.codec.comparing import alike_in
from gramkeep.codec.differences import alike, children, differences, type_name
from gramkeep.codec.pydantic_classes import (
    Models,
    PydanticDataclasses,
    is_model,
    is_pydantic_dataclass,
)
from gramkeep.envelope import Envelope, is_envelope
from gramkeep.errors import ConfigurationError

PATH_IN_MESSAGE: Final = re.compile(r" - at `(?P<path>[^`]+)`$")
SETS: Final = (inspect.SetType, inspect.FrozenSetType)
# What a dict's key can't be in JSON, where it has to be text.
NO_JSON_KEYS: Final = (
    inspect.NoneType,
    inspect.BoolType,
    inspect.CollectionType,
    inspect.TupleType,
    inspect.NamedTupleType,
    inspect.DataclassType,
    inspect.StructType,
)


class Format(NamedTuple):
    """A format of msgspec's. ``mark``: what is in the bytes of every envelope."""

    name: str
    encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    mark: bytes

    @property
    def is_json(self) -> bool:
        """Whether it is JSON, which pydantic writes itself, and whose keys are text."""
        return self.encoder is msgspec.json.Encoder


class TypedCodec(Codec):
    """A codec over one of msgspec's formats."""

    format: ClassVar[Format]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def bind(self, data_type: Any) -> BoundCodec:
        """Make the codec for one type; raises `ConfigurationError` for one it can't keep."""
        try:
            return self._bind(data_type)
        # pydantic's own errors for classes whose annotations can't be resolved are of both kinds.
        except (TypeError, NameError, RuntimeError) as error:
            raise self._unfit(data_type, _first_line(error) + _advice(error)) from error

    def _bind(self, data_type: Any) -> BoundCodec:
        format_ = self.format
        root = inspect.type_info(data_type)
        kinds = list(_kinds(root))
        for kind in kinds:
            if isinstance(kind, inspect.CustomType) and not is_model(kind.cls):
                raise self._unfit(
                    data_type,
                    f"it holds {type_name(kind.cls)}, which is no dataclass, Struct, attrs class, "
                    f"pydantic model, TypedDict, NamedTuple, enum or other type with a "
                    f"{format_.name} form",
                )
            if format_.is_json and isinstance(kind, inspect.DictType) and _has_no_text(kind):
                raise self._unfit(
                    data_type,
                    "it holds a dict whose keys are neither text nor numbers, dates, UUIDs or "
                    "enums",
                )
        model_types = [kind.cls for kind in kinds if isinstance(kind, inspect.CustomType)]
        bound_class = _BoundTyped
        if model_types:
            models = Models(model_types)
            write = models.to_raw_json if format_.is_json else models.to_builtins
            encode = format_.encoder(enc_hook=write).encode
            decode = format_.decoder(data_type, dec_hook=models.from_builtins).decode
            if format_.is_json and is_model(data_type):  # the same, by the shortest way
                encode, decode = models.to_json(data_type), models.from_json(data_type)
            if models.may_leave_out():
                bound_class = _BoundVerifying
        else:
            encode = format_.encoder().encode
            decode = format_.decoder(data_type).decode
        dataclasses = [
            kind.cls
            for kind in kinds
            if isinstance(kind, inspect.DataclassType) and is_pydantic_dataclass(kind.cls)
        ]
        if dataclasses:
            decode = PydanticDataclasses(dataclasses).validating(decode)
        # Validators of pydantic's may do anything.
        fixed = inspect.AnyType() if model_types or dataclasses else root
        return bound_class(
            encode,
            decode,
            format_.decoder().decode,
            format_.mark if typing.get_origin(data_type) is not Envelope else None,
            is_certain=certain_in(fixed, is_short=True),
            is_certain_if_long=certain_in(fixed, is_short=False),
            is_alike=alike_in(root),
            has_sets=bool(model_types) or any(isinstance(kind, SETS) for kind in kinds),
        )

    def _unfit(self, data_type: Any, reason: str) -> ConfigurationError:
        text = f"sessions of type {type_name(data_type)} can't be kept as {self.format.name}: "
        return ConfigurationError(text + reason)


class _BoundTyped(BoundCodec):
    def __init__(
        self,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        decode_any: Callable[[bytes], Any],
        mark: bytes | None,
        *,
        is_certain: Callable[[Any], bool],
        is_certain_if_long: Callable[[Any], bool],
        is_alike: Callable[[Any, Any], bool],
        has_sets: bool,
    ) -> None:
        self._encode = encode
        self._decode = decode
        self._decode_any = decode_any
        self._mark = mark
        self._is_certain = is_certain
        self._is_certain_if_long = is_certain_if_long
        self._is_alike = is_alike
        self.is_canonical = not has_sets
        self._checked = Checked()

    def encode(self, value: Any, key: str) -> bytes:  # noqa: ARG002 - the same under any key
        try:
            return self._encode(value)
        except RecursionError as error:
            raise CodecError("it contains itself, or is nested too deeply") from error
        except Exception as error:  # users' classes have a say in it, and may raise anything
            raise CodecError(*_where_unencodable(value, error, self._encode)) from error

    def decode(self, data: bytes, key: str) -> Any:  # noqa: ARG002
        try:
            # find() is twice as fast as `in`, which takes the mark for a number first.
            if (mark := self._mark) is not None and data.find(mark) >= 0:
                self._refuse_envelope(data)
            return self._decode(data)
        except CodecError:
            raise
        except Exception as error:  # as above: constructors and validators run
            raise _undecodable(error) from error

    def is_canonical_form(self, encoded: bytes) -> bool:
        return encoded in self._checked

    def is_same(self, value: Any, encoded: bytes, stored: bytes, key: str) -> bool:
        back = self.decode(stored, key)
        if encoded == self.encode(back, key):
            return True
        # Sets have no order, so that equal ones may be written down differently.
        return not self.is_canonical and (
            alike(value, back) or not any(True for _ in differences(value, back))
        )

    def check(self, value: Any, encoded: bytes, key: str) -> None:
        try:
            is_short = len(encoded) < SHORT
            if (self._is_certain if is_short else self._is_certain_if_long)(value):
                self._checked.add(encoded)
                return
            has_mark = (mark := self._mark) is not None and encoded.find(mark) >= 0
            if not has_mark and self._is_alike(value, self._decode(encoded)):
                self._checked.add(encoded)
                return
        except Exception:  # noqa: BLE001, S110 - the slow way finds it again, and says where
            pass
        super().check(value, encoded, key)

    def _refuse_envelope(self, data: bytes) -> None:
        if is_envelope(self._decode_any(data)):
            raise EnvelopeFound


class _BoundVerifying(_BoundTyped):
    """For models of which part isn't written: that this is lost shows in no change of bytes."""

    def encode(self, value: Any, key: str) -> bytes:
        encoded = super().encode(value, key)
        try:
            back = self.decode(encoded, key)
        except CodecError:
            return encoded  # the check refuses it, should it be about to be written
        refuse_differences(value, back)
        return encoded


def _undecodable(error: Exception) -> CodecError:
    if isinstance(error, RecursionError):
        return CodecError("it is nested too deeply")
    reason = str(error) or type(error).__name__
    found = PATH_IN_MESSAGE.search(reason)
    path = "$" if found is None else found["path"]
    if isinstance(inner := error.__cause__, CodecError):  # of a pydantic model at this path
        return CodecError(inner.reason, path + inner.path[1:])
    if not isinstance(error, ValueError | msgspec.MsgspecError):  # raised by the user's class
        reason = f"{type(error).__name__}: {reason}"
    return CodecError(reason if found is None else reason[: found.start()], path)


def _where_unencodable(
    value: Any, error: Exception, encode: Callable[[Any], bytes]
) -> tuple[str, str]:
    """Find the place that the error, which names none, is about."""
    reason = str(error) or type(error).__name__
    path = "$"
    parents = set()
    prepare: Callable[[Any], Any] = lambda item: item  # noqa: E731
    while id(value) not in parents:
        parents.add(id(value))
        if is_model(type(value)):  # what is in a model is written by pydantic
            from pydantic_core import to_jsonable_python  # noqa: PLC0415 - it is loaded

            prepare = to_jsonable_python
        for step, item in children(value):
            try:
                encode(prepare(item))
            except Exception:  # noqa: BLE001 - whatever it is, it is found here
                path, value = path + step, item
                break
        else:
            return reason, path
    return "it contains itself", path


def _kinds(root: inspect.Type) -> Iterator[inspect.Type]:
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
                if isinstance(inner, inspect.Field):
                    waiting.append(inner.type)
                elif isinstance(inner, inspect.Type):
                    waiting.append(inner)


def _has_no_text(kind: inspect.DictType) -> bool:
    key = kind.key_type
    members = key.types if isinstance(key, inspect.UnionType) else (key,)
    return any(isinstance(member, NO_JSON_KEYS) for member in members)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # pydantic's goes on with a link


def _advice(error: Exception) -> str:
    if "unions" not in str(error).lower():
        return ""
    return (
        ". Make its members tagged Structs of msgspec, or pydantic models in a RootModel with a "
        "discriminator: stored data has to say which of them it is"
    )
