"""`session()` and `lazy_session()` for any framework with ``(ctx, next)`` middleware.

The ctx is an object of the framework or of the user. It gets the session as an attribute, named
by the ``key`` option, and the handle beside it as ``<key>_handle``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack, overload

from gramkeep.errors import ConfigurationError
from gramkeep.handle import Session
from gramkeep.manager import Sessions
from gramkeep.multi import MultiHandle, MultiSessions
from gramkeep.options import CommonOptions, SessionOptions
from gramkeep.origin import origin_of

T = TypeVar("T")

# The type of a plugin's data: Any where its options don't tell it, as those of multi sessions.
if TYPE_CHECKING:  # Python has defaults from 3.13 on, type checkers know them in any
    from typing_extensions import TypeVar as TypeVarWithDefault

    DataT = TypeVarWithDefault("DataT", default=Any)
else:
    DataT = TypeVar("DataT")

NextFunction = Callable[[], Awaitable[Any]]


class SessionFlavor(Generic[T]):
    """A mixin for a ctx class, to type ``ctx.session`` and to check every use of it.

    Reading gives the data; assigning replaces it, ``None`` deletes. Raises `NoSessionKey` in
    updates that have no session, `SessionClosed` when the update is over.
    """

    session_handle: Session[T]

    @property
    def session(self) -> T:
        """The session's data."""
        return self.session_handle.data

    @session.setter
    def session(self, value: T | None) -> None:
        self.session_handle.data = value


class LazySessionFlavor(Generic[T]):
    """A mixin for a ctx class, to type the ``await ctx.session`` of `lazy_session`.

    Awaiting loads the session and gives its data; assigning replaces it, ``None`` deletes.
    """

    session_handle: Session[T]

    @property
    def session(self) -> Session[T]:
        """The session, to be awaited."""
        return self.session_handle

    @session.setter
    def session(self, value: T | None) -> None:
        self.session_handle.data = value


class SessionPlugin(Generic[DataT]):
    """What ``session(...)`` makes, for whichever framework: a kind of session, to be installed.

    Takes the options of `SessionOptions`, keyword only, or a ready `Sessions` in their place.
    ``sessions`` is the manager, for use outside of handlers.
    """

    lazy = False

    @overload
    def __init__(self, sessions: Sessions[DataT]) -> None: ...

    @overload
    def __init__(
        self,
        sessions: None = None,
        *,
        type: Literal["multi"],
        key: str = "session",
        lazy: bool = False,
        **parts: SessionOptions[Any],
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        initial: Callable[..., Awaitable[DataT]],
        data_type: Any = None,
        **options: Unpack[CommonOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        initial: Callable[..., DataT],
        data_type: Any = None,
        **options: Unpack[CommonOptions],
    ) -> None: ...

    @overload
    def __init__(self, *, data_type: Any = None, **options: Unpack[CommonOptions]) -> None: ...

    def __init__(
        self,
        sessions: Sessions[Any] | MultiSessions | None = None,
        *,
        type: str = "single",  # noqa: A002 - grammY's name for it
        **options: Any,
    ) -> None:
        if sessions is not None and (options or type != "single"):
            given = ", ".join(f"{name}=" for name in options) or "type="
            text = f"{given} given beside a ready Sessions, which has its own: give it to that"
            raise ConfigurationError(text)
        if not isinstance(sessions, Sessions | MultiSessions | None):
            text = (
                f"{sessions!r} is no Sessions: give options by their names, as in initial= and "
                "storage=, or a ready Sessions"
            )
            raise ConfigurationError(text)
        if self.lazy and options.get("lazy") is False:
            text = "lazy=False is no option of lazy_session, which is always lazy; use session"
            raise ConfigurationError(text)
        if type not in ("single", "multi"):
            text = f"type={type!r} must be 'single' or 'multi'"
            raise ConfigurationError(text)
        self._made_sessions = sessions is None
        if sessions is None:
            sessions = MultiSessions(**options) if type == "multi" else Sessions(**options)
        # One of both, with the same ways to hold a session; which, the options have told.
        self.sessions: Sessions[DataT] = sessions  # type: ignore[assignment]
        self.lazy = self.lazy or sessions.options.lazy

    async def start_up(self) -> None:
        """Open what an earlier `shut_down` closed; for integrations, when the bot starts."""
        self.sessions.reopen()

    async def shut_down(self) -> None:
        """Wait for handlers that hold a session, then close; for integrations.

        A ready `Sessions` stays open: whoever made it closes it.
        """
        if self._made_sessions:
            await self.sessions.aclose()
        else:
            await self.sessions.drain()


class session(SessionPlugin[DataT]):  # noqa: N801 - called like a function, as in grammY
    """Middleware for ``(ctx, next)`` that loads the session before a handler and saves it after.

    The ctx gets the data as ``ctx.session``; assigning to it replaces, ``None`` deletes.
    """

    async def __call__(self, ctx: Any, next: NextFunction) -> Any:  # noqa: A002 - its usual name
        """Run the rest of the middleware with the session, and save it unless that raises."""
        async with await self.sessions.open_for(origin_of(ctx), lazy=self.lazy) as handle:
            attribute = _Attribute(ctx, handle, self.sessions, lazy=self.lazy)
            result = await next()  # nothing is caught: a handler that fails changes nothing
            attribute.pull()
            return result


class lazy_session(session[DataT]):  # noqa: N801
    """Middleware for ``(ctx, next)`` whose session is loaded by ``await ctx.session``."""

    lazy = True


class _Attribute(Generic[T]):
    """The session's place on one ctx, whether the ctx class knows of sessions or not."""

    def __init__(self, ctx: Any, handle: Session[T], sessions: Sessions[T], *, lazy: bool) -> None:
        self._ctx, self._handle, self._sessions, self._lazy = ctx, handle, sessions, lazy
        self._name = sessions.options.key
        self._check()
        try:
            setattr(ctx, sessions.options.handle_key, handle)
            flavored = isinstance(ctx, SessionFlavor | LazySessionFlavor)
            self._is_plain = self._name != "session" or not flavored
            if self._is_plain:
                self.push()
        except AttributeError as error:
            text = (
                f"{type(ctx).__qualname__} has no place for attributes named {self._name!r} and "
                f"{sessions.options.handle_key!r}: {error}"
            )
            raise ConfigurationError(text) from error
        if self._is_plain and handle._refusal is None:
            handle._mirror = self

    def _check(self) -> None:
        """Refuse what could only be a mistake in how the middleware was put together."""
        ctx, of_ctx = self._ctx, type(self._ctx).__qualname__
        if isinstance(ctx, SessionFlavor if self._lazy else LazySessionFlavor):
            flavor = "LazySessionFlavor" if self._lazy else "SessionFlavor"
            made_by = "lazy_session" if self._lazy else "session"
            text = f"{of_ctx} has the wrong flavor for {made_by}(...): it needs {flavor}"
            raise ConfigurationError(text)
        other = getattr(ctx, self._sessions.options.handle_key, None)
        if isinstance(other, Session | MultiHandle) and other.is_open:
            text = f"this ctx has a session named {self._name!r} already: give one another key="
            raise ConfigurationError(text)

    def push(self) -> None:
        """Let the attribute show what the handle holds."""
        self._shown = getattr(self._ctx, self._name, None)  # is no more to be taken over
        self._shown = self._sessions.shown(self._handle, lazy=self._lazy)
        setattr(self._ctx, self._name, self._shown)

    def pull(self) -> None:
        """Take over what was assigned to the attribute."""
        if self._is_plain and (value := getattr(self._ctx, self._name, None)) is not self._shown:
            self._handle.data = value
