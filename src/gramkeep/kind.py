"""One kind of session: how its handles are loaded, compared and written.

`Kind` is the keeper behind the handles that `Sessions` gives out. What several handles of one
update do together (`gramkeep.multi`) is made of its steps.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from msgspec.structs import replace

from gramkeep.errors import (
    ConfigurationError,
    SessionBusy,
    SessionConflict,
    SessionTooLarge,
    StorageUnavailable,
)
from gramkeep.handle import ASSIGNED, LOADED, UNREAD, Session, State
from gramkeep.leases import NoLongerWanted
from gramkeep.locks import HeldByThisTask, TicketReleased
from gramkeep.options import SessionOptions, wants_origin
from gramkeep.shared import shared_over
from gramkeep.state import Contents, Initial, Loaded
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record, Storage

T = TypeVar("T")

DEFAULT_LEASE: Final = 30.0  # seconds

_KEY_OF: Final = attrgetter("_stored_key")
_ASKED: Final = attrgetter("_asked")

WRITTEN_HERE: Final = object()  # the token of a value that no storage has told one of yet


class Kind(Generic[T]):
    """The options of one kind of session, put to work on one storage."""

    def __init__(self, options: SessionOptions[T], storage: Storage) -> None:
        self.options = options
        self.storage = storage
        self.storage_name = storage.name
        self.prefix = options.prefix or ""
        self.is_closed = False
        self.ttl: float | None = options.ttl  # type: ignore[assignment] # seconds, by its check
        self._lock_timeout: float = options.lock_timeout  # type: ignore[assignment] # the same
        self._ttl_on_access = self.ttl if options.refresh_ttl == "access" else None
        self._is_serial = options.isolation == "serial"
        self.shared = shared_over(storage)
        self.lease_seconds = _lease_seconds(options, storage)
        self._contents = Contents(options.bind_codec(), _initial(options), storage.name)
        self.held: set[Session[T]] = set()  # the handles of updates that aren't over
        self._free: asyncio.Event | None = None
        self.shared.kinds.add(self)

    def disown(self) -> None:
        """Begin anew, in a forked child: don't wait for the parent's updates."""
        self.held.clear()
        self._free = None

    # What a handle asks for.

    async def load(self, session: Session[Any]) -> None:
        """Wait for the session's turn, read it and decode it; see `Session`."""
        if not self.has_turn(session):
            await self.wait(session)
        if self.lease_seconds is None:  # as `read_held` finds, in half the time
            (record,) = await self.read([session._stored_key])
        else:
            (record,) = await self.read_held(session)
        await self.accept(session, record, unless=ASSIGNED)

    async def save(self, session: Session[Any], *, hold: bool = True) -> None:
        """Write the session if it differs from what is stored; see `Session.save` and `write`."""
        put = await self.change_of(session)
        if put is not None:
            await self.write({session: put}, hold=hold)

    async def clear(self, session: Session[Any]) -> None:
        """Delete the session and make its data initial again; see `Session.clear`."""
        await self.hold(session)
        if self.lease_seconds is not None and not session._is_leased:
            await self.read_held(session)
        initial = await self._contents.initial(session._origin, session._stored_key)
        expected = ANY if session._state is UNREAD else _basis(session)
        if expected is WRITTEN_HERE:
            expected = await self._token_of_own(session)
        if expected is not ABSENT or not session._is_leased:  # or somebody may have stored one
            await self.write({session: Put(session._stored_key, DELETE, expected)}, hold=True)
        session._become(None, initial)

    async def reload(self, session: Session[Any]) -> None:
        """Read the session again; see `Session.reload`."""
        await self.hold(session)
        (record,) = await self.read_held(session)
        await self.accept(session, record)

    # The steps of that, in the order of an update.

    def reserve(self, session: Session[Any]) -> None:
        """Take this session's place in its key's queue now; `hold` waits for the turn."""
        if self._is_serial and session._ticket is None and session._refusal is None:
            session._ticket = self.shared.queues.reserve(session._stored_key)

    def withdraw(self, session: Session[Any]) -> None:
        """Give a reserved place up, unless the session was used meanwhile."""
        is_used = session._state is not UNREAD or session._is_leased
        if session._ticket is not None and not is_used:
            self.release(session)
            self.held.discard(session)
            if self._free is not None:
                self._tell_if_free()

    def release(self, session: Session[Any]) -> None:
        """Let the next update of this session's key in this process have its turn."""
        if session._ticket is not None:
            session._ticket.release()
            session._ticket = None

    def close(self, session: Session[Any]) -> None:
        """End the handle's life, and let the next update of its key have its turn."""
        session._refusal = Session._closed
        self.release(session)
        self.held.discard(session)
        if self._free is not None:
            self._tell_if_free()

    async def wait_until_free(self) -> None:
        """Wait until no update holds a session, if one does."""
        if self._free is None:
            self._free = asyncio.Event()
        await self._free.wait()

    async def hold(self, session: Session[Any]) -> None:
        """Wait until this update is the one that holds the session."""
        if not self.has_turn(session):
            await self.wait(session)

    def has_turn(self, session: Session[Any]) -> bool:
        """Queue for the session, and say whether there is nobody to `wait` for."""
        if session._refusal is not None:  # it was left while this call waited for another
            raise session._refusal(session)
        if self.is_closed:
            self.check_open(session._stored_key)
        ticket = session._ticket
        if ticket is None:
            if not self._is_serial:
                return True
            ticket = session._ticket = self.shared.queues.reserve(session._stored_key)
            self.held.add(session)  # again, if its place was given up
        if self.lease_seconds is not None and not session._is_leased:
            session._asked = time.monotonic()
        return ticket.ahead is None

    async def wait(self, session: Session[Any]) -> None:
        """Wait until all who queued for the session earlier are done with it."""
        assert session._ticket is not None  # noqa: S101 - it would have its turn without
        try:
            await session._ticket.wait(self._lock_timeout)
        except TicketReleased:
            raise session._closed() from None
        except (TimeoutError, HeldByThisTask) as refusal:
            self.release(session)
            waited = self._lock_timeout if isinstance(refusal, TimeoutError) else 0
            raise SessionBusy(
                key=session._stored_key, storage=self.storage_name, waited=waited
            ) from None

    async def read_held(self, *sessions: Session[Any]) -> list[Record | None]:
        """Read the records of sessions whose turn it is, and hold them for this process.

        They may be of other kinds in this storage that lease for as long, in the order in which
        updates take them.
        """
        keys = [*map(_KEY_OF, sessions)]
        if self.lease_seconds is None:
            return await self.read(keys)
        if self.is_closed:
            self.check_open(keys[0])
        for session in sessions:
            session._is_leased = True  # from here on it may be, whatever is raised
        began = min(map(_ASKED, sessions))
        try:
            return await self.shared.leases.take(
                keys,
                self.lease_seconds,
                began=began,
                timeout=self._lock_timeout,
                is_wanted=lambda: sessions[0]._refusal is None,
            )
        except NoLongerWanted:
            raise sessions[0]._closed() from None
        except TimeoutError:
            raise SessionBusy(
                key=keys[0], storage=self.storage_name, waited=self._lock_timeout
            ) from None
        except StorageUnavailable as error:
            raise self.unavailable(keys[0], error.reason) from error

    async def read(self, stored_keys: Sequence[str]) -> list[Record | None]:
        """Read the records of some keys, also of other kinds in this storage, in one call."""
        if self.is_closed:
            self.check_open(stored_keys[0])
        try:
            return await self.shared.calls.get(stored_keys)
        except StorageUnavailable as error:
            raise self.unavailable(stored_keys[0], error.reason) from error

    async def accept(
        self, session: Session[Any], record: Record | None, *, unless: State | None = None
    ) -> Loaded:
        """Make the data of what was read, ``unless`` the session came into that state meanwhile."""
        key = session._stored_key
        loaded = None if record is None else self._contents.load(record.value, key)
        if not isinstance(loaded, Loaded):
            if loaded is not None:
                loaded = await self._contents.migrate(loaded, key)
            if loaded is None:
                loaded = await self._contents.initial(session._origin, key)
        if session._state is not unless:
            session._become(record, loaded)
        return loaded

    async def accept_stored(self, session: Session[Any], record: Record | None) -> Loaded:
        """Make the data of what was read; of nothing, none, which any data is a change of."""
        key = session._stored_key
        loaded = None if record is None else await self.decode(key, record.value)
        if loaded is None:
            loaded = Loaded(None, (), is_new=True)
        session._become(record, loaded)
        return loaded

    async def change_of(self, session: Session[Any]) -> Put | None:
        """Say what has to be written for this session, ``None`` for nothing."""
        if session._mirror is not None:
            session._mirror.pull()
        if session._state is UNREAD:
            return None
        if not self.has_turn(session):
            await self.wait(session)
        if self.lease_seconds is not None and not session._is_leased:
            await self.read_held(session)
        put = self._difference(session)
        if put is not None and put.expected is WRITTEN_HERE:
            put = replace(put, expected=await self._token_of_own(session))
        return put

    async def write(self, changes: Mapping[Session[Any], Put], *, hold: bool = False) -> None:
        """Write changes of sessions of this and other kinds in this storage.

        All or none, where it has transactions. Other processes may have the sessions then, unless
        the update goes on and must ``hold`` them. Raises `SessionConflict`, `StorageUnavailable`.
        """
        if self.is_closed:
            self.check_open(next(iter(changes))._stored_key)
        lease, lasts_until = None, math.inf
        if self.storage.can_lease:
            leases = self.shared.leases
            for session in changes:
                if session._is_leased:
                    seconds = kind_of(session).lease_seconds
                    assert seconds is not None  # noqa: S101 - or it would not be leased
                    lease = leases.lease(seconds)
                    if not hold:
                        lasts_until = min(lasts_until, leases.renew_no_more(session._stored_key))
            if lease is not None and hold:
                changes = {session: replace(put, hold=True) for session, put in changes.items()}
            elif lease is not None and leases.is_renewing:
                await leases.renewed(map(_KEY_OF, changes))
        is_transactional = self.storage.transactional
        while True:
            puts = [*changes.values()]
            began = time.time() if hold else 0.0
            try:
                outcomes = await self.shared.calls.put(
                    puts, lease, atomic=is_transactional and len(puts) > 1
                )
            except StorageUnavailable as error:
                raise self.unavailable(puts[0].key, error.reason) from error
            is_done = all(outcomes)
            if hold:
                for (session, put), done in zip(changes.items(), outcomes, strict=True):
                    if is_done or (done and not is_transactional):
                        _settle(session, put, began)
            elif lease is not None:
                for session in changes:
                    session._is_leased = False
            if is_done:
                return
            changes = {
                session: put if done else _once_more(session, put, lasts_until)
                for (session, put), done in zip(changes.items(), outcomes, strict=True)
                if not done or is_transactional
            }

    async def decode(self, key: str, value: bytes) -> Loaded | None:
        """Make the data of stored bytes, migrated if need be; ``None`` if it has expired."""
        loaded = self._contents.load(value, key)
        return loaded if isinstance(loaded, Loaded) else await self._contents.migrate(loaded, key)

    def is_sealed_as_now(self, record: Record) -> bool:
        """Whether it is sealed as it would be today; see `BoundCodec.is_sealed_as_now`."""
        return self._contents.is_sealed_as_now(record.value)

    def check_open(self, key: str | None = None) -> None:
        """Raise `StorageUnavailable` if the manager was closed."""
        if self.is_closed:
            raise self.unavailable(key, "it was closed")

    def unavailable(self, key: str | None, reason: str) -> StorageUnavailable:
        """Make the error that says whose session a storage failed to keep."""
        return StorageUnavailable(storage=self.storage_name, key=key, reason=reason)

    # What these are made of.

    def _tell_if_free(self) -> None:
        if self._free is not None and not self.held:
            self._free.set()
            self._free = None

    def _difference(self, session: Session[Any]) -> Put | None:
        """Compare the data with what was loaded, and make bytes of it where it changed."""
        key, data, baselines = session._stored_key, session._data, session._baselines
        if data is None:
            was_none = session._record is None or (
                self._contents.encode_changed(None, baselines, key) is None
            )
            is_kept = was_none and session._state is not ASSIGNED
            return None if is_kept else Put(key, DELETE, _basis(session))
        encoded = self._contents.encode_changed(data, baselines, key)
        if encoded is None:
            if session._record is None or self._ttl_on_access is None:
                return None
            return Put(key, KEEP, ANY, self._ttl_on_access)
        sealed = self._contents.seal(data, encoded, key)
        limit = self.options.max_bytes
        if len(sealed) > limit:
            size = len(sealed)
            raise SessionTooLarge(key=key, storage=self.storage_name, size=size, limit=limit)
        session._encoded = encoded
        return Put(key, sealed, _basis(session), self.ttl)

    async def _token_of_own(self, session: Session[Any]) -> Any:
        """Ask for the token of what this update wrote, if that is still what is stored."""
        record = session._record
        assert record is not None  # noqa: S101 - it is what was written
        (stored,) = await self.read([session._stored_key])
        if stored is None and _is_past(record.expires_at):
            return ABSENT
        if stored is None or stored.value != record.value:
            raise SessionConflict(key=session._stored_key, storage=self.storage_name)
        return stored.token


def _settle(session: Session[Any], put: Put, began: float) -> None:
    """Note what was written, at the earliest when that ``began``: the next change builds on it."""
    if isinstance(put.value, bytes):
        expires_at = None if put.ttl is None else began + put.ttl
        session._record = Record(put.value, WRITTEN_HERE, expires_at)
        session._baselines = (session._encoded,)
    elif put.value is DELETE:
        session._record, session._baselines = None, ()
    session._state = LOADED


def _once_more(session: Session[Any], put: Put, leased_until: float) -> Put:
    """Give what to write where this was refused, or raise `SessionConflict`."""
    if session._record is None or not _is_past(session._record.expires_at):
        raise SessionConflict(
            key=put.key,
            storage=session._keeper.storage_name,
            lease_ran_out=leased_until < time.monotonic(),
        )
    # It expired while the handler ran: nobody changed it, so it is simply new.
    session._record = None
    return replace(put, expected=ABSENT)


async def end(sessions: Iterable[Session[Any]]) -> None:
    """End the life of handles and their hold on their sessions, here and for other processes.

    The sessions are of kinds in any storages. What other tasks of the update still do with them
    is waited for: it would claim again what was given up, or write what the next update has read.
    """
    held: dict[tuple[int, float], list[Session[Any]]] = {}
    sessions = list(sessions)
    for session in sessions:
        session._refusal = Session._closed  # nothing more is begun,
        if session._ticket is not None and session._ticket.ahead is not None:
            kind_of(session).release(session)  # and no turn waited for
    try:
        await _until_idle(sessions)
    finally:
        try:
            for session in sessions:
                kind = kind_of(session)
                if session._is_leased and kind.lease_seconds is not None:
                    place = id(kind.shared.leases), kind.lease_seconds
                    held.setdefault(place, []).append(session)
            for (_, seconds), together in held.items():
                keys = [session._stored_key for session in together]
                await kind_of(together[0]).shared.leases.give_up(keys, seconds)
        finally:
            for session in sessions:
                kind_of(session).close(session)


async def _until_idle(sessions: Iterable[Session[Any]]) -> None:
    """Wait until no task does anything with the sessions. Cancelling takes effect after it."""
    cancelled: asyncio.CancelledError | None = None
    for session in sessions:
        while session._lock is not None and session._lock.locked():
            try:
                async with session._lock:
                    break
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


def kind_of(session: Session[Any]) -> Kind[Any]:
    """Give the kind that keeps a session's handle."""
    return session._keeper  # type: ignore[return-value] # handles know as much of it as they need


def _lease_seconds(options: SessionOptions[Any], storage: Storage) -> float | None:
    """Say for how long the sessions are leased, ``None`` for not at all."""
    if options.lease is not None and not storage.can_lease:
        text = (
            f"lease={options.lease!r}: {storage.name} can't lease sessions to one process at a "
            "time. Leave lease= out, and let one process alone use it; for several, see the "
            "storages that lease"
        )
        raise ConfigurationError(text)
    if not storage.can_lease or options.isolation == "optimistic":
        return None
    return DEFAULT_LEASE if options.lease is None else options.lease  # type: ignore[return-value] # seconds, by its check


def _basis(session: Session[Any]) -> Any:
    """Tell which stored value the session's change builds on."""
    if session._state is ASSIGNED:
        return ANY
    return ABSENT if session._record is None else session._record.token


def _initial(options: SessionOptions[Any]) -> Initial | None:
    initial = options.initial
    if initial is None or wants_origin(initial):
        return initial
    return lambda _: initial()


def _is_past(moment: float | None) -> bool:
    return moment is not None and moment <= time.time()
