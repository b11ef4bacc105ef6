"""Handlers as scenarios write them, and what they are given: a `Turn`."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

from .events import UpdateType

Body: TypeAlias = Callable[["Turn"], Coroutine[Any, Any, None] | str]
"""An ``async def``; or a plain function, which gives its answer back."""

PATIENCE = 20.0  # seconds after which what was waited for won't come any more


async def until(
    check: Callable[[], Any], what: str | None = None, *, timeout: float = PATIENCE
) -> Any:
    """Wait until ``check``, which may be async, gives something true, and give that back."""
    deadline = time.monotonic() + timeout
    while True:
        result = check()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what or check}"
        await asyncio.sleep(0.002)


class Gate:
    """Holds up whoever comes, coroutine or thread, until somebody opens it."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        await until(self._opened.is_set, "nobody opens the gate")

    def pass_in_a_thread(self) -> None:
        assert self._opened.wait(PATIENCE), "nobody opens the gate"


class Turn:
    """One call of a handler, with what the framework gave it.

    ``found`` has what handlers get by name: the session under its ``key``, its handle under
    ``<key>_handle``. ``say`` sends an answer to where the update came from; it may be async. A
    framework whose users get at their sessions in another way has a subclass of this class.

    Handlers await nothing but what a turn offers, so that a `BlockingTurn` can stand in for it.
    """

    def __init__(
        self, text: str | None, found: Mapping[str, Any], say: Callable[[str], Any] | None = None
    ) -> None:
        self.text = text
        self.key = "session"
        self._found = found
        self._say = say

    def named(self, key: str) -> "Turn":
        """Give the same turn, seen from the session of another name."""
        other = copy(self)
        other.key = key
        return other

    @property
    def session(self) -> Any:
        """What handlers find under the session's name: the data; of a lazy one, the handle."""
        return self._found[self.key]

    @session.setter
    def session(self, value: Any) -> None:
        # Where the data is an argument of the handler, it is replaced by way of the handle.
        self.handle.data = value

    @property
    def handle(self) -> Any:
        return self._found[f"{self.key}_handle"]

    @property
    def task(self) -> Any:
        """Where the handler runs, with a ``cancel()``."""
        return asyncio.current_task()

    async def load(self) -> Any:
        """Load a lazy session, and give its data."""
        return await self.session

    async def clear(self) -> None:
        await self.handle.clear()

    async def answer(self, text: str) -> None:
        """Answer where the update came from."""
        assert self._say is not None, "nobody can be answered"
        sending = self._say(text)
        if inspect.isawaitable(sending):
            await sending

    async def pause(self, seconds: float = 0.001) -> None:
        await asyncio.sleep(seconds)

    async def wait_for(self, gate: Gate) -> None:
        await gate.passed()


class BlockingTurn(Turn):
    """A turn in a thread: everything it offers blocks, so that nothing has to be awaited."""

    async def load(self) -> Any:
        return self.session.load()

    async def clear(self) -> None:
        self.handle.clear()

    async def pause(self, seconds: float = 0.001) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to be held up

    async def wait_for(self, gate: Gate) -> None:
        gate.pass_in_a_thread()


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A handler to be registered: what it does, and when it is called.

    ``text`` is the text for which it is called, exactly; ``None`` stands for all updates of its
    ``types``. ``asks`` names the sessions that it asks for. ``level`` says how deep it is nested:
    in routers that many levels below the outermost, or in as many groups after the first.
    ``is_sync`` handlers are plain functions, to be called as the framework calls such.
    """

    body: Body
    types: Sequence[UpdateType] = ("message",)
    text: str | None = None
    asks: Sequence[str] = ("session",)
    level: int = 0

    @property
    def is_sync(self) -> bool:
        return not inspect.iscoroutinefunction(self.body)

    async def run(self, turn: Turn) -> None:
        """Run the body; for frameworks whose handlers are coroutines."""
        doing = self.body(turn)
        assert inspect.isawaitable(doing), "a plain function wants run_blocking()"
        await doing

    def run_blocking(self, turn: BlockingTurn) -> str | None:
        """Run the body in this thread; for frameworks whose handlers are plain functions.

        What a plain body returns is its answer, and returned.
        """
        result = self.body(turn)
        if isinstance(result, str):
            return result
        _finish(result)
        return None

    def asking(self, function: Callable[..., Any], *others: str) -> Callable[..., Any]:
        """Let a function with ``**parameters`` look as if it named its parameters.

        It then has ``others`` in their order, and the sessions that this handler asks for with
        their handles.
        """
        names = [*others, *(name for key in self.asks for name in (key, f"{key}_handle"))]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind) for name in names]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return function


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never has to wait for an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    text = "the handler awaited something that its turn doesn't offer"
    raise AssertionError(text)
