"""Several processes on one storage."""

from collections import Counter

import pytest
from child_processes import Counter as State
from child_processes import increment_by_open, increment_by_update

from gramkeep import Sessions

PROCESSES, TIMES, KEYS = 4, 500, 8


@pytest.mark.parametrize("increment", [increment_by_open, increment_by_update])
@pytest.mark.parametrize("url", ["sqlite:///{}/bot.db", "file://{}/sessions"])
async def test_four_processes_hammering_one_storage_lose_nothing(
    processes, tmp_path, increment, url
):
    url = url.format(tmp_path)
    results = processes.Queue()
    workers = [
        processes.Process(target=increment, args=(url, f"writer-{number}", TIMES, KEYS, results))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    conflicts = dict(results.get(timeout=100) for _ in workers)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES

    async with Sessions(initial=State, storage=url) as sessions:
        states = {key: state async for key, state in sessions.items()}
    assert {key: state.count for key, state in states.items()} == {
        f"key-{number}": sum(1 for n in range(TIMES) if n % KEYS == number) * PROCESSES
        for number in range(KEYS)
    }
    by_writer = Counter()
    for state in states.values():
        by_writer.update(state.writers)
    assert by_writer == {f"writer-{number}": TIMES for number in range(PROCESSES)}
    if increment is increment_by_open:
        # They do meet, and who comes second is told: without this, the test would show nothing.
        assert sum(conflicts.values()) > 0
