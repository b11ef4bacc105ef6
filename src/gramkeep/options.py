"""What a user may set, checked once, when the bot starts."""

from __future__ import annotations

import inspect
import keyword
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar

from gramkeep.codec import Codec, JSONCodec
from gramkeep.envelope import Migrations, check_migrations
from gramkeep.errors import ConfigurationError
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.origin import SessionKeyFunction, per_chat
from gramkeep.state import StateCodec
from gramkeep.storage import Storage, StorageAdapter

T = TypeVar("T")

Isolation: TypeAlias = Literal["serial", "optimistic"]


class CommonOptions(TypedDict, total=False):
    """The options that don't decide the session's type; see `SessionOptions`."""

    storage: Storage | StorageAdapter[Any] | str | None
    get_session_key: SessionKeyFunction
    prefix: str | None
    key: str
    lazy: bool
    ttl: Lifetime | None
    refresh_ttl: Literal["write", "access"]
    migrations: Migrations | None
    merge: Callable[[Any, Any], Any] | None
    codec: Codec
    isolation: Isolation
    lock_timeout: Lifetime
    lease: Lifetime | None
    max_bytes: int


@dataclass(slots=True, kw_only=True)
class SessionOptions(Generic[T]):
    """The options of one kind of session. All have defaults; wrong ones raise ConfigurationError.

    - ``initial`` makes the value of a new session: a class, or a function, which may take the
      update's origin and may be async. Without it a session is ``None`` until assigned.
    - ``data_type`` is what stored bytes are decoded to, where ``initial`` doesn't tell by being a
      class, by its return annotation, or by what it returns.
    - ``storage``: a `Storage`, a URL (``sqlite:///bot.db``), or any object with ``read``, ``write``
      and ``delete``; memory by default.
    - ``get_session_key``: origin to key, or to ``None`` for updates without a session.
    - ``prefix`` is put before every key in the storage; by default nothing is, and in a multi
      session the part's name and a colon.
    - ``key`` is the name under which handlers get the session, ``<key>_handle`` its handle.
    - ``lazy``: load when the session is awaited, not before.
    - ``ttl``: lifetime, a timedelta or seconds, from the last ``refresh_ttl``: ``"write"`` or
      ``"access"``, which needs a ``ttl``.
    - ``migrations``: ``{version: old -> new}``, any numbers; those above the stored version run in
      their order, on plain decoded data, whenever it is loaded, until the session is saved in its
      new form. What is stored without a version is older than all. May be async.
    - ``merge``: old and new data -> data, where a session moves to a key that has one already, as
      when a group becomes a supergroup in which the bot was used. May be async. By default both
      are kept.
    - ``codec`` writes sessions down.
    - ``isolation``: ``"serial"``, one update at a time per key, or ``"optimistic"``, no lock, and
      a `SessionConflict` where two meet.
    - ``lock_timeout``: how long an update waits for its session, a timedelta or seconds.
    - ``lease``: how long a process that died can hold a session from the others, a timedelta or
      seconds; renewed while the handler runs. 30 s by default, where the storage can lease; where
      it can't, or with ``isolation="optimistic"``, it must be left out.
    - ``max_bytes``: the largest encoded session.
    """

    initial: Callable[..., T] | Callable[..., Awaitable[T]] | None = None
    data_type: Any = None
    storage: Storage | StorageAdapter[Any] | str | None = None
    get_session_key: SessionKeyFunction = per_chat
    prefix: str | None = None
    key: str = "session"
    lazy: bool = False
    ttl: Lifetime | None = None
    refresh_ttl: Literal["write", "access"] = "write"
    migrations: Migrations | None = None
    merge: Callable[[T, T], T | Awaitable[T]] | None = None
    codec: Codec = JSONCodec()  # noqa: RUF009 - it has no state to share
    isolation: Isolation = "serial"
    lock_timeout: Lifetime = 60.0
    lease: Lifetime | None = None
    max_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("initial", "get_session_key", "merge"):
            value = getattr(self, name)
            if not callable(value) and not (value is None and name != "get_session_key"):
                text = f"{name}={value!r} can't be called; pass a class or a function"
                raise ConfigurationError(text)
        for name, value in (("prefix", self.prefix), ("key", self.key)):
            if not isinstance(value, str) and not (value is None and name == "prefix"):
                text = f"{name}={value!r} must be a string"
                raise ConfigurationError(text)
        if self.prefix:
            _check_prefix(self.prefix)
        if not self.key.isidentifier() or keyword.iskeyword(self.key):
            text = f"key={self.key!r} can't be a handler's parameter; use a Python identifier"
            raise ConfigurationError(text)
        if not isinstance(self.lazy, bool):
            text = f"lazy={self.lazy!r} must be True or False"
            raise ConfigurationError(text)
        for name, choices in (
            ("isolation", ("serial", "optimistic")),
            ("refresh_ttl", ("write", "access")),
        ):
            if getattr(self, name) not in choices:
                text = f"{name}={getattr(self, name)!r} must be one of {', '.join(choices)}"
                raise ConfigurationError(text)
        check_migrations(self.migrations)
        if not isinstance(self.codec, Codec):
            text = f"codec={self.codec!r} is no Codec; pass an instance, as in codec=JSONCodec()"
            raise ConfigurationError(text)
        if type(self.max_bytes) is not int or self.max_bytes <= 0:
            text = f"max_bytes={self.max_bytes!r} must be a number of bytes above 0"
            raise ConfigurationError(text)
        self.lock_timeout = positive_seconds("lock_timeout", self.lock_timeout)
        if self.lease is not None:
            self.lease = positive_seconds("lease", self.lease)
            if self.isolation == "optimistic":
                text = "lease= is of no use with isolation='optimistic', which holds no session"
                raise ConfigurationError(text)
        if self.ttl is not None:
            self.ttl = positive_seconds("ttl", self.ttl)
        elif self.refresh_ttl == "access":
            text = "refresh_ttl='access' counts ttl= anew, and there is none: pass a ttl=, too"
            raise ConfigurationError(text)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SessionOptions[T]:
        """Make the options that a user gave by keyword."""
        known = cls.__dataclass_fields__
        if unknown := options.keys() - known.keys():
            text = f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            raise ConfigurationError(text)
        return cls(**options)

    @property
    def handle_key(self) -> str:
        """The name under which handlers get the session's handle."""
        return f"{self.key}_handle"

    def bind_codec(self) -> StateCodec:
        """Make the codec for the type that ``data_type`` or ``initial`` tell."""
        data_type = _data_type(self.data_type, self.initial)
        return StateCodec(self.codec, data_type, self.migrations)


def _check_prefix(prefix: str) -> None:
    try:
        prefix.encode()
    except UnicodeEncodeError:
        text = f"prefix={prefix!r} can't begin a key: it must be a string of whole characters"
        raise ConfigurationError(text) from None


def wants_origin(initial: Callable[..., Any] | None) -> bool:
    """Whether ``initial`` takes the update's origin: it has a parameter without a default."""
    if initial is None or isinstance(initial, type) or typing.get_origin(initial):
        return False
    try:
        required = _required_parameters(initial)
    except ValueError as error:
        text = (
            f"initial={initial!r} doesn't say what arguments it takes: pass a function that calls "
            "it, such as lambda: make()"
        )
        raise ConfigurationError(text) from error
    by_name = [name for name, kind in required.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    if len(required) > 1 or by_name:
        text = (
            f"initial={initial!r} needs the arguments {', '.join(required)}; it is called with "
            "none, or with the update's origin alone, by position"
        )
        raise ConfigurationError(text)
    return bool(required)


def _required_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: parameter.kind
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _data_type(data_type: Any, initial: Callable[..., Any] | None) -> Any:
    if data_type is not None:
        return data_type
    if initial is None:
        return Any
    if typing.get_origin(initial):  # list[int] and its like
        return initial
    if isinstance(initial, type):
        if not _is_typed_dict(initial) and (missing := _required_of_class(initial)):
            text = (
                f"initial={initial.__qualname__} can't be made without arguments: give "
                f"{', '.join(missing)} defaults, or pass a function that makes one"
            )
            raise ConfigurationError(text)
        return initial
    declared = _return_annotation(initial)
    if declared is not None:
        return declared
    if wants_origin(initial) or inspect.iscoroutinefunction(initial):
        text = (
            f"the type of the session can't be told from initial={initial!r}: annotate what it "
            "returns, or pass data_type="
        )
        raise ConfigurationError(text)
    made = initial()
    if inspect.iscoroutine(made):
        made.close()
        text = f"initial={initial!r} is async: annotate what it returns, or pass data_type="
        raise ConfigurationError(text)
    return Any if made is None else type(made)


def _is_typed_dict(kind: type) -> bool:
    return typing.is_typeddict(kind)


def _required_of_class(kind: type) -> list[str]:
    try:
        return list(_required_parameters(kind))
    except ValueError:  # builtins such as dict tell no signature, and take no arguments
        return []


def _return_annotation(function: Callable[..., Any]) -> Any:
    """Read the return annotation of a function; ``None`` if there is none that can be resolved."""
    target = function
    if not isinstance(target, types.FunctionType | types.MethodType):
        target = type(function).__call__
    try:
        hints: Mapping[str, Any] = typing.get_type_hints(target)
    except NameError as error:
        text = (
            f"the return annotation of initial={function!r} can't be resolved ({error}): import "
            "the type where the function is defined, or pass data_type="
        )
        raise ConfigurationError(text) from error
    declared = hints.get("return")
    if inspect.isclass(of := typing.get_origin(declared)) and issubclass(of, Awaitable):
        return typing.get_args(declared)[-1]  # of Coroutine, the third one is what it returns
    return declared
