"""Several kinds of session side by side under one name: ``session.user``, ``session.chat``.

The parts that live in one storage are read in one call, and written in one call.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from itertools import permutations
from types import MappingProxyType
from typing import Any, Final

from gramkeep.errors import ConfigurationError
from gramkeep.handle import ASSIGNED, UNREAD, Mirror, Session
from gramkeep.kind import end, kind_of
from gramkeep.lifetime import Lifetime
from gramkeep.manager import Sessions, storage_of
from gramkeep.options import SessionOptions
from gramkeep.origin import Origin
from gramkeep.storage import ANY, KEEP, Put, Storage

RESERVED: Final = {"clear", "data", "is_open", "parts", "reload", "save"}


class MultiSession:
    """What handlers get: each part's data as an attribute; of a lazy one, to be awaited.

    Assigning to a part replaces its data, ``None`` deletes it.
    """

    __slots__ = ("_is_lazy", "_parts")

    _parts: Mapping[str, Session[Any]]
    _is_lazy: bool

    def __init__(self, parts: Mapping[str, Session[Any]], *, lazy: bool) -> None:
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_is_lazy", lazy)

    def __getattr__(self, name: str) -> Any:
        session = _part(self._parts, name)
        return session if self._is_lazy else session.data

    def __setattr__(self, name: str, value: Any) -> None:
        _part(self._parts, name).data = value

    def __delattr__(self, name: str) -> None:
        _part(self._parts, name).data = None

    def __dir__(self) -> list[str]:
        return list(self._parts)

    def __repr__(self) -> str:
        return f"<MultiSession of {', '.join(self._parts)}>"


class MultiHandle:
    """The handle of a multi session: the handle of each part as an attribute, and of all of them.

    ``parts`` has the parts' handles by name.
    """

    __slots__ = ("_mirror", "parts", "view")

    _refusal = None  # it is the parts that can be used, or not

    def __init__(self, parts: dict[str, Session[Any]], *, lazy: bool) -> None:
        self.parts: Mapping[str, Session[Any]] = MappingProxyType(parts)
        self.view = MultiSession(self.parts, lazy=lazy)
        self._mirror: Mirror | None = None

    def __getattr__(self, name: str) -> Session[Any]:
        return _part(self.parts, name)

    def __repr__(self) -> str:
        return f"<MultiHandle of {', '.join(self.parts)}>"

    def __await__(self) -> Generator[Any, None, MultiSession]:
        return self._load().__await__()

    @property
    def is_open(self) -> bool:
        """Whether any part can be used; see `Session.is_open`."""
        return any(session.is_open for session in self.parts.values())

    @property
    def data(self) -> MultiSession:
        """The parts' data by name. Set it to ``None`` to delete them all."""
        return self.view

    @data.setter
    def data(self, value: None) -> None:
        if value is not None:
            text = (
                "a multi session can't be replaced as a whole: assign to its parts "
                f"({', '.join(self.parts)}), or None to delete them all"
            )
            raise ConfigurationError(text)
        for session in self.in_order():
            session.data = None

    async def save(self) -> None:
        """Save all parts now, in the middle of the handler; see `Session.save`."""
        await self._save(hold=True)

    async def clear(self) -> None:
        """Delete all parts now; see `Session.clear`."""
        for session in self.in_order():
            await session.clear()

    async def reload(self) -> None:
        """Read all parts again; see `Session.reload`."""
        for session in self.in_order():
            await session.reload()

    def in_order(self) -> list[Session[Any]]:
        """Give the parts that this update has, in the order in which every update takes them."""
        return sorted(
            (session for session in self.parts.values() if session._stored_key),
            key=lambda session: (session._keeper.storage_name, session._stored_key),
        )

    async def load_together(self) -> None:
        """Hold the parts that aren't known yet, then read those of one storage in one call."""
        together: dict[tuple[int, float | None], list[Session[Any]]] = defaultdict(list)
        for session in self.in_order():
            if session._state is not UNREAD:
                continue
            kind = kind_of(session)
            await kind.hold(session)
            together[id(kind.storage), kind.lease_seconds].append(session)
        for sessions in together.values():
            records = await kind_of(sessions[0]).read_held(*sessions)
            for session, record in zip(sessions, records, strict=True):
                await kind_of(session).accept(session, record, unless=ASSIGNED)

    async def _save(self, *, hold: bool) -> None:
        """Write the parts that changed, those of one storage in one call.

        Those beside them that didn't are given up by the same call, unless the update goes on.
        """
        async with AsyncExitStack() as stack:
            for session in self.in_order():
                await stack.enter_async_context(session._alone())
            if self._mirror is not None:
                self._mirror.pull()
            changed: dict[int, dict[Session[Any], Put]] = defaultdict(dict)
            unchanged: list[Session[Any]] = []
            for session in self.in_order():
                kind = kind_of(session)
                put = await kind.change_of(session)
                if put is not None:
                    changed[id(kind.storage)][session] = put
                elif session._is_leased and not hold:
                    unchanged.append(session)
            for session in unchanged:
                kind = kind_of(session)
                if beside := changed.get(id(kind.storage)):
                    beside[session] = Put(session._stored_key, KEEP, ANY)
            for changes in changed.values():
                await kind_of(next(iter(changes))).write(changes, hold=hold)

    async def _load(self) -> MultiSession:
        for session in self.in_order():
            await session
        return self.view


class MultiSessions:
    """All sessions of several kinds that are handed out together.

    ``parts`` has the `Sessions` of each by name, for use outside of handlers. A part without a
    ``prefix`` gets its name and a colon, so that user 42 and chat 42 never share a record.
    """

    def __init__(
        self, *, key: str = "session", lazy: bool = False, **parts: SessionOptions[Any]
    ) -> None:
        self.options: SessionOptions[Any] = SessionOptions(key=key, lazy=lazy)
        self._options_of_parts = _checked(parts)
        self._owned: dict[str | None, Storage] = {}
        self._begin()

    def _begin(self) -> None:
        self.parts: Mapping[str, Sessions[Any]] = MappingProxyType(
            {
                name: self._make_part(name, options)
                for name, options in self._options_of_parts.items()
            }
        )
        for (one, of_one), (other, of_other) in permutations(self.parts.items(), 2):
            prefix, longer = of_one.kind.prefix, of_other.kind.prefix
            if of_one.storage is of_other.storage and longer.startswith(prefix):
                text = (
                    f"prefix {prefix!r} of part {one} begins the prefix {longer!r} of part "
                    f"{other}, and both are in one storage, where their keys could meet. Give "
                    "them prefixes neither of which begins the other, as their names with a colon"
                )
                raise ConfigurationError(text)

    async def open_for(
        self, origin: Any, *, lazy: bool | None = None
    ) -> AbstractAsyncContextManager[MultiHandle]:
        """Hold all parts for one update; see `Sessions.open_for`."""
        parts: dict[str, Session[Any]] = {
            name: await sessions.open_for(origin, lazy=True)
            for name, sessions in self.parts.items()
        }
        return _OpenedMulti(parts, lazy=self.options.lazy if lazy is None else lazy)

    async def hand_out(self, handle: MultiHandle, *, lazy: bool) -> MultiSession:
        """Give what handlers find under ``key``; see `Sessions.hand_out`."""
        if not lazy:
            await handle.load_together()
        return self.shown(handle, lazy=lazy)

    def shown(self, handle: MultiHandle, *, lazy: bool) -> MultiSession:
        """Give what handlers find under ``key``, once it is loaded."""
        handle.view = MultiSession(handle.parts, lazy=lazy)
        return handle.view

    def reserve(self, handle: MultiHandle) -> None:
        """Take the place of all parts in their keys' queues; see `Sessions.reserve`."""
        for session in handle.in_order():
            kind_of(session).reserve(session)

    def withdraw(self, handle: MultiHandle) -> None:
        """Give the reserved places up; see `Sessions.withdraw`."""
        for session in handle.in_order():
            kind_of(session).withdraw(session)

    async def move_chat(self, origin: Origin, old_chat_id: int, new_chat_id: int) -> int:
        """Move all sessions of a chat to its new id, in all parts; see `Sessions.move_chat`."""
        moved = [
            await part.move_chat(origin, old_chat_id, new_chat_id) for part in self.parts.values()
        ]
        return sum(moved)

    async def drain(self, timeout: Lifetime = 30.0) -> None:
        """Wait until no part is held; see `Sessions.drain`."""
        await asyncio.gather(*(part.drain(timeout) for part in self.parts.values()))

    async def aclose(self, drain_timeout: Lifetime = 30.0) -> None:
        """Close all parts, then the storages that were made here; see `Sessions.aclose`."""
        await asyncio.gather(*(part.aclose(drain_timeout) for part in self.parts.values()))
        for storage in self._owned.values():
            await storage.aclose()

    def reopen(self) -> None:
        """Begin anew after `aclose`; see `Sessions.reopen`."""
        if any(part.kind.is_closed for part in self.parts.values()):
            self._owned = {
                url: storage for url, storage in self._owned.items() if storage.outlives_closing
            }
            self._begin()

    def _make_part(self, name: str, options: SessionOptions[Any]) -> Sessions[Any]:
        storage = options.storage
        if storage is None or isinstance(storage, str):  # one URL is one storage, for all parts
            if storage not in self._owned:
                self._owned[storage], _ = storage_of(storage)
            storage = self._owned[storage]
        prefix = f"{name}:" if options.prefix is None else options.prefix
        return Sessions.of(replace(options, prefix=prefix, storage=storage))


class _OpenedMulti(MultiHandle):
    """A multi session that is its own context manager."""

    __slots__ = ("_is_lazy",)

    def __init__(self, parts: dict[str, Session[Any]], *, lazy: bool) -> None:
        super().__init__(parts, lazy=lazy)
        self._is_lazy = lazy

    async def __aenter__(self) -> MultiHandle:
        for session in self.in_order():
            kind_of(session).held.add(session)
        if not self._is_lazy:
            try:
                await self.load_together()
            except BaseException:
                await end(self.parts.values())
                raise
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                await self._save(hold=False)
        finally:
            await end(self.parts.values())


_OpenedMulti.__name__ = MultiHandle.__name__  # as Python's own errors call it


def _checked(parts: Mapping[str, Any]) -> Mapping[str, SessionOptions[Any]]:
    if not parts:
        text = 'a multi session needs parts: session(type="multi", user=SessionOptions(...), ...)'
        raise ConfigurationError(text)
    for name, options in parts.items():
        if not isinstance(options, SessionOptions):
            if name in SessionOptions.__dataclass_fields__:
                text = (
                    f"{name}={options!r}: in a multi session it is an option of the parts: "
                    f"user=SessionOptions({name}={options!r}, ...)"
                )
                raise ConfigurationError(text)
            text = f"{name}={options!r}: a part of a multi session is given as SessionOptions(...)"
            raise ConfigurationError(text)
        if name in RESERVED or name.startswith("_"):
            text = f"a part of a multi session can't be called {name!r}"
            raise ConfigurationError(text)
        if options.key != "session" or options.lazy:
            text = f"part {name!r}: key= and lazy= belong to the multi session as a whole"
            raise ConfigurationError(text)
    return parts


def _part(parts: Mapping[str, Session[Any]], name: str) -> Session[Any]:
    try:
        return parts[name]
    except KeyError:
        text = f"this session has no part {name!r}; it has {', '.join(parts)}"
        raise AttributeError(text) from None
