"""`Sessions[T]`: all sessions of one kind, for updates and outside of them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Self, TypeVar, Unpack, overload

from gramkeep.errors import ConfigurationError, NoSessionKey, SessionConflict
from gramkeep.handle import NoSession, Session
from gramkeep.kind import Kind, end, kind_of
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.options import CommonOptions, SessionOptions
from gramkeep.origin import Origin, require_key, session_key
from gramkeep.storage import Storage, StorageAdapter
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.adapter import storage_over
from gramkeep.stored import StoredSessions

T = TypeVar("T")
V = TypeVar("V")

log = logging.getLogger("gramkeep")

_NOWHERE = Origin()


class Sessions(StoredSessions[T]):
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
        self._begin(SessionOptions.of(options))

    @classmethod
    def of(cls, options: SessionOptions[T]) -> Sessions[T]:
        """Make a manager of ready options."""
        sessions: Sessions[T] = cls.__new__(cls)
        sessions._begin(options)
        return sessions

    def _begin(self, options: SessionOptions[T]) -> None:
        storage, self._owns_storage = storage_of(options.storage)
        super().__init__(Kind(options, storage))

    def __repr__(self) -> str:
        return f"<Sessions in {self.storage.name}>"

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
        require_key(key)
        return self._opened(self.kind.prefix + key, origin, lazy)

    async def open_for(self, origin: Any, *, lazy: bool | None = None) -> _Opened[T]:
        """Hold the session of an update: as `open`, under the key that the update has.

        For an update without one the handle is given all the same, and raises `NoSessionKey`
        when it is used. For writers of integrations.
        """
        try:
            key = await session_key(self.options.get_session_key, origin)
        except NoSessionKey as error:
            reason = error.reason
            handle = self._opened("", origin, lazy=True)
            handle._refusal = lambda _: NoSessionKey(reason)
            return handle
        return self._opened(self.kind.prefix + key, origin, lazy)

    def _opened(self, stored_key: str, origin: Any, lazy: bool | None) -> _Opened[T]:
        handle: _Opened[T] = _Opened(self.kind, stored_key, origin)
        handle._lazy = self.options.lazy if lazy is None else lazy
        return handle

    async def hand_out(self, session: Session[T], *, lazy: bool) -> Any:
        """Give what handlers find under ``key``: the data, loaded now; of lazy ones, the handle.

        In an update without a session it is an object that raises `NoSessionKey` when used.
        """
        if not lazy and session._refusal is None:
            await session
        return self.shown(session, lazy=lazy)

    def shown(self, session: Session[T], *, lazy: bool) -> Any:
        """Give what handlers find under ``key``, once it is loaded."""
        if session._refusal is not None:
            return NoSession(partial(session._refusal, session))
        return session if lazy else session.data

    async def update(self, key: str, function: Callable[[T], T | Awaitable[T]]) -> T:
        """Replace one session's data by what ``function`` makes of it, and return that.

        On a `SessionConflict` with another process it starts again, for ``lock_timeout`` seconds
        at most, so ``function`` should be short and without side effects. It must return the new
        data; `delete` deletes. Raises what `open` raises.
        """
        deadline = time.monotonic() + positive_seconds("lock_timeout", self.options.lock_timeout)
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
                        raise ConfigurationError(text, key=key, storage=self.storage.name)
                    session.data = data
                    return data
            except SessionConflict as conflict:
                if conflict.key != self.kind.prefix + key or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause * random.random())  # noqa: S311 - against lockstep
            pause = min(pause * 2, 0.1)

    async def delete(self, key: str) -> None:
        """Delete one session, whatever is stored; deleting what isn't there is no error.

        Waits for an update that holds it. Raises `SessionBusy`, `StorageUnavailable`.
        """
        async with self.open(key, lazy=True) as session:
            session.data = None

    async def drain(self, timeout: Lifetime = 30.0) -> None:
        """Wait until no session is held, ``timeout`` (a timedelta or seconds) at most.

        Those that are still held after it are named in the log.
        """
        seconds = positive_seconds("timeout", timeout)
        await asyncio.sleep(0)  # let updates that were just dispatched come in
        try:
            async with asyncio.timeout(seconds):
                while self.kind.held:
                    await self.kind.wait_until_free()
        except TimeoutError:
            log.warning(
                "%r: sessions are still held after %g s: %s",
                self,
                seconds,
                ", ".join(sorted(repr(session._stored_key) for session in self.kind.held)),
            )

    async def aclose(self, drain_timeout: Lifetime = 30.0) -> None:
        """Wait for the sessions that are held, then close the storage if it was made here.

        Saving what is still held after ``drain_timeout`` (a timedelta or seconds) will raise
        `StorageUnavailable`. Idempotent.
        """
        if self.kind.is_closed:
            return
        await self.drain(drain_timeout)
        self.kind.is_closed = True
        if self._owns_storage:
            await self.storage.aclose()

    def reopen(self) -> None:
        """Begin anew after `aclose`, as a bot that is started again in one process does."""
        if self.kind.is_closed and self.storage.outlives_closing:
            self.kind.is_closed = False
        elif self.kind.is_closed:
            self._begin(self.options)

    def reserve(self, session: Session[T]) -> None:
        """Take this session's place in its key's queue now, to wait for the turn when loading.

        For integrations: updates are served in the order in which they came, although they ask
        for their sessions later, or not at all.
        """
        self.kind.reserve(session)

    def withdraw(self, session: Session[T]) -> None:
        """Give a reserved place up, unless the session was used meanwhile."""
        self.kind.withdraw(session)


class _Opened(Session[T]):
    """A session that is its own context manager: one object an update."""

    __slots__ = ("_lazy",)

    _lazy: bool

    async def __aenter__(self) -> Session[T]:
        if self._refusal is not None:
            if self._stored_key:
                raise self._refusal(self)  # it was left, and can't be entered again
            return self
        keeper = kind_of(self)
        keeper.held.add(self)
        if not self._lazy:
            try:
                await keeper.load(self)
            except BaseException:
                await self.__aexit__(*sys.exc_info())
                raise
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        if not self._stored_key:
            return
        keeper = kind_of(self)
        try:
            # What another process may have after it is given up with what is saved.
            if kind is None and self._lock is None:
                self._is_over = True
                await keeper.save(self, hold=False)
            elif kind is None:
                async with self._alone():  # after what other tasks of this update do with it
                    await keeper.save(self, hold=False)
        finally:
            try:
                if self._is_leased or self._lock is not None:
                    await end([self])
            finally:
                keeper.close(self)


_Opened.__name__ = Session.__name__  # as Python's own errors call it


def storage_of(option: Storage | StorageAdapter[Any] | str | None) -> tuple[Storage, bool]:
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
    return storage_over(option), False
