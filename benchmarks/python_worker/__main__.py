"""Carry out the orders that come over standard input; see `benchmarks.protocol`."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from asyncio import StreamReader
from importlib import import_module
from typing import BinaryIO

import uvloop

from benchmarks.protocol import (
    Answer,
    Arrivals,
    Closed,
    Failed,
    Open,
    Opened,
    Order,
    Stepped,
    Steps,
    Touch,
    Touched,
    line,
    read_order,
)
from benchmarks.python_worker.contender import Contender
from benchmarks.python_worker.gauges import StepGauge, resident
from benchmarks.python_worker.load import Load

CLASSES = {
    "gramkeep": "gramkeep_sessions.Gramkeep",
    "aiogram": "aiogram_fsm.AiogramFSM",
    "telebot": "telebot_states.TelebotStates",
    "ptb": "ptb_persistence.PTBChatData",
    "ptb-saved": "ptb_persistence.PTBSaved",
    "redis-py": "plain_redis.PlainRedis",
}
TOUCHING = 64  # updates at a time


class Worker:
    """One contender, and what was asked of it."""

    def __init__(self, orders: StreamReader) -> None:
        self._orders = orders
        self._contender: Contender | None = None
        self._keys = 0

    async def answer(self, order: Order) -> Answer:
        if isinstance(order, Open):
            return await self._open(order)
        assert self._contender is not None  # noqa: S101 - Open comes first
        if isinstance(order, Closed):
            load = Load(self._contender, self._keys)
            return await load.closed(order.concurrency, order.seconds)
        if isinstance(order, Steps):
            load = Load(self._contender, self._keys)
            with StepGauge() as gauge:
                await load.closed(order.concurrency, order.seconds)
            return Stepped(gauge.longest)
        if isinstance(order, Arrivals):
            load = Load(self._contender, self._keys)
            return await load.arrivals(self._orders, order.at_most)
        return await self._touch(self._contender, order)

    async def aclose(self) -> None:
        if self._contender is not None:
            await self._contender.aclose()

    async def _open(self, order: Open) -> Opened:
        module, name = CLASSES[order.contender].split(".")
        make = getattr(import_module(f"benchmarks.python_worker.{module}"), name)
        contender: Contender = make(order.place, order.items)
        self._contender, self._keys = contender, order.keys
        await contender.fill(range(order.keys))
        gc.collect()
        gc.freeze()  # as docs/scaling.md has it for bots: or full collections look at all modules
        return Opened(contender.versions())

    async def _touch(self, contender: Contender, order: Touch) -> Touched:
        contender.handler_waits = True
        numbers = iter(range(order.first, order.first + order.count))

        async def update_some() -> None:
            for number in numbers:
                await contender.update(number)

        await asyncio.gather(*(update_some() for _ in range(TOUCHING)))
        gc.collect()
        return Touched(resident())


def _reason(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return _reason(error.exceptions[0])
    return f"{type(error).__name__}: {error}"


async def serve(answers: BinaryIO) -> None:
    """Answer orders until there are no more."""
    orders = StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    worker = Worker(orders)
    while text := await orders.readline():
        try:
            answer = await worker.answer(read_order(text))
        except Exception as error:  # noqa: BLE001 - it is the benchmark's to deal with
            answer = Failed(_reason(error))
        answers.write(line(answer))
        answers.flush()
    await worker.aclose()


def main() -> None:
    """Keep standard output for answers alone: what contenders print goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        loop_factory = uvloop.new_event_loop if sys.argv[1:] == ["uvloop"] else None
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve(answers))


main()
