"""What can go wrong, as one tree of exceptions.

Every error carries the ``key`` and the ``storage`` it concerns (``None`` where it concerns none),
and its text says what to do about it. The texts stand here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class GramkeepError(Exception):
    """The root of all errors that gramkeep raises.

    ``key`` is the session's key as the storage knows it (prefix included), ``storage`` the name
    of the storage, free of passwords; either is ``None`` where the error concerns none.
    ``outcomes`` is ``None``, or says what became of each of several changes that a storage was
    asked for at once: its answer, or its own error.
    """

    outcomes: Sequence[object] | None = None

    def __init__(self, text: str, *, key: str | None = None, storage: str | None = None) -> None:
        super().__init__(text)
        self.key = key
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have signatures of their own, which the default protocol would call with the
        # finished text. Errors cross process borders in worker pools, so they must pickle.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    cls: type[GramkeepError], args: tuple[Any, ...], state: dict[str, Any]
) -> GramkeepError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(GramkeepError):
    """An option or a storage URL is wrong, or an extra isn't installed. Raised while setting up."""


class NoSessionKey(GramkeepError):
    """This update has no session: ``get_session_key`` gave no key for it.

    Raised when the session is used, not before, so that handlers which don't use it can run.
    ``reason`` says what was missing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this update has no session: {reason}. Handle it without the session, or pass a "
            "get_session_key= that finds a key in updates of this kind (per_user where there is "
            "a user but no chat)"
        )
        self.reason = reason


class SessionClosed(GramkeepError):
    """The session was used after its update was over, when nothing would be saved any more."""

    def __init__(self, *, key: str, storage: str) -> None:
        super().__init__(
            f"session {key!r} in {storage} was used after its update was over, when changes are "
            "no longer saved. Work that outlives the handler opens its own: "
            "`async with sessions.open(key) as session`",
            key=key,
            storage=storage,
        )


class SessionNotLoaded(GramkeepError):
    """A session's ``data`` was used before it was loaded: its handle wasn't awaited.

    ``was_assigned``: it was ``is_new`` that was used, of a session whose data was set unread.
    """

    def __init__(self, *, key: str, storage: str, was_assigned: bool = False) -> None:
        super().__init__(
            f"session {key!r} in {storage} was assigned before it was loaded, and whether it is "
            "new isn't known: `await` its handle before assigning"
            if was_assigned
            else f"session {key!r} in {storage} is not loaded yet: `await` its handle before using "
            "its data",
            key=key,
            storage=storage,
        )
        self.was_assigned = was_assigned


class SessionBusy(GramkeepError):
    """The session is held by another update, or by this very task.

    ``waited`` is the time waited in seconds; 0 if waiting would have been for ever, because the
    task that asks is the one that holds the session.
    """

    def __init__(self, *, key: str, storage: str, waited: float) -> None:
        super().__init__(
            f"session {key!r} in {storage} is still held by another update after {waited:g} s. "
            "Make the handler that holds it shorter, or raise lock_timeout="
            if waited
            else f"session {key!r} in {storage} is already held by this same task, which would "
            "wait for itself. Use the session it has instead of opening it again",
            key=key,
            storage=storage,
        )
        self.waited = waited


class SessionConflict(GramkeepError):
    """What is stored changed between loading and saving; nothing was written.

    ``lease_ran_out``: whether the update held the session no more when it was saved.
    """

    def __init__(self, *, key: str, storage: str, lease_ran_out: bool = False) -> None:
        why = (
            "was taken over by another process, because the lease on it ran out: this process "
            "stood still, or couldn't reach the storage to renew it, for longer than lease="
            if lease_ran_out
            else "was changed by another writer after it was loaded"
        )
        super().__init__(
            f"session {key!r} in {storage} {why}; nothing was written. Load it again and repeat "
            "the change, as `sessions.update(key, function)` does by itself",
            key=key,
            storage=storage,
        )
        self.lease_ran_out = lease_ran_out


class SessionDecodeError(GramkeepError):
    """The stored bytes aren't a value of the session's type; they were left as they are.

    ``path`` is where in the data (``$`` is the whole), ``reason`` what is wrong there.
    """

    def __init__(self, *, key: str, storage: str, path: str, reason: str) -> None:
        super().__init__(
            f"session {key!r} in {storage} can't be read: {reason}, at {path}. What is stored was "
            "left as it is. Make the session's type, codec and migrations fit it, or give the "
            "session up: `await sessions.delete(key)`",
            key=key,
            storage=storage,
        )
        self.path = path
        self.reason = reason


class SessionEncodeError(GramkeepError):
    """The data can't be saved so that it would load as the same; nothing was written.

    ``path`` is where in the data (``$`` is the whole), ``reason`` what is wrong there.
    """

    def __init__(self, *, key: str, storage: str, path: str, reason: str) -> None:
        super().__init__(
            f"session {key!r} can't be saved in {storage}: {reason}, at {path}. Nothing was "
            "written. Store a value that the session's type allows, or declare the type, by "
            "initial= or data_type=",
            key=key,
            storage=storage,
        )
        self.path = path
        self.reason = reason


class SessionTooLarge(GramkeepError):
    """The encoded session is larger than ``max_bytes``; nothing was written.

    ``size`` and ``limit`` are in bytes.
    """

    def __init__(self, *, key: str, storage: str, size: int, limit: int) -> None:
        super().__init__(
            f"session {key!r} can't be saved in {storage}: it takes {size} bytes, more than "
            f"max_bytes={limit}. Nothing was written. Keep less in the session, or raise "
            "max_bytes=",
            key=key,
            storage=storage,
        )
        self.size = size
        self.limit = limit


class NewerSessionVersion(GramkeepError):
    """The stored session is of a version that no migration leads to; it was left as it is.

    ``version`` is the stored one, ``newest`` the highest that ``migrations`` has, or ``None``.
    """

    def __init__(self, *, key: str, storage: str, version: float, newest: float | None) -> None:
        known = "there are no migrations" if newest is None else f"the migrations end at {newest}"
        super().__init__(
            f"session {key!r} in {storage} is of version {version}, and {known}. What is stored "
            "was left as it is. A newer release of the bot wrote it: run that one, or add the "
            "migrations it has",
            key=key,
            storage=storage,
        )
        self.version = version
        self.newest = newest


class StorageUnavailable(GramkeepError):
    """The storage didn't answer, or answered with an error; no session was made up instead.

    ``reason`` is what the storage said.
    """

    def __init__(self, *, storage: str, reason: str, key: str | None = None) -> None:
        whose = "" if key is None else f" for session {key!r}"
        super().__init__(
            f"storage {storage} is unavailable{whose}: {reason.removesuffix('.')}. No "
            "session was made up and nothing is known to be written; the next update tries again",
            key=key,
            storage=storage,
        )
        self.reason = reason
