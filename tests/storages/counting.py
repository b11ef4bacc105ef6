"""Counting under leases while servers come and go, and what was counted held against it."""

import asyncio
import time

from gramkeep import StorageUnavailable
from gramkeep.storage import ABSENT, BUSY, Lease, Put


class Counter:
    """Increments keys until told to stop, as updates of sessions would."""

    def __init__(self, storage, keys, owner="one"):
        self.storage = storage
        self.lease = Lease(owner, 5.0)
        self.acknowledged = dict.fromkeys(keys, 0)
        self.unknown = self.refused = 0
        self.longest_pause = 0.0
        self._tasks = []
        self._is_over = False

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._count(key)) for key in self.acknowledged]
        return self

    async def __aexit__(self, *_):
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def progress(self, times=3, within=20.0):
        """Wait until every key was incremented some more times."""
        targets = {key: count + times for key, count in self.acknowledged.items()}
        deadline = time.monotonic() + within
        while any(self.acknowledged[key] < target for key, target in targets.items()):
            assert time.monotonic() < deadline, f"no progress within {within:g} s"
            failed = [task for task in self._tasks if task.done()]
            assert not failed, failed[0].exception()
            await asyncio.sleep(0.02)

    async def lost(self):
        """Say how many increments that were acknowledged are not there any more."""
        records = await self.storage.get(list(self.acknowledged))
        there = [0 if record is None else int(record.value) for record in records]
        told = list(self.acknowledged.values())
        return sum(max(0, a - b) for a, b in zip(told, there, strict=True))

    async def _count(self, key):
        last = time.monotonic()
        while not self._is_over:
            try:
                (record,) = await self.storage.claim([key], self.lease)
                if record is BUSY:
                    await asyncio.sleep(0.01)
                    continue
                expected = ABSENT if record is None else record.token
                count = 1 if record is None else int(record.value) + 1
                put = Put(key, b"%d" % count, expected)
                (done,) = await self.storage.put([put], self.lease)
            except StorageUnavailable:
                self.unknown += 1
                await asyncio.sleep(0.02)
                continue
            if not done:
                self.refused += 1  # nobody else writes: another server has another value
            else:
                self.acknowledged[key] += 1
                self.longest_pause = max(self.longest_pause, time.monotonic() - last)
                last = time.monotonic()
