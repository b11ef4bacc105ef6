"""What a process can tell of itself, from files of the kernel's where there are such."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final, Self

# Nanoseconds that the thread ran, and that it waited for others that ran in its place.
SCHEDULED: Final = Path("/proc/thread-self/schedstat")


def resident() -> int:
    """Give the process's memory, in bytes."""
    _, pages, *_ = Path("/proc/self/statm").read_text("ascii").split()
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class StepGauge:
    """Looks how long each step of asyncio's event loop takes, while the ``with`` block runs.

    A step is what asyncio's debug mode calls a callback: what runs, or waits for a disk, without
    giving the loop back. ``longest`` is that of the longest, in seconds, less what the thread
    waited for the processor meanwhile: on a busy machine that says more of others.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._file = os.open(SCHEDULED, os.O_RDONLY) if SCHEDULED.exists() else None
        self._run = run = asyncio.Handle._run  # noqa: SLF001 - all steps go through it

        def timed(handle: asyncio.Handle) -> None:
            begun = time.perf_counter() - self._waiting()
            run(handle)
            if asyncio.Handle._run is timed:  # noqa: SLF001 - the block may have ended in it
                self.longest = max(self.longest, time.perf_counter() - self._waiting() - begun)

        asyncio.Handle._run = timed  # type: ignore[assignment,method-assign] # noqa: SLF001
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign] # noqa: SLF001
        if self._file is not None:
            os.close(self._file)

    def _waiting(self) -> float:
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
