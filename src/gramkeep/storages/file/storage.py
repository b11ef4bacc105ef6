"""`FileStorage`: the storage contract, kept by the modules beside this one."""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from gramkeep.errors import ConfigurationError
from gramkeep.lifetime import Lifetime, positive_seconds
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record
from gramkeep.storages.file.folder import Changes, Folder, content_of, is_temporary
from gramkeep.storages.file.layout import GramkeepLayout, GrammyLayout, Layout, Stored
from gramkeep.storages.url_options import seconds, url_options
from gramkeep.storages.worker import Job, Read, Worker, WorkerStorage, Write

SWEEP_EVERY: Final = 60.0  # seconds between two looks for what is expired or left over
SWEEP_AT_MOST: Final = 500  # files looked at by one of them
LEFT_OVER_AFTER: Final = 600.0  # seconds; no write takes that long
WRITE_TOGETHER: Final = 100  # calls carried out under one lock, to bound how long others wait
SCAN_PAGE: Final = 500  # files looked at in one go while scanning

LAYOUTS: Final = {"gramkeep": GramkeepLayout, "grammy": GrammyLayout}
OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "layout": str,
    "synchronous": str,
    "busy_timeout": seconds,
}

T = TypeVar("T")


class FileStorage(WorkerStorage):
    """Keeps every session in a file of its own, in the folder ``path``.

    The folder is created at first use, the one that it stands in isn't.

    ``layout``: ``"gramkeep"``, for any keys and codecs; ``"grammy"``, the files of
    ``@grammyjs/storage-file``, for JSON and for keys that can be names of files.
    ``synchronous``: ``"FULL"``, every answered save survives a power cut; ``"NORMAL"``, it
    survives any death of the process, but a power cut may undo the last ones.
    ``busy_timeout``: how long to wait for another process that is writing, a timedelta or seconds.

    A folder that disappears while the bot runs isn't replaced by an empty one: reads and writes
    raise `StorageUnavailable` until it is there again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        layout: Literal["gramkeep", "grammy"] = "gramkeep",
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: Lifetime = 10.0,
    ) -> None:
        super().__init__()
        path = os.fspath(path)
        if not path or "\0" in path:
            text = f"FileStorage needs the path of a folder, not {path!r}"
            raise ConfigurationError(text)
        if layout not in LAYOUTS:
            text = f"layout={layout!r} must be 'gramkeep' or 'grammy'"
            raise ConfigurationError(text)
        if synchronous not in ("FULL", "NORMAL"):
            text = f"synchronous={synchronous!r} must be 'FULL' or 'NORMAL'"
            raise ConfigurationError(text)
        folder = Path(path)
        root = "/" if folder.is_absolute() else "./"
        self.name = f"file://{root}{folder.as_posix().removeprefix('/')}"
        self._layout: Layout = LAYOUTS[layout](self.name)
        self._make_folder: Callable[[], Folder] = partial(
            Folder,
            folder.absolute(),
            synchronous=synchronous,
            busy_timeout=positive_seconds("busy_timeout", busy_timeout),
        )
        self._unpruned: Iterator[Path] | None = None  # what the last `prune` has not come to

    @classmethod
    def from_url(cls, url: str) -> FileStorage:
        """Make a storage from ``file:///absolute/folder`` or ``file://./relative/folder``.

        The options ``layout``, ``synchronous`` and ``busy_timeout`` may follow a ``?``.
        """
        parts = urlsplit(url, allow_fragments=False)  # a folder's name may have a # in it
        is_clear = len(parts.path) > 1 and not parts.path.startswith("//")
        if parts.netloc not in ("", ".", "..") or not is_clear:
            text = (
                f"storage URL {url!r}: write file:///var/lib/sessions, or file://./sessions for "
                "a folder in the one that the program runs in"
            )
            raise ConfigurationError(text)
        options = url_options(url, OPTIONS)
        path = unquote(parts.netloc + parts.path)
        return cls(path.removeprefix("/") if os.name == "nt" else path, **options)

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over all keys that start with ``prefix``, in no order."""
        page = _Page(prefix, None)
        while (keys := await self._call(page)) is not None:
            for key in keys:
                yield key
            page = _Page(prefix, page.files)

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions, going on where the last call came to.

        Files are looked at some at a time, so that others have their turn in between.
        """
        total = 0
        files, self._unpruned = self._unpruned, None
        goes_on = files is not None
        while total < at_most:
            page = _Prune(at_most - total, files)
            removed = await self._call(page)
            files = page.files
            if removed is not None:
                total += removed
            elif goes_on:  # what comes before may have expired by now
                goes_on, files = False, None
            else:
                return total
        self._unpruned = files
        return total

    def _begin(self) -> Worker:
        files = _Files(self._make_folder(), self._layout)
        return Worker(self.name, files.process, lambda: None)


class _Page(Job[list[str] | None]):
    """The next keys of a scan, ``None`` at its end. ``files`` are those still to look at."""

    __slots__ = ("files", "prefix")

    def __init__(self, prefix: str, files: Iterator[Path] | None) -> None:
        super().__init__()
        self.prefix = prefix
        self.files = files


class _Prune(Job[int | None]):
    """Removes what has expired of the next files, ``None`` at their end. ``files`` as above."""

    __slots__ = ("at_most", "files")

    def __init__(self, at_most: int, files: Iterator[Path] | None) -> None:
        super().__init__()
        self.at_most = at_most
        self.files = files


class _Files:
    """What the files mean; lives on the worker's thread."""

    def __init__(self, folder: Folder, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._sweep_at = 0.0
        self._unswept: Iterator[Path] = iter(())

    def process(self, jobs: Sequence[Job[Any]]) -> Iterator[Sequence[Job[Any]]]:
        """Answer reads at once, then all writes together."""
        writes = [job for job in jobs if isinstance(job, Write)]
        reads = [job for job in jobs if isinstance(job, Read | _Page)]
        if reads:
            for read in reads:
                self._attempt(read)
            yield reads
        for first in range(0, len(writes), WRITE_TOGETHER):
            group = writes[first : first + WRITE_TOGETHER]
            try:
                with self._folder.locked():
                    self._carry_out(group)
                    self._folder.find()  # or it went where nobody will look for it
            except OSError as error:
                for job in group:
                    job.error = error
            yield group
        if writes:
            with suppress(OSError):  # it goes on where it stopped, with a later write
                self._sweep_sometimes()
        for prune in jobs:
            if isinstance(prune, _Prune):
                self._attempt(prune)
                yield [prune]

    def _attempt(self, job: Read | _Page | _Prune) -> None:
        try:
            self._folder.find()
            if isinstance(job, Read):
                job.answer = self._read(job)
            elif isinstance(job, _Page):
                job.answer = self._page(job)
            else:
                job.answer = self._prune(job)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            job.error = error

    def _read(self, job: Read) -> list[Record | None]:
        records: list[Record | None] = []
        for key in job.keys:
            path = self._place(key)
            stored = self._alive(path, content_of(path))
            if stored is None:
                records.append(None)
                continue
            expires_at = None if stored.expires_at is None else stored.expires_at / 1000
            records.append(Record(stored.value, stored.value, expires_at))
        if None in records:
            self._folder.find()  # only where it is, something can be missing
        return records

    def _page(self, job: _Page) -> list[str] | None:
        if job.files is None:
            job.files = self._folder.files()
        paths = list(islice(job.files, SCAN_PAGE))
        if not paths:
            return None
        keys = (self._key_at(path, job.prefix) for path in paths)
        return [key for key in keys if key is not None]

    def _key_at(self, path: Path, prefix: str) -> str | None:
        """Give the key of a session that starts with ``prefix`` and isn't expired."""
        if not self._layout.is_session(path.parent.name, path.name):
            return None
        key = self._layout.key_in(path.name)
        if key is not None and not key.startswith(prefix):
            return None
        content = content_of(path)
        if content is None:
            self._folder.find()
        stored = self._alive(path, content)
        if stored is None:
            return None
        key = stored.key if key is None else key
        if key is None or self._place(key) != path:
            text = f"{path} is named like a session's file, and isn't one"
            raise OSError(text)
        return key if key.startswith(prefix) else None

    def _prune(self, job: _Prune) -> int | None:
        if job.files is None:
            job.files = self._folder.files()
        looked_at = 0
        expired: list[Path] = []
        for path in islice(job.files, SCAN_PAGE):
            looked_at += 1
            if self._is_expired(path):
                expired.append(path)
                if len(expired) == job.at_most:
                    break
        if not expired:
            return 0 if looked_at else None
        removed = 0
        with self._folder.locked():
            for path in expired:
                if self._is_expired(path):  # still: it may have been written meanwhile
                    path.unlink()
                    removed += 1
        return removed

    def _is_expired(self, path: Path) -> bool:
        if not self._layout.is_session(path.parent.name, path.name):
            return False
        with suppress(OSError):  # a damaged one is an error for those who ask for it
            content = content_of(path)
            return content is not None and self._alive(path, content) is None
        return False

    def _carry_out(self, writes: Sequence[Write]) -> None:
        changes: Changes = {}
        try:
            answers = [[self._decide(put, changes) for put in job.puts] for job in writes]
            staged = self._folder.stage(changes)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            if len(writes) == 1:
                writes[0].error = error
            else:
                for job in writes:  # alone, so that only the one which can't be written fails
                    self._carry_out([job])
            return
        try:
            self._folder.publish(staged)
        except OSError as error:
            for job in writes:
                job.error = error
            return
        for job, answer in zip(writes, answers, strict=True):
            job.answer = answer

    def _decide(self, put: Put, changes: Changes) -> bool:
        """Tell whether a change is to be made, and note what becomes of the file."""
        path = self._place(put.key)
        expires_at = None if put.ttl is None else _milliseconds(time.time() + put.ttl)
        if put.expected is ANY and isinstance(put.value, bytes):
            changes[path] = self._layout.pack(put.key, put.value, expires_at)
            return True
        content = changes[path] if path in changes else content_of(path)
        if put.expected is ANY and put.value is DELETE:
            if content is not None:
                changes[path] = None
            return True
        stored = self._alive(path, content)
        if put.expected is not ANY:
            expected = None if put.expected is ABSENT else put.expected
            if expected != (None if stored is None else stored.value):
                return False
        if isinstance(put.value, bytes):
            changes[path] = self._layout.pack(put.key, put.value, expires_at)
        elif put.value is DELETE and stored is not None:
            changes[path] = None
        elif put.value is KEEP and stored is not None and put.ttl is not None:
            changes[path] = self._layout.pack(put.key, stored.value, expires_at)
        return True

    def _sweep_sometimes(self) -> None:
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + SWEEP_EVERY
        paths = list(islice(self._unswept, SWEEP_AT_MOST))
        if len(paths) < SWEEP_AT_MOST:  # all have been looked at: begin again
            self._unswept = self._folder.files()
            paths += islice(self._unswept, SWEEP_AT_MOST - len(paths))
        with self._folder.locked():
            for path in paths:
                with suppress(OSError):  # what can't be swept harms nobody
                    if self._is_rubbish(path):
                        path.unlink()

    def _is_rubbish(self, path: Path) -> bool:
        if is_temporary(path):
            return time.time() - path.stat().st_mtime > LEFT_OVER_AFTER
        return self._is_expired(path)

    def _place(self, key: str) -> Path:
        return self._folder.path.joinpath(*self._layout.place(key))

    def _alive(self, path: Path, content: bytes | None) -> Stored | None:
        """Take the content of a file apart, ``None`` if there is none that hasn't expired."""
        if content is None:
            return None
        try:
            stored = self._layout.unpack(content)
        except (ValueError, OverflowError) as error:
            text = f"{path} can't be read: {error}"
            raise OSError(text) from error
        if stored.expires_at is None or stored.expires_at > _milliseconds(time.time()):
            return stored
        return None


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)
