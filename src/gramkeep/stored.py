"""What is done to stored sessions outside of updates: reading, listing, moving, migrating."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from gramkeep.errors import ConfigurationError, GramkeepError, SessionConflict
from gramkeep.handle import Session
from gramkeep.kind import Kind, end
from gramkeep.origin import Origin, require_key
from gramkeep.supergroup import moves

T = TypeVar("T")

AT_ONCE: Final = 100  # sessions read, or removed, by one call to the storage

log = logging.getLogger("gramkeep")


@dataclass
class MigrationReport:
    """How far `Sessions.migrate_all` has come.

    ``migrated`` counts sessions that were of an older form, ``current`` those that weren't;
    ``failed`` has the error of each that was left as it was, by key.
    """

    migrated: int = 0
    current: int = 0
    failed: dict[str, GramkeepError] = field(default_factory=dict)


class StoredSessions(Generic[T]):
    """The stored sessions of one kind; `Sessions` adds those that updates hold."""

    def __init__(self, kind: Kind[T]) -> None:
        self.kind = kind
        self.options = kind.options
        self.storage = kind.storage

    async def get(self, key: str) -> T | None:
        """Read one session without holding it: a snapshot, or ``None`` if nothing is stored.

        Raises `SessionDecodeError`, `NewerSessionVersion`, `StorageUnavailable`.
        """
        stored_key = self.kind.prefix + require_key(key)
        (record,) = await self.kind.read([stored_key])
        if record is None:
            return None
        loaded = await self.kind.decode(stored_key, record.value)
        return None if loaded is None else loaded.data

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the keys of all stored sessions that start with ``prefix``, each once."""
        self.kind.check_open()
        own = self.kind.prefix
        async for stored_key in self.storage.scan(own + prefix):
            yield stored_key[len(own) :]

    async def items(self, prefix: str = "") -> AsyncIterator[tuple[str, T]]:
        """Iterate over keys and data of all stored sessions that start with ``prefix``.

        Snapshots, some at a time, so that memory stays flat however many there are. Raises
        `SessionDecodeError` at the first one that can't be read.
        """
        page: list[str] = []
        async for key in self.keys(prefix):
            page.append(key)
            if len(page) == AT_ONCE:
                async for item in self._read_page(page):
                    yield item
                page.clear()
        async for item in self._read_page(page):
            yield item

    async def _read_page(self, keys: list[str]) -> AsyncIterator[tuple[str, T]]:
        if not keys:
            return
        stored_keys = [self.kind.prefix + key for key in keys]
        records = await self.kind.read(stored_keys)
        for key, stored_key, record in zip(keys, stored_keys, records, strict=True):
            if record is not None:
                loaded = await self.kind.decode(stored_key, record.value)
                if loaded is not None:
                    yield key, loaded.data

    async def count(self, prefix: str = "") -> int:
        """Count the stored sessions whose key starts with ``prefix``."""
        total = 0
        async for _ in self.keys(prefix):
            total += 1
        return total

    async def prune(self) -> int:
        """Remove expired sessions from the storage for good, and say how many there were.

        Goes in small steps, between which others have their turn. The storage as a whole is
        pruned, other kinds in it included. Raises `StorageUnavailable`.
        """
        self.kind.check_open()
        total = 0
        while True:
            removed = await self.storage.prune(AT_ONCE)
            total += removed
            if removed < AT_ONCE:
                return total

    async def move(self, old_key: str, new_key: str) -> bool:
        """Give a session another key, and say whether there was one to move.

        If there is data under both keys, the ``merge`` option decides what becomes of them;
        without it both stay as they are, with a line in the log. Holds both sessions meanwhile.
        Raises `SessionBusy`, `SessionConflict`, `SessionDecodeError`, `StorageUnavailable`.
        """
        if require_key(old_key) == require_key(new_key):
            return False
        async with self._handle(old_key) as old, self._handle(new_key) as new:
            in_order = sorted((old, new), key=lambda session: session._stored_key)
            for session in in_order:
                await self.kind.hold(session)
            records = await self.kind.read_held(*in_order)
            for session, record in zip(in_order, records, strict=True):
                await self.kind.accept_stored(session, record)
            if old.is_new:
                return False
            if new.is_new:
                new.data = old.data
            elif self.options.merge is not None:
                new.data = await self._merged(old, new)
            else:
                log.warning(
                    "session %r in %s was not moved to %r, where another one is stored: both are "
                    "kept. Pass merge= to have them made into one",
                    old._stored_key,
                    self.storage.name,
                    new._stored_key,
                )
                return False
            old.data = None  # deletes it
            changes = {
                session: put
                for session in (new, old)  # so that where both aren't one step, none is lost
                if (put := await self.kind.change_of(session)) is not None
            }
            await self.kind.write(changes)
            return True

    async def _merged(self, old: Session[T], new: Session[T]) -> T:
        assert self.options.merge is not None  # noqa: S101 - its caller has looked
        merged: Any = self.options.merge(old.data, new.data)
        data: T = await merged if inspect.isawaitable(merged) else merged
        if data is None:
            text = (
                f"merge={self.options.merge!r} returned None for {old.key!r} and {new.key!r}; it "
                "must return the data of the two. Both are kept"
            )
            raise ConfigurationError(text, key=new._stored_key, storage=self.storage.name)
        return data

    async def move_chat(self, origin: Origin, old_chat_id: int, new_chat_id: int) -> int:
        """Move all sessions of a chat to its new id, and say how many there were.

        For integrations, on the service messages of a group that became a supergroup; ``origin``
        is where the message came from. May be called twice, and at once, with the same result.
        Raises what `move` raises.
        """
        moved = 0
        function = self.options.get_session_key
        async for old_key, new_key in moves(function, origin, old_chat_id, new_chat_id, self.keys):
            try:
                moved += await self.move(old_key, new_key)
            except SessionConflict:  # somebody else moves it, or has just used it
                moved += await self.move(old_key, new_key)
        return moved

    async def migrate_all(
        self,
        *,
        dry_run: bool = False,
        progress: Callable[[MigrationReport], Any] | None = None,
    ) -> MigrationReport:
        """Bring every stored session to today's form, one at a time, each held meanwhile.

        That is its newest version, sealed as the codec seals today: with the first encryption
        key, say.

        With ``dry_run`` nothing is written: the report says what would be. ``progress`` is called
        with the report after each, and may be async. What is done stays done, so that
        a run that was broken off is continued by the next; what fails is left as it was and
        reported by key.
        """
        report = MigrationReport()
        async for key in self.keys():
            try:
                async with self._handle(key) as session:
                    await self.kind.hold(session)
                    (record,) = await self.kind.read_held(session)
                    if record is None:
                        continue
                    loaded = await self.kind.accept_stored(session, record)
                    is_sealed_as_now = self.kind.is_sealed_as_now(record)
                    if loaded.is_new or (is_sealed_as_now and not loaded.is_migrated):
                        report.current += 1
                    else:
                        report.migrated += 1
                        if not dry_run:
                            session._baselines = ()  # it has to be written as it is
                            put = await self.kind.change_of(session)
                            assert put is not None  # noqa: S101 - of no baseline, all differs
                            await self.kind.write({session: put})
            except GramkeepError as error:
                report.failed[key] = error
            if progress is not None and inspect.isawaitable(told := progress(report)):
                await told
        return report

    @asynccontextmanager
    async def _handle(self, key: str) -> AsyncIterator[Session[T]]:
        session: Session[T] = Session(self.kind, self.kind.prefix + key, Origin())
        try:
            yield session
        finally:
            await end([session])
