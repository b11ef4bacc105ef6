"""One kind of session: how its handles are loaded, compared and written.

`Kind` is the keeper behind the handles that `Sessions` gives out. What several handles of one
update do together (`gramkeep.multi`) is made of its steps.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import msgspec

from gramkeep.codec import CodecError
from gramkeep.envelope import NewerVersion
from gramkeep.errors import (
    ConfigurationError,
    NewerSessionVersion,
    SessionBusy,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionTooLarge,
    StorageUnavailable,
)
from gramkeep.handle import Session, State
from gramkeep.locks import HeldByThisTask, TicketReleased
from gramkeep.options import SessionOptions, wants_origin
from gramkeep.shared import shared_over
from gramkeep.state import Loaded
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record, Storage

T = TypeVar("T")

DEFAULT_LEASE: Final = 30.0  # seconds

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
        self.shared = shared_over(storage)
        self.lease_seconds = _lease_seconds(options, storage)
        self._codec = options.bind_codec()
        self._wants_origin = wants_origin(options.initial)

    # What a handle asks for.

    async def load(self, session: Session[Any]) -> None:
        """Wait for the session's turn, read it and decode it; see `Session`."""
        await self.hold(session)
        (record,) = await self.read_held(session)
        await self.accept(session, record, unless=State.ASSIGNED)

    async def save(self, session: Session[Any]) -> None:
        """Write the session if it differs from what is stored; see `Session.save`."""
        change = await self.change_of(session)
        if change is not None:
            await write([change], hold=True)

    async def finish(self, session: Session[Any]) -> None:
        """Save at the end of the update; what another process may have after it is given up."""
        change = await self.change_of(session)
        if change is not None:
            await write([change])

    async def clear(self, session: Session[Any]) -> None:
        """Delete the session and make its data initial again; see `Session.clear`."""
        await self.hold(session)
        await self._ensure_lease(session)
        data, baseline = await self._initial(session)
        if session._state is State.LOADED:
            expected = await self._basis(session)
        else:
            expected = ANY
        if expected is not ABSENT:
            put = Put(session._stored_key, DELETE, expected)
            await write([Change(self, session, put)], hold=True)
        self._become(session, None, data, baseline)
        session._is_new = True

    async def reload(self, session: Session[Any]) -> None:
        """Read the session again; see `Session.reload`."""
        await self.hold(session)
        (record,) = await self.read_held(session)
        await self.accept(session, record)

    # The steps of that, in the order of an update.

    def reserve(self, session: Session[Any]) -> None:
        """Take this session's place in its key's queue now; `hold` waits for the turn."""
        is_free = session._ticket is None and session._refusal is None
        if is_free and self.options.isolation == "serial":
            session._ticket = self.shared.queues.reserve(session._stored_key)

    def withdraw(self, session: Session[Any]) -> None:
        """Give a reserved place up, unless the session was used meanwhile."""
        is_used = session._state is not State.UNREAD or session._is_leased
        if session._ticket is not None and not is_used:
            self.release(session)

    def release(self, session: Session[Any]) -> None:
        """Let the next update of this session's key in this process have its turn."""
        if session._ticket is not None:
            session._ticket.release()
            session._ticket = None

    def close(self, session: Session[Any]) -> None:
        """End the handle's life, and its hold on the session in this process."""
        self.refuse(session)
        self.release(session)

    def refuse(self, session: Session[Any]) -> None:
        """Let every further use of the handle raise."""
        session._refusal = lambda: SessionClosed(key=session._stored_key, storage=self.storage_name)

    async def hold(self, session: Session[Any]) -> None:
        """Wait until this update is the one that holds the session."""
        if session._refusal is not None:  # it was left while this call waited for another
            raise session._refusal()
        self.check_open(session._stored_key)
        self.reserve(session)
        if session._ticket is None:
            return
        if self.lease_seconds is not None and not session._is_leased:
            session._asked = time.monotonic()
        try:
            await session._ticket.wait(self._lock_timeout)
        except TicketReleased:
            raise SessionClosed(key=session._stored_key, storage=self.storage_name) from None
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
        keys = [session._stored_key for session in sessions]
        if self.lease_seconds is None:
            return await self.read(*keys)
        self.check_open(keys[0])
        for session in sessions:
            session._is_leased = True  # from here on it may be, whatever is raised
        try:
            return await self.shared.leases.take(
                keys,
                self.lease_seconds,
                began=min(session._asked for session in sessions),
                timeout=self._lock_timeout,
            )
        except TimeoutError:
            raise SessionBusy(
                key=keys[0], storage=self.storage_name, waited=self._lock_timeout
            ) from None
        except StorageUnavailable as error:
            raise self.unavailable(keys[0], error.reason) from error

    async def read(self, *stored_keys: str) -> list[Record | None]:
        """Read the records of some keys, also of other kinds in this storage, in one call."""
        self.check_open(stored_keys[0])
        try:
            return await self.shared.calls.get(stored_keys)
        except StorageUnavailable as error:
            raise self.unavailable(stored_keys[0], error.reason) from error

    async def accept(
        self, session: Session[Any], record: Record | None, *, unless: State | None = None
    ) -> None:
        """Make the data of what was read, ``unless`` the session came into that state meanwhile."""
        loaded = None if record is None else await self.decode(session._stored_key, record.value)
        is_new = loaded is None or loaded.is_expired
        if loaded is None or loaded.is_expired:
            data, baseline = await self._initial(session)
        else:
            data, baseline = loaded.data, loaded.encoded
        if session._state is not unless:
            self._become(session, record, data, baseline)
            session._is_new = is_new
            session._is_current = is_new or (loaded is not None and loaded.is_current)

    async def change_of(self, session: Session[Any]) -> Change | None:
        """Say what has to be written for this session, ``None`` for nothing."""
        if session._mirror is not None:
            session._mirror.pull()
        if session._state is State.UNREAD:
            return None
        await self.hold(session)
        await self._ensure_lease(session)
        key, data, record = session._stored_key, session._data, session._record
        is_assigned = session._state is State.ASSIGNED
        if data is None:
            if not is_assigned and (record is None or self._encode(key, None) == session._baseline):
                return None
            return Change(self, session, Put(key, DELETE, await self._basis(session)))
        encoded = self._encode(key, data)
        if not is_assigned and self._is_unchanged(session, data, encoded):
            if record is None or self.ttl is None or self.options.refresh_ttl == "write":
                return None
            return Change(self, session, Put(key, KEEP, ANY, self.ttl))
        try:
            self._codec.check(data, encoded, key)
            sealed = self._codec.seal(encoded, key)
        except CodecError as error:
            raise self._encode_error(key, error) from error
        limit = self.options.max_bytes
        if len(sealed) > limit:
            size = len(sealed)
            raise SessionTooLarge(key=key, storage=self.storage_name, size=size, limit=limit)
        put = Put(key, sealed, await self._basis(session), self.ttl)
        return Change(self, session, put, encoded)

    async def decode(self, key: str, value: bytes) -> Loaded:
        """Make the data of stored bytes, migrating it if it is of an older version."""
        try:
            return await self._codec.load(value, key)
        except NewerVersion as newer:
            raise NewerSessionVersion(
                key=key, storage=self.storage_name, version=newer.version, newest=newer.newest
            ) from None
        except CodecError as error:
            raise SessionDecodeError(
                key=key, storage=self.storage_name, path=error.path, reason=error.reason
            ) from error

    def check_open(self, key: str | None = None) -> None:
        """Raise `StorageUnavailable` if the manager was closed."""
        if self.is_closed:
            raise self.unavailable(key, "it was closed")

    def unavailable(self, key: str | None, reason: str) -> StorageUnavailable:
        """Make the error that says whose session a storage failed to keep."""
        return StorageUnavailable(storage=self.storage_name, key=key, reason=reason)

    # What these are made of.

    async def _ensure_lease(self, session: Session[Any]) -> None:
        """Hold a session that is to be overwritten unread; whoever reads one holds it already."""
        if self.lease_seconds is not None and not session._is_leased:
            await self.read_held(session)

    def _is_unchanged(self, session: Session[Any], data: Any, encoded: bytes) -> bool:
        baseline = session._baseline
        if encoded == baseline or baseline is None:
            return baseline is not None
        return self._codec.is_same(data, encoded, baseline, session._stored_key)

    async def _basis(self, session: Session[Any]) -> Any:
        """Tell which stored value this session's change builds on."""
        if session._state is State.ASSIGNED:
            return ANY
        record = session._record
        if record is None:
            return ABSENT
        if record.token is not WRITTEN_HERE:
            return record.token
        (stored,) = await self.read(session._stored_key)
        if stored is None and _is_past(record.expires_at):
            return ABSENT
        if stored is None or stored.value != record.value:
            raise SessionConflict(key=session._stored_key, storage=self.storage_name)
        return stored.token

    async def _initial(self, session: Session[Any]) -> tuple[Any, bytes | None]:
        """Make the data of a new session, and what it encodes to."""
        initial = self.options.initial
        if initial is None:
            return None, None
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
        data = self._codec.decode(encoded, key)
        return data, self._encode(key, data)

    def _become(
        self, session: Session[Any], record: Record | None, data: Any, baseline: bytes | None
    ) -> None:
        session._record, session._baseline = record, baseline
        session._state = State.LOADED
        session._replace(data)

    def _encode(self, key: str, data: Any) -> bytes:
        try:
            return self._codec.encode(data, key)
        except CodecError as error:
            raise self._encode_error(key, error) from error

    def _encode_error(self, key: str, error: CodecError) -> SessionEncodeError:
        return SessionEncodeError(
            key=key, storage=self.storage_name, path=error.path, reason=error.reason
        )


class Change(NamedTuple):
    """What has to be written for one session; ``encoded`` is what the data in it encodes to."""

    kind: Kind[Any]
    session: Session[Any]
    put: Put
    encoded: bytes | None = None

    def settle(self, began: float) -> None:
        """Note that it was written, at the earliest when that ``began``: the next builds on it."""
        session, put = self.session, self.put
        if isinstance(put.value, bytes):
            expires_at = None if put.ttl is None else began + put.ttl
            session._record = Record(put.value, WRITTEN_HERE, expires_at)
            session._baseline = self.encoded
        elif put.value is DELETE:
            session._record = session._baseline = None
        session._state = State.LOADED


async def write(changes: Sequence[Change], *, hold: bool = False) -> None:
    """Write changes of sessions in one storage, all or none where it has transactions.

    Other processes may have the sessions then, unless the update goes on and must ``hold`` them.
    Raises `SessionConflict`, `StorageUnavailable`.
    """
    storage = changes[0].kind.storage
    lease, ran_out = None, False
    for change in changes:
        change.kind.check_open(change.put.key)
        if change.session._is_leased:
            kind = change.kind
            assert kind.lease_seconds is not None  # noqa: S101 - or there would be no lease
            lease = kind.shared.leases.lease(kind.lease_seconds)
            if not hold:
                ran_out |= await kind.shared.leases.before_giving_up([change.put.key])
    while changes:
        puts = [change.put for change in changes]
        if lease is not None and hold:
            puts = [msgspec.structs.replace(put, hold=True) for put in puts]
        began = time.time()
        try:
            outcomes = await changes[0].kind.shared.calls.put(
                puts, lease, atomic=storage.transactional and len(changes) > 1
            )
        except StorageUnavailable as error:
            raise changes[0].kind.unavailable(puts[0].key, error.reason) from error
        if not hold:
            for change in changes:
                change.session._is_leased = False
        undone = storage.transactional and not all(outcomes)
        again: list[Change] = []
        for change, done in zip(changes, outcomes, strict=True):
            put, record = change.put, change.session._record
            if not done and record is not None and _is_past(record.expires_at):
                # It expired while the handler ran: nobody changed it, so it is simply new.
                change.session._record = None
                again.append(change._replace(put=Put(put.key, put.value, ABSENT, put.ttl)))
            elif not done:
                raise SessionConflict(
                    key=put.key, storage=change.kind.storage_name, lease_ran_out=ran_out
                )
            elif undone:
                again.append(change)
            else:
                change.settle(began)
        changes = again


async def end(sessions: Iterable[Session[Any]]) -> None:
    """End the life of handles and their hold on their sessions, here and for other processes.

    The sessions are of kinds in any storages.
    """
    held: dict[tuple[int, float], list[Session[Any]]] = {}
    sessions = list(sessions)
    for session in sessions:
        kind = kind_of(session)
        kind.refuse(session)
        if session._is_leased and kind.lease_seconds is not None:
            held.setdefault((id(kind.shared.leases), kind.lease_seconds), []).append(session)
    try:
        for (_, seconds), together in held.items():
            keys = [session._stored_key for session in together]
            await kind_of(together[0]).shared.leases.give_up(keys, seconds)
    finally:
        for session in sessions:
            kind_of(session).release(session)


def kind_of(session: Session[Any]) -> Kind[Any]:
    """Give the kind that keeps a session's handle."""
    return cast("Kind[Any]", session._keeper)


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


def _is_past(moment: float | None) -> bool:
    return moment is not None and moment <= time.time()
