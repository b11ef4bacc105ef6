"""No storage keeps the event loop waiting: not for a file, a socket, a lock or another thread."""

import asyncio
from dataclasses import dataclass

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from gramkeep import Sessions

from .backends import STARTERS

KEYS = [f"key {n}" for n in range(20)]


@dataclass
class Counter:
    count: int = 0


@pytest.mark.parametrize("backend", STARTERS, indirect=True)
async def test_an_update_never_blocks_the_event_loop(backend):
    async with Sessions(initial=Counter, storage=backend.url) as sessions:
        await sessions.delete(KEYS[0])  # drivers are imported, and read certificates, once

        async def update(key):
            for _ in range(5):
                async with sessions.open(key) as session:
                    session.data.count += 1

        with blockbuster_ctx() as watch:
            # Connecting, asyncpg looks for a file of passwords, and redis-py for its version.
            for function in watch.functions.values():
                function.can_block_in("asyncpg/connect_utils.py", "_connect")
                function.can_block_in("redis/utils.py", "get_lib_version")
            await asyncio.gather(*map(update, KEYS * 2))
            stored = {key: data.count async for key, data in sessions.items()}
            assert stored == dict.fromkeys(KEYS, 10)
            await sessions.prune()
            await sessions.delete(KEYS[0])


async def test_blocking_would_be_noticed(tmp_path):
    with blockbuster_ctx(), pytest.raises(BlockingError):
        (tmp_path / "file").write_text("text")
