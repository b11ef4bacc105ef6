"""Several processes on one storage."""

import pytest
from child_processes import Job, increment_by_open, increment_by_update

from gramkeep.storage_url import storage_from_url

from .hammer import PROCESSES, Hammer


@pytest.mark.parametrize("increment", [increment_by_open, increment_by_update])
async def test_eight_processes_hammering_one_storage_lose_nothing(processes, url, increment):
    hammer = Hammer(processes, url)
    async with hammer.at_work(Job(), increment):
        pass
    await hammer.assert_nothing_was_lost()
    assert len(hammer.told) == PROCESSES
    assert all(told.counts for told in hammer.told.values()), "a process never had its turn"
    if storage_from_url(url).can_lease:
        assert hammer.conflicts == 0
    elif increment is increment_by_open:
        # They do meet, and who comes second is told: without this, the test would show nothing.
        assert hammer.conflicts > 0


async def test_eight_optimistic_processes_lose_nothing_that_was_acknowledged(processes, url):
    hammer = Hammer(processes, url)
    async with hammer.at_work(Job(options={"isolation": "optimistic"})):
        pass
    await hammer.assert_nothing_was_lost()
    assert hammer.conflicts > 0
