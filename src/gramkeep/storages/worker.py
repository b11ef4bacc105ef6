"""A thread that does blocking work for a storage, taking together what has gathered meanwhile.

There are no timers: a call that comes alone runs at once, and while it runs the next ones queue,
to be processed together when it is done.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from gramkeep.errors import StorageUnavailable
from gramkeep.storage import Answer, Lease, Put, Record, Storage

T = TypeVar("T")

TOGETHER_AT_MOST: Final = 1000  # calls processed together, to bound how long the first one waits


class Job(Generic[T]):
    """One call on its way to the worker and back; subclasses say what is asked.

    Whoever processes it sets ``answer`` or ``error``.
    """

    __slots__ = ("_done", "_future", "_loop", "_settled", "_ticket", "answer", "error")

    answer: T
    _loop: asyncio.AbstractEventLoop
    _future: asyncio.Future[T]

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._done = False
        self._settled: asyncio.Future[None] | None = None
        # Whoever pops the one item has the job: the worker to run it, or its caller, cancelled,
        # to take it back. Popping is atomic, so exactly one of them does.
        self._ticket: list[None] = [None]

    def take(self) -> bool:
        """Take the job, unless it is taken."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        """Wait for the answer; on cancellation, until the job is either undone or done."""
        try:
            return await self._future
        except asyncio.CancelledError:
            while not self.take() and not self._done:
                self._settled = self._loop.create_future()
                with suppress(asyncio.CancelledError):  # raised below, when nothing is open
                    await self._settled
            raise

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note whose loop waits; on that loop's thread."""
        self._loop = loop
        self._future = loop.create_future()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which the caller waits."""
        return self._loop

    def finish(self) -> None:
        """Wake the caller; on its loop's thread."""
        self._done = True
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        if self._future.done():  # the caller was cancelled
            return
        if self.error is None:
            self._future.set_result(self.answer)
        else:
            self._future.set_exception(self.error)


class Read(Job[list[Record | None]]):
    """`Storage.get`, to be carried out."""

    __slots__ = ("keys",)

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__()
        self.keys = list(keys)


class Claim(Job[list[Record | Answer | None]]):
    """`Storage.claim`, to be carried out."""

    __slots__ = ("keys", "lease")

    def __init__(self, keys: Sequence[str], lease: Lease) -> None:
        super().__init__()
        self.keys = list(keys)
        self.lease = lease


class Write(Job[list[bool]]):
    """`Storage.put`, to be carried out."""

    __slots__ = ("atomic", "lease", "puts")

    def __init__(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> None:
        super().__init__()
        self.puts = list(puts)
        self.lease = lease
        self.atomic = atomic


class Worker:
    """Runs jobs on a thread of its own, in order of their arrival.

    ``process`` is given all jobs that wait and yields them, answered, in groups that can be
    reported; ``close`` runs last. Both run on the thread and on no other.
    """

    def __init__(
        self,
        name: str,
        process: Callable[[Sequence[Job[Any]]], Iterable[Sequence[Job[Any]]]],
        close: Callable[[], None],
    ) -> None:
        self.pid = os.getpid()
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        # A daemon, for programs that never close their storage: nothing unsaved is on the thread
        # whose caller doesn't still wait for it.
        self._thread = threading.Thread(
            target=_run, args=(self._jobs, process, close), name=name, daemon=True
        )
        self._thread.start()

    def submit(self, job: Job[T]) -> Job[T]:
        """Queue a job, to be awaited."""
        job.start(asyncio.get_running_loop())
        self._jobs.put(job)
        return job

    def dismiss(self) -> None:
        """Let the thread end when all jobs are done, without waiting for it."""
        self._jobs.put(None)

    async def stop(self) -> None:
        """Let the thread end when all jobs are done, and wait for that."""
        self.dismiss()
        await asyncio.to_thread(self._thread.join)


class WorkerStorage(Storage):
    """A storage whose calls are carried out by a worker, begun with the first one."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._is_closed = False

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        """Read several keys."""
        return await self._call(Read(keys))

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        """Carry out several changes, together with others that wait."""
        return await self._call(Write(puts, lease, atomic=atomic))

    async def aclose(self) -> None:
        """Finish what was asked before, then give up what is open. Idempotent."""
        self._is_closed = True
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()

    @abstractmethod
    def _begin(self) -> Worker:
        """Make the worker."""

    def _reason(self, error: Exception) -> str | None:
        """Say what went wrong where the error is the storage's, and ``None`` of any other."""
        return str(error) if isinstance(error, OSError) else None

    async def _call(self, job: Job[T]) -> T:
        if self._is_closed:
            raise StorageUnavailable(storage=self.name, reason="it was closed")
        worker = self._worker
        if worker is None or worker.pid != os.getpid():
            # Threads don't survive a fork, nor do connections: the child gets its own.
            worker = self._worker = self._begin()
            weakref.finalize(self, worker.dismiss)
        try:
            return await worker.submit(job)
        except Exception as error:
            if (reason := self._reason(error)) is None:
                raise
            raise StorageUnavailable(storage=self.name, reason=reason) from error


def _run(
    jobs: SimpleQueue[Job[Any] | None],
    process: Callable[[Sequence[Job[Any]]], Iterable[Sequence[Job[Any]]]],
    close: Callable[[], None],
) -> None:
    last = False
    while not last:
        batch, last = _gather(jobs)
        unanswered = {id(job): job for job in batch}
        try:
            for answered in process(batch) if batch else ():
                for job in answered:
                    del unanswered[id(job)]
                _report(answered)
        except Exception as error:  # noqa: BLE001 - handed to the callers, who wait for an answer
            for job in unanswered.values():
                job.error = error
            _report(list(unanswered.values()))
        del batch, unanswered  # callers' data must not live until the next call
    close()


def _gather(jobs: SimpleQueue[Job[Any] | None]) -> tuple[list[Job[Any]], bool]:
    """Wait for a job, take all others that wait with it, and tell whether the end was reached."""
    batch: list[Job[Any]] = []
    job = jobs.get()
    try:
        while job is not None:
            if job.take():
                batch.append(job)
            if len(batch) >= TOGETHER_AT_MOST:
                return batch, False
            job = jobs.get_nowait()
    except Empty:
        return batch, False
    return batch, True


def _report(answered: Sequence[Job[Any]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in answered:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_finish, jobs)


def _finish(jobs: Sequence[Job[Any]]) -> None:
    for job in jobs:
        job.finish()
