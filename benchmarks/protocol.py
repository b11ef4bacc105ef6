"""What the benchmark and its workers say to each other: one JSON object a line.

A worker is a process that has one contender, and does what it is told over its standard input.
The answers come over its standard output. While `Arrivals` are under way, further lines of the
input are the moments at which updates were due, in nanoseconds of the monotonic clock, which is
one for all processes; the line ``end`` is the last.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

END_OF_ARRIVALS: Final = b"end\n"
LATENCY_UNIT: Final = 1e-7  # seconds; latencies are unsigned 32-bit numbers of these


class Open(Struct, tag="open", tag_field="do"):
    """Make the contender, and store its sessions 0 to ``keys``.

    ``place`` is where: a URL, or nothing for those in memory. ``items`` are in each cart.
    """

    contender: str
    place: str
    keys: int
    items: int


class Closed(Struct, tag="closed", tag_field="do"):
    """Run ``concurrency`` loops, each of which begins an update when its last one is over."""

    concurrency: int
    seconds: float


class Steps(Struct, tag="steps", tag_field="do"):
    """Run as `Closed` does, and find the longest step of the event loop. Of asyncio's alone."""

    concurrency: int
    seconds: float


class Arrivals(Struct, tag="arrivals", tag_field="do"):
    """Begin an update whenever one is due, unless ``at_most`` are under way."""

    at_most: int


class Touch(Struct, tag="touch", tag_field="do"):
    """Update the sessions ``first`` to ``first + count`` once each, 64 at a time."""

    first: int
    count: int


Order = Open | Closed | Steps | Arrivals | Touch


class Opened(Struct, tag="opened", tag_field="is"):
    """The contender is ready; ``versions`` of what it is made of."""

    versions: dict[str, str]


class Measured(Struct, tag="measured", tag_field="is"):
    """What a load came to.

    ``cpu`` is what the process used, in seconds. ``refused`` arrivals found too many others under
    way.
    """

    updates: int
    seconds: float
    cpu: float
    latencies: bytes
    refused: int = 0


class Stepped(Struct, tag="stepped", tag_field="is"):
    """``longest``: of the steps of the event loop, in seconds."""

    longest: float


class Touched(Struct, tag="touched", tag_field="is"):
    """``resident``: the process's memory, in bytes."""

    resident: int


class Failed(Struct, tag="failed", tag_field="is"):
    """The order couldn't be carried out."""

    reason: str


Answer = Opened | Measured | Stepped | Touched | Failed

read_order: Final = msgspec.json.Decoder(Order).decode
read_answer: Final = msgspec.json.Decoder(Answer).decode


def line(message: Order | Answer) -> bytes:
    """Give the line that says it."""
    return msgspec.json.encode(message) + b"\n"
