"""What gramkeep means to reach beside its peers, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from benchmarks.figures import Ratio, growth, middle, ratio
from benchmarks.plan import FAMILIES, GRAMKEEP
from benchmarks.results import ClosedLoop, LongestStep, Memory, Results

STALL_AT_MOST: Final = 10.0  # ms
TAIL_AT_MOST: Final = 5.0  # p99 to p50
FLAT: Final = 20.0  # MB for a million keys more: a fraction of what their sessions would take
KEYS_AT_LEAST: Final = 50_000  # or what an allocator does by chance is taken for growth
BUSIEST: Final = 128  # updates at once


class Versus(NamedTuple):
    """What is to be reached with one kind of storage, beside the fastest of ``peers``.

    ``limits`` are by the number of updates at once: of updates a second ours to theirs, or, where
    ``is_cost``, of the time that one takes, which is to be the smaller the better.
    """

    family: str
    peers: tuple[str, ...]
    limits: dict[int, float]
    is_cost: bool = False


VERSUS: Final = (
    Versus("redis", ("grammY", "GramIO"), {1: 0.9, 16: 1.0, 128: 1.8}),
    Versus("redis", ("aiogram FSM",), {1: 1.2, 16: 4, 128: 8}),
    Versus("postgres", ("grammY",), {1: 0.9, 16: 5, 128: 15}),
    Versus("sqlite", ("GramIO", "node:sqlite"), {1: 0.7, 16: 4, 128: 8}),
    Versus("memory", ("grammY",), {1: 1.2, 128: 2}, is_cost=True),
)


class Cell(NamedTuple):
    """One thing to reach, and what there is; ``level`` is how many updates were under way."""

    family: str
    level: int | None
    wanted: str
    found: str
    is_met: bool


def cells(results: Results) -> Iterator[Cell]:
    """Compare results with the bar, as far as they have something to compare."""
    for versus in VERSUS:
        yield from _beside_peers(results, versus)
    ours = [results.loop(family, GRAMKEEP, BUSIEST) for family in FAMILIES]
    yield from (_tail(loop) for loop in ours if loop is not None)
    for step in results.steps:
        if (step.name, step.concurrency) == (GRAMKEEP, BUSIEST):
            yield _stall(step)
    for memory in results.memory:
        is_outside = memory.family != "memory"
        if memory.name == GRAMKEEP and is_outside and memory.keys[-1] >= KEYS_AT_LEAST:
            yield _growth(memory)


def ratio_text(found: Ratio) -> str:
    """Show a ratio with its spread."""
    return f"{_figure(found.middle)} ({_figure(found.least)} to {_figure(found.most)})"


def _beside_peers(results: Results, versus: Versus) -> Iterator[Cell]:
    for level, limit in versus.limits.items():
        ours = results.loop(versus.family, GRAMKEEP, level)
        peers = [results.loop(versus.family, name, level) for name in versus.peers]
        there = [peer for peer in peers if peer is not None]
        if ours is None or not there:
            continue
        peer = max(there, key=lambda loop: middle(loop, "rate"))
        found = ratio(ours, peer)
        if versus.is_cost:
            found = Ratio(1 / found.middle, 1 / found.most, 1 / found.least)
            wanted = f"time of an update ≤ {limit:g} times that of {peer.name}"
            is_met = found.middle <= limit
        else:
            wanted = f"updates a second ≥ {limit:g} times those of {peer.name}"
            is_met = found.middle >= limit
        yield Cell(versus.family, level, wanted, ratio_text(found), is_met)


def _tail(loop: ClosedLoop) -> Cell:
    found = middle(loop, "p99") / middle(loop, "p50")
    wanted = f"p99 ≤ {TAIL_AT_MOST:g} times p50"
    return Cell(loop.family, BUSIEST, wanted, f"{found:.1f}", found <= TAIL_AT_MOST)


def _stall(step: LongestStep) -> Cell:
    wanted = f"no stall of the event loop > {STALL_AT_MOST:g} ms"
    found = f"{step.longest:.1f} ms"
    return Cell(step.family, BUSIEST, wanted, found, step.longest <= STALL_AT_MOST)


def _growth(memory: Memory) -> Cell:
    found = growth(memory)
    wanted = f"memory flat: ≤ {FLAT:g} MB for a million keys more"
    return Cell(memory.family, None, wanted, f"{found:.0f} MB", found <= FLAT)


def _figure(number: float) -> str:
    return f"{number:.1f}" if number >= 9.95 else f"{number:.2f}"  # noqa: PLR2004 - three digits
