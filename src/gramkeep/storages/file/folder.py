"""A folder whose files are seen whole or not at all, by several processes and after any death.

A write goes to a temporary file beside its target, which is then renamed over it. Whoever dies on
the way leaves the old file as it was, and a temporary one to be swept.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]

LOCK: Final = ".gramkeep.lock"

Changes: TypeAlias = dict[Path, bytes | None]
"""What files are to hold, ``None`` for those to be removed."""

Staged: TypeAlias = Mapping[Path, Path | None]
"""The same by temporary files that hold it."""


class Folder:
    """The folder at ``path``, whose files stand in sub-folders of at most two characters.

    Belongs to one thread at a time. All methods raise `OSError`.
    """

    def __init__(self, path: Path, *, synchronous: str, busy_timeout: float) -> None:
        self.path = path
        self._syncs_folders = synchronous == "FULL" and os.name != "nt"
        self._busy_timeout = busy_timeout
        self._identity: tuple[int, int] | None = None  # of the folder that was found

    def find(self) -> None:
        """Make sure that the folder is there, creating it only before its first use.

        Once one was there, an empty one in its place, such as the mount point of a disk that went
        away, would make every session new.
        """
        if self._identity is None and not self.path.exists():
            if not self.path.parent.is_dir():
                text = f"the folder {self.path.parent} does not exist"
                raise FileNotFoundError(text)
            self.path.mkdir(0o700, exist_ok=True)
            self._sync(self.path.parent)
        try:
            status = self.path.stat()
        except FileNotFoundError:
            text = f"the folder {self.path} is gone"
            raise FileNotFoundError(text) from None
        if not stat.S_ISDIR(status.st_mode):
            text = f"{self.path} is not a folder"
            raise NotADirectoryError(text)
        identity = status.st_dev, status.st_ino
        if self._identity not in (None, identity) and not (self.path / LOCK).exists():
            raise self._is_another()
        self._identity = identity

    def files(self) -> Iterator[Path]:
        """Go through all files in the sub-folders, each of which is listed in one go."""
        folders = [path for path in self.path.iterdir() if len(path.name) <= 2 and path.is_dir()]  # noqa: PLR2004
        for folder in folders:
            # While files are replaced, some file systems leave them out of listings.
            with self.locked(to_write=False):
                paths = list(folder.iterdir())
            yield from paths

    def stage(self, changes: Changes) -> Staged:
        """Write temporary files, of which nothing can be seen yet."""
        staged: dict[Path, Path | None] = {}
        try:
            for path, content in changes.items():
                staged[path] = None if content is None else self._write_beside(path, content)
        except BaseException:
            _remove(staged.values())
            raise
        return staged

    def publish(self, staged: Staged) -> None:
        """Put staged files in their places, and let that outlive a power cut."""
        touched: set[Path] = set()
        try:
            for path, temporary in staged.items():
                if temporary is not None:
                    temporary.replace(path)
                elif path.exists():
                    path.unlink()
                else:
                    continue
                touched.add(path.parent)
        except BaseException:
            _remove(staged.values())
            raise
        for folder in touched:
            self._sync(folder)

    @contextmanager
    def locked(self, *, to_write: bool = True) -> Iterator[None]:
        """Keep other processes from writing and, ``to_write``, from listing."""
        self.find()
        path = self.path / LOCK
        if fcntl is None or not (to_write or path.exists()):  # where nobody ever wrote
            yield
            return
        kind = fcntl.LOCK_EX if to_write else fcntl.LOCK_SH
        deadline = time.monotonic() + self._busy_timeout
        is_locked = False
        while not is_locked:
            descriptor = self._opened_lock(os.O_RDWR | os.O_CREAT if to_write else os.O_RDONLY)
            try:
                self._wait_for(descriptor, kind, deadline)
                # A lock on a file that was removed meanwhile keeps nobody out.
                with suppress(FileNotFoundError):
                    is_locked = os.path.samestat(os.fstat(descriptor), path.stat())
                if is_locked:
                    try:
                        yield
                    finally:
                        # Explicitly: a child forked meanwhile has the descriptor too.
                        fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

    def _opened_lock(self, flags: int) -> int:
        """Open the file of the lock in the folder that was found, whatever is there by now."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            status = os.fstat(folder)
            if (status.st_dev, status.st_ino) != self._identity:
                raise self._is_another()
            try:
                return os.open(LOCK, flags, 0o600, dir_fd=folder)
            except OSError as error:
                error.filename = os.fspath(self.path / LOCK)  # not just its name
                raise
        finally:
            os.close(folder)

    def _is_another(self) -> FileNotFoundError:
        text = f"another folder is at {self.path}, without sessions; restart to use it"
        return FileNotFoundError(text)

    def _wait_for(self, descriptor: int, kind: int, deadline: float) -> None:
        assert fcntl is not None  # noqa: S101 - its caller has looked, for the type checker
        pause = 0.0005
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    text = f"another process kept {self.path / LOCK} for longer than busy_timeout"
                    raise TimeoutError(text) from None
                time.sleep(pause)
                pause = min(2 * pause, 0.01)
            else:
                return

    def _write_beside(self, path: Path, content: bytes) -> Path:
        if not path.parent.exists():
            path.parent.mkdir(0o700, exist_ok=True)  # and not its parents
            self._sync(self.path)
        temporary = path.with_name(f".gramkeep-{os.urandom(8).hex()}.tmp")
        try:
            with open(temporary, "xb", opener=partial(os.open, mode=0o600)) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            _remove([temporary])
            raise
        return temporary

    def _sync(self, folder: Path) -> None:
        """Make sure that what was renamed or removed in a folder stays so."""
        if not self._syncs_folders:
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def content_of(path: Path) -> bytes | None:
    """Read a file, ``None`` if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `Folder.stage` made."""
    return re.fullmatch(r"\.gramkeep-[0-9a-f]+\.tmp", path.name) is not None


def _remove(temporaries: Iterable[Path | None]) -> None:
    for temporary in temporaries:
        if temporary is not None:
            with suppress(OSError):  # swept later, or in its place already
                temporary.unlink()
