"""Answers that wake the task which waits for them at once, and not in the event loop's next turn.

One message brings the answers of many calls. A future of asyncio's has the loop wake its task: with
a handle for each, one more turn of the loop, and one more look at all sockets before anybody goes
on. Whoever received the message can as well let the tasks go on himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Self

from gramkeep.storages.redis.calls import Call


class Answer(asyncio.Future[Any]):
    """The answer to a call, for the one task that waits for it.

    Who sets it sees to it that the task is woken, by `wake` or `wake_soon`. Cancelling takes the
    call out of the ``queue`` in which it waits to be sent. When it was sent already, the task is
    cancelled as soon as it has the answer.
    """

    __slots__ = ("_context", "_waiter", "call", "queue")

    def __init__(self, call: Call, queue: list[Answer], *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.call = call
        self.queue = queue
        self._waiter: Callable[[Any], object] | None = None
        self._context: Context | None = None

    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """Note who waits."""
        if self._waiter is None and context is not None:
            self._waiter, self._context = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def cancel(self, msg: Any | None = None) -> bool:
        """Take the call back, and say whether that was still possible."""
        if self not in self.queue:
            return False
        self.queue.remove(self)
        super().cancel(msg)
        wake_soon([self])
        return True

    def finish(self, answer: Any) -> None:
        """Set it, to an exception where there was no answer."""
        if isinstance(answer, Exception):
            self.set_exception(answer)
        else:
            self.set_result(answer)

    def wake(self) -> None:
        """Let the task go on, now. Not to be called from another task."""
        waiter, context = self._waiter, self._context
        if waiter is not None and context is not None:
            self._waiter = None
            context.run(waiter, self)


def wake(answers: Iterable[Answer]) -> None:
    """Let all tasks go on, now. Not to be called from another task."""
    left = iter(answers)
    try:
        for answer in left:
            answer.wake()
    finally:
        wake_soon(left)  # where one of them raised SystemExit, which asyncio lets through


def wake_soon(answers: Iterable[Answer]) -> None:
    """Let the tasks go on in the event loop's next turn."""
    for answer in answers:
        answer.get_loop().call_soon(answer.wake)
