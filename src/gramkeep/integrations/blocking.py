"""Sessions for threads: handles whose methods block, and the event loop that does what they ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from gramkeep.errors import ConfigurationError
from gramkeep.handle import Session
from gramkeep.multi import MultiHandle, MultiSession

T = TypeVar("T")

Run: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
Work: TypeAlias = Callable[["Future[Any]", Callable[[], None]], Any]
"""Lets a thread call a function, which settles the future, unless that is cancelled before."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine where the sessions of threads live, and wait for its result.

    In handlers it is the update that runs it, and as ever can't wait for its own session. Raises
    `ConfigurationError` on an event loop, which it would hold up.
    """
    desk = _current.get()
    if desk is not None:
        return desk.run(coroutine)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return LOOP_THREAD.run(coroutine)
    coroutine.close()
    text = "run() is for threads, and would hold up this event loop: await what it was given"
    raise ConfigurationError(text)


class LoopThread:
    """An event loop in a thread of its own, begun when it is first needed.

    It lasts as long as the process: what belongs to an event loop, such as the connections of a
    storage of the user's, may outlive bots, and be shared by several.
    """

    def __init__(self) -> None:
        self._beginning = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has begun. In a forked child the parent's thread isn't there."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, running."""
        with self._beginning:
            if self._loop is None or not self.is_running:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="gramkeep", daemon=True
                )
                self._thread.start()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for its result."""
        return self.submit(coroutine).result()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there, in a task of its own."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


LOOP_THREAD: Final = LoopThread()
"""The one on which the sessions of all threads live, as bots may share a storage."""


class Desk:
    """Where a task that holds sessions does what threads ask of it, while they handle its update.

    What is done with a session is then done by who holds it, as where handlers are coroutines.
    ``loop`` is the event loop of that task.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: asyncio.Queue[tuple[Coroutine[Any, Any, Any], Future[Any]] | None] | None
        self._asked = asyncio.Queue()

    async def have_done(self, work: Work, step: Callable[[], T]) -> T:
        """Let a thread call ``step``, do meanwhile what it asks for, and give what it returns.

        ``work`` lets a thread call what it is given. Raises `ThreadFailed` with what ``step``
        raised, or `concurrent.futures.CancelledError` if ``work`` says that it won't be called.
        """
        asked = self._asked
        assert asked is not None  # noqa: S101 - until the update is over
        outcome: Future[T] = Future()

        def wake(_: object) -> None:
            self._loop.call_soon_threadsafe(asked.put_nowait, None)

        outcome.add_done_callback(wake)
        work(outcome, partial(self._do, outcome, step))
        while (question := await asked.get()) is not None:
            await _answer(*question)
        return outcome.result()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the task, and wait for its result; for threads."""
        answer: Future[T] = Future()
        self._loop.call_soon_threadsafe(self._ask, coroutine, answer)
        return answer.result()

    def close(self) -> None:
        """Leave to others what is asked for from here on, by threads that handlers left behind."""
        asked, self._asked = self._asked, None
        while asked is not None and not asked.empty():
            question = asked.get_nowait()
            if question is not None:
                self._ask(*question)

    def _ask(self, coroutine: Coroutine[Any, Any, Any], answer: Future[Any]) -> None:
        if self._asked is None:
            asyncio.run_coroutine_threadsafe(_answer(coroutine, answer), self._loop)
        else:
            self._asked.put_nowait((coroutine, answer))

    def _do(self, outcome: Future[T], step: Callable[[], T]) -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        token = _current.set(self)
        try:
            outcome.set_result(step())
        except BaseException as error:
            outcome.set_exception(ThreadFailed(error))
            raise
        finally:
            _current.reset(token)


class ThreadFailed(Exception):
    """A thread has failed at its step. It has raised the ``error`` itself, too."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


_current: ContextVar[Desk | None] = ContextVar("gramkeep_desk", default=None)


async def _answer(coroutine: Coroutine[Any, Any, Any], answer: Future[Any]) -> None:
    try:
        result = await coroutine
    except asyncio.CancelledError:
        answer.cancel()
        raise
    except BaseException as error:  # noqa: BLE001 - it is the thread's
        answer.set_exception(error)
    else:
        answer.set_result(result)


def in_handler() -> bool:
    """Whether this thread handles an update."""
    return _current.get() is not None


class BlockingSession(Generic[T]):
    """A session's handle for handlers in threads: its methods block, nothing is awaited.

    That of a multi session has those of its parts as attributes.
    """

    __slots__ = ("_run", "_session")

    def __init__(self, session: Session[T], run: Run) -> None:
        self._session = session
        self._run = run

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._session)[1:]}"

    def __getattr__(self, name: str) -> BlockingSession[Any]:
        if isinstance(self._session, MultiHandle):
            return BlockingSession(getattr(self._session, name), self._run)
        text = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(text)

    @property
    def is_open(self) -> bool:
        """Whether the session can be used; see `Session.is_open`."""
        return self._session.is_open

    @property
    def key(self) -> str:
        """The session's key, as ``get_session_key`` gave it."""
        return self._session.key

    @property
    def is_new(self) -> bool:
        """Whether nothing was stored for this session when it was loaded."""
        return self._session.is_new

    @property
    def data(self) -> T:
        """The session's data, once it is loaded. Set it to replace them, ``None`` deletes.

        See `Session.data`.
        """
        return self._session.data

    @data.setter
    def data(self, value: T | None) -> None:
        self._session.data = value

    def load(self) -> T:
        """Load the session where that hasn't happened, and give its data."""
        data: T = self._run(_awaited(self._session))
        return data

    def save(self) -> None:
        """Save now, in the middle of the handler; see `Session.save`."""
        self._run(self._session.save())

    def clear(self) -> None:
        """Delete the session now; ``data`` is initial again. See `Session.clear`."""
        self._run(self._session.clear())

    def reload(self) -> None:
        """Forget all unsaved changes and read again what is stored; see `Session.reload`."""
        self._run(self._session.reload())


async def _awaited(session: Session[T]) -> T:
    return await session


def blocking(shown: Any, run: Run) -> Any:
    """Make what handlers find under the name of a lazy session fit for threads."""
    if isinstance(shown, Session):
        return BlockingSession(shown, run)
    if isinstance(shown, MultiSession):
        parts: dict[str, Any] = {
            name: BlockingSession(part, run)
            for name, part in shown._parts.items()  # noqa: SLF001
        }
        return MultiSession(parts, lazy=True)
    return shown
