"""One holder per key, first come first served, and nothing left behind for idle keys."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from typing import Any

import msgspec


class HeldByThisTask(Exception):
    """Waiting would be for ever: the task that asks is ahead of itself in the queue."""


class TicketReleased(Exception):
    """The ticket was given up while its turn was waited for."""


class KeyLocks:
    """Queues of tickets, one queue for each key in use.

    Not thread-safe: all tickets of one instance belong to one event loop at a time.
    """

    __slots__ = ("__weakref__", "_last", "loop")

    def __init__(self) -> None:
        self._last: dict[str, Ticket] = {}  # the last ticket of each queue
        self.loop: asyncio.AbstractEventLoop | None = None  # in which the last one was taken

    def __len__(self) -> int:
        """Return how many keys are in use."""
        return len(self._last)

    def disown(self) -> None:
        """Begin anew, in a forked child: whoever stands in the queues does so in the parent."""
        self._last = {}  # another one, as tickets that were inherited may still leave theirs
        self.loop = None  # or its tasks would be found running there

    def reserve(self, key: str) -> Ticket:
        """Take a place in the queue of ``key``, at once; `Ticket.wait` then waits for the turn."""
        # To ask which loop runs takes longer than all the rest here, before Python 3.12.
        loop = self.loop
        task = None if loop is None else current_task(loop)
        if task is None:  # another loop runs by now
            self.loop = asyncio.get_running_loop()
            task = current_task()
        ahead = self._last.get(key)
        ticket = self._last[key] = Ticket(key, task, ahead, self._last)
        if ahead is not None:
            ahead.behind = ticket
        return ticket


class Ticket(msgspec.Struct, eq=False):
    """A place in a key's queue: the holder's, once its turn has come, until it is released.

    ``ahead`` and ``behind`` are its neighbours in the queue; nobody is ahead of the holder.
    """

    key: str
    task: asyncio.Task[Any] | None
    ahead: Ticket | None
    _last: dict[str, Ticket] | None  # of the queues that it stands in
    behind: Ticket | None = None
    _waits: tuple[asyncio.Future[bool], ...] = ()  # several tasks of an update may wait

    async def wait(self, timeout: float) -> None:
        """Wait for the turn, ``timeout`` seconds at most.

        Raises `TimeoutError`, `TicketReleased`, or at once `HeldByThisTask`. The ticket stays in
        its queue, also when the wait is cancelled: whoever took it releases it.
        """
        if self._last is None:
            raise TicketReleased
        if self.ahead is None:
            return
        if self._is_behind_itself():
            raise HeldByThisTask
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waits = (*self._waits, turn)
        alarm = loop.call_later(timeout, _end, turn, False)
        try:
            has_come = await turn
        finally:
            alarm.cancel()
        if not has_come:
            raise TimeoutError
        if self._last is None:
            raise TicketReleased

    def release(self) -> None:
        """Leave the queue and let the next one have its turn. Idempotent."""
        last = self._last
        if last is None:
            return
        self._last = None
        ahead, behind = self.ahead, self.behind
        if behind is not None:
            behind.ahead = ahead
        elif ahead is not None:
            last[self.key] = ahead
        else:
            del last[self.key]
        if ahead is not None:
            ahead.behind = behind
        elif behind is not None:
            behind._wake()
        self._wake()  # a task of this update may still wait: nothing is left to wait for

    def _is_behind_itself(self) -> bool:
        other = self.ahead
        while other is not None:
            if other.task is self.task:
                return True
            other = other.ahead
        return False

    def _wake(self) -> None:
        for turn in self._waits:
            _end(turn, True)


def _end(turn: asyncio.Future[bool], has_come: bool) -> None:
    if not turn.done():
        turn.set_result(has_come)
