"""Objects in a bucket, through obstore: read, written under a condition, removed, listed.

What is added to obstore: a bound on waiting and on the requests under way at once, errors in words,
and the truth about a write whose answer was lost, which is looked for in the object itself. Before
the first write an object of no session, ``!conditions``, is written in ways that must be refused,
as there are servers that take a condition and don't heed it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gramkeep.errors import StorageUnavailable
from gramkeep.storages.concurrency import Gate, Locks
from gramkeep.storages.driver import driver_of
from gramkeep.storages.s3.layout import Content, may_say_more, pack, unpack

with driver_of("s3"):
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )
    from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion

PAGE: Final = 1000  # names in one answer to a listing: the most that S3 gives
PAUSE: Final = 0.1  # seconds before a write is tried again

_CODE: Final = re.compile(r"<Code>(.*?)</Code>", re.DOTALL)
_MESSAGE: Final = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_NOT_THERE: Final = "NoSuchKey"
_TRIAL: Final = "!conditions"
_TRIAL_BODY: Final = b"gramkeep tries here whether this server heeds If-Match and If-None-Match.\n"
_NEVER: Final = f'"{"0" * 32}"'  # no ETag of anything
_OTHER_BASIS: Final = (AlreadyExistsError, PreconditionError, FileNotFoundError)
_FORBIDDEN: Final = (PermissionDeniedError, UnauthenticatedError)
_FORBIDDEN_CODES: Final = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)


class Found(NamedTuple):
    """An object: what it holds, and what S3 compares, in the form that obstore takes it back in."""

    content: Content
    version: UpdateVersion


class Listed(NamedTuple):
    """An object in a listing; where it ``may_say_more``, only looking tells what it is."""

    name: str
    may_say_more: bool


class Objects:
    """The objects in one folder of a bucket; ``name`` is how errors call the storage.

    ``reader``, which also removes, may repeat what failed; ``writer`` had better not, as `write`
    does that by itself.
    ``timeout``, in seconds, is for one request with all that obstore repeats of it, and with
    waiting until fewer than ``at_once`` others are under way. All methods raise
    `StorageUnavailable`.
    """

    def __init__(
        self,
        reader: S3Store,
        writer: S3Store,
        folder: str,
        *,
        name: str,
        timeout: float,
        at_once: int,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._folder = folder
        self._start = f"{folder}/" if folder else ""
        self._name = name
        self._timeout = timeout
        self._gate = Gate(at_once)
        self._trial = Locks()
        self._heeds_conditions = False

    async def read(self, name: str) -> Found | None:
        """Read an object, ``None`` if there is none."""
        try:
            async with self._request():
                result = await self._reader.get_async(self._start + name)
                body = bytes(await result.bytes_async())
        except FileNotFoundError as error:
            # That there is no bucket, or that an address leads to something that isn't S3 and
            # knows nothing, doesn't mean that there is no session.
            if _first(_CODE, error) != _NOT_THERE:
                raise self._unavailable(_reason(error)) from error
            return None
        return self._found(name, result, body)

    async def look(self, name: str) -> Found | None:
        """Read all but the session of an object that was listed, ``None`` if it is gone."""
        try:
            async with self._request():
                options: Any = {"head": True}
                result = await self._reader.get_async(self._start + name, options=options)
        except FileNotFoundError:
            return None
        return self._found(name, result, b"")

    async def write(self, name: str, content: Content, basis: Found | None) -> bool:
        """Write an object if ``basis`` is what there is, ``None`` for nothing.

        ``content.write`` must be of this content alone. ``False`` says that nothing was written.
        """
        if not self._heeds_conditions:
            async with self._trial.of(_TRIAL):
                await self._try_conditions()
        body, metadata = pack(content)
        for is_last in (False, True):
            try:
                async with self._request():
                    await self._writer.put_async(
                        self._start + name,
                        body,
                        attributes=metadata,
                        mode="create" if basis is None else basis.version,
                        use_multipart=False,
                    )
            except _OTHER_BASIS as error:
                # After a first try that may have been done it can be our own.
                if not is_last or await self._is_own(name, content):
                    return is_last
                raise self._unknown("it was written by another since") from error
            except StorageUnavailable as error:
                if is_forbidden(error):
                    raise
                with suppress(StorageUnavailable):
                    if await self._is_own(name, content):
                        return True
                    if not is_last and not isinstance(error.__cause__, TimeoutError):
                        await asyncio.sleep(PAUSE)
                        continue
                raise self._unknown(error.reason) from error.__cause__
            return True
        raise AssertionError  # pragma: no cover - the last round returns or raises

    async def remove(self, name: str) -> None:
        """Remove an object, whatever it is by then."""
        with suppress(FileNotFoundError):  # S3 itself doesn't mind
            async with self._request():
                await self._reader.delete_async(self._start + name)

    async def pages(self, after: str | None) -> AsyncIterator[Sequence[Listed]]:
        """List the objects in the order of their names, some at a time, from behind ``after``."""
        offset = None if after is None else self._start + after
        pages = aiter(self._reader.list(self._folder or None, offset=offset, chunk_size=PAGE))
        while True:
            try:
                async with self._request():
                    page = await anext(pages, None)
            except FileNotFoundError as error:
                raise self._unavailable(_reason(error)) from error
            if page is None:
                return
            start = len(self._start)
            yield [Listed(meta["path"][start:], may_say_more(meta["size"])) for meta in page]

    def _found(self, name: str, result: Any, body: bytes) -> Found:
        meta = result.meta
        version: Any = {part: meta[part] for part in ("e_tag", "version") if meta[part]}
        try:
            return Found(unpack(body, result.attributes), version)
        except ValueError as error:
            raise self._unavailable(f"the metadata of {name!r} are damaged: {error}") from error

    async def _is_own(self, name: str, content: Content) -> bool:
        found = await self.read(name)
        return found is not None and found.content.write == content.write

    async def _try_conditions(self) -> None:
        if self._heeds_conditions:  # somebody has tried meanwhile
            return
        never: UpdateVersion = {"e_tag": _NEVER}
        is_refused = await self._is_refused("create") or await self._is_refused("create")
        if not is_refused or not await self._is_refused(never):
            text = (
                "the server writes whatever the condition, If-None-Match or If-Match, so that "
                "updates would be lost. It can't keep sessions"
            )
            raise self._unavailable(text)
        self._heeds_conditions = True

    async def _is_refused(self, mode: PutMode) -> bool:
        try:
            async with self._request():
                await self._reader.put_async(
                    self._start + _TRIAL, _TRIAL_BODY, mode=mode, use_multipart=False
                )
        except FileNotFoundError as error:
            if _first(_CODE, error) != _NOT_THERE:  # but that there is no such bucket
                raise self._unavailable(_reason(error)) from error
            return True
        except (AlreadyExistsError, PreconditionError):
            return True
        return False

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[None]:
        """Hold one request: bounded, and with errors in words but for those that are answers."""
        self._refuse_after_fork()
        try:
            async with asyncio.timeout(self._timeout), self._gate.turn():
                yield
        except _OTHER_BASIS:
            raise
        except TimeoutError as error:
            raise self._unavailable(f"no answer within {self._timeout:g} s") from error
        except (BaseError, OSError) as error:
            raise self._unavailable(_reason(error)) from error

    def _refuse_after_fork(self) -> None:
        global _used_by  # noqa: PLW0603 - obstore has one runtime for all
        if _used_by is None:
            _used_by = os.getpid()
        elif _used_by != os.getpid():
            text = (
                "this process was forked from one that had used it, and obstore's threads were "
                "left behind there. Fork before the first use, or start processes by spawn"
            )
            raise self._unavailable(text)

    def _unavailable(self, reason: str) -> StorageUnavailable:
        return StorageUnavailable(storage=self._name, reason=reason)

    def _unknown(self, reason: str) -> StorageUnavailable:
        return self._unavailable(f"{reason}; whether the session was written is not known")


_used_by: int | None = None


def is_forbidden(error: StorageUnavailable) -> bool:
    """Whether the server knows the credentials not, or not as those of somebody who may do that."""
    return isinstance(error.__cause__, _FORBIDDEN)


def _first(pattern: re.Pattern[str], error: Exception) -> str:
    match = pattern.search(str(error))
    return "" if match is None else match[1]


def _reason(error: Exception) -> str:
    """Say what went wrong: as the server put it, without the innards of the client."""
    code, message = _first(_CODE, error), _first(_MESSAGE, error)
    text = f"{code}: {message}" if code else str(error).partition("\n\nDebug source:")[0]
    if isinstance(error, _FORBIDDEN) or code in _FORBIDDEN_CODES:
        return f"the credentials were refused ({text})"
    return text
