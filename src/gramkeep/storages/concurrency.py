"""Calls side by side, but not too many; calls that come to their end; one at a time for each key.

For storages whose servers take one key in a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")
R = TypeVar("R")


class Locks:
    """A lock for each key that is in use."""

    def __init__(self) -> None:
        self._of: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: Hashable) -> asyncio.Lock:
        """Give the lock of a key; it lives as long as somebody has it."""
        lock = self._of.get(key)
        if lock is None:
            lock = self._of[key] = asyncio.Lock()
        return lock


class Gate:
    """Lets ``at_once`` through at a time, in every event loop that it is used from."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def turn(self) -> asyncio.Semaphore:
        """Give what to hold for the time of a call: ``async with gate.turn():``."""
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:  # the one before is over
            self._turns = loop, asyncio.Semaphore(self._at_once)
        return self._turns[1]


async def side_by_side(
    function: Callable[[T], Coroutine[Any, Any, R]], arguments: Sequence[T], *, at_once: int
) -> list[R]:
    """Call ``function`` for each, some at a time; an error is raised when those beside it ended."""
    if len(arguments) == 1:
        return [await function(arguments[0])]
    answers: list[R] = []
    for start in range(0, len(arguments), at_once):
        calls = map(function, arguments[start : start + at_once])
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
    return answers


async def to_its_end(call: Awaitable[R]) -> R:
    """Await something that goes on when the waiting is cancelled, and is then waited for."""
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio doesn't complain that nobody did
        raise
