"""`Session[T]`: what a handler holds of its session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar

from gramkeep.errors import GramkeepError, SessionClosed, SessionNotLoaded
from gramkeep.locks import Ticket
from gramkeep.state import Loaded
from gramkeep.storage import Record

T = TypeVar("T")


class State(Enum):
    """How far a session's data is known."""

    UNREAD = "unread"
    LOADED = "loaded"
    ASSIGNED = "assigned"  # set without having been read: saving overwrites whatever is stored


# By these names they cost a tenth of what the class's attributes take, many times an update.
UNREAD: Final = State.UNREAD
LOADED: Final = State.LOADED
ASSIGNED: Final = State.ASSIGNED


class Keeper(Protocol):
    """What a handle asks of its kind."""

    storage_name: str
    prefix: str

    async def load(self, session: Session[Any]) -> None: ...
    async def save(self, session: Session[Any]) -> None: ...
    async def clear(self, session: Session[Any]) -> None: ...
    async def reload(self, session: Session[Any]) -> None: ...


Refusal: TypeAlias = "Callable[[Session[Any]], GramkeepError]"


class Mirror(Protocol):
    """Another place that shows the data, and where it may be replaced as well."""

    def push(self) -> None:
        """Show what the handle holds now."""

    def pull(self) -> None:
        """Tell the handle what was put in place of its data."""


class Session(Generic[T]):
    """One session, during one update.

    ``await session`` loads it where that hasn't happened, and gives the data; so does ``data``
    once it is loaded. Changes are saved when the update is over and its handler raised nothing.
    After that every use raises `SessionClosed`; where the update has no session at all, every
    use raises `NoSessionKey`.
    """

    __slots__ = (
        "_asked",
        "_baselines",
        "_data",
        "_encoded",
        "_is_leased",
        "_is_new",
        "_is_over",
        "_keeper",
        "_lock",
        "_mirror",
        "_origin",
        "_record",
        "_refusal",
        "_state",
        "_stored_key",
        "_ticket",
    )

    def __init__(self, keeper: Keeper, stored_key: str, origin: Any) -> None:
        self._keeper = keeper
        self._stored_key = stored_key
        self._origin = origin
        self._state: State = UNREAD
        self._data: T | None = None
        self._record: Record | None = None
        self._is_new: bool | None = None  # not known before it is loaded
        self._baselines: tuple[bytes, ...] = ()  # what the unchanged data encodes to
        self._encoded = b""  # what it encoded to when it was found to be changed
        self._ticket: Ticket | None = None
        self._asked = 0.0  # when it began to wait for its turn, on the monotonic clock
        self._is_leased = False  # this process may hold it in the storage
        self._lock: asyncio.Lock | None = None
        self._is_over = False  # it is saved for the last time: nothing is to begin beside that
        self._refusal: Refusal | None = None  # why it can't be used
        self._mirror: Mirror | None = None

    def __repr__(self) -> str:
        state = "unavailable" if self._refusal else self._state.value
        key = self._stored_key.removeprefix(self._keeper.prefix)
        return f"<Session {key!r} in {self._keeper.storage_name}, {state}>"

    @property
    def is_open(self) -> bool:
        """Whether the session can be used: its update has one, and isn't over."""
        return self._refusal is None

    @property
    def key(self) -> str:
        """The session's key, as ``get_session_key`` gave it."""
        if self._refusal is not None:
            raise self._refusal(self)
        return self._stored_key.removeprefix(self._keeper.prefix)

    @property
    def data(self) -> T:
        """The session's data. Set it to replace the data, to ``None`` to delete the session.

        Reading raises `SessionNotLoaded` for a lazy session that was not awaited yet. Setting
        needs no loading: it overwrites whatever is stored.
        """
        if self._refusal is not None:
            raise self._refusal(self)
        if self._mirror is not None:
            self._mirror.pull()
        if self._state is UNREAD:
            self._raise_not_loaded()
        return self._data  # type: ignore[return-value] # None only where T says so, or by deletion

    @data.setter
    def data(self, value: T | None) -> None:
        if self._refusal is not None:
            raise self._refusal(self)
        if self._state is UNREAD:
            self._state = ASSIGNED
        self._replace(value)

    @property
    def is_new(self) -> bool:
        """Whether nothing was stored for this session when it was loaded.

        Raises `SessionNotLoaded` for a lazy session that wasn't, also where its data was set.
        """
        if self._refusal is not None:
            raise self._refusal(self)
        if self._is_new is None:
            self._raise_not_loaded()
        return self._is_new

    def __await__(self) -> Generator[Any, None, T]:
        return self._load_once().__await__()

    async def save(self) -> None:
        """Save now, in the middle of the handler; what fails later doesn't undo it.

        Raises what saving at the end raises: `SessionConflict`, `SessionEncodeError`,
        `SessionTooLarge`, `StorageUnavailable`.
        """
        async with self._alone():
            await self._keeper.save(self)

    async def clear(self) -> None:
        """Delete the session now; ``data`` is initial again, and saved only if it changes.

        Works on a session that can't be loaded, too. Raises `SessionConflict` where another
        writer changed it after it was loaded, `StorageUnavailable`.
        """
        async with self._alone():
            await self._keeper.clear(self)

    async def reload(self) -> None:
        """Forget all unsaved changes and read again what is stored.

        Raises `SessionDecodeError`, `StorageUnavailable`.
        """
        async with self._alone():
            await self._keeper.reload(self)

    async def _load_once(self) -> T:
        if self._mirror is not None:
            self._mirror.pull()
        if self._state is UNREAD:
            async with self._alone():
                if self._state is UNREAD:
                    await self._keeper.load(self)
        return self.data

    def _alone(self) -> asyncio.Lock:
        """Let the tasks of one update use its handle one after the other."""
        if self._refusal is not None:
            raise self._refusal(self)
        if self._is_over:
            raise self._closed()
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    def _become(self, record: Record | None, loaded: Loaded) -> None:
        self._record = record
        self._baselines = loaded.baselines
        self._is_new = loaded.is_new
        self._state = LOADED
        self._data = loaded.data
        if self._mirror is not None:
            self._mirror.push()

    def _replace(self, value: T | None) -> None:
        self._data = value
        if self._mirror is not None:
            self._mirror.push()

    def _closed(self) -> GramkeepError:
        """Say why a handle whose update is over can't be used."""
        return SessionClosed(key=self._stored_key, storage=self._keeper.storage_name)

    def _raise_not_loaded(self) -> NoReturn:
        raise SessionNotLoaded(
            key=self._stored_key,
            storage=self._keeper.storage_name,
            was_assigned=self._state is not UNREAD,
        )


class NoSession:
    """Stands where the data would be, in an update that has no session: any use raises."""

    __slots__ = ("_refusal",)

    def __init__(self, refusal: Callable[[], GramkeepError]) -> None:
        object.__setattr__(self, "_refusal", refusal)

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(self)

    def __repr__(self) -> str:
        return "<no session for this update>"


def _refuse(self: NoSession, *_: object) -> NoReturn:
    refusal = object.__getattribute__(self, "_refusal")
    raise refusal()


# Python looks operators up on the class, so that each needs a method there.
for _name in (
    *("setattr", "delattr", "getitem", "setitem", "delitem", "contains", "iter", "reversed"),
    *("len", "bool", "call", "str", "format", "bytes", "hash", "await", "enter", "aenter"),
    *("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", "round", "index"),
    *("int", "float", "complex", "aiter", "dir"),
    *(
        f"{form}{operator}"
        for operator in (
            *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
            *("lshift", "rshift", "and", "or", "xor"),
        )
        for form in ("", "r", "i")
    ),
):
    setattr(NoSession, f"__{_name}__", _refuse)
