"""Many processes counting up the same sessions, held against what they were told."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from child_processes import Counter as State
from child_processes import Job, Refused, increment_by_open

from gramkeep import Sessions

PROCESSES = 8


class Hammer:
    """Workers on one storage, under keys that no other test has."""

    def __init__(self, processes, url: str, folder: Path) -> None:
        self.url = url
        self.prefix = f"{uuid4().hex}:"
        self.refused: dict[int, Refused] = {}
        self.workers = []
        self.killed = 0
        self._context = processes
        self._results = processes.Queue()
        self._folder = folder
        self.acknowledged_in = folder / "acknowledged"
        self.acknowledged_in.mkdir()

    def job(self, *, options=None, **details) -> Job:
        options = {"prefix": self.prefix, **(options or {})}
        enough = self._folder / f"enough-{uuid4().hex}"
        return Job(self.acknowledged_in, enough, options=options, **details)

    @asynccontextmanager
    async def at_work(self, job: Job, increment=increment_by_open, count: int = PROCESSES):
        """Let ``count`` workers do the job until the end, and wait for those that weren't killed.

        The end is that of the ``async with``, or comes ``job.seconds`` after their beginning.
        """
        first = len(self.workers)
        started = [
            self._context.Process(target=increment, args=(self.url, number, job, self._results))
            for number in range(first, first + count)
        ]
        self.workers += started
        for worker in started:
            worker.start()
        try:
            yield
            job.enough.touch()
            for _ in range(count - self.killed):
                number, refused = await asyncio.to_thread(self._results.get, timeout=60)
                self.refused[number] = refused
        finally:
            job.enough.touch()
            for worker in started:
                await asyncio.to_thread(worker.join, 10)
                worker.kill()

    def kill(self, number: int) -> None:
        """Kill a worker, wherever it is."""
        self.workers[number].kill()
        self.killed += 1

    def acknowledged(self, *, since: float = 0.0) -> dict[int, Counter[str]]:
        """Tell which increments each worker was told to be saved, by key."""
        told = {}
        for file in self.acknowledged_in.iterdir():
            lines = [line.split() for line in file.read_text().splitlines()]
            told[int(file.name)] = Counter(key for key, at in lines if float(at) > since)
        return told

    def moments(self, *, since: float) -> dict[int, list[float]]:
        """Tell when each worker had an increment acknowledged."""
        return {
            int(file.name): [
                float(at)
                for _, at in map(str.split, file.read_text().splitlines())
                if float(at) > since
            ]
            for file in self.acknowledged_in.iterdir()
        }

    def total(self, name: str) -> int:
        """Add up one of the numbers of `Refused`."""
        return sum(getattr(refused, name) for refused in self.refused.values())

    async def assert_nothing_was_lost(self, *, uncertain: int = 0) -> None:
        """Hold what is stored against what was told, for each key and each worker.

        At most ``uncertain`` increments may be stored that nobody was told of: their answers were
        lost with a connection, or with the worker.
        """
        async with Sessions(initial=State, storage=self.url, prefix=self.prefix) as sessions:
            stored = {key: state async for key, state in sessions.items()}
        told = self.acknowledged()
        assert any(told.values())
        by_key = {key: state.count for key, state in stored.items()}
        lost = sum(told.values(), Counter()) - Counter(by_key)
        assert lost == Counter(), "acknowledged increments that aren't stored"
        by_worker: Counter[int] = Counter()
        for state in stored.values():
            assert state.count == sum(state.workers.values())
            by_worker.update({int(worker): count for worker, count in state.workers.items()})
        for worker, counts in told.items():
            assert by_worker[worker] >= counts.total()
        unasked = sum(by_key.values()) - sum(counts.total() for counts in told.values())
        assert unasked <= uncertain, "increments that were saved, and told not to be"
