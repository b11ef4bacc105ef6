"""The calls of one `MongoStorage` and their commands: few at a time, in time, and to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from gramkeep.errors import StorageUnavailable
from gramkeep.storages.concurrency import Gate, to_its_end
from gramkeep.storages.driver import driver_of

with driver_of("mongodb"):
    import pymongo

AT_ONCE: Final = 16  # commands under way: with more, the driver keeps the event loop busy

T = TypeVar("T")
K = TypeVar("K")


class Turns:
    """Gives calls their time, and commands their turn.

    ``storage`` is how errors call the storage; ``timeout`` how many seconds all of a call may take,
    and ``patience`` how many it may wait for its turn.
    """

    def __init__(self, storage: str, *, timeout: float | None, patience: float) -> None:
        self._storage = storage
        self._timeout = timeout
        self._patience = patience
        self._gate = Gate(AT_ONCE)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def settled(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call; when cancelled, until its commands have been answered.

        A command that is given up half way may still be carried out after the next ones, and take
        a lease that was given up, or write what is no longer wanted. And the driver closes the
        connection of a cancelled command, or leaves it to the garbage collector.
        """
        if self._is_closed:
            call.close()
            raise StorageUnavailable(storage=self._storage, reason="it was closed")
        with pymongo.timeout(self._timeout):  # of which waiting for a turn is a part
            task = asyncio.ensure_future(call)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await to_its_end(task)

    async def each(
        self, items: Sequence[K], command: Callable[[K], Coroutine[Any, Any, T]]
    ) -> list[T]:
        """Send a command for each of several; give the answers in order, or raise an error."""
        if len(items) == 1:
            return [await self._in_turn(command, items[0])]
        return answers(await self.outcomes(items, command))

    async def outcomes(
        self, items: Sequence[K], command: Callable[[K], Coroutine[Any, Any, T]]
    ) -> list[T | BaseException]:
        """Send a command for each of several, and give answers and errors in order."""
        commands = (self._in_turn(command, item) for item in items)
        # All are waited for: none may go on behind the back of whoever is told of an error.
        return await asyncio.gather(*commands, return_exceptions=True)

    async def close(self) -> None:
        """Let nothing begin any more, and wait for what is under way."""
        self._is_closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _in_turn(self, command: Callable[[K], Coroutine[Any, Any, T]], item: K) -> T:
        turn = self._gate.turn()
        try:
            async with asyncio.timeout(self._patience):
                await turn.acquire()
        except TimeoutError:
            reason = f"{AT_ONCE} commands before it were not answered in {self._patience:g} s"
            raise StorageUnavailable(storage=self._storage, reason=reason) from None
        try:
            return await command(item)
        finally:
            turn.release()


def answers(outcomes: Sequence[T | BaseException]) -> list[T]:
    """Give outcomes that are all answers, or raise the first that isn't."""
    given: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        given.append(outcome)
    return given
