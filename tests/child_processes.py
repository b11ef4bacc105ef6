"""What tests run in processes of their own; importable there by this module's name."""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gramkeep import SessionConflict, Sessions

EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass
class Counter:
    count: int = 0
    writers: dict[str, int] = field(default_factory=dict)


def run_example_bot(url: str, token: str, storage: str) -> None:
    """Run examples/aiogram_counter.py against another Bot API server, until killed."""
    os.environ.update(BOT_API_URL=url, BOT_TOKEN=token, STORAGE=storage)
    sys.path.insert(0, str(EXAMPLES))
    import aiogram_counter  # noqa: PLC0415 - it reads the environment when imported

    asyncio.run(aiogram_counter.main())


def increment_by_open(url: str, writer: str, times: int, keys: int, results) -> None:
    """Count up sessions through `Sessions.open`, again where a conflict says it was in vain."""

    async def run() -> int:
        conflicts = 0
        async with Sessions(initial=Counter, storage=url) as sessions:
            for number in range(times):
                while True:
                    try:
                        async with sessions.open(f"key-{number % keys}") as session:
                            _increment(session.data, writer)
                            await asyncio.sleep(0)
                        break
                    except SessionConflict:
                        conflicts += 1
        return conflicts

    results.put((writer, asyncio.run(run())))


def increment_by_update(url: str, writer: str, times: int, keys: int, results) -> None:
    """Count up sessions through `Sessions.update`, several at once."""

    async def run() -> None:
        async with Sessions(initial=Counter, storage=url) as sessions:

            async def some(numbers: range) -> None:
                for number in numbers:
                    await sessions.update(
                        f"key-{number % keys}", lambda data: _increment(data, writer)
                    )

            await asyncio.gather(*(some(range(first, times, 4)) for first in range(4)))

    asyncio.run(run())
    results.put((writer, 0))


def _increment(data: Counter, writer: str) -> Counter:
    data.count += 1
    data.writers[writer] = data.writers.get(writer, 0) + 1
    return data
