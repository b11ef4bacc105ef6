"""What a run has found, as it is kept in ``benchmarks/results``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

LATEST: Final = Path(__file__).with_name("results") / "latest.json"


class Round(Struct):
    """One load on one contender.

    ``rate``: updates a second. ``cpu``: microseconds of the contender's process an update.
    ``p50``, ``p99``, ``p999``: latencies in milliseconds.
    """

    rate: float
    cpu: float
    p50: float
    p99: float
    p999: float


class ClosedLoop(Struct):
    """Rounds of a contender with ``concurrency`` updates under way, of sessions of ``size``."""

    family: str
    name: str
    size: int
    concurrency: int
    rounds: list[Round]


class LongestStep(Struct):
    """The longest step of the event loop, in milliseconds, with ``concurrency`` updates at once."""

    family: str
    name: str
    concurrency: int
    longest: float


class OpenLoop(Struct):
    """Latencies, in milliseconds, of updates that came ``rate`` times a second, all rounds as one.

    ``refused``: the part that found too many others under way, and wasn't done.
    """

    family: str
    name: str
    rate: int
    p50: float
    p99: float
    p999: float
    refused: float


class Memory(Struct):
    """A process's memory, in MB, after it had had so many different keys."""

    family: str
    name: str
    keys: list[int]
    resident: list[float]


class Contender(Struct):
    """Who was measured. ``reason`` says why not, if it wasn't."""

    family: str
    name: str
    versions: dict[str, str]
    reason: str = ""


class Results(Struct):
    """One run. ``seconds`` is how long it took, ``taken`` the day."""

    plan: str
    taken: str
    seconds: int
    machine: dict[str, str]
    contenders: list[Contender] = []
    closed: list[ClosedLoop] = []
    steps: list[LongestStep] = []
    arrivals: list[OpenLoop] = []
    memory: list[Memory] = []

    @property
    def size(self) -> int:
        """The size of most sessions, in bytes; the others are the large ones."""
        return min((loop.size for loop in self.closed), default=0)

    @property
    def levels(self) -> list[int]:
        """How many updates were under way at once."""
        return sorted({loop.concurrency for loop in self.closed if loop.size == self.size})

    def loop(
        self, family: str, name: str, concurrency: int, size: int | None = None
    ) -> ClosedLoop | None:
        """Find the closed loop of a contender, with sessions of ``size``."""
        size = self.size if size is None else size
        for loop in self.closed:
            found = loop.family, loop.name, loop.concurrency, loop.size
            if found == (family, name, concurrency, size):
                return loop
        return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line for each contender and load, so that two runs can be compared.
        path.write_bytes(msgspec.json.encode(self).replace(b'{"family"', b'\n{"family"') + b"\n")


def read(path: Path) -> Results:
    """Read what a run has written."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
