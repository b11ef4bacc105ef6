"""Several processes on one storage."""

import asyncio

import pytest
from child_processes import Counter, increment_by_open, increment_by_update

from gramkeep import Sessions
from gramkeep.storage_url import storage_from_url

from .backends import STARTERS
from .hammer import PROCESSES, Hammer

each_backend = pytest.mark.parametrize("backend", STARTERS, indirect=True)


@each_backend
@pytest.mark.parametrize("increment", [increment_by_open, increment_by_update])
async def test_eight_processes_hammering_one_storage_lose_nothing(
    processes, backend, tmp_path, increment
):
    hammer = Hammer(processes, backend.url, tmp_path)
    async with hammer.at_work(hammer.job(), increment):
        pass
    await hammer.assert_nothing_was_lost()
    told = hammer.acknowledged()
    assert len(told) == PROCESSES
    assert all(told.values()), "a process never had its turn"
    assert hammer.total("unavailable") == 0
    if storage_from_url(backend.url).can_lease:
        assert hammer.total("conflicts") == 0
    elif increment is increment_by_open:
        # They do meet, and who comes second is told: without this, the test would show nothing.
        assert hammer.total("conflicts") > 0


@each_backend
async def test_eight_optimistic_processes_lose_nothing_that_was_acknowledged(
    processes, backend, tmp_path
):
    hammer = Hammer(processes, backend.url, tmp_path)
    job = hammer.job(seconds=1, options={"isolation": "optimistic"})
    async with hammer.at_work(job):
        pass
    await hammer.assert_nothing_was_lost()
    assert hammer.total("conflicts") > 0


@each_backend
async def test_workers_killed_in_their_handlers_lose_nothing_that_was_acknowledged(
    processes, backend, tmp_path
):
    hammer = Hammer(processes, backend.url, tmp_path)
    options = {"lease": 1.0} if storage_from_url(backend.url).can_lease else {}
    job = hammer.job(seconds=0, pause=0.005, options=options)
    async with hammer.at_work(job):
        for number in range(0, PROCESSES, 2):
            while not hammer.acknowledged().get(number):
                await asyncio.sleep(0.01)
            hammer.kill(number)
        await asyncio.sleep(1)  # in which others take over what the dead had
    await hammer.assert_nothing_was_lost(uncertain=hammer.killed * job.at_once)
    async with Sessions(initial=Counter, storage=backend.url, **job.options) as sessions:
        for number in range(job.keys):  # of which all are free again
            async with asyncio.timeout(20), sessions.open(f"key-{number}") as session:
                session.data.count += 1
