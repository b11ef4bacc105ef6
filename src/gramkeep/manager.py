"""`Sessions[T]`: the only orchestrator. Lock, read, decode, hand out, encode, write."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from gramkeep.codec import CodecError
from gramkeep.errors import (
    ConfigurationError,
    NoSessionKey,
    SessionBusy,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionTooLarge,
    StorageUnavailable,
)
from gramkeep.handle import Session, State
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.locks import HeldByThisTask, KeyLocks
from gramkeep.options import CommonOptions, SessionOptions, wants_origin
from gramkeep.origin import Origin, session_key, why_no_key
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record, Storage
from gramkeep.storage_url import storage_from_url

T = TypeVar("T")
V = TypeVar("V")

log = logging.getLogger("gramkeep")

# Managers over one storage share its locks: what is first come, first served, is the record.
_locks_of: WeakKeyDictionary[Storage, KeyLocks] = WeakKeyDictionary()

_WRITTEN = object()  # the token of a value this update wrote itself, of which no storage told one
_NOWHERE = Origin()


class Sessions(Generic[T]):
    """All sessions of one kind, in one storage, under one set of options.

    Handlers get theirs through an integration or middleware; jobs, web back ends and scripts use
    this class directly, under the same locks and promises. Options are those of
    `SessionOptions`, keyword only. Belongs to one event loop at a time.

    ``async with`` closes it at the end, as does `aclose`.
    """

    @overload
    def __init__(
        self,
        *,
        initial: Callable[..., Awaitable[T]],
        data_type: Any = None,
        **options: Unpack[CommonOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        initial: Callable[..., T],
        data_type: Any = None,
        **options: Unpack[CommonOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Sessions[V | None],
        *,
        data_type: type[V],
        **options: Unpack[CommonOptions],
    ) -> None: ...

    @overload
    def __init__(self: Sessions[Any], **options: Unpack[CommonOptions]) -> None: ...

    def __init__(self, **options: Any) -> None:
        try:
            self.options: SessionOptions[T] = SessionOptions(**options)
        except TypeError as error:
            raise ConfigurationError(str(error).replace("SessionOptions.__init__()", "")) from error
        self._codec = self.options.bind_codec()
        self._wants_origin = wants_origin(self.options.initial)
        self.storage, self._owns_storage = _storage_of(self.options.storage)
        self.storage_name = self.storage.name
        self._locks = _locks_of.setdefault(self.storage, KeyLocks())
        self._open: set[Session[T]] = set()
        self._drained: asyncio.Event | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Sessions in {self.storage_name}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def open(
        self, key: str, *, origin: Any = _NOWHERE, lazy: bool | None = None
    ) -> AbstractAsyncContextManager[Session[T]]:
        """Hold one session: loaded on entering, saved on leaving, untouched by an exception.

        ``origin`` is what ``initial`` is given, if it takes one; ``lazy`` overrides the option.
        Raises `SessionBusy`, `SessionConflict`, `SessionDecodeError`, `SessionEncodeError`,
        `SessionTooLarge`, `StorageUnavailable`.
        """
        _require_key(key)
        lazy = self.options.lazy if lazy is None else lazy
        return _Opened(self, key, self.options.prefix + key, origin, lazy=lazy)

    async def open_for(self, origin: Any, *, lazy: bool | None = None) -> AnySession[T]:
        """Hold the session of an update: as `open`, under the key that the update has.

        For an update without one the handle is given all the same, and raises `NoSessionKey`
        when it is used. For writers of integrations.
        """
        function = self.options.get_session_key
        key = await session_key(function, origin)
        if key is not None:
            return self.open(key, origin=origin, lazy=lazy)
        session: Session[T] = Session(self, "", "", origin)
        session._refusal = lambda: NoSessionKey(why_no_key(function, origin))
        return _Keyless(session)

    async def get(self, key: str) -> T | None:
        """Read one session without holding it: a snapshot, or ``None`` if nothing is stored.

        Raises `SessionDecodeError`, `StorageUnavailable`.
        """
        _require_key(key)
        stored_key = self.options.prefix + key
        record = await self._read(stored_key)
        data: T | None = None if record is None else self._decode(stored_key, record.value)
        return data

    async def update(self, key: str, function: Callable[[T], T | Awaitable[T]]) -> T:
        """Replace one session's data by what ``function`` makes of it, and return that.

        On a `SessionConflict` with another process it starts again, for ``lock_timeout`` seconds
        at most, so ``function`` should be short and without side effects. It must return the new
        data; `delete` deletes. Raises what `open` raises.
        """
        deadline = time.monotonic() + self._lock_timeout
        pause = 0.001
        while True:
            try:
                async with self.open(key, lazy=False) as session:
                    result: Any = function(session.data)
                    data: T = await result if inspect.isawaitable(result) else result
                    if data is None and session.data is not None:
                        text = (
                            f"sessions.update({key!r}): the function returned None; it must "
                            "return the new data. To delete the session use sessions.delete(key)"
                        )
                        raise ConfigurationError(text, key=key, storage=self.storage_name)
                    session.data = data
                    return data
            except SessionConflict as conflict:
                if conflict.key != self.options.prefix + key or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause * random.random())  # noqa: S311 - against lockstep
            pause = min(pause * 2, 0.1)

    async def delete(self, key: str) -> None:
        """Delete one session, whatever is stored; deleting what isn't there is no error.

        Waits for an update that holds it. Raises `SessionBusy`, `StorageUnavailable`.
        """
        async with self.open(key, lazy=True) as session:
            await session.clear()

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the keys of all stored sessions that start with ``prefix``, each once."""
        own = self.options.prefix
        async for stored_key in self.storage.scan(own + prefix):
            yield stored_key[len(own) :]

    async def aclose(self, drain_timeout: Lifetime = 30.0) -> None:
        """Wait for the sessions that are held, then close the storage if it was made here.

        Sessions still held after ``drain_timeout`` (a timedelta or seconds) are named in the log;
        saving them will raise `StorageUnavailable`. Idempotent.
        """
        timeout = positive_seconds("drain_timeout", drain_timeout)
        if self._closed:
            return
        await asyncio.sleep(0)  # let updates that were just dispatched come in
        try:
            async with asyncio.timeout(timeout):
                while self._open:
                    self._drained = asyncio.Event()
                    await self._drained.wait()
        except TimeoutError:
            log.warning(
                "closing %r although sessions are still held after %g s: %s",
                self,
                timeout,
                ", ".join(sorted(repr(session._stored_key) for session in self._open)),
            )
        self._closed = True
        if self._owns_storage:
            await self.storage.aclose()

    # What follows is for handles, middleware and integrations.

    @property
    def _lock_timeout(self) -> float:
        return self.options.lock_timeout  # type: ignore[return-value] # made seconds by its check

    def reserve(self, session: Session[Any]) -> None:
        """Take this session's place in its key's queue now, to wait for the turn when loading.

        For integrations: updates are served in the order in which they came, although they ask
        for their sessions later, or not at all.
        """
        if session._ticket is None and session._refusal is None and self._is_serial:
            session._ticket = self._locks.reserve(session._stored_key)

    def withdraw(self, session: Session[Any]) -> None:
        """Give a reserved place up, unless the session was loaded meanwhile."""
        if session._ticket is not None and session._state is State.UNREAD:
            session._ticket.release()
            session._ticket = None

    @property
    def _is_serial(self) -> bool:
        return self.options.isolation == "serial"

    async def load(self, session: Session[Any]) -> None:
        """Wait for the session's turn, read it and decode it; see `Session`."""
        await self._hold(session)
        record = await self._read(session._stored_key)
        if record is not None:
            data = self._decode(session._stored_key, record.value)
            baseline: bytes | None = record.value
        elif self.options.initial is None:
            data, baseline = None, None
        else:
            data, baseline = await self._make_initial(session)
        session._record, session._baseline = record, baseline
        session._state = State.LOADED
        session._replace(data)

    async def save(self, session: Session[Any]) -> None:
        """Write the session if it differs from what is stored; see `Session.save`."""
        if session._state is State.UNREAD:
            return
        await self._hold(session)
        change = await self._change_of(session)
        if change is not None:
            await self._write(session, change)

    async def clear(self, session: Session[Any]) -> None:
        """Delete the session and make its data initial again; see `Session.clear`."""
        await self._hold(session)
        if session._state is State.LOADED:
            expected = await self._basis(session)
        else:
            expected = ANY
        if expected is not ABSENT:
            await self._write(session, Put(session._stored_key, DELETE, expected))
        data, baseline = None, None
        if self.options.initial is not None:
            data, baseline = await self._make_initial(session)
        session._record, session._baseline = None, baseline
        session._state = State.LOADED
        session._replace(data)

    async def reload(self, session: Session[Any]) -> None:
        """Read the session again; see `Session.reload`."""
        await self.load(session)

    async def _hold(self, session: Session[Any]) -> None:
        """Wait until this update is the one that holds the session."""
        if self._closed:
            raise self._unavailable(session._stored_key, "it was closed")
        self.reserve(session)
        ticket = session._ticket
        if ticket is None:
            return
        try:
            await ticket.wait(self._lock_timeout)
        except (TimeoutError, HeldByThisTask) as refusal:
            session._ticket = None
            ticket.release()
            raise SessionBusy(
                key=session._stored_key,
                storage=self.storage_name,
                waited=self._lock_timeout if isinstance(refusal, TimeoutError) else 0,
            ) from None

    async def _read(self, stored_key: str) -> Record | None:
        if self._closed:
            raise self._unavailable(stored_key, "it was closed")
        try:
            return (await self.storage.get((stored_key,)))[0]
        except StorageUnavailable as error:
            raise self._unavailable(stored_key, error.reason) from error

    async def _write(self, session: Session[Any], change: Put) -> None:
        record = session._record
        try:
            written = (await self.storage.put((change,)))[0]
            if (
                not written
                and record is not None
                and record.expires_at is not None
                and record.expires_at <= time.time()
            ):
                # It expired while the handler ran: nobody changed it, so it is simply new.
                again = Put(change.key, change.value, ABSENT, change.ttl)
                written = (await self.storage.put((again,)))[0]
        except StorageUnavailable as error:
            raise self._unavailable(change.key, error.reason) from error
        if not written:
            raise SessionConflict(key=change.key, storage=self.storage_name)
        if isinstance(change.value, bytes):
            session._record = Record(change.value, _WRITTEN)
            session._baseline = change.value
        elif change.value is DELETE:
            session._record, session._baseline = None, None
        session._state = State.LOADED

    async def _change_of(self, session: Session[Any]) -> Put | None:
        """Say what has to be written for this session, ``None`` for nothing."""
        key, data, record = session._stored_key, session._data, session._record
        assigned = session._state is State.ASSIGNED
        if data is None:
            if not assigned and (record is None or session._baseline == b"null"):
                return None
            return Put(key, DELETE, await self._basis(session))
        encoded = self._encode(key, data)
        if not assigned and self._is_unchanged(session, encoded):
            if record is None or self.options.refresh_ttl == "write" or self.options.ttl is None:
                return None
            return Put(key, KEEP, ANY, self._ttl)
        try:
            self._codec.check(data, encoded, key)
        except CodecError as error:
            raise self._encode_error(key, error) from error
        if len(encoded) > self.options.max_bytes:
            raise SessionTooLarge(
                key=key,
                storage=self.storage_name,
                size=len(encoded),
                limit=self.options.max_bytes,
            )
        return Put(key, encoded, await self._basis(session), self._ttl)

    def _is_unchanged(self, session: Session[Any], encoded: bytes) -> bool:
        if encoded == session._baseline:
            return True
        # Equal states may have other bytes: sets have no order, other writers other spacing.
        record, key = session._record, session._stored_key
        return record is not None and encoded == self._encode(key, self._decode(key, record.value))

    async def _basis(self, session: Session[Any]) -> Any:
        """Tell which stored value this session's change builds on."""
        if session._state is State.ASSIGNED:
            return ANY
        record = session._record
        if record is None:
            return ABSENT
        if record.token is not _WRITTEN:
            return record.token
        stored = await self._read(session._stored_key)
        if stored is None or stored.value != record.value:
            raise SessionConflict(key=session._stored_key, storage=self.storage_name)
        return stored.token

    async def _make_initial(self, session: Session[Any]) -> tuple[Any, bytes]:
        initial = self.options.initial
        assert initial is not None  # noqa: S101 - both callers have looked
        made: Any = initial(session._origin) if self._wants_origin else initial()
        if inspect.isawaitable(made):
            made = await made
        # Written and read once, so that a value which initial hands out twice isn't shared, and
        # one that can't be saved is refused before the handler runs.
        key = session._stored_key
        try:
            encoded = self._codec.encode(made, key)
            self._codec.check(made, encoded, key)
        except CodecError as error:
            raise self._encode_error(key, error) from error
        data = self._decode(key, encoded)
        return data, self._encode(key, data)

    @property
    def _ttl(self) -> float | None:
        return self.options.ttl  # type: ignore[return-value] # made seconds by its check

    def _encode(self, key: str, data: Any) -> bytes:
        try:
            return self._codec.encode(data, key)
        except CodecError as error:
            raise self._encode_error(key, error) from error

    def _encode_error(self, key: str, error: CodecError) -> SessionEncodeError:
        return SessionEncodeError(
            key=key, storage=self.storage_name, path=error.path, reason=error.reason
        )

    def _decode(self, key: str, value: bytes) -> Any:
        try:
            return self._codec.decode(value, key)
        except CodecError as error:
            raise SessionDecodeError(
                key=key, storage=self.storage_name, path=error.path, reason=error.reason
            ) from error

    def _unavailable(self, key: str, reason: str) -> StorageUnavailable:
        return StorageUnavailable(storage=self.storage_name, key=key, reason=reason)

    def _enter(self, session: Session[T]) -> None:
        self._open.add(session)

    def _leave(self, session: Session[T]) -> None:
        """Close a handle, and let the next update of its key have its turn."""
        session._refusal = lambda: SessionClosed(key=session._stored_key, storage=self.storage_name)
        if session._ticket is not None:
            session._ticket.release()
            session._ticket = None
        self._open.discard(session)
        if self._drained is not None and not self._open:
            self._drained.set()


class _Opened(Session[T]):
    """A session that is its own context manager: one object an update."""

    __slots__ = ("_lazy",)
    _keeper: Sessions[T]

    def __init__(
        self, sessions: Sessions[T], key: str, stored_key: str, origin: Any, *, lazy: bool
    ) -> None:
        super().__init__(sessions, key, stored_key, origin)
        self._lazy = lazy

    async def __aenter__(self) -> Session[T]:
        if self._refusal is not None:
            raise self._refusal()
        sessions = self._keeper
        sessions._enter(self)
        if not self._lazy:
            try:
                await sessions.load(self)
            except BaseException:
                sessions._leave(self)
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sessions = self._keeper
        try:
            if kind is None:
                await sessions.save(self)
        finally:
            sessions._leave(self)


class _Keyless(Generic[T]):
    """Hands out a handle that has no session, and does nothing else."""

    def __init__(self, session: Session[T]) -> None:
        self._session = session

    async def __aenter__(self) -> Session[T]:
        return self._session

    async def __aexit__(self, *_: object) -> None:
        return None


AnySession = AbstractAsyncContextManager[Session[T]]


def _storage_of(option: Storage | str | None) -> tuple[Storage, bool]:
    """Give the storage that the option names, and whether it was made here."""
    if isinstance(option, Storage):
        return option, False
    if isinstance(option, str):
        return storage_from_url(option), True
    if option is None:
        log.warning(
            "no storage= given: sessions are kept in memory and end with this process. Pass "
            "storage='sqlite:///bot.db' to keep them, or 'memory://' to say that you mean it"
        )
        return storage_from_url("memory://"), True
    text = (
        f"storage={option!r} is neither a Storage nor a URL; pass a URL such as "
        "'sqlite:///bot.db', or an object of a class in gramkeep.storages"
    )
    raise ConfigurationError(text)


def _require_key(key: object) -> None:
    if not isinstance(key, str) or not key:
        text = f"key={key!r} must be a string, not empty"
        raise ConfigurationError(text)
