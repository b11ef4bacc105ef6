"""Loads, and what they come to."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from asyncio import StreamReader
from collections.abc import Coroutine, Iterable
from itertools import cycle
from typing import Any

from benchmarks.protocol import END_OF_ARRIVALS, LATENCY_UNIT, Measured
from benchmarks.python_worker.contender import Contender

ORDER = 65_536  # sessions in the order in which they are updated, again and again
IN_A_ROW = 64  # updates after which the event loop has its turn, whatever the contender does
UNIT = round(LATENCY_UNIT * 1e9)  # nanoseconds


class Load:
    """One load on one contender, to be used once."""

    def __init__(self, contender: Contender, keys: int) -> None:
        self._contender = contender
        self._numbers = cycle(random.Random(7).choices(range(keys), k=ORDER))  # noqa: S311
        self._latencies = array("I")
        self._refused = 0

    async def closed(self, concurrency: int, seconds: float) -> Measured:
        """Keep ``concurrency`` updates under way."""
        self._contender.handler_waits = concurrency > 1
        end = time.perf_counter_ns() + round(seconds * 1e9)

        async def one_after_the_other() -> None:
            update, numbers, note = self._contender.update, self._numbers, self._latencies.append
            now = time.perf_counter_ns
            while (begun := now()) < end:
                await update(next(numbers))
                note((now() - begun) // UNIT)
                if len(self._latencies) % IN_A_ROW == 0:
                    await asyncio.sleep(0)

        return await self._measured(one_after_the_other() for _ in range(concurrency))

    async def arrivals(self, due: StreamReader, at_most: int) -> Measured:
        """Begin an update for each line of ``due``, and note how long after that it is over."""
        self._contender.handler_waits = True
        under_way = 0

        async def one(begun: int) -> None:
            nonlocal under_way
            await self._contender.update(next(self._numbers))
            under_way -= 1
            self._latencies.append((time.monotonic_ns() - begun) // UNIT)

        async def all_of_them() -> None:
            nonlocal under_way
            async with asyncio.TaskGroup() as group:
                while (line := await due.readline()) not in (END_OF_ARRIVALS, b""):
                    if under_way >= at_most:
                        self._refused += 1
                    else:
                        under_way += 1
                        group.create_task(one(int(line)))

        return await self._measured([all_of_them()])

    async def _measured(self, parts: Iterable[Coroutine[Any, Any, None]]) -> Measured:
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*parts)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        return Measured(
            updates=len(self._latencies),
            seconds=seconds,
            cpu=cpu,
            latencies=self._latencies.tobytes(),
            refused=self._refused,
        )
