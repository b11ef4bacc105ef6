"""What tests run in processes of their own; importable there by this module's name."""

import asyncio
import logging
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gramkeep import SessionConflict, Sessions, StorageUnavailable

EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass
class Counter:
    count: int = 0
    workers: dict[str, int] = field(default_factory=dict)


def run_example_bot(url: str, token: str, storage: str) -> None:
    """Run examples/aiogram_counter.py against another Bot API server, until killed."""
    os.environ.update(BOT_API_URL=url, BOT_TOKEN=token, STORAGE=storage)
    sys.path.insert(0, str(EXAMPLES))
    import aiogram_counter  # noqa: PLC0415 - it reads the environment when imported

    asyncio.run(aiogram_counter.main())


def run_webhook_bot(port: int, token: str, storage: str, prefix: str) -> None:
    """Count the messages of each chat behind a webhook, and answer in the response to it."""
    from aiogram import Bot, Dispatcher  # noqa: PLC0415 - imported where it is run
    from aiogram.types import Message  # noqa: PLC0415
    from aiogram.webhook.aiohttp_server import (  # noqa: PLC0415
        SimpleRequestHandler,
        setup_application,
    )
    from aiohttp import web  # noqa: PLC0415

    from gramkeep.integrations.aiogram import session as sessions_of  # noqa: PLC0415

    dispatcher = Dispatcher()
    sessions_of(initial=Counter, storage=storage, prefix=prefix).setup(dispatcher)

    @dispatcher.message()
    async def count(message: Message, session: Counter):
        before = session.count
        await asyncio.sleep(0.001)
        session.count = before + 1
        return message.answer(str(session.count))

    app = web.Application()
    bot = Bot(token)
    SimpleRequestHandler(dispatcher, bot, handle_in_background=False).register(app, "/")
    setup_application(app, dispatcher, bot=bot)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


@dataclass
class Job:
    """How workers count up: for how long, which keys, how many at once, under which options.

    ``acknowledged`` is a folder: every worker has a file there, to which it adds a key as soon
    as an increment of it was acknowledged, so that one that is killed has told so much.

    Each works for as many ``seconds`` at least, until the file ``enough`` is there, and until an
    increment of its was acknowledged, however late the machine lets it begin.
    """

    acknowledged: Path
    enough: Path
    seconds: float = 2.0
    keys: int = 16
    at_once: int = 4
    pause: float = 0.0  # seconds that a handler takes
    options: dict[str, Any] = field(default_factory=dict)


class Refused(NamedTuple):
    """How often a worker was told that an increment wasn't saved, or may not have been."""

    conflicts: int
    leases_run_out: int
    unavailable: int


def increment_by_open(url: str, worker: int, job: Job, results) -> None:
    """Count up sessions through `Sessions.open`, and note which increments were acknowledged."""

    async def one(sessions: Sessions[Counter], key: str) -> None:
        async with sessions.open(key) as session:
            _increment(session.data, worker)
            await asyncio.sleep(job.pause)

    _work(url, worker, job, results, one)


def increment_by_update(url: str, worker: int, job: Job, results) -> None:
    """Count up sessions through `Sessions.update`, and note which were acknowledged."""

    async def one(sessions: Sessions[Counter], key: str) -> None:
        await sessions.update(key, lambda data: _increment(data, worker))

    _work(url, worker, job, results, one)


def _work(url: str, worker: int, job: Job, results, one) -> None:
    conflicts = leases_run_out = unavailable = 0
    had_its_turn = False
    file = os.open(job.acknowledged / str(worker), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def some(sessions: Sessions[Counter], chance: random.Random, end: float) -> None:
        nonlocal conflicts, leases_run_out, unavailable, had_its_turn
        while time.monotonic() < end or not had_its_turn or not job.enough.exists():
            key = f"key-{chance.randrange(job.keys)}"
            try:
                await one(sessions, key)
            except SessionConflict as conflict:
                conflicts += 1
                leases_run_out += conflict.lease_ran_out
            except StorageUnavailable:
                unavailable += 1
                await asyncio.sleep(0.01)
            else:
                os.write(file, f"{key} {time.time()}\n".encode())
                had_its_turn = True

    async def run() -> None:
        logging.disable(logging.WARNING)  # of leases that a broken connection can't renew
        async with Sessions(initial=Counter, storage=url, **job.options) as sessions:
            end = time.monotonic() + job.seconds
            chance = random.Random(worker)
            await asyncio.gather(*(some(sessions, chance, end) for _ in range(job.at_once)))

    asyncio.run(run())
    results.put((worker, Refused(conflicts, leases_run_out, unavailable)))


def _increment(data: Counter, worker: int) -> Counter:
    data.count += 1
    name = str(worker)
    data.workers[name] = data.workers.get(name, 0) + 1
    return data
