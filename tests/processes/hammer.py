"""Many processes counting up the same sessions, held against what they were told."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

from child_processes import Acknowledged, Job, increment_by_open
from child_processes import Counter as State

from gramkeep import Sessions

PROCESSES = 8


class Hammer:
    """Workers on one storage; ``told`` has what each of them was told, by its number."""

    def __init__(self, processes, url: str) -> None:
        self.url = url
        self.told: dict[int, Acknowledged] = {}
        self.workers = []
        self._context = processes
        self._results = processes.Queue()

    @asynccontextmanager
    async def at_work(self, job: Job, increment=increment_by_open, count: int = PROCESSES):
        """Let ``count`` workers do the job, and wait for them at the end."""
        self.workers = [
            self._context.Process(target=increment, args=(self.url, number, job, self._results))
            for number in range(count)
        ]
        for worker in self.workers:
            worker.start()
        try:
            yield
            for _ in [worker for worker in self.workers if worker.exitcode is None]:
                number, told = await asyncio.to_thread(self._results.get, timeout=100)
                self.told[number] = told
        finally:
            for worker in self.workers:
                if worker.exitcode is None and worker.pid is not None:
                    await asyncio.to_thread(worker.join, 10)
                    worker.kill()

    @property
    def acknowledged(self) -> dict[str, int]:
        """How many increments all workers were told to be saved, by key."""
        return dict(sum((Counter(told.counts) for told in self.told.values()), Counter()))

    @property
    def conflicts(self) -> int:
        return sum(told.conflicts for told in self.told.values())

    async def stored(self) -> dict[str, State]:
        """Read what is stored, as the next process will find it."""
        async with Sessions(initial=State, storage=self.url) as sessions:
            return {key: state async for key, state in sessions.items()}

    async def assert_nothing_was_lost(self) -> None:
        """Hold what is stored against what was told, exactly, for each key and each worker."""
        stored = await self.stored()
        assert {key: state.count for key, state in stored.items()} == self.acknowledged
        by_worker: Counter[str] = Counter()
        for state in stored.values():
            by_worker.update(state.workers)
        assert by_worker == {
            f"worker-{number}": sum(told.counts.values()) for number, told in self.told.items()
        }
