"""A worker process, as the benchmark sees it."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from benchmarks.protocol import (
    END_OF_ARRIVALS,
    Arrivals,
    Closed,
    Failed,
    Measured,
    Open,
    Opened,
    Order,
    Stepped,
    Steps,
    Touch,
    Touched,
    line,
    read_answer,
)

A = TypeVar("A", Opened, Measured, Stepped, Touched)

ROOT = Path(__file__).parents[1]
STOPS_WITHIN = 10.0  # seconds
ANSWERS_WITHIN = 180.0  # seconds; who doesn't is ended, and the others go on
UNDER_WAY_AT_MOST = 500  # arrivals; who has more of them under way falls behind


def python_worker(loop: str) -> list[str]:
    """Give the command for a contender in Python, on asyncio's own event loop or on uvloop."""
    return [sys.executable, "-m", "benchmarks.python_worker", loop]


def node_worker(program: str) -> list[str]:
    """Give the command for a contender in Node.js."""
    script = ROOT / "benchmarks/node_worker/worker.mjs"
    return [program, "--expose-gc", "--no-warnings", str(script)]


class OrderFailed(Exception):
    """A worker couldn't do what it was told; the text is its own."""


class WorkerProcess:
    """One process with one contender, run by ``command``; ends with the ``with`` block."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then ends its workers
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._process.kill()  # it may be at work, and its answer isn't wanted any more
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
        finally:
            self._process.wait()

    def open(self, order: Open) -> dict[str, str]:
        """Have the contender made and its sessions stored, and give its versions."""
        return self._ask(order, Opened).versions

    def closed(self, concurrency: int, seconds: float) -> Measured:
        """Measure it with so many updates under way."""
        return self._ask(Closed(concurrency, seconds), Measured)

    def steps(self, concurrency: int, seconds: float) -> float:
        """Give the longest step of its event loop with so many updates under way, in seconds."""
        return self._ask(Steps(concurrency, seconds), Stepped).longest

    def arrivals(self, rate: int, seconds: float) -> Measured:
        """Measure it with updates that come when they come, on average ``rate`` a second."""
        self._tell(line(Arrivals(UNDER_WAY_AT_MOST)))
        moments = random.Random(rate)  # noqa: S311
        due = time.monotonic_ns() + 20_000_000
        end = due + round(seconds * 1e9)
        while due < end:
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            together: list[bytes] = []
            now = time.monotonic_ns()
            while due < end and (not together or due <= now):
                together.append(b"%d\n" % due)
                due += round(moments.expovariate(rate) * 1e9)
            self._tell(b"".join(together))
        self._tell(END_OF_ARRIVALS)
        return self._answer(Measured)

    def touch(self, first: int, count: int) -> int:
        """Update sessions once each, and give the memory that the process then has, in bytes."""
        return self._ask(Touch(first, count), Touched).resident

    def _ask(self, order: Order, kind: type[A]) -> A:
        self._tell(line(order))
        return self._answer(kind)

    def _tell(self, text: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise OrderFailed(self._end()) from None

    def _answer(self, kind: type[A]) -> A:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        watchdog = threading.Timer(ANSWERS_WITHIN, self._process.kill)
        watchdog.daemon = True  # so that one that an interrupt left behind holds nothing up
        try:
            watchdog.start()
            text = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not text:
            raise OrderFailed(self._end())
        answer = read_answer(text)
        if isinstance(answer, Failed):
            raise OrderFailed(answer.reason)
        assert isinstance(answer, kind), answer  # noqa: S101 - as the protocol has it
        return answer

    def _end(self) -> str:
        return f"its process ended with {self._process.wait()}"
