"""From what was measured to the figures that are shown."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.plan import Row
from benchmarks.protocol import LATENCY_UNIT, Measured
from benchmarks.results import ClosedLoop, Memory, OpenLoop, Round


class Latencies:
    """All latencies of one or more loads, so that percentiles are exact, not of a histogram."""

    def __init__(self, loads: Iterable[Measured]) -> None:
        units = array("I")
        for load in loads:
            part = array("I", load.latencies)
            if sys.byteorder == "big":
                part.byteswap()
            units.extend(part)
        self._sorted = sorted(units)

    def percentile(self, percent: float) -> float:
        """Give the latency, in milliseconds, that ``percent`` of the updates kept within."""
        if not self._sorted:
            return 0.0
        place = min(int(len(self._sorted) * percent / 100), len(self._sorted) - 1)
        return self._sorted[place] * LATENCY_UNIT * 1e3


def round_of(load: Measured) -> Round:
    """Give what one load in a closed loop came to."""
    latencies = Latencies([load])
    return Round(
        rate=round(load.updates / load.seconds, 1),
        cpu=round(load.cpu / load.updates * 1e6, 2),
        p50=round(latencies.percentile(50), 4),
        p99=round(latencies.percentile(99), 4),
        p999=round(latencies.percentile(99.9), 4),
    )


def open_loop_of(row: Row, rate: int, loads: Sequence[Measured]) -> OpenLoop:
    """Give what arrivals came to, in all rounds together."""
    latencies = Latencies(loads)
    refused = sum(load.refused for load in loads)
    p50, p99, p999 = (round(latencies.percentile(percent), 3) for percent in (50, 99, 99.9))
    part = refused / (refused + sum(load.updates for load in loads))
    return OpenLoop(row.family, row.name, rate, p50, p99, p999, round(part, 4))


class Ratio(NamedTuple):
    """Ours to a peer's: the median over rounds that stood side by side, the least, the most."""

    middle: float
    least: float
    most: float


def ratio(ours: ClosedLoop, peer: ClosedLoop) -> Ratio:
    """Compare rates, round by round."""
    of_rounds = [a.rate / b.rate for a, b in zip(ours.rounds, peer.rounds, strict=True)]
    return Ratio(median(of_rounds), min(of_rounds), max(of_rounds))


def middle(loop: ClosedLoop, figure: str) -> float:
    """Give the median of one of a round's figures."""
    return median(float(getattr(one, figure)) for one in loop.rounds)


def growth(memory: Memory) -> float:
    """Give the MB that a million more keys would take, by the second half of the samples.

    The first half is left out: it has what a process takes once, however many keys follow.
    """
    half = len(memory.keys) // 2
    return slope(memory.keys[half:], memory.resident[half:]) * 1e6


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Give the slope of the line of least squares."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - mean_x) ** 2 for one in x)
    if not spread:
        return 0.0
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
