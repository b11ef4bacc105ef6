"""What a process can tell of itself, from files of the kernel's where there are such."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final, Self

TICK: Final = 0.001  # seconds
# Nanoseconds that the thread ran, and that it waited for others that ran in its place.
SCHEDULED: Final = Path("/proc/thread-self/schedstat")


def resident() -> int:
    """Give the process's memory, in bytes."""
    _, pages, *_ = Path("/proc/self/statm").read_text("ascii").split()
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class StallGauge:
    """A task that ticks while the ``with`` block runs.

    ``longest`` is the longest time, in seconds, from one tick to the next, less what the thread
    waited for the processor meanwhile: on a busy machine that says more of others.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._ticked = self._waited = 0.0

    def __enter__(self) -> Self:
        self._file = os.open(SCHEDULED, os.O_RDONLY) if SCHEDULED.exists() else None
        self._ticked, self._waited = time.perf_counter(), self._waiting()
        self._task = asyncio.create_task(self._tick())
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()
        self._note()
        if self._file is not None:
            os.close(self._file)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._note()

    def _note(self) -> None:
        now, waited = time.perf_counter(), self._waiting()
        gap = now - self._ticked - (waited - self._waited)
        self.longest = max(self.longest, gap)
        self._ticked, self._waited = now, waited

    def _waiting(self) -> float:
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
