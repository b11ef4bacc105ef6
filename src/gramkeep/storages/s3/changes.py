"""Compare-and-set of sessions that are objects, and how such an object is removed.

An object is written only under the condition that it is still the one that was read (``If-Match``),
or that there is none (``If-None-Match``); nothing is ever written without.

Removing knows no such condition: obstore has none, nor do many servers. So what is to be deleted is
first replaced, under the condition, by a *gravestone*, which says until when its maker may remove
it. Up to then nobody writes in its place, but waits for it to be gone, which takes one request;
afterwards, if its maker has died, it counts as no object. Expired sessions are removed alike.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from gramkeep.errors import StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record
from gramkeep.storages.concurrency import Locks
from gramkeep.storages.s3.layout import Content, is_past
from gramkeep.storages.s3.objects import Found, Objects, is_forbidden

if TYPE_CHECKING:
    from obstore import UpdateVersion

SPARE: Final = 60.0  # seconds that clocks may differ, and a machine may sleep, around a removal
FIRST_PAUSE: Final = 0.01  # seconds before what others have changed meanwhile is read again
LONGEST_PAUSE: Final = 0.25


class Token(NamedTuple):
    """What a change may build on: the object, or another one that holds the same session."""

    value: bytes
    expires_at: float | None
    version: UpdateVersion


class Changes:
    """Reads and changes sessions by the names of their objects; one at a time for each name.

    ``timeout``, in seconds, bounds how long a change competes with those of other processes.
    Methods raise `StorageUnavailable`.
    """

    def __init__(self, objects: Objects, *, name: str, timeout: float) -> None:
        self._objects = objects
        self._name = name
        self._timeout = timeout
        self._locks = Locks()

    async def read(self, name: str) -> Record | None:
        """Read a session, ``None`` if there is none."""
        found = await self._objects.read(name)
        if found is None or found.content.value is None or is_past(found.content.expires_at):
            return None
        value, expires_at = found.content.value, found.content.expires_at
        return Record(value, Token(value, expires_at, found.version), expires_at)

    async def carry_out(self, name: str, put: Put) -> bool:
        """Change a session where it is the expected one; ``False`` if it isn't."""
        async with self._locks.of(name):
            found = _assumed(put)
            if found is None and not (put.expected is ABSENT and isinstance(put.value, bytes)):
                found = await self._objects.read(name)
            write = secrets.token_hex(8)
            pause, deadline = FIRST_PAUSE, time.monotonic() + self._timeout
            while _is_expected(put, found):
                content = self._next(put, found, write)
                if content is None:
                    return True
                if found is None or not found.content.is_being_removed:
                    if put.value is DELETE and found is not None:
                        is_done = await self._remove(name, content, found)
                    else:
                        is_done = await self._objects.write(name, content, found)
                    if is_done:
                        return True
                if time.monotonic() > deadline:
                    text = (
                        f"others went on changing the session for {self._timeout:g} s, or one of "
                        "them died while deleting it, which takes a minute to be undone"
                    )
                    raise StorageUnavailable(storage=self._name, reason=text, key=put.key)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                found = await self._objects.read(name)
                if found is not None and found.content.write == write:
                    return True  # a client that the user made may have repeated what was done
            return False

    async def clear(self, name: str) -> bool:
        """Remove what has expired, or is the gravestone of a removal that wasn't finished."""
        async with self._locks.of(name):
            found = await self._objects.read(name)
            if found is None or found.content.is_there or found.content.is_being_removed:
                return False
            return await self._remove(name, self._gravestone(secrets.token_hex(8)), found)

    def _next(self, put: Put, found: Found | None, write: str) -> Content | None:
        """Say what an object shall hold, ``None`` if it can stay as it is."""
        expires_at = None if put.ttl is None else time.time() + put.ttl
        if isinstance(put.value, bytes):
            return Content(put.value, expires_at, write=write)
        if found is None or found.content.value is None:
            return None
        if put.value is DELETE:  # what has expired too: somebody wants it to be gone
            return self._gravestone(write)
        if expires_at is None or not found.content.is_there:
            return None
        return Content(found.content.value, expires_at, write=write)

    def _gravestone(self, write: str) -> Content:
        return Content(None, removed_until=time.time() + self._timeout + SPARE, write=write)

    async def _remove(self, name: str, gravestone: Content, found: Found) -> bool:
        if not await self._objects.write(name, gravestone, found):
            return False
        # A process that stood still since would remove what others have put there by now.
        if not is_past((gravestone.removed_until or 0) - self._timeout - SPARE / 2):
            try:
                await self._objects.remove(name)
            except StorageUnavailable as error:
                if is_forbidden(error):  # which is to be known at the first time
                    raise
                # The session is deleted; the gravestone is in the way for a while, not for ever.
        return True


def _assumed(put: Put) -> Found | None:
    """Take what was read before for what is there, which the write itself will check."""
    token = put.expected
    if not isinstance(token, Token) or is_past(token.expires_at):
        return None
    if put.value is KEEP and put.ttl is None:
        return None  # nothing will be written
    return Found(Content(token.value, token.expires_at), token.version)


def _is_expected(put: Put, found: Found | None) -> bool:
    if put.expected is ANY:
        return True
    is_there = found is not None and found.content.is_there
    if put.expected is ABSENT or found is None or not is_there:
        return put.expected is ABSENT and not is_there
    return isinstance(put.expected, Token) and put.expected.value == found.content.value
