"""One holder per key, first come first served, and nothing left behind for idle keys."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


class HeldByThisTask(Exception):
    """Waiting would be for ever: the task that asks is ahead of itself in the queue."""


class TicketReleased(Exception):
    """The ticket was given up while its turn was waited for."""


class KeyLocks:
    """Queues of tickets, one queue for each key in use.

    Not thread-safe: all tickets of one instance belong to one event loop at a time.
    """

    __slots__ = ("__weakref__", "_queues")

    def __init__(self) -> None:
        self._queues: dict[str, deque[Ticket]] = {}

    def __len__(self) -> int:
        """Return how many keys are in use."""
        return len(self._queues)

    def reserve(self, key: str) -> Ticket:
        """Take a place in the queue of ``key``, at once; `Ticket.wait` then waits for the turn."""
        ticket = Ticket(self, key)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((ticket,))
        else:
            queue.append(ticket)
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        queue = self._queues[ticket.key]
        if queue[0] is not ticket:
            queue.remove(ticket)
            return
        queue.popleft()
        if queue:
            queue[0]._wake()
        else:
            del self._queues[ticket.key]

    def _is_turn(self, ticket: Ticket) -> bool:
        return self._queues[ticket.key][0] is ticket

    def _is_ahead(self, ticket: Ticket, task: asyncio.Task[Any] | None) -> bool:
        for other in self._queues[ticket.key]:
            if other is ticket:
                return False
            if other.task is task:
                return True
        return False


class Ticket:
    """A place in a key's queue: the holder's, once its turn has come, until it is released."""

    __slots__ = ("_locks", "_turn", "key", "task")

    def __init__(self, locks: KeyLocks, key: str) -> None:
        self._locks: KeyLocks | None = locks
        self._turn: asyncio.Future[None] | None = None
        self.key = key
        self.task = asyncio.current_task()

    async def wait(self, timeout: float) -> None:
        """Wait for the turn, ``timeout`` seconds at most.

        Raises `TimeoutError`, `TicketReleased`, or at once `HeldByThisTask`. The ticket stays in
        its queue, also when the wait is cancelled: whoever took it releases it.
        """
        locks = self._locks
        if locks is None:
            raise TicketReleased
        if locks._is_turn(self):
            return
        if locks._is_ahead(self, self.task):
            raise HeldByThisTask
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._turn)  # several tasks of one update may wait with it
        if self._locks is None:
            raise TicketReleased

    def release(self) -> None:
        """Leave the queue and let the next one have its turn. Idempotent."""
        locks, self._locks = self._locks, None
        if locks is not None:
            locks._leave(self)
            self._wake()  # a task of this update may still wait: nothing is left to wait for

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
