"""Several processes on one SQLite file."""

import json
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from child_processes import increment_by_open, increment_by_update

PROCESSES, TIMES, KEYS = 4, 500, 8


@pytest.mark.parametrize("increment", [increment_by_open, increment_by_update])
def test_four_processes_hammering_one_file_lose_nothing(processes, tmp_path, increment):
    path = tmp_path / "bot.db"
    results = processes.Queue()
    workers = [
        processes.Process(
            target=increment, args=(f"sqlite:///{path}", f"writer-{number}", TIMES, KEYS, results)
        )
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    conflicts = dict(results.get(timeout=100) for _ in workers)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT key, value FROM gramkeep_sessions").fetchall()
    states = {key: json.loads(value) for key, value in rows}
    assert {key: state["count"] for key, state in states.items()} == {
        f"key-{number}": sum(1 for n in range(TIMES) if n % KEYS == number) * PROCESSES
        for number in range(KEYS)
    }
    by_writer = Counter()
    for state in states.values():
        by_writer.update(state["writers"])
    assert by_writer == {f"writer-{number}": TIMES for number in range(PROCESSES)}
    if increment is increment_by_open:
        # They do meet, and who comes second is told: without this, the test would show nothing.
        assert sum(conflicts.values()) > 0
