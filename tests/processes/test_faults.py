"""Servers that die and come back, networks that fail, workers that stand still: under load."""

import asyncio
import os
import random
import signal
import time

import pytest

from gramkeep.testing import TCPProxy

from .backends import KILLABLE, LEASING
from .hammer import Hammer

WORKERS = 4
BACK_WITHIN = 10.0  # seconds, of which clients take one at most, and a busy machine the rest
CONNECTIONS_AT_MOST = 16  # of one worker


async def some_are_acknowledged(hammer: Hammer) -> None:
    """Wait until each worker had an increment acknowledged from now on."""
    began = time.time()
    async with asyncio.timeout(30):
        while sum(map(bool, hammer.acknowledged(since=began).values())) < WORKERS:
            await asyncio.sleep(0.02)


def assert_all_were_soon_back(hammer: Hammer, *, since: float) -> None:
    for worker, times in hammer.moments(since=since).items():
        assert min(times) - since < BACK_WITHIN, f"worker {worker} came back late"


@pytest.mark.parametrize("backend", KILLABLE, indirect=True)
async def test_a_server_that_is_killed_and_started_again_loses_nothing(
    processes, backend, tmp_path
):
    hammer = Hammer(processes, backend.url, tmp_path)
    job = hammer.job(seconds=0)
    async with hammer.at_work(job, count=WORKERS):
        await some_are_acknowledged(hammer)
        backend.server.kill()
        gone = time.time()
        await asyncio.sleep(0.5)
        # Only what was answered before, and is told by a worker that had to wait for its turn.
        assert max(map(len, hammer.moments(since=gone).values())) <= job.at_once
        await asyncio.to_thread(backend.server.start)
        back = time.time()
        await some_are_acknowledged(hammer)
    await hammer.assert_nothing_was_lost(uncertain=hammer.total("unavailable"))
    assert_all_were_soon_back(hammer, since=back)


@pytest.mark.parametrize("backend", KILLABLE, indirect=True)
async def test_a_network_that_fails_in_all_ways_loses_nothing(processes, backend, tmp_path):
    async with TCPProxy("127.0.0.1", backend.port) as proxy:
        hammer = Hammer(processes, backend.url_through(proxy.port), tmp_path)
        async with hammer.at_work(hammer.job(seconds=0), count=WORKERS):
            await some_are_acknowledged(hammer)
            for _ in range(10):
                proxy.cut()
                await asyncio.sleep(random.uniform(0, 0.1))
            proxy.stall()
            await asyncio.sleep(0.5)
            proxy.resume()
            await asyncio.sleep(0.1)
            for _ in range(5):
                proxy.drop_answers()
                await proxy.dropped()
                await asyncio.sleep(random.uniform(0, 0.05))
                proxy.resume()
                await asyncio.sleep(0.1)
            proxy.refuse()
            proxy.cut()
            await asyncio.sleep(0.3)
            proxy.resume()
            back = time.time()
            await some_are_acknowledged(hammer)
            assert proxy.open <= WORKERS * CONNECTIONS_AT_MOST
    hammer.url = backend.url
    await hammer.assert_nothing_was_lost(uncertain=hammer.total("unavailable"))
    assert_all_were_soon_back(hammer, since=back)


@pytest.mark.parametrize("backend", LEASING, indirect=True)
async def test_a_worker_that_stands_still_for_longer_than_its_lease_overwrites_nothing(
    processes, backend, tmp_path
):
    hammer = Hammer(processes, backend.url, tmp_path)
    job = hammer.job(seconds=0, keys=2, pause=0.01, options={"lease": 0.5})
    async with hammer.at_work(job, count=WORKERS):
        await some_are_acknowledged(hammer)
        for number in range(2):
            worker = hammer.workers[number]
            os.kill(worker.pid, signal.SIGSTOP)
            await asyncio.sleep(0.9)
            os.kill(worker.pid, signal.SIGCONT)
        await some_are_acknowledged(hammer)
    await hammer.assert_nothing_was_lost(uncertain=hammer.total("unavailable"))
    assert hammer.total("leases_run_out") == hammer.total("conflicts")
