"""A run: contenders take turns, round by round, so that what the machine does strikes all alike."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from benchmarks import node
from benchmarks.figures import growth, middle, open_loop_of, round_of
from benchmarks.machine import machine
from benchmarks.order import items_for
from benchmarks.places import Places, places
from benchmarks.plan import Plan, Row
from benchmarks.protocol import Measured, Open
from benchmarks.results import ClosedLoop, Contender, LongestStep, Memory, Results
from benchmarks.worker import OrderFailed, WorkerProcess, node_worker, python_worker

MB: Final = 1e6
WARM_UP: Final = -1  # the round before the first, which isn't counted
NO_PACKAGE: Final = re.compile(r"Cannot find package '([^']+)'")  # as Node.js says it

Workers = dict[Row, WorkerProcess]


class Run:
    """One run of a plan over some rows; ``show`` is told how far it is."""

    def __init__(self, plan: Plan, rows: Sequence[Row], show: Callable[[str], None]) -> None:
        self.plan = plan
        self._rows = rows
        self._show = show
        self.results = Results(
            plan=plan.name,
            taken=datetime.now(UTC).date().isoformat(),
            seconds=0,
            machine=machine(),
        )

    def measure(self) -> Results:
        """Measure one kind of storage after the other, and give the results."""
        begun = time.monotonic()
        for family, rows in groupby(self._rows, key=lambda row: row.family):
            with places() as made:
                self._family(family, list(rows), made)
        self.results.seconds = round(time.monotonic() - begun)
        return self.results

    def _family(self, family: str, rows: list[Row], made: Places) -> None:
        plan = self.plan
        further = [row for row in rows if row.further]
        with self._workers(rows, made, plan.size, plan.keys) as workers:
            for level in plan.levels:
                self._show(f"{family}: {level} at once")
                self._closed(workers, plan.size, level, plan.rounds)
            for rate in plan.rates if further else ():
                self._show(f"{family}: {rate} a second")
                self._arrivals(workers, rate)
        for row in rows:
            if row.is_ours and row.runtime == "uvloop":
                self._steps(row, made)
        for size, keys in plan.large if further else ():
            self._show(f"{family}: sessions of {size} bytes")
            with self._workers(further, made, size, keys) as workers:
                self._closed(workers, size, plan.large_level, plan.large_rounds)
        for row in further:
            if not row.is_ours and family != "memory":
                continue  # its sessions are elsewhere
            self._show(f"{family}: memory of {row.name}")
            with self._workers([row], made, plan.size, plan.keys) as workers:
                self._memory(workers)

    @contextmanager
    def _workers(self, rows: list[Row], made: Places, size: int, keys: int) -> Iterator[Workers]:
        """Hold a worker for each row that can be measured; note why the others can't."""
        with ExitStack() as stack:
            workers: Workers = {}
            for row in rows:
                with self._noting_failure(row, workers):
                    worker = stack.enter_context(WorkerProcess(_command(row)))
                    order = Open(row.contender, made.make(row.place), keys, items_for(size))
                    self._contender(row).versions = worker.open(order)
                    workers[row] = worker
            yield workers

    def _closed(self, workers: Workers, size: int, level: int, rounds: int) -> None:
        loops = {row: ClosedLoop(row.family, row.name, size, level, []) for row in workers}
        for number in range(WARM_UP, rounds):
            for row in _in_turn(list(workers), number):
                with self._noting_failure(row, workers):
                    if number == WARM_UP:
                        workers[row].closed(level, self.plan.seconds / 3)
                    else:
                        load = workers[row].closed(level, self.plan.seconds)
                        loops[row].rounds.append(round_of(load))
        for row in workers:
            self.results.closed.append(loops[row])
            rate, cpu = middle(loops[row], "rate"), middle(loops[row], "cpu")
            self._show(f"{row.name:>40} {rate:9,.0f} a second, {cpu:7.1f} µs of CPU each")

    def _steps(self, row: Row, made: Places) -> None:
        """Look at the event loop's steps, which asyncio's own loop alone lets one see."""
        plan = self.plan
        self._show(f"{row.family}: steps of {row.name}")
        with self._workers([replace(row, runtime="asyncio")], made, plan.size, plan.keys) as held:
            for on_asyncio, worker in list(held.items()):
                for level in plan.levels:
                    with self._noting_failure(on_asyncio, held):
                        worker.closed(level, plan.seconds / 3)
                        longest = round(worker.steps(level, plan.seconds * 2) * 1e3, 2)
                        step = LongestStep(row.family, row.name, level, longest)
                        self.results.steps.append(step)
                        self._show(f"{level:>40} at once, the longest step {longest:.2f} ms")

    def _arrivals(self, workers: Workers, rate: int) -> None:
        loads: dict[Row, list[Measured]] = {row: [] for row in workers if row.further}
        for number in range(self.plan.arrival_rounds):
            for row in _in_turn([row for row in workers if row.further], number):
                with self._noting_failure(row, workers):
                    load = workers[row].arrivals(rate, self.plan.arrival_seconds)
                    loads[row].append(load)
        for row in (row for row in workers if row.further):
            loop = open_loop_of(row, rate, loads[row])
            self.results.arrivals.append(loop)
            latencies = f"p50 {loop.p50:.2f} ms, p99 {loop.p99:.2f} ms"
            self._show(f"{row.name:>40} {latencies}, {loop.refused:.0%} refused")

    def _memory(self, workers: Workers) -> None:
        plan = self.plan
        for row in list(workers):
            step = plan.touched // plan.samples
            end = time.monotonic() + plan.touched_seconds
            memory = Memory(row.family, row.name, [], [])
            with self._noting_failure(row, workers):
                for sample in range(plan.samples):
                    resident = workers[row].touch(plan.keys + sample * step, step)
                    memory.keys.append((sample + 1) * step)
                    memory.resident.append(round(resident / MB, 2))
                    if time.monotonic() > end:
                        break
                self.results.memory.append(memory)
                self._show(f"{row.name:>40} {growth(memory):9,.1f} MB for a million keys more")

    def _contender(self, row: Row) -> Contender:
        for contender in self.results.contenders:
            if (contender.family, contender.name) == (row.family, row.name):
                return contender
        self.results.contenders.append(Contender(row.family, row.name, {}))
        return self.results.contenders[-1]

    @contextmanager
    def _noting_failure(self, row: Row, workers: Workers) -> Iterator[None]:
        """Go on without a contender that fails, and say why."""
        try:
            yield
        except (OrderFailed, node.NoNode) as error:
            workers.pop(row, None)
            self._contender(row).reason = reason = _why_not(error)
            self._show(f"{row.name:>40} can't be measured: {reason}")


def _in_turn(rows: list[Row], number: int) -> list[Row]:
    """Begin each round with another one."""
    first = number % len(rows) if rows else 0
    return rows[first:] + rows[:first]


def _command(row: Row) -> list[str]:
    if row.runtime in ("asyncio", "uvloop"):
        return python_worker(row.runtime)
    oldest = node.OLDEST if row.runtime == "node" else node.OLDEST_WITH_SQLITE
    return node_worker(node.program(oldest))


def _why_not(error: Exception) -> str:
    missing = NO_PACKAGE.search(str(error))
    return f"npm's package {missing[1]} wasn't to be had" if missing else str(error)
